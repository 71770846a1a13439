#include <algorithm>
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

sim::BlockId DeepspeedPlanner::forward_block(const Part& part) {
  BlockWriter block = builder_.block("forward " + part.layer->name, host_.forward);
  block.memory(MemoryPurpose::activations, kept_bytes(part));
  write_forward(block, *part.layer, with_);
  return block.finish();
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
    if (accumulates && !own) {
      const sim::Kernel add = pass_over("accumulate gradients", 3 * gradient.count);
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
  const Bytes working = working_bytes(part);
  block.memory(MemoryPurpose::activations, working);
  write_recompute(block, *part.layer, recompute_of(part), false, with_);
  write_backward(block, *part.layer, with_, [&](BlockWriter& writer, std::size_t index) {
    write_gradients(writer, (*part.tensors)[index], accumulates, buckets);
  });
  block.memory(MemoryPurpose::activations, -(working + kept_bytes(part)));
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

// All gradients at once, behind the backward pass.
void DeepspeedPlanner::write_whole_reduction(BlockWriter& block) {
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
}

sim::BlockId DeepspeedPlanner::backward_end(std::int64_t micro_batch, GradientBuckets* buckets) {
  BlockWriter block = builder_.block("backward end", host_.backward);
  const bool last = micro_batch + 1 == micro_batches_;
  if (buckets != nullptr) {
    if (const auto rest = buckets->finish()) {
      write_reduction(block, *rest, micro_batch > 0);
      if (options_.zero_stage == 2) block.memory(MemoryPurpose::gradients, -waiting_bytes(*rest));
    }
    // The epilogue synchronises the whole device before it lets go of what was reduced.
    if (options_.overlaps()) block.host_wait(all_streams());
  } else if (last && (several() || options_.offloads_optimizer())) {
    block.memory(MemoryPurpose::buffers, bucket_buffers());
    write_whole_reduction(block);
    block.memory(MemoryPurpose::buffers, -bucket_buffers());
  }
  if (buckets != nullptr) block.memory(MemoryPurpose::buffers, -bucket_buffers());
  return block.finish();
}

// Of the parts from the last to the first, and what comes behind them.
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
  blocks.push_back(backward_end(micro_batch, reduces ? &buckets : nullptr));
  return blocks;
}

void DeepspeedPlanner::write_replicated(sim::Program& program) {
  std::map<const workloads::Layer*, sim::BlockId> forward;
  for (const Part& part : parts_)
    if (!forward.contains(part.layer)) forward[part.layer] = forward_block(part);
  // Backward passes of the first micro-batch, of later ones and of the last.
  std::map<std::pair<bool, bool>, std::vector<sim::BlockId>> backward;
  const sim::BlockId start = backward_start();
  for (std::int64_t m = 0; m < micro_batches_; ++m) {
    const auto call = [&](sim::BlockId block, std::int32_t layer) {
      program.calls.push_back({.block = block, .layer = layer, .micro_batch = static_cast<std::int32_t>(m)});
    };
    const auto place = [&](const Part& part) {
      return ActivationOffload::Place{model_, 0, model_.layers(), part.index, static_cast<std::int32_t>(m)};
    };
    for (const Part& part : parts_) {
      call(forward.at(part.layer), part.index);
      if (part.index >= 0) offload_.after_forward(program, place(part));
    }
    if (reduces_in_backward(m)) call(start, -1);
    std::vector<sim::BlockId>& blocks = backward[{m > 0, m + 1 == micro_batches_}];
    if (blocks.empty()) blocks = backward_blocks(m);
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      const Part& part = parts_[parts_.size() - 1 - i];
      if (part.index >= 0) offload_.before_backward(program, place(part));
      call(blocks[i], part.index);
    }
    call(blocks.back(), -1);
  }
}

}  // namespace trainyard::strategies
