// Perfetto's format says what Chrome's does, of small plans and of whole frameworks.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "scenarios/trace.hpp"
#include "tests/support/plan_sketch.hpp"
#include "tests/support/simulated.hpp"
#include "tests/support/trace_check.hpp"
#include "tests/support/trace_contents.hpp"

namespace trainyard::scenarios {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using tests::ChromeContents;
using tests::PerfettoContents;
using tests::TraceContents;

class TraceFormatsTest : public testing::Test {
 protected:
  TraceFormatsTest() {
    std::string pattern = (fs::temp_directory_path() / "trainyard-formats-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~TraceFormatsTest() override { fs::remove_all(folder_); }

  std::string content(const char* name) const {
    std::ifstream in(folder_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  // One run, written in both formats.
  template <class Run>
  TraceContents written(Run run) {
    for (const char* name : {"trace.json", "trace.pftrace"}) {
      Trace trace(folder_ / name);
      run(trace);
    }
    const json chrome = json::parse(content("trace.json"));
    EXPECT_EQ(tests::trace_violations(chrome), std::vector<std::string>{});
    TraceContents expected = ChromeContents::of(chrome);
    TraceContents actual;
    EXPECT_NO_THROW(actual = PerfettoContents::of(content("trace.pftrace")));
    expect_same(actual, expected);
    return actual;
  }
  TraceContents written(const sim::Plan& plan, const std::vector<sim::RankId>& ranks) {
    return written([&](Trace& trace) { trace.write(plan, sim::run(plan, {.sink = &trace, .sink_ranks = ranks})); });
  }
  TraceContents written(const std::string& scenario, const std::vector<std::string>& settings,
                        std::vector<std::int64_t> ranks = {}) {
    return written([&](Trace& trace) {
      SimulateOptions options{.sink = &trace, .ideal = false, .ranks = {}};
      if (!ranks.empty()) options.ranks = ranks;
      const Simulation simulation = simulate(tests::scenario_of(scenario, settings), options);
      trace.write(simulation.plan, simulation.outcome);
    });
  }

  double ratio() const {
    return static_cast<double>(fs::file_size(folder_ / "trace.json")) /
           static_cast<double>(fs::file_size(folder_ / "trace.pftrace"));
  }

  static void expect_same(const TraceContents& actual, const TraceContents& expected) {
    EXPECT_EQ(actual.step, expected.step);
    EXPECT_EQ(actual.arrows, expected.arrows);
    ASSERT_EQ(actual.processes.size(), expected.processes.size());
    for (const auto& [id, process] : expected.processes) {
      const TraceContents::Process& other = actual.processes.at(id);
      EXPECT_EQ(other.name, process.name);
      EXPECT_EQ(other.sort_index, process.sort_index);
      EXPECT_EQ(other.counters, process.counters) << "of " << process.name;
      ASSERT_EQ(other.threads.size(), process.threads.size());
      for (const auto& [number, thread] : process.threads) expect_same(other.threads.at(number), thread);
    }
  }
  static void expect_same(const TraceContents::Thread& actual, const TraceContents::Thread& expected) {
    EXPECT_EQ(actual.name, expected.name);
    EXPECT_EQ(actual.sort_index, expected.sort_index);
    ASSERT_EQ(actual.slices.size(), expected.slices.size());
    for (std::size_t i = 0; i < expected.slices.size(); ++i) {
      const TraceContents::Slice& slice = expected.slices[i];
      const TraceContents::Slice& other = actual.slices[i];
      ASSERT_EQ(other, slice) << other.name << " " << other.start << " to " << other.end << " " << other.arguments
                              << ", expected " << slice.name << " " << slice.start << " to " << slice.end << " "
                              << slice.arguments;
    }
  }

  fs::path folder_;
};

const char* const llama = R"(name: Formats
cluster: {node: dgx-h100, nodes: 2}
model: {base: llama3-8b, layers: 8}
training: {global_batch: 32, micro_batch: 1, sequence: 4096, precision: bf16}
strategy: {framework: megatron-lm}
)";

TEST_F(TraceFormatsTest, RoundingKeepsOrderAndNesting) {
  tests::PlanSketch sketch(2);
  sketch.join({0, 1});
  const sim::CallId reduce = sketch.call(1'499);
  sketch.runs({0, 1}, {sketch.kernel(499), sketch.kernel(1), sketch.kernel(500), sketch.kernel(0), sketch.kernel(1'501),
                       tests::communicate(reduce, tests::side, tests::after_compute),
                       tests::wait_for(tests::after_side), sketch.kernel(2'499)});
  const TraceContents trace = written(sketch.finished(), {tests::rank(0), tests::rank(1)});
  const std::vector<TraceContents::Slice>& compute = trace.processes.at(0).threads.begin()->second.slices;
  std::vector<std::pair<std::int64_t, std::int64_t>> times;
  for (const TraceContents::Slice& slice : compute) times.emplace_back(slice.start, slice.end);
  EXPECT_EQ(times, (std::vector<std::pair<std::int64_t, std::int64_t>>{
                       {0, 6}, {0, 0}, {0, 1}, {1, 1}, {1, 1}, {1, 3}, {4, 6}}));
  EXPECT_EQ(trace.arrows.size(), 1U);
}

TEST_F(TraceFormatsTest, AnArrowOfLessThanANanosecondIsLeftOut) {
  tests::PlanSketch sketch(2);
  sketch.join({0, 1});
  const sim::CallId reduce = sketch.call(300);
  sketch.runs({0, 1}, {sketch.kernel(2'000), tests::communicate(reduce, tests::side, tests::after_compute),
                       tests::wait_for(tests::after_side)});
  const sim::Plan& plan = sketch.finished();
  Trace trace(folder_ / "trace.pftrace");
  trace.write(plan, sim::run(plan, {.sink = &trace, .sink_ranks = tests::all_ranks(plan)}));
  const TraceContents contents = PerfettoContents::of(content("trace.pftrace"));
  EXPECT_TRUE(contents.arrows.empty());
  EXPECT_EQ(contents.processes.at(1).threads.size(), 2U);
}

TEST_F(TraceFormatsTest, AnEmptyStepIsATrace) {
  tests::PlanSketch sketch(1);
  sketch.runs({0}, {});
  const TraceContents trace = written(sketch.finished(), {tests::rank(0)});
  EXPECT_EQ(trace.step.start, trace.step.end);
  EXPECT_EQ(trace.processes.at(0).name, "rank 0 (program)");
  EXPECT_TRUE(trace.processes.at(0).threads.empty());
  EXPECT_EQ(trace.processes.at(0).counters.size(), sim::memory_purposes);
}

TEST_F(TraceFormatsTest, NoRanksAreATraceOfTheStep) {
  tests::PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(5'000)});
  const TraceContents trace = written(sketch.finished(), {});
  EXPECT_EQ(trace.step.end - trace.step.start, 5);
  EXPECT_TRUE(trace.processes.empty());
}

TEST_F(TraceFormatsTest, TheCriticalPathFillsAStepWithoutGaps) {
  const TraceContents trace = written(llama, {"strategy.tensor=2", "strategy.pipeline=4"});
  const TraceContents::Process& path = trace.processes.rbegin()->second;
  EXPECT_EQ(path.name, "critical path");
  EXPECT_EQ(path.sort_index, -1);
  ASSERT_EQ(path.threads.size(), 1U);
  const std::vector<TraceContents::Slice>& slices = path.threads.begin()->second.slices;
  ASSERT_GT(slices.size(), 100U);
  for (std::size_t i = 1; i < slices.size(); ++i) ASSERT_EQ(slices[i].start, slices[i - 1].end) << i;
  EXPECT_NEAR(static_cast<double>(slices.back().end - slices.front().start),
              static_cast<double>(trace.step.end - trace.step.start), 1);
  for (const TraceContents::Slice& slice : slices) EXPECT_TRUE(slice.arguments.contains("rank")) << slice.name;
}

TEST_F(TraceFormatsTest, AgreeOnPipelinesOfMegatron) {
  for (const char* schedule : {"1f1b", "interleaved", "zb-h1"}) {
    SCOPED_TRACE(schedule);
    const TraceContents trace =
        written(llama, {"strategy.tensor=2", "strategy.pipeline=4", "strategy.schedule=" + std::string(schedule)});
    EXPECT_EQ(trace.processes.size(), 4U + 1);    // ranks, and the critical path
    EXPECT_GE(trace.arrows.size(), 2 * 3 * 16U);  // of 16 micro-batches, there and back between neighbours
    EXPECT_GT(ratio(), 10);
  }
}

TEST_F(TraceFormatsTest, AgreeOnPipelinesOfOthers) {
  const std::vector<std::vector<std::string>> cases{
      {"strategy.framework=pytorch-fsdp", "strategy.pipeline=2", "strategy.tensor=2"},
      {"strategy.framework=pytorch-fsdp", "strategy.pipeline=4", "strategy.schedule=dualpipe-v"},
      {"strategy.framework=deepspeed", "strategy.pipeline=4", "strategy.zero_stage=1"},
      {"strategy.framework=deepspeed", "strategy.zero_stage=3"},
      {"strategy.framework=pytorch-ddp", "training.micro_batch=2"}};
  for (const std::vector<std::string>& settings : cases) {
    SCOPED_TRACE(settings.front() + " " + settings.at(1));
    const TraceContents trace = written(llama, settings, {0, 3, 4, 8, 9, 15});
    EXPECT_EQ(trace.processes.size(), 6U + 1);
    EXPECT_FALSE(trace.arrows.empty());
    EXPECT_GT(ratio(), 10);
  }
}

TEST_F(TraceFormatsTest, TakeAsManyRanksAsTheCommandLineDoes) {
  std::vector<std::int64_t> ranks;
  for (std::int64_t rank = 0; rank < 240; ++rank) ranks.push_back(rank);
  const TraceContents trace =
      written(llama, {"cluster.nodes=32", "model.layers=1", "training.global_batch=256", "strategy.tensor=8"}, ranks);
  EXPECT_EQ(trace.processes.size(), 240U + 1);
  EXPECT_GT(trace.arrows.size(), 240U);
}

TEST_F(TraceFormatsTest, DoNotDependOnFolding) {
  const auto text = [&](bool fold, const char* name) {
    Trace trace(folder_ / name);
    const Simulation simulation =
        simulate(tests::scenario_of(llama, {"strategy.tensor=2", "strategy.pipeline=2"}),
                 {.sink = &trace, .fold = fold, .ideal = false, .ranks = std::vector<std::int64_t>{1, 2, 5, 9}});
    trace.write(simulation.plan, simulation.outcome);
    return content(name);
  };
  EXPECT_EQ(text(true, "folded.json"), text(false, "unfolded.json"));
  EXPECT_EQ(text(true, "folded.pftrace"), text(false, "unfolded.pftrace"));
}

TEST_F(TraceFormatsTest, NothingLiesBesideTheTrace) {
  tests::PlanSketch sketch(1);
  sketch.runs({0}, {sketch.kernel(5)});
  const sim::Plan& plan = sketch.finished();
  {
    Trace trace(folder_ / "trace.json");
    const sim::Outcome outcome = sim::run(plan, {.sink = &trace, .sink_ranks = {tests::rank(0)}});
    EXPECT_TRUE(fs::is_empty(folder_));
    trace.write(plan, outcome);
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator{}), 1);
}

TEST(TraceNames, EndAsTheirFormatsDo) {
  for (const char* name : {"a.json", "b/a.json.gz", "a.pftrace"}) EXPECT_TRUE(Trace::has_known_ending(name)) << name;
  for (const char* name : {"a", "json", ".json", "a.gz", "a.pftrace.gz", "a.perfetto", "a.json/"})
    EXPECT_FALSE(Trace::has_known_ending(name)) << name;
}

}  // namespace
}  // namespace trainyard::scenarios
