// `trainyard show topology`: what a scenario's cluster is made of, as a list of links or as a picture.
#pragma once

#include <filesystem>
#include <string>

#include "scenarios/scenario.hpp"

namespace trainyard::scenarios {

// Links that are alike in one line, with their number, capacity and names; those with faults one by one.
std::string list_links(const Scenario& scenario);

// As input for Graphviz: `neato -n2`, since places are given.
std::string to_graphviz(const Scenario& scenario);

// Draws it as SVG with Graphviz. Throws OutsideFailure where that is not installed or fails, or where the file cannot
// be written.
void draw_topology(const Scenario& scenario, const std::filesystem::path& file);

}  // namespace trainyard::scenarios
