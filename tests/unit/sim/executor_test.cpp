#include "sim/executor.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/plan_sketch.hpp"

namespace trainyard::sim {
namespace {

using tests::absolute;
using tests::after_compute;
using tests::after_side;
using tests::after_third;
using tests::communicate;
using tests::exposed_ps;
using tests::first_step;
using tests::group;
using tests::kernels_ps;
using tests::next;
using tests::PlanSketch;
using tests::previous;
using tests::ps;
using tests::rank;
using tests::recording;
using tests::relative;
using tests::side;
using tests::Span;
using tests::spans;
using tests::sum_of;
using tests::third;
using tests::wait_for;
using tests::waiting;
using Spans = std::vector<Span>;

Op host_work(std::int64_t duration_ps) { return {.work = HostWork{Duration{duration_ps}}}; }
Op host_wait(StreamSet streams) { return {.work = HostWait{}, .after = streams}; }
Op memory(MemoryPurpose purpose, std::int64_t bytes) { return {.work = Memory{purpose, Bytes{bytes}}}; }

// Streams

TEST(ExecutorTest, KernelsOfAStreamRunOneAfterTheOther) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(10), sketch.kernel(20), sketch.kernel(5)});
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(spans(outcome), (Spans{{0, 10}, {10, 30}, {30, 35}}));
  EXPECT_EQ(outcome.step_time, Duration{35});
}

TEST(ExecutorTest, StreamsRunSideBySide) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(10), sketch.kernel(25, side), sketch.kernel(10), sketch.kernel(5, third)});
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{0, 10}, {0, 25}, {10, 20}, {0, 5}}));
}

TEST(ExecutorTest, AnOperationWaitsForWhatWasIssuedSoFarOnAStream) {
  PlanSketch sketch(1);
  Op copy = sketch.kernel(5, side);
  copy.after = after_compute;
  sketch.runs({0}, {sketch.kernel(10), copy, sketch.kernel(100)});
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{0, 10}, {10, 15}, {10, 110}}));
}

TEST(ExecutorTest, AnOperationWaitsForAllStreamsOfItsSet) {
  PlanSketch sketch(1);
  Op last = sketch.kernel(1);
  last.after = static_cast<StreamSet>(after_side | after_third);
  sketch.runs({0}, {sketch.kernel(30, side), sketch.kernel(40, third), last});
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{0, 30}, {0, 40}, {40, 41}}));
}

// Events

TEST(ExecutorTest, AnEventHappensAtTheEndOfWhatRecordsIt) {
  PlanSketch sketch(1);
  sketch.runs({0}, {recording(sketch.kernel(10), absolute(2)), sketch.kernel(50),
                    waiting(sketch.kernel(5, side), absolute(2))});
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{0, 10}, {10, 60}, {10, 15}}));
}

TEST(ExecutorTest, AKernelInTheMiddleOfARunWaitsForItsEvent) {
  PlanSketch sketch(1);
  sketch.runs({0}, {recording(sketch.kernel(100, side), absolute(1)), sketch.kernel(10),
                    waiting(sketch.kernel(10), absolute(1)), sketch.kernel(10)});
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{0, 100}, {0, 10}, {100, 110}, {110, 120}}));
}

TEST(ExecutorTest, AnEventThatWasNeverRecordedHoldsNothingUp) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(10), waiting(sketch.kernel(5, side), absolute(2))});
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{0, 10}, {0, 5}}));
}

TEST(ExecutorTest, AWaitMeansTheLatestRecordOfItsEvent) {
  PlanSketch sketch(1);
  sketch.runs({0}, {recording(sketch.kernel(10), absolute(0)), waiting(sketch.kernel(1, third), absolute(0)),
                    recording(sketch.kernel(20), absolute(0)), waiting(sketch.kernel(5, side), absolute(0))});
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{0, 10}, {10, 11}, {10, 30}, {30, 35}}));
}

TEST(ExecutorTest, ACommunicationRecordsAnEventOnEveryMember) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const Op gather = recording(communicate(sketch.call(7), side), absolute(1));
  sketch.runs({0}, {gather, waiting(sketch.kernel(1), absolute(1))});
  Op late = gather;
  late.after = after_compute;
  sketch.runs({1}, {sketch.kernel(20), late, waiting(sketch.kernel(1, third), absolute(1))});
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(spans(outcome, 0), (Spans{{0, 27}, {27, 28}}));
  EXPECT_EQ(spans(outcome, 1), (Spans{{0, 20}, {20, 27}, {27, 28}}));
}

TEST(ExecutorTest, RelativeEventsAreTakenInTurns) {
  PlanSketch sketch(1);
  const BlockId gather = sketch.block({recording(sketch.kernel(10, side), relative(0))});
  const BlockId use = sketch.block({waiting(sketch.kernel(1), relative(0))});
  // Of two events, shift 2 is the first again.
  sketch.program({{.block = gather, .event_shift = 0},
                  {.block = gather, .event_shift = 1},
                  {.block = use, .event_shift = 0},
                  {.block = use, .event_shift = 1},
                  {.block = gather, .event_shift = 2},
                  {.block = gather, .event_shift = 3},
                  {.block = use, .event_shift = 0}});
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{0, 10}, {10, 20}, {10, 11}, {20, 21}, {20, 30}, {30, 40}, {30, 31}}));
}

