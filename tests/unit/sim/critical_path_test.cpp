// The critical path against brute force: what stands on it, and only that, decides how long steps are.
//
// TRAINYARD_PATH_CASES sets the number of random programs (`ctest` runs a few hundred, with some ten parts each).
#include "sim/critical_path.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <ostream>
#include <string>
#include <variant>
#include <vector>

#include "sim/executor.hpp"
#include "tests/support/plan_sketch.hpp"
#include "tests/support/random_script.hpp"

namespace trainyard::sim {
namespace {

using tests::communicate;
using tests::PlanSketch;

constexpr std::uint64_t usual_cases = 200;

std::uint64_t cases() {
  const char* const text = std::getenv("TRAINYARD_PATH_CASES");
  return text == nullptr ? usual_cases : std::strtoull(text, nullptr, 10);
}

void expect_without_gaps(const Outcome& outcome) {
  ASSERT_TRUE(outcome.critical_path);
  const CriticalPath& path = *outcome.critical_path;
  Duration sum{};
  for (std::size_t i = 0; i < path.segments.size(); ++i) {
    ASSERT_GT(path.segments[i].length.count(), 0) << i;
    sum += path.segments[i].length;
    if (i == 0) continue;
    ASSERT_EQ(path.segments[i].start, path.segments[i - 1].start + path.segments[i - 1].length) << i;
  }
  ASSERT_EQ(sum, outcome.step_time * path.steps);
}

// After so many steps the same things decide every step, and what they decide comes back after one, two or a few.
constexpr int steps_before = 24;
constexpr int steps_measured = 24;

// How much later the steps end that are measured.
std::int64_t growth(const Script& script) {
  NaiveRun naive(script);
  const auto steps = [&](int count) {
    for (int i = 0; i < count; ++i) naive.step();
    return naive.latest();
  };
  const std::int64_t before = steps(steps_before);
  return steps(steps_measured) - before;
}

// Something with a duration of its own: how often it stands on the path, and the steps with another duration.
struct Part {
  std::string name;
  std::int64_t duration = 0;
  std::int64_t on_path = 0;
  std::function<void(Script&, std::int64_t)> lengthen;
};

using Count = std::function<std::int64_t(const std::function<bool(const PathSegment&, const Op&)>&)>;

void add_kernels(const Script& script, const Count& stands, std::vector<Part>& parts) {
  for (std::size_t k = 0; k < script.kernels.size(); ++k)
    parts.push_back({script.kernels[k].name, script.kernels[k].duration.count(),
                     stands([&](const PathSegment& segment, const Op& op) {
                       const auto* work = std::get_if<Compute>(&op.work);
                       return segment.time != PathTime::host && work != nullptr && index_of(work->kernel) == k;
                     }),
                     [k](Script& of, std::int64_t by) { of.kernels[k].duration += Duration{by}; }});
}

void add_communications(const Script& script, const Plan& plan, const Count& stands, std::vector<Part>& parts) {
  for (std::size_t g = 0; g < script.groups.size(); ++g)
    for (std::size_t c = 0; c + 1 < script.calls.size(); ++c) {
      const bool pair = c + 2 == script.calls.size();  // its two ends have calls of their own
      if (pair != (script.groups[g].slots[0] != script.groups[g].slots[1])) continue;
      parts.push_back({"communication " + std::to_string(c) + " of group " + std::to_string(g),
                       script.groups[g].cost_of_call[c], stands([&](const PathSegment& segment, const Op& op) {
                         const auto* work = std::get_if<Communicate>(&op.work);
                         if (segment.time == PathTime::host || work == nullptr) return false;
                         if (index_of(work->call) != c && !(pair && index_of(work->call) == c + 1)) return false;
                         return index_of(plan.communicators.of(segment.rank, plan.calls[work->call].slot)) == g;
                       }),
                       [g, c, pair](Script& of, std::int64_t by) {
                         of.groups[g].cost_of_call[c] += by;
                         if (pair) of.groups[g].cost_of_call[c + 1] += by;
                       }});
    }
}

void add_host_work(const Script& script, const Count& stands, std::vector<Part>& parts) {
  for (std::uint32_t rank = 0; rank < script.ranks; ++rank)
    for (std::size_t s = 0; s < script.segments.size(); ++s) {
      std::uint32_t position = 0;  // in the rank's block of the segment
      for (std::size_t i = 0; i < script.segments[s].items.size(); ++i) {
        const Item& item = script.segments[s].items[i];
        for (const auto& [of, op] : item.ops) position += of == rank ? 1 : 0;
        const auto* work = std::get_if<HostWork>(&item.ops.front().second.work);
        if (work == nullptr || item.ops.front().first != rank) continue;
        const std::size_t block = rank * script.segments.size() + s;
        parts.push_back({"host work " + std::to_string(position - 1) + " of block " + std::to_string(block),
                         work->duration.count(), stands([&](const PathSegment& segment, const Op&) {
                           return index_of(segment.block) == block && segment.op == position - 1;
                         }),
                         [s, i](Script& other, std::int64_t by) {
                           std::get<HostWork>(other.segments[s].items[i].ops.front().second.work).duration +=
                               Duration{by};
                         }});
      }
    }
}

std::vector<Part> parts_of(const Script& script, const Plan& plan, const CriticalPath& path) {
  const Count stands = [&](const auto& is) {
    return std::ranges::count_if(path.segments, [&](const PathSegment& segment) {
      return is(segment, plan.blocks[segment.block].ops[segment.op]);
    });
  };
  std::vector<Part> parts;
  add_kernels(script, stands, parts);
  add_communications(script, plan, stands, parts);
  add_host_work(script, stands, parts);
  return parts;
}

struct Checked {
  std::uint64_t programs = 0;
  std::uint64_t parts = 0;
  std::uint64_t on_path = 0;
  std::uint64_t exact = 0;  // of these, lengthened as often as they stand there
};

void check(const Script& script, std::int64_t by, Checked& checked) {
  const Plan plan = plan_of(script, as_written(script));
  const Outcome outcome = run(plan, {.most_steps = steps_before, .critical_path = true});
  ASSERT_EQ(outcome.stall, "");
  const std::int64_t before = growth(script);
  // Few programs: those of ranks that decide in turns, so that no two steps take equally long.
  if (outcome.step_time.count() == 0 || outcome.step_time.count() * steps_measured != before) return;
  ASSERT_NO_FATAL_FAILURE(expect_without_gaps(outcome));
  const CriticalPath& path = *outcome.critical_path;
  ++checked.programs;
  for (const Part& part : parts_of(script, plan, path)) {
    SCOPED_TRACE(part.name + " on the path " + std::to_string(part.on_path));
    ++checked.parts;
    Script other = script;
    if (part.on_path == 0) {
      if (part.duration < by) continue;
      part.lengthen(other, -by);
      ASSERT_EQ(growth(other), before);
      continue;
    }
    part.lengthen(other, by);
    const std::int64_t more = (growth(other) - before) * path.steps;
    ASSERT_GE(more, part.on_path * by * steps_measured);
    ++checked.on_path;
    if (more == part.on_path * by * steps_measured) ++checked.exact;
  }
}

TEST(CriticalPathTest, OnlyWhatStandsOnItDecidesHowLongStepsOfRandomProgramsTake) {
  Checked checked;
  for (std::uint64_t seed = 0; seed < cases(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    ASSERT_NO_FATAL_FAILURE(check(ScriptWriter(seed, /*alike=*/false).write(), 3, checked));
  }
  EXPECT_GT(checked.programs, cases() * 9 / 10);
  EXPECT_GT(checked.on_path, cases());
  EXPECT_EQ(checked.exact, checked.on_path);  // no two paths are equally long
}

// Several paths are: the step takes no less without what is on none, and more with more of what is on one.
TEST(CriticalPathTest, HoldsWhereDurationsAreZeroAndEqual) {
  Checked checked;
  for (std::uint64_t seed = 0; seed < cases(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    ASSERT_NO_FATAL_FAILURE(check(ScriptWriter(seed).write(), 1, checked));
  }
  EXPECT_GT(checked.programs, cases() * 8 / 10);
}

TEST(CriticalPathTest, DoesNotDependOnWhoIsLookedAtFirst) {
  for (std::uint64_t seed = 0; seed < cases(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Script script = ScriptWriter(seed).write();
    const Plan plan = plan_of(script, as_written(script));
    const Outcome outcome = run(plan, {.most_steps = steps_before, .critical_path = true});
    for (std::uint64_t tie_seed = 1; tie_seed <= 3; ++tie_seed) {
      const Outcome other = run(plan, {.most_steps = steps_before, .critical_path = true, .tie_seed = tie_seed});
      ASSERT_EQ(other.critical_path->steps, outcome.critical_path->steps);
      ASSERT_EQ(other.critical_path->segments, outcome.critical_path->segments);
    }
  }
}

// What a path is spent on, in order: (rank, time, picoseconds).
struct Piece {
  std::uint32_t rank = 0;
  PathTime time{};
  std::int64_t length = 0;
  bool operator==(const Piece&) const = default;
};
void PrintTo(const Piece& piece, std::ostream* out) {
  *out << "rank " << piece.rank << " time " << static_cast<int>(piece.time) << " length " << piece.length;
}

Outcome with_path(PlanSketch& sketch) { return run(sketch.finished(), {.critical_path = true}); }

std::vector<Piece> pieces_of(const Outcome& outcome) {
  EXPECT_TRUE(outcome.steady);
  EXPECT_EQ(outcome.critical_path->steps, 1);
  expect_without_gaps(outcome);
  std::vector<Piece> pieces;
  for (const PathSegment& segment : outcome.critical_path->segments)
    pieces.push_back({static_cast<std::uint32_t>(index_of(segment.rank)), segment.time, segment.length.count()});
  return pieces;
}

TEST(CriticalPathTest, OfOneRankIsWhatItDoes) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(10), sketch.kernel(20, compute_stream, KernelClass::optimizer)});
  const Outcome outcome = with_path(sketch);
  EXPECT_EQ(pieces_of(outcome), (std::vector<Piece>{{0, PathTime::matmul, 10}, {0, PathTime::optimizer, 20}}));
  const auto times = outcome.critical_path->times();
  EXPECT_EQ(times.at(static_cast<std::size_t>(PathTime::matmul)), Duration{10});
  EXPECT_EQ(times.at(static_cast<std::size_t>(PathTime::optimizer)), Duration{20});
}

TEST(CriticalPathTest, IsNotLookedForUnlessAskedFor) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(10)});
  EXPECT_FALSE(run(sketch.finished()).critical_path);
}

