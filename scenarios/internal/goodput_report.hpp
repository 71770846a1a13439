// What failures do to a run, as JSON and for people.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "scenarios/reliability.hpp"

namespace trainyard::scenarios {

nlohmann::ordered_json goodput_json(const GoodputSummary& goodput);
std::string goodput_text(const GoodputSummary& goodput);  // empty without a campaign

}  // namespace trainyard::scenarios
