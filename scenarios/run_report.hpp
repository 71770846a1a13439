// The report of `trainyard run`: one page with everything about a step.
#pragma once

#include <string>
#include <vector>

#include "scenarios/scenario.hpp"
#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {

struct RunReport {
  std::string scenario_text;           // as scenario_text() gives it
  std::vector<std::string> overrides;  // that are already in it
  std::string trace;                   // the file beside the page, as a path from it; empty: there is none
};

// Of a simulation with `record`, `memory_timeline`, `per_operation` and `advise`. It does not grow with the number of
// devices, and only to some degree with that of layers and micro-batches: what is left out, the page says. The same
// scenario gives the same bytes, so how long the simulation took is not in it.
std::string run_report(const Scenario& scenario, const Simulation& simulation, const RunReport& report);

}  // namespace trainyard::scenarios
