// A search that cuts off what its bounds exclude finds the plans that simulating everything finds: on random small
// spaces, the same best ones, in the same order. Simulating everything compares every bound on the way with what it
// bounds, and ends the program where one is too high.
//
// TRAINYARD_SEARCH_CASES sets the number of cases (`ctest` runs a few, the target `plan-search-cases` thousands) and
// TRAINYARD_SEARCH_SEED the first seed.
#include "scenarios/plan_search.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/document.hpp"
#include "tests/support/random_choices.hpp"

namespace trainyard {
namespace {

using Random = tests::RandomChoices;

// A small job on few devices with little memory, so that plans differ in what fits; some keys are given, so that the
// space stays small.
std::string random_scenario(std::uint64_t seed) {
  Random random(seed);
  const std::string framework =
      random.of(std::array<std::string, 9>{"megatron-lm", "megatron-lm", "megatron-lm", "pytorch-fsdp", "pytorch-fsdp",
                                           "deepspeed", "maxtext", "colossal-ai", "pytorch-ddp"});
  const bool experts = (framework == "megatron-lm" || framework == "pytorch-fsdp") && random.one_in(4);
  const std::string node = random.of(std::array<std::string, 2>{"dgx-a100-80gb", "dgx-h100"});
  const std::string accelerator = node == "dgx-h100" ? "h100-sxm" : "a100-sxm-80gb";
  std::string text = "name: random\n";
  text += "cluster: {node: {base: " + node + ", accelerator: {base: " + accelerator +
          ", memory: " + random.of(std::array<std::string, 3>{"4 GiB", "6 GiB", "40 GiB"}) +
          "}}, nodes: 2, devices: " + random.of(std::array<std::string, 3>{"4", "8", "12"}) + "}\n";
  text += "model: {base: " + std::string{experts ? "mixtral" : "llama"} +
          ", name: small, layers: " + random.of(std::array<std::string, 3>{"4", "6", "8"}) +
          ", hidden: " + random.of(std::array<std::string, 2>{"1024", "2048"}) +
          ", ffn_hidden: 4096, heads: 16, kv_heads: " + random.of(std::array<std::string, 2>{"4", "16"}) +
          ", head_dim: 64, vocab: 16000" + (experts ? ", experts: 4, top_k: 2" : "") + "}\n";
  text += "training: {global_batch: " + random.of(std::array<std::string, 3>{"12", "24", "48"}) +
          ", sequence: " + random.of(std::array<std::string, 2>{"1024", "2048"}) + ", precision: bf16";
  if (!random.one_in(3)) text += ", micro_batch: " + random.of(std::array<std::string, 2>{"1", "2"});
  if (random.one_in(2)) text += ", recompute: " + random.of(std::array<std::string, 3>{"none", "selective", "full"});
  text += "}\nstrategy: {framework: " + framework;
  const bool divides = framework != "pytorch-ddp" && framework != "colossal-ai";
  if (divides && random.one_in(2)) text += ", tensor: " + random.of(std::array<std::string, 2>{"1", "2"});
  if (divides && random.one_in(2)) text += ", pipeline: " + random.of(std::array<std::string, 2>{"1", "2"});
  if (divides && random.one_in(2)) text += ", context: 1";
  if (experts) text += ", expert_tensor: 1";
  if (framework == "megatron-lm" && random.one_in(2)) text += ", overlap_grad_reduce: true";
  if (framework == "megatron-lm" && random.one_in(2)) text += ", schedule: auto, virtual_pipeline: auto";
  return text + "}\n";
}

struct Search {
  scenarios::SearchResult result;
  std::string refused;
};
Search search(const std::string& text, scenarios::SearchOptions options, bool exhaustive) {
  static const scenarios::Catalog catalog;
  options.exhaustive = exhaustive;
  try {
    return {.result = scenarios::search_plans(scenarios::parse_yaml(text, "random.yaml"), catalog, options),
            .refused = ""};
  } catch (const scenarios::ScenarioError& error) {
    return {.result = {}, .refused = error.what()};
  }
}

TEST(PlanSearchProperty, FindsWhatSimulatingEverythingFinds) {
  const std::uint64_t cases = tests::from_environment("TRAINYARD_SEARCH_CASES", 12);
  const std::uint64_t first = tests::from_environment("TRAINYARD_SEARCH_SEED", 1);
  std::uint64_t searched = 0;
  std::int64_t simulated = 0;
  std::int64_t all = 0;
  for (std::uint64_t seed = first; seed < first + cases; ++seed) {
    const std::string text = random_scenario(seed);
    SCOPED_TRACE("seed " + std::to_string(seed) + "\n" + text);
    scenarios::SearchOptions options;
    options.top = seed % 3 == 0 ? 4 : 1;
    options.jobs = 2;
    options.objective = seed % 4 == 0 ? scenarios::Objective::energy : scenarios::Objective::step_time;
    const Search cut = search(text, options, false);
    const Search whole = search(text, options, true);
    ASSERT_EQ(cut.refused, whole.refused);
    if (!cut.refused.empty()) continue;
    ++searched;
    ASSERT_EQ(cut.result.plans.size(), whole.result.plans.size());
    for (std::size_t i = 0; i < cut.result.plans.size(); ++i) {
      EXPECT_EQ(cut.result.plans[i].keys, whole.result.plans[i].keys);
      EXPECT_EQ(cut.result.plans[i].result.step_time_s, whole.result.plans[i].result.step_time_s);
    }
    EXPECT_EQ(whole.result.counts.slower, 0);
    EXPECT_EQ(cut.result.counts.examined(), whole.result.counts.examined());
    simulated += cut.result.counts.simulated;
    all += whole.result.counts.simulated;
  }
  // Else nothing was put to the test.
  EXPECT_GT(searched * 2, cases);
  EXPECT_LT(simulated, all);
}

}  // namespace
}  // namespace trainyard
