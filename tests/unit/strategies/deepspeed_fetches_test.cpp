// DeepSpeed: which parameters stage 3 fetches when, and which gradients leave together.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "strategies/internal/deepspeed_buckets.hpp"
#include "strategies/internal/deepspeed_coordinator.hpp"

namespace trainyard {
namespace {

using strategies::FetchPlan;
using strategies::FetchRules;
using strategies::ParameterVisit;
using Numbers = std::vector<std::uint32_t>;

// Three matrices, used forward and then backward.
const std::vector<ParameterVisit> there_and_back{{.parameters = {0}},
                                                 {.parameters = {1}},
                                                 {.parameters = {2}},
                                                 {.parameters = {2}, .forward = false},
                                                 {.parameters = {1}, .forward = false},
                                                 {.parameters = {0}, .forward = false}};

TEST(FetchPlanner, FetchesOneAheadAndLetsGoOfWhatWasUsed) {
  const FetchPlan plan = strategies::plan_fetches(there_and_back, {100, 100, 100},
                                                  {.prefetch_bucket_size = 50, .max_live_parameters = 1000});
  EXPECT_EQ(plan.steps[0].gathered, Numbers{0});
  EXPECT_EQ(plan.steps[0].prefetched, Numbers{1});
  EXPECT_EQ(plan.steps[0].released, Numbers{0});
  EXPECT_TRUE(plan.steps[1].gathered.empty());
  EXPECT_EQ(plan.steps[1].awaited, Numbers{1});
  // The third is gathered while the second runs, then for backward again, and there is nothing left behind the last.
  EXPECT_EQ(plan.groups.size(), 6U);
  EXPECT_TRUE(plan.steps[5].prefetched.empty());
  EXPECT_FALSE(plan.groups.back().forward);
}

TEST(FetchPlanner, KeepsWhatIsNeededWithinTheReuseDistance) {
  const FetchPlan plan =
      strategies::plan_fetches(there_and_back, {100, 100, 100},
                               {.prefetch_bucket_size = 0, .max_live_parameters = 1000, .max_reuse_distance = 100});
  EXPECT_TRUE(plan.steps[2].released.empty());
  EXPECT_TRUE(plan.steps[3].gathered.empty());
  EXPECT_EQ(plan.steps[1].released, Numbers{1});
}

TEST(FetchPlanner, FetchesNothingAheadBeyondTheLiveParameters) {
  const FetchPlan plan = strategies::plan_fetches(there_and_back, {100, 100, 100},
                                                  {.prefetch_bucket_size = 50, .max_live_parameters = 100});
  for (const strategies::FetchStep& step : plan.steps) EXPECT_TRUE(step.prefetched.empty());
}

TEST(FetchPlanner, CoalescesSmallParametersUntilTheBucketIsFull) {
  const FetchPlan plan = strategies::plan_fetches(there_and_back, {100, 30, 30},
                                                  {.prefetch_bucket_size = 50, .max_live_parameters = 1000});
  EXPECT_EQ(plan.groups[1].parameters, (Numbers{1, 2}));
}

TEST(FetchPlanner, NeverGathersPersistentParameters) {
  const FetchPlan plan =
      strategies::plan_fetches(there_and_back, {100, 10, 100},
                               {.prefetch_bucket_size = 50, .max_live_parameters = 1000, .persistence_threshold = 10});
  for (const strategies::FetchedGroup& group : plan.groups)
    EXPECT_EQ(std::count(group.parameters.begin(), group.parameters.end(), 1U), 0);
}

TEST(FetchPlanner, TheHostWaitsForTheOldestOfThreeGathers) {
  const FetchPlan plan = strategies::plan_fetches(there_and_back, {100, 100, 100},
                                                  {.prefetch_bucket_size = 0, .max_live_parameters = 1000});
  EXPECT_TRUE(plan.steps[2].host_awaited.empty());
  EXPECT_EQ(plan.steps[3].host_awaited, Numbers{0});
  EXPECT_EQ(plan.steps[4].host_awaited, Numbers{1});
}

TEST(GradientBuckets, LeaveBeforeTheGradientThatWouldOverflowThem) {
  strategies::GradientBuckets buckets(100);
  const auto tensor = [](std::int64_t elements) { return strategies::ParameterTensor{.elements = elements}; };
  EXPECT_FALSE(buckets.add(tensor(60)).has_value());
  EXPECT_FALSE(buckets.add(tensor(40)).has_value());
  const auto full = buckets.add(tensor(500));
  ASSERT_TRUE(full.has_value());
  EXPECT_EQ(full->elements(), 100);
  const auto large = buckets.add(tensor(1));
  ASSERT_TRUE(large.has_value());
  EXPECT_EQ(large->elements(), 500);
  EXPECT_EQ(large->runs[0].first, 100);
  EXPECT_EQ(buckets.finish()->elements(), 1);
  EXPECT_FALSE(buckets.finish().has_value());
}

}  // namespace
}  // namespace trainyard
