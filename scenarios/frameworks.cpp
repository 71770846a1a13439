#include "scenarios/frameworks.hpp"

namespace trainyard::scenarios {

std::vector<Framework> built_in_frameworks() {
  std::vector<Framework> frameworks;
  for (const strategies::StrategyEntry& entry : strategies::catalog()) frameworks.push_back({.entry = entry});
  return frameworks;
}

}  // namespace trainyard::scenarios
