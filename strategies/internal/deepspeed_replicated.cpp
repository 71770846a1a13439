#include <map>
#include <utility>

#include "strategies/internal/deepspeed_planner.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::MemoryPurpose;

namespace {

// deepspeed/runtime/engine.py, MEMORY_OPT_ALLREDUCE_SIZE: elements of a bucket of stage 0.
constexpr std::int64_t plain_bucket_size = 500'000'000;

}  // namespace

// Stage 1 hooks into the backward pass only where communication overlaps, stage 2 always does, and for every
// micro-batch; else all gradients are reduced behind the last backward pass.
bool DeepspeedPlanner::reduces_in_backward(std::int64_t micro_batch) const {
  if (options_.zero_stage == 2) return true;
  return options_.zero_stage == 1 && options_.overlaps() && micro_batch + 1 == micro_batches_;
}

// Rows of the vocabulary are on different tensor-parallel ranks.
void DeepspeedPlanner::write_rows(BlockWriter& block, sim::CollectiveKind kind) {
  block.blocking(tensor_, builder_.call(tensor_slot_, kind, model_.embedding.boundary, sim::Purpose::tensor));
}

void DeepspeedPlanner::write_forward_of(BlockWriter& block, const Part& part, OperatorRange range) {
  using sim::CollectiveKind;
  write_forward(block, *part.layer, range, with_);
  if (range.end < part.layer->operators.size()) return;
  if (part.layer == &model_.head) {
    if (host_.loss.count() > 0) block.host_work(host_.loss);
    write_loss_reductions(block, with_);
  }
  if (divides_rows(part))
    write_rows(block, options_.divides_sequence() ? CollectiveKind::reduce_scatter : CollectiveKind::all_reduce);
}

void DeepspeedPlanner::write_backward_of(BlockWriter& block, const Part& part, OperatorRange range,
                                         const AfterOperator& after) {
  if (range.first == range.end) return;
  if (range.end == part.layer->operators.size() && divides_rows(part) && options_.divides_sequence())
    write_rows(block, sim::CollectiveKind::all_gather);
  write_backward(block, *part.layer, range, with_, after);
}

sim::BlockId DeepspeedPlanner::forward_block(const Part& part) {
  BlockWriter block = builder_.block("forward " + part.layer->name, host_.forward);
  block.memory(MemoryPurpose::activations, kept_bytes(part));
  write_forward_of(block, part, all_operators(*part.layer));
  return block.finish();
}

// Passes over a gradient that is added to those of earlier micro-batches, in the type of the model; in 32 bits also for
// the first one, which is copied.
std::int64_t DeepspeedPlanner::accumulated_bytes(bool accumulates) const {
  if (wide_gradients_) return element_ + (accumulates ? 2 : 1) * state_.gradient;
  return accumulates ? 3 * element_ : 0;
}

// Gradients of one operator: added to those of earlier micro-batches, or copied into the bucket.
void DeepspeedPlanner::write_gradients(BlockWriter& block, const std::vector<ParameterTensor>& tensors,
                                       bool accumulates, GradientBuckets* buckets) {
  for (std::size_t i = tensors.size(); i-- > 0;) {
    const ParameterTensor& tensor = tensors[i];
    if (!tensor.trained) continue;
    const Bytes gradient{tensor.elements * element_};
    const bool own = options_.zero_stage == 2;  // else there is room for it beside the parameter
    if (own) block.memory(MemoryPurpose::gradients, gradient);
    if (const std::int64_t bytes = accumulated_bytes(accumulates); bytes > 0 && !own) {
      const sim::Kernel add = pass_over("accumulate gradients", tensor.elements * bytes);
      block.compute({&add, 1});
    }
    if (buckets == nullptr) continue;
    if (const auto full = buckets->add(tensor)) {
      write_reduction(block, *full, accumulates);
      if (own) block.memory(MemoryPurpose::gradients, -waiting_bytes(*full));
    }
    if (!settles(tensor)) continue;
    const sim::Kernel copy = pass_over("copy into bucket", 2 * gradient.count);
    block.compute({&copy, 1});
    if (own) block.memory(MemoryPurpose::gradients, -gradient);
  }
}

// Whether the bucket's buffer takes the gradient, which is free then.
bool DeepspeedPlanner::settles(const ParameterTensor& tensor) const {
  return options_.contiguous_gradients && tensor.elements <= options_.reduce_bucket_size;
}

// Gradients of a bucket that are not in its buffer.
Bytes DeepspeedPlanner::waiting_bytes(const GradientBucket& bucket) const {
  Bytes sum{};
  for (const ParameterTensor& tensor : bucket.tensors)
    if (!settles(tensor)) sum += Bytes{tensor.elements * element_};
  return sum;
}

sim::BlockId DeepspeedPlanner::backward_block(const Part& part, bool accumulates, GradientBuckets* buckets) {
  BlockWriter block = builder_.block("backward " + part.layer->name, host_.backward);
  // What the layers of a group keep is there already when they have run again.
  const Bytes there = in_group(part) ? part.layer->saved_bytes({}, false) : kept_bytes(part);
  const Bytes working = in_group(part) ? backward_workspace(*part.layer) : working_bytes(part);
  block.memory(MemoryPurpose::activations, working);
  if (!in_group(part)) write_recompute(block, *part.layer, recompute_of(part), false, with_);
  write_backward_of(block, part, all_operators(*part.layer), [&](BlockWriter& writer, std::size_t index) {
    write_gradients(writer, (*part.tensors)[index], accumulates, buckets);
  });
  block.memory(MemoryPurpose::activations, -(working + there));
  return block.finish();
}

