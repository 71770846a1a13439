// A strategy that calls what no trainyard has.
#include "strategies/plugin.hpp"

namespace trainyard::sim {
Plan plan_of_another_build();
}

namespace {

using namespace trainyard;

class NeedsMore final : public strategies::Strategy {
 public:
  std::vector<sim::Key> keys() override { return {}; }
  std::vector<strategies::Problem> check(const strategies::Job& /*job*/) const override { return {}; }
  std::vector<std::string> warnings(const strategies::Job& /*job*/) const override { return {}; }
  strategies::PlannedStep plan(const strategies::Job& /*job*/) const override {
    strategies::PlannedStep step;
    step.plan = sim::plan_of_another_build();
    return step;
  }
};

}  // namespace

TRAINYARD_PLUGIN({"needs-more", "calls a function that is not there", &strategies::make<NeedsMore>})
