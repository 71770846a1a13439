// The executor where communications share links.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "sim/executor.hpp"
#include "tests/support/shared_plan_sketch.hpp"

namespace trainyard::sim {
namespace {

using tests::after_compute;
using tests::after_side;
using tests::communicate;
using tests::exposed_ps;
using tests::first_step;
using tests::group;
using tests::next;
using tests::previous;
using tests::rank;
using tests::SharedPlanSketch;
using tests::side;
using tests::Span;
using tests::spans;
using tests::sum_of;
using tests::third;
using tests::wait_for;
using Spans = std::vector<Span>;

// A byte takes a picosecond.
constexpr std::int64_t link_rate = 1'000'000'000'000;

// Ranks 0 and 1, and 2 and 3, talk over one link.
struct TwoPairs {
  SharedPlanSketch sketch{4};
  LinkId link = sketch.link(link_rate);
  CommunicatorId first = sketch.join({0, 1});
  CommunicatorId second = sketch.join({2, 3});
  TwoPairs() {
    sketch.carries(first, {link});
    sketch.carries(second, {link});
  }
};

TEST(SharedNetworkTest, ATransferAloneTakesItsLatencyAndItsBytesAtItsOwnRate) {
  TwoPairs pairs;
  const CallId call = pairs.sketch.transfer({.bytes = 1000, .rate = link_rate / 3, .latency_ps = 50});
  pairs.sketch.runs({0, 1}, {pairs.sketch.kernel(7), communicate(call, compute_stream)});
  pairs.sketch.runs({2, 3}, {});
  EXPECT_EQ(spans(first_step(pairs.sketch)), (Spans{{0, 7}, {7, 7 + 50 + 3001}}));  // a third of the rate, rounded down
}

TEST(SharedNetworkTest, TransfersThatStartTogetherShareALink) {
  TwoPairs pairs;
  const CallId call = pairs.sketch.transfer({.bytes = 1000});
  pairs.sketch.runs({0, 1, 2, 3}, {communicate(call, compute_stream)});
  const Outcome outcome = first_step(pairs.sketch);
  EXPECT_EQ(spans(outcome, 0), (Spans{{0, 2000}}));
  EXPECT_EQ(spans(outcome, 3), (Spans{{0, 2000}}));
  EXPECT_EQ(outcome.rank_classes, 1U);  // the link counts it twice
  EXPECT_EQ(outcome.communications, 2U);
}

TEST(SharedNetworkTest, WhoStartsLaterSlowsTheOtherFromThenOn) {
  TwoPairs pairs;
  const CallId call = pairs.sketch.transfer({.bytes = 1000});
  pairs.sketch.runs({0, 1}, {communicate(call, compute_stream)});
  pairs.sketch.runs({2, 3}, {pairs.sketch.kernel(400), communicate(call, compute_stream)});
  const Outcome outcome = first_step(pairs.sketch);
  // 400 alone, 1,200 for the remaining 600, and what is left of the second, 400, alone again.
  EXPECT_EQ(spans(outcome, 0), (Spans{{0, 1600}}));
  EXPECT_EQ(spans(outcome, 2), (Spans{{0, 400}, {400, 2000}}));
  EXPECT_EQ(sum_of(outcome.time), 4 * outcome.step_time.count());
}

TEST(SharedNetworkTest, ALatencyPassesBeforeBytesFlow) {
  TwoPairs pairs;
  const CallId soon = pairs.sketch.transfer({.bytes = 1000, .latency_ps = 100});
  const CallId late = pairs.sketch.transfer({.bytes = 1000, .latency_ps = 1100});
  pairs.sketch.runs({0, 1}, {communicate(soon, compute_stream)});
  pairs.sketch.runs({2, 3}, {communicate(late, compute_stream)});
  const Outcome outcome = first_step(pairs.sketch);
  EXPECT_EQ(spans(outcome, 0), (Spans{{0, 1100}}));
  EXPECT_EQ(spans(outcome, 2), (Spans{{0, 2100}}));
}

TEST(SharedNetworkTest, ATransferStartsWhenItsLastMemberArrives) {
  TwoPairs pairs;
  const CallId call = pairs.sketch.transfer({.bytes = 1000, .latency_ps = 10});
  pairs.sketch.runs({0}, {communicate(call, compute_stream)});
  pairs.sketch.runs({1}, {pairs.sketch.kernel(300), communicate(call, compute_stream)});
  pairs.sketch.runs({2, 3}, {});
  const Outcome outcome = first_step(pairs.sketch);
  EXPECT_EQ(spans(outcome, 0), (Spans{{0, 1310}}));
  EXPECT_EQ(tests::ps(outcome.time.bubble), 300 + 2 * 1310);  // of rank 0, and of the two that have nothing to do
  EXPECT_EQ(exposed_ps(outcome, Purpose::tensor), 2 * 1010);
}

TEST(SharedNetworkTest, AConnectionNeverGetsMoreThanItsLimit) {
  // The second is held to a tenth by links of its own; the first gets what it leaves.
  SharedPlanSketch sketch(4);
  const LinkId link = sketch.link(link_rate);
  const CommunicatorId free = sketch.join({0, 1});
  const CommunicatorId limited = sketch.join({2, 3});
  sketch.carries(free, {link});
  sketch.carries_flows(limited, {{{.link = link, .weight = 1}}}, link_rate / 10);
  const CallId call = sketch.transfer({.bytes = 900});
  sketch.runs({0, 1, 2, 3}, {communicate(call, compute_stream)});
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(spans(outcome, 0), (Spans{{0, 1000}}));
  EXPECT_EQ(spans(outcome, 2), (Spans{{0, 9000}}));
}

TEST(SharedNetworkTest, ALimitHoldsWhereNothingIsShared) {
  SharedPlanSketch sketch(2);
  sketch.carries_flows(sketch.join({0, 1}), std::vector<std::vector<Crossing>>{}, link_rate / 10);
  const CallId call = sketch.transfer({.bytes = 900, .latency_ps = 5});
  sketch.runs({0, 1}, {communicate(call, compute_stream)});
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(spans(outcome, 0), (Spans{{0, 9005}}));
  EXPECT_EQ(outcome.events, 0U);
}

TEST(SharedNetworkTest, ParallelConnectionsLoadALinkAsOftenAndShareByConnection) {
  SharedPlanSketch sketch(4);
  const LinkId link = sketch.link(link_rate);
  const CommunicatorId three = sketch.join({0, 1});
  const CommunicatorId one = sketch.join({2, 3});
  sketch.carries_flows(three, {{{.link = link, .weight = 3}}});
  sketch.carries(one, {link});
  const CallId call = sketch.transfer({.bytes = 1000});
  sketch.runs({0, 1, 2, 3}, {communicate(call, compute_stream)});
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(spans(outcome, 0), (Spans{{0, 4000}}));
  EXPECT_EQ(spans(outcome, 2), (Spans{{0, 4000}}));
}

TEST(SharedNetworkTest, BothWaysOfAPairAreTrafficsOfTheirOwn) {
  SharedPlanSketch sketch(2);
  const LinkId down = sketch.link(link_rate);
  const LinkId up = sketch.link(link_rate / 4);
  const CommunicatorId pair = sketch.connect(0, 1);
  sketch.carries(pair, {down});
  sketch.carries(pair, {up});
  const CallId send_down = sketch.transfer({.bytes = 1000}, next, CollectiveKind::send);
  const CallId receive_down = sketch.transfer({.bytes = 1000}, previous, CollectiveKind::receive);
  const CallId send_up = sketch.transfer({.bytes = 1000, .traffic = 1}, previous, CollectiveKind::send);
  const CallId receive_up = sketch.transfer({.bytes = 1000, .traffic = 1}, next, CollectiveKind::receive);
  sketch.runs({0}, {communicate(send_down, compute_stream), communicate(receive_up, compute_stream)});
  sketch.runs({1}, {communicate(receive_down, compute_stream), communicate(send_up, compute_stream)});
  EXPECT_EQ(spans(first_step(sketch), 1), (Spans{{0, 1000}, {1000, 5000}}));
}

// Phases

// A ring whose hops cross links of their own, and a pair on the first of them.
struct RingAndPair {
  SharedPlanSketch sketch{4};
  CallId ring_call{};
  CallId pair_call{};
  explicit RingAndPair(std::int64_t phase_bytes) {
    const LinkId first = sketch.link(link_rate);
    const LinkId second = sketch.link(link_rate);
    sketch.carries_flows(sketch.join({0, 1}), {{{.link = first, .weight = 1}}, {{.link = second, .weight = 1}}});
    sketch.carries(sketch.join({2, 3}), {first});
    ring_call = sketch.transfer({.bytes = 1000, .phase_bytes = phase_bytes});
    pair_call = sketch.transfer({.bytes = 300});
  }
};

TEST(SharedNetworkTest, ARingInOnePieceEndsWithItsLastHop) {
  RingAndPair plan(0);
  plan.sketch.runs({0, 1}, {communicate(plan.ring_call, compute_stream)});
  plan.sketch.runs({2, 3}, {communicate(plan.pair_call, compute_stream)});
  const Outcome outcome = first_step(plan.sketch);
  EXPECT_EQ(spans(outcome, 2), (Spans{{0, 600}}));
  EXPECT_EQ(spans(outcome, 0), (Spans{{0, 1300}}));  // its first hop; the second was through at 1,000
}

TEST(SharedNetworkTest, HopsOfARingWaitForEachOtherAfterEachPhase) {
  // The pair takes from the first hop in the first half only: 250 bytes that nobody could make up for in one piece.
  RingAndPair plan(500);
  plan.sketch.runs({0, 1}, {communicate(plan.ring_call, compute_stream)});
  plan.sketch.runs({2, 3}, {communicate(plan.pair_call, compute_stream)});
  const Outcome outcome = first_step(plan.sketch);
  EXPECT_EQ(spans(outcome, 2), (Spans{{0, 600}}));
  EXPECT_EQ(spans(outcome, 0), (Spans{{0, 800 + 500}}));
}

TEST(SharedNetworkTest, HopsThatMeetOthersAtDifferentTimesAddUpTheirDelaysByPhase) {
  // One pair beside the first hop while the first phase lasts, another beside the second hop in the second phase.
  SharedPlanSketch sketch(6);
  const LinkId first = sketch.link(link_rate);
  const LinkId second = sketch.link(link_rate);
  sketch.carries_flows(sketch.join({0, 1}), {{{.link = first, .weight = 1}}, {{.link = second, .weight = 1}}});
  sketch.carries(sketch.join({2, 3}), {first});
  sketch.carries(sketch.join({4, 5}), {second});
  const CallId in_phases = sketch.transfer({.bytes = 1000, .phase_bytes = 500});
  const CallId pair = sketch.transfer({.bytes = 500});
  sketch.runs({0, 1}, {communicate(in_phases, compute_stream)});
  sketch.runs({2, 3}, {communicate(pair, compute_stream)});
  sketch.runs({4, 5}, {sketch.kernel(1000), communicate(pair, compute_stream)});
  const Outcome outcome = first_step(sketch);
  EXPECT_EQ(spans(outcome, 2), (Spans{{0, 1000}}));
  EXPECT_EQ(spans(outcome, 4), (Spans{{0, 1000}, {1000, 2000}}));
  EXPECT_EQ(spans(outcome, 0), (Spans{{0, 2000}}));
}

TEST(SharedNetworkTest, ARingThatFoldsToOneHopKeepsItsPhases) {
  // Each of three phases ends on a picosecond of its own, in the folded run as well.
  SharedPlanSketch sketch(2);
  const LinkId links[] = {sketch.link(3 * link_rate / 10), sketch.link(3 * link_rate / 10)};
  sketch.carries_flows(sketch.join({0, 1}), {{{.link = links[0], .weight = 1}}, {{.link = links[1], .weight = 1}}});
  const CallId call = sketch.transfer({.bytes = 10, .phase_bytes = 4});
  sketch.runs({0, 1}, {communicate(call, compute_stream)});
  const Outcome folded = first_step(sketch);
  const Outcome unfolded = first_step(sketch, {.fold = false});
  EXPECT_EQ(folded.rank_classes, 1U);
  EXPECT_EQ(spans(folded), spans(unfolded));
  EXPECT_EQ(spans(unfolded), (Spans{{0, 36}}));  // 3 x ceil(11.1), where ceil(33.3) is 34
}

// Kernels beside communications

// A pair of ranks whose transfer of 1,000 ps slows kernels beside it by a quarter.
struct SlowingPair {
  SharedPlanSketch sketch{2};
  CallId call{};
  explicit SlowingPair(std::uint16_t interference = 256, std::int64_t latency_ps = 0) {
    sketch.carries(sketch.join({0, 1}), {sketch.link(link_rate)});
    call = sketch.transfer({.bytes = 1000, .latency_ps = latency_ps, .interference = interference});
  }
};

TEST(SharedNetworkTest, KernelsBesideACommunicationAreSlowedWhileItsBytesFlow) {
  SlowingPair pair;
  pair.sketch.runs({0, 1}, {communicate(pair.call, side), pair.sketch.kernel(600)});
  // Three quarters of the speed: 600 take 800.
  EXPECT_EQ(spans(first_step(pair.sketch)), (Spans{{0, 1000}, {0, 800}}));
}

TEST(SharedNetworkTest, KernelsAreAsFastAsEverOnceTheBytesAreThrough) {
  SlowingPair pair;
  pair.sketch.runs({0, 1}, {communicate(pair.call, side), pair.sketch.kernel(1000)});
  // 750 of them in the first 1,000.
  EXPECT_EQ(spans(first_step(pair.sketch)), (Spans{{0, 1000}, {0, 1250}}));
}

TEST(SharedNetworkTest, KernelsAreAsFastAsEverBeforeTheBytesFlow) {
  SlowingPair pair(256, 400);
  pair.sketch.runs({0, 1}, {communicate(pair.call, side), pair.sketch.kernel(1300)});
  // 400 at full speed, 750 in the 1,000 of the transfer, 150 after it.
  EXPECT_EQ(spans(first_step(pair.sketch)), (Spans{{0, 1400}, {0, 1550}}));
}

TEST(SharedNetworkTest, ARunOfKernelsIsRoundedOnce) {
  SlowingPair pair(1024 / 8);
  pair.sketch.runs({0, 1},
                   {communicate(pair.call, side), pair.sketch.kernel(3), pair.sketch.kernel(3), pair.sketch.kernel(3)});
  const Outcome outcome = first_step(pair.sketch);
  EXPECT_EQ(spans(outcome).back().second, 11);  // ceil(9 x 8 / 7)
  EXPECT_EQ(exposed_ps(outcome, Purpose::tensor), 2 * 2);
}

TEST(SharedNetworkTest, WhatKernelsLoseIsExposedAndTheBreakdownAddsUp) {
  SlowingPair pair;
  pair.sketch.runs({0, 1}, {communicate(pair.call, side), pair.sketch.kernel(600), wait_for(after_side)});
  const Outcome outcome = first_step(pair.sketch);
  EXPECT_EQ(outcome.step_time, Duration{1000});
  EXPECT_EQ(tests::kernels_ps(outcome, KernelClass::matmul), 2 * 600);
  EXPECT_EQ(exposed_ps(outcome, Purpose::tensor), 2 * 400);  // 200 lost, 200 waited
  EXPECT_EQ(sum_of(outcome.time), 2 * outcome.step_time.count());
}

TEST(SharedNetworkTest, TwoCommunicationsSlowKernelsByTheirSumAndByHalfAtMost) {
  for (const std::uint16_t each : std::vector<std::uint16_t>{128, 512}) {
    SharedPlanSketch sketch(2);
    const LinkId link = sketch.link(2 * link_rate);
    sketch.carries(sketch.join({0, 1}), {link});
    sketch.carries(sketch.connect(0, 1), {link});
    const CallId all = sketch.transfer({.bytes = 3000, .interference = each});
    const CallId send = sketch.transfer({.bytes = 3000, .interference = each}, next, CollectiveKind::send);
    const CallId receive = sketch.transfer({.bytes = 3000, .interference = each}, previous, CollectiveKind::receive);
    sketch.runs({0}, {communicate(all, side), communicate(send, third), sketch.kernel(600)});
    sketch.runs({1}, {communicate(all, side), communicate(receive, third), sketch.kernel(600)});
    const std::int64_t end = each == 128 ? 800 : 1200;
    EXPECT_EQ(spans(first_step(sketch)), (Spans{{0, 3000}, {0, 3000}, {0, end}}));
  }
}

TEST(SharedNetworkTest, KernelsAreNotSlowedByWhatIsIssuedAfterThem) {
  SlowingPair pair;
  pair.sketch.runs({0, 1}, {pair.sketch.kernel(600), communicate(pair.call, side)});
  EXPECT_EQ(spans(first_step(pair.sketch)), (Spans{{0, 600}, {0, 1000}}));
}

TEST(SharedNetworkTest, ACommunicationOnTheComputeStreamSlowsNothing) {
  SlowingPair pair;
  pair.sketch.runs({0, 1}, {communicate(pair.call, compute_stream), pair.sketch.kernel(600)});
  EXPECT_EQ(spans(first_step(pair.sketch)), (Spans{{0, 1000}, {1000, 1600}}));
}

TEST(SharedNetworkTest, PrivateCommunicationsSlowKernelsToo) {
  SharedPlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId call = sketch.transfer({.bytes = 1000, .latency_ps = 100, .interference = 256});
  sketch.runs({0, 1}, {communicate(call, side), sketch.kernel(600)});
  EXPECT_EQ(spans(first_step(sketch)), (Spans{{0, 1100}, {0, 100 + 667}}));  // ceil(500 x 4 / 3)
}

// Options

TEST(SharedNetworkTest, AnIdealNetworkTakesNoTime) {
  SlowingPair pair;
  pair.sketch.runs({0}, {communicate(pair.call, side), pair.sketch.kernel(600)});
  pair.sketch.runs({1}, {pair.sketch.kernel(250), communicate(pair.call, side, after_compute)});
  const Outcome outcome = first_step(pair.sketch, {.ideal_network = true});
  EXPECT_EQ(spans(outcome, 0), (Spans{{0, 250}, {0, 600}}));
  EXPECT_EQ(spans(outcome, 1), (Spans{{0, 250}, {250, 250}}));
}

DeviceClass device(const std::string& name, bool slow, std::vector<Duration> kernels) {
  DeviceClass result;
  result.name = name;
  result.slow = slow;
  result.kernels = std::move(kernels);
  return result;
}

TEST(SharedNetworkTest, KernelsTakeAsLongAsTheirDeviceNeeds) {
  TwoPairs pairs;
  SharedPlanSketch& sketch = pairs.sketch;
  const CallId call = sketch.transfer({.bytes = 1000});
  sketch.runs({0, 1, 2, 3}, {sketch.kernel(100), communicate(call, compute_stream)});
  sketch.plan.device_classes.add(device("healthy", false, {Duration{100}}));
  sketch.plan.device_classes.add(device("slow", true, {Duration{150}}));
  for (const std::uint16_t of : std::vector<std::uint16_t>{0, 0, 0, 1})
    sketch.plan.device_class_of.add(DeviceClassId{of});
  const Outcome outcome = first_step(sketch);
  // The slow one's pair starts 50 later and shares what is left of the other's transfer.
  EXPECT_EQ(spans(outcome, 0), (Spans{{0, 100}, {100, 2050}}));
  EXPECT_EQ(spans(outcome, 2), (Spans{{0, 100}, {100, 2100}}));
  EXPECT_EQ(spans(outcome, 3), (Spans{{0, 150}, {150, 2100}}));
  EXPECT_EQ(outcome.rank_classes, 3U);
}

// Steps

TEST(SharedNetworkTest, TheSteadyPeriodIncludesWhatRunsIntoTheNextStep) {
  // The link carries both transfers of a step in 2,000, longer than kernels take: it sets the pace from the second on.
  TwoPairs pairs;
  const CallId call = pairs.sketch.transfer({.bytes = 1000});
  pairs.sketch.runs({0, 1, 2, 3},
                    {pairs.sketch.kernel(500), wait_for(after_side), communicate(call, side, after_compute)});
  const Outcome outcome = run(pairs.sketch.finished());
  EXPECT_TRUE(outcome.steady);
  EXPECT_EQ(outcome.step_time, Duration{2000});
  EXPECT_EQ(first_step(pairs.sketch).step_time, Duration{500});
}

TEST(SharedNetworkTest, HeldBackCountsEveryTransferThatStartsLaterThanItCould) {
  // Rank 0's second transfer could start at 5, but what it follows is issued behind a wait for the first.
  SharedPlanSketch sketch(4);
  const LinkId link = sketch.link(link_rate);
  for (const std::uint32_t from : {0U, 2U}) {
    sketch.carries(sketch.join({from, from + 1}), {link});
    sketch.carries(sketch.connect(from, from + 1), {link});
  }
  const CallId all = sketch.transfer({.bytes = 1000});
  const CallId send = sketch.transfer({.bytes = 500}, next, CollectiveKind::send);
  const CallId receive = sketch.transfer({.bytes = 500}, previous, CollectiveKind::receive);
  const std::vector<Op> before{communicate(all, side), wait_for(after_side), sketch.kernel(1), sketch.kernel(5, third)};
  std::vector<Op> sender = before;
  sender.push_back(communicate(send, third));
  std::vector<Op> receiver = before;
  receiver.push_back(communicate(receive, third));
  sketch.runs({0, 2}, sender);
  sketch.runs({1, 3}, receiver);
  for (const bool fold : {true, false}) {
    const Outcome outcome = first_step(sketch, {.fold = fold});
    EXPECT_EQ(outcome.held_back, 2U);
    EXPECT_EQ(spans(outcome, 0), (Spans{{0, 2000}, {2000, 2001}, {0, 5}, {5, 3000}}));
  }
}

TEST(SharedNetworkTest, AStallNamesWhoWaitsForWhat) {
  TwoPairs pairs;
  const CallId call = pairs.sketch.transfer({.bytes = 1000});
  pairs.sketch.runs({0, 2, 3}, {communicate(call, compute_stream), pairs.sketch.kernel(1)}, 0, "talker");
  pairs.sketch.runs({1}, {pairs.sketch.kernel(5)}, 0, "silent");
  const Outcome outcome = run(pairs.sketch.finished());
  EXPECT_NE(outcome.stall.find("rank 0 (talker) waits in 'block'"), std::string::npos) << outcome.stall;
  EXPECT_NE(outcome.stall.find("unanswered on 'group'"), std::string::npos) << outcome.stall;
  EXPECT_EQ(outcome.stall.find("silent"), std::string::npos) << outcome.stall;
}

TEST(SharedNetworkTest, ACableOfAnotherKindTellsRanksApart) {
  // Four pairs on a link each: one of the links is slower.
  for (const bool broken : {false, true}) {
    SharedPlanSketch sketch(8);
    for (std::uint32_t from = 0; from < 8; from += 2) {
      const LinkId link = sketch.link(broken && from == 4 ? link_rate / 2 : link_rate);
      sketch.carries(sketch.join({from, from + 1}), {link});
    }
    const CallId call = sketch.transfer({.bytes = 1000});
    sketch.runs({0, 1, 2, 3, 4, 5, 6, 7}, {communicate(call, compute_stream)});
    const Outcome outcome = first_step(sketch);
    EXPECT_EQ(outcome.rank_classes, broken ? 2U : 1U);
    EXPECT_EQ(spans(outcome, 5), (Spans{{0, broken ? 2000 : 1000}}));
    EXPECT_EQ(spans(outcome, 7), (Spans{{0, 1000}}));
  }
}

}  // namespace
}  // namespace trainyard::sim
