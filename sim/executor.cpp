#include "sim/executor.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <queue>
#include <span>

#include "sim/fluid.hpp"
#include "sim/fold.hpp"
#include "sim/internal/causes.hpp"
#include "sim/internal/critical_path.hpp"
#include "sim/internal/origins.hpp"
#include "sim/internal/recorder.hpp"
#include "sim/internal/step_list.hpp"

namespace trainyard::sim {
namespace {

constexpr std::int64_t unknown = std::numeric_limits<std::int64_t>::min();
constexpr std::uint32_t no_turn = 0xffffffff;
constexpr std::uint16_t no_event = 0xffff;
// However many communications there are at once: an estimate, nobody gives them more of a device.
constexpr std::int64_t most_interference = whole_speed / 2;
// Rings stepped chunk by chunk, with random contention of single hops, came out within 10 % of this many phases; more
// cost events and gain nothing.
constexpr std::int64_t most_phases = 64;

// When something on a stream is done, and what a wait for it was about. Times in picoseconds.
struct Completion {
  std::int64_t end = 0;       // `unknown` while members of the communication have yet to arrive
  std::int64_t free = 0;      // when this rank could have arrived (a kernel started), had its host been in time
  std::int64_t arrival = 0;   // when it did
  std::int64_t transfer = 0;  // the last member's
  std::uint32_t origin = no_origin;
  std::uint32_t stamp = 0;  // of an event: which of the rank's records it holds
};

// When it would have ended with the host in time: a communication does so earlier only if no other rank came later.
std::int64_t could_end(const Completion& done) {
  return done.transfer == done.arrival ? done.end - (done.arrival - done.free) : done.end;
}

// When an operation's turn comes on its stream, and when it would have come had the host been in time.
struct Turn {
  std::int64_t ready = 0;
  std::int64_t could = 0;
  Causes::Turn cause{};  // where causes are noted
};

class Executor {
 public:
  Executor(const Plan& plan, const Population& population, const RunOptions& options);
  Outcome run();

 private:
  struct RankState {
    std::int64_t host = 0;
    std::int64_t communicating_until = 0;
    std::uint32_t call = 0;      // next block call of the program
    std::uint32_t step = 0;      // next step of that block
    std::uint32_t position = 0;  // of it in the program
    std::uint32_t pending_slots = 0;
    std::uint32_t early_slots = 0;  // of communications issued before their turn in the program
    std::uint32_t next_early = 0;   // in the program's list
    std::uint32_t turns = 0;        // of communications that slow kernels, so far
    std::uint32_t records = 0;      // of events, so far
    std::uint32_t training = 0;     // which training step it is in
    bool queued = false;
    bool held = false;  // a training step ahead of the slowest rank
  };
  struct Joined {  // what a member of an open communication is waiting with, per (rank, slot)
    std::int64_t free = 0;
    std::int64_t arrival = 0;
    std::uint32_t origin = 0;
    std::uint16_t event = no_event;
    StreamId stream{};
    std::uint32_t stamp = 0;  // of the event
    std::uint32_t training = 0;
  };
  // Communications whose end is not known yet may cover the gap.
  struct Gap {
    std::int64_t from = 0;
    std::int64_t to = 0;
    std::uint32_t pending_slots = 0;
    std::uint32_t training = 0;
  };
  struct CommunicatorState {
    std::int64_t last_arrival = 0;
    std::int64_t free_at = 0;
    std::uint32_t arrived = 0;
    std::uint32_t call = 0;
    std::uint32_t sequence = 0;
    std::uint32_t running_flows = 0;
    std::uint32_t phase = 0;
    std::uint32_t phases = 1;
  };
  // An own communication beside which kernels are slower.
  struct Interference {
    std::int64_t arrival = 0;
    std::int64_t start = unknown;  // of the bytes
    std::int64_t end = unknown;
    std::int64_t share = 0;
    std::uint32_t origin = no_origin;
    std::uint32_t turn = no_turn;  // in the order of the program; not known before, where it was issued early
    std::uint8_t slot = 0;
  };
  // Kernels whose end is not known yet, since an own communication may still slow them.
  struct Kernels {
    std::int64_t start = 0;
    std::int64_t busy = 0;
    std::int64_t host_end = 0;
    std::int64_t end_event = unknown;
    std::uint16_t event = no_event;
    std::uint32_t stamp = 0;
    std::uint32_t training = 0;
    std::uint32_t turn = 0;  // communications whose turn was before may slow them
    Causes::Turn cause{};
    // As when the kernels were issued, and what has become known of it since.
    std::uint32_t pending_slots = 0;
    std::int64_t communicating_until = 0;
    bool open = false;
  };
  struct Event {
    enum class Kind : std::uint8_t { start, flow_end, kernels_end };
    std::int64_t when = 0;
    std::uint32_t index = 0;  // communicator, flow, rank
    Kind kind = Kind::start;
    // The queue has its largest on top. Neighbours among equal times touch neighbouring ranks, and memory; nothing else
    // depends on their order.
    bool operator<(const Event& other) const { return when != other.when ? when > other.when : index > other.index; }
  };

