// One plan for devices that are not alike: several types of accelerators, and slow ones among them.
#pragma once

#include <span>

#include "strategies/strategy.hpp"

namespace trainyard::strategies {

// Plans the job on every type of device and joins the plans: what is computed and communicated is the same on all, how
// long a kernel takes is not. `accelerators` has one for each of the cluster's node types; the job's own is the first.
// A strategy that schedules differently on different types cannot be joined: std::invalid_argument says so.
PlannedStep plan_on_devices(const Strategy& strategy, const Job& job,
                            std::span<const workloads::Accelerator> accelerators);

}  // namespace trainyard::strategies
