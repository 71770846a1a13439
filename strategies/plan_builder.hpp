// Writes plans: names in, ids out, everything that is alike stored once.
#pragma once

#include <map>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "sim/plan.hpp"

namespace trainyard::strategies {

// Appends operations to one block, in the order in which the host issues them.
class BlockWriter {
 public:
  BlockWriter(class PlanBuilder& builder, std::string name, sim::Duration launch);

  sim::CallId call(sim::SlotId slot, sim::CollectiveKind kind, sim::Bytes bytes, sim::Purpose purpose);
  BlockWriter& compute(std::span<const sim::Kernel> kernels);
  // A kernel on a stream of its own; compute goes on.
  BlockWriter& side_kernel(sim::StreamId stream, const sim::Kernel& kernel, sim::StreamSet after,
                           std::vector<sim::EventRef> waits = {});
  // Marks what compute has reached so far.
  BlockWriter& record(sim::EventRef event, const sim::Kernel& kernel);
  // The same, behind the block's last kernel of the compute stream.
  BlockWriter& record(sim::EventRef event);

  // Starts when the rank's compute stream has reached this point.
  BlockWriter& communicate(sim::StreamId stream, sim::CallId call) {
    return communicate(stream, call, sim::set_of(sim::compute_stream), {}, std::nullopt);
  }
  BlockWriter& communicate(sim::StreamId stream, sim::CallId call, sim::StreamSet after,
                           std::vector<sim::EventRef> waits, std::optional<sim::EventRef> records);
  // Compute goes on when all that was issued on `streams` is done, or the event has happened.
  BlockWriter& wait_for(sim::StreamSet streams);
  BlockWriter& wait_for(sim::EventRef event);
  // A communication that compute waits for at once.
  BlockWriter& blocking(sim::StreamId stream, sim::CallId call) {
    return communicate(stream, call).wait_for(sim::set_of(stream));
  }
  BlockWriter& memory(sim::MemoryPurpose purpose, sim::Bytes change);
  BlockWriter& host_work(sim::Duration duration);
  BlockWriter& host_wait(sim::StreamSet streams);
  BlockWriter& host_wait(sim::EventRef event);
  // For the event alone: `idle` is a stream on which nothing runs.
  BlockWriter& host_wait(sim::EventRef event, sim::StreamId idle);

  sim::BlockId finish();

 private:
  class PlanBuilder& builder_;
  sim::Block block_;
};

class PlanBuilder {
 public:
  PlanBuilder() { stream("compute"); }

  sim::StreamId stream(std::string name) { return plan_.streams.add(std::move(name)); }
  sim::SlotId slot(std::string name) { return plan_.slots.add(std::move(name)); }
  sim::KernelId kernel(const sim::Kernel& kernel);
  sim::CallId call(sim::SlotId slot, sim::CollectiveKind kind, sim::Bytes bytes, sim::Purpose purpose);
  sim::EventRef event() { return {.index = plan_.absolute_events++, .relative = false}; }
  // `count` events that block calls take in turns, see sim::EventRef.
  void relative_events(std::uint16_t count) { plan_.relative_events = count; }
  BlockWriter block(std::string name, sim::Duration launch) { return {*this, std::move(name), launch}; }

  sim::Plan& plan() { return plan_; }
  sim::Plan take() { return std::move(plan_); }

 private:
  sim::Plan plan_;
  using KernelKey = std::tuple<std::string, sim::KernelClass, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;
  std::map<KernelKey, sim::KernelId> kernels_;
  std::map<sim::Call, sim::CallId> calls_;
};

}  // namespace trainyard::strategies
