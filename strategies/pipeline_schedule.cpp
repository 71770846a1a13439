#include "strategies/pipeline_schedule.hpp"

#include <algorithm>

#include "sim/ensure.hpp"

namespace trainyard::strategies {
namespace {

using Kind = PipelineAction::Kind;

// Warm-up forwards, then pairs of one forward and one backward, then the backwards that are left.
std::vector<PipelineAction> warm_pair_drain(const std::vector<PipelineAction>& forwards,
                                            const std::vector<PipelineAction>& backwards, std::size_t warm_up) {
  std::vector<PipelineAction> actions(forwards.begin(), forwards.begin() + static_cast<std::ptrdiff_t>(warm_up));
  for (std::size_t i = warm_up; i < forwards.size(); ++i) {
    actions.push_back(forwards[i]);
    actions.push_back(backwards[i - warm_up]);
  }
  actions.insert(actions.end(), backwards.end() - static_cast<std::ptrdiff_t>(warm_up), backwards.end());
  return actions;
}

}  // namespace

std::vector<PipelineAction> pipeline_schedule(ScheduleKind kind, std::int64_t stage, std::int64_t stages,
                                              std::int64_t micro_batches, std::int64_t chunks) {
  sim::ensure(stage >= 0 && stage < stages && micro_batches > 0 && chunks > 0, "a schedule is for a stage that exists");
  sim::ensure(kind == ScheduleKind::interleaved || chunks == 1, "only interleaved schedules have several chunks");
  std::vector<PipelineAction> forwards;
  std::vector<PipelineAction> backwards;
  for (std::int64_t first = 0; first < micro_batches; first += stages) {
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
      for (std::int64_t i = first; i < std::min(first + stages, micro_batches); ++i) {
        forwards.push_back({.kind = Kind::forward, .micro_batch = i, .chunk = chunk});
        backwards.push_back({.kind = Kind::backward, .micro_batch = i, .chunk = chunks - 1 - chunk});
      }
    }
  }
  switch (kind) {
    case ScheduleKind::gpipe:
      std::ranges::reverse(backwards);
      return warm_pair_drain(forwards, backwards, forwards.size());
    case ScheduleKind::one_forward_one_backward:
      return warm_pair_drain(forwards, backwards,
                             static_cast<std::size_t>(std::min(stages - stage - 1, micro_batches)));
    case ScheduleKind::interleaved: {
      const std::int64_t warm_up = chunks == 1 ? stages - stage - 1 : 2 * (stages - stage - 1) + (chunks - 1) * stages;
      return warm_pair_drain(forwards, backwards, static_cast<std::size_t>(std::min(warm_up, micro_batches * chunks)));
    }
  }
  return {};
}

std::vector<std::int64_t> spread_layers(std::int64_t layers, std::int64_t positions) {
  std::vector<std::int64_t> result(static_cast<std::size_t>(positions), layers / positions);
  std::int64_t rest = layers % positions;
  for (std::size_t i = 1; i + 1 < result.size() && rest > 0; ++i, --rest) ++result[i];
  if (rest > 0 && result.size() > 1) {
    ++result.back();
    --rest;
  }
  if (rest > 0) ++result.front();
  return result;
}

}  // namespace trainyard::strategies