TEST(ExecutorTest, RelativeAndAbsoluteEventsAreDifferent) {
  PlanSketch sketch(1);
  sketch.runs({0}, {recording(sketch.kernel(10), absolute(0)), recording(sketch.kernel(10), relative(0)),
                    waiting(sketch.kernel(1, side), absolute(0)), waiting(sketch.kernel(1, third), relative(0))});
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{0, 10}, {10, 20}, {10, 11}, {20, 21}}));
}

TEST(ExecutorTest, AnAbsoluteEventIsNotShifted) {
  PlanSketch sketch(1);
  const BlockId first = sketch.block({recording(sketch.kernel(10), absolute(0))});
  const BlockId second = sketch.block({waiting(sketch.kernel(1, side), absolute(0))});
  sketch.program({{.block = first, .event_shift = 1}, {.block = second, .event_shift = 2}});
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{0, 10}, {10, 11}}));
}

// The host

TEST(ExecutorTest, AKernelStartsOnceTheHostHasLaunchedIt) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(1), sketch.kernel(1), sketch.kernel(1, side)}, 10);
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{10, 11}, {20, 21}, {30, 31}}));
}

TEST(ExecutorTest, TheHostRunsAheadOfLongKernels) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(1), sketch.kernel(100), sketch.kernel(1), sketch.kernel(1)}, 10);
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(spans(outcome), (Spans{{10, 11}, {20, 120}, {120, 121}, {121, 122}}));
  EXPECT_EQ(ps(outcome.time.host), 10 + 9);
}

TEST(ExecutorTest, BlocksHaveTheirOwnLaunchTime) {
  PlanSketch sketch(1);
  const BlockId slow = sketch.block({sketch.kernel(1)}, 100);
  const BlockId fast = sketch.block({sketch.kernel(1)}, 10);
  sketch.program({{.block = fast}, {.block = slow}, {.block = fast}});
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{10, 11}, {110, 111}, {120, 121}}));
}

TEST(ExecutorTest, ACommunicationIsLaunchedByTheHostToo) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  sketch.runs({0, 1}, {communicate(sketch.call(5), side), communicate(sketch.call(5), side)}, 10);
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{10, 15}, {20, 25}}));
}

TEST(ExecutorTest, ABusyHostDelaysWhatItIssuesNext) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(30), host_work(50), sketch.kernel(5)}, 1);
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{1, 31}, {52, 57}}));
}

TEST(ExecutorTest, AWaitHoldsItsStreamAndNotTheHost) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(100, side), wait_for(after_side), sketch.kernel(1), sketch.kernel(1, third)}, 2);
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{2, 102}, {102, 103}, {6, 7}}));
}

TEST(ExecutorTest, AWaitForAnEventHoldsAllThatFollowsOnItsStream) {
  PlanSketch sketch(1);
  sketch.runs({0}, {recording(sketch.kernel(40), absolute(0)), sketch.kernel(100), wait_for(absolute(0), side),
                    sketch.kernel(1, side), sketch.kernel(1, side)});
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{0, 40}, {40, 140}, {40, 41}, {41, 42}}));
}

TEST(ExecutorTest, SeveralWaitsHoldForAllOfThem) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(30, side), sketch.kernel(20, third), wait_for(after_side), wait_for(after_third),
                    sketch.kernel(1)});
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{0, 30}, {0, 20}, {30, 31}}));
}

TEST(ExecutorTest, AHostWaitHoldsAllThatIsIssuedAfterIt) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(100, side), host_wait(after_side), sketch.kernel(1), sketch.kernel(1, third)}, 2);
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{2, 102}, {104, 105}, {106, 107}}));
}

TEST(ExecutorTest, AHostWaitAlsoWaitsForItsOwnStream) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(100),
                    sketch.kernel(10, side),
                    {.stream = side, .work = HostWait{}},
                    sketch.kernel(1, third),
                    host_wait(0),
                    sketch.kernel(1, third)});
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{0, 100}, {0, 10}, {10, 11}, {100, 101}}));
}

TEST(ExecutorTest, AHostWaitForWhatIsDoneCostsNothing) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(3), host_work(50), host_wait(after_compute), sketch.kernel(1)}, 1);
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{1, 4}, {52, 53}}));
}

// Communication

