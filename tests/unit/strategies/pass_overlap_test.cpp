#include "strategies/internal/pass_overlap.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "sim/executor.hpp"

namespace trainyard::strategies {
namespace {

using std::chrono::milliseconds;

// Two ranks that do the same. A layer is a kernel, a collective that the next kernel waits for, and that kernel; all
// take a millisecond.
class PassOverlapTest : public testing::Test {
 protected:
  PassOverlapTest() {
    stream_ = builder_.stream("tensor");
    slot_ = builder_.slot("tensor");
    reduce_ = builder_.call(slot_, sim::CollectiveKind::all_reduce, {}, sim::Purpose::tensor);
  }

  sim::BlockId layer(const std::string& name, bool communicates = true) {
    const sim::Kernel before{.name = name + " before", .duration = milliseconds{1}};
    const sim::Kernel after{.name = name + " after", .duration = milliseconds{1}};
    BlockWriter block = builder_.block(name, {});
    block.memory(sim::MemoryPurpose::activations, sim::Bytes{1}).compute({&before, 1});
    if (communicates) block.blocking(stream_, reduce_);
    block.compute({&after, 1}).memory(sim::MemoryPurpose::activations, sim::Bytes{-1});
    return block.finish();
  }

  static std::vector<sim::BlockCall> calls(sim::BlockId block, std::int32_t micro_batch, std::int32_t layers) {
    std::vector<sim::BlockCall> result;
    for (std::int32_t i = 0; i < layers; ++i)
      result.push_back({.block = block, .layer = i, .micro_batch = micro_batch});
    return result;
  }

  // "forward layer 0 of 7, ...", with the blocks' names.
  std::vector<std::string> order(const sim::Program& program) {
    std::vector<std::string> result;
    for (const sim::BlockCall& call : program.calls)
      result.push_back(builder_.plan().blocks[call.block].name + ' ' + std::to_string(call.layer) + " of " +
                       std::to_string(call.micro_batch));
    return result;
  }

  double makespan(sim::Program program) {
    sim::Plan plan = builder_.plan();
    const sim::ProgramId id = plan.programs.add(std::move(program));
    plan.program_of = sim::Table<sim::RankId, sim::ProgramId>(2);
    for (std::size_t i = 0; i < 2; ++i) plan.program_of[plan.program_of.id(i)] = id;
    plan.communicators = sim::CommunicatorTable(2, plan.slots.size());
    plan.communicators.add({sim::RankId{0}, sim::RankId{1}}, {slot_, slot_});
    plan.algorithms = {"none"};
    plan.costs.add({{.duration = milliseconds{1}, .latency = milliseconds{1}}});
    const sim::Outcome outcome = sim::run(plan);
    EXPECT_EQ(outcome.stall, "");
    return sim::to_seconds(outcome.step_time) * 1e3;
  }

  PlanBuilder builder_;
  sim::StreamId stream_{};
  sim::SlotId slot_{};
  sim::CallId reduce_{};
};

TEST_F(PassOverlapTest, HidesTheCommunicationOfOnePassBehindTheKernelsOfTheOther) {
  const auto forward = calls(layer("forward"), 7, 3);
  const auto backward = calls(layer("backward"), 2, 3);
  sim::Program one_after_the_other;
  for (const auto& pass : {forward, backward})
    one_after_the_other.calls.insert(one_after_the_other.calls.end(), pass.begin(), pass.end());
  EXPECT_DOUBLE_EQ(makespan(one_after_the_other), 6 * 3);
  PassOverlap overlap(builder_);
  sim::Program program;
  overlap.write(program, forward, backward);
  EXPECT_DOUBLE_EQ(makespan(program), 6 * 2);  // kernels alone
}

TEST_F(PassOverlapTest, TakesTurnsWherePassesWait) {
  PassOverlap overlap(builder_);
  sim::Program program;
  overlap.write(program, calls(layer("forward"), 7, 1), calls(layer("backward"), 2, 1));
  EXPECT_EQ(order(program), (std::vector<std::string>{"overlapped-backward 0 of 2", "overlapped-forward 0 of 7",
                                                      "overlapped-backward 0 of 2", "overlapped-forward 0 of 7"}));
}

TEST_F(PassOverlapTest, TakesTurnsLayerByLayerWhereNothingWaits) {
  PassOverlap overlap(builder_);
  sim::Program program;
  overlap.write(program, calls(layer("forward", false), 7, 1), calls(layer("backward", false), 2, 3));
  EXPECT_EQ(order(program), (std::vector<std::string>{"overlapped-backward 0 of 2", "overlapped-forward 0 of 7",
                                                      "overlapped-backward 1 of 2", "overlapped-backward 2 of 2"}));
}

TEST_F(PassOverlapTest, KeepsEveryOperationInTheOrderOfItsPass) {
  const sim::BlockId forward = layer("forward");
  PassOverlap overlap(builder_);
  sim::Program program;
  overlap.write(program, calls(forward, 0, 1), {});
  std::size_t next = 0;
  const std::vector<sim::Op> whole = builder_.plan().blocks[forward].ops;
  for (const sim::BlockCall& call : program.calls)
    for (const sim::Op& op : builder_.plan().blocks[call.block].ops)
      EXPECT_EQ(op.work.index(), whole.at(next++).work.index());
  EXPECT_EQ(next, whole.size());
}

TEST_F(PassOverlapTest, TakesABlockApartOnce) {
  const auto forward = calls(layer("forward"), 0, 1);
  PassOverlap overlap(builder_);
  sim::Program program;
  overlap.write(program, forward, {});
  const std::size_t blocks = builder_.plan().blocks.size();
  overlap.write(program, forward, {});
  EXPECT_EQ(builder_.plan().blocks.size(), blocks);
}

}  // namespace
}  // namespace trainyard::strategies
