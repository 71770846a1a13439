// Time and quantities as integers: wrong mixtures do not compile, sums do not depend on their order, equal times are
// equal. Time is counted in picoseconds (one byte at 900 GB/s takes 1.1 ps); the range of int64 is 106 days.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <compare>
#include <cstdint>
#include <limits>
#include <ratio>
#include <stdexcept>

#include "sim/ensure.hpp"

namespace trainyard::sim {

using Duration = std::chrono::duration<std::int64_t, std::pico>;
using TimePoint = std::chrono::time_point<struct SimulatedClock, Duration>;

// What was asked for passes the range of the simulator: a year on the clock, an exabyte in a message. Input can do
// that, so it is an exception, and whoever read the input says which.
class TooLarge : public std::overflow_error {
 public:
  using std::overflow_error::overflow_error;
};

constexpr std::int64_t checked_add(std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  if (__builtin_add_overflow(a, b, &result)) throw TooLarge("a sum of bytes, FLOP or time does not fit 64 bits");
  return result;
}
constexpr std::int64_t checked_subtract(std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  if (__builtin_sub_overflow(a, b, &result)) throw TooLarge("a difference of bytes, FLOP or time does not fit 64 bits");
  return result;
}
constexpr std::int64_t checked_multiply(std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) throw TooLarge("a product of bytes, FLOP or time does not fit 64 bits");
  return result;
}

template <class Unit>
struct Quantity {
  std::int64_t count = 0;

  auto operator<=>(const Quantity&) const = default;
  friend constexpr Quantity operator+(Quantity a, Quantity b) { return {checked_add(a.count, b.count)}; }
  friend constexpr Quantity operator-(Quantity a, Quantity b) { return {checked_subtract(a.count, b.count)}; }
  friend constexpr Quantity operator*(Quantity a, std::int64_t n) { return {checked_multiply(a.count, n)}; }
  constexpr Quantity operator-() const { return {checked_subtract(0, count)}; }
  constexpr Quantity& operator+=(Quantity other) { return *this = *this + other; }
};

template <class Unit>
struct PerSecond;

using Bytes = Quantity<struct ByteUnit>;
using Flops = Quantity<struct FlopUnit>;
using BytesPerSecond = Quantity<PerSecond<ByteUnit>>;
using FlopsPerSecond = Quantity<PerSecond<FlopUnit>>;

// How long `amount` takes at `rate`, rounded up: nothing ever finishes early.
template <class Unit>
constexpr Duration time_for(Quantity<Unit> amount, Quantity<PerSecond<Unit>> rate) {
  __extension__ using Wide = unsigned __int128;
  ensure(amount.count >= 0 && rate.count > 0, "an amount is not negative and a rate is positive");
  const auto divisor = static_cast<Wide>(rate.count);
  const Wide ticks = (static_cast<Wide>(amount.count) * std::pico::den + divisor - 1) / divisor;
  if (ticks > static_cast<Wide>(Duration::max().count())) throw TooLarge("a duration does not fit the simulated clock");
  return Duration{static_cast<std::int64_t>(ticks)};
}

// `amount` times numerator / denominator, rounded up.
template <class Unit>
constexpr Quantity<Unit> scaled(Quantity<Unit> amount, std::int64_t numerator, std::int64_t denominator) {
  __extension__ using Wide = unsigned __int128;
  ensure(amount.count >= 0 && numerator >= 0 && denominator > 0, "a fraction of an amount is not negative");
  const Wide product = static_cast<Wide>(amount.count) * static_cast<Wide>(numerator);
  const Wide result = (product + static_cast<Wide>(denominator) - 1) / static_cast<Wide>(denominator);
  if (result > static_cast<Wide>(std::numeric_limits<std::int64_t>::max()))
    throw TooLarge("a multiple of an amount does not fit 64 bits");
  return {static_cast<std::int64_t>(result)};
}

// `rate` times a factor in (0, inf), rounded to the nearest whole unit per second, at least 1.
template <class Unit>
Quantity<PerSecond<Unit>> scaled(Quantity<PerSecond<Unit>> rate, double factor) {
  const double result = static_cast<double>(rate.count) * factor;
  ensure(result >= 0, "a rate is not negative");
  if (result >= 9.2e18) throw TooLarge("a rate does not fit 64 bits");
  return {std::max<std::int64_t>(1, std::llround(result))};
}

// The edges only: reports, ratios and model constants are doubles.
constexpr double to_seconds(Duration duration) { return static_cast<double>(duration.count()) * 1e-12; }

// Rounded to the nearest picosecond.
inline Duration from_seconds(double seconds) {
  const double ticks = seconds * 1e12;
  ensure(ticks >= 0, "a duration is not negative");
  if (ticks >= 9.2e18) throw TooLarge("a duration does not fit the simulated clock");
  return Duration{std::llround(ticks)};
}

}  // namespace trainyard::sim
