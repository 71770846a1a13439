// In which order a pipeline stage works on its micro-batches.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace trainyard::strategies {

enum class ScheduleKind : std::uint8_t { gpipe, one_forward_one_backward, interleaved, zb_h1, zb_h2 };

// Backward passes for inputs and for weights are actions of their own.
constexpr bool splits_backward(ScheduleKind kind) { return kind == ScheduleKind::zb_h1 || kind == ScheduleKind::zb_h2; }

struct PipelineAction {
  enum class Kind : std::uint8_t { forward, backward, backward_input, backward_weight };
  Kind kind = Kind::forward;
  std::int64_t micro_batch = 0;
  std::int64_t chunk = 0;  // of the stage's model chunks
  bool operator==(const PipelineAction&) const = default;
};

// Stage `stage` of `stages`, `micro_batches` per step, `chunks` model chunks per stage (1 unless interleaved).
//   gpipe: all forwards, then all backwards, the last micro-batch first.
//   1f1b: min(stages - stage - 1, m) forwards, then pairs, then what is left.
//   interleaved: warm-up of 2 (stages - stage - 1) + (chunks - 1) x stages chunk-forwards; micro-batches go through the
//   chunks in groups of `stages`; backward walks the same table with the chunks reversed. m is a multiple of `stages`.
//   zb-h1: warm-up as 1f1b, then forward and backward for inputs in turns; each backward for weights comes `stage`
//   turns after the one for inputs of the same micro-batch, so that as many micro-batches are in flight as under 1f1b:
//   `stages` on every stage. It is PyTorch's ScheduleInterleavedZeroBubble with one chunk. zb-h2: up to 2 stages - 1
//   micro-batches in flight, which leaves no bubble where the three passes take equally long: backward for inputs as
//   soon as it can be, else forward, else backward for weights.
// Zero bubble: Qi et al., arXiv 2401.10241, sections 2 and 3; pytorch/pytorch
// torch/distributed/pipelining/schedules.py. Source: NVIDIA/Megatron-LM megatron/core/pipeline_parallel/schedules.py;
// GPipe: Huang et al., arXiv 1811.06965.
std::vector<PipelineAction> pipeline_schedule(ScheduleKind kind, std::int64_t stage, std::int64_t stages,
                                              std::int64_t micro_batches, std::int64_t chunks);

// Layers of each position (chunk x stages + stage), spread as evenly as they can be: positions in the middle get one
// more before the last does, and the first comes last, since they also hold the embedding and the head.
std::vector<std::int64_t> spread_layers(std::int64_t layers, std::int64_t positions);

}  // namespace trainyard::strategies
