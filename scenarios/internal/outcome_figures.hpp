// What results say of a simulated plan, whatever it is a plan of.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {

Breakdown breakdown_of(const sim::ComputeStreamTime& time, std::size_t ranks);
std::vector<CommunicationSummary> communication_of(const sim::Plan& plan, const sim::Outcome& outcome);
// Executed by all ranks.
double hardware_flops(const sim::Plan& plan);
std::int64_t peak_resident_bytes();  // of this program

class Stopwatch {
 public:
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - latest_).count();
    latest_ = now;
    return seconds;
  }
  double total() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count(); }

 private:
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point latest_ = started_;
};

}  // namespace trainyard::scenarios
