// One slow device and one broken cable are found, folded, and named as the cause.
#include <gtest/gtest.h>

#include <string>

#include "scenarios/internal/document.hpp"
#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {
namespace {

constexpr const char* small_layers =
    "model: {base: gpt, layers: 16, hidden: 2048, heads: 16, vocab: 50000}\n"
    "training: {micro_batch: 1, global_batch: 256, sequence: 1024, precision: bf16}\n";
// Large enough that devices, not hosts, set the pace.
constexpr const char* large_layers =
    "model: {base: gpt, layers: 16, hidden: 8192, heads: 64, vocab: 50000, positions: 2048}\n"
    "training: {micro_batch: 4, global_batch: 1024, sequence: 2048, precision: bf16}\n";

Result simulated(const std::string& faults, const std::string& layers = small_layers) {
  static const Catalog catalog;
  const std::string text =
      "name: faults\ncluster:\n  node: dgx-a100-80gb\n  nodes: 64\n  fabric: {base: fat-tree, radix: 16}\n  faults: [" +
      faults + "]\n" + layers +
      "strategy: {framework: megatron-lm, tensor: 8, pipeline: 4, distributed_optimizer: true}\n";
  return simulate(read_scenario(parse_yaml(text, "faults.yaml"), catalog)).result;
}

double breakdown_sum(const Result& result) {
  double sum = 0;
  for (const double part : result.breakdown_s) sum += part;
  return sum;
}

TEST(FaultsTest, AHealthyClusterHasNoStragglers) {
  const Result healthy = simulated("");
  EXPECT_EQ(healthy.breakdown_s.back(), 0);
  EXPECT_TRUE(healthy.faulty_links.empty());
  EXPECT_EQ(healthy.engine.rank_classes, 4);
}

TEST(FaultsTest, OneSlowDeviceIsTheCauseOfWhatTheOthersWait) {
  const Result healthy = simulated("", large_layers);
  const Result slow = simulated("{device: 100, speed: 0.5}", large_layers);
  EXPECT_GT(slow.step_time_s, 1.2 * healthy.step_time_s);
  EXPECT_GT(slow.breakdown_s.back(), 0.8 * (slow.step_time_s - healthy.step_time_s));
  EXPECT_NEAR(breakdown_sum(slow), slow.step_time_s, 1e-9);
  EXPECT_LE(slow.engine.rank_classes, 64);  // of 512
}

TEST(FaultsTest, ABrokenCableIsNamedAndItsBundleIsTheBusiest) {
  const Result healthy = simulated("");
  const Result broken = simulated("{link: leaf 3 spine 2, capacity: 0}");
  ASSERT_EQ(broken.faulty_links.size(), 1U);
  EXPECT_EQ(broken.faulty_links.front(), "leaf 3 spine 2");
  const auto spine = [](const Result& result) {
    for (const LinkSummary& link : result.links)
      if (link.kind == topology::LinkKind::spine) return link;
    return LinkSummary{};
  };
  EXPECT_GT(spine(broken).utilization_peak, spine(healthy).utilization_peak);
  EXPECT_EQ(spine(broken).busiest.substr(0, 6), "leaf 3");
  EXPECT_LE(broken.engine.rank_classes, 128);
}

TEST(FaultsTest, AnIdealNetworkIsNeverSlower) {
  for (const char* const faults : {"", "{device: 100, speed: 0.5}", "{link: node 5 nic 2, capacity: 0.1}"}) {
    const Result result = simulated(faults);
    EXPECT_GT(result.ideal_step_time_s, 0);
    EXPECT_LE(result.ideal_step_time_s, result.step_time_s);
    EXPECT_NEAR(result.communication_overhead, 1 - result.ideal_step_time_s / result.step_time_s, 1e-12);
  }
}

TEST(FaultsTest, ASlowNicSlowsTheStep) {
  EXPECT_GT(simulated("{link: node 5 nic 2, capacity: 0.1}").step_time_s, simulated("").step_time_s);
}

TEST(FaultsTest, GroupsOfUnlikeNodesAreAsSlowAsTheSlower) {
  static const Catalog catalog;
  const auto step = [&](const std::string& nodes) {
    const std::string text =
        "name: mixed\ncluster: {" + nodes +
        ", fabric: fat-tree}\nmodel: {base: gpt, layers: 8, hidden: 2048, heads: 16, vocab: 50000}\n"
        "training: {micro_batch: 4, global_batch: 64, sequence: 1024, precision: bf16}\n"
        "strategy: {framework: pytorch-ddp}\n";
    return simulate(read_scenario(parse_yaml(text, "mixed.yaml"), catalog)).result;
  };
  const double a100 = step("node: dgx-a100-80gb, nodes: 2").step_time_s;
  const double h100 = step("node: dgx-h100, nodes: 2").step_time_s;
  const Result mixed = step("groups: [{node: dgx-h100, nodes: 1}, {node: dgx-a100-80gb, nodes: 1}]");
  EXPECT_LT(h100, a100);
  EXPECT_NEAR(mixed.step_time_s, a100, 0.1 * a100);
  // The H100 wait for the A100, or for a bucket that these are late for.
  EXPECT_GT(mixed.breakdown_s.at(4) + mixed.breakdown_s.at(10), 0.4 * (a100 - h100));
}

}  // namespace
}  // namespace trainyard::scenarios
