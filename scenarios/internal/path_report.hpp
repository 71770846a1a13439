// What decides how long a step takes, as JSON and for people.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {

nlohmann::ordered_json path_json(const CriticalPath& path);  // the operations that take most of it
std::string path_text(const Result& result);                 // empty where the path is unknown

}  // namespace trainyard::scenarios
