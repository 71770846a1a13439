// Whole scenarios in a line or two: a base, refined by settings as given to --set, simulated.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/simulate.hpp"

namespace trainyard::tests {

inline scenarios::Scenario scenario_of(const std::string& base, const std::vector<std::string>& settings) {
  static const scenarios::Catalog catalog;
  scenarios::Value root = scenarios::parse_yaml(base, "test.yaml");
  for (const std::string& setting : settings) scenarios::apply_override(root, setting);
  return scenarios::read_scenario(root, catalog);
}

inline scenarios::Simulation simulated(const std::string& base, const std::vector<std::string>& settings,
                                       bool record = false) {
  scenarios::SimulateOptions options;
  options.record = record;
  options.ideal = false;
  return scenarios::simulate(scenario_of(base, settings), options);
}

// What a scenario that cannot be simulated says; empty for one that can.
inline std::string refusal(const std::string& base, const std::vector<std::string>& settings) {
  try {
    scenario_of(base, settings);
  } catch (const scenarios::ScenarioError& error) {
    return error.what();
  }
  return "";
}

inline scenarios::CommunicationSummary communication(const scenarios::Result& result, sim::Purpose purpose,
                                                     sim::CollectiveKind kind) {
  for (const scenarios::CommunicationSummary& summary : result.communication)
    if (summary.purpose == purpose && summary.operation == kind) return summary;
  return {};
}

}  // namespace trainyard::tests
