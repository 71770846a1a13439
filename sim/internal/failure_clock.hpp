// When the parts of a FailureProcess fail.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <queue>
#include <vector>

#include "sim/long_time.hpp"
#include "sim/random.hpp"

namespace trainyard::sim {

// Exponential parts have no memory: all of them together fail like one, so often. Others have their own times; what
// fails is as good as new afterwards.
class FailureClock {
 public:
  // Failures at `end` or later are of no interest.
  FailureClock(RandomStream random, std::int64_t parts, LongDuration mtbf, double shape, LongTime end);

  // The next failure after the one before, which was at `now`; nothing before the end.
  std::optional<LongTime> next(LongTime now);

 private:
  std::optional<LongTime> later(LongTime now, double seconds) const;
  void renew(LongTime now);

  RandomStream random_;
  std::int64_t parts_;
  double mtbf_s_;
  double shape_;
  double scale_s_;    // of the Weibull distribution with that mean
  double survivors_;  // share of parts that outlive all of it
  LongTime end_;
  std::priority_queue<LongTime, std::vector<LongTime>, std::greater<>> next_of_parts_;  // unless exponential
};

}  // namespace trainyard::sim
