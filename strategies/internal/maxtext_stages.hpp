// The stages of MaxText's circular pipeline.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "strategies/plan_builder.hpp"

namespace trainyard::strategies {

// Stages work in the iterations of one loop: each works on one micro-batch with one of its chunks of layers, hands on
// what it made and gets what the stage before it made, the first from the last (AI-Hypercomputer/maxtext
// layers/pipeline.py, jax.lax.ppermute over the stage axis). What comes round before its turn waits in a buffer there.
// Backward is the same loop in reverse.
class StageRing {
 public:
  // One stage transfers nothing.
  StageRing(PlanBuilder& builder, std::int64_t stages, sim::Bytes message, sim::Duration launch);

  // What goes through all stages in one direction: every micro-batch as often as there are chunks.
  struct Loop {
    bool forward = true;
    std::int64_t micro_batches = 1;  // at least as many as stages
    std::int64_t chunks = 1;
    std::int64_t items() const { return micro_batches * chunks; }
  };
  // The passes of one stage, each written by `pass`, which gets its place in the order, and the transfers around them.
  void write(sim::Program& program, std::int64_t stage, const Loop& loop,
             const std::function<void(std::int64_t item)>& pass);

  // Joins every rank to the one behind it.
  void connect(sim::Plan& plan, const std::function<sim::RankId(sim::RankId)>& next_of) const;

 private:
  sim::BlockId transfer(bool forward, bool sends, bool receives);

  PlanBuilder& builder_;
  std::int64_t stages_;
  sim::Bytes message_;
  sim::Duration launch_;
  sim::StreamId send_stream_{}, receive_stream_{};
  // Activations to the next stage, gradients to the one before.
  std::array<sim::SlotId, 2> to_{}, from_{};
  std::map<std::array<bool, 3>, sim::BlockId> blocks_;
};

}  // namespace trainyard::strategies
