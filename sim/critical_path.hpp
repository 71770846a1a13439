// What decides how long a step takes: one chain of operations and waits through the ranks, in which each begins when
// the one before it has ended. Whoever others wait for is on it, so nothing on it is a wait for another rank.
//
// The steady step follows itself, so the chain is a cycle: it leaves a step where it entered the step before. It takes
// as long as a step does, in picoseconds, and everything that is not on it has time to spare or is as late as it by
// chance. Where something on the cycle takes longer, the step takes longer by as much as often as it stands there.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "sim/plan.hpp"

namespace trainyard::sim {

// What the time of a piece of the path goes to; the same words as `critical_path_s` of a result, in the order of
// KernelClass and Purpose.
enum class PathTime : std::uint8_t {
  matmul,
  attention,
  memory_bound,
  optimizer,
  exposed_data,
  exposed_tensor,
  exposed_pipeline,
  exposed_context,
  exposed_expert,
  exposed_offload,
  bubble,  // none ever: see above
  host,
  straggler  // what a kernel takes longer on a slow device than on a healthy one of its type
};
constexpr std::size_t path_times = 13;
constexpr PathTime path_time(KernelClass kind) { return static_cast<PathTime>(kind); }
constexpr PathTime path_time(Purpose purpose) {
  return static_cast<PathTime>(kernel_classes + static_cast<std::size_t>(purpose));
}

// A kernel, a communication from the arrival of its last member on, or the host on its way to launching something.
// Kernels that are slowed, by the device or by an own communication, are two or three pieces.
struct PathSegment {
  RankId rank{};  // of the plan; of those that do the same, the first
  BlockId block{};
  std::uint32_t op = 0;  // within the block; of a host that launches several of a block, the first
  std::int32_t layer = -1;
  std::int32_t micro_batch = -1;
  PathTime time{};
  std::optional<CallId> slowed_by = std::nullopt;  // the time is what a kernel lost to this communication
  TimePoint start{};
  Duration length{};  // more than zero
  bool operator==(const PathSegment&) const = default;
};

struct CriticalPath {
  // Over how many steps it comes back to where it began: one, unless ranks decide in turns.
  std::int64_t steps = 1;
  // In order of time and without gaps, as long as that many steps; times are those of the measured step, or what ran
  // before it of the same step.
  std::vector<PathSegment> segments;

  // Summed over segments; over all of it, `steps` times the step time.
  std::array<Duration, path_times> times() const;
};

}  // namespace trainyard::sim
