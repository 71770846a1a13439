#include "strategies/shared_ranks.hpp"

#include <algorithm>
#include <cmath>
#include <map>

namespace trainyard::strategies {
namespace {

using workloads::ContextExchange;
using workloads::TokenDispatcher;

// How many of `places` hold one of the `top_k` experts of a token, on average.
double places_reached(std::int64_t places, std::int64_t top_k) {
  const auto n = static_cast<double>(places);
  return n * (1 - std::pow(1 - 1 / n, static_cast<double>(top_k)));
}

bool goes_round(ContextExchange exchange) {
  return exchange == ContextExchange::ring || exchange == ContextExchange::all_to_all_and_ring;
}

// Ranks that differ from `first` only on the axis.
std::vector<sim::RankId> along(const RankGrid& grid, std::size_t axis, sim::RankId first) {
  std::vector<sim::RankId> ranks;
  for (std::int64_t i = 0; i < grid.size(axis); ++i) ranks.push_back(grid.moved(first, axis, i));
  return ranks;
}

template <class Visit>
void for_each_group(const RankGrid& grid, std::size_t axis, Visit visit) {
  for (std::int64_t i = 0; i < grid.ranks(); ++i) {
    const sim::RankId rank{static_cast<std::uint32_t>(i)};
    if (grid.coordinate(rank, axis) == 0) visit(along(grid, axis, rank));
  }
}

// The members of a group by their scale-up domain, in the order of the domains.
std::map<std::int64_t, std::vector<sim::RankId>> by_domain(const topology::Cluster& cluster,
                                                           const std::vector<sim::RankId>& ranks) {
  std::map<std::int64_t, std::vector<sim::RankId>> domains;
  for (const sim::RankId rank : ranks)
    domains[cluster.domain_of(topology::DeviceId{static_cast<std::uint32_t>(sim::index_of(rank))})].push_back(rank);
  return domains;
}

void add_group(sim::CommunicatorTable& table, const std::vector<sim::RankId>& ranks, sim::SlotId slot) {
  if (ranks.size() > 1) table.add(ranks, std::vector<sim::SlotId>(ranks.size(), slot));
}

}  // namespace

ContextCommunication context_communication(PlanBuilder& builder, ContextExchange exchange, std::int64_t ranks) {
  ContextCommunication context{.exchange = exchange, .ranks = ranks};
  if (goes_round(exchange)) {
    context.send = builder.stream("context send");
    context.receive = builder.stream("context receive");
    context.next = builder.slot("next in context ring");
    context.previous = builder.slot("previous in context ring");
  } else {
    context.send = builder.stream("context parallel");
  }
  if (exchange != ContextExchange::ring) context.group = builder.slot("context");
  return context;
}

void connect_context(sim::CommunicatorTable& table, const RankGrid& grid, std::size_t axis,
                     const ContextCommunication& context) {
  connect_context(table, grid, axis, axis, context);
}

void connect_context(sim::CommunicatorTable& table, const RankGrid& grid, std::size_t group_axis, std::size_t ring_axis,
                     const ContextCommunication& context) {
  const bool gathers_in_ring = context.pytorch_ring && context.pytorch_ring->gathers;
  if (context.exchange != ContextExchange::ring || gathers_in_ring)
    add_groups(table, grid, {group_axis}, context.group);
  if (!goes_round(context.exchange)) return;
  for_each_group(grid, ring_axis, [&](const std::vector<sim::RankId>& ranks) {
    for (std::size_t i = 0; ranks.size() > 1 && i < ranks.size(); ++i)
      table.add({ranks[i], ranks[(i + 1) % ranks.size()]}, {context.next, context.previous});
  });
}

ExpertPlaces expert_places(const topology::Cluster& cluster, const RankGrid& grid, std::size_t axis) {
  ExpertPlaces places{.domains = 0, .per_domain = 0};
  for_each_group(grid, axis, [&](const std::vector<sim::RankId>& ranks) {
    const auto domains = by_domain(cluster, ranks);
    const auto count = static_cast<std::int64_t>(domains.size());
    for (const auto& [domain, members] : domains) {
      const auto size = static_cast<std::int64_t>(members.size());
      if (places.domains == 0) places = {.domains = count, .per_domain = size};
      if (places.domains != count || places.per_domain != size) places.even = false;
    }
  });
  return places;
}

ExpertCommunication expert_communication(PlanBuilder& builder, const ExpertGroups& groups, const ExpertPlaces& places) {
  ExpertCommunication expert{.dispatcher = groups.dispatcher, .tensor_ranks = groups.tensor_ranks};
  expert.stream = builder.stream("expert parallel");
  // Gathering takes the tokens of all that share the experts, or each of them, at once.
  if (groups.dispatcher == TokenDispatcher::all_gather) {
    if (groups.ranks * groups.tensor_ranks > 1) expert.group = builder.slot("expert");
    return expert;
  }
  if (groups.tensor_ranks > 1) expert.tensor = builder.slot("expert tensor");
  if (groups.ranks == 1) return expert;
  if (groups.dispatcher == TokenDispatcher::all_to_all) {
    expert.group = builder.slot("expert");
    return expert;
  }
  const auto copies = [&](std::int64_t count) {
    return places_reached(count, groups.top_k) / static_cast<double>(groups.top_k);
  };
  ExpertCommunication::Fused fused{.copies_per_row = copies(groups.ranks)};
  if (!places.even || places.per_domain > 1) expert.group = builder.slot("expert");
  if (places.even && places.domains > 1) {
    fused.network = builder.stream("expert parallel between nodes");
    fused.nodes = builder.slot("expert nodes");
    fused.node_copies_per_row = copies(places.domains);
    if (groups.most_nodes > 0)
      fused.node_copies_per_row = std::min(fused.node_copies_per_row,
                                           static_cast<double>(groups.most_nodes) / static_cast<double>(groups.top_k));
  }
  expert.fused = fused;
  return expert;
}

void connect_experts(sim::CommunicatorTable& table, const topology::Cluster& cluster, const RankGrid& grid,
                     std::size_t axis, std::size_t tensor_axis, const ExpertCommunication& expert) {
  if (expert.tensor) add_groups(table, grid, {tensor_axis}, *expert.tensor);
  if (expert.dispatcher == TokenDispatcher::all_gather) {
    if (expert.group) add_groups(table, grid, {tensor_axis, axis}, *expert.group);
    return;
  }
  if (!expert.fused || !expert.fused->nodes) {
    if (expert.group) add_groups(table, grid, {axis}, *expert.group);
    return;
  }
  for_each_group(grid, axis, [&](const std::vector<sim::RankId>& ranks) {
    const auto domains = by_domain(cluster, ranks);
    if (expert.group)
      for (const auto& [domain, members] : domains) add_group(table, members, *expert.group);
    for (std::size_t position = 0; position < domains.begin()->second.size(); ++position) {
      std::vector<sim::RankId> across;
      for (const auto& [domain, members] : domains) across.push_back(members[position]);
      add_group(table, across, *expert.fused->nodes);
    }
  });
}

}  // namespace trainyard::strategies
