// What Trainyard knows, for people to read: catalogue entries with the source of every figure, frameworks' options.
#pragma once

#include <string>
#include <string_view>

#include "scenarios/catalog.hpp"

namespace trainyard::scenarios {

// Names and descriptions.
std::string show_entries(const Catalog& catalog, EntryKind kind);
// Every key of one entry with its source; of a model also parameters and FLOP per token. Throws ScenarioError.
std::string show_entry(const Catalog& catalog, EntryKind kind, std::string_view name);

std::string show_frameworks(const Catalog& catalog);
// Every option with its default, choices or unit, and meaning. Throws ScenarioError.
std::string show_framework(const Catalog& catalog, std::string_view name);

}  // namespace trainyard::scenarios
