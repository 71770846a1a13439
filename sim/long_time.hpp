// Time at the scale of a whole training run: hours to centuries, in whole microseconds.
//
// A type of its own and no std::chrono duration, because those turn into the picoseconds of a step by themselves, and
// pass their range after 106 days. Here int64 reaches 292,000 years.
#pragma once

#include <cmath>
#include <compare>
#include <cstdint>
#include <limits>

#include "sim/ensure.hpp"
#include "sim/units.hpp"

namespace trainyard::sim {

using LongDuration = Quantity<struct MicrosecondUnit>;

// Since a campaign began.
struct LongTime {
  LongDuration since_start;
  auto operator<=>(const LongTime&) const = default;
  friend constexpr LongTime operator+(LongTime when, LongDuration later) { return {when.since_start + later}; }
  friend constexpr LongDuration operator-(LongTime later, LongTime when) {
    return later.since_start - when.since_start;
  }
};

constexpr LongDuration seconds(std::int64_t count) { return LongDuration{1'000'000} * count; }
constexpr LongDuration minutes(std::int64_t count) { return seconds(60) * count; }
constexpr LongDuration hours(std::int64_t count) { return minutes(60) * count; }
constexpr LongDuration days(std::int64_t count) { return hours(24) * count; }

constexpr double to_seconds(LongDuration duration) { return static_cast<double>(duration.count) * 1e-6; }

// Rounded to the nearest microsecond.
inline LongDuration long_duration(double seconds) {
  const double ticks = seconds * 1e6;
  ensure(ticks >= 0, "a duration is not negative");
  if (ticks >= 9.2e18) throw TooLarge("a duration does not fit the clock of campaigns");
  return {std::llround(ticks)};
}

// `amount` times numerator / denominator, rounded down: what is left over belongs to somebody else.
constexpr LongDuration share_of(LongDuration amount, std::int64_t numerator, std::int64_t denominator) {
  __extension__ using Wide = __int128;
  ensure(amount.count >= 0 && numerator >= 0 && denominator > 0, "a share of a duration is not negative");
  const Wide result = static_cast<Wide>(amount.count) * numerator / denominator;
  if (result > std::numeric_limits<std::int64_t>::max()) throw TooLarge("a duration does not fit 64 bits");
  return {static_cast<std::int64_t>(result)};
}

}  // namespace trainyard::sim