TEST(CriticalPathTest, GoesThroughTheLastMemberOfACollective) {
  PlanSketch sketch(3);
  sketch.join({0, 1, 2});
  const CallId reduce = sketch.call(7);
  sketch.runs({0}, {sketch.kernel(5), communicate(reduce, compute_stream)});
  sketch.runs({1}, {sketch.kernel(20), communicate(reduce, compute_stream)});
  sketch.runs({2}, {sketch.kernel(19), communicate(reduce, compute_stream)});
  EXPECT_EQ(pieces_of(with_path(sketch)),
            (std::vector<Piece>{{1, PathTime::matmul, 20}, {1, PathTime::exposed_tensor, 7}}));
}

TEST(CriticalPathTest, FollowsAMicroBatchThroughThePipeline) {
  PlanSketch sketch(2);
  sketch.connect(0, 1);
  sketch.connect(1, 0);
  const CallId send = sketch.call(3, tests::next, CollectiveKind::send, Purpose::pipeline);
  const CallId receive = sketch.call(3, tests::previous, CollectiveKind::receive, Purpose::pipeline);
  sketch.runs({0}, {sketch.kernel(10), communicate(send, tests::side, tests::after_compute),
                    communicate(receive, tests::third), tests::wait_for(tests::after_third), sketch.kernel(15)});
  sketch.runs({1}, {communicate(receive, tests::third), tests::wait_for(tests::after_third), sketch.kernel(20),
                    sketch.kernel(40), communicate(send, tests::side, tests::after_compute)});
  EXPECT_EQ(pieces_of(with_path(sketch)), (std::vector<Piece>{{0, PathTime::matmul, 10},
                                                              {0, PathTime::exposed_pipeline, 3},
                                                              {1, PathTime::matmul, 20},
                                                              {1, PathTime::matmul, 40},
                                                              {1, PathTime::exposed_pipeline, 3},
                                                              {0, PathTime::matmul, 15}}));
}

