// Prices of the catalogue, and the keys `cost` and `run` of a scenario.
#pragma once

#include <string>

#include "scenarios/cost.hpp"
#include "scenarios/internal/reader.hpp"
#include "scenarios/scenario.hpp"

namespace trainyard::scenarios {

// A name, a refinement, or a map that says everything.
Price read_price(Reader& reader, const Catalog& catalog, const Value& value, const std::string& path);

// Into `scenario.cost`, after the cluster was read: where `cost` is null, the usual prices of its nodes.
void read_cost(Reader& reader, const Catalog& catalog, const Value* cost, Scenario& scenario);

RunTarget read_run(Reader& reader, const Value& run);
// A run is given in a unit that the model has.
void check_run(Reader& reader, const Scenario& scenario);

}  // namespace trainyard::scenarios
