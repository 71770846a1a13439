#include "scenarios/collectives.hpp"

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/text.hpp"
#include "sim/executor.hpp"
#include "strategies/collectives.hpp"
#include "strategies/traffic.hpp"

namespace trainyard::scenarios {
namespace {

using sim::CollectiveKind;

constexpr sim::SlotId world{0};  // also "the next rank"
constexpr sim::SlotId previous{1};
constexpr sim::StreamId sending{0};
constexpr sim::StreamId receiving{1};

CollectiveKind kind_of(CollectiveOperation operation) {
  switch (operation) {
    case CollectiveOperation::all_reduce:
      return CollectiveKind::all_reduce;
    case CollectiveOperation::all_gather:
      return CollectiveKind::all_gather;
    case CollectiveOperation::reduce_scatter:
      return CollectiveKind::reduce_scatter;
    case CollectiveOperation::all_to_all:
      return CollectiveKind::all_to_all;
    case CollectiveOperation::broadcast:
      return CollectiveKind::broadcast;
    case CollectiveOperation::reduce:
      return CollectiveKind::reduce;
    case CollectiveOperation::send_recv:
      return CollectiveKind::send;
  }
  return CollectiveKind::all_reduce;
}

// Of NVIDIA/nccl-tests doc/PERFORMANCE.md.
double bus_factor(CollectiveOperation operation, std::int64_t members) {
  const auto n = static_cast<double>(members);
  switch (operation) {
    case CollectiveOperation::all_reduce:
      return 2 * (n - 1) / n;
    case CollectiveOperation::all_gather:
    case CollectiveOperation::reduce_scatter:
    case CollectiveOperation::all_to_all:
      return (n - 1) / n;
    default:
      return 1;
  }
}

// A step that is one call and nothing else.
sim::Plan plan_for(CollectiveOperation operation, sim::Bytes bytes, std::int64_t devices) {
  const auto count = static_cast<std::size_t>(devices);
  const bool pairs = operation == CollectiveOperation::send_recv;
  sim::Plan plan;
  plan.streams.add("send");
  plan.slots.add("world");
  if (pairs) {
    plan.streams.add("receive");
    plan.slots.add("previous");
  }
  plan.communicators = sim::CommunicatorTable(count, plan.slots.size());
  std::vector<sim::RankId> ranks;
  for (std::size_t i = 0; i < count; ++i) ranks.push_back(sim::RankId{static_cast<std::uint32_t>(i)});
  if (pairs) {
    for (std::size_t i = 0; i < count; ++i)
      plan.communicators.add({ranks[i], ranks[(i + 1) % count]}, {world, previous});
  } else {
    plan.communicators.add(ranks, std::vector<sim::SlotId>(count, world));
  }
  sim::Block block;
  block.name = to_string(operation);
  const sim::CallId call = plan.calls.add({.slot = world, .kind = kind_of(operation), .bytes = bytes});
  block.ops.push_back({.stream = sending, .work = sim::Communicate{call}});
  if (pairs) {
    const sim::CallId back = plan.calls.add({.slot = previous, .kind = CollectiveKind::receive, .bytes = bytes});
    block.ops.push_back({.stream = receiving, .work = sim::Communicate{back}});
  }
  sim::Program program;
  program.name = to_string(operation);
  program.calls.push_back({.block = plan.blocks.add(std::move(block))});
  const sim::ProgramId id = plan.programs.add(std::move(program));
  for (std::size_t i = 0; i < count; ++i) plan.program_of.add(id);
  return plan;
}

CollectiveRow simulate_one(const topology::Cluster& cluster, CollectiveOperation operation, sim::Bytes bytes) {
  sim::Plan plan = plan_for(operation, bytes, cluster.devices());
  const strategies::CollectiveChoice choice =
      strategies::choice_of(plan, cluster, sim::CommunicatorId{0}, sim::CallId{0});
  strategies::price_communications(plan, cluster);
  const sim::Outcome outcome = sim::run(plan);
  if (!outcome.stall.empty()) throw std::logic_error("a single collective stalls: " + outcome.stall);
  CollectiveRow row{.operation = operation,
                    .bytes = bytes,
                    .chosen = {.algorithm = choice.algorithm, .protocol = choice.protocol, .time = outcome.step_time}};
  if (choice.runner_up)
    row.runner_up = {.algorithm = choice.runner_up->algorithm,
                     .protocol = choice.runner_up->protocol,
                     .time = choice.runner_up->cost.duration};
  row.algorithm_bandwidth_gb_per_s = static_cast<double>(bytes.count) / sim::to_seconds(row.chosen.time) * 1e-9;
  row.bus_bandwidth_gb_per_s = row.algorithm_bandwidth_gb_per_s * bus_factor(operation, cluster.devices());
  return row;
}

[[noreturn]] void does_not_apply(topology::Algorithm algorithm, CollectiveOperation operation,
                                 const topology::Cluster& cluster) {
  const auto name = [](topology::Algorithm one) {
    return std::string(topology::algorithm_names.at(static_cast<std::size_t>(one)));
  };
  throw ScenarioError({"--algorithm", 0, 0}, name(algorithm) + " cannot do " + std::string(to_string(operation)) +
                                                 " on these " + std::to_string(cluster.devices()) +
                                                 " devices; choose another or auto");
}

double microseconds(sim::Duration duration) { return sim::to_seconds(duration) * 1e6; }

std::string_view name_of(topology::Algorithm algorithm) {
  return topology::algorithm_names.at(static_cast<std::size_t>(algorithm));
}
std::string_view name_of(topology::ProtocolKind protocol) {
  return topology::protocol_names.at(static_cast<std::size_t>(protocol));
}

}  // namespace

Parsed<std::vector<sim::Bytes>> parse_sizes(std::string_view text) {
  const auto one = [](std::string_view size) {
    const Parsed<std::int64_t> plain = parse_whole_number(size);
    return plain.value ? Parsed<sim::Bytes>{.value = sim::Bytes{*plain.value}, .error = {}} : parse_bytes(size);
  };
  const std::string got = ", got '" + std::string(text) + "'";
  const std::size_t colon = text.find(':');
  const Parsed<sim::Bytes> first = one(text.substr(0, colon));
  const Parsed<sim::Bytes> last = colon == std::string_view::npos ? first : one(text.substr(colon + 1));
  if (!first.value || !last.value)
    return {.value = {}, .error = "expected a size such as 1GiB, or two such as 8:16GiB" + got};
  if (first.value->count < 1 || *last.value < *first.value)
    return {.value = {}, .error = "expected sizes above zero, the smaller first" + got};
  std::vector<sim::Bytes> sizes;
  for (sim::Bytes size = *first.value; size <= *last.value; size = size * 2) sizes.push_back(size);
  return {.value = std::move(sizes), .error = {}};
}

std::vector<CollectiveRow> simulate_collectives(Scenario& scenario, const CollectiveRequest& request) {
  if (scenario.devices < 2)
    throw ScenarioError({scenario.file, 0, 0}, "a collective needs two devices, and the cluster has one");
  if (request.algorithm) {
    scenario.node.collectives.algorithm = request.algorithm;
    for (topology::Cluster::Group& group : scenario.other_nodes) group.node.collectives.algorithm = request.algorithm;
  }
  const topology::Cluster cluster = make_cluster(scenario);
  std::vector<CollectiveRow> rows;
  for (const sim::Bytes bytes : request.sizes) {
    try {
      rows.push_back(simulate_one(cluster, request.operation, bytes));
    } catch (const sim::TooLarge& error) {
      throw ScenarioError({"--bytes", 0, 0}, std::string("too large to simulate: ") + error.what());
    }
    if (request.algorithm && rows.back().chosen.algorithm != *request.algorithm)
      does_not_apply(*request.algorithm, request.operation, cluster);
  }
  return rows;
}

std::string to_json(const std::vector<CollectiveRow>& rows) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const CollectiveRow& row : rows) {
    nlohmann::ordered_json entry{{"operation", to_string(row.operation)},
                                 {"bytes", row.bytes.count},
                                 {"time_us", microseconds(row.chosen.time)},
                                 {"algorithm_bandwidth_gb_per_s", row.algorithm_bandwidth_gb_per_s},
                                 {"bus_bandwidth_gb_per_s", row.bus_bandwidth_gb_per_s},
                                 {"algorithm", name_of(row.chosen.algorithm)},
                                 {"protocol", name_of(row.chosen.protocol)},
                                 {"runner_up", nullptr}};
    if (row.runner_up)
      entry["runner_up"] = {{"algorithm", name_of(row.runner_up->algorithm)},
                            {"protocol", name_of(row.runner_up->protocol)},
                            {"time_us", microseconds(row.runner_up->time)}};
    list.push_back(std::move(entry));
  }
  return nlohmann::ordered_json{{"rows", list}}.dump(2) + "\n";
}

