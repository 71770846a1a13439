// The `reliability` section: how it is read, what it makes of a step, and what it says of long runs.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "scenarios/internal/step_facts.hpp"
#include "scenarios/quantity.hpp"
#include "sim/random.hpp"
#include "tests/support/simulated.hpp"

namespace trainyard::scenarios {
namespace {

using tests::refusal;
using tests::scenario_of;
using tests::simulated;

const std::string base = R"(name: Reliability
cluster: {node: dgx-h100, nodes: 4}
model: llama3-8b
training: {global_batch: 32, micro_batch: 1, sequence: 2048, precision: bf16}
strategy: {framework: megatron-lm, tensor: 8}
reliability: {seeds: 32}
)";

GoodputSummary goodput(const std::vector<std::string>& settings) { return simulated(base, settings).result.goodput; }
const CampaignSummary& campaign(const GoodputSummary& goodput) { return *goodput.campaign; }
std::string error(const std::string& setting) { return refusal(base, {setting}); }

TEST(Reliability, WithoutItNothingFails) {
  Result result;
  const nlohmann::json json = nlohmann::json::parse(to_json(result)).at("goodput");
  EXPECT_EQ(json, nlohmann::json::parse(R"({"fraction": 1.0, "interruptions_per_day": 0.0})"));
}

TEST(Reliability, DurationsReachFromMicrosecondsToYears) {
  EXPECT_EQ(parse_long_duration("50000 h").value, sim::hours(50'000));
  EXPECT_EQ(parse_long_duration("54 days").value, sim::days(54));
  EXPECT_EQ(parse_long_duration("1.5 min").value, sim::seconds(90));
  EXPECT_EQ(parse_long_duration("2 years").value, sim::days(730));
  EXPECT_EQ(parse_long_duration("0.25 s").value, sim::LongDuration{250'000});
  EXPECT_FALSE(parse_long_duration("10").value);
  EXPECT_FALSE(parse_long_duration("10 m").value);
  EXPECT_FALSE(parse_long_duration("1 ns").value);
  EXPECT_EQ(format_long_duration(sim::seconds(816)), "13.6 min");
  EXPECT_EQ(format_long_duration(sim::days(54)), "54 days");
  EXPECT_EQ(format_long_duration(sim::seconds(45)), "45 s");
}

TEST(Reliability, MistakesAreReportedAtTheirKeys) {
  EXPECT_NE(
      error("reliability.device_mtbf=50000").find("reliability.device_mtbf: expected a duration such as '10 min'"),
      std::string::npos);
  EXPECT_NE(error("reliability.device_mtfb=1 h").find("(did you mean 'device_mtbf'?)"), std::string::npos);
  EXPECT_NE(
      error("reliability.checkpoint.interval=yuong")
          .find("reliability.checkpoint.interval: expected 'young', 'daly' or a duration such as '10 min', got 'yuong' "
                "(did you mean 'young'?)"),
      std::string::npos);
  EXPECT_NE(error("reliability.checkpoint.interval=0 s").find("reliability.checkpoint.interval"), std::string::npos);
  EXPECT_NE(error("reliability.checkpoint.interval=[1]").find("got a list"), std::string::npos);
  EXPECT_NE(error("reliability.checkpoint.mode=async").find("(did you mean 'asynchronous'?)"), std::string::npos);
  EXPECT_NE(error("reliability.stragglers={share: 0.1}").find("missing key 'reliability.stragglers.slowdown'"),
            std::string::npos);
  EXPECT_NE(error("reliability.stragglers={share: 0.1, slowdown: 0.5}").find("expected at least 1"), std::string::npos);
  EXPECT_NE(error("reliability.replaced=1.5").find("expected at most 1"), std::string::npos);
  EXPECT_NE(error("reliability.seeds=1").find("expected at least 2"), std::string::npos);
  EXPECT_NE(error("reliability.spot={interruption: 0 s}").find("reliability.spot.interruption"), std::string::npos);
}

TEST(Reliability, WhatWouldTakeHoursToSimulateIsRefused) {
  const std::string text = refusal(base, {"reliability.device_mtbf=1 s", "reliability.seeds=1000000"});
  EXPECT_NE(text.find("reliability.duration: so many campaigns come to about"), std::string::npos) << text;
  EXPECT_NE(text.find("give fewer 'seeds' or a shorter 'duration'"), std::string::npos) << text;
}

TEST(Reliability, AnElasticJobNeedsSomethingToWaitFor) {
  EXPECT_EQ(scenario_of(base, {"reliability.elastic=true"}).warnings.size(), 1U);
  EXPECT_TRUE(scenario_of(base, {"reliability.elastic=true", "reliability.spares=0"}).warnings.empty());
  EXPECT_TRUE(scenario_of(base, {"reliability.elastic=true", "reliability.spot={}"}).warnings.empty());
}

// 16-bit parameters, a 32-bit copy and two moments; adapters alone where nothing else is trained.
TEST(Reliability, ACheckpointHoldsWhatIsTrained) {
  const auto bytes = [](const std::vector<std::string>& settings) {
    const Scenario scenario = scenario_of(base, settings);
    return static_cast<double>(checkpoint_bytes(scenario.model, scenario.training).count);
  };
  const double parameters = 8'030'261'248;
  EXPECT_EQ(bytes({}), 14 * parameters);
  EXPECT_EQ(bytes({"training.precision=fp32"}), 12 * parameters);
  EXPECT_EQ(bytes({"training.optimizer=sgd"}), 6 * parameters);
  EXPECT_EQ(bytes({"training.master_weights=false"}), 6 * parameters);
  EXPECT_LT(bytes({"training.optimizer=adam8bit"}), 9 * parameters);
  // Rank 16 beside the seven matrices of each of 32 layers: 41.9 M (arXiv 2106.09685).
  EXPECT_EQ(bytes({"training.finetune=lora"}), 14 * 41'943'040.0);
}

TEST(Reliability, StorageIsAsFastAsItsNodesOrAltogether) {
  const auto write_s = [](const std::vector<std::string>& settings) {
    return sim::to_seconds(campaign(goodput(settings)).write);
  };
  const double bytes = 14 * 8'030'261'248.0;
  EXPECT_NEAR(write_s({}), bytes / 8e9, 1e-5);
  EXPECT_NEAR(write_s({"reliability.checkpoint.node_rate=1 GB/s"}), bytes / 4e9, 1e-5);
  EXPECT_NEAR(write_s({"reliability.checkpoint.cluster_rate=5 GB/s"}), bytes / 5e9, 1e-5);
  EXPECT_EQ(write_s({"reliability.checkpoint.write=77 s"}), 77);
}

TEST(Reliability, AsynchronousSavesStopTrainingForTheCopyAlone) {
  const GoodputSummary synchronous = goodput({});
  const GoodputSummary asynchronous = goodput({"reliability.checkpoint.mode=asynchronous"});
  const sim::CheckpointTimes& times = campaign(asynchronous).inputs.checkpoint;
  EXPECT_NEAR(sim::to_seconds(times.exposed), 5 + 14 * 8'030'261'248.0 / 32 / 50e9, 1e-5);
  EXPECT_EQ(times.background, campaign(synchronous).write);
  EXPECT_EQ(campaign(synchronous).inputs.checkpoint.background.count, 0);
  EXPECT_GT(asynchronous.fraction, synchronous.fraction);
}

TEST(Reliability, TheIntervalIsInWholeSteps) {
  const Simulation simulation = simulated(base, {});
  const CampaignSummary& summary = campaign(simulation.result.goodput);
  const sim::LongDuration daly = sim::daly_interval(summary.inputs.checkpoint.exposed, *summary.mtbf);
  const double interval_s = sim::to_seconds(summary.inputs.checkpoint.interval);
  EXPECT_NEAR(interval_s, sim::to_seconds(daly), 0.51 * simulation.result.step_time_s);
  const double steps = interval_s / simulation.result.step_time_s;
  EXPECT_NEAR(steps, std::round(steps), 1e-5 * steps);
  EXPECT_NEAR(sim::to_seconds(campaign(goodput({"reliability.checkpoint.interval=10 min"})).inputs.checkpoint.interval),
              600, simulation.result.step_time_s);
}

TEST(Reliability, PeopleTakeLongerAndHotSparesLess) {
  const auto reschedule_s = [](const std::vector<std::string>& settings) {
    return sim::to_seconds(campaign(goodput(settings)).inputs.restart.reschedule);
  };
  EXPECT_EQ(reschedule_s({}), 120);
  EXPECT_EQ(reschedule_s({"reliability.spares=2"}), 60);
  EXPECT_EQ(reschedule_s({"reliability.spares=0"}), 120);
  EXPECT_EQ(reschedule_s({"reliability.restart={automatic: false}"}), 1200);
  EXPECT_EQ(reschedule_s({"reliability.restart={automatic: false, reschedule: 7 s}"}), 7);
}

TEST(Reliability, NodesCountInsteadOfTheirDevices) {
  const auto mtbf = [](const std::vector<std::string>& settings) { return *campaign(goodput(settings)).mtbf; };
  EXPECT_EQ(mtbf({}), sim::long_duration(50'000 * 3600.0 / 32));
  EXPECT_EQ(mtbf({"reliability.node_mtbf=400 h"}), sim::hours(100));
  EXPECT_NEAR(sim::to_seconds(mtbf({"reliability.node_mtbf=400 h", "reliability.device_mtbf=3200 h"})), 50 * 3600, 1);
  EXPECT_NEAR(sim::to_seconds(mtbf({"reliability.node_mtbf=400 h", "reliability.link_mtbf=3200 h"})), 50 * 3600, 1);
}

TEST(Reliability, TheResultAddsUpAndAgreesWithTheClosedForm) {
  const Simulation simulation =
      simulated(base, {"reliability.device_mtbf=300 h", "reliability.kernel_spread=0.02", "reliability.seeds=64"});
  const nlohmann::json json = nlohmann::json::parse(to_json(simulation.result)).at("goodput");
  double sum = 0;
  for (const auto& [name, share] : json.at("time_share").items()) sum += share.get<double>();
  EXPECT_NEAR(sum, 1, 1e-12);
  const double fraction = json.at("fraction");
  EXPECT_NEAR(json.at("time_share").at("useful"), fraction, 1e-12);
  EXPECT_LT(json.at("fraction_low"), fraction);
  EXPECT_GT(json.at("fraction_high"), fraction);
  EXPECT_NEAR(json.at("fraction_closed_form"), fraction, 4 * json.at("standard_error").get<double>());
  EXPECT_NEAR(json.at("interruptions_per_day"), 32 * 24 / 300.0, 0.1);
  EXPECT_GT(json.at("time_share").at("kernel_spread"), 0.005);
  EXPECT_GT(json.at("step_time_p99_s"), json.at("step_time_p50_s"));
  EXPECT_GT(json.at("step_time_p50_s"), simulation.result.step_time_s);
  const std::string text = to_summary(scenario_of(base, {}), simulation.result);
  EXPECT_NE(text.find("Failures, 64 campaigns of 30 days"), std::string::npos) << text;
  EXPECT_NE(text.find("; closed form "), std::string::npos) << text;
}

// A node 25 % slower costs the step less, which also waits for the network, and never more; where hosts are what is
// waited for, it costs nothing.
TEST(Reliability, WhatASlowNodeCostsIsSimulated) {
  const std::string stragglers = "reliability.stragglers={share: 0.5, slowdown: 1.25}";
  const GoodputSummary summary = goodput({stragglers, "training.sequence=8192"});
  EXPECT_GT(campaign(summary).straggling_slowdown, 1.05);
  EXPECT_LT(campaign(summary).straggling_slowdown, 1.25);
  EXPECT_GT(campaign(summary).estimate.straggling, 0.8);
  EXPECT_LT(summary.fraction, goodput({"training.sequence=8192"}).fraction - 0.03);
  EXPECT_LT(campaign(goodput({stragglers})).straggling_slowdown, 1.01);
}

// What is lost is trained again: the whole run takes longer by as much.
TEST(Reliability, ARunTakesLongerByWhatIsLost) {
  const std::vector<std::string> settings{"run={tokens: 1e12}", "reliability.device_mtbf=100 h"};
  const Result failing = simulated(base, settings).result;
  Scenario scenario = scenario_of(base, settings);
  scenario.reliability.reset();
  const Result safe = simulate(scenario).result;
  EXPECT_LT(failing.goodput.fraction, 0.95);
  EXPECT_NEAR(failing.run->days * failing.goodput.fraction, safe.run->days, 1e-9 * safe.run->days);
}

TEST(Reliability, TheSameScenarioGivesTheSameBytes) {
  const std::vector<std::string> settings{"reliability.spot={}", "reliability.spares=1", "reliability.shape=0.8"};
  const auto json = [&] { return nlohmann::json::parse(to_json(simulated(base, settings).result)).at("goodput"); };
  EXPECT_EQ(json(), json());
  std::vector<std::string> another = settings;
  another.emplace_back("seed=2");
  EXPECT_NE(goodput(another).fraction, goodput(settings).fraction);
}

// Sections put together at random are simulated or refused with a place, and what is simulated is a share.
TEST(Reliability, RandomSectionsAreSimulatedOrRefused) {
  sim::RandomStream random(17, "sections");
  const std::vector<std::vector<std::string>> choices{
      {"device_mtbf=50000 h", "device_mtbf=200 h", "device_mtbf=3 h", "device_mtbf=x", "device_mtbf=1 s"},
      {"node_mtbf=100 h", "node_mtbf=9 years"},
      {"link_mtbf=1000 h", "link_mtbf=0 s"},
      {"shape=0.5", "shape=3", "shape=0"},
      {"replaced=0", "replaced=0.3", "replaced=2"},
      {"spares=0", "spares=1", "spares=-1"},
      {"repair=1 s", "repair=24 h", "repair=0 s"},
      {"elastic=true", "elastic=maybe"},
      {"kernel_spread=0.1", "kernel_spread=1"},
      {"stragglers={share: 0.3, slowdown: 2}", "stragglers={share: 1, slowdown: 1, found: 1 h}", "stragglers=[]"},
      {"spot={}", "spot={interruption: 1 h, notice: 0 s, wait: 0 s}", "spot={wait: 10 days}", "spot=3"},
      {"checkpoint.interval=1 s", "checkpoint.interval=young", "checkpoint.interval=2 h", "checkpoint={}"},
      {"checkpoint.mode=asynchronous", "checkpoint.mode=synchronous"},
      {"checkpoint.write=0 s", "checkpoint.write=1 h"},
      {"checkpoint.node_rate=1 B/s", "checkpoint.node_rate=9 TB/s"},
      {"restart.detect=0 s", "restart.detect=1 day"},
      {"restart.reload=0 s", "restart.warm_up=0 s", "restart.automatic=false"},
      {"duration=1 day", "duration=1 h", "duration=1 s", "duration=3 years"}};
  int simulations = 0;
  for (int i = 0; i < 150; ++i) {
    std::vector<std::string> settings{"reliability.seeds=3"};
    for (const std::vector<std::string>& choice : choices)
      if (random.chance(0.3))
        settings.push_back("reliability." +
                           choice[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(choice.size())))]);
    SCOPED_TRACE(std::accumulate(settings.begin(), settings.end(), std::string{}, [](std::string all, const auto& one) {
      return std::move(all) + " --set '" + one + "'";
    }));
    if (const std::string text = refusal(base, settings); !text.empty()) {
      EXPECT_NE(text.find("reliability"), std::string::npos) << text;
      continue;
    }
    const GoodputSummary summary = goodput(settings);
    EXPECT_GE(summary.fraction, 0);
    EXPECT_LE(summary.fraction, 1 + 1e-12);
    ++simulations;
  }
  EXPECT_GT(simulations, 40);
}

}  // namespace
}  // namespace trainyard::scenarios
