// Which ranks are on which nodes, nodes of several types, slow devices, and clusters of a million devices.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "tests/support/clusters.hpp"
#include "topology/cluster.hpp"

namespace trainyard::topology {
namespace {

std::vector<std::int64_t> nodes_of(const Cluster& cluster) {
  std::vector<std::int64_t> nodes;
  for (std::int64_t i = 0; i < cluster.devices(); ++i) nodes.push_back(cluster.node_of(device(i)));
  return nodes;
}

TEST(PlacementTest, AShuffleIsAPermutationThatFollowsFromTheSeed) {
  const std::vector<std::int64_t> order = shuffled_nodes(100, 7);
  std::vector<std::int64_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  std::vector<std::int64_t> all(100);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(sorted, all);
  EXPECT_NE(order, all);
  EXPECT_EQ(order, shuffled_nodes(100, 7));
  EXPECT_NE(order, shuffled_nodes(100, 8));
  EXPECT_EQ(shuffled_nodes(1, 3), std::vector<std::int64_t>{0});
}

TEST(PlacementTest, EveryPermutationIsAboutAsLikely) {
  std::map<std::vector<std::int64_t>, int> seen;
  for (std::uint64_t seed = 0; seed < 6000; ++seed) ++seen[shuffled_nodes(3, seed)];
  EXPECT_EQ(seen.size(), 6U);
  for (const auto& [order, count] : seen) {
    EXPECT_GT(count, 850);
    EXPECT_LT(count, 1150);
  }
}

TEST(PlacementTest, RanksFillTheNodesInTheOrderGiven) {
  Cluster::Request request = request_of(node_type(2, 2), 4, one_switch);
  request.placement = {3, 0, 2};
  EXPECT_EQ(nodes_of(Cluster(request)), (std::vector<std::int64_t>{3, 3, 0, 0, 2, 2}));
  request.devices = 4;
  const Cluster fewer(request);
  EXPECT_EQ(nodes_of(fewer), (std::vector<std::int64_t>{3, 3, 0, 2}));
  EXPECT_EQ(fewer.position_of(device(1)), 1);
  EXPECT_EQ(way(fewer, 0, 2), (Names{"node 3 nic 0 out", "node 0 nic 0 in"}));
}

TEST(PlacementTest, NodesOfSeveralTypesKeepTheirOwnLinks) {
  Cluster::Request request;
  NodeType fast = node_type(8, 8);
  NodeType slow = node_type(4, 2);
  slow.nic_rate = {25 * giga};
  slow.link_rate = {300 * giga};
  request.groups = {{.node = fast, .nodes = 2}, {.node = slow, .nodes = 3}};
  request.fabric = fabric_type(Kind::fat_tree, 8);
  const Cluster cluster(request);
  EXPECT_EQ(cluster.devices(), 28);
  EXPECT_EQ(cluster.nodes(), 5);
  EXPECT_EQ(cluster.node_types(), 2U);
  EXPECT_EQ(cluster.node_type_of(device(15)), 0U);
  EXPECT_EQ(cluster.node_type_of(device(16)), 1U);
  EXPECT_EQ(cluster.node_of(device(27)), 4);
  EXPECT_EQ(cluster.position_of(device(27)), 3);
  EXPECT_EQ(cluster.nic_of(device(27)), 1);
  EXPECT_EQ(cluster.domain_of(device(27)), 4);
  EXPECT_EQ(cluster.nic_rate(1), sim::BytesPerSecond{25 * giga});
  EXPECT_EQ(way(cluster, 0, 27), (Names{"node 0 nic 0 out", "leaf 0 up", "leaf 5 down", "node 4 nic 1 in"}));
  EXPECT_EQ(cluster.link(cluster.nic_link(device(27), Direction::in)).capacity, sim::BytesPerSecond{25 * giga});
  EXPECT_EQ(cluster.link(*cluster.find_link("node 4 device 3 out")).capacity, sim::BytesPerSecond{300 * giga});
  for (std::uint32_t link = 0; link < cluster.link_count(); ++link)
    EXPECT_EQ(cluster.find_link(cluster.name_of(LinkId{link})), LinkId{link});
}

TEST(PlacementTest, FewerDevicesAreSpreadOverAllTypes) {
  Cluster::Request request;
  request.groups = {{.node = node_type(8, 8), .nodes = 2}, {.node = node_type(2, 2), .nodes = 2}};
  request.fabric = one_switch;
  request.devices = 15;  // two on each small node, and what is left on the others
  EXPECT_EQ(nodes_of(Cluster(request)), (std::vector<std::int64_t>{0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 3, 3}));
}

TEST(PlacementTest, SlowDevicesAreCountedWhereTheyStand) {
  Cluster::Request request = request_of(node_type(2, 2), 3, one_switch);
  request.device_faults = {{.device = 3, .speed = 0.8}};
  request.node_faults = {{.node = 2, .speed = 0.9}};
  request.placement = {2, 1, 0};
  const Cluster cluster(request);
  EXPECT_DOUBLE_EQ(cluster.speed_of(device(0)), 0.9);
  EXPECT_DOUBLE_EQ(cluster.speed_of(device(2)), 1.0);
  EXPECT_DOUBLE_EQ(cluster.speed_of(device(3)), 0.8);  // on node 1, position 1
  EXPECT_DOUBLE_EQ(cluster.speed_of(device(4)), 1.0);
}

TEST(PlacementTest, AMillionDevicesTakeNextToNoMemory) {
  const auto resident = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
  };
  const auto before = resident();
  for (const Kind kind : {Kind::single_switch, Kind::fat_tree, Kind::rail_optimized, Kind::dragonfly}) {
    Cluster::Request request = request_of(node_type(), 131072, fabric_type(kind));
    request.link_faults = {{.link = "node 131071 nic 7 out", .capacity = 0.5}};
    const Cluster cluster(request);
    EXPECT_EQ(cluster.devices(), 1 << 20);
    const Route route = cluster.route(device(0), device((1 << 20) - 1));
    EXPECT_GE(route.links.size(), 2U);
    EXPECT_EQ(cluster.name_of(route.links.back().link), "node 131071 nic 7 in");
  }
  EXPECT_LT(resident() - before, 20'000);  // kilobytes
}

}  // namespace
}  // namespace trainyard::topology
