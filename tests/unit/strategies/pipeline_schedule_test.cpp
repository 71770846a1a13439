#include "strategies/pipeline_schedule.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <numeric>
#include <optional>
#include <ostream>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "sim/executor.hpp"
#include "strategies/internal/plan_builder.hpp"

namespace trainyard::strategies {
namespace {

using Kind = PipelineAction::Kind;
using Actions = std::vector<PipelineAction>;

constexpr auto gpipe = ScheduleKind::gpipe;
constexpr auto one_f_one_b = ScheduleKind::one_forward_one_backward;
constexpr auto interleaved = ScheduleKind::interleaved;
constexpr auto zb_h1 = ScheduleKind::zb_h1;
constexpr auto zb_h2 = ScheduleKind::zb_h2;

// "F0 F1 B0 B1"; with several chunks "F0.1": micro-batch 0, chunk 1.
std::string to_text(const Actions& actions, bool chunks = false) {
  std::string text;
  for (const PipelineAction& action : actions) {
    if (!text.empty()) text += ' ';
    text += "FBIW"[static_cast<std::size_t>(action.kind)] + std::to_string(action.micro_batch);
    if (chunks) text += '.' + std::to_string(action.chunk);
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
    if (action.kind == Kind::forward) ++now;
    if (action.kind == Kind::backward || action.kind == Kind::backward_weight) --now;
    most = std::max(most, now);
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

TEST(PipelineSchedule, EveryActionHappensOnceAndForwardsComeBeforeTheirBackwards) {
  for (const ScheduleKind kind : {gpipe, one_f_one_b, interleaved})
    for (const std::int64_t chunks : {1, 2, 3, 4}) {
      if (kind != interleaved && chunks > 1) continue;
      for (const std::int64_t stages : {1, 2, 4, 5})
        for (const std::int64_t rounds : {1, 2, 3})
          for (std::int64_t stage = 0; stage < stages; ++stage) {
            const std::int64_t micro_batches = rounds * stages;
            std::set<std::pair<std::int64_t, std::int64_t>> forward;
            std::set<std::pair<std::int64_t, std::int64_t>> backward;
            for (const PipelineAction& action : pipeline_schedule(kind, stage, stages, micro_batches, chunks)) {
              const std::pair which{action.micro_batch, action.chunk};
              if (action.kind == Kind::forward) {
                EXPECT_TRUE(forward.insert(which).second);
              } else {
                EXPECT_TRUE(backward.insert(which).second);
                EXPECT_TRUE(forward.contains(which));
              }
            }
            EXPECT_EQ(forward.size(), static_cast<std::size_t>(micro_batches * chunks));
            EXPECT_EQ(forward, backward);
          }
    }
}

TEST(PipelineSchedule, SplitBackwardPassesHappenOnceEachAndInOrder) {
  for (const ScheduleKind kind : {zb_h1, zb_h2})
    for (const std::int64_t stages : {1, 2, 4, 5})
      for (const std::int64_t micro_batches : {1, 2, 3, 8, 17})
        for (std::int64_t stage = 0; stage < stages; ++stage) {
          std::array<std::int64_t, 4> done{};
          for (const PipelineAction& action : pipeline_schedule(kind, stage, stages, micro_batches, 1)) {
            const auto index = static_cast<std::size_t>(action.kind);
            EXPECT_EQ(action.micro_batch, done.at(index)++);
            if (action.kind == Kind::forward) continue;
            EXPECT_LT(action.micro_batch, done.at(action.kind == Kind::backward_input ? 0 : 2));
          }
          EXPECT_EQ(done, (std::array<std::int64_t, 4>{micro_batches, 0, micro_batches, micro_batches}));
        }
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
}

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

// A step of nothing but schedule: a forward pass of a stage takes 1 ms, a backward one 2 ms, half of it for inputs and
// half for weights, shared evenly by its chunks; transfers take no time, but sender and receiver meet. A barrier ends
// the step, unless there is none.
class ScheduleOnly {
 public:
  ScheduleOnly(ScheduleKind kind, std::int64_t stages, std::int64_t micro_batches, std::int64_t chunks,
               bool barrier_at_end = true)
      : stages_(stages), chunks_(chunks), overlaps_(chunks > 1 || splits_backward(kind)) {
    using sim::CollectiveKind;
    using sim::Purpose;
    next_ = builder_.slot("next");
    previous_ = builder_.slot("previous");
    next_gradient_ = builder_.slot("gradient from next");
    previous_gradient_ = builder_.slot("gradient to previous");
    everyone_ = builder_.slot("everyone");
    barrier_stream_ = builder_.stream("barrier");
    for (std::size_t direction = 0; direction < 2; ++direction) {
      Direction& d = directions_.at(direction);
      const bool forward = direction == 0;
      d.send_stream = builder_.stream("send");
      d.receive_stream = builder_.stream("receive");
      d.send = builder_.call(forward ? next_ : previous_gradient_, CollectiveKind::send, {}, Purpose::pipeline);
      d.receive = builder_.call(forward ? previous_ : next_gradient_, CollectiveKind::receive, {}, Purpose::pipeline);
      const sim::Kernel work{.name = forward ? "forward" : "backward",
                             .duration = sim::Duration{std::chrono::milliseconds{forward ? 1 : 2}} / chunks};
      d.work = builder_.block(work.name, {}).compute({&work, 1}).finish();
      d.sent = builder_.block("send", {}).communicate(d.send_stream, d.send).finish();
      for (std::size_t turn = 0; turn < 2; ++turn) {
        const sim::EventRef arrived = builder_.event();
        d.posted.at(turn) =
            builder_.block("post", {}).communicate(d.receive_stream, d.receive, 0, {}, arrived).finish();
        d.awaited.at(turn) = builder_.block("await", {}).wait_for(arrived).finish();
      }
    }
    const sim::Kernel half{.name = "half a backward", .duration = std::chrono::milliseconds{1}};
    half_backward_ = builder_.block(half.name, {}).compute({&half, 1}).finish();
    const sim::CallId barrier = builder_.call(everyone_, CollectiveKind::barrier, {}, Purpose::data);
    barrier_ =
        builder_.block("end", {}).blocking(barrier_stream_, barrier).host_wait(sim::set_of(barrier_stream_)).finish();
    for (std::int64_t stage = 0; stage < stages; ++stage)
      write_program(stage, pipeline_schedule(kind, stage, stages, micro_batches, chunks), barrier_at_end);
    connect();
  }

  double milliseconds() const {
    const sim::Plan& plan = builder_.plan();
    const sim::Outcome outcome = sim::run(plan);
    EXPECT_EQ(outcome.stall, "");
    EXPECT_TRUE(outcome.steady);
    return sim::to_seconds(outcome.step_time) * 1e3;
  }

 private:
  struct Direction {
    sim::StreamId send_stream{}, receive_stream{};
    sim::CallId send{}, receive{};
    sim::BlockId work{}, sent{};
    std::array<sim::BlockId, 2> posted{}, awaited{};  // in turns
  };

  static std::size_t index(const PipelineAction& action) { return action.kind == Kind::forward ? 0 : 1; }
  bool first(std::int64_t stage, const PipelineAction& action) const { return stage == 0 && action.chunk == 0; }
  bool last(std::int64_t stage, const PipelineAction& action) const {
    return stage == stages_ - 1 && action.chunk == chunks_ - 1;
  }
  static bool transfers(const PipelineAction& action) { return action.kind != Kind::backward_weight; }
  sim::BlockId work(const PipelineAction& action) const {
    const bool half = action.kind == Kind::backward_input || action.kind == Kind::backward_weight;
    return half ? half_backward_ : directions_.at(index(action)).work;
  }
  bool receives(std::int64_t stage, const PipelineAction& action) const {
    if (!transfers(action)) return false;
    return action.kind == Kind::forward ? !first(stage, action) : !last(stage, action);
  }
  bool sends(std::int64_t stage, const PipelineAction& action) const {
    if (!transfers(action)) return false;
    return action.kind == Kind::forward ? !last(stage, action) : !first(stage, action);
  }

  void write_program(std::int64_t stage, const Actions& actions, bool barrier_at_end) {
    sim::Program program;
    if (overlaps_)
      write_overlapped(program, stage, actions);
    else
      write_blocking(program, stage, actions);
    if (barrier_at_end) program.calls.push_back({.block = barrier_});
    builder_.plan().programs.add(std::move(program));
  }

  // Between two actions one block sends what the first made and receives what the second needs; all wait for it.
  void write_blocking(sim::Program& program, std::int64_t stage, const Actions& actions) {
    std::optional<PipelineAction> done;
    const auto transfer = [&](const std::optional<PipelineAction>& next) {
      BlockWriter block = builder_.block("transfer", {});
      sim::StreamSet used = 0;
      const auto post = [&](sim::StreamId stream, sim::CallId call) {
        block.communicate(stream, call);
        used = static_cast<sim::StreamSet>(used | sim::set_of(stream));
      };
      if (done && sends(stage, *done))
        post(directions_.at(index(*done)).send_stream, directions_.at(index(*done)).send);
      if (next && receives(stage, *next))
        post(directions_.at(index(*next)).receive_stream, directions_.at(index(*next)).receive);
      if (used == 0) return;
      block.wait_for(used).host_wait(used);
      program.calls.push_back({.block = block.finish()});
    };
    for (const PipelineAction& action : actions) {
      transfer(action);
      program.calls.push_back({.block = directions_.at(index(action)).work});
      done = action;
    }
    transfer(std::nullopt);
  }

  // Receives are posted one action ahead, and nothing waits for a send.
  void write_overlapped(sim::Program& program, std::int64_t stage, const Actions& actions) {
    std::array<std::size_t, 2> posted{};
    std::array<std::size_t, 2> awaited{};
    const auto post = [&](const PipelineAction& action) {
      const std::size_t d = index(action);
      if (receives(stage, action)) program.calls.push_back({.block = directions_.at(d).posted.at(posted.at(d)++ % 2)});
    };
    std::size_t next = 0;
    for (std::size_t i = 0; i < actions.size(); ++i) {
      const std::size_t d = index(actions[i]);
      std::size_t ahead = i + 1;
      while (ahead < actions.size() && !transfers(actions[ahead])) ++ahead;
      while (next < std::min(ahead + 1, actions.size())) post(actions[next++]);
      if (receives(stage, actions[i]))
        program.calls.push_back({.block = directions_.at(d).awaited.at(awaited.at(d)++ % 2)});
      program.calls.push_back({.block = work(actions[i])});
      if (sends(stage, actions[i])) program.calls.push_back({.block = directions_.at(d).sent});
    }
  }

  // One rank per stage; with several chunks the last sends to the first.
  void connect() {
    sim::Plan& plan = builder_.plan();
    const auto ranks = static_cast<std::size_t>(stages_);
    plan.program_of = sim::Table<sim::RankId, sim::ProgramId>(ranks);
    plan.communicators = sim::CommunicatorTable(ranks, plan.slots.size());
    std::vector<sim::RankId> all;
    for (std::size_t i = 0; i < ranks; ++i) {
      const sim::RankId rank = plan.program_of.id(i);
      plan.program_of[rank] = plan.programs.id(i);
      all.push_back(rank);
      if (i + 1 == ranks && chunks_ == 1) continue;
      const sim::RankId next = plan.program_of.id((i + 1) % ranks);
      plan.communicators.add({rank, next}, {next_, previous_});
      plan.communicators.add({next, rank}, {previous_gradient_, next_gradient_});
    }
    plan.communicators.add(all, std::vector<sim::SlotId>(ranks, everyone_));
    plan.algorithms = {"none"};
    plan.costs.add(std::vector<sim::CommunicationCost>(plan.calls.size()));
  }

  std::int64_t stages_;
  std::int64_t chunks_;
  bool overlaps_;
  mutable PlanBuilder builder_;
  sim::SlotId next_{}, previous_{}, next_gradient_{}, previous_gradient_{}, everyone_{};
  sim::StreamId barrier_stream_{};
  std::array<Direction, 2> directions_;  // activations, gradients
  sim::BlockId half_backward_{}, barrier_{};
};

double makespan(ScheduleKind kind, std::int64_t stages, std::int64_t micro_batches, std::int64_t chunks = 1) {
  return ScheduleOnly(kind, stages, micro_batches, chunks).milliseconds();
}

struct Makespans {
  std::int64_t stages;
  std::int64_t micro_batches;
  double plain;  // GPipe and 1F1B
  double two_chunks;
  double four_chunks;
  double zero_bubble_h1;

  friend void PrintTo(const Makespans& makespans, std::ostream* stream) {
    *stream << makespans.stages << " stages, " << makespans.micro_batches << " micro-batches";
  }
};
class PipelineMakespan : public testing::TestWithParam<Makespans> {};

TEST_P(PipelineMakespan, OfGPipeIsTheMicroBatchesAndTheBubble) {
  EXPECT_DOUBLE_EQ(makespan(gpipe, GetParam().stages, GetParam().micro_batches), GetParam().plain);
}
TEST_P(PipelineMakespan, OfOneForwardOneBackwardIsThatOfGPipe) {
  EXPECT_DOUBLE_EQ(makespan(one_f_one_b, GetParam().stages, GetParam().micro_batches), GetParam().plain);
}
TEST_P(PipelineMakespan, OfInterleavedHasABubbleDividedByTheChunks) {
  EXPECT_DOUBLE_EQ(makespan(interleaved, GetParam().stages, GetParam().micro_batches, 2), GetParam().two_chunks);
  EXPECT_DOUBLE_EQ(makespan(interleaved, GetParam().stages, GetParam().micro_batches, 4), GetParam().four_chunks);
}

TEST_P(PipelineMakespan, OfZeroBubbleH1HasAThirdOfTheBubble) {
  EXPECT_DOUBLE_EQ(makespan(zb_h1, GetParam().stages, GetParam().micro_batches), GetParam().zero_bubble_h1);
}
// With passes of equal length no stage is ever idle between its first and its last action: step follows step after
// three passes for each micro-batch, and only a barrier, which stages reach one pass after the other, costs time.
TEST_P(PipelineMakespan, OfZeroBubbleH2HasNoBubbleWithoutABarrier) {
  const auto stages = GetParam().stages;
  const auto micro_batches = GetParam().micro_batches;
  EXPECT_DOUBLE_EQ(ScheduleOnly(zb_h2, stages, micro_batches, 1, false).milliseconds(),
                   static_cast<double>(3 * micro_batches));
  EXPECT_DOUBLE_EQ(makespan(zb_h2, stages, micro_batches), static_cast<double>(3 * micro_batches + stages - 1));
}

INSTANTIATE_TEST_SUITE_P(Golden, PipelineMakespan,
                         testing::Values(Makespans{4, 8, 33, 28.5, 26.25, 27}, Makespans{8, 16, 69, 58.5, 53.25, 55},
                                         Makespans{8, 32, 117, 106.5, 101.25, 103},
                                         Makespans{16, 64, 237, 214.5, 203.25, 207}),
                         [](const testing::TestParamInfo<Makespans>& test) {
                           return std::to_string(test.param.stages) + "Stages" +
                                  std::to_string(test.param.micro_batches) + "MicroBatches";
                         });

}  // namespace
}  // namespace trainyard::strategies
