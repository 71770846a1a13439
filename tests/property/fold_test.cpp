// Folding is exact: on random scenarios, simulating one rank of each kind gives what simulating every rank gives, in
// every timestamp and every field, and so does taking what happens at the same time in a random order.
//
// TRAINYARD_FOLD_CASES sets the number of cases (`ctest` runs a few hundred) and TRAINYARD_FOLD_SEED the first seed.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/layers.hpp"
#include "scenarios/simulate.hpp"
#include "tests/support/random_choices.hpp"

namespace trainyard {
namespace {

using Random = tests::RandomChoices;

std::string number(std::int64_t value) { return std::to_string(value); }

// Slow devices and links that are broken or degraded, some of the time.
std::string random_faults(Random& random, std::int64_t devices, std::int64_t nodes, bool leaves, bool may_break) {
  std::string faults;
  const auto add = [&](const std::string& fault) { faults += (faults.empty() ? "" : ", ") + fault; };
  const auto speed = [&] { return random.of(std::array<std::string, 4>{"0.9", "0.8", "0.5", "0.97"}); };
  if (random.one_in(4)) add("{device: " + number(random.below(devices)) + ", speed: " + speed() + "}");
  if (random.one_in(8)) add("{node: " + number(random.below(nodes)) + ", speed: " + speed() + "}");
  if (random.one_in(5))
    add("{link: node " + number(random.below(nodes)) +
        " nic 0, capacity: " + random.of(std::array<std::string, 3>{"0.5", "0.25", "0.9"}) + "}");
  if (leaves && random.one_in(4))
    add(std::string("{link: leaf 0 spine 0, capacity: ") + (may_break && random.one_in(2) ? "0" : "0.5") + "}");
  return faults;
}

// Tensor parallelism on as many dimensions as the devices allow, or chunks; with the samples that a micro-batch needs.
struct Colossal {
  std::string options;
  std::int64_t tensor = 1;
  std::int64_t micro_batch = 1;
};
Colossal random_colossal(Random& random, std::int64_t devices) {
  if (devices % 8 == 0 && random.one_in(2))
    return {"  mode: " + random.of(std::array<std::string, 2>{"3d", "2.5d\n  depth: 2"}) + "\n  tensor: 8\n", 8, 4};
  if (devices % 4 == 0 && random.one_in(2)) return {"  mode: 2d\n  tensor: 4\n", 4, 2};
  const auto share = [&] { return random.of(std::array<std::string, 3>{"0", "0.5", "1"}); };
  const std::string placement = random.of(std::array<std::string, 2>{"static", "auto"});
  std::string options =
      "  plugin: gemini\n  placement_policy: " + placement + "\n  max_prefetch: " + number(random.below(3)) +
      "\n  min_chunk_size_m: 2\n  enable_async_reduce: " + random.of(std::array<std::string, 2>{"true", "false"}) +
      "\n";
  if (placement == "static") options += "  shard_param_frac: " + share() + "\n  offload_optim_frac: " + share() + "\n";
  return {options};
}

// Odd device counts, shared NICs, oversubscription, hashed routes, faults and unusual rank orders make like ranks
// unlike.
std::string random_scenario(std::uint64_t seed) {
  Random random(seed);
  const std::int64_t tensor = random.of(std::array<std::int64_t, 4>{1, 2, 4, 8});
  const std::int64_t pipeline = random.of(std::array<std::int64_t, 4>{1, 2, 3, 4});
  const std::int64_t data = random.of(std::array<std::int64_t, 6>{1, 2, 3, 4, 6, 8});
  const std::int64_t context = random.one_in(4) ? 2 : 1;
  const std::int64_t devices = tensor * pipeline * data * context;
  const std::int64_t nodes = (devices + 7) / 8 + random.of(std::array<std::int64_t, 3>{0, 0, 1});
  const std::int64_t micro_batches = pipeline * random.of(std::array<std::int64_t, 3>{1, 2, 3});
  const auto flag = [&] { return std::string(random.one_in(2) ? "true" : "false"); };
  const std::string kind =
      random.of(std::array<std::string, 5>{"single-switch", "fat-tree", "fat-tree", "rail-optimized", "dragonfly"});
  std::string text = "name: random\nseed: " + number(static_cast<std::int64_t>(seed)) + "\ncluster:\n";
  const std::int64_t nics_per_node = random.of(std::array<std::int64_t, 4>{1, 2, 4, 8});
  const std::int64_t radix = random.of(std::array<std::int64_t, 3>{4, 8, 16});
  const bool leaves = kind == "fat-tree" && nodes * nics_per_node > radix / 2;  // more than one
  const std::string nics = number(nics_per_node);
  const std::string node = "{base: dgx-a100-80gb, nics: " + nics + ", nic_rate: " +
                           random.of(std::array<std::string, 3>{"200 Gbit/s", "400 Gbit/s", "137 Gbit/s"}) + "}";
  if (nodes > 1 && random.one_in(8))
    text += "  groups: [{node: " + node + ", nodes: " + number(nodes - 1) + "}, {node: {base: dgx-h100, nics: " + nics +
            "}, nodes: 1}]\n";
  else
    text += "  node: " + node + "\n  nodes: " + number(nodes) + "\n";
  text += "  devices: " + number(devices) + "\n  fabric: {kind: " + kind + ", switch_latency: 0.2 us";
  if (kind != "single-switch") text += ", radix: " + number(radix);
  if (kind == "fat-tree" || kind == "rail-optimized")
    text += ", oversubscription: " + random.of(std::array<std::string, 3>{"1", "2", "3"});
  if (kind != "single-switch" && random.one_in(3)) text += ", routing: ecmp";
  text += "}\n";
  if (random.one_in(4)) text += "  placement: shuffled\n";
  text += "  faults: [" + random_faults(random, devices, nodes, leaves, radix == 16) + "]\n";
  const std::string framework = random.of(std::array<std::string, 7>{
      "megatron-lm", "megatron-lm", "pytorch-fsdp", "pytorch-ddp", "deepspeed", "tensorflow", "colossal-ai"});
  const bool megatron = framework == "megatron-lm";
  const bool pipelined = framework == "deepspeed" && context == 1 && random.one_in(2);
  const bool composed = framework == "pytorch-fsdp" && random.one_in(2);
  const bool experts = megatron && random.one_in(3);
  text += std::string("model: {base: ") +
          (experts ? "mixtral, experts: 4, top_k: 2, kv_heads: 8, ffn_hidden: 512" : "gpt") +
          ", layers: 8, hidden: 1024, heads: 8, vocab: 5000, tied_embeddings: " + flag() + "}\n";
  const Colossal colossal = framework == "colossal-ai" ? random_colossal(random, devices) : Colossal{};
  text += "training: {micro_batch: " + number(colossal.micro_batch) + ", sequence: 512, precision: bf16, recompute: " +
          random.of(std::array<std::string, 3>{"none", "selective", "full"}) + ", global_batch: " +
          number(megatron || composed || pipelined ? data * micro_batches
                                                   : devices / colossal.tensor * colossal.micro_batch) +
          "}\n";
  text += "strategy:\n  framework: " + framework + "\n";
  if (composed)
    return text + "  tensor: " + number(tensor) + "\n  pipeline: " + number(pipeline) +
           "\n  context: " + number(context) + "\n  overlap_tensor: " + flag() +
           "\n  schedule: " + random.of(std::array<std::string, 3>{"1f1b", "gpipe", "interleaved"}) + "\n";
  if (pipelined)
    return text + "  zero_stage: " + number(random.below(2)) + "\n  tensor: " + number(tensor) +
           "\n  pipeline: " + number(pipeline) + "\n  sequence_parallel: " + flag() + "\n";
  if (framework == "pytorch-fsdp" && random.one_in(2))
    text += "  fsdp_version: 1\n  backward_prefetch: " +
            random.of(std::array<std::string, 3>{"BACKWARD_PRE", "BACKWARD_POST", "none"}) +
            "\n  limit_all_gathers: " + flag() + "\n  forward_prefetch: " + flag() + "\n";
  else if (framework == "pytorch-fsdp" && devices % 2 == 0)
    text += "  shard: " + number(devices / 2) + "\n  cpu_offload: " + flag() + "\n";
  if (framework == "deepspeed")
    text += "  zero_stage: " + number(random.of(std::array<std::int64_t, 5>{0, 1, 2, 3, 3})) +
            "\n  overlap_comm: " + flag() + "\n  stage3_max_reuse_distance: 1e6\n";
  if (framework == "tensorflow")
    text += "  mode: " + random.of(std::array<std::string, 2>{"parameter-server", "multi-worker-mirrored"}) + "\n";
  if (!megatron) return text + colossal.options;
  const bool interleaved = pipeline > 1 && random.one_in(2);
  std::vector<std::string> schedules{"1f1b", "gpipe", "zb-h1", "zb-h2", "zb-v"};
  if (micro_batches >= 2 * pipeline) schedules.emplace_back("dualpipe-v");
  if (micro_batches >= 2 * pipeline && micro_batches % 2 == 0 && pipeline % 2 == 0) schedules.emplace_back("dualpipe");
  text += "  tensor: " + number(tensor) + "\n  pipeline: " + number(pipeline) + "\n";
  text += "  schedule: " +
          (interleaved ? "interleaved" : schedules[static_cast<std::size_t>(random.below(std::ssize(schedules)))]) +
          "\n";
  text += "  sequence_parallel: " + (experts ? "true" : flag()) + "\n  distributed_optimizer: " + flag() +
          "\n  overlap_grad_reduce: " + flag() + "\n  order: " +
          (experts ? "tp-cp-ep-dp-pp"
                   : random.of(std::array<std::string, 4>{"tp-cp-ep-dp-pp", "tp-cp-ep-pp-dp", "pp-dp-tp-cp-ep",
                                                          "dp-tp-pp-cp-ep"})) +
          "\n";
  if (context > 1)
    text += "  context: 2\n  cp_comm_type: " + random.of(std::array<std::string, 3>{"p2p", "p2p", "all_gather"}) + "\n";
  if (!experts) return text;
  std::int64_t expert = random.of(std::array<std::int64_t, 3>{1, 2, 4});
  while (tensor * data * context % expert != 0) expert /= 2;
  const std::int64_t expert_tensor = tensor * data * context % (2 * expert) == 0 && random.one_in(3) ? 2 : 1;
  text += "  expert: " + number(expert) + "\n  expert_tensor: " + number(expert_tensor) +
          "\n  moe_token_dispatcher_type: " + random.of(std::array<std::string, 3>{"alltoall", "allgather", "flex"}) +
          "\n";
  return text;
}

scenarios::Simulation simulated(const scenarios::Scenario& scenario, bool fold, std::uint64_t tie_seed = 0) {
  scenarios::SimulateOptions options{
      .record = true, .fold = fold, .ranks = std::vector<std::int64_t>{}, .per_operation = true, .tie_seed = tie_seed};
  for (std::int64_t rank = 0; rank < std::min<std::int64_t>(240, scenario.devices); ++rank)
    options.ranks->push_back(rank);
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

std::string layers_of(const scenarios::Simulation& simulation) {
  return scenarios::layers_to_csv(scenarios::layer_rows(simulation));
}

TEST(FoldTest, GivesEveryTimestampAndEveryFieldOfTheUnfoldedRun) {
  const scenarios::Catalog catalog;
  const std::uint64_t cases = tests::from_environment("TRAINYARD_FOLD_CASES", 400);
  const std::uint64_t first = tests::from_environment("TRAINYARD_FOLD_SEED", 1);
  std::uint64_t simulated_cases = 0;
  std::uint64_t folded_cases = 0;
  std::uint64_t contended_cases = 0;
  for (std::uint64_t seed = first; seed < first + cases; ++seed) {
    const std::string text = random_scenario(seed);
    SCOPED_TRACE("seed " + std::to_string(seed) + "\n" + text);
    try {
      const scenarios::Scenario scenario =
          scenarios::read_scenario(scenarios::parse_yaml(text, "random.yaml"), catalog);
      const scenarios::Simulation folded = simulated(scenario, true);
      const scenarios::Simulation unfolded = simulated(scenario, false);
      EXPECT_EQ(scenarios::to_json(folded.result), scenarios::to_json(unfolded.result));
      const std::string layers = layers_of(unfolded);
      EXPECT_EQ(layers_of(folded), layers);
      expect_same_records(folded.outcome, unfolded.outcome);
      EXPECT_EQ(unfolded.outcome.rank_classes, static_cast<std::size_t>(scenario.devices));
      if (seed % 2 == 0) {
        const scenarios::Simulation shuffled = simulated(scenario, seed % 4 == 0, seed);
        EXPECT_EQ(scenarios::to_json(shuffled.result), scenarios::to_json(unfolded.result));
        EXPECT_EQ(layers_of(shuffled), layers);
        expect_same_records(shuffled.outcome, unfolded.outcome);
      }
      ++simulated_cases;
      folded_cases += folded.outcome.rank_classes < unfolded.outcome.rank_classes ? 1 : 0;
      contended_cases += folded.outcome.events > 0 ? 1 : 0;
    } catch (const scenarios::ScenarioError& error) {
      ADD_FAILURE() << error.what();
    }
    if (HasFailure()) return;
  }
  // The draw means something only if all scenarios run, many of them fold, and many share links.
  EXPECT_EQ(simulated_cases, cases);
  EXPECT_GT(folded_cases, cases / 4);
  EXPECT_GT(contended_cases, cases / 4);
}

}  // namespace
}  // namespace trainyard
