#include "sim/goodput.hpp"

#include <cmath>

#include "sim/portable_math.hpp"

namespace trainyard::sim {

LongDuration young_interval(LongDuration exposed, LongDuration mtbf) {
  return long_duration(std::sqrt(2 * to_seconds(exposed) * to_seconds(mtbf)));
}

LongDuration daly_interval(LongDuration exposed, LongDuration mtbf) {
  const double cost = to_seconds(exposed);
  const double mean = to_seconds(mtbf);
  if (cost >= 2 * mean) return mtbf;
  const double half_ratio = cost / (2 * mean);
  return long_duration(std::sqrt(2 * cost * mean) * (1 + std::sqrt(half_ratio) / 3 + half_ratio / 9) - cost);
}

double expected_segment_s(const CheckpointTimes& checkpoint, LongDuration restart, LongDuration mtbf) {
  const double mean = to_seconds(mtbf);
  const double segment = to_seconds(checkpoint.trained_between() + checkpoint.exposed);
  const double again = to_seconds(restart + checkpoint.background);
  return mean * portable_exp(again / mean) * (portable_exp(segment / mean) - 1);
}

double expected_goodput(const CheckpointTimes& checkpoint, LongDuration restart, LongDuration mtbf) {
  return to_seconds(checkpoint.trained_between()) / expected_segment_s(checkpoint, restart, mtbf);
}

}  // namespace trainyard::sim
