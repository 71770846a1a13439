#include "scenarios/internal/trace_phases.hpp"

#include <algorithm>
#include <functional>
#include <utility>

#include "sim/ensure.hpp"

namespace trainyard::scenarios {
namespace {

// Before the phase of blocks of which two passes run at once, see strategies/internal/pass_overlap.hpp.
constexpr std::string_view overlapped = "overlapped-";
bool is_overlapped(std::string_view phase) { return phase.starts_with(overlapped); }

}  // namespace

PhaseReader::PhaseReader(const sim::Plan& plan, TraceStore::Operations operations)
    : plan_(plan), operations_(std::move(operations)) {
  read();
}

void PhaseReader::read() {
  const TraceOperation* operation = operations_.next();
  following_ = operation == nullptr ? std::nullopt : std::optional(*operation);
}

// "forward" and "backward" of a micro-batch, else the block's name: what a diagram of the schedule is drawn with.
PhaseReader::Pass PhaseReader::pass_of(const TraceOperation& operation) const {
  const std::string_view block = plan_.blocks[operation.block].name;
  return {.phase = operation.micro_batch < 0 ? block : block.substr(0, block.find(' ')),
          .micro_batch = operation.micro_batch};
}

// Operations of two passes that run at once come in turns: a phase has one micro-batch of each.
bool PhaseReader::belongs(std::vector<Pass>& passes, const Pass& pass) {
  const auto known = std::ranges::find(passes, pass.phase, &Pass::phase);
  if (known != passes.end()) return known->micro_batch == pass.micro_batch;
  if (!passes.empty() && !(is_overlapped(pass.phase) && is_overlapped(passes.front().phase))) return false;
  passes.push_back(pass);
  return true;
}

PhaseReader::Phase PhaseReader::next() {
  sim::ensure(following_.has_value(), "a phase begins with an operation");
  Phase result{.start = following_->start, .name = {}, .phase = {}};
  std::vector<Pass> passes;
  for (; following_ && belongs(passes, pass_of(*following_)); read()) {
    ++result.operations;
    result.end = following_->end;
  }
  std::ranges::sort(passes, std::ranges::greater{}, &Pass::phase);  // the forward pass is named first
  for (const Pass& pass : passes) {
    const std::string word(is_overlapped(pass.phase) ? pass.phase.substr(overlapped.size()) : pass.phase);
    const std::string separator = result.phase.empty() ? "" : "&";
    result.phase += separator + word;
    if (pass.micro_batch >= 0)
      result.name += separator + static_cast<char>(word.front() - 'a' + 'A') + std::to_string(pass.micro_batch);
  }
  if (result.name.empty()) result.name = result.phase;
  result.micro_batch = passes.front().micro_batch;
  if (passes.size() > 1) result.backward_micro_batch = passes.back().micro_batch;
  return result;
}

}  // namespace trainyard::scenarios
