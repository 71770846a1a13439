#include "scenarios/internal/trace_timeline.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/internal/trace_labels.hpp"
#include "scenarios/internal/trace_phases.hpp"

namespace trainyard::scenarios {
namespace {

using sim::index_of;
using sim::RankId;
using sim::StreamId;

// Whole bytes, so that sums return to zero exactly; capped, so that nothing overflows on a network without limits.
std::int64_t bytes_per_second(sim::Bytes bytes, sim::Duration duration) {
  constexpr double most = 1e17;
  return static_cast<std::int64_t>(std::min(most, static_cast<double>(bytes.count) / sim::to_seconds(duration)));
}

// What a stream's communications put on links of one kind, as changes of the rate in order of time: on a stream, one
// ends before the next begins.
class TrafficReader {
 public:
  TrafficReader(const sim::Plan& plan, TraceStore::Operations operations, sim::Bytes sim::CommunicationCost::*bytes)
      : plan_(&plan), operations_(std::move(operations)), bytes_(bytes) {
    read();
  }

  static constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();
  std::int64_t when() const { return rate_ == 0 ? never : begun_ ? end_ : start_; }
  // The change at that time; then goes on to the next.
  std::int64_t take() {
    const std::int64_t change = begun_ ? -rate_ : rate_;
    begun_ = !begun_;
    if (!begun_) read();
    return change;
  }

 private:
  void read() {
    rate_ = 0;
    while (const TraceOperation* operation = operations_.next()) {
      if (call_of(*plan_, operation->block, operation->op) == nullptr || operation->transfer >= operation->end)
        continue;
      const sim::Bytes bytes = cost_of(*plan_, *operation).*bytes_;
      if (bytes.count <= 0) continue;
      start_ = operation->transfer;
      end_ = operation->end;
      rate_ = bytes_per_second(bytes, sim::Duration{end_ - start_});
      if (rate_ > 0) return;
    }
  }

  const sim::Plan* plan_;
  TraceStore::Operations operations_;
  sim::Bytes sim::CommunicationCost::*bytes_;
  std::int64_t start_ = 0;
  std::int64_t end_ = 0;
  std::int64_t rate_ = 0;  // 0 at the end
  bool begun_ = false;
};

class Timeline {
 public:
  Timeline(const sim::Plan& plan, const sim::Outcome& outcome, const TraceStore& store, TraceFormat& format);
  void write();

 private:
  void write_path();
  void write_rank(RankId rank);
  void write_names(RankId rank);
  void write_stream(RankId rank, StreamId stream);
  TraceSlice slice_of(RankId rank, StreamId stream, const TraceOperation& operation);
  TraceArrows arrows_of(const TraceOperation& operation) const;
  std::int64_t path_from() const;
  void write_memory(RankId rank);
  void write_traffic(RankId rank, TrafficLinks links, sim::Bytes sim::CommunicationCost::*bytes);

