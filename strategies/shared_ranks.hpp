// Streams, slots and groups of ranks that share sequences (context parallelism) or experts (expert parallelism).
#pragma once

#include <cstdint>
#include <vector>

#include "strategies/groups.hpp"
#include "strategies/layer_ops.hpp"
#include "strategies/plan_builder.hpp"
#include "topology/cluster.hpp"

namespace trainyard::strategies {

// Of `ranks` that share every sequence.
ContextCommunication context_communication(PlanBuilder& builder, workloads::ContextExchange exchange,
                                           std::int64_t ranks);
// The groups of ranks that differ only on `group_axis`, and the rings of those that differ only on `ring_axis`, as far
// as the exchange has them; `ranks` of a ContextCommunication are those of its collectives.
void connect_context(sim::CommunicatorTable& table, const RankGrid& grid, std::size_t group_axis, std::size_t ring_axis,
                     const ContextCommunication& context);
// Of one kind of exchange on one axis.
void connect_context(sim::CommunicatorTable& table, const RankGrid& grid, std::size_t axis,
                     const ContextCommunication& context);

// Where the ranks are that share the experts: over how many scale-up domains, with how many in each.
struct ExpertPlaces {
  std::int64_t domains = 1;
  std::int64_t per_domain = 1;
  bool even = true;  // as many in each, for every group
};
ExpertPlaces expert_places(const topology::Cluster& cluster, const RankGrid& grid, std::size_t axis);

struct ExpertGroups {
  workloads::TokenDispatcher dispatcher = workloads::TokenDispatcher::all_to_all;
  std::int64_t ranks = 1;         // that share the experts
  std::int64_t tensor_ranks = 1;  // that share each expert
  std::int64_t top_k = 1;
  std::int64_t most_nodes = 0;  // to which a token may go; 0: to all
};
// Fused dispatch counts the copies of a token as if its experts were chosen independently and uniformly: over n places
// n (1 - (1 - 1/n)^k).
ExpertCommunication expert_communication(PlanBuilder& builder, const ExpertGroups& groups, const ExpertPlaces& places);
// `axis`: of ranks that share the experts; `tensor_axis`: of those that share each expert.
void connect_experts(sim::CommunicatorTable& table, const topology::Cluster& cluster, const RankGrid& grid,
                     std::size_t axis, std::size_t tensor_axis, const ExpertCommunication& expert);

}  // namespace trainyard::strategies
