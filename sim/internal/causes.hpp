// What decided when each operation ended, so that the critical path can be followed back from the end of a step.
//
// Operations are numbered rank by rank and then in the order of the rank's program, whatever the training step; the
// last number of a rank stands for its host at the end of the training step. What an operation has waited for comes
// before it in the program, so a cause of the same rank that does not belongs to the training step before.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "sim/fold.hpp"
#include "sim/internal/step_list.hpp"
#include "sim/plan.hpp"

namespace trainyard::sim {

constexpr std::uint32_t no_operation = 0xffffffff;

struct Cause {
  enum class Kind : std::uint8_t {
    device,  // a stream, an event, or the communicator's operation before
    host,    // the rank's host, which has gone on without waiting since it waited for `from`
    member   // of the same communication, which arrived last
  };
  std::int64_t end = 0;  // of the operation itself, in picoseconds
  std::uint32_t from = no_operation;
  std::uint32_t kind_and_call = 0;

  Kind kind() const { return static_cast<Kind>(kind_and_call & 3U); }
  bool slowed() const { return kind_and_call >> 2 != 0; }
  CallId slowed_by() const { return CallId{(kind_and_call >> 2) - 1}; }
};

// What a member of a communication has waited for before it arrived.
enum class Arrival : std::uint8_t { stream, communicator, host };

class Causes {
 public:
  // What may decide about an operation, noted when it is issued.
  struct Turn {
    std::uint32_t operation = no_operation;
    std::uint32_t device = no_operation;
    std::uint32_t host = no_operation;
  };

  // Whether they fit the memory that they may take.
  static bool fit(const Population& population, const std::vector<ProgramSteps>& programs);

  // `list` is of any class of devices.
  Causes(const Plan& plan, const Population& population, const StepList& list,
         const std::vector<ProgramSteps>& programs);

  // `waited_for`: a stream, or behind all streams an event.
  Turn turn(std::uint32_t rank, std::uint32_t position, std::size_t waited_for) const {
    return {.operation = first_[rank] + position, .device = latest(rank, waited_for), .host = host_[rank]};
  }

  // The host has waited for the device until `end`.
  void wait_on_host(std::uint32_t rank, std::size_t training, const Turn& turn, std::int64_t end) {
    note(training, turn.operation, {.end = end, .from = turn.device});
    host_[rank] = turn.operation;
  }
  void end_training_step(std::uint32_t rank, std::size_t training, std::int64_t host) {
    const std::uint32_t operation = first_[rank + 1] - 1;
    note(training, operation, {.end = host, .from = host_[rank], .kind_and_call = kind_bits(Cause::Kind::host)});
    host_[rank] = operation;
  }

  // What its stream and its event are about from now on; `event` may be no event of the plan.
  void issue(std::uint32_t rank, StreamId stream, std::size_t event, const Turn& turn) {
    latest(rank, index_of(stream)) = turn.operation;
    if (event < events_) latest(rank, streams_ + event) = turn.operation;
  }
  void end_kernels(std::size_t training, const Turn& turn, std::int64_t end, bool by_host) {
    note(training, turn.operation,
         {.end = end,
          .from = by_host ? turn.host : turn.device,
          .kind_and_call = kind_bits(by_host ? Cause::Kind::host : Cause::Kind::device)});
  }
  // They have ended, later than they would have without an own communication.
  void slow_kernels(std::size_t training, const Turn& turn, CallId slowed_by) {
    causes_[training % 2][turn.operation].kind_and_call |= (static_cast<std::uint32_t>(index_of(slowed_by)) + 1) << 2;
  }

  struct Member {
    CommunicatorId communicator{};
    SlotId slot{};
    std::size_t event = 0;  // as for issue()
    StreamId stream{};
    Arrival by = Arrival::stream;
    bool later = false;  // than all members so far
    bool equal = false;  // as late as the last of them
  };
  void arrive(std::uint32_t rank, std::size_t training, const Turn& turn, const Member& member);
  void end_communication(std::uint32_t rank, std::size_t training, CommunicatorId communicator, SlotId slot,
                         std::int64_t end);

  // To follow them.
  std::size_t size() const { return first_.back(); }
  std::uint32_t rank_of(std::uint32_t operation) const;
  std::uint32_t first_of(std::uint32_t rank) const { return first_[rank]; }
  // The one with which the rank's compute stream ends a step.
  std::uint32_t last_computation(std::uint32_t rank) const;
  const Cause& of(std::uint32_t operation, std::size_t training) const { return causes_[training % 2][operation]; }

 private:
  std::size_t slot(SlotId slot) const { return streams_ + events_ + index_of(slot); }
  static std::uint32_t kind_bits(Cause::Kind kind) { return static_cast<std::uint32_t>(kind); }
  void note(std::size_t training, std::uint32_t operation, const Cause& cause) {
    causes_[training % 2][operation] = cause;
  }
  std::uint32_t& latest(std::uint32_t rank, std::size_t what) { return latest_[rank * width_ + what]; }
  std::uint32_t latest(std::uint32_t rank, std::size_t what) const { return latest_[rank * width_ + what]; }
  std::vector<std::uint32_t> last_positions(const Plan& plan, const StepList& list, const Program& program) const;

  const Population& population_;
  std::size_t streams_;
  std::size_t events_;
  std::size_t width_;
  std::vector<std::vector<std::uint32_t>> last_;  // per program and stream, event or slot: the last position
  std::vector<std::uint32_t> first_;              // of each rank, and behind the last
  std::vector<std::uint32_t> latest_;             // (rank; stream, event or slot)
  std::vector<std::uint32_t> host_;               // per rank: when its host last waited
  Table<CommunicatorId, std::uint32_t> last_arrived_;
  std::array<std::vector<Cause>, 2> causes_;  // a rank is at most one training step ahead of the slowest
};

}  // namespace trainyard::sim
