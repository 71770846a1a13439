#include "sim/internal/recorder.hpp"

#include <algorithm>
#include <iterator>
#include <tuple>
#include <utility>

#include "sim/fold.hpp"

namespace trainyard::sim {

RecordList::Records& RecordList::of(std::uint32_t repetition) {
  if (repetitions_.size() <= repetition) repetitions_.resize(repetition + 1);
  return repetitions_[repetition];
}

void RecordList::take(std::uint32_t repetition, std::span<const OpRecord> operations) {
  std::vector<OpRecord>& all = of(repetition).operations;
  all.insert(all.end(), operations.begin(), operations.end());
}

void RecordList::take(std::uint32_t repetition, const MemoryRecord& memory) { of(repetition).memory.push_back(memory); }

void RecordList::drop(std::uint32_t repetition) { of(repetition) = {}; }

void RecordList::move_into(Outcome& outcome, std::uint32_t repetition) {
  outcome.records = std::move(of(repetition).operations);
  outcome.memory = std::move(of(repetition).memory);
  std::ranges::sort(outcome.records, {}, [](const OpRecord& record) {
    return std::tuple{record.rank, record.call, record.op};
  });
  std::ranges::stable_sort(outcome.memory, {}, &MemoryRecord::rank);
}

Recorder::Recorder(const Plan& plan, const Population& population, const RunOptions& options)
    : plan_(plan), population_(population), healthy_devices_(options.healthy_devices) {
  if (!options.record.empty()) follow(list_, options.record);
  if (options.sink == nullptr) return;
  options.sink->begin(plan);
  if (!options.sink_ranks.empty()) follow(*options.sink, options.sink_ranks);
}

void Recorder::follow(RecordSink& sink, std::span<const RankId> ranks) {
  number_.resize(population_.program_of.size(), 0);
  std::vector<RankId> asked(ranks.begin(), ranks.end());
  std::ranges::sort(asked);
  asked.erase(std::unique(asked.begin(), asked.end()), asked.end());
  Target& target = targets_.emplace_back();
  target.sink = &sink;
  for (const RankId rank : asked) {
    ensure(index_of(rank) < plan_.program_of.size(), "a recorded rank exists");
    const RankId stands_for_it = population_.class_of[rank];
    std::uint32_t& number = number_[index_of(stands_for_it)];
    if (number == 0) {
      followed_.push_back({.rank = stands_for_it, .allocated = {}, .open = {}, .memory = {}});
      followed_.back().open.resize(plan_.streams.size());
      number = static_cast<std::uint32_t>(followed_.size());
    }
    if (target.ranks.size() < number) target.ranks.resize(number);
    target.ranks[number - 1].push_back(rank);
  }
}

void Recorder::begin_training_step(std::uint32_t rank, std::uint32_t repetition) {
  Followed& followed = of(rank);
  followed.allocated = plan_.programs[population_.program_of[RankId{rank}]].resident;
  followed.resident = followed.handed_over + followed.memory.size();
  followed.memory.push_back({.record = {followed.rank, TimePoint{}, followed.allocated}, .repetition = repetition});
}

void Recorder::enter_training_step(std::uint32_t rank, std::int64_t when) {
  Followed& followed = of(rank);
  PendingMemory& resident = memory_at(followed, followed.resident);
  resident.record.when = TimePoint{Duration{when}};
  resident.known = true;
  hand_over_memory(followed);
}

void Recorder::note_memory(Followed& followed, const Memory& change, std::int64_t when, std::uint32_t repetition) {
  followed.allocated.at(static_cast<std::size_t>(change.purpose)) += change.change;
  followed.memory.push_back(
      {.record = {followed.rank, TimePoint{Duration{when}}, followed.allocated}, .repetition = repetition});
}

void Recorder::start_kernels(std::uint32_t rank, const Step& step, const BlockCall& call, const Turn& turn) {
  Followed& followed = of(rank);
  Open& open = followed.open[index_of(step.stream)];
  open.repetition = turn.repetition;
  open.first_memory = followed.handed_over + followed.memory.size();
  const Block& block = plan_.blocks[call.block];
  std::int64_t ready = turn.ready;
  std::int64_t host = turn.host;
  for (std::uint32_t i = step.first_op; i < step.first_op + step.op_count; ++i) {
    const Op& op = block.ops[i];
    if (const auto* change = std::get_if<Memory>(&op.work)) {
      note_memory(followed, *change, ready, turn.repetition);
      continue;
    }
    if (std::holds_alternative<Wait>(op.work)) continue;
    host += block.launch.count();
    const std::int64_t start = std::max(ready, host);
    const KernelId kernel = std::get<Compute>(op.work).kernel;
    ready = start + plan_.duration_of(kernel, population_.device_class_of[RankId{rank}], healthy_devices_).count();
    open.operations.push_back({.rank = RankId{rank},
                               .stream = op.stream,
                               .block = call.block,
                               .call = turn.call,
                               .op = i,
                               .layer = call.layer,
                               .micro_batch = call.micro_batch,
                               .start = TimePoint{Duration{start}},
                               .end = TimePoint{Duration{ready}}});
  }
  open.memory_count = followed.handed_over + followed.memory.size() - open.first_memory;
}

void Recorder::stretch_kernels(std::uint32_t rank, std::int64_t start, std::int64_t natural, std::int64_t end) {
  __extension__ using Wide = __int128;
  const auto stretch = [&](TimePoint& when) {
    const std::int64_t offset = when.time_since_epoch().count() - start;
    const auto scaled = static_cast<std::int64_t>(static_cast<Wide>(offset) * (end - start) /
                                                  std::max<std::int64_t>(1, natural - start));
    when = TimePoint{Duration{start + scaled}};
  };
  Followed& followed = of(rank);
  Open& open = followed.open[index_of(compute_stream)];
  for (OpRecord& record : open.operations) {
    stretch(record.start);
    stretch(record.end);
  }
  for (std::size_t i = 0; i < open.memory_count; ++i) stretch(memory_at(followed, open.first_memory + i).record.when);
}

void Recorder::end_kernels(std::uint32_t rank, StreamId stream) {
  Followed& followed = of(rank);
  Open& open = followed.open[index_of(stream)];
  for (std::size_t i = 0; i < open.memory_count; ++i) memory_at(followed, open.first_memory + i).known = true;
  open.memory_count = 0;
  hand_over_memory(followed);
  if (!open.operations.empty()) hand_over(open.repetition, open.operations);
  open.operations.clear();
}

void Recorder::start_communication(std::uint32_t rank, std::uint32_t repetition, const OpRecord& record) {
  Open& open = of(rank).open[index_of(record.stream)];
  open.repetition = repetition;
  open.operations.push_back(record);
}

void Recorder::end_communication(std::uint32_t rank, StreamId stream, std::int64_t transfer, std::int64_t end) {
  Open& open = of(rank).open[index_of(stream)];
  OpRecord& record = open.operations.front();
  record.transfer = TimePoint{Duration{transfer}};
  record.end = TimePoint{Duration{end}};
  ended_repetition_ = open.repetition;
  ended_.push_back(record);
  open.operations.clear();
}

void Recorder::hand_over_communication() {
  if (ended_.empty()) return;
  hand_over(ended_repetition_, ended_);
  ended_.clear();
}

void Recorder::hand_over_memory(Followed& followed) {
  for (; !followed.memory.empty() && followed.memory.front().known; followed.memory.pop_front()) {
    const PendingMemory& pending = followed.memory.front();
    const std::size_t index = index_of_rank(static_cast<std::uint32_t>(index_of(followed.rank)));
    for (const Target& target : targets_) {
      if (index >= target.ranks.size()) continue;
      for (const RankId rank : target.ranks[index]) {
        MemoryRecord record = pending.record;
        record.rank = rank;
        target.sink->take(pending.repetition, record);
      }
    }
    ++followed.handed_over;
  }
}

// The record of a rank that stands for `rank`.
OpRecord Recorder::named(OpRecord record, RankId rank) const {
  record.rank = rank;
  const Op& op = plan_.blocks[record.block].ops[record.op];
  if (const auto* communicate = std::get_if<Communicate>(&op.work))
    record.communicator = plan_.communicators.of(rank, plan_.calls[communicate->call].slot);
  return record;
}

void Recorder::hand_over(std::uint32_t repetition, std::span<const OpRecord> ended) {
  for (const Target& target : targets_) {
    named_.clear();
    for (const OpRecord& record : ended) {
      const std::size_t index = index_of_rank(static_cast<std::uint32_t>(index_of(record.rank)));
      if (index >= target.ranks.size()) continue;
      for (const RankId rank : target.ranks[index]) named_.push_back(named(record, rank));
    }
    if (!named_.empty()) target.sink->take(repetition, named_);
  }
}

void Recorder::drop(std::uint32_t repetition) {
  for (const Target& target : targets_) target.sink->drop(repetition);
}

}  // namespace trainyard::sim
