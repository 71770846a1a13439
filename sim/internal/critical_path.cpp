#include "sim/internal/critical_path.hpp"

#include <algorithm>
#include <utility>
#include <variant>

#include "sim/ensure.hpp"

namespace trainyard::sim {
namespace {

class Walk {
 public:
  Walk(const ExecutedStep& executed, std::int64_t step_time) : executed_(executed), step_time_(step_time) {}

  CriticalPath follow(std::uint32_t rank);

 private:
  // An operation as its program has it.
  struct Place {
    std::uint32_t rank = 0;
    std::uint32_t position = 0;
    std::uint32_t call = 0;  // block call
    const Program* program = nullptr;
    const ProgramSteps* steps = nullptr;
    const StepList* list = nullptr;

    const BlockCall& block_call() const { return program->calls[call]; }
    const Step& step() const {
      return list->steps[list->blocks[block_call().block].first + (position - steps->first_position[call])];
    }
  };

  const Cause& cause_of(std::uint32_t operation) const { return executed_.causes.of(operation, executed_.training); }
  bool crosses(std::uint32_t operation) const;
  std::uint32_t find_crossing(std::uint32_t operation) const;
  Place place_of(std::uint32_t operation) const;
  void go_to(Place& place, std::uint32_t position) const;

  void take(std::uint32_t operation);
  void add_device(const Place& place, const Cause& cause, std::int64_t start);
  void add_run(const Place& place, std::uint32_t skipped);
  void add_slowed_run(const Place& place, CallId slowed_by, std::int64_t length);
  void add_kernel(const Place& place, std::uint32_t op, std::int64_t duration);
  void add_host_bound(const Place& place, const Cause& cause, std::int64_t start);
  void add_host(const Place& from, const Place& to, std::int64_t last_launch);
  void add(const Place& place, std::uint32_t op, PathTime time, std::int64_t length);
  void fit(const Place& place, std::int64_t length);
  std::int64_t length_of_pieces() const;

