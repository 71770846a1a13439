#include "sim/lower_bound.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "sim/executor.hpp"
#include "sim/fold.hpp"

namespace trainyard::sim {
namespace {

// Before anything that matters; safe to add to.
constexpr std::int64_t long_ago = std::numeric_limits<std::int64_t>::min() / 4;

bool counts(const BlockCall& call, StepPart part) { return part == StepPart::all || call.micro_batch >= 0; }

// Of each kernel, on the fastest class of devices.
Table<KernelId, std::int64_t> kernel_durations(const Plan& plan) {
  Table<KernelId, std::int64_t> durations(plan.kernels.size());
  for (std::size_t i = 0; i < plan.kernels.size(); ++i) {
    const KernelId kernel = plan.kernels.id(i);
    durations[kernel] = plan.kernels[kernel].duration.count();
    if (plan.device_classes.empty()) continue;
    durations[kernel] = std::numeric_limits<std::int64_t>::max();
    for (const DeviceClass& device : plan.device_classes)
      durations[kernel] = std::min(durations[kernel], device.kernels[i].count());
  }
  return durations;
}

// Of each call, between the ranks that are through with it soonest, with the network for themselves.
Table<CallId, std::int64_t> call_durations(const Plan& plan, StepPart part) {
  constexpr std::int64_t nobody = std::numeric_limits<std::int64_t>::max();
  Table<CallId, std::int64_t> durations(plan.calls.size(), nobody);
  std::vector<std::vector<bool>> seen(plan.slots.size(), std::vector<bool>(plan.costs.size(), false));
  std::vector<std::vector<CallId>> calls(plan.slots.size());
  for (std::size_t i = 0; i < plan.calls.size(); ++i)
    calls[index_of(plan.calls[plan.calls.id(i)].slot)].push_back(plan.calls.id(i));
  for (std::size_t i = 0; i < plan.communicators.size(); ++i) {
    const Communicator& communicator = plan.communicators[CommunicatorId{static_cast<std::uint32_t>(i)}];
    for (std::uint32_t m = 0; m < communicator.member_count; ++m) {
      const std::size_t slot = index_of(plan.communicators.member_slot(communicator, m));
      if (seen[slot][index_of(communicator.cost)]) continue;
      seen[slot][index_of(communicator.cost)] = true;
      for (const CallId call : calls[slot])
        durations[call] = std::min(durations[call], plan.costs[communicator.cost][index_of(call)].duration.count());
    }
  }
  for (std::size_t i = 0; i < plan.calls.size(); ++i) {
    const CallId call = plan.calls.id(i);
    const Purpose purpose = plan.calls[call].purpose;
    const bool moves_state = purpose == Purpose::data || purpose == Purpose::offload;
    if (durations[call] == nobody || (part == StepPart::passes && moves_state)) durations[call] = 0;
  }
  return durations;
}

class Bound {
 public:
  Bound(const Plan& plan, StepPart part)
      : plan_(plan),
        part_(part),
        kernels_(kernel_durations(plan)),
        calls_(call_durations(plan, part)),
        chains_(plan.blocks.size()),
        transfers_(plan.blocks.size(), false) {
    for (std::size_t i = 0; i < plan.blocks.size(); ++i)
      chains_[plan.blocks.id(i)] = chain(plan.blocks[plan.blocks.id(i)]);
    find_transfers();
  }

  std::int64_t programs_alone() const;
  std::int64_t streams_alone() const;
  std::int64_t pipeline_alone() const;

 private:
  // From stage to stage.
  bool is_transfer(const Op& op) const {
    const auto* communicate = std::get_if<Communicate>(&op.work);
    if (communicate == nullptr) return false;
    const Call& call = plan_.calls[communicate->call];
    return call.purpose == Purpose::pipeline &&
           (call.kind == CollectiveKind::send || call.kind == CollectiveKind::receive);
  }
  std::int64_t chain(const Block& block) const;
  void find_transfers();
  std::optional<std::vector<RankId>> column() const;
  Plan reduced(const std::vector<RankId>& ranks) const;
  Block transfer_block(const Block& block) const;

