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

// Per action, one past the last whose receives are posted before it: the next action that may receive.
std::vector<std::size_t> posted_one_ahead(const std::vector<PipelineAction>& actions) {
  std::vector<std::size_t> until;
  for (std::size_t i = 0; i < actions.size(); ++i) {
    std::size_t next = i + 1;
    while (next < actions.size() && actions[next].kind == PipelineAction::Kind::backward_weight) ++next;
    until.push_back(std::min(next + 1, actions.size()));
  }
  return until;
}

// Likewise of the stage at the other end of an interleaved pipeline than the sender: it posts a receive when, all
// stages working in step, the sender sends, which is stages - 1 passes behind. In groups of more micro-batches than
// stages that is long before the receiver needs it (recv_tensor_from_previous_stage in megatron/core/
// pipeline_parallel/schedules.py).
std::vector<std::size_t> posted_in_step(const std::vector<PipelineAction>& actions, std::int64_t stages,
                                        PipelineAction::Kind kind) {
  const std::int64_t step = kind == PipelineAction::Kind::forward ? 1 : -1;  // of chunks
  std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> turns;       // of chunk and micro-batch
  for (const PipelineAction& action : actions)
    if (action.kind == kind) turns.emplace(std::pair{action.chunk, action.micro_batch}, std::ssize(turns));
  std::vector<std::size_t> until = posted_one_ahead(actions);
  std::size_t next = 0;
  std::int64_t turn = -1;
  for (std::size_t i = 0; i < actions.size(); ++i) {
    if (actions[i].kind == kind) ++turn;
    for (; next < actions.size(); ++next) {
      if (actions[next].kind != kind) continue;
      const auto sent = turns.find({actions[next].chunk - step, actions[next].micro_batch});
      if (sent != turns.end() && sent->second + stages - 1 > turn) break;
    }
    until[i] = std::max(until[i], next);
  }
  return until;
}

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

// Between two turns: hand on what the first produced, and fetch what the second needs.
void MegatronPlanner::write_transfers(sim::Program& program, std::span<const PipelineAction> done,
                                      std::span<const PipelineAction> next, const Stage& stage) {
  Exchange exchange;
  for (const PipelineAction& pass : done)
    if (sends(stage, pass)) exchange.sent.at(track_of(pass)) = true;
  for (const PipelineAction& pass : next)
    if (receives(stage, pass)) exchange.received.at(track_of(pass)) = true;
  if (exchange == Exchange{}) return;
  auto known = exchange_blocks_.find(exchange);
  if (known == exchange_blocks_.end()) known = exchange_blocks_.emplace(exchange, exchange_block(exchange)).first;
  const PipelineAction& named = done.empty() ? next.front() : done.front();
  program.calls.push_back({.block = known->second, .micro_batch = static_cast<std::int32_t>(named.micro_batch)});
}

sim::BlockId MegatronPlanner::exchange_block(const Exchange& exchange) {
  BlockWriter block = builder_.block("transfer", host_.forward);
  sim::StreamSet used = 0;
  const auto post = [&](const std::array<bool, 4>& tracks, auto stream, auto call) {
    for (std::size_t track = 0; track < tracks.size(); ++track) {
      if (!tracks.at(track)) continue;
      block.communicate(transfer_.at(track).*stream, transfer_.at(track).*call);
      used = static_cast<sim::StreamSet>(used | sim::set_of(transfer_.at(track).*stream));
    }
  };
  post(exchange.sent, &Transfer::send_stream, &Transfer::send);
  post(exchange.received, &Transfer::receive_stream, &Transfer::receive);
  // batch_p2p_sync: the host waits too, so kernels behind a transfer start with a launch.
  block.wait_for(used).host_wait(used);
  if (scatters_transfers())
    for (auto left = std::ranges::count(exchange.received, true); left > 0; --left)
      block.blocking(tensor_stream_, gather_received_);
  return block.finish();
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
  if (overlaps_passes_) actions = with_passes_overlapped(actions);
  if (overlaps_transfers())
    write_overlapped(program, stage, actions);
  else
    write_blocking(program, stage, std::move(actions));
  write_step_end(program, stage);
  builder_.plan().programs.add(std::move(program));
}

