// Llama 3 8B on one node of H100, whose collectives are rings, with DeepSpeed.
#pragma once

#include <string>
#include <vector>

#include "tests/support/models.hpp"
#include "tests/support/simulated.hpp"
#include "workloads/architecture.hpp"

namespace trainyard::tests::deepspeed {

// With parameters that go as soon as they were used.
constexpr const char* one_node = R"(name: DeepSpeed
cluster: {node: {base: dgx-h100, collectives: {algorithm: ring}}, nodes: 1}
model: llama3-8b
training: {global_batch: 16, micro_batch: 2, sequence: 1024, precision: bf16}
strategy:
  {framework: deepspeed, stage3_max_reuse_distance: 0, stage3_param_persistence_threshold: 0}
)";

inline scenarios::Simulation simulated(const std::vector<std::string>& settings) {
  return scenarios::simulate(scenario_of(one_node, settings));
}

inline double wire(const scenarios::Result& result, sim::CollectiveKind kind) {
  return tests::wire(result, sim::Purpose::data, kind);
}

constexpr double ring = 7.0 / 8;  // of a vector, on the wire of each rank
inline const auto all = static_cast<double>(workloads::parameters(llama3_8b()));

}  // namespace trainyard::tests::deepspeed
