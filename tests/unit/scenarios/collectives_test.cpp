#include "scenarios/collectives.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/document.hpp"

namespace trainyard::scenarios {
namespace {

using topology::Algorithm;

Scenario cluster(const std::string& text) {
  static const Catalog catalog;
  return read_cluster(parse_yaml(text, "cluster.yaml"), catalog);
}

std::vector<CollectiveRow> rows_of(const std::string& text, CollectiveOperation operation, const std::string& sizes,
                                   std::optional<Algorithm> algorithm = std::nullopt) {
  Scenario scenario = cluster(text);
  return simulate_collectives(scenario,
                              {.operation = operation, .sizes = *parse_sizes(sizes).value, .algorithm = algorithm});
}

const std::string one_node = "cluster: {node: dgx-h100, nodes: 1}";
const std::string four_nodes = "cluster: {node: dgx-h100, nodes: 4}";

TEST(Collectives, SizesDoubleFromTheFirstToTheLast) {
  const auto count = [](const std::string& text) { return parse_sizes(text).value->size(); };
  EXPECT_EQ(count("1GiB"), 1U);
  EXPECT_EQ(count("65536"), 1U);
  EXPECT_EQ(count("8:16GiB"), 32U);
  EXPECT_EQ(parse_sizes("1 MiB:3 MiB").value->back().count, 2 << 20);
  for (const char* wrong : {"", ":", "x", "0", "8:4", "1GiB:", "-1:8"}) EXPECT_FALSE(parse_sizes(wrong).value) << wrong;
  EXPECT_EQ(parse_sizes("1 parsec").error, "expected a size such as 1GiB, or two such as 8:16GiB, got '1 parsec'");
}

TEST(Collectives, OnlyTheClusterOfAScenarioMatters) {
  const Scenario scenario = cluster("name: Four\nmodel: unheard-of\ncluster: {node: dgx-h100, nodes: 4, devices: 8}");
  EXPECT_EQ(scenario.name, "Four");
  EXPECT_EQ(scenario.devices, 8);
  EXPECT_THROW(cluster("model: llama3-8b"), ScenarioError);
  EXPECT_THROW(cluster("cluster: {node: dgx-h100, nodes: 4, colour: red}"), ScenarioError);
}

TEST(Collectives, BandwidthsFollowFromTheTimeAsInNcclTests) {
  struct Case {
    CollectiveOperation operation;
    double factor;
  };
  for (const auto& [operation, factor] : std::vector<Case>{{CollectiveOperation::all_reduce, 2 * 31.0 / 32},
                                                           {CollectiveOperation::all_gather, 31.0 / 32},
                                                           {CollectiveOperation::reduce_scatter, 31.0 / 32},
                                                           {CollectiveOperation::all_to_all, 31.0 / 32},
                                                           {CollectiveOperation::broadcast, 1},
                                                           {CollectiveOperation::reduce, 1},
                                                           {CollectiveOperation::send_recv, 1}}) {
    const CollectiveRow row = rows_of(four_nodes, operation, "1GiB").front();
    EXPECT_EQ(row.bytes.count, 1 << 30);
    const double algorithm = 1.073741824 / sim::to_seconds(row.chosen.time);
    EXPECT_NEAR(row.algorithm_bandwidth_gb_per_s, algorithm, 1e-9 * algorithm) << to_string(operation);
    EXPECT_NEAR(row.bus_bandwidth_gb_per_s, factor * algorithm, 1e-9 * algorithm) << to_string(operation);
  }
}

TEST(Collectives, AStepTakesWhatTheCollectiveTakesAlone) {
  // 25.8 of 26.25 GB/s of eight adapters, as a ring; 20 GB/s or so on the way from device to device.
  const CollectiveRow gather = rows_of(four_nodes, CollectiveOperation::all_gather, "8GiB").front();
  EXPECT_EQ(gather.chosen.algorithm, Algorithm::ring);
  EXPECT_GT(gather.bus_bandwidth_gb_per_s, 355);
  EXPECT_LT(gather.bus_bandwidth_gb_per_s, 388);
  const CollectiveRow pair = rows_of(four_nodes, CollectiveOperation::send_recv, "1GiB").front();
  EXPECT_GT(pair.bus_bandwidth_gb_per_s, 47);
  EXPECT_LT(pair.bus_bandwidth_gb_per_s, 48.5);
}

TEST(Collectives, AnAlgorithmCanBeAskedForOrRefused) {
  const auto reduce = [](std::optional<Algorithm> algorithm) {
    return rows_of(one_node, CollectiveOperation::all_reduce, "1GiB", algorithm).front();
  };
  const CollectiveRow free = reduce(std::nullopt);
  EXPECT_EQ(free.chosen.algorithm, Algorithm::nvls);
  ASSERT_TRUE(free.runner_up.has_value());
  EXPECT_EQ(free.runner_up->algorithm, Algorithm::ring);
  const CollectiveRow ring = reduce(Algorithm::ring);
  EXPECT_EQ(ring.chosen.algorithm, Algorithm::ring);
  EXPECT_EQ(ring.chosen.time, free.runner_up->time);
  try {
    reduce(Algorithm::bruck);
    FAIL() << "an all-to-all algorithm";
  } catch (const ScenarioError& error) {
    EXPECT_EQ(std::string(error.what()),
              "--algorithm: bruck cannot do all_reduce on these 8 devices; choose another or auto");
  }
}

TEST(Collectives, AClusterOfOneDeviceHasNothingToSay) {
  EXPECT_THROW(rows_of("cluster: {node: dgx-h100, nodes: 1, devices: 1}", CollectiveOperation::all_reduce, "8"),
               ScenarioError);
}

TEST(Collectives, TheLibrarysTablesCanBeOverridden) {
  const std::string slow_tree =
      "cluster: {node: {base: dgx-h100, collectives: {library: {latency: {nvls: {nvlink: [1 s]}}}}}, nodes: 1}";
  EXPECT_EQ(rows_of(slow_tree, CollectiveOperation::all_reduce, "1GiB").front().chosen.algorithm, Algorithm::ring);
  const std::string none = "cluster: {node: {base: dgx-h100, collectives: {library: none}}, nodes: 1}";
  EXPECT_EQ(rows_of(none, CollectiveOperation::all_reduce, "1GiB").front().chosen.algorithm, Algorithm::ring);
  EXPECT_THROW(cluster("cluster: {node: {base: dgx-h100, collectives: {library: {cpu: abacus}}}, nodes: 1}"),
               ScenarioError);
  EXPECT_THROW(cluster("cluster: {node: {base: dgx-h100, collectives: {library: nccl-0.1}}, nodes: 1}"), ScenarioError);
}

TEST(Collectives, JsonHasTheFieldsOfItsContract) {
  const auto json = nlohmann::json::parse(to_json(rows_of(one_node, CollectiveOperation::all_reduce, "8:1KiB")));
  ASSERT_EQ(json.at("rows").size(), 8U);
  const nlohmann::json& row = json.at("rows").at(0);
  EXPECT_EQ(row.at("operation"), "all_reduce");
  EXPECT_EQ(row.at("bytes"), 8);
  EXPECT_EQ(row.at("algorithm"), "ring");
  EXPECT_EQ(row.at("protocol"), "ll");
  for (const char* number : {"time_us", "algorithm_bandwidth_gb_per_s", "bus_bandwidth_gb_per_s"})
    EXPECT_GT(row.at(number).get<double>(), 0) << number;
  EXPECT_GT(row.at("runner_up").at("time_us").get<double>(), 0);
}

}  // namespace
}  // namespace trainyard::scenarios