TEST(ExecutorTest, ACollectiveStartsWhenItsLastMemberArrivesAndEndsForAllTogether) {
  PlanSketch sketch(3);
  const CommunicatorId everyone = sketch.join({0, 1, 2});
  const CallId reduce = sketch.call(7);
  const std::vector<std::int64_t> before{10, 30, 20};
  for (std::uint32_t r = 0; r < 3; ++r)
    sketch.runs({r}, {sketch.kernel(before[r]), communicate(reduce, side, after_compute), wait_for(after_side),
                      sketch.kernel(1)});
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(spans(outcome, 0), (Spans{{0, 10}, {10, 37}, {37, 38}}));
  EXPECT_EQ(spans(outcome, 1), (Spans{{0, 30}, {30, 37}, {37, 38}}));
  EXPECT_EQ(spans(outcome, 2), (Spans{{0, 20}, {20, 37}, {37, 38}}));
  for (const std::size_t i : {1U, 4U, 7U}) {
    EXPECT_EQ(outcome.records.at(i).transfer, TimePoint{Duration{30}});
    EXPECT_EQ(outcome.records.at(i).communicator, everyone);
  }
  EXPECT_EQ(outcome.communications, 1U);
}

TEST(ExecutorTest, GroupsOfASlotDoNotWaitForEachOther) {
  PlanSketch sketch(4);
  sketch.join({0, 1});
  sketch.join({2, 3});
  const CallId reduce = sketch.call(5);
  sketch.runs({0, 1, 2}, {communicate(reduce, side, after_compute)});
  sketch.runs({3}, {sketch.kernel(100), communicate(reduce, side, after_compute)});
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(spans(outcome, 0), (Spans{{0, 5}}));
  EXPECT_EQ(spans(outcome, 2), (Spans{{0, 105}}));
}

TEST(ExecutorTest, ACommunicatorsCostIsItsOwn) {
  PlanSketch sketch(4);
  const CommunicatorId near = sketch.join({0, 1});
  const CommunicatorId far = sketch.join({2, 3});
  const CallId reduce = sketch.call(5);
  sketch.runs({0, 1, 2, 3}, {communicate(reduce, side)});
  sketch.finished();
  sketch.plan.communicators[far].cost = sketch.plan.costs.add({{.duration = Duration{50}}});
  const Outcome outcome = run(sketch.plan, {.record = tests::all_ranks(sketch.plan), .most_steps = 1});
  EXPECT_EQ(sketch.plan.communicators[near].cost, CostClassId{0});
  EXPECT_EQ(spans(outcome, 1), (Spans{{0, 5}}));
  EXPECT_EQ(spans(outcome, 3), (Spans{{0, 50}}));
}

TEST(ExecutorTest, TwoStreamsOnOneCommunicatorTakeTurns) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId first = sketch.call(10);
  const CallId second = sketch.call(20);
  sketch.runs({0, 1}, {communicate(first, side), communicate(second, third)});
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(spans(outcome, 0), (Spans{{0, 10}, {10, 30}}));
  EXPECT_EQ(outcome.records.at(1).transfer, TimePoint{Duration{10}});
  EXPECT_EQ(outcome.records.at(0).sequence + 1, outcome.records.at(1).sequence);
}

TEST(ExecutorTest, TwoStreamsOnTwoCommunicatorsRunSideBySide) {
  PlanSketch sketch(2);
  sketch.join({0, 1}, group);
  sketch.join({0, 1}, next);
  const CallId first = sketch.call(10, group);
  const CallId second = sketch.call(20, next);
  sketch.runs({0, 1}, {communicate(first, side), communicate(second, third)});
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{0, 10}, {0, 20}}));
}

TEST(ExecutorTest, AReceiverWaitsForItsSender) {
  PlanSketch sketch(2);
  sketch.connect(0, 1);
  const CallId send = sketch.call(5, next, CollectiveKind::send);
  const CallId receive = sketch.call(5, previous, CollectiveKind::receive);
  sketch.runs({0}, {sketch.kernel(10), communicate(send, side, after_compute), sketch.kernel(3)});
  sketch.runs({1}, {communicate(receive, side), wait_for(after_side), sketch.kernel(1)});
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(spans(outcome, 0), (Spans{{0, 10}, {10, 15}, {10, 13}}));
  EXPECT_EQ(spans(outcome, 1), (Spans{{0, 15}, {15, 16}}));
}

TEST(ExecutorTest, ASenderWaitsForItsReceiver) {
  PlanSketch sketch(2);
  sketch.connect(0, 1);
  const CallId send = sketch.call(5, next, CollectiveKind::send);
  const CallId receive = sketch.call(5, previous, CollectiveKind::receive);
  sketch.runs({0}, {communicate(send, side), wait_for(after_side), sketch.kernel(1)});
  sketch.runs({1}, {sketch.kernel(10), communicate(receive, side, after_compute)});
  EXPECT_EQ(spans(first_step(sketch), 0), (Spans{{0, 15}, {15, 16}}));
}

