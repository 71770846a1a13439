// When a pipeline's stages do what: schedules alone, without an executor and without communication.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include "strategies/pipeline_placement.hpp"
#include "strategies/pipeline_schedule.hpp"

namespace trainyard::tests {

// What a chunk takes; a whole backward pass takes what its two parts do.
struct PassDurations {
  double forward = 1;
  double backward_input = 1;
  double backward_weight = 1;
  std::optional<double> overlapped = std::nullopt;  // a forward and a backward pass; absent: what both take

  double of(strategies::PipelineAction::Kind kind) const {
    using Kind = strategies::PipelineAction::Kind;
    const double backward = backward_input + backward_weight;
    switch (kind) {
      case Kind::forward:
        return forward;
      case Kind::backward:
        return backward;
      case Kind::backward_input:
        return backward_input;
      case Kind::backward_weight:
        return backward_weight;
      case Kind::forward_and_backward:
        return overlapped.value_or(forward + backward);
    }
    return 0;
  }
};

struct Pipeline {
  strategies::ScheduleKind kind{};
  std::int64_t stages = 1;
  std::int64_t micro_batches = 1;
  std::int64_t chunks = 1;
  std::int64_t group = 0;
};

// Every action begins as soon as its stage is free and what it needs is there.
class ScheduleClock {
 public:
  struct Stage {
    double start = 0;
    double end = 0;
    double busy = 0;
  };

  ScheduleClock(const Pipeline& pipeline, const PassDurations& durations)
      : placement_(pipeline.kind, pipeline.stages, pipeline.chunks) {
    std::vector<std::vector<Action>> actions;
    for (std::int64_t stage = 0; stage < pipeline.stages; ++stage)
      actions.push_back(strategies::pipeline_schedule(pipeline.kind, stage, pipeline.stages, pipeline.micro_batches,
                                                      pipeline.chunks, pipeline.group));
    stages_.resize(actions.size());
    std::vector<std::size_t> next(actions.size());
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t stage = 0; stage < actions.size(); ++stage) {
        while (next[stage] < actions[stage].size() && perform(stage, actions[stage][next[stage]], durations)) {
          ++next[stage];
          moved = true;
        }
      }
    }
    for (std::size_t stage = 0; stage < actions.size(); ++stage) complete_ &= next[stage] == actions[stage].size();
  }

  bool complete() const { return complete_; }  // else some actions wait for each other
  double makespan() const { return std::ranges::max_element(stages_, {}, &Stage::end)->end; }
  double idle(std::size_t stage) const { return makespan() - stages_[stage].busy; }
  double idle_inside(std::size_t stage) const {
    return stages_[stage].end - stages_[stage].start - stages_[stage].busy;
  }

 private:
  using Action = strategies::PipelineAction;
  using Kind = Action::Kind;
  using Done = std::map<std::tuple<std::int64_t, std::int64_t>, double>;  // position and micro-batch

  std::optional<double> ready(std::int64_t stage, const Action& pass) const {
    const std::int64_t position = placement_.position(stage, pass.chunk);
    const auto when = [&](const Done& done, std::int64_t at) -> std::optional<double> {
      const auto found = done.find({at, pass.micro_batch});
      return found == done.end() ? std::nullopt : std::optional(found->second);
    };
    if (pass.kind == Kind::forward) return position == 0 ? 0 : when(forward_, position - 1);
    if (pass.kind == Kind::backward_weight) return when(input_, position);
    const std::optional<double> own = when(forward_, position);
    if (position + 1 == placement_.positions()) return own;
    const std::optional<double> behind = when(input_, position + 1);
    return own && behind ? std::optional(std::max(*own, *behind)) : std::nullopt;
  }

  bool perform(std::size_t stage, const Action& action, const PassDurations& durations) {
    double start = stages_[stage].end;
    for (const Action& pass : action.passes()) {
      const std::optional<double> from = ready(static_cast<std::int64_t>(stage), pass);
      if (!from) return false;
      start = std::max(start, *from);
    }
    const double duration = durations.of(action.kind);
    if (stages_[stage].busy == 0) stages_[stage].start = start;
    stages_[stage].busy += duration;
    stages_[stage].end = start + duration;
    for (const Action& pass : action.passes()) {
      if (pass.kind == Kind::backward_weight) continue;
      Done& done = pass.kind == Kind::forward ? forward_ : input_;
      done[{placement_.position(static_cast<std::int64_t>(stage), pass.chunk), pass.micro_batch}] = start + duration;
    }
    return true;
  }

  strategies::PipelinePlacement placement_;
  std::vector<Stage> stages_;
  Done forward_;
  Done input_;
  bool complete_ = true;
};

}  // namespace trainyard::tests
