#include "sim/internal/step_list.hpp"

#include <algorithm>
#include <utility>
#include <variant>

namespace trainyard::sim {
namespace {

class Compiler {
 public:
  Compiler(const Plan& plan, DeviceClassId device, bool healthy) : plan_(plan), device_(device), healthy_(healthy) {}

  StepList compile() {
    list_.blocks = Table<BlockId, StepList::Extent>(plan_.blocks.size());
    for (std::size_t i = 0; i < plan_.blocks.size(); ++i) {
      const BlockId id = plan_.blocks.id(i);
      list_.blocks[id].first = static_cast<std::uint32_t>(list_.steps.size());
      compile_block(plan_.blocks[id]);
      list_.blocks[id].count = static_cast<std::uint32_t>(list_.steps.size()) - list_.blocks[id].first;
    }
    return std::move(list_);
  }

 private:
  void compile_block(const Block& block) {
    open_ = false;
    for (std::uint32_t i = 0; i < block.ops.size(); ++i) {
      const Op& op = block.ops[i];
      if (std::holds_alternative<Memory>(op.work)) {
        add_memory(i);
      } else if (const auto* compute = std::get_if<Compute>(&op.work)) {
        add_kernel(op, i, compute->kernel, block.launch.count());
      } else {
        add_other(op, i, block.launch.count());
      }
    }
  }

  // Takes no time; looked at only where records are written.
  void add_memory(std::uint32_t index) {
    if (open_)
      ++list_.steps.back().op_count;
    else
      list_.steps.push_back({.kind = Step::Kind::memory, .first_op = index, .op_count = 1});
  }

  void add_kernel(const Op& op, std::uint32_t index, KernelId kernel, std::int64_t launch) {
    if (!open_ || op.after != 0 || !op.waits.empty() || list_.steps.back().stream != op.stream) begin(op, index);
    Step& step = list_.steps.back();
    const std::int64_t duration = plan_.duration_of(kernel, device_, healthy_).count();
    step.launch += launch;
    step.busy = later(step.busy, duration);
    step.host_bound = std::max(step.host_bound + duration, later(step.launch, duration));
    step.by_class.at(static_cast<std::size_t>(plan_.kernels[kernel].kind)) += duration;
    ++step.op_count;
    ++step.kernel_count;
    open_ = !op.records;
    record(step, op);
  }

  void add_other(const Op& op, std::uint32_t index, std::int64_t launch) {
    Step& step = begin(op, index);
    step.op_count = 1;
    open_ = std::holds_alternative<Wait>(op.work);  // kernels that follow on the stream join the wait
    if (const auto* communicate = std::get_if<Communicate>(&op.work)) {
      ensure(op.stream != compute_stream || !op.records, "a blocking communication needs no event");
      step.kind = Step::Kind::communicate;
      step.call = communicate->call;
      step.launch = launch;
      record(step, op);
      return;
    }
    ensure(!op.records, "only kernels and communications record events");
    if (const auto* work = std::get_if<HostWork>(&op.work)) {
      step.kind = Step::Kind::host_work;
      step.busy = work->duration.count();
    } else if (!open_) {
      step.kind = Step::Kind::host_wait;
    }
  }

  Step& begin(const Op& op, std::uint32_t index) {
    Step& step = list_.steps.emplace_back();
    step.stream = op.stream;
    step.after = op.after;
    step.first_wait = static_cast<std::uint32_t>(list_.waits.size());
    step.wait_count = static_cast<std::uint32_t>(op.waits.size());
    step.first_op = index;
    list_.waits.insert(list_.waits.end(), op.waits.begin(), op.waits.end());
    return step;
  }

  void record(Step& step, const Op& op) {
    if (!op.records) return;
    list_.waits.push_back(*op.records);
    step.record = static_cast<std::uint32_t>(list_.waits.size());
  }

  const Plan& plan_;
  DeviceClassId device_;
  bool healthy_;
  StepList list_;
  bool open_ = false;  // the last step is a run of kernels that may grow
};

}  // namespace

StepList compile_steps(const Plan& plan, DeviceClassId device, bool healthy) {
  return Compiler(plan, device, healthy).compile();
}

StepTotals total_of(const StepList& list, const Program& program) {
  Table<BlockId, StepTotals> of_block(list.blocks.size());
  for (std::size_t b = 0; b < list.blocks.size(); ++b) {
    const StepList::Extent block = list.blocks[list.blocks.id(b)];
    StepTotals& totals = of_block[list.blocks.id(b)];
    for (std::uint32_t s = block.first; s < block.first + block.count; ++s) {
      const Step& step = list.steps[s];
      totals.operations += step.kind == Step::Kind::communicate ? 1 : step.kernel_count;
      if (step.kind != Step::Kind::kernels || step.stream != compute_stream) continue;
      for (std::size_t k = 0; k < kernel_classes; ++k) totals.by_class.at(k) += step.by_class.at(k);
    }
  }
  StepTotals result;
  for (const BlockCall& call : program.calls) {
    for (std::size_t k = 0; k < kernel_classes; ++k)
      result.by_class.at(k) = checked_add(result.by_class.at(k), of_block[call.block].by_class.at(k));
    result.operations += of_block[call.block].operations;
  }
  return result;
}

ProgramSteps find_early_steps(const Plan& plan, const StepList& list, const Program& program) {
  ProgramSteps result;
  // Where each was last touched: one behind.
  std::vector<std::uint32_t> stream(plan.streams.size(), 0);
  std::vector<std::uint32_t> slot(plan.slots.size(), 0);
  std::vector<std::uint32_t> event(plan.event_count(), 0);
  std::uint32_t host_waited = 0;
  std::uint32_t position = 0;
  std::int64_t host = 0;
  for (std::uint32_t c = 0; c < program.calls.size(); ++c) {
    const BlockCall& call = program.calls[c];
    result.first_position.push_back(position);
    result.host_before.push_back(host);
    const StepList::Extent block = list.blocks[call.block];
    const auto touched_event = [&](const EventRef& ref) -> std::uint32_t& {
      return event[event_index(plan, ref, call)];
    };
    for (std::uint32_t s = 0; s < block.count; ++s, ++position) {
      const Step& step = list.steps[block.first + s];
      const std::uint32_t behind = position + 1;
      if (step.kind == Step::Kind::communicate && step.after == 0 && step.wait_count == 0 &&
          step.stream != compute_stream) {
        std::uint32_t from =
            std::max({stream[index_of(step.stream)], slot[index_of(plan.calls[step.call].slot)], host_waited});
        if (step.record != 0) from = std::max(from, touched_event(list.waits[step.record - 1]));
        if (from < position) result.early.push_back({position, from, c, s, host});
      }
      for (std::size_t i = 0; i < stream.size(); ++i)
        if ((step.after >> i & 1U) != 0) stream[i] = behind;
      if (step.kind != Step::Kind::host_work && step.kind != Step::Kind::memory) stream[index_of(step.stream)] = behind;
      if (step.kind == Step::Kind::host_wait) host_waited = behind;
      if (step.kind == Step::Kind::communicate) slot[index_of(plan.calls[step.call].slot)] = behind;
      for (std::uint32_t w = 0; w < step.wait_count; ++w) touched_event(list.waits[step.first_wait + w]) = behind;
      if (step.record != 0) touched_event(list.waits[step.record - 1]) = behind;
      host = later(host, host_time(step));
    }
  }
  result.positions = position;
  return result;
}

}  // namespace trainyard::sim