// Two buffers where one fills while the other is reduced.
Bytes DeepspeedPlanner::bucket_buffers() const {
  if (!options_.contiguous_gradients || options_.zero_stage == 0 || !several()) return {};
  return Bytes{options_.reduce_bucket_size * element_ * (options_.overlaps() ? 2 : 1)};
}

sim::BlockId DeepspeedPlanner::backward_start() {
  BlockWriter block = builder_.block("backward buffers", host_.backward);
  block.memory(MemoryPurpose::buffers, bucket_buffers());
  return block.finish();
}

// All gradients at once, behind the last backward pass.
void DeepspeedPlanner::write_whole_reduction(sim::Program& program) {
  if (!several() && !options_.offloads_optimizer()) return;
  BlockWriter block = builder_.block("reduce gradients", host_.backward);
  block.memory(MemoryPurpose::buffers, bucket_buffers());
  GradientBuckets buckets(options_.zero_stage == 0 ? plain_bucket_size : options_.reduce_bucket_size);
  for (std::size_t i = tensors_.size(); i-- > 0;) {
    const ParameterTensor& tensor = tensors_[i];
    if (!tensor.trained) continue;
    if (const auto full = buckets.add(tensor)) write_reduction(block, *full, false);
    if (options_.zero_stage == 0 || !settles(tensor) || !several()) continue;
    const sim::Kernel copy = pass_over("copy into bucket", 2 * tensor.elements * element_);
    block.compute({&copy, 1});
  }
  if (const auto rest = buckets.finish()) write_reduction(block, *rest, false);
  block.memory(MemoryPurpose::buffers, -bucket_buffers());
  program.calls.push_back({.block = block.finish()});
}

sim::BlockId DeepspeedPlanner::backward_end(std::int64_t micro_batch, GradientBuckets& buckets) {
  BlockWriter block = builder_.block("backward end", host_.backward);
  if (const auto rest = buckets.finish()) {
    write_reduction(block, *rest, micro_batch > 0);
    if (options_.zero_stage == 2) block.memory(MemoryPurpose::gradients, -waiting_bytes(*rest));
  }
  // The epilogue synchronises the whole device before it lets go of what was reduced.
  if (options_.overlaps()) block.host_wait(all_streams());
  block.memory(MemoryPurpose::buffers, -bucket_buffers());
  return block.finish();
}

// Of the parts from the last to the first, and what comes behind them where that reduces.
std::vector<sim::BlockId> DeepspeedPlanner::backward_blocks(std::int64_t micro_batch) {
  GradientBuckets buckets(options_.reduce_bucket_size);
  const bool reduces = reduces_in_backward(micro_batch);
  std::vector<sim::BlockId> blocks;
  std::map<const workloads::Layer*, sim::BlockId> alike;
  for (std::size_t i = parts_.size(); i-- > 0;) {
    const Part& part = parts_[i];
    if (reduces) {
      blocks.push_back(backward_block(part, micro_batch > 0, &buckets));
      continue;
    }
    if (!alike.contains(part.layer)) alike[part.layer] = backward_block(part, micro_batch > 0, nullptr);
    blocks.push_back(alike.at(part.layer));
  }
  if (reduces) blocks.push_back(backward_end(micro_batch, buckets));
  return blocks;
}

void DeepspeedPlanner::write_forward_pass(sim::Program& program, std::int32_t micro_batch) {
  const auto call = [&](sim::BlockId block, std::int32_t layer) {
    program.calls.push_back({.block = block, .layer = layer, .micro_batch = micro_batch});
  };
  for (const Part& part : parts_) {
    if (in_group(part) && !begins_group(part)) {
      call(dropping_block(part), part.index);
      continue;
    }
    if (!forward_blocks_.contains(part.layer)) forward_blocks_[part.layer] = forward_block(part);
    call(forward_blocks_.at(part.layer), part.index);
    if (part.index >= 0) offload_.after_forward(program, place_of(part, micro_batch));
  }
}

void DeepspeedPlanner::write_backward_pass(sim::Program& program, std::int32_t micro_batch) {
  const auto call = [&](sim::BlockId block, std::int32_t layer) {
    program.calls.push_back({.block = block, .layer = layer, .micro_batch = micro_batch});
  };
  if (reduces_in_backward(micro_batch)) {
    if (!backward_start_) backward_start_ = backward_start();
    call(*backward_start_, -1);
  }
  std::vector<sim::BlockId>& blocks = backward_blocks_[{micro_batch > 0, micro_batch + 1 == micro_batches_}];
  if (blocks.empty()) blocks = backward_blocks(micro_batch);
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const std::size_t position = parts_.size() - 1 - i;
    const Part& part = parts_[position];
    if (in_group(part) && ends_group(part)) write_group_again(program, position, micro_batch);
    if (part.index >= 0) offload_.before_backward(program, place_of(part, micro_batch));
    call(blocks[i], part.index);
  }
  if (blocks.size() > parts_.size()) call(blocks.back(), -1);
}

// Passes in the order of TrainSchedule, which is that of 1F1B (deepspeed/runtime/pipe/schedule.py); then
// ReduceTiedGrads and ReduceGrads.
void DeepspeedPlanner::write_replicated(sim::Program& program) {
  const std::vector<PipelineAction> actions =
      pipeline_schedule(ScheduleKind::one_forward_one_backward, stage_.index, options_.pipeline, micro_batches_, 1);
  transfers_->write(program, stage_.index, actions, [&](const PipelineAction& action) {
    const auto micro_batch = static_cast<std::int32_t>(action.micro_batch);
    if (action.kind == PipelineAction::Kind::forward)
      write_forward_pass(program, micro_batch);
    else
      write_backward_pass(program, micro_batch);
  });
  if (reduces_in_backward(micro_batches_ - 1)) return;
  write_tied_gradient(program);
  write_whole_reduction(program);
}

}  // namespace trainyard::strategies
