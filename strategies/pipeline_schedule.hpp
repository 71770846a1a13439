// In which order a pipeline stage works on its micro-batches.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace trainyard::strategies {

enum class ScheduleKind : std::uint8_t {
  gpipe,
  one_forward_one_backward,
  interleaved,
  zb_h1,
  zb_h2,
  zb_v,
  dualpipe,
  dualpipe_v
};

// Some or all backward passes are split into one for inputs and one for weights.
constexpr bool splits_backward(ScheduleKind kind) { return kind >= ScheduleKind::zb_h1; }

// What a stage does at a time: a pass of one micro-batch through one of its chunks, or two such passes at once.
struct PipelineAction {
  enum class Kind : std::uint8_t { forward, backward, backward_input, backward_weight, forward_and_backward };
  Kind kind = Kind::forward;
  std::int64_t micro_batch = 0;
  std::int64_t chunk = 0;  // of the stage's model chunks
  // Of forward_and_backward: its backward pass; the two above are then those of its forward pass.
  std::int64_t backward_micro_batch = 0;
  std::int64_t backward_chunk = 0;
  bool operator==(const PipelineAction&) const = default;

  // The one or two passes that it consists of.
  std::vector<PipelineAction> passes() const;
};

// Stage `stage` of `stages`, `micro_batches` per step, `chunks` model chunks per stage (1 unless the schedule has
// more).
//   gpipe: all forwards, then all backwards, the last micro-batch first; with several chunks, chunk by chunk (PyTorch's
//   ScheduleLoopedBFS).
//   1f1b: min(stages - stage - 1, m) forwards, then pairs, then what is left.
//   interleaved: micro-batches go through the chunks in groups of `group` (0: as many as stages; the last may be
//   smaller), after a warm-up of 2 (stages - stage - 1) + (chunks - 1) x group chunk-forwards; backward walks the same
//   table with the chunks reversed.
//   zb-h1: warm-up as 1f1b, then forward and backward for inputs in turns; each backward for weights comes `stage`
//   turns after the one for inputs of the same micro-batch, so that as many micro-batches are in flight as under 1f1b:
//   `stages` on every stage. It is PyTorch's ScheduleInterleavedZeroBubble, which may have several chunks: passes are
//   in the order of interleaved, the warm-up (chunks - 1) x group longer than with one. zb-h2: up to 2 stages - 1
//   micro-batches in flight, which leaves no bubble where the three passes take equally long: backward for inputs as
//   soon as it can be, else forward, else backward for weights.
//   zb-v: two chunks in a V; 2 x stages chunk-forwards are in flight, as much as `stages` micro-batches. PyTorch's
//   ScheduleZBVZeroBubble, which is made for 2 stages - 1 micro-batches or more; of fewer, what is missing is left out.
//   dualpipe: two copies of the model, one in each direction; chunk 0 is stage `stage` of the one that goes from the
//   first stage to the last with the first half of the micro-batches, chunk 1 is stage `stages - 1 - stage` of the
//   other. `stages` and m are even and m is at least 2 x stages. dualpipe-v: the same in a V of two chunks, through
//   which all micro-batches go; m is at least 2 x stages.
// Zero bubble: Qi et al., arXiv 2401.10241, sections 2, 3 and 6; pytorch/pytorch
// torch/distributed/pipelining/schedules.py. Source: NVIDIA/Megatron-LM megatron/core/pipeline_parallel/schedules.py;
// GPipe: Huang et al., arXiv 1811.06965; DualPipe: arXiv 2412.19437, deepseek-ai/DualPipe dualpipe/dualpipe.py and
// dualpipev.py.
std::vector<PipelineAction> pipeline_schedule(ScheduleKind kind, std::int64_t stage, std::int64_t stages,
                                              std::int64_t micro_batches, std::int64_t chunks, std::int64_t group = 0);

// A schedule of whole forward and backward passes with one more forward pass before the first backward one, and from
// then on one of each at once, so that one of the two computes while the other exchanges tokens with its experts.
// Source: NVIDIA/Megatron-LM megatron/core/pipeline_parallel/combined_1f1b.py.
std::vector<PipelineAction> with_passes_overlapped(const std::vector<PipelineAction>& actions);

}  // namespace trainyard::strategies
