// What pipeline stages issue between their passes, in each manner.
#include "strategies/internal/pipeline_transfers.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace trainyard::strategies {
namespace {

using Kind = PipelineAction::Kind;
using Lines = std::vector<std::string>;

struct Pipeline {
  ScheduleKind schedule = ScheduleKind::one_forward_one_backward;
  std::int64_t stages = 2;
  std::int64_t micro_batches = 2;
  std::int64_t chunks = 1;
  std::int64_t group = 0;
  bool overlaps_passes = false;

  std::vector<PipelineAction> actions(std::int64_t stage) const {
    std::vector<PipelineAction> actions = pipeline_schedule(schedule, stage, stages, micro_batches, chunks, group);
    return overlaps_passes ? with_passes_overlapped(actions) : actions;
  }
};

// The program of a stage in words: a line for each block call, passes as F0 and B0 of micro-batch 0.
class Written {
 public:
  Written(const Pipeline& pipeline, std::int64_t stage, PipelineTransfers::Manner manner, bool gathers = false) {
    PipelineMessages messages{.activations = {.bytes = sim::Bytes{8}}, .gradients = {.bytes = sim::Bytes{8}}};
    if (gathers) messages.activations.arrival = builder_.block("gather", {}).finish();
    manner.group = pipeline.group;
    PipelineTransfers transfers(builder_, {pipeline.schedule, pipeline.stages, pipeline.chunks}, messages, manner);
    transfers.write(program_, stage, pipeline.actions(stage), [&](const PipelineAction& action) {
      std::string name;
      for (const PipelineAction& pass : action.passes())
        name += (pass.kind == Kind::forward ? "F" : "B") + std::to_string(pass.micro_batch);
      program_.calls.push_back({.block = builder_.block(name, {}).finish()});
    });
  }

  Lines lines() {
    Lines lines;
    for (const sim::BlockCall& call : program_.calls) {
      const sim::Block& block = builder_.plan().blocks[call.block];
      std::string words;
      for (const sim::Op& op : block.ops) words += (words.empty() ? "" : ", ") + words_of(op);
      lines.push_back(block.ops.empty() ? block.name : words);
    }
    return lines;
  }

  // Events that a receive records while one that recorded them before is still to be waited for.
  std::int64_t events_overtaken() {
    std::map<std::uint16_t, int> open;
    std::int64_t overtaken = 0;
    for (const sim::BlockCall& call : program_.calls) {
      for (const sim::Op& op : builder_.plan().blocks[call.block].ops) {
        if (op.records && ++open[op.records->index] > 1) ++overtaken;
        for (const sim::EventRef event : op.waits) --open[event.index];
      }
    }
    return overtaken;
  }

 private:
  std::string words_of(const sim::Op& op) {
    sim::Plan& plan = builder_.plan();
    if (const auto* communicate = std::get_if<sim::Communicate>(&op.work)) {
      const sim::Call& call = plan.calls[communicate->call];
      return (call.kind == sim::CollectiveKind::send ? "send " : "receive ") + plan.slots[call.slot];
    }
    return std::holds_alternative<sim::HostWait>(op.work) ? "host waits" : "wait";
  }

