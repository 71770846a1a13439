// What people call the parts of a step.
#pragma once

#include <array>
#include <string_view>

#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {

constexpr std::array<std::string_view, breakdown_names.size()> breakdown_words{
    "matrix products",     "attention",           "memory-bound kernels", "optimizer",
    "waiting for data",    "waiting for tensor",  "waiting for pipeline", "waiting for context",
    "waiting for experts", "waiting for offload", "pipeline bubble",      "waiting for host",
    "stragglers"};

}  // namespace trainyard::scenarios
