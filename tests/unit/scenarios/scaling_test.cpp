#include "scenarios/scaling.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "tests/support/sweeps.hpp"

namespace trainyard::scenarios {
namespace {

using tests::SweepFolder;

constexpr std::size_t matmul = 0;
constexpr std::size_t exposed_data = 4;
constexpr std::size_t bubble = 10;

// A batch of `samples` of one token each, of which every device computes its share and waits besides.
ScalingSample sample(std::size_t position, double devices, double samples, double wait_data_s, double bubble_s = 0) {
  ScalingSample sample{.position = position, .devices = devices};
  sample.breakdown_s[matmul] = samples / devices;
  sample.breakdown_s[exposed_data] = wait_data_s;
  sample.breakdown_s[bubble] = bubble_s;
  sample.step_time_s = samples / devices + wait_data_s + bubble_s;
  sample.samples_per_s = samples / sample.step_time_s;
  sample.work_per_s = sample.samples_per_s;
  return sample;
}

double sum(const LossByCause& causes) { return std::accumulate(causes.begin(), causes.end(), 0.0); }

class ScalingTest : public testing::Test {
 protected:
  Sweep load(const std::string& text) {
    return Sweep::load(folder_.write("sweep.yaml", "base: base.yaml\n" + text), catalog_);
  }
  SweepFolder folder_;
  Catalog catalog_;
};

TEST_F(ScalingTest, AmdahlsFractionComesBackFromTimesThatFollowIt) {
  const Sweep sweep = load("vary: {cluster.nodes: [1, 2, 4, 8]}\n");
  // One second on one device, of which 2 % wait for data and 1 % in a bubble however many devices there are
  std::vector<ScalingSample> samples;
  for (std::size_t i = 0; i < 4; ++i) samples.push_back(sample(i, static_cast<double>(1U << i), 0.97, 0.02, 0.01));
  const std::vector<SeriesScaling> series = analyse_scaling(sweep, samples);
  ASSERT_EQ(series.size(), 1U);
  EXPECT_EQ(series[0].kind, ScalingKind::strong);
  ASSERT_TRUE(series[0].fit);
  EXPECT_NEAR(series[0].fit->slope, 0.03, 1e-12);
  EXPECT_NEAR(series[0].fit->communication_slope, 0.02, 1e-12);
  EXPECT_NEAR(series[0].fit->r_squared, 1, 1e-12);
  const PointScaling& last = series[0].points.back();
  EXPECT_NEAR(last.efficiency, 1.0 / (0.97 + 8 * 0.03), 1e-12);
  EXPECT_NEAR(sum(last.by_cause), last.loss, 1e-12);
  EXPECT_NEAR(last.by_cause[1] / last.by_cause[7], 2, 1e-9) << "data waits twice as long as the bubble";
  EXPECT_NEAR(last.by_cause[0], 0, 1e-12) << "kernels take as long as they did";
}

TEST_F(ScalingTest, ABatchThatGrowsWithTheDevicesIsWeakScalingAndFitsPerDoubling) {
  const Sweep sweep = load("vary: {cluster.nodes: [1, 2, 4]}\n");
  const std::vector<ScalingSample> samples{sample(0, 8, 8, 0), sample(1, 16, 16, 0.1), sample(2, 32, 32, 0.2)};
  const SeriesScaling series = analyse_scaling(sweep, samples).front();
  EXPECT_EQ(series.kind, ScalingKind::weak);
  EXPECT_NEAR(series.fit->slope, 0.1, 1e-12);
  EXPECT_NEAR(series.points[1].loss, 1 - 1 / 1.1, 1e-12);
  EXPECT_FALSE(series.knee);
}

TEST_F(ScalingTest, TheKneeIsWhereFurtherDevicesBringLessThanHalf) {
  const Sweep sweep = load("vary: {cluster.nodes: [1, 2, 4, 8]}\n");
  const std::vector<ScalingSample> samples{sample(0, 1, 1, 0), sample(1, 2, 1, 0.1), sample(2, 4, 1, 0.2),
                                           sample(3, 8, 1, 0.3)};
  // Throughputs are 1, 1.67, 2.22 and 2.35: further devices bring 0.67, 0.28 and 0.03 of the first.
  const SeriesScaling series = analyse_scaling(sweep, samples).front();
  ASSERT_TRUE(series.knee);
  EXPECT_EQ(*series.knee, 1U);
}

TEST_F(ScalingTest, WithoutABaselineEachSeriesIsMeasuredAgainstItsFewestDevices) {
  const Sweep sweep = load("vary: {training.micro_batch: [1, 2], cluster.nodes: [2, 1]}\n");
  const std::vector<ScalingSample> samples{sample(0, 16, 16, 0.5), sample(1, 8, 8, 0), sample(2, 16, 16, 1),
                                           sample(3, 8, 8, 1)};
  const std::vector<SeriesScaling> series = analyse_scaling(sweep, samples);
  ASSERT_EQ(series.size(), 2U);
  EXPECT_EQ(series[0].points.front().position, 1U);
  EXPECT_EQ(series[0].points.front().loss, 0);
  EXPECT_EQ(series[1].points.front().position, 3U);
  EXPECT_EQ(series[1].points.front().loss, 0);
}

TEST_F(ScalingTest, ABaselineMayBeOfAnotherSeries) {
  const Sweep sweep = load(
      "vary: {training.micro_batch: [1, 2], cluster.nodes: [1, 2]}\nbaseline: {training.micro_batch: 1, cluster.nodes: "
      "2}\n");
  const std::vector<ScalingSample> samples{sample(0, 8, 8, 1), sample(1, 16, 16, 0.5), sample(2, 8, 8, 0),
                                           sample(3, 16, 16, 2)};
  for (const SeriesScaling& series : analyse_scaling(sweep, samples))
    for (const PointScaling& point : series.points) EXPECT_EQ(point.baseline, 1U);
}

TEST_F(ScalingTest, PointsWithoutABaselineAreLeftOut) {
  const Sweep sweep = load("vary: {cluster.nodes: [1, 2]}\nbaseline: {cluster.nodes: 1}\n");
  const std::vector<ScalingSample> samples{sample(1, 16, 16, 0.5)};
  EXPECT_TRUE(analyse_scaling(sweep, samples).empty());
}

TEST_F(ScalingTest, SmallerKernelsAreACauseOfTheirOwn) {
  const Sweep sweep = load("vary: {cluster.nodes: [1, 2]}\n");
  std::vector<ScalingSample> samples{sample(0, 8, 8, 0), sample(1, 16, 16, 0)};
  samples[1].breakdown_s[matmul] *= 1.25;
  samples[1].step_time_s *= 1.25;
  samples[1].samples_per_s /= 1.25;
  samples[1].work_per_s /= 1.25;
  const PointScaling point = analyse_scaling(sweep, samples).front().points.back();
  EXPECT_NEAR(point.loss, 0.2, 1e-12);
  EXPECT_NEAR(point.by_cause[0], 0.2, 1e-12);
}

}  // namespace
}  // namespace trainyard::scenarios
