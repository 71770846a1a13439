// Random steps of a few ranks, as plans and for an evaluator that shares nothing with the executor.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "sim/plan.hpp"

namespace trainyard::sim {

constexpr std::size_t streams = 4;
constexpr std::size_t group_slots = 3;  // then two for the ends of pairs
constexpr std::uint16_t absolute_events = streams;
constexpr std::uint16_t relative_events = 3;

// Our own mapping to ranges: the same plans with every library.
class Random {
 public:
  // `alike`: durations that are often zero and often equal, since ties are where orders matter; otherwise none is.
  Random(std::uint64_t seed, bool alike = true) : bits_(seed), alike_(alike) {}
  std::size_t below(std::size_t limit) { return static_cast<std::size_t>(bits_() % limit); }
  bool one_in(std::size_t n) { return below(n) == 0; }
  std::int64_t duration() {
    if (!alike_) return static_cast<std::int64_t>(1000 + below(one_in(3) ? 4'000'000 : 200'000));
    return one_in(4) ? 0 : static_cast<std::int64_t>(below(one_in(3) ? 400 : 20));
  }

 private:
  std::mt19937_64 bits_;
  bool alike_;
};

// What some ranks do at once: one rank something of its own, or all members of a communicator a communication.
struct Item {
  std::vector<std::pair<std::uint32_t, Op>> ops;  // (rank, operation)
  std::uint32_t communicator = 0xffffffff;
};

// A piece of the global order, which becomes one block for every rank.
struct Segment {
  std::int64_t launch = 0;
  std::vector<Item> items;
};

struct Group {
  std::vector<std::uint32_t> members;
  std::vector<SlotId> slots;
  std::vector<std::int64_t> cost_of_call;
};

struct SegmentCall {
  std::size_t segment = 0;
  std::uint16_t event_shift = 0;
};

// A step as one global order of what happens: every rank's program is what concerns the rank, so nobody can wait in a
// circle.
struct Script {
  std::uint32_t ranks = 0;
  std::vector<Kernel> kernels;
  std::vector<Call> calls;
  std::vector<Group> groups;
  std::vector<Segment> segments;
  std::vector<SegmentCall> step;
};

class ScriptWriter {
 public:
  explicit ScriptWriter(std::uint64_t seed, bool alike = true) : random_(seed, alike) {}

  Script write() {
    script_.ranks = static_cast<std::uint32_t>(1 + random_.below(6));
    for (std::size_t i = 0; i < 8; ++i)
      script_.kernels.push_back({.name = "kernel " + std::to_string(i),
                                 .kind = static_cast<KernelClass>(i % kernel_classes),
                                 .duration = Duration{random_.duration()}});
    for (std::size_t slot = 0; slot < group_slots; ++slot) add_groups(SlotId{static_cast<std::uint8_t>(slot)});
    add_pairs();
    const bool host_matters = random_.one_in(2);
    const std::size_t segments = 1 + random_.below(4);
    for (std::size_t i = 0; i < segments; ++i) {
      Segment segment{.launch = host_matters ? random_.duration() : 0, .items = {}};
      const std::size_t items = random_.below(20 * script_.ranks);
      for (std::size_t j = 0; j < items; ++j) segment.items.push_back(item());
      script_.segments.push_back(segment);
    }
    const std::size_t calls = 1 + random_.below(6);
    for (std::size_t i = 0; i < calls; ++i)
      script_.step.push_back({random_.below(segments), static_cast<std::uint16_t>(random_.below(5))});
    if (random_.one_in(2)) end_with_host_waits();
    return script_;
  }

 private:
  StreamId stream() { return StreamId{static_cast<std::uint8_t>(random_.one_in(2) ? 0 : random_.below(streams))}; }
  EventRef event() {
    const bool relative = random_.one_in(2);
    return {.index = static_cast<std::uint16_t>(random_.below(relative ? relative_events : absolute_events)),
            .relative = relative};
  }

  std::uint32_t add_call(SlotId slot, CollectiveKind kind, Bytes bytes) {
    script_.calls.push_back(
        {.slot = slot, .kind = kind, .bytes = bytes, .purpose = static_cast<Purpose>(random_.below(purposes))});
    return static_cast<std::uint32_t>(script_.calls.size() - 1);
  }

  void add_groups(SlotId slot) {
    add_call(slot, CollectiveKind::all_reduce, Bytes{1});
    add_call(slot, CollectiveKind::all_gather, Bytes{2});
    std::vector<std::uint32_t> left(script_.ranks);
    std::iota(left.begin(), left.end(), 0U);
    for (std::size_t i = left.size(); i > 1; --i) std::swap(left[i - 1], left[random_.below(i)]);
    while (left.size() > 1) {
      const std::size_t size = 2 + random_.below(left.size() - 1);
      Group group{.members = {left.end() - static_cast<std::ptrdiff_t>(size), left.end()},
                  .slots = std::vector<SlotId>(size, slot),
                  .cost_of_call = {}};
      left.resize(left.size() - size);
      script_.groups.push_back(group);
    }
  }

  // A chain of pairs through all ranks, in an order of its own.
  void add_pairs() {
    const SlotId down{group_slots};
    const SlotId up{group_slots + 1};
    add_call(down, CollectiveKind::send, Bytes{3});
    add_call(up, CollectiveKind::receive, Bytes{3});
    const auto shift = static_cast<std::uint32_t>(random_.below(script_.ranks));
    for (std::uint32_t i = 0; i + 1 < script_.ranks; ++i)
      script_.groups.push_back({.members = {(i + shift) % script_.ranks, (i + 1 + shift) % script_.ranks},
                                .slots = {down, up},
                                .cost_of_call = {}});
    for (Group& group : script_.groups) {
      for (std::size_t call = 0; call + 2 < script_.calls.size(); ++call)
        group.cost_of_call.push_back(random_.duration());
      group.cost_of_call.insert(group.cost_of_call.end(), 2, random_.duration());  // alike for both ends
    }
  }

  void add_dependencies(Op& op) {
    if (random_.one_in(3)) op.after = static_cast<StreamSet>(random_.below(1U << streams));
    while (random_.one_in(3)) op.waits.push_back(event());
  }

  Item item() {
    if (!script_.groups.empty() && random_.one_in(4)) return communication();
    const auto of = static_cast<std::uint32_t>(random_.below(script_.ranks));
    Op op{.stream = stream(), .work = Wait{}};
    switch (random_.below(10)) {
      case 0:
        op.work = HostWork{Duration{random_.duration()}};
        break;
      case 1:
        op.work = HostWait{};
        add_dependencies(op);
        break;
      case 2:
      case 3:
        add_dependencies(op);
        break;
      case 4:
        op.work = Memory{static_cast<MemoryPurpose>(random_.below(memory_purposes)),
                         Bytes{static_cast<std::int64_t>(random_.below(100))}};
        break;
      default:
        op.work = Compute{KernelId{static_cast<std::uint32_t>(random_.below(script_.kernels.size()))}};
        add_dependencies(op);
        if (random_.one_in(3)) op.records = event();
    }
    return {.ops = {{of, op}}};
  }

  Item communication() {
    const auto id = static_cast<std::uint32_t>(random_.below(script_.groups.size()));
    const Group& group = script_.groups[id];
    const std::size_t variant = group.slots[0] == group.slots[1] ? random_.below(2) : 0;
    Item item{.ops = {}, .communicator = id};
    for (std::size_t i = 0; i < group.members.size(); ++i) {
      const auto call = static_cast<std::uint32_t>(std::min(index_of(group.slots[i]) * 2, 2 * group_slots) + variant +
                                                   (index_of(group.slots[i]) > group_slots ? 1 : 0));
      Op op{.stream = stream(), .work = Communicate{CallId{call}}};
      add_dependencies(op);
      if (op.stream != compute_stream && random_.one_in(2)) op.records = event();
      item.ops.emplace_back(group.members[i], op);
    }
    return item;
  }

  void end_with_host_waits() {
    Segment segment;
    for (std::uint32_t rank = 0; rank < script_.ranks; ++rank) {
      const auto every_stream = static_cast<StreamSet>((1U << streams) - 1);
      segment.items.push_back({.ops = {{rank, Op{.work = Wait{}, .after = every_stream}}}});
      segment.items.push_back({.ops = {{rank, Op{.work = HostWait{}}}}});
    }
    script_.segments.push_back(segment);
    script_.step.push_back({script_.segments.size() - 1, 0});
  }

  Random random_;
  Script script_;
};

// `number[r]`: the number that the plan gives to rank r of the script.
inline Plan plan_of(const Script& script, const std::vector<std::uint32_t>& number) {
  Plan plan;
  for (std::size_t i = 0; i < streams; ++i) plan.streams.add("stream " + std::to_string(i));
  for (std::size_t i = 0; i < group_slots + 2; ++i) plan.slots.add("slot " + std::to_string(i));
  plan.absolute_events = absolute_events;
  plan.relative_events = relative_events;
  for (const Kernel& kernel : script.kernels) plan.kernels.add(kernel);
  for (const Call& call : script.calls) plan.calls.add(call);
  plan.program_of = Table<RankId, ProgramId>(script.ranks);
  plan.communicators = CommunicatorTable(script.ranks, plan.slots.size());
  for (const Group& group : script.groups) {
    std::vector<RankId> members;
    for (const std::uint32_t member : group.members) members.push_back(RankId{number[member]});
    const CommunicatorId id = plan.communicators.add(members, group.slots);
    std::vector<CommunicationCost> row;
    for (const std::int64_t duration : group.cost_of_call) row.push_back({.duration = Duration{duration}});
    plan.communicators[id].cost = plan.costs.add(row);
  }
  for (std::uint32_t rank = 0; rank < script.ranks; ++rank) {
    std::vector<BlockId> block_of;
    for (const Segment& segment : script.segments) {
      Block block{.name = "segment", .launch = Duration{segment.launch}, .ops = {}};
      for (const Item& item : segment.items)
        for (const auto& [of, op] : item.ops)
          if (of == rank) block.ops.push_back(op);
      block_of.push_back(plan.blocks.add(block));
    }
    Program program;
    program.resident.front() = Bytes{rank};
    for (std::size_t i = 0; i < script.step.size(); ++i)
      program.calls.push_back({.block = block_of[script.step[i].segment],
                               .layer = static_cast<std::int32_t>(i),
                               .event_shift = script.step[i].event_shift});
    plan.program_of[RankId{number[rank]}] = plan.programs.add(program);
  }
  return plan;
}

inline std::vector<std::uint32_t> as_written(const Script& script) {
  std::vector<std::uint32_t> number(script.ranks);
  std::iota(number.begin(), number.end(), 0U);
  return number;
}

struct Happening {
  std::int64_t start = 0;
  std::int64_t end = 0;
  std::int64_t transfer = 0;
  std::uint32_t layer = 0;
  bool operator==(const Happening&) const = default;
};

inline void PrintTo(const Happening& happening, std::ostream* out) {
  *out << "[" << happening.start << ", " << happening.transfer << ", " << happening.end << " in " << happening.layer
       << "]";
}

// One operation after the other in the global order, nothing else: no runs, no queue, no unknown times.
class NaiveRun {
 public:
  explicit NaiveRun(const Script& script)
      : script_(script), ranks_(script.ranks), free_at_(script.groups.size(), 0), happenings(script.ranks) {}

  void step() {
    for (std::uint32_t rank = 0; rank < script_.ranks; ++rank) {
      happenings[rank].clear();
      entered.resize(script_.ranks);
      entered[rank] = ranks_[rank].tails.front();
    }
    for (std::size_t i = 0; i < script_.step.size(); ++i) {
      const Segment& segment = script_.segments[script_.step[i].segment];
      shift_ = script_.step[i].event_shift;
      launch_ = segment.launch;
      layer_ = static_cast<std::uint32_t>(i);
      for (const Item& item : segment.items) {
        if (item.communicator == 0xffffffff) {
          alone(item.ops.front().first, item.ops.front().second);
        } else {
          together(item);
        }
      }
    }
  }
  // The end of the rank that ends last.
  std::int64_t latest() const {
    std::int64_t result = 0;
    for (const Rank& rank : ranks_) result = std::max(result, rank.tails.front());
    return result;
  }
  std::int64_t longest() const {
    std::int64_t result = 0;
    for (std::uint32_t rank = 0; rank < script_.ranks; ++rank)
      result = std::max(result, ranks_[rank].tails.front() - entered[rank]);
    return result;
  }

 private:
  struct Rank {
    std::int64_t host = 0;
    std::array<std::int64_t, streams> tails{};
    std::array<std::int64_t, absolute_events> absolute{};
    std::array<std::int64_t, relative_events> relative{};
  };

  std::int64_t& event(std::uint32_t rank, const EventRef& ref) {
    if (!ref.relative) return ranks_[rank].absolute.at(ref.index);
    return ranks_[rank].relative.at((ref.index + shift_) % relative_events);
  }
  std::int64_t ready(std::uint32_t rank, const Op& op) {
    std::int64_t when = ranks_[rank].tails.at(index_of(op.stream));
    for (std::size_t s = 0; s < streams; ++s)
      if ((op.after & (1U << s)) != 0) when = std::max(when, ranks_[rank].tails.at(s));
    for (const EventRef& ref : op.waits) when = std::max(when, event(rank, ref));
    return when;
  }
  void done(std::uint32_t rank, const Op& op, const Happening& happening) {
    ranks_[rank].tails.at(index_of(op.stream)) = happening.end;
    if (op.records) event(rank, *op.records) = happening.end;
    happenings[rank].push_back(happening);
  }

  void alone(std::uint32_t rank, const Op& op) {
    Rank& state = ranks_[rank];
    if (const auto* work = std::get_if<HostWork>(&op.work)) {
      state.host += work->duration.count();
    } else if (std::holds_alternative<HostWait>(op.work)) {
      state.host = std::max(state.host, ready(rank, op));
    } else if (std::holds_alternative<Wait>(op.work)) {
      state.tails.at(index_of(op.stream)) = ready(rank, op);
    } else if (const auto* compute = std::get_if<Compute>(&op.work)) {
      state.host += launch_;
      const std::int64_t start = std::max(ready(rank, op), state.host);
      const std::int64_t end = start + script_.kernels[index_of(compute->kernel)].duration.count();
      done(rank, op, {.start = start, .end = end, .transfer = 0, .layer = layer_});
    }
  }

  void together(const Item& item) {
    std::int64_t last = 0;
    std::vector<std::int64_t> arrivals;
    for (const auto& [rank, op] : item.ops) {
      ranks_[rank].host += launch_;
      arrivals.push_back(std::max({ready(rank, op), ranks_[rank].host, free_at_[item.communicator]}));
      last = std::max(last, arrivals.back());
    }
    const CallId call = std::get<Communicate>(item.ops.front().second.work).call;
    const std::int64_t end = last + script_.groups[item.communicator].cost_of_call[index_of(call)];
    for (std::size_t i = 0; i < item.ops.size(); ++i)
      done(item.ops[i].first, item.ops[i].second,
           {.start = arrivals[i], .end = end, .transfer = last, .layer = layer_});
    free_at_[item.communicator] = end;
  }

  const Script& script_;
  std::vector<Rank> ranks_;
  std::vector<std::int64_t> free_at_;
  std::uint16_t shift_ = 0;
  std::int64_t launch_ = 0;
  std::uint32_t layer_ = 0;

 public:
  std::vector<std::vector<Happening>> happenings;  // of each rank in the last step
  std::vector<std::int64_t> entered;               // each rank's compute stream, the last step
};

}  // namespace trainyard::sim
