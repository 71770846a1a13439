// Which keys differ between two scenarios, as they are written.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "scenarios/internal/document.hpp"

namespace trainyard::scenarios {

// Nothing stands for a key that is not given.
struct KeyChange {
  std::string path;
  std::optional<Value> from;
  std::optional<Value> to;
};

// In the order in which they lead from one to the other: section by section as the second has them, and in each map
// first the keys that it lacks. Lists are compared as a whole; a name of the catalogue is the base of a map.
std::vector<KeyChange> key_changes(const Value& from, const Value& to);

// Makes the change in a scenario that has gone through all changes before.
void apply(Value& root, const KeyChange& change);

}  // namespace trainyard::scenarios
