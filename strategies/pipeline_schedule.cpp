#include "strategies/pipeline_schedule.hpp"

#include <algorithm>
#include <array>
#include <utility>

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

// Micro-batches go through the chunks in groups.
struct PassOrder {
  std::vector<PipelineAction> forwards;
  std::vector<PipelineAction> backwards;
};
PassOrder in_groups(std::int64_t micro_batches, std::int64_t chunks, std::int64_t group, Kind backward) {
  PassOrder order;
  for (std::int64_t first = 0; first < micro_batches; first += group) {
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
      for (std::int64_t i = first; i < std::min(first + group, micro_batches); ++i) {
        order.forwards.push_back({.kind = Kind::forward, .micro_batch = i, .chunk = chunk});
        order.backwards.push_back({.kind = backward, .micro_batch = i, .chunk = chunks - 1 - chunk});
      }
    }
  }
  return order;
}

std::vector<PipelineAction> zb_h1(std::int64_t stage, std::int64_t stages, const PassOrder& order,
                                  std::int64_t chunks_ahead) {
  const auto passes = std::ssize(order.forwards);
  const std::int64_t warm_up = std::min(stages - stage - 1 + chunks_ahead, passes);
  std::vector<PipelineAction> actions(order.forwards.begin(), order.forwards.begin() + warm_up);
  const auto weights = [&](std::int64_t turn) {
    actions.push_back(order.backwards[static_cast<std::size_t>(turn)]);
    actions.back().kind = Kind::backward_weight;
  };
  for (std::int64_t turn = 0; turn < passes; ++turn) {
    if (warm_up + turn < passes) actions.push_back(order.forwards[static_cast<std::size_t>(warm_up + turn)]);
    actions.push_back(order.backwards[static_cast<std::size_t>(turn)]);
    if (turn >= stage) weights(turn - stage);
  }
  for (std::int64_t turn = std::max<std::int64_t>(0, passes - stage); turn < passes; ++turn) weights(turn);
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

// Two chunks in a V.
class ZeroBubbleV {
 public:
  ZeroBubbleV(std::int64_t stages, std::int64_t micro_batches)
      : stages_(stages), micro_batches_(micro_batches), counted_(std::max(2 * stages - 1, micro_batches)) {}

  std::vector<PipelineAction> actions_of(std::int64_t stage) && {
    const std::int64_t behind = stages_ - stage;
    repeat(2 * behind - 1, [&] { add(forward_, 0); });
    repeat(stage, [&] {
      add(forward_, 1);
      add(forward_, 0);
    });
    repeat(behind, [&] { add_chunk_one(); });
    while (forward_[1] < counted_) {
      if (forward_[0] < counted_) add(forward_, 0);
      add(input_, 0);
      add(weight_, 0);
      add_chunk_one();
    }
    repeat(stage, [&] {
      add(input_, 0);
      add(input_, 1);
    });
    repeat(behind, [&] {
      add(input_, 0);
      add(weight_, 0);
    });
    for (const std::int64_t chunk : {1, 0})
      while (weight_.at(static_cast<std::size_t>(chunk)) < counted_) add(weight_, chunk);
    return std::move(actions_);
  }

 private:
  using Done = std::array<std::int64_t, 2>;  // by chunk

  template <class Action>
  static void repeat(std::int64_t times, const Action& action) {
    for (std::int64_t i = 0; i < times; ++i) action();
  }
  void add(Done& done, std::int64_t chunk) {
    const Kind kind = &done == &forward_ ? Kind::forward
                      : &done == &input_ ? Kind::backward_input
                                         : Kind::backward_weight;
    const std::int64_t micro_batch = done.at(static_cast<std::size_t>(chunk))++;
    if (micro_batch < micro_batches_) actions_.push_back({.kind = kind, .micro_batch = micro_batch, .chunk = chunk});
  }
  void add_chunk_one() {
    add(forward_, 1);
    add(input_, 1);
    add(weight_, 1);
  }

  std::int64_t stages_;
  std::int64_t micro_batches_;
  std::int64_t counted_;
  Done forward_{}, input_{}, weight_{};
  std::vector<PipelineAction> actions_;
};

// Both directions of DualPipe, or both chunks of its V. `own` is the one that a stage begins with; `outer` and `inner`
// count the stages that lie between it and where the two meet, and between it and the ends.
class DualPipe {
 public:
  struct Shape {
    std::int64_t outer = 0;
    std::int64_t inner = 0;
    std::int64_t rounds = 0;  // of two overlapped pairs
    std::int64_t own = 0;     // chunk
    // Micro-batches of chunk 1 are counted from here.
    std::int64_t second_half = 0;
  };
  explicit DualPipe(const Shape& shape)
      : shape_(shape), next_forward_{0, shape.second_half}, next_backward_{0, shape.second_half} {}

  // The eight steps of the source.
  std::vector<PipelineAction> actions() && {
    const std::int64_t own = shape_.own;
    const std::int64_t other = 1 - own;
    for (std::int64_t i = 0; i < 2 * shape_.outer; ++i) forward(own);
    for (std::int64_t i = 0; i < shape_.inner; ++i) {
      forward(own);
      forward(other);
    }
    for (std::int64_t i = 0; i < shape_.outer; ++i) {
      backward_input(other);
      weight();
      forward(other);
    }
    for (std::int64_t i = 0; i < shape_.rounds; ++i) {
      // Where the two meet, the first pair comes one after the other, which lets the next stages go on sooner.
      if (i == 0 && shape_.outer == 0) {
        forward(own);
        backward(other);
      } else {
        overlapped(own, other);
      }
      overlapped(other, own);
    }
    for (std::int64_t i = 0; i < shape_.outer; ++i) {
      backward(other);
      overlapped(other, own);
    }
    drain(own, other);
    for (std::int64_t i = 0; i < shape_.outer; ++i) {
      weight();
      backward_input(own);
    }
    for (std::int64_t i = 0; i < shape_.inner; ++i) weight();
    return std::move(actions_);
  }

 private:
  void add(Kind kind, std::array<std::int64_t, 2>& next, std::int64_t chunk) {
    actions_.push_back({.kind = kind, .micro_batch = next.at(static_cast<std::size_t>(chunk))++, .chunk = chunk});
  }
  void forward(std::int64_t chunk) { add(Kind::forward, next_forward_, chunk); }
  void backward(std::int64_t chunk) { add(Kind::backward, next_backward_, chunk); }
  void backward_input(std::int64_t chunk) {
    add(Kind::backward_input, next_backward_, chunk);
    waiting_.push_back(actions_.back());
    waiting_.back().kind = Kind::backward_weight;
  }
  void weight() { actions_.push_back(waiting_.at(next_weight_++)); }
  // Step 6: the second half of these is split.
  void drain(std::int64_t own, std::int64_t other) {
    for (std::int64_t i = 0; i < 2 * shape_.inner; ++i) {
      const std::int64_t chunk = i % 2 == 0 ? other : own;
      if (i < shape_.inner)
        backward(chunk);
      else
        backward_input(chunk);
    }
  }
  void overlapped(std::int64_t chunk, std::int64_t backward_chunk) {
    add(Kind::forward_and_backward, next_forward_, chunk);
    actions_.back().backward_micro_batch = next_backward_.at(static_cast<std::size_t>(backward_chunk))++;
    actions_.back().backward_chunk = backward_chunk;
  }

  Shape shape_;
  std::array<std::int64_t, 2> next_forward_, next_backward_;  // micro-batch, by chunk
  std::vector<PipelineAction> waiting_;                       // backward passes for weights, in the order of their turn
  std::size_t next_weight_ = 0;
  std::vector<PipelineAction> actions_;
};

std::vector<PipelineAction> dualpipe(std::int64_t stage, std::int64_t stages, std::int64_t micro_batches) {
  const std::int64_t from_end = std::min(stage, stages - 1 - stage);
  return DualPipe({.outer = stages / 2 - from_end - 1,
                   .inner = from_end + 1,
                   .rounds = micro_batches / 2 - stages + from_end + 1,
                   .own = stage < stages / 2 ? 0 : 1,
                   .second_half = micro_batches / 2})
      .actions();
}

std::vector<PipelineAction> dualpipe_v(std::int64_t stage, std::int64_t stages, std::int64_t micro_batches) {
  return DualPipe({.outer = stages - stage - 1, .inner = stage + 1, .rounds = micro_batches - 2 * stages + stage + 1})
      .actions();
}

std::vector<PipelineAction> interleaved(std::int64_t stage, std::int64_t stages, std::int64_t micro_batches,
                                        std::int64_t chunks, std::int64_t group) {
  const PassOrder order = in_groups(micro_batches, chunks, group, Kind::backward);
  const std::int64_t warm_up = chunks == 1 ? stages - stage - 1 : 2 * (stages - stage - 1) + (chunks - 1) * group;
  return warm_pair_drain(order.forwards, order.backwards,
                         static_cast<std::size_t>(std::min(warm_up, micro_batches * chunks)));
}

std::vector<PipelineAction> gpipe(std::int64_t micro_batches, std::int64_t chunks) {
  std::vector<PipelineAction> actions;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk)
    for (std::int64_t i = 0; i < micro_batches; ++i)
      actions.push_back({.kind = Kind::forward, .micro_batch = i, .chunk = chunk});
  for (std::int64_t chunk = chunks; chunk-- > 0;)
    for (std::int64_t i = micro_batches; i-- > 0;)
      actions.push_back({.kind = Kind::backward, .micro_batch = i, .chunk = chunk});
  return actions;
}

