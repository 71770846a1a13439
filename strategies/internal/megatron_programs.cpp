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
  const auto chunk = static_cast<std::size_t>(action.chunk);
  const auto micro_batch = static_cast<std::int32_t>(action.micro_batch);
  const auto call = [&](sim::BlockId block, std::int64_t layer) {
    program.calls.push_back({.block = block, .layer = static_cast<std::int32_t>(layer), .micro_batch = micro_batch});
  };
  const auto kind = [&](std::int64_t layer) { return model_.kind_of[static_cast<std::size_t>(layer)]; };
  const std::int64_t from = stage.first_layer[chunk];
  const std::int64_t count = stage.layers[chunk];
  if (action.kind == PipelineAction::Kind::forward) {
    const bool awaits = options_.overlap_param_gather && action.micro_batch == 0;
    if (awaits) write_awaited_parameters(program, stage, chunk, 0);
    if (first(stage.index, action.chunk)) call(embedding_.forward, -1);
    for (std::int64_t i = 0; i < count; ++i) {
      if (awaits && i > 0) write_awaited_parameters(program, stage, chunk, i);
      const LayerBlocks& blocks = layers_[kind(from + i)];
      call(recomputes_groups() && i % training_.recompute.every != 0 ? blocks.forward_dropping : blocks.forward,
           from + i);
      offload_.after_forward(program, {model_, from, count, i, micro_batch});
    }
    if (last(stage.index, action.chunk)) call(head_.forward, -1);
    return;
  }
  if (action.kind == PipelineAction::Kind::backward_input) {
    // The head's logits are too large to keep until its weights' turn: both its gradients come at once.
    if (last(stage.index, action.chunk)) call(head_.backward, -1);
    for (std::int64_t i = count; i-- > 0;) call(layers_[kind(from + i)].backward_input, from + i);
    return;
  }
  const bool weights_alone = action.kind == PipelineAction::Kind::backward_weight;
  // Micro-batch m - 1 is the last to go backward, except under GPipe, which goes through them in reverse.
  const std::int64_t final_micro_batch = options_.schedule_kind() == ScheduleKind::gpipe ? 0 : micro_batches_ - 1;
  const bool reduces = options_.overlap_grad_reduce && action.micro_batch == final_micro_batch;
  std::vector<BucketCursor> cursors;
  if (reduces) cursors = bucket_cursors(stage, chunk);
  if (last(stage.index, action.chunk) && !weights_alone) call(head_.backward, -1);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t layer = count - 1 - i;
    offload_.before_backward(program, {model_, from, count, layer, micro_batch});
    if (weights_alone)
      call(layers_[kind(from + layer)].backward_weight, from + layer);
    else
      write_layer_backward(program, from, count, layer, micro_batch);
    for (BucketCursor& cursor : cursors) {
      if (--cursor.left > 0 || cursor.index + 1 == cursor.layers.size()) continue;
      write_bucket_reduce(program, stage, chunk, cursor);
      cursor.left = cursor.layers[++cursor.index];
    }
  }
  if (first(stage.index, action.chunk)) call(embedding_.backward, -1);
  for (const BucketCursor& cursor : cursors) write_bucket_reduce(program, stage, chunk, cursor);
}

// Of layer `layer` of a chunk. The first one of a group to go backward, which is its last, has the group run again; the
// group's first layer kept its input meanwhile.
void MegatronPlanner::write_layer_backward(sim::Program& program, std::int64_t from, std::int64_t count,
                                           std::int64_t layer, std::int32_t micro_batch) {
  const auto blocks = [&](std::int64_t index) -> const LayerBlocks& {
    return layers_[model_.kind_of[static_cast<std::size_t>(from + index)]];
  };
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

// Between two actions: hand on what the first produced, and fetch what the second needs.
void MegatronPlanner::write_transfers(sim::Program& program, const std::optional<PipelineAction>& done,
                                      const std::optional<PipelineAction>& next, const Stage& stage) {
  const auto direction = [](bool used, const std::optional<PipelineAction>& action) {
    return !used ? 0 : action->kind == PipelineAction::Kind::forward ? 1 : 2;
  };
  const int sent = direction(done && sends(stage, *done), done);
  const int received = direction(next && receives(stage, *next), next);
  if (sent == 0 && received == 0) return;
  const std::pair key{sent, received};
  auto known = transfer_blocks_.find(key);
  if (known == transfer_blocks_.end()) {
    BlockWriter block = builder_.block("transfer", host_.forward);
    sim::StreamSet used = 0;
    const auto post = [&](sim::StreamId stream, sim::CallId call) {
      block.communicate(stream, call);
      used = static_cast<sim::StreamSet>(used | sim::set_of(stream));
    };
    if (sent == 1) post(send_forward_, send_activation_);
    if (sent == 2) post(send_backward_, send_gradient_);
    if (received == 1) post(receive_forward_, receive_activation_);
    if (received == 2) post(receive_backward_, receive_gradient_);
    // batch_p2p_sync: the host waits too, so kernels behind a transfer start with a launch.
    block.wait_for(used).host_wait(used);
    known = transfer_blocks_.emplace(key, block.finish()).first;
  }
  program.calls.push_back(
      {.block = known->second, .micro_batch = static_cast<std::int32_t>(done ? done->micro_batch : next->micro_batch)});
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
  const std::vector<PipelineAction> actions =
      pipeline_schedule(options_.schedule_kind(), stage.index, options_.pipeline, micro_batches_, chunks_);
  if (overlaps_transfers())
    write_overlapped(program, stage, actions);
  else
    write_blocking(program, stage, actions);
  write_step_end(program, stage);
  builder_.plan().programs.add(std::move(program));
}

// Every transfer is waited for.
void MegatronPlanner::write_blocking(sim::Program& program, const Stage& stage,
                                     const std::vector<PipelineAction>& actions) {
  std::optional<PipelineAction> done;
  for (const PipelineAction& action : actions) {
    write_transfers(program, done, action, stage);
    write_action(program, stage, action);
    done = action;
  }
  write_transfers(program, done, std::nullopt, stage);
}

// Receives are posted one action ahead, and nothing waits for a send.
void MegatronPlanner::write_overlapped(sim::Program& program, const Stage& stage,
                                       const std::vector<PipelineAction>& actions) {
  std::array<std::size_t, 2> posted{};  // by direction
  std::array<std::size_t, 2> awaited{};
  const auto call = [&](sim::BlockId block, const PipelineAction& action) {
    program.calls.push_back({.block = block, .micro_batch = static_cast<std::int32_t>(action.micro_batch)});
  };
  const auto post = [&](const PipelineAction& action) {
    const std::size_t direction = direction_of(action);
    if (receives(stage, action)) call(transfers_[direction].post.at(posted.at(direction)++ % 2), action);
  };
  const auto transfers = [](const PipelineAction& action) {
    return action.kind != PipelineAction::Kind::backward_weight;
  };
  std::size_t next = 0;  // to post
  for (std::size_t i = 0; i < actions.size(); ++i) {
    const std::size_t direction = direction_of(actions[i]);
    // Up to the next action that may receive.
    std::size_t ahead = i + 1;
    while (ahead < actions.size() && !transfers(actions[ahead])) ++ahead;
    while (next < std::min(ahead + 1, actions.size())) post(actions[next++]);
    if (receives(stage, actions[i])) call(transfers_[direction].await.at(awaited.at(direction)++ % 2), actions[i]);
    write_action(program, stage, actions[i]);
    if (sends(stage, actions[i])) call(transfers_[direction].send, actions[i]);
  }
}

}  // namespace trainyard::strategies
