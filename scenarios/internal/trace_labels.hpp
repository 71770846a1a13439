// What slices say of their operations, up to what differs from one execution to the next.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include "scenarios/internal/trace_format.hpp"
#include "scenarios/internal/trace_store.hpp"
#include "sim/critical_path.hpp"
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
  const TraceLabel& of(const sim::PathSegment& segment);

 private:
  struct Known {
    TraceLabel label;
    sim::CommunicatorId communicator{};
  };
  void describe_kernel(const TraceOperation& operation, TraceLabel& label) const;
  void describe_communication(const TraceOperation& operation, TraceLabel& label) const;

  const sim::Plan& plan_;
  sim::Table<sim::BlockId, std::vector<Known>> labels_;
  using OfPath = std::tuple<sim::BlockId, std::uint32_t, sim::PathTime, std::optional<sim::CallId>>;
  std::map<OfPath, TraceLabel> of_path_;
  std::uint32_t count_ = 0;
};

}  // namespace trainyard::scenarios
