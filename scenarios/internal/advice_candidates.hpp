// Changes of keys that could make a step faster, or fit, and leave alone what is trained.
#pragma once

#include <vector>

#include "scenarios/internal/trials.hpp"
#include "scenarios/scenario.hpp"

namespace trainyard::scenarios {

// One key with another value, and the other keys without which it would mean nothing.
std::vector<Settings> single_changes(const Scenario& scenario, const Result& result);

// Two keys that divide the same devices, or the same memory: one larger, the other smaller.
std::vector<Settings> trade_offs(const Scenario& scenario, const Result& result);

}  // namespace trainyard::scenarios
