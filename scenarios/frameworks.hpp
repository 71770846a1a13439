// The frameworks that a scenario can name.
#pragma once

#include <memory>
#include <vector>

#include "strategies/strategy.hpp"

namespace trainyard::scenarios {

struct Framework {
  strategies::StrategyEntry entry;

  std::unique_ptr<strategies::Strategy> make() const { return entry.make(); }
};

// Those of strategies::catalog(), in its order.
std::vector<Framework> built_in_frameworks();

}  // namespace trainyard::scenarios