std::string to_text(const Scenario& scenario, const std::vector<CollectiveRow>& rows) {
  std::string text = scenario.name.empty() ? std::string{} : scenario.name + "\n";
  text += "  " + (rows.empty() ? std::string{} : std::string(to_string(rows.front().operation)) + " on ") +
          std::to_string(scenario.devices) + " x " + scenario.accelerator.name + " in " +
          std::to_string(scenario.nodes) + " x " + scenario.node.name + ", " + scenario.fabric.name + "\n\n";
  text += padded_left("bytes", 14) + padded_left("time us", 14) + padded_left("algbw GB/s", 12) +
          padded_left("busbw GB/s", 12) + "  " + padded_right("algorithm", 24) + "runner-up\n";
  for (const CollectiveRow& row : rows) {
    const auto named = [](const CollectiveTime& one) {
      return std::string(name_of(one.algorithm)) + " " + std::string(name_of(one.protocol));
    };
    const double time = microseconds(row.chosen.time);
    text += padded_left(std::to_string(row.bytes.count), 14) + padded_left(fixed(time, time < 1000 ? 2 : 1), 14) +
            padded_left(fixed(row.algorithm_bandwidth_gb_per_s, 2), 12) +
            padded_left(fixed(row.bus_bandwidth_gb_per_s, 2), 12) + "  ";
    if (row.runner_up)
      text += padded_right(named(row.chosen), 24) + named(*row.runner_up) + " in " +
              fixed(microseconds(row.runner_up->time), 1) + " us\n";
    else
      text += named(row.chosen) + "\n";
  }
  return text;
}

}  // namespace trainyard::scenarios
