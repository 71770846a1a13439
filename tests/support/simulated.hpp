// Whole scenarios simulated, and what they put on the wire.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/simulate.hpp"

namespace trainyard::tests {

// One node of H100, whose collectives are rings, and Megatron-LM without any parallelism but data, refined by settings
// as given to --set.
inline scenarios::Result simulated(const std::vector<std::string>& settings) {
  static const scenarios::Catalog catalog;
  scenarios::Value root = scenarios::parse_yaml(R"(name: Wire bytes
cluster: {node: {base: dgx-h100, collectives: {algorithm: ring}}, nodes: 1}
model: llama3-8b
training: {global_batch: 16, sequence: 1024, precision: bf16}
strategy: {framework: megatron-lm}
)",
                                                "wire.yaml");
  for (const std::string& setting : settings) scenarios::apply_override(root, setting);
  return scenarios::simulate(scenarios::read_scenario(root, catalog)).result;
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
