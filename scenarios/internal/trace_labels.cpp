#include "scenarios/internal/trace_labels.hpp"

#include <array>
#include <string>
#include <string_view>
#include <variant>

#include "scenarios/internal/path_figures.hpp"

namespace trainyard::scenarios {

using sim::index_of;

const sim::Call* call_of(const sim::Plan& plan, sim::BlockId block, std::uint32_t op) {
  const auto* work = std::get_if<sim::Communicate>(&plan.blocks[block].ops[op].work);
  return work == nullptr ? nullptr : &plan.calls[work->call];
}

const sim::CommunicationCost& cost_of(const sim::Plan& plan, const TraceOperation& communication) {
  const auto& work = std::get<sim::Communicate>(plan.blocks[communication.block].ops[communication.op].work);
  return plan.costs[plan.communicators[communication.communicator].cost][index_of(work.call)];
}

const TraceLabel& TraceLabels::of(const TraceOperation& operation) {
  std::vector<Known>& of_block = labels_[operation.block];
  of_block.resize(plan_.blocks[operation.block].ops.size());
  Known& known = of_block[operation.op];
  TraceLabel& label = known.label;
  if (label.version > 0 && known.communicator == operation.communicator) return label;
  if (label.version == 0) label.number = count_++;
  ++label.version;
  known.communicator = operation.communicator;
  label.block = plan_.blocks[operation.block].name;
  label.arguments.clear();
  if (call_of(plan_, operation.block, operation.op) == nullptr)
    describe_kernel(operation, label);
  else
    describe_communication(operation, label);
  return label;
}

const TraceLabel& TraceLabels::of(const sim::PathSegment& segment) {
  TraceLabel& label = of_path_[{segment.block, segment.op, segment.time, segment.slowed_by}];
  if (label.version > 0) return label;
  label.number = count_++;
  label.version = 1;
  label.name = name_of(plan_, segment);
  label.category = breakdown_names.at(static_cast<std::size_t>(segment.time));
  label.block = plan_.blocks[segment.block].name;
  return label;
}

void TraceLabels::describe_kernel(const TraceOperation& operation, TraceLabel& label) const {
  constexpr std::array<std::string_view, sim::kernel_classes> classes{"matmul", "attention", "memory_bound",
                                                                      "optimizer"};
  const sim::Op& op = plan_.blocks[operation.block].ops[operation.op];
  const sim::Kernel& kernel = plan_.kernels[std::get<sim::Compute>(op.work).kernel];
  label.name = kernel.name;
  label.category = classes.at(static_cast<std::size_t>(kernel.kind));
  label.arguments = {
      {"flops", kernel.flops.count}, {"model_flops", kernel.model_flops.count}, {"bytes", kernel.bytes.count}};
}

void TraceLabels::describe_communication(const TraceOperation& operation, TraceLabel& label) const {
  const sim::Call& call = *call_of(plan_, operation.block, operation.op);
  const sim::CommunicationCost& cost = cost_of(plan_, operation);
  const std::string& slot = plan_.slots[call.slot];
  const std::string kind(to_string(call.kind));
  const std::string purpose(to_string(call.purpose));
  label.name = kind + " " + (slot.empty() ? purpose : slot);
  label.category = purpose;
  label.arguments = {
      {"operation", kind}, {"purpose", purpose}, {"bytes", call.bytes.count}, {"wire_bytes", cost.wire_bytes.count}};
  if (cost.algorithm < plan_.algorithms.size())
    label.arguments.emplace_back("algorithm", plan_.algorithms[cost.algorithm]);
  label.arguments.emplace_back("communicator", static_cast<std::int64_t>(index_of(operation.communicator)));
  label.arguments.emplace_back("group_size", std::int64_t{plan_.communicators[operation.communicator].member_count});
}

}  // namespace trainyard::scenarios
