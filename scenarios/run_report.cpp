#include "scenarios/run_report.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "scenarios/internal/page_values.hpp"
#include "scenarios/internal/schedule_rows.hpp"
#include "scenarios/layers.hpp"
#include "scenarios/page.hpp"
#include "workloads/architecture.hpp"

namespace trainyard::scenarios {
namespace {

using Json = nlohmann::ordered_json;

// What a page holds of long lists; enough to look at, and together a few megabytes at most.
constexpr std::size_t most_links_of_a_kind = 150;
constexpr std::size_t most_layer_rows = 20'000;
constexpr std::size_t most_schedule_rows = 32;
constexpr std::size_t most_passes = 30'000;
constexpr std::size_t most_moments = 1'500;  // of memory: more than a screen has points

Json result_json(const Result& result) {
  Json json = Json::parse(to_json(result));
  json["engine"].erase("wall_s");
  json["engine"].erase("peak_rss_bytes");
  return json;
}

Json summary_json(const Scenario& scenario) {
  Json hardware = Json::array();
  hardware.push_back({{"nodes", scenario.nodes}, {"node", scenario.node.name}});
  for (const topology::Cluster::Group& group : scenario.other_nodes)
    hardware.push_back({{"nodes", group.nodes}, {"node", group.node.name}});
  return {{"accelerator", scenario.other_nodes.empty() ? scenario.accelerator.name : "devices"},
          {"hardware", hardware},
          {"fabric", scenario.fabric.name},
          {"model", scenario.model.name},
          {"parameters", workloads::parameters(scenario.model)},
          {"framework", scenario.framework},
          {"precision", workloads::to_string(scenario.training.precision)},
          {"global_batch", scenario.training.global_batch},
          {"sequence", scenario.training.sequence},
          {"has_tokens", scenario.model.has_tokens()}};
}

// Of neighbours in time, the one with the most allocated stays: peaks survive.
std::vector<MemoryRow> thinned(const std::vector<MemoryRow>& rows) {
  if (rows.size() <= most_moments) return rows;
  const auto allocated = [](const MemoryRow& row) {
    std::int64_t sum = 0;
    for (const std::int64_t bytes : row.allocated) sum += bytes;
    return sum;
  };
  const double from = rows.front().time_s;
  const double width = (rows.back().time_s - from) / static_cast<double>(most_moments);
  std::vector<MemoryRow> kept;
  std::int64_t bucket = -1;
  for (const MemoryRow& row : rows) {
    const auto here = static_cast<std::int64_t>(width > 0 ? (row.time_s - from) / width : 0);
    if (here != bucket)
      kept.push_back(row);
    else if (allocated(row) > allocated(kept.back()))
      kept.back() = row;
    bucket = here;
  }
  return kept;
}

Json memory_json(const Simulation& simulation) {
  const std::vector<MemoryRow> all = memory_rows(simulation);
  const std::vector<MemoryRow> rows = thinned(all);
  Json json{{"moments", all.size()}, {"time_s", Json::array()}};
  for (const MemoryRow& row : rows) json["time_s"].push_back(rounded(row.time_s));
  for (std::size_t p = 0; p < sim::memory_purposes; ++p) {
    Json values = Json::array();
    for (const MemoryRow& row : rows) values.push_back(row.allocated.at(p));
    json["allocated"][std::string{sim::to_string(static_cast<sim::MemoryPurpose>(p))}] = std::move(values);
  }
  return json;
}

// `count` of `size`, the first and the last among them, as evenly spread as they can be.
std::vector<std::size_t> spread(std::size_t size, std::size_t count) {
  std::vector<std::size_t> places;
  if (count >= size) count = size;
  for (std::size_t i = 0; i < count; ++i) places.push_back(count == 1 ? 0 : i * (size - 1) / (count - 1));
  return places;
}

// Fewer ranks rather than half of a step.
std::size_t shown_rows(const std::vector<ScheduleRow>& rows) {
  std::size_t passes = 1;
  for (const ScheduleRow& row : rows) passes = std::max(passes, row.passes.size());
  return std::max<std::size_t>(1, std::min({rows.size(), most_schedule_rows, most_passes / passes}));
}

// Passes as numbers in a row: phase, micro-batch, layer, start and duration, times in nanoseconds.
Json schedule_json(const Simulation& simulation) {
  constexpr std::size_t figures = 5;
  const std::vector<ScheduleRow> rows = schedule_rows(simulation.plan, simulation.outcome);
  Json json{{"phases", phase_names}, {"programs", simulation.plan.programs.size()}, {"rows", Json::array()}};
  const auto nanoseconds = [](sim::Duration duration) { return (duration.count() + 500) / 1000; };
  for (const std::size_t place : spread(rows.size(), shown_rows(rows))) {
    const ScheduleRow& row = rows[place];
    Json passes = Json::array();
    for (std::size_t i = 0; i < std::min(row.passes.size(), most_passes); ++i) {
      const Pass& pass = row.passes[i];
      const sim::Duration start = pass.start - simulation.outcome.measured_from;
      for (const std::int64_t figure :
           std::array<std::int64_t, figures>{static_cast<std::int64_t>(pass.phase), pass.micro_batch, pass.layer,
                                             nanoseconds(start), nanoseconds(pass.end - pass.start)})
        passes.push_back(figure);
    }
    json["rows"].push_back({{"program", row.program},
                            {"rank", sim::index_of(row.rank)},
                            {"left_out", row.passes.size() - passes.size() / figures},
                            {"passes", std::move(passes)}});
  }
  return json;
}

Json layers_json(const Simulation& simulation) {
  const std::vector<LayerRow> rows = layer_rows(simulation);
  Texts words;
  Json list = Json::array();
  for (std::size_t i = 0; i < std::min(rows.size(), most_layer_rows); ++i) {
    const LayerRow& row = rows[i];
    Json cells =
        Json::array({row.layer, words.place_of(row.block), words.place_of(row.operation), words.place_of(row.kind)});
    for (const double figure : {row.count, row.compute_s, row.flops, row.bytes, row.communication_bytes, row.wire_bytes,
                                row.busy_s, row.exposed_s})
      cells.push_back(rounded(figure));
    list.push_back(std::move(cells));
  }
  return {{"all", rows.size()}, {"words", words.all()}, {"rows", std::move(list)}};
}

// The busiest ones of each kind, of equals the first in the cluster.
Json links_json(const Scenario& scenario, const Simulation& simulation) {
  std::vector<LinkRow> rows = link_rows(scenario, simulation);
  std::ranges::stable_sort(rows, std::greater<>{}, &LinkRow::utilization);
  Json list = Json::array();
  std::map<topology::LinkKind, std::size_t> of_kind;
  for (const LinkRow& row : rows) {
    if (++of_kind[row.kind] > most_links_of_a_kind) continue;
    Json uses = Json::array();
    for (const sim::Bytes bytes : row.uses) uses.push_back(bytes.count);
    list.push_back({topology::to_string(row.kind), row.name, row.bytes.count, row.capacity.count,
                    rounded(row.utilization), std::move(uses)});
  }
  Json purposes = Json::array();
  for (std::size_t p = 0; p < sim::purposes; ++p) purposes.push_back(sim::to_string(static_cast<sim::Purpose>(p)));
  return {{"all", rows.size()}, {"purposes", std::move(purposes)}, {"rows", std::move(list)}};
}

}  // namespace

std::string run_report(const Scenario& scenario, const Simulation& simulation, const RunReport& report) {
  const std::string file = std::filesystem::path{scenario.file}.filename().string();
  const Json data{{"result", result_json(simulation.result)},
                  {"summary", summary_json(scenario)},
                  {"scenario", {{"file", file}, {"text", report.scenario_text}, {"overrides", report.overrides}}},
                  {"memory", memory_json(simulation)},
                  {"schedule", schedule_json(simulation)},
                  {"layers", layers_json(simulation)},
                  {"links", links_json(scenario, simulation)},
                  {"trace", report.trace}};
  return to_html({.title = scenario.name,
                  .made_from = "scenario " + file,
                  .kind = "run",
                  .data = data.dump(-1, ' ', false, Json::error_handler_t::replace)});
}

}  // namespace trainyard::scenarios
