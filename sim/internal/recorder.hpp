// Notes what recorded ranks do, and hands it over as soon as nothing can change it any more.
//
// On a stream at most one step of a block is under way: what follows it there waits for its end. So little is held at
// any time, however long the plan.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "sim/ensure.hpp"
#include "sim/executor.hpp"
#include "sim/internal/step_list.hpp"

namespace trainyard::sim {

struct Population;

// Keeps records in memory, for Outcome.
class RecordList final : public RecordSink {
 public:
  void begin(const Plan& /*plan*/) override {}
  void take(std::uint32_t repetition, std::span<const OpRecord> operations) override;
  void take(std::uint32_t repetition, const MemoryRecord& memory) override;
  void drop(std::uint32_t repetition) override;
  // Sorted by rank, then in issue order.
  void move_into(Outcome& outcome, std::uint32_t repetition);

 private:
  struct Records {
    std::vector<OpRecord> operations;
    std::vector<MemoryRecord> memory;
  };
  Records& of(std::uint32_t repetition);

  std::vector<Records> repetitions_;
};

class Recorder {
 public:
  Recorder(const Plan& plan, const Population& population, const RunOptions& options);
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  bool follows(std::uint32_t rank) const { return !followed_.empty() && number_[rank] != 0; }

  // All below is of ranks that it follows, times in picoseconds.
  void begin_training_step(std::uint32_t rank, std::uint32_t repetition);
  // When the rank's compute stream was through with the training step before.
  void enter_training_step(std::uint32_t rank, std::int64_t when);

  // Kernels and allocations of a step, from `ready` on with a host that is free at `host`.
  struct Turn {
    std::int64_t ready = 0;
    std::int64_t host = 0;
    std::uint32_t call = 0;
    std::uint32_t repetition = 0;
  };
  void start_kernels(std::uint32_t rank, const Step& step, const BlockCall& call, const Turn& turn);
  // They ended at `end` and not at `natural`.
  void stretch_kernels(std::uint32_t rank, std::int64_t start, std::int64_t natural, std::int64_t end);
  void end_kernels(std::uint32_t rank, StreamId stream);

  void start_communication(std::uint32_t rank, std::uint32_t repetition, const OpRecord& record);
  void end_communication(std::uint32_t rank, StreamId stream, std::int64_t transfer, std::int64_t end);
  // After all of its members have ended.
  void hand_over_communication();

  void drop(std::uint32_t repetition);
  void move_into(Outcome& outcome, std::uint32_t repetition) { list_.move_into(outcome, repetition); }

 private:
  // A sink, and for which ranks of the plan each rank that is followed stands.
  struct Target {
    RecordSink* sink = nullptr;
    std::vector<std::vector<RankId>> ranks;
  };
  // A step of a block that is under way.
  struct Open {
    std::uint32_t repetition = 0;
    std::vector<OpRecord> operations;
    std::size_t first_memory = 0;
    std::size_t memory_count = 0;
  };
  struct PendingMemory {
    MemoryRecord record;
    std::uint32_t repetition = 0;
    bool known = false;  // when
  };
  struct Followed {
    RankId rank{};
    std::array<Bytes, memory_purposes> allocated{};
    std::vector<Open> open;  // by stream
    std::deque<PendingMemory> memory;
    std::size_t handed_over = 0;  // of the memory records, in all
    std::size_t resident = 0;     // which of them is to know when the rank entered its training step
  };

  void follow(RecordSink& sink, std::span<const RankId> ranks);
  std::size_t index_of_rank(std::uint32_t rank) const { return number_[rank] - 1U; }
  Followed& of(std::uint32_t rank) { return followed_[index_of_rank(rank)]; }
  PendingMemory& memory_at(Followed& followed, std::size_t number) {
    ensure(number >= followed.handed_over, "what was handed over does not change");
    return followed.memory[number - followed.handed_over];
  }
  void note_memory(Followed& followed, const Memory& change, std::int64_t when, std::uint32_t repetition);
  void hand_over_memory(Followed& followed);
  void hand_over(std::uint32_t repetition, std::span<const OpRecord> ended);
  OpRecord named(OpRecord record, RankId rank) const;

  const Plan& plan_;
  const Population& population_;
  bool healthy_devices_;
  RecordList list_;
  std::vector<Target> targets_;
  std::vector<std::uint32_t> number_;  // 1 + index into followed_, 0 for ranks without records
  std::vector<Followed> followed_;
  std::vector<OpRecord> ended_;  // members of a communication
  std::uint32_t ended_repetition_ = 0;
  std::vector<OpRecord> named_;
};

}  // namespace trainyard::sim
