// What ranks do when, passes at a time: the pipeline diagram of a report.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sim/executor.hpp"

namespace trainyard::scenarios {

enum class Phase : std::uint8_t { forward, backward, input_gradients, weight_gradients, update };
constexpr std::array<std::string_view, 5> phase_names{"forward", "backward", "input gradients", "weight gradients",
                                                      "optimizer and other"};

// A pass of a micro-batch on the compute stream, from its first kernel to its last; with it, what it waits for inside.
struct Pass {
  Phase phase = Phase::forward;
  std::int32_t micro_batch = -1;  // -1: of none
  std::int32_t layer = -1;        // the first of the model's that it goes through; -1: of none
  sim::TimePoint start{};
  sim::TimePoint end{};
};

struct ScheduleRow {
  sim::RankId rank{};
  std::string program;
  std::vector<Pass> passes;
};

// Of the first recorded rank of each program, in the order of the programs.
std::vector<ScheduleRow> schedule_rows(const sim::Plan& plan, const sim::Outcome& outcome);

}  // namespace trainyard::scenarios
