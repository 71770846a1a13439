// Whole scenarios in a line or two: a base, refined by settings as given to --set, simulated, and what they put on the
// wire.
#pragma once

#include <gtest/gtest.h>

#include <string>
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

// One node of H100, whose collectives are rings, and Megatron-LM without any parallelism but data.
inline scenarios::Result simulated(const std::vector<std::string>& settings) {
  return simulated(R"(name: Wire bytes
cluster: {node: {base: dgx-h100, collectives: {algorithm: ring}}, nodes: 1}
model: llama3-8b
training: {global_batch: 16, sequence: 1024, precision: bf16}
strategy: {framework: megatron-lm}
)",
                   settings)
      .result;
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

// All operations of a kind for a purpose, per rank and step.
inline scenarios::CommunicationSummary row(const scenarios::Result& result, sim::Purpose purpose,
                                           sim::CollectiveKind kind) {
  for (const scenarios::CommunicationSummary& summary : result.communication)
    if (summary.purpose == purpose && summary.operation == kind) return summary;
  return {};
}
inline double wire(const scenarios::Result& result, sim::Purpose purpose, sim::CollectiveKind kind) {
  return row(result, purpose, kind).wire_bytes;
}

// Parts of a vector are rounded up to bytes, and some scalars are reduced beside it.
inline void expect_bytes(double actual, double expected) { EXPECT_NEAR(actual, expected, 1e-6 * expected + 100); }

}  // namespace trainyard::tests
