// Step times that vary although every step does the same: kernels take a little longer here or there, and everybody
// waits for the slowest.
#pragma once

#include <cstdint>

namespace trainyard::sim {

struct StepSpread {
  double step_s = 0;       // where nothing varies
  double kernels_s = 0;    // of it, what varies: time in kernels
  double spread = 0;       // standard deviation of a rank's kernel time in a step, as a share of it
  std::int64_t ranks = 1;  // each on its own; a step takes as long as the slowest
  double slowdown = 1;     // of a step with a slow node
  double slow_share = 0;   // of steps that have one
};

struct StepTimes {
  double mean_s = 0;  // of steps without a slow node
  double p50_s = 0;   // of all
  double p99_s = 0;
};

// With a normal spread: the slowest of n ranks reaches quantile u where one rank reaches u^(1/n).
StepTimes step_times(const StepSpread& spread);

}  // namespace trainyard::sim
