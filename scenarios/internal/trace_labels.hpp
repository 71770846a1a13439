// What slices say of their operations, up to what differs from one execution to the next.
#pragma once

#include <cstdint>
#include <vector>

#include "scenarios/internal/trace_format.hpp"
#include "scenarios/internal/trace_store.hpp"
#include "sim/plan.hpp"
#include "sim/table.hpp"

namespace trainyard::scenarios {

// Null where the operation is no communication.
const sim::Call* call_of(const sim::Plan& plan, sim::BlockId block, std::uint32_t op);
const sim::CommunicationCost& cost_of(const sim::Plan& plan, const TraceOperation& communication);

// One for each operation of a block that is shown; made anew where a rank executes it in another group.
class TraceLabels {
 public:
  explicit TraceLabels(const sim::Plan& plan) : plan_(plan), labels_(plan.blocks.size()) {}
  const TraceLabel& of(const TraceOperation& operation);

 private:
  struct Known {
    TraceLabel label;
    sim::CommunicatorId communicator{};
  };
  void describe_kernel(const TraceOperation& operation, TraceLabel& label) const;
  void describe_communication(const TraceOperation& operation, TraceLabel& label) const;

  const sim::Plan& plan_;
  sim::Table<sim::BlockId, std::vector<Known>> labels_;
  std::uint32_t count_ = 0;
};

}  // namespace trainyard::scenarios
