// What a campaign has to know of the step that is trained again and again, and of the cluster it runs on.
#pragma once

#include "scenarios/scenario.hpp"
#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {

// `training` is that of the step of the result. With stragglers, this simulates the step once more, with one slow node.
StepFacts facts_of(const Scenario& scenario, const workloads::Training& training, const Result& result);

std::int64_t network_adapters(const topology::Cluster& cluster);  // of all nodes

// Bytes of a checkpoint: parameters and what the optimizer keeps, of what is trained. With Adam in mixed precision 14
// per parameter; frameworks that keep parameters in 32 bits alone (PyTorch) save two less.
sim::Bytes checkpoint_bytes(const workloads::Model& model, const workloads::Training& training);

}  // namespace trainyard::scenarios