  PlanBuilder builder_;
  sim::Program program_;
};

constexpr PipelineTransfers::Manner at_once{.order = TransferOrder::at_once};
constexpr PipelineTransfers::Manner in_pairs{.order = TransferOrder::in_pairs};
constexpr PipelineTransfers::Manner in_turns{.order = TransferOrder::in_turns};
constexpr PipelineTransfers::Manner ahead{.order = TransferOrder::ahead};

TEST(PipelineTransfers, AtOnceSendAndReceiveInOneBatchBetweenTwoPasses) {
  EXPECT_EQ(Written({}, 0, at_once).lines(),
            (Lines{"F0", "send next stage, wait", "F1", "send next stage, receive gradient from next stage, wait", "B0",
                   "receive gradient from next stage, wait", "B1"}));
}

TEST(PipelineTransfers, InTurnsReceiveTheGradientOfTheSameStepBeforeTheySend) {
  EXPECT_EQ(Written({}, 0, in_turns).lines(),
            (Lines{"F0", "send next stage, wait", "F1", "receive gradient from next stage, wait",
                   "send next stage, wait", "B0", "receive gradient from next stage, wait", "B1"}));
  EXPECT_EQ(Written({}, 1, in_turns).lines(),
            (Lines{"receive previous stage, wait", "F0", "B0", "send gradient to previous stage, wait",
                   "receive previous stage, wait", "F1", "B1", "send gradient to previous stage, wait"}));
}

// Stages of two chunks: the first makes four of its eight forward passes before the first backward one.
TEST(PipelineTransfers, InPairsLeaveAForwardPassAndTheBackwardPassBehindItTogether) {
  const Lines lines =
      Written({.schedule = ScheduleKind::interleaved, .micro_batches = 4, .chunks = 2}, 0, in_pairs).lines();
  const auto first = std::ranges::find(lines, "B0");
  ASSERT_GE(first - lines.begin(), 8);
  EXPECT_EQ(
      (Lines{first - 2, first + 4}),
      (Lines{"send next stage, receive gradient from next stage, wait", "F2", "B0",
             "send next stage, send gradient to previous stage, receive gradient from next stage, wait", "F3", "B1"}));
}

TEST(PipelineTransfers, AheadPostReceivesOnePassAheadAndWaitForNoSend) {
  EXPECT_EQ(Written({}, 1, ahead).lines(),
            (Lines{"receive previous stage", "wait", "F0", "receive previous stage", "B0",
                   "send gradient to previous stage", "wait", "F1", "B1", "send gradient to previous stage"}));
}

TEST(PipelineTransfers, LetTheHostWaitOnlyWhereToldTo) {
  PipelineTransfers::Manner manner = at_once;
  manner.host_waits = true;
  EXPECT_EQ(Written({}, 1, manner).lines().front(), "receive previous stage, wait, host waits");
}

// Activations arrive at the second stage, gradients at the first.
TEST(PipelineTransfers, CallWhatFollowsAnArrivalRightBeforeThePassThatNeedsIt) {
  for (const PipelineTransfers::Manner& manner : {at_once, in_turns, ahead}) {
    Lines lines = Written({}, 1, manner, true).lines();
    for (std::size_t i = 0; i < lines.size(); ++i)
      EXPECT_EQ(lines[i] == "gather", i + 1 < lines.size() && lines[i + 1].starts_with("F"));
    std::erase(lines, "gather");
    EXPECT_EQ(lines, Written({}, 1, manner).lines());
    EXPECT_EQ(Written({}, 0, manner, true).lines(), Written({}, 0, manner).lines());
  }
}

TEST(PipelineTransfers, OfOneStageAreNone) {
  for (const PipelineTransfers::Manner& manner : {at_once, in_turns, ahead})
    EXPECT_EQ(Written({.stages = 1}, 0, manner, true).lines(), (Lines{"F0", "B0", "F1", "B1"}));
}

// As many as are posted ahead, and the one that is waited for; in groups of more micro-batches than stages too.
TEST(PipelineTransfers, HaveAnEventForEveryOpenReceive) {
  for (const bool overlaps_passes : {false, true}) {
    for (const std::int64_t group : {4, 6, 8}) {
      for (std::int64_t stage = 0; stage < 4; ++stage) {
        const Pipeline pipeline{.schedule = ScheduleKind::interleaved,
                                .stages = 4,
                                .micro_batches = 24,
                                .chunks = 3,
                                .group = group,
                                .overlaps_passes = overlaps_passes};
        EXPECT_EQ(Written(pipeline, stage, ahead).events_overtaken(), 0) << group << ' ' << stage;
      }
    }
  }
}

}  // namespace
}  // namespace trainyard::strategies
