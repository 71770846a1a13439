// What nccl-tests would print on a cluster: sizes, times and bandwidths of one collective alone in the network.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/quantity.hpp"
#include "scenarios/scenario.hpp"
#include "sim/plan.hpp"
#include "topology/collective_tuning.hpp"

namespace trainyard::scenarios {

// With send_recv every rank sends to the next one, the last to the first, and receives from the one before.
enum class CollectiveOperation : std::uint8_t {
  all_reduce,
  all_gather,
  reduce_scatter,
  all_to_all,
  broadcast,
  reduce,
  send_recv
};
constexpr std::array<std::string_view, 7> operation_names{"all_reduce", "all_gather", "reduce_scatter", "all_to_all",
                                                          "broadcast",  "reduce",     "send_recv"};
constexpr std::string_view to_string(CollectiveOperation operation) {
  return operation_names[static_cast<std::size_t>(operation)];
}

struct CollectiveTime {
  topology::Algorithm algorithm = topology::Algorithm::ring;
  topology::ProtocolKind protocol = topology::ProtocolKind::simple;
  sim::Duration time{};
};

// Sizes as nccl-tests has them: of the gathered vector for all-gather and reduce-scatter, of what every rank holds for
// the others. Bandwidths in 10^9 B/s: the size over the time, and that times the factor that makes it comparable to
// what links carry (NVIDIA/nccl-tests doc/PERFORMANCE.md).
struct CollectiveRow {
  CollectiveOperation operation = CollectiveOperation::all_reduce;
  sim::Bytes bytes{};
  CollectiveTime chosen;
  std::optional<CollectiveTime> runner_up = {};  // what the library would take next; alone in the network as well
  double algorithm_bandwidth_gb_per_s = 0;
  double bus_bandwidth_gb_per_s = 0;
};

// "8:16GiB" (doubling from the first to the last), "1 GiB", "65536": without a unit bytes, as nccl-tests takes them.
Parsed<std::vector<sim::Bytes>> parse_sizes(std::string_view text);

struct CollectiveRequest {
  CollectiveOperation operation = CollectiveOperation::all_reduce;
  std::vector<sim::Bytes> sizes;
  std::optional<topology::Algorithm> algorithm = {};  // instead of what the library would choose
};

// All devices of the scenario's cluster take part, whose nodes take over the algorithm that is asked for. Throws
// ScenarioError where there is only one device, or where the algorithm cannot do the operation there.
std::vector<CollectiveRow> simulate_collectives(Scenario& scenario, const CollectiveRequest& request);

std::string to_json(const std::vector<CollectiveRow>& rows);
std::string to_text(const Scenario& scenario, const std::vector<CollectiveRow>& rows);

}  // namespace trainyard::scenarios
