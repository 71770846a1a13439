// Which parameters ZeRO stage 3 gathers, waits for and lets go of around each submodule. Source: deepspeedai/DeepSpeed
// deepspeed/runtime/zero/partitioned_param_coordinator.py, once it has recorded a trace of the first iteration.
#pragma once

#include <cstdint>
#include <vector>

namespace trainyard::strategies {

// A submodule that is about to run. Parameters by number, in the order of their registration.
struct ParameterVisit {
  std::vector<std::uint32_t> parameters;
  bool forward = true;  // also where a forward pass runs again
};

// Sizes in elements.
struct FetchRules {
  std::int64_t prefetch_bucket_size = 0;
  std::int64_t max_live_parameters = 0;
  std::int64_t max_reuse_distance = 0;
  std::int64_t persistence_threshold = 0;  // parameters up to this size are on every rank at all times
};

// One all-gather of one or more parameters.
struct FetchedGroup {
  std::vector<std::uint32_t> parameters;
  bool forward = true;
};

struct FetchStep {
  std::vector<std::uint32_t> gathered;      // groups that are missing, gathered at once
  std::vector<std::uint32_t> host_awaited;  // groups whose gather the host waits for before it goes on
  std::vector<std::uint32_t> awaited;       // groups that nobody has waited for yet; the device waits
  std::vector<std::uint32_t> prefetched;    // groups for submodules to come
  std::vector<std::uint32_t> released;      // parameters, when the submodule has run
};

struct FetchPlan {
  std::vector<FetchedGroup> groups;  // in the order in which they are gathered
  std::vector<FetchStep> steps;      // of each visit
};

// `elements`: of each parameter. The trace is one forward and backward pass; nothing lasts from one to the next.
FetchPlan plan_fetches(const std::vector<ParameterVisit>& trace, const std::vector<std::int64_t>& elements,
                       const FetchRules& rules);

}  // namespace trainyard::strategies
