// Frameworks and their options, for people to read.
#pragma once

#include <string>
#include <string_view>

#include "scenarios/catalog.hpp"

namespace trainyard::scenarios {

// Names and summaries; of those from plug-ins also the library.
std::string show_frameworks(const Catalog& catalog);
// Every option with its default, what can be written for it, and what it means, with its unit. Throws ScenarioError.
std::string show_framework(const Catalog& catalog, std::string_view name);

}  // namespace trainyard::scenarios