  void drain();
  void advance(std::uint32_t rank);
  void begin_training_step(std::uint32_t rank);
  void end_training_step(std::uint32_t rank);
  bool all_through(std::size_t training) const;
  bool close_training_step(std::size_t training);  // whether it is the one to report
  bool execute(std::uint32_t rank, const Step& step, const BlockCall& call);
  void issue_early(std::uint32_t rank, const Program& program);
  bool was_issued_early(std::uint32_t rank, const Step& step);
  void execute_kernels(std::uint32_t rank, const Step& step, const BlockCall& call, const Turn& turn);
  void record_kernels(std::uint32_t rank, const Step& step, const BlockCall& call, std::int64_t ready);
  void look_at_kernels(std::uint32_t rank);
  void end_kernels(std::uint32_t rank, std::int64_t slowed_end);
  std::int64_t slowed_end(std::uint32_t rank, bool& certain) const;
  // Open kernels are slowed by communications that come before them in the program: how many others are issued before
  // they end depends on who is looked at first.
  static bool may_slow(const Interference& other, const Kernels& kernels) { return other.turn < kernels.turn; }
  void communicate(std::uint32_t rank, const Step& step, const BlockCall& call, const Turn& turn);
  void launch(CommunicatorId id);
  void start_phase(CommunicatorId id);
  void apply(const Event& event);
  void apply_instant();
  void resolve(CommunicatorId id, std::int64_t end);
  void say_when_bytes_flow(CommunicatorId id, std::int64_t start);
  // When everything that the step waits for is done; false while something is unknown. Attributes the time that the
  // compute stream loses.
  bool wait_all(std::uint32_t rank, const Step& step, const BlockCall& call, Turn& turn);
  void account_wait(std::uint32_t rank, Outcome& outcome, const Completion& done, std::int64_t from);
  void account_exposed(std::uint32_t rank, Outcome& outcome, std::uint32_t origin, Duration exposed);
  CriticalPath critical_path(std::size_t training) const;
  // The host let the device run dry from `from` to `to`: idle, as far as no communication issued before was under way.
  void note_gap(std::uint32_t rank, std::int64_t from, std::int64_t to) {
    const RankState& state = ranks_[rank];
    note_gap(rank, {.from = std::max(from, state.communicating_until),
                    .to = to,
                    .pending_slots = state.pending_slots & ~state.early_slots,
                    .training = state.training});
  }
  void note_gap(std::uint32_t rank, const Gap& gap);
  void close_gaps(std::uint32_t rank, std::uint32_t slot, std::int64_t end);
  std::uint32_t record_event(std::uint32_t rank, std::uint16_t event, Completion completion) {
    completion.stamp = ++ranks_[rank].records;
    events_[rank * event_count_ + event] = completion;
    return completion.stamp;
  }
  // What was unknown is known: the stream's tail, the event, and the state at the end of the training step, if that has
  // passed meanwhile.
  void complete(std::uint32_t rank, StreamId stream, std::uint16_t event, std::uint32_t stamp, std::uint32_t training,
                const Completion& done);
  std::uint16_t event_of(const EventRef& ref, const BlockCall& call) const { return event_index(plan_, ref, call); }
  std::int64_t weight_of(std::uint32_t rank) const { return population_.weight[RankId{rank}]; }
  Completion& tail(std::uint32_t rank, StreamId stream) { return tails_[rank * stream_count_ + index_of(stream)]; }
  Outcome& account(std::uint32_t rank) { return outcomes_[ranks_[rank].training]; }
  std::uint32_t origin_of(std::uint32_t rank, const Step& step, const BlockCall& call) const {
    if (!origins_.per_operation()) return Origins::of(step);
    const ProgramId program = population_.program_of[RankId{rank}];
    return origins_.of(step, program, static_cast<std::size_t>(&call - plan_.programs[program].calls.data()));
  }
  void prepare(Outcome& outcome) const {
    if (outcome.calls.empty()) outcome.calls = Table<CallId, CallTime>(plan_.calls.size());
    if (outcome.operation_times.empty()) outcome.operation_times = origins_.operations();
  }
  const StepTotals& totals_of(std::uint32_t rank) const {
    return totals_[index_of(population_.device_class_of[RankId{rank}]) * plan_.programs.size() +
                   index_of(population_.program_of[RankId{rank}])];
  }
  const StepList& steps_of(std::uint32_t rank) const {
    return compiled_[index_of(population_.device_class_of[RankId{rank}])];
  }
  void wake(std::uint32_t rank) {
    if (ranks_[rank].queued) return;
    ranks_[rank].queued = true;
    runnable_.push_back(rank);
  }
  // Ends of streams and hosts at the end of a training step: what the next begins with.
  std::vector<std::int64_t>& state_after(std::size_t training) { return states_.at((training + 1) % states_.size()); }
  bool moved_as_a_whole(const std::vector<std::int64_t>& before, const std::vector<std::int64_t>& after,
                        std::int64_t step, bool hosts_matter) const;
  std::string describe_stall() const;
  std::size_t random_index(std::size_t size);

  const Plan& plan_;
  const Population& population_;  // ranks and communicators below are its, not the plan's
  const Network& network_;
  const RunOptions& options_;
  std::size_t stream_count_;
  std::size_t slot_count_;
  std::size_t event_count_;

  std::vector<StepList> compiled_;      // per class of devices
  std::vector<ProgramSteps> programs_;  // per program
  std::vector<StepTotals> totals_;      // (class of devices, program)
  Origins origins_;
  std::optional<Causes> causes_;  // where the critical path is asked for

  std::vector<RankState> ranks_;
  std::vector<Completion> tails_;   // (rank, stream)
  std::vector<Completion> events_;  // (rank, event)
  std::vector<Joined> joined_;      // (rank, slot)
  Table<CommunicatorId, CommunicatorState> communicators_;
  std::vector<CommunicatorId> communicator_of_flow_;
  std::vector<std::vector<Gap>> gaps_;                    // per rank, in order of time
  std::vector<std::vector<Interference>> interferences_;  // per rank
  std::vector<Kernels> kernels_;                          // per rank; empty where nothing interferes
  std::vector<std::uint32_t> runnable_;
  std::vector<std::uint32_t> undecided_;  // whose kernels have a new end, so far as is known
  Recorder recorder_;
  bool interferes_ = false;

  Fluid fluid_;
  std::priority_queue<Event> queue_;
  std::vector<Event> instant_;
  std::int64_t now_ = 0;
  std::uint64_t events_taken_ = 0;
  std::uint64_t held_back_ = 0;
  std::uint64_t random_ = 0;