TEST(CriticalPathTest, IsTheHostWhereItLaunchesTooSlowly) {
  PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(1), sketch.kernel(1), {.work = HostWork{Duration{5}}}, sketch.kernel(1)}, 10);
  EXPECT_EQ(pieces_of(with_path(sketch)),
            (std::vector<Piece>{{0, PathTime::host, 20}, {0, PathTime::host, 5}, {0, PathTime::host, 10}}));
}

TEST(CriticalPathTest, GoesFromTheHostToTheKernelsBehindTheLaunchThatWasLate) {
  PlanSketch sketch(1);
  sketch.runs({0},
              {sketch.kernel(1),
               sketch.kernel(1),
               sketch.kernel(100),
               sketch.kernel(50),
               {.work = HostWait{}, .after = tests::after_compute}},
              10);
  EXPECT_EQ(pieces_of(with_path(sketch)),
            (std::vector<Piece>{{0, PathTime::host, 30}, {0, PathTime::matmul, 100}, {0, PathTime::matmul, 50}}));
}

TEST(CriticalPathTest, GoesOnInTheStepBefore) {
  PlanSketch sketch(1);
  sketch.join({0});
  const CallId gather = sketch.call(25, tests::group, CollectiveKind::all_gather, Purpose::data);
  sketch.runs({0}, {tests::waiting(sketch.kernel(10), tests::absolute(0)), sketch.kernel(4),
                    tests::recording(communicate(gather, tests::side, tests::after_compute), tests::absolute(0))});
  const Outcome outcome = with_path(sketch);
  EXPECT_EQ(outcome.step_time, Duration{39});
  EXPECT_EQ(pieces_of(outcome),
            (std::vector<Piece>{{0, PathTime::matmul, 10}, {0, PathTime::matmul, 4}, {0, PathTime::exposed_data, 25}}));
}

