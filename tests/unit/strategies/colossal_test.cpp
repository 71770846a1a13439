// Colossal-AI's tensor parallelism in one to three dimensions: what ranks receive, against the closed forms of its
// papers.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/support/simulated.hpp"

namespace trainyard {
namespace {

using scenarios::CommunicationSummary;
using scenarios::Result;
using sim::CollectiveKind;
using sim::Purpose;
using tests::expect_bytes;
using tests::row;
using tests::wire;

// Dimensions that squares of 4 and 16 ranks and a cube of 8 divide, in 16 bits, without biases.
constexpr double hidden = 1024;
constexpr double ffn = 4096;
constexpr double vocab = 32768;
constexpr double layers = 2;
constexpr double tokens = 8 * 512;  // of a tensor group
constexpr double norms = 2 * layers + 1;
constexpr double matrices = layers * (4 * hidden * hidden + 3 * hidden * ffn);
const std::string base = R"(name: Colossal-AI
cluster: {node: {base: dgx-h100, collectives: {algorithm: ring}}, nodes: 2}
model: {base: llama, layers: 2, hidden: 1024, ffn_hidden: 4096, heads: 8, kv_heads: 8, head_dim: 128, vocab: 32768}
training: {global_batch: 8, sequence: 512, precision: bf16}
strategy: {framework: colossal-ai}
)";

Result with(std::vector<std::string> settings) { return tests::simulated(base, settings).result; }
Result square(int ranks, std::vector<std::string> more = {}) {
  const std::string number = std::to_string(ranks);
  std::vector<std::string> settings{"cluster.devices=" + number, "strategy.tensor=" + number, "strategy.mode=2d"};
  settings.insert(settings.end(), more.begin(), more.end());
  return with(settings);
}
std::int64_t parameters(const Result& result) {
  return result.memory.parts.at(static_cast<std::size_t>(sim::MemoryPurpose::parameters));
}
double tensor_wire(const Result& result, CollectiveKind kind) { return wire(result, Purpose::tensor, kind); }

// Products of a layer: queries, keys, values, output; gate and up; down. In all of them, M K + K N.
constexpr double inputs_and_weights = layers * tokens * (6 * hidden + ffn) + matrices;
// The head keeps its matrix transposed: M N + K N.
constexpr double head_blocks = tokens * vocab + hidden * vocab;

TEST(ColossalAi, ASquareReceivesTheBlocksOfSumma) {
  for (const auto& [ranks, q] : {std::pair{4, 2.0}, {16, 4.0}}) {
    const Result result = square(ranks);
    const double blocks = 2 * (q - 1) * (inputs_and_weights + head_blocks) / (q * q);
    expect_bytes(tensor_wire(result, CollectiveKind::broadcast), 2 * blocks);
    expect_bytes(tensor_wire(result, CollectiveKind::reduce), blocks);
  }
}

TEST(ColossalAi, ASquareTakesAsManyStepsAsASideHasRanks) {
  constexpr double products = layers * 7 + 1;
  for (const auto& [ranks, q] : {std::pair{4, 2.0}, {16, 4.0}}) {
    const Result result = square(ranks);
    EXPECT_EQ(row(result, Purpose::tensor, CollectiveKind::broadcast).count, 4 * q * products);
    EXPECT_EQ(row(result, Purpose::tensor, CollectiveKind::reduce).count, 2 * q * products);
  }
}

// Rows of the table for all tokens of a column are summed up and scattered; weights of norms come from its ranks.
TEST(ColossalAi, ASquareScattersRowsOfTheTableAndGathersNorms) {
  for (const auto& [ranks, q] : {std::pair{4, 2.0}, {16, 4.0}}) {
    const Result result = square(ranks);
    const double rows = 2 * (q - 1) * tokens * hidden / (q * q);
    const double weights = 2 * (q - 1) * norms * hidden / (q * q);
    expect_bytes(tensor_wire(result, CollectiveKind::reduce_scatter), rows + weights);
    expect_bytes(tensor_wire(result, CollectiveKind::all_gather), rows + weights);
  }
}

// A sum in 32 bits for every token of a norm, forward and backward; three of the loss; one number for the overflow.
double sums(double samples_over, double q, double ranks) {
  const double own = 4 * tokens / samples_over;
  return 2 * (q - 1) / q * (2 * norms + 3) * own + 2 * (ranks - 1) / ranks * 4;
}

TEST(ColossalAi, ASquareSumsUpOverTheWidth) {
  expect_bytes(tensor_wire(square(4), CollectiveKind::all_reduce), sums(2, 2, 4));
}

TEST(ColossalAi, LayersOfSquaresShareTokensAndSumUpGradients) {
  constexpr double q = 2;
  constexpr double d = 2;
  const Result result = with({"cluster.devices=8", "strategy.tensor=8", "strategy.mode=2.5d", "strategy.depth=2"});
  const double of_tokens = layers * tokens * (6 * hidden + ffn) + tokens * vocab;
  const double of_weights = matrices + hidden * vocab;
  const double blocks = 2 * (q - 1) * (of_tokens / d + of_weights) / (q * q);
  // Weights of norms are broadcast down a column, and their gradients reduced.
  const double weights = 2 * (q - 1) / q * norms * hidden / q;
  expect_bytes(tensor_wire(result, CollectiveKind::broadcast), 2 * blocks + weights);
  expect_bytes(tensor_wire(result, CollectiveKind::reduce), blocks + weights);
  const double gradients = 2 * (2 * hidden * vocab / (q * q) + matrices / (q * q) + norms * hidden / q);
  expect_bytes(tensor_wire(result, CollectiveKind::all_reduce), sums(q * d, q, 8) + 2 * (d - 1) / d * gradients);
}

TEST(ColossalAi, ACubeGathersInputsAndWeightsAndScattersOutputs) {
  constexpr double q = 2;
  const Result result = with({"cluster.devices=8", "strategy.tensor=8", "strategy.mode=3d"});
  const double of_layers = inputs_and_weights + layers * tokens * (5 * hidden + 2 * ffn);
  const double of_head = tokens * hidden + hidden * vocab + tokens * vocab;
  const double of_table = vocab * hidden + tokens * hidden;
  const double expected = 2 * (q - 1) * (of_layers + of_head + of_table) / (q * q * q);
  expect_bytes(tensor_wire(result, CollectiveKind::all_gather), expected);
  expect_bytes(tensor_wire(result, CollectiveKind::reduce_scatter), expected);
  EXPECT_EQ(row(result, Purpose::tensor, CollectiveKind::broadcast).count, 0);
  // Gradients of norms are summed up over the ranks with the same columns.
  expect_bytes(tensor_wire(result, CollectiveKind::all_reduce), sums(4, q, 8) + 2 * 3.0 / 4 * norms * 2 * hidden / q);
}

TEST(ColossalAi, ALineReducesAsMegatronDoes) {
  const Result result = with({"cluster.devices=4", "strategy.tensor=4", "strategy.plugin=engine"});
  // Attention and feed-forward block, forward and backward; the embedding, and the head's input gradient.
  const double hidden_states = (4 * layers + 2) * tokens * hidden * 2;
  expect_bytes(tensor_wire(result, CollectiveKind::all_reduce), 2 * 3.0 / 4 * (hidden_states + 3 * 4 * tokens + 4));
}

TEST(ColossalAi, MatricesAreDividedOverAllRanksButThoseOfLayersOfSquares) {
  const double all = matrices + 2 * vocab * hidden;
  EXPECT_EQ(parameters(square(4)), 2 * (all / 4 + norms * hidden / 4));
  EXPECT_EQ(parameters(square(16)), 2 * (all / 16 + norms * hidden / 16));
  const Result layered = with({"cluster.devices=8", "strategy.tensor=8", "strategy.mode=2.5d", "strategy.depth=2"});
  EXPECT_EQ(parameters(layered), 2 * (all / 4 + norms * hidden / 2));
  const Result cube = with({"cluster.devices=8", "strategy.tensor=8", "strategy.mode=3d"});
  EXPECT_EQ(parameters(cube), 2 * (all / 8 + norms * hidden / 2));
}

TEST(ColossalAi, ReplicasReduceTheirGradientsInOnePiece) {
  const Result result = with({"cluster.devices=8", "strategy.tensor=4", "strategy.mode=2d"});
  const CommunicationSummary reduced = row(result, Purpose::data, CollectiveKind::all_reduce);
  EXPECT_EQ(reduced.count, 1);
  EXPECT_EQ(reduced.bytes, 2 * (matrices + 2 * vocab * hidden + norms * hidden) / 4);
  EXPECT_NEAR(reduced.exposed_s, reduced.busy_s, 1e-6 * reduced.busy_s);
}

TEST(ColossalAi, BroadcastsOfLaterStepsHideBehindProducts) {
  const std::vector<std::string> large{"training.sequence=4096", "model.hidden=4096", "model.ffn_hidden=16384",
                                       "model.heads=32", "model.kv_heads=32"};
  const CommunicationSummary moved = row(square(4, large), Purpose::tensor, CollectiveKind::broadcast);
  EXPECT_GT(moved.exposed_s, 0);
  EXPECT_LT(moved.exposed_s, 0.6 * moved.busy_s);
}

TEST(ColossalAi, RecomputationCommunicatesAgain) {
  const double once = tensor_wire(square(4), CollectiveKind::broadcast);
  const double again = tensor_wire(square(4, {"training.recompute=full"}), CollectiveKind::broadcast);
  expect_bytes(again, once + 2 * inputs_and_weights / 4);
}

// LowLevelZero on eight ranks, which all sizes of tensors divide.
Result divided(std::vector<std::string> settings) {
  settings.insert(settings.begin(), {"cluster.devices=8", "strategy.plugin=low-level-zero"});
  return with(settings);
}
constexpr double everything = matrices + 2 * vocab * hidden + norms * hidden;

TEST(ColossalAi, ZeroReducesBucketsAndGathersEveryParameter) {
  const Result first = divided({});
  const CommunicationSummary reduced = row(first, Purpose::data, CollectiveKind::all_reduce);
  EXPECT_EQ(reduced.bytes, 2 * everything + 4);
  const CommunicationSummary gathered = row(first, Purpose::data, CollectiveKind::all_gather);
  EXPECT_EQ(gathered.bytes, 2 * everything);
  EXPECT_EQ(gathered.count, layers * 9 + 3);
  EXPECT_NEAR(gathered.exposed_s, gathered.busy_s, 1e-6 * gathered.busy_s);
  const Result second = divided({"strategy.zero_stage=2"});
  EXPECT_EQ(row(second, Purpose::data, CollectiveKind::reduce_scatter).bytes, 2 * everything);
  EXPECT_EQ(row(second, Purpose::data, CollectiveKind::reduce_scatter).count, reduced.count - 1);
}

// A bucket has 12 x 2^20 elements, as three matrices of a feed-forward block: the head; the last norm with two of them;
// the third with the second layer's attention; three of the first layer; its attention; the table. And the norm's sum.
TEST(ColossalAi, ABucketIsReducedBeforeAGradientWouldOverfillIt) {
  EXPECT_EQ(row(divided({}), Purpose::data, CollectiveKind::all_reduce).count, 6 + 1);
  EXPECT_EQ(row(divided({"strategy.reduce_bucket_size_in_m=1000"}), Purpose::data, CollectiveKind::all_reduce).count,
            1 + 1);
}

TEST(ColossalAi, ZeroDividesOptimizerStateAndGradients) {
  const auto part = [](const Result& result, sim::MemoryPurpose purpose) {
    return result.memory.parts.at(static_cast<std::size_t>(purpose));
  };
  EXPECT_EQ(part(divided({}), sim::MemoryPurpose::optimizer), 12 * everything / 8);
  EXPECT_LT(part(divided({"strategy.zero_stage=2"}), sim::MemoryPurpose::gradients),
            part(divided({}), sim::MemoryPurpose::gradients));
}

TEST(ColossalAi, ZeroReducesOnceOrInStageTwoForEveryMicroBatch) {
  const std::vector<std::string> twice{"training.global_batch=16", "training.micro_batch=1"};
  const auto bytes = [&](CollectiveKind kind, const std::string& more) {
    return row(divided({twice[0], twice[1], more}), Purpose::data, kind).bytes;
  };
  EXPECT_EQ(bytes(CollectiveKind::all_reduce, "strategy.zero_stage=1"), 2 * everything + 4);
  EXPECT_EQ(bytes(CollectiveKind::all_reduce, "strategy.no_sync=false"), 2 * 2 * everything + 4);
  EXPECT_EQ(bytes(CollectiveKind::reduce_scatter, "strategy.zero_stage=2"), 2 * 2 * everything);
}

TEST(ColossalAi, ZeroWithoutOverlapReducesBehindTheBackwardPass) {
  const CommunicationSummary reduced =
      row(divided({"strategy.overlap_communication=false"}), Purpose::data, CollectiveKind::all_reduce);
  EXPECT_NEAR(reduced.exposed_s, reduced.busy_s, 1e-6 * reduced.busy_s);
  const CommunicationSummary overlapped = row(divided({}), Purpose::data, CollectiveKind::all_reduce);
  EXPECT_LT(overlapped.exposed_s, overlapped.busy_s);
}

TEST(ColossalAi, HybridParallelDividesStateBesideTensorParallelism) {
  const Result result =
      with({"cluster.devices=8", "strategy.plugin=hybrid-parallel", "strategy.zero_stage=1", "strategy.tensor=2"});
  EXPECT_EQ(result.parallelism.data, 4);
  const double own = (matrices + 2 * vocab * hidden) / 2 + norms * hidden;
  EXPECT_EQ(row(result, Purpose::data, CollectiveKind::all_gather).bytes, 2 * own);
}

TEST(ColossalAi, SizesThatMakeNoSquareOrCubeAreRefusedWithTheNearest) {
  const auto refusal = [](std::vector<std::string> settings) { return tests::refusal(base, settings); };
  EXPECT_NE(refusal({"strategy.mode=2d", "strategy.tensor=8"}).find("nearest that is, and divides the devices, is 4"),
            std::string::npos);
  EXPECT_NE(refusal({"strategy.mode=3d", "strategy.tensor=4"}).find("is 8"), std::string::npos);
  EXPECT_NE(refusal({"strategy.mode=3d", "strategy.tensor=4", "cluster.devices=4"}).find("use mode '1d'"),
            std::string::npos);
  EXPECT_NE(refusal({"strategy.mode=2.5d", "strategy.tensor=12", "strategy.depth=2"}).find("is 8"), std::string::npos);
  EXPECT_NE(refusal({"strategy.mode=2.5d", "strategy.tensor=8"}).find("strategy.depth"), std::string::npos);
  EXPECT_NE(refusal({"strategy.mode=2.5d", "strategy.tensor=2", "strategy.depth=2"}).find("is 8"), std::string::npos);
  EXPECT_NE(refusal({"strategy.mode=2d"}).find("one rank along a side"), std::string::npos);
  EXPECT_NE(refusal({"strategy.depth=2"}).find("belongs to mode '2.5d'"), std::string::npos);
}

TEST(ColossalAi, WhatItDoesNotHaveIsRefused) {
  const auto refusal = [](std::vector<std::string> settings) { return tests::refusal(base, settings); };
  EXPECT_NE(refusal({"strategy.pipeline=2"}).find("not supported yet"), std::string::npos);
  EXPECT_NE(refusal({"strategy.plugin=torch-ddp"}).find("pytorch-ddp"), std::string::npos);
  EXPECT_NE(refusal({"strategy.plugin=hybrid-parallel"}).find("strategy.zero_stage"), std::string::npos);
  EXPECT_NE(refusal({"strategy.plugin=low-level-zero", "strategy.tensor=2"}).find("hybrid-parallel"),
            std::string::npos);
  const std::vector<std::string> square_of_four{"strategy.mode=2d", "strategy.tensor=4"};
  const auto refused = [&](std::vector<std::string> more) {
    more.insert(more.begin(), square_of_four.begin(), square_of_four.end());
    return refusal(more);
  };
  EXPECT_EQ(refused({}), "");
  EXPECT_NE(refused({"strategy.plugin=gemini"}).find("one dimension only"), std::string::npos);
  EXPECT_NE(refused({"training.micro_batch=1"}).find("the nearest is 2"), std::string::npos);
  EXPECT_NE(refused({"model=mixtral-8x7b"}).find("dense decoders"), std::string::npos);
  EXPECT_NE(refused({"model.ffn_hidden=4097"}).find("the feed-forward width"), std::string::npos);
}

}  // namespace
}  // namespace trainyard
