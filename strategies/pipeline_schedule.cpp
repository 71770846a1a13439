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

std::vector<PipelineAction> zb_h1(std::int64_t stage, std::int64_t stages, std::int64_t micro_batches) {
  std::vector<PipelineAction> actions;
  std::int64_t forwards = 0;
  std::int64_t weights = 0;
  const auto add = [&](Kind kind, std::int64_t micro_batch) {
    actions.push_back({.kind = kind, .micro_batch = micro_batch});
  };
  while (forwards < std::min(stages - stage - 1, micro_batches)) add(Kind::forward, forwards++);
  for (std::int64_t turn = 0; turn < micro_batches; ++turn) {
    if (forwards < micro_batches) add(Kind::forward, forwards++);
    add(Kind::backward_input, turn);
    if (turn >= stage) add(Kind::backward_weight, weights++);
  }
  while (weights < micro_batches) add(Kind::backward_weight, weights++);
  return actions;
}

// All stages work at once, in turns of one pass: what is done in a turn can be built on in the next.
class ZeroBubbleH2 {
 public:
  ZeroBubbleH2(std::int64_t stages, std::int64_t micro_batches)
      : micro_batches_(micro_batches), most_in_flight_(2 * stages - 1), stages_(static_cast<std::size_t>(stages)) {}

  std::vector<PipelineAction> actions_of(std::int64_t stage) {
    const auto chosen = static_cast<std::size_t>(stage);
    while (stages_[chosen].weights < micro_batches_) take_turn(chosen);
    return std::move(actions_);
  }

 private:
  struct Stage {
    std::int64_t forwards = 0;  // done so far
    std::int64_t inputs = 0;
    std::int64_t weights = 0;
  };

  void take_turn(std::size_t chosen) {
    const std::vector<Stage> before = stages_;
    for (std::size_t s = 0; s < stages_.size(); ++s) {
      Stage& stage = stages_[s];
      const std::int64_t arrived = s == 0 ? micro_batches_ : before[s - 1].forwards;
      const std::int64_t returned = s + 1 == stages_.size() ? before[s].forwards : before[s + 1].inputs;
      const auto act = [&](Kind kind, std::int64_t& done) {
        if (s == chosen) actions_.push_back({.kind = kind, .micro_batch = done});
        ++done;
      };
      if (stage.inputs < std::min(returned, stage.forwards))
        act(Kind::backward_input, stage.inputs);
      else if (stage.forwards < arrived && stage.forwards - stage.weights < most_in_flight_)
        act(Kind::forward, stage.forwards);
      else if (stage.weights < stage.inputs)
        act(Kind::backward_weight, stage.weights);
    }
  }

  std::int64_t micro_batches_;
  std::int64_t most_in_flight_;
  std::vector<Stage> stages_;
  std::vector<PipelineAction> actions_;  // of the chosen stage
};

}  // namespace

std::vector<PipelineAction> pipeline_schedule(ScheduleKind kind, std::int64_t stage, std::int64_t stages,
                                              std::int64_t micro_batches, std::int64_t chunks) {
  sim::ensure(stage >= 0 && stage < stages && micro_batches > 0 && chunks > 0, "a schedule is for a stage that exists");
  sim::ensure(kind == ScheduleKind::interleaved || chunks == 1, "only interleaved schedules have several chunks");
  if (kind == ScheduleKind::zb_h1) return zb_h1(stage, stages, micro_batches);
  if (kind == ScheduleKind::zb_h2) return ZeroBubbleH2(stages, micro_batches).actions_of(stage);
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
    case ScheduleKind::zb_h1:
    case ScheduleKind::zb_h2:
      break;
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
