// A library as another version, or other headers, of Trainyard would have built it: OTHER_VERSION, OTHER_LAYOUT.
#include "strategies/plugin.hpp"

namespace {

using namespace trainyard::strategies;

// Nobody may look at its entries, which are none.
constexpr Plugin plugin{.version = interface_version + OTHER_VERSION,
                        .layout = interface_layout() + OTHER_LAYOUT,
                        .entries = nullptr,
                        .entry_count = 1};

}  // namespace

extern "C" __attribute__((visibility("default"))) const Plugin* trainyard_plugin() { return &plugin; }
