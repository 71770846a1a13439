// The one contract between strategies and the executor: what every rank does in one training step.
//
// A plan stores programs, not ranks x operations. A *program* is what one role (a pipeline stage, say) does in a step:
// a list of calls of *blocks*, in the order in which the host issues them. A *block* is a short list of operations (the
// forward pass of a layer, an optimizer step), stored once however many layers and micro-batches call it. Ranks of the
// same role share a program; what differs between them is a table from (rank, slot) to a communicator.
//
// Operations run as on a CUDA device: the host issues them in program order, every stream is first in first out, and
// an operation may wait for events recorded by earlier operations, as cudaStreamWaitEvent does. One limit: operations
// are looked at in program order, so one that waits for a communication holds back what the rank issues after it, on
// all streams, until every member has issued the communication. Issue what others need before waiting for them.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "sim/table.hpp"
#include "sim/units.hpp"

namespace trainyard::sim {

enum class RankId : std::uint32_t {};
enum class ProgramId : std::uint32_t {};
enum class BlockId : std::uint32_t {};
enum class KernelId : std::uint32_t {};
enum class CallId : std::uint32_t {};  // a communication as it is called: group, kind and size
enum class CommunicatorId : std::uint32_t {};
enum class CostClassId : std::uint32_t {};  // communicators for which every call takes the same time
enum class SlotId : std::uint8_t {};        // "my tensor group", "the next stage": resolved per rank
enum class StreamId : std::uint8_t {};

constexpr StreamId compute_stream{0};
constexpr std::size_t most_streams = 16;
constexpr std::size_t most_slots = 32;

// What the compute stream does; the same words as `breakdown_s` of a result.
enum class KernelClass : std::uint8_t { matmul, attention, memory_bound, optimizer };
constexpr std::size_t kernel_classes = 4;

// What a communication is for; `exposed_<purpose>` of a result.
enum class Purpose : std::uint8_t { data, tensor, pipeline, context, expert, offload };
constexpr std::size_t purposes = 6;
std::string_view to_string(Purpose purpose);

enum class CollectiveKind : std::uint8_t {
  all_reduce,
  all_gather,
  reduce_scatter,
  all_to_all,
  broadcast,
  reduce,
  barrier,
  send,
  receive
};
constexpr std::size_t collective_kinds = 9;
std::string_view to_string(CollectiveKind kind);

enum class MemoryPurpose : std::uint8_t { parameters, gradients, optimizer, activations, buffers };
constexpr std::size_t memory_purposes = 5;
std::string_view to_string(MemoryPurpose purpose);

// One kernel of a device. The duration comes from the compute cost model; `sim` knows no hardware.
struct Kernel {
  std::string name;
  KernelClass kind = KernelClass::memory_bound;
  Duration duration{};
  Flops flops{};        // really executed
  Flops model_flops{};  // of these, the model's own: three times the forward ones, nothing recomputed
  Bytes bytes{};        // moved between the device and its memory
};

// Several tensor-parallel collectives of a micro-batch are the same call.
struct Call {
  SlotId slot{};
  CollectiveKind kind = CollectiveKind::all_reduce;
  Bytes bytes{};  // the full vector: for all-gather and reduce-scatter the gathered size
  Purpose purpose = Purpose::data;
  auto operator<=>(const Call&) const = default;
};

// Names an event of the rank. Relative ones are shifted by the block call's `event_shift`, modulo the relative events
// of the plan, so that one block serves every layer of a prefetching loop.
struct EventRef {
  std::uint16_t index = 0;
  bool relative = false;
};

struct Compute {
  KernelId kernel;
};
struct Communicate {
  CallId call;
};
struct Memory {
  MemoryPurpose purpose;
  Bytes change;
};  // allocated > 0, freed < 0
struct HostWork {
  Duration duration;
};                   // the host is busy; devices go on with what they have
struct HostWait {};  // the host waits for what the operation waits for
struct Wait {};      // the stream waits; the host goes on

using StreamSet = std::uint16_t;
constexpr StreamSet set_of(StreamId stream) { return static_cast<StreamSet>(1U << index_of(stream)); }

struct Op {
  StreamId stream = compute_stream;
  std::variant<Compute, Communicate, Memory, HostWork, HostWait, Wait> work;
  StreamSet after = 0;  // waits for all that was issued so far on these streams
  std::vector<EventRef> waits = {};
  std::optional<EventRef> records = std::nullopt;
};

struct Block {
  std::string name;
  Duration launch{};  // host time to issue one kernel or communication of this block
  std::vector<Op> ops;
};

struct BlockCall {
  BlockId block{};
  std::int32_t layer = -1;        // of the whole model, from 0; -1 where it has no meaning
  std::int32_t micro_batch = -1;  // likewise
  std::uint16_t event_shift = 0;
};

struct Program {
  std::string name;
  std::vector<BlockCall> calls;
  std::array<Bytes, memory_purposes> resident{};  // allocated before the step and never freed
};

// How long a call takes on a communicator, and what it puts on the wire. Alone in the network this is exact.
struct CommunicationCost {
  Duration duration{};
  Bytes wire_bytes{};          // sent by a member, on average over members
  std::uint8_t algorithm = 0;  // index into Plan::algorithms
  Bytes nvlink_bytes{};        // of these, inside the node, for the link-use counters of a trace
  Bytes nic_bytes{};           // and between nodes
};

struct Communicator {
  SlotId slot{};  // as its first member sees it
  CostClassId cost{};
  std::uint32_t first_member = 0;  // into CommunicatorTable::members
  std::uint32_t member_count = 0;
};

// Who talks to whom. A rank without a communicator in a slot must not use that slot.
class CommunicatorTable {
 public:
  CommunicatorTable() = default;
  CommunicatorTable(std::size_t ranks, std::size_t slots) : slots_(slots), of_(ranks * slots, none) {}

