// What is advised was simulated, fits, and is what one would do.
#include "scenarios/advice.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "tests/support/simulated.hpp"

namespace trainyard::scenarios {
namespace {

const Catalog& catalog() {
  static const Catalog catalog;
  return catalog;
}

struct Advised {
  Result result;
  Advice advice;
};

Advised advised(const std::string& base, const std::vector<std::string>& settings) {
  Value root = parse_yaml(base, "test.yaml");
  for (const std::string& setting : settings) apply_override(root, setting);
  Advised advised{.result = simulate(read_scenario(root, catalog())).result, .advice = {}};
  advised.advice = advise(root, catalog(), advised.result);
  return advised;
}

std::vector<std::string> with(std::vector<std::string> settings, const std::vector<std::string>& more) {
  settings.insert(settings.end(), more.begin(), more.end());
  return settings;
}

// Every change is what `run --set` gives, and better than what there is.
void expect_true(const std::string& base, const std::vector<std::string>& settings, const Advised& advised) {
  const auto& [result, advice] = advised;
  ASSERT_FALSE(advice.changes.empty());
  EXPECT_LE(advice.changes.size(), 4U);
  for (const Advice::Change& change : advice.changes) {
    const Result then = tests::simulated(base, with(settings, change.settings)).result;
    const std::string name = change.settings.front();
    EXPECT_EQ(change.step_time_s, then.step_time_s) << name;
    EXPECT_EQ(change.peak_bytes, then.memory.peak) << name;
    EXPECT_TRUE(then.memory.fits) << name;
    if (result.memory.fits) {
      EXPECT_LT(then.step_time_s, result.step_time_s) << name;
    }
    EXPECT_DOUBLE_EQ(then.samples_per_s * then.step_time_s, result.samples_per_s * result.step_time_s) << name;
    EXPECT_FALSE(change.why.empty());
  }
}

bool advises(const Advised& advised, const std::string& setting) {
  return std::ranges::any_of(advised.advice.changes, [&](const Advice::Change& change) {
    return std::ranges::find(change.settings, setting) != change.settings.end();
  });
}

const std::string gpt = R"(name: GPT
cluster: {node: dgx-a100-80gb, nodes: 4}
model: {base: gpt, layers: 32, hidden: 4096, heads: 32, vocab: 50257}
training: {global_batch: 32, sequence: 2048, precision: bf16, micro_batch: 1}
strategy: {framework: megatron-lm, tensor: 4, pipeline: 8, distributed_optimizer: true}
)";

TEST(Advice, ALargeBubbleIsShortened) {
  const std::vector<std::string> settings{"training.global_batch=8"};
  const Advised run = advised(gpt, settings);
  const auto& [result, advice] = run;
  expect_true(gpt, settings, run);
  const Advice::Change& first = advice.changes.front();
  EXPECT_TRUE(std::ranges::any_of(first.settings, [](const std::string& setting) {
    return setting.starts_with("strategy.pipeline=") || setting.starts_with("strategy.schedule=");
  })) << first.settings.front();
  EXPECT_NE(first.why.find("pipeline bubble"), std::string::npos) << first.why;
  EXPECT_NE(advice.limit.find("of the step is waiting: pipeline bubble"), std::string::npos) << advice.limit;
}

TEST(Advice, WhatIsReducedAtTheEndIsOverlapped) {
  // Replicas that only data-parallel ranks over slow adapters tell apart, and nothing else to choose.
  const std::vector<std::string> settings{"cluster.node={base: dgx-a100-80gb, nic_rate: 50 Gbit/s}",
                                          "strategy.pipeline=1",
                                          "strategy.tensor=1",
                                          "model.hidden=1024",
                                          "model.heads=16",
                                          "model.layers=12",
                                          "training.global_batch=256",
                                          "training.micro_batch=8"};
  const Advised run = advised(gpt, settings);
  expect_true(gpt, settings, run);
  EXPECT_TRUE(advises(run, "strategy.overlap_grad_reduce=true"));
}

TEST(Advice, TensorParallelismStaysInsideNodes) {
  const std::vector<std::string> settings{"strategy.tensor=16", "strategy.pipeline=2"};
  const Advised run = advised(gpt, settings);
  const auto& [result, advice] = run;
  expect_true(gpt, settings, run);
  const std::vector<std::string>& first = advice.changes.front().settings;
  EXPECT_TRUE(std::ranges::any_of(first, [](const std::string& setting) {
    return setting.starts_with("strategy.tensor=") && setting != "strategy.tensor=16";
  })) << first.front();
  EXPECT_LT(advice.changes.front().step_time_s, 0.7 * result.step_time_s);
}

TEST(Advice, WhatDoesNotFitIsMadeToFit) {
  const std::string ddp = R"(name: Too large
cluster: {node: dgx-a100-80gb, nodes: 2}
model: llama2-13b
training: {global_batch: 16, sequence: 2048, precision: bf16}
strategy: {framework: pytorch-ddp}
)";
  const Advised run = advised(ddp, {});
  const auto& [result, advice] = run;
  ASSERT_FALSE(result.memory.fits);
  expect_true(ddp, {}, run);
  EXPECT_TRUE(advises(run, "strategy.framework=pytorch-fsdp"));
  EXPECT_EQ(advice.limit.find("It does not fit: "), 0U) << advice.limit;
  EXPECT_NE(to_text(advice, result).find("What would help most, so that it fits"), std::string::npos);
}

TEST(Advice, WhatIsLearntStays) {
  const std::set<std::string> allowed{"training.micro_batch", "training.recompute", "training.compile",
                                      "training.attention"};
  for (const std::vector<std::string>& settings :
       {std::vector<std::string>{}, {"strategy={framework: pytorch-fsdp}"}, {"strategy={framework: deepspeed}"}}) {
    const Advised run = advised(gpt, settings);
    const auto& [result, advice] = run;
    for (const Advice::Change& change : advice.changes)
      for (const std::string& setting : change.settings) {
        const std::string path = setting.substr(0, setting.find('='));
        EXPECT_TRUE(path.starts_with("strategy.") || allowed.contains(path)) << setting;
      }
  }
}

TEST(Advice, EndsWhereNothingHelps) {
  std::vector<std::string> settings;
  Advised now = advised(gpt, settings);
  for (int i = 0; i < 8 && !now.advice.changes.empty(); ++i) {
    const double before = now.result.step_time_s;
    settings = with(settings, now.advice.changes.front().settings);
    now = advised(gpt, settings);
    EXPECT_LT(now.result.step_time_s, before);
  }
  EXPECT_TRUE(now.advice.changes.empty());
  EXPECT_NE(to_text(now.advice, now.result).find("Nothing that was tried makes it faster"), std::string::npos);
  EXPECT_GT(now.advice.tried, 20);
}

TEST(Advice, IsPartOfTheJson) {
  const Advised run = advised(gpt, {});
  const auto& [result, advice] = run;
  const auto json = nlohmann::json::parse(to_json(result, advice)).at("advice");
  EXPECT_EQ(json.at("limit"), advice.limit);
  EXPECT_EQ(json.at("changes").at(0).at("set").at(0), advice.changes.front().settings.front());
  EXPECT_FALSE(nlohmann::json::parse(to_json(result)).contains("advice"));
}

}  // namespace
}  // namespace trainyard::scenarios
