// Inside nodes: PCIe switches, the hybrid cube mesh of DGX-1, broken ports.
#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "tests/support/clusters.hpp"
#include "topology/cluster.hpp"

namespace trainyard::topology {
namespace {

NodeType pcie(std::int64_t devices, std::int64_t per_switch) {
  NodeType node = node_type(devices, 1);
  node.interconnect = Interconnect::pcie;
  node.link_rate = {25 * giga};
  node.per_switch = per_switch;
  return node;
}

// NVIDIA DGX-1 With Tesla V100 System Architecture whitepaper.
NodeType dgx_1v() {
  NodeType node = node_type(8, 4);
  node.interconnect = Interconnect::cube_mesh;
  node.link_rate = {25 * giga};
  node.wiring = {{0, 1, 1}, {0, 2, 1}, {0, 3, 2}, {0, 4, 2}, {1, 2, 2}, {1, 3, 1}, {1, 5, 2}, {2, 3, 2},
                 {2, 6, 1}, {3, 7, 1}, {4, 5, 1}, {4, 6, 1}, {4, 7, 2}, {5, 6, 2}, {5, 7, 1}, {6, 7, 2}};
  return node;
}

std::vector<DeviceId> first(std::int64_t count) {
  std::vector<DeviceId> devices;
  for (std::int64_t i = 0; i < count; ++i) devices.push_back(device(i));
  return devices;
}

TEST(PcieTest, DevicesBelowOneSwitchMeetThere) {
  const Cluster cluster(pcie(8, 4), 1, 8, one_switch);
  EXPECT_EQ(way(cluster, 0, 3), (Names{"node 0 device 0 out", "node 0 device 3 in"}));
  EXPECT_EQ(way(cluster, 0, 5),
            (Names{"node 0 device 0 out", "node 0 switch 0 up", "node 0 switch 1 down", "node 0 device 5 in"}));
  EXPECT_EQ(cluster.link(cluster.route(device(0), device(5)).links[1].link).kind, LinkKind::pcie);
  EXPECT_TRUE(cluster.can_bind(*cluster.find_link("node 0 switch 0 up")));
  EXPECT_FALSE(Cluster(pcie(4, 1), 1, 4, one_switch).can_bind(LinkId{8}));  // one device below each
}

TEST(PcieTest, WithoutSwitchesAllMeetInTheHost) {
  const Cluster cluster(pcie(4, 0), 1, 4, one_switch);
  EXPECT_EQ(way(cluster, 0, 3), (Names{"node 0 device 0 out", "node 0 device 3 in"}));
  EXPECT_FALSE(cluster.find_link("node 0 switch 0 up"));
}

TEST(PcieTest, TrafficToOtherNodesCrossesTheDevicesOwnLinks) {
  const Cluster cluster(pcie(2, 0), 2, 4, one_switch);
  EXPECT_EQ(way(cluster, 1, 2),
            (Names{"node 0 device 1 out", "node 0 nic 0 out", "node 1 nic 0 in", "node 1 device 0 in"}));
}

TEST(CubeMeshTest, NeighboursUseTheirOwnCables) {
  const Cluster cluster(dgx_1v(), 2, 16, one_switch);
  const Route single = cluster.route(device(8), device(9));
  EXPECT_EQ(names(cluster, single), Names{"node 1 device 0 to device 1"});
  EXPECT_EQ(cluster.link(single.links[0].link).capacity, sim::BytesPerSecond{25 * giga});
  const Route twofold = cluster.route(device(3), device(0));
  EXPECT_EQ(names(cluster, twofold), Names{"node 0 device 3 to device 0"});
  EXPECT_EQ(cluster.link(twofold.links[0].link).capacity, sim::BytesPerSecond{50 * giga});
  EXPECT_TRUE(single.inside_domain);
}

TEST(CubeMeshTest, EveryDeviceHasSixNvlinks) {
  std::vector<std::int64_t> cables(8, 0);
  for (const Wire& wire : dgx_1v().wiring) {
    cables[static_cast<std::size_t>(wire.from)] += wire.width;
    cables[static_cast<std::size_t>(wire.to)] += wire.width;
  }
  EXPECT_EQ(cables, std::vector<std::int64_t>(8, 6));
}

TEST(CubeMeshTest, OthersMeetThroughANeighbour) {
  const Cluster cluster(dgx_1v(), 1, 8, one_switch);
  for (std::int64_t from = 0; from < 8; ++from) {
    for (std::int64_t to = 0; to < 8; ++to) {
      if (from == to) continue;
      const Route route = cluster.route(device(from), device(to));
      EXPECT_LE(route.links.size(), 2U);
      EXPECT_EQ(route.links.size(), cluster.route(device(to), device(from)).links.size());
    }
  }
  EXPECT_EQ(cluster.route(device(0), device(7)).links.size(), 2U);
}

TEST(CubeMeshTest, RingsAreFoundBySearch) {
  const Cluster cluster(dgx_1v(), 2, 16, one_switch);
  const std::vector<std::int64_t> expected{1, 2, 4, 2, 2, 4, 6};
  for (std::int64_t devices = 2; devices <= 8; ++devices)
    EXPECT_EQ(cluster.rings_among(first(devices)), expected[static_cast<std::size_t>(devices - 2)]) << devices;
  EXPECT_EQ(cluster.rings_among(std::vector{device(8), device(11)}), 2);
  EXPECT_EQ(cluster.rings_among(std::vector{device(0), device(7)}), 1);  // through a neighbour
  EXPECT_EQ(cluster.rings_among(std::vector{device(0), device(8)}), 0);  // on two nodes
  EXPECT_EQ(Cluster(node_type(), 1, 8, one_switch).rings_among(first(8)), 0);
}

TEST(CubeMeshTest, ABrokenCableIsGoneRound) {
  Cluster::Request request = request_of(dgx_1v(), 2, one_switch);
  request.link_faults = {{.link = "node 1 device 0 to device 3", .capacity = 0}};
  const Cluster cluster(request);
  EXPECT_EQ(cluster.route(device(8), device(11)).links.size(), 2U);
  EXPECT_EQ(cluster.route(device(0), device(3)).links.size(), 1U);
  std::vector<DeviceId> second;
  for (std::int64_t i = 8; i < 16; ++i) second.push_back(device(i));
  EXPECT_LT(cluster.rings_among(second), 6);
  EXPECT_EQ(cluster.rings_among(first(8)), 6);
  EXPECT_FALSE(cluster.cut());
}

TEST(CubeMeshTest, WiresMustJoinAllDevices) {
  NodeType node = dgx_1v();
  EXPECT_TRUE(wires_join_all(node));
  node.devices = 9;
  EXPECT_FALSE(wires_join_all(node));
}

TEST(FaultTest, ABrokenPortOrNicCutsADeviceOff) {
  Cluster::Request request = request_of(node_type(), 2, one_switch);
  request.link_faults = {{.link = "node 1 device 3 in", .capacity = 0}};
  ASSERT_TRUE(Cluster(request).cut());
  EXPECT_EQ(Cluster(request).cut()->victim, "node 1 device 3");
  request.link_faults = {{.link = "node 0 nic 1", .capacity = 0.5}, {.link = "node 0 nic 2", .capacity = 0}};
  ASSERT_TRUE(Cluster(request).cut());
  EXPECT_EQ(Cluster(request).cut()->fault, 1U);
  request.groups[0].nodes = 1;  // nobody to talk to
  EXPECT_FALSE(Cluster(request).cut());
}

TEST(FaultTest, ADegradedLinkLosesCapacityInItsDirection) {
  Cluster::Request request = request_of(node_type(), 2, one_switch);
  request.link_faults = {{.link = "node 1 device 3 in", .capacity = 0.5}};
  const Cluster cluster(request);
  EXPECT_EQ(cluster.link(*cluster.find_link("node 1 device 3 in")).capacity, sim::BytesPerSecond{225 * giga});
  EXPECT_EQ(cluster.link(*cluster.find_link("node 1 device 3 out")).capacity, sim::BytesPerSecond{450 * giga});
}

}  // namespace
}  // namespace trainyard::topology