  // Members in the order of the ring; each member's slot is given, since a pair's two ends see different slots.
  CommunicatorId add(const std::vector<RankId>& members, const std::vector<SlotId>& slots);

  std::size_t size() const { return communicators_.size(); }
  std::size_t slots() const { return slots_; }
  bool has(RankId rank, SlotId slot) const { return of_[index_of(rank) * slots_ + index_of(slot)] != none; }
  CommunicatorId of(RankId rank, SlotId slot) const {
    const std::uint32_t id = of_[index_of(rank) * slots_ + index_of(slot)];
    ensure(id != none, "a rank communicates only in slots that it has");
    return CommunicatorId{id};
  }
  Communicator& operator[](CommunicatorId id) { return communicators_[id]; }
  const Communicator& operator[](CommunicatorId id) const { return communicators_[id]; }
  RankId member(const Communicator& communicator, std::uint32_t index) const {
    return members_[communicator.first_member + index];
  }
  SlotId member_slot(const Communicator& communicator, std::uint32_t index) const {
    return member_slots_[communicator.first_member + index];
  }

 private:
  static constexpr std::uint32_t none = 0xffffffff;
  std::size_t slots_ = 0;
  std::vector<std::uint32_t> of_;
  Table<CommunicatorId, Communicator> communicators_;
  std::vector<RankId> members_;
  std::vector<SlotId> member_slots_;
};

struct Plan {
  Table<StreamId, std::string> streams;  // [0] is the compute stream
  Table<SlotId, std::string> slots;
  std::uint16_t absolute_events = 0;
  std::uint16_t relative_events = 0;
  Table<KernelId, Kernel> kernels;
  Table<CallId, Call> calls;
  Table<BlockId, Block> blocks;
  Table<ProgramId, Program> programs;
  Table<RankId, ProgramId> program_of;
  CommunicatorTable communicators;
  std::vector<std::string> algorithms;
  // One row per cost class, one column per call. Classes only fill the calls of their own slots.
  Table<CostClassId, std::vector<CommunicationCost>> costs;

  std::size_t event_count() const { return std::size_t{absolute_events} + relative_events; }
};

// Peak of what a program allocates, in the order in which the host issues it, and what the peak is made of.
// A caching allocator hands out memory when the host asks, so the peak does not depend on timing.
struct MemoryPeak {
  std::array<Bytes, memory_purposes> at_peak{};
  Bytes total{};
};
MemoryPeak memory_peak(const Plan& plan, const Program& program);

// How often each call, and each kernel, is issued in one step of `program`.
std::vector<std::int64_t> call_counts(const Plan& plan, const Program& program);
std::vector<std::int64_t> kernel_counts(const Plan& plan, const Program& program);

}  // namespace trainyard::sim
