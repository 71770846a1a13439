// What recorded ranks did in a training step, operation by operation, and who takes that.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "sim/plan.hpp"

namespace trainyard::sim {

// An operation of a recorded rank.
struct OpRecord {
  RankId rank{};
  StreamId stream{};
  BlockId block{};
  std::uint32_t call = 0;  // of the program's calls
  std::uint32_t op = 0;    // within the block
  std::int32_t layer = -1;
  std::int32_t micro_batch = -1;
  TimePoint start{};  // a communication starts, on this rank, when the rank arrives
  TimePoint end{};
  TimePoint transfer{};  // communication: when the last member had arrived
  CommunicatorId communicator{};
  std::uint32_t sequence = 0;  // of the communicator
};

// What a rank has allocated from then on.
struct MemoryRecord {
  RankId rank{};
  TimePoint when{};
  std::array<Bytes, memory_purposes> allocated{};
};

// Takes records while a plan runs, so that they need not live in memory. The executor repeats the training step until
// it is steady and only then knows which repetition is measured: it drops all others, one by one.
class RecordSink {
 public:
  virtual ~RecordSink() = default;

  // Before anything else. `plan` stays as it is until the run is over.
  virtual void begin(const Plan& plan) = 0;
  // Operations that are over, one at least: kernels that follow each other on a stream, or every recorded member of a
  // communication. Those of a rank's stream come in the order of time, those of different streams and ranks as it
  // falls.
  virtual void take(std::uint32_t repetition, std::span<const OpRecord> operations) = 0;
  // Those of a rank come in the order in which its host issues the allocations; a stream that runs behind may come to
  // them later than another to later ones. The first is what is resident when the rank begins the step.
  virtual void take(std::uint32_t repetition, const MemoryRecord& memory) = 0;
  // Nothing of it is wanted any more.
  virtual void drop(std::uint32_t repetition) = 0;
};

}  // namespace trainyard::sim
