// Many campaigns that differ in their luck alone.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "sim/campaign.hpp"

namespace trainyard::sim {

// Of a sample, and what it says of the mean of what it is drawn from.
struct Statistics {
  double mean = 0;
  double standard_error = 0;  // of the mean
  double low = 0;             // 95 % confidence interval of the mean, by Student's distribution
  double high = 0;
  double p5 = 0;  // of the sample, between neighbours on a straight line
  double p50 = 0;
  double p95 = 0;
};
Statistics statistics_of(std::vector<double> sample);

// Where Student's distribution leaves 2.5 % above.
double student_quantile(std::int64_t degrees_of_freedom);

struct CampaignEstimate {
  Statistics goodput;                        // useful time over all
  std::array<double, time_uses> share{};     // of the time, mean by TimeUse; adds up to 1
  std::array<double, stop_kinds> per_day{};  // mean by StopKind
  Statistics interruptions;                  // in a campaign: stops that are not planned
  double straggling = 0;                     // share of training with a slow node
};

// Repetitions follow from the seed; the first ones are the same however many there are.
CampaignEstimate estimate(const CampaignInputs& inputs, std::uint64_t seed, std::int64_t repetitions);

}  // namespace trainyard::sim