// Every transfer is waited for. With several chunks per stage a forward pass and the backward pass behind it are one
// turn (send_forward_backward_recv_forward_backward in megatron/core/pipeline_parallel/p2p_communication.py): a stage
// that waited between them for what its neighbour sends after its own pair would wait for ever.
void MegatronPlanner::write_blocking(sim::Program& program, const Stage& stage, std::vector<PipelineAction> actions) {
  // With as many micro-batches as stages, releases that transfer so make all forward passes first.
  const bool forward_first = chunks_ > 1 && micro_batches_ == options_.pipeline;
  const auto is_forward = [](const PipelineAction& action) { return action.kind == PipelineAction::Kind::forward; };
  if (forward_first) std::ranges::stable_partition(actions, is_forward);
  const auto takes_turn_with_next = [&](std::size_t i) {
    return chunks_ > 1 && !forward_first && i + 1 < actions.size() && is_forward(actions[i]) &&
           !is_forward(actions[i + 1]);
  };
  std::span<const PipelineAction> done;
  for (std::size_t i = 0; i < actions.size();) {
    const std::span turn(&actions[i], takes_turn_with_next(i) ? 2 : 1);
    write_transfers(program, done, turn, stage);
    for (const PipelineAction& action : turn) write_action(program, stage, action);
    done = turn;
    i += turn.size();
  }
  write_transfers(program, done, {}, stage);
}

// What the last stage hands on to the first, or the first back to the last, comes long before its turn.
bool MegatronPlanner::receives_early(const Stage& stage, std::size_t track) const {
  return placement_.wraps() && options_.micro_batch_group() > options_.pipeline &&
         stage.index == (track == 0 ? 0 : options_.pipeline - 1);
}

// Receives are posted ahead, and nothing waits for a send.
void MegatronPlanner::write_overlapped(sim::Program& program, const Stage& stage,
                                       const std::vector<PipelineAction>& actions) {
  struct Track {
    std::vector<std::size_t> posted_until;  // before each action
    std::size_t next = 0;                   // action to post
    std::size_t posted = 0;
    std::size_t awaited = 0;
  };
  std::array<Track, 4> tracks;
  for (std::size_t index = 0; index < tracks.size(); ++index)
    tracks.at(index).posted_until =
        receives_early(stage, index)
            ? posted_in_step(actions, options_.pipeline,
                             index == 0 ? PipelineAction::Kind::forward : PipelineAction::Kind::backward)
            : posted_one_ahead(actions);
  const auto call = [&](sim::BlockId block, const PipelineAction& pass) {
    program.calls.push_back({.block = block, .micro_batch = static_cast<std::int32_t>(pass.micro_batch)});
  };
  const auto turn = [](const std::vector<sim::BlockId>& blocks, std::size_t& count) {
    return blocks[count++ % blocks.size()];
  };
  const auto post_ahead = [&](std::size_t index, std::size_t now) {
    Track& track = tracks.at(index);
    for (; track.next < track.posted_until[now]; ++track.next)
      for (const PipelineAction& pass : actions[track.next].passes())
        if (track_of(pass) == index && receives(stage, pass))
          call(turn(overlapped_transfers_.at(index).post, track.posted), pass);
  };
  for (std::size_t i = 0; i < actions.size(); ++i) {
    for (std::size_t index = 0; index < tracks.size(); ++index) post_ahead(index, i);
    const std::vector<PipelineAction> passes = actions[i].passes();
    for (const PipelineAction& pass : passes)
      if (receives(stage, pass))
        call(turn(overlapped_transfers_.at(track_of(pass)).await, tracks.at(track_of(pass)).awaited), pass);
    write_action(program, stage, actions[i]);
    for (const PipelineAction& pass : passes)
      if (sends(stage, pass)) call(overlapped_transfers_.at(track_of(pass)).send, pass);
  }
}

}  // namespace trainyard::strategies
