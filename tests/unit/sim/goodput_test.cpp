#include "sim/goodput.hpp"

#include <gtest/gtest.h>

#include "sim/estimate.hpp"
#include "sim/step_spread.hpp"

namespace trainyard::sim {
namespace {

// One process that fails with this mean, whatever it is made of.
CampaignInputs failing(LongDuration mtbf, LongDuration save, LongDuration restart, LongDuration interval) {
  CampaignInputs inputs;
  inputs.duration = mtbf * 2000;
  inputs.nodes = 1;
  inputs.failures = {{.kind = StopKind::node, .parts = 1, .mtbf = mtbf}};
  inputs.checkpoint = {.interval = interval, .exposed = save, .background = {}};
  inputs.restart.detect = restart;
  return inputs;
}

double daly_goodput(LongDuration mtbf, std::int64_t save_s, std::int64_t restart_s) {
  const LongDuration save = seconds(save_s);
  return expected_goodput({.interval = daly_interval(save, mtbf), .exposed = save, .background = {}},
                          seconds(restart_s), mtbf);
}

TEST(Goodput, IntervalsAreThoseOfThePapers) {
  EXPECT_EQ(young_interval(seconds(50), seconds(10'000)), seconds(1000));
  EXPECT_NEAR(to_seconds(daly_interval(seconds(50), seconds(10'000))), 1000 * (1 + 0.05 / 3 + 0.0025 / 9) - 50, 1e-5);
  EXPECT_EQ(daly_interval(seconds(60), seconds(30)), seconds(30));
  EXPECT_NEAR(to_seconds(daly_interval(seconds(30), long_duration(3.09 * 3600))) / 60, 13.2, 0.1);
  EXPECT_NEAR(to_seconds(young_interval(seconds(30), long_duration(3.09 * 3600))) / 60, 13.6, 0.05);
}

// 16,384 GPUs at Llama 3's rate of failures.
TEST(Goodput, OfAJobThatFailsEveryThreeHours) {
  const LongDuration mtbf = long_duration(3.09 * 3600);
  EXPECT_NEAR(daly_goodput(mtbf, 30, 180), 0.91, 0.005);
  EXPECT_NEAR(daly_goodput(mtbf, 30, 600), 0.88, 0.005);
  EXPECT_NEAR(daly_goodput(mtbf, 120, 600), 0.82, 0.005);
  EXPECT_NEAR(daly_goodput(mtbf, 300, 600), 0.75, 0.006);
}

// Interruptions once a day and node, 60 s to save, 10 min to restart, 60 % off the price.
TEST(Goodput, OfSpotInstancesFallsWithTheirNumberAndSoDoesTheSaving) {
  struct Row {
    std::int64_t nodes;
    double goodput;
    double saving;
  };
  for (const Row& row : {Row{1, 0.957, 0.58}, Row{4, 0.902, 0.56}, Row{16, 0.768, 0.48}, Row{64, 0.47, 0.14}}) {
    CampaignInputs inputs;
    inputs.nodes = row.nodes;
    inputs.spot = Spot{.interruption = hours(24), .notice = {}, .wait = {}};
    inputs.restart = {
        .detect = seconds(60), .reschedule = seconds(480), .in_place = {}, .reload = {}, .warm_up = seconds(60)};
    const LongDuration save = seconds(60);
    inputs.checkpoint = {.interval = daly_interval(save, *job_mtbf(inputs)), .exposed = save, .background = {}};
    inputs.duration = days(365);
    const double expected = *expected_goodput(inputs);
    EXPECT_NEAR(expected, row.goodput, 0.005) << row.nodes;
    EXPECT_NEAR(1 - 0.4 / expected, row.saving, 0.015) << row.nodes;
    const CampaignEstimate simulated = estimate(inputs, 5, 40);
    EXPECT_LT(simulated.goodput.standard_error, 0.0015);
    EXPECT_NEAR(simulated.goodput.mean, expected, 3 * simulated.goodput.standard_error) << row.nodes;
  }
}

// Intervals this tight miss the truth once in twenty times, here or elsewhere; four standard errors never should.
TEST(Goodput, TheClosedFormIsWhatCampaignsComeTo) {
  int inside = 0;
  int cases = 0;
  for (const std::int64_t mtbf_min : {20, 185, 1440})
    for (const std::int64_t save_s : {5, 60, 240})
      for (const std::int64_t restart_s : {0, 180, 900})
        for (const std::int64_t interval_min : {2, 15, 60}) {
          const CampaignInputs inputs =
              failing(minutes(mtbf_min), seconds(save_s), seconds(restart_s), minutes(interval_min));
          const double expected = *expected_goodput(inputs);
          const Statistics simulated = estimate(inputs, 11, 16).goodput;
          EXPECT_LT(simulated.standard_error, 0.004);
          EXPECT_NEAR(simulated.mean, expected, 4 * simulated.standard_error + 1e-5)
              << mtbf_min << " min, " << save_s << " s, " << restart_s << " s, every " << interval_min << " min";
          ++cases;
          inside += simulated.low <= expected && expected <= simulated.high ? 1 : 0;
        }
  EXPECT_GE(inside, cases * 85 / 100) << "of " << cases;
}

TEST(Goodput, TheClosedFormOfAsynchronousSavesToo) {
  for (const std::int64_t background_s : {60, 600, 1200}) {
    CampaignInputs inputs = failing(minutes(185), seconds(2), seconds(300), minutes(10));
    inputs.checkpoint.background = seconds(background_s);
    const double expected = *expected_goodput(inputs);
    const Statistics simulated = estimate(inputs, 3, 32).goodput;
    EXPECT_NEAR(simulated.mean, expected, 3 * simulated.standard_error) << background_s;
  }
}

// Half of the failures need another node, and ten minutes more.
TEST(Goodput, TheClosedFormOfRestartsThatDifferToo) {
  CampaignInputs inputs = failing(minutes(60), seconds(20), seconds(300), minutes(10));
  inputs.restart.reschedule = seconds(900);
  inputs.restart.in_place = seconds(30);
  double before = 0;
  for (const double replaced : {1.0, 0.5, 0.0}) {
    inputs.failures.front().replaced = replaced;
    const double expected = *expected_goodput(inputs);
    const Statistics simulated = estimate(inputs, 3, 32).goodput;
    EXPECT_LT(simulated.standard_error, 0.002);
    EXPECT_NEAR(simulated.mean, expected, 3 * simulated.standard_error) << replaced;
    EXPECT_GT(expected, before + 0.03);
    before = expected;
  }
  EXPECT_NEAR(*expected_goodput(inputs), expected_goodput(inputs.checkpoint, seconds(330), minutes(60)), 1e-8);
}

// Against the same luck.
TEST(Goodput, NoIntervalIsBetterThanDalys) {
  for (const std::int64_t mtbf_min : {60, 185, 720})
    for (const std::int64_t save_s : {10, 60, 300}) {
      const LongDuration best = daly_interval(seconds(save_s), minutes(mtbf_min));
      const auto goodput_at = [&](std::int64_t percent) {
        return estimate(failing(minutes(mtbf_min), seconds(save_s), seconds(300), share_of(best, percent, 100)), 2, 24)
            .goodput.mean;
      };
      const double at_best = goodput_at(100);
      for (const std::int64_t percent : {40, 60, 160, 250})
        EXPECT_GT(at_best, goodput_at(percent)) << mtbf_min << " min, " << save_s << " s, " << percent << " %";
    }
}

TEST(Goodput, WithoutFailuresOnlySavingTakesTime) {
  CampaignInputs inputs = failing(minutes(60), seconds(60), seconds(60), minutes(9));
  inputs.failures.clear();
  EXPECT_FALSE(job_mtbf(inputs));
  EXPECT_DOUBLE_EQ(*expected_goodput(inputs), 0.9);
  EXPECT_NEAR(estimate(inputs, 1, 2).goodput.mean, 0.9, 1e-4);
}

TEST(Goodput, ThereIsNoClosedFormOfWhatHasMemoryOrWaits) {
  const CampaignInputs plain = failing(minutes(60), seconds(6), seconds(60), minutes(9));
  ASSERT_TRUE(expected_goodput(plain));
  CampaignInputs changed = plain;
  changed.failures.front().shape = 0.7;
  EXPECT_FALSE(expected_goodput(changed));
  changed = plain;
  changed.spares = 2;
  EXPECT_FALSE(expected_goodput(changed));
  changed = plain;
  changed.spot = Spot{.interruption = hours(24), .notice = seconds(120), .wait = {}};
  EXPECT_FALSE(expected_goodput(changed));
  changed = plain;
  changed.stragglers = Stragglers{.share = 0.1, .slowdown = 1.2, .found = {}};
  EXPECT_FALSE(expected_goodput(changed));
}

TEST(StepTimes, TheSlowestOfManyRanksIsWaitedFor) {
  StepSpread spread{.step_s = 10, .kernels_s = 8, .spread = 0.01, .ranks = 1, .slowdown = 1, .slow_share = 0};
  EXPECT_NEAR(step_times(spread).mean_s, 10, 1e-9);
  EXPECT_NEAR(step_times(spread).p99_s, 10 + 0.08 * 2.326, 1e-3);
  spread.ranks = 1000;  // the mean of the largest of 1,000 normal draws is 3.2414
  EXPECT_NEAR(step_times(spread).mean_s, 10 + 0.08 * 3.2414, 2e-4);
  EXPECT_NEAR(step_times(spread).p50_s, 10 + 0.08 * 3.1982, 5e-4);
}

TEST(StepTimes, SlowNodesAreInTheTailUntilTheyAreTheRule) {
  StepSpread spread{.step_s = 10, .kernels_s = 8, .spread = 0, .ranks = 64, .slowdown = 1.2, .slow_share = 0.3};
  EXPECT_NEAR(step_times(spread).p50_s, 10, 1e-9);
  EXPECT_NEAR(step_times(spread).p99_s, 12, 1e-9);
  spread.slow_share = 0.7;
  EXPECT_NEAR(step_times(spread).p50_s, 12, 1e-9);
  EXPECT_NEAR(step_times(spread).mean_s, 10, 1e-9);
}

}  // namespace
}  // namespace trainyard::sim