std::int64_t chunks_of(ScheduleKind kind, std::int64_t wanted) {
  switch (kind) {
    case ScheduleKind::gpipe:
    case ScheduleKind::interleaved:
    case ScheduleKind::zb_h1:
      return wanted;
    case ScheduleKind::zb_v:
    case ScheduleKind::dualpipe:
    case ScheduleKind::dualpipe_v:
      return 2;
    default:
      return 1;
  }
}

}  // namespace

std::vector<PipelineAction> PipelineAction::passes() const {
  if (kind != Kind::forward_and_backward) return {*this};
  return {{.kind = Kind::forward, .micro_batch = micro_batch, .chunk = chunk},
          {.kind = Kind::backward, .micro_batch = backward_micro_batch, .chunk = backward_chunk}};
}

std::vector<PipelineAction> pipeline_schedule(ScheduleKind kind, std::int64_t stage, std::int64_t stages,
                                              std::int64_t micro_batches, std::int64_t chunks, std::int64_t group) {
  sim::ensure(stage >= 0 && stage < stages && micro_batches > 0 && chunks > 0, "a schedule is for a stage that exists");
  sim::ensure(chunks == chunks_of(kind, chunks), "a schedule has as many chunks per stage as it is made for");
  const bool both_ways = kind == ScheduleKind::dualpipe;
  if (both_ways || kind == ScheduleKind::dualpipe_v) {
    sim::ensure(micro_batches >= 2 * stages, "DualPipe is filled by twice as many micro-batches as stages");
    sim::ensure(!both_ways || (stages % 2 == 0 && micro_batches % 2 == 0), "both directions of DualPipe are alike");
  }
  const std::int64_t in_group = group > 0 ? group : stages;
  switch (kind) {
    case ScheduleKind::gpipe:
      return gpipe(micro_batches, chunks);
    case ScheduleKind::one_forward_one_backward:
    case ScheduleKind::interleaved:
      return interleaved(stage, stages, micro_batches, chunks, in_group);
    case ScheduleKind::zb_h1:
      return zb_h1(stage, stages, in_groups(micro_batches, chunks, in_group, Kind::backward_input),
                   (chunks - 1) * in_group);
    case ScheduleKind::zb_h2:
      return ZeroBubbleH2(stages, micro_batches).actions_of(stage);
    case ScheduleKind::zb_v:
      return ZeroBubbleV(stages, micro_batches).actions_of(stage);
    case ScheduleKind::dualpipe:
      return dualpipe(stage, stages, micro_batches);
    case ScheduleKind::dualpipe_v:
      return dualpipe_v(stage, stages, micro_batches);
  }
  return {};
}

std::vector<PipelineAction> with_passes_overlapped(const std::vector<PipelineAction>& actions) {
  std::vector<PipelineAction> forwards;
  std::vector<PipelineAction> backwards;
  for (const PipelineAction& action : actions) (action.kind == Kind::forward ? forwards : backwards).push_back(action);
  // In turns, the first backward pass comes behind the forward pass of the same turn: that one is the one more.
  const auto first = std::ranges::find(actions, Kind::backward, &PipelineAction::kind);
  const auto ahead = static_cast<std::size_t>(first - actions.begin());
  std::vector<PipelineAction> overlapped(actions.begin(), first);
  for (std::size_t i = 0; i < backwards.size(); ++i) {
    if (ahead + i >= forwards.size()) {
      overlapped.push_back(backwards[i]);
      continue;
    }
    PipelineAction both = forwards[ahead + i];
    both.kind = Kind::forward_and_backward;
    both.backward_micro_batch = backwards[i].micro_batch;
    both.backward_chunk = backwards[i].chunk;
    overlapped.push_back(both);
  }
  return overlapped;
}

}  // namespace trainyard::strategies
