// What makes one run faster or cheaper than another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {

// What of the difference has one cause; negative: it makes the second faster.
struct Cause {
  std::size_t category = 0;      // into breakdown_names
  std::int64_t picoseconds = 0;  // exact
  double seconds = 0;            // the same
  std::string why;               // what is behind it, in a few words: "25.0 % of the step, was 12.5 %"
};

// From the step time of one run to that of another. The causes add up to the difference, exactly in picoseconds, those
// that matter most first. Where the two do not process as much in a step, the second's times are those of as many
// tokens (samples, for models without any) as the first one's step has.
struct Waterfall {
  std::int64_t from_ps = 0;
  std::int64_t to_ps = 0;
  double from_s = 0;
  double to_s = 0;
  double scale = 1;           // of the second's times, to as much work as the first's
  std::vector<Cause> causes;  // one for each category that differs
};

Waterfall waterfall(const Result& from, const Result& to);

// What the work of a step of `from` takes in `result`, in picoseconds; and as a factor on its step time.
std::int64_t time_of_same_work(const Result& from, const Result& result);
double work_scale(const Result& from, const Result& result);

// Of what the same work costs: because devices are busy for longer or shorter, and because an hour of one has another
// price. The two add up to the difference.
struct CostDifference {
  bool per_million_tokens = true;  // else per step of the first
  std::string currency;
  double from = 0;
  double to = 0;
  double device_time = 0;
  double price = 0;
};

// Nothing where a price is not known, or in another currency.
std::optional<CostDifference> cost_difference(const Result& from, const Result& to);

}  // namespace trainyard::scenarios
