// `trainyard show topology`: what a scenario's cluster is made of, as a list of links or as a picture.
#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>

#include "scenarios/scenario.hpp"

namespace trainyard::scenarios {

// An outside program could not be run, or failed.
class ProgramError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Links that are alike in one line, with their number, capacity and names; those with faults one by one.
std::string list_links(const Scenario& scenario);

// As input for Graphviz: `neato -n2`, since places are given.
std::string to_graphviz(const Scenario& scenario);

// Draws it as SVG with Graphviz. Throws ProgramError where that is not installed or fails, OutputError.
void draw_topology(const Scenario& scenario, const std::filesystem::path& file);

}  // namespace trainyard::scenarios
