// TPU slices: shapes, closed axes, routes and their closed forms.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/support/clusters.hpp"
#include "topology/cluster.hpp"

namespace trainyard::topology {
namespace {

using Shape = std::vector<std::int64_t>;

NodeType host(std::int64_t devices, Shape pod, Wraparound wraparound) {
  NodeType node = node_type(devices, 1);
  node.interconnect = Interconnect::ici;
  node.link_rate = {100 * giga};
  node.link_latency = sim::Duration{1'000'000};
  node.pod = std::move(pod);
  node.wraparound = wraparound;
  return node;
}
NodeType flat() { return host(8, {16, 16}, Wraparound::full_axis); }  // such as v5e
NodeType deep() { return host(4, {16, 20, 28}, Wraparound::cubes); }  // such as v5p

FabricType ici(Shape shape = {}, std::int64_t slices = 1) {
  FabricType fabric = fabric_type(Kind::ici);
  fabric.shape = std::move(shape);
  fabric.slices = slices;
  return fabric;
}

Cluster slice(const NodeType& node, const Shape& shape, std::int64_t slices = 1,
              FabricType::Torus torus = FabricType::Torus::usual) {
  std::int64_t chips = slices;
  for (const std::int64_t extent : shape) chips *= extent;
  FabricType fabric = ici(shape, slices);
  fabric.wraparound = torus;
  return {node, chips / node.devices, chips, fabric};
}

// Links that a byte crosses on the way, on the average over the ways.
double hops(const Route& route) {
  double sum = 0;
  for (const RouteLink& on : route.links) sum += static_cast<double>(on.numerator) / on.denominator;
  return sum;
}

TEST(TorusTest, AxesAreClosedByTheRuleOfTheChip) {
  const auto wraps = [](const NodeType& node, const Shape& shape) {
    return wrapped_axes(node, fabric_type(Kind::ici), shape);
  };
  EXPECT_EQ(wraps(flat(), {16, 16}), (std::vector<bool>{true, true}));
  EXPECT_EQ(wraps(flat(), {8, 16}), (std::vector<bool>{false, true}));
  EXPECT_EQ(wraps(flat(), {8, 8}), (std::vector<bool>{false, false}));
  EXPECT_EQ(wraps(deep(), {4, 4, 8}), (std::vector<bool>{true, true, true}));
  EXPECT_EQ(wraps(deep(), {2, 4, 8}), (std::vector<bool>{false, false, false}));
  EXPECT_EQ(wraps(deep(), {4, 4, 1}), (std::vector<bool>{false, false, false}));
  FabricType forced = fabric_type(Kind::ici);
  forced.wraparound = FabricType::Torus::always;
  EXPECT_EQ(wrapped_axes(deep(), forced, {2, 4, 1}), (std::vector<bool>{true, true, false}));
  forced.wraparound = FabricType::Torus::never;
  EXPECT_EQ(wrapped_axes(deep(), forced, {4, 4, 4}), (std::vector<bool>{false, false, false}));
}

TEST(TorusTest, ASliceIsAsNearACubeAsItsPodAllows) {
  EXPECT_EQ(usual_shape(flat(), 256), (Shape{16, 16}));
  EXPECT_EQ(usual_shape(flat(), 32), (Shape{4, 8}));
  EXPECT_EQ(usual_shape(flat(), 512), Shape{});
  EXPECT_EQ(usual_shape(deep(), 64), (Shape{4, 4, 4}));
  EXPECT_EQ(usual_shape(deep(), 128), (Shape{4, 4, 8}));
  EXPECT_EQ(usual_shape(deep(), 2048), (Shape{8, 16, 16}));
  EXPECT_EQ(usual_shape(deep(), 8960), (Shape{16, 20, 28}));
  EXPECT_EQ(usual_shape(deep(), 4), (Shape{1, 2, 2}));
  EXPECT_EQ(usual_shape(node_type(), 8), Shape{});
}

TEST(TorusTest, TheFirstAxisIsTheFastest) {
  const Cluster cluster = slice(deep(), {4, 8, 8});
  EXPECT_EQ(cluster.coordinates(device(0)), (Shape{0, 0, 0}));
  EXPECT_EQ(cluster.coordinates(device(3)), (Shape{3, 0, 0}));
  EXPECT_EQ(cluster.coordinates(device(4)), (Shape{0, 1, 0}));
  EXPECT_EQ(cluster.coordinates(device(32 * 5 + 4 * 6 + 1)), (Shape{1, 6, 5}));
  EXPECT_EQ(cluster.torus()->shape, (Shape{4, 8, 8}));
  EXPECT_EQ(cluster.name_of(*cluster.ici_link(device(4), 1, false)), "slice 0 chip 4 y-");
  EXPECT_FALSE(Cluster(node_type(), 1, 8, one_switch).torus());
  EXPECT_TRUE(Cluster(node_type(), 1, 8, one_switch).coordinates(device(0)).empty());
}

TEST(TorusTest, DistancesAreThoseOfTheClosedForm) {
  for (const auto torus : {FabricType::Torus::always, FabricType::Torus::never}) {
    const Shape shape{4, 5, 3};
    NodeType node = host(4, {16, 16, 16}, Wraparound::cubes);
    const Cluster cluster = slice(node, shape, 1, torus);
    for (std::int64_t from = 0; from < 60; ++from) {
      for (std::int64_t to = 0; to < 60; ++to) {
        std::int64_t expected = 0;
        for (std::size_t axis = 0; axis < 3; ++axis) {
          const std::int64_t apart =
              std::abs(cluster.coordinates(device(from))[axis] - cluster.coordinates(device(to))[axis]);
          expected += torus == FabricType::Torus::always ? std::min(apart, shape[axis] - apart) : apart;
        }
        const Route route = cluster.route(device(from), device(to));
        ASSERT_DOUBLE_EQ(hops(route), static_cast<double>(expected)) << from << " to " << to;
        ASSERT_EQ(route.latency, sim::Duration{1'000'000} * expected);
        ASSERT_TRUE(route.inside_domain);
        ASSERT_EQ(route.switches, 0);
      }
    }
  }
}

TEST(TorusTest, AHalfWayTieGoesBothWaysEvenly) {
  const Cluster cluster = slice(flat(), {16, 16});
  const Route route = cluster.route(device(0), device(8));
  EXPECT_EQ(route.links.size(), 16U);
  for (const RouteLink& on : route.links) EXPECT_EQ(std::pair(on.numerator, on.denominator), std::pair(1U, 2U));
  EXPECT_DOUBLE_EQ(share_on(cluster, route, "slice 0 chip 0 x+"), 0.5);
  EXPECT_DOUBLE_EQ(share_on(cluster, route, "slice 0 chip 0 x-"), 0.5);
  EXPECT_DOUBLE_EQ(share_on(cluster, route, "slice 0 chip 15 x-"), 0.5);
  EXPECT_EQ(route.latency, sim::Duration{8'000'000});
}

TEST(TorusTest, RoutesGoAlongOneAxisAfterTheOther) {
  const Cluster cluster = slice(flat(), {8, 8});
  EXPECT_EQ(way(cluster, 0, 18),
            (Names{"slice 0 chip 0 x+", "slice 0 chip 1 x+", "slice 0 chip 2 y+", "slice 0 chip 10 y+"}));
  EXPECT_EQ(way(cluster, 18, 0),
            (Names{"slice 0 chip 18 x-", "slice 0 chip 17 x-", "slice 0 chip 16 y-", "slice 0 chip 8 y-"}));
}

TEST(TorusTest, UniformTrafficLoadsAllLinksOfATorusAlike) {
  const Cluster cluster = slice(deep(), {4, 4, 8});
  std::map<LinkId, double> load;
  Route route;
  for (std::int64_t from = 0; from < 128; ++from) {
    for (std::int64_t to = 0; to < 128; ++to) {
      cluster.route(device(from), device(to), 0, route);
      for (const RouteLink& on : route.links) load[on.link] += static_cast<double>(on.numerator) / on.denominator;
    }
  }
  EXPECT_EQ(load.size(), 128U * 6);
  // An axis of X: X/4 hops on the average to all X positions, over two directions.
  for (const auto& [link, sum] : load) {
    const bool z = cluster.name_of(link).find(" z") != std::string::npos;
    EXPECT_NEAR(sum, 128 * (z ? 8 : 4) / 4.0 / 2.0, 1e-9) << cluster.name_of(link);
  }
}

TEST(TorusTest, TheBisectionOfATorusIsTwiceThatOfAMesh) {
  const auto crossing = [](FabricType::Torus torus) {
    const Cluster cluster = slice(flat(), {8, 8}, 1, torus);
    int links = 0;
    for (std::int64_t chip = 0; chip < 64; ++chip) {
      const std::int64_t x = cluster.coordinates(device(chip))[0];
      if (x == 3 || x == 7) links += cluster.ici_link(device(chip), 0, true) ? 1 : 0;
    }
    return links;
  };
  EXPECT_EQ(crossing(FabricType::Torus::always), 16);
  EXPECT_EQ(crossing(FabricType::Torus::never), 8);
}

TEST(TorusTest, TheEdgeOfAMeshHasNoLink) {
  const Cluster cluster = slice(flat(), {4, 8});
  EXPECT_FALSE(cluster.ici_link(device(0), 0, false));
  EXPECT_TRUE(cluster.ici_link(device(0), 0, true));
  EXPECT_FALSE(cluster.ici_link(device(0), 2, true));
  EXPECT_FALSE(cluster.find_link("slice 0 chip 0 x-"));
  EXPECT_FALSE(cluster.find_link("slice 0 chip 0 z+"));
  int present = 0;
  for (std::uint32_t link = 0; link < cluster.link_count(); ++link)
    if (cluster.link(LinkId{link}).kind == LinkKind::ici && cluster.link(LinkId{link}).capacity.count > 0) ++present;
  EXPECT_EQ(present, 2 * (3 * 8 + 4 * 7));
}

TEST(TorusTest, SlicesMeetInTheDataCentre) {
  const Cluster cluster = slice(flat(), {4, 8}, 3);
  EXPECT_EQ(cluster.domain_of(device(31)), 0);
  EXPECT_EQ(cluster.domain_of(device(32)), 1);
  const Route route = cluster.route(device(9), device(64));
  EXPECT_EQ(names(cluster, route), (Names{"node 1 nic 0 out", "node 8 nic 0 in"}));
  EXPECT_FALSE(route.inside_domain);
  EXPECT_EQ(route.switches, 1);
  EXPECT_EQ(cluster.link(route.links[0].link).kind, LinkKind::dcn);
  EXPECT_EQ(way(cluster, 64, 65), Names{"slice 2 chip 0 x+"});
}

TEST(TorusTest, TheDataCentreCanHaveTiers) {
  FabricType fabric = ici({4, 8}, 4);
  fabric.tiers = 2;
  fabric.radix = 8;
  fabric.oversubscription = 4;
  const Cluster cluster(flat(), 16, 128, fabric);
  const Route route = cluster.route(device(0), device(127));
  EXPECT_EQ(names(cluster, route), (Names{"node 0 nic 0 out", "leaf 0 up", "leaf 3 down", "node 15 nic 0 in"}));
  EXPECT_EQ(cluster.link(route.links[1].link).kind, LinkKind::dcn);
  EXPECT_EQ(cluster.link(route.links[1].link).capacity, sim::BytesPerSecond{50 * giga});
}

TEST(TorusTest, InAnotherFabricEveryHostIsASlice) {
  const Cluster cluster(deep(), 4, 16, fabric_type(Kind::fat_tree));
  EXPECT_EQ(cluster.torus()->slices, 4);
  EXPECT_EQ(cluster.domain_of(device(5)), 1);
  EXPECT_EQ(way(cluster, 0, 5), (Names{"node 0 nic 0 out", "node 1 nic 0 in"}));
}

TEST(TorusTest, ABrokenLinkIsGoneRound) {
  Cluster::Request request = request_of(flat(), 8, ici({8, 8}));
  request.link_faults = {{.link = "slice 0 chip 1 x+", .capacity = 0}};
  const Cluster cluster(request);
  EXPECT_EQ(cluster.link(*cluster.find_link("slice 0 chip 2 x-")).capacity.count, 0);
  const Route route = cluster.route(device(0), device(2));
  EXPECT_EQ(route.links.size(), 4U);
  EXPECT_EQ(route.latency, sim::Duration{4'000'000});
  for (const RouteLink& on : route.links) EXPECT_GT(cluster.link(on.link).capacity.count, 0);
  EXPECT_EQ(way(cluster, 8, 10), (Names{"slice 0 chip 8 x+", "slice 0 chip 9 x+"}));
  EXPECT_FALSE(cluster.cut());
}

TEST(TorusTest, AChipWithoutLinksIsCutOff) {
  Cluster::Request request = request_of(flat(), 8, ici({8, 8}));
  request.link_faults = {{.link = "slice 0 chip 0 x+", .capacity = 0}, {.link = "slice 0 chip 0 y+", .capacity = 0}};
  const auto cut = Cluster(request).cut();
  ASSERT_TRUE(cut);
  EXPECT_TRUE(cut->victim.starts_with("slice 0 chip ")) << cut->victim;
}

TEST(TorusTest, EveryNameLeadsBackToItsLink) {
  const Cluster cluster = slice(deep(), {4, 4, 4}, 2);
  for (std::uint32_t link = 0; link < cluster.link_count(); ++link)
    EXPECT_EQ(cluster.find_link(cluster.name_of(LinkId{link})), LinkId{link}) << cluster.name_of(LinkId{link});
  EXPECT_EQ(cluster.nearest_link("slice 7 chip 9 x+"), "slice 1 chip 9 x+");
}

}  // namespace
}  // namespace trainyard::topology
