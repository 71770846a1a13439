#include "workloads/power.hpp"

#include <gtest/gtest.h>

namespace trainyard::workloads {
namespace {

Accelerator part(double power_w, double power_limit_w = 0) {
  Accelerator device;
  device.power_w = power_w;
  device.power_limit_w = power_limit_w;
  return device;
}

TEST(Power, ProductsAtTheBestRateTakeAllThatThePartMayDraw) {
  EXPECT_DOUBLE_EQ(device_power_w(part(700), Activity::compute, 1), 700);
  EXPECT_DOUBLE_EQ(device_power_w(part(700), Activity::compute, 3), 700);
  EXPECT_DOUBLE_EQ(device_power_w(part(700, 500), Activity::compute, 1), 500);
  EXPECT_DOUBLE_EQ(device_power_w(part(700, 900), Activity::compute, 1), 700);
}

TEST(Power, SlowerProductsTakeLessButNotLessThanTheMemoryThatTheyWaitFor) {
  const double full = device_power_w(part(400), Activity::compute, 1);
  const double slower = device_power_w(part(400), Activity::compute, 0.8);
  const double memory = device_power_w(part(400), Activity::memory, 1);
  EXPECT_LT(slower, full);
  EXPECT_LT(memory, slower);
  EXPECT_DOUBLE_EQ(device_power_w(part(400), Activity::compute, 0.1), memory);
}

TEST(Power, WaitingTakesLessThanKernelsAndMoreThanNothing) {
  const double idle = device_power_w(part(400), Activity::idle, 1);
  const double waiting = device_power_w(part(400), Activity::waiting, 1);
  EXPECT_DOUBLE_EQ(idle, 50);
  EXPECT_DOUBLE_EQ(waiting, 168);
  EXPECT_LT(waiting, device_power_w(part(400), Activity::memory, 1));
}

TEST(Power, EnergyIsPowerTimesTimeSummedOverWhatIsDone) {
  const PowerShares shares{.idle = 0.1, .memory_activity = 0.5, .waiting = 0.4};
  // 1 s at 100 W, 2 s at 100 x (0.1 + 0.9 x 0.5) W, 3 s at 40 W, 4 s at 10 W.
  EXPECT_DOUBLE_EQ(device_energy_j(part(100), {1, 2, 3, 4}, 1, shares), 100 + 110 + 120 + 40);
}

TEST(Power, APartOfUnknownPowerDrawsNothingThatIsKnown) { EXPECT_EQ(device_energy_j(part(0), {1, 1, 1, 1}, 1), 0); }

}  // namespace
}  // namespace trainyard::workloads
