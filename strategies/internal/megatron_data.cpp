#include <algorithm>

#include "strategies/internal/megatron_planner.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::CollectiveKind;
using sim::MemoryPurpose;
using sim::Purpose;

std::int64_t MegatronPlanner::trained(const GradientGroup& group, std::int64_t from, std::int64_t count) const {
  const std::int64_t of_experts = model_.expert_trained(from, count);
  return group.experts ? of_experts : model_.trained(from, count) - of_experts;
}

std::int64_t MegatronPlanner::trained(const GradientGroup& group, const Stage& stage) const {
  return group.experts ? stage.expert_trained : stage.trained - stage.expert_trained;
}

// With several instances of the distributed optimizer, shards are reduced among them behind the reduce-scatter
// (num_distributed_optimizer_instances; megatron/core/distributed/param_and_grad_buffer.py).
void MegatronPlanner::write_reduce(BlockWriter& block, const GradientGroup& group, std::int64_t parameters) {
  const Bytes gradients{parameters * state_.gradient};
  if (!options_.distributed_optimizer) {
    block.communicate(group.stream, builder_.call(group.slot, CollectiveKind::all_reduce, gradients, Purpose::data));
    return;
  }
  if (group.shards > 1)
    block.communicate(group.stream,
                      builder_.call(group.slot, CollectiveKind::reduce_scatter, gradients, Purpose::data));
  if (group.ranks > group.shards)
    block.communicate(group.stream, builder_.call(group.instances, CollectiveKind::all_reduce,
                                                  sim::scaled(gradients, 1, group.shards), Purpose::data));
}

sim::BlockId MegatronPlanner::reduce_block(const GradientGroup& group, std::int64_t parameters) {
  const std::pair key{group.experts, parameters};
  const auto known = reduce_blocks_.find(key);
  if (known != reduce_blocks_.end()) return known->second;
  BlockWriter block = builder_.block(group.experts ? "reduce expert gradients" : "reduce gradients", host_.backward);
  write_reduce(block, group, parameters);
  return reduce_blocks_[key] = block.finish();
}

// Layers of each bucket of a chunk, in the order of its backward pass. Buckets form on the first stage's first chunk
// only; elsewhere one bucket per chunk, since it is off the critical path (megatron/core/distributed).
std::vector<std::int64_t> MegatronPlanner::bucket_layers(const Stage& stage, std::size_t chunk,
                                                         const GradientGroup& group) const {
  const std::int64_t count = stage.layers[chunk];
  if (!first(stage.index, static_cast<std::int64_t>(chunk))) return {count};
  const std::int64_t size =
      options_.ddp_bucket_size > 0
          ? options_.ddp_bucket_size
          : std::max<std::int64_t>(40'000'000, 1'000'000 * data_ * options_.context * placement_.copies());
  std::vector<std::int64_t> buckets{0};
  std::int64_t filled = 0;
  for (std::int64_t i = count; i-- > 0;) {
    if (filled >= size) {
      buckets.push_back(0);
      filled = 0;
    }
    ++buckets.back();
    filled += trained(group, stage.first_layer[chunk] + i, 1);
  }
  return buckets;
}

// Of bucket `index` in the order of the backward pass, on this rank: the last one also holds the embedding, the first
// one the head.
std::int64_t MegatronPlanner::bucket_parameters(const Stage& stage, std::size_t chunk, const GradientGroup& group,
                                                std::size_t index) const {
  const std::vector<std::int64_t> buckets = bucket_layers(stage, chunk, group);
  const auto position = static_cast<std::int64_t>(chunk);
  std::int64_t end = stage.first_layer[chunk] + stage.layers[chunk];
  for (std::size_t i = 0; i < index; ++i) end -= buckets[i];
  std::int64_t parameters = trained(group, end - buckets[index], buckets[index]);
  const auto of = [&](const workloads::Layer& part) {
    return group.experts ? part.expert_trained : part.trained - part.expert_trained;
  };
  if (index + 1 == buckets.size() && first(stage.index, position)) parameters += of(model_.embedding);
  if (index == 0 && last(stage.index, position)) {
    parameters += of(model_.head);
    if (!group.experts && embedding_is_shared() && !job_.training.adapters)
      parameters += vocab_ / options_.tensor * job_.model.hidden;
  }
  return parameters;
}

