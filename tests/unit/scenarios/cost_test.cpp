#include "scenarios/cost.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/simulated.hpp"

namespace trainyard::scenarios {
namespace {

constexpr const char* base = R"(name: Costs
cluster: {node: dgx-h100, nodes: 2}
model: {base: llama3-8b, layers: 4}
training: {global_batch: 16, micro_batch: 1, sequence: 1024, precision: bf16}
strategy: {framework: pytorch-fsdp}
)";

Result costs(const std::vector<std::string>& settings) { return tests::simulated(base, settings).result; }
std::string refusal(const std::vector<std::string>& settings) { return tests::refusal(base, settings); }

TEST(Money, HasACurrencyAndWhatItIsPaidFor) {
  EXPECT_DOUBLE_EQ(parse_money("2.50 USD/h", "h").value->amount, 2.5);
  EXPECT_EQ(parse_money("8 CNY/h", "h").value->currency, "CNY");
  EXPECT_DOUBLE_EQ(parse_money("40_000 USD", "").value->amount, 40'000);
  for (const char* wrong : {"2.5", "2.5 USD", "USD/h", "2.5 usd/h", "-1 USD/h", "2.5 USD/year", "2.5 DOLLAR/h", ""})
    EXPECT_EQ(parse_money(wrong, "h").error,
              "expected an amount such as '2.50 USD/h', got '" + std::string{wrong} + "'");
}

TEST(Money, IsShownWithThreeDigitsAtLeast) {
  EXPECT_EQ(format_money(0, "USD"), "0 USD");
  EXPECT_EQ(format_money(0.000123456, "USD"), "0.000123 USD");
  EXPECT_EQ(format_money(2.675, "USD").size(), std::string{"2.67 USD"}.size());
  EXPECT_EQ(format_money(999.5, "CNY"), "999.50 CNY");
  EXPECT_EQ(format_money(36'100'000, "USD"), "36.1 M USD");
}

TEST(Cost, IsPriceTimesTimeTimesDevices) {
  const Result result = costs({"cost.price={on_demand: 3 USD/h}"});
  const CostSummary::Paid& paid = *result.cost.paid;
  EXPECT_DOUBLE_EQ(paid.per_hour, 48);
  EXPECT_DOUBLE_EQ(paid.per_step, 48 * result.step_time_s / 3600);
  EXPECT_NEAR(*paid.per_million_tokens, 48 / 3600.0 / result.tokens_per_s * 1e6, 1e-9);
  EXPECT_EQ(paid.per_hour, paid.hardware_per_hour);
}

TEST(Cost, TakesTheUsualPriceOfTheNodeWhereNoneIsGiven) {
  const Result result = costs({});
  EXPECT_EQ(result.cost.paid->price, "h100");
  EXPECT_DOUBLE_EQ(result.cost.paid->per_device_hour, 2.67);
  EXPECT_DOUBLE_EQ(costs({"cost.price=h100-aws-p5"}).cost.paid->per_device_hour, 6.88);
  EXPECT_DOUBLE_EQ(costs({"cost.price={base: h100, on_demand: 2 USD/h}"}).cost.paid->per_device_hour, 2);
}

TEST(Cost, APartWithoutAPriceHasNoneRatherThanAGuess) {
  const Result result = costs({"cluster.node=dgx-b200"});
  EXPECT_FALSE(result.cost.paid.has_value());
  EXPECT_TRUE(result.cost.energy.has_value());
  EXPECT_FALSE(costs({"cluster.node={base: dgx-h100, accelerator: b200-sxm}"}).cost.paid.has_value());
  EXPECT_EQ(to_json(result).find("per_hour"), std::string::npos);
}

TEST(Cost, OfOwnedDevicesIsWrittenOffAndPaysForItsEnergy) {
  const Result result = costs({"cost.price={owned: {purchase: 35064 USD, years: 4, operations: 0.25, used: 0.5}}",
                               "cost.market=owned", "cost.energy_price=0.10 USD/kWh"});
  const CostSummary::Paid& paid = *result.cost.paid;
  // 35,064 x (1/4 + 1/4) over 8,766 hours of a year, half of which are used.
  EXPECT_DOUBLE_EQ(paid.per_device_hour, 4);
  EXPECT_NEAR(paid.energy_per_hour, result.cost.energy->all_w * 16e-3 * 0.1, 1e-12);
  EXPECT_DOUBLE_EQ(paid.per_hour, paid.hardware_per_hour + paid.energy_per_hour);
  const Result without = costs({"cost.price=h100", "cost.market=owned", "cost.energy=included"});
  EXPECT_EQ(without.cost.paid->energy_per_hour, 0);
}

TEST(Cost, CountsStorageSupportAndStaff) {
  const Result result = costs({"cost.price={on_demand: 3 USD/h}", "cost.storage=0.1", "cost.support=0.02",
                               "cost.staff={engineers: 3, salary: 87660 USD/year}"});
  const CostSummary::Paid& paid = *result.cost.paid;
  EXPECT_DOUBLE_EQ(paid.storage_per_hour, 4.8);
  EXPECT_DOUBLE_EQ(paid.support_per_hour, 0.96);
  EXPECT_DOUBLE_EQ(paid.staff_per_hour, 30);
  EXPECT_DOUBLE_EQ(paid.per_hour, 48 + 4.8 + 0.96 + 30);
}

TEST(Cost, IsGivenInTheCurrencyThatIsAskedFor) {
  const Result yuan = costs({"cost.price={on_demand: 3 USD/h}", "cost.currency=CNY"});
  EXPECT_DOUBLE_EQ(yuan.cost.paid->per_hour, 48 * 7.2);
  const Result euro = costs({"cost.price={on_demand: 14.4 CNY/h}", "cost.currency=EUR", "cost.exchange={EUR: 0.9}"});
  EXPECT_DOUBLE_EQ(euro.cost.paid->per_hour, 32 * 0.9);
}

TEST(Cost, OfAMixedClusterAddsUpOverItsTypes) {
  const Result result = costs({"cluster={groups: [{node: dgx-h100, nodes: 1}, {node: dgx-h200, nodes: 1}]}"});
  EXPECT_DOUBLE_EQ(result.cost.paid->per_hour, 8 * 2.67 + 8 * 4.0);
  EXPECT_EQ(result.cost.paid->price, "h100, h200");
  EXPECT_FALSE(
      costs({"cluster={groups: [{node: dgx-h100, nodes: 1}, {node: dgx-b200, nodes: 1}]}"}).cost.paid.has_value());
}

TEST(Cost, EnergyCountsHostNetworkAndCooling) {
  const Result result = costs({"cost.pue=1.5", "cost.network_power=100 W", "cost.host_load=0.5"});
  const CostSummary::Energy& energy = *result.cost.energy;
  EXPECT_NEAR(energy.all_w, (energy.device_w + 4600 / 8.0 * 0.5 + 100) * 1.5, 1e-9);
  EXPECT_NEAR(energy.kwh_per_step, energy.all_w * 16 * result.step_time_s / 3.6e6, 1e-12);
  EXPECT_GT(energy.device_w, 0.125 * 700);
  EXPECT_LT(energy.device_w, 700);
}

TEST(Cost, OneNodeAndTorusesHaveNoSwitchesToFeed) {
  const auto of_network = [](const std::vector<std::string>& settings) {
    std::vector<std::string> without = settings;
    without.emplace_back("cost.network_power=0 W");
    return costs(settings).cost.energy->all_w - costs(without).cost.energy->all_w;
  };
  EXPECT_NEAR(of_network({}), 45 * 1.2, 1e-9);
  EXPECT_EQ(of_network({"cluster.nodes=1"}), 0);
  EXPECT_EQ(of_network({"cluster={node: tpu-v5p, nodes: 4}"}), 0);
}

TEST(Cost, WaitingForASlowNetworkTakesLessPowerThanProducts) {
  const double fast = costs({}).cost.energy->device_w;
  const Result slow = costs({"cluster.node.nic_rate=1 Gbit/s"});
  EXPECT_LT(slow.cost.energy->device_w, fast);
  EXPECT_GT(slow.cost.energy->kwh_per_step, costs({}).cost.energy->kwh_per_step);
  EXPECT_NEAR(slow.cost.energy->device_w, 0.42 * 700, 0.1 * 700);  // hardly anything but waiting
}

TEST(Run, LastsAsLongAsItsTokensTake) {
  const Result result = costs({"run.tokens=1e12", "cost.price={on_demand: 3 USD/h}"});
  const RunSummary& run = *result.run;
  EXPECT_NEAR(run.days, 1e12 / result.tokens_per_s / 86400, 1e-6 * run.days);
  EXPECT_NEAR(run.device_hours, run.days * 24 * 16, 1e-6 * run.device_hours);
  EXPECT_NEAR(*run.cost, run.device_hours * 3, 1e-6 * *run.cost);
  EXPECT_NEAR(*run.energy_kwh, run.steps * result.cost.energy->kwh_per_step, 1e-6 * *run.energy_kwh);
  EXPECT_NEAR(*run.energy_cost, *run.energy_kwh * 0.08, 1e-9 * *run.energy_cost);
  EXPECT_NEAR(*run.carbon_kg, *run.energy_kwh * 0.45, 1e-9 * *run.carbon_kg);
  EXPECT_NEAR(costs({"run.samples=1e6"}).run->steps, 1e6 / 16, 1e-6);
  EXPECT_EQ(costs({"run.steps=1000"}).run->steps, 1000);
  EXPECT_FALSE(costs({}).run.has_value());
}

TEST(Cost, WrongKeysAreReportedWhereTheyStand) {
  EXPECT_NE(refusal({"cost.price=h10"}).find("no price is called 'h10' (did you mean 'h100'?)"), std::string::npos);
  EXPECT_NE(
      refusal({"cost.price={on_demand: 3}"}).find("cost.price.on_demand: expected an amount such as '2.50 USD/h'"),
      std::string::npos);
  EXPECT_NE(refusal({"cost.price={on_demand: [3]}"})
                .find("cost.price.on_demand: expected an amount such as '2.50 "
                      "USD/h', got a list"),
            std::string::npos);
  EXPECT_NE(refusal({"cost.price={date: 2025}"}).find("expected the price of an hour for one at least of"),
            std::string::npos);
  EXPECT_NE(refusal({"cost.market=reserved_1y"})
                .find("cost.market: the price h100 has none for 'reserved_1y'; it has "
                      "'on_demand', 'spot' and 'owned'"),
            std::string::npos);
  EXPECT_NE(refusal({"cost.currency=EUR"}).find("no rate of exchange is known for 'EUR'"), std::string::npos);
  EXPECT_NE(refusal({"cost.exchange={euro: 0.9}"}).find("cost.exchange: expected currencies"), std::string::npos);
  EXPECT_NE(refusal({"cost.carbon=0.4"}).find("cost.carbon: expected a number of 'kg/kWh', got '0.4'"),
            std::string::npos);
  EXPECT_NE(refusal({"cluster.node=dgx-b200", "cost.market=spot"}).find("no price is known for b200-sxm"),
            std::string::npos);
  EXPECT_NE(refusal({"run={}"}).find("run: expected one of 'tokens', 'samples' and 'steps'"), std::string::npos);
  EXPECT_NE(refusal({"run={tokens: 1e12, steps: 10}"}).find("run: expected one of"), std::string::npos);
  EXPECT_NE(refusal({"run.tokens=-1"}).find("run.tokens: expected at least 1"), std::string::npos);
}

TEST(Run, OfAModelWithoutTokensIsGivenInSamples) {
  const std::vector<std::string> images{"model=resnet50", "training={global_batch: 64, precision: bf16}",
                                        "strategy={framework: pytorch-ddp}"};
  std::vector<std::string> tokens = images;
  tokens.emplace_back("run.tokens=1e9");
  EXPECT_NE(refusal(tokens).find(" has no tokens; give run.samples or run.steps"), std::string::npos);
  std::vector<std::string> samples = images;
  samples.emplace_back("run.samples=1.28e6");
  const Result result = costs(samples);
  EXPECT_NEAR(result.run->steps, 20'000, 1e-6);
  EXPECT_FALSE(result.cost.paid->per_million_tokens.has_value());
}

}  // namespace
}  // namespace trainyard::scenarios
