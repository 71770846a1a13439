// What the host pays per kernel that it launches. Estimates: an eager PyTorch operator costs 5 to 10 us of Python and
// dispatch (backward runs in the C++ autograd engine, at the lower end), a launch from generated code 3 to 5 us, and a
// training loop has 2 to 10 ms of its own per step. None is calibrated on a row of measurements.
#pragma once

#include "sim/units.hpp"

namespace trainyard::strategies {

struct HostProfile {
  sim::Duration forward{};
  sim::Duration backward{};
  sim::Duration step{};  // once per step: data loading, logging, learning rate
};

inline HostProfile eager_host() {
  using std::chrono::microseconds;
  return {.forward = microseconds{6}, .backward = microseconds{5}, .step = microseconds{3000}};
}

inline HostProfile compiled_host() {
  using std::chrono::microseconds;
  return {.forward = microseconds{3}, .backward = microseconds{3}, .step = microseconds{3000}};
}

}  // namespace trainyard::strategies
