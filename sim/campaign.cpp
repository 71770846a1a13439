#include "sim/campaign.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <string>

#include "sim/engine.hpp"
#include "sim/internal/failure_clock.hpp"
#include "sim/portable_math.hpp"
#include "sim/random.hpp"

namespace trainyard::sim {
namespace {

// What comes first where times are equal.
constexpr std::uint64_t node_returns = 0;
constexpr std::uint64_t stragglers_are_found = 1;
constexpr std::uint64_t phase_ends = 2;
constexpr std::uint64_t spot_is_taken = 3;
constexpr std::uint64_t first_failure = 4;  // and on, by process

// Training that went on for a while since everything was saved.
struct Stretch {
  LongDuration trained;
  LongDuration saved;  // of it, what could be restored
};

Stretch stretch_of(LongDuration elapsed, const CheckpointTimes& checkpoint) {
  const LongDuration between = checkpoint.trained_between();
  const std::int64_t cycle = (between + checkpoint.exposed).count;
  const std::int64_t begun = elapsed.count / cycle;
  const LongDuration rest{elapsed.count % cycle};
  const std::int64_t in_storage = elapsed < checkpoint.background ? 0 : (elapsed - checkpoint.background).count / cycle;
  return {.trained = between * begun + std::min(rest, between), .saved = between * in_storage};
}

// Parts in 2^30 that training with a slow node takes longer.
constexpr std::int64_t pace_unit = std::int64_t{1} << 30U;

class Campaign {
 public:
  Campaign(const CampaignInputs& inputs, std::uint64_t seed);
  CampaignOutcome run();

 private:
  enum class State : std::uint8_t { training, saving, down };

  void await_failure(std::size_t process);
  void await_interruption();
  void fail(std::size_t process);
  void interrupt();
  bool hits_a_missing_node();

  void replace_node(LongDuration away, bool there_is_another);
  void return_node();
  void add_nodes(std::int64_t count);
  void remove_node();
  void replace_stragglers(std::uint64_t batch);

  void begin_training();
  void begin_saving();
  void end_saving();
  void stop(TimeUse first);
  void enter(TimeUse phase);
  void end_phase();
  LongDuration length_of(TimeUse phase) const;
  std::int64_t replicas() const;

  void book(TimeUse use, LongDuration time) { outcome_.time.at(static_cast<std::size_t>(use)) += time; }
  void book_training(LongDuration elapsed, const Stretch& stretch, LongDuration kept);
  void count(StopKind kind) { ++outcome_.stops.at(static_cast<std::size_t>(kind)); }

  const CampaignInputs& inputs_;
  Engine engine_;
  LongTime end_;
  std::vector<FailureClock> failures_;
  std::optional<FailureClock> interruptions_;
  RandomStream replacements_;
  RandomStream victims_;
  RandomStream waits_;
  RandomStream qualities_;

  State state_ = State::training;
  LongTime since_{};  // state, or phase of being down
  TimeUse phase_ = TimeUse::detect;
  Engine::Event phase_end_{};
  Stretch saving_;            // what is being saved
  LongDuration saving_took_;  // from the beginning of that stretch to the save
  bool straggling_ = false;   // in this stretch of training
  std::int64_t running_replicas_ = 1;
  bool replaced_ = false;  // since training stopped, a node is another

