// Whole scenarios: exact results of a few, and what holds for every one.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>
#include <ostream>
#include <string>
#include <variant>
#include <vector>

#include "scenarios/scenario.hpp"
#include "scenarios/simulate.hpp"
#include "scenarios/trace.hpp"
#include "tests/support/trace_check.hpp"

namespace trainyard::scenarios {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

const fs::path root = TRAINYARD_SOURCE_DIR;
const fs::path golden_folder = root / "tests" / "golden";
const fs::path library_folder = root / "scenarios" / "library";

const Catalog& catalog() {
  static const Catalog built_in;
  return built_in;
}

Simulation simulated(const fs::path& scenario, const SimulateOptions& options = {}) {
  return simulate(load_scenario(scenario, catalog()), options);
}

// Everything but what differs from run to run.
std::string reproducible_json(const Result& result) {
  ordered_json json = ordered_json::parse(to_json(result));
  json.at("engine").erase("wall_s");
  json.at("engine").erase("peak_rss_bytes");
  return json.dump(2) + "\n";
}

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct ScenarioFile {
  fs::path path;
  friend void PrintTo(const ScenarioFile& file, std::ostream* stream) { *stream << file.path.filename().string(); }
};

std::vector<ScenarioFile> scenarios_in(const fs::path& folder) {
  std::vector<ScenarioFile> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".yaml") files.push_back({entry.path()});
  std::ranges::sort(files, {}, &ScenarioFile::path);
  return files;
}

