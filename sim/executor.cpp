#include "sim/executor.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <span>

#include "sim/fold.hpp"
#include "sim/internal/step_list.hpp"

namespace trainyard::sim {
namespace {

constexpr std::int64_t unknown = std::numeric_limits<std::int64_t>::min();
constexpr std::uint32_t no_call = 0xffffffff;
constexpr std::uint16_t no_event = 0xffff;

// When something on a stream is done, and what a wait for it was about. Times in picoseconds.
struct Completion {
  std::int64_t end = 0;       // `unknown` while members of the communication have yet to arrive
  std::int64_t arrival = 0;   // this rank's
  std::int64_t transfer = 0;  // the last member's
  std::uint32_t call = no_call;
  std::uint32_t stamp = 0;  // of an event: which of the rank's records it holds
};

class Executor {
 public:
  Executor(const Plan& plan, const Population& population, const RunOptions& options);
  Outcome run();

 private:
  struct RankState {
    std::int64_t host = 0;
    std::int64_t communicating_until = 0;
    std::uint32_t call = 0;  // next block call of the program
    std::uint32_t step = 0;  // next step of that block
    std::uint32_t pending_slots = 0;
    std::uint32_t records = 0;  // of events, so far
    bool queued = false;
  };
  struct Joined {  // what a member of an open communication is waiting with, per (rank, slot)
    std::int64_t arrival = 0;
    std::uint32_t call = 0;
    std::uint16_t event = no_event;
    StreamId stream{};
    std::uint32_t record = 0;  // 1 + index into records, 0 for none
    std::uint32_t stamp = 0;   // of the event
  };
  // Communications whose end is not known yet may cover the gap.
  struct Gap {
    std::int64_t from = 0;
    std::int64_t to = 0;
    std::uint32_t pending_slots = 0;
  };
  struct CommunicatorState {
    std::int64_t last_arrival = 0;
    std::int64_t free_at = 0;
    std::uint32_t arrived = 0;
    std::uint32_t call = 0;
    std::uint32_t sequence = 0;
  };

  bool run_step();  // every rank once through its program; false when some stall
  void advance(std::uint32_t rank);
  bool execute(std::uint32_t rank, const Step& step, const BlockCall& call);
  void execute_kernels(std::uint32_t rank, const Step& step, const BlockCall& call, std::int64_t ready);
  void record_kernels(std::uint32_t rank, const Step& step, const BlockCall& call, std::int64_t ready);
  void communicate(std::uint32_t rank, const Step& step, const BlockCall& call, std::int64_t ready);
  void resolve(CommunicatorId id, std::int64_t end);
  // When everything that the step waits for is done; false while something is unknown. Attributes the time that the
  // compute stream loses.
  bool wait_all(std::uint32_t rank, const Step& step, const BlockCall& call, std::int64_t& ready);
  void account_wait(std::uint32_t rank, const Completion& done, std::int64_t from);
  // The host let the device run dry from `from` to `to`: idle, as far as no communication issued before was under way.
  void note_gap(std::uint32_t rank, std::int64_t from, std::int64_t to);
  void close_gaps(std::uint32_t rank, std::uint32_t slot, std::int64_t end);
  std::uint32_t record_event(std::uint32_t rank, std::uint16_t event, Completion completion) {
    completion.stamp = ++ranks_[rank].records;
    events_[rank * event_count_ + event] = completion;
    return completion.stamp;
  }
  std::uint16_t event_of(const EventRef& ref, const BlockCall& call) const {
    if (!ref.relative) return ref.index;
    return static_cast<std::uint16_t>(plan_.absolute_events + (ref.index + call.event_shift) % plan_.relative_events);
  }
  std::int64_t weight_of(std::uint32_t rank) const { return population_.weight[RankId{rank}]; }
  Completion& tail(std::uint32_t rank, StreamId stream) { return tails_[rank * stream_count_ + index_of(stream)]; }
  std::vector<std::int64_t> state() const;
  bool moved_as_a_whole(const std::vector<std::int64_t>& before, const std::vector<std::int64_t>& after,
                        std::int64_t step) const;
  void name_recorded_ranks();
  std::string describe_stall() const;

