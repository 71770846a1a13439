// The two forms of a result: JSON for programs, a summary for people.
#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "scenarios/diagnostics.hpp"
#include "scenarios/inference.hpp"
#include "scenarios/internal/breakdown_words.hpp"
#include "scenarios/internal/goodput_report.hpp"
#include "scenarios/internal/path_report.hpp"
#include "scenarios/internal/text.hpp"
#include "scenarios/quantity.hpp"
#include "scenarios/simulate.hpp"
#include "scenarios/what_if.hpp"
#include "workloads/architecture.hpp"

namespace trainyard::scenarios {
namespace {

using Json = nlohmann::ordered_json;

Json communication_json(const std::vector<CommunicationSummary>& communication) {
  Json rows = Json::array();
  for (const CommunicationSummary& row : communication)
    rows.push_back({{"purpose", sim::to_string(row.purpose)},
                    {"operation", sim::to_string(row.operation)},
                    {"count", row.count},
                    {"bytes", row.bytes},
                    {"wire_bytes", row.wire_bytes},
                    {"busy_s", row.busy_s},
                    {"exposed_s", row.exposed_s}});
  return rows;
}

Json memory_json(const MemorySummary& memory) {
  Json json{{"capacity_bytes", memory.capacity},
            {"peak_bytes", memory.peak},
            {"allocated_bytes", memory.allocated},
            {"last_rank_allocated_bytes", memory.last_rank_allocated}};
  for (std::size_t i = 0; i < sim::memory_purposes; ++i)
    json[std::string(sim::to_string(static_cast<sim::MemoryPurpose>(i)))] = memory.parts.at(i);
  json["overhead"] = memory.overhead;
  json["fits"] = memory.fits;
  json["peak_rank"] = memory.peak_rank;
  if (memory.fits) return json;
  Json largest = Json::array();
  for (const MemoryPart& part : memory.largest) largest.push_back({{"what", part.what}, {"bytes", part.bytes}});
  Json changes = Json::array();
  for (const MemoryChange& change : memory.changes)
    changes.push_back({{"set", change.settings}, {"peak_bytes", change.peak}, {"fits", change.fits}});
  json["largest"] = largest;
  json["changes"] = changes;
  return json;
}

Json links_json(const std::vector<LinkSummary>& links) {
  Json rows = Json::array();
  for (const LinkSummary& link : links)
    rows.push_back({{"kind", topology::to_string(link.kind)},
                    {"count", link.count},
                    {"utilization_mean", link.utilization_mean},
                    {"utilization_peak", link.utilization_peak},
                    {"busiest", link.busiest}});
  return rows;
}

void set_if(Json& json, const char* key, const std::optional<double>& value) {
  if (value) json[key] = *value;
}

Json cost_json(const CostSummary& cost) {
  Json json{{"currency", cost.currency}};
  if (cost.paid) {
    const CostSummary::Paid& paid = *cost.paid;
    json["price"] = paid.price;
    json["price_date"] = paid.date;
    json["market"] = to_string(paid.market);
    json["price_per_device_hour"] = paid.per_device_hour;
    json["per_hour"] = paid.per_hour;
    json["hardware_per_hour"] = paid.hardware_per_hour;
    json["storage_per_hour"] = paid.storage_per_hour;
    json["energy_per_hour"] = paid.energy_per_hour;
    json["support_per_hour"] = paid.support_per_hour;
    json["staff_per_hour"] = paid.staff_per_hour;
    json["per_step"] = paid.per_step;
    set_if(json, "per_million_tokens", paid.per_million_tokens);
  }
  if (cost.energy) {
    json["device_power_w"] = cost.energy->device_w;
    json["power_w_per_device"] = cost.energy->all_w;
    json["energy_kwh_per_step"] = cost.energy->kwh_per_step;
    json["carbon_kg_per_step"] = cost.energy->carbon_kg_per_step;
  }
  return json;
}

Json run_json(const RunSummary& run) {
  Json json{{"steps", run.steps}, {"days", run.days}, {"device_hours", run.device_hours}};
  set_if(json, "energy_kwh", run.energy_kwh);
  set_if(json, "energy_cost", run.energy_cost);
  set_if(json, "carbon_kg", run.carbon_kg);
  set_if(json, "cost", run.cost);
  return json;
}

Json breakdown_json(const Breakdown& breakdown) {
  Json json;
  for (std::size_t i = 0; i < breakdown_names.size(); ++i) json[std::string(breakdown_names.at(i))] = breakdown.at(i);
  return json;
}

Json inference_json(const InferenceSummary& inference) {
  return {{"prefill_s", inference.prefill_s},
          {"time_per_token_s", inference.time_per_token_s},
          {"request_s", inference.request_s},
          {"tokens_per_s", inference.tokens_per_s},
          {"replicas", inference.replicas},
          {"batch", inference.batch},
          {"largest_batch", inference.largest_batch},
          {"kv_cache_bytes", inference.kv_cache_bytes},
          {"kv_cache_bytes_per_token", inference.kv_cache_bytes_per_token},
          {"weights_bytes", inference.weights_bytes},
          {"prefill_compute_utilization", inference.prefill_compute_utilization},
          {"decode_memory_utilization", inference.decode_memory_utilization},
          {"prefill_breakdown_s", breakdown_json(inference.prefill_breakdown_s)},
          {"decode_breakdown_s", breakdown_json(inference.decode_breakdown_s)}};
}

Json what_if_json(const std::vector<WhatIf>& answers) {
  Json json;
  for (const WhatIf& answer : answers) json[answer.change] = answer.step_time_s;
  return json;
}

// Leaves out what means nothing where nothing is trained.
Json with_inference(Json json, const InferenceSummary& inference) {
  json["inference"] = inference_json(inference);
  for (const char* of_training : {"micro_batch", "micro_batches", "recompute", "links", "faulty_links"})
    json.erase(of_training);
  return json;
}

}  // namespace

std::string to_json(const Result& result) {
  Json json{{"schema", 1},
            {"scenario", result.scenario},
            {"seed", result.seed},
            {"devices", result.devices},
            {"parallelism",
             {{"data", result.parallelism.data},
              {"tensor", result.parallelism.tensor},
              {"pipeline", result.parallelism.pipeline},
              {"context", result.parallelism.context},
              {"expert", result.parallelism.expert}}},
            {"micro_batch", result.micro_batch},
            {"micro_batches", result.micro_batches},
            {"recompute", result.recompute},
            {"step_time_s", result.step_time_s},
            {"samples_per_s", result.samples_per_s},
            {"tokens_per_s", result.tokens_per_s},
            {"tokens_per_s_per_device", result.tokens_per_s_per_device},
            {"model_tflops_per_device", result.model_tflops_per_device},
            {"hardware_tflops_per_device", result.hardware_tflops_per_device},
            {"mfu", result.mfu},
            {"mfu_full_attention", result.mfu_full_attention},
            {"hfu", result.hfu},
            {"device_busy", result.device_busy},
            {"breakdown_s", breakdown_json(result.breakdown_s)}};
  if (result.critical_path) {
    json["critical_path_s"] = breakdown_json(result.critical_path->breakdown_s);
    json["critical_path"] = path_json(*result.critical_path);
  }
  json.update({{"ideal_step_time_s", result.ideal_step_time_s},
               {"communication_overhead", result.communication_overhead},
               {"memory", memory_json(result.memory)},
               {"communication", communication_json(result.communication)},
               {"links", links_json(result.links)},
               {"faulty_links", result.faulty_links},
               {"cost", cost_json(result.cost)},
               {"goodput", goodput_json(result.goodput)}});
  if (result.run) json["run"] = run_json(*result.run);
  if (!result.what_if.empty()) json["what_if"] = what_if_json(result.what_if);
  json["engine"] = {{"wall_s", result.engine.wall_s}, {"peak_rss_bytes", result.engine.peak_rss_bytes},
                    {"events", result.engine.events}, {"operations", result.engine.operations},
                    {"ranks", result.engine.ranks},   {"rank_classes", result.engine.rank_classes}};
  json["warnings"] = result.warnings;
  if (result.inference) json = with_inference(std::move(json), *result.inference);
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

namespace {

std::string gibibytes(std::int64_t bytes) { return fixed(static_cast<double>(bytes) / (1LL << 30), 1) + " GiB"; }

std::string breakdown_text(const Result& result) {
  std::string text = "\nWhere the step goes, on an average device\n";
  for (std::size_t i = 0; i < breakdown_names.size(); ++i) {
    const double seconds = result.breakdown_s.at(i);
    if (seconds <= 0) continue;
    const double share = seconds / result.step_time_s;
    text += "  " + padded_right(breakdown_words.at(i), 22) + padded_left(format_seconds(seconds), 9) +
            padded_left(percent(share), 9) + "  " + bar(share) + "\n";
  }
  return text;
}

// "on demand" for "on_demand".
std::string spaced(std::string_view name) {
  std::string text{name};
  std::ranges::replace(text, '_', ' ');
  return text;
}

std::string cost_text(const Result& result) {
  const CostSummary& cost = result.cost;
  std::string text;
  if (cost.paid) {
    const CostSummary::Paid& paid = *cost.paid;
    text += "  cost           " + format_money(paid.per_hour, cost.currency) + " an hour";
    if (paid.per_million_tokens)
      text += ", " + format_money(*paid.per_million_tokens, cost.currency) + " per million tokens";
    else
      text += ", " + format_money(paid.per_step, cost.currency) + " a step";
    text += " (" + format_money(paid.per_device_hour, cost.currency) + " per device-hour: " + printable(paid.price) +
            ", " + spaced(to_string(paid.market)) + (paid.date.empty() ? "" : ", " + printable(paid.date)) + ")\n";
  }
  if (cost.energy)
    text += "  energy         " + format_energy(cost.energy->kwh_per_step) + " a step; " +
            format_power(cost.energy->all_w) + " per device with host, network and cooling (" +
            format_power(cost.energy->device_w) + " the device itself)\n";
  if (!result.run) return text;
  const RunSummary& run = *result.run;
  text += "  whole run      " + format_count(run.days) + " days, " + format_count(run.device_hours) + " device-hours";
  if (run.energy_kwh) text += ", " + format_energy(*run.energy_kwh);
  if (run.cost) text += ", " + format_money(*run.cost, cost.currency);
  return text + "\n";
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

// What holds the memory, and what to change.
std::string memory_advice(const MemorySummary& memory) {
  std::string text;
  std::size_t width = 22;
  for (const MemoryPart& part : memory.largest) width = std::max(width, part.what.size());
  for (const MemoryChange& change : memory.changes) width = std::max(width, joined(change.settings).size());
  const auto line = [&](const std::string& what, std::int64_t bytes) {
    text += "  " + padded_right(what, width) + padded_left(gibibytes(bytes), 11) + "\n";
  };
  if (!memory.largest.empty()) text += "\nWhat takes most of it\n";
  for (const MemoryPart& part : memory.largest) line(part.what, part.bytes);
  if (memory.changes.empty()) return text;
  text += memory.changes.front().fits ? "\nIt would fit with one of these (--set)\n"
                                      : "\nNothing that was tried makes it fit; this comes closest (--set)\n";
  for (const MemoryChange& change : memory.changes) line(joined(change.settings), change.peak);
  return text;
}

std::string memory_text(const Result& result) {
  const MemorySummary& memory = result.memory;
  std::string text = "\nMemory of the fullest device (rank " + std::to_string(memory.peak_rank) + ")\n";
  const auto line = [&](std::string_view name, std::int64_t bytes) {
    if (bytes > 0) text += "  " + padded_right(name, 22) + padded_left(gibibytes(bytes), 11) + "\n";
  };
  for (std::size_t i = 0; i < sim::memory_purposes; ++i)
    line(sim::to_string(static_cast<sim::MemoryPurpose>(i)), memory.parts.at(i));
  line("overhead", memory.overhead);
  text += "  " + padded_right("in all", 22) + padded_left(gibibytes(memory.peak), 11) + " of " +
          gibibytes(memory.capacity) + (memory.fits ? ": fits" : ": DOES NOT FIT") + "\n";
  return text + (memory.fits ? "" : memory_advice(memory));
}

std::string communication_text(const Result& result) {
  if (result.communication.empty()) return "";
  std::string text = "\nCommunication per device and step\n  " + padded_right("purpose", 10) +
                     padded_right("operation", 16) + padded_left("calls", 8) + padded_left("bytes", 12) +
                     padded_left("on the wire", 13) + padded_left("busy", 10) + padded_left("exposed", 10) + "\n";
  for (const CommunicationSummary& row : result.communication)
    text += "  " + padded_right(sim::to_string(row.purpose), 10) + padded_right(sim::to_string(row.operation), 16) +
            padded_left(fixed(row.count, row.count < 10 ? 1 : 0), 8) +
            padded_left(format_bytes({static_cast<std::int64_t>(row.bytes)}), 12) +
            padded_left(format_bytes({static_cast<std::int64_t>(row.wire_bytes)}), 13) +
            padded_left(format_seconds(row.busy_s), 10) + padded_left(format_seconds(row.exposed_s), 10) + "\n";
  return text;
}

std::string links_text(const Result& result) {
  std::string text;
  for (const LinkSummary& link : result.links) {
    if (link.utilization_peak == 0) continue;
    if (text.empty())
      text = "\nLinks, use of their capacity over the step\n  " + padded_right("kind", 10) + padded_left("count", 10) +
             padded_left("mean", 9) + padded_left("busiest", 10) + "\n";
    text += "  " + padded_right(topology::to_string(link.kind), 10) + padded_left(std::to_string(link.count), 10) +
            padded_left(percent(link.utilization_mean), 9) + padded_left(percent(link.utilization_peak), 10) + "  " +
            link.busiest + "\n";
  }
  for (std::size_t i = 0; i < result.faulty_links.size() && i < 8; ++i)
    text += "  degraded or broken: " + result.faulty_links[i] + "\n";
  if (result.faulty_links.size() > 8)
    text += "  and " + std::to_string(result.faulty_links.size() - 8) + " more links with faults\n";
  return text;
}

}  // namespace

std::string links_to_csv(std::span<const LinkRow> rows) {
  std::string text = "kind,link,bytes,capacity_bytes_per_s,utilization";
  for (std::size_t p = 0; p < sim::purposes; ++p)
    text += "," + std::string(sim::to_string(static_cast<sim::Purpose>(p))) + "_bytes";
  text += "\n";
  for (const LinkRow& row : rows) {
    text += std::string(topology::to_string(row.kind)) + "," + row.name + "," + std::to_string(row.bytes.count) + "," +
            std::to_string(row.capacity.count) + "," + fixed(row.utilization, 6);
    for (const sim::Bytes bytes : row.uses) text += "," + std::to_string(bytes.count);
    text += "\n";
  }
  return text;
}

std::string memory_to_csv(std::span<const MemoryRow> rows) {
  std::string text = "time_s";
  for (std::size_t i = 0; i < sim::memory_purposes; ++i)
    text += "," + std::string{to_string(static_cast<sim::MemoryPurpose>(i))};
  text += ",allocated\n";
  for (const MemoryRow& row : rows) {
    text += fixed(row.time_s, 9);
    std::int64_t sum = 0;
    for (const std::int64_t bytes : row.allocated) {
      text += "," + std::to_string(bytes);
      sum += bytes;
    }
    text += "," + std::to_string(sum) + "\n";
  }
  return text;
}

std::string to_summary(const Scenario& scenario, const Result& result) {
  if (scenario.inference) return inference_summary(scenario, result, cost_text(result));
  const strategies::Parallelism& p = result.parallelism;
  std::string text = printable(result.scenario) + "\n";
  text += "  " + std::to_string(result.devices) +
          (scenario.other_nodes.empty() ? " x " + printable(scenario.accelerator.name) : " devices") + " on " +
          std::to_string(scenario.nodes) + " x " + printable(scenario.node.name);
  for (const topology::Cluster::Group& group : scenario.other_nodes)
    text += " and " + std::to_string(group.nodes) + " x " + printable(group.node.name);
  text += ", " + printable(scenario.fabric.name) + "\n";
  text += "  " + printable(scenario.model.name) + ", " +
          format_count(static_cast<double>(workloads::parameters(scenario.model))) + " parameters, " +
          std::to_string(scenario.training.global_batch) +
          (scenario.model.has_tokens() ? " x " + std::to_string(scenario.training.sequence) + " tokens" : " samples") +
          " a step, " + std::string(workloads::to_string(scenario.training.precision)) + "\n";
  text += "  " + scenario.framework + ": data " + std::to_string(p.data) + ", tensor " + std::to_string(p.tensor) +
          ", pipeline " + std::to_string(p.pipeline) + "; " + std::to_string(result.micro_batches) +
          " micro-batches of " + std::to_string(result.micro_batch) + ", recompute " + result.recompute +
          (scenario.training.automatic_recompute ? " (the least that fits)" : "") + "\n\n";
  text += "  step time      " + format_seconds(result.step_time_s) + "\n";
  const bool tokens = scenario.model.has_tokens();
  const double rate = tokens ? result.tokens_per_s : result.samples_per_s;
  text += "  throughput     " + format_count(rate) + (tokens ? " tokens/s, " : " samples/s, ") +
          format_count(rate / static_cast<double>(result.devices)) + " per device\n";
  text += "  utilisation    MFU " + percent(result.mfu) + " (" + fixed(result.model_tflops_per_device, 0) +
          " TFLOP/s per device" +
          (result.mfu_full_attention > result.mfu
               ? "; " + percent(result.mfu_full_attention) + " counting attention in full"
               : "") +
          "), HFU " + percent(result.hfu) + ", device busy " + percent(result.device_busy) + "\n";
  if (result.ideal_step_time_s > 0)
    text += "  communication  " + percent(result.communication_overhead) + " of the step; " +
            format_seconds(result.ideal_step_time_s) + " on an ideal network\n";
  text += cost_text(result);
  text += breakdown_text(result) + path_text(result) + communication_text(result) + links_text(result) +
          memory_text(result) + goodput_text(result.goodput) + what_if_text(result);
  text += "\nSimulated in " + format_seconds(result.engine.wall_s) + ": " +
          format_count(static_cast<double>(result.engine.operations)) + " operations on " +
          std::to_string(result.engine.ranks) + " ranks of " + std::to_string(result.engine.rank_classes) +
          (result.engine.rank_classes == 1 ? " kind\n" : " kinds\n");
  return text;
}

}  // namespace trainyard::scenarios
