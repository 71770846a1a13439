// What a sink gets while a plan runs: the records that the outcome would hold, in an order that needs no memory.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "sim/executor.hpp"
#include "tests/support/plan_sketch.hpp"

namespace trainyard::sim {
namespace {

using tests::communicate;
using tests::next;
using tests::PlanSketch;
using tests::previous;
using tests::rank;
using tests::side;
using tests::wait_for;

// Keeps everything, and how it came.
class Listener final : public RecordSink {
 public:
  void begin(const Plan& plan) override { plan_ = &plan; }
  void take(std::uint32_t repetition, std::span<const OpRecord> operations) override {
    EXPECT_NE(plan_, nullptr);
    EXPECT_FALSE(operations.empty());
    largest_ = std::max(largest_, operations.size());
    for (const OpRecord& record : operations) {
      records_[repetition].push_back(record);
      TimePoint& latest = latest_[{repetition, record.rank, record.stream}];
      EXPECT_LE(latest, record.start);
      EXPECT_LE(record.start, record.end);
      latest = record.end;
    }
  }
  void take(std::uint32_t repetition, const MemoryRecord& memory) override { memory_[repetition].push_back(memory); }
  void drop(std::uint32_t repetition) override {
    records_.erase(repetition);
    memory_.erase(repetition);
    ++dropped_;
  }

  std::vector<OpRecord> records() const {
    EXPECT_EQ(records_.size(), 1U);
    std::vector<OpRecord> records = records_.begin()->second;
    std::ranges::sort(records, {}, [](const OpRecord& record) {
      return std::tuple{record.rank, record.call, record.op};
    });
    return records;
  }
  std::vector<MemoryRecord> memory() const {
    EXPECT_EQ(memory_.size(), 1U);
    std::vector<MemoryRecord> memory = memory_.begin()->second;
    std::ranges::stable_sort(memory, {}, &MemoryRecord::rank);
    return memory;
  }
  std::size_t largest() const { return largest_; }
  int dropped() const { return dropped_; }

