// Dragonflies: minimal routes, spread over all cables between two groups.
#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <string>

#include "tests/support/clusters.hpp"
#include "topology/cluster.hpp"

namespace trainyard::topology {
namespace {

// Groups of four routers with two NICs each.
FabricType dragonfly(std::int64_t global_links, FabricType::Routing routing = FabricType::Routing::adaptive) {
  FabricType fabric = fabric_type(Kind::dragonfly);
  fabric.hosts = 2;
  fabric.group_routers = 4;
  fabric.global_links = global_links;
  fabric.routing = routing;
  return fabric;
}

TEST(DragonflyTest, NeighboursMeetInARouterOrAGroup) {
  const Cluster cluster(node_type(1, 1), 40, 40, dragonfly(1));
  EXPECT_EQ(way(cluster, 0, 1), (Names{"node 0 nic 0 out", "node 1 nic 0 in"}));
  EXPECT_EQ(cluster.route(device(0), device(1)).switches, 1);
  EXPECT_EQ(way(cluster, 0, 7), (Names{"node 0 nic 0 out", "router 0 to router 3", "node 7 nic 0 in"}));
  EXPECT_EQ(cluster.route(device(0), device(7)).switches, 2);
}

TEST(DragonflyTest, OneCableJoinsTwoGroups) {
  const Cluster cluster(node_type(1, 1), 40, 40, dragonfly(1));
  for (std::int64_t from = 0; from < 40; ++from) {
    for (std::int64_t to = 0; to < 40; ++to) {
      if (from / 8 == to / 8) continue;
      const Route route = cluster.route(device(from), device(to));
      int global = 0;
      for (const RouteLink& on : route.links) {
        global += cluster.link(on.link).kind == LinkKind::global ? 1 : 0;
        ASSERT_GT(cluster.link(on.link).capacity.count, 0) << cluster.name_of(on.link);
      }
      ASSERT_EQ(global, 1);
      ASSERT_GE(route.switches, 2);
      ASSERT_LE(route.switches, 4);
      ASSERT_EQ(route.links.size(), static_cast<std::size_t>(route.switches) + 1);
      ASSERT_EQ(cluster.route(device(to), device(from)).links.size(), route.links.size());
    }
  }
}

TEST(DragonflyTest, TrafficIsSpreadOverAllCablesBetweenTwoGroups) {
  const Cluster cluster(node_type(1, 1), 24, 24, dragonfly(6));  // six cables on four routers: two of them have two
  const Route route = cluster.route(device(0), device(23));
  double sum = 0;
  for (const RouteLink& on : route.links)
    if (cluster.link(on.link).kind == LinkKind::global) sum += static_cast<double>(on.numerator) / on.denominator;
  EXPECT_DOUBLE_EQ(sum, 1.0);
  EXPECT_DOUBLE_EQ(share_on(cluster, route, "group 0 to group 2 cable 0"), 1.0 / 3);
  EXPECT_DOUBLE_EQ(share_on(cluster, route, "group 0 to group 2 cable 3"), 1.0 / 6);
  const Link wide = cluster.link(*cluster.find_link("group 0 to group 2 cable 0"));
  EXPECT_EQ(wide.capacity, sim::BytesPerSecond{2 * 50 * giga});
}

TEST(DragonflyTest, EcmpTakesOneOfThem) {
  const Cluster cluster(node_type(1, 1), 24, 24, dragonfly(4, FabricType::Routing::ecmp));
  std::set<std::string> taken;
  for (std::uint64_t connection = 0; connection < 100; ++connection) {
    int global = 0;
    for (const RouteLink& on : cluster.route(device(0), device(23), connection).links) {
      EXPECT_EQ(on.denominator, 1U);
      if (cluster.link(on.link).kind != LinkKind::global) continue;
      ++global;
      taken.insert(cluster.name_of(on.link));
    }
    EXPECT_EQ(global, 1);
  }
  EXPECT_EQ(taken.size(), 4U);
}

TEST(DragonflyTest, ABrokenCableLeavesTheOthers) {
  Cluster::Request request = request_of(node_type(1, 1), 24, dragonfly(4));
  request.link_faults = {{.link = "group 0 to group 2 cable 1", .capacity = 0}};
  const Cluster cluster(request);
  const Route route = cluster.route(device(0), device(23));
  EXPECT_DOUBLE_EQ(share_on(cluster, route, "group 0 to group 2 cable 1"), 0);
  EXPECT_DOUBLE_EQ(share_on(cluster, route, "group 0 to group 2 cable 0"), 1.0 / 3);
  EXPECT_EQ(cluster.link(*cluster.find_link("group 2 to group 0 cable 1")).capacity.count, 0);
  EXPECT_FALSE(cluster.cut());
}

TEST(DragonflyTest, WithoutACableToAGroupTheWayLeadsThroughAnother) {
  Cluster::Request request = request_of(node_type(1, 1), 24, dragonfly(1));
  request.link_faults = {{.link = "group 0 to group 2 cable 0", .capacity = 0},
                         {.link = "router 0 to router 3", .capacity = 0}};
  const Cluster cluster(request);
  int global = 0;
  for (const RouteLink& on : cluster.route(device(0), device(23)).links) {
    EXPECT_GT(cluster.link(on.link).capacity.count, 0) << cluster.name_of(on.link);
    global += cluster.link(on.link).kind == LinkKind::global ? 1 : 0;
  }
  EXPECT_EQ(global, 2);
  EXPECT_EQ(cluster.route(device(0), device(7)).links.size(), 4U);
  EXPECT_FALSE(cluster.cut());
  request.link_faults.push_back({.link = "group 1 to group 2 cable 0", .capacity = 0});
  EXPECT_TRUE(Cluster(request).cut());
}

TEST(DragonflyTest, TheUsualSizesAreBalanced) {
  // Radix 64: 16 NICs and 16 cables to other groups on each of 32 routers.
  const Cluster cluster(node_type(), 512, 4096, fabric_type(Kind::dragonfly));
  EXPECT_TRUE(cluster.find_link("router 255 to router 224"));
  EXPECT_FALSE(cluster.find_link("router 255 to router 223"));
  sim::BytesPerSecond out{};
  for (int group = 1; group < 8; ++group)
    for (int cable = 0; cable < 32; ++cable)
      out +=
          cluster
              .link(*cluster.find_link("group 0 to group " + std::to_string(group) + " cable " + std::to_string(cable)))
              .capacity;
  EXPECT_LE(out.count, 512 * 50 * giga);
  EXPECT_GT(out.count, 505 * 50 * giga);
}

TEST(DragonflyTest, EveryNameLeadsBackToItsLink) {
  const Cluster cluster(node_type(1, 1), 24, 24, dragonfly(6));
  for (std::uint32_t link = 0; link < cluster.link_count(); ++link) {
    if (cluster.link(LinkId{link}).capacity.count == 0) continue;
    EXPECT_EQ(cluster.find_link(cluster.name_of(LinkId{link})), LinkId{link}) << cluster.name_of(LinkId{link});
  }
}

}  // namespace
}  // namespace trainyard::topology
