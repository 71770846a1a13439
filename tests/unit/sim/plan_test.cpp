#include "sim/plan.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace trainyard::sim {
namespace {

constexpr SlotId tensor{0};
constexpr SlotId next_stage{1};
constexpr SlotId previous_stage{2};

RankId rank(std::uint32_t index) { return RankId{index}; }

TEST(CommunicatorTableTest, EveryMemberFindsItsCommunicatorInItsSlot) {
  CommunicatorTable table(4, 3);
  const CommunicatorId low = table.add({rank(0), rank(1)}, {tensor, tensor});
  const CommunicatorId high = table.add({rank(3), rank(2)}, {tensor, tensor});
  EXPECT_EQ(table.size(), 2U);
  EXPECT_EQ(table.slots(), 3U);
  EXPECT_EQ(table.of(rank(0), tensor), low);
  EXPECT_EQ(table.of(rank(1), tensor), low);
  EXPECT_EQ(table.of(rank(2), tensor), high);
  EXPECT_EQ(table.of(rank(3), tensor), high);
}

TEST(CommunicatorTableTest, TheEndsOfAPairSeeItInDifferentSlots) {
  CommunicatorTable table(2, 3);
  const CommunicatorId pair = table.add({rank(0), rank(1)}, {next_stage, previous_stage});
  EXPECT_EQ(table.of(rank(0), next_stage), pair);
  EXPECT_EQ(table.of(rank(1), previous_stage), pair);
  EXPECT_FALSE(table.has(rank(0), previous_stage));
  EXPECT_FALSE(table.has(rank(1), next_stage));
  EXPECT_EQ(table[pair].slot, next_stage);
  EXPECT_EQ(table.member_slot(table[pair], 1), previous_stage);
}

TEST(CommunicatorTableTest, MembersKeepTheOrderOfTheRing) {
  CommunicatorTable table(5, 1);
  table.add({rank(1), rank(0)}, {tensor, tensor});
  const CommunicatorId ring = table.add({rank(4), rank(2), rank(3)}, {tensor, tensor, tensor});
  ASSERT_EQ(table[ring].member_count, 3U);
  EXPECT_EQ(table.member(table[ring], 0), rank(4));
  EXPECT_EQ(table.member(table[ring], 1), rank(2));
  EXPECT_EQ(table.member(table[ring], 2), rank(3));
}

TEST(CommunicatorTableTest, ARankOutsideEveryGroupHasNone) {
  CommunicatorTable table(3, 2);
  table.add({rank(0), rank(1)}, {tensor, tensor});
  EXPECT_TRUE(table.has(rank(1), tensor));
  EXPECT_FALSE(table.has(rank(2), tensor));
  EXPECT_FALSE(table.has(rank(1), next_stage));
}

TEST(CommunicatorTableDeathTest, MisuseStopsTheRun) {
  CommunicatorTable table(3, 2);
  table.add({rank(0), rank(1)}, {tensor, tensor});
  EXPECT_DEATH(table.of(rank(2), tensor), "only in slots that it has");
  EXPECT_DEATH(table.add({rank(1), rank(2)}, {tensor, tensor}), "one communicator per slot");
  EXPECT_DEATH(table.add({}, {}), "names its slot");
  EXPECT_DEATH(table.add({rank(2)}, {}), "names its slot");
}

Op allocate(std::int64_t bytes, MemoryPurpose purpose = MemoryPurpose::activations) {
  return {.work = Memory{purpose, Bytes{bytes}}};
}

BlockId add_block(Plan& plan, std::vector<Op> ops) {
  return plan.blocks.add({.name = "block", .launch = {}, .ops = std::move(ops)});
}

Program program_of(const std::vector<BlockId>& blocks) {
  Program program;
  for (const BlockId block : blocks) program.calls.push_back({.block = block});
  return program;
}

std::int64_t at_peak(const MemoryPeak& peak, MemoryPurpose purpose) {
  return peak.at_peak.at(static_cast<std::size_t>(purpose)).count;
}

TEST(MemoryPeakTest, WhatIsResidentIsAlwaysThere) {
  const Plan plan;
  Program program;
  program.resident[static_cast<std::size_t>(MemoryPurpose::parameters)] = Bytes{100};
  program.resident[static_cast<std::size_t>(MemoryPurpose::optimizer)] = Bytes{300};
  const MemoryPeak peak = memory_peak(plan, program);
  EXPECT_EQ(peak.total, Bytes{400});
  EXPECT_EQ(at_peak(peak, MemoryPurpose::parameters), 100);
  EXPECT_EQ(at_peak(peak, MemoryPurpose::optimizer), 300);
  EXPECT_EQ(at_peak(peak, MemoryPurpose::activations), 0);
}

TEST(MemoryPeakTest, APeakInsideABlockCounts) {
  Plan plan;
  const BlockId block = add_block(plan, {allocate(10), allocate(70), allocate(-75)});
  EXPECT_EQ(memory_peak(plan, program_of({block})).total, Bytes{80});
}

TEST(MemoryPeakTest, WhatBlocksKeepAddsUpOverTheirCalls) {
  Plan plan;
  const BlockId forward = add_block(plan, {allocate(10), allocate(5, MemoryPurpose::buffers), allocate(-2)});
  const BlockId backward = add_block(plan, {allocate(40, MemoryPurpose::gradients), allocate(-8)});
  const MemoryPeak peak = memory_peak(plan, program_of({forward, forward, forward, backward, backward, backward}));
  // After the forward passes 24 + 15; the gradients of the three layers are added, 8 of activations freed between.
  EXPECT_EQ(peak.total, Bytes{24 + 15 + 120 - 16});
  EXPECT_EQ(at_peak(peak, MemoryPurpose::activations), 8);
  EXPECT_EQ(at_peak(peak, MemoryPurpose::buffers), 15);
  EXPECT_EQ(at_peak(peak, MemoryPurpose::gradients), 120);
}

TEST(MemoryPeakTest, ThePartsAreThoseOfTheMomentAndNotTheirOwnMaxima) {
  Plan plan;
  const BlockId block =
      add_block(plan, {allocate(50), allocate(-50), allocate(60, MemoryPurpose::buffers), allocate(1)});
  const MemoryPeak peak = memory_peak(plan, program_of({block}));
  EXPECT_EQ(peak.total, Bytes{61});
  EXPECT_EQ(at_peak(peak, MemoryPurpose::activations), 1);
  EXPECT_EQ(at_peak(peak, MemoryPurpose::buffers), 60);
}

TEST(MemoryPeakTest, TheFirstOfEqualPeaksIsTold) {
  Plan plan;
  const BlockId block = add_block(plan, {allocate(50), allocate(-50), allocate(50, MemoryPurpose::buffers)});
  EXPECT_EQ(at_peak(memory_peak(plan, program_of({block})), MemoryPurpose::activations), 50);
}

TEST(CountsTest, OperationsAreCountedOverTheCallsOfTheirBlocks) {
  Plan plan;
  const KernelId small = plan.kernels.add({.name = "small"});
  const KernelId large = plan.kernels.add({.name = "large"});
  const CallId gather = plan.calls.add({.slot = tensor, .kind = CollectiveKind::all_gather});
  const CallId reduce = plan.calls.add({.slot = tensor, .kind = CollectiveKind::reduce_scatter});
  const CallId never = plan.calls.add({.slot = tensor, .kind = CollectiveKind::barrier});
  const BlockId forward =
      add_block(plan, {{.work = Communicate{gather}}, {.work = Compute{small}}, {.work = Compute{small}}, allocate(1)});
  const BlockId backward = add_block(
      plan, {{.work = Communicate{gather}}, {.work = Compute{large}}, {.work = Communicate{reduce}}, {.work = Wait{}}});
  add_block(plan, {{.work = Communicate{never}}, {.work = Compute{large}}});  // of another role
  const Program program = program_of({forward, forward, forward, backward, backward});
  EXPECT_EQ(call_counts(plan, program), (std::vector<std::int64_t>{5, 2, 0}));
  EXPECT_EQ(kernel_counts(plan, program), (std::vector<std::int64_t>{6, 2}));
}

TEST(PlanTest, EveryWordHasAName) {
  EXPECT_EQ(to_string(Purpose::data), "data");
  EXPECT_EQ(to_string(Purpose::offload), "offload");
  EXPECT_EQ(to_string(CollectiveKind::all_reduce), "all_reduce");
  EXPECT_EQ(to_string(CollectiveKind::receive), "receive");
  EXPECT_EQ(to_string(MemoryPurpose::parameters), "parameters");
  EXPECT_EQ(to_string(MemoryPurpose::buffers), "buffers");
}

TEST(PlanTest, EveryStreamHasItsPlaceInASet) {
  StreamSet all = 0;
  for (std::size_t i = 0; i < most_streams; ++i) {
    const StreamSet one = set_of(StreamId{static_cast<std::uint8_t>(i)});
    EXPECT_EQ(all & one, 0);
    EXPECT_NE(one, 0);
    all = static_cast<StreamSet>(all | one);
  }
  EXPECT_EQ(all, 0xffff);
}

}  // namespace
}  // namespace trainyard::sim
