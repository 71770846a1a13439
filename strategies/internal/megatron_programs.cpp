#include <algorithm>

#include "strategies/internal/megatron_planner.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::MemoryPurpose;

namespace {

// PyTorch keeps one for each thread that multiplies matrices, the forward and the backward one; the size on Hopper, and
// of Megatron's deterministic mode everywhere (CUBLAS_WORKSPACE_CONFIG=:4096:8; pytorch CublasHandlePool.cpp).
constexpr Bytes cublas_workspaces{2LL * (32 << 20)};

// Transformer Engine's own for all its products (NVIDIA/TransformerEngine get_cublas_workspace_size_bytes): larger
// since Hopper.
Bytes transformer_engine_workspace(bool hopper_or_later) { return Bytes{hopper_or_later ? 32LL << 20 : 4LL << 20}; }

}  // namespace

void MegatronPlanner::write_action(sim::Program& program, const Stage& stage, const PipelineAction& action) {
  using Kind = PipelineAction::Kind;
  switch (action.kind) {
    case Kind::forward:
      return write_forward_pass(program, stage, action);
    case Kind::backward_input:
      return write_input_pass(program, stage, action);
    case Kind::backward:
    case Kind::backward_weight:
      return write_backward_pass(program, stage, action);
    case Kind::forward_and_backward: {
      const std::vector<PipelineAction> passes = action.passes();
      sim::Program forward;
      sim::Program backward;
      write_forward_pass(forward, stage, passes.front());
      write_backward_pass(backward, stage, passes.back());
      overlap_.write(program, forward.calls, backward.calls);
    }
  }
}

void MegatronPlanner::write_forward_pass(sim::Program& program, const Stage& stage, const PipelineAction& pass) {
  const auto chunk = static_cast<std::size_t>(pass.chunk);
  const auto micro_batch = static_cast<std::int32_t>(pass.micro_batch);
  const auto call = [&](sim::BlockId block, std::int64_t layer) {
    program.calls.push_back({.block = block, .layer = static_cast<std::int32_t>(layer), .micro_batch = micro_batch});
  };
  const std::int64_t from = stage.first_layer[chunk];
  const std::int64_t count = stage.layers[chunk];
  const bool awaits =
      options_.overlap_param_gather && pass.micro_batch == placement_.first_micro_batch(pass.chunk, micro_batches_);
  if (awaits) write_awaited_parameters(program, stage, chunk, 0);
  if (first(stage.index, pass.chunk)) call(embedding_.forward, -1);
  for (std::int64_t i = 0; i < count; ++i) {
    if (awaits && i > 0) write_awaited_parameters(program, stage, chunk, i);
    const LayerBlocks& blocks = layer_blocks(from + i);
    call(recomputes_groups() && i % training_.recompute.every != 0 ? blocks.forward_dropping : blocks.forward,
         from + i);
    offload_.after_forward(program, {model_, from, count, i, micro_batch});
  }
  if (last(stage.index, pass.chunk)) call(head_.forward, -1);
}

void MegatronPlanner::write_input_pass(sim::Program& program, const Stage& stage, const PipelineAction& pass) {
  const auto chunk = static_cast<std::size_t>(pass.chunk);
  const auto call = [&](sim::BlockId block, std::int64_t layer) {
    program.calls.push_back({.block = block,
                             .layer = static_cast<std::int32_t>(layer),
                             .micro_batch = static_cast<std::int32_t>(pass.micro_batch)});
  };
  // The head's logits are too large to keep until its weights' turn: both its gradients come at once.
  if (last(stage.index, pass.chunk)) call(head_.backward_input, -1);
  for (std::int64_t i = stage.layers[chunk]; i-- > 0;) {
    const std::int64_t layer = stage.first_layer[chunk] + i;
    call(layer_blocks(layer).backward_input, layer);
  }
}

