// Electrical power that a device draws, by what it does.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "workloads/accelerator.hpp"

namespace trainyard::workloads {

enum class Activity : std::uint8_t {
  compute,  // matrix products and attention
  memory,   // kernels that memory bounds
  waiting,  // for other devices, in a kernel of the communication library that polls
  idle      // no kernel at all: for the host, or with nothing to do
};
constexpr std::size_t activities = 4;
constexpr std::array<std::string_view, activities> activity_names{"compute", "memory", "waiting", "idle"};

// Seconds of an average device, by activity.
using ActivityTimes = std::array<double, activities>;

// Shares of the power that the part is held to. All of them are estimates: idle parts draw 0.1 to 0.15 of it; above
// that, power goes with the larger of how busy the arithmetic units are and 0.6 times how busy memory is; waiting in
// communication takes 0.35 to 0.5. Training large models then sustains the 0.75 to 0.95 that operators see.
struct PowerShares {
  double idle = 0.125;
  double memory_activity = 0.6;
  double waiting = 0.42;
};

// Watts. `intensity` is how near products come to the rate that the device reaches at best, 0 to 1. 0 where the
// catalogue does not know the power of the part.
double device_power_w(const Accelerator& device, Activity activity, double intensity, const PowerShares& shares = {});

// Joules of a device that spends its time so.
double device_energy_j(const Accelerator& device, const ActivityTimes& seconds, double intensity,
                       const PowerShares& shares = {});

}  // namespace trainyard::workloads
