// Blocks as the executor walks them: compiled once, however often they are called.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <vector>

#include "sim/plan.hpp"

namespace trainyard::sim {

// Times in picoseconds. The last one is 26 days: any step, several times.
constexpr std::int64_t latest_time = std::numeric_limits<std::int64_t>::max() / 4;
constexpr std::int64_t no_host_bound = std::numeric_limits<std::int64_t>::min() / 4;  // below any time, safe to add to

// `time` plus `duration`; times are far enough from the end of the clock to add a few of them.
inline std::int64_t later(std::int64_t time, std::int64_t duration) {
  if (duration > latest_time - time) throw TooLarge("the steps take longer than the 26 days of the simulated clock");
  return time + duration;
}

// A piece of a block that needs one decision: a run of kernels on one stream, or a single other operation. The end of
// a run of n kernels with durations d that starts at S on a host that is free at H is
//     max(S + sum d, H + max over i of ((i + 1) x launch + sum of d from i on))
// exactly as if they were executed one by one, so a run costs no more than one kernel.
struct Step {
  enum class Kind : std::uint8_t { kernels, communicate, host_work, host_wait, memory };
  Kind kind = Kind::kernels;
  StreamId stream{};
  StreamSet after = 0;
  std::uint32_t first_wait = 0;
  std::uint32_t wait_count = 0;
  std::uint32_t record = 0;  // 1 + index into StepList::waits, 0 for none
  std::uint32_t first_op = 0;
  std::uint32_t op_count = 0;
  std::uint32_t kernel_count = 0;
  CallId call{};
  std::int64_t busy = 0;                    // sum of the durations; the duration of host work
  std::int64_t host_bound = no_host_bound;  // the second term above, from the host's clock on
  std::int64_t launch = 0;                  // host time in all
  std::array<std::int64_t, kernel_classes> by_class{};
};

struct StepList {
  struct Extent {
    std::uint32_t first = 0;
    std::uint32_t count = 0;
  };
  std::vector<Step> steps;
  std::vector<EventRef> waits;  // of all steps, and the events that they record
  Table<BlockId, Extent> blocks;
};
// A communication that waits for nothing but its own stream, such as posting a receive. Its host does not wait for
// what the operations before it wait for, so it may join its communicator while the rank is still held up by one of
// these, as long as none in between has to do with its stream, slot or event.
struct EarlyStep {
  std::uint32_t position = 0;  // of the step in its program, counted over all block calls
  std::uint32_t from = 0;      // the earliest position from which it may be issued
  std::uint32_t call = 0;      // block call
  std::uint32_t step = 0;      // within the block
  std::int64_t host = 0;       // host time that a step needs from the start of the program to it
};

// A program as positions of steps.
struct ProgramSteps {
  std::vector<std::uint32_t> first_position;  // of each block call
  std::vector<std::int64_t> host_before;      // host time that the calls before need in all, without waiting
  std::vector<EarlyStep> early;
  std::uint32_t positions = 0;
};

// What a rank does in a training step whenever it does it.
struct StepTotals {
  std::array<std::int64_t, kernel_classes> by_class{};  // of the compute stream's kernels
  std::uint64_t operations = 0;                         // kernels and communications
};
StepTotals total_of(const StepList& list, const Program& program);

// Host time that a step takes as long as the host waits for nothing.
inline std::int64_t host_time(const Step& step) { return step.kind == Step::Kind::host_work ? step.busy : step.launch; }

StepList compile_steps(const Plan& plan, DeviceClassId device, bool healthy);
ProgramSteps find_early_steps(const Plan& plan, const StepList& list, const Program& program);

}  // namespace trainyard::sim
