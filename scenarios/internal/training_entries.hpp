// The `training` section of a scenario.
#pragma once

#include "scenarios/internal/reader.hpp"
#include "workloads/training.hpp"

namespace trainyard::scenarios {

// Mistakes are reported; relations to the model and the device come later.
void read_training(Reader& reader, const Value& value, workloads::Training& training);

}  // namespace trainyard::scenarios
