// What collectives cost: which links an algorithm uses on the routes it really takes, and for how long.
//
// Alone in the network, an operation on S bytes (for all-gather and reduce-scatter: the gathered size) takes
//     base + hops inside nodes x intra hop + hops between nodes x inter hop + the slowest link's bytes / its rate
// with the hops, the latencies per hop and the shares of the nominal rate of the library's protocols
// (CollectiveTuning). Steps and volumes are the alpha-beta forms of Thakur, Rabenseifner and Gropp (IJHPCA 2005) for
// rings, and of Sanders, Speck and Traff (ParCo 2009) for the double binary tree; latencies along a ring over nodes
// follow NCCL (NVIDIA/nccl src/graph/tuning.cc): of 2(n-1) steps, 2(nodes-1) cross the network.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "sim/plan.hpp"
#include "topology/cluster.hpp"

namespace trainyard::strategies {

enum class Algorithm : std::uint8_t { ring, tree, direct, hierarchical };
constexpr std::array<std::string_view, 4> algorithm_names{"ring", "tree", "direct", "hierarchical"};
enum class ProtocolKind : std::uint8_t { simple, ll128, ll };
constexpr std::array<std::string_view, 3> protocol_names{"simple", "ll128", "ll"};

// What matters of a group of devices and of its neighbours that communicate at the same time.
struct GroupShape {
  std::int64_t members = 1;
  std::int64_t nodes = 1;
  std::int64_t rails = 1;           // NICs of a node that the group's rings can use, the least over its nodes
  std::int64_t most_per_node = 1;   // members on one node
  sim::BytesPerSecond link_rate{};  // of a member inside its node
  sim::BytesPerSecond rail_rate{};  // of one rail, where other groups share NICs or uplinks: the group's part
  sim::Duration switch_latency{};   // of the fabric's switches on the longest hop
  sim::Duration link_latency{};     // of a pair's links and adapters; the hops of collectives have it in them
  auto operator<=>(const GroupShape&) const = default;
};

struct CollectiveChoice {
  Algorithm algorithm = Algorithm::ring;
  ProtocolKind protocol = ProtocolKind::simple;
  sim::CommunicationCost cost;
};

// One algorithm and protocol; nothing where the algorithm does not apply (trees only reduce to all, for example).
std::optional<sim::CommunicationCost> collective_cost(const topology::CollectiveTuning& tuning, const GroupShape& shape,
                                                      sim::CollectiveKind kind, sim::Bytes bytes, Algorithm algorithm,
                                                      ProtocolKind protocol);

// The fastest of what the library has: ring and tree for all-reduce, ring for all-gather, reduce-scatter, broadcast and
// reduce, direct exchange for all-to-all and point to point.
CollectiveChoice choose(const topology::CollectiveTuning& tuning, const GroupShape& shape, sim::CollectiveKind kind,
                        sim::Bytes bytes);

// Fills plan.costs and the communicators' cost classes: rank r drives device r. All groups of a slot are taken to be
// active at once, so that they share the NICs and uplinks that they have in common evenly.
void price_communications(sim::Plan& plan, const topology::Cluster& cluster);

}  // namespace trainyard::strategies
