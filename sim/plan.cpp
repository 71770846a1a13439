#include "sim/plan.hpp"

#include <map>
#include <utility>

namespace trainyard::sim {

std::string_view to_string(Purpose purpose) {
  constexpr std::array<std::string_view, purposes> names{"data", "tensor", "pipeline", "context", "expert", "offload"};
  return names.at(static_cast<std::size_t>(purpose));
}

std::string_view to_string(CollectiveKind kind) {
  constexpr std::array<std::string_view, collective_kinds> names{
      "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "reduce", "barrier", "send", "receive"};
  return names.at(static_cast<std::size_t>(kind));
}

std::string_view to_string(MemoryPurpose purpose) {
  constexpr std::array<std::string_view, memory_purposes> names{"parameters", "gradients", "optimizer", "activations",
                                                                "buffers"};
  return names.at(static_cast<std::size_t>(purpose));
}

CommunicatorId CommunicatorTable::add(std::span<const RankId> members, std::span<const SlotId> slots) {
  ensure(!members.empty() && members.size() == slots.size(), "every member of a communicator names its slot");
  const auto first = static_cast<std::uint32_t>(members_.size());
  const CommunicatorId id = communicators_.add({.slot = slots.front(),
                                                .cost = {},
                                                .first_member = first,
                                                .member_count = static_cast<std::uint32_t>(members.size())});
  for (std::size_t i = 0; i < members.size(); ++i) {
    std::uint32_t& entry = of_[index_of(members[i]) * slots_ + index_of(slots[i])];
    ensure(entry == none, "a rank has one communicator per slot");
    entry = static_cast<std::uint32_t>(index_of(id));
  }
  members_.insert(members_.end(), members.begin(), members.end());
  member_slots_.insert(member_slots_.end(), slots.begin(), slots.end());
  return id;
}

namespace {

// Running totals over a program, and the highest so far.
struct MemoryWalk {
  std::array<Bytes, memory_purposes> now{};
  Bytes total{};
  MemoryPeak peak;

  void change(const Memory& memory) {
    now.at(static_cast<std::size_t>(memory.purpose)) += memory.change;
    total += memory.change;
    if (total > peak.total) peak = {.at_peak = now, .total = total};
  }
};

// Calls `change(block, memory)` for every change of a step, in the order of the host, until it returns false.
template <class Change>
void for_each_change(const Plan& plan, const Program& program, Change change) {
  // Most operations change no memory: gather those that do once per block.
  std::vector<std::vector<Memory>> changes(plan.blocks.size());
  std::vector<bool> gathered(plan.blocks.size(), false);
  for (const BlockCall& call : program.calls) {
    const std::size_t block = index_of(call.block);
    if (!gathered[block]) {
      gathered[block] = true;
      for (const Op& op : plan.blocks[call.block].ops)
        if (const auto* memory = std::get_if<Memory>(&op.work)) changes[block].push_back(*memory);
    }
    for (const Memory& memory : changes[block])
      if (!change(call.block, memory)) return;
  }
}

}  // namespace

MemoryPeak memory_peak(const Plan& plan, const Program& program) {
  MemoryWalk walk;
  for (std::size_t purpose = 0; purpose < memory_purposes; ++purpose)
    walk.change({static_cast<MemoryPurpose>(purpose), program.resident.at(purpose)});
  for_each_change(plan, program, [&](BlockId, const Memory& memory) {
    walk.change(memory);
    return true;
  });
  return walk.peak;
}

std::vector<MemoryHolder> memory_holders(const Plan& plan, const Program& program) {
  Bytes left = memory_peak(plan, program).total;
  for (const Bytes resident : program.resident) left = left - resident;
  std::map<std::pair<BlockId, MemoryPurpose>, Bytes> held;
  if (left.count > 0)
    for_each_change(plan, program, [&](BlockId block, const Memory& memory) {
      held[{block, memory.purpose}] += memory.change;
      left = left - memory.change;
      return left.count != 0;
    });
  std::vector<MemoryHolder> holders;
  for (const auto& [of, bytes] : held)
    if (bytes.count != 0) holders.push_back({.block = of.first, .purpose = of.second, .bytes = bytes});
  return holders;
}

namespace {

template <class Work, class IdOf>
std::vector<std::int64_t> counts(const Plan& plan, const Program& program, std::size_t size, IdOf id_of) {
  std::vector<std::int64_t> calls_of_block(plan.blocks.size(), 0);
  for (const BlockCall& call : program.calls) ++calls_of_block[index_of(call.block)];
  std::vector<std::int64_t> result(size, 0);
  for (std::size_t block = 0; block < calls_of_block.size(); ++block) {
    if (calls_of_block[block] == 0) continue;
    for (const Op& op : plan.blocks[plan.blocks.id(block)].ops)
      if (const auto* work = std::get_if<Work>(&op.work)) result[index_of(id_of(*work))] += calls_of_block[block];
  }
  return result;
}

}  // namespace

std::vector<std::int64_t> call_counts(const Plan& plan, const Program& program) {
  return counts<Communicate>(plan, program, plan.calls.size(), [](const Communicate& work) { return work.call; });
}

std::vector<std::int64_t> kernel_counts(const Plan& plan, const Program& program) {
  return counts<Compute>(plan, program, plan.kernels.size(), [](const Compute& work) { return work.kernel; });
}

}  // namespace trainyard::sim
