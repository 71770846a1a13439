#include "workloads/power.hpp"

#include <algorithm>

namespace trainyard::workloads {

double device_power_w(const Accelerator& device, Activity activity, double intensity, const PowerShares& shares) {
  const bool limited = device.power_limit_w > 0 && device.power_limit_w < device.power_w;
  const double full = limited ? device.power_limit_w : device.power_w;
  const auto at = [&](double busy) { return full * (shares.idle + (1 - shares.idle) * busy); };
  switch (activity) {
    case Activity::compute:
      return at(std::max(std::clamp(intensity, 0.0, 1.0), shares.memory_activity));
    case Activity::memory:
      return at(shares.memory_activity);
    case Activity::waiting:
      return full * shares.waiting;
    case Activity::idle:
      break;
  }
  return at(0);
}

double device_energy_j(const Accelerator& device, const ActivityTimes& seconds, double intensity,
                       const PowerShares& shares) {
  double joules = 0;
  for (std::size_t i = 0; i < activities; ++i)
    joules += seconds.at(i) * device_power_w(device, static_cast<Activity>(i), intensity, shares);
  return joules;
}

}  // namespace trainyard::workloads
