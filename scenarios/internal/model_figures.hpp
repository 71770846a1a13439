// What follows from a model's dimensions, for people to read.
#pragma once

#include <string>

#include "workloads/model.hpp"

namespace trainyard::scenarios {

// Parameters, training FLOP, bytes of model state and of activations, as aligned columns.
std::string model_figures(const workloads::Model& model);

}  // namespace trainyard::scenarios