// Where the backward pass of a chunk begins: no layer of any bucket is done.
std::vector<MegatronPlanner::BucketCursor> MegatronPlanner::bucket_cursors(const Stage& stage,
                                                                           std::size_t chunk) const {
  std::vector<BucketCursor> cursors;
  for (const GradientGroup& group : gradient_groups_) {
    if (group.ranks == 1) continue;
    BucketCursor cursor{.group = &group, .layers = bucket_layers(stage, chunk, group)};
    cursor.left = cursor.layers.front();
    cursors.push_back(cursor);
  }
  return cursors;
}

void MegatronPlanner::write_bucket_reduce(sim::Program& program, const Stage& stage, std::size_t chunk,
                                          const BucketCursor& cursor) {
  const std::int64_t parameters = bucket_parameters(stage, chunk, *cursor.group, cursor.index);
  if (parameters > 0) program.calls.push_back({.block = reduce_block(*cursor.group, parameters)});
}

// All gathers of the step, in the order in which forward passes need them.
std::vector<std::int64_t> MegatronPlanner::gathered_buckets(const Stage& stage, const GradientGroup& group) const {
  std::vector<std::int64_t> buckets;
  for (const std::int64_t position : placement_.chunk_order(stage.index)) {
    const auto chunk = static_cast<std::size_t>(position);
    for (std::size_t index = bucket_layers(stage, chunk, group).size(); index-- > 0;)
      buckets.push_back(bucket_parameters(stage, chunk, group, index));
  }
  return buckets;
}

// Of an 8-bit training, layers can be gathered as they are multiplied (fp8-param-gather).
Bytes MegatronPlanner::gathered_bytes(std::int64_t parameters) const {
  return Bytes{parameters * (options_.fp8_param_gather ? 1 : state_.parameter)};
}

// Posts the gather of bucket `index`, if there is one.
void MegatronPlanner::write_parameter_gather(BlockWriter& block, GradientGroup& group, std::size_t index) {
  if (index >= group.gathers.size() || group.gathers[index] == 0) return;
  while (group.gathered.size() <= index) group.gathered.push_back(builder_.event());
  block.communicate(
      group.stream,
      builder_.call(group.slot, CollectiveKind::all_gather, gathered_bytes(group.gathers[index]), Purpose::data),
      sim::set_of(sim::compute_stream), {}, group.gathered[index]);
}

// Before layer `layer` of a chunk, in the forward pass of the first micro-batch: the buckets that begin there must have
// arrived. Waiting for one sends for the next of its group.
void MegatronPlanner::write_awaited_parameters(sim::Program& program, const Stage& stage, std::size_t chunk,
                                               std::int64_t layer) {
  for (GradientGroup& group : gradient_groups_) {
    if (group.shards == 1) continue;
    std::int64_t start = 0;
    bool starts = false;
    const std::vector<std::int64_t> buckets = bucket_layers(stage, chunk, group);
    for (std::size_t i = buckets.size(); i-- > 0; start += buckets[i]) starts = starts || start == layer;
    if (!starts) continue;
    const std::size_t index = group.next_gather++;
    BlockWriter block = builder_.block("await parameters", host_.forward);
    write_parameter_gather(block, group, index + 1);
    if (group.gathers[index] > 0) block.wait_for(group.gathered[index]);
    program.calls.push_back({.block = block.finish()});
  }
}

// overlap_param_gather: parameters that the step before updated are gathered while forward passes go on. Only the first
// gather is exposed; each bucket that is waited for sends for the next.
void MegatronPlanner::write_step_start(sim::Program& program, const Stage& stage) {
  if (!options_.overlap_param_gather) return;
  for (GradientGroup& group : gradient_groups_) {
    if (group.shards == 1) continue;
    group.gathers = gathered_buckets(stage, group);
    group.next_gather = 0;
    BlockWriter block = builder_.block("gather parameters", host_.forward);
    write_parameter_gather(block, group, 0);
    program.calls.push_back({.block = block.finish()});
  }
}

