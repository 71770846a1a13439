#include "scenarios/plan_search.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <vector>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/document.hpp"
#include "tests/support/simulated.hpp"

namespace trainyard::scenarios {
namespace {

// A small model on one node, all of whose plans take a second or two.
const std::string base = R"(name: small
cluster: {node: dgx-a100-80gb, nodes: 1}
model: {base: llama, name: small, layers: 8, hidden: 2048, ffn_hidden: 8192, heads: 16, kv_heads: 16, vocab: 32000}
training: {global_batch: 32, sequence: 1024, precision: bf16, recompute: none}
strategy: {framework: megatron-lm, context: 1, distributed_optimizer: true, overlap_grad_reduce: true}
)";

SearchResult search(const std::vector<std::string>& settings, SearchOptions options = {}) {
  static const Catalog catalog;
  Value root = parse_yaml(base, "small.yaml");
  apply_overrides(root, settings);
  return search_plans(root, catalog, options);
}

std::string refusal_of(const std::vector<std::string>& settings, SearchOptions options = {}) {
  try {
    search(settings, options);
  } catch (const ScenarioError& error) {
    return error.what();
  }
  return "";
}

std::string value_of(const std::vector<Parameter>& keys, const std::string& path) {
  const auto found = std::ranges::find(keys, path, &Parameter::path);
  return found == keys.end() ? "" : found->value;
}

TEST(PlanSearch, AKeyThatIsGivenStays) {
  const SearchResult result = search({"strategy.tensor=2", "strategy.pipeline=auto"});
  ASSERT_FALSE(result.plans.empty());
  for (const Candidate& candidate : result.candidates) {
    EXPECT_EQ(value_of(candidate.keys, "strategy.tensor"), "");
    EXPECT_NE(value_of(candidate.keys, "strategy.pipeline"), "");
  }
  EXPECT_EQ(value_of(result.fixed, "strategy.tensor"), "2");
  EXPECT_EQ(value_of(result.fixed, "training.recompute"), "\"none\"");
  EXPECT_EQ(value_of(result.fixed, "strategy.pipeline"), "");
  EXPECT_EQ(result.plans.front().result.parallelism.tensor, 2);
}

TEST(PlanSearch, APlanIsWhatRunSaysOfIt) {
  const SearchResult result = search({"strategy.pipeline=1"});
  ASSERT_GE(result.plans.size(), 2U);
  for (const ProposedPlan& plan : result.plans) {
    std::vector<std::string> settings;
    for (const Parameter& key : plan.keys) settings.push_back(key.path + "=" + key.value);
    settings.emplace_back("strategy.pipeline=1");
    Simulation simulation = simulate(tests::scenario_of(base, settings));
    EXPECT_EQ(simulation.result.step_time_s, plan.result.step_time_s);
    EXPECT_EQ(simulation.result.memory.peak, plan.result.memory.peak);
    EXPECT_TRUE(simulation.result.memory.fits);
  }
}

TEST(PlanSearch, WhatDependsOnAGivenKeyIsSearchedWhereItMatters) {
  const auto searched = [](const std::string& schedule) {
    const SearchResult result = search({"strategy.schedule=" + schedule});
    return std::ranges::find(result.searched, "strategy.virtual_pipeline", &SearchedKey::path) != result.searched.end();
  };
  EXPECT_FALSE(searched("1f1b"));
  EXPECT_TRUE(searched("interleaved"));
}

TEST(PlanSearch, EverythingIsCountedOnce) {
  const SearchResult result = search({});
  const SearchCounts& counts = result.counts;
  EXPECT_EQ(counts.combinations, counts.refused + counts.examined());
  EXPECT_EQ(counts.simulated, static_cast<std::int64_t>(result.candidates.size()));
  EXPECT_GT(counts.slower, counts.simulated);
  EXPECT_EQ(counts.left, 0);
  EXPECT_FALSE(result.stopped);
}

TEST(PlanSearch, ThreadsChangeNothing) {
  SearchOptions one;
  SearchOptions several;
  several.jobs = 3;
  SearchResult first = search({"strategy.pipeline=auto"}, one);
  SearchResult second = search({"strategy.pipeline=auto"}, several);
  for (SearchResult* result : {&first, &second}) {
    result->search_s = result->wall_s = 0;
    for (ProposedPlan& plan : result->plans) plan.result.engine = {};
  }
  EXPECT_EQ(to_json(first), to_json(second));
}

TEST(PlanSearch, TheFrontHoldsTheBestAndTheSmallest) {
  const SearchResult result = search({});
  ASSERT_FALSE(result.front.empty());
  EXPECT_EQ(result.front.front(), 0U);
  const auto smallest = std::ranges::min(result.candidates, {}, &Candidate::peak_bytes).peak_bytes;
  EXPECT_TRUE(std::ranges::any_of(result.front,
                                  [&](std::size_t index) { return result.candidates[index].peak_bytes == smallest; }));
}

TEST(PlanSearch, NeighboursAreNoBetterUnlessTheyDoNotFit) {
  const SearchResult result = search({});
  ASSERT_GT(result.neighbours.size(), 3U);
  const double best = result.plans.front().result.step_time_s;
  for (const Neighbour& neighbour : result.neighbours) {
    if (!neighbour.refused.empty() || !neighbour.fits) continue;
    EXPECT_GE(neighbour.step_time_s, best) << neighbour.change.path << " " << neighbour.change.value;
    EXPECT_EQ(neighbour.difference.to_s, neighbour.step_time_s);
  }
}

TEST(PlanSearch, FrameworksAreSearchedWhereNoneIsGiven) {
  const SearchResult result = search({"strategy={}", "training.micro_batch=1", "training.global_batch=8"});
  for (const char* framework : {"pytorch-ddp", "pytorch-fsdp", "megatron-lm"})
    EXPECT_NE(std::ranges::find(result.frameworks, framework), result.frameworks.end()) << framework;
  std::size_t others = 0;
  for (const Neighbour& neighbour : result.neighbours)
    if (neighbour.change.path == "strategy.framework") ++others;
  EXPECT_EQ(others + 1, result.frameworks.size());
}

TEST(PlanSearch, AFrameworkWithoutAGivenKeyIsLeftOut) {
  const SearchResult result =
      search({"strategy={distributed_optimizer: true}", "training.micro_batch=1", "training.global_batch=8"});
  EXPECT_EQ(result.frameworks, std::vector<std::string>{"megatron-lm"});
  EXPECT_TRUE(std::ranges::any_of(result.left_out, [](const std::string& text) {
    return text.starts_with("pytorch-ddp: unknown key 'distributed_optimizer'");
  }));
}

TEST(PlanSearch, TheObjectiveDecidesWhatIsBest) {
  SearchOptions options;
  options.objective = Objective::energy;
  const SearchResult result = search({}, options);
  ASSERT_GE(result.candidates.size(), 2U);
  for (std::size_t i = 1; i < result.candidates.size(); ++i)
    EXPECT_LE(*result.candidates[i - 1].energy_kwh_per_step, *result.candidates[i].energy_kwh_per_step);
}

TEST(PlanSearch, MistakesAreReportedAsAnywhereElse) {
  EXPECT_NE(refusal_of({"strategy.framework=megatron"}).find("strategy.framework: expected 'pytorch-ddp'"),
            std::string::npos);
  EXPECT_NE(refusal_of({"strategy.tensr=2"}).find("unknown key 'tensr' in 'strategy' (did you mean 'tensor'?)"),
            std::string::npos);
  EXPECT_NE(refusal_of({"workload=inference"}).find("workload: a plan is searched for training"), std::string::npos);
  EXPECT_NE(refusal_of({"strategy.tensor=3"}).find("combinations can run under megatron-lm"), std::string::npos);
  EXPECT_NE(refusal_of({"model.layers=800", "strategy.tensor=1", "strategy.pipeline=1"}).find("fits in memory"),
            std::string::npos);
}

TEST(PlanSearch, AutoIsForPlan) {
  EXPECT_NE(tests::refusal(base, {"strategy.tensor=auto"})
                .find("strategy.tensor: expected a whole number, got 'auto'; 'trainyard plan' searches"),
            std::string::npos);
}

TEST(PlanSearch, StoppedItGivesWhatItHas) {
  std::atomic<bool> stop{false};
  SearchOptions options;
  options.stop = &stop;
  options.exhaustive = true;
  options.progress = [&](const SearchProgress& progress) { stop = progress.counts.simulated > 0; };
  const SearchResult result = search({}, options);
  EXPECT_TRUE(result.stopped);
  EXPECT_GT(result.counts.left, 0);
  EXPECT_FALSE(result.plans.empty());
  EXPECT_NE(to_summary(result).find("STOPPED"), std::string::npos);
}

}  // namespace
}  // namespace trainyard::scenarios
