#include "strategies/pipeline_placement.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace trainyard::strategies {
namespace {

// Layers as (first, those between, last), which are all alike.
void expect_spread(std::int64_t layers, std::int64_t positions, std::int64_t first, std::int64_t middle,
                   std::int64_t last) {
  std::vector<std::int64_t> expected(static_cast<std::size_t>(positions), middle);
  expected.front() = first;
  expected.back() = last;
  EXPECT_EQ(spread_layers(layers, positions), expected) << layers << " on " << positions;
}

TEST(SpreadLayers, GivesTheFirstAndTheLastPositionFewer) {
  expect_spread(126, 16, 7, 8, 7);   // Llama 3 405B
  expect_spread(126, 128, 0, 1, 0);  // with eight chunks per stage: embedding and head have a position of their own
  expect_spread(70, 12, 5, 6, 5);    // BLOOM 176B
  expect_spread(30, 8, 3, 4, 3);
  expect_spread(46, 48, 0, 1, 0);
}

TEST(SpreadLayers, IsEvenWhereItCanBe) {
  expect_spread(96, 8, 12, 12, 12);
  EXPECT_EQ(spread_layers(5, 1), (std::vector<std::int64_t>{5}));
  EXPECT_EQ(spread_layers(33, 4), (std::vector<std::int64_t>{8, 9, 8, 8}));
  EXPECT_EQ(spread_layers(35, 4),
            (std::vector<std::int64_t>{8, 9, 9, 9}));  // the head's position before the embedding's
  EXPECT_EQ(spread_layers(3, 2), (std::vector<std::int64_t>{1, 2}));
}

TEST(SpreadLayers, PlacesEveryLayerAndDiffersByOneAtMost) {
  for (std::int64_t positions = 1; positions < 40; ++positions)
    for (std::int64_t layers = 0; layers < 100; ++layers) {
      const std::vector<std::int64_t> spread = spread_layers(layers, positions);
      ASSERT_EQ(spread.size(), static_cast<std::size_t>(positions));
      EXPECT_EQ(std::accumulate(spread.begin(), spread.end(), std::int64_t{0}), layers);
      EXPECT_LE(*std::ranges::max_element(spread) - *std::ranges::min_element(spread), 1);
    }
}

TEST(SpreadLayers, CountsEmbeddingAndHeadAsLayersWhereAsked) {
  EXPECT_EQ(spread_layers(126, 16, CountedParts{.embedding = true, .head = true}),
            spread_layers(126, 16));  // Llama 3 405B: one less on both ends
  EXPECT_EQ(spread_layers(31, 4, CountedParts{.embedding = true}), (std::vector<std::int64_t>{7, 8, 8, 8}));
  EXPECT_EQ(spread_layers(31, 4, CountedParts{.head = true}), (std::vector<std::int64_t>{8, 8, 8, 7}));
  EXPECT_EQ(spread_layers(6, 8, CountedParts{.embedding = true, .head = true}),
            (std::vector<std::int64_t>{0, 1, 1, 1, 1, 1, 1, 0}));
}

TEST(SpreadLayers, GivesTheEndsWhatTheyAreToldAndTheOthersEqualParts) {
  EXPECT_EQ(spread_between({.first = 14, .last = 16}, 78, 8, 1), (std::vector<std::int64_t>{14, 8, 8, 8, 8, 8, 8, 16}));
  EXPECT_EQ(spread_between({.first = 2, .last = {}}, 14, 4, 2), (std::vector<std::int64_t>{1, 2, 2, 2, 1, 2, 2, 2}));
  EXPECT_EQ(spread_between({.first = 13, .last = 14}, 27, 2, 1), (std::vector<std::int64_t>{13, 14}));
}

// Positions of (stage, chunk), by stage.
std::vector<std::int64_t> positions(const PipelinePlacement& placement, std::int64_t stages, std::int64_t chunk) {
  std::vector<std::int64_t> result;
  for (std::int64_t stage = 0; stage < stages; ++stage) result.push_back(placement.position(stage, chunk));
  return result;
}

TEST(PipelinePlacement, LoopsInAVOrBothWays) {
  using Positions = std::vector<std::int64_t>;
  const PipelinePlacement loops(ScheduleKind::interleaved, 3, 2);
  EXPECT_EQ(positions(loops, 3, 0), (Positions{0, 1, 2}));
  EXPECT_EQ(positions(loops, 3, 1), (Positions{3, 4, 5}));
  for (const ScheduleKind kind : {ScheduleKind::zb_v, ScheduleKind::dualpipe_v}) {
    const PipelinePlacement v(kind, 3, 2);
    EXPECT_EQ(positions(v, 3, 0), (Positions{0, 1, 2}));
    EXPECT_EQ(positions(v, 3, 1), (Positions{5, 4, 3}));
  }
  const PipelinePlacement both_ways(ScheduleKind::dualpipe, 4, 2);
  EXPECT_EQ(both_ways.positions(), 4);
  EXPECT_EQ(positions(both_ways, 4, 0), (Positions{0, 1, 2, 3}));
  EXPECT_EQ(positions(both_ways, 4, 1), (Positions{3, 2, 1, 0}));
}

TEST(PipelinePlacement, TurnsOnTheLastStageWithoutATransfer) {
  const PipelinePlacement v(ScheduleKind::zb_v, 3, 2);
  EXPECT_FALSE(v.output_departs(2, 0));
  EXPECT_FALSE(v.input_arrives(2, 1));
  EXPECT_TRUE(v.output_departs(2, 1));
  EXPECT_FALSE(v.output_departs(0, 1));  // the end of the model
  const PipelinePlacement loops(ScheduleKind::interleaved, 3, 2);
  EXPECT_TRUE(loops.output_departs(2, 0));
  EXPECT_TRUE(loops.input_arrives(0, 1));
}

TEST(PipelinePlacement, GivesEachDirectionHalfOfTheMicroBatches) {
  const PipelinePlacement both_ways(ScheduleKind::dualpipe, 4, 2);
  EXPECT_EQ(both_ways.last_micro_batch(0, 12), 5);
  EXPECT_EQ(both_ways.first_micro_batch(1, 12), 6);
  EXPECT_EQ(both_ways.last_micro_batch(1, 12), 11);
  EXPECT_EQ(both_ways.chunk_order(1), (std::vector<std::int64_t>{0, 1}));
  EXPECT_EQ(both_ways.chunk_order(2), (std::vector<std::int64_t>{1, 0}));
}

}  // namespace
}  // namespace trainyard::strategies
