// What Trainyard knows, for people to read: catalogue entries with the source of every figure.
#pragma once

#include <string>
#include <string_view>

#include "scenarios/catalog.hpp"

namespace trainyard::scenarios {

// Names and descriptions.
std::string show_entries(const Catalog& catalog, EntryKind kind);
// Every key of one entry with its source; of a model also parameters and FLOP per token. Throws ScenarioError.
std::string show_entry(const Catalog& catalog, EntryKind kind, std::string_view name);

}  // namespace trainyard::scenarios
