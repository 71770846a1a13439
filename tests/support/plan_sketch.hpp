// Small plans for tests of the executor, written by hand: three streams, three slots, durations in picoseconds.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "sim/executor.hpp"
#include "sim/plan.hpp"

namespace trainyard::tests {

constexpr sim::StreamId side{1};
constexpr sim::StreamId third{2};
constexpr sim::SlotId group{0};
constexpr sim::SlotId next{1};
constexpr sim::SlotId previous{2};
constexpr sim::StreamSet after_compute = sim::set_of(sim::compute_stream);
constexpr sim::StreamSet after_side = sim::set_of(side);
constexpr sim::StreamSet after_third = sim::set_of(third);

inline sim::RankId rank(std::uint32_t index) { return sim::RankId{index}; }
inline sim::EventRef absolute(std::uint16_t index) { return {.index = index, .relative = false}; }
inline sim::EventRef relative(std::uint16_t index) { return {.index = index, .relative = true}; }

class PlanSketch {
 public:
  explicit PlanSketch(std::size_t ranks) {
    plan.streams.add("compute");
    plan.streams.add("side");
    plan.streams.add("third");
    for (const char* const name : {"group", "next", "previous"}) plan.slots.add(name);
    plan.absolute_events = 4;
    plan.relative_events = 2;
    plan.program_of = sim::Table<sim::RankId, sim::ProgramId>(ranks);
    plan.communicators = sim::CommunicatorTable(ranks, plan.slots.size());
  }

  sim::Op kernel(std::int64_t duration_ps, sim::StreamId stream = sim::compute_stream,
                 sim::KernelClass kind = sim::KernelClass::matmul) {
    const sim::KernelId id = plan.kernels.add({.name = "kernel", .kind = kind, .duration = sim::Duration{duration_ps}});
    return {.stream = stream, .work = sim::Compute{id}};
  }
  // A call with the same duration on every communicator.
  sim::CallId call(std::int64_t duration_ps, sim::SlotId slot = group,
                   sim::CollectiveKind kind = sim::CollectiveKind::all_reduce,
                   sim::Purpose purpose = sim::Purpose::tensor, sim::Bytes bytes = {}) {
    durations_.push_back(sim::Duration{duration_ps});
    return plan.calls.add({.slot = slot, .kind = kind, .bytes = bytes, .purpose = purpose});
  }
  sim::CommunicatorId join(const std::vector<std::uint32_t>& members, sim::SlotId slot = group) {
    std::vector<sim::RankId> ids;
    for (const std::uint32_t member : members) ids.push_back(rank(member));
    return plan.communicators.add(ids, std::vector<sim::SlotId>(ids.size(), slot));
  }
  sim::CommunicatorId connect(std::uint32_t sender, std::uint32_t receiver) {
    return plan.communicators.add({rank(sender), rank(receiver)}, {next, previous});
  }
  sim::BlockId block(std::vector<sim::Op> ops, std::int64_t launch_ps = 0, std::string name = "block") {
    return plan.blocks.add({.name = std::move(name), .launch = sim::Duration{launch_ps}, .ops = std::move(ops)});
  }
  sim::ProgramId program(std::vector<sim::BlockCall> calls, std::string name = "program") {
    return plan.programs.add({.name = std::move(name), .calls = std::move(calls)});
  }
  // One block that these ranks run.
  void runs(const std::vector<std::uint32_t>& ranks, std::vector<sim::Op> ops, std::int64_t launch_ps = 0,
            std::string name = "program") {
    const sim::ProgramId id = program({{.block = block(std::move(ops), launch_ps)}}, std::move(name));
    for (const std::uint32_t member : ranks) plan.program_of[rank(member)] = id;
  }
  const sim::Plan& finished() {
    plan.costs = {};
    std::vector<sim::CommunicationCost> row;
    for (const sim::Duration duration : durations_) row.push_back({.duration = duration});
    plan.costs.add(row);
    return plan;
  }

  sim::Plan plan;

 private:
  std::vector<sim::Duration> durations_;
};

inline sim::Op communicate(sim::CallId call, sim::StreamId stream, sim::StreamSet after = 0) {
  return {.stream = stream, .work = sim::Communicate{call}, .after = after};
}
inline sim::Op wait_for(sim::StreamSet streams, sim::StreamId stream = sim::compute_stream) {
  return {.stream = stream, .work = sim::Wait{}, .after = streams};
}
inline sim::Op wait_for(sim::EventRef event, sim::StreamId stream = sim::compute_stream) {
  return {.stream = stream, .work = sim::Wait{}, .waits = {event}};
}
inline sim::Op recording(sim::Op op, sim::EventRef event) {
  op.records = event;
  return op;
}
inline sim::Op waiting(sim::Op op, sim::EventRef event) {
  op.waits.push_back(event);
  return op;
}

inline std::vector<sim::RankId> all_ranks(const sim::Plan& plan) {
  std::vector<sim::RankId> ranks;
  for (std::size_t i = 0; i < plan.program_of.size(); ++i) ranks.push_back(plan.program_of.id(i));
  return ranks;
}
// One step from time zero, everything recorded.
inline sim::Outcome first_step(PlanSketch& sketch) {
  const sim::Plan& plan = sketch.finished();
  return sim::run(plan, {.record = all_ranks(plan), .most_steps = 1});
}

using Span = std::pair<std::int64_t, std::int64_t>;
// Start and end of what a rank did, in the order of its program.
inline std::vector<Span> spans(const sim::Outcome& outcome, std::uint32_t of = 0) {
  std::vector<Span> result;
  for (const sim::OpRecord& record : outcome.records)
    if (record.rank == rank(of))
      result.emplace_back(record.start.time_since_epoch().count(), record.end.time_since_epoch().count());
  return result;
}

// All of a breakdown in picoseconds, without `idle`, which is counted already.
__extension__ using Wide = __int128;
inline Wide sum_of(const sim::ComputeStreamTime& time) {
  Wide sum = time.bubble.ps + time.host.ps;
  for (const auto& part : time.kernels) sum += part.ps;
  for (const auto& part : time.exposed) sum += part.ps;
  return sum;
}
inline std::int64_t ps(const sim::WideDuration& duration) { return static_cast<std::int64_t>(duration.ps); }
inline std::int64_t kernels_ps(const sim::Outcome& outcome, sim::KernelClass kind) {
  return ps(outcome.time.kernels.at(static_cast<std::size_t>(kind)));
}
inline std::int64_t exposed_ps(const sim::Outcome& outcome, sim::Purpose purpose) {
  return ps(outcome.time.exposed.at(static_cast<std::size_t>(purpose)));
}

}  // namespace trainyard::tests
