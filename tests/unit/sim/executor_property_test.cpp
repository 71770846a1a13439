// Random plans: the executor against an evaluator that shares nothing with it, and what must hold for every plan.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "sim/executor.hpp"
#include "tests/support/plan_sketch.hpp"
#include "tests/support/random_script.hpp"

namespace trainyard::sim {
namespace {

constexpr std::uint64_t plans = 300;

std::int64_t count(TimePoint when) { return when.time_since_epoch().count(); }

std::vector<std::vector<Happening>> recorded(const Outcome& outcome, const std::vector<std::uint32_t>& number) {
  std::vector<std::vector<Happening>> result(number.size());
  for (std::uint32_t rank = 0; rank < number.size(); ++rank)
    for (const OpRecord& record : outcome.records)
      if (index_of(record.rank) == number[rank])
        result[rank].push_back({.start = count(record.start),
                                .end = count(record.end),
                                .transfer = count(record.transfer),
                                .layer = static_cast<std::uint32_t>(record.layer)});
  return result;
}

// Everything of an outcome that is a sum over ranks. `idle` is left out: see the test of its own.
std::vector<std::int64_t> sums(const Outcome& outcome) {
  std::vector<std::int64_t> result{outcome.step_time.count(),
                                   count(outcome.measured_from),
                                   outcome.steady ? 1 : 0,
                                   tests::ps(outcome.time.bubble),
                                   tests::ps(outcome.time.host),
                                   static_cast<std::int64_t>(outcome.operations),
                                   static_cast<std::int64_t>(outcome.communications)};
  for (const WideDuration& part : outcome.time.kernels) result.push_back(tests::ps(part));
  for (const WideDuration& part : outcome.time.exposed) result.push_back(tests::ps(part));
  for (const CallTime& call : outcome.calls) {
    result.push_back(tests::ps(call.busy));
    result.push_back(tests::ps(call.exposed));
  }
  return result;
}

TEST(ExecutorPropertyTest, EveryOperationHappensWhenANaiveEvaluatorSays) {
  for (std::uint64_t seed = 0; seed < plans; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Script script = ScriptWriter(seed).write();
    const Plan plan = plan_of(script, as_written(script));
    NaiveRun naive(script);
    for (int steps = 1; steps <= 3; ++steps) {
      naive.step();
      const Outcome outcome = run(plan, {.record = tests::all_ranks(plan), .most_steps = steps});
      ASSERT_EQ(outcome.stall, "");
      ASSERT_EQ(recorded(outcome, as_written(script)), naive.happenings) << "step " << steps;
      ASSERT_EQ(outcome.step_time.count(), naive.longest()) << "step " << steps;
      ASSERT_EQ(count(outcome.measured_from), *std::ranges::min_element(naive.entered)) << "step " << steps;
      if (outcome.steady) break;
    }
  }
}

TEST(ExecutorPropertyTest, RunsOfKernelsTakeAsLongAsTheirKernelsOneByOne) {
  for (std::uint64_t seed = 0; seed < plans; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Script script = ScriptWriter(seed).write();
    const Plan plan = plan_of(script, as_written(script));
    NaiveRun naive(script);
    for (int steps = 1; steps <= 3; ++steps) {
      naive.step();
      const Outcome outcome = run(plan, {.most_steps = steps});  // nothing recorded
      ASSERT_EQ(outcome.step_time.count(), naive.longest()) << "step " << steps;
      if (outcome.steady) break;
    }
  }
}

TEST(ExecutorPropertyTest, RecordingChangesNothing) {
  for (std::uint64_t seed = 0; seed < plans; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Script script = ScriptWriter(seed).write();
    const Plan plan = plan_of(script, as_written(script));
    const Outcome all = run(plan, {.record = tests::all_ranks(plan)});
    const Outcome none = run(plan);
    const Outcome one = run(plan, {.record = {RankId{static_cast<std::uint32_t>(seed % script.ranks)}}});
    ASSERT_EQ(sums(none), sums(all));
    ASSERT_EQ(sums(one), sums(all));
    ASSERT_EQ(recorded(one, as_written(script)).at(seed % script.ranks),
              recorded(all, as_written(script)).at(seed % script.ranks));
  }
}

TEST(ExecutorPropertyTest, TheBreakdownAddsUpToRanksTimesTheStep) {
  for (std::uint64_t seed = 0; seed < plans; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Script script = ScriptWriter(seed).write();
    for (const int steps : {1, 2, 6}) {
      const Outcome outcome = run(plan_of(script, as_written(script)), {.most_steps = steps});
      ASSERT_EQ(static_cast<std::int64_t>(tests::sum_of(outcome.time)), outcome.step_time.count() * script.ranks);
      ASSERT_LE(outcome.time.idle.ps, outcome.time.host.ps);
      WideDuration of_calls;
      WideDuration of_purposes;
      for (const CallTime& call : outcome.calls) of_calls.ps += call.exposed.ps;
      for (const WideDuration& part : outcome.time.exposed) of_purposes.ps += part.ps;
      ASSERT_EQ(tests::ps(of_calls), tests::ps(of_purposes));
    }
  }
}

TEST(ExecutorPropertyTest, ASteadyStepIsWhatAllFurtherStepsTake) {
  int steady = 0;
  for (std::uint64_t seed = 0; seed < plans; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Script script = ScriptWriter(seed).write();
    const Plan plan = plan_of(script, as_written(script));
    const Outcome outcome = run(plan);
    if (!outcome.steady) continue;
    ++steady;
    NaiveRun naive(script);
    for (int steps = 1; !run(plan, {.most_steps = steps}).steady; ++steps) naive.step();
    for (int step = 0; step < 12; ++step) {
      naive.step();
      ASSERT_EQ(naive.longest(), outcome.step_time.count()) << step << " steps after it";
    }
  }
  EXPECT_GT(steady, static_cast<int>(plans) / 3);
}

TEST(ExecutorPropertyTest, TheNumberingOfTheRanksDoesNotMatter) {
  for (std::uint64_t seed = 0; seed < plans; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Script script = ScriptWriter(seed).write();
    const std::vector<std::uint32_t> plain = as_written(script);
    std::vector<std::uint32_t> shuffled = plain;
    Random random{seed};
    for (std::size_t i = shuffled.size(); i > 1; --i) std::swap(shuffled[i - 1], shuffled[random.below(i)]);
    std::vector<std::uint32_t> reversed = plain;
    std::ranges::reverse(reversed);
    const Plan plan = plan_of(script, plain);
    const Outcome outcome = run(plan, {.record = tests::all_ranks(plan)});
    for (const auto& number : {shuffled, reversed}) {
      const Outcome renumbered = run(plan_of(script, number), {.record = tests::all_ranks(plan)});
      ASSERT_EQ(sums(renumbered), sums(outcome));
      ASSERT_EQ(recorded(renumbered, number), recorded(outcome, plain));
    }
  }
}

TEST(ExecutorPropertyTest, TheRecordedMemoryReachesThePeakOfEachProgram) {
  for (std::uint64_t seed = 0; seed < plans; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Script script = ScriptWriter(seed).write();
    const Plan plan = plan_of(script, as_written(script));
    const Outcome outcome = run(plan, {.record = tests::all_ranks(plan)});
    std::vector<std::int64_t> most(script.ranks, 0);
    for (const MemoryRecord& record : outcome.memory) {
      std::int64_t total = 0;
      for (const Bytes part : record.allocated) total += part.count;
      most[index_of(record.rank)] = std::max(most[index_of(record.rank)], total);
    }
    for (std::uint32_t rank = 0; rank < script.ranks; ++rank)
      ASSERT_EQ(most[rank], memory_peak(plan, plan.programs[plan.program_of[RankId{rank}]]).total.count);
  }
}

TEST(ExecutorPropertyTest, ASecondRunIsTheSame) {
  for (std::uint64_t seed = 0; seed < plans; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Script script = ScriptWriter(seed).write();
    const Plan plan = plan_of(script, as_written(script));
    const Outcome first = run(plan, {.record = tests::all_ranks(plan)});
    const Outcome second = run(plan, {.record = tests::all_ranks(plan)});
    ASSERT_EQ(sums(second), sums(first));
    ASSERT_EQ(tests::ps(second.time.idle), tests::ps(first.time.idle));
    ASSERT_EQ(recorded(second, as_written(script)), recorded(first, as_written(script)));
  }
}

}  // namespace
}  // namespace trainyard::sim