  // Per training step: its outcome, the ranks that are through, and what is still open of it.
  std::vector<Outcome> outcomes_;
  std::vector<std::size_t> through_;
  std::vector<std::size_t> open_;
  std::size_t closed_ = 0;                           // training steps that all ranks are through with
  std::array<std::vector<std::int64_t>, 3> states_;  // a rank is at most one training step ahead of the slowest
};

Executor::Executor(const Plan& plan, const Population& population, const RunOptions& options)
    : plan_(plan),
      population_(population),
      network_(population.network ? *population.network : plan.network),
      options_(options),
      stream_count_(plan.streams.size()),
      slot_count_(std::max<std::size_t>(1, plan.communicators.slots())),
      event_count_(std::max<std::size_t>(1, plan.event_count())),
      origins_(plan, options.per_operation),
      ranks_(population.program_of.size()),
      tails_(population.program_of.size() * stream_count_),
      events_(population.program_of.size() * event_count_),
      joined_(population.program_of.size() * slot_count_),
      communicators_(population.communicators.size()),
      communicator_of_flow_(network_.flow_count()),
      gaps_(population.program_of.size()),
      recorder_(plan, population, options),
      fluid_(network_),
      random_(options.tie_seed) {
  ensure(stream_count_ >= 1 && stream_count_ <= most_streams, "a plan has between one and most_streams streams");
  ensure(plan.communicators.slots() <= most_slots, "a plan has at most most_slots slots");
  ensure(options.most_steps > 0, "at least one step is run");
  for (std::size_t i = 0; i < std::max<std::size_t>(1, plan.device_classes.size()); ++i)
    compiled_.push_back(compile_steps(plan, plan.device_classes.id(i), options.healthy_devices));
  for (const Program& program : plan.programs) programs_.push_back(find_early_steps(plan, compiled_.front(), program));
  if (options.critical_path && Causes::fit(population, programs_))
    causes_.emplace(plan, population, compiled_.front(), programs_);
  for (const StepList& steps : compiled_)
    for (const Program& program : plan.programs) totals_.push_back(total_of(steps, program));
  for (const auto& row : plan.costs)
    interferes_ = interferes_ || std::ranges::any_of(row, [](const auto& cost) { return cost.interference > 0; });
  interferes_ = interferes_ && !options.ideal_network;
  if (interferes_) {
    interferences_.resize(ranks_.size());
    kernels_.resize(ranks_.size());
  }
  for (std::size_t i = 0; i < population.communicators.size(); ++i) {
    const CommunicatorId id{static_cast<std::uint32_t>(i)};
    const Communicator& communicator = population.communicators[id];
    for (std::uint32_t t = 0; t < communicator.traffic_count; ++t) {
      const Traffic& traffic = network_.traffic()[communicator.traffic_at(t)];
      for (std::uint32_t f = 0; f < traffic.flow_count; ++f) communicator_of_flow_[traffic.first_flow + f] = id;
    }
  }
  const auto most_steps = static_cast<std::size_t>(options.most_steps);
  outcomes_.resize(most_steps);
  through_.resize(most_steps, 0);
  open_.resize(most_steps, 0);
  for (auto& state : states_) state.assign(tails_.size() + ranks_.size(), 0);
}

// Only for tests: any order must do, so it need not be a good generator.
std::size_t Executor::random_index(std::size_t size) {
  random_ = random_ * 6364136223846793005U + 1442695040888963407U;
  return static_cast<std::size_t>((random_ >> 33) % size);
}

void Executor::account_wait(std::uint32_t rank, Outcome& outcome, const Completion& done, std::int64_t from) {
  const Duration lost{done.end - from};
  // What was waited for could have been under way, had the host issued it in time.
  const Duration host{std::max<std::int64_t>(0, std::min(done.arrival, done.end) - std::max(from, done.free))};
  outcome.time.host.add(host, weight_of(rank));
  if (!origins_.has_call(done.origin)) {  // a kernel on another stream: copies, as a rule
    outcome.time.kernels[static_cast<std::size_t>(KernelClass::memory_bound)].add(lost - host, weight_of(rank));
    if (outcome.operation_times.empty()) return;
    ensure(done.origin != no_origin, "a stream does not wait for its own kernels");
    outcome.operation_times[done.origin].time.exposed.add(lost - host, weight_of(rank));
    return;
  }
  const Duration late{std::max<std::int64_t>(0, done.transfer - std::max(from, done.arrival))};
  outcome.time.bubble.add(late, weight_of(rank));
  account_exposed(rank, outcome, done.origin, lost - late - host);
}

void Executor::account_exposed(std::uint32_t rank, Outcome& outcome, std::uint32_t origin, Duration exposed) {
  const CallId call = origins_.call_of(origin);
  outcome.time.exposed.at(static_cast<std::size_t>(plan_.calls[call].purpose)).add(exposed, weight_of(rank));
  outcome.calls[call].exposed.add(exposed, weight_of(rank));
  if (!outcome.operation_times.empty()) outcome.operation_times[origin].time.exposed.add(exposed, weight_of(rank));
}

bool Executor::wait_all(std::uint32_t rank, const Step& step, const BlockCall& call, Turn& turn) {
  const Completion* tails = &tails_[rank * stream_count_];
  const Completion* events = &events_[rank * event_count_];
  const std::int64_t own = tails[index_of(step.stream)].end;
  if (own == unknown) return false;
  for (unsigned set = step.after; set != 0; set &= set - 1)
    if (tails[std::countr_zero(set)].end == unknown) return false;
  const std::span<const EventRef> waits(steps_of(rank).waits.data() + step.first_wait, step.wait_count);
  for (const EventRef& ref : waits)
    if (events[event_of(ref, call)].end == unknown) return false;

  std::int64_t& ready = turn.ready;
  ready = own;
  turn.could = could_end(tails[index_of(step.stream)]);
  const bool on_compute = step.stream == compute_stream && step.kind != Step::Kind::host_wait;
  std::size_t latest = index_of(step.stream);  // of what is waited for: streams, then events
  const auto take = [&](const Completion& done, std::size_t which) {
    turn.could = std::max(turn.could, could_end(done));
    if (done.end <= ready) return;
    if (on_compute) account_wait(rank, account(rank), done, ready);
    ready = done.end;
    latest = which;
  };
  for (unsigned set = step.after; set != 0; set &= set - 1) {
    const auto stream = static_cast<std::size_t>(std::countr_zero(set));
    take(tails[stream], stream);
  }
  for (const EventRef& ref : waits) take(events[event_of(ref, call)], stream_count_ + event_of(ref, call));
  if (causes_) turn.cause = causes_->turn(rank, ranks_[rank].position, latest);
  return true;
}

void Executor::record_kernels(std::uint32_t rank, const Step& step, const BlockCall& call, std::int64_t ready) {
  const RankState& state = ranks_[rank];
  recorder_.start_kernels(rank, step, call,
                          {.ready = ready, .host = state.host, .call = state.call, .repetition = state.training});
}

void Executor::note_gap(std::uint32_t rank, const Gap& gap) {
  if (gap.from >= gap.to) return;
  if (gap.pending_slots != 0)
    gaps_[rank].push_back(gap);
  else
    outcomes_[gap.training].time.idle.add(Duration{gap.to - gap.from}, weight_of(rank));
}

void Executor::close_gaps(std::uint32_t rank, std::uint32_t slot, std::int64_t end) {
  std::erase_if(gaps_[rank], [&](Gap& gap) {
    if ((gap.pending_slots & slot) == 0) return false;
    gap.pending_slots &= ~slot;
    gap.from = std::max(gap.from, end);
    if (gap.pending_slots != 0) return false;
    if (gap.from < gap.to) outcomes_[gap.training].time.idle.add(Duration{gap.to - gap.from}, weight_of(rank));
    return true;
  });
}

void Executor::execute_kernels(std::uint32_t rank, const Step& step, const BlockCall& call, const Turn& turn) {
  const std::int64_t ready = turn.ready;
  RankState& state = ranks_[rank];
  Outcome& outcome = account(rank);
  const bool recorded = recorder_.follows(rank);
  if (recorded) record_kernels(rank, step, call, ready);
  const std::int64_t host_end = later(state.host, step.host_bound);
  state.host = later(state.host, step.launch);
  const std::uint16_t event = step.record != 0 ? event_of(steps_of(rank).waits[step.record - 1], call) : no_event;
  if (causes_) causes_->issue(rank, step.stream, event, turn.cause);
  if (step.stream != compute_stream) {
    const std::int64_t end = std::max(later(ready, step.busy), host_end);
    if (causes_) causes_->end_kernels(state.training, turn.cause, end, end > ready + step.busy);
    const std::int64_t start = end - step.busy;
    const Completion done{
        .end = end, .free = turn.could, .arrival = start, .transfer = start, .origin = origin_of(rank, step, call)};
    tail(rank, step.stream) = done;
    if (event != no_event) record_event(rank, event, done);
    if (recorded) recorder_.end_kernels(rank, step.stream);
    return;
  }

  if (interferes_ && !interferences_[rank].empty()) {
    std::erase_if(interferences_[rank],
                  [&](const Interference& other) { return other.end != unknown && other.end <= ready; });
    if (!interferences_[rank].empty()) {
      Kernels& kernels = kernels_[rank];
      kernels = {.start = ready,
                 .busy = step.busy,
                 .host_end = host_end,
                 .event = event,
                 .training = state.training,
                 .turn = state.turns,
                 .cause = turn.cause,
                 .pending_slots = state.pending_slots & ~state.early_slots,
                 .communicating_until = state.communicating_until,
                 .open = true};
      tail(rank, compute_stream).end = unknown;
      if (event != no_event) kernels.stamp = record_event(rank, event, {.end = unknown});
      ++open_[state.training];
      look_at_kernels(rank);
      return;
    }
  }
  const std::int64_t end = std::max(later(ready, step.busy), host_end);
  const std::int64_t starved = end - ready - step.busy;
  if (causes_) causes_->end_kernels(state.training, turn.cause, end, starved > 0);
  if (starved > 0) {
    outcome.time.host.add(Duration{starved}, weight_of(rank));
    note_gap(rank, ready, ready + starved);
  }
  const Completion done{.end = end, .free = ready, .arrival = ready, .transfer = ready, .origin = no_origin};
  tail(rank, compute_stream) = done;
  if (event != no_event) record_event(rank, event, done);
  if (recorded) recorder_.end_kernels(rank, compute_stream);
}

// When the kernels are done if nothing more becomes known; certain if nothing that becomes known can change it.
std::int64_t Executor::slowed_end(std::uint32_t rank, bool& certain) const {
  const Kernels& kernels = kernels_[rank];
  std::int64_t at = kernels.start;
  __extension__ using Wide = __int128;
  Wide left = static_cast<Wide>(kernels.busy) * whole_speed;
  while (true) {
    std::int64_t lost = 0;
    std::int64_t next = latest_time;
    for (const Interference& other : interferences_[rank]) {
      if (other.start == unknown || !may_slow(other, kernels)) continue;
      if (other.start > at) {
        next = std::min(next, other.start);
      } else if (other.end == unknown || other.end > at) {
        lost += other.share;
        if (other.end != unknown) next = std::min(next, other.end);
      }
    }
    const Wide speed = whole_speed - std::min(lost, most_interference);
    const Wide ticks = (left + speed - 1) / speed;
    if (at + ticks <= next) {
      at += static_cast<std::int64_t>(ticks);
      break;
    }
    left -= speed * (next - at);
    at = next;
  }
  certain = at <= now_;
  if (!certain)
    certain = std::ranges::all_of(interferences_[rank], [&](const Interference& other) {
      if (!may_slow(other, kernels)) return true;
      return other.start == unknown ? other.arrival >= at : other.end != unknown || other.start >= at;
    });
  return at;
}

void Executor::look_at_kernels(std::uint32_t rank) {
  bool certain = false;
  const std::int64_t end = slowed_end(rank, certain);
  Kernels& kernels = kernels_[rank];
  if (certain) return end_kernels(rank, end);
  if (kernels.end_event == end) return;
  kernels.end_event = end;
  undecided_.push_back(rank);
}

void Executor::end_kernels(std::uint32_t rank, std::int64_t slowed) {
  Kernels& kernels = kernels_[rank];
  kernels.open = false;
  Outcome& outcome = outcomes_[kernels.training];
  const std::int64_t end = std::max(slowed, kernels.host_end);
  const std::int64_t natural = std::max(kernels.start + kernels.busy, kernels.host_end);
  const std::int64_t starved = end - slowed;
  if (starved > 0) {
    outcome.time.host.add(Duration{starved}, weight_of(rank));
    note_gap(rank, {.from = std::max(kernels.start, kernels.communicating_until),
                    .to = kernels.start + starved,
                    .pending_slots = kernels.pending_slots,
                    .training = kernels.training});
  }
  if (causes_) causes_->end_kernels(kernels.training, kernels.cause, end, starved > 0);
  const Duration lost{slowed - kernels.start - kernels.busy};
  if (lost.count() > 0) {
    const Interference* blamed = nullptr;
    for (const Interference& other : interferences_[rank]) {
      if (other.start == unknown || other.start >= slowed || !may_slow(other, kernels)) continue;
      if (other.end != unknown && other.end <= kernels.start) continue;
      if (blamed == nullptr || other.turn < blamed->turn) blamed = &other;
    }
    ensure(blamed != nullptr, "kernels are slowed by a communication");
    account_exposed(rank, outcome, blamed->origin, lost);
    if (causes_ && starved <= 0)
      causes_->slow_kernels(kernels.training, kernels.cause, origins_.call_of(blamed->origin));
  }
  if (recorder_.follows(rank)) {
    if (end != natural) recorder_.stretch_kernels(rank, kernels.start, natural, end);
    recorder_.end_kernels(rank, compute_stream);
  }
  complete(
      rank, compute_stream, kernels.event, kernels.stamp, kernels.training,
      {.end = end, .free = kernels.start, .arrival = kernels.start, .transfer = kernels.start, .origin = no_origin});
  wake(rank);
}

void Executor::complete(std::uint32_t rank, StreamId stream, std::uint16_t event, std::uint32_t stamp,
                        std::uint32_t training, const Completion& done) {
  tail(rank, stream) = done;
  if (event != no_event) {
    // A later operation may have recorded the event anew.
    Completion& recorded = events_[rank * event_count_ + event];
    if (recorded.stamp == stamp) {
      recorded = done;
      recorded.stamp = stamp;
    }
  }
  if (ranks_[rank].training > training || ranks_[rank].held)
    state_after(training)[rank * stream_count_ + index_of(stream)] = done.end;
  const bool goes_on = ranks_[rank].training > training && ranks_[rank].training < outcomes_.size();
  if (goes_on && stream == compute_stream && recorder_.follows(rank)) recorder_.enter_training_step(rank, done.end);
  --open_[training];
}

void Executor::communicate(std::uint32_t rank, const Step& step, const BlockCall& block_call, const Turn& turn) {
  std::int64_t ready = turn.ready;
  RankState& state = ranks_[rank];
  Outcome& outcome = account(rank);
  const Call& call = plan_.calls[step.call];
  const CommunicatorId id = population_.communicators.of(RankId{rank}, call.slot);
  CommunicatorState& open = communicators_[id];
  state.host = later(state.host, step.launch);
  const std::int64_t free = std::max(ready, open.free_at);
  const std::int64_t arrival = std::max(free, state.host);
  const std::uint32_t origin = origin_of(rank, step, block_call);
  if (step.stream == compute_stream) {
    account_exposed(rank, outcome, origin, Duration{free - ready});
    outcome.time.host.add(Duration{arrival - free}, weight_of(rank));
    note_gap(rank, free, arrival);
  }
  ready = arrival;

  const std::uint16_t event = step.record != 0 ? event_of(steps_of(rank).waits[step.record - 1], block_call) : no_event;
  const std::size_t slot = rank * slot_count_ + index_of(call.slot);
  joined_[slot] = {.free = std::max(turn.could, open.free_at),
                   .arrival = ready,
                   .origin = origin,
                   .event = event,
                   .stream = step.stream,
                   .training = state.training};
  ++open_[state.training];
  if (recorder_.follows(rank))
    recorder_.start_communication(rank, state.training,
                                  {.rank = RankId{rank},
                                   .stream = step.stream,
                                   .block = block_call.block,
                                   .call = static_cast<std::uint32_t>(
                                       &block_call - plan_.programs[population_.program_of[RankId{rank}]].calls.data()),
                                   .op = step.first_op,
                                   .layer = block_call.layer,
                                   .micro_batch = block_call.micro_batch,
                                   .start = TimePoint{Duration{ready}},
                                   .communicator = id,
                                   .sequence = open.sequence});
  if (causes_)
    causes_->arrive(rank, state.training, turn.cause,
                    {.communicator = id,
                     .slot = call.slot,
                     .event = event,
                     .stream = step.stream,
                     .by = arrival > free      ? Arrival::host
                           : free > turn.ready ? Arrival::communicator
                                               : Arrival::stream,
                     .later = open.arrived == 0 || arrival > open.last_arrival,
                     .equal = arrival == open.last_arrival});
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
  if (interferes_ && step.stream != compute_stream) {
    const CommunicationCost& cost = plan_.costs[population_.communicators[id].cost][index_of(step.call)];
    if (cost.interference > 0)
      interferences_[rank].push_back(
          {.arrival = ready,
           .share = cost.interference,
           .origin = origin,
           .turn = (state.early_slots >> index_of(call.slot) & 1U) != 0 ? no_turn : state.turns++,
           .slot = static_cast<std::uint8_t>(index_of(call.slot))});
  }
  if (++open.arrived == population_.communicators[id].member_count) launch(id);
}

// The last member has arrived.
void Executor::launch(CommunicatorId id) {
  CommunicatorState& open = communicators_[id];
  const Communicator& communicator = population_.communicators[id];
  const CommunicationCost& cost = plan_.costs[communicator.cost][open.call];
  if (options_.ideal_network) return resolve(id, open.last_arrival);
  if (cost.traffic >= communicator.traffic_count || cost.flow_bytes.count == 0)
    return resolve(id, later(open.last_arrival, cost.duration.count()));
  const Traffic& traffic = network_.traffic()[communicator.traffic_at(cost.traffic)];
  const std::int64_t bytes_flow = later(open.last_arrival, cost.latency.count());
  if (traffic.flow_count == 0) {
    const bool limited = traffic.limit.count > 0 && traffic.limit < cost.flow_rate;
    const Duration alone = limited ? cost.latency + time_for(cost.flow_bytes, traffic.limit) : cost.duration;
    return resolve(id, later(open.last_arrival, alone.count()));
  }
  if (bytes_flow < now_) held_back_ += static_cast<std::uint64_t>(population_.communicator_weight[id]);
  open.phase = 0;
  open.phases = 1;
  if (traffic.hops > 1 && cost.phase_bytes.count > 0)
    open.phases = static_cast<std::uint32_t>(std::clamp<std::int64_t>(
        (cost.flow_bytes.count + cost.phase_bytes.count - 1) / cost.phase_bytes.count, 1, most_phases));
  const std::int64_t start = std::max(bytes_flow, now_);
  say_when_bytes_flow(id, start);
  queue_.push({.when = start, .index = static_cast<std::uint32_t>(index_of(id)), .kind = Event::Kind::start});
}

void Executor::start_phase(CommunicatorId id) {
  CommunicatorState& open = communicators_[id];
  const Communicator& communicator = population_.communicators[id];
  const CommunicationCost& cost = plan_.costs[communicator.cost][open.call];
  const Traffic& traffic = network_.traffic()[communicator.traffic_at(cost.traffic)];
  const Volume whole = volume_of(cost.flow_bytes);
  const auto through = [&](std::uint32_t phase) {
    return whole / open.phases * phase + whole % open.phases * phase / open.phases;
  };
  const Volume volume = open.phases == 1 ? whole : through(open.phase + 1) - through(open.phase);
  ++open.phase;
  const BytesPerSecond limit = traffic.limit.count > 0 ? std::min(cost.flow_rate, traffic.limit) : cost.flow_rate;
  open.running_flows = traffic.flow_count;
  for (std::uint32_t f = 0; f < traffic.flow_count; ++f)
    fluid_.start(FlowId{traffic.first_flow + f}, volume, rate_of(limit));
}

void Executor::say_when_bytes_flow(CommunicatorId id, std::int64_t start) {
  if (!interferes_) return;
  const Communicator& communicator = population_.communicators[id];
  for (std::uint32_t i = 0; i < communicator.member_count; ++i) {
    const auto rank = static_cast<std::uint32_t>(index_of(population_.communicators.member(communicator, i)));
    const std::size_t slot = index_of(population_.communicators.member_slot(communicator, i));
    for (Interference& other : interferences_[rank])
      if (other.slot == slot && other.start == unknown) other.start = start;
    if (kernels_[rank].open) look_at_kernels(rank);
  }
}

void Executor::apply(const Event& event) {
  switch (event.kind) {
    case Event::Kind::start:
      return start_phase(CommunicatorId{event.index});
    case Event::Kind::kernels_end: {
      const Kernels& kernels = kernels_[event.index];
      if (!kernels.open || kernels.end_event != event.when) return;  // re-rated since
      return look_at_kernels(event.index);
    }
    case Event::Kind::flow_end: {
      const FlowId flow{event.index};
      if (!fluid_.running(flow) || fluid_.end_of(flow) != event.when) return;  // re-rated since
      fluid_.finish(flow);
      const CommunicatorId id = communicator_of_flow_[event.index];
      CommunicatorState& open = communicators_[id];
      if (--open.running_flows > 0) return;
      if (open.phase < open.phases) return start_phase(id);
      return resolve(id, event.when);
    }
  }
}

// All events of the earliest instant, and what ranks do at once because of them; then links are shared anew.
void Executor::apply_instant() {
  now_ = queue_.top().when;
  while (!queue_.empty() && queue_.top().when == now_) {
    instant_.clear();
    while (!queue_.empty() && queue_.top().when == now_) {
      instant_.push_back(queue_.top());
      queue_.pop();
    }
    events_taken_ += instant_.size();
    if (options_.tie_seed != 0)
      for (std::size_t i = instant_.size(); i > 1; --i) std::swap(instant_[i - 1], instant_[random_index(i)]);
    for (const Event& event : instant_) apply(event);
    drain();
  }
  for (const FlowId flow : fluid_.settle(now_))
    queue_.push({.when = fluid_.end_of(flow),
                 .index = static_cast<std::uint32_t>(index_of(flow)),
                 .kind = Event::Kind::flow_end});
}

void Executor::resolve(CommunicatorId id, std::int64_t end) {
  CommunicatorState& open = communicators_[id];
  const Communicator& communicator = population_.communicators[id];
  for (std::uint32_t i = 0; i < communicator.member_count; ++i) {
    const auto rank = static_cast<std::uint32_t>(index_of(population_.communicators.member(communicator, i)));
    const SlotId slot = population_.communicators.member_slot(communicator, i);
    const Joined& joined = joined_[rank * slot_count_ + index_of(slot)];
    Outcome& outcome = outcomes_[joined.training];
    const Completion done{.end = end,
                          .free = joined.free,
                          .arrival = joined.arrival,
                          .transfer = open.last_arrival,
                          .origin = joined.origin};
    // On the compute stream a communication blocks compute from the moment when the rank arrives.
    if (joined.stream == compute_stream) account_wait(rank, outcome, done, joined.arrival);
    complete(rank, joined.stream, joined.event, joined.stamp, joined.training, done);
    if (causes_) causes_->end_communication(rank, joined.training, id, slot, end);
    const Duration busy{end - open.last_arrival};
    outcome.calls[origins_.call_of(joined.origin)].busy.add(busy, weight_of(rank));
    if (!outcome.operation_times.empty()) outcome.operation_times[joined.origin].time.busy.add(busy, weight_of(rank));
    RankState& state = ranks_[rank];
    state.pending_slots &= ~(1U << index_of(slot));
    if ((state.early_slots >> index_of(slot) & 1U) == 0)
      state.communicating_until = std::max(state.communicating_until, end);
    if (!gaps_[rank].empty()) close_gaps(rank, 1U << index_of(slot), end);
    if (recorder_.follows(rank)) recorder_.end_communication(rank, joined.stream, open.last_arrival, end);
    if (interferes_) {
      for (Interference& other : interferences_[rank]) {
        if (other.slot != index_of(slot) || other.end != unknown) continue;
        // Not before it is known here: kernels that end at this instant may have been looked at already, or not.
        if (other.start == unknown)
          other.start = std::max(
              now_, std::min(end, open.last_arrival + plan_.costs[communicator.cost][open.call].latency.count()));
        other.end = end;
      }
      Kernels& kernels = kernels_[rank];
      if (kernels.open) {
        if ((kernels.pending_slots >> index_of(slot) & 1U) != 0)
          kernels.communicating_until = std::max(kernels.communicating_until, end);
        kernels.pending_slots &= ~(1U << index_of(slot));
        look_at_kernels(rank);
      }
    }
    wake(rank);
  }
  recorder_.hand_over_communication();
  const auto weight = static_cast<std::uint64_t>(population_.communicator_weight[id]);
  const RankId first = population_.communicators.member(communicator, 0);
  const SlotId first_slot = population_.communicators.member_slot(communicator, 0);
  outcomes_[joined_[index_of(first) * slot_count_ + index_of(first_slot)].training].communications += weight;
  open.free_at = end;
  open.arrived = 0;
  ++open.sequence;
}

bool Executor::execute(std::uint32_t rank, const Step& step, const BlockCall& call) {
  RankState& state = ranks_[rank];
  Turn turn;
  switch (step.kind) {
    case Step::Kind::host_work:
      state.host = later(state.host, step.busy);
      return true;
    case Step::Kind::memory:
      if (tail(rank, compute_stream).end == unknown)
        return false;  // recorded or not, so that recording changes nothing
      if (recorder_.follows(rank)) {
        record_kernels(rank, step, call, tail(rank, compute_stream).end);
        recorder_.end_kernels(rank, compute_stream);
      }
      return true;
    case Step::Kind::communicate:
      if ((state.pending_slots >> index_of(plan_.calls[step.call].slot) & 1U) != 0) return false;
      if (!wait_all(rank, step, call, turn)) return false;
      communicate(rank, step, call, turn);
      return true;
    case Step::Kind::host_wait:
      if (!wait_all(rank, step, call, turn)) return false;
      if (causes_ && turn.ready > state.host) causes_->wait_on_host(rank, state.training, turn.cause, turn.ready);
      state.host = std::max(state.host, turn.ready);
      return true;
    case Step::Kind::kernels:
      if (!wait_all(rank, step, call, turn)) return false;
      execute_kernels(rank, step, call, turn);
      return true;
  }
  return true;
}

void Executor::advance(std::uint32_t rank) {
  RankState& state = ranks_[rank];
  const Program& program = plan_.programs[population_.program_of[RankId{rank}]];
  const StepList& steps = steps_of(rank);
  while (!state.held && state.training < outcomes_.size()) {
    while (state.call < program.calls.size()) {
      const BlockCall& call = program.calls[state.call];
      const StepList::Extent block = steps.blocks[call.block];
      while (state.step < block.count) {
        const Step& step = steps.steps[block.first + state.step];
        if (!was_issued_early(rank, step) && !execute(rank, step, call)) return issue_early(rank, program);
        ++state.step;
        ++state.position;
      }
      state.step = 0;
      ++state.call;
    }
    end_training_step(rank);
  }
}

// The rank is held up: what does not depend on that joins its communicator now, with the time of its turn.
void Executor::issue_early(std::uint32_t rank, const Program& program) {
  RankState& state = ranks_[rank];
  const ProgramSteps& positions = programs_[index_of(population_.program_of[RankId{rank}])];
  const std::uint32_t here = state.position;
  while (state.next_early < positions.early.size() && positions.early[state.next_early].position <= here)
    ++state.next_early;
  // Receives of several streams may be ahead; each stream has at most one that was issued and whose turn is to come.
  for (std::size_t e = state.next_early; e < std::min<std::size_t>(state.next_early + 4, positions.early.size()); ++e) {
    const EarlyStep& early = positions.early[e];
    if (early.from > here) continue;
    const BlockCall& call = program.calls[early.call];
    const StepList& list = steps_of(rank);
    const Step& step = list.steps[list.blocks[call.block].first + early.step];
    const std::uint32_t slot = 1U << index_of(plan_.calls[step.call].slot);
    const Completion& before = tail(rank, step.stream);
    if (before.end == unknown || ((state.pending_slots | state.early_slots) & slot) != 0) continue;
    const BlockCall& current = program.calls[state.call];
    std::int64_t spent = positions.host_before[state.call];
    for (std::uint32_t i = 0; i < state.step; ++i) spent += host_time(list.steps[list.blocks[current.block].first + i]);
    const std::int64_t host = state.host;
    state.host = later(host, early.host - spent);
    state.early_slots |= slot;
    Turn turn{.ready = before.end, .could = could_end(before)};
    if (causes_) turn.cause = causes_->turn(rank, early.position, index_of(step.stream));
    communicate(rank, step, call, turn);
    state.host = host;
  }
}

// Its turn in the program has come: the host spends the time, and the device is busy with it from now on.
bool Executor::was_issued_early(std::uint32_t rank, const Step& step) {
  RankState& state = ranks_[rank];
  if (state.early_slots == 0 || step.kind != Step::Kind::communicate) return false;
  const std::size_t slot = index_of(plan_.calls[step.call].slot);
  if ((state.early_slots >> slot & 1U) == 0) return false;
  state.early_slots &= ~(1U << slot);
  state.host = later(state.host, step.launch);
  const std::int64_t end = tail(rank, step.stream).end;
  if (end != unknown) state.communicating_until = std::max(state.communicating_until, end);
  if (interferes_)
    for (Interference& other : interferences_[rank])
      if (other.slot == slot && other.turn == no_turn) other.turn = state.turns++;
  return true;
}

void Executor::begin_training_step(std::uint32_t rank) {
  RankState& state = ranks_[rank];
  state.call = 0;
  state.step = 0;
  state.position = 0;
  state.next_early = 0;
  if (state.training >= outcomes_.size()) return;
  Outcome& outcome = account(rank);
  prepare(outcome);
  if (!recorder_.follows(rank)) return;
  recorder_.begin_training_step(rank, state.training);
  const std::int64_t entered = tail(rank, compute_stream).end;
  if (entered != unknown) recorder_.enter_training_step(rank, entered);
}

void Executor::end_training_step(std::uint32_t rank) {
  RankState& state = ranks_[rank];
  std::vector<std::int64_t>& after = state_after(state.training);
  for (std::size_t s = 0; s < stream_count_; ++s)
    after[rank * stream_count_ + s] = tails_[rank * stream_count_ + s].end;
  after[tails_.size() + rank] = state.host;
  if (causes_) causes_->end_training_step(rank, state.training, state.host);
  ++through_[state.training];
  if (state.training > closed_) {  // the slowest has yet to get through the one before
    state.held = true;
    return;
  }
  ++state.training;
  begin_training_step(rank);
}

bool Executor::all_through(std::size_t training) const {
  return training < through_.size() && through_[training] == ranks_.size() && open_[training] == 0;
}

// Time enters only in sums, maxima and shares of links: a state that moved as a whole moves by as much in every further
// step. Streams that are not used stay where they are, and hosts that never kept a device waiting may run ahead. Where
// links are shared, transfers may end a picosecond earlier or later and hand that on, so a millionth is no movement.
bool Executor::moved_as_a_whole(const std::vector<std::int64_t>& before, const std::vector<std::int64_t>& after,
                                std::int64_t step, bool hosts_matter) const {
  const std::int64_t tolerance = network_.links().empty() ? 0 : step / 1'000'000;
  for (std::size_t i = 0; i < after.size(); ++i) {
    const std::int64_t moved = after[i] - before[i];
    const bool ahead = i >= tails_.size() && !hosts_matter && moved < step;
    if (moved != 0 && !ahead && (moved < step - tolerance || moved > step + tolerance)) return false;
  }
  return true;
}

bool Executor::close_training_step(std::size_t training) {
  const std::vector<std::int64_t>& before = state_after(training + states_.size() - 1);
  const std::vector<std::int64_t>& after = state_after(training);
  Outcome& outcome = outcomes_[training];
  prepare(outcome);
  std::int64_t longest = 0;
  std::int64_t entered_first = ranks_.empty() ? 0 : std::numeric_limits<std::int64_t>::max();
  for (std::uint32_t rank = 0; rank < ranks_.size(); ++rank) {
    const std::int64_t entered = before[rank * stream_count_];
    longest = std::max(longest, after[rank * stream_count_] - entered);
    entered_first = std::min(entered_first, entered);
  }
  for (std::uint32_t rank = 0; rank < ranks_.size(); ++rank) {
    const std::int64_t took = after[rank * stream_count_] - before[rank * stream_count_];
    outcome.time.bubble.add(Duration{longest - took}, weight_of(rank));
  }
  for (std::uint32_t rank = 0; rank < ranks_.size(); ++rank) {
    const StepTotals& totals = totals_of(rank);
    for (std::size_t k = 0; k < kernel_classes; ++k)
      outcome.time.kernels[k].add(Duration{totals.by_class[k]}, weight_of(rank));
    outcome.operations += totals.operations * static_cast<std::uint64_t>(weight_of(rank));
  }
  outcome.step_time = Duration{longest};
  outcome.measured_from = TimePoint{Duration{entered_first}};
  outcome.steady = moved_as_a_whole(before, after, longest, outcome.time.host.ps != 0);
  ++closed_;
  if (outcome.steady || closed_ == outcomes_.size()) return true;
  recorder_.drop(static_cast<std::uint32_t>(training));
  for (std::uint32_t rank = 0; rank < ranks_.size(); ++rank) {
    RankState& state = ranks_[rank];
    if (!state.held) continue;
    state.held = false;
    ++state.training;
    begin_training_step(rank);
    wake(rank);
  }
  return false;
}

void Executor::drain() {
  while (!runnable_.empty()) {
    if (options_.tie_seed != 0) std::swap(runnable_.back(), runnable_[random_index(runnable_.size())]);
    const std::uint32_t rank = runnable_.back();
    runnable_.pop_back();
    ranks_[rank].queued = false;
    advance(rank);
  }
  // Most kernels that something might slow were settled meanwhile, by the last member of a communication.
  for (const std::uint32_t rank : undecided_)
    if (kernels_[rank].open)
      queue_.push({.when = kernels_[rank].end_event, .index = rank, .kind = Event::Kind::kernels_end});
  undecided_.clear();
}

std::string Executor::describe_stall() const {
  std::string text;
  int named = 0;
  for (std::uint32_t rank = 0; rank < ranks_.size() && named < 4; ++rank) {
    const Program& program = plan_.programs[population_.program_of[RankId{rank}]];
    const RankState& state = ranks_[rank];
    if (state.pending_slots == 0 && (state.held || state.training > closed_)) continue;
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

// From the rank that ends last; of several the first.
CriticalPath Executor::critical_path(std::size_t training) const {
  const std::vector<std::int64_t>& ends = states_.at((training + 1) % states_.size());
  std::uint32_t last = 0;
  for (std::uint32_t rank = 1; rank < ranks_.size(); ++rank)
    if (ends[rank * stream_count_] > ends[last * stream_count_]) last = rank;
  return find_critical_path({.plan = plan_,
                             .population = population_,
                             .compiled = compiled_,
                             .programs = programs_,
                             .causes = *causes_,
                             .training = training,
                             .healthy_devices = options_.healthy_devices},
                            last, outcomes_[training].step_time);
}

Outcome Executor::run() {
  for (std::uint32_t rank = static_cast<std::uint32_t>(ranks_.size()); rank-- > 0;) {
    begin_training_step(rank);
    wake(rank);
  }
  std::size_t reported = outcomes_.size();
  while (reported == outcomes_.size()) {
    drain();
    if (all_through(closed_)) {
      if (close_training_step(closed_)) reported = closed_ - 1;
      continue;
    }
    if (queue_.empty()) {
      Outcome stalled;
      stalled.calls = Table<CallId, CallTime>(plan_.calls.size());
      stalled.stall = describe_stall();
      return stalled;
    }
    apply_instant();
  }
  Outcome& outcome = outcomes_[reported];
  if (causes_) outcome.critical_path = critical_path(reported);
  outcome.rank_classes = ranks_.size();
  outcome.events = events_taken_;
  outcome.held_back = held_back_;
  std::erase_if(outcome.operation_times,
                [](const OperationTime& of) { return of.time.busy.ps == 0 && of.time.exposed.ps == 0; });
  recorder_.drop(static_cast<std::uint32_t>(reported + 1));  // ranks run ahead
  recorder_.move_into(outcome, static_cast<std::uint32_t>(reported));
  return std::move(outcome);
}

}  // namespace

Outcome run(const Plan& plan, const RunOptions& options) {
  const Population population = options.fold ? fold(plan) : everyone(plan);
  return run(plan, population, options);
}

Outcome run(const Plan& plan, const Population& population, const RunOptions& options) {
  return Executor(plan, population, options).run();
}

}  // namespace trainyard::sim
