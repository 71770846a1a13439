#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "scenarios/plan_search.hpp"

namespace trainyard::scenarios {
namespace {

constexpr std::int64_t gibibyte = 1LL << 30;

Candidate candidate(double step_time_s, std::int64_t peak_bytes, const std::string& tensor) {
  return {.keys = {{"strategy.framework", "\"megatron-lm\""}, {"strategy.tensor", tensor}},
          .step_time_s = step_time_s,
          .cost_per_step = 2 * step_time_s,
          .energy_kwh_per_step = {},
          .peak_bytes = peak_bytes};
}

SearchResult search() {
  ProposedPlan best;
  best.keys = {{"strategy.framework", "\"megatron-lm\""}, {"strategy.tensor", "8"}};
  best.result.step_time_s = 10;
  best.strategy = "{framework: megatron-lm, tensor: 8}";
  best.training = "{micro_batch: 1}";
  SearchResult result;
  result.scenario = "GPT & <friends>";
  result.objective = Objective::cost;
  result.currency = "EUR";
  result.capacity_bytes = 79 * gibibyte;
  result.frameworks = {"megatron-lm"};
  result.left_out = {"keras: no plan fits"};
  result.searched = {{"strategy.tensor", {"1", "8"}}};
  result.fixed = {{"strategy.schedule", "\"1f1b\""}};
  result.plans = {best};
  result.candidates = {candidate(10, 70 * gibibyte, "8"), candidate(12, 75 * gibibyte, "1")};
  result.front = {0};
  result.counts = {.combinations = 9, .refused = 1, .simulated = 2, .too_large = 3, .slower = 2, .left = 1};
  return result;
}

nlohmann::json data_of(const SearchResult& result) {
  const std::string html = plan_report(result);
  const std::string start = "<script id=\"data\" type=\"application/json\">";
  const std::size_t from = html.find(start) + start.size();
  return nlohmann::json::parse(html.substr(from, html.find("</script>", from) - from));
}

TEST(PlanReport, IsTheSameEveryTimeAndSaysNothingOfTheMachine) {
  SearchResult result = search();
  const std::string html = plan_report(result);
  EXPECT_EQ(html, plan_report(result));
  result.wall_s = 12;
  result.plans.front().result.engine.wall_s = 3;
  result.plans.front().result.engine.peak_rss_bytes = 1;
  EXPECT_EQ(html, plan_report(result));
  EXPECT_NE(html.find("Best plan for GPT &amp; &lt;friends&gt;"), std::string::npos);
}

TEST(PlanReport, HoldsWhatWasSearchedAndWhatIsBest) {
  const nlohmann::json data = data_of(search());
  EXPECT_EQ(data["objective"], "cost");
  EXPECT_EQ(data["fixed"], nlohmann::json({{"strategy.schedule", "1f1b"}}));
  EXPECT_EQ(data["left_out"], nlohmann::json::array({"keras: no plan fits"}));
  EXPECT_EQ(data["counts"]["pruned"], 5);
  EXPECT_EQ(data["counts"]["examined"], 7);
  ASSERT_EQ(data["plans"].size(), 1);
  EXPECT_EQ(data["plans"][0]["keys"], nlohmann::json({{"strategy.framework", "megatron-lm"}, {"strategy.tensor", 8}}));
  EXPECT_EQ(data["plans"][0]["strategy"], "{framework: megatron-lm, tensor: 8}");
  EXPECT_EQ(data["plans"][0]["result"]["step_time_s"], 10);
}

TEST(PlanReport, SaysOfCandidatesWhatTheyTakeAndWhichKeysTheyHave) {
  const nlohmann::json data = data_of(search())["candidates"];
  ASSERT_EQ(data["rows"].size(), 2);
  const nlohmann::json& row = data["rows"][1];
  EXPECT_EQ(row[0], 12);
  EXPECT_EQ(row[1], 75 * gibibyte);
  EXPECT_EQ(row[2], 24);
  EXPECT_TRUE(row[3].is_null());
  EXPECT_EQ(row[4], 0);
  EXPECT_EQ(data["paths"][row[7].get<std::size_t>()], "strategy.tensor");
  EXPECT_EQ(data["values"][row[8].get<std::size_t>()], "1");
}

TEST(PlanReport, LeavesOutSlowPlansOfManyButNothingOfTheFront) {
  SearchResult result = search();
  for (int i = 0; i < 50'000; ++i) result.candidates.push_back(candidate(13 + i, 74 * gibibyte, "1"));
  result.candidates.push_back(candidate(1e6, gibibyte, "8"));
  result.front.push_back(result.candidates.size() - 1);
  const nlohmann::json data = data_of(result)["candidates"];
  EXPECT_EQ(data["all"], 50'003);
  EXPECT_LT(data["rows"].size(), 5'000);
  EXPECT_EQ(data["rows"].back()[0], 1e6);
  EXPECT_EQ(data["rows"].back()[4], 1);
  EXPECT_LT(plan_report(result).size(), 1'000'000);
}

TEST(PlanReport, SaysWhatNeighboursChangeAndWhatThatCosts) {
  SearchResult result = search();
  Neighbour smaller;
  smaller.change = {"strategy.tensor", "1"};
  smaller.fits = true;
  smaller.step_time_s = 12;
  smaller.difference = {.from_s = 10, .to_s = 12, .causes = {{.category = 4, .seconds = 2, .why = "more gradients"}}};
  Neighbour odd;
  odd.change = {"strategy.context", "2"};
  odd.refused = "the sequence is odd";
  result.neighbours = {smaller, odd};
  const nlohmann::json neighbours = data_of(result)["neighbours"];
  ASSERT_EQ(neighbours.size(), 2);
  EXPECT_EQ(neighbours[0]["from"], 8);
  EXPECT_EQ(neighbours[0]["to"], 1);
  EXPECT_EQ(neighbours[0]["causes"],
            nlohmann::json::array({{{"category", "exposed_data"}, {"seconds", 2}, {"why", "more gradients"}}}));
  EXPECT_TRUE(neighbours[1]["from"].is_null());
  EXPECT_EQ(neighbours[1]["refused"], "the sequence is odd");
}

TEST(PlanReport, IsAPageAlsoWhereNothingFits) {
  SearchResult result = search();
  result.plans.clear();
  result.candidates.clear();
  result.front.clear();
  EXPECT_TRUE(data_of(result)["plans"].empty());
}

}  // namespace
}  // namespace trainyard::scenarios
