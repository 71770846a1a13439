#include "strategies/collectives.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

namespace trainyard::strategies {
namespace {

using sim::Bytes;
using sim::BytesPerSecond;
using sim::CollectiveKind;
using sim::Duration;

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
  tuning.intra.ll128 = topology::Protocol{.hop = Duration{ll128.intra_hop}, .efficiency = 0.5};
  tuning.intra.ll = topology::Protocol{.hop = Duration{ll.intra_hop}, .efficiency = 0.2};
  tuning.inter.simple = {.hop = Duration{simple.inter_hop}, .efficiency = 0.9};
  tuning.inter.ll128 = topology::Protocol{.hop = Duration{ll128.inter_hop}, .efficiency = 0.8};
  tuning.inter.ll = topology::Protocol{.hop = Duration{ll.inter_hop}, .efficiency = 0.4};
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

TEST(CollectivesTest, ATreeInANodeIsAChainUpAndDown) {
  for (const std::int64_t n : {2, 3, 4, 5, 8})
    for (const std::int64_t bytes : sizes)
      EXPECT_EQ(cost_ps(one_node(n), CollectiveKind::all_reduce, bytes, Algorithm::tree),
                base + 2 * (n - 1) * simple.intra_hop + wire_ps(bytes, n == 2 ? 1 : 2, 1, simple.link_rate))
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
    // Of two nodes each is the root of one tree and a leaf of the other; of three, one has two children at most.
    EXPECT_EQ(cost_ps(over_nodes(2, 1, 1), CollectiveKind::all_reduce, bytes, Algorithm::tree),
              base + 2 * (simple.inter_hop + switch_latency) + wire_ps(bytes, 1, 1, simple.rail_rate));
    EXPECT_EQ(cost_ps(over_nodes(3, 1, 1), CollectiveKind::all_reduce, bytes, Algorithm::tree),
              base + 2 * 2 * (simple.inter_hop + switch_latency) + wire_ps(bytes, 3, 2, simple.rail_rate));
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
  // Each of 8 members sends 24 of 32 parts out of the node, over 8 or 4 NICs; its 31 peers are served eight at a time.
  for (const std::int64_t rails : {8, 4})
    EXPECT_EQ(cost_ps(over_nodes(4, 8, rails), CollectiveKind::all_to_all, bytes, Algorithm::direct),
              base + 4 * (simple.inter_hop + switch_latency) + wire_ps(bytes, 24 * 8, 32 * rails, simple.rail_rate));
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

// The other algorithms

TEST(CollectivesTest, HalvingAndDoublingTakesALogarithmOfStepsAndTheVolumeOfARing) {
  for (const std::int64_t bytes : sizes) {
    EXPECT_EQ(cost_ps(one_node(8), CollectiveKind::all_reduce, bytes, Algorithm::halving_doubling),
              base + 2 * 3 * simple.intra_hop + wire_ps(bytes, 14, 8, simple.link_rate));
    EXPECT_EQ(cost_ps(over_nodes(16, 1, 1), CollectiveKind::all_gather, bytes, Algorithm::halving_doubling),
              base + 4 * (simple.inter_hop + switch_latency) + wire_ps(bytes, 15, 16, simple.rail_rate));
    // The large halves stay inside the nodes.
    EXPECT_EQ(cost_ps(over_nodes(4, 8, 8), CollectiveKind::all_reduce, bytes, Algorithm::halving_doubling),
              base + 6 * simple.intra_hop + 4 * (simple.inter_hop + switch_latency) +
                  wire_ps(bytes, 14, 8, simple.link_rate) + wire_ps(bytes, 6, 4 * 8, simple.rail_rate));
  }
}

TEST(CollectivesTest, BruckSendsHalfOfEverythingInEachOfALogarithmOfSteps) {
  for (const auto& [n, steps] : std::vector<std::pair<std::int64_t, std::int64_t>>{{2, 1}, {5, 3}, {8, 3}})
    EXPECT_EQ(cost_ps(one_node(n), CollectiveKind::all_to_all, sizes[1], Algorithm::bruck),
              base + steps * simple.intra_hop + wire_ps(sizes[1], steps, 2, simple.link_rate));
  EXPECT_EQ(cost_ps(over_nodes(16, 1, 1), CollectiveKind::all_to_all, sizes[1], Algorithm::bruck),
            base + 4 * (simple.inter_hop + switch_latency) + wire_ps(sizes[1], 4, 2, simple.rail_rate));
}

TEST(CollectivesTest, APairwiseExchangeIsADirectOneWithAHopForEachPartner) {
  EXPECT_EQ(cost_ps(one_node(8), CollectiveKind::all_to_all, sizes[1], Algorithm::pairwise),
            base + 7 * simple.intra_hop + wire_ps(sizes[1], 7, 8, simple.link_rate));
  EXPECT_EQ(cost_ps(over_nodes(4, 8, 8), CollectiveKind::all_to_all, sizes[1], Algorithm::pairwise),
            base + 7 * simple.intra_hop + 24 * (simple.inter_hop + switch_latency) +
                wire_ps(sizes[1], 24 * 8, 32 * 8, simple.rail_rate));
}

TEST(CollectivesTest, AggregatedTreesGatherInALogarithmOfSteps) {
  for (const CollectiveKind kind : {CollectiveKind::all_gather, CollectiveKind::reduce_scatter})
    EXPECT_EQ(cost_ps(over_nodes(16, 1, 1), kind, sizes[1], Algorithm::pat),
              base + 4 * (simple.inter_hop + switch_latency) + wire_ps(sizes[1], 15, 16, simple.rail_rate));
}

topology::CollectiveTuning with_nvls() {
  topology::CollectiveTuning with = tuning();
  with.nvls = {{.hop = Duration{10 * microsecond}, .efficiency = 0.4},
               {.hop = Duration{60 * microsecond}, .efficiency = 0.6}};
  with.nvls_tree = {with.inter.simple};
  return with;
}

std::int64_t nvls_ps(const GroupShape& shape, CollectiveKind kind, std::int64_t bytes, Algorithm algorithm) {
  const auto cost = collective_cost(with_nvls(), shape, kind, Bytes{bytes}, algorithm, ProtocolKind::simple);
  EXPECT_TRUE(cost.has_value());
  return cost ? cost->duration.count() : -1;
}

TEST(CollectivesTest, TheSwitchInsideANodeReducesInOnePassWithEachMembersOwnShareTwice) {
  for (const std::int64_t n : {4, 8})
    for (const std::int64_t bytes : sizes)
      EXPECT_EQ(nvls_ps(one_node(n), CollectiveKind::all_reduce, bytes, Algorithm::nvls),
                base + std::min(10 * microsecond + wire_ps(bytes, n + 1, n, 180 * giga),
                                60 * microsecond + wire_ps(bytes, n + 1, n, 270 * giga)));
  // A platform without the switch's figures does not have the algorithm.
  EXPECT_FALSE(collective_cost(tuning(), one_node(8), CollectiveKind::all_reduce, Bytes{8}, Algorithm::nvls,
                               ProtocolKind::simple));
}

TEST(CollectivesTest, ATreeOverReducingSwitchesHasTheTreesHopsAndHalfTheTrafficInside) {
  const std::int64_t bytes = sizes[3];
  const std::int64_t fast = 400 * giga;
  GroupShape shape = over_nodes(16, 8, 8);
  EXPECT_EQ(nvls_ps(shape, CollectiveKind::all_reduce, bytes, Algorithm::nvls_tree),
            base + 8 * (simple.inter_hop + switch_latency) + wire_ps(bytes, 2, 8, simple.rail_rate));
  shape.rail_rate = {fast};
  EXPECT_EQ(nvls_ps(shape, CollectiveKind::all_reduce, bytes, Algorithm::nvls_tree),
            base + 8 * (simple.inter_hop + switch_latency) + wire_ps(bytes, 9, 8, 270 * giga));
}

TEST(CollectivesTest, SwitchesThatReduceTakeTheVectorOnce) {
  GroupShape shape = over_nodes(16, 8, 8);
  const auto applies = [&](Algorithm algorithm) {
    return collective_cost(with_nvls(), shape, CollectiveKind::all_reduce, Bytes{8}, algorithm, ProtocolKind::simple)
        .has_value();
  };
  for (const Algorithm algorithm : {Algorithm::collnet_direct, Algorithm::collnet_chain, Algorithm::nvls})
    EXPECT_FALSE(applies(algorithm)) << "the network does not reduce";
  shape.sharp = true;
  const std::int64_t bytes = sizes[3];
  const std::int64_t network = 2 * (simple.inter_hop + switch_latency) + wire_ps(bytes, 1, 8, simple.rail_rate);
  shape.link_rate = {4500 * giga};
  EXPECT_EQ(cost_ps(shape, CollectiveKind::all_reduce, bytes, Algorithm::collnet_chain),
            base + 2 * 7 * simple.intra_hop + network);
  EXPECT_EQ(cost_ps(shape, CollectiveKind::all_reduce, bytes, Algorithm::collnet_direct),
            base + 2 * simple.intra_hop + network);
  EXPECT_TRUE(applies(Algorithm::nvls));
}

TEST(CollectivesTest, OnlyGroupsOfTheRightFormHaveAnAlgorithm) {
  const auto applies = [](const GroupShape& shape, CollectiveKind kind, Algorithm algorithm) {
    return collective_cost(tuning(), shape, kind, Bytes{8}, algorithm, ProtocolKind::simple).has_value();
  };
  EXPECT_FALSE(applies(one_node(6), CollectiveKind::all_reduce, Algorithm::halving_doubling));
  EXPECT_FALSE(applies(over_nodes(4, 8, 8), CollectiveKind::all_gather, Algorithm::pat));
  EXPECT_FALSE(applies(one_node(8), CollectiveKind::all_reduce, Algorithm::bruck));
  EXPECT_FALSE(applies(one_node(8), CollectiveKind::all_reduce, Algorithm::torus));
}

// GPUs without a switch

TEST(CollectivesTest, RingsOverDifferentLinksShareTheVector) {
  GroupShape shape = one_node(4);
  shape.link_rate = {25 * giga};
  shape.rings = 4;
  for (const std::int64_t bytes : sizes) {
    EXPECT_EQ(cost_ps(shape, CollectiveKind::all_reduce, bytes, Algorithm::ring),
              base + 6 * simple.intra_hop + wire_ps(bytes, 6, 4 * 4, 20 * giga));
    EXPECT_EQ(cost_ps(shape, CollectiveKind::all_reduce, bytes, Algorithm::tree),
              base + 6 * simple.intra_hop + wire_ps(bytes, 2, 4, 20 * giga));
  }
}

// Tori

GroupShape on_torus(std::array<std::int64_t, 3> extents, std::array<bool, 3> wraps) {
  GroupShape shape;
  shape.most_per_node = 1;
  for (const std::int64_t extent : extents) shape.most_per_node *= std::max<std::int64_t>(1, extent);
  shape.members = shape.most_per_node;
  shape.link_rate = {45 * giga};
  shape.torus = extents;
  shape.wraps = wraps;
  return shape;
}

topology::CollectiveTuning without_latency() {
  topology::CollectiveTuning tuning;
  tuning.intra.simple = {.hop = Duration{}, .efficiency = 1};
  tuning.inter.simple = {.hop = Duration{}, .efficiency = 1};
  return tuning;
}

std::int64_t torus_ps(const GroupShape& shape, CollectiveKind kind, std::int64_t bytes) {
  const auto cost =
      collective_cost(without_latency(), shape, kind, Bytes{bytes}, Algorithm::torus, ProtocolKind::simple);
  EXPECT_TRUE(cost.has_value());
  return cost ? cost->duration.count() : -1;
}

TEST(CollectivesTest, AGatherOnATorusUsesAllLinksOfEveryMember) {
  // k chunks of each of P devices arrive over d links: (P-1) k / d steps of a chunk.
  struct Case {
    std::array<std::int64_t, 3> extents;
    std::array<bool, 3> wraps;
    std::int64_t links;
  };
  for (const auto& [extents, wraps, links] : std::vector<Case>{{{16, 1, 1}, {true, false, false}, 2},
                                                               {{4, 1, 1}, {false, false, false}, 1},
                                                               {{4, 4, 1}, {false, false, false}, 2},
                                                               {{16, 16, 0}, {true, true, false}, 4},
                                                               {{4, 4, 8}, {true, true, true}, 6}}) {
    const GroupShape shape = on_torus(extents, wraps);
    const std::int64_t chunk = 45'000;  // a microsecond on a link
    for (const std::int64_t k : {60, 120}) {
      const std::int64_t all = chunk * k * shape.members;
      const std::int64_t steps = (shape.members - 1) * k / links;
      EXPECT_EQ(torus_ps(shape, CollectiveKind::all_gather, all), steps * microsecond);
      EXPECT_EQ(torus_ps(shape, CollectiveKind::reduce_scatter, all), steps * microsecond);
      EXPECT_EQ(torus_ps(shape, CollectiveKind::all_reduce, all), 2 * steps * microsecond);
    }
  }
}

TEST(CollectivesTest, AnAxisWithoutWraparoundGathersAsPublished) {
  // 34 MB over four chips of a v5e axis took 560 us (the scaling book of JAX); 45 GB/s a link.
  const std::int64_t ps = torus_ps(on_torus({4, 1, 1}, {false, false, false}), CollectiveKind::all_gather, 34'000'000);
  EXPECT_NEAR(static_cast<double>(ps) * 1e-6, 560, 10);
}

TEST(CollectivesTest, AllToAllOnATorusIsBoundByItsBisection) {
  // n S / 4 cross each way; a ring of X has two links there and a line one, in each of n / X places.
  for (const auto& [extents, wraps, crossing] :
       std::vector<std::tuple<std::array<std::int64_t, 3>, std::array<bool, 3>, std::int64_t>>{
           {{16, 1, 1}, {true, false, false}, 2},
           {{4, 4, 1}, {false, false, false}, 4},
           {{4, 4, 8}, {true, true, true}, 32}}) {
    const GroupShape shape = on_torus(extents, wraps);
    const std::int64_t bytes = 45'000 * 64;
    EXPECT_EQ(torus_ps(shape, CollectiveKind::all_to_all, bytes),
              wire_ps(bytes, shape.members, 4 * crossing, 45 * giga));
  }
  // A quarter of the gather of the same total.
  const GroupShape ring = on_torus({16, 1, 1}, {true, false, false});
  const std::int64_t all_to_all = torus_ps(ring, CollectiveKind::all_to_all, 45'000 * 64);
  EXPECT_NEAR(static_cast<double>(torus_ps(ring, CollectiveKind::all_gather, 45'000 * 64 * 16)) / 4 * 16 / 15,
              static_cast<double>(all_to_all), 10);
}

TEST(CollectivesTest, HopsOnATorusHideBehindTheBytes) {
  GroupShape shape = on_torus({16, 16, 1}, {true, true, false});
  topology::CollectiveTuning hops = without_latency();
  hops.intra.simple.hop = Duration{microsecond};
  const auto gather = [&](std::int64_t bytes) {
    return choose(hops, shape, CollectiveKind::all_gather, Bytes{bytes}).cost.duration.count();
  };
  EXPECT_EQ(gather(256), 16 * microsecond);
  EXPECT_EQ(gather(45'000 * 1024), wire_ps(45'000 * 1024, 255, 256 * 4, 45 * giga));
  EXPECT_EQ(choose(hops, shape, CollectiveKind::all_gather, Bytes{256}).algorithm, Algorithm::torus);
}

TEST(CollectivesTest, SlicesAreJoinedByRingsOfLikePositions) {
  GroupShape shape = on_torus({4, 4, 1}, {true, true, false});
  shape.nodes = 2;
  shape.members = 32;
  shape.rails = 4;
  shape.rail_rate = {25 * giga};
  const std::int64_t bytes = 45'000'000;
  const CollectiveChoice choice = choose(without_latency(), shape, CollectiveKind::all_reduce, Bytes{bytes});
  EXPECT_EQ(choice.algorithm, Algorithm::hierarchical);
  EXPECT_EQ(choice.cost.duration.count(),
            wire_ps(bytes, 2 * 15, 16 * 4, 45 * giga) + wire_ps(bytes, 2, 2 * 4, 25 * giga));
}

// Flows

TEST(CollectivesTest, ACostAloneIsItsLatencyAndItsHeaviestConnection) {
  GroupShape shape = over_nodes(4, 8, 8);
  shape.sharp = true;
  for (std::size_t algorithm = 0; algorithm < topology::algorithms; ++algorithm) {
    for (std::size_t kind = 0; kind < sim::collective_kinds; ++kind) {
      const auto cost = collective_cost(with_nvls(), shape, static_cast<CollectiveKind>(kind), Bytes{sizes[1]},
                                        static_cast<Algorithm>(algorithm), ProtocolKind::simple);
      if (!cost || cost->flow_bytes.count == 0) continue;
      EXPECT_EQ(cost->duration, cost->latency + sim::time_for(cost->flow_bytes, cost->flow_rate))
          << topology::algorithm_names.at(algorithm);
    }
  }
}

TEST(CollectivesTest, FlowsAreThoseOfSingleConnections) {
  const auto cost = [](const GroupShape& shape, CollectiveKind kind, Algorithm algorithm) {
    return *collective_cost(tuning(), shape, kind, Bytes{64'000}, algorithm, ProtocolKind::simple);
  };
  // A ring's connection has a rail to itself; its share of the links inside would be as large.
  const auto ring = cost(over_nodes(4, 8, 8), CollectiveKind::all_reduce, Algorithm::ring);
  EXPECT_EQ(ring.flow_bytes, Bytes{15'500});
  EXPECT_EQ(ring.flow_rate.count, 45 * giga);
  // Four edges of the trees leave a node on each rail.
  const auto tree = cost(over_nodes(16, 8, 8), CollectiveKind::all_reduce, Algorithm::tree);
  EXPECT_EQ(tree.flow_bytes, Bytes{4'000});
  EXPECT_EQ(tree.flow_rate.count, 45 * giga / 4);
  // 8 x 24 pairs leave a node over 8 rails.
  const auto pairs = cost(over_nodes(4, 8, 8), CollectiveKind::all_to_all, Algorithm::direct);
  EXPECT_EQ(pairs.flow_bytes, Bytes{2'000});
  EXPECT_EQ(pairs.flow_rate.count, 45 * giga / 24);
  EXPECT_EQ(pairs.pattern, sim::TrafficPattern::pairs);
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

TEST(CollectivesTest, ABroadcastOrReduceSendsTheVectorToOrFromAllButTheRoot) {
  for (const CollectiveKind kind : {CollectiveKind::broadcast, CollectiveKind::reduce})
    for (const Algorithm algorithm : {Algorithm::ring, Algorithm::tree})
      for (const GroupShape& shape : {one_node(8), over_nodes(4, 2, 2)}) {
        const auto cost = collective_cost(tuning(), shape, kind, Bytes{64'000}, algorithm, ProtocolKind::simple);
        EXPECT_EQ(cost->wire_bytes, Bytes{56'000});
      }
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

TEST(CollectivesTest, AnAlgorithmCanBeAskedForWhereItApplies) {
  topology::CollectiveTuning forced = tuning();
  forced.algorithm = Algorithm::tree;
  EXPECT_EQ(choose(forced, over_nodes(4, 8, 8), CollectiveKind::all_reduce, Bytes{10 * giga}).algorithm,
            Algorithm::tree);
  EXPECT_EQ(choose(forced, over_nodes(4, 8, 8), CollectiveKind::all_gather, Bytes{10 * giga}).algorithm,
            Algorithm::ring);
  forced.algorithm = Algorithm::bruck;
  EXPECT_EQ(choose(forced, one_node(8), CollectiveKind::all_to_all, Bytes{8}).algorithm, Algorithm::bruck);
}

TEST(CollectivesTest, TheRunnerUpIsTheNextBest) {
  const CollectiveChoice choice = choose(tuning(), one_node(8), CollectiveKind::all_reduce, Bytes{10 * giga});
  ASSERT_TRUE(choice.runner_up.has_value());
  EXPECT_GE(choice.runner_up->cost.duration, choice.cost.duration);
  EXPECT_TRUE(choice.runner_up->algorithm != choice.algorithm || choice.runner_up->protocol != choice.protocol);
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

}  // namespace
}  // namespace trainyard::strategies
