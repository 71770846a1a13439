// The memory of a planned step: what must fit, the least recomputation that does, and what to change where nothing
// does.
#pragma once

#include <vector>

#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {

// On the worst rank; every rank has to fit, wherever it is: `capacity` is that of the smallest device.
MemorySummary memory_of(const strategies::PlannedStep& step, sim::Bytes capacity);
// Whether what backward passes need would fit if nothing else were there.
bool activations_fit(const strategies::PlannedStep& step, sim::Bytes capacity);
sim::Bytes smallest_memory(const Scenario& scenario);

// The largest parts of the peak by what allocated them, largest first.
std::vector<MemoryPart> largest_parts(const strategies::PlannedStep& step, const MemorySummary& memory);

// The training with `recompute: auto` decided: none, selective, norms and feed-forward blocks, or full, the first that
// fits, else the last.
workloads::Training with_recompute(const Scenario& scenario, const topology::Cluster& cluster);

// Changes of one key, or of one and recomputation, which make a step fit that does not, as it was planned with
// `training`: those that cost least to try come first. Where none does, the one that comes closest. Nothing on more
// than 32,768 devices.
std::vector<MemoryChange> what_would_fit(const Scenario& scenario, const workloads::Training& training);

}  // namespace trainyard::scenarios
