#include "strategies/pipeline_schedule.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <ostream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/support/schedule_clock.hpp"

namespace trainyard::strategies {
namespace {

using Kind = PipelineAction::Kind;
using Actions = std::vector<PipelineAction>;

constexpr auto gpipe = ScheduleKind::gpipe;
constexpr auto one_f_one_b = ScheduleKind::one_forward_one_backward;
constexpr auto interleaved = ScheduleKind::interleaved;
constexpr auto zb_h1 = ScheduleKind::zb_h1;
constexpr auto zb_h2 = ScheduleKind::zb_h2;
constexpr auto zb_v = ScheduleKind::zb_v;
constexpr auto dualpipe = ScheduleKind::dualpipe;
constexpr auto dualpipe_v = ScheduleKind::dualpipe_v;

// "F0 F1 B0 B1"; with several chunks "F0.1": micro-batch 0, chunk 1. Two passes at once: "F1.0&B0.1".
std::string to_text(const Actions& actions, bool chunks = false) {
  std::string text;
  for (const PipelineAction& action : actions) {
    if (!text.empty()) text += ' ';
    std::string separator;
    for (const PipelineAction& pass : action.passes()) {
      text += separator + "FBIW"[static_cast<std::size_t>(pass.kind)] + std::to_string(pass.micro_batch);
      if (chunks) text += '.' + std::to_string(pass.chunk);
      separator = "&";
    }
  }
  return text;
}

// Forwards before the first backward that are not part of its pair.
std::size_t forwards_before_backward(const Actions& actions) {
  return static_cast<std::size_t>(
      std::ranges::find_if(actions, [](const PipelineAction& action) { return action.kind != Kind::forward; }) -
      actions.begin());
}

std::int64_t most_in_flight(const Actions& actions) {
  std::int64_t now = 0;
  std::int64_t most = 0;
  for (const PipelineAction& action : actions) {
    for (const PipelineAction& pass : action.passes()) {
      if (pass.kind == Kind::forward) ++now;
      most = std::max(most, now);
      if (pass.kind == Kind::backward || pass.kind == Kind::backward_weight) --now;
    }
  }
  return most;
}

std::vector<std::int64_t> most_in_flight_of_stages(ScheduleKind kind, std::int64_t stages, std::int64_t micro_batches,
                                                   std::int64_t chunks) {
  std::vector<std::int64_t> result;
  for (std::int64_t stage = 0; stage < stages; ++stage)
    result.push_back(most_in_flight(pipeline_schedule(kind, stage, stages, micro_batches, chunks)));
  return result;
}

TEST(PipelineSchedule, GPipeGoesForwardThroughAllMicroBatchesAndBackInReverse) {
  for (std::int64_t stage = 0; stage < 3; ++stage)
    EXPECT_EQ(to_text(pipeline_schedule(gpipe, stage, 3, 4, 1)), "F0 F1 F2 F3 B3 B2 B1 B0");
}

TEST(PipelineSchedule, OneForwardOneBackwardWarmsUpByTheStagesBehindIt) {
  EXPECT_EQ(to_text(pipeline_schedule(one_f_one_b, 0, 3, 4, 1)), "F0 F1 F2 B0 F3 B1 B2 B3");
  EXPECT_EQ(to_text(pipeline_schedule(one_f_one_b, 1, 3, 4, 1)), "F0 F1 B0 F2 B1 F3 B2 B3");
  EXPECT_EQ(to_text(pipeline_schedule(one_f_one_b, 2, 3, 4, 1)), "F0 B0 F1 B1 F2 B2 F3 B3");
}

TEST(PipelineSchedule, InterleavedWalksThroughTheChunksInGroupsOfAsManyMicroBatchesAsStages) {
  EXPECT_EQ(to_text(pipeline_schedule(interleaved, 1, 2, 4, 2), true),
            "F0.0 F1.0 F0.1 B0.1 F1.1 B1.1 F2.0 B0.0 F3.0 B1.0 F2.1 B2.1 F3.1 B3.1 B2.0 B3.0");
  EXPECT_EQ(to_text(pipeline_schedule(interleaved, 0, 2, 4, 2), true),
            "F0.0 F1.0 F0.1 F1.1 F2.0 B0.1 F3.0 B1.1 F2.1 B0.0 F3.1 B1.0 B2.1 B3.1 B2.0 B3.0");
}

TEST(PipelineSchedule, ZeroBubbleH1PutsBackwardForWeightsAsManyTurnsLaterAsTheStageCounts) {
  EXPECT_EQ(to_text(pipeline_schedule(zb_h1, 0, 3, 4, 1)), "F0 F1 F2 I0 W0 F3 I1 W1 I2 W2 I3 W3");
  EXPECT_EQ(to_text(pipeline_schedule(zb_h1, 1, 3, 4, 1)), "F0 F1 I0 F2 I1 W0 F3 I2 W1 I3 W2 W3");
  EXPECT_EQ(to_text(pipeline_schedule(zb_h1, 2, 3, 4, 1)), "F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3");
}

TEST(PipelineSchedule, ZeroBubbleH2TakesInputsFirstThenForwardsThenWeights) {
  EXPECT_EQ(to_text(pipeline_schedule(zb_h2, 1, 2, 4, 1)), "F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3");
  for (const std::int64_t stages : {2, 4, 8})
    for (std::int64_t stage = 0; stage < stages; ++stage)
      EXPECT_EQ(forwards_before_backward(pipeline_schedule(zb_h2, stage, stages, 4 * stages, 1)),
                static_cast<std::size_t>(2 * (stages - stage) - 1));
}

TEST(PipelineSchedule, InterleavedGroupsMayBeLargerThanThePipelineAndTheLastOneSmaller) {
  const Actions actions = pipeline_schedule(interleaved, 1, 2, 5, 2, 3);
  EXPECT_EQ(to_text(actions, true),
            "F0.0 F1.0 F2.0 F0.1 B0.1 F1.1 B1.1 F2.1 B2.1 F3.0 B0.0 F4.0 B1.0 F3.1 B2.0 F4.1 B3.1 B4.1 B3.0 B4.0");
}

TEST(PipelineSchedule, ZeroBubbleVGoesDownTheFirstChunksAndUpTheSecond) {
  EXPECT_EQ(to_text(pipeline_schedule(zb_v, 0, 2, 4, 2), true),
            "F0.0 F1.0 F2.0 F0.1 I0.1 W0.1 F1.1 I1.1 W1.1 F3.0 I0.0 W0.0 F2.1 I2.1 W2.1 I1.0 W1.0 F3.1 I3.1 W3.1 I2.0 "
            "W2.0 I3.0 W3.0");
  EXPECT_EQ(to_text(pipeline_schedule(zb_v, 1, 2, 4, 2), true),
            "F0.0 F0.1 F1.0 F1.1 I0.1 W0.1 F2.0 I0.0 W0.0 F2.1 I1.1 W1.1 F3.0 I1.0 W1.0 F3.1 I2.1 W2.1 I2.0 I3.1 I3.0 "
            "W2.0 W3.1 W3.0");
}

TEST(PipelineSchedule, ZeroBubbleVLeavesOutWhatFewerMicroBatchesLack) {
  for (std::int64_t stage = 0; stage < 4; ++stage) {
    Actions expected = pipeline_schedule(zb_v, stage, 4, 7, 2);
    std::erase_if(expected, [](const PipelineAction& action) { return action.micro_batch >= 3; });
    EXPECT_EQ(pipeline_schedule(zb_v, stage, 4, 3, 2), expected);
  }
}

TEST(PipelineSchedule, DualPipeTakesTheFirstHalfOneWayAndTheSecondHalfTheOther) {
  EXPECT_EQ(to_text(pipeline_schedule(dualpipe, 0, 2, 8, 2), true),
            "F0.0 F4.1 F1.0 B4.1 F5.1&B0.0 F2.0&B5.1 F6.1&B1.0 F3.0&B6.1 F7.1&B2.0 B7.1 I3.0 W3.0");
  EXPECT_EQ(to_text(pipeline_schedule(dualpipe, 0, 4, 8, 2), true),
            "F0.0 F1.0 F2.0 F4.1 I4.1 W4.1 F5.1 F3.0&B5.1 F6.1&B0.0 B6.1 F7.1&B1.0 B7.1 I2.0 W2.0 I3.0 W3.0");
}

// The other half of the stages does the same the other way round.
TEST(PipelineSchedule, DualPipeIsItsOwnMirrorImage) {
  for (const std::int64_t stages : {2, 4, 8})
    for (std::int64_t stage = 0; stage < stages / 2; ++stage) {
      const std::int64_t micro_batches = 2 * stages + 4;
      Actions mirrored = pipeline_schedule(dualpipe, stages - 1 - stage, stages, micro_batches, 2);
      for (PipelineAction& action : mirrored) {
        const auto mirror = [&](std::int64_t& micro_batch, std::int64_t& chunk) {
          micro_batch += micro_batches / 2 * (chunk == 0 ? 1 : -1);
          chunk = 1 - chunk;
        };
        mirror(action.micro_batch, action.chunk);
        if (action.kind == Kind::forward_and_backward) mirror(action.backward_micro_batch, action.backward_chunk);
      }
      EXPECT_EQ(mirrored, pipeline_schedule(dualpipe, stage, stages, micro_batches, 2));
    }
}

TEST(PipelineSchedule, WarmUpsAreThoseOfMegatron) {
  for (const std::int64_t stages : {1, 2, 4, 8})
    for (std::int64_t stage = 0; stage < stages; ++stage) {
      const auto warm_up = [&](ScheduleKind kind, std::int64_t micro_batches, std::int64_t chunks) {
        const Actions actions = pipeline_schedule(kind, stage, stages, micro_batches, chunks);
        return static_cast<std::int64_t>(forwards_before_backward(actions));
      };
      // The last forward before the first backward is the first of the pairs, where there are any.
      EXPECT_EQ(warm_up(one_f_one_b, 16, 1), stages - stage);
      EXPECT_EQ(warm_up(one_f_one_b, 3, 1), std::min<std::int64_t>(stages - stage, 3));
      EXPECT_EQ(warm_up(gpipe, 16, 1), 16);
      if (stages == 1) continue;
      for (const std::int64_t chunks : {2, 4}) {
        const std::int64_t forwards = 2 * (stages - stage - 1) + (chunks - 1) * stages;
        EXPECT_EQ(warm_up(interleaved, 4 * stages, chunks), forwards + 1);
        EXPECT_EQ(warm_up(interleaved, stages, chunks), std::min(forwards + 1, stages * chunks));
      }
    }
}

std::vector<tests::Pipeline> small_pipelines() {
  std::vector<tests::Pipeline> pipelines;
  for (const std::int64_t stages : {1, 2, 3, 4, 5, 8})
    for (const std::int64_t micro_batches : {1, 2, 3, 8, 10, 16, 17, 24}) {
      for (const ScheduleKind kind : {gpipe, one_f_one_b, zb_h1, zb_h2})
        pipelines.push_back({.kind = kind, .stages = stages, .micro_batches = micro_batches});
      pipelines.push_back({.kind = zb_v, .stages = stages, .micro_batches = micro_batches, .chunks = 2});
      for (const std::int64_t chunks : {2, 3})
        for (std::int64_t group = stages; group <= micro_batches; ++group)
          if (micro_batches % group == 0 || micro_batches % group >= stages)
            pipelines.push_back({interleaved, stages, micro_batches, chunks, group});
      if (micro_batches < 2 * stages) continue;
      pipelines.push_back({.kind = dualpipe_v, .stages = stages, .micro_batches = micro_batches, .chunks = 2});
      if (stages % 2 == 0 && micro_batches % 2 == 0)
        pipelines.push_back({.kind = dualpipe, .stages = stages, .micro_batches = micro_batches, .chunks = 2});
    }
  return pipelines;
}

// Of every micro-batch that goes through a chunk: one forward pass, then one backward pass or both of its parts.
TEST(PipelineSchedule, EveryPassHappensOnceAndInOrder) {
  for (const tests::Pipeline& p : small_pipelines())
    for (std::int64_t stage = 0; stage < p.stages; ++stage) {
      std::map<std::pair<std::int64_t, std::int64_t>, std::string> passes;
      for (const PipelineAction& action :
           pipeline_schedule(p.kind, stage, p.stages, p.micro_batches, p.chunks, p.group))
        for (const PipelineAction& pass : action.passes())
          passes[{pass.chunk, pass.micro_batch}] += "FBIW"[static_cast<std::size_t>(pass.kind)];
      const std::int64_t copies = p.kind == dualpipe ? 2 : 1;
      EXPECT_EQ(passes.size(), static_cast<std::size_t>(p.chunks * p.micro_batches / copies));
      for (const auto& [which, order] : passes) EXPECT_TRUE(order == "FB" || order == "FIW") << order;
    }
}

// The messages between two stages match: both go through the micro-batches in the same order.
TEST(PipelineSchedule, StagesHandOnInTheOrderInWhichTheNextOnesReceive) {
  for (const tests::Pipeline& p : small_pipelines()) {
    const PipelinePlacement placement(p.kind, p.stages, p.chunks);
    std::map<std::tuple<std::int64_t, std::int64_t, bool>, std::vector<std::int64_t>> sent;
    std::map<std::tuple<std::int64_t, std::int64_t, bool>, std::vector<std::int64_t>> received;
    for (std::int64_t stage = 0; stage < p.stages; ++stage)
      for (const PipelineAction& action :
           pipeline_schedule(p.kind, stage, p.stages, p.micro_batches, p.chunks, p.group))
        for (const PipelineAction& pass : action.passes()) {
          if (pass.kind == Kind::backward_weight) continue;
          const bool forward = pass.kind == Kind::forward;
          const std::int64_t way = (placement.goes_back(pass.chunk) == forward) ? -1 : 1;
          const auto neighbour = [&](std::int64_t step) { return (stage + step + p.stages) % p.stages; };
          const bool arrives = placement.input_arrives(stage, pass.chunk);
          const bool departs = placement.output_departs(stage, pass.chunk);
          const std::int64_t track = placement.has_way_back() ? pass.chunk : 0;
          if (forward ? departs : arrives) sent[{neighbour(way), track, forward}].push_back(pass.micro_batch);
          if (forward ? arrives : departs) received[{stage, track, forward}].push_back(pass.micro_batch);
        }
    EXPECT_EQ(sent, received);
  }
}

TEST(PipelineSchedule, NoStagesWaitForEachOther) {
  for (const tests::Pipeline& p : small_pipelines())
    EXPECT_TRUE(tests::ScheduleClock(p, {}).complete()) << static_cast<int>(p.kind) << ' ' << p.stages;
}

TEST(PipelineSchedule, FewerMicroBatchesThanStagesAreAllWarmUp) {
  EXPECT_EQ(to_text(pipeline_schedule(one_f_one_b, 0, 8, 2, 1)), "F0 F1 B0 B1");
  EXPECT_EQ(to_text(pipeline_schedule(one_f_one_b, 7, 8, 2, 1)), "F0 B0 F1 B1");
}

TEST(PipelineSchedule, HoldsAsManyActivationsAsItHasInFlight) {
  EXPECT_EQ(most_in_flight_of_stages(gpipe, 4, 16, 1), (std::vector<std::int64_t>{16, 16, 16, 16}));
  EXPECT_EQ(most_in_flight_of_stages(one_f_one_b, 8, 16, 1), (std::vector<std::int64_t>{8, 7, 6, 5, 4, 3, 2, 1}));
  EXPECT_EQ(most_in_flight_of_stages(one_f_one_b, 4, 2, 1), (std::vector<std::int64_t>{2, 2, 2, 1}));
  EXPECT_EQ(most_in_flight_of_stages(interleaved, 8, 16, 2).front(), 23);  // of half a stage
  EXPECT_EQ(most_in_flight_of_stages(interleaved, 8, 16, 4).front(), 39);  // of a quarter
  EXPECT_EQ(most_in_flight_of_stages(zb_h1, 8, 16, 1), std::vector<std::int64_t>(8, 8));
  EXPECT_EQ(most_in_flight_of_stages(zb_h2, 8, 32, 1), std::vector<std::int64_t>(8, 15));
  EXPECT_EQ(most_in_flight_of_stages(zb_v, 8, 16, 2), std::vector<std::int64_t>(8, 16));  // of half a stage
  EXPECT_EQ(most_in_flight_of_stages(dualpipe, 8, 16, 2), std::vector<std::int64_t>(8, 9));
  EXPECT_EQ(most_in_flight_of_stages(dualpipe_v, 8, 16, 2), std::vector<std::int64_t>(8, 17));  // of half a stage
}

// A stage's forward pass, its backward pass for inputs and the one for weights take 1 each; chunks share them.
tests::ScheduleClock clock_of(const tests::Pipeline& pipeline, tests::PassDurations stage = {}) {
  const auto share = static_cast<double>(pipeline.kind == dualpipe ? 1 : pipeline.chunks);
  stage.forward /= share;
  stage.backward_input /= share;
  stage.backward_weight /= share;
  return {pipeline, stage};
}

struct Golden {
  const char* name;
  ScheduleKind kind;
  std::int64_t chunks;
  std::int64_t stages;
  std::int64_t micro_batches;
  double makespan;

