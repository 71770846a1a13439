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
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "sim/network.hpp"
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
enum class DeviceClassId : std::uint16_t {};
enum class SlotId : std::uint8_t {};  // "my tensor group", "the next stage": resolved per rank
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

// Which connections an algorithm opens between the members of a communicator, and hence which links they cross.
enum class TrafficPattern : std::uint8_t {
  ring,   // from each member to the next, on every rail where the ring crosses nodes
  tree,   // the edges of a double binary tree over the nodes, both ways, and chains inside the nodes
  pairs,  // from every member to every other
  pair,   // from the sender to the receiver
  ports,  // every member to and from the switch of its domain, which reduces or multiplies
  torus,  // to the neighbours on the axes of a torus
  rails   // from each domain to the next on every rail; what moves inside the domains is in the latency
};
constexpr std::size_t traffic_patterns = 7;

constexpr std::int64_t whole_speed = 1024;  // of kernels that nothing slows; see CommunicationCost::interference
constexpr std::uint8_t no_traffic = 255;    // shares no link with anyone: it takes the time that it takes alone

// What a call does on a communicator. Alone in the network it takes latency + flow_bytes / flow_rate, rounded up once;
// where links are shared, its connections get their fair share of them and never more than `flow_rate`.
struct CommunicationCost {
  Duration duration{};         // alone
  Duration latency{};          // launch and hops, before bytes flow
  Bytes flow_bytes{};          // over the heaviest connection
  BytesPerSecond flow_rate{};  // of such a connection: the share that its protocol reaches of what it crosses
  TrafficPattern pattern = TrafficPattern::ring;
  Bytes phase_bytes{};       // of a connection, after which hops of a ring wait for each other; 0: never
  std::uint8_t traffic = 0;  // which of the communicator's traffics it is
  // What a member's kernels lose of their speed while bytes flow: SMs and memory bandwidth, in 1 / whole_speed.
  std::uint16_t interference = 0;
  Bytes wire_bytes{};          // sent by a member, on average over members
  std::uint8_t algorithm = 0;  // index into Plan::algorithms
  Bytes nvlink_bytes{};        // of these, inside the node, for the link-use counters of a trace
  Bytes nic_bytes{};           // and between nodes
};

struct Communicator {
  SlotId slot{};  // as its first member sees it
  CostClassId cost{};
  std::uint8_t traffic_count = 0;  // how many patterns it uses; 0: it shares no link with anyone
  TrafficId first_traffic{};
  std::uint32_t first_member = 0;  // into CommunicatorTable::members
  std::uint32_t member_count = 0;

  TrafficId traffic_at(std::uint32_t index) const {
    return TrafficId{static_cast<std::uint32_t>(index_of(first_traffic)) + index};
  }
};

// Devices on which every kernel takes equally long: of one type, and healthy or slow alike.
struct DeviceClass {
  std::string name;
  bool slow = false;              // below the speed of its type
  std::vector<Duration> kernels;  // how long each kernel takes there
  std::vector<Duration> healthy;  // and on a device of the type that is not slow
};

// Who talks to whom. A rank without a communicator in a slot must not use that slot.
class CommunicatorTable {
 public:
  CommunicatorTable() = default;
  CommunicatorTable(std::size_t ranks, std::size_t slots) : slots_(slots), of_(ranks * slots, none) {}

  // Members in the order of the ring; each member's slot is given, since a pair's two ends see different slots.
  CommunicatorId add(std::span<const RankId> members, std::span<const SlotId> slots);
  CommunicatorId add(std::initializer_list<RankId> members, std::initializer_list<SlotId> slots) {
    return add(std::span(members.begin(), members.size()), std::span(slots.begin(), slots.size()));
  }

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
  // Where devices differ; empty where all take the durations of `kernels`.
  Table<DeviceClassId, DeviceClass> device_classes;
  Table<RankId, DeviceClassId> device_class_of;
  CommunicatorTable communicators;
  Network network;
  std::vector<Bytes> link_bytes;  // what each link of the cluster carries in a step, in the cluster's numbering
  std::vector<std::string> algorithms;
  // One row per cost class, one column per call. Classes only fill the calls of their own slots; the send and the
  // receive of a pair cost the same.
  Table<CostClassId, std::vector<CommunicationCost>> costs;

  std::size_t event_count() const { return std::size_t{absolute_events} + relative_events; }
  DeviceClassId device_class(RankId rank) const {
    return device_class_of.empty() ? DeviceClassId{} : device_class_of[rank];
  }
  // `healthy`: as if no device were slow.
  Duration duration_of(KernelId kernel, DeviceClassId device, bool healthy = false) const {
    if (device_classes.empty()) return kernels[kernel].duration;
    const DeviceClass& on = device_classes[device];
    return (healthy ? on.healthy : on.kernels)[index_of(kernel)];
  }
};

// Which of the plan's events `ref` means in a call of its block.
inline std::uint16_t event_index(const Plan& plan, const EventRef& ref, const BlockCall& call) {
  if (!ref.relative) return ref.index;
  return static_cast<std::uint16_t>(plan.absolute_events + (ref.index + call.event_shift) % plan.relative_events);
}

// Peak of what a program allocates, in the order in which the host issues it, and what the peak is made of.
// A caching allocator hands out memory when the host asks, so the peak does not depend on timing.
struct MemoryPeak {
  std::array<Bytes, memory_purposes> at_peak{};
  Bytes total{};
};
MemoryPeak memory_peak(const Plan& plan, const Program& program);

// What calls of a block have allocated and not freed at the peak; what another block freed for them stands there, as a
// negative number. Resident memory is in none of them.
struct MemoryHolder {
  BlockId block{};
  MemoryPurpose purpose = MemoryPurpose::activations;
  Bytes bytes{};
};
std::vector<MemoryHolder> memory_holders(const Plan& plan, const Program& program);

// How often each call, and each kernel, is issued in one step of `program`.
std::vector<std::int64_t> call_counts(const Plan& plan, const Program& program);
std::vector<std::int64_t> kernel_counts(const Plan& plan, const Program& program);

}  // namespace trainyard::sim
