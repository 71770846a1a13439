#include "scenarios/internal/schedule_rows.hpp"

#include <algorithm>
#include <map>
#include <variant>

namespace trainyard::scenarios {
namespace {

// Strategies name their blocks by the pass that they are part of. What a backward pass computes again belongs to it.
Phase phase_of(std::string_view block) {
  const auto begins = [&](std::string_view word) { return block.starts_with(word); };
  if (begins("forward")) return Phase::forward;
  if (begins("backward") || begins("recompute")) return Phase::backward;
  if (begins("input-gradients")) return Phase::input_gradients;
  if (begins("weight-gradients")) return Phase::weight_gradients;
  return Phase::update;
}

bool is_one_pass(const Pass& pass, const Pass& next) {
  return pass.phase == next.phase && pass.micro_batch == next.micro_batch;
}

}  // namespace

std::vector<ScheduleRow> schedule_rows(const sim::Plan& plan, const sim::Outcome& outcome) {
  std::map<sim::ProgramId, ScheduleRow> rows;
  for (const sim::OpRecord& record : outcome.records) {
    if (record.stream != sim::compute_stream) continue;
    const sim::ProgramId program = plan.program_of[record.rank];
    const auto [row, is_new] = rows.try_emplace(program);
    if (is_new) row->second = {.rank = record.rank, .program = plan.programs[program].name, .passes = {}};
    if (row->second.rank != record.rank) continue;
    const Pass next{.phase = phase_of(plan.blocks[record.block].name),
                    .micro_batch = record.micro_batch,
                    .layer = record.layer,
                    .start = record.start,
                    .end = record.end};
    std::vector<Pass>& passes = row->second.passes;
    if (!passes.empty() && is_one_pass(passes.back(), next)) {
      Pass& pass = passes.back();
      pass.end = std::max(pass.end, next.end);
      if (next.layer >= 0) pass.layer = pass.layer < 0 ? next.layer : std::min(pass.layer, next.layer);
    } else {
      passes.push_back(next);
    }
  }
  std::vector<ScheduleRow> result;
  result.reserve(rows.size());
  for (auto& [program, row] : rows) result.push_back(std::move(row));
  return result;
}

}  // namespace trainyard::scenarios
