#include "strategies/collectives.hpp"

#include <algorithm>
#include <bit>
#include <span>
#include <vector>

#include "strategies/nccl_tuner.hpp"

namespace trainyard::strategies {
namespace {

using sim::Bytes;
using sim::BytesPerSecond;
using sim::CollectiveKind;
using sim::Duration;
using sim::TrafficPattern;
using topology::CollectiveTuning;
using topology::Protocol;
using topology::Protocols;

constexpr std::array<ProtocolKind, topology::protocol_kinds> protocols{ProtocolKind::simple, ProtocolKind::ll128,
                                                                       ProtocolKind::ll};

std::int64_t log2_rounded_up(std::int64_t n) {
  return n <= 1 ? 0 : static_cast<std::int64_t>(std::bit_width(static_cast<std::uint64_t>(n - 1)));
}
bool is_power_of_two(std::int64_t n) { return n > 0 && std::has_single_bit(static_cast<std::uint64_t>(n)); }

bool is_gather_or_scatter(CollectiveKind kind) {
  return kind == CollectiveKind::all_gather || kind == CollectiveKind::reduce_scatter;
}
bool is_rooted(CollectiveKind kind) { return kind == CollectiveKind::broadcast || kind == CollectiveKind::reduce; }

// An all-reduce scatters and gathers, each of the others here does one of that.
std::int64_t passes(CollectiveKind kind) { return kind == CollectiveKind::all_reduce ? 2 : 1; }

// How many connections share something.
struct Load {
  std::int64_t numerator = 0;
  std::int64_t denominator = 1;
};

// What an algorithm needs before latencies and rates are put in.
struct Work {
  TrafficPattern pattern = TrafficPattern::ring;
  std::int64_t intra_hops = 0;
  std::int64_t inter_hops = 0;
  Bytes flow{};              // of one connection
  Load on_port;              // connections on a member's link inside its node
  Load on_rail;              // and on a rail of its node
  Bytes link_first{};        // on a member's link inside its node before and after the connections flow
  Bytes link_bytes{};        // on a member's link inside its node, all in all
  Bytes rail_bytes{};        // on a rail of its node
  Bytes wire_bytes{};        // sent by a member
  bool hidden_hops = false;  // hops and bytes overlap: the longer of them counts
};

// Rings of different links that the members of a node have; a switch is one port.
std::int64_t lanes_of(const GroupShape& shape) { return std::max<std::int64_t>(1, shape.rings); }

bool is_even(const GroupShape& shape) { return shape.most_per_node * shape.nodes == shape.members; }

// The share of the vector that every member of a ring sends, in parts of 1/n; 0 where there is no ring.
std::int64_t ring_parts(CollectiveKind kind, std::int64_t n) {
  if (kind == CollectiveKind::all_reduce || is_gather_or_scatter(kind)) return passes(kind) * (n - 1);
  return is_rooted(kind) ? n : 0;  // rooted ones send the whole vector, in pipeline
}

// A rooted operation sends the vector n - 1 times, whatever the way: to all but the root, or from all but it.
std::optional<Bytes> sent_on_average(CollectiveKind kind, std::int64_t n, Bytes bytes) {
  if (!is_rooted(kind)) return std::nullopt;
  return sim::scaled(bytes, n - 1, n);
}

std::optional<Work> ring(const GroupShape& shape, CollectiveKind kind, Bytes bytes) {
  const std::int64_t n = shape.members;
  const std::int64_t parts = ring_parts(kind, n);
  if (parts == 0) return std::nullopt;
  Work work;
  work.inter_hops = passes(kind) * (shape.nodes - 1);
  work.intra_hops = (is_rooted(kind) ? n - 1 : parts) - work.inter_hops;
  work.wire_bytes = sent_on_average(kind, n, bytes).value_or(sim::scaled(bytes, parts, n));
  if (shape.most_per_node > 1) work.link_bytes = sim::scaled(bytes, parts, n);
  if (shape.nodes == 1) {
    work.flow = sim::scaled(bytes, parts, n * lanes_of(shape));
    work.on_port = {1, 1};
    return work;
  }
  work.flow = sim::scaled(bytes, parts, n * shape.rails);
  work.on_rail = {1, 1};
  if (shape.most_per_node > 1) work.on_port = {shape.rails, lanes_of(shape)};
  work.rail_bytes = work.flow;
  return work;
}

// Edges of two mirrored trees, each with half the vector, that the busiest of n members sends on for an all-reduce:
// inner in one tree it sends to its parent and two children, as a leaf of the other to its parent.
std::int64_t tree_edges(std::int64_t n) { return std::min<std::int64_t>(n, 4); }

// A node is one member of the trees, whose parts run up and down a chain of its devices.
std::optional<Work> tree(const GroupShape& shape, CollectiveKind kind, Bytes bytes) {
  const bool rooted = is_rooted(kind);
  if (kind != CollectiveKind::all_reduce && kind != CollectiveKind::barrier && !rooted) return std::nullopt;
  Work work;
  work.pattern = TrafficPattern::tree;
  const std::int64_t ways = rooted ? 1 : 2;
  work.intra_hops = ways * (shape.most_per_node - 1);
  work.inter_hops = ways * log2_rounded_up(shape.nodes);
  // Half the vector goes over an edge; a rooted operation uses it one way.
  const std::int64_t chain = rooted ? 2 : tree_edges(shape.most_per_node == 2 ? 2 : 4);
  if (shape.most_per_node > 1) work.link_bytes = sim::scaled(bytes, chain, 2);
  if (shape.nodes == 1) {
    work.flow = sim::scaled(bytes, 1, 2 * lanes_of(shape));
    work.on_port = {chain, 1};
    work.wire_bytes = sent_on_average(kind, shape.members, bytes).value_or(work.link_bytes);
    return work;
  }
  const std::int64_t edges = rooted ? 2 : tree_edges(shape.nodes);
  work.flow = sim::scaled(bytes, 1, 2 * shape.rails);
  work.on_rail = {edges, 1};
  work.rail_bytes = sim::scaled(bytes, edges, 2 * shape.rails);
  if (shape.most_per_node > 1) work.on_port = {chain * shape.rails, lanes_of(shape)};
  work.wire_bytes =
      sent_on_average(kind, shape.members, bytes).value_or(std::max(work.link_bytes, sim::scaled(bytes, edges, 2)));
  return work;
}

// Parts from every member to every other; `hops` at a time where they take turns.
std::optional<Work> exchange(const GroupShape& shape, CollectiveKind kind, Bytes bytes, std::int64_t parallel_peers,
                             bool one_by_one) {
  const bool all_to_all = kind == CollectiveKind::all_to_all;
  if (one_by_one ? !all_to_all : !all_to_all && kind != CollectiveKind::all_reduce && !is_gather_or_scatter(kind))
    return std::nullopt;
  const std::int64_t n = shape.members;
  const std::int64_t g = shape.most_per_node;
  Work work;
  work.pattern = TrafficPattern::pairs;
  const std::int64_t rounds = (n - 1 + parallel_peers - 1) / parallel_peers;
  if (one_by_one) {
    work.intra_hops = g - 1;
    work.inter_hops = n - g;
  } else {
    (shape.nodes > 1 ? work.inter_hops : work.intra_hops) = passes(kind) * rounds;
  }
  work.flow = sim::scaled(bytes, passes(kind), n);
  work.on_port = {g - 1, lanes_of(shape)};
  work.link_bytes = sim::scaled(bytes, passes(kind) * (g - 1), n);
  work.wire_bytes = sim::scaled(bytes, passes(kind) * (n - 1), n);
  if (shape.nodes > 1) {  // all members of a node send to all members elsewhere over the node's rails
    work.on_rail = {g * (n - g), shape.rails};
    work.rail_bytes = sim::scaled(bytes, passes(kind) * g * (n - g), n * shape.rails);
  }
  return work;
}

// Every member's parts ride along with those of others for a logarithm of steps, half of what it holds in each.
std::optional<Work> bruck(const GroupShape& shape, CollectiveKind kind, Bytes bytes) {
  if (kind != CollectiveKind::all_to_all) return std::nullopt;
  Work work;
  work.intra_hops = log2_rounded_up(shape.most_per_node);
  work.inter_hops = log2_rounded_up(shape.nodes);
  work.link_bytes = sim::scaled(bytes, work.intra_hops, 2);
  work.wire_bytes = sim::scaled(bytes, work.intra_hops + work.inter_hops, 2);
  if (shape.nodes == 1) {
    work.flow = work.link_bytes;
    work.on_port = {1, lanes_of(shape)};
    return work;
  }
  work.pattern = TrafficPattern::rails;
  work.link_first = work.link_bytes;
  work.flow = sim::scaled(bytes, work.inter_hops * shape.most_per_node, 2 * shape.rails);
  work.on_rail = {1, 1};
  work.rail_bytes = work.flow;
  return work;
}

struct Torus {
  std::int64_t members = 1;
  std::int64_t hops = 0;   // between its farthest members
  std::int64_t links = 0;  // of a member, over which it receives at once
  Load crossing;           // of the bytes that a member has for all others, what crosses the busiest link
};

std::optional<Torus> torus_of(const GroupShape& shape) {
  Torus torus;
  for (std::size_t axis = 0; axis < shape.torus.size(); ++axis) {
    const std::int64_t extent = shape.torus.at(axis);
    if (extent < 2) continue;
    const bool wraps = shape.wraps.at(axis);
    torus.members *= extent;
    torus.hops += wraps ? extent / 2 : extent - 1;
    torus.links += wraps ? 2 : 1;
    // A quarter of all bytes crosses the middle of the axis each way, over one link of a line and two of a ring.
    const Load crossing{extent, wraps ? 8 : 4};
    if (crossing.numerator * std::max<std::int64_t>(1, torus.crossing.denominator) >=
        torus.crossing.numerator * crossing.denominator)
      torus.crossing = crossing;
  }
  if (torus.members == 1 || torus.members != shape.most_per_node) return std::nullopt;
  return torus;
}

// Rings along all axes at once, each with its share of the vector.
std::optional<Work> multi_ring(const GroupShape& shape, CollectiveKind kind, Bytes bytes) {
  const std::optional<Torus> torus = torus_of(shape);
  if (!torus || shape.nodes > 1) return std::nullopt;
  const std::int64_t n = torus->members;
  Work work;
  work.pattern = TrafficPattern::torus;
  work.on_port = {1, 1};
  work.hidden_hops = true;
  work.intra_hops = passes(kind) * torus->hops;
  if (kind == CollectiveKind::all_to_all) {
    work.flow = sim::scaled(bytes, torus->crossing.numerator, torus->crossing.denominator);
    work.wire_bytes = sim::scaled(bytes, n - 1, n);
  } else {
    const std::int64_t parts = kind == CollectiveKind::barrier ? 1 : ring_parts(kind, n);
    if (parts == 0) return std::nullopt;
    work.flow = sim::scaled(bytes, parts, n * torus->links);
    work.wire_bytes = sim::scaled(bytes, parts, n);
  }
  work.link_bytes = work.wire_bytes;
  return work;
}

// A scatter inside the nodes, rings of like positions across, a gather inside; a gather or scatter does half of it.
std::optional<Work> hierarchical(const GroupShape& shape, CollectiveKind kind, Bytes bytes) {
  const std::int64_t g = shape.most_per_node;
  const bool applies = kind == CollectiveKind::all_reduce || is_gather_or_scatter(kind);
  if (!applies || shape.nodes == 1 || g == 1 || !is_even(shape)) return std::nullopt;
  const std::int64_t twice = passes(kind);
  const std::optional<Torus> torus = torus_of(shape);
  Work work;
  work.pattern = TrafficPattern::rails;
  work.intra_hops = twice * (torus ? torus->hops : g - 1);
  work.inter_hops = twice * (shape.nodes - 1);
  work.link_bytes = sim::scaled(bytes, twice * (g - 1), g);
  work.link_first = sim::scaled(bytes, twice * (g - 1), g * (torus ? torus->links : lanes_of(shape)));
  work.flow = sim::scaled(bytes, twice * (shape.nodes - 1), shape.nodes * shape.rails);
  work.on_rail = {1, 1};
  work.rail_bytes = work.flow;
  work.wire_bytes = work.link_bytes + sim::scaled(bytes, twice * (shape.nodes - 1), shape.nodes * g);
  return work;
}

// With the nearest partners, who get the largest parts, inside the node.
std::optional<Work> halving_doubling(const GroupShape& shape, CollectiveKind kind, Bytes bytes) {
  const std::int64_t g = shape.most_per_node;
  const bool applies = kind == CollectiveKind::all_reduce || is_gather_or_scatter(kind);
  if (!applies || !is_even(shape) || !is_power_of_two(g) || !is_power_of_two(shape.nodes)) return std::nullopt;
  const std::int64_t twice = passes(kind);
  Work work;
  work.intra_hops = twice * log2_rounded_up(g);
  work.inter_hops = twice * log2_rounded_up(shape.nodes);
  work.link_bytes = sim::scaled(bytes, twice * (g - 1), g);
  const Bytes on_link = sim::scaled(bytes, twice * (g - 1), g * lanes_of(shape));
  work.wire_bytes = sim::scaled(bytes, twice * (shape.members - 1), shape.members);
  if (shape.nodes == 1) {
    work.flow = on_link;
    work.on_port = {1, 1};
    return work;
  }
  work.pattern = TrafficPattern::rails;
  work.link_first = on_link;
  work.flow = sim::scaled(bytes, twice * (shape.nodes - 1), shape.nodes * shape.rails);
  work.on_rail = {1, 1};
  work.rail_bytes = work.flow;
  return work;
}

// The switch inside the node: a member's port carries its vector, and once more the share of it that the switch hands
// to or takes from it as the head of a channel. Over nodes the adapters carry the vector to switches that reduce.
std::optional<Work> nvls(const GroupShape& shape, CollectiveKind kind, Bytes bytes) {
  const std::int64_t g = shape.most_per_node;
  const bool reduces = kind == CollectiveKind::all_reduce;
  if ((!reduces && !is_gather_or_scatter(kind)) || g == 1 || shape.rings > 0) return std::nullopt;
  if (shape.nodes > 1 && (!shape.sharp || !reduces)) return std::nullopt;
  Work work;
  work.pattern = TrafficPattern::ports;
  work.intra_hops = 1;
  work.link_bytes = reduces ? sim::scaled(bytes, g + 1, g) : bytes;
  work.wire_bytes = work.link_bytes;
  if (shape.nodes == 1) {
    work.flow = work.link_bytes;
    work.on_port = {1, 1};
    return work;
  }
  work.inter_hops = 2;
  work.flow = sim::scaled(bytes, 1, shape.rails);
  work.on_rail = {1, 1};
  work.on_port = {shape.rails * (g + 1), g};
  work.rail_bytes = work.flow;
  return work;
}

std::optional<Work> nvls_tree(const GroupShape& shape, CollectiveKind kind, Bytes bytes) {
  const std::int64_t g = shape.most_per_node;
  if (kind != CollectiveKind::all_reduce || shape.nodes == 1 || g == 1 || shape.rings > 0) return std::nullopt;
  std::optional<Work> work = tree(shape, kind, bytes);
  work->intra_hops = 1;
  work->link_bytes = sim::scaled(bytes, g + 1, g);
  work->on_port = {2 * shape.rails * (g + 1), g};
  return work;
}

// Up to the network's switches and down again. Inside the node all members exchange directly, or pass on in a chain.
std::optional<Work> collnet(const GroupShape& shape, CollectiveKind kind, Bytes bytes, bool chain) {
  const std::int64_t g = shape.most_per_node;
  const bool reduces = kind == CollectiveKind::all_reduce;
  if (!shape.sharp || shape.nodes == 1) return std::nullopt;
  if (!reduces && (chain || !is_gather_or_scatter(kind))) return std::nullopt;
  Work work;
  work.pattern = TrafficPattern::ports;
  work.inter_hops = passes(kind);
  work.intra_hops = passes(kind) * (chain ? g - 1 : std::min<std::int64_t>(1, g - 1));
  const Load inside = chain ? Load{g == 2 ? 1 : 2, 1} : Load{passes(kind) * (g - 1), g};  // of the vector
  const Load across = reduces ? Load{1, 1} : Load{shape.nodes - 1, shape.nodes};
  work.flow = sim::scaled(bytes, across.numerator, across.denominator * shape.rails);
  work.on_rail = {1, 1};
  work.rail_bytes = work.flow;
  if (g > 1) {
    work.link_bytes = sim::scaled(bytes, inside.numerator, inside.denominator);
    work.on_port = {inside.numerator * across.denominator * shape.rails,
                    inside.denominator * across.numerator * lanes_of(shape)};
  }
  work.wire_bytes = std::max(work.link_bytes, sim::scaled(work.rail_bytes, shape.rails, g));
  return work;
}

// Logarithmic in steps and with the volume of a ring, for one member per node.
std::optional<Work> pat(const GroupShape& shape, CollectiveKind kind, Bytes bytes) {
  if (!is_gather_or_scatter(kind) || shape.nodes == 1 || shape.most_per_node > 1) return std::nullopt;
  Work work;
  work.inter_hops = log2_rounded_up(shape.nodes);
  work.flow = sim::scaled(bytes, shape.nodes - 1, shape.nodes * shape.rails);
  work.on_rail = {1, 1};
  work.rail_bytes = work.flow;
  work.wire_bytes = sim::scaled(bytes, shape.nodes - 1, shape.nodes);
  return work;
}

std::optional<Work> work_of(Algorithm algorithm, const CollectiveTuning& tuning, const GroupShape& shape,
                            CollectiveKind kind, Bytes bytes) {
  switch (algorithm) {
    case Algorithm::ring:
      return ring(shape, kind, bytes);
    case Algorithm::tree:
      return tree(shape, kind, bytes);
    case Algorithm::direct:
      return exchange(shape, kind, bytes, tuning.parallel_peers, false);
    case Algorithm::hierarchical:
      return hierarchical(shape, kind, bytes);
    case Algorithm::halving_doubling:
      return halving_doubling(shape, kind, bytes);
    case Algorithm::nvls:
      return nvls(shape, kind, bytes);
    case Algorithm::nvls_tree:
      return nvls_tree(shape, kind, bytes);
    case Algorithm::collnet_direct:
      return collnet(shape, kind, bytes, false);
    case Algorithm::collnet_chain:
      return collnet(shape, kind, bytes, true);
    case Algorithm::pat:
      return pat(shape, kind, bytes);
    case Algorithm::torus:
      return multi_ring(shape, kind, bytes);
    case Algorithm::bruck:
      return bruck(shape, kind, bytes);
    case Algorithm::pairwise:
      return exchange(shape, kind, bytes, tuning.parallel_peers, true);
  }
  return std::nullopt;
}

// The constants of one way to move data, inside nodes and between them.
struct Regime {
  std::optional<Protocol> intra;
  std::optional<Protocol> inter;
};

std::optional<Protocol> protocol_in(const Protocols& all, ProtocolKind kind) {
  if (kind == ProtocolKind::simple) return all.simple;
  return kind == ProtocolKind::ll128 ? all.ll128 : all.ll;
}

// What the platform has for an algorithm and a protocol. In the switches NCCL has one protocol, whose chunks shrink
// with the message: the platform's figures are a list.
std::vector<Regime> regimes_of(const CollectiveTuning& tuning, Algorithm algorithm, ProtocolKind kind) {
  const bool switches = algorithm == Algorithm::nvls || algorithm == Algorithm::nvls_tree;
  if (algorithm == Algorithm::tree)
    return {{.intra = protocol_in(tuning.tree_intra.value_or(tuning.intra), kind),
             .inter = protocol_in(tuning.tree_inter.value_or(tuning.inter), kind)}};
  if (!switches) return {{.intra = protocol_in(tuning.intra, kind), .inter = protocol_in(tuning.inter, kind)}};
  std::vector<Regime> regimes;
  if (kind != ProtocolKind::simple || tuning.nvls.empty()) return regimes;
  if (algorithm == Algorithm::nvls) {
    for (const Protocol& inside : tuning.nvls) regimes.push_back({.intra = inside, .inter = tuning.inter.simple});
    return regimes;
  }
  Protocol inside = *std::ranges::max_element(tuning.nvls, {}, &Protocol::efficiency);
  inside.hop = Duration{};  // the hops of trees over nodes were measured with it
  if (tuning.nvls_tree.empty())
    for (const ProtocolKind any : protocols)
      regimes.push_back({.intra = inside, .inter = protocol_in(tuning.tree_inter.value_or(tuning.inter), any)});
  for (const Protocol& between : tuning.nvls_tree) regimes.push_back({.intra = inside, .inter = between});
  return regimes;
}

BytesPerSecond share(BytesPerSecond rate, double efficiency, const Load& load) {
  return sim::scaled(sim::scaled(rate, efficiency), load.denominator, load.numerator);
}

std::optional<sim::CommunicationCost> cost_of(const Work& work, const Regime& regime, const CollectiveTuning& tuning,
                                              const GroupShape& shape) {
  const bool inside = shape.most_per_node > 1;
  const bool between = shape.nodes > 1;
  if ((inside && !regime.intra) || (between && !regime.inter)) return std::nullopt;
  const Protocol intra = regime.intra.value_or(Protocol{});
  const Protocol inter = regime.inter.value_or(Protocol{});

  sim::CommunicationCost cost;
  cost.pattern = work.pattern;
  cost.flow_bytes = work.flow;
  const bool on_port = work.on_port.numerator > 0;
  if (on_port) cost.flow_rate = share(shape.link_rate, intra.efficiency, work.on_port);
  if (work.on_rail.numerator > 0) {
    const BytesPerSecond on_rail = share(shape.rail_rate, inter.efficiency, work.on_rail);
    cost.flow_rate = on_port ? std::min(cost.flow_rate, on_rail) : on_rail;
  }
  const Duration flow = cost.flow_bytes.count > 0 ? sim::time_for(cost.flow_bytes, cost.flow_rate) : Duration{};
  Duration hops = intra.hop * work.intra_hops + (inter.hop + shape.switch_latency) * work.inter_hops;
  if (work.hidden_hops) hops = std::max(hops, flow) - flow;
  cost.latency = tuning.base + (between ? tuning.network_base : Duration{}) + hops;
  if (work.link_first.count > 0)
    cost.latency += sim::time_for(work.link_first, sim::scaled(shape.link_rate, intra.efficiency));
  cost.duration = cost.latency + flow;
  cost.wire_bytes = work.wire_bytes;
  cost.nvlink_bytes = work.link_bytes;
  cost.nic_bytes = sim::scaled(work.rail_bytes, shape.rails, shape.most_per_node);
  return cost;
}

std::uint8_t index_of(Algorithm algorithm, ProtocolKind protocol) {
  return static_cast<std::uint8_t>(static_cast<std::size_t>(algorithm) * protocol_names.size() +
                                   static_cast<std::size_t>(protocol));
}

// By its fastest protocol, whichever the library names.
std::optional<sim::CommunicationCost> fastest_cost(const CollectiveTuning& tuning, const GroupShape& shape,
                                                   CollectiveKind kind, Bytes bytes, Algorithm algorithm) {
  std::optional<sim::CommunicationCost> best;
  for (const ProtocolKind protocol : protocols) {
    const auto cost = collective_cost(tuning, shape, kind, bytes, algorithm, protocol);
    if (cost && (!best || cost->duration < best->duration)) best = cost;
  }
  return best;
}

NcclGroup group_of(const CollectiveTuning& tuning, const GroupShape& shape) {
  constexpr double giga = 1e9;
  return nccl_group(tuning.library, {.members = shape.members,
                                     .nodes = shape.nodes,
                                     .most_per_node = shape.most_per_node,
                                     .rails = shape.rails,
                                     .port_gb_per_s = static_cast<double>(shape.link_rate.count) / giga,
                                     .rail_gb_per_s = static_cast<double>(shape.rail_rate.count) / giga,
                                     .nvlink_rings = shape.rings,
                                     .sharp = shape.sharp});
}

// NCCL's order of preference, as far as the platform's constants go; of `only` one algorithm where that is given.
std::vector<CollectiveOption> tuned(const CollectiveTuning& tuning, const GroupShape& shape, const NcclGroup& group,
                                    CollectiveKind kind, Bytes bytes, std::optional<Algorithm> only) {
  std::vector<CollectiveOption> options;
  for (const NcclPrediction& prediction : nccl_predictions(tuning.library, group, kind, bytes)) {
    if (only && *only != prediction.algorithm) continue;
    auto cost = fastest_cost(tuning, shape, kind, bytes, prediction.algorithm);
    if (!cost) continue;
    cost->algorithm = index_of(prediction.algorithm, prediction.protocol);
    options.push_back({.algorithm = prediction.algorithm,
                       .protocol = prediction.protocol,
                       .cost = *cost,
                       .predicted_us = prediction.time_us});
    // A runner-up of the same algorithm differs by its protocol alone.
    if (options.size() == 1 || options.back().algorithm != options.front().algorithm) continue;
    if (auto own = collective_cost(tuning, shape, kind, bytes, prediction.algorithm, prediction.protocol))
      options.back().cost = *own;
  }
  return options;
}

// The fastest of these algorithms first.
std::vector<CollectiveOption> fastest(const CollectiveTuning& tuning, const GroupShape& shape, CollectiveKind kind,
                                      Bytes bytes, std::span<const Algorithm> candidates) {
  std::vector<CollectiveOption> options;
  for (const Algorithm algorithm : candidates)
    for (const ProtocolKind protocol : protocols)
      if (const auto cost = collective_cost(tuning, shape, kind, bytes, algorithm, protocol))
        options.push_back({.algorithm = algorithm, .protocol = protocol, .cost = *cost});
  std::ranges::stable_sort(options, {}, [](const CollectiveOption& option) { return option.cost.duration; });
  return options;
}

std::vector<Algorithm> usual_algorithms(const GroupShape& shape, CollectiveKind kind) {
  if (torus_of(shape)) {
    if (shape.nodes == 1) return {Algorithm::torus};
    if (kind == CollectiveKind::all_reduce || is_gather_or_scatter(kind)) return {Algorithm::hierarchical};
  }
  if (kind == CollectiveKind::all_to_all) return {Algorithm::direct};
  if (is_rooted(kind) || is_gather_or_scatter(kind)) return {Algorithm::ring};
  return {Algorithm::ring, Algorithm::tree};
}

sim::CommunicationCost point_to_point(const CollectiveTuning& tuning, const GroupShape& shape, CollectiveKind kind,
                                      Bytes bytes) {
  const bool inside = shape.nodes == 1;
  const double efficiency = inside ? tuning.point_to_point_intra_efficiency : tuning.point_to_point_inter_efficiency;
  sim::CommunicationCost cost;
  cost.pattern = TrafficPattern::pair;
  cost.latency = tuning.point_to_point_latency + shape.link_latency + shape.switch_latency;
  cost.flow_bytes = bytes;
  cost.flow_rate = sim::scaled(inside ? shape.link_rate : shape.rail_rate, efficiency);
  cost.duration = cost.latency + sim::time_for(cost.flow_bytes, cost.flow_rate);
  cost.algorithm = index_of(Algorithm::direct, ProtocolKind::simple);
  if (kind == CollectiveKind::send) cost.wire_bytes = bytes;
  (inside ? cost.nvlink_bytes : cost.nic_bytes) = bytes;
  return cost;
}

// A ring's members wait for each other once their channels' buffers are full; four buffers are one window of waiting.
Bytes phase_of(const CollectiveTuning& tuning, const GroupShape& shape, const NcclGroup& group,
               const CollectiveOption& option) {
  if (option.cost.pattern != TrafficPattern::ring) return {};
  const Bytes buffer = tuning.library.buffer.at(static_cast<std::size_t>(option.protocol));
  const std::int64_t connections = shape.nodes > 1 ? shape.rails : lanes_of(shape);
  const Bytes window = sim::scaled(buffer, 4 * group.ring.channels, connections);
  return window < option.cost.flow_bytes ? window : Bytes{};
}

}  // namespace

std::optional<sim::CommunicationCost> collective_cost(const CollectiveTuning& tuning, const GroupShape& shape,
                                                      CollectiveKind kind, Bytes bytes, Algorithm algorithm,
                                                      ProtocolKind protocol) {
  const std::optional<Work> work = work_of(algorithm, tuning, shape, kind, bytes);
  if (!work) return std::nullopt;
  std::optional<sim::CommunicationCost> best;
  for (const Regime& regime : regimes_of(tuning, algorithm, protocol)) {
    const auto cost = cost_of(*work, regime, tuning, shape);
    if (cost && (!best || cost->duration < best->duration)) best = cost;
  }
  if (best) best->algorithm = index_of(algorithm, protocol);
  return best;
}

CollectiveChoice choose(const CollectiveTuning& tuning, const GroupShape& shape, CollectiveKind kind, Bytes bytes) {
  CollectiveChoice choice;
  if (shape.members == 1) return choice;
  if (kind == CollectiveKind::send || kind == CollectiveKind::receive) {
    choice.algorithm = Algorithm::direct;
    choice.cost = point_to_point(tuning, shape, kind, bytes);
    return choice;
  }
  std::vector<CollectiveOption> options;
  const bool has_tuner = !tuning.library.name.empty();
  const NcclGroup group = has_tuner ? group_of(tuning, shape) : NcclGroup{};
  if (has_tuner) options = tuned(tuning, shape, group, kind, bytes, tuning.algorithm);
  if (options.empty() && tuning.algorithm) {
    options = fastest(tuning, shape, kind, bytes, std::array{*tuning.algorithm});
    if (options.empty() && has_tuner) options = tuned(tuning, shape, group, kind, bytes, std::nullopt);
  }
  if (options.empty()) options = fastest(tuning, shape, kind, bytes, usual_algorithms(shape, kind));
  sim::ensure(!options.empty(), "every collective has an algorithm");
  if (has_tuner) options.front().cost.phase_bytes = phase_of(tuning, shape, group, options.front());
  choice.algorithm = options.front().algorithm;
  choice.protocol = options.front().protocol;
  choice.cost = options.front().cost;
  choice.predicted_us = options.front().predicted_us;
  if (options.size() > 1) choice.runner_up = options[1];
  return choice;
}

}  // namespace trainyard::strategies
