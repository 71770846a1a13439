// The report of `trainyard sweep`: one page with the curves, the scaling and every point of a sweep.
#pragma once

#include <filesystem>

#include "scenarios/sweep_results.hpp"

namespace trainyard::scenarios {

// Reads the points from the store one by one. Holds of each what the page shows, and what many have in common once, so
// that thousands of points make a page of a few megabytes. The same store gives the same bytes: what depends on the
// machine that has simulated a point is not in it. "-" is stdout. Throws OutputError.
void write_report(const SweepResults& results, const std::filesystem::path& file);

}  // namespace trainyard::scenarios
