// Values of a scenario as text: JSON for stores and comparisons, YAML for people.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "scenarios/internal/document.hpp"

namespace trainyard::scenarios {

// A scalar becomes what YAML's core schema makes of it: null, true or false, a number, else text. A key that a map has
// twice stands once.
nlohmann::ordered_json json_of(const Value& value);
// Keys sorted: equal for values that mean the same.
std::string canonical_text(const Value& value);
// As one would write it, in block style.
std::string yaml_of(const Value& value);

}  // namespace trainyard::scenarios
