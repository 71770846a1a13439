#include "sim/lower_bound.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "sim/executor.hpp"
#include "tests/support/plan_sketch.hpp"

namespace trainyard::sim {
namespace {

using tests::after_compute;
using tests::after_side;
using tests::communicate;
using tests::group;
using tests::next;
using tests::PlanSketch;
using tests::previous;
using tests::rank;
using tests::recording;
using tests::side;
using tests::third;
using tests::wait_for;
using tests::waiting;

// Round numbers, from which two millionths can be told apart.
constexpr std::int64_t unit = 1'000'000;
Duration lowered(std::int64_t units) { return Duration{units * unit - units * 2}; }

TEST(LowerBoundTest, KernelsOfTheComputeStreamTakeTheirTime) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(3 * unit), sketch.kernel(4 * unit)});
  EXPECT_EQ(least_step_time(sketch.finished()), lowered(7));
}

TEST(LowerBoundTest, ACollectiveThatComputeWaitsForCounts) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId call = sketch.call(5 * unit);
  sketch.runs({0, 1}, {sketch.kernel(3 * unit), communicate(call, side, after_compute), wait_for(after_side)});
  EXPECT_EQ(least_step_time(sketch.finished()), lowered(8));
}

TEST(LowerBoundTest, ACollectiveThatMayHaveBegunBeforeDoesNot) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId call = sketch.call(2 * unit);
  // It waits for nothing in its block, so that it may be over when compute comes to it.
  sketch.runs({0, 1}, {communicate(call, side), sketch.kernel(3 * unit), wait_for(after_side)});
  EXPECT_EQ(least_step_time(sketch.finished()), lowered(3));
}

TEST(LowerBoundTest, AStreamTakesAsLongAsAllThatIsIssuedOnIt) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId call = sketch.call(5 * unit);
  sketch.runs({0, 1}, {communicate(call, side), communicate(call, side), sketch.kernel(3 * unit)});
  EXPECT_EQ(least_step_time(sketch.finished()), lowered(10));
}

TEST(LowerBoundTest, TheFastestCommunicatorSaysWhatACallTakesAtLeast) {
  PlanSketch sketch(4);
  sketch.join({0, 1});
  const CommunicatorId slow = sketch.join({2, 3});
  const CallId call = sketch.call(5 * unit);
  sketch.runs({0, 1, 2, 3}, {sketch.kernel(unit), communicate(call, side, after_compute), wait_for(after_side)});
  Plan plan = sketch.finished();
  plan.communicators[slow].cost = plan.costs.add({{.duration = Duration{9 * unit}}});
  EXPECT_EQ(least_step_time(plan), lowered(6));
}

// Two stages, `micro_batches` forward and backward passes of one unit and two, in the order of 1F1B.
Plan two_stages(std::int32_t micro_batches) {
  PlanSketch sketch(2);
  sketch.connect(0, 1);  // activations: slots next and previous
  const SlotId gradient_to = sketch.plan.slots.add("gradient to previous");
  const SlotId gradient_from = sketch.plan.slots.add("gradient from next");
  CommunicatorTable table(2, sketch.plan.slots.size());
  table.add({rank(0), rank(1)}, {next, previous});
  table.add({rank(1), rank(0)}, {gradient_to, gradient_from});
  sketch.plan.communicators = table;
  const CallId send = sketch.call(0, next, CollectiveKind::send, Purpose::pipeline);
  const CallId receive = sketch.call(0, previous, CollectiveKind::receive, Purpose::pipeline);
  const CallId send_back = sketch.call(0, gradient_to, CollectiveKind::send, Purpose::pipeline);
  const CallId receive_back = sketch.call(0, gradient_from, CollectiveKind::receive, Purpose::pipeline);
  const BlockId forward = sketch.block({sketch.kernel(unit)});
  const BlockId backward = sketch.block({sketch.kernel(2 * unit)});
  const auto sending = [&](CallId call) { return sketch.block({communicate(call, side, after_compute)}); };
  const auto receiving = [&](CallId call) { return sketch.block({communicate(call, third), wait_for(set_of(third))}); };
  const BlockId sends = sending(send);
  const BlockId receives = receiving(receive);
  const BlockId sends_back = sending(send_back);
  const BlockId receives_back = receiving(receive_back);
  std::vector<BlockCall> first;
  std::vector<BlockCall> second;
  const auto pass = [](std::vector<BlockCall>& calls, const std::vector<BlockId>& blocks, std::int32_t micro_batch) {
    for (const BlockId block : blocks) calls.push_back({.block = block, .micro_batch = micro_batch});
  };
  pass(first, {forward, sends}, 0);
  for (std::int32_t m = 0; m < micro_batches; ++m) {
    if (m + 1 < micro_batches) pass(first, {forward, sends}, m + 1);
    pass(first, {receives_back, backward}, m);
    pass(second, {receives, forward, backward, sends_back}, m);
  }
  sketch.plan.program_of[rank(0)] = sketch.program(first);
  sketch.plan.program_of[rank(1)] = sketch.program(second);
  return sketch.finished();
}

TEST(LowerBoundTest, APipelineHasItsBubble) {
  for (const std::int32_t micro_batches : {1, 2, 5}) {
    const Plan plan = two_stages(micro_batches);
    // (micro-batches + stages - 1) x (forward + backward)
    EXPECT_EQ(run(plan).step_time, Duration{(micro_batches + 1) * 3 * unit});
    EXPECT_EQ(least_step_time(plan), lowered((micro_batches + 1) * 3));
    EXPECT_EQ(least_step_time(plan, StepPart::passes), lowered((micro_batches + 1) * 3));
  }
}

TEST(LowerBoundTest, PassesAreWhatHasAMicroBatch) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId reduce = sketch.call(5 * unit, group, CollectiveKind::all_reduce, Purpose::data);
  const BlockId pass =
      sketch.block({sketch.kernel(3 * unit), communicate(reduce, side, after_compute), wait_for(after_side)});
  const BlockId update = sketch.block({sketch.kernel(2 * unit, compute_stream, KernelClass::optimizer)});
  const ProgramId program = sketch.program({{.block = pass, .micro_batch = 0}, {.block = update}});
  for (const std::uint32_t member : {0U, 1U}) sketch.plan.program_of[rank(member)] = program;
  const Plan& plan = sketch.finished();
  EXPECT_EQ(least_step_time(plan), lowered(10));
  EXPECT_EQ(least_step_time(plan, StepPart::passes), lowered(3));
  EXPECT_EQ(mean_kernel_time(plan)[0], 3 * unit * 1e-12);
  EXPECT_EQ(mean_kernel_time(plan)[3], 2 * unit * 1e-12);
  EXPECT_EQ(mean_kernel_time(plan, StepPart::passes)[3], 0);
}

TEST(LowerBoundTest, TheFastestDeviceSaysWhatAKernelTakesAtLeast) {
  PlanSketch sketch(2);
  sketch.runs({0, 1}, {sketch.kernel(3 * unit)});
  Plan plan = sketch.finished();
  plan.device_classes.add({.name = "fast", .kernels = {Duration{2 * unit}}, .healthy = {Duration{2 * unit}}});
  plan.device_classes.add(
      {.name = "slow", .slow = true, .kernels = {Duration{4 * unit}}, .healthy = {Duration{2 * unit}}});
  plan.device_class_of.add(DeviceClassId{0});
  plan.device_class_of.add(DeviceClassId{1});
  EXPECT_EQ(least_step_time(plan), lowered(2));
}

}  // namespace
}  // namespace trainyard::sim
