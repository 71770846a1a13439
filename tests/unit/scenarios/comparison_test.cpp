// What makes one scenario faster than another: sums that are exact, and the right cause.
#include "scenarios/comparison.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "scenarios/internal/key_changes.hpp"
#include "scenarios/internal/value_text.hpp"
#include "tests/support/simulated.hpp"

namespace trainyard::scenarios {
namespace {

const std::string ddp = TRAINYARD_SOURCE_DIR "/scenarios/library/gpt-1.3b-ddp-64-a100.yaml";
const std::string gpt3 = TRAINYARD_SOURCE_DIR "/scenarios/library/gpt3-175b-1024-a100.yaml";

Comparison compared(const std::string& file, const std::vector<std::string>& first,
                    const std::vector<std::string>& second) {
  static const Catalog catalog;
  return compare(
      {{.file = file, .overrides = first, .label = "first"}, {.file = file, .overrides = second, .label = "second"}},
      catalog);
}

std::string_view largest_cause(const Difference& difference) {
  return breakdown_names.at(difference.causes.causes.front().category);
}

void expect_exact(const Difference& difference) {
  const Waterfall& causes = difference.causes;
  std::int64_t sum = causes.from_ps;
  for (const Cause& cause : causes.causes) {
    EXPECT_NE(cause.picoseconds, 0);
    EXPECT_FALSE(cause.why.empty());
    sum += cause.picoseconds;
  }
  EXPECT_EQ(sum, causes.to_ps);
  std::int64_t way = causes.from_ps;
  for (const KeyEffect& effect : difference.by_key) way += effect.picoseconds;
  EXPECT_EQ(way, causes.to_ps);
}

std::int64_t picoseconds(const Result& result) { return std::llround(result.step_time_s * 1e12); }

TEST(Comparison, ShardingTurnsWaitingForGradientsIntoWaitingForData) {
  // Slow adapters, so that both wait.
  const std::vector<std::string> slow{"cluster.node={base: dgx-a100-80gb, nic_rate: 10 Gbit/s}"};
  std::vector<std::string> sharded = slow;
  sharded.emplace_back("strategy.framework=pytorch-fsdp");
  const Comparison comparison = compared(ddp, slow, sharded);
  const Difference& difference = comparison.differences.front();
  expect_exact(difference);
  EXPECT_EQ(difference.causes.from_ps, picoseconds(comparison.results[0]));
  EXPECT_EQ(difference.causes.to_ps, picoseconds(comparison.results[1]));
  EXPECT_EQ(largest_cause(difference), "exposed_data");
  const std::string& why = difference.causes.causes.front().why;
  EXPECT_NE(why.find("was all_reduce of"), std::string::npos) << why;
}

TEST(Comparison, InterleavingShrinksTheBubble) {
  const std::vector<std::string> small{"training.global_batch=96", "cluster.nodes=32", "model.layers=32",
                                       "strategy.pipeline=8"};
  std::vector<std::string> interleaved = small;
  interleaved.insert(interleaved.end(), {"strategy.schedule=interleaved", "strategy.virtual_pipeline=4"});
  const Comparison comparison = compared(gpt3, small, interleaved);
  const Difference& difference = comparison.differences.front();
  expect_exact(difference);
  EXPECT_LT(difference.causes.to_ps, difference.causes.from_ps);
  EXPECT_EQ(largest_cause(difference), "bubble");
  EXPECT_LT(difference.causes.causes.front().picoseconds, 0);
  // Neither key means anything without the other.
  ASSERT_EQ(difference.keys.size(), 2U);
}

TEST(Comparison, OversubscriptionCostsWhatCrossesTheFabric) {
  const std::string fabric = "cluster.fabric={base: fat-tree, radix: 16, oversubscription: ";
  const Comparison comparison = compared(ddp, {fabric + "1}"}, {fabric + "4}"});
  const Difference& difference = comparison.differences.front();
  expect_exact(difference);
  EXPECT_EQ(largest_cause(difference), "exposed_data");
  EXPECT_GT(difference.causes.causes.front().picoseconds, 0);
  EXPECT_NE(difference.causes.causes.front().why.find("busiest link"), std::string::npos)
      << difference.causes.causes.front().why;
  ASSERT_EQ(difference.keys.size(), 1U);
  EXPECT_EQ(difference.keys.front().path, "cluster.fabric.oversubscription");
  EXPECT_EQ(difference.keys.front().from, "1");
  EXPECT_EQ(difference.keys.front().to, "4");
}

TEST(Comparison, AScenarioIsAsFastAsItself) {
  const Comparison comparison = compared(ddp, {}, {});
  EXPECT_TRUE(comparison.differences.front().causes.causes.empty());
  EXPECT_TRUE(comparison.differences.front().by_key.empty());
  EXPECT_NE(to_summary(comparison).find("as fast"), std::string::npos);
}

TEST(Comparison, StepsOfDifferentSizeAreComparedForTheSameWork) {
  const Comparison comparison = compared(ddp, {}, {"training.global_batch=1024"});
  const Difference& difference = comparison.differences.front();
  expect_exact(difference);
  EXPECT_EQ(difference.causes.scale, 0.5);
  EXPECT_EQ(difference.causes.to_ps, std::llround(comparison.results[1].step_time_s * 0.5 * 1e12));
  EXPECT_NE(to_summary(comparison).find("for as many tokens as a step of A has"), std::string::npos);
}

TEST(Comparison, EachKeyIsSimulatedOnItsWay) {
  const Comparison comparison =
      compared(ddp, {}, {"training.micro_batch=4", "training.recompute=full", "strategy.bucket_cap_mb=100"});
  const Difference& difference = comparison.differences.front();
  expect_exact(difference);
  ASSERT_EQ(difference.by_key.size(), 3U);
  EXPECT_EQ(difference.by_key[0].paths, std::vector<std::string>{"training.micro_batch"});
  const Result first = compared(ddp, {}, {"training.micro_batch=4"}).results[1];
  EXPECT_EQ(difference.by_key[0].picoseconds, picoseconds(first) - picoseconds(comparison.results[0]));
  const Result second = compared(ddp, {}, {"training.micro_batch=4", "training.recompute=full"}).results[1];
  EXPECT_EQ(difference.by_key[1].picoseconds, picoseconds(second) - picoseconds(first));
}

TEST(Comparison, KeysThatOnlyRunTogetherStandTogether) {
  // Tensor does not divide the devices before there are more of them.
  const Comparison comparison = compared(
      ddp, {"strategy={framework: megatron-lm, tensor: 1}"},
      {"strategy={tensor: 16, framework: megatron-lm, pipeline: 2}", "cluster.nodes=16", "training.micro_batch=1"});
  expect_exact(comparison.differences.front());
  const Comparison sharded =
      compared(ddp, {}, {"strategy={reshard_after_forward: false, framework: pytorch-fsdp}", "training.micro_batch=4"});
  const Difference& difference = sharded.differences.front();
  expect_exact(difference);
  // The option is none of DDP's.
  const std::vector<std::string> together{"strategy.reshard_after_forward", "strategy.framework"};
  EXPECT_NE(std::ranges::find(difference.by_key, together, &KeyEffect::paths), difference.by_key.end());
}

TEST(Comparison, TheCostIsSplitIntoTimeAndPrice) {
  const Comparison comparison = compared(ddp, {}, {"cluster.nodes=16", "training.micro_batch=4", "cost.market=spot"});
  const Difference& difference = comparison.differences.front();
  ASSERT_TRUE(difference.cost.has_value());
  const CostDifference& cost = *difference.cost;
  EXPECT_TRUE(cost.per_million_tokens);
  EXPECT_NEAR(cost.from + cost.device_time + cost.price, cost.to, 1e-12 * cost.from);
  EXPECT_EQ(cost.from, *comparison.results[0].cost.paid->per_million_tokens);
  EXPECT_EQ(cost.to, *comparison.results[1].cost.paid->per_million_tokens);
  EXPECT_GT(cost.device_time, 0);  // twice the devices are not twice as fast
  EXPECT_LT(cost.price, 0);
  // The price has no say in the step.
  for (const KeyEffect& effect : difference.by_key)
    EXPECT_EQ(std::ranges::find(effect.paths, "cost.market"), effect.paths.end());
}

TEST(Comparison, SaysTheSameAsJson) {
  const Comparison comparison = compared(ddp, {}, {"training.micro_batch=4"});
  const auto json = nlohmann::json::parse(to_json(comparison));
  EXPECT_EQ(json.at("scenarios").size(), 2U);
  const auto& difference = json.at("differences").at(0);
  EXPECT_EQ(difference.at("keys").at(0).at("key"), "training.micro_batch");
  EXPECT_EQ(difference.at("keys").at(0).at("to"), "4");
  std::int64_t sum = 0;
  for (const auto& cause : difference.at("causes")) sum += cause.at("picoseconds").get<std::int64_t>();
  EXPECT_EQ(sum, picoseconds(comparison.results[1]) - picoseconds(comparison.results[0]));
}

std::vector<std::string> paths(const std::string& from, const std::string& to) {
  std::vector<std::string> result;
  for (const KeyChange& change : key_changes(parse_yaml(from, "a"), parse_yaml(to, "b"))) result.push_back(change.path);
  return result;
}

TEST(KeyChanges, ANameIsTheBaseOfAMap) {
  using Paths = std::vector<std::string>;
  EXPECT_EQ(paths("{cluster: {node: a}}", "{cluster: {node: {base: a, nics: 4}}}"), Paths{"cluster.node.nics"});
  EXPECT_EQ(paths("{cluster: {node: {base: a, nics: 4}}}", "{cluster: {node: b}}"),
            (Paths{"cluster.node.nics", "cluster.node.base"}));
  EXPECT_EQ(paths("{model: {layers: 3}}", "{model: b}"), Paths{"model"});
}

TEST(KeyChanges, KeysThatGoComeFirstAndTheRestAsTheSecondHasThem) {
  EXPECT_EQ(paths("{s: {a: 1, b: 2, c: 3}}", "{s: {d: 4, c: 5, b: 2}}"),
            (std::vector<std::string>{"s.a", "s.d", "s.c"}));
}

TEST(KeyChanges, AllOfThemLeadToTheSecond) {
  const Value to = parse_yaml("{cluster: {node: {base: b, nics: 2}}, s: {list: [1, 3], deep: {er: x}}}", "b");
  Value root = parse_yaml("{s: {list: [1, 2], gone: 1}, cluster: {node: a, devices: 3}, t: {u: 1}}", "a");
  for (const KeyChange& change : key_changes(root, to)) apply(root, change);
  remove(root, "t");  // an empty map stays
  EXPECT_EQ(canonical_text(root), canonical_text(to));
}

}  // namespace
}  // namespace trainyard::scenarios
