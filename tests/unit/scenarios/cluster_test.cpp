// The cluster of a scenario: groups of nodes, placement, faults, fabrics, and what is wrong with them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/scenario.hpp"
#include "scenarios/show_topology.hpp"

namespace trainyard::scenarios {
namespace {

using topology::Cluster;
using topology::DeviceId;
using topology::FabricType;
using Shape = std::vector<std::int64_t>;

Scenario read(const std::string& cluster, const std::vector<std::string>& overrides = {}) {
  static const Catalog catalog;
  Value root = parse_yaml("cluster: " + cluster + "\nseed: 5\n", "a.yaml");
  for (const std::string& assignment : overrides) apply_override(root, assignment);
  return read_cluster(root, catalog);
}

std::string error_of(const std::string& cluster, const std::vector<std::string>& overrides = {}) {
  try {
    read(cluster, overrides);
    return "";
  } catch (const ScenarioError& error) {
    return error.what();
  }
}

void reports(const std::string& cluster, const std::string& message) {
  const std::string error = error_of(cluster);
  EXPECT_NE(error.find(message), std::string::npos) << "expected: " << message << "\ngot: " << error;
}

TEST(ScenarioCluster, EveryNodeOfTheCatalogueIsACluster) {
  const Catalog catalog;
  const std::vector<std::string_view> promised{
      "dgx-1v",      "dgx-2",    "dgx-2h",      "dgx-a100-40gb", "dgx-a100-80gb",
      "dgx-h100",    "dgx-h200", "dgx-b200",    "dgx-b300",      "gb200-nvl72",
      "gb300-nvl72", "hgx-h800", "gcp-a3-high", "aws-p6-b200",   "grand-teton-h100-96gb-500w",
      "tpu-v4",      "tpu-v5e",  "tpu-v5p",     "tpu-v6e",       "tpu-v7x",
      "a6000",       "rtx-4090", "v100",        "a100-80gb",     "h100",
      "h200"};
  for (const std::string_view name : promised) {
    const Scenario scenario = read("{node: " + std::string{name} + ", nodes: 2}");
    const Cluster cluster = make_cluster(scenario);
    const auto last = DeviceId{static_cast<std::uint32_t>(cluster.devices() - 1)};
    EXPECT_FALSE(cluster.route(DeviceId{0}, last).links.empty()) << name;
    for (std::uint32_t link = 0; link < cluster.link_count(); ++link) {
      const std::string link_name = cluster.name_of(topology::LinkId{link});
      if (cluster.link(topology::LinkId{link}).capacity.count > 0) {
        EXPECT_EQ(cluster.find_link(link_name), topology::LinkId{link}) << name << ": " << link_name;
      }
    }
    EXPECT_FALSE(list_links(scenario).empty());
    EXPECT_TRUE(to_graphviz(scenario).starts_with("graph"));
  }
}

TEST(ScenarioCluster, EveryFabricJoinsNodes) {
  for (const std::string fabric : {"single-switch", "fat-tree", "rail-optimized", "dragonfly", "dcn"})
    EXPECT_EQ(make_cluster(read("{node: dgx-h100, nodes: 40, fabric: " + fabric + "}")).devices(), 320) << fabric;
  EXPECT_EQ(make_cluster(read("{node: tpu-v5e, nodes: 4, fabric: dcn}")).domain_of(DeviceId{31}), 3);
}

TEST(ScenarioCluster, AnInlineFabricTakesTheRestFromItsKind) {
  const Scenario scenario =
      read("{node: dgx-h100, nodes: 4, fabric: {kind: fat-tree, radix: 32, oversubscription: 2}}");
  EXPECT_EQ(scenario.fabric.kind, FabricType::Kind::fat_tree);
  EXPECT_EQ(scenario.fabric.radix, 32);
  EXPECT_EQ(scenario.fabric.oversubscription, 2);
  EXPECT_EQ(scenario.fabric.switch_latency, sim::Duration{200'000});
}

TEST(ScenarioCluster, FabricKeysAreRead) {
  const FabricType tree =
      read("{node: dgx-h100, nodes: 4, fabric: {kind: fat-tree, routing: ecmp, tiers: 3, core_oversubscription: 2}}")
          .fabric;
  EXPECT_EQ(tree.routing, FabricType::Routing::ecmp);
  EXPECT_EQ(tree.tiers, 3);
  EXPECT_EQ(tree.core_oversubscription, 2);
  EXPECT_FALSE(read("{node: dgx-h100, nodes: 4, fabric: {spine: false}}").fabric.spine);
  const FabricType fly =
      read("{node: dgx-h100, nodes: 4, fabric: {kind: dragonfly, hosts: 4, group_routers: 2, global_links: 3}}").fabric;
  EXPECT_EQ(fly.hosts * 100 + fly.group_routers * 10 + fly.global_links, 423);
}

TEST(ScenarioCluster, KeysOfOtherFabricsAreRefused) {
  reports("{node: dgx-h100, nodes: 4, fabric: {slices: 2}}",
          "a.yaml:1:54: cluster.fabric.slices: only a fabric of kind 'ici' has this");
  reports("{node: dgx-h100, nodes: 4, fabric: {kind: fat-tree, hosts: 2}}", "only a fabric of kind 'dragonfly' has");
  reports("{node: dgx-h100, nodes: 4, fabric: {kind: fat-tree, spine: false}}", "only a fabric of kind 'rail-optim");
  reports("{node: dgx-h100, nodes: 4, fabric: {tiers: 1}}", "cluster.fabric.tiers: expected 2 or 3, got '1'");
  reports("{node: dgx-h100, nodes: 4, fabric: {routing: valiant}}", "expected 'adaptive' or 'ecmp', got 'valiant'");
}

TEST(ScenarioCluster, SlicesHaveTheUsualShapeOrTheirOwn) {
  EXPECT_EQ(make_cluster(read("{node: tpu-v5p, nodes: 128, fabric: {slices: 2}}")).torus()->shape, (Shape{4, 8, 8}));
  const Cluster own = make_cluster(read("{node: tpu-v5p, nodes: 64, fabric: {shape: [16, 4, 4]}}"));
  EXPECT_EQ(own.torus()->shape, (Shape{16, 4, 4}));
  EXPECT_EQ(own.torus()->wraps, (std::vector<bool>{true, true, true}));
  EXPECT_EQ(make_cluster(read("{node: tpu-v5e, nodes: 4, fabric: {wraparound: always}}")).torus()->wraps,
            (std::vector<bool>{true, true}));
}

TEST(ScenarioCluster, SlicesThatCannotBeAreReported) {
  reports("{node: tpu-v5p, nodes: 64, fabric: {slices: 3}}",
          "cluster.fabric.slices: 3 slices do not divide 256 devices");
  reports("{node: tpu-v5p, nodes: 64, fabric: {shape: [4, 8, 4]}}",
          "cluster.fabric.shape: holds 128 devices, but a slice has 256 (256 devices in 1 slices)");
  reports("{node: tpu-v5e, nodes: 32, fabric: {shape: [4, 8, 8]}}", "expected at most 2 axes for tpu-v5e, got 3");
  reports("{node: tpu-v5e, nodes: 64}", "cluster.nodes: no slice of 512 devices fits the pod of tpu-v5e");
  reports("{node: dgx-h100, nodes: 64, fabric: ici}", "joins nodes of one type, whose link is of kind 'ici' too");
}

TEST(ScenarioCluster, GroupsAreNodesOfSeveralTypes) {
  const Scenario scenario =
      read("{groups: [{node: dgx-a100-80gb, nodes: 2}, {node: {base: dgx-1v, nics: 2}, nodes: 3}], fabric: fat-tree}");
  EXPECT_EQ(scenario.devices, 40);
  ASSERT_EQ(scenario.accelerators.size(), 2U);
  EXPECT_EQ(scenario.accelerators[1].name, "v100-sxm-16gb");
  EXPECT_EQ(scenario.accelerator.name, "a100-sxm-80gb");
  const Cluster cluster = make_cluster(scenario);
  EXPECT_EQ(cluster.node_type_of(DeviceId{39}), 1U);
  EXPECT_EQ(cluster.nics_per_node(1), 2);
}

TEST(ScenarioCluster, GroupsThatCannotBeAreReported) {
  reports("{groups: [], fabric: fat-tree}", "cluster.groups: expected a list such as");
  reports("{groups: [{node: dgx-a100-80gb, nodes: 2}], node: dgx-h100, nodes: 1}",
          "a cluster has either 'groups', or 'node' and 'nodes'");
  reports("{groups: [{node: dgx-a100-80gb, nodes: 2}, {node: dgx-h10, nodes: 0}]}",
          "cluster.groups.1.node: no node is called 'dgx-h10' (did you mean 'dgx-h100'?)");
  reports("{groups: [{node: dgx-a100-80gb, nodes: 2}, {node: dgx-h100, nodes: 0}]}",
          "cluster.groups.1.nodes: expected at least 1, got '0'");
  reports("{groups: [{node: dgx-a100-80gb, nodes: 2, size: 1}]}", "unknown key 'size' in 'cluster.groups.0'");
}

TEST(ScenarioCluster, RanksAreShuffledOrOnAListOfNodes) {
  const Cluster shuffled = make_cluster(read("{node: dgx-h100, nodes: 16, placement: shuffled}"));
  std::vector<std::int64_t> nodes;
  for (std::uint32_t i = 0; i < 128; i += 8) nodes.push_back(shuffled.node_of(DeviceId{i}));
  EXPECT_EQ(nodes, topology::shuffled_nodes(16, 5));
  const Scenario listed = read("{node: dgx-h100, nodes: 16, placement: [7, 3]}");
  EXPECT_EQ(listed.devices, 16);
  EXPECT_EQ(make_cluster(listed).node_of(DeviceId{8}), 3);
  EXPECT_EQ(read("{node: dgx-h100, nodes: 16, placement: packed}").placement, Shape{});
}

TEST(ScenarioCluster, PlacementsThatCannotBeAreReported) {
  reports("{node: dgx-h100, nodes: 4, placement: random}",
          "cluster.placement: expected 'packed', 'shuffled' or a list of nodes, got 'random'");
  reports("{node: dgx-h100, nodes: 4, placement: []}", "got an empty list");
  reports("{node: dgx-h100, nodes: 4, placement: [0, 4]}",
          "a.yaml:1:52: cluster.placement: expected nodes from 0 to 3, got '4'");
  reports("{node: dgx-h100, nodes: 4, placement: [1, 1]}", "cluster.placement: node 1 is given twice");
  reports("{node: dgx-h100, nodes: 4, placement: [0, 1], devices: 17}",
          "cluster.devices: expected at most 16 (2 nodes of 8 devices), got 17");
}

TEST(ScenarioCluster, FaultsAreRead) {
  const Scenario scenario = read(
      "{node: dgx-h100, nodes: 40, faults: [{device: 17, speed: 0.8}, {node: 3, speed: 0.9},"
      " {link: leaf 4 spine 2 up, capacity: 0}]}");
  const Cluster cluster = make_cluster(scenario);
  EXPECT_DOUBLE_EQ(cluster.speed_of(DeviceId{17}), 0.8);
  EXPECT_DOUBLE_EQ(cluster.speed_of(DeviceId{24}), 0.9);
  EXPECT_DOUBLE_EQ(cluster.health_of(*cluster.find_link("leaf 4 down")), 31.0 / 32);
  const std::string list = list_links(scenario);
  EXPECT_NE(list.find("leaf 4 up: at 96.9 %"), std::string::npos) << list;
  EXPECT_NE(list.find("device 17: at 80.0 % of its speed"), std::string::npos) << list;
}

TEST(ScenarioCluster, FaultsThatCannotBeAreReported) {
  const auto faults = [](const std::string& text) { return "{node: dgx-h100, nodes: 40, faults: [" + text + "]}"; };
  reports("{node: dgx-h100, nodes: 40, faults: 3}", "cluster.faults: expected a list, got '3'");
  reports(faults("{device: 320, speed: 0.8}"), "cluster.faults.0.device: expected devices from 0 to 319, got 320");
  reports(faults("{node: 40, speed: 0.8}"), "cluster.faults.0.node: expected nodes from 0 to 39, got 40");
  reports(faults("{device: 3, speed: 0}"), "cluster.faults.0.speed: expected at least 0.001, got '0'");
  reports(faults("{device: 3, speed: 1.5}"), "cluster.faults.0.speed: expected at most 1, got '1.5'");
  reports(faults("{device: 3, capacity: 0.5}"), "cluster.faults.0: expected {device: NUMBER, speed: FACTOR}, ");
  reports(faults("{device: 3, node: 1, speed: 0.5}"), "cluster.faults.0: expected {device: NUMBER, speed: FACTOR}, ");
  reports(faults("{device: 1, speed: 0.5}, {link: leef 4 up, capacity: 0.5}"),
          "a.yaml:1:79: cluster.faults.1.link: no link is called 'leef 4 up' (did you mean 'leaf 4 up'?); `trainyard");
  reports(faults("{link: node 7 nic 3 out, capacity: 0.5}, {link: node 7 nic 3 out, capacity: 0}"),
          "cluster.faults.1.link: without this link nothing reaches the devices of node 7 that use this NIC");
}

TEST(ScenarioCluster, NodeLinksThatCannotBeAreReported) {
  reports("{node: {base: dgx-h100, link: {kind: cube-mesh}}, nodes: 1}",
          "missing key 'cluster.node.link.wiring', which kind 'cube-mesh' needs");
  reports("{node: {base: dgx-h100, link: {wiring: [[0, 1, 1]]}}, nodes: 1}",
          "cluster.node.link.wiring: only links of kind 'cube-mesh' have this");
  reports("{node: {base: dgx-1v, link: {wiring: [[0, 1]]}}, nodes: 1}",
          "cluster.node.link.wiring: expected a list of two devices and their number of cables each");
  reports("{node: {base: dgx-1v, link: {wiring: [[0, 1, 2], [2, 3, 1]]}}, nodes: 1}",
          "cluster.node.link.wiring: no way leads from device 0 to every other");
  EXPECT_EQ(make_cluster(read("{node: {base: dgx-1v, devices: 4}, nodes: 1}")).devices(), 4);
  EXPECT_EQ(read("{node: {base: a6000, devices: 8, link: {per_switch: 4}}, nodes: 1}").node.per_switch, 4);
}

TEST(ScenarioCluster, RailsWithoutASpineHoldAsManyNodesAsASwitchHasPorts) {
  reports("{node: dgx-h100, nodes: 65, fabric: {spine: false}}",
          "cluster.fabric.spine: rails of 65 nodes need a spine: a switch has 64 ports");
  reports("{groups: [{node: dgx-h100, nodes: 2}, {node: dgx-1v, nodes: 2}], fabric: {spine: false}}",
          "nodes with different numbers of NICs need a spine");
}

TEST(ScenarioCluster, ADragonflyOfTooManyGroupsIsRefused) {
  reports("{node: dgx-h100, nodes: 100000, fabric: {kind: dragonfly, hosts: 1, group_routers: 1}}",
          "cluster.fabric: 800000 groups of 1 NICs are more than the 4096 that can be simulated");
}

TEST(ScenarioCluster, LinksAreListedByKind) {
  const std::string list = list_links(read("{node: dgx-h100, nodes: 64}"));
  for (const char* line : {": 64 x dgx-h100; 512 devices take part; rail-optimized\n",
                           "nvlink        1024    450 GB/s      1 us  node 0 device 0 out ... node 63 device 7 in\n",
                           "nic           1024     50 GB/s      1 us  node 0 nic 0 out ... node 63 nic 7 in\n",
                           "spine           32    1.6 TB/s       0 s  leaf 0 up ... leaf 15 down\n"})
    EXPECT_NE(list.find(line), std::string::npos) << line << list;
}

}  // namespace
}  // namespace trainyard::scenarios
