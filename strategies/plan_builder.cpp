#include "strategies/plan_builder.hpp"

#include <algorithm>
#include <utility>

namespace trainyard::strategies {

BlockWriter::BlockWriter(PlanBuilder& builder, std::string name, sim::Duration launch) : builder_(builder) {
  block_.name = std::move(name);
  block_.launch = launch;
}

sim::CallId BlockWriter::call(sim::SlotId slot, sim::CollectiveKind kind, sim::Bytes bytes, sim::Purpose purpose) {
  return builder_.call(slot, kind, bytes, purpose);
}

BlockWriter& BlockWriter::compute(std::span<const sim::Kernel> kernels) {
  for (const sim::Kernel& kernel : kernels) block_.ops.push_back({.work = sim::Compute{builder_.kernel(kernel)}});
  return *this;
}

BlockWriter& BlockWriter::side_kernel(sim::StreamId stream, const sim::Kernel& kernel, sim::StreamSet after,
                                      std::vector<sim::EventRef> waits) {
  block_.ops.push_back(
      {.stream = stream, .work = sim::Compute{builder_.kernel(kernel)}, .after = after, .waits = std::move(waits)});
  return *this;
}

BlockWriter& BlockWriter::record(sim::EventRef event, const sim::Kernel& kernel) {
  block_.ops.push_back({.work = sim::Compute{builder_.kernel(kernel)}, .records = event});
  return *this;
}

BlockWriter& BlockWriter::record(sim::EventRef event) {
  const auto last = std::find_if(block_.ops.rbegin(), block_.ops.rend(), [](const sim::Op& op) {
    return op.stream == sim::compute_stream && std::holds_alternative<sim::Compute>(op.work);
  });
  sim::ensure(last != block_.ops.rend() && !last->records, "an event marks a kernel that has none yet");
  last->records = event;
  return *this;
}

BlockWriter& BlockWriter::communicate(sim::StreamId stream, sim::CallId call, sim::StreamSet after,
                                      std::vector<sim::EventRef> waits, std::optional<sim::EventRef> records) {
  block_.ops.push_back({.stream = stream,
                        .work = sim::Communicate{call},
                        .after = after,
                        .waits = std::move(waits),
                        .records = records});
  return *this;
}

BlockWriter& BlockWriter::wait_for(sim::StreamSet streams) {
  block_.ops.push_back({.work = sim::Wait{}, .after = streams});
  return *this;
}

BlockWriter& BlockWriter::wait_for(sim::EventRef event) {
  block_.ops.push_back({.work = sim::Wait{}, .waits = {event}});
  return *this;
}

BlockWriter& BlockWriter::memory(sim::MemoryPurpose purpose, sim::Bytes change) {
  if (change.count != 0) block_.ops.push_back({.work = sim::Memory{purpose, change}});
  return *this;
}

BlockWriter& BlockWriter::host_work(sim::Duration duration) {
  block_.ops.push_back({.work = sim::HostWork{duration}});
  return *this;
}

BlockWriter& BlockWriter::host_wait(sim::StreamSet streams) {
  block_.ops.push_back({.work = sim::HostWait{}, .after = streams});
  return *this;
}

BlockWriter& BlockWriter::host_wait(sim::EventRef event) {
  block_.ops.push_back({.work = sim::HostWait{}, .waits = {event}});
  return *this;
}

BlockWriter& BlockWriter::host_wait(sim::EventRef event, sim::StreamId idle) {
  block_.ops.push_back({.stream = idle, .work = sim::HostWait{}, .waits = {event}});
  return *this;
}

sim::BlockId BlockWriter::finish() { return builder_.plan().blocks.add(std::move(block_)); }

sim::KernelId PlanBuilder::kernel(const sim::Kernel& kernel) {
  const auto key = std::make_tuple(kernel.name, kernel.kind, kernel.duration.count(), kernel.flops.count,
                                   kernel.model_flops.count, kernel.bytes.count);
  const auto known = kernels_.find(key);
  if (known != kernels_.end()) return known->second;
  return kernels_[key] = plan_.kernels.add(kernel);
}

sim::CallId PlanBuilder::call(sim::SlotId slot, sim::CollectiveKind kind, sim::Bytes bytes, sim::Purpose purpose) {
  const sim::Call call{.slot = slot, .kind = kind, .bytes = bytes, .purpose = purpose};
  const auto known = calls_.find(call);
  if (known != calls_.end()) return known->second;
  return calls_[call] = plan_.calls.add(call);
}

}  // namespace trainyard::strategies
