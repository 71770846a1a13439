#include "workloads/routing.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <vector>

#include "tests/support/models.hpp"

namespace trainyard::workloads {
namespace {

using tests::capacity;
using tests::imbalance;

using Loads = std::vector<std::int64_t>;

std::int64_t sum_of(const Loads& loads) { return std::accumulate(loads.begin(), loads.end(), std::int64_t{0}); }

Loads drawn(double concentration, std::int64_t seed, std::int64_t experts = 64, std::int64_t tokens = 65536) {
  return expert_loads(tests::dirichlet(concentration, seed), experts, 1, tokens);
}

// On the rank that has most.
Loads busiest(const ExpertRouting& routing, std::int64_t experts, std::int64_t ranks) {
  return busiest_rank_loads(routing, experts, 2, 1000, ranks);
}

TEST(BusiestRankLoads, AreTheEvenShareWhereLoadsAreEven) {
  EXPECT_EQ(busiest({}, 8, 1), Loads(8, 125));
  EXPECT_EQ(busiest({}, 8, 4), Loads(2, 500));  // rows of four ranks
  EXPECT_EQ(busiest({}, 8, 8), Loads(1, 1000));
}

TEST(BusiestRankLoads, HoldTheMostLoadedExpert) {
  const Loads loads = busiest(imbalance(2), 8, 4);
  EXPECT_EQ(loads.size(), 2U);
  EXPECT_EQ(*std::ranges::max_element(loads), 1000);  // twice the mean of 500
  // The more experts a rank has, the less uneven are ranks.
  for (const std::int64_t seed : {1, 2, 3}) {
    const ExpertRouting routing = tests::dirichlet(1, seed);
    const auto over_mean = [&](std::int64_t ranks) {
      return static_cast<double>(sum_of(busiest_rank_loads(routing, 64, 1, 65536, ranks))) / 65536;
    };
    EXPECT_LT(over_mean(4), over_mean(16));
    EXPECT_LT(over_mean(16), over_mean(64));
  }
}

TEST(BusiestRankLoads, ACapacityHoldsForTheTokensOfEachRank) {
  EXPECT_EQ(busiest(capacity(1.0), 8, 4), Loads(2, 4 * 125));
  EXPECT_EQ(busiest(capacity(1.2), 8, 8), Loads(1, 8 * 150));
}

TEST(BusiestRankLoads, FollowFromTheSeed) {
  EXPECT_EQ(busiest(tests::dirichlet(1, 7), 8, 4), busiest(tests::dirichlet(1, 7), 8, 4));
  EXPECT_NE(busiest(tests::dirichlet(1, 7), 8, 4), busiest(tests::dirichlet(1, 8), 8, 4));
}

// Of the most loaded expert over the mean, on average over many draws.
double imbalance_of(double concentration) {
  double sum = 0;
  for (std::int64_t seed = 1; seed <= 50; ++seed) sum += static_cast<double>(drawn(concentration, seed).front()) / 1024;
  return sum / 50;
}

TEST(ExpertLoads, AreTheMeanWhereNothingElseIsSaid) {
  EXPECT_EQ(expert_loads({}, 8, 1, 4096), Loads(8, 512));
  EXPECT_EQ(expert_loads({}, 1, 1, 4096), Loads{4096});
  EXPECT_EQ(expert_loads({}, 4, 1, 10), (Loads{3, 3, 2, 2}));
  EXPECT_EQ(expert_loads({}, 4, 1, 2), (Loads{1, 1, 0, 0}));
}

TEST(ExpertLoads, AddUpToTheTokensWithoutACapacity) {
  for (const std::int64_t experts : {1, 2, 7, 8, 256})
    for (const std::int64_t tokens : {0, 1, 5, 1000, 65536, 1'000'003}) {
      for (const double over_mean : {1.0, 1.1, 1.5, 3.0, 1000.0})
        EXPECT_EQ(sum_of(expert_loads(imbalance(over_mean), experts, 1, tokens)), tokens)
            << experts << ' ' << over_mean;
      for (const double concentration : {0.001, 0.1, 1.0, 10.0, 1e6})
        EXPECT_EQ(sum_of(drawn(concentration, 3, experts, tokens)), tokens) << experts << ' ' << concentration;
    }
}

TEST(ExpertLoads, GiveNoExpertATokenTwice) {
  // 1000 tokens, each to two of four experts.
  EXPECT_EQ(expert_loads(imbalance(4), 4, 2, 2000), (Loads{1000, 334, 333, 333}));
  for (const double concentration : {0.001, 0.01, 0.1, 1.0})
    for (const std::int64_t top_k : {1, 2, 8}) {
      const Loads loads = expert_loads(tests::dirichlet(concentration, 5), 16, top_k, 4096 * top_k);
      EXPECT_EQ(sum_of(loads), 4096 * top_k);
      EXPECT_LE(*std::ranges::max_element(loads), 4096);
      EXPECT_TRUE(std::ranges::is_sorted(loads, std::greater{}));
    }
}

TEST(ExpertLoads, WithACapacityAreItWhateverTheRealLoad) {
  EXPECT_EQ(expert_loads(capacity(1.0), 8, 1, 4096), Loads(8, 512));
  EXPECT_EQ(expert_loads(capacity(1.25), 8, 1, 4096), Loads(8, 640));
  EXPECT_EQ(expert_loads(capacity(0.5), 8, 1, 4096), Loads(8, 256));
  // Rounded up: 1.25 x 100 / 8.
  EXPECT_EQ(expert_loads(capacity(1.25), 8, 1, 100), Loads(8, 16));
}

TEST(ExpertLoads, OfTheMostLoadedExpertAreTheImbalanceTimesTheMean) {
  EXPECT_EQ(expert_loads(imbalance(2), 4, 1, 4000), (Loads{2000, 667, 667, 666}));
  EXPECT_EQ(expert_loads(imbalance(1.5), 8, 1, 8000).front(), 1500);
  EXPECT_EQ(expert_loads(imbalance(1.1), 8, 1, 8000).front(), 1100);
  EXPECT_EQ(expert_loads(imbalance(1.3), 256, 1, 65536).front(), 333);  // 332.8
}

TEST(ExpertLoads, OfTheOthersDifferByOneAtMost) {
  for (const double over_mean : {1.0, 1.1, 1.5, 3.0}) {
    const Loads loads = expert_loads(imbalance(over_mean), 64, 1, 100'000);
    const auto [least, most] = std::minmax_element(loads.begin() + 1, loads.end());
    EXPECT_LE(*most - *least, 1) << over_mean;
    EXPECT_GE(loads.front(), *most) << over_mean;
  }
}

TEST(ExpertLoads, BeyondEveryTokenOnOneExpertStayThere) {
  EXPECT_EQ(expert_loads(imbalance(4), 4, 1, 1000), (Loads{1000, 0, 0, 0}));
  EXPECT_EQ(expert_loads(imbalance(100), 4, 1, 1000), (Loads{1000, 0, 0, 0}));
}

TEST(ExpertLoads, DrawnTwiceFromOneSeedAreTheSame) {
  for (const double concentration : {0.1, 1.0, 10.0}) {
    EXPECT_EQ(drawn(concentration, 7), drawn(concentration, 7));
    EXPECT_NE(drawn(concentration, 7), drawn(concentration, 8));
  }
}

TEST(ExpertLoads, DrawnComeWithTheMostLoadedFirst) {
  for (std::int64_t seed = 1; seed <= 20; ++seed) {
    const Loads loads = drawn(0.5, seed);
    EXPECT_TRUE(std::is_sorted(loads.rbegin(), loads.rend())) << seed;
  }
}

TEST(ExpertLoads, AreTheMoreUnevenTheSmallerTheConcentration) {
  EXPECT_GT(imbalance_of(0.1), imbalance_of(1) * 2);
  EXPECT_GT(imbalance_of(1), imbalance_of(10) * 1.5);
  EXPECT_GT(imbalance_of(10), imbalance_of(1000) * 1.3);
  EXPECT_NEAR(imbalance_of(1e8), 1, 0.01);
  // The largest of 64 shares of an even stick broken at random is the 64th harmonic number, 4.74, times the mean.
  EXPECT_NEAR(imbalance_of(1), 4.74, 0.5);
}

TEST(ExpertLoads, OfTheSmallestConcentrationsLeaveNearlyAllToOneExpert) {
  for (std::int64_t seed = 1; seed <= 200; ++seed) {
    const Loads loads = drawn(0.001, seed, 4, 1000);
    EXPECT_EQ(sum_of(loads), 1000) << seed;
    EXPECT_GE(loads.back(), 0) << seed;
    EXPECT_LE(loads.front(), 1000) << seed;
  }
}

}  // namespace
}  // namespace trainyard::workloads