 private:
  const Plan* plan_ = nullptr;
  std::map<std::uint32_t, std::vector<OpRecord>> records_;
  std::map<std::uint32_t, std::vector<MemoryRecord>> memory_;
  std::map<std::tuple<std::uint32_t, RankId, StreamId>, TimePoint> latest_;
  std::size_t largest_ = 0;
  int dropped_ = 0;
};

auto fields_of(const OpRecord& record) {
  return std::tuple{record.rank,         record.stream, record.block,       record.call,
                    record.op,           record.layer,  record.start,       record.transfer,
                    record.communicator, record.end,    record.micro_batch, record.sequence};
}

Listener expect_what_the_outcome_holds(const Plan& plan, const std::vector<RankId>& ranks, bool fold = true) {
  const Outcome outcome = run(plan, {.record = ranks, .fold = fold});
  Listener listener;
  const Outcome without = run(plan, {.sink = &listener, .sink_ranks = ranks, .fold = fold});
  EXPECT_TRUE(without.records.empty());
  EXPECT_TRUE(without.memory.empty());
  EXPECT_EQ(without.step_time, outcome.step_time);
  EXPECT_EQ(without.measured_from, outcome.measured_from);
  const std::vector<OpRecord> records = listener.records();
  EXPECT_EQ(records.size(), outcome.records.size());
  for (std::size_t i = 0; i < std::min(records.size(), outcome.records.size()); ++i)
    EXPECT_EQ(fields_of(records[i]), fields_of(outcome.records[i])) << i;
  const std::vector<MemoryRecord> memory = listener.memory();
  EXPECT_EQ(memory.size(), outcome.memory.size());
  for (std::size_t i = 0; i < std::min(memory.size(), outcome.memory.size()); ++i) {
    EXPECT_EQ(memory[i].when, outcome.memory[i].when) << i;
    EXPECT_EQ(memory[i].allocated, outcome.memory[i].allocated) << i;
  }
  return listener;
}

Op allocation(std::int64_t bytes) { return {.work = Memory{MemoryPurpose::activations, Bytes{bytes}}}; }

// Three stages of two ranks each, which send on and reduce among themselves.
Plan pipeline() {
  PlanSketch sketch(6);
  for (std::uint32_t stage = 0; stage < 3; ++stage) sketch.join({2 * stage, 2 * stage + 1});
  for (std::uint32_t from = 0; from < 4; ++from) sketch.connect(from, from + 2);
  const CallId send = sketch.call(5, next, CollectiveKind::send);
  const CallId receive = sketch.call(5, previous, CollectiveKind::receive);
  const CallId reduce = sketch.call(11);
  for (std::uint32_t stage = 0; stage < 3; ++stage) {
    std::vector<Op> ops;
    if (stage > 0) ops.push_back(communicate(receive, side, tests::after_compute));
    ops.insert(ops.end(), {wait_for(tests::after_side), allocation(8), sketch.kernel(10 + stage), sketch.kernel(3),
                           allocation(-8), sketch.kernel(2, tests::third)});
    if (stage < 2) ops.push_back(communicate(send, side, tests::after_compute));
    ops.push_back(communicate(reduce, compute_stream, tests::after_side | tests::after_third));
    sketch.runs({2 * stage, 2 * stage + 1}, ops, 1);
  }
  return sketch.finished();
}

TEST(RecorderTest, ASinkGetsWhatTheOutcomeWouldHold) {
  const Plan plan = pipeline();
  for (const bool fold : {true, false}) {
    const Listener listener = expect_what_the_outcome_holds(plan, tests::all_ranks(plan), fold);
    EXPECT_GT(listener.dropped(), 1);  // at least one step before the steady one, and what ranks ran ahead
  }
  expect_what_the_outcome_holds(plan, {rank(3)});
  expect_what_the_outcome_holds(plan, {rank(5), rank(0), rank(5)});
}

TEST(RecorderTest, ASinkGetsNoMoreAtOnceThanAStepOrACommunication) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId reduce = sketch.call(7);
  const BlockId block =
      sketch.block({sketch.kernel(10), sketch.kernel(20), communicate(reduce, side, tests::after_compute)});
  sketch.program(std::vector<BlockCall>(1000, {.block = block}));
  const Plan& plan = sketch.finished();
  const Listener listener = expect_what_the_outcome_holds(plan, tests::all_ranks(plan));
  EXPECT_EQ(listener.records().size(), 2 * 3000U);
  EXPECT_EQ(listener.largest(), 4U);  // two kernels, of two ranks that are simulated once
}

TEST(RecorderTest, MembersOfACommunicationComeTogether) {
  class Members final : public RecordSink {
   public:
    void begin(const Plan& /*plan*/) override {}
    void take(std::uint32_t /*repetition*/, std::span<const OpRecord> operations) override {
      if (operations.front().stream == side) sizes.push_back(operations.size());
    }
    void take(std::uint32_t /*repetition*/, const MemoryRecord& /*memory*/) override {}
    void drop(std::uint32_t /*repetition*/) override {}
    std::vector<std::size_t> sizes;
  };
  PlanSketch sketch(3);
  sketch.join({0, 1, 2});
  const CallId reduce = sketch.call(7);
  for (std::uint32_t r = 0; r < 3; ++r)
    sketch.runs({r},
                {sketch.kernel(10 + r), communicate(reduce, side, tests::after_compute), wait_for(tests::after_side)});
  Members members;
  run(sketch.finished(), {.sink = &members, .sink_ranks = {rank(0), rank(2)}, .most_steps = 1});
  EXPECT_EQ(members.sizes, (std::vector<std::size_t>{2}));
}

TEST(RecorderTest, KernelsThatAreSlowedComeWhenTheirEndIsKnown) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId reduce = sketch.call(50);
  sketch.runs({0, 1}, {sketch.kernel(10), communicate(reduce, side, tests::after_compute), allocation(4),
                       sketch.kernel(30), allocation(-4), sketch.kernel(30), wait_for(tests::after_side)});
  sketch.finished();
  sketch.plan.costs[CostClassId{0}][0].interference = whole_speed / 2;
  const Listener listener = expect_what_the_outcome_holds(sketch.plan, tests::all_ranks(sketch.plan));
  const std::vector<OpRecord> records = listener.records();
  EXPECT_GT((records.at(2).end - records.at(2).start).count(), 30);
}

TEST(RecorderTest, ARankMayBeThroughWithTheLastStepBeforeItsStreamsAre) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId reduce = sketch.call(7);
  for (std::uint32_t r = 0; r < 2; ++r) sketch.runs({r}, {sketch.kernel(10 + r), communicate(reduce, compute_stream)});
  const Plan& plan = sketch.finished();
  for (const int most_steps : {1, 2, 3}) {
    Listener listener;
    run(plan, {.sink = &listener, .sink_ranks = tests::all_ranks(plan), .most_steps = most_steps});
    EXPECT_EQ(listener.records().size(), 4U);
    EXPECT_EQ(listener.memory().size(), 2U);
  }
}

TEST(RecorderTest, TheOutcomeAndASinkMayFollowDifferentRanks) {
  const Plan plan = pipeline();
  Listener listener;
  const Outcome outcome =
      run(plan, {.record = {rank(1)}, .sink = &listener, .sink_ranks = {rank(0), rank(1), rank(4)}});
  for (const OpRecord& record : outcome.records) EXPECT_EQ(record.rank, rank(1));
  const std::vector<OpRecord> records = listener.records();
  EXPECT_EQ(std::ranges::count(records, rank(1), &OpRecord::rank), static_cast<std::ptrdiff_t>(outcome.records.size()));
  EXPECT_GT(std::ranges::count(records, rank(4), &OpRecord::rank), 0);
}

}  // namespace
}  // namespace trainyard::sim
