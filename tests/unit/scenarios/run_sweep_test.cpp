#include "scenarios/run_sweep.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "scenarios/diagnostics.hpp"
#include "scenarios/outside_failure.hpp"
#include "scenarios/sweep_results.hpp"
#include "tests/support/sweeps.hpp"

namespace trainyard::scenarios {
namespace {

using tests::SweepFolder;

constexpr const char* four_points =
    "base: base.yaml\nvary: {cluster.nodes: [1, 2], training.micro_batch: [1, 5]}\n";  // 64 is no multiple of 5

class RunSweepTest : public testing::Test {
 protected:
  std::filesystem::path file(const std::string& name) const { return folder_.path() / name; }
  Sweep load(const std::string& text = four_points) { return Sweep::load(folder_.write("sweep.yaml", text), catalog_); }
  SweepState state(const Sweep& sweep, const ResultsStore& store, const std::string& program = "p") {
    return state_of(sweep, catalog_, store, program);
  }
  SweepProgress run(const Sweep& sweep, ResultsStore& store, RunSweepOptions options = {.program = "p", .jobs = 2}) {
    return run_sweep(sweep, state(sweep, store, options.program).to_do, catalog_, store, options);
  }

  SweepFolder folder_;
  Catalog catalog_;
};

TEST_F(RunSweepTest, EveryPointIsStoredAndOneThatIsNotPossibleSaysWhy) {
  const Sweep sweep = load();
  ResultsStore store(file("store.db"));
  const SweepProgress progress = run(sweep, store);
  EXPECT_EQ(progress.finished, 4U);
  EXPECT_EQ(progress.failed, 2U);
  const StoredPoint good = *store.find("sweep", R"({"cluster.nodes":2,"training.micro_batch":1})");
  EXPECT_TRUE(good.ok());
  EXPECT_EQ(nlohmann::json::parse(good.result_json).at("devices"), 16);
  EXPECT_NE(good.scenario_yaml.find("nodes: 2"), std::string::npos);
  const StoredPoint bad = *store.find("sweep", R"({"cluster.nodes":2,"training.micro_batch":5})");
  EXPECT_NE(bad.diagnostics.find("training.global_batch"), std::string::npos);
  EXPECT_EQ(state(sweep, store).done, 2U);
  EXPECT_EQ(state(sweep, store).failed, 2U);
}

TEST_F(RunSweepTest, InferenceIsSweptAndItsFiguresAreColumns) {
  const Sweep sweep = load(R"(base:
  workload: inference
  cluster: {node: rtx-4090, nodes: 1}
  model: {base: llama, name: small, layers: 2, hidden: 1024, ffn_hidden: 2048, heads: 8, vocab: 1024}
  inference: {prompt: 64, generate: 8}
vary: {inference.batch: [1, 4, 16], inference.weights: [bf16, w4a16]}
)");
  ResultsStore store(file("store.db"));
  const SweepProgress progress = run(sweep, store);
  EXPECT_EQ(progress.finished, 6U);
  EXPECT_EQ(progress.failed, 0U);
  const SweepResults results = results_of(sweep, store, state(sweep, store));
  write_csv(results, file("points.csv"));
  std::ifstream table(file("points.csv"));
  std::string header;
  std::getline(table, header);
  EXPECT_NE(header.find(",inference.time_per_token_s,"), std::string::npos) << header;
  EXPECT_NE(to_text(results).find("tokens/s"), std::string::npos);
}

TEST_F(RunSweepTest, AStoredScenarioSimulatesToTheStoredResult) {
  const Sweep sweep = load();
  ResultsStore store(file("store.db"));
  run(sweep, store);
  const StoredPoint point = *store.find("sweep", R"({"cluster.nodes":2,"training.micro_batch":1})");
  const Scenario again = load_scenario(folder_.write("again.yaml", point.scenario_yaml), catalog_);
  EXPECT_EQ(nlohmann::json::parse(to_json(simulate(again).result)).at("step_time_s"),
            nlohmann::json::parse(point.result_json).at("step_time_s"));
}

TEST_F(RunSweepTest, ARerunDoesWhatIsMissing) {
  ResultsStore store(file("store.db"));
  const Sweep small = load("base: base.yaml\nvary: {cluster.nodes: [1, 2]}\n");
  run(small, store);
  EXPECT_EQ(run(small, store).finished, 0U);
  const Sweep large = load("base: base.yaml\nvary: {cluster.nodes: [1, 2, 4]}\n");
  EXPECT_EQ(state(large, store).to_do, (std::vector<std::size_t>{2}));
  EXPECT_EQ(run(large, store).finished, 1U);
}

TEST_F(RunSweepTest, AnotherProgramOrScenarioOutdatesResults) {
  ResultsStore store(file("store.db"));
  const Sweep sweep = load();
  run(sweep, store);
  EXPECT_EQ(state(sweep, store, "q").to_do.size(), 4U);
  const Sweep changed = load(std::string{four_points} + "name: sweep\n");
  EXPECT_TRUE(state(changed, store).to_do.empty());
  const Sweep longer = Sweep::load(file("sweep.yaml"), catalog_, {.overrides = {"training.sequence=1024"}});
  EXPECT_EQ(state(longer, store).to_do.size(), 4U);
}

TEST_F(RunSweepTest, SweepsShareAStore) {
  ResultsStore store(file("store.db"));
  const Sweep one = load();
  run(one, store);
  const Sweep other = load(std::string{four_points} + "name: other\n");
  EXPECT_EQ(state(other, store).to_do.size(), 4U);
  ResultsStore at_the_same_time(file("store.db"));
  run(other, at_the_same_time);
  EXPECT_EQ(state(one, store).done, 2U);
  EXPECT_EQ(state(other, store).done, 2U);
}

TEST_F(RunSweepTest, StopsBeforeTheNextPointWhenToldTo) {
  ResultsStore store(file("store.db"));
  const Sweep sweep = load("base: base.yaml\nvary: {cluster.nodes: [1, 2, 4, 8, 16, 32]}\n");
  std::atomic<bool> stop{true};
  EXPECT_EQ(run(sweep, store, {.program = "p", .jobs = 1, .stop = &stop}).finished, 0U);
  stop = false;
  EXPECT_EQ(run(sweep, store, {.program = "p", .jobs = 1, .stop = &stop}).finished, 6U);
}

TEST_F(RunSweepTest, WhatIsReportedIsInTheStore) {
  ResultsStore store(file("store.db"));
  const Sweep sweep = load("base: base.yaml\nvary: {cluster.nodes: [1, 2, 4, 8, 16, 32]}\n");
  std::size_t reported = 0;
  const auto check = [&](const SweepProgress& progress) {
    ResultsStore reader(file("store.db"));
    EXPECT_EQ(reader.states("sweep").size(), progress.finished);
    reported = progress.finished;
  };
  run(sweep, store, {.program = "p", .jobs = 2, .progress = check});
  EXPECT_EQ(reported, 6U);
}

TEST_F(RunSweepTest, ExportsHaveEveryPointAndWhatItLoses) {
  ResultsStore store(file("store.db"));
  const Sweep sweep = load();
  run(sweep, store);
  const SweepResults results = results_of(sweep, store, state(sweep, store));
  write_json(results, file("all.json"));
  const nlohmann::json json = nlohmann::json::parse(std::ifstream(file("all.json")));
  ASSERT_EQ(json.at("points").size(), 4U);
  const nlohmann::json& good = json.at("points").at(2);
  EXPECT_EQ(good.at("status"), "ok");
  EXPECT_EQ(good.at("parameters"), nlohmann::json::parse(R"({"cluster.nodes":2,"training.micro_batch":1})"));
  const double before = json["points"][0]["result"]["tokens_per_s_per_device"];
  const double now = good["result"]["tokens_per_s_per_device"];
  EXPECT_NEAR(good["result"]["scaling_efficiency"].get<double>(), now / before, 1e-12);
  EXPECT_NEAR(good["result"]["scaling_loss"].get<double>(), 1 - now / before, 1e-12);
  EXPECT_EQ(json["points"][1]["status"], "failed");
  EXPECT_EQ(json["series"][0]["kind"], "strong");

  write_csv(results, file("all.csv"));
  std::ifstream csv(file("all.csv"));
  std::string header;
  std::string row;
  std::getline(csv, header);
  EXPECT_TRUE(header.starts_with("cluster.nodes,training.micro_batch,series,status,")) << header;
  EXPECT_TRUE(header.ends_with(",scaling_efficiency,scaling_loss,diagnostics")) << header;
  int rows = 0;
  while (std::getline(csv, row)) {
    if (row.find(",ok,") == std::string::npos) continue;
    EXPECT_EQ(std::ranges::count(row, ','), std::ranges::count(header, ','));
    ++rows;
  }
  EXPECT_EQ(rows, 2);
}

TEST_F(RunSweepTest, ResultsThatAreNoLongerRightAreNotExported) {
  ResultsStore store(file("store.db"));
  const Sweep sweep = load();
  run(sweep, store);
  const SweepResults results = results_of(sweep, store, state(sweep, store, "another program"));
  EXPECT_TRUE(results.samples.empty());
  write_json(results, file("all.json"));
  EXPECT_EQ(nlohmann::json::parse(std::ifstream(file("all.json")))["points"][0]["status"], "missing");
}

TEST_F(RunSweepTest, AFileThatIsNoStoreIsRefused) {
  folder_.write("text.db", std::string(4096, 'x'));
  EXPECT_THROW(ResultsStore{file("text.db")}, ScenarioError);
  EXPECT_THROW(ResultsStore{file("no/such/folder.db")}, OutsideFailure);
}

}  // namespace
}  // namespace trainyard::scenarios
