#include "strategies/collectives.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace trainyard::strategies {
namespace {

using sim::Bytes;
using sim::BytesPerSecond;
using sim::CollectiveKind;
using sim::Duration;
using topology::Cluster;
using topology::FabricType;

constexpr std::int64_t giga = 1'000'000'000;
constexpr std::int64_t nanosecond = 1'000;
constexpr std::int64_t microsecond = 1'000'000;

// Closed forms, in integers: `parts` / `whole` of the vector over a link of `rate`, rounded up once.
std::int64_t wire_ps(std::int64_t bytes, std::int64_t parts, std::int64_t whole, std::int64_t rate) {
  __extension__ using Wide = __int128;
  const Wide ticks = static_cast<Wide>(bytes) * parts * 1'000'000'000'000;
  const Wide divisor = static_cast<Wide>(whole) * rate;
  return static_cast<std::int64_t>((ticks + divisor - 1) / divisor);
}

constexpr std::int64_t base = 5 * microsecond;
constexpr std::int64_t switch_latency = 750 * nanosecond;
// What one protocol really reaches; `tuning` and `shape` say the same as shares of a nominal rate.
struct Reached {
  std::int64_t intra_hop, inter_hop, link_rate, rail_rate;
};
constexpr Reached simple{1900 * nanosecond, 14 * microsecond, 360 * giga, 45 * giga};
constexpr Reached ll128{700 * nanosecond, 8 * microsecond, 225 * giga, 40 * giga};
constexpr Reached ll{300 * nanosecond, 3 * microsecond, 90 * giga, 20 * giga};

topology::CollectiveTuning tuning() {
  topology::CollectiveTuning tuning;
  tuning.base = Duration{base};
  tuning.intra.simple = {.hop = Duration{simple.intra_hop}, .efficiency = 0.8};
  tuning.intra.ll128 = {.hop = Duration{ll128.intra_hop}, .efficiency = 0.5};
  tuning.intra.ll = {.hop = Duration{ll.intra_hop}, .efficiency = 0.2};
  tuning.inter.simple = {.hop = Duration{simple.inter_hop}, .efficiency = 0.9};
  tuning.inter.ll128 = {.hop = Duration{ll128.inter_hop}, .efficiency = 0.8};
  tuning.inter.ll = {.hop = Duration{ll.inter_hop}, .efficiency = 0.4};
  tuning.point_to_point_latency = Duration{9 * microsecond};
  tuning.point_to_point_intra_efficiency = 0.7;
  tuning.point_to_point_inter_efficiency = 0.6;
  return tuning;
}

GroupShape one_node(std::int64_t members) {
  return {.members = members,
          .nodes = 1,
          .rails = std::min<std::int64_t>(members, 8),
          .most_per_node = members,
          .link_rate = {450 * giga},
          .rail_rate = {50 * giga},
          .switch_latency = {}};
}
GroupShape over_nodes(std::int64_t nodes, std::int64_t per_node, std::int64_t rails) {
  GroupShape shape = one_node(per_node);
  shape.members = nodes * per_node;
  shape.nodes = nodes;
  shape.rails = rails;
  shape.switch_latency = Duration{switch_latency};
  return shape;
}

std::int64_t cost_ps(const GroupShape& shape, CollectiveKind kind, std::int64_t bytes, Algorithm algorithm,
                     ProtocolKind protocol = ProtocolKind::simple) {
  const auto cost = collective_cost(tuning(), shape, kind, Bytes{bytes}, algorithm, protocol);
  EXPECT_TRUE(cost.has_value());
  return cost ? cost->duration.count() : -1;
}

// Divisible by all numbers of members and rails here, so that the only rounding is that of the time.
const std::vector<std::int64_t> sizes{7680, 7680 * 1001, 7680 * 99'991, 7680 * 2'000'003LL};

// Inside one node

TEST(CollectivesTest, ARingAllReduceInANodeTakesItsClosedForm) {
  for (const std::int64_t n : {2, 3, 4, 8})
    for (const std::int64_t bytes : sizes)
      EXPECT_EQ(cost_ps(one_node(n), CollectiveKind::all_reduce, bytes, Algorithm::ring),
                base + 2 * (n - 1) * simple.intra_hop + wire_ps(bytes, 2 * (n - 1), n, simple.link_rate))
          << n << " members, " << bytes << " B";
}

TEST(CollectivesTest, EveryProtocolHasItsHopsAndItsRate) {
  const GroupShape shape = one_node(8);
  const std::int64_t bytes = sizes[1];
  EXPECT_EQ(cost_ps(shape, CollectiveKind::all_reduce, bytes, Algorithm::ring, ProtocolKind::ll128),
            base + 14 * ll128.intra_hop + wire_ps(bytes, 14, 8, ll128.link_rate));
  EXPECT_EQ(cost_ps(shape, CollectiveKind::all_reduce, bytes, Algorithm::ring, ProtocolKind::ll),
            base + 14 * ll.intra_hop + wire_ps(bytes, 14, 8, ll.link_rate));
}

TEST(CollectivesTest, ARingGatherOrScatterInANodeIsHalfAnAllReduce) {
  for (const CollectiveKind kind : {CollectiveKind::all_gather, CollectiveKind::reduce_scatter})
    for (const std::int64_t n : {2, 5, 8})
      for (const std::int64_t bytes : sizes)
        EXPECT_EQ(cost_ps(one_node(n), kind, bytes, Algorithm::ring),
                  base + (n - 1) * simple.intra_hop + wire_ps(bytes, n - 1, n, simple.link_rate));
}

TEST(CollectivesTest, ADoubleBinaryTreeInANodeTakesItsClosedForm) {
  const std::vector<std::pair<std::int64_t, std::int64_t>> depths{{2, 1}, {3, 2}, {4, 2}, {5, 3}, {8, 3}};
  for (const auto& [n, depth] : depths)
    for (const std::int64_t bytes : sizes)
      EXPECT_EQ(cost_ps(one_node(n), CollectiveKind::all_reduce, bytes, Algorithm::tree),
                base + 2 * depth * simple.intra_hop + wire_ps(bytes, 2, 1, simple.link_rate))
          << n << " members";
}

TEST(CollectivesTest, ADirectExchangeInANodeTakesItsClosedForm) {
  for (const std::int64_t bytes : sizes) {
    EXPECT_EQ(cost_ps(one_node(8), CollectiveKind::all_reduce, bytes, Algorithm::direct),
              base + 2 * simple.intra_hop + wire_ps(bytes, 14, 8, simple.link_rate));
    for (const CollectiveKind kind :
         {CollectiveKind::all_gather, CollectiveKind::reduce_scatter, CollectiveKind::all_to_all})
      EXPECT_EQ(cost_ps(one_node(8), kind, bytes, Algorithm::direct),
                base + simple.intra_hop + wire_ps(bytes, 7, 8, simple.link_rate));
  }
}

TEST(CollectivesTest, ABroadcastOrReduceMovesTheVectorOnceDownAPipeline) {
  for (const CollectiveKind kind : {CollectiveKind::broadcast, CollectiveKind::reduce}) {
    EXPECT_EQ(cost_ps(one_node(8), kind, sizes[2], Algorithm::ring),
              base + 7 * simple.intra_hop + wire_ps(sizes[2], 1, 1, simple.link_rate));
    // Four nodes: three of the 31 hops leave a node; eight rails share the vector.
    EXPECT_EQ(cost_ps(over_nodes(4, 8, 8), kind, sizes[2], Algorithm::ring),
              base + 28 * simple.intra_hop + 3 * (simple.inter_hop + switch_latency) +
                  std::max(wire_ps(sizes[2], 1, 1, simple.link_rate), wire_ps(sizes[2], 1, 8, simple.rail_rate)));
  }
}

// Over nodes

TEST(CollectivesTest, ARingOverNodesOfOneMemberOnlyUsesTheNics) {
  for (const std::int64_t nodes : {2, 4, 16})
    for (const std::int64_t bytes : sizes)
      EXPECT_EQ(cost_ps(over_nodes(nodes, 1, 1), CollectiveKind::all_reduce, bytes, Algorithm::ring),
                base + 2 * (nodes - 1) * (simple.inter_hop + switch_latency) +
                    wire_ps(bytes, 2 * (nodes - 1), nodes, simple.rail_rate));
}

TEST(CollectivesTest, ARingOverFullNodesSharesTheirNics) {
  for (const std::int64_t nodes : {2, 4, 16}) {
    const std::int64_t n = nodes * 8;
    for (const std::int64_t rails : {4, 8}) {
      for (const std::int64_t bytes : sizes) {
        const std::int64_t inside = wire_ps(bytes, 2 * (n - 1), n, simple.link_rate);
        const std::int64_t between = wire_ps(bytes, 2 * (n - 1), n * rails, simple.rail_rate);
        EXPECT_EQ(cost_ps(over_nodes(nodes, 8, rails), CollectiveKind::all_reduce, bytes, Algorithm::ring),
                  base + (2 * (n - 1) - 2 * (nodes - 1)) * simple.intra_hop +
                      2 * (nodes - 1) * (simple.inter_hop + switch_latency) + std::max(inside, between))
            << nodes << " nodes, " << rails << " rails, " << bytes << " B";
      }
    }
  }
}

TEST(CollectivesTest, ARingIsBoundByTheLinksInsideWhereTheNicsAreFaster) {
  GroupShape shape = over_nodes(2, 8, 8);
  shape.rail_rate = {200 * giga};  // eight of 180 against one of 360
  const std::int64_t bytes = sizes[3];
  EXPECT_EQ(cost_ps(shape, CollectiveKind::all_reduce, bytes, Algorithm::ring),
            base + 28 * simple.intra_hop + 2 * (simple.inter_hop + switch_latency) +
                wire_ps(bytes, 30, 16, simple.link_rate));
}

TEST(CollectivesTest, ARingGatherOverNodesCrossesTheNetworkOncePerNode) {
  for (const CollectiveKind kind : {CollectiveKind::all_gather, CollectiveKind::reduce_scatter}) {
    EXPECT_EQ(cost_ps(over_nodes(4, 1, 1), kind, sizes[2], Algorithm::ring),
              base + 3 * (simple.inter_hop + switch_latency) + wire_ps(sizes[2], 3, 4, simple.rail_rate));
    EXPECT_EQ(
        cost_ps(over_nodes(4, 8, 8), kind, sizes[2], Algorithm::ring),
        base + 28 * simple.intra_hop + 3 * (simple.inter_hop + switch_latency) +
            std::max(wire_ps(sizes[2], 31, 32, simple.link_rate), wire_ps(sizes[2], 31, 32 * 8, simple.rail_rate)));
  }
}

TEST(CollectivesTest, ADoubleBinaryTreeOverNodesClimbsTheirLogarithm) {
  for (const std::int64_t bytes : sizes) {
    EXPECT_EQ(cost_ps(over_nodes(16, 1, 1), CollectiveKind::all_reduce, bytes, Algorithm::tree),
              base + 2 * 4 * (simple.inter_hop + switch_latency) + wire_ps(bytes, 2, 1, simple.rail_rate));
    // A chain of eight inside each of five nodes, a tree of depth three above.
    EXPECT_EQ(cost_ps(over_nodes(5, 8, 8), CollectiveKind::all_reduce, bytes, Algorithm::tree),
              base + 2 * 7 * simple.intra_hop + 2 * 3 * (simple.inter_hop + switch_latency) +
                  std::max(wire_ps(bytes, 2, 1, simple.link_rate), wire_ps(bytes, 2, 8, simple.rail_rate)));
  }
}

TEST(CollectivesTest, AllToAllOverNodesSendsEveryMembersPartsOverTheNicsOfItsNode) {
  const std::int64_t bytes = sizes[2];
  EXPECT_EQ(cost_ps(over_nodes(4, 1, 1), CollectiveKind::all_to_all, bytes, Algorithm::direct),
            base + (simple.inter_hop + switch_latency) + wire_ps(bytes, 3, 4, simple.rail_rate));
  // Each of 8 members sends 24 of 32 parts out of the node, over 8 or 4 NICs.
  for (const std::int64_t rails : {8, 4})
    EXPECT_EQ(cost_ps(over_nodes(4, 8, rails), CollectiveKind::all_to_all, bytes, Algorithm::direct),
              base + (simple.inter_hop + switch_latency) + wire_ps(bytes, 24 * 8, 32 * rails, simple.rail_rate));
}

TEST(CollectivesTest, AHierarchicalAllReduceIsItsThreePartsInTurn) {
  for (const std::int64_t bytes : sizes) {
    // Reduce-scatter and all-gather of 8 inside, a ring of 4 on an eighth across on each of 8 NICs.
    EXPECT_EQ(cost_ps(over_nodes(4, 8, 8), CollectiveKind::all_reduce, bytes, Algorithm::hierarchical),
              base + 14 * simple.intra_hop + 6 * (simple.inter_hop + switch_latency) +
                  wire_ps(bytes, 14, 8, simple.link_rate) + wire_ps(bytes, 6, 4 * 8, simple.rail_rate));
    EXPECT_EQ(cost_ps(over_nodes(4, 8, 4), CollectiveKind::all_reduce, bytes, Algorithm::hierarchical),
              base + 14 * simple.intra_hop + 6 * (simple.inter_hop + switch_latency) +
                  wire_ps(bytes, 14, 8, simple.link_rate) + wire_ps(bytes, 6, 4 * 4, simple.rail_rate));
  }
}

TEST(CollectivesTest, AnAlgorithmThatDoesNotApplyHasNoCost) {
  const auto applies = [](const GroupShape& shape, CollectiveKind kind, Algorithm algorithm) {
    return collective_cost(tuning(), shape, kind, Bytes{8}, algorithm, ProtocolKind::simple).has_value();
  };
  EXPECT_FALSE(applies(one_node(8), CollectiveKind::all_gather, Algorithm::tree));
  EXPECT_FALSE(applies(one_node(8), CollectiveKind::broadcast, Algorithm::direct));
  EXPECT_FALSE(applies(one_node(8), CollectiveKind::all_to_all, Algorithm::ring));
  EXPECT_FALSE(applies(one_node(8), CollectiveKind::all_reduce, Algorithm::hierarchical));
  EXPECT_FALSE(applies(over_nodes(8, 1, 1), CollectiveKind::all_reduce, Algorithm::hierarchical));
  GroupShape uneven = over_nodes(2, 3, 3);
  uneven.members = 5;
  EXPECT_FALSE(applies(uneven, CollectiveKind::all_reduce, Algorithm::hierarchical));
}

// What goes over the wire

TEST(CollectivesTest, WireBytesAreWhatAMemberSends) {
  const auto wire = [](const GroupShape& shape, CollectiveKind kind, Algorithm algorithm) {
    return collective_cost(tuning(), shape, kind, Bytes{64'000}, algorithm, ProtocolKind::simple)->wire_bytes;
  };
  EXPECT_EQ(wire(one_node(8), CollectiveKind::all_reduce, Algorithm::ring), Bytes{112'000});
  EXPECT_EQ(wire(one_node(8), CollectiveKind::all_gather, Algorithm::ring), Bytes{56'000});
  EXPECT_EQ(wire(one_node(8), CollectiveKind::reduce_scatter, Algorithm::ring), Bytes{56'000});
  EXPECT_EQ(wire(one_node(8), CollectiveKind::all_to_all, Algorithm::direct), Bytes{56'000});
  EXPECT_EQ(wire(one_node(8), CollectiveKind::all_reduce, Algorithm::tree), Bytes{128'000});
  EXPECT_EQ(wire(over_nodes(4, 1, 1), CollectiveKind::all_reduce, Algorithm::ring), Bytes{96'000});
  // 14/8 inside, 6/4 of an eighth across: as many bytes as a ring of 32.
  EXPECT_EQ(wire(over_nodes(4, 8, 8), CollectiveKind::all_reduce, Algorithm::hierarchical), Bytes{112'000 + 12'000});
  EXPECT_EQ(wire(over_nodes(4, 8, 8), CollectiveKind::all_reduce, Algorithm::ring), Bytes{124'000});
}

TEST(CollectivesTest, LinkBytesAreToldByWhereTheyTravel) {
  const auto cost = [](const GroupShape& shape) {
    return *collective_cost(tuning(), shape, CollectiveKind::all_reduce, Bytes{64'000}, Algorithm::ring,
                            ProtocolKind::simple);
  };
  EXPECT_EQ(cost(one_node(8)).nvlink_bytes, Bytes{112'000});
  EXPECT_EQ(cost(one_node(8)).nic_bytes, Bytes{0});
  EXPECT_EQ(cost(over_nodes(4, 1, 1)).nvlink_bytes, Bytes{0});
  EXPECT_EQ(cost(over_nodes(4, 1, 1)).nic_bytes, Bytes{96'000});
  // Of a node's 124,000 B every member has its eighth, whether over 8 NICs or 4.
  EXPECT_EQ(cost(over_nodes(4, 8, 8)).nic_bytes, Bytes{15'500});
  EXPECT_EQ(cost(over_nodes(4, 8, 4)).nic_bytes, Bytes{15'500});
  EXPECT_EQ(cost(over_nodes(4, 8, 8)).nvlink_bytes, Bytes{124'000});
}

// Choice

TEST(CollectivesTest, TheFastestIsChosen) {
  for (const GroupShape& shape : {one_node(2), one_node(8), over_nodes(2, 1, 1), over_nodes(64, 1, 1),
                                  over_nodes(4, 8, 8), over_nodes(64, 8, 4)}) {
    for (std::int64_t bytes = 64; bytes < 20 * giga; bytes *= 3) {
      std::int64_t fastest = std::numeric_limits<std::int64_t>::max();
      for (const Algorithm algorithm : {Algorithm::ring, Algorithm::tree})
        for (const ProtocolKind protocol : {ProtocolKind::simple, ProtocolKind::ll128, ProtocolKind::ll})
          fastest = std::min(fastest, cost_ps(shape, CollectiveKind::all_reduce, bytes, algorithm, protocol));
      const CollectiveChoice choice = choose(tuning(), shape, CollectiveKind::all_reduce, Bytes{bytes});
      EXPECT_EQ(choice.cost.duration.count(), fastest);
      EXPECT_EQ(cost_ps(shape, CollectiveKind::all_reduce, bytes, choice.algorithm, choice.protocol), fastest);
    }
  }
}

TEST(CollectivesTest, SmallMessagesTakeTheTreeWithLittleLatencyAndLargeOnesTheRingWithMuchBandwidth) {
  const GroupShape shape = over_nodes(4, 8, 8);
  const CollectiveChoice small = choose(tuning(), shape, CollectiveKind::all_reduce, Bytes{1024});
  EXPECT_TRUE(small.algorithm == Algorithm::tree);
  EXPECT_TRUE(small.protocol == ProtocolKind::ll);
  const CollectiveChoice large = choose(tuning(), shape, CollectiveKind::all_reduce, Bytes{10 * giga});
  EXPECT_TRUE(large.algorithm == Algorithm::ring);
  EXPECT_TRUE(large.protocol == ProtocolKind::simple);
}

TEST(CollectivesTest, EveryKindHasAnAlgorithm) {
  for (const GroupShape& shape : {one_node(8), over_nodes(4, 1, 1), over_nodes(4, 8, 4)}) {
    for (std::size_t kind = 0; kind < sim::collective_kinds; ++kind) {
      const auto which = static_cast<CollectiveKind>(kind);
      EXPECT_GT(choose(tuning(), shape, which, Bytes{1 << 20}).cost.duration, Duration{}) << to_string(which);
    }
  }
  EXPECT_EQ(choose(tuning(), one_node(8), CollectiveKind::all_to_all, Bytes{1 << 20}).algorithm, Algorithm::direct);
  EXPECT_EQ(choose(tuning(), one_node(8), CollectiveKind::all_gather, Bytes{1 << 20}).algorithm, Algorithm::ring);
}

TEST(CollectivesTest, AGroupOfOneCommunicatesForNothing) {
  EXPECT_EQ(choose(tuning(), one_node(1), CollectiveKind::all_reduce, Bytes{giga}).cost.duration, Duration{});
}

TEST(CollectivesTest, MoreBytesNeverTakeLess) {
  for (const GroupShape& shape : {one_node(8), over_nodes(16, 1, 1), over_nodes(4, 8, 8)}) {
    for (const CollectiveKind kind :
         {CollectiveKind::all_reduce, CollectiveKind::all_gather, CollectiveKind::all_to_all, CollectiveKind::send}) {
      Duration before{};
      for (std::int64_t bytes = 1; bytes < giga; bytes = bytes * 5 / 4 + 1) {
        const Duration duration = choose(tuning(), shape, kind, Bytes{bytes}).cost.duration;
        ASSERT_GE(duration, before) << to_string(kind) << " of " << bytes << " B";
        before = duration;
      }
    }
  }
}

TEST(CollectivesTest, APointToPointTransferTakesALatencyAndItsBytes) {
  for (const CollectiveKind kind : {CollectiveKind::send, CollectiveKind::receive}) {
    EXPECT_EQ(choose(tuning(), one_node(2), kind, Bytes{sizes[1]}).cost.duration.count(),
              9 * microsecond + wire_ps(sizes[1], 1, 1, 315 * giga));
    EXPECT_EQ(choose(tuning(), over_nodes(2, 1, 1), kind, Bytes{sizes[1]}).cost.duration.count(),
              9 * microsecond + switch_latency + wire_ps(sizes[1], 1, 1, 30 * giga));
  }
}

// Whole plans: what groups do to each other. No latency and nothing lost, so that rates show.

topology::NodeType node_type(std::int64_t nics) {
  topology::NodeType node;
  node.devices = 8;
  node.link_rate = {450 * giga};
  node.nics = nics;
  node.nic_rate = {50 * giga};
  return node;
}

FabricType fabric_type(FabricType::Kind kind, std::int64_t radix = 64, double oversubscription = 1.0) {
  FabricType fabric;
  fabric.kind = kind;
  fabric.radix = radix;
  fabric.oversubscription = oversubscription;
  return fabric;
}
const FabricType one_switch = fabric_type(FabricType::Kind::single_switch);

constexpr sim::SlotId slot{0};
constexpr sim::SlotId peer{1};
constexpr std::int64_t payload = 7680 * 100'003;

sim::Plan plan_for(std::size_t ranks) {
  sim::Plan plan;
  plan.slots.add("group");
  plan.slots.add("peer");
  plan.program_of = sim::Table<sim::RankId, sim::ProgramId>(ranks);
  plan.communicators = sim::CommunicatorTable(ranks, 2);
  return plan;
}

void add_group(sim::Plan& plan, const std::vector<std::uint32_t>& members) {
  std::vector<sim::RankId> ranks;
  for (const std::uint32_t member : members) ranks.push_back(sim::RankId{member});
  plan.communicators.add(ranks, std::vector<sim::SlotId>(ranks.size(), slot));
}

// Rings of the devices at the same position of every node, for the first `positions` positions.
sim::Plan data_parallel(std::uint32_t nodes, std::uint32_t positions) {
  sim::Plan plan = plan_for(std::size_t{nodes} * 8);
  for (std::uint32_t position = 0; position < positions; ++position) {
    std::vector<std::uint32_t> ring;
    for (std::uint32_t node = 0; node < nodes; ++node) ring.push_back(node * 8 + position);
    add_group(plan, ring);
  }
  plan.calls.add({.slot = slot, .kind = CollectiveKind::all_reduce, .bytes = Bytes{payload}});
  return plan;
}

std::int64_t priced(const sim::Plan& plan, std::size_t communicator, std::size_t call = 0) {
  const auto& one = plan.communicators[sim::CommunicatorId{static_cast<std::uint32_t>(communicator)}];
  return plan.costs[one.cost].at(call).duration.count();
}

TEST(PriceTest, EightRingsOverEightNicsRunAtFullRate) {
  sim::Plan plan = data_parallel(4, 8);
  price_communications(plan, Cluster(node_type(8), 4, 32, one_switch));
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(priced(plan, i), wire_ps(payload, 6, 4, 50 * giga));
}

TEST(PriceTest, EightRingsOverFourNicsRunAtHalfRate) {
  sim::Plan plan = data_parallel(4, 8);
  price_communications(plan, Cluster(node_type(4), 4, 32, one_switch));
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(priced(plan, i), wire_ps(payload, 6, 4, 25 * giga));
}

TEST(PriceTest, EightRingsOverSixteenNicsRunAtTwiceTheRate) {
  sim::Plan plan = data_parallel(4, 8);
  price_communications(plan, Cluster(node_type(16), 4, 32, one_switch));
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(priced(plan, i), wire_ps(payload, 6, 4, 100 * giga));
}

TEST(PriceTest, ARingAloneOnASharedNicHasAllOfIt) {
  sim::Plan plan = data_parallel(4, 3);  // of four NICs, two rings share the first and one has the second
  price_communications(plan, Cluster(node_type(4), 4, 32, one_switch));
  EXPECT_EQ(priced(plan, 0), wire_ps(payload, 6, 4, 25 * giga));
  EXPECT_EQ(priced(plan, 1), wire_ps(payload, 6, 4, 25 * giga));
  EXPECT_EQ(priced(plan, 2), wire_ps(payload, 6, 4, 50 * giga));
}

TEST(PriceTest, AGroupOfWholeNodesUsesAllTheirNics) {
  for (const std::int64_t nics : {4, 8}) {
    sim::Plan plan = plan_for(32);
    std::vector<std::uint32_t> everyone(32);
    for (std::uint32_t i = 0; i < 32; ++i) everyone[i] = i;
    add_group(plan, everyone);
    plan.calls.add({.slot = slot, .kind = CollectiveKind::all_reduce, .bytes = Bytes{payload}});
    price_communications(plan, Cluster(node_type(nics), 4, 32, one_switch));
    EXPECT_EQ(priced(plan, 0), wire_ps(payload, 62, 32 * nics, 50 * giga));
  }
}

TEST(PriceTest, GroupsInsideNodesDoNotShareAnything) {
  sim::Plan plan = plan_for(16);
  for (const std::uint32_t first : {0U, 4U, 8U, 12U}) add_group(plan, {first, first + 1, first + 2, first + 3});
  plan.calls.add({.slot = slot, .kind = CollectiveKind::all_reduce, .bytes = Bytes{payload}});
  price_communications(plan, Cluster(node_type(8), 2, 16, one_switch));
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(priced(plan, i), wire_ps(payload, 6, 4, 450 * giga));
}

TEST(PriceTest, ACrowdedUplinkSlowsAFatTreeAndNotARail) {
  // Eight NICs below a leaf: a node of the fat tree, a rail of all eight nodes otherwise.
  sim::Plan tree = data_parallel(8, 8);
  price_communications(tree, Cluster(node_type(8), 8, 64, fabric_type(FabricType::Kind::fat_tree, 16, 2.0)));
  sim::Plan rails = data_parallel(8, 8);
  price_communications(rails, Cluster(node_type(8), 8, 64, fabric_type(FabricType::Kind::rail_optimized, 16, 2.0)));
  for (std::size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(priced(tree, i), wire_ps(payload, 14, 8, 25 * giga));
    EXPECT_EQ(priced(rails, i), wire_ps(payload, 14, 8, 50 * giga));
  }
}

TEST(PriceTest, AFatTreeThatIsNotOversubscribedCostsNoBandwidth) {
  sim::Plan plan = data_parallel(8, 8);
  price_communications(plan, Cluster(node_type(8), 8, 64, fabric_type(FabricType::Kind::fat_tree, 16, 1.0)));
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(priced(plan, i), wire_ps(payload, 14, 8, 50 * giga));
}

TEST(PriceTest, OnlyTheCrossingsOfALeafLoadItsUplink) {
  // Four nodes under a leaf with 32 NICs: each ring leaves it once, so 8 of 32 NICs' worth of uplinks are asked for.
  sim::Plan plan = data_parallel(8, 8);
  price_communications(plan, Cluster(node_type(8), 8, 64, fabric_type(FabricType::Kind::fat_tree, 64, 4.0)));
  EXPECT_EQ(priced(plan, 0), wire_ps(payload, 14, 8, 50 * giga));
  sim::Plan crowded = data_parallel(8, 8);
  price_communications(crowded, Cluster(node_type(8), 8, 64, fabric_type(FabricType::Kind::fat_tree, 64, 8.0)));
  EXPECT_EQ(priced(crowded, 0), wire_ps(payload, 14, 8, 25 * giga));
}

TEST(PriceTest, HopsPayForTheSwitchesOfTheLongestWay) {
  FabricType fabric = fabric_type(FabricType::Kind::fat_tree, 16);
  fabric.switch_latency = Duration{1000};
  sim::Plan across = data_parallel(4, 1);
  price_communications(across, Cluster(node_type(8), 4, 32, fabric));
  // The tree has four hops between nodes and the ring six; here bandwidth decides for the ring.
  EXPECT_EQ(priced(across, 0), 6 * 3 * 1000 + wire_ps(payload, 6, 4, 50 * giga));
  sim::Plan below = data_parallel(4, 1);
  fabric.radix = 64;
  price_communications(below, Cluster(node_type(8), 4, 32, fabric));
  EXPECT_EQ(priced(below, 0), 6 * 1000 + wire_ps(payload, 6, 4, 50 * giga));
}

// Stages on neighbouring nodes: rank i of a node sends to rank i of the next.
sim::Plan pipeline(std::uint32_t nodes) {
  sim::Plan plan = plan_for(std::size_t{nodes} * 8);
  for (std::uint32_t i = 0; i + 8 < nodes * 8; ++i)
    plan.communicators.add({sim::RankId{i}, sim::RankId{i + 8}}, {slot, peer});
  plan.calls.add({.slot = slot, .kind = CollectiveKind::send, .bytes = Bytes{payload}});
  plan.calls.add({.slot = peer, .kind = CollectiveKind::receive, .bytes = Bytes{payload}});
  return plan;
}

TEST(PriceTest, BothEndsOfATransferPayTheSameAndOnlyTheSenderSends) {
  sim::Plan plan = pipeline(2);
  price_communications(plan, Cluster(node_type(8), 2, 16, one_switch));
  for (std::size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(priced(plan, i, 0), wire_ps(payload, 1, 1, 50 * giga));
    EXPECT_EQ(priced(plan, i, 1), priced(plan, i, 0));
  }
  const auto& row = plan.costs[plan.communicators[sim::CommunicatorId{0}].cost];
  EXPECT_EQ(row[0].wire_bytes, Bytes{payload});
  EXPECT_EQ(row[1].wire_bytes, Bytes{0});
}

TEST(PriceTest, TransfersOfDevicesThatShareANicShareItsRate) {
  sim::Plan plan = pipeline(2);
  price_communications(plan, Cluster(node_type(4), 2, 16, one_switch));
  EXPECT_EQ(priced(plan, 0), wire_ps(payload, 1, 1, 25 * giga));
}

TEST(PriceTest, AStageSendsAndReceivesAtFullRateAtOnce) {
  sim::Plan plan = pipeline(3);  // the middle node's NICs receive from one and send to the other
  price_communications(plan, Cluster(node_type(8), 3, 24, one_switch));
  for (std::size_t i = 0; i < 16; ++i) EXPECT_EQ(priced(plan, i), wire_ps(payload, 1, 1, 50 * giga));
}

TEST(PriceTest, SlotsArePricedByThemselves) {
  sim::Plan plan = plan_for(16);
  add_group(plan, {0, 8});
  plan.communicators.add({sim::RankId{0}, sim::RankId{8}}, {peer, peer});
  plan.calls.add({.slot = slot, .kind = CollectiveKind::all_reduce, .bytes = Bytes{payload}});
  plan.calls.add({.slot = peer, .kind = CollectiveKind::all_gather, .bytes = Bytes{payload}});
  price_communications(plan, Cluster(node_type(8), 2, 16, one_switch));
  EXPECT_EQ(priced(plan, 0, 0), wire_ps(payload, 2, 2, 50 * giga));
  EXPECT_EQ(priced(plan, 1, 1), wire_ps(payload, 1, 2, 50 * giga));
}

TEST(PriceTest, CommunicatorsThatAreAlikeShareACostClass) {
  sim::Plan plan = data_parallel(4, 8);
  price_communications(plan, Cluster(node_type(8), 4, 32, one_switch));
  EXPECT_EQ(plan.costs.size(), 1U);
}

TEST(PriceTest, TheAlgorithmOfACostHasItsName) {
  sim::Plan plan = data_parallel(4, 8);
  price_communications(plan, Cluster(node_type(8), 4, 32, one_switch));
  const auto& cost = plan.costs[sim::CostClassId{0}].front();
  EXPECT_EQ(plan.algorithms.at(cost.algorithm), "ring simple");
}

}  // namespace
}  // namespace trainyard::strategies
