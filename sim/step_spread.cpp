#include "sim/step_spread.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "sim/portable_math.hpp"

namespace trainyard::sim {
namespace {

constexpr int points = 2000;  // equally likely, that stand for the distribution

// A step time and how likely it is.
using Weighted = std::pair<double, double>;

double quantile_of(const std::vector<Weighted>& sorted, double share) {
  double passed = 0;
  for (const auto& [time, weight] : sorted) {
    passed += weight;
    if (passed >= share) return time;
  }
  return sorted.back().first;
}

}  // namespace

StepTimes step_times(const StepSpread& spread) {
  std::vector<Weighted> times;
  StepTimes result;
  for (int i = 0; i < points; ++i) {
    const double slowest = portable_power((i + 0.5) / points, 1.0 / static_cast<double>(spread.ranks));
    const double longer = spread.spread == 0 ? 0 : spread.spread * normal_quantile(slowest);
    const double step = std::max(0.0, spread.step_s + spread.kernels_s * longer);
    result.mean_s += step / points;
    times.emplace_back(step, (1 - spread.slow_share) / points);
    times.emplace_back(step * spread.slowdown, spread.slow_share / points);
  }
  std::ranges::sort(times);
  result.p50_s = quantile_of(times, 0.5);
  result.p99_s = quantile_of(times, 0.99);
  return result;
}

}  // namespace trainyard::sim
