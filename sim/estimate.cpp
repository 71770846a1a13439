#include "sim/estimate.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "sim/ensure.hpp"
#include "sim/random.hpp"

namespace trainyard::sim {
namespace {

double quantile_of(std::span<const double> sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

}  // namespace

// As tables have it for few, from then on by the expansion in Abramowitz and Stegun, 26.7.5.
double student_quantile(std::int64_t degrees_of_freedom) {
  ensure(degrees_of_freedom > 0, "a sample has a degree of freedom");
  constexpr std::array<double, 10> table{12.7062, 4.3027, 3.1824, 2.7764, 2.5706,
                                         2.4469,  2.3646, 2.3060, 2.2622, 2.2281};
  if (degrees_of_freedom <= static_cast<std::int64_t>(table.size()))
    return table.at(static_cast<std::size_t>(degrees_of_freedom - 1));
  constexpr double z = 1.959963984540054;
  constexpr double square = z * z;
  const auto n = static_cast<double>(degrees_of_freedom);
  return z + z * (square + 1) / (4 * n) + z * ((5 * square + 16) * square + 3) / (96 * n * n) +
         z * (((3 * square + 19) * square + 17) * square - 15) / (384 * n * n * n);
}

Statistics statistics_of(std::vector<double> sample) {
  ensure(!sample.empty(), "there is something to take the mean of");
  std::ranges::sort(sample);
  const auto count = static_cast<double>(sample.size());
  Statistics result;
  result.mean = std::accumulate(sample.begin(), sample.end(), 0.0) / count;
  double squares = 0;
  for (const double value : sample) squares += (value - result.mean) * (value - result.mean);
  if (sample.size() > 1) result.standard_error = std::sqrt(squares / (count - 1) / count);
  const double half =
      sample.size() > 1 ? student_quantile(static_cast<std::int64_t>(sample.size()) - 1) * result.standard_error : 0;
  result.low = result.mean - half;
  result.high = result.mean + half;
  result.p5 = quantile_of(sample, 0.05);
  result.p50 = quantile_of(sample, 0.5);
  result.p95 = quantile_of(sample, 0.95);
  return result;
}

CampaignEstimate estimate(const CampaignInputs& inputs, std::uint64_t seed, std::int64_t repetitions) {
  CampaignEstimate result;
  std::vector<double> goodput;
  std::vector<double> interruptions;
  const double all_s = to_seconds(inputs.duration) * static_cast<double>(repetitions);
  double trained_s = 0;
  double straggling_s = 0;
  for (std::int64_t i = 0; i < repetitions; ++i) {
    const CampaignOutcome outcome = run_campaign(inputs, repetition_seed(seed, static_cast<std::uint64_t>(i)));
    goodput.push_back(to_seconds(outcome.of(TimeUse::useful)) / to_seconds(inputs.duration));
    double unplanned = 0;
    for (std::size_t kind = 0; kind < stop_kinds; ++kind) {
      const auto stops = static_cast<double>(outcome.stops.at(kind));
      result.per_day.at(kind) += stops / (all_s / to_seconds(days(1)));
      if (!is_planned(static_cast<StopKind>(kind))) unplanned += stops;
    }
    interruptions.push_back(unplanned);
    for (std::size_t use = 0; use < time_uses; ++use) result.share.at(use) += to_seconds(outcome.time.at(use)) / all_s;
    trained_s += to_seconds(outcome.trained);
    straggling_s += to_seconds(outcome.trained_straggling);
  }
  result.goodput = statistics_of(std::move(goodput));
  result.interruptions = statistics_of(std::move(interruptions));
  result.straggling = trained_s > 0 ? straggling_s / trained_s : 0;
  return result;
}

}  // namespace trainyard::sim