  std::int64_t missing_ = 0;
  std::int64_t spares_ = 0;
  std::map<std::uint64_t, std::int64_t> slow_;  // nodes, by batches that are found together; none is empty
  std::uint64_t next_batch_ = 0;
  std::int64_t all_slow_ = 0;
  CampaignOutcome outcome_;
};

Campaign::Campaign(const CampaignInputs& inputs, std::uint64_t seed)
    : inputs_(inputs),
      end_{inputs.duration},
      replacements_(seed, "replacements"),
      victims_(seed, "victims"),
      waits_(seed, "waits for capacity"),
      qualities_(seed, "slow nodes"),
      spares_(inputs.spares.value_or(0)) {
  ensure(inputs.nodes > 0, "training takes a node");
  ensure(inputs.checkpoint.trained_between().count > 0, "something is trained between two checkpoints");
  ensure(!inputs.elastic || inputs.elastic->replicas > 0, "there is a replica");
  for (std::size_t i = 0; i < inputs.failures.size(); ++i) {
    const FailureProcess& process = inputs.failures[i];
    const std::string name = "failures " + std::to_string(i);
    failures_.emplace_back(RandomStream(seed, name), process.parts, process.mtbf, process.shape, end_);
  }
  if (inputs.spot) interruptions_.emplace(RandomStream(seed, "spot"), inputs.nodes, inputs.spot->interruption, 1, end_);
}

CampaignOutcome Campaign::run() {
  for (std::size_t process = 0; process < failures_.size(); ++process) await_failure(process);
  await_interruption();
  add_nodes(inputs_.nodes);
  begin_training();
  engine_.run(end_);
  const LongDuration elapsed = engine_.now() - since_;
  if (state_ == State::training) {
    const Stretch stretch = stretch_of(elapsed, inputs_.checkpoint);
    book_training(elapsed, stretch, stretch.trained);
  } else if (state_ == State::saving) {
    book_training(saving_took_, saving_, saving_.trained);
    book(TimeUse::checkpoint, elapsed);
  } else {
    book(phase_, elapsed);
  }
  const LongDuration sum = std::accumulate(outcome_.time.begin(), outcome_.time.end(), LongDuration{});
  ensure(sum == inputs_.duration, "what time goes to adds up to the campaign");
  return outcome_;
}

void Campaign::await_failure(std::size_t process) {
  if (const auto when = failures_[process].next(engine_.now()))
    engine_.at(*when, first_failure + process, [this, process] { fail(process); });
}

void Campaign::await_interruption() {
  if (!interruptions_) return;
  if (const auto when = interruptions_->next(engine_.now())) engine_.at(*when, spot_is_taken, [this] { interrupt(); });
}

// Processes go on as if all nodes were there; what would hit one that is not there does not happen.
bool Campaign::hits_a_missing_node() { return missing_ > 0 && victims_.below(inputs_.nodes) < missing_; }

void Campaign::fail(std::size_t process) {
  await_failure(process);
  if (hits_a_missing_node()) return;
  const FailureProcess& failed = inputs_.failures[process];
  count(failed.kind);
  if (replacements_.chance(failed.replaced)) replace_node(inputs_.repair, !inputs_.spares);
  stop(TimeUse::detect);
}

void Campaign::interrupt() {
  await_interruption();
  if (hits_a_missing_node()) return;
  const Spot& spot = *inputs_.spot;
  count(StopKind::spot);
  const LongDuration wait = long_duration(waits_.heavy_tailed(to_seconds(spot.wait)));
  replace_node(wait, spot.wait.count == 0);
  const bool in_time = spot.notice >= inputs_.checkpoint.exposed + inputs_.checkpoint.background;
  if (in_time && state_ == State::training) return begin_saving();
  if (in_time && state_ == State::saving) return;
  stop(spot.notice.count > 0 ? TimeUse::capacity : TimeUse::detect);
}

void Campaign::replace_node(LongDuration away, bool there_is_another) {
  replaced_ = true;
  remove_node();
  if (there_is_another) return add_nodes(1);
  if (spares_ > 0) {
    --spares_;
    add_nodes(1);
  } else {
    ++missing_;
  }
  engine_.after(away, node_returns, [this] { return_node(); });
}

void Campaign::return_node() {
  if (missing_ == 0) {
    ++spares_;
    return;
  }
  --missing_;
  add_nodes(1);
  if (state_ == State::down && phase_ == TimeUse::capacity && replicas() > 0) end_phase();
  if (state_ != State::training || replicas() <= running_replicas_) return;
  count(StopKind::rejoin);
  replaced_ = true;
  begin_saving();
}

void Campaign::add_nodes(std::int64_t count) {
  if (!inputs_.stragglers) return;
  std::int64_t slow = 0;
  for (std::int64_t i = 0; i < count; ++i) slow += qualities_.chance(inputs_.stragglers->share) ? 1 : 0;
  if (slow == 0) return;
  const std::uint64_t batch = inputs_.stragglers->found ? next_batch_++ : 0;
  slow_[batch] += slow;
  all_slow_ += slow;
  if (inputs_.stragglers->found)
    engine_.after(*inputs_.stragglers->found, stragglers_are_found, [this, batch] { replace_stragglers(batch); });
}

void Campaign::remove_node() {
  if (all_slow_ == 0) return;
  std::int64_t victim = victims_.below(inputs_.nodes);  // slow ones are numbered first
  for (auto batch = slow_.begin(); batch != slow_.end(); ++batch) {
    victim -= batch->second;
    if (victim >= 0) continue;
    --all_slow_;
    if (--batch->second == 0) slow_.erase(batch);
    return;
  }
}

void Campaign::replace_stragglers(std::uint64_t batch) {
  const auto slow = slow_.extract(batch);
  if (slow.empty()) return;
  const std::int64_t found = slow.mapped();
  all_slow_ -= found;
  add_nodes(found);
  replaced_ = true;
  if (state_ != State::training) return;
  count(StopKind::straggler);
  begin_saving();
}

// Of data-parallel replicas, those that can run; of a job that is not elastic, one or none.
std::int64_t Campaign::replicas() const {
  if (!inputs_.elastic) return missing_ == 0 ? 1 : 0;
  return share_of(LongDuration{inputs_.elastic->replicas}, inputs_.nodes - missing_, inputs_.nodes).count;
}

void Campaign::begin_training() {
  state_ = State::training;
  since_ = engine_.now();
  running_replicas_ = replicas();
  straggling_ = all_slow_ > 0;
  replaced_ = false;
}

void Campaign::begin_saving() {
  saving_took_ = engine_.now() - since_;
  saving_ = stretch_of(saving_took_, inputs_.checkpoint);
  state_ = State::saving;
  since_ = engine_.now();
  phase_end_ =
      engine_.after(inputs_.checkpoint.exposed + inputs_.checkpoint.background, phase_ends, [this] { end_saving(); });
}

void Campaign::end_saving() {
  book_training(saving_took_, saving_, saving_.trained);
  book(TimeUse::checkpoint, engine_.now() - since_);
  enter(TimeUse::capacity);
}

// Whatever the job is doing, it begins again, at phase `first`.
void Campaign::stop(TimeUse first) {
  const LongDuration elapsed = engine_.now() - since_;
  if (state_ == State::down) {
    if (phase_ == TimeUse::capacity) return;                              // nothing that could fail
    if (phase_ == TimeUse::detect && first == TimeUse::capacity) return;  // soon enough
    book(phase_, elapsed);
    engine_.cancel(phase_end_);
  } else if (state_ == State::saving) {
    book_training(saving_took_, saving_, saving_.saved);
    book(TimeUse::checkpoint, elapsed);
    engine_.cancel(phase_end_);
  } else {
    const Stretch stretch = stretch_of(elapsed, inputs_.checkpoint);
    book_training(elapsed, stretch, stretch.saved);
  }
  enter(first);
}

void Campaign::enter(TimeUse phase) {
  state_ = State::down;
  phase_ = phase;
  since_ = engine_.now();
  if (phase != TimeUse::capacity) {
    phase_end_ = engine_.after(length_of(phase), phase_ends, [this] { end_phase(); });
  } else if (replicas() > 0) {
    enter(TimeUse::reschedule);
  }
}

void Campaign::end_phase() {
  book(phase_, engine_.now() - since_);
  if (phase_ == TimeUse::warm_up) return begin_training();
  enter(static_cast<TimeUse>(static_cast<int>(phase_) + 1));
}

LongDuration Campaign::length_of(TimeUse phase) const {
  const RestartTimes& restart = inputs_.restart;
  if (phase == TimeUse::detect) return restart.detect;
  if (phase == TimeUse::reload) return restart.reload;
  if (phase == TimeUse::warm_up) return restart.warm_up;
  if (inputs_.elastic && replicas() != running_replicas_) return inputs_.elastic->reshard;
  return replaced_ ? restart.reschedule : restart.in_place;
}

// Of a stretch of training of which `kept` is not lost.
void Campaign::book_training(LongDuration elapsed, const Stretch& stretch, LongDuration kept) {
  const std::int64_t all = inputs_.elastic ? inputs_.elastic->replicas : 1;
  const LongDuration complete = share_of(kept, running_replicas_, all);
  const double slowdown = straggling_ ? inputs_.stragglers->slowdown : 1;
  const LongDuration useful = share_of(complete, pace_unit, std::llround(slowdown * static_cast<double>(pace_unit)));
  book(TimeUse::useful, useful);
  book(TimeUse::straggler, complete - useful);
  book(TimeUse::reduced, kept - complete);
  book(TimeUse::lost_work, stretch.trained - kept);
  book(TimeUse::checkpoint, elapsed - stretch.trained);
  outcome_.trained += stretch.trained;
  if (straggling_) outcome_.trained_straggling += stretch.trained;
}

// Of all failures, those after which a node is replaced.
double share_replaced(const CampaignInputs& inputs) {
  double all = 0;
  double replaced = 0;
  for (const FailureProcess& process : inputs.failures) {
    const double rate = static_cast<double>(process.parts) / to_seconds(process.mtbf);
    all += rate;
    replaced += rate * process.replaced;
  }
  if (inputs.spot) {
    const double rate = static_cast<double>(inputs.nodes) / to_seconds(inputs.spot->interruption);
    all += rate;
    replaced += rate;
  }
  return replaced / all;
}

// The restart time which, if it were that of all failures, would cost as much. One that replaces a node takes
// M (exp(R/M) - 1) with the failures that hit it; one in place can become one that does. Nothing where restarts hardly
// ever end before the next failure.
std::optional<LongDuration> equal_restart(const CampaignInputs& inputs, LongDuration mtbf) {
  constexpr double hopeless = 30;  // one in 10^13 ends
  const RestartTimes& times = inputs.restart;
  const LongDuration others = times.detect + times.reload + times.warm_up;
  const double mean = to_seconds(mtbf);
  if (to_seconds(others + std::max(times.reschedule, times.in_place)) > hopeless * mean) return std::nullopt;
  const double share = share_replaced(inputs);
  const double replacing = mean * (portable_exp(to_seconds(others + times.reschedule) / mean) - 1);
  const double hit = 1 - portable_exp(-to_seconds(others + times.in_place) / mean);
  const double in_place = hit * (mean + share * replacing) / (1 - (1 - share) * hit);
  return long_duration(mean * portable_log(1 + (share * replacing + (1 - share) * in_place) / mean));
}

}  // namespace

CampaignOutcome run_campaign(const CampaignInputs& inputs, std::uint64_t seed) { return Campaign(inputs, seed).run(); }

std::optional<LongDuration> job_mtbf(const CampaignInputs& inputs) {
  double per_second = 0;
  for (const FailureProcess& process : inputs.failures)
    per_second += static_cast<double>(process.parts) / to_seconds(process.mtbf);
  if (inputs.spot) per_second += static_cast<double>(inputs.nodes) / to_seconds(inputs.spot->interruption);
  if (per_second == 0) return std::nullopt;
  return long_duration(1 / per_second);
}

std::optional<double> expected_goodput(const CampaignInputs& inputs) {
  const bool exponential =
      std::ranges::all_of(inputs.failures, [](const FailureProcess& process) { return process.shape == 1; });
  const bool waits = inputs.spares.has_value() || (inputs.spot && inputs.spot->wait.count > 0);
  const bool warned = inputs.spot && inputs.spot->notice.count > 0;
  const bool slow = inputs.stragglers && inputs.stragglers->share > 0 && inputs.stragglers->slowdown > 1;
  if (!exponential || waits || warned || slow) return std::nullopt;
  if (const auto mtbf = job_mtbf(inputs)) {
    const auto restart = equal_restart(inputs, *mtbf);
    return restart ? expected_goodput(inputs.checkpoint, *restart, *mtbf) : 0;
  }
  const LongDuration between = inputs.checkpoint.trained_between();
  return to_seconds(between) / to_seconds(between + inputs.checkpoint.exposed);
}

}  // namespace trainyard::sim
