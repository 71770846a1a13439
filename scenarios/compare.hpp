// What makes one run faster or cheaper than another.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {

// What of the difference has one cause; negative: it makes the second faster.
struct Cause {
  std::size_t category = 0;  // into breakdown_names
  double seconds = 0;
  std::string why;  // what is behind it, in a few words: "bubble 12.5 % of the step, was 25 %"
};

// From the step time of one run to that of another. The causes add up to the difference, exactly in picoseconds, those
// that matter most first; where the two do not process as many samples in a step, times are those of as many samples
// as the first one's step has.
struct Waterfall {
  double from_s = 0;
  double to_s = 0;
  std::vector<Cause> causes;  // one for each category that differs
};

Waterfall waterfall(const Result& from, const Result& to);

}  // namespace trainyard::scenarios
