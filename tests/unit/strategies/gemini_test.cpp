// Gemini: how parameters are packed into chunks, where chunks are, and what they put on the wire.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "strategies/internal/gemini_chunks.hpp"
#include "tests/support/simulated.hpp"

namespace trainyard::strategies {
namespace {

using scenarios::Result;
using sim::Bytes;
using sim::CollectiveKind;
using sim::Purpose;
using tests::expect_bytes;
using tests::row;
using Kind = ChunkAction::Kind;

TEST(GeminiChunks, TheSizeWithTheLeastWasteIsTaken) {
  const std::vector<std::int64_t> tensors{6, 4, 5, 3};
  const ChunkLayout layout = lay_out_chunks(tensors, {.range = 4, .interval = 2, .smallest = 8, .ranks = 2});
  EXPECT_EQ(layout.size, 10);  // 8 and 12 would waste 6
  EXPECT_EQ(layout.waste, 2);
  EXPECT_EQ(layout.chunk_of, (std::vector<std::uint32_t>{0, 0, 1, 1}));
  EXPECT_EQ(layout.elements(), 20);
}

TEST(GeminiChunks, OfSizesThatWasteAlikeTheSmallestIsTaken) {
  const std::vector<std::int64_t> tensors{4, 4, 4, 4};
  const ChunkLayout layout = lay_out_chunks(tensors, {.range = 12, .interval = 4, .smallest = 4, .ranks = 1});
  EXPECT_EQ(layout.size, 4);
  EXPECT_EQ(layout.waste, 0);
}

TEST(GeminiChunks, ATensorFarLargerThanOthersHasAChunkOfItsOwn) {
  std::vector<std::int64_t> tensors(100, 10);
  tensors[50] = 1000;
  const ChunkLayout layout = lay_out_chunks(tensors, {.range = 0, .interval = 1, .smallest = 40, .ranks = 3});
  EXPECT_EQ(layout.size, 42);  // a multiple of the ranks
  EXPECT_EQ(layout.chunks[layout.chunk_of[50]], 1002);
  EXPECT_NE(layout.chunk_of[49], layout.chunk_of[50]);
  EXPECT_NE(layout.chunk_of[51], layout.chunk_of[50]);
}

TEST(GeminiChunks, FewParametersAreOneChunkThatStaysGathered) {
  const std::vector<std::int64_t> tensors{3, 4};
  const ChunkLayout layout = lay_out_chunks(tensors, {.range = 8, .interval = 1, .smallest = 8, .ranks = 4});
  EXPECT_TRUE(layout.keep_gathered);
  EXPECT_EQ(layout.chunks, (std::vector<std::int64_t>{8}));
}

// Three chunks of ten elements, used one after the other forward and in reverse backward.
class GeminiSchedule : public testing::Test {
 protected:
  GeminiSchedule() {
    layout_.size = 10;
    layout_.chunks = {10, 10, 10};
    for (const std::uint32_t chunk : {0, 1, 2}) uses_.push_back({.chunks = {chunk}});
    for (const std::uint32_t chunk : {2, 1, 0})
      uses_.push_back({.chunks = {chunk}, .backward = true, .completes = {chunk}});
  }
  static ChunkPolicy policy() { return {.ranks = 2, .element = 1, .on_host = {false, false, false}}; }
  using Actions = std::vector<std::vector<ChunkAction>>;
  ChunkLayout layout_;
  std::vector<ChunkUse> uses_;
};

TEST_F(GeminiSchedule, ChunksAreReleasedWhenTheNextOneIsNeeded) {
  const Actions expected{{{Kind::gather, 0}},
                         {{Kind::release, 0}, {Kind::gather, 1}},
                         {{Kind::release, 1}, {Kind::gather, 2}},
                         {},
                         {{Kind::gather, 1}},
                         {{Kind::gather, 0}}};
  EXPECT_EQ(schedule_chunks(layout_, uses_, policy()), expected);
}

TEST_F(GeminiSchedule, WithoutShardingTheyStayForBackward) {
  ChunkPolicy all = policy();
  all.gathered_share = 1;
  const Actions expected{{{Kind::gather, 0}}, {{Kind::gather, 1}}, {{Kind::gather, 2}}, {}, {}, {}};
  EXPECT_EQ(schedule_chunks(layout_, uses_, all), expected);
}

TEST_F(GeminiSchedule, PrefetchedChunksAreAwaitedWhenTheyAreUsed) {
  ChunkPolicy ahead = policy();
  ahead.max_prefetch = 1;
  const Actions expected{{{Kind::gather, 0}, {Kind::prefetch, 1}},
                         {{Kind::arrive, 1}, {Kind::release, 0}, {Kind::prefetch, 2}},
                         {{Kind::arrive, 2}, {Kind::release, 1}, {Kind::prefetch, 1}},
                         {},  // the one on its way is as many as there may be
                         {{Kind::arrive, 1}, {Kind::prefetch, 0}},
                         {{Kind::arrive, 0}}};
  EXPECT_EQ(schedule_chunks(layout_, uses_, ahead), expected);
}

TEST_F(GeminiSchedule, WhatIsUsedFurthestAheadLeavesTheDeviceFirst) {
  ChunkPolicy automatic = policy();
  automatic.automatic = true;
  automatic.on_host = {true, true, true};
  automatic.room = Bytes{25};  // two chunks and a half
  const Actions expected{{{Kind::from_host, 0}, {Kind::gather, 0}},
                         {{Kind::from_host, 1}, {Kind::gather, 1}},
                         {{Kind::release, 0}, {Kind::to_host, 0}, {Kind::from_host, 2}, {Kind::gather, 2}},
                         {},
                         {},
                         {{Kind::from_host, 0}, {Kind::gather, 0}}};
  EXPECT_EQ(schedule_chunks(layout_, uses_, automatic), expected);
  automatic.room = Bytes{30};
  for (const auto& actions : schedule_chunks(layout_, uses_, automatic))
    for (const ChunkAction& action : actions) EXPECT_NE(action.kind, Kind::to_host);
}

TEST_F(GeminiSchedule, OtherDataOfTheNextUseTakesRoomToo) {
  ChunkPolicy automatic = policy();
  automatic.automatic = true;
  automatic.on_host = {true, true, true};
  automatic.room = Bytes{30};
  uses_[3].other_data = Bytes{10};
  const Actions actions = schedule_chunks(layout_, uses_, automatic);
  EXPECT_EQ(actions[2].front(), (ChunkAction{Kind::release, 0}));
}

// Whole scenarios: a model whose tensors the test lays out itself.
const std::string base = R"(name: Gemini
cluster: {node: {base: dgx-h100, collectives: {algorithm: ring}}, nodes: 1}
model: {base: llama, layers: 4, hidden: 2048, ffn_hidden: 8192, heads: 16, kv_heads: 16, head_dim: 128, vocab: 32768}
training: {global_batch: 8, sequence: 512, precision: bf16}
strategy: {framework: colossal-ai}
)";

ChunkLayout layout_of_model() {
  constexpr std::int64_t h = 2048;
  std::vector<std::int64_t> tensors{32768 * h};
  for (int layer = 0; layer < 4; ++layer)
    tensors.insert(tensors.end(), {h, h * h, h * h, h * h, h * h, h, h * 4 * h, h * 4 * h, 4 * h * h});
  tensors.insert(tensors.end(), {h, 32768 * h});
  constexpr std::int64_t million = 1 << 20;
  return lay_out_chunks(tensors, {.range = 32 * million, .interval = 1024, .smallest = 32 * million, .ranks = 8});
}

class Gemini : public testing::Test {
 protected:
  static Result with(std::vector<std::string> settings) { return tests::simulated(base, settings).result; }
  static double wire(const Result& result, CollectiveKind kind) { return tests::wire(result, Purpose::data, kind); }
  static std::int64_t part(const Result& result, sim::MemoryPurpose purpose) {
    return result.memory.parts.at(static_cast<std::size_t>(purpose));
  }
  const ChunkLayout layout_ = layout_of_model();
  const double elements_ = static_cast<double>(layout_.elements());
  const double last_ = static_cast<double>(layout_.chunks[layout_.chunk_of.back()]);
};

TEST_F(Gemini, ChunksAreGatheredTwiceAndReducedOnce) {
  const Result result = with({});
  // Backward begins with what forward ended with.
  expect_bytes(wire(result, CollectiveKind::all_gather), 7.0 / 8 * 2 * (2 * elements_ - last_));
  expect_bytes(wire(result, CollectiveKind::reduce_scatter), 7.0 / 8 * 2 * elements_);
  EXPECT_EQ(row(result, Purpose::data, CollectiveKind::reduce_scatter).count,
            static_cast<double>(layout_.chunks.size()));
}

TEST_F(Gemini, WithoutShardingChunksAreGatheredOnce) {
  const Result result = with({"strategy.shard_param_frac=0"});
  expect_bytes(wire(result, CollectiveKind::all_gather), 7.0 / 8 * 2 * elements_);
}

TEST_F(Gemini, StateIsFourteenBytesPerParameterDividedOverTheRanks) {
  const Result result = with({});
  EXPECT_EQ(part(result, sim::MemoryPurpose::parameters), 2 * layout_.elements() / 8);
  EXPECT_EQ(part(result, sim::MemoryPurpose::optimizer), 12 * layout_.elements() / 8);
}

TEST_F(Gemini, OffloadedStateLeavesTheDevice) {
  const Result result = with({"strategy.offload_optim_frac=1"});
  EXPECT_EQ(part(result, sim::MemoryPurpose::optimizer), 0);
  // Shards come before forward, gradients leave behind backward; the update reads gradients, reads and writes master
  // weights and moments, and writes parameters.
  EXPECT_EQ(row(result, Purpose::offload, CollectiveKind::broadcast).bytes, (2 + 2 + 28) * elements_ / 8);
  EXPECT_GT(result.step_time_s, with({}).step_time_s);
}

TEST_F(Gemini, PrefetchingHidesGathers) {
  const auto exposed = [&](const char* depth) {
    return row(with({depth}), Purpose::data, CollectiveKind::all_gather).exposed_s;
  };
  EXPECT_LT(exposed("strategy.max_prefetch=1"), 0.9 * exposed("strategy.max_prefetch=0"));
}

TEST_F(Gemini, ReductionsThatAreAwaitedAreExposed) {
  const auto exposed = [&](const char* how) {
    return row(with({how}), Purpose::data, CollectiveKind::reduce_scatter).exposed_s;
  };
  EXPECT_GT(exposed("strategy.enable_async_reduce=false"), 2 * exposed("strategy.enable_async_reduce=true"));
}

TEST_F(Gemini, AutomaticPlacementMovesMoreWhenMemoryIsShort) {
  const auto moved = [&](const char* room) {
    return row(with({"strategy.placement_policy=auto", room}), Purpose::offload, CollectiveKind::broadcast).bytes;
  };
  EXPECT_GT(moved("strategy.steady_cuda_cap_ratio=0.008"), moved("strategy.steady_cuda_cap_ratio=0.9"));
}

TEST_F(Gemini, GradientsOfSeveralMicroBatchesNeedChunksOfTheirOwn) {
  EXPECT_NE(tests::refusal(base, {"training.global_batch=16", "training.micro_batch=1"})
                .find("strategy.enable_gradient_accumulation"),
            std::string::npos);
  const Result result =
      with({"training.global_batch=16", "training.micro_batch=1", "strategy.enable_gradient_accumulation=true"});
  expect_bytes(wire(result, CollectiveKind::reduce_scatter), 2 * 7.0 / 8 * 2 * elements_);
}

TEST_F(Gemini, TrainsIn16Bits) {
  EXPECT_NE(tests::refusal(base, {"training.precision=fp32"}).find("fp16 or bf16"), std::string::npos);
}

}  // namespace
}  // namespace trainyard::strategies
