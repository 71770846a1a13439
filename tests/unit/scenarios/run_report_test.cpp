#include "scenarios/run_report.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/simulated.hpp"

namespace trainyard::scenarios {
namespace {

constexpr std::size_t figures_of_pass = 5;

Simulation everything_of(const Scenario& scenario) {
  return simulate(scenario,
                  {.record = true, .ranks = {}, .memory_timeline = true, .per_operation = true, .advise = true});
}

std::string library_file(const std::string& name) {
  return TRAINYARD_SOURCE_DIR "/scenarios/library/" + name + ".yaml";
}

std::string report_on(const std::string& name, const std::vector<std::string>& overrides = {}) {
  static const Catalog catalog;
  const Scenario scenario = load_scenario(library_file(name), catalog, {.overrides = overrides});
  return run_report(scenario, everything_of(scenario),
                    {.scenario_text = scenario_text(library_file(name), {.overrides = overrides}),
                     .overrides = overrides,
                     .trace = ""});
}

nlohmann::json data_of(const std::string& html) {
  const std::string start = "<script id=\"data\" type=\"application/json\">";
  const std::size_t from = html.find(start) + start.size();
  return nlohmann::json::parse(html.substr(from, html.find("</script>", from) - from));
}

TEST(RunReport, IsTheSameEveryTimeAndSaysNothingOfTheMachine) {
  const std::string html = report_on("resnet50-1-a100");
  EXPECT_EQ(html, report_on("resnet50-1-a100"));
  EXPECT_EQ(html.find("wall_s"), std::string::npos);
  EXPECT_EQ(html.find(TRAINYARD_SOURCE_DIR), std::string::npos);
  EXPECT_NE(html.find("from scenario resnet50-1-a100.yaml"), std::string::npos);
}

TEST(RunReport, HoldsTheScenarioWithWhatWasSet) {
  const nlohmann::json data = data_of(report_on("resnet50-1-a100", {"training.global_batch=512"}));
  const std::string text = data["scenario"]["text"];
  EXPECT_EQ(parse_yaml(text, "text").find("training")->find("global_batch")->scalar, "512");
  EXPECT_EQ(data["summary"]["global_batch"], 512);
}

TEST(RunReport, DrawsARowForEachStageAndAllPassesOfItsMicroBatches) {
  const nlohmann::json schedule = data_of(report_on("gpt-14.6b-zb-h2-16-a100"))["schedule"];
  ASSERT_EQ(schedule["rows"].size(), 16);
  for (const auto& row : schedule["rows"]) {
    std::vector<std::int64_t> passes(schedule["phases"].size(), 0);
    std::int64_t end = 0;
    const auto& figures = row["passes"];
    for (std::size_t i = 0; i < figures.size(); i += figures_of_pass) {
      ++passes.at(figures[i]);
      EXPECT_GE(figures[i + 3].get<std::int64_t>() + 1, end);
      end = figures[i + 3].get<std::int64_t>() + figures[i + 4].get<std::int64_t>();
    }
    EXPECT_EQ(passes[0], 64);
    EXPECT_EQ(passes[2], 64);
    EXPECT_EQ(passes[3], 64);
  }
}

TEST(RunReport, StaysSmallOnManyDevicesAndKeepsTheBusiestLinksOfEveryKind) {
  const std::string html = report_on("llama3-405b-16384-h100");
  EXPECT_LT(html.size(), 3'000'000);
  const nlohmann::json links = data_of(html)["links"];
  EXPECT_GT(links["all"], 60'000);
  std::map<std::string, std::size_t> of_kind;
  for (const auto& row : links["rows"]) ++of_kind[row[0]];
  EXPECT_EQ(of_kind.size(), 4);
  for (const auto& [kind, count] : of_kind) EXPECT_LE(count, 150) << kind;
}

TEST(RunReport, KeepsThePeakOfTheMemory) {
  const nlohmann::json data = data_of(report_on("gpt3-175b-1024-a100"));
  const nlohmann::json& allocated = data["memory"]["allocated"];
  const std::size_t moments = data["memory"]["time_s"].size();
  EXPECT_LT(moments, 2'000);
  std::int64_t peak = 0;
  for (std::size_t i = 0; i < moments; ++i) {
    std::int64_t sum = 0;
    for (const auto& [name, values] : allocated.items()) sum += values[i].get<std::int64_t>();
    peak = std::max(peak, sum);
  }
  EXPECT_EQ(peak, data["result"]["memory"]["allocated_bytes"]);
}

TEST(RunReport, HasTheWholeTableOfLayers) {
  const nlohmann::json data = data_of(report_on("llama3-8b-fsdp-8-h100"));
  double step = 0;
  for (const auto& row : data["layers"]["rows"]) step += row[5].get<double>() + row[11].get<double>();
  EXPECT_EQ(data["layers"]["rows"].size(), data["layers"]["all"]);
  EXPECT_NEAR(step, data["result"]["step_time_s"], 1e-4 * step);
}

}  // namespace
}  // namespace trainyard::scenarios
