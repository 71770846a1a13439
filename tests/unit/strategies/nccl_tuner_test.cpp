#include "strategies/nccl_tuner.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "scenarios/catalog.hpp"
#include "strategies/collectives.hpp"

namespace trainyard::strategies {
namespace {

using sim::Bytes;
using sim::CollectiveKind;
using topology::Algorithm;
using topology::ProtocolKind;

constexpr std::int64_t kibi = 1024;
constexpr std::int64_t mebi = 1024 * kibi;
constexpr std::int64_t gibi = 1024 * mebi;

const topology::CollectiveTuning& tuning_of(const std::string& node) {
  static std::map<std::string, topology::CollectiveTuning> known;
  auto found = known.find(node);
  if (found == known.end()) found = known.emplace(node, scenarios::Catalog().node(node).collectives).first;
  return found->second;
}

// Devices of whole nodes, or of one.
NcclGroup group_on(const std::string& node, std::int64_t nodes, std::int64_t members_per_node) {
  const double rail = node.starts_with("dgx-a100") ? 25 : 50;
  return nccl_group(tuning_of(node).library, {.members = nodes * members_per_node,
                                              .nodes = nodes,
                                              .most_per_node = members_per_node,
                                              .rails = members_per_node,
                                              .port_gb_per_s = 450,
                                              .rail_gb_per_s = rail});
}

std::string first_choice(const std::string& node, const NcclGroup& group, CollectiveKind kind, std::int64_t bytes) {
  const auto predictions = nccl_predictions(tuning_of(node).library, group, kind, Bytes{bytes});
  EXPECT_FALSE(predictions.empty());
  if (predictions.empty()) return "";
  return std::string(topology::algorithm_names.at(static_cast<std::size_t>(predictions.front().algorithm))) + " " +
         std::string(topology::protocol_names.at(static_cast<std::size_t>(predictions.front().protocol)));
}

NcclPrediction prediction(const std::string& node, const NcclGroup& group, CollectiveKind kind, std::int64_t bytes,
                          Algorithm algorithm, ProtocolKind protocol) {
  for (const NcclPrediction& one : nccl_predictions(tuning_of(node).library, group, kind, Bytes{bytes}))
    if (one.algorithm == algorithm && one.protocol == protocol) return one;
  ADD_FAILURE() << "not allowed";
  return {};
}

TEST(NcclTunerTest, GraphsHaveTheChannelsThatNcclFinds) {
  const auto expect = [](const NcclGraph& graph, std::int64_t channels, double speed) {
    EXPECT_EQ(graph.channels, channels);
    EXPECT_DOUBLE_EQ(graph.intra_gb_per_s, speed);
  };
  expect(group_on("dgx-a100-80gb", 1, 8).ring, 12, 20);
  expect(group_on("dgx-h200", 1, 8).ring, 12, 30);
  expect(group_on("dgx-h100", 4, 8).ring, 16, 24);
  expect(group_on("dgx-a100-80gb", 4, 8).ring, 8, 24);
  expect(group_on("dgx-h100", 4, 1).ring, 2, 24);
  expect(group_on("dgx-h200", 1, 8).nvls, 8, 40);
  EXPECT_DOUBLE_EQ(group_on("dgx-h100", 4, 8).nvls.inter_gb_per_s, 48);
  EXPECT_EQ(group_on("dgx-a100-80gb", 1, 8).nvls.channels, 0);
}

// A log of NCCL on H800 nodes with 8 x 400 Gbit/s (NVIDIA/nccl issue 1154): 8 channels of 22 GB/s, trees through one
// GPU.
TEST(NcclTunerTest, TheBandwidthOfATreeIsThatOfALog) {
  const NcclGroup group{
      .members = 32, .nodes = 4, .ring = {8, 22, 22}, .nvls = {}, .tree_by_one_gpu = true, .sharp = false};
  const NcclPrediction tree =
      prediction("dgx-h100", group, CollectiveKind::all_reduce, gibi, Algorithm::tree, ProtocolKind::simple);
  EXPECT_NEAR(tree.gb_per_s, 68.8, 0.05);
}

TEST(NcclTunerTest, LatenciesAreSumsOfTheirHops) {
  const auto latency = [](const NcclGroup& group, CollectiveKind kind, Algorithm algorithm, ProtocolKind protocol) {
    return prediction("dgx-h100", group, kind, gibi, algorithm, protocol).latency_us;
  };
  const NcclGroup node = group_on("dgx-h100", 1, 8);
  EXPECT_NEAR(latency(node, CollectiveKind::all_reduce, Algorithm::ring, ProtocolKind::ll), 6.6 + 14 * 0.6, 1e-9);
  EXPECT_NEAR(latency(node, CollectiveKind::all_gather, Algorithm::ring, ProtocolKind::simple), 8.4 + 7 * 3.4, 1e-9);
  EXPECT_NEAR(latency(node, CollectiveKind::broadcast, Algorithm::ring, ProtocolKind::ll128), 14 + 1.9, 1e-9);
  EXPECT_NEAR(latency(node, CollectiveKind::all_reduce, Algorithm::nvls, ProtocolKind::simple), 25, 1e-9);
  const NcclGroup four = group_on("dgx-h100", 4, 8);
  // An Intel host adds a microsecond at least to a hop inside a node, three with Simple.
  EXPECT_NEAR(latency(four, CollectiveKind::all_reduce, Algorithm::ring, ProtocolKind::ll), 6.6 + 56 * 1 + 6 * 2.7,
              1e-9);
  EXPECT_NEAR(latency(four, CollectiveKind::all_reduce, Algorithm::tree, ProtocolKind::ll128),
              14 + 2 * (7 * 1.25 + 2 * 8.5), 1e-9);
  EXPECT_NEAR(latency(four, CollectiveKind::all_reduce, Algorithm::nvls_tree, ProtocolKind::simple), 25 + 4 * 20.9,
              1e-9);
  const NcclGroup single = group_on("dgx-h100", 16, 1);
  EXPECT_NEAR(latency(single, CollectiveKind::all_gather, Algorithm::pat, ProtocolKind::simple),
              8 + 4 * 14 / 3.5 + 2.8 * 16, 1e-9);
}

TEST(NcclTunerTest, OneHopperNodeReducesInItsSwitchFromTwoMebibytes) {
  // Measured on 8 x H200 with NCCL 2.27.7, stas00/ml-engineering network/README.md.
  const NcclGroup node = group_on("dgx-h200", 1, 8);
  for (const std::int64_t bytes : {kibi, 64 * kibi, 512 * kibi, mebi})
    EXPECT_EQ(first_choice("dgx-h200", node, CollectiveKind::all_reduce, bytes), "ring ll") << bytes;
  for (const std::int64_t bytes : {2 * mebi, 64 * mebi, 8 * gibi})
    EXPECT_EQ(first_choice("dgx-h200", node, CollectiveKind::all_reduce, bytes), "nvls simple") << bytes;
  // Four devices reach as much in a ring, and all-gathers more.
  EXPECT_EQ(first_choice("dgx-h200", group_on("dgx-h200", 1, 4), CollectiveKind::all_reduce, 8 * gibi), "ring simple");
  EXPECT_EQ(first_choice("dgx-h200", node, CollectiveKind::all_gather, 8 * gibi), "ring simple");
}

TEST(NcclTunerTest, SmallMessagesTakeLLAndLargeOnesSimple) {
  for (const std::string node : {"dgx-a100-80gb", "dgx-h100"}) {
    const NcclGroup one = group_on(node, 1, 8);
    EXPECT_EQ(first_choice(node, one, CollectiveKind::all_gather, 64 * kibi), "ring ll");
    EXPECT_EQ(first_choice(node, one, CollectiveKind::all_gather, gibi), "ring simple");
    const NcclGroup many = group_on(node, 16, 8);
    EXPECT_TRUE(first_choice(node, many, CollectiveKind::all_reduce, 16 * kibi).starts_with("tree ll"));
    EXPECT_EQ(first_choice(node, many, CollectiveKind::all_reduce, 4 * mebi), "tree ll128");
  }
  EXPECT_EQ(first_choice("dgx-a100-80gb", group_on("dgx-a100-80gb", 4, 8), CollectiveKind::all_reduce, 16 * gibi),
            "ring simple");
}

TEST(NcclTunerTest, OnlyWhatTheMachineAllowsIsConsidered) {
  const auto considered = [](const std::string& node, const NcclGroup& group, CollectiveKind kind, Algorithm which) {
    const auto all = nccl_predictions(tuning_of(node).library, group, kind, Bytes{mebi});
    return std::ranges::any_of(all, [&](const NcclPrediction& one) { return one.algorithm == which; });
  };
  const NcclGroup a100 = group_on("dgx-a100-80gb", 1, 8);
  EXPECT_FALSE(considered("dgx-a100-80gb", a100, CollectiveKind::all_reduce, Algorithm::nvls));
  NcclGroup over = group_on("dgx-h100", 4, 8);
  EXPECT_TRUE(considered("dgx-h100", over, CollectiveKind::all_reduce, Algorithm::nvls_tree));
  for (const Algorithm which : {Algorithm::nvls, Algorithm::collnet_direct, Algorithm::collnet_chain})
    EXPECT_FALSE(considered("dgx-h100", over, CollectiveKind::all_reduce, which));
  over.sharp = true;
  for (const Algorithm which : {Algorithm::nvls, Algorithm::collnet_direct, Algorithm::collnet_chain})
    EXPECT_TRUE(considered("dgx-h100", over, CollectiveKind::all_reduce, which));
  EXPECT_FALSE(considered("dgx-h100", over, CollectiveKind::all_gather, Algorithm::tree));
  EXPECT_FALSE(considered("dgx-h100", over, CollectiveKind::all_gather, Algorithm::pat));
  EXPECT_TRUE(considered("dgx-h100", group_on("dgx-h100", 8, 1), CollectiveKind::all_gather, Algorithm::pat));
  EXPECT_FALSE(considered("dgx-h100", over, CollectiveKind::broadcast, Algorithm::tree));
  EXPECT_TRUE(nccl_predictions(tuning_of("dgx-h100").library, over, CollectiveKind::all_to_all, Bytes{8}).empty());
}

// The choice is NCCL's, the time the platform's.
TEST(NcclTunerTest, ChoicesAreTimedByThePlatform) {
  const topology::CollectiveTuning& tuning = tuning_of("dgx-h200");
  const GroupShape shape{.members = 8,
                         .nodes = 1,
                         .rails = 8,
                         .most_per_node = 8,
                         .link_rate = {450'000'000'000},
                         .rail_rate = {50'000'000'000}};
  // 8 x H200: 473 GB/s in the switch and 366 in a ring at 8 GiB (stas00/ml-engineering network/README.md).
  const CollectiveChoice choice = choose(tuning, shape, CollectiveKind::all_reduce, Bytes{gibi});
  EXPECT_EQ(choice.algorithm, Algorithm::nvls);
  EXPECT_NEAR(sim::to_seconds(choice.cost.duration) * 1e3, 3.97, 0.05);
  ASSERT_TRUE(choice.runner_up.has_value());
  EXPECT_EQ(choice.runner_up->algorithm, Algorithm::ring);
  EXPECT_NEAR(sim::to_seconds(choice.runner_up->cost.duration) * 1e3, 5.14, 0.12);
  topology::CollectiveTuning forced = tuning;
  forced.algorithm = Algorithm::ring;
  const CollectiveChoice ring = choose(forced, shape, CollectiveKind::all_reduce, Bytes{gibi});
  EXPECT_EQ(ring.cost.duration, choice.runner_up->cost.duration);
  EXPECT_GT(ring.cost.phase_bytes.count, 0);
}

}  // namespace
}  // namespace trainyard::strategies
