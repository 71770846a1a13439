#include "topology/cluster.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/clusters.hpp"

namespace trainyard::topology {
namespace {

// Where devices are

TEST(ClusterTest, DevicesAreNumberedNodeByNode) {
  const Cluster cluster(node_type(), 3, 24, one_switch);
  EXPECT_EQ(cluster.devices(), 24);
  EXPECT_EQ(cluster.nodes(), 3);
  EXPECT_EQ(cluster.node_of(device(7)), 0);
  EXPECT_EQ(cluster.position_of(device(7)), 7);
  EXPECT_EQ(cluster.node_of(device(8)), 1);
  EXPECT_EQ(cluster.position_of(device(8)), 0);
  EXPECT_EQ(cluster.node_of(device(23)), 2);
}

TEST(ClusterTest, FewerDevicesAreSpreadEvenlyOverTheNodes) {
  const Cluster cluster(node_type(), 4, 8, one_switch);
  for (std::int64_t i = 0; i < 8; ++i) {
    EXPECT_EQ(cluster.node_of(device(i)), i / 2);
    EXPECT_EQ(cluster.position_of(device(i)), i % 2);
  }
}

TEST(ClusterTest, TheFirstNodesTakeTheRemainder) {
  const Cluster cluster(node_type(), 4, 10, one_switch);
  std::vector<std::int64_t> on_node(4, 0);
  for (std::int64_t i = 0; i < 10; ++i) ++on_node[static_cast<std::size_t>(cluster.node_of(device(i)))];
  EXPECT_EQ(on_node, (std::vector<std::int64_t>{3, 3, 2, 2}));
}

TEST(ClusterDeathTest, MoreDevicesThanThereAreStopTheRun) {
  EXPECT_DEATH(Cluster(node_type(), 2, 17, one_switch), "a cluster has the devices that it uses");
  EXPECT_DEATH(Cluster(node_type(), 2, 0, one_switch), "a cluster has the devices that it uses");
}

// NICs

TEST(ClusterTest, EveryDeviceHasItsOwnNicWhereThereAreAsMany) {
  const Cluster cluster(node_type(8, 8), 2, 16, one_switch);
  EXPECT_EQ(cluster.nics_per_node(), 8);
  EXPECT_EQ(cluster.nic_rate(), sim::BytesPerSecond{50 * giga});
  for (std::int64_t i = 0; i < 16; ++i) EXPECT_EQ(cluster.nic_of(device(i)), i % 8);
}

TEST(ClusterTest, NeighboursShareANicWhereThereAreHalfAsMany) {
  const Cluster cluster(node_type(8, 4), 2, 16, one_switch);
  EXPECT_EQ(cluster.nics_per_node(), 4);
  EXPECT_EQ(cluster.nic_rate(), sim::BytesPerSecond{50 * giga});
  for (std::int64_t i = 0; i < 16; ++i) EXPECT_EQ(cluster.nic_of(device(i)), i % 8 / 2);
}

TEST(ClusterTest, ADeviceHasABundleWhereThereAreTwiceAsMany) {
  const Cluster cluster(node_type(8, 16), 2, 16, one_switch);
  EXPECT_EQ(cluster.nics_per_node(), 8);
  EXPECT_EQ(cluster.nic_rate(), sim::BytesPerSecond{100 * giga});
  for (std::int64_t i = 0; i < 16; ++i) EXPECT_EQ(cluster.nic_of(device(i)), i % 8);
  EXPECT_EQ(cluster.link(cluster.route(device(0), device(8)).links.front().link).capacity,
            sim::BytesPerSecond{100 * giga});
}

TEST(ClusterTest, AllDevicesShareASingleNic) {
  const Cluster cluster(node_type(8, 1), 2, 16, one_switch);
  for (std::int64_t i = 0; i < 16; ++i) EXPECT_EQ(cluster.nic_of(device(i)), 0);
  EXPECT_EQ(way(cluster, 3, 13), (Names{"node 0 nic 0 out", "node 1 nic 0 in"}));
}

TEST(ClusterTest, EvenlySharedNicsServeLikeNumbersOfDevices) {
  for (const std::int64_t nics : {1, 2, 4, 8}) {
    const Cluster cluster(node_type(8, nics), 1, 8, one_switch);
    std::vector<std::int64_t> served(static_cast<std::size_t>(nics), 0);
    for (std::int64_t i = 0; i < 8; ++i) ++served.at(static_cast<std::size_t>(cluster.nic_of(device(i))));
    EXPECT_EQ(served, std::vector<std::int64_t>(static_cast<std::size_t>(nics), 8 / nics));
  }
}

// Routes

TEST(ClusterTest, ADeviceReachesItselfWithoutALink) {
  const Cluster cluster(node_type(), 2, 16, one_switch);
  const Route route = cluster.route(device(3), device(3));
  EXPECT_TRUE(route.links.empty());
  EXPECT_TRUE(route.inside_domain);
}

TEST(ClusterTest, ARouteInsideANodeTakesTheLinksOfBothDevices) {
  const Cluster cluster(node_type(), 2, 16, one_switch);
  const Route route = cluster.route(device(9), device(14));
  EXPECT_TRUE(route.inside_domain);
  EXPECT_EQ(route.switches, 0);
  EXPECT_EQ(names(cluster, route), (Names{"node 1 device 1 out", "node 1 device 6 in"}));
  for (const RouteLink& on : route.links)
    EXPECT_EQ(cluster.link(on.link), (Link{LinkKind::nvlink, {450 * giga}, sim::Duration{500'000}}));
  EXPECT_EQ(route.latency, sim::Duration{1'000'000});
}

TEST(ClusterTest, APositionIsThatOfTheDeviceSlotWhateverTheNumber) {
  const Cluster cluster(node_type(), 2, 6, one_switch);  // three on each node
  EXPECT_EQ(way(cluster, 4, 5), (Names{"node 1 device 1 out", "node 1 device 2 in"}));
}

TEST(ClusterTest, OneSwitchJoinsAllNodes) {
  const Cluster cluster(node_type(), 100, 800, one_switch);
  const Route route = cluster.route(device(2), device(799));
  EXPECT_FALSE(route.inside_domain);
  EXPECT_EQ(route.switches, 1);
  EXPECT_EQ(names(cluster, route), (Names{"node 0 nic 2 out", "node 99 nic 7 in"}));
}

TEST(ClusterTest, ARouteHasTheLatencyOfAdaptersAndSwitches) {
  const Cluster cluster(node_type(), 12, 96, fabric_type(Kind::fat_tree));
  const Route route = cluster.route(device(0), device(8));
  for (const RouteLink& on : route.links) EXPECT_EQ(cluster.link(on.link).kind, LinkKind::nic);
  EXPECT_EQ(route.latency, sim::Duration{3'000'000 + 250'000});
  EXPECT_EQ(cluster.route(device(0), device(95)).latency, sim::Duration{3'000'000 + 3 * 250'000});
}

TEST(ClusterTest, NeighboursOfAFatTreeMeetInTheirLeaf) {
  const Cluster cluster(node_type(), 8, 64, fabric_type(Kind::fat_tree));  // a leaf takes 32 NICs: four nodes
  const Route route = cluster.route(device(0), device(3 * 8 + 5));
  EXPECT_EQ(route.switches, 1);
  EXPECT_EQ(names(cluster, route), (Names{"node 0 nic 0 out", "node 3 nic 5 in"}));
}

TEST(ClusterTest, LeavesOfAFatTreeMeetInASpine) {
  const Cluster cluster(node_type(), 12, 96, fabric_type(Kind::fat_tree));
  const Route route = cluster.route(device(3 * 8 + 1), device(8 * 8 + 6));
  EXPECT_EQ(route.switches, 3);
  EXPECT_EQ(names(cluster, route), (Names{"node 3 nic 1 out", "leaf 0 up", "leaf 2 down", "node 8 nic 6 in"}));
  EXPECT_EQ(cluster.link(route.links[1].link).kind, LinkKind::spine);
}

TEST(ClusterTest, ANodeOfAFatTreeMayLieUnderTwoLeaves) {
  const Cluster cluster(node_type(), 4, 32, fabric_type(Kind::fat_tree, 24));  // twelve NICs under a leaf
  EXPECT_EQ(way(cluster, 0, 8 + 3), (Names{"node 0 nic 0 out", "node 1 nic 3 in"}));
  EXPECT_EQ(way(cluster, 0, 8 + 4), (Names{"node 0 nic 0 out", "leaf 0 up", "leaf 1 down", "node 1 nic 4 in"}));
}

TEST(ClusterTest, ARailStaysBelowOneLeaf) {
  const Cluster cluster(node_type(), 32, 256, fabric_type(Kind::rail_optimized));
  for (std::int64_t node = 1; node < 32; ++node) {
    const Route route = cluster.route(device(5), device(node * 8 + 5));
    EXPECT_EQ(route.switches, 1);
    EXPECT_EQ(route.links.size(), 2U);
  }
}

TEST(ClusterTest, DifferentRailsMeetInASpine) {
  const Cluster cluster(node_type(), 32, 256, fabric_type(Kind::rail_optimized));
  EXPECT_EQ(way(cluster, 5, 8 + 6), (Names{"node 0 nic 5 out", "leaf 5 up", "leaf 6 down", "node 1 nic 6 in"}));
}

TEST(ClusterTest, ARailThatIsLongerThanALeafCrossesASpine) {
  const Cluster cluster(node_type(), 40, 320, fabric_type(Kind::rail_optimized));  // 32 nodes under a leaf
  const Route route = cluster.route(device(5), device(32 * 8 + 5));
  EXPECT_EQ(route.switches, 3);
  EXPECT_EQ(names(cluster, route), (Names{"node 0 nic 5 out", "leaf 5 up", "leaf 13 down", "node 32 nic 5 in"}));
}

TEST(ClusterTest, DevicesThatShareANicShareItsRail) {
  const Cluster cluster(node_type(8, 4), 2, 16, fabric_type(Kind::rail_optimized));
  EXPECT_EQ(way(cluster, 2, 8 + 3), (Names{"node 0 nic 1 out", "node 1 nic 1 in"}));
  EXPECT_EQ(cluster.route(device(2), device(8 + 4)).switches, 3);
}

TEST(ClusterTest, AWayBackIsAsLongAndTakesTheOtherDirections) {
  for (const Kind kind : {Kind::single_switch, Kind::fat_tree, Kind::rail_optimized}) {
    const Cluster cluster(node_type(8, 4), 12, 90, fabric_type(kind, 16));
    for (std::int64_t from = 0; from < 90; from += 7) {
      for (std::int64_t to = 0; to < 90; ++to) {
        const Route there = cluster.route(device(from), device(to));
        const Route back = cluster.route(device(to), device(from));
        ASSERT_EQ(there.links.size(), back.links.size()) << from << " to " << to;
        ASSERT_EQ(there.switches, back.switches) << from << " to " << to;
        for (std::size_t i = 0; i < there.links.size(); ++i) {
          const LinkId mirrored = back.links[back.links.size() - 1 - i].link;
          // The two directions of a cable lie side by side.
          ASSERT_EQ(sim::index_of(there.links[i].link) ^ 1U, sim::index_of(mirrored)) << from << " to " << to;
          ASSERT_EQ(cluster.link(there.links[i].link).capacity, cluster.link(mirrored).capacity);
        }
      }
    }
  }
}

// Capacity above the leaves

sim::BytesPerSecond uplink_of(const Cluster& cluster, std::int64_t from, std::int64_t to) {
  const Route route = cluster.route(device(from), device(to));
  EXPECT_EQ(route.links.size(), 4U);
  return cluster.link(route.links.at(1).link).capacity;
}

TEST(ClusterTest, ALeafHasAsMuchAboveAsBelow) {
  const Cluster cluster(node_type(), 8, 64, fabric_type(Kind::fat_tree));
  EXPECT_EQ(uplink_of(cluster, 0, 63), sim::BytesPerSecond{32 * 50 * giga});
}

TEST(ClusterTest, OversubscriptionDividesWhatIsAboveALeaf) {
  const Cluster two(node_type(), 8, 64, fabric_type(Kind::fat_tree, 64, 2.0));
  EXPECT_EQ(uplink_of(two, 0, 63), sim::BytesPerSecond{16 * 50 * giga});
  const Cluster rails(node_type(), 8, 64, fabric_type(Kind::rail_optimized, 64, 4.0));
  EXPECT_EQ(uplink_of(rails, 0, 9), sim::BytesPerSecond{8 * 50 * giga});
}

TEST(ClusterTest, AHalfFilledLeafHasTheUplinksOfAFullOne) {
  const Cluster cluster(node_type(), 5, 40, fabric_type(Kind::fat_tree));  // the second leaf has one node
  EXPECT_EQ(uplink_of(cluster, 39, 0), sim::BytesPerSecond{32 * 50 * giga});
}

TEST(ClusterTest, BundlesOfNicsCountInFullForTheUplinks) {
  const Cluster cluster(node_type(8, 16), 8, 64, fabric_type(Kind::fat_tree));
  EXPECT_EQ(uplink_of(cluster, 0, 63), sim::BytesPerSecond{32 * 100 * giga});
}

TEST(ClusterTest, EveryLinkHasAName) {
  const Cluster cluster(node_type(2, 1), 3, 6, fabric_type(Kind::fat_tree, 4));
  Names all;
  for (std::uint32_t i = 0; i < cluster.link_count(); ++i) all.push_back(cluster.name_of(LinkId{i}));
  EXPECT_EQ(all, (Names{"node 0 device 0 out", "node 0 device 0 in", "node 0 device 1 out", "node 0 device 1 in",
                        "node 1 device 0 out", "node 1 device 0 in", "node 1 device 1 out", "node 1 device 1 in",
                        "node 2 device 0 out", "node 2 device 0 in", "node 2 device 1 out", "node 2 device 1 in",
                        "node 0 nic 0 out",    "node 0 nic 0 in",    "node 1 nic 0 out",    "node 1 nic 0 in",
                        "node 2 nic 0 out",    "node 2 nic 0 in",    "leaf 0 up",           "leaf 0 down",
                        "leaf 1 up",           "leaf 1 down"}));
}

TEST(ClusterTest, AClusterThatMovedGivesTheSameRoutes) {
  Cluster first(node_type(), 12, 96, fabric_type(Kind::fat_tree));
  const Names before = way(first, 0, 95);
  const Cluster second = std::move(first);
  EXPECT_EQ(way(second, 0, 95), before);
}

}  // namespace
}  // namespace trainyard::topology