  friend void PrintTo(const Golden& golden, std::ostream* out) { *out << golden.name; }
};
class PipelineMakespan : public testing::TestWithParam<Golden> {};

TEST_P(PipelineMakespan, IsThatOfTheLiterature) {
  const Golden& golden = GetParam();
  const tests::ScheduleClock clock = clock_of({golden.kind, golden.stages, golden.micro_batches, golden.chunks});
  EXPECT_DOUBLE_EQ(clock.makespan(), golden.makespan);
  // Every stage works three units for each micro-batch, so all of them are idle for equally long.
  for (std::int64_t stage = 0; stage < golden.stages; ++stage)
    EXPECT_DOUBLE_EQ(clock.idle(static_cast<std::size_t>(stage)),
                     golden.makespan - static_cast<double>(3 * golden.micro_batches));
}

INSTANTIATE_TEST_SUITE_P(
    Golden, PipelineMakespan,
    testing::Values(
        Golden{"GPipe", gpipe, 1, 4, 8, 33}, Golden{"GPipe", gpipe, 1, 8, 16, 69},
        Golden{"GPipe", gpipe, 1, 8, 32, 117}, Golden{"GPipe", gpipe, 1, 16, 64, 237},
        Golden{"OneFOneB", one_f_one_b, 1, 4, 8, 33}, Golden{"OneFOneB", one_f_one_b, 1, 8, 16, 69},
        Golden{"OneFOneB", one_f_one_b, 1, 8, 32, 117}, Golden{"OneFOneB", one_f_one_b, 1, 16, 64, 237},
        Golden{"TwoChunks", interleaved, 2, 4, 8, 28.5}, Golden{"TwoChunks", interleaved, 2, 8, 16, 58.5},
        Golden{"TwoChunks", interleaved, 2, 8, 32, 106.5}, Golden{"TwoChunks", interleaved, 2, 16, 64, 214.5},
        Golden{"FourChunks", interleaved, 4, 4, 8, 26.25}, Golden{"FourChunks", interleaved, 4, 8, 16, 53.25},
        Golden{"FourChunks", interleaved, 4, 8, 32, 101.25}, Golden{"FourChunks", interleaved, 4, 16, 64, 203.25},
        Golden{"ZbH1", zb_h1, 1, 4, 8, 27}, Golden{"ZbH1", zb_h1, 1, 8, 16, 55}, Golden{"ZbH1", zb_h1, 1, 8, 32, 103},
        Golden{"ZbH1", zb_h1, 1, 16, 64, 207}, Golden{"ZbV", zb_v, 2, 4, 8, 25.5}, Golden{"ZbV", zb_v, 2, 8, 16, 51.5},
        Golden{"ZbV", zb_v, 2, 8, 32, 99.5}, Golden{"ZbV", zb_v, 2, 16, 64, 199.5},
        Golden{"DualPipe", dualpipe, 2, 4, 8, 26}, Golden{"DualPipe", dualpipe, 2, 8, 20, 66},
        Golden{"DualPipe", dualpipe, 2, 8, 32, 102}, Golden{"DualPipe", dualpipe, 2, 16, 64, 206},
        Golden{"DualPipeV", dualpipe_v, 2, 4, 8, 27}, Golden{"DualPipeV", dualpipe_v, 2, 8, 16, 55}),
    [](const testing::TestParamInfo<Golden>& test) {
      return test.param.name + std::to_string(test.param.stages) + "Stages" + std::to_string(test.param.micro_batches) +
             "MicroBatches";
    });

// Bubbles of the literature, with passes that do not take equally long.
TEST(PipelineBubble, IsTheFormulaOfEachSchedule) {
  const tests::PassDurations passes{.forward = 1, .backward_input = 1.25, .backward_weight = 0.75};
  const double backward = 2;
  for (const std::int64_t stages : {2, 4, 8}) {
    const auto between = static_cast<double>(stages - 1);
    const auto idle = [&](ScheduleKind kind, std::int64_t chunks) {
      return clock_of({kind, stages, 4 * stages, chunks}, passes).idle(0);
    };
    EXPECT_DOUBLE_EQ(idle(gpipe, 1), between * (1 + backward));
    EXPECT_DOUBLE_EQ(idle(one_f_one_b, 1), between * (1 + backward));
    EXPECT_DOUBLE_EQ(idle(interleaved, 2), between * (1 + backward) / 2);
    EXPECT_DOUBLE_EQ(idle(zb_h1, 1), between * (1 + backward - 2 * 0.75));
  }
}

// (p - 1) (F + I - 2 W) on the first stage, and ever less on those behind it.
TEST(PipelineBubble, OfZeroBubbleH2LeavesNothingIdleWherePassesTakeEquallyLong) {
  for (const std::int64_t stages : {2, 4, 8})
    for (const double weight : {1.0, 0.75, 0.5}) {
      const tests::ScheduleClock clock = clock_of({zb_h2, stages, 8 * stages, 1}, {.backward_weight = weight});
      for (std::int64_t stage = 0; stage < stages; ++stage)
        EXPECT_NEAR(clock.idle_inside(static_cast<std::size_t>(stage)),
                    static_cast<double>(stages - 1 - stage) * (1 + 1 - 2 * weight), 1e-9);
    }
}

TEST(PipelineBubble, OfZeroBubbleVIsBetweenTheStagesFirstAndLastActionsOnly) {
  for (const std::int64_t stages : {2, 4, 8})
    for (const std::int64_t micro_batches : {2 * stages - 1, 2 * stages, 4 * stages}) {
      const tests::ScheduleClock clock = clock_of({zb_v, stages, micro_batches, 2});
      for (std::int64_t stage = 0; stage < stages; ++stage)
        EXPECT_DOUBLE_EQ(clock.idle_inside(static_cast<std::size_t>(stage)), 0);
    }
}

// (p / 2 - 1) (F&B + B - 3 W): DualPipe's README.
TEST(PipelineBubble, OfDualPipeShrinksWithWhatOverlappingSaves) {
  const tests::PassDurations passes{.overlapped = 2.4};
  const tests::ScheduleClock clock = clock_of({dualpipe, 8, 32, 2}, passes);
  EXPECT_NEAR(clock.makespan(), 86.4, 1e-9);
  for (const std::size_t middle : {3U, 4U}) {
    EXPECT_NEAR(clock.idle(middle), 4.2, 1e-9);
    EXPECT_NEAR(clock.idle(middle), 3 * (2.4 + 2 - 3), 1e-9);
  }
}

TEST(PassesOverlapped, HaveOneMoreForwardPassAheadAndThenOneOfEachAtOnce) {
  for (const std::int64_t chunks : {1, 2}) {
    for (const std::int64_t stage : {0, 1, 3}) {
      const ScheduleKind kind = chunks > 1 ? ScheduleKind::interleaved : ScheduleKind::one_forward_one_backward;
      const std::vector<PipelineAction> plain = pipeline_schedule(kind, stage, 4, 8, chunks);
      const std::vector<PipelineAction> overlapped = with_passes_overlapped(plain);
      const auto first = std::ranges::find(plain, Kind::backward, &PipelineAction::kind) - plain.begin();
      std::vector<PipelineAction> forwards;
      std::vector<PipelineAction> backwards;
      std::int64_t together = 0;
      for (std::size_t i = 0; i < overlapped.size(); ++i) {
        if (std::cmp_less(i, first)) {
          EXPECT_EQ(overlapped[i], plain[i]);
        }
        together += overlapped[i].kind == Kind::forward_and_backward ? 1 : 0;
        for (const PipelineAction& pass : overlapped[i].passes())
          (pass.kind == Kind::forward ? forwards : backwards).push_back(pass);
      }
      EXPECT_EQ(together, 8 * chunks - first);
      // Both kinds of passes keep their own order.
      std::vector<PipelineAction> expected_forwards;
      std::vector<PipelineAction> expected_backwards;
      for (const PipelineAction& action : plain)
        (action.kind == Kind::forward ? expected_forwards : expected_backwards).push_back(action);
      EXPECT_EQ(forwards, expected_forwards);
      EXPECT_EQ(backwards, expected_backwards);
    }
  }
}

TEST(PipelineSchedule, GPipeGoesThroughItsChunksOneAfterTheOther) {
  EXPECT_EQ(to_text(pipeline_schedule(gpipe, 0, 2, 2, 2), true), "F0.0 F1.0 F0.1 F1.1 B1.1 B0.1 B1.0 B0.0");
}

// As the interleaved schedule, with weight gradients as many turns late as stages come before.
TEST(PipelineSchedule, ZbH1MayHaveSeveralChunks) {
  EXPECT_EQ(to_text(pipeline_schedule(zb_h1, 0, 2, 2, 2), true),
            "F0.0 F1.0 F0.1 F1.1 I0.1 W0.1 I1.1 W1.1 I0.0 W0.0 I1.0 W1.0");
  EXPECT_EQ(to_text(pipeline_schedule(zb_h1, 1, 2, 2, 2), true),
            "F0.0 F1.0 F0.1 I0.1 F1.1 I1.1 W0.1 I0.0 W1.1 I1.0 W0.0 W1.0");
}

}  // namespace
}  // namespace trainyard::strategies