  const Plan& plan_;
  const Population& population_;  // ranks and communicators below are its, not the plan's
  const RunOptions& options_;
  std::size_t stream_count_;
  std::size_t slot_count_;
  std::size_t event_count_;

  StepList compiled_;

  std::vector<RankState> ranks_;
  std::vector<Completion> tails_;   // (rank, stream)
  std::vector<Completion> events_;  // (rank, event)
  std::vector<Joined> joined_;      // (rank, slot)
  Table<CommunicatorId, CommunicatorState> communicators_;
  std::vector<std::vector<Gap>> gaps_;  // per rank, in order of time
  std::vector<std::uint32_t> runnable_;
  std::vector<std::uint8_t> recorded_;  // 1 + index into memory_now_, 0 for ranks without records
  std::vector<std::array<Bytes, memory_purposes>> memory_now_;

  Outcome outcome_;
};

Executor::Executor(const Plan& plan, const Population& population, const RunOptions& options)
    : plan_(plan),
      population_(population),
      options_(options),
      stream_count_(plan.streams.size()),
      slot_count_(std::max<std::size_t>(1, plan.communicators.slots())),
      event_count_(std::max<std::size_t>(1, plan.event_count())),
      compiled_(compile_steps(plan)),
      ranks_(population.program_of.size()),
      tails_(population.program_of.size() * stream_count_),
      events_(population.program_of.size() * event_count_),
      joined_(population.program_of.size() * slot_count_),
      communicators_(population.communicators.size()),
      gaps_(population.program_of.size()),
      recorded_(population.program_of.size(), 0) {
  ensure(stream_count_ >= 1 && stream_count_ <= most_streams, "a plan has between one and most_streams streams");
  ensure(plan.communicators.slots() <= most_slots, "a plan has at most most_slots slots");
  ensure(options.record.size() < 250, "at most 249 ranks are recorded");
  for (const RankId asked : options.record) {
    ensure(index_of(asked) < plan.program_of.size(), "a recorded rank exists");
    const RankId rank = population.class_of[asked];
    if (recorded_[index_of(rank)] != 0) continue;
    memory_now_.emplace_back();
    recorded_[index_of(rank)] = static_cast<std::uint8_t>(memory_now_.size());
  }
}

void Executor::account_wait(std::uint32_t rank, const Completion& done, std::int64_t from) {
  const Duration lost{done.end - from};
  if (done.call == no_call) {  // a kernel on another stream: copies, as a rule
    outcome_.time.kernels[static_cast<std::size_t>(KernelClass::memory_bound)].add(lost, weight_of(rank));
    return;
  }
  const Duration late{std::max<std::int64_t>(0, done.transfer - std::max(from, done.arrival))};
  outcome_.time.bubble.add(late, weight_of(rank));
  const CallId call{done.call};
  outcome_.time.exposed.at(static_cast<std::size_t>(plan_.calls[call].purpose)).add(lost - late, weight_of(rank));
  outcome_.calls[call].exposed.add(lost - late, weight_of(rank));
}

bool Executor::wait_all(std::uint32_t rank, const Step& step, const BlockCall& call, std::int64_t& ready) {
  const Completion* tails = &tails_[rank * stream_count_];
  const Completion* events = &events_[rank * event_count_];
  const std::int64_t own = tails[index_of(step.stream)].end;
  if (own == unknown) return false;
  for (unsigned set = step.after; set != 0; set &= set - 1)
    if (tails[std::countr_zero(set)].end == unknown) return false;
  const std::span<const EventRef> waits(compiled_.waits.data() + step.first_wait, step.wait_count);
  for (const EventRef& ref : waits)
    if (events[event_of(ref, call)].end == unknown) return false;

  ready = own;
  const bool on_compute = step.stream == compute_stream && step.kind != Step::Kind::host_wait;
  const auto take = [&](const Completion& done) {
    if (done.end <= ready) return;
    if (on_compute) account_wait(rank, done, ready);
    ready = done.end;
  };
  for (unsigned set = step.after; set != 0; set &= set - 1) take(tails[std::countr_zero(set)]);
  for (const EventRef& ref : waits) take(events[event_of(ref, call)]);
  return true;
}

void Executor::record_kernels(std::uint32_t rank, const Step& step, const BlockCall& call, std::int64_t ready) {
  const Block& block = plan_.blocks[call.block];
  std::int64_t host = ranks_[rank].host;
  for (std::uint32_t i = step.first_op; i < step.first_op + step.op_count; ++i) {
    const Op& op = block.ops[i];
    auto& memory = memory_now_[recorded_[rank] - 1U];
    if (const auto* change = std::get_if<Memory>(&op.work)) {
      memory.at(static_cast<std::size_t>(change->purpose)) += change->change;
      outcome_.memory.push_back({RankId{rank}, TimePoint{Duration{ready}}, memory});
      continue;
    }
    if (std::holds_alternative<Wait>(op.work)) continue;
    host += block.launch.count();
    const std::int64_t start = std::max(ready, host);
    ready = start + plan_.kernels[std::get<Compute>(op.work).kernel].duration.count();
    outcome_.records.push_back({.rank = RankId{rank},
                                .stream = op.stream,
                                .block = call.block,
                                .op = i,
                                .layer = call.layer,
                                .micro_batch = call.micro_batch,
                                .start = TimePoint{Duration{start}},
                                .end = TimePoint{Duration{ready}}});
  }
}

void Executor::note_gap(std::uint32_t rank, std::int64_t from, std::int64_t to) {
  const RankState& state = ranks_[rank];
  const Gap gap{.from = std::max(from, state.communicating_until), .to = to, .pending_slots = state.pending_slots};
  if (gap.from >= gap.to) return;
  if (gap.pending_slots != 0)
    gaps_[rank].push_back(gap);
  else
    outcome_.time.idle.add(Duration{gap.to - gap.from}, weight_of(rank));
}

void Executor::close_gaps(std::uint32_t rank, std::uint32_t slot, std::int64_t end) {
  std::erase_if(gaps_[rank], [&](Gap& gap) {
    if ((gap.pending_slots & slot) == 0) return false;
    gap.pending_slots &= ~slot;
    gap.from = std::max(gap.from, end);
    if (gap.pending_slots != 0) return false;
    if (gap.from < gap.to) outcome_.time.idle.add(Duration{gap.to - gap.from}, weight_of(rank));
    return true;
  });
}

void Executor::execute_kernels(std::uint32_t rank, const Step& step, const BlockCall& call, std::int64_t ready) {
  RankState& state = ranks_[rank];
  if (recorded_[rank] != 0) record_kernels(rank, step, call, ready);
  const std::int64_t end = std::max(later(ready, step.busy), later(state.host, step.host_bound));
  if (step.stream == compute_stream) {
    for (std::size_t k = 0; k < kernel_classes; ++k)
      if (step.by_class[k] != 0) outcome_.time.kernels[k].add(Duration{step.by_class[k]}, weight_of(rank));
    const std::int64_t starved = end - ready - step.busy;
    if (starved > 0) {
      outcome_.time.host.add(Duration{starved}, weight_of(rank));
      note_gap(rank, ready, ready + starved);
    }
  }
  state.host = later(state.host, step.launch);
  const Completion done{.end = end, .arrival = ready, .transfer = ready, .call = no_call};
  tail(rank, step.stream) = done;
  if (step.record != 0) record_event(rank, event_of(compiled_.waits[step.record - 1], call), done);
  outcome_.operations += step.kernel_count * static_cast<std::uint64_t>(weight_of(rank));
}

void Executor::communicate(std::uint32_t rank, const Step& step, const BlockCall& block_call, std::int64_t ready) {
  RankState& state = ranks_[rank];
  const Call& call = plan_.calls[step.call];
  const CommunicatorId id = population_.communicators.of(RankId{rank}, call.slot);
  CommunicatorState& open = communicators_[id];
  state.host = later(state.host, step.launch);
  const std::int64_t free = std::max(ready, open.free_at);
  const std::int64_t arrival = std::max(free, state.host);
  if (step.stream == compute_stream) {
    const Duration queued{free - ready};
    outcome_.time.exposed.at(static_cast<std::size_t>(call.purpose)).add(queued, weight_of(rank));
    outcome_.calls[step.call].exposed.add(queued, weight_of(rank));
    outcome_.time.host.add(Duration{arrival - free}, weight_of(rank));
    note_gap(rank, free, arrival);
  }
  ready = arrival;
  outcome_.operations += static_cast<std::uint64_t>(weight_of(rank));

  const std::uint16_t event = step.record != 0 ? event_of(compiled_.waits[step.record - 1], block_call) : no_event;
  const std::size_t slot = rank * slot_count_ + index_of(call.slot);
  joined_[slot] = {.arrival = ready,
                   .call = static_cast<std::uint32_t>(index_of(step.call)),
                   .event = event,
                   .stream = step.stream,
                   .record = 0};
  if (recorded_[rank] != 0) {
    outcome_.records.push_back({.rank = RankId{rank},
                                .stream = step.stream,
                                .block = block_call.block,
                                .op = step.first_op,
                                .layer = block_call.layer,
                                .micro_batch = block_call.micro_batch,
                                .start = TimePoint{Duration{ready}},
                                .communicator = id,
                                .sequence = open.sequence});
    joined_[slot].record = static_cast<std::uint32_t>(outcome_.records.size());
  }
  if (open.arrived == 0) {
    open.last_arrival = ready;
    open.call = static_cast<std::uint32_t>(index_of(step.call));
  } else {
    const Call& first = plan_.calls[CallId{open.call}];
    const bool pair = (first.kind == CollectiveKind::send && call.kind == CollectiveKind::receive) ||
                      (first.kind == CollectiveKind::receive && call.kind == CollectiveKind::send);
    const bool one_sided = call.kind == CollectiveKind::send || call.kind == CollectiveKind::receive;
    ensure((one_sided ? pair : first.kind == call.kind) && first.bytes == call.bytes,
           "members of a communicator issue the same operations in the same order");
    open.last_arrival = std::max(open.last_arrival, ready);
  }
  state.pending_slots |= 1U << index_of(call.slot);
  tail(rank, step.stream).end = unknown;
  if (event != no_event) joined_[slot].stamp = record_event(rank, event, {.end = unknown});
  if (++open.arrived < population_.communicators[id].member_count) return;
  const CommunicationCost& cost = plan_.costs[population_.communicators[id].cost][index_of(step.call)];
  resolve(id, later(open.last_arrival, cost.duration.count()));
}

void Executor::resolve(CommunicatorId id, std::int64_t end) {
  CommunicatorState& open = communicators_[id];
  const Communicator& communicator = population_.communicators[id];
  for (std::uint32_t i = 0; i < communicator.member_count; ++i) {
    const auto rank = static_cast<std::uint32_t>(index_of(population_.communicators.member(communicator, i)));
    const SlotId slot = population_.communicators.member_slot(communicator, i);
    const Joined& joined = joined_[rank * slot_count_ + index_of(slot)];
    const Completion done{.end = end, .arrival = joined.arrival, .transfer = open.last_arrival, .call = joined.call};
    const CallId call{joined.call};
    // On the compute stream a communication blocks compute from the moment when the rank arrives.
    if (joined.stream == compute_stream) account_wait(rank, done, joined.arrival);
    tail(rank, joined.stream) = done;
    if (joined.event != no_event) {
      // A later operation may have recorded the event anew.
      Completion& event = events_[rank * event_count_ + joined.event];
      if (event.stamp == joined.stamp) {
        event = done;
        event.stamp = joined.stamp;
      }
    }
    outcome_.calls[call].busy.add(Duration{end - open.last_arrival}, weight_of(rank));
    RankState& state = ranks_[rank];
    state.communicating_until = std::max(state.communicating_until, end);
    state.pending_slots &= ~(1U << index_of(slot));
    if (!gaps_[rank].empty()) close_gaps(rank, 1U << index_of(slot), end);
    if (joined.record != 0) {
      OpRecord& record = outcome_.records[joined.record - 1];
      record.end = TimePoint{Duration{end}};
      record.transfer = TimePoint{Duration{open.last_arrival}};
    }
    if (!state.queued) {
      state.queued = true;
      runnable_.push_back(rank);
    }
  }
  open.free_at = end;
  open.arrived = 0;
  ++open.sequence;
  outcome_.communications += static_cast<std::uint64_t>(population_.communicator_weight[id]);
}

bool Executor::execute(std::uint32_t rank, const Step& step, const BlockCall& call) {
  RankState& state = ranks_[rank];
  std::int64_t ready = 0;
  switch (step.kind) {
    case Step::Kind::host_work:
      state.host = later(state.host, step.busy);
      return true;
    case Step::Kind::memory:
      if (tail(rank, compute_stream).end == unknown)
        return false;  // recorded or not, so that recording changes nothing
      if (recorded_[rank] != 0) record_kernels(rank, step, call, tail(rank, compute_stream).end);
      return true;
    case Step::Kind::communicate:
      if ((state.pending_slots >> index_of(plan_.calls[step.call].slot) & 1U) != 0) return false;
      if (!wait_all(rank, step, call, ready)) return false;
      communicate(rank, step, call, ready);
      return true;
    case Step::Kind::host_wait:
      if (!wait_all(rank, step, call, ready)) return false;
      state.host = std::max(state.host, ready);
      return true;
    case Step::Kind::kernels:
      if (!wait_all(rank, step, call, ready)) return false;
      execute_kernels(rank, step, call, ready);
      return true;
  }
  return true;
}

void Executor::advance(std::uint32_t rank) {
  RankState& state = ranks_[rank];
  const Program& program = plan_.programs[population_.program_of[RankId{rank}]];
  while (state.call < program.calls.size()) {
    const BlockCall& call = program.calls[state.call];
    const StepList::Extent block = compiled_.blocks[call.block];
    while (state.step < block.count) {
      if (!execute(rank, compiled_.steps[block.first + state.step], call)) return;
      ++state.step;
    }
    state.step = 0;
    ++state.call;
  }
}

bool Executor::run_step() {
  for (std::uint32_t rank = static_cast<std::uint32_t>(ranks_.size()); rank-- > 0;) {
    ranks_[rank].call = 0;
    ranks_[rank].step = 0;
    ranks_[rank].queued = true;
    runnable_.push_back(rank);
  }
  while (!runnable_.empty()) {
    const std::uint32_t rank = runnable_.back();
    runnable_.pop_back();
    ranks_[rank].queued = false;
    advance(rank);
  }
  for (std::uint32_t rank = 0; rank < ranks_.size(); ++rank) {
    const Program& program = plan_.programs[population_.program_of[RankId{rank}]];
    if (ranks_[rank].pending_slots != 0 || ranks_[rank].call != program.calls.size()) return false;
  }
  return true;
}

// What the next step begins with. Events and communicators hold ends of streams, so these tell of them too.
std::vector<std::int64_t> Executor::state() const {
  std::vector<std::int64_t> result;
  result.reserve(tails_.size() + ranks_.size());
  for (const Completion& completion : tails_) result.push_back(completion.end);
  for (const RankState& rank : ranks_) result.push_back(rank.host);
  return result;
}

// Time enters only in sums and maxima: a state that moved as a whole moves by as much in every further step. Streams
// that are not used stay where they are, and hosts that never kept a device waiting may run ahead.
bool Executor::moved_as_a_whole(const std::vector<std::int64_t>& before, const std::vector<std::int64_t>& after,
                                std::int64_t step) const {
  const bool hosts_matter = outcome_.time.host.ps != 0;
  for (std::size_t i = 0; i < after.size(); ++i) {
    const std::int64_t moved = after[i] - before[i];
    const bool ahead = i >= tails_.size() && !hosts_matter && moved < step;
    if (moved != step && moved != 0 && !ahead) return false;
  }
  return true;
}

// Records were written for whoever stands for the ranks asked for: gives each of these its own.
void Executor::name_recorded_ranks() {
  std::vector<RankId> asked = options_.record;
  std::ranges::sort(asked);
  asked.erase(std::unique(asked.begin(), asked.end()), asked.end());
  std::vector<OpRecord> records;
  std::vector<MemoryRecord> memory;
  for (const RankId rank : asked) {
    const RankId stands_for = population_.class_of[rank];
    for (OpRecord record : outcome_.records) {
      if (record.rank != stands_for) continue;
      record.rank = rank;
      const Op& op = plan_.blocks[record.block].ops[record.op];
      if (const auto* communicate = std::get_if<Communicate>(&op.work))
        record.communicator = plan_.communicators.of(rank, plan_.calls[communicate->call].slot);
      records.push_back(record);
    }
    for (MemoryRecord record : outcome_.memory) {
      if (record.rank != stands_for) continue;
      record.rank = rank;
      memory.push_back(record);
    }
  }
  outcome_.records = std::move(records);
  outcome_.memory = std::move(memory);
}

std::string Executor::describe_stall() const {
  std::string text;
  int named = 0;
  for (std::uint32_t rank = 0; rank < ranks_.size() && named < 4; ++rank) {
    const Program& program = plan_.programs[population_.program_of[RankId{rank}]];
    const RankState& state = ranks_[rank];
    if (state.call == program.calls.size() && state.pending_slots == 0) continue;
    ++named;
    text += "rank " + std::to_string(index_of(population_.representative[RankId{rank}])) + " (" + program.name + ")";
    if (state.call < program.calls.size()) {
      const BlockCall& call = program.calls[state.call];
      text += " waits in '" + plan_.blocks[call.block].name + "', step " + std::to_string(state.step) + ", layer " +
              std::to_string(call.layer) + ", micro-batch " + std::to_string(call.micro_batch);
    }
    for (std::size_t slot = 0; slot < slot_count_; ++slot)
      if ((state.pending_slots >> slot & 1U) != 0)
        text += "; unanswered on '" + plan_.slots[SlotId{static_cast<std::uint8_t>(slot)}] + "'";
    text += ". ";
  }
  return text;
}

Outcome Executor::run() {
  std::vector<std::int64_t> before = state();
  for (int step = 0; step < options_.most_steps; ++step) {
    std::vector<std::int64_t> entered(ranks_.size());
    for (std::uint32_t rank = 0; rank < ranks_.size(); ++rank) entered[rank] = tail(rank, compute_stream).end;
    outcome_ = Outcome{};
    outcome_.calls = Table<CallId, CallTime>(plan_.calls.size());
    for (std::uint32_t rank = 0; rank < ranks_.size(); ++rank) {
      if (recorded_[rank] == 0) continue;
      auto& memory = memory_now_[recorded_[rank] - 1U];
      memory = plan_.programs[population_.program_of[RankId{rank}]].resident;
      outcome_.memory.push_back({RankId{rank}, TimePoint{Duration{entered[rank]}}, memory});
    }
    if (!run_step()) {
      outcome_.stall = describe_stall();
      return outcome_;
    }
    std::int64_t longest = 0;
    for (std::uint32_t rank = 0; rank < ranks_.size(); ++rank)
      longest = std::max(longest, tail(rank, compute_stream).end - entered[rank]);
    for (std::uint32_t rank = 0; rank < ranks_.size(); ++rank)
      outcome_.time.bubble.add(Duration{longest - (tail(rank, compute_stream).end - entered[rank])}, weight_of(rank));
    outcome_.step_time = Duration{longest};
    outcome_.measured_from = TimePoint{Duration{entered.empty() ? 0 : *std::ranges::min_element(entered)}};

    const std::vector<std::int64_t> after = state();
    outcome_.steady = moved_as_a_whole(before, after, longest);
    if (outcome_.steady) break;
    before = after;
  }
  outcome_.rank_classes = ranks_.size();
  name_recorded_ranks();
  return outcome_;
}

}  // namespace

Outcome run(const Plan& plan, const RunOptions& options) {
  const Population population = options.fold ? fold(plan) : everyone(plan);
  return Executor(plan, population, options).run();
}

}  // namespace trainyard::sim
