// Folding is exact: on random scenarios, simulating one rank of each kind gives what simulating every rank gives.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/simulate.hpp"

namespace trainyard {
namespace {

class Random {
 public:
  explicit Random(std::uint64_t seed) : bits_(seed) {}
  template <class Value, std::size_t count>
  Value of(const std::array<Value, count>& values) {
    return values.at(static_cast<std::size_t>(bits_() % count));
  }
  bool chance() { return bits_() % 2 == 0; }

 private:
  std::mt19937_64 bits_;
};

// Odd device counts, shared NICs, oversubscription and unusual rank orders make like ranks unlike.
std::string random_scenario(std::uint64_t seed) {
  Random random(seed);
  const std::int64_t tensor = random.of(std::array<std::int64_t, 4>{1, 2, 4, 8});
  const std::int64_t pipeline = random.of(std::array<std::int64_t, 4>{1, 2, 3, 4});
  const std::int64_t data = random.of(std::array<std::int64_t, 5>{1, 2, 3, 4, 6});
  const std::int64_t devices = tensor * pipeline * data;
  const std::int64_t nodes = (devices + 7) / 8 + random.of(std::array<std::int64_t, 3>{0, 0, 1});
  const std::int64_t micro_batches = pipeline * random.of(std::array<std::int64_t, 3>{1, 2, 3});
  const auto flag = [&] { return std::string(random.chance() ? "true" : "false"); };
  std::string text =
      "name: random\ncluster:\n  node: {base: dgx-a100-80gb, nics: " +
      std::to_string(random.of(std::array<std::int64_t, 4>{1, 2, 4, 8})) + "}\n  nodes: " + std::to_string(nodes) +
      "\n  devices: " + std::to_string(devices) +
      "\n  fabric: {kind: " + random.of(std::array<std::string, 3>{"single-switch", "fat-tree", "rail-optimized"}) +
      ", radix: " + random.of(std::array<std::string, 3>{"4", "8", "64"}) +
      ", switch_latency: 0.2 us, oversubscription: " + random.of(std::array<std::string, 3>{"1", "2", "3"}) + "}\n";
  text += "model: {base: gpt, layers: 8, hidden: 1024, heads: 8, vocab: 5000, tied_embeddings: " + flag() + "}\n";
  const std::string framework =
      random.of(std::array<std::string, 4>{"megatron-lm", "megatron-lm", "pytorch-fsdp", "pytorch-ddp"});
  const bool megatron = framework == "megatron-lm";
  text += "training: {micro_batch: 1, sequence: 512, precision: bf16, recompute: " +
          random.of(std::array<std::string, 3>{"none", "selective", "full"}) +
          ", global_batch: " + std::to_string(megatron ? data * micro_batches : devices) + "}\n";
  text += "strategy:\n  framework: " + framework + "\n";
  if (framework == "pytorch-fsdp" && devices % 2 == 0 && random.chance())
    text += "  shard: " + std::to_string(devices / 2) + "\n";
  if (!megatron) return text;
  const bool interleaved = pipeline > 1 && random.chance();
  text += "  tensor: " + std::to_string(tensor) + "\n  pipeline: " + std::to_string(pipeline) + "\n";
  text += "  schedule: " + std::string(interleaved ? "interleaved" : random.chance() ? "1f1b" : "gpipe") + "\n";
  text +=
      "  sequence_parallel: " + flag() + "\n  distributed_optimizer: " + flag() + "\n  overlap_grad_reduce: " + flag() +
      "\n  order: " +
      random.of(std::array<std::string, 4>{"tp-cp-ep-dp-pp", "tp-cp-ep-pp-dp", "pp-dp-tp-cp-ep", "dp-tp-pp-cp-ep"}) +
      "\n";
  return text;
}

scenarios::Simulation simulated(const scenarios::Scenario& scenario, bool fold) {
  scenarios::SimulateOptions options{.record = true, .fold = fold, .ranks = std::vector<std::int64_t>{}};
  for (std::int64_t rank = 0; rank < scenario.devices; ++rank) options.ranks->push_back(rank);
  scenarios::Simulation simulation = scenarios::simulate(scenario, options);
  // What may differ: how long it took, and how many ranks were simulated.
  simulation.result.engine.wall_s = 0;
  simulation.result.engine.peak_rss_bytes = 0;
  simulation.result.engine.rank_classes = 0;
  return simulation;
}

void expect_same_records(const sim::Outcome& folded, const sim::Outcome& unfolded) {
  ASSERT_EQ(folded.records.size(), unfolded.records.size());
  for (std::size_t i = 0; i < folded.records.size(); ++i) {
    const sim::OpRecord& a = folded.records[i];
    const sim::OpRecord& b = unfolded.records[i];
    ASSERT_TRUE(a.rank == b.rank && a.stream == b.stream && a.block == b.block && a.op == b.op && a.start == b.start &&
                a.end == b.end && a.transfer == b.transfer && a.communicator == b.communicator &&
                a.sequence == b.sequence)
        << "record " << i << " of rank " << sim::index_of(b.rank);
  }
  ASSERT_EQ(folded.memory.size(), unfolded.memory.size());
  for (std::size_t i = 0; i < folded.memory.size(); ++i)
    ASSERT_TRUE(folded.memory[i].when == unfolded.memory[i].when &&
                folded.memory[i].allocated == unfolded.memory[i].allocated);
}

TEST(FoldTest, GivesEveryTimestampAndEveryFieldOfTheUnfoldedRun) {
  const scenarios::Catalog catalog;
  constexpr std::uint64_t cases = 250;
  std::uint64_t simulated_cases = 0;
  std::uint64_t folded_cases = 0;
  for (std::uint64_t seed = 1; seed <= cases; ++seed) {
    const std::string text = random_scenario(seed);
    SCOPED_TRACE("seed " + std::to_string(seed) + "\n" + text);
    try {
      const scenarios::Scenario scenario =
          scenarios::read_scenario(scenarios::parse_yaml(text, "random.yaml"), catalog);
      const scenarios::Simulation folded = simulated(scenario, true);
      const scenarios::Simulation unfolded = simulated(scenario, false);
      EXPECT_EQ(scenarios::to_json(folded.result), scenarios::to_json(unfolded.result));
      expect_same_records(folded.outcome, unfolded.outcome);
      EXPECT_EQ(unfolded.outcome.rank_classes, static_cast<std::size_t>(scenario.devices));
      ++simulated_cases;
      folded_cases += folded.outcome.rank_classes < unfolded.outcome.rank_classes ? 1 : 0;
    } catch (const scenarios::ScenarioError& error) {
      ADD_FAILURE() << error.what();
    }
    if (HasFailure()) return;
  }
  // The draw means something only if most scenarios run and many of them fold.
  EXPECT_EQ(simulated_cases, cases);
  EXPECT_GT(folded_cases, cases / 2);
}

}  // namespace
}  // namespace trainyard
