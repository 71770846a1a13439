// What collectives cost: which links an algorithm uses, for how long, and which algorithm the library chooses.
//
// Alone in the network, an operation on S bytes (for all-gather and reduce-scatter: the gathered size; for all-to-all:
// what the member with most holds) takes
//     base + hops inside nodes x intra hop + hops between nodes x inter hop + the slowest link's bytes / its rate
// with the hops, the latencies per hop and the shares of the nominal rate that the platform's library reaches
// (topology::CollectiveTuning). Steps and volumes are the alpha-beta forms of Thakur, Rabenseifner and Gropp (IJHPCA
// 2005) for rings, halving and doubling, of Bruck et al. (IEEE TPDS 1997) for all-to-all in a logarithm of steps, and
// of Sanders, Speck and Traff (ParCo 2009) for the double binary tree; latencies along rings and trees over nodes
// follow NCCL (NVIDIA/nccl src/graph/tuning.cc): of 2(n-1) steps of a ring, 2(nodes-1) cross the network, and a tree
// is a chain inside each node.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "sim/plan.hpp"
#include "topology/collective_tuning.hpp"

namespace trainyard::strategies {

using topology::Algorithm;
using topology::algorithm_names;
using topology::protocol_names;
using topology::ProtocolKind;

// What matters of a group of devices. A node is what its devices' own links join: a host, a rack of NVLink, a slice.
struct GroupShape {
  std::int64_t members = 1;
  std::int64_t nodes = 1;
  std::int64_t rails = 1;           // NICs of a node that the group's rings can use, the least over its nodes
  std::int64_t most_per_node = 1;   // members on one node
  sim::BytesPerSecond link_rate{};  // of a member inside its node; of one link of a torus or of GPUs without a switch
  sim::BytesPerSecond rail_rate{};  // of one rail
  sim::Duration switch_latency{};   // of the fabric's switches on the longest hop
  sim::Duration link_latency{};     // of a pair's links and adapters; the hops of collectives have it in them
  std::int64_t rings = 0;           // GPUs without a switch: rings through the members of a node over different links
  std::array<std::int64_t, 3> torus{};  // members of a node along each axis of a torus that they fill; 0 or 1: none
  std::array<bool, 3> wraps{};          // the axis is closed
  bool sharp = false;                   // the network's switches reduce
  auto operator<=>(const GroupShape&) const = default;
};

struct CollectiveOption {
  Algorithm algorithm = Algorithm::ring;
  ProtocolKind protocol = ProtocolKind::simple;
  sim::CommunicationCost cost;
  double predicted_us = 0;  // by the library, to choose; 0 where it does not predict
};

struct CollectiveChoice {
  Algorithm algorithm = Algorithm::ring;
  ProtocolKind protocol = ProtocolKind::simple;
  sim::CommunicationCost cost;
  double predicted_us = 0;
  std::optional<CollectiveOption> runner_up;
};

// One algorithm and protocol; nothing where the algorithm does not apply to the operation or the group, or where the
// platform does not have the protocol.
std::optional<sim::CommunicationCost> collective_cost(const topology::CollectiveTuning& tuning, const GroupShape& shape,
                                                      sim::CollectiveKind kind, sim::Bytes bytes, Algorithm algorithm,
                                                      ProtocolKind protocol);

// What the library takes. NCCL's tuner chooses, and the platform's constants for the algorithm say how long it takes:
// the fastest of its protocols, since the library's own figures put the borders between protocols elsewhere. On a torus
// all its axes are used at once. Without a tuner, the fastest: ring and tree for all-reduce, ring for all-gather,
// reduce-scatter, broadcast and reduce. All-to-all and point to point are direct.
// `tuning.algorithm` is taken instead where it applies.
CollectiveChoice choose(const topology::CollectiveTuning& tuning, const GroupShape& shape, sim::CollectiveKind kind,
                        sim::Bytes bytes);

}  // namespace trainyard::strategies
