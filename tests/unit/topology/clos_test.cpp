// Fat trees and rails of two and three tiers: routes, ECMP, broken cables, links that can never be the bottleneck.
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/clusters.hpp"
#include "topology/cluster.hpp"

namespace trainyard::topology {
namespace {

constexpr FabricType::Routing ecmp = FabricType::Routing::ecmp;

FabricType tree(std::int64_t radix, double oversubscription = 1.0) {
  return fabric_type(Kind::fat_tree, radix, oversubscription);
}

sim::BytesPerSecond capacity_of(const Cluster& cluster, const std::string& name) {
  const auto link = cluster.find_link(name);
  EXPECT_TRUE(link) << name;
  return link ? cluster.link(*link).capacity : sim::BytesPerSecond{};
}

// What enters every switch leaves it: the shares on each tier sum to one.
void expect_whole(const Cluster& cluster, const Route& route) {
  std::map<std::pair<LinkKind, std::string>, double> sums;
  for (const RouteLink& on : route.links) {
    const std::string name = cluster.name_of(on.link);
    sums[{cluster.link(on.link).kind, name.substr(name.rfind(' '))}] +=
        static_cast<double>(on.numerator) / on.denominator;
    EXPECT_GT(cluster.link(on.link).capacity.count, 0) << name;
  }
  for (const auto& [tier, sum] : sums) EXPECT_NEAR(sum, 1.0, 1e-12) << tier.second;
}

TEST(ClosTest, AThirdTierComesWhereASpineHasTooFewPorts) {
  // Radix 4: two NICs on a leaf, two spines, four ports on a spine.
  const Cluster two(node_type(1, 1), 8, 8, tree(4));
  EXPECT_EQ(two.route(device(0), device(7)).switches, 3);
  EXPECT_FALSE(two.find_link("pod 0 up"));
  const Cluster three(node_type(1, 1), 10, 10, tree(4));
  EXPECT_EQ(three.route(device(0), device(2)).switches, 3);  // in one pod of two leaves
  EXPECT_EQ(way(three, 0, 2), (Names{"node 0 nic 0 out", "leaf 0 up", "leaf 1 down", "node 2 nic 0 in"}));
  const Route far = three.route(device(0), device(9));
  EXPECT_EQ(far.switches, 5);
  EXPECT_EQ(names(three, far),
            (Names{"node 0 nic 0 out", "leaf 0 up", "pod 0 up", "pod 2 down", "leaf 4 down", "node 9 nic 0 in"}));
  EXPECT_EQ(three.link(far.links[2].link).kind, LinkKind::core);
}

TEST(ClosTest, TheTiersCanBeGiven) {
  FabricType fabric = tree(4);
  fabric.tiers = 2;
  EXPECT_EQ(Cluster(node_type(1, 1), 10, 10, fabric).route(device(0), device(9)).switches, 3);
  fabric.tiers = 3;
  EXPECT_EQ(Cluster(node_type(1, 1), 8, 8, fabric).route(device(0), device(7)).switches, 5);
}

TEST(ClosTest, BothTiersCanBeOversubscribed) {
  FabricType fabric = tree(8, 2.0);  // four NICs of 50 GB/s on a leaf, two spines, four leaves in a pod
  fabric.tiers = 3;
  fabric.core_oversubscription = 4.0;
  const Cluster cluster(node_type(1, 1), 64, 64, fabric);
  EXPECT_EQ(capacity_of(cluster, "leaf 0 up"), sim::BytesPerSecond{2 * 50 * giga});
  EXPECT_EQ(capacity_of(cluster, "pod 3 down"), sim::BytesPerSecond{4 * 2 * 50 * giga / 4});
}

TEST(ClosTest, RailsKeepTheirPodsApart) {
  // Radix 4: two nodes on a leaf, two leaves of a rail in a pod.
  FabricType fabric = fabric_type(Kind::rail_optimized, 4);
  fabric.tiers = 3;
  const Cluster cluster(node_type(2, 2), 8, 16, fabric);
  EXPECT_EQ(cluster.route(device(0), device(2)).switches, 1);
  EXPECT_EQ(cluster.route(device(0), device(4)).switches, 3);  // the same rail, another unit
  EXPECT_EQ(cluster.route(device(0), device(8)).switches, 5);  // the same rail, another pod
  EXPECT_EQ(cluster.route(device(0), device(3)).switches, 5);  // another rail
}

TEST(ClosTest, RailsWithoutASpineAreJoinedInTheNode) {
  FabricType fabric = fabric_type(Kind::rail_optimized);
  fabric.spine = false;
  const Cluster cluster(node_type(), 40, 320, fabric);
  EXPECT_EQ(way(cluster, 3, 39 * 8 + 3), (Names{"node 0 nic 3 out", "node 39 nic 3 in"}));
  const Route across = cluster.route(device(3), device(8 + 5));
  EXPECT_EQ(names(cluster, across),
            (Names{"node 0 device 3 out", "node 0 device 5 in", "node 0 nic 5 out", "node 1 nic 5 in"}));
  EXPECT_EQ(across.switches, 1);
  EXPECT_FALSE(across.inside_domain);
}

TEST(ClosTest, WithoutASpineTheFirstDeviceOnASharedRailForwards) {
  FabricType fabric = fabric_type(Kind::rail_optimized);
  fabric.spine = false;
  const Cluster cluster(node_type(8, 4), 2, 16, fabric);
  EXPECT_EQ(way(cluster, 0, 8 + 7),
            (Names{"node 0 device 0 out", "node 0 device 6 in", "node 0 nic 3 out", "node 1 nic 3 in"}));
}

// ECMP

TEST(ClosTest, EcmpTakesOneCable) {
  FabricType fabric = tree(8);
  fabric.routing = ecmp;
  const Cluster cluster(node_type(1, 1), 16, 16, fabric);
  const Route route = cluster.route(device(0), device(15));
  ASSERT_EQ(route.links.size(), 4U);
  for (const RouteLink& on : route.links) EXPECT_EQ(std::pair(on.numerator, on.denominator), std::pair(1U, 1U));
  const std::string up = cluster.name_of(route.links[1].link);
  EXPECT_TRUE(up.starts_with("leaf 0 spine ") && up.ends_with(" up")) << up;
  const std::string spine = up.substr(7, up.size() - 7 - 3);
  EXPECT_EQ(cluster.name_of(route.links[2].link), "leaf 3 " + spine + " down");
  EXPECT_EQ(cluster.link(route.links[1].link).capacity, sim::BytesPerSecond{50 * giga});
}

TEST(ClosTest, EcmpFollowsFromTheSeed) {
  Cluster::Request request = request_of(node_type(1, 1), 64, tree(16));
  request.fabric.routing = ecmp;
  const Cluster first(request);
  const Cluster again(request);
  request.seed = 2;
  const Cluster other(request);
  int same = 0;
  for (std::int64_t to = 8; to < 64; ++to) {
    EXPECT_EQ(way(first, 0, to), way(again, 0, to));
    same += way(first, 0, to) == way(other, 0, to) ? 1 : 0;
  }
  EXPECT_LT(same, 28);
}

TEST(ClosTest, EcmpSpreadsConnectionsOverAllCables) {
  FabricType fabric = tree(16);  // eight spines
  fabric.routing = ecmp;
  for (const std::int64_t tiers : {2, 3}) {
    fabric.tiers = tiers;
    const Cluster cluster(node_type(1, 1), 128, 128, fabric);
    std::map<std::string, int> used;
    for (std::uint64_t connection = 0; connection < 800; ++connection)
      ++used[cluster.name_of(cluster.route(device(0), device(127), connection).links[1].link)];
    EXPECT_EQ(used.size(), 8U);
    for (const auto& [name, count] : used) {
      EXPECT_GT(count, 60) << name;
      EXPECT_LT(count, 140) << name;
    }
  }
}

TEST(ClosTest, EcmpHashesAgainAtEveryTier) {
  FabricType fabric = tree(8);
  fabric.routing = ecmp;
  fabric.tiers = 3;
  const Cluster cluster(node_type(1, 1), 64, 64, fabric);
  std::set<std::string> cores;
  for (std::uint64_t connection = 0; connection < 400; ++connection) {
    const Names names_on = names(cluster, cluster.route(device(0), device(63), connection));
    ASSERT_EQ(names_on.size(), 6U);
    // Up and down through the same core.
    EXPECT_EQ(names_on[2].substr(6, names_on[2].size() - 9), names_on[3].substr(6, names_on[3].size() - 11));
    cores.insert(names_on[2]);
  }
  EXPECT_EQ(cores.size(), 16U);
}

// Faults

TEST(ClosTest, ABundleCarriesWhatIsLeftOfItsCables) {
  Cluster::Request request = request_of(node_type(1, 1), 16, tree(8));  // four leaves, four spines
  request.link_faults = {{.link = "leaf 1 spine 2 up", .capacity = 0}};
  const Cluster cluster(request);
  EXPECT_EQ(capacity_of(cluster, "leaf 1 up"), sim::BytesPerSecond{3 * 50 * giga});
  EXPECT_EQ(capacity_of(cluster, "leaf 1 down"), sim::BytesPerSecond{3 * 50 * giga});  // broken is broken both ways
  EXPECT_EQ(capacity_of(cluster, "leaf 2 up"), sim::BytesPerSecond{4 * 50 * giga});
  EXPECT_EQ(names(cluster, cluster.route(device(4), device(8))),
            (Names{"node 4 nic 0 out", "leaf 1 up", "leaf 2 down", "node 8 nic 0 in"}));
  // Named twice is broken once; another cable is another one.
  request.link_faults.push_back({.link = "leaf 1 spine 2", .capacity = 0.5});
  EXPECT_EQ(capacity_of(Cluster(request), "leaf 1 up"), sim::BytesPerSecond{3 * 50 * giga});
  request.link_faults.push_back({.link = "leaf 1 spine 3", .capacity = 0.5});
  EXPECT_EQ(capacity_of(Cluster(request), "leaf 1 up"), sim::BytesPerSecond{125 * giga});
}

TEST(ClosTest, ABrokenCoreCableIsAPartOfItsPodsBundle) {
  FabricType fabric = tree(8);  // four spines in a pod, four cores above each
  fabric.tiers = 3;
  Cluster::Request request = request_of(node_type(1, 1), 64, fabric);
  request.link_faults = {{.link = "pod 1 spine 2 core 3 up", .capacity = 0}};
  const Cluster cluster(request);
  EXPECT_EQ(capacity_of(cluster, "pod 1 up"), sim::BytesPerSecond{15 * 50 * giga});
  EXPECT_EQ(capacity_of(cluster, "pod 1 down"), sim::BytesPerSecond{15 * 50 * giga});
  request.link_faults = {{.link = "pod 1 spine 2", .capacity = 0}};
  EXPECT_EQ(capacity_of(Cluster(request), "pod 1 up"), sim::BytesPerSecond{12 * 50 * giga});
}

TEST(ClosTest, EcmpAvoidsBrokenCables) {
  for (const std::int64_t tiers : {2, 3}) {
    Cluster::Request request = request_of(node_type(1, 1), 64, tree(8));
    request.fabric.routing = ecmp;
    request.fabric.tiers = tiers;
    request.link_faults = {{.link = "leaf 0 spine 2", .capacity = 0}};
    if (tiers == 3) request.link_faults.push_back({.link = "pod 3 spine 1 core 0", .capacity = 0});
    const Cluster cluster(request);
    for (std::uint64_t connection = 0; connection < 300; ++connection)
      expect_whole(cluster, cluster.route(device(0), device(63), connection));
  }
}

TEST(ClosTest, ALeafWithoutCablesIsCutOff) {
  Cluster::Request request = request_of(node_type(1, 1), 8, tree(4));  // two spines
  request.link_faults = {{.link = "leaf 1 spine 0", .capacity = 0}};
  EXPECT_FALSE(Cluster(request).cut());
  request.link_faults.push_back({.link = "leaf 1 spine 1", .capacity = 0});
  auto cut = Cluster(request).cut();
  ASSERT_TRUE(cut);
  EXPECT_EQ(cut->fault, 1U);
  EXPECT_EQ(cut->victim, "the nodes below leaf 1");
  request.link_faults = {{.link = "leaf 1 up", .capacity = 0}};
  EXPECT_TRUE(Cluster(request).cut());
}

TEST(ClosTest, OfSeveralFaultsOfALinkTheWorstHolds) {
  Cluster::Request request = request_of(node_type(1, 1), 8, tree(4));
  request.link_faults = {{.link = "node 0 nic 0 out", .capacity = 0.5}, {.link = "node 0 nic 0", .capacity = 0.25}};
  const Cluster cluster(request);
  EXPECT_EQ(capacity_of(cluster, "node 0 nic 0 out"), sim::BytesPerSecond{50 * giga / 4});
  EXPECT_DOUBLE_EQ(cluster.health_of(*cluster.find_link("node 0 nic 0 in")), 0.25);
}

// Links that never limit

bool binds(const Cluster& cluster, const std::string& name) {
  return cluster.can_bind(cluster.find_link(name).value());
}

TEST(ClosTest, ANonBlockingTierNeverBinds) {
  FabricType fabric = tree(8);
  for (const std::int64_t tiers : {2, 3}) {
    fabric.tiers = tiers;
    const Cluster cluster(node_type(1, 1), 64, 64, fabric);
    EXPECT_TRUE(binds(cluster, "node 0 nic 0 out"));
    EXPECT_FALSE(binds(cluster, "leaf 3 up"));
    EXPECT_FALSE(binds(cluster, "leaf 3 down"));
    EXPECT_TRUE(tiers == 2 || !binds(cluster, "pod 1 up"));
  }
  const Cluster rails(node_type(), 64, 512, fabric_type(Kind::rail_optimized, 16));
  for (std::uint32_t link = 0; link < rails.link_count(); ++link)
    EXPECT_EQ(rails.can_bind(LinkId{link}),
              rails.link(LinkId{link}).kind == LinkKind::nvlink || rails.link(LinkId{link}).kind == LinkKind::nic);
}

TEST(ClosTest, AnOversubscribedTierBinds) {
  EXPECT_TRUE(binds(Cluster(node_type(1, 1), 64, 64, tree(8, 2.0)), "leaf 3 up"));
  // Half full: what is there cannot fill it.
  EXPECT_FALSE(binds(Cluster(node_type(1, 1), 58, 58, tree(8, 2.0)), "leaf 14 down"));
  FabricType fabric = tree(8, 2.0);
  fabric.tiers = 3;
  EXPECT_FALSE(binds(Cluster(node_type(1, 1), 64, 64, fabric), "pod 0 up"));  // the leaves are narrower
  fabric.core_oversubscription = 1.5;
  EXPECT_TRUE(binds(Cluster(node_type(1, 1), 64, 64, fabric), "pod 0 up"));
}

TEST(ClosTest, FaultsAndHashesMakeLinksBind) {
  Cluster::Request request = request_of(node_type(1, 1), 16, tree(8));
  request.link_faults = {{.link = "leaf 1 spine 2", .capacity = 0}};
  const Cluster broken(request);
  EXPECT_TRUE(binds(broken, "leaf 1 up"));
  EXPECT_FALSE(binds(broken, "leaf 0 up"));
  request.link_faults = {{.link = "leaf 1 spine 2", .capacity = 0.5}};
  EXPECT_TRUE(binds(Cluster(request), "leaf 1 up"));
  request.link_faults.clear();
  request.fabric.routing = ecmp;
  EXPECT_TRUE(binds(Cluster(request), "leaf 0 spine 0 up"));
}

// Names

TEST(ClosTest, EveryNameLeadsBackToItsLink) {
  for (const std::int64_t tiers : {2, 3}) {
    for (const FabricType::Routing routing : {FabricType::Routing::adaptive, ecmp}) {
      Cluster::Request request = request_of(node_type(2, 2), 16, tree(8));
      request.fabric.tiers = tiers;
      request.fabric.routing = routing;
      request.link_faults = {{.link = "leaf 0 spine 2", .capacity = 0.5}};
      if (tiers == 3) request.link_faults.push_back({.link = "pod 1 spine 3 core 0", .capacity = 0.5});
      const Cluster cluster(request);
      std::set<std::string> seen;
      for (std::uint32_t link = 0; link < cluster.link_count(); ++link) {
        const std::string name = cluster.name_of(LinkId{link});
        EXPECT_TRUE(seen.insert(name).second) << name;
        EXPECT_EQ(cluster.find_link(name), LinkId{link}) << name;
      }
    }
  }
}

TEST(ClosTest, ACableOfABundleHasANameToo) {
  const Cluster cluster(node_type(1, 1), 16, 16, tree(8));
  EXPECT_EQ(cluster.find_link("leaf 1 spine 3 up"), cluster.find_link("leaf 1 up"));
  EXPECT_FALSE(cluster.find_link("leaf 1 spine 4 up"));
  EXPECT_FALSE(cluster.find_link("leaf 4 up"));
  EXPECT_FALSE(cluster.find_link("leaf up"));
  EXPECT_FALSE(cluster.find_link(""));
}

TEST(ClosTest, TheNearestNameExists) {
  const Cluster cluster(node_type(1, 1), 16, 16, tree(8));
  EXPECT_EQ(cluster.nearest_link("leef 2 up"), "leaf 2 up");
  EXPECT_EQ(cluster.nearest_link("leaf 99 spine 1 up"), "leaf 3 spine 1 up");
  EXPECT_EQ(cluster.nearest_link("node 2 nic 7 out"), "node 2 nic 0 out");
  EXPECT_EQ(cluster.nearest_link("node 2 nik out"), "node 2 nic 0 out");
}

}  // namespace
}  // namespace trainyard::topology
