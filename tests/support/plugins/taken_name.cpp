// A library whose strategy is called as a built-in one.
#include "strategies/plugin.hpp"

namespace {

using namespace trainyard;

// Planned would be an empty step; it is never asked.
class Other final : public strategies::Strategy {
 public:
  std::vector<sim::Key> keys() override { return {}; }
  std::vector<strategies::Problem> check(const strategies::Job& /*job*/) const override { return {}; }
  std::vector<std::string> warnings(const strategies::Job& /*job*/) const override { return {}; }
  strategies::PlannedStep plan(const strategies::Job& /*job*/) const override { return {}; }
};

}  // namespace

TRAINYARD_PLUGIN({"pytorch-ddp", "another one", &strategies::make<Other>},
                 {"gossip", "ranks average with their neighbours", &strategies::make<Other>})