TEST(ExecutorTest, APipelinePassesOnFromStageToStage) {
  PlanSketch sketch(3);
  sketch.connect(0, 1);
  sketch.connect(1, 2);
  const CallId send = sketch.call(5, next, CollectiveKind::send);
  const CallId receive = sketch.call(5, previous, CollectiveKind::receive);
  const Op get = communicate(receive, side);
  const Op put = communicate(send, third, after_compute);
  sketch.runs({0}, {sketch.kernel(10), put});
  sketch.runs({1}, {get, wait_for(after_side), sketch.kernel(10), put});
  sketch.runs({2}, {get, wait_for(after_side), sketch.kernel(10)});
  EXPECT_EQ(spans(first_step(sketch), 2), (Spans{{0, 30}, {30, 40}}));
}

// Where the time of the compute stream goes

TEST(ExecutorTest, WaitingForAnotherRankIsABubbleAndForTheTransferExposed) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId reduce = sketch.call(5);
  sketch.runs({0}, {sketch.kernel(10), communicate(reduce, side, after_compute), wait_for(after_side)});
  sketch.runs({1}, {sketch.kernel(30), communicate(reduce, side, after_compute), wait_for(after_side)});
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(kernels_ps(outcome, KernelClass::matmul), 40);
  EXPECT_EQ(ps(outcome.time.bubble), 20);
  EXPECT_EQ(exposed_ps(outcome, Purpose::tensor), 5 + 5);
  EXPECT_EQ(ps(outcome.calls[reduce].exposed), 5 + 5);
  EXPECT_EQ(ps(outcome.calls[reduce].busy), 5 + 5);
  EXPECT_EQ(ps(outcome.time.host), 0);
}

TEST(ExecutorTest, OnlyTheRestOfATransferIsExposed) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId reduce = sketch.call(50, group, CollectiveKind::all_reduce, Purpose::data);
  sketch.runs({0, 1}, {communicate(reduce, side), sketch.kernel(40), wait_for(after_side), sketch.kernel(1)});
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(exposed_ps(outcome, Purpose::data), 2 * 10);
  EXPECT_EQ(exposed_ps(outcome, Purpose::tensor), 0);
  EXPECT_EQ(ps(outcome.calls[reduce].busy), 2 * 50);
  EXPECT_EQ(ps(outcome.time.bubble), 0);
}

TEST(ExecutorTest, WaitingForATransferThatTheHostIssuesLateIsWaitingForTheHost) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId gather = sketch.call(5, group, CollectiveKind::all_gather, Purpose::data);
  // Both are free at 10; the host comes at 40.
  sketch.runs({0, 1},
              {sketch.kernel(10), host_work(40), communicate(gather, side, after_compute), wait_for(after_side)});
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(ps(outcome.time.host), 2 * 30);
  EXPECT_EQ(exposed_ps(outcome, Purpose::data), 2 * 5);
  EXPECT_EQ(ps(outcome.calls[gather].exposed), 2 * 5);
  EXPECT_EQ(ps(outcome.time.bubble), 0);
}

TEST(ExecutorTest, ATransferQueuedBehindAnotherIsExposedAndNoBubble) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId first = sketch.call(50, group, CollectiveKind::all_reduce, Purpose::data);
  const CallId second = sketch.call(50, group, CollectiveKind::all_reduce, Purpose::tensor);
  sketch.runs({0, 1}, {communicate(first, side), communicate(second, side), sketch.kernel(20), wait_for(after_side)});
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(exposed_ps(outcome, Purpose::tensor), 2 * 80);
  EXPECT_EQ(exposed_ps(outcome, Purpose::data), 0);
  EXPECT_EQ(ps(outcome.time.bubble), 0);
}

TEST(ExecutorTest, AHiddenTransferIsNotExposed) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId reduce = sketch.call(50);
  sketch.runs({0, 1}, {communicate(reduce, side), sketch.kernel(50), wait_for(after_side)});
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(exposed_ps(outcome, Purpose::tensor), 0);
  EXPECT_EQ(ps(outcome.calls[reduce].exposed), 0);
  EXPECT_EQ(ps(outcome.calls[reduce].busy), 2 * 50);
}

TEST(ExecutorTest, ACommunicationOnTheComputeStreamIsExposedAsAWhole) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId reduce = sketch.call(5, group, CollectiveKind::all_reduce, Purpose::expert);
  sketch.runs({0}, {sketch.kernel(10), communicate(reduce, compute_stream), sketch.kernel(1)});
  sketch.runs({1}, {sketch.kernel(12), communicate(reduce, compute_stream), sketch.kernel(1)});
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(spans(outcome, 0), (Spans{{0, 10}, {10, 17}, {17, 18}}));
  EXPECT_EQ(exposed_ps(outcome, Purpose::expert), 2 * 5);
  EXPECT_EQ(ps(outcome.time.bubble), 2);
}

