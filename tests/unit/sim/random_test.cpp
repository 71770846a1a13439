#include "sim/random.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "sim/internal/failure_clock.hpp"
#include "sim/portable_math.hpp"

namespace trainyard::sim {
namespace {

TEST(PortableMath, AgreesWithTheStandardLibrary) {
  for (double x = 1e-12; x < 1e12; x *= 1.7)
    EXPECT_NEAR(portable_log(x), std::log(x), 4e-16 * std::abs(std::log(x)) + 1e-17);
  for (double x = -650; x < 650; x += 1.37) EXPECT_NEAR(portable_exp(x) / std::exp(x), 1, 1e-15) << x;
  for (double x = 1; x <= 30; x += 0.25) EXPECT_NEAR(portable_gamma(x) / std::tgamma(x), 1, 1e-12) << x;
  EXPECT_NEAR(portable_power(2, 0.5), std::sqrt(2), 1e-15);
  EXPECT_EQ(portable_exp(-1000), 0);
  EXPECT_TRUE(std::isinf(portable_exp(1000)));
}

TEST(PortableMath, TheQuantileUndoesTheNormalDistribution) {
  for (const double x : {-8.0, -5.5, -3.0, -1.2, -0.3, 0.0, 0.4, 1.1, 2.5, 5.2}) {
    const double probability = 0.5 * std::erfc(-x / std::sqrt(2.0));
    EXPECT_NEAR(normal_quantile(probability), x, 1e-9) << x;
  }
}

// The first draws, kept: another machine or compiler gives the same, or this fails there.
TEST(RandomStream, IsTheSameEverywhere) {
  RandomStream stream(1, "device failures");
  const std::array<std::uint64_t, 3> words{stream.next(), stream.next(), stream.next()};
  RandomStream again(1, "device failures");
  for (const std::uint64_t word : words) EXPECT_EQ(again.next(), word);
  EXPECT_EQ(words[0], 14046636659646404283U);
  RandomStream draws(7, "draws");
  EXPECT_EQ(draws.exponential(1), 0.18078000230536345);
  EXPECT_EQ(draws.heavy_tailed(1), 0.16028398960184065);
}

TEST(RandomStream, NamesSeedsAndRepetitionsGiveStreamsOfTheirOwn) {
  EXPECT_NE(RandomStream(1, "a").next(), RandomStream(1, "b").next());
  EXPECT_NE(RandomStream(1, "a").next(), RandomStream(2, "a").next());
  EXPECT_NE(repetition_seed(1, 0), repetition_seed(1, 1));
  EXPECT_NE(repetition_seed(1, 1), repetition_seed(2, 0));
}

constexpr int many = 200'000;

template <class Draw>
double mean_of(const Draw& draw) {
  double sum = 0;
  for (int i = 0; i < many; ++i) sum += draw();
  return sum / many;
}

TEST(RandomStream, DrawsHaveTheirMeans) {
  RandomStream stream(3, "means");
  EXPECT_NEAR(mean_of([&] { return stream.uniform(); }), 0.5, 0.003);
  EXPECT_NEAR(mean_of([&] { return stream.exponential(5); }), 5, 0.05);
  EXPECT_NEAR(mean_of([&] { return stream.heavy_tailed(5); }), 5, 0.15);
  EXPECT_NEAR(mean_of([&] { return stream.chance(0.3) ? 1.0 : 0.0; }), 0.3, 0.005);
  EXPECT_NEAR(mean_of([&] { return static_cast<double>(stream.below(7)); }), 3, 0.03);
}

TEST(RandomStream, TheHeavyTailIsAsItIsDescribed) {
  RandomStream stream(4, "tail");
  std::vector<double> draws;
  for (int i = 0; i < many; ++i) draws.push_back(stream.heavy_tailed(1));
  std::ranges::sort(draws);
  EXPECT_NEAR(draws[many / 2], 0.52, 0.01);
  EXPECT_NEAR(draws[many * 99 / 100], 7.28, 0.2);
}

// A renewed part fails once in its mean, in the long run and whatever its distribution.
TEST(FailureClock, PartsFailOnceInTheirMean) {
  for (const double shape : {0.6, 1.0, 3.0}) {
    FailureClock clock(RandomStream(6, "clock"), 50, hours(10), shape, {hours(10'000)});
    LongTime now{};
    int failures = 0;
    while (const auto when = clock.next(now)) {
      ASSERT_GE(*when, now);
      now = *when;
      ++failures;
    }
    EXPECT_NEAR(failures, 50'000, 900) << shape;
  }
}

TEST(FailureClock, NewPartsFailMoreOftenWithAShapeBelowOne) {
  const auto early = [](double shape) {
    FailureClock clock(RandomStream(6, "clock"), 100'000, hours(1000), shape, {hours(50)});
    LongTime now{};
    int failures = 0;
    for (auto when = clock.next(now); when; when = clock.next(now)) {
      now = *when;
      ++failures;
    }
    return failures;
  };
  EXPECT_NEAR(early(1), 5000, 250);
  EXPECT_GT(early(0.6), 2 * early(1));
  EXPECT_GT(early(1), 5 * early(2));
}

TEST(FailureClock, WithoutPartsNothingFails) {
  FailureClock clock(RandomStream(6, "clock"), 0, hours(1), 1, {hours(50)});
  EXPECT_FALSE(clock.next({}));
}

}  // namespace
}  // namespace trainyard::sim
