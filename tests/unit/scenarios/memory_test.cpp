// Whether a step fits in memory, what holds the memory where it does not, and what would help.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "scenarios/internal/document.hpp"
#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {
namespace {

constexpr const char* llama_on_a_node = R"(name: Memory
cluster: {node: dgx-a100-80gb, nodes: 1}
model: llama2-7b
training: {global_batch: 16, micro_batch: 2, sequence: 4096, precision: bf16}
strategy: {framework: megatron-lm}
)";

Simulation simulated(const std::vector<std::string>& settings, const SimulateOptions& options = {}) {
  static const Catalog catalog;
  Value root = parse_yaml(llama_on_a_node, "memory.yaml");
  for (const std::string& setting : settings) apply_override(root, setting);
  return simulate(read_scenario(root, catalog), options);
}

std::string recompute_of(const std::vector<std::string>& settings) { return simulated(settings).result.recompute; }

TEST(AutomaticRecompute, IsTheLeastThatFits) {
  const std::string automatic = "training.recompute=auto";
  const std::string sharded = "strategy.distributed_optimizer=true";
  EXPECT_EQ(recompute_of({automatic, sharded, "training.micro_batch=1", "strategy.tensor=2"}), "none");
  EXPECT_EQ(recompute_of({automatic, sharded, "training.micro_batch=2"}), "{modules: [layernorm, mlp]}");
  EXPECT_EQ(recompute_of({automatic, sharded, "training.global_batch=128", "training.micro_batch=16"}), "full");
  // What the choice leaves out does not fit.
  EXPECT_FALSE(simulated({"training.recompute=selective", sharded}).result.memory.fits);
  EXPECT_TRUE(simulated({automatic, sharded}).result.memory.fits);
}

TEST(AutomaticRecompute, IsFullWhereNothingFits) {
  const Result result = simulated({"training.recompute=auto"}).result;
  EXPECT_EQ(result.recompute, "full");
  EXPECT_FALSE(result.memory.fits);
}

TEST(MemoryAdvice, NamesTheLargestPartsFirst) {
  const MemorySummary memory = simulated({}, {.ranks = {}, .advise = true}).result.memory;
  ASSERT_FALSE(memory.fits);
  ASSERT_FALSE(memory.largest.empty());
  EXPECT_EQ(memory.largest.front().what, "optimizer");
  EXPECT_EQ(memory.largest.front().bytes, 6'738'415'616 * 12);
  EXPECT_TRUE(std::ranges::is_sorted(memory.largest, std::greater{}, &MemoryPart::bytes));
  const auto sum = std::accumulate(memory.largest.begin(), memory.largest.end(), std::int64_t{0},
                                   [](std::int64_t so_far, const MemoryPart& part) { return so_far + part.bytes; });
  EXPECT_LE(sum, memory.peak);
  EXPECT_GE(sum, memory.peak / 10 * 9);
}

TEST(MemoryAdvice, FitsWhenItIsTaken) {
  for (const std::vector<std::string>& start :
       {std::vector<std::string>{"strategy.distributed_optimizer=true"}, std::vector<std::string>{},
        std::vector<std::string>{"strategy.framework=pytorch-ddp"},
        std::vector<std::string>{"strategy.framework=pytorch-fsdp", "training.micro_batch=2", "training.sequence=4096",
                                 "strategy.reshard_after_forward=false", "model=llama2-13b"}}) {
    const MemorySummary memory = simulated(start, {.ranks = {}, .advise = true}).result.memory;
    ASSERT_FALSE(memory.fits);
    ASSERT_FALSE(memory.changes.empty());
    for (const MemoryChange& change : memory.changes) {
      std::vector<std::string> settings = start;
      settings.insert(settings.end(), change.settings.begin(), change.settings.end());
      const MemorySummary after = simulated(settings).result.memory;
      EXPECT_TRUE(after.fits) << change.settings.front();
      EXPECT_EQ(after.peak, change.peak) << change.settings.front();
    }
  }
}

TEST(MemoryAdvice, NamesWhatComesClosestWhereNothingFits) {
  const MemorySummary memory =
      simulated({"model=llama3.1-405b", "strategy.tensor=8", "training.recompute=full", "training.micro_batch=1"},
                {.ranks = {}, .advise = true})
          .result.memory;
  ASSERT_EQ(memory.changes.size(), 1U);
  EXPECT_FALSE(memory.changes.front().fits);
  EXPECT_EQ(memory.changes.front().settings, std::vector<std::string>{"training.finetune=lora"});
  EXPECT_LT(memory.changes.front().peak, memory.peak);
}

TEST(MemoryAdvice, StandsInTheResultOnlyWhereItDoesNotFit) {
  const auto json = [](const std::vector<std::string>& settings) {
    return nlohmann::json::parse(to_json(simulated(settings, {.ranks = {}, .advise = true}).result)).at("memory");
  };
  const nlohmann::json crowded = json({"strategy.distributed_optimizer=true"});
  EXPECT_EQ(crowded.at("largest").at(0).at("what"), "activations of layer");
  EXPECT_TRUE(crowded.at("changes").at(0).at("fits").get<bool>());
  EXPECT_FALSE(json({"strategy.tensor=8", "training.recompute=full"}).contains("changes"));
}

TEST(MemoryTimeline, ReachesThePeakAndEndsWhereItBegan) {
  const Simulation simulation = simulated({"strategy.tensor=2", "strategy.pipeline=4", "training.micro_batch=1"},
                                          {.ranks = {}, .memory_timeline = true});
  const std::vector<MemoryRow> rows = memory_rows(simulation);
  ASSERT_GT(rows.size(), 100U);
  const auto allocated = [](const MemoryRow& row) {
    return std::accumulate(row.allocated.begin(), row.allocated.end(), std::int64_t{0});
  };
  std::int64_t most = 0;
  for (const MemoryRow& row : rows) most = std::max(most, allocated(row));
  EXPECT_EQ(most, simulation.result.memory.allocated);
  EXPECT_EQ(allocated(rows.front()), allocated(rows.back()));
  EXPECT_TRUE(std::ranges::is_sorted(rows, {}, &MemoryRow::time_s));
  EXPECT_GE(rows.front().time_s, 0);
  const std::string csv = memory_to_csv(rows);
  EXPECT_EQ(csv.substr(0, csv.find('\n')), "time_s,parameters,gradients,optimizer,activations,buffers,allocated");
  EXPECT_EQ(static_cast<std::size_t>(std::ranges::count(csv, '\n')), rows.size() + 1);
}

}  // namespace
}  // namespace trainyard::scenarios
