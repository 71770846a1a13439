// State that waits in host memory or on drives: copies over PCIe, the optimizer on the host's processors, reads and
// writes of drives. Every rank has these ways of its own; what the devices of a node share is divided among them.
#pragma once

#include <cstdint>
#include <optional>

#include "strategies/plan_builder.hpp"
#include "topology/cluster.hpp"

namespace trainyard::strategies {

// At which all devices of a node together stream through its memory to update parameters there.
sim::BytesPerSecond host_update_rate(const topology::NodeType& node);

class HostState {
 public:
  // `pinned`: copies go through page-locked memory.
  HostState(PlanBuilder& builder, const topology::Cluster& cluster, bool pinned);

  // Streams and slots exist from here on; a plan without offload does not have them.
  void open();
  bool opened() const { return opened_; }

  sim::StreamId out() const { return out_.stream; }
  sim::StreamId in() const { return in_.stream; }
  sim::StreamId optimizer() const { return optimizer_.stream; }
  sim::StreamId read() const { return read_.stream; }
  sim::StreamId write() const { return write_.stream; }

  // Each on its own stream, behind what is on `after` and, as a stream is, behind its own last.
  void copy_out(BlockWriter& block, sim::Bytes bytes, sim::StreamSet after) { issue(block, out_, bytes, after); }
  void copy_in(BlockWriter& block, sim::Bytes bytes, sim::StreamSet after,
               std::optional<sim::EventRef> records = std::nullopt) {
    issue(block, in_, bytes, after, records);
  }
  // The host's processors stream through so many bytes of its memory.
  void update(BlockWriter& block, sim::Bytes bytes, sim::StreamSet after) { issue(block, optimizer_, bytes, after); }
  void read(BlockWriter& block, sim::Bytes bytes, sim::StreamSet after) { issue(block, read_, bytes, after); }
  void write(BlockWriter& block, sim::Bytes bytes, sim::StreamSet after) { issue(block, write_, bytes, after); }

  // Adds every rank's ways to the plan's communicators, and after its communications are priced, prices these.
  void connect(sim::Plan& plan, std::int64_t ranks) const;
  void price(sim::Plan& plan) const;

 private:
  struct Way {
    sim::StreamId stream{};
    sim::SlotId slot{};
    sim::BytesPerSecond rate{};
  };
  void issue(BlockWriter& block, const Way& way, sim::Bytes bytes, sim::StreamSet after,
             std::optional<sim::EventRef> records = std::nullopt);

  PlanBuilder& builder_;
  bool opened_ = false;
  Way out_, in_, optimizer_, read_, write_;
};

}  // namespace trainyard::strategies
