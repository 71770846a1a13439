#include "sim/campaign.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "sim/estimate.hpp"
#include "sim/random.hpp"

namespace trainyard::sim {
namespace {

// Days on 64 nodes, each of which fails about once a month.
CampaignInputs ordinary() {
  CampaignInputs inputs;
  inputs.duration = days(30);
  inputs.nodes = 64;
  inputs.failures = {{.kind = StopKind::device, .parts = 512, .mtbf = hours(6000)},
                     {.kind = StopKind::link, .parts = 512, .mtbf = hours(40'000), .replaced = 0}};
  inputs.checkpoint = {.interval = minutes(20), .exposed = seconds(40), .background = {}};
  inputs.restart = {
      .detect = seconds(60), .reschedule = seconds(120), .in_place = {}, .reload = seconds(50), .warm_up = seconds(60)};
  inputs.repair = hours(24);
  return inputs;
}

double goodput(const CampaignInputs& inputs) { return estimate(inputs, 1, 40).goodput.mean; }
double share(const CampaignInputs& inputs, TimeUse use) {
  return estimate(inputs, 1, 40).share.at(static_cast<std::size_t>(use));
}
std::int64_t stops(const CampaignOutcome& outcome, StopKind kind) {
  return outcome.stops.at(static_cast<std::size_t>(kind));
}

TEST(Campaign, WithoutFailuresTrainsAndSavesByTheClock) {
  CampaignInputs inputs = ordinary();
  inputs.failures.clear();
  inputs.duration = minutes(20) * 3 + seconds(40) * 2 + minutes(7);
  const CampaignOutcome outcome = run_campaign(inputs, 1);
  EXPECT_EQ(outcome.of(TimeUse::checkpoint), seconds(40) * 3);
  EXPECT_EQ(outcome.of(TimeUse::useful), inputs.duration - seconds(40) * 3);
}

// A part that lasts almost exactly 100 minutes: large shapes have little spread.
TEST(Campaign, AFailureLosesWhatWasTrainedSinceTheLastSave) {
  CampaignInputs inputs = ordinary();
  inputs.failures = {{.kind = StopKind::node, .parts = 1, .mtbf = minutes(100), .shape = 400}};
  inputs.duration = minutes(130);
  const CampaignOutcome outcome = run_campaign(inputs, 1);
  EXPECT_EQ(stops(outcome, StopKind::node), 1);
  EXPECT_EQ(outcome.of(TimeUse::checkpoint), seconds(40) * 5);  // four before, one after
  const LongDuration down = seconds(60 + 120 + 50 + 60);
  EXPECT_EQ(outcome.of(TimeUse::detect), seconds(60));
  EXPECT_EQ(outcome.of(TimeUse::reschedule), seconds(120));
  EXPECT_EQ(outcome.of(TimeUse::reload), seconds(50));
  EXPECT_EQ(outcome.of(TimeUse::warm_up), seconds(60));
  EXPECT_GT(outcome.of(TimeUse::lost_work), minutes(14));
  EXPECT_LT(outcome.of(TimeUse::lost_work), minutes(20));
  EXPECT_EQ(outcome.of(TimeUse::useful) + outcome.of(TimeUse::lost_work),
            inputs.duration - down - outcome.of(TimeUse::checkpoint));
}

TEST(Campaign, ASaveThatIsStillOnItsWayToStorageIsLost) {
  CampaignInputs inputs = ordinary();
  inputs.failures = {{.kind = StopKind::node, .parts = 1, .mtbf = minutes(100), .shape = 400}};
  inputs.duration = minutes(110);
  const LongDuration lost = run_campaign(inputs, 1).of(TimeUse::lost_work);
  inputs.checkpoint.background = minutes(19);
  EXPECT_EQ(run_campaign(inputs, 1).of(TimeUse::lost_work), lost + minutes(20));
}

TEST(Campaign, ASaveDoesNotBeginBeforeTheOneBeforeItIsInStorage) {
  CampaignInputs inputs = ordinary();
  inputs.failures.clear();
  inputs.checkpoint = {.interval = seconds(10), .exposed = seconds(1), .background = seconds(99)};
  inputs.duration = seconds(1000);
  EXPECT_EQ(run_campaign(inputs, 1).of(TimeUse::checkpoint), seconds(10));
}

TEST(Campaign, LinksThatFailReplaceNoNode) {
  CampaignInputs inputs = ordinary();
  inputs.failures.erase(inputs.failures.begin());
  inputs.spares = 0;
  const CampaignOutcome outcome = run_campaign(inputs, 1);
  EXPECT_GT(stops(outcome, StopKind::link), 3);
  EXPECT_EQ(outcome.of(TimeUse::reschedule).count, 0);
  EXPECT_EQ(outcome.of(TimeUse::capacity).count, 0);
}

TEST(Campaign, MoreOfWhatFailsOrTakesTimeGivesLess) {
  const CampaignInputs base = ordinary();
  const double usual = goodput(base);
  const auto with = [&](const auto& change) {
    CampaignInputs inputs = base;
    change(inputs);
    return goodput(inputs);
  };
  EXPECT_LT(with([](CampaignInputs& x) { x.failures[0].parts *= 4; }), usual);
  EXPECT_LT(with([](CampaignInputs& x) { x.failures[0].mtbf = hours(2000); }), usual);
  EXPECT_LT(with([](CampaignInputs& x) { x.checkpoint.exposed = seconds(120); }), usual);
  EXPECT_LT(with([](CampaignInputs& x) { x.restart.reschedule = minutes(20); }), usual);
  EXPECT_LT(with([](CampaignInputs& x) { x.restart.reload = minutes(20); }), usual);
  EXPECT_LT(with([](CampaignInputs& x) { x.checkpoint.interval = hours(4); }), usual);
  EXPECT_GT(with([](CampaignInputs& x) { x.failures[1].mtbf = hours(4'000'000); }), usual);
}

TEST(Campaign, SparesAreWaitedForUntilNodesAreRepaired) {
  CampaignInputs inputs = ordinary();
  const double without_limit = goodput(inputs);
  double before = 0;
  for (const std::int64_t spares : {0, 1, 2, 4, 32}) {
    inputs.spares = spares;
    const double now = goodput(inputs);
    EXPECT_GT(now, before) << spares;
    before = now;
  }
  EXPECT_EQ(before, without_limit);
  inputs.spares = 0;
  EXPECT_GT(share(inputs, TimeUse::capacity), 0.3);
  inputs.repair = hours(2);
  EXPECT_LT(share(inputs, TimeUse::capacity), 0.2);
}

TEST(Campaign, AnElasticJobGoesOnWithTheReplicasThatAreComplete) {
  CampaignInputs inputs = ordinary();
  inputs.spares = 0;
  const double waiting = goodput(inputs);
  inputs.elastic = Elastic{.replicas = 8, .reshard = seconds(90)};
  const double by_eighths = goodput(inputs);
  EXPECT_GT(by_eighths, waiting + 0.1);
  EXPECT_EQ(share(inputs, TimeUse::capacity), 0);
  EXPECT_GT(share(inputs, TimeUse::reduced), 0.05);
  inputs.elastic->replicas = 64;
  EXPECT_GT(goodput(inputs), by_eighths);
}

// One failure for certain, on one of two nodes: half the rate until it is back.
TEST(Campaign, AReducedJobTrainsAtTheRateOfItsReplicas) {
  CampaignInputs inputs = ordinary();
  inputs.nodes = 2;
  inputs.spares = 0;
  inputs.repair = hours(1000);
  inputs.elastic = Elastic{.replicas = 2, .reshard = {}};
  inputs.restart = {};
  inputs.checkpoint = {.interval = minutes(1), .exposed = {}, .background = {}};
  inputs.failures = {{.kind = StopKind::node, .parts = 1, .mtbf = minutes(100), .shape = 400}};
  inputs.duration = minutes(180);
  const CampaignOutcome outcome = run_campaign(inputs, 1);
  EXPECT_NEAR(to_seconds(outcome.of(TimeUse::useful)), to_seconds(minutes(140)), 60);
  EXPECT_NEAR(to_seconds(outcome.of(TimeUse::reduced)), to_seconds(minutes(40)), 60);
}

TEST(Campaign, NoticeThatIsLongEnoughSavesTheWork) {
  CampaignInputs inputs = ordinary();
  inputs.failures.clear();
  inputs.spot = Spot{.interruption = hours(300), .notice = {}, .wait = minutes(10)};
  const double without = goodput(inputs);
  EXPECT_GT(share(inputs, TimeUse::lost_work), 0.01);
  EXPECT_GT(share(inputs, TimeUse::capacity), 0.01);
  inputs.spot->notice = seconds(39);
  const double too_short = goodput(inputs);
  EXPECT_GT(share(inputs, TimeUse::lost_work), 0.01);
  inputs.spot->notice = seconds(40);
  EXPECT_GT(goodput(inputs), too_short);
  EXPECT_GT(too_short, without);  // no time until it is noticed
  EXPECT_EQ(share(inputs, TimeUse::lost_work), 0);
  inputs.spot->wait = {};
  EXPECT_EQ(share(inputs, TimeUse::capacity), 0);
}

TEST(Campaign, AStragglerSlowsAllUntilItIsFound) {
  CampaignInputs inputs = ordinary();
  inputs.failures.clear();
  inputs.stragglers = Stragglers{.share = 0.02, .slowdown = 1.25, .found = {}};
  const CampaignEstimate never = estimate(inputs, 1, 400);
  const double likely = 1 - std::pow(0.98, 64);
  EXPECT_NEAR(never.straggling, likely, 0.06);
  EXPECT_NEAR(never.share.at(static_cast<std::size_t>(TimeUse::straggler)) / never.goodput.mean,
              likely * 0.25 / (1 + (1 - likely) * 0.25), 0.02);
  inputs.stragglers->found = hours(12);
  const CampaignEstimate found = estimate(inputs, 1, 400);
  EXPECT_LT(found.straggling, 0.03);
  EXPECT_GT(found.goodput.mean, never.goodput.mean + 0.1);
  EXPECT_EQ(found.interruptions.mean, 0);
  EXPECT_GT(found.per_day.at(static_cast<std::size_t>(StopKind::straggler)), 0.01);
}

TEST(Campaign, InfantMortalityFailsEarly) {
  CampaignInputs inputs = ordinary();
  inputs.failures.pop_back();
  inputs.duration = days(5);
  const double even = estimate(inputs, 1, 60).interruptions.mean;
  inputs.failures.front().shape = 0.6;
  EXPECT_GT(estimate(inputs, 1, 60).interruptions.mean, 2 * even);
}

// 466 interruptions in 54 days, 47 of them planned: 419 of 16,384 GPUs, more than 90 % effective time
// (arXiv 2407.21783, section 3.3.4).
TEST(Campaign, Llama3FailedAsOftenAsItsGpusDo) {
  CampaignInputs inputs = ordinary();
  inputs.duration = days(54);
  inputs.nodes = 2048;
  inputs.failures = {{.kind = StopKind::device, .parts = 16'384, .mtbf = hours(50'000)}};
  inputs.checkpoint = {.interval = minutes(10), .exposed = seconds(10), .background = {}};
  const CampaignEstimate result = estimate(inputs, 1, 256);
  EXPECT_NEAR(result.interruptions.mean, 419, 1.96 * std::sqrt(419));
  EXPECT_LT(result.interruptions.p5, 419);
  EXPECT_GT(result.interruptions.p95, 419);
  EXPECT_GT(result.goodput.mean, 0.9);
}

// 6.5 failures per 1000 node-days of 8 GPUs: a mean of 1.8 h on 16,384 GPUs, 0.23 h on 131,072 (arXiv 2410.21680).
TEST(Campaign, MetasResearchClustersFailAsTheyProject) {
  CampaignInputs inputs = ordinary();
  inputs.failures = {{.kind = StopKind::node, .parts = 2048, .mtbf = share_of(days(1000), 10, 65)}};
  EXPECT_NEAR(to_seconds(*job_mtbf(inputs)) / 3600, 1.8, 0.05);
  inputs.failures.front().parts = 16'384;
  EXPECT_NEAR(to_seconds(*job_mtbf(inputs)) / 3600, 0.23, 0.01);
}

TEST(Campaign, ASeedGivesTheSameCampaignAndAnotherAnother) {
  CampaignInputs inputs = ordinary();
  inputs.stragglers = Stragglers{.share = 0.02, .slowdown = 1.25, .found = hours(12)};
  EXPECT_EQ(run_campaign(inputs, 7).time, run_campaign(inputs, 7).time);
  EXPECT_NE(run_campaign(inputs, 7).time, run_campaign(inputs, 8).time);
}

// Whatever is asked for runs to its end, and what time goes to adds up: run_campaign() makes sure of the sum.
TEST(Campaign, AnyCampaignAddsUp) {
  RandomStream random(99, "campaigns");
  const auto upto = [&](LongDuration most) { return LongDuration{random.below(most.count + 1)}; };
  for (int i = 0; i < 3000; ++i) {
    SCOPED_TRACE(i);
    CampaignInputs inputs;
    inputs.duration = upto(days(20)) + LongDuration{1};
    inputs.nodes = 1 + random.below(40);
    for (int process = 0; process < 3; ++process)
      inputs.failures.push_back({.kind = static_cast<StopKind>(process),
                                 .parts = random.below(100),
                                 .mtbf = upto(hours(3000)) + hours(20),
                                 .shape = random.chance(0.5) ? 1 : 0.3 + 3 * random.uniform(),
                                 .replaced = random.uniform()});
    inputs.checkpoint = {.interval = upto(hours(2)) + LongDuration{1},
                         .exposed = upto(seconds(90)),
                         .background = random.chance(0.5) ? upto(minutes(10)) : LongDuration{}};
    inputs.restart = {.detect = upto(minutes(5)),
                      .reschedule = upto(minutes(5)),
                      .in_place = upto(minutes(1)),
                      .reload = upto(minutes(5)),
                      .warm_up = upto(minutes(5))};
    if (random.chance(0.5)) inputs.spares = random.below(4);
    inputs.repair = upto(hours(48));
    if (random.chance(0.5))
      inputs.stragglers = Stragglers{.share = 0.1 * random.uniform(), .slowdown = 1 + random.uniform(), .found = {}};
    if (inputs.stragglers && random.chance(0.5)) inputs.stragglers->found = upto(hours(24)) + minutes(10);
    if (random.chance(0.5))
      inputs.spot =
          Spot{.interruption = upto(hours(100)) + hours(1), .notice = upto(minutes(3)), .wait = upto(hours(1))};
    if (random.chance(0.5)) inputs.elastic = Elastic{.replicas = 1 + random.below(50), .reshard = upto(minutes(3))};
    const CampaignOutcome outcome = run_campaign(inputs, static_cast<std::uint64_t>(i));
    for (const LongDuration time : outcome.time) EXPECT_GE(time.count, 0);
    EXPECT_LE(outcome.trained_straggling, outcome.trained);
    EXPECT_LE(outcome.of(TimeUse::useful), outcome.trained);
    EXPECT_EQ(outcome.time, run_campaign(inputs, static_cast<std::uint64_t>(i)).time);
  }
}

TEST(Estimate, TheIntervalIsStudents) {
  const Statistics result = statistics_of({4, 1, 3, 2, 5});
  EXPECT_EQ(result.mean, 3);
  EXPECT_NEAR(result.standard_error, std::sqrt(2.5 / 5), 1e-12);
  EXPECT_NEAR(result.high - result.mean, 2.7764 * result.standard_error, 1e-9);
  EXPECT_EQ(result.p50, 3);
  EXPECT_NEAR(result.p5, 1.2, 1e-12);
  EXPECT_NEAR(student_quantile(11), 2.2010, 2e-4);
  EXPECT_NEAR(student_quantile(30), 2.0423, 1e-4);
  EXPECT_NEAR(student_quantile(255), 1.9693, 1e-4);
}

TEST(Estimate, TheFirstRepetitionsStayTheSame) {
  const CampaignInputs inputs = ordinary();
  EXPECT_EQ(estimate(inputs, 1, 1).goodput.mean,
            to_seconds(run_campaign(inputs, repetition_seed(1, 0)).of(TimeUse::useful)) / to_seconds(inputs.duration));
  EXPECT_NE(estimate(inputs, 1, 2).goodput.mean, estimate(inputs, 1, 1).goodput.mean);
}

}  // namespace
}  // namespace trainyard::sim