TEST(ExecutorTest, KernelTimeIsToldByClass) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(1, compute_stream, KernelClass::matmul),
                    sketch.kernel(20, compute_stream, KernelClass::attention),
                    sketch.kernel(300, compute_stream, KernelClass::memory_bound),
                    sketch.kernel(4000, compute_stream, KernelClass::optimizer), sketch.kernel(7, side)});
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(kernels_ps(outcome, KernelClass::matmul), 1);
  EXPECT_EQ(kernels_ps(outcome, KernelClass::attention), 20);
  EXPECT_EQ(kernels_ps(outcome, KernelClass::memory_bound), 300);
  EXPECT_EQ(kernels_ps(outcome, KernelClass::optimizer), 4000);
}

TEST(ExecutorTest, WaitingForAKernelOfAnotherStreamCountsAsMemoryTraffic) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(30, side), sketch.kernel(10), wait_for(after_side)});
  EXPECT_EQ(kernels_ps(first_step(sketch), KernelClass::memory_bound), 20);
}

TEST(ExecutorTest, ADeviceWithoutWorkIsIdleUnlessACommunicationRuns) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId reduce = sketch.call(30);
  sketch.runs({0, 1},
              {communicate(reduce, side), host_wait(after_side), host_work(10), sketch.kernel(1), sketch.kernel(1)});
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(ps(outcome.time.host), 2 * 40);
  EXPECT_EQ(ps(outcome.time.idle), 2 * 10);
}

TEST(ExecutorTest, ARankWithLessToDoWaitsInABubbleAtTheEnd) {
  PlanSketch sketch(2);
  sketch.runs({0}, {sketch.kernel(10)});
  sketch.runs({1}, {sketch.kernel(25)});
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(outcome.step_time, Duration{25});
  EXPECT_EQ(ps(outcome.time.bubble), 15);
  EXPECT_EQ(static_cast<std::int64_t>(sum_of(outcome.time)), 2 * 25);
}

// The steady step

TEST(ExecutorTest, AGatherThatRunsIntoTheNextStepIsHidden) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId gather = sketch.call(30, group, CollectiveKind::all_gather, Purpose::data);
  sketch.runs({0, 1}, {sketch.kernel(40), wait_for(absolute(0)), sketch.kernel(10),
                       recording(communicate(gather, side, after_compute), absolute(0))});
  const Outcome outcome = run(sketch.finished());
  EXPECT_TRUE(outcome.steady);
  EXPECT_EQ(outcome.step_time, Duration{50});
  EXPECT_EQ(exposed_ps(outcome, Purpose::data), 0);
  EXPECT_EQ(ps(outcome.calls[gather].busy), 2 * 30);
}

TEST(ExecutorTest, WhatAGatherFromTheLastStepHoldsUpIsInTheStep) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId gather = sketch.call(60, group, CollectiveKind::all_gather, Purpose::data);
  sketch.runs({0, 1}, {sketch.kernel(40), wait_for(absolute(0)), sketch.kernel(10),
                       recording(communicate(gather, side, after_compute), absolute(0))});
  const Outcome outcome = run(sketch.finished());
  EXPECT_TRUE(outcome.steady);
  EXPECT_EQ(outcome.step_time, Duration{70});  // the first one, without a gather before it, takes 50
  EXPECT_EQ(exposed_ps(outcome, Purpose::data), 2 * 20);
}

TEST(ExecutorTest, TheOneTimeFillingOfAPipelineIsLeftOut) {
  PlanSketch sketch(2);
  sketch.connect(0, 1);
  const CallId send = sketch.call(5, next, CollectiveKind::send);
  const CallId receive = sketch.call(5, previous, CollectiveKind::receive);
  sketch.runs({0}, {sketch.kernel(10), communicate(send, side, after_compute)});
  sketch.runs({1}, {communicate(receive, side), wait_for(after_side), sketch.kernel(10)});
  EXPECT_EQ(run(sketch.finished(), {.most_steps = 1}).step_time, Duration{25});
  const Outcome outcome = run(sketch.plan);
  EXPECT_TRUE(outcome.steady);
  EXPECT_EQ(outcome.step_time, Duration{10});
  EXPECT_EQ(ps(outcome.time.bubble), 0);
}

TEST(ExecutorTest, TheMeasuredStepBeginsWhenItsFirstRankEntersIt) {
  PlanSketch sketch(2);
  sketch.connect(0, 1);
  const CallId send = sketch.call(5, next, CollectiveKind::send);
  const CallId receive = sketch.call(5, previous, CollectiveKind::receive);
  sketch.runs({0}, {sketch.kernel(10), communicate(send, side, after_compute)});
  sketch.runs({1}, {communicate(receive, side), wait_for(after_side), sketch.kernel(10)});
  const Outcome outcome = run(sketch.finished(), {.record = tests::all_ranks(sketch.plan)});
  EXPECT_GT(outcome.measured_from, TimePoint{});
  EXPECT_EQ(outcome.records.front().start, outcome.measured_from);  // rank 0 is 15 ahead
  EXPECT_EQ(spans(outcome, 1).back().first, outcome.measured_from.time_since_epoch().count() + 15);
}

