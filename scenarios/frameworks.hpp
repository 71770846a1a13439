// The frameworks that a scenario can name: built-in ones, and those of plug-in libraries.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "strategies/strategy.hpp"

namespace trainyard::scenarios {

struct Framework {
  strategies::StrategyEntry entry;
  std::string plugin = {};  // the library it came from, as it was given; empty: built in

  // A plug-in is input: what its code throws becomes a ScenarioError at the library, here and in all that the strategy
  // is asked later. Only sim::TooLarge passes, which is about the scenario.
  std::unique_ptr<strategies::Strategy> make() const;
};

// Those of strategies::catalog(), in its order.
std::vector<Framework> built_in_frameworks();

// And behind them, by name, those of plug-in libraries (strategies/plugin.hpp), in whatever order these are given.
// Throws ScenarioError with all that is wrong with any of them. Libraries stay loaded until the program ends.
std::vector<Framework> with_plugins(std::span<const std::filesystem::path> plugins);

}  // namespace trainyard::scenarios