// Replicated over the tensor group, each rank with the gradient of its part of the sequence.
std::int64_t MegatronPlanner::norm_parameters(const Stage& stage) const {
  const auto of = [](const workloads::Layer& layer) {
    std::int64_t sum = 0;
    for (const workloads::Operator& op : layer.operators)
      if (op.role == workloads::Role::replicated) sum += op.trained;
    return sum;
  };
  std::int64_t sum = has_last(stage) ? of(model_.head) : 0;
  for (std::size_t chunk = 0; chunk < stage.layers.size(); ++chunk)
    for (std::int64_t i = 0; i < stage.layers[chunk]; ++i) sum += of(model_.layer(stage.first_layer[chunk] + i));
  return sum;
}

// In order: gradient synchronisation (over both copies of the model where there are two), layer norms over the tensor
// group, tied embeddings between first and last stage, gradient norm over the model-parallel ranks, optimizer, gather
// of the parameters.
void MegatronPlanner::write_step_end(sim::Program& program, const Stage& stage) {
  for (const GradientGroup& group : gradient_groups_)
    if (const std::int64_t parameters = trained(group, stage);
        !options_.overlap_grad_reduce && group.ranks > 1 && parameters > 0)
      program.calls.push_back({.block = reduce_block(group, parameters)});
  BlockWriter block = builder_.block("optimizer step", host_.backward);
  for (const GradientGroup& group : gradient_groups_)
    if (group.ranks > 1) block.wait_for(sim::set_of(group.stream));
  if (sequence_parallel()) {
    const Bytes norms{norm_parameters(stage) * state_.gradient};
    block.blocking(tensor_stream_, builder_.call(tensor_slot_, CollectiveKind::all_reduce, norms, Purpose::tensor));
  }
  if (embedding_is_shared() && !job_.training.adapters && (stage.index == 0 || stage.index == options_.pipeline - 1)) {
    const std::int64_t rows = vocab_ / options_.tensor;
    const Bytes matrix{rows * job_.model.hidden * state_.gradient};
    block.blocking(model_stream_,
                   builder_.call(embedding_slot_, CollectiveKind::all_reduce, matrix, Purpose::pipeline));
  }
  std::int64_t owned = 0;
  for (const GradientGroup& group : gradient_groups_)
    owned += (trained(group, stage) + group.shards - 1) / group.shards;
  const std::vector<sim::Kernel> kernels = workloads::optimizer_kernels(job_.training, state_, owned, costs_);
  // The optimizer works on 32-bit copies of 16-bit gradients (megatron/core/optimizer/optimizer.py).
  const Bytes copies{state_.master > 0 && state_.gradient < 4 ? owned * 4 : 0};
  block.memory(MemoryPurpose::gradients, copies);
  block.compute({kernels.data(), 1});
  const bool norm_is_shared = (norm_is_of_all() ? world() : options_.tensor * options_.pipeline) > 1;
  if (norm_is_shared && !options_.validates_afterwards())
    block.blocking(model_stream_, builder_.call(model_slot_, CollectiveKind::all_reduce, Bytes{4},
                                                options_.pipeline > 1 ? Purpose::pipeline : Purpose::tensor));
  block.host_wait(sim::set_of(model_stream_)).host_work(host_.step);
  block.compute({kernels.data() + 1, kernels.size() - 1});
  for (const GradientGroup& group : gradient_groups_)
    if (const std::int64_t parameters = trained(group, stage);
        group.shards > 1 && !options_.overlap_param_gather && parameters > 0)
      block.blocking(group.stream,
                     builder_.call(group.slot, CollectiveKind::all_gather, gathered_bytes(parameters), Purpose::data));
  block.memory(MemoryPurpose::gradients, -copies);
  // The timer around the optimizer synchronises with the device in older releases (_Timer in megatron/global_vars.py),
  // so the host does not run ahead into the next step.
  if (!recent_software()) block.host_wait(sim::set_of(sim::compute_stream));
  program.calls.push_back({.block = block.finish()});
}

}  // namespace trainyard::strategies
