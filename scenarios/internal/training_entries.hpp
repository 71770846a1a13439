// The `training` section of a scenario.
#pragma once

#include <string_view>

#include "scenarios/internal/reader.hpp"
#include "workloads/training.hpp"

namespace trainyard::scenarios {

// Mistakes are reported; relations to the model and the device come later.
void read_training(Reader& reader, const Value& value, workloads::Training& training);

// A key that a search varies, "training.micro_batch" or "training.recompute"; the value is one that read_training
// takes.
void set_training(workloads::Training& training, std::string_view path, const Value& value);

}  // namespace trainyard::scenarios