  const ExecutedStep& executed_;
  std::int64_t step_time_;
  std::vector<PathSegment> pieces_;    // of an operation, in order of time
  std::vector<PathSegment> segments_;  // backwards
};

// Whether what it has waited for belongs to the step before.
bool Walk::crosses(std::uint32_t operation) const {
  const Cause& cause = cause_of(operation);
  return cause.kind() != Cause::Kind::member && cause.from >= operation;
}

// Every operation is decided by one other, so that whoever follows them comes to a cycle; the last operation of a step
// on it.
std::uint32_t Walk::find_crossing(std::uint32_t operation) const {
  std::vector<bool> seen(executed_.causes.size(), false);
  for (; !seen[operation]; operation = cause_of(operation).from) {
    seen[operation] = true;
    ensure(cause_of(operation).from < seen.size(), "every operation of a steady step has a cause");
  }
  while (!crosses(operation)) operation = cause_of(operation).from;
  return cause_of(operation).from;
}

CriticalPath Walk::follow(std::uint32_t rank) {
  CriticalPath path;
  const std::uint32_t last = executed_.causes.last_computation(rank);
  if (last == no_operation || step_time_ == 0) return path;
  const std::uint32_t first = find_crossing(last);
  path.steps = 0;
  std::uint32_t operation = first;
  do {
    take(operation);
    if (crosses(operation)) ++path.steps;
    operation = cause_of(operation).from;
  } while (operation != first);

  // To the picosecond: steps that share links are steady to a millionth only.
  pieces_.assign(segments_.rbegin(), segments_.rend());
  segments_.clear();
  const std::int64_t length = checked_multiply(path.steps, step_time_);
  fit(place_of(first), length);
  std::int64_t start = cause_of(first).end - length;
  for (PathSegment& segment : pieces_) {
    segment.start = TimePoint{Duration{start}};
    start += segment.length.count();
  }
  path.segments = std::move(pieces_);
  return path;
}

Walk::Place Walk::place_of(std::uint32_t operation) const {
  Place place;
  place.rank = executed_.causes.rank_of(operation);
  const ProgramId program = executed_.population.program_of[RankId{place.rank}];
  place.program = &executed_.plan.programs[program];
  place.steps = &executed_.programs[index_of(program)];
  place.list = &executed_.compiled[index_of(executed_.population.device_class_of[RankId{place.rank}])];
  go_to(place, operation - executed_.causes.first_of(place.rank));
  return place;
}

void Walk::go_to(Place& place, std::uint32_t position) const {
  place.position = position;
  const auto& firsts = place.steps->first_position;
  // The last of those that begin there: calls of empty blocks have no position.
  place.call = static_cast<std::uint32_t>(std::ranges::upper_bound(firsts, position) - firsts.begin() - 1);
}

// The time between the end of what decided about it and its own.
void Walk::take(std::uint32_t operation) {
  const Cause& cause = cause_of(operation);
  if (cause.kind() == Cause::Kind::member) return;  // all members end together
  const std::int64_t start = cause_of(cause.from).end - (crosses(operation) ? step_time_ : 0);
  const Place place = place_of(operation);
  pieces_.clear();
  if (cause.kind() == Cause::Kind::host)
    add_host_bound(place, cause, start);
  else
    add_device(place, cause, start);
  fit(place, std::max<std::int64_t>(0, cause.end - start));
  segments_.insert(segments_.end(), pieces_.rbegin(), pieces_.rend());
}

void Walk::add_device(const Place& place, const Cause& cause, std::int64_t start) {
  const Step& step = place.step();
  if (step.kind == Step::Kind::communicate)
    add(place, step.first_op, path_time(executed_.plan.calls[step.call].purpose), cause.end - start);
  else if (step.kind == Step::Kind::kernels && cause.slowed())
    add_slowed_run(place, cause.slowed_by(), cause.end - start);
  else if (step.kind == Step::Kind::kernels)
    add_run(place, 0);
}

std::int64_t duration_of(const ExecutedStep& executed, std::uint32_t rank, const Op& op) {
  return executed.plan
      .duration_of(std::get<Compute>(op.work).kernel, executed.population.device_class_of[RankId{rank}],
                   executed.healthy_devices)
      .count();
}

void Walk::add_run(const Place& place, std::uint32_t skipped) {
  const Step& step = place.step();
  const Block& block = executed_.plan.blocks[place.block_call().block];
  for (std::uint32_t i = step.first_op; i < step.first_op + step.op_count; ++i) {
    if (!std::holds_alternative<Compute>(block.ops[i].work)) continue;
    if (skipped == 0)
      add_kernel(place, i, duration_of(executed_, place.rank, block.ops[i]));
    else
      --skipped;
  }
}

// Every kernel of the run loses the same share, as in records of it.
void Walk::add_slowed_run(const Place& place, CallId slowed_by, std::int64_t length) {
  __extension__ using Wide = __int128;
  const Step& step = place.step();
  const Block& block = executed_.plan.blocks[place.block_call().block];
  const auto purpose = path_time(executed_.plan.calls[slowed_by].purpose);
  std::int64_t natural = 0;
  std::int64_t stretched = 0;
  for (std::uint32_t i = step.first_op; i < step.first_op + step.op_count; ++i) {
    if (!std::holds_alternative<Compute>(block.ops[i].work)) continue;
    const std::int64_t duration = duration_of(executed_, place.rank, block.ops[i]);
    natural += duration;
    const auto until =
        static_cast<std::int64_t>(static_cast<Wide>(natural) * length / std::max<std::int64_t>(1, step.busy));
    const std::int64_t lost = until - stretched - duration;
    stretched = until;
    add_kernel(place, i, duration);
    add(place, i, purpose, lost);
    if (lost > 0) pieces_.back().slowed_by = slowed_by;
  }
}

void Walk::add_kernel(const Place& place, std::uint32_t op, std::int64_t duration) {
  const auto& work = std::get<Compute>(executed_.plan.blocks[place.block_call().block].ops[op].work);
  const DeviceClassId device = executed_.population.device_class_of[RankId{place.rank}];
  const std::int64_t healthy =
      std::min(duration, executed_.plan.duration_of(work.kernel, device, /*healthy=*/true).count());
  add(place, op, path_time(executed_.plan.kernels[work.kernel].kind), healthy);
  add(place, op, PathTime::straggler, duration - healthy);
}

// The host goes on from where it last waited until it launches the operation that was ready before. Of a run, kernels
// from one of them on follow each other; which one, see Step.
void Walk::add_host_bound(const Place& place, const Cause& cause, std::int64_t start) {
  const Place waited = place_of(cause.from);
  const bool at_end = place.position == place.steps->positions;
  if (at_end) return add_host(waited, place, 0);
  const Step& step = place.step();
  if (step.kind == Step::Kind::communicate) {
    add_host(waited, place, step.launch);
    add(place, step.first_op, path_time(executed_.plan.calls[step.call].purpose),
        cause.end - start - length_of_pieces());
    return;
  }
  const Block& block = executed_.plan.blocks[place.block_call().block];
  std::uint32_t launched = 0;
  std::uint32_t bound = 0;
  std::int64_t before = 0;  // durations of kernels so far
  std::int64_t latest = no_host_bound;
  for (std::uint32_t i = step.first_op; i < step.first_op + step.op_count; ++i) {
    if (!std::holds_alternative<Compute>(block.ops[i].work)) continue;
    const std::int64_t offset = (launched + 1) * block.launch.count() - before;
    if (offset > latest) {
      latest = offset;
      bound = launched;
    }
    ++launched;
    before += duration_of(executed_, place.rank, block.ops[i]);
  }
  add_host(waited, place, (bound + 1) * block.launch.count());
  add_run(place, bound);
}

// From behind `from` until it has spent `last_launch` on `to`; calls of a block are launched as one.
void Walk::add_host(const Place& from, const Place& to, std::int64_t last_launch) {
  Place at = to;
  const bool of_step_before = from.position >= to.position;
  go_to(at, of_step_before ? 0 : from.position + 1);
  std::int64_t launching = 0;
  std::uint32_t first_op = 0;
  const auto flush = [&] {
    add(at, first_op, PathTime::host, launching);
    launching = 0;
  };
  while (true) {
    const bool arrived = at.position == to.position;
    if (arrived && last_launch == 0) break;
    const Step& step = at.step();
    if (step.kind == Step::Kind::host_work) {
      flush();
      add(at, step.first_op, PathTime::host, step.busy);
    } else {
      if (launching == 0) first_op = step.first_op;
      launching += arrived ? last_launch : step.launch;
    }
    if (arrived) break;
    const std::uint32_t next = at.position + 1;
    if (at.call + 1 < at.program->calls.size() && at.steps->first_position[at.call + 1] <= next) flush();
    go_to(at, next);
  }
  flush();
}

void Walk::add(const Place& place, std::uint32_t op, PathTime time, std::int64_t length) {
  if (length <= 0) return;
  const BlockCall& call = place.block_call();
  pieces_.push_back({.rank = executed_.population.representative[RankId{place.rank}],
                     .block = call.block,
                     .op = op,
                     .layer = call.layer,
                     .micro_batch = call.micro_batch,
                     .time = time,
                     .length = Duration{length}});
}

std::int64_t Walk::length_of_pieces() const {
  std::int64_t length = 0;
  for (const PathSegment& piece : pieces_) length += piece.length.count();
  return length;
}

// The pieces take as long as is said, which only steps that are not steady to the picosecond have to be made to.
void Walk::fit(const Place& place, std::int64_t length) {
  std::int64_t missing = length - length_of_pieces();
  if (missing > 0) {
    if (pieces_.empty())
      add(place, 0, PathTime::host, missing);
    else
      pieces_.front().length += Duration{missing};
    return;
  }
  auto kept = pieces_.begin();
  for (; missing < 0; ++kept) {
    const std::int64_t cut = std::min(-missing, kept->length.count());
    kept->length -= Duration{cut};
    missing += cut;
    if (kept->length.count() > 0) break;
  }
  pieces_.erase(pieces_.begin(), kept);
}

}  // namespace

std::array<Duration, path_times> CriticalPath::times() const {
  std::array<Duration, path_times> sums{};
  for (const PathSegment& segment : segments) sums.at(static_cast<std::size_t>(segment.time)) += segment.length;
  return sums;
}

CriticalPath find_critical_path(const ExecutedStep& step, std::uint32_t rank, Duration step_time) {
  return Walk(step, step_time.count()).follow(rank);
}

}  // namespace trainyard::sim