  const Plan& plan_;
  StepPart part_;
  Table<KernelId, std::int64_t> kernels_;
  Table<CallId, std::int64_t> calls_;
  Table<BlockId, std::int64_t> chains_;
  std::vector<bool> transfers_;  // of each block: it transfers between stages, or waits for that
};

// The longest chain from the compute stream's entering the block to its leaving it.
std::int64_t Bound::chain(const Block& block) const {
  std::array<std::int64_t, most_streams> tails{};
  tails.fill(long_ago);
  tails[index_of(compute_stream)] = 0;
  std::int64_t host = long_ago;
  std::vector<std::pair<EventRef, std::int64_t>> events;
  const auto ready = [&](const Op& op) {
    std::int64_t time = std::max(tails.at(index_of(op.stream)), host);
    for (unsigned set = op.after; set != 0; set &= set - 1) time = std::max(time, tails.at(std::countr_zero(set)));
    for (const EventRef& wait : op.waits)
      for (const auto& [event, when] : events)
        if (event.index == wait.index && event.relative == wait.relative) time = std::max(time, when);
    return time;
  };
  for (const Op& op : block.ops) {
    if (std::holds_alternative<Memory>(op.work)) continue;
    if (const auto* work = std::get_if<HostWork>(&op.work)) {
      host += work->duration.count();
      continue;
    }
    if (std::holds_alternative<HostWait>(op.work)) {
      host = std::max(host, ready(op));
      continue;
    }
    std::int64_t end = ready(op);
    if (const auto* compute = std::get_if<Compute>(&op.work)) end += kernels_[compute->kernel];
    if (const auto* communicate = std::get_if<Communicate>(&op.work)) end += calls_[communicate->call];
    tails.at(index_of(op.stream)) = end;
    if (!op.records) continue;
    // Recorded anew, it is another event.
    std::erase_if(events, [&](const auto& event) {
      return event.first.index == op.records->index && event.first.relative == op.records->relative;
    });
    events.emplace_back(*op.records, end);
  }
  return tails[index_of(compute_stream)];
}

void Bound::find_transfers() {
  StreamSet streams = 0;
  std::vector<EventRef> events;
  for (const Block& block : plan_.blocks)
    for (const Op& op : block.ops) {
      if (!is_transfer(op)) continue;
      streams = static_cast<StreamSet>(streams | set_of(op.stream));
      if (op.records) events.push_back(*op.records);
    }
  streams = static_cast<StreamSet>(streams & ~set_of(compute_stream));
  const auto awaits = [&](const Op& op) {
    if ((op.after & streams) != 0) return true;
    return std::ranges::any_of(op.waits, [&](const EventRef& wait) {
      return std::ranges::any_of(events, [&](const EventRef& event) {
        return event.relative == wait.relative && (event.relative || event.index == wait.index);
      });
    });
  };
  for (std::size_t i = 0; i < plan_.blocks.size(); ++i) {
    const BlockId id = plan_.blocks.id(i);
    transfers_[i] =
        std::ranges::any_of(plan_.blocks[id].ops, [&](const Op& op) { return is_transfer(op) || awaits(op); });
  }
}

std::int64_t Bound::programs_alone() const {
  std::int64_t longest = 0;
  for (const Program& program : plan_.programs) {
    std::int64_t sum = 0;
    for (const BlockCall& call : program.calls)
      if (counts(call, part_)) sum += chains_[call.block];
    longest = std::max(longest, sum);
  }
  return longest;
}

std::int64_t Bound::streams_alone() const {
  Table<BlockId, std::array<std::int64_t, most_streams>> busy(plan_.blocks.size());
  for (std::size_t i = 0; i < plan_.blocks.size(); ++i)
    for (const Op& op : plan_.blocks[plan_.blocks.id(i)].ops) {
      std::int64_t& of_stream = busy[plan_.blocks.id(i)].at(index_of(op.stream));
      if (const auto* compute = std::get_if<Compute>(&op.work)) of_stream += kernels_[compute->kernel];
      if (const auto* communicate = std::get_if<Communicate>(&op.work)) of_stream += calls_[communicate->call];
    }
  std::int64_t longest = 0;
  for (const Program& program : plan_.programs) {
    std::array<std::int64_t, most_streams> sums{};
    for (const BlockCall& call : program.calls)
      if (counts(call, part_))
        for (std::size_t s = 0; s < plan_.streams.size(); ++s) sums.at(s) += busy[call.block].at(s);
    longest = std::max(longest, *std::ranges::max_element(sums));
  }
  return longest;
}

// One rank and all that it exchanges activations and gradients with; nothing where that is more than one of each stage,
// or two.
std::optional<std::vector<RankId>> Bound::column() const {
  std::vector<SlotId> slots;
  for (std::size_t i = 0; i < plan_.calls.size(); ++i) {
    const Call& call = plan_.calls[plan_.calls.id(i)];
    if (call.purpose == Purpose::pipeline &&
        (call.kind == CollectiveKind::send || call.kind == CollectiveKind::receive))
      slots.push_back(call.slot);
  }
  if (slots.empty()) return std::nullopt;
  std::vector<RankId> ranks{RankId{0}};
  for (std::size_t next = 0; next < ranks.size(); ++next) {
    for (const SlotId slot : slots) {
      if (!plan_.communicators.has(ranks[next], slot)) continue;
      const Communicator& pair = plan_.communicators[plan_.communicators.of(ranks[next], slot)];
      if (pair.member_count != 2) return std::nullopt;
      for (const std::uint32_t end : {0U, 1U}) {
        const RankId member = plan_.communicators.member(pair, end);
        if (std::ranges::find(ranks, member) == ranks.end()) ranks.push_back(member);
      }
      if (ranks.size() > 2 * plan_.programs.size()) return std::nullopt;
    }
  }
  return ranks;
}

// Of a block only what transfers, waits for that, and computes; the host takes no time.
Block Bound::transfer_block(const Block& block) const {
  Block kept{.name = block.name, .launch = {}, .ops = {}};
  for (const Op& op : block.ops) {
    if (std::holds_alternative<Memory>(op.work) || std::holds_alternative<HostWork>(op.work)) continue;
    if (!std::holds_alternative<Communicate>(op.work) || is_transfer(op)) {
      kept.ops.push_back(op);
      continue;
    }
    // Where another waits for it, that waits for what was before.
    Op instead = op;
    instead.work = Wait{};
    kept.ops.push_back(std::move(instead));
  }
  return kept;
}

Plan Bound::reduced(const std::vector<RankId>& ranks) const {
  Plan plan;
  plan.streams = plan_.streams;
  plan.slots = plan_.slots;
  plan.absolute_events = plan_.absolute_events;
  plan.relative_events = plan_.relative_events;
  plan.kernels = plan_.kernels;
  for (std::size_t i = 0; i < plan.kernels.size(); ++i)
    plan.kernels[plan.kernels.id(i)].duration = Duration{kernels_[plan.kernels.id(i)]};
  plan.calls = plan_.calls;

  Table<BlockId, std::optional<BlockId>> transfers(plan_.blocks.size());
  std::map<std::int64_t, BlockId> chains;
  const auto chain_block = [&](std::int64_t duration) {
    const auto known = chains.find(duration);
    if (known != chains.end()) return known->second;
    const KernelId kernel = plan.kernels.add(Kernel{.name = "chain", .duration = Duration{duration}});
    Block block{.name = "chain", .launch = {}, .ops = {Op{.stream = compute_stream, .work = Compute{kernel}}}};
    return chains.emplace(duration, plan.blocks.add(std::move(block))).first->second;
  };
  std::map<ProgramId, ProgramId> programs;
  const auto program_of = [&](ProgramId id) {
    if (const auto known = programs.find(id); known != programs.end()) return known->second;
    Program program;
    std::int64_t sum = 0;
    const auto close = [&] {
      if (sum > 0) program.calls.push_back({.block = chain_block(sum)});
      sum = 0;
    };
    for (const BlockCall& call : plan_.programs[id].calls) {
      if (!transfers_[index_of(call.block)]) {
        if (counts(call, part_)) sum += chains_[call.block];
        continue;
      }
      close();
      std::optional<BlockId>& transfer = transfers[call.block];
      if (!transfer) transfer = plan.blocks.add(transfer_block(plan_.blocks[call.block]));
      program.calls.push_back(call);
      program.calls.back().block = *transfer;
    }
    close();
    return programs.emplace(id, plan.programs.add(std::move(program))).first->second;
  };

  plan.communicators = CommunicatorTable(ranks.size(), plan.slots.size());
  const auto place_of = [&](RankId rank) {
    return RankId{static_cast<std::uint32_t>(std::ranges::find(ranks, rank) - ranks.begin())};
  };
  std::map<CommunicatorId, CommunicatorId> pairs;
  for (const RankId rank : ranks) {
    plan.program_of.add(program_of(plan_.program_of[rank]));
    for (const Call& call : plan_.calls) {
      const bool transfers_it = call.purpose == Purpose::pipeline &&
                                (call.kind == CollectiveKind::send || call.kind == CollectiveKind::receive);
      if (!transfers_it || !plan_.communicators.has(rank, call.slot)) continue;
      const CommunicatorId id = plan_.communicators.of(rank, call.slot);
      if (pairs.contains(id)) continue;
      const Communicator& pair = plan_.communicators[id];
      const CommunicatorId added = plan.communicators.add(
          {place_of(plan_.communicators.member(pair, 0)), place_of(plan_.communicators.member(pair, 1))},
          {plan_.communicators.member_slot(pair, 0), plan_.communicators.member_slot(pair, 1)});
      std::vector<CommunicationCost> costs = plan_.costs[pair.cost];
      for (CommunicationCost& cost : costs) cost.interference = 0;
      plan.communicators[added].cost = plan.costs.add(std::move(costs));
      pairs.emplace(id, added);
    }
  }
  return plan;
}

std::int64_t Bound::pipeline_alone() const {
  const std::optional<std::vector<RankId>> ranks = column();
  if (!ranks) return 0;
  const Plan plan = reduced(*ranks);
  const Outcome outcome = run(plan, everyone(plan), {});
  return outcome.steady && outcome.stall.empty() ? outcome.step_time.count() : 0;
}

}  // namespace

Duration least_step_time(const Plan& plan, StepPart part) {
  const Bound bound(plan, part);
  const std::int64_t longest = std::max({bound.programs_alone(), bound.streams_alone(), bound.pipeline_alone()});
  return Duration{longest - longest / 500'000};
}

std::array<double, kernel_classes> mean_kernel_time(const Plan& plan, StepPart part) {
  const Table<KernelId, std::int64_t> durations = kernel_durations(plan);
  Table<BlockId, std::array<std::int64_t, kernel_classes>> of_block(plan.blocks.size());
  for (std::size_t i = 0; i < plan.blocks.size(); ++i)
    for (const Op& op : plan.blocks[plan.blocks.id(i)].ops)
      if (const auto* compute = std::get_if<Compute>(&op.work); compute != nullptr && op.stream == compute_stream)
        of_block[plan.blocks.id(i)].at(static_cast<std::size_t>(plan.kernels[compute->kernel].kind)) +=
            durations[compute->kernel];
  Table<ProgramId, std::array<double, kernel_classes>> of_program(plan.programs.size());
  for (std::size_t i = 0; i < plan.programs.size(); ++i)
    for (const BlockCall& call : plan.programs[plan.programs.id(i)].calls)
      if (counts(call, part))
        for (std::size_t k = 0; k < kernel_classes; ++k)
          of_program[plan.programs.id(i)].at(k) += static_cast<double>(of_block[call.block].at(k));
  std::array<double, kernel_classes> mean{};
  for (const ProgramId program : plan.program_of)
    for (std::size_t k = 0; k < kernel_classes; ++k) mean.at(k) += of_program[program].at(k);
  for (double& each : mean) each *= 1e-12 / static_cast<double>(plan.program_of.size());
  return mean;
}

Bytes activation_peak(const Plan& plan, const Program& program) {
  Table<BlockId, std::vector<Bytes>> changes(plan.blocks.size());
  for (std::size_t i = 0; i < plan.blocks.size(); ++i)
    for (const Op& op : plan.blocks[plan.blocks.id(i)].ops)
      if (const auto* memory = std::get_if<Memory>(&op.work);
          memory != nullptr && memory->purpose == MemoryPurpose::activations)
        changes[plan.blocks.id(i)].push_back(memory->change);
  Bytes kept{};
  Bytes peak{};
  for (const BlockCall& call : program.calls)
    for (const Bytes change : changes[call.block]) {
      kept += change;
      peak = std::max(peak, kept);
    }
  return peak;
}

}  // namespace trainyard::sim