TEST(ExecutorTest, CountsAreThoseOfOneStep) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId gather = sketch.call(60);
  sketch.runs({0, 1}, {sketch.kernel(40), wait_for(absolute(0)), sketch.kernel(10), sketch.kernel(0),
                       recording(communicate(gather, side, after_compute), absolute(0))});
  const Outcome outcome = run(sketch.finished());
  EXPECT_EQ(outcome.operations, 2 * 4U);
  EXPECT_EQ(outcome.communications, 1U);
}

TEST(ExecutorTest, WhatFallsBehindForEverIsNotSteady) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId gather = sketch.call(60);
  sketch.runs({0, 1}, {sketch.kernel(10), communicate(gather, side, after_compute)});
  EXPECT_FALSE(run(sketch.finished()).steady);
}

// Records

TEST(ExecutorTest, OnlyTheRanksAskedForAreRecorded) {
  PlanSketch sketch(3);
  sketch.join({0, 1, 2});
  const CallId reduce = sketch.call(7);
  sketch.runs({0, 1, 2}, {sketch.kernel(10), communicate(reduce, side, after_compute), sketch.kernel(1)});
  const Outcome outcome = run(sketch.finished(), {.record = {rank(2), rank(1)}});
  ASSERT_EQ(outcome.records.size(), 6U);
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(outcome.records[i].rank, rank(i < 3 ? 1 : 2));
  EXPECT_TRUE(run(sketch.plan).records.empty());
  EXPECT_TRUE(run(sketch.plan).memory.empty());
}

TEST(ExecutorTest, ARecordTellsWhatItIsOf) {
  PlanSketch sketch(2);
  sketch.join({0, 1}, next);
  const CommunicatorId used = sketch.join({0, 1}, group);
  const CallId reduce = sketch.call(7);
  const BlockId layer = sketch.block({memory(MemoryPurpose::buffers, 1), sketch.kernel(10), wait_for(after_side),
                                      sketch.kernel(1), communicate(reduce, side, after_compute)});
  sketch.program({{.block = layer, .layer = 3, .micro_batch = 1}, {.block = layer, .layer = 4, .micro_batch = 2}});
  const Outcome outcome = run(sketch.finished(), {.record = {rank(1)}, .most_steps = 1});
  ASSERT_EQ(outcome.records.size(), 6U);
  const std::vector<std::uint32_t> ops{1, 3, 4, 1, 3, 4};
  for (std::size_t i = 0; i < 6; ++i) {
    const OpRecord& record = outcome.records[i];
    EXPECT_EQ(record.op, ops[i]);
    EXPECT_EQ(record.block, layer);
    EXPECT_EQ(record.layer, i < 3 ? 3 : 4);
    EXPECT_EQ(record.micro_batch, i < 3 ? 1 : 2);
    EXPECT_EQ(record.stream, ops[i] == 4 ? side : compute_stream);
  }
  EXPECT_EQ(outcome.records[2].communicator, used);
  EXPECT_EQ(outcome.records[5].sequence, outcome.records[2].sequence + 1);
}

TEST(ExecutorTest, TheRecordedMemoryReachesThePeakOfTheProgram) {
  PlanSketch sketch(1);
  const BlockId forward =
      sketch.block({memory(MemoryPurpose::activations, 10), sketch.kernel(5), memory(MemoryPurpose::buffers, 3),
                    wait_for(after_side), memory(MemoryPurpose::buffers, -3), sketch.kernel(5)});
  const BlockId backward = sketch.block({sketch.kernel(5), memory(MemoryPurpose::gradients, 8), sketch.kernel(5),
                                         memory(MemoryPurpose::activations, -10), sketch.kernel(2)});
  const ProgramId id =
      sketch.program({{.block = forward}, {.block = forward}, {.block = backward}, {.block = backward}});
  Program& program = sketch.plan.programs[id];
  program.resident[static_cast<std::size_t>(MemoryPurpose::parameters)] = Bytes{100};
  const Outcome outcome = first_step(sketch);
  ASSERT_EQ(outcome.memory.size(), 1 + 2 * 3 + 2 * 2U);
  EXPECT_EQ(outcome.memory.front().allocated, program.resident);
  EXPECT_EQ(outcome.memory.front().when, TimePoint{});
  Bytes most{};
  for (const MemoryRecord& record : outcome.memory) {
    Bytes total{};
    for (const Bytes part : record.allocated) total += part;
    most = std::max(most, total);
  }
  EXPECT_EQ(most, memory_peak(sketch.plan, program).total);
  EXPECT_EQ(most, Bytes{128});
  EXPECT_EQ(outcome.memory.back().allocated.at(static_cast<std::size_t>(MemoryPurpose::activations)), Bytes{0});
}

