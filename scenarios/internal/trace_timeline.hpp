// What a timeline shows of a step: tracks, slices, arrows and counters, for any format.
#pragma once

#include "scenarios/internal/trace_format.hpp"
#include "scenarios/internal/trace_store.hpp"
#include "sim/executor.hpp"

namespace trainyard::scenarios {

// Rank by rank, stream by stream; reads the store as it goes, so that memory does not grow with it.
void write_timeline(const sim::Plan& plan, const sim::Outcome& outcome, const TraceStore& store, TraceFormat& format);

}  // namespace trainyard::scenarios
