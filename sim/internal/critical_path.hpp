// Follows noted causes back from the end of a step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "sim/critical_path.hpp"
#include "sim/fold.hpp"
#include "sim/internal/causes.hpp"
#include "sim/internal/step_list.hpp"

namespace trainyard::sim {

// A step that was executed.
struct ExecutedStep {
  const Plan& plan;
  const Population& population;
  const std::vector<StepList>& compiled;      // per class of devices
  const std::vector<ProgramSteps>& programs;  // per program
  const Causes& causes;
  std::size_t training = 0;
  bool healthy_devices = false;
};

// Of steps that take `step_time` each, from the end of the compute stream of `rank` on.
CriticalPath find_critical_path(const ExecutedStep& step, std::uint32_t rank, Duration step_time);

}  // namespace trainyard::sim
