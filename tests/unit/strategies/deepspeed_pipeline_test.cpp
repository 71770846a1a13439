// DeepSpeed's pipeline engine: what stages send each other and when, what they reduce, where they are cut.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <variant>
#include <vector>

#include "strategies/internal/deepspeed_partition.hpp"
#include "tests/support/deepspeed.hpp"

namespace trainyard {
namespace {

using scenarios::CommunicationSummary;
using scenarios::Result;
using sim::CollectiveKind;
using sim::Purpose;
using tests::expect_bytes;
using tests::row;
using tests::deepspeed::all;

using Settings = std::vector<std::string>;

constexpr double hidden = 4096;
constexpr double activations = 1024 * hidden * 2;
constexpr double matrix = 128256 * hidden;  // of the embedding, and of the head

// Micro-batches of one sequence of Llama 3 8B on eight ranks.
Result with(Settings settings) {
  settings.insert(settings.begin(), "training.micro_batch=1");
  return tests::deepspeed::simulated(settings).result;
}

TEST(DeepspeedPipeline, SendsEveryMicroBatchForwardAndItsGradientBackBetweenStages) {
  for (const double p : {2.0, 4.0, 8.0}) {
    const Result result = with({"strategy.pipeline=" + std::to_string(static_cast<int>(p))});
    const double m = 16 * p / 8;
    EXPECT_EQ(result.micro_batches, m);
    // Of p stages, p - 1 send forward and as many back.
    const CommunicationSummary sent = row(result, Purpose::pipeline, CollectiveKind::send);
    EXPECT_EQ(sent.count, 2 * m * (p - 1) / p);
    EXPECT_EQ(sent.wire_bytes, 2 * m * (p - 1) / p * activations);
    EXPECT_EQ(row(result, Purpose::pipeline, CollectiveKind::receive).count, sent.count);
    EXPECT_EQ(row(result, Purpose::pipeline, CollectiveKind::all_gather).count, 0);
  }
}

TEST(DeepspeedPipeline, TensorParallelRanksSendPiecesThatTheReceiversGather) {
  const double m = 8;
  const double links = 1.0 / 2;  // of two stages, one sends forward and one back
  const auto sent = [](const Result& result) { return row(result, Purpose::pipeline, CollectiveKind::send).bytes; };
  const auto gathered = [](const Result& result) {
    return row(result, Purpose::pipeline, CollectiveKind::all_gather).bytes;
  };
  const Settings both{"strategy.tensor=2", "strategy.pipeline=2"};
  const auto also = [&](const std::string& setting) {
    Settings settings = both;
    settings.push_back(setting);
    return with(settings);
  };
  // Activations for the forward pass, and again, with the gradient, for the backward one.
  EXPECT_EQ(sent(with(both)), links * m * (1.0 / 2 + 1.0 / 2) * activations);
  EXPECT_EQ(gathered(with(both)), links * m * 3 * activations);
  const Result whole_gradients = also("strategy.grad_partitioned=false");
  EXPECT_EQ(sent(whole_gradients), links * m * (1.0 / 2 + 1) * activations);
  EXPECT_EQ(gathered(whole_gradients), links * m * 2 * activations);
  const Result whole_activations = also("strategy.pipe_partitioned=false");
  EXPECT_EQ(sent(whole_activations), links * m * (1 + 1.0 / 2) * activations);
  EXPECT_EQ(gathered(whole_activations), links * m * 1 * activations);
  // Ranks that have parts of the sequence send those.
  EXPECT_EQ(sent(also("strategy.sequence_parallel=true")), links * m * (1.0 / 2 + 1.0 / 2) * activations);
}

// The layers of Llama 3 8B cut in two, with an embedding and a head of the same size at the ends.
TEST(DeepspeedPipeline, ReducesTheGradientsOfItsStageOnce) {
  const double part = all / 2;  // on average
  const auto wire = [](const Result& result, CollectiveKind kind) { return tests::wire(result, Purpose::data, kind); };
  for (const char* stage : {"strategy.zero_stage=0", "strategy.zero_stage=1"}) {
    const Result result = with({stage, "strategy.pipeline=2", "strategy.partition_method=uniform"});
    expect_bytes(wire(result, CollectiveKind::all_reduce), 2 * 3.0 / 4 * 2 * part);
    expect_bytes(wire(result, CollectiveKind::all_gather), 3.0 / 4 * 2 * part);
  }
  const Result plain =
      with({"strategy.zero_stage=0", "strategy.pipeline=2", "training.precision=fp16", "training.micro_batch=2"});
  expect_bytes(wire(plain, CollectiveKind::all_reduce), 2 * 3.0 / 4 * 2 * part);
  EXPECT_EQ(wire(plain, CollectiveKind::all_gather), 0);
}

TEST(DeepspeedPipeline, SumsUpTheSharedEmbeddingBetweenItsEnds) {
  const auto reduced = [](const std::string& tied, const std::string& precision) {
    const Result result = with({"strategy.pipeline=4", "model={base: llama3-8b, tied_embeddings: " + tied + "}",
                                "training.precision=" + precision});
    return row(result, Purpose::pipeline, CollectiveKind::all_reduce).bytes;
  };
  // On two of four stages: in bf16 in the 32 bits of BF16_Optimizer, in fp16 as they are.
  EXPECT_EQ(reduced("true", "bf16") - reduced("false", "bf16"), 2.0 / 4 * 4 * matrix);
  EXPECT_EQ(reduced("true", "fp16") - reduced("false", "fp16"), 2.0 / 4 * 2 * matrix);
}

// 16 layers alike and nearly nothing at the ends, on a network that is no obstacle.
Result of_equal_stages(const std::string& stages, const std::string& micro_batches) {
  return tests::simulated(
             R"(name: bubble
cluster: {node: dgx-h100, nodes: 1}
model: {base: gpt, layers: 16, hidden: 4096, heads: 32, vocab: 1000}
training: {global_batch: 8, micro_batch: 1, sequence: 2048, precision: bf16}
strategy: {framework: deepspeed, pipeline: 8, partition_method: "type:transformer"}
)",
             {"strategy.pipeline=" + stages, "cluster.devices=" + stages, "training.global_batch=" + micro_batches})
      .result;
}

TEST(DeepspeedPipeline, LeavesABubbleOfStagesLessOneOverMicroBatches) {
  constexpr std::size_t bubble = sim::kernel_classes + sim::purposes;  // behind what is exposed
  const auto passes = [](const Result& result) {
    return result.breakdown_s.at(0) + result.breakdown_s.at(1) + result.breakdown_s.at(2);
  };
  for (const char* stages : {"2", "4", "8"})
    for (const char* micro_batches : {"8", "16", "32"}) {
      const Result result = of_equal_stages(stages, micro_batches);
      const double share = (std::stod(stages) - 1) / std::stod(micro_batches);
      EXPECT_NEAR(result.breakdown_s.at(bubble) / passes(result) / share, 1, 0.06) << stages << " " << micro_batches;
    }
}

// Fewer micro-batches than stages: a stage sends on at once what its neighbour needs before there is a gradient.
TEST(DeepspeedPipeline, RunsWithAnyNumberOfMicroBatches) {
  double last = 0;
  for (int m = 1; m <= 10; ++m) {
    const double now = of_equal_stages("8", std::to_string(m)).step_time_s;
    EXPECT_GT(now, last);
    last = now;
  }
}

// What a stage does between its passes, with its neighbours.
std::vector<std::string> exchanges(std::size_t stage) {
  const sim::Plan plan = tests::deepspeed::simulated({"training.micro_batch=1", "strategy.pipeline=4"}).plan;
  std::vector<std::string> names;
  for (const sim::BlockCall& call : plan.programs[plan.programs.id(stage)].calls)
    for (const sim::Op& op : plan.blocks[call.block].ops)
      if (const auto* communicate = std::get_if<sim::Communicate>(&op.work))
        if (const sim::Call& made = plan.calls[communicate->call];
            made.kind == CollectiveKind::send || made.kind == CollectiveKind::receive)
          names.push_back(plan.slots[made.slot]);
  return names;
}

TEST(DeepspeedPipeline, ExchangesTheGradientFirstInEachStep) {
  const std::string in = "previous stage";
  const std::string out = "next stage";
  const std::string back = "gradient to previous stage";
  const std::string from = "gradient from next stage";
  std::vector<std::string> second = exchanges(1);
  ASSERT_EQ(second.size(), 4U * 8);
  second.resize(14);
  // Warm-up of two; then forward, backward, forward, ...: in a backward step it has to do with the next stage, in a
  // forward one with the previous.
  EXPECT_EQ(second, (std::vector<std::string>{in, out, in, out, in, from, out, back, in, from, out, back, in, from}));
  const std::vector<std::string> last = exchanges(3);
  EXPECT_EQ(last[0], in);
  EXPECT_EQ(last[1], back);
}

TEST(DeepspeedPipeline, NamesItsStagesInPrograms) {
  const sim::Plan plan = tests::deepspeed::simulated({"training.micro_batch=1", "strategy.pipeline=4"}).plan;
  ASSERT_EQ(plan.programs.size(), 4U);
  EXPECT_EQ(plan.programs[sim::ProgramId{3}].name, "stage 3");
}

using Bounds = std::vector<std::int64_t>;

// activation_checkpoint_interval. Inputs of every fourth layer stay; what layers run again is the same.
TEST(DeepspeedPipeline, GroupsOfLayersKeepOneInput) {
  const auto run = [](const std::string& recompute) {
    return tests::deepspeed::simulated({"training.micro_batch=1", "strategy.pipeline=2",
                                        "training.recompute=" + recompute,
                                        "strategy.partition_method='type:transformer'"});
  };
  const scenarios::Simulation one = run("full");
  const scenarios::Simulation four = run("{every: 4}");
  EXPECT_EQ(one.result.hardware_tflops_per_device * one.result.step_time_s,
            four.result.hardware_tflops_per_device * four.result.step_time_s);
  // What 16 layers of the last stage keep between the passes of a micro-batch, in all and at once.
  const auto kept = [](const scenarios::Simulation& simulation) {
    const sim::Plan& plan = simulation.plan;
    double now = 0;
    double most = 0;
    for (const sim::BlockCall& call : plan.programs[sim::ProgramId{1}].calls) {
      if (call.layer < 0 || call.micro_batch > 0 || !plan.blocks[call.block].name.starts_with("forward")) continue;
      for (const sim::Op& op : plan.blocks[call.block].ops)
        if (const auto* memory = std::get_if<sim::Memory>(&op.work)) now += static_cast<double>(memory->change.count);
      most = std::max(most, now);
    }
    return most;
  };
  EXPECT_EQ(kept(one), 16 * activations);
  EXPECT_EQ(kept(four), 4 * activations);
  // All that was allocated is freed.
  for (std::size_t stage = 0; stage < 2; ++stage) {
    std::int64_t left = 0;
    for (const sim::BlockCall& call : four.plan.programs[four.plan.programs.id(stage)].calls)
      for (const sim::Op& op : four.plan.blocks[call.block].ops)
        if (const auto* memory = std::get_if<sim::Memory>(&op.work)) left += memory->change.count;
    EXPECT_EQ(left, 0);
  }
}

TEST(DeepspeedPartition, UniformGivesWhatIsLeftOverToTheFirst) {
  EXPECT_EQ(strategies::partition_uniform(10, 4), (Bounds{0, 3, 6, 8, 10}));
  EXPECT_EQ(strategies::partition_uniform(8, 4), (Bounds{0, 2, 4, 6, 8}));
  EXPECT_EQ(strategies::partition_uniform(2, 3), (Bounds{0, 1, 2, 2}));
}

TEST(DeepspeedPartition, BalancedMakesTheRunsAlike) {
  EXPECT_EQ(strategies::partition_balanced({1, 1, 1, 1, 1, 1}, 3), (Bounds{0, 2, 4, 6}));
  EXPECT_EQ(strategies::partition_balanced({3, 1, 1, 1, 3}, 3), (Bounds{0, 1, 4, 5}));
  EXPECT_EQ(strategies::partition_balanced({5, 1, 1, 1, 1}, 2), (Bounds{0, 1, 5}));
}

// BLOOM: 70 layers and the embedding at both ends on 12 stages.
TEST(DeepspeedPartition, ByTypeCountsWhatTheExpressionIsFoundIn) {
  const std::vector<strategies::PipelineItem> items = strategies::pipeline_items(70, true);
  Bounds sixes;
  for (std::int64_t i = 0; i <= 12; ++i) sixes.push_back(6 * i);
  EXPECT_EQ(strategies::partition_items("type:transformer|embedding", items, 12), sixes);
  const Bounds layers_alone = strategies::partition_items("type:TRANSFORMER", strategies::pipeline_items(8, false), 4);
  // Two layers each; the ends' embedding and head count nothing.
  EXPECT_EQ(layers_alone[1], 3);
  EXPECT_EQ(layers_alone[2], 5);
  EXPECT_EQ(layers_alone[3], 7);
}

TEST(DeepspeedPartition, ParametersBalanceWhatIsTrained) {
  std::vector<strategies::PipelineItem> items = strategies::pipeline_items(4, false);
  for (strategies::PipelineItem& item : items) item.trained = 10;
  items.front().trained = items.back().trained = 30;
  EXPECT_EQ(strategies::partition_items("parameters", items, 2), (Bounds{0, 3, 6}));
  EXPECT_EQ(strategies::partition_items("parameters", items, 4), (Bounds{0, 1, 3, 5, 6}));
}

}  // namespace
}  // namespace trainyard
