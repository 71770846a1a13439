// DeepSpeed with layers and sequences that ranks share: Megatron-DeepSpeed's tensor parallelism, Ulysses; what cannot
// be together.
#include <gtest/gtest.h>

#include <string>
#include <vector>

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
using tests::deepspeed::ring;

using Settings = std::vector<std::string>;

constexpr double layers = 32;
constexpr double hidden = 4096;
constexpr double tokens = 1024;  // of a micro-batch
constexpr double activations = tokens * hidden * 2;
constexpr double norms = 65 * hidden;

// Micro-batches of one sequence of Llama 3 8B on eight ranks.
Result with(Settings settings) {
  settings.insert(settings.begin(), "training.micro_batch=1");
  return tests::deepspeed::simulated(settings).result;
}

// What one of two ranks has of the model. Megatron-DeepSpeed pads the vocabulary to a multiple of 128 x tensor.
constexpr double half_of(double parameters) { return (parameters - norms) / 2 + norms; }

TEST(DeepspeedTensor, ReducesActivationsForwardAndBackward) {
  for (const char* stage : {"strategy.zero_stage=1", "strategy.zero_stage=3"}) {
    const Result result = with({stage, "strategy.tensor=2"});
    EXPECT_EQ(result.parallelism.tensor, 2);
    EXPECT_EQ(result.parallelism.data, 4);
    const double m = 4;
    const CommunicationSummary reduced = row(result, Purpose::tensor, CollectiveKind::all_reduce);
    // Two in each layer either way, that of the embedding's rows and the head's gradient, three of the loss; the norm.
    EXPECT_EQ(reduced.count, m * (4 * layers + 2 + 3) + 1) << stage;
    EXPECT_EQ(reduced.bytes, m * ((4 * layers + 2) * activations + 3 * tokens * 4) + 4);
    EXPECT_EQ(row(result, Purpose::tensor, CollectiveKind::all_gather).count, 0);
  }
}

TEST(DeepspeedTensor, DividesTheSequenceBetweenProducts) {
  for (const char* stage : {"strategy.zero_stage=1", "strategy.zero_stage=3"}) {
    const Result result = with({stage, "strategy.tensor=2", "strategy.sequence_parallel=true"});
    const double m = 4;
    // Two gathers forward; backward two of gradients and two of inputs again. The head's input twice, the gradient of
    // the embedding's rows.
    EXPECT_EQ(row(result, Purpose::tensor, CollectiveKind::all_gather).bytes, m * (6 * layers + 3) * activations);
    EXPECT_EQ(row(result, Purpose::tensor, CollectiveKind::reduce_scatter).bytes, m * (4 * layers + 2) * activations);
  }
}

TEST(DeepspeedTensor, ReducesGradientsOfWhatARankHasOverTheDataParallelOnes) {
  constexpr double among_four = 3.0 / 4;
  for (const char* stage : {"strategy.zero_stage=1", "strategy.zero_stage=2", "strategy.zero_stage=3"}) {
    const Result result = with({stage, "strategy.tensor=2", "training.global_batch=4"});
    const auto wire = [&](CollectiveKind kind) { return tests::wire(result, Purpose::data, kind); };
    const double part = half_of(all);
    if (std::string(stage).back() == '3') {
      expect_bytes(wire(CollectiveKind::reduce_scatter), among_four * 2 * part);
      expect_bytes(wire(CollectiveKind::all_gather), 2 * among_four * 2 * part);
    } else {
      expect_bytes(wire(CollectiveKind::all_reduce), 2 * among_four * 2 * part);
      expect_bytes(wire(CollectiveKind::all_gather), among_four * 2 * part);
    }
  }
}

// Small parameters of stage 3 are those of a rank: norms are whole on each.
TEST(DeepspeedTensor, KeepsNormsOnEveryRankOfStageThree) {
  const Result result = with({"strategy.zero_stage=3", "strategy.tensor=2", "training.global_batch=4",
                              "strategy.stage3_param_persistence_threshold=100000"});
  expect_bytes(tests::wire(result, Purpose::data, CollectiveKind::all_gather),
               3.0 / 4 * 2 * (2 * (half_of(all) - norms) + norms));
}

TEST(DeepspeedUlysses, ChangesFromTokensToHeadsAndBackAroundAttention) {
  for (const double c : {2.0, 4.0, 8.0})
    for (const char* stage : {"strategy.zero_stage=1", "strategy.zero_stage=3"}) {
      const Result result = with({stage, "strategy.context=" + std::to_string(static_cast<int>(c))});
      const double m = 16 * c / 8;
      EXPECT_EQ(result.micro_batches, m);
      const CommunicationSummary exchanged = row(result, Purpose::context, CollectiveKind::all_to_all);
      // Queries and outputs of 32 heads, keys and values of 8, forward and backward.
      EXPECT_EQ(exchanged.count, m * layers * 8);
      EXPECT_EQ(exchanged.bytes, m * layers * 2 * (2 + 2.0 / 4) * activations / c);
      expect_bytes(exchanged.wire_bytes, (c - 1) / c * m * layers * 2 * (2 + 2.0 / 4) * activations / c);
    }
}