  const sim::Plan& plan_;
  const sim::Outcome& outcome_;
  const TraceStore& store_;
  TraceFormat& format_;
  TraceLabels labels_;
  std::vector<RankId> ranks_;
  std::int64_t from_;  // what is written begins here
  std::int64_t to_;
};

// A stream may begin the step while compute still ends the one before.
Timeline::Timeline(const sim::Plan& plan, const sim::Outcome& outcome, const TraceStore& store, TraceFormat& format)
    : plan_(plan),
      outcome_(outcome),
      store_(store),
      format_(format),
      labels_(plan),
      ranks_(store.ranks()),
      from_(outcome.measured_from.time_since_epoch().count()),
      to_(from_ + outcome.step_time.count()) {
  if (const auto extent = store.extent()) {
    from_ = std::min(from_, extent->first);
    to_ = std::max(to_, extent->second);
  }
  if (!outcome.critical_path || outcome.critical_path->segments.empty()) return;
  from_ = std::min(from_, path_from());
}

void Timeline::write() {
  format_.start(
      {.start = outcome_.measured_from.time_since_epoch().count() - from_, .duration = outcome_.step_time.count()});
  write_path();
  for (const RankId rank : ranks_) write_rank(rank);
  format_.finish();
}

// Where it comes back after several steps, the last of them.
std::int64_t Timeline::path_from() const {
  const sim::PathSegment& last = outcome_.critical_path->segments.back();
  return (last.start + last.length - outcome_.step_time).time_since_epoch().count();
}

void Timeline::write_path() {
  if (!outcome_.critical_path || outcome_.critical_path->segments.empty()) return;
  const RankId behind{static_cast<std::uint32_t>(plan_.program_of.size())};
  format_.name_path(behind);
  for (const sim::PathSegment& segment : outcome_.critical_path->segments) {
    const std::int64_t start = segment.start.time_since_epoch().count();
    const std::int64_t end = start + segment.length.count();
    if (end <= path_from()) continue;
    const TraceSlice slice{.rank = behind,
                           .stream = sim::compute_stream,
                           .start = std::max(start, path_from()) - from_,
                           .end = end - from_,
                           .label = &labels_.of(segment),
                           .layer = segment.layer,
                           .micro_batch = segment.micro_batch,
                           .of_rank = segment.rank};
    format_.begin_slice(slice);
    format_.end_slice(slice);
  }
}

void Timeline::write_rank(RankId rank) {
  write_names(rank);
  for (std::size_t i = 0; i < plan_.streams.size(); ++i) write_stream(rank, plan_.streams.id(i));
  write_memory(rank);
  write_traffic(rank, TrafficLinks::nvlink, &sim::CommunicationCost::nvlink_bytes);
  write_traffic(rank, TrafficLinks::nic, &sim::CommunicationCost::nic_bytes);
}

void Timeline::write_names(RankId rank) {
  const std::string& program = plan_.programs[plan_.program_of[rank]].name;
  format_.name_rank(rank, "rank " + std::to_string(index_of(rank)) + (program.empty() ? "" : " (" + program + ")"));
  for (std::size_t i = 0; i < plan_.streams.size(); ++i) {
    const StreamId stream = plan_.streams.id(i);
    if (store_.operations(rank, stream)) format_.name_stream(rank, stream, plan_.streams[stream]);
  }
}

// A stream is first in, first out: its slices come in order, those of phases before those inside them.
void Timeline::write_stream(RankId rank, StreamId stream) {
  std::optional<TraceStore::Operations> operations = store_.operations(rank, stream);
  if (!operations) return;
  std::optional<PhaseReader> phases;
  if (stream == sim::compute_stream) phases.emplace(plan_, *operations);
  TracePhase phase;
  std::size_t left = 0;  // of the phase
  while (const TraceOperation* operation = operations->next()) {
    if (phases && left == 0) {
      PhaseReader::Phase next = phases->next();
      left = next.operations;
      phase = {.rank = rank,
               .stream = stream,
               .start = next.start - from_,
               .end = next.end - from_,
               .name = std::move(next.name),
               .phase = std::move(next.phase),
               .micro_batch = next.micro_batch,
               .backward_micro_batch = next.backward_micro_batch};
      format_.begin_phase(phase);
    }
    const TraceSlice slice = slice_of(rank, stream, *operation);
    format_.begin_slice(slice);
    format_.end_slice(slice);
    if (phases && --left == 0) format_.end_phase(phase);
  }
}

TraceSlice Timeline::slice_of(RankId rank, StreamId stream, const TraceOperation& operation) {
  TraceSlice slice{.rank = rank,
                   .stream = stream,
                   .start = operation.start - from_,
                   .end = operation.end - from_,
                   .label = &labels_.of(operation),
                   .layer = operation.layer,
                   .micro_batch = operation.micro_batch};
  if (call_of(plan_, operation.block, operation.op) == nullptr) return slice;
  slice.waited = operation.transfer - operation.start;
  slice.arrows = arrows_of(operation);
  return slice;
}

// The numbers follow from the communication alone: they do not depend on the order in which records came.
TraceArrows Timeline::arrows_of(const TraceOperation& operation) const {
  if (operation.arrows == 0) return {};
  const std::uint64_t communication =
      std::uint64_t{operation.sequence} * plan_.communicators.size() + index_of(operation.communicator);
  const std::uint64_t first = communication * ranks_.size() + 1;
  const bool leave = operation.arrow == 0;
  return {.first = leave ? first : first + operation.arrow - 1,
          .count = leave ? operation.arrows : 1U,
          .leave = leave,
          .transfer = operation.transfer - from_};
}

// Changes count in the order in which the host asks for them, as an allocator sees it; a stream that runs behind must
// not turn the time of the counter back. The last value lasts to the end of the trace.
void Timeline::write_memory(RankId rank) {
  TraceStore::Memory memory = store_.memory(rank);
  std::int64_t when = from_;
  std::optional<TraceMemory> latest;
  while (const TraceMemory* record = memory.next()) {
    latest = *record;
    when = std::max(when, record->when);
    format_.count_memory(rank, when - from_, record->allocated);
  }
  if (latest && when < to_) format_.count_memory(rank, to_ - from_, latest->allocated);
}

void Timeline::write_traffic(RankId rank, TrafficLinks links, sim::Bytes sim::CommunicationCost::*bytes) {
  std::vector<TrafficReader> streams;
  for (std::size_t i = 0; i < plan_.streams.size(); ++i)
    if (const auto operations = store_.operations(rank, plan_.streams.id(i)))
      streams.emplace_back(plan_, *operations, bytes);
  const auto earliest = [&] {
    std::int64_t when = TrafficReader::never;
    for (const TrafficReader& stream : streams) when = std::min(when, stream.when());
    return when;
  };
  std::int64_t rate = 0;
  bool first = true;
  for (std::int64_t when = earliest(); when != TrafficReader::never; when = earliest()) {
    if (first && when > from_) format_.count_traffic(rank, links, 0, 0);
    first = false;
    const std::int64_t before = rate;
    for (TrafficReader& stream : streams)
      while (stream.when() == when) rate += stream.take();
    if (rate != before) format_.count_traffic(rank, links, when - from_, rate);
  }
}

}  // namespace

void write_timeline(const sim::Plan& plan, const sim::Outcome& outcome, const TraceStore& store, TraceFormat& format) {
  Timeline(plan, outcome, store, format).write();
}

}  // namespace trainyard::scenarios