TEST(ExecutorTest, AMemoryRecordStandsWhereTheDeviceIs) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(5), memory(MemoryPurpose::activations, 1), sketch.kernel(7),
                    memory(MemoryPurpose::activations, 1)});
  const Outcome outcome = first_step(sketch);
  ASSERT_EQ(outcome.memory.size(), 3U);
  EXPECT_EQ(outcome.memory[1].when, TimePoint{Duration{5}});
  EXPECT_EQ(outcome.memory[2].when, TimePoint{Duration{12}});
}

// Plans that cannot go on

TEST(ExecutorTest, AMissingPartnerIsAStallThatNamesWhoWaits) {
  PlanSketch sketch(3);
  sketch.join({0, 1});
  const CallId reduce = sketch.call(7);
  const BlockId layer = sketch.block({sketch.kernel(1), communicate(reduce, side, after_compute), wait_for(after_side)},
                                     0, "layer forward");
  sketch.plan.program_of[rank(0)] = sketch.program({{.block = layer, .layer = 5, .micro_batch = 2}}, "first stage");
  sketch.runs({1, 2}, {sketch.kernel(10)}, 0, "last stage");
  const Outcome outcome = run(sketch.finished());
  EXPECT_NE(outcome.stall.find("rank 0 (first stage)"), std::string::npos) << outcome.stall;
  EXPECT_NE(outcome.stall.find("'layer forward'"), std::string::npos) << outcome.stall;
  EXPECT_NE(outcome.stall.find("layer 5, micro-batch 2"), std::string::npos) << outcome.stall;
  EXPECT_NE(outcome.stall.find("unanswered on 'group'"), std::string::npos) << outcome.stall;
  EXPECT_EQ(outcome.stall.find("last stage"), std::string::npos) << outcome.stall;
}

TEST(ExecutorTest, ACommunicationThatNobodyWaitsForButNobodyJoinsIsAStallToo) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  sketch.runs({0}, {communicate(sketch.call(7), side), sketch.kernel(1)});
  sketch.runs({1}, {sketch.kernel(1)});
  EXPECT_NE(run(sketch.finished(), {.most_steps = 1}).stall.find("rank 0"), std::string::npos);
}

TEST(ExecutorTest, RanksThatWaitForEachOtherInACircleStall) {
  PlanSketch sketch(2);
  sketch.join({0, 1}, group);
  sketch.join({0, 1}, next);
  const CallId first = sketch.call(7, group);
  const CallId second = sketch.call(7, next);
  sketch.runs({0}, {communicate(first, side), communicate(second, side)});
  sketch.runs({1}, {communicate(second, side), communicate(first, side)});
  const Outcome outcome = run(sketch.finished());
  EXPECT_NE(outcome.stall.find("rank 0"), std::string::npos) << outcome.stall;
  EXPECT_NE(outcome.stall.find("unanswered on 'group'"), std::string::npos) << outcome.stall;
  EXPECT_NE(outcome.stall.find("rank 1"), std::string::npos) << outcome.stall;
  EXPECT_NE(outcome.stall.find("unanswered on 'next'"), std::string::npos) << outcome.stall;
}

TEST(ExecutorTest, AStallOfManyRanksIsDescribedByAFew) {
  PlanSketch sketch(50);
  std::vector<std::uint32_t> members;
  const CallId reduce = sketch.call(7);
  for (std::uint32_t r = 0; r < 50; ++r) {  // each with a program of its own, so that none stands for another
    members.push_back(r);
    sketch.runs({r}, {communicate(reduce, side)});
  }
  sketch.join(members);
  sketch.runs({49}, {});
  const std::string stall = run(sketch.finished()).stall;
  EXPECT_NE(stall.find("rank 3 "), std::string::npos) << stall;
  EXPECT_EQ(stall.find("rank 4 "), std::string::npos) << stall;
}

TEST(ExecutorTest, IdleDoesNotDependOnTheNumberingOfTheRanks) {
  std::vector<std::int64_t> idle;
  for (const std::uint32_t busy : {0U, 1U}) {
    PlanSketch sketch(2);
    sketch.join({0, 1});
    const CallId reduce = sketch.call(100);
    sketch.runs({busy}, {communicate(reduce, side), sketch.kernel(1), sketch.kernel(1)}, 10);
    sketch.runs({1 - busy}, {communicate(reduce, side)}, 10);
    idle.push_back(ps(run(sketch.finished(), {.most_steps = 1}).time.idle));
  }
  EXPECT_EQ(idle[0], idle[1]);
}

TEST(ExecutorTest, QueuedBehindATransferOnTheComputeStreamIsExposed) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId a = sketch.call(50);
  sketch.runs({0, 1}, {communicate(a, side), communicate(a, compute_stream)});
  const Outcome outcome = run(sketch.finished(), {.most_steps = 1});
  EXPECT_EQ(outcome.step_time, Duration{100});
  EXPECT_EQ(ps(outcome.time.host), 0);
  EXPECT_EQ(exposed_ps(outcome, Purpose::tensor), 200);
}