TEST(CriticalPathTest, NamesASlowDevice) {
  PlanSketch sketch(2);
  sketch.join({0, 1});
  const CallId reduce = sketch.call(7);
  sketch.runs({0, 1}, {sketch.kernel(10), communicate(reduce, compute_stream)});
  sketch.plan.device_classes.add({.name = "healthy", .kernels = {Duration{10}}, .healthy = {Duration{10}}});
  sketch.plan.device_classes.add({.name = "slow", .slow = true, .kernels = {Duration{15}}, .healthy = {Duration{10}}});
  sketch.plan.device_class_of = Table<RankId, DeviceClassId>(2);
  sketch.plan.device_class_of[tests::rank(1)] = DeviceClassId{1};
  EXPECT_EQ(
      pieces_of(with_path(sketch)),
      (std::vector<Piece>{{1, PathTime::matmul, 10}, {1, PathTime::straggler, 5}, {1, PathTime::exposed_tensor, 7}}));
}

TEST(CriticalPathTest, BlamesTheCommunicationThatSlowsKernels) {
  PlanSketch sketch(1);
  sketch.join({0});
  const CallId gather = sketch.call(40, tests::group, CollectiveKind::all_gather, Purpose::data);
  sketch.runs({0}, {communicate(gather, tests::side, tests::after_compute), sketch.kernel(60), sketch.kernel(40)});
  sketch.finished();
  sketch.plan.costs[CostClassId{}].front().interference = whole_speed / 4;
  const Outcome outcome = run(sketch.plan, {.critical_path = true});
  EXPECT_EQ(outcome.step_time, Duration{110});
  EXPECT_EQ(pieces_of(outcome), (std::vector<Piece>{{0, PathTime::matmul, 60},
                                                    {0, PathTime::exposed_data, 6},
                                                    {0, PathTime::matmul, 40},
                                                    {0, PathTime::exposed_data, 4}}));
  EXPECT_EQ(outcome.critical_path->segments[1].slowed_by, gather);
}

}  // namespace
}  // namespace trainyard::sim
