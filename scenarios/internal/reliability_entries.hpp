// The `reliability` section of a scenario.
#pragma once

#include "scenarios/internal/document.hpp"
#include "scenarios/internal/reader.hpp"
#include "scenarios/scenario.hpp"

namespace trainyard::scenarios {

Reliability read_reliability(Reader& reader, const Value& value);

// What only the cluster tells: whether so much fails that it takes hours to simulate. What has no effect is a warning.
void check_reliability(Reader& reader, Scenario& scenario);

}  // namespace trainyard::scenarios