// Whole, or for weights alone.
void MegatronPlanner::write_backward_pass(sim::Program& program, const Stage& stage, const PipelineAction& pass) {
  const auto chunk = static_cast<std::size_t>(pass.chunk);
  const auto micro_batch = static_cast<std::int32_t>(pass.micro_batch);
  const auto call = [&](sim::BlockId block, std::int64_t layer) {
    program.calls.push_back({.block = block, .layer = static_cast<std::int32_t>(layer), .micro_batch = micro_batch});
  };
  const std::int64_t from = stage.first_layer[chunk];
  const std::int64_t count = stage.layers[chunk];
  const bool weights_alone = pass.kind == PipelineAction::Kind::backward_weight;
  // GPipe goes backward through the micro-batches in reverse.
  const std::int64_t final_micro_batch =
      options_.schedule_kind() == ScheduleKind::gpipe ? 0 : placement_.last_micro_batch(pass.chunk, micro_batches_);
  std::vector<BucketCursor> cursors;
  if (options_.overlap_grad_reduce && pass.micro_batch == final_micro_batch) cursors = bucket_cursors(stage, chunk);
  if (last(stage.index, pass.chunk) && !weights_alone) call(head_.backward, -1);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t layer = count - 1 - i;
    offload_.before_backward(program, {model_, from, count, layer, micro_batch});
    if (weights_alone)
      call(layer_blocks(from + layer).backward_weight, from + layer);
    else
      write_layer_backward(program, from, count, layer, micro_batch);
    for (BucketCursor& cursor : cursors) {
      if (--cursor.left > 0 || cursor.index + 1 == cursor.layers.size()) continue;
      write_bucket_reduce(program, stage, chunk, cursor);
      cursor.left = cursor.layers[++cursor.index];
    }
  }
  if (first(stage.index, pass.chunk)) call(weights_alone ? embedding_.backward_weight : embedding_.backward, -1);
  for (const BucketCursor& cursor : cursors) write_bucket_reduce(program, stage, chunk, cursor);
}

// Of layer `layer` of a chunk. The first one of a group to go backward, which is its last, has the group run again; the
// group's first layer kept its input meanwhile.
void MegatronPlanner::write_layer_backward(sim::Program& program, std::int64_t from, std::int64_t count,
                                           std::int64_t layer, std::int32_t micro_batch) {
  const auto blocks = [&](std::int64_t index) -> const LayerBlocks& { return layer_blocks(from + index); };
  const auto call = [&](sim::BlockId block, std::int64_t index) {
    program.calls.push_back(
        {.block = block, .layer = static_cast<std::int32_t>(from + index), .micro_batch = micro_batch});
  };
  if (!recomputes_groups()) return call(blocks(layer).backward, layer);
  const std::int64_t start = layer / training_.recompute.every * training_.recompute.every;
  const std::int64_t end = std::min(start + training_.recompute.every, count);
  if (layer + 1 == end) {
    for (std::int64_t i = start; i < end; ++i) {
      if (i == start) call(drop_input_block(model_.layer(from + i)), i);
      call(blocks(i).again, i);
    }
  }
  call(blocks(layer).backward_only, layer);
}

Bytes MegatronPlanner::workspaces() const {
  if (!own_attention()) return cublas_workspaces + transformer_engine_workspace(hopper_or_later());
  // Scores before the softmax go to a buffer that all layers share
  // (megatron/core/transformer/dot_product_attention.py).
  const std::int64_t scores =
      micro_batch_ * (job_.model.heads / options_.tensor) * training_.sequence * training_.sequence;
  return cublas_workspaces + Bytes{scores * workloads::activation_bytes(training_.precision)};
}

void MegatronPlanner::write_program(const Stage& stage) {
  sim::Program program;
  program.name = options_.pipeline > 1 ? "stage " + std::to_string(stage.index) : "all ranks";
  program.resident[static_cast<std::size_t>(MemoryPurpose::parameters)] =
      Bytes{stage.trained * state_.parameter} + stage.frozen;
  program.resident[static_cast<std::size_t>(MemoryPurpose::gradients)] = Bytes{stage.trained * state_.gradient};
  for (const GradientGroup& group : gradient_groups_)
    program.resident[static_cast<std::size_t>(MemoryPurpose::optimizer)] +=
        sim::scaled(state_.optimizer(trained(group, stage)), 1, group.shards);
  program.resident[static_cast<std::size_t>(MemoryPurpose::buffers)] = workspaces();

  write_step_start(program, stage);
  std::vector<PipelineAction> actions = pipeline_schedule(options_.schedule_kind(), stage.index, options_.pipeline,
                                                          micro_batches_, chunks_, options_.micro_batch_group());
  if (overlaps_passes()) actions = with_passes_overlapped(actions);
  if (makes_forward_passes_first())
    std::ranges::stable_partition(
        actions, [](const PipelineAction& action) { return action.kind == PipelineAction::Kind::forward; });
  transfers_->write(program, stage.index, actions,
                    [&](const PipelineAction& action) { write_action(program, stage, action); });
  write_step_end(program, stage);
  builder_.plan().programs.add(std::move(program));
}

}  // namespace trainyard::strategies
