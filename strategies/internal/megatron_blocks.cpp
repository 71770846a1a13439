#include "strategies/internal/megatron_planner.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::CollectiveKind;
using sim::MemoryPurpose;
using sim::Purpose;

namespace {

// First words of blocks, by which a trace names passes: I3 and W3 of micro-batch 3.
constexpr const char* input_pass = "input-gradients ";
constexpr const char* weight_pass = "weight-gradients ";

}  // namespace

MegatronPlanner::LayerBlocks MegatronPlanner::make_layer_block(const workloads::Layer& layer, bool recomputed,
                                                               bool loss) {
  const std::string& name = layer.name;
  const workloads::Recompute recompute = recomputed ? job_.training.recompute : workloads::Recompute{};
  const Bytes kept = layer.saved_bytes(recompute, false);
  const Bytes everything = layer.saved_bytes({}, false);
  const Bytes workspace = backward_workspace(layer);

  BlockWriter forward = builder_.block("forward " + name, host_.forward);
  forward.memory(MemoryPurpose::activations, kept);
  write_forward(forward, layer, with_);
  if (loss) {
    forward.host_work(host_.loss);
    write_loss_reductions(forward, with_);
  }
  const bool gathers_rows = &layer == &model_.embedding && with_.tensor;
  const auto rows = [&](BlockWriter& block, CollectiveKind kind) {
    block.blocking(tensor_stream_, builder_.call(tensor_slot_, kind, layer.boundary, Purpose::tensor));
  };
  if (gathers_rows) rows(forward, sequence_parallel() ? CollectiveKind::reduce_scatter : CollectiveKind::all_reduce);

  BlockWriter backward = builder_.block("backward " + name, host_.backward);
  backward.memory(MemoryPurpose::activations, everything - kept + workspace);
  write_recompute(backward, layer, recompute, false, with_);
  if (gathers_rows && sequence_parallel()) rows(backward, CollectiveKind::all_gather);
  write_backward(backward, layer, with_,
                 [&](BlockWriter& writer, std::size_t index) { accumulate_gradient(writer, layer.operators[index]); });
  backward.memory(MemoryPurpose::activations, -(everything + workspace));
  LayerBlocks blocks;
  blocks.forward = forward.finish();
  blocks.backward = backward.finish();
  if (recomputed && recomputes_groups()) make_group_blocks(layer, blocks);
  if (!splits_backward()) return blocks;
  if (recomputed) {
    make_split_blocks(layer, recompute, blocks);
    return blocks;
  }
  // Where passes are split, the head goes with those for inputs and the embedding with those for weights.
  sim::Block whole = builder_.plan().blocks[blocks.backward];
  whole.name = (loss ? input_pass : weight_pass) + name;
  (loss ? blocks.backward_input : blocks.backward_weight) = builder_.plan().blocks.add(std::move(whole));
  return blocks;
}

// Read the fresh gradient, read and write the accumulated one.
void MegatronPlanner::accumulate_gradient(BlockWriter& block, const workloads::Operator& op) {
  if (fuses_accumulation() || op.weight_gradient.empty()) return;
  const std::int64_t traffic = workloads::activation_bytes(job_.training.precision) + 2 * state_.gradient;
  const sim::Kernel accumulate = costs_.memory_bound("accumulate gradients", Bytes{op.trained * traffic});
  block.compute({&accumulate, 1});
}

// What a layer keeps stays until its weight gradients are done.
void MegatronPlanner::make_split_blocks(const workloads::Layer& layer, const workloads::Recompute& recompute,
                                        LayerBlocks& blocks) {
  const Bytes everything = layer.saved_bytes({}, false);
  const Bytes workspace = backward_workspace(layer);
  BlockWriter inputs = builder_.block(input_pass + layer.name, host_.backward);
  inputs.memory(MemoryPurpose::activations, everything - layer.saved_bytes(recompute, false) + workspace);
  write_recompute(inputs, layer, recompute, false, with_);
  write_input_gradients(inputs, layer, with_);
  inputs.memory(MemoryPurpose::activations, -workspace);
  blocks.backward_input = inputs.finish();
  BlockWriter weights = builder_.block(weight_pass + layer.name, host_.backward);
  write_weight_gradients(weights, layer, with_, [&](BlockWriter& writer, std::size_t index) {
    accumulate_gradient(writer, layer.operators[index]);
  });
  weights.memory(MemoryPurpose::activations, -everything);
  blocks.backward_weight = weights.finish();
}

// recompute-num-layers with recompute-method uniform: a group's layers run again together, and all that they keep is
// there at once.
void MegatronPlanner::make_group_blocks(const workloads::Layer& layer, LayerBlocks& blocks) {
  const Bytes everything = layer.saved_bytes({}, false);
  const Bytes workspace = backward_workspace(layer);
  BlockWriter dropping = builder_.block("forward " + layer.name, host_.forward);
  write_forward(dropping, layer, with_);
  blocks.forward_dropping = dropping.finish();
  BlockWriter again_block = builder_.block("recompute " + layer.name, host_.forward);
  again_block.memory(MemoryPurpose::activations, everything);
  write_recompute(again_block, layer, training_.recompute, false, with_);
  blocks.again = again_block.finish();
  BlockWriter backward = builder_.block("backward " + layer.name, host_.backward);
  backward.memory(MemoryPurpose::activations, workspace);
  write_backward(backward, layer, with_,
                 [&](BlockWriter& writer, std::size_t index) { accumulate_gradient(writer, layer.operators[index]); });
  backward.memory(MemoryPurpose::activations, -(everything + workspace));
  blocks.backward_only = backward.finish();
}

void MegatronPlanner::make_layer_blocks() {
  for (const workloads::Layer& layer : model_.kinds) layers_.push_back(make_layer_block(layer, true, false));
  embedding_ = make_layer_block(model_.embedding, false, false);
  head_ = make_layer_block(model_.head, false, true);
}

// The input of a group is among what its first layer keeps when it runs again.
sim::BlockId MegatronPlanner::drop_input_block(const workloads::Layer& layer) {
  const auto known = drop_input_blocks_.find(layer.input);
  if (known != drop_input_blocks_.end()) return known->second;
  BlockWriter block = builder_.block("take up kept input", host_.forward);
  block.memory(MemoryPurpose::activations, -layer.input);
  return drop_input_blocks_[layer.input] = block.finish();
}

}  // namespace trainyard::strategies
