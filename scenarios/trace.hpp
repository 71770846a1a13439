// The timeline of the recorded ranks, as Chrome trace events: what chrome://tracing and Perfetto open.
#pragma once

#include <filesystem>

#include "sim/executor.hpp"

namespace trainyard::scenarios {

// One process per recorded rank, one thread per stream of it, a slice per kernel and communication, arrows between the
// recorded members of a communication, counters of memory and link use. Time 0 is the start of the measured step, or
// what a recorded rank did of it before that. Times are exact: microseconds with six decimals.
//
// `outcome` is what `plan` gave, without a stall. Throws OutputError; ".gz" at the end of the name compresses.
void write_chrome_trace(const sim::Plan& plan, const sim::Outcome& outcome, const std::filesystem::path& path);

}  // namespace trainyard::scenarios
