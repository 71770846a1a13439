#include "sim/internal/failure_clock.hpp"

#include "sim/ensure.hpp"
#include "sim/portable_math.hpp"

namespace trainyard::sim {

FailureClock::FailureClock(RandomStream random, std::int64_t parts, LongDuration mtbf, double shape, LongTime end)
    : random_(random),
      parts_(parts),
      mtbf_s_(to_seconds(mtbf)),
      shape_(shape),
      scale_s_(mtbf_s_ / portable_gamma(1 + 1 / shape)),
      survivors_(portable_exp(-portable_power(to_seconds(end.since_start) / scale_s_, shape))),
      end_(end) {
  ensure(parts >= 0 && mtbf.count > 0 && end.since_start.count > 0, "parts fail after some time");
  if (shape_ == 1) return;
  for (std::int64_t part = 0; part < parts_; ++part) renew(LongTime{});
}

std::optional<LongTime> FailureClock::later(LongTime now, double seconds) const {
  if (seconds >= to_seconds(end_ - now)) return std::nullopt;
  return now + long_duration(seconds);
}

void FailureClock::renew(LongTime now) {
  const double survival = random_.uniform();
  if (survival < survivors_) return;  // most parts, at little cost
  const double seconds = scale_s_ * portable_power(-portable_log(survival), 1 / shape_);
  if (const auto when = later(now, seconds)) next_of_parts_.push(*when);
}

std::optional<LongTime> FailureClock::next(LongTime now) {
  if (parts_ == 0) return std::nullopt;
  if (shape_ == 1) return later(now, random_.exponential(mtbf_s_ / static_cast<double>(parts_)));
  if (next_of_parts_.empty()) return std::nullopt;
  const LongTime when = next_of_parts_.top();
  next_of_parts_.pop();
  renew(when);
  return when;
}

}  // namespace trainyard::sim