TEST(ExecutorTest, AHostThatRunsAheadDoesNotMakeAStepUnsteady) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(100)}, 10);
  const Outcome outcome = run(sketch.finished());
  EXPECT_EQ(outcome.step_time, Duration{100});
  EXPECT_TRUE(outcome.steady);
}

TEST(ExecutorDeathTest, TwoSendersDoNotMatch) {
  PlanSketch sketch(2);
  sketch.connect(0, 1);
  const CallId send = sketch.call(5, next, CollectiveKind::send);
  const CallId send_back = sketch.call(5, previous, CollectiveKind::send);
  sketch.runs({0}, {communicate(send, side)});
  sketch.runs({1}, {communicate(send_back, side)});
  EXPECT_DEATH(run(sketch.finished()), "same operations");
}

TEST(ExecutorTest, ARankAskedForTwiceIsRecordedOnce) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(5)});
  EXPECT_EQ(run(sketch.finished(), {.record = {rank(0), rank(0)}}).memory.size(), 1U);
}

TEST(ExecutorTest, StarvedBeforeACommunicationOnTheComputeStreamIsIdleToo) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  sketch.runs({0, 1}, {communicate(sketch.call(5), compute_stream)}, 10);
  const Outcome outcome = run(sketch.finished(), {.most_steps = 1});
  EXPECT_EQ(ps(outcome.time.host), 20);
  EXPECT_EQ(ps(outcome.time.idle), 20);
}

TEST(ExecutorTest, TheLatestRecordOfAnEventIsKeptWhenAnEarlierCommunicationEnds) {
  for (const std::uint32_t early : {0U, 1U}) {
    PlanSketch sketch(2);
    sketch.join({0, 1});
    const CallId a = sketch.call(10);
    sketch.runs({early}, {recording(communicate(a, side), absolute(0)), recording(sketch.kernel(10), absolute(0)),
                          wait_for(after_side), waiting(sketch.kernel(1, third), absolute(0))});
    sketch.runs({1 - early}, {sketch.kernel(100), communicate(a, side, after_compute)});
    EXPECT_EQ(spans(first_step(sketch), early), (Spans{{0, 110}, {0, 10}, {10, 11}})) << early;
  }
}

TEST(ExecutorTest, AnEventOfTwoOpenCommunicationsIsThatOfTheSecond) {
  PlanSketch sketch(3);
  sketch.join({0, 1}, group);
  sketch.join({0, 1}, next);
  sketch.join({1, 2}, previous);
  const CallId a = sketch.call(10, group);
  const CallId b = sketch.call(10, next);
  const CallId c = sketch.call(0, previous);
  sketch.runs({0}, {recording(communicate(a, side), absolute(0)), recording(communicate(b, third), absolute(0)),
                    wait_for(after_side), waiting(sketch.kernel(1), absolute(0))});
  sketch.runs({1}, {communicate(a, side), communicate(c, compute_stream), sketch.kernel(100),
                    communicate(b, third, after_compute)});
  sketch.runs({2}, {communicate(c, compute_stream)});
  EXPECT_EQ(spans(first_step(sketch), 0), (Spans{{0, 10}, {0, 110}, {110, 111}}));
}

TEST(ExecutorDeathTest, MembersThatDisagreeStopTheRun) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId reduce = sketch.call(7, group, CollectiveKind::all_reduce, Purpose::data, Bytes{8});
  const CallId gather = sketch.call(7, group, CollectiveKind::all_gather, Purpose::data, Bytes{8});
  const CallId larger = sketch.call(7, group, CollectiveKind::all_reduce, Purpose::data, Bytes{9});
  sketch.runs({0}, {communicate(reduce, side)});
  sketch.runs({1}, {communicate(gather, side)});
  EXPECT_DEATH(run(sketch.finished()), "the same operations in the same order");
  sketch.runs({1}, {communicate(larger, side)});
  EXPECT_DEATH(run(sketch.finished()), "the same operations in the same order");
  sketch.runs({1}, {communicate(reduce, side)});
  EXPECT_EQ(run(sketch.finished()).stall, "");
}

// Times of single operations

TEST(ExecutorTest, WaitingIsKeptByOperationAndLayerWhereThatIsAskedFor) {
  PlanSketch sketch(1);
  const Op copy = sketch.kernel(30, side);
  sketch.runs({0}, {sketch.kernel(10), copy, wait_for(after_side)});
  sketch.plan.programs[ProgramId{0}].calls.front().layer = 3;
  EXPECT_TRUE(run(sketch.plan).operation_times.empty());
  const Outcome outcome = run(sketch.plan, {.per_operation = true});
  ASSERT_EQ(outcome.operation_times.size(), 1);
  const OperationTime& time = outcome.operation_times.front();
  EXPECT_EQ(time.op, 1);
  EXPECT_EQ(time.layer, 3);
  EXPECT_EQ(time.time.exposed.ps, outcome.time.kernels[2].ps);
  EXPECT_GT(time.time.exposed.ps, 0);
}

}  // namespace
}  // namespace trainyard::sim