std::string test_name(const testing::TestParamInfo<ScenarioFile>& info) {
  std::string name = info.param.path.stem().string();
  std::ranges::replace_if(
      name, [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
}

void expect_parts_to_add_up(const Result& result) {
  EXPECT_GT(result.step_time_s, 0);
  const double sum = std::accumulate(result.breakdown_s.begin(), result.breakdown_s.end(), 0.0);
  EXPECT_NEAR(sum, result.step_time_s, 1e-9 * result.step_time_s);
  for (const double part : result.breakdown_s) EXPECT_GE(part, 0);
  if (result.critical_path) {
    const Breakdown& path = result.critical_path->breakdown_s;
    const double decided = std::accumulate(path.begin(), path.end(), 0.0);
    EXPECT_NEAR(decided, result.step_time_s, 1e-12 * result.step_time_s);
    EXPECT_FALSE(result.critical_path->operations.empty());
    EXPECT_LE(result.critical_path->operations.size(), 10U);
  }
  const MemorySummary& memory = result.memory;
  EXPECT_EQ(std::accumulate(memory.parts.begin(), memory.parts.end(), memory.overhead), memory.peak);
  EXPECT_LE(memory.last_rank_allocated, memory.allocated);
  for (const std::int64_t part : memory.parts) EXPECT_GE(part, 0);
  for (const CommunicationSummary& row : result.communication) {
    EXPECT_GT(row.count, 0);
    EXPECT_GE(row.busy_s, 0);
    EXPECT_GE(row.exposed_s, 0);
  }
  // What is exposed of single communications is what compute waited for in all.
  double exposed = 0;
  for (const CommunicationSummary& row : result.communication) exposed += row.exposed_s;
  double waited = 0;
  for (std::size_t i = 0; i < breakdown_names.size(); ++i)
    if (breakdown_names.at(i).starts_with("exposed_")) waited += result.breakdown_s.at(i);
  EXPECT_NEAR(exposed, waited, 1e-9 * result.step_time_s);
  EXPECT_GT(result.mfu, 0);
  // Three times the forward FLOP count a gradient of the images too, which nobody computes.
  const double uncounted = result.tokens_per_s == 0 ? 0.02 : 1e-9;
  EXPECT_LE(result.mfu, result.hfu * (1 + uncounted));
  EXPECT_LT(result.hfu, 1);
  EXPECT_GT(result.device_busy, 0);
  EXPECT_LE(result.device_busy, 1);
}

// Otherwise memory would grow from step to step.
void expect_memory_to_be_given_back(const sim::Plan& plan) {
  for (const sim::Program& program : plan.programs) {
    std::array<sim::Bytes, sim::memory_purposes> held{};
    for (const sim::BlockCall& call : program.calls)
      for (const sim::Op& op : plan.blocks[call.block].ops)
        if (const auto* memory = std::get_if<sim::Memory>(&op.work))
          held.at(static_cast<std::size_t>(memory->purpose)) += memory->change;
    for (std::size_t i = 0; i < held.size(); ++i)
      EXPECT_EQ(held.at(i).count, 0) << program.name << ' ' << to_string(static_cast<sim::MemoryPurpose>(i));
  }
}

// To the picosecond.
void expect_the_path_to_take_a_step(const sim::Outcome& outcome) {
  ASSERT_TRUE(outcome.critical_path);
  const sim::CriticalPath& path = *outcome.critical_path;
  sim::Duration sum{};
  for (std::size_t i = 0; i < path.segments.size(); ++i) {
    sum += path.segments[i].length;
    if (i > 0) {
      EXPECT_EQ(path.segments[i].start, path.segments[i - 1].start + path.segments[i - 1].length) << i;
    }
  }
  EXPECT_EQ(sum, outcome.step_time * path.steps);
}

class Golden : public testing::TestWithParam<ScenarioFile> {};

TEST_P(Golden, ResultIsTheRecordedOne) {
  fs::path golden = GetParam().path;
  golden.replace_extension(".json");
  const std::string actual = reproducible_json(simulated(GetParam().path).result);
  if (std::getenv("UPDATE_GOLDEN") != nullptr) {
    std::ofstream(golden, std::ios::binary) << actual;
    return;
  }
  ASSERT_TRUE(fs::exists(golden)) << golden << " is missing; UPDATE_GOLDEN=1 writes it";
  EXPECT_EQ(text_of(golden), actual) << "UPDATE_GOLDEN=1 records the new result; say in the commit why it moved";
}

TEST_P(Golden, ResultIsTheSameOnASecondRun) {
  EXPECT_EQ(reproducible_json(simulated(GetParam().path).result), reproducible_json(simulated(GetParam().path).result));
}

TEST_P(Golden, RecordingATraceChangesNothing) {
  EXPECT_EQ(reproducible_json(simulated(GetParam().path, {.record = true, .ranks = {}}).result),
            reproducible_json(simulated(GetParam().path).result));
}

TEST_P(Golden, SimulatingEveryRankOnItsOwnChangesNothing) {
  Result folded = simulated(GetParam().path).result;
  const Result unfolded = simulated(GetParam().path, {.fold = false, .ranks = {}}).result;
  EXPECT_EQ(unfolded.engine.rank_classes, unfolded.engine.ranks);
  EXPECT_LT(folded.engine.rank_classes, folded.engine.ranks);
  folded.engine.rank_classes = unfolded.engine.rank_classes;
  EXPECT_EQ(reproducible_json(folded), reproducible_json(unfolded));
}

TEST_P(Golden, PartsAddUp) { expect_parts_to_add_up(simulated(GetParam().path).result); }

TEST_P(Golden, MemoryIsGivenBackByTheEndOfAStep) { expect_memory_to_be_given_back(simulated(GetParam().path).plan); }

INSTANTIATE_TEST_SUITE_P(Scenario, Golden, testing::ValuesIn(scenarios_in(golden_folder)), test_name);

TEST(Golden, EveryRecordedResultHasItsScenario) {
  std::size_t results = 0;
  for (const auto& entry : fs::directory_iterator(golden_folder)) {
    if (entry.path().extension() != ".json") continue;
    ++results;
    fs::path scenario = entry.path();
    EXPECT_TRUE(fs::exists(scenario.replace_extension(".yaml"))) << entry.path();
  }
  EXPECT_GE(results, 6U);
}

class Library : public testing::TestWithParam<ScenarioFile> {};

TEST_P(Library, RunsAndItsPartsAddUp) {
  const Simulation simulation = simulated(GetParam().path);
  EXPECT_EQ(simulation.outcome.stall, "");
  EXPECT_TRUE(simulation.result.steady);
  expect_parts_to_add_up(simulation.result);
  if (!simulation.result.inference) expect_the_path_to_take_a_step(simulation.outcome);
  expect_memory_to_be_given_back(simulation.plan);
}

// A rank of each of the first two programs and of the last: enough for every kind of slice and arrow.
std::vector<std::int64_t> ranks_to_record(const sim::Plan& plan) {
  std::vector<std::int64_t> ranks;
  for (const std::size_t program : {std::size_t{0}, std::size_t{1}, plan.programs.size() - 1}) {
    const auto found = std::ranges::find(plan.program_of, plan.programs.id(program));
    const auto rank = static_cast<std::int64_t>(found - plan.program_of.begin());
    if (found != plan.program_of.end() && std::ranges::find(ranks, rank) == ranks.end()) ranks.push_back(rank);
  }
  return ranks;
}

TEST_P(Library, HasAWellFormedTrace) {
  const Scenario scenario = load_scenario(GetParam().path, catalog());
  if (scenario.inference) GTEST_SKIP() << "passes of inference have no trace";
  const topology::Cluster cluster = make_cluster(scenario);
  const strategies::Job job{
      .model = scenario.model, .training = scenario.training, .accelerator = scenario.accelerator, .cluster = cluster};
  const std::vector<std::int64_t> ranks = ranks_to_record(scenario.strategy->plan(job).plan);
  const fs::path path = fs::path(testing::TempDir()) / ("trainyard_" + GetParam().path.stem().string() + ".json");
  Trace file(path);
  const Simulation simulation = simulate(scenario, {.sink = &file, .ranks = ranks});
  file.write(simulation.plan, simulation.outcome);
  const nlohmann::json trace = nlohmann::json::parse(text_of(path));
  fs::remove(path);
  EXPECT_GT(trace.at("traceEvents").size(), 100U);
  for (const std::string& violation : tests::trace_violations(trace)) ADD_FAILURE() << violation;
}

INSTANTIATE_TEST_SUITE_P(Scenario, Library, testing::ValuesIn(scenarios_in(library_folder)), test_name);

}  // namespace
}  // namespace trainyard::scenarios