TEST(DeepspeedUlysses, DividesStateOverDataAndSequence) {
  const Result first = with({"strategy.zero_stage=1", "strategy.context=4"});
  expect_bytes(tests::wire(first, Purpose::data, CollectiveKind::all_reduce), 2 * ring * 2 * all);
  expect_bytes(tests::wire(first, Purpose::data, CollectiveKind::all_gather), ring * 2 * all);
  const Result third = with({"strategy.zero_stage=3", "strategy.context=4", "training.global_batch=2"});
  expect_bytes(tests::wire(third, Purpose::data, CollectiveKind::all_gather), 2 * ring * 2 * all);
  expect_bytes(tests::wire(third, Purpose::data, CollectiveKind::reduce_scatter), ring * 2 * all);
}

TEST(DeepspeedParallelChecks, NameWhatCannotBeTogether) {
  const auto expect = [](const Settings& settings, const std::string& part) {
    const std::string refusal = tests::refusal(tests::deepspeed::one_node, settings);
    EXPECT_NE(refusal.find(part), std::string::npos) << refusal;
  };
  for (const char* stage : {"strategy.zero_stage=2", "strategy.zero_stage=3"})
    expect({"strategy.pipeline=2", stage},
           "strategy.zero_stage: ZeRO-2 and ZeRO-3 are incompatible with pipeline "
           "parallelism; use 1");
  expect({"strategy.context=2", "strategy.tensor=2"}, "strategy.context: DeepSpeed's sequence parallelism");
  expect({"strategy.context=2", "strategy.pipeline=2"}, "strategy.context: DeepSpeed's sequence parallelism");
  expect({"strategy.context=16", "cluster.nodes=2", "training.micro_batch=1"}, "the key-value heads (8)");
  expect({"strategy.tensor=3"}, "does not divide the attention heads (32); the nearest that does is 2");
  expect({"strategy.pipeline=3"}, "does not divide the 8 devices; the nearest product that does is 2");
  expect({"strategy.pipeline=2", "strategy.partition_method=profile"}, "strategy.partition_method: expected");
  expect({"strategy.pipeline=2", "strategy.partition_method='type:['"}, "is not a regular expression");
  expect({"strategy.pipeline=2", "strategy.partition_method='type:conv'"}, "there are EmbeddingPipe");
  expect(
      {"strategy.pipeline=2", "strategy.tensor=2", "strategy.sequence_parallel=true", "strategy.pipe_partitioned=true"},
      "strategy.pipe_partitioned: with sequence_parallel");
  expect({"strategy.tensor=2", "model=mixtral-8x7b"}, "tensor parallelism beside experts");
  expect({"strategy.tensor=2", "strategy.zero_stage=3", "strategy.zero_hpz_partition_size=2"},
         "strategy.zero_hpz_partition_size: is among neighbouring ranks");
  expect({"training.recompute={every: 4}"},
         "training.recompute: deepspeed without a pipeline recomputes layer by layer");
  expect({"training.recompute={every: 40}", "strategy.pipeline=2"}, "more than the model's 32");
  expect({"strategy.pipeline=8", "model={base: llama3-8b, layers: 4}"}, "stages are more than embedding");
}

TEST(DeepspeedParallelChecks, WarnOfWhatThePipelineEngineTurnsOff) {
  const auto warned = [](const Settings& settings, const std::string& part) {
    for (const std::string& warning : with(settings).warnings)
      if (warning.find(part) != std::string::npos) return true;
    return false;
  };
  const Settings overlapped{"strategy.pipeline=2", "strategy.zero_stage=1", "strategy.overlap_comm=true"};
  EXPECT_TRUE(warned(overlapped, "overlap_comm has no effect"));
  EXPECT_EQ(with(overlapped).step_time_s, with({"strategy.pipeline=2", "strategy.zero_stage=1"}).step_time_s);
  EXPECT_TRUE(warned({"strategy.partition_method=uniform"}, "partition_method has no effect"));
  EXPECT_TRUE(warned({"strategy.sequence_parallel=true"}, "sequence_parallel has no effect"));
  EXPECT_TRUE(warned({"strategy.pipeline=2", "strategy.pipe_partitioned=false"}, "pipe_partitioned has no effect"));
}

}  // namespace
}  // namespace trainyard
