#include "scenarios/sweep_report.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/catalog.hpp"
#include "scenarios/results_store.hpp"
#include "scenarios/run_sweep.hpp"
#include "scenarios/sweep.hpp"
#include "tests/support/sweeps.hpp"

namespace trainyard::scenarios {
namespace {

constexpr std::string_view attack = "</script><script>alert(1)</script><!--";

class SweepReport : public testing::Test {
 protected:
  SweepReport() {
    folder_.write("sizes.yaml", R"(
base:
  name: base
  cluster: {node: dgx-h100, nodes: 1}
  model: {base: llama, name: small, layers: 2, hidden: 1024, ffn_hidden: 2048, heads: 8, vocab: 1024}
  training: {global_batch: 64, micro_batch: 1, sequence: 512, precision: bf16, optimizer: adamw}
  strategy: {framework: pytorch-fsdp}
vary:
  cluster.nodes: [1, 2, 4]
  layout:
    - {name: sharded, strategy.framework: pytorch-fsdp}
    - {name: ")" + std::string{attack} +
                                    R"(", strategy.framework: megatron-lm, strategy.tensor: 8}
    - {name: five, strategy.framework: megatron-lm, strategy.tensor: 5}
)");
  }

  // After `points` of them have been simulated.
  std::string report(const std::vector<std::size_t>& points) {
    const Catalog catalog;
    const Sweep sweep = Sweep::load(folder_.path() / "sizes.yaml", catalog);
    ResultsStore store(folder_.path() / "results.db");
    run_sweep(sweep, points, catalog, store, {.program = "test"});
    write_report(results_of(sweep, store, state_of(sweep, catalog, store, "test")), folder_.path() / "report.html");
    std::ifstream in(folder_.path() / "report.html", std::ios::binary);
    return {std::istreambuf_iterator<char>{in}, {}};
  }
  std::string full_report() { return report({0, 1, 2, 3, 4, 5, 6, 7, 8}); }

 private:
  tests::SweepFolder folder_;
};

nlohmann::json data_of(const std::string& html) {
  const std::string start = "<script id=\"data\" type=\"application/json\">";
  const std::size_t from = html.find(start) + start.size();
  return nlohmann::json::parse(html.substr(from, html.find("</script>", from) - from));
}

double value_of(const nlohmann::json& data, std::size_t point, const std::string& field) {
  const auto& fields = data.at("fields");
  for (std::size_t place = 0; place < fields.size(); ++place)
    if (fields.at(place) == field) return data.at("points").at(point).at("values").at(place).get<double>();
  ADD_FAILURE() << "no field " << field;
  return 0;
}

std::string text_of(const nlohmann::json& data, const nlohmann::json& lines) {
  std::string text;
  for (const nlohmann::json& line : lines)
    text += data.at("texts").at(line.get<std::size_t>()).get<std::string>() + "\n";
  return text;
}

TEST_F(SweepReport, HoldsEveryPointWithItsScenario) {
  const nlohmann::json data = data_of(full_report());
  ASSERT_EQ(data.at("points").size(), 9U);
  EXPECT_EQ(data.at("parameter_paths"),
            nlohmann::json::parse(R"(["cluster.nodes", "name", "strategy.framework", "strategy.tensor"])"));
  EXPECT_EQ(value_of(data, 3, "devices"), 16);
  EXPECT_GT(value_of(data, 3, "step_time_s"), 0);
  EXPECT_EQ(data.at("points").at(3).at("parameters").at(0), 2);
  const std::string scenario = text_of(data, data.at("points").at(3).at("scenario"));
  EXPECT_NE(scenario.find("nodes: 2\n"), std::string::npos) << scenario;
  EXPECT_EQ(data.at("store"), "results.db");
  EXPECT_EQ(data.at("programs"), nlohmann::json::array({"test"}));
}

TEST_F(SweepReport, SaysWhyAPointIsNotPossible) {
  const nlohmann::json data = data_of(full_report());
  const nlohmann::json& point = data.at("points").at(2);
  EXPECT_EQ(point.at("status"), "failed");
  EXPECT_FALSE(point.contains("values"));
  EXPECT_NE(text_of(data, point.at("diagnostics")).find("does not divide"), std::string::npos);
}

TEST_F(SweepReport, SaysWhatIsMissing) {
  const nlohmann::json data = data_of(report({0, 3}));
  std::vector<std::string> statuses;
  for (const nlohmann::json& point : data.at("points")) statuses.push_back(point.at("status"));
  EXPECT_EQ(statuses, (std::vector<std::string>{"ok", "missing", "missing", "ok", "missing", "missing", "missing",
                                                "missing", "missing"}));
}

TEST_F(SweepReport, HoldsTheAnalysisOfEachSeries) {
  const nlohmann::json data = data_of(full_report());
  ASSERT_EQ(data.at("series").size(), 3U);
  const nlohmann::json& sharded = data.at("series").at(0);
  EXPECT_EQ(sharded.at("name"), "sharded");
  EXPECT_EQ(sharded.at("kind"), "strong");
  EXPECT_EQ(sharded.at("baseline"), 0);
  EXPECT_TRUE(sharded.at("fit").contains("communication_slope"));
  EXPECT_FALSE(data.at("series").at(2).contains("kind"));  // nothing of it was simulated
  EXPECT_EQ(value_of(data, 0, "scaling_loss"), 0);
  EXPECT_NEAR(value_of(data, 6, "scaling_loss"), 1 - value_of(data, 6, "scaling_efficiency"), 1e-5);
}

TEST_F(SweepReport, HoldsOnceWhatPointsHaveInCommon) {
  const nlohmann::json texts = data_of(full_report()).at("texts");
  const std::set<std::string> different(texts.begin(), texts.end());
  EXPECT_EQ(different.size(), texts.size());
}

TEST_F(SweepReport, NoNameEndsTheElementThatItIsIn) {
  const std::string html = full_report();
  EXPECT_EQ(html.find(attack), std::string::npos);
  EXPECT_EQ(data_of(html).at("series").at(1).at("name"), attack);
}

TEST_F(SweepReport, IsTheSameWhenNothingIsNew) {
  const std::string first = full_report();
  EXPECT_EQ(report({}), first);
}

}  // namespace
}  // namespace trainyard::scenarios
