#include <algorithm>

#include "strategies/internal/megatron_planner.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::CollectiveKind;
using sim::MemoryPurpose;
using sim::Purpose;

sim::BlockId MegatronPlanner::reduce_block(std::int64_t parameters) {
  const auto known = reduce_blocks_.find(parameters);
  if (known != reduce_blocks_.end()) return known->second;
  const CollectiveKind kind =
      options_.distributed_optimizer ? CollectiveKind::reduce_scatter : CollectiveKind::all_reduce;
  BlockWriter block = builder_.block("reduce gradients", host_.backward);
  block.communicate(data_stream_, builder_.call(data_slot_, kind, Bytes{parameters * state_.gradient}, Purpose::data));
  return reduce_blocks_[parameters] = block.finish();
}

// Layers of each bucket of a chunk, in the order of its backward pass. Buckets form on the first stage's first chunk
// only; elsewhere one bucket per chunk, since it is off the critical path (megatron/core/distributed).
std::vector<std::int64_t> MegatronPlanner::bucket_layers(const Stage& stage, std::size_t chunk) const {
  const std::int64_t count = stage.layers[chunk];
  if (stage.index != 0 || chunk != 0) return {count};
  const std::int64_t size =
      options_.ddp_bucket_size > 0 ? options_.ddp_bucket_size : std::max<std::int64_t>(40'000'000, 1'000'000 * data_);
  std::vector<std::int64_t> buckets{0};
  std::int64_t filled = 0;
  for (std::int64_t i = count; i-- > 0;) {
    if (filled >= size) {
      buckets.push_back(0);
      filled = 0;
    }
    ++buckets.back();
    filled += model_.trained(stage.first_layer[chunk] + i, 1);
  }
  return buckets;
}

// Of bucket `index` in the order of the backward pass, on this rank: the last one also holds the embedding, the first
// one the head.
std::int64_t MegatronPlanner::bucket_parameters(const Stage& stage, std::size_t chunk, std::size_t index) const {
  const std::vector<std::int64_t> buckets = bucket_layers(stage, chunk);
  const auto position = static_cast<std::int64_t>(chunk);
  std::int64_t end = stage.first_layer[chunk] + stage.layers[chunk];
  for (std::size_t i = 0; i < index; ++i) end -= buckets[i];
  std::int64_t parameters = model_.trained(end - buckets[index], buckets[index]);
  if (index + 1 == buckets.size() && first(stage.index, position)) parameters += model_.embedding.trained;
  if (index == 0 && last(stage.index, position)) {
    parameters += model_.head.trained;
    if (embedding_is_shared() && !job_.training.adapters) parameters += vocab_ / options_.tensor * job_.model.hidden;
  }
  return parameters;
}

// All gathers of the step, in the order in which forward passes need them.
std::vector<std::int64_t> MegatronPlanner::gathered_buckets(const Stage& stage) const {
  std::vector<std::int64_t> buckets;
  for (std::size_t chunk = 0; chunk < stage.layers.size(); ++chunk)
    for (std::size_t index = bucket_layers(stage, chunk).size(); index-- > 0;)
      buckets.push_back(bucket_parameters(stage, chunk, index));
  return buckets;
}

// Posts the gather of bucket `index`, if there is one.
void MegatronPlanner::write_parameter_gather(BlockWriter& block, const std::vector<std::int64_t>& buckets,
                                             std::size_t index) {
  if (index >= buckets.size()) return;
  while (gathered_.size() <= index) gathered_.push_back(builder_.event());
  block.communicate(
      data_stream_,
      builder_.call(data_slot_, CollectiveKind::all_gather, Bytes{buckets[index] * state_.parameter}, Purpose::data),
      sim::set_of(sim::compute_stream), {}, gathered_[index]);
}

// Waiting for a bucket sends for the next one.
sim::BlockId MegatronPlanner::await_parameters(const std::vector<std::int64_t>& buckets, std::size_t index) {
  BlockWriter block = builder_.block("await parameters", host_.forward);
  write_parameter_gather(block, buckets, index + 1);
  block.wait_for(gathered_[index]);
  return block.finish();
}

// overlap_param_gather: parameters that the step before updated are gathered while forward passes go on. Only the first
// gather is exposed; each bucket that is waited for sends for the next.
void MegatronPlanner::write_step_start(sim::Program& program, const Stage& stage) {
  if (!gathers_in_forward()) return;
  gathers_ = gathered_buckets(stage);
  next_gather_ = 0;
  BlockWriter block = builder_.block("gather parameters", host_.forward);
  write_parameter_gather(block, gathers_, 0);
  program.calls.push_back({.block = block.finish()});
}

// Replicated over the tensor group, each rank with the gradient of its part of the sequence.
std::int64_t MegatronPlanner::norm_parameters(const Stage& stage) const {
  const auto of = [](const workloads::Layer& layer) {
    std::int64_t sum = 0;
    for (const workloads::Operator& op : layer.operators)
      if (op.role == workloads::Role::replicated) sum += op.trained;
    return sum;
  };
  std::int64_t sum = stage.index == options_.pipeline - 1 ? of(model_.head) : 0;
  for (std::size_t chunk = 0; chunk < stage.layers.size(); ++chunk)
    for (std::int64_t i = 0; i < stage.layers[chunk]; ++i) sum += of(model_.layer(stage.first_layer[chunk] + i));
  return sum;
}

// In order: gradient synchronisation, layer norms over the tensor group, tied embeddings between first and last stage,
// gradient norm over the model-parallel ranks, optimizer, gather of the parameters.
void MegatronPlanner::write_step_end(sim::Program& program, const Stage& stage) {
  if (!options_.overlap_grad_reduce && data_ > 1) program.calls.push_back({.block = reduce_block(stage.trained)});
  BlockWriter block = builder_.block("optimizer step", host_.backward);
  if (data_ > 1) block.wait_for(sim::set_of(data_stream_));
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
  const std::int64_t owned = options_.distributed_optimizer ? (stage.trained + data_ - 1) / data_ : stage.trained;
  const std::vector<sim::Kernel> kernels = workloads::optimizer_kernels(job_.training, state_, owned, costs_);
  // The optimizer works on 32-bit copies of 16-bit gradients (megatron/core/optimizer/optimizer.py).
  const Bytes copies{state_.master > 0 && state_.gradient < 4 ? owned * 4 : 0};
  block.memory(MemoryPurpose::gradients, copies);
  block.compute({kernels.data(), 1});
  const bool norm_is_shared = options_.tensor * options_.pipeline > 1 || (options_.distributed_optimizer && data_ > 1);
  if (norm_is_shared && !options_.validates_afterwards())
    block.blocking(model_stream_, builder_.call(model_slot_, CollectiveKind::all_reduce, Bytes{4},
                                                options_.pipeline > 1 ? Purpose::pipeline : Purpose::tensor));
  block.host_wait(sim::set_of(model_stream_)).host_work(host_.step);
  block.compute({kernels.data() + 1, kernels.size() - 1});
  if (options_.distributed_optimizer && !options_.overlap_param_gather && data_ > 1)
    block.blocking(data_stream_, builder_.call(data_slot_, CollectiveKind::all_gather,
                                               Bytes{stage.trained * state_.parameter}, Purpose::data));
  block.memory(MemoryPurpose::gradients, -copies);
  // The timer around the optimizer synchronises with the device in older releases (_Timer in megatron/global_vars.py),
  // so the host does not run ahead into the next step.
  if (!recent_software()) block.host_wait(sim::set_of(sim::compute_stream));
  program.calls.push_back({.block = block.finish()});
}

}  // namespace trainyard::strategies
