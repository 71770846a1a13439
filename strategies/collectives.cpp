#include "strategies/collectives.hpp"

#include <algorithm>
#include <bit>
#include <map>

namespace trainyard::strategies {
namespace {

using sim::Bytes;
using sim::CollectiveKind;
using sim::Duration;

const topology::Protocol& protocol_of(const topology::Protocols& protocols, ProtocolKind kind) {
  switch (kind) {
    case ProtocolKind::simple:
      return protocols.simple;
    case ProtocolKind::ll128:
      return protocols.ll128;
    case ProtocolKind::ll:
      return protocols.ll;
  }
  return protocols.simple;
}

std::int64_t log2_rounded_up(std::int64_t n) {
  return n <= 1 ? 0 : static_cast<std::int64_t>(std::bit_width(static_cast<std::uint64_t>(n - 1)));
}

// Steps of a ring over n members, and the share steps/n of the vector that every member sends.
std::int64_t ring_steps(CollectiveKind kind, std::int64_t n) {
  switch (kind) {
    case CollectiveKind::all_reduce:
      return 2 * (n - 1);
    case CollectiveKind::all_gather:
    case CollectiveKind::reduce_scatter:
      return n - 1;
    case CollectiveKind::broadcast:
    case CollectiveKind::reduce:
      return n;  // the whole vector, in pipeline
    default:
      return 0;
  }
}

// What an algorithm needs before latencies and rates are put in.
struct Work {
  std::int64_t intra_hops = 0;
  std::int64_t inter_hops = 0;
  Bytes link_bytes{};    // on a member's link inside its node
  Bytes rail_bytes{};    // on a rail of its node
  Bytes wire_bytes{};    // sent by a member
  bool in_turn = false;  // the links are used one after the other instead of together
};

std::optional<Work> ring(const GroupShape& shape, CollectiveKind kind, Bytes bytes) {
  const std::int64_t n = shape.members;
  const std::int64_t steps = ring_steps(kind, n);
  if (steps == 0) return std::nullopt;
  Work work;
  const std::int64_t crossings = kind == CollectiveKind::all_reduce ? 2 * (shape.nodes - 1) : shape.nodes - 1;
  const bool pipelined = kind == CollectiveKind::broadcast || kind == CollectiveKind::reduce;
  work.inter_hops = crossings;
  work.intra_hops = (pipelined ? n - 1 : steps) - crossings;
  work.wire_bytes = sim::scaled(bytes, steps, n);
  if (shape.most_per_node > 1) work.link_bytes = work.wire_bytes;
  if (shape.nodes > 1) work.rail_bytes = sim::scaled(bytes, steps, n * shape.rails);
  return work;
}

std::optional<Work> tree(const GroupShape& shape, CollectiveKind kind, Bytes bytes) {
  if (kind != CollectiveKind::all_reduce && kind != CollectiveKind::barrier) return std::nullopt;
  Work work;
  if (shape.nodes == 1) {
    work.intra_hops = 2 * log2_rounded_up(shape.members);
  } else {
    work.intra_hops = 2 * (shape.most_per_node - 1);  // a chain inside each node
    work.inter_hops = 2 * log2_rounded_up(shape.nodes);
  }
  // Two trees of half the vector, each member inner in one and leaf in the other: it sends and receives twice the
  // vector.
  work.wire_bytes = bytes * 2;
  if (shape.most_per_node > 1) work.link_bytes = work.wire_bytes;
  if (shape.nodes > 1) work.rail_bytes = sim::scaled(work.wire_bytes, 1, shape.rails);
  return work;
}

std::optional<Work> direct(const GroupShape& shape, CollectiveKind kind, Bytes bytes) {
  const std::int64_t n = shape.members;
  Work work;
  std::int64_t exchanges = 1;
  switch (kind) {
    case CollectiveKind::all_reduce:
      exchanges = 2;
      break;
    case CollectiveKind::all_gather:
    case CollectiveKind::reduce_scatter:
    case CollectiveKind::all_to_all:
      break;
    default:
      return std::nullopt;
  }
  (shape.nodes > 1 ? work.inter_hops : work.intra_hops) = exchanges;
  work.wire_bytes = sim::scaled(bytes, exchanges * (n - 1), n);
  const std::int64_t neighbours = shape.most_per_node - 1;
  work.link_bytes = sim::scaled(bytes, exchanges * neighbours, n);
  // All members of a node send to all members elsewhere over the node's rails.
  if (shape.nodes > 1)
    work.rail_bytes = sim::scaled(bytes, exchanges * (n - shape.most_per_node) * shape.most_per_node, n * shape.rails);
  return work;
}

// Reduce-scatter inside the nodes, rings of like positions across, all-gather inside.
std::optional<Work> hierarchical(const GroupShape& shape, CollectiveKind kind, Bytes bytes) {
  const std::int64_t g = shape.most_per_node;
  if (kind != CollectiveKind::all_reduce || shape.nodes == 1 || g == 1 || g * shape.nodes != shape.members)
    return std::nullopt;
  Work work;
  work.in_turn = true;
  work.intra_hops = 2 * (g - 1);
  work.inter_hops = 2 * (shape.nodes - 1);
  work.link_bytes = sim::scaled(bytes, 2 * (g - 1), g);
  work.rail_bytes = sim::scaled(bytes, 2 * (shape.nodes - 1), shape.nodes * shape.rails);
  work.wire_bytes = work.link_bytes + sim::scaled(bytes, 2 * (shape.nodes - 1), shape.nodes * g);
  return work;
}

sim::CommunicationCost point_to_point(const topology::CollectiveTuning& tuning, const GroupShape& shape,
                                      CollectiveKind kind, Bytes bytes) {
  const bool inside = shape.nodes == 1;
  const double efficiency = inside ? tuning.point_to_point_intra_efficiency : tuning.point_to_point_inter_efficiency;
  sim::CommunicationCost cost;
  cost.duration = tuning.point_to_point_latency + shape.link_latency + shape.switch_latency +
                  sim::time_for(bytes, sim::scaled(inside ? shape.link_rate : shape.rail_rate, efficiency));
  cost.algorithm = static_cast<std::uint8_t>(Algorithm::direct) * protocol_names.size();
  if (kind == CollectiveKind::send) cost.wire_bytes = bytes;
  (inside ? cost.nvlink_bytes : cost.nic_bytes) = bytes;
  return cost;
}

}  // namespace

std::optional<sim::CommunicationCost> collective_cost(const topology::CollectiveTuning& tuning, const GroupShape& shape,
                                                      CollectiveKind kind, Bytes bytes, Algorithm algorithm,
                                                      ProtocolKind protocol) {
  std::optional<Work> work;
  switch (algorithm) {
    case Algorithm::ring:
      work = ring(shape, kind, bytes);
      break;
    case Algorithm::tree:
      work = tree(shape, kind, bytes);
      break;
    case Algorithm::direct:
      work = direct(shape, kind, bytes);
      break;
    case Algorithm::hierarchical:
      work = hierarchical(shape, kind, bytes);
      break;
  }
  if (!work) return std::nullopt;
  const topology::Protocol& intra = protocol_of(tuning.intra, protocol);
  const topology::Protocol& inter = protocol_of(tuning.inter, protocol);
  Duration links{};
  Duration rails{};
  if (work->link_bytes.count > 0)
    links = sim::time_for(work->link_bytes, sim::scaled(shape.link_rate, intra.efficiency));
  if (work->rail_bytes.count > 0)
    rails = sim::time_for(work->rail_bytes, sim::scaled(shape.rail_rate, inter.efficiency));
  sim::CommunicationCost cost;
  cost.duration = tuning.base + intra.hop * work->intra_hops + (inter.hop + shape.switch_latency) * work->inter_hops +
                  (work->in_turn ? links + rails : std::max(links, rails));
  cost.wire_bytes = work->wire_bytes;
  cost.algorithm = static_cast<std::uint8_t>(static_cast<std::size_t>(algorithm) * protocol_names.size() +
                                             static_cast<std::size_t>(protocol));
  cost.nvlink_bytes = work->link_bytes;
  cost.nic_bytes = sim::scaled(work->rail_bytes, shape.rails, shape.most_per_node);
  return cost;
}

CollectiveChoice choose(const topology::CollectiveTuning& tuning, const GroupShape& shape, CollectiveKind kind,
                        Bytes bytes) {
  CollectiveChoice best;
  if (shape.members == 1) return best;
  if (kind == CollectiveKind::send || kind == CollectiveKind::receive) {
    best.algorithm = Algorithm::direct;
    best.cost = point_to_point(tuning, shape, kind, bytes);
    return best;
  }
  bool found = false;
  for (const Algorithm algorithm : {Algorithm::ring, Algorithm::tree, Algorithm::direct}) {
    // Direct exchange of parts is how NCCL does all-to-all, and nothing else.
    if ((algorithm == Algorithm::direct) != (kind == CollectiveKind::all_to_all)) continue;
    for (const ProtocolKind protocol : {ProtocolKind::simple, ProtocolKind::ll128, ProtocolKind::ll}) {
      const auto cost = collective_cost(tuning, shape, kind, bytes, algorithm, protocol);
      if (!cost || (found && cost->duration >= best.cost.duration)) continue;
      best = {.algorithm = algorithm, .protocol = protocol, .cost = *cost};
      found = true;
    }
  }
  sim::ensure(found, "every collective has an algorithm");
  return best;
}

namespace {

using topology::Cluster;
using topology::DeviceId;
using topology::LinkId;

// The devices of a communicator by node, in the order of its members.
struct Placement {
  std::vector<std::int64_t> nodes;             // in order of appearance
  std::vector<std::vector<DeviceId>> devices;  // on each of them
  std::vector<std::vector<DeviceId>> by_rail;  // one device per NIC that the members on the node use
  std::int64_t rails = 0;
  std::int64_t most_per_node = 0;
};

Placement place(const sim::CommunicatorTable& table, const sim::Communicator& communicator, const Cluster& cluster) {
  Placement placement;
  std::map<std::int64_t, std::size_t> index;
  for (std::uint32_t i = 0; i < communicator.member_count; ++i) {
    const DeviceId device{static_cast<std::uint32_t>(sim::index_of(table.member(communicator, i)))};
    const std::int64_t node = cluster.node_of(device);
    const auto [entry, fresh] = index.try_emplace(node, placement.nodes.size());
    if (fresh) {
      placement.nodes.push_back(node);
      placement.devices.emplace_back();
      placement.by_rail.emplace_back();
    }
    placement.devices[entry->second].push_back(device);
    auto& rails = placement.by_rail[entry->second];
    const bool known =
        std::ranges::any_of(rails, [&](DeviceId other) { return cluster.nic_of(other) == cluster.nic_of(device); });
    if (!known) rails.push_back(device);
  }
  for (std::size_t i = 0; i < placement.nodes.size(); ++i) {
    const auto rails = static_cast<std::int64_t>(placement.by_rail[i].size());
    placement.rails = placement.rails == 0 ? rails : std::min(placement.rails, rails);
    placement.most_per_node = std::max(placement.most_per_node, static_cast<std::int64_t>(placement.devices[i].size()));
  }
  return placement;
}

// Calls `visit(route)` for every way between nodes that the group's rings (or its one transfer) take.
template <class Visit>
void for_each_route(const Placement& placement, const Cluster& cluster, bool pair, Visit visit) {
  const std::size_t count = placement.nodes.size();
  if (count < 2) return;
  for (std::size_t i = 0; i < (pair ? 1 : count); ++i) {
    const std::size_t next = (i + 1) % count;
    for (std::size_t rail = 0; rail < static_cast<std::size_t>(placement.rails); ++rail)
      visit(cluster.route(placement.by_rail[i][rail], placement.by_rail[next][rail]));
  }
}

bool is_pair(const sim::CommunicatorTable& table, const sim::Communicator& communicator) {
  return communicator.member_count == 2 && table.member_slot(communicator, 0) != table.member_slot(communicator, 1);
}

GroupShape shape_of(const Placement& placement, const Cluster& cluster, const sim::Communicator& communicator,
                    bool pair, const sim::Table<LinkId, double>& load) {
  GroupShape shape{.members = communicator.member_count,
                   .nodes = static_cast<std::int64_t>(placement.nodes.size()),
                   .rails = placement.rails,
                   .most_per_node = placement.most_per_node,
                   .link_rate = cluster.node().link_rate,
                   .rail_rate = cluster.nic_rate(),
                   .switch_latency = {}};
  const double own = 1.0 / static_cast<double>(placement.rails);
  int switches = 0;
  for_each_route(placement, cluster, pair, [&](const topology::Route& route) {
    switches = std::max(switches, route.switches);
    for (const LinkId link : route.links)
      shape.rail_rate = std::min(shape.rail_rate, sim::scaled(cluster.links()[link].capacity, own / load[link]));
  });
  shape.switch_latency = cluster.fabric().switch_latency * switches;
  if (pair)
    for (const LinkId link : cluster.route(placement.devices.front().front(), placement.devices.back().back()).links)
      shape.link_latency += cluster.links()[link].latency;
  return shape;
}

}  // namespace

void price_communications(sim::Plan& plan, const Cluster& cluster) {
  for (const std::string_view algorithm : algorithm_names)
    for (const std::string_view protocol : protocol_names)
      plan.algorithms.push_back(std::string(algorithm) + " " + std::string(protocol));

  sim::CommunicatorTable& table = plan.communicators;
  std::map<std::pair<sim::SlotId, sim::SlotId>, std::vector<sim::CommunicatorId>> of_slot;
  for (std::size_t i = 0; i < table.size(); ++i) {
    const sim::CommunicatorId id{static_cast<std::uint32_t>(i)};
    const sim::Communicator& communicator = table[id];
    of_slot[{table.member_slot(communicator, 0), table.member_slot(communicator, communicator.member_count - 1)}]
        .push_back(id);
  }

  for (const auto& [slots, communicators] : of_slot) {
    std::vector<Placement> placements;
    sim::Table<LinkId, double> load(cluster.links().size(), 0.0);
    for (const sim::CommunicatorId id : communicators) {
      placements.push_back(place(table, table[id], cluster));
      const double weight = 1.0 / static_cast<double>(placements.back().rails);
      for_each_route(placements.back(), cluster, is_pair(table, table[id]), [&](const topology::Route& route) {
        for (const LinkId link : route.links) load[link] += weight;
      });
    }
    std::map<GroupShape, sim::CostClassId> classes;
    for (std::size_t i = 0; i < communicators.size(); ++i) {
      sim::Communicator& communicator = table[communicators[i]];
      const GroupShape shape = shape_of(placements[i], cluster, communicator, is_pair(table, communicator), load);
      auto known = classes.find(shape);
      if (known == classes.end()) {
        std::vector<sim::CommunicationCost> row(plan.calls.size());
        for (std::size_t c = 0; c < plan.calls.size(); ++c) {
          const sim::Call& call = plan.calls[plan.calls.id(c)];
          if (call.slot == slots.first || call.slot == slots.second)
            row[c] = choose(cluster.node().collectives, shape, call.kind, call.bytes).cost;
        }
        known = classes.emplace(shape, plan.costs.add(std::move(row))).first;
      }
      communicator.cost = known->second;
    }
  }
}

}  // namespace trainyard::strategies
