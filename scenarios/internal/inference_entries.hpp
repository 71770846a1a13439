// The `inference` section of a scenario.
#pragma once

#include <vector>

#include "scenarios/internal/reader.hpp"
#include "scenarios/scenario.hpp"
#include "sim/key.hpp"

namespace trainyard::scenarios {

// What does not depend on the model and the cluster is checked; defaults that do are left to check_inference().
void read_inference(Reader& reader, const Value& value, workloads::Inference& inference);

// Reports what cannot run, warns of what real software would not do, and decides what was left open.
void check_inference(Reader& reader, Scenario& scenario);

// The 16-bit type of activations and of weights that are not quantised.
workloads::Precision sixteen_bits(const workloads::Inference& inference, const workloads::Accelerator& accelerator);

}  // namespace trainyard::scenarios
