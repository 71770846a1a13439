// LowLevelZero of Colossal-AI: optimizer state (stage 1) and gradients (stage 2) divided over the ranks, every
// parameter by itself. Gradients are reduced in flat buckets as they come; behind the update every parameter is
// gathered on its own. Source: hpcaitech/ColossalAI colossalai/zero/low_level/low_level_optim.py.
#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "strategies/internal/colossal_planner.hpp"
#include "strategies/internal/deepspeed_parameters.hpp"

namespace trainyard::strategies {
namespace {

using sim::Bytes;
using sim::CollectiveKind;
using sim::MemoryPurpose;
using sim::Purpose;

class LowLevelZeroPlanner {
 public:
  LowLevelZeroPlanner(const ColossalOptions& options, const Job& job)
      : model_(options, job),
        parts_(model_.parts()),
        offload_(model_.builder, job.training, model_.host.forward, true),
        divides_gradients_(options.stage() == 2) {
    stream_ = model_.builder.stream("gradients");
    slot_ = model_.builder.slot("data");
    for (const ColossalPart& part : parts_)
      tensors_.push_back(
          owned_tensors(*part.layer, *part.block, job.training, job.model.separate_projections, options.tensor));
  }

  PlannedStep plan();

 private:
  std::int64_t padded(std::int64_t elements) const { return (elements + model_.data - 1) / model_.data * model_.data; }
  std::int64_t owned() const;
  bool reduces(std::int64_t micro_batch) const {
    return divides_gradients_ || !model_.options.no_sync || micro_batch + 1 == model_.micro_batches;
  }
  // Whether buckets are reduced while backward goes on.
  bool hooks() const { return divides_gradients_ || model_.options.overlap_communication; }

  sim::BlockId forward_block(const ColossalPart& part);
  sim::BlockId backward_block(std::size_t part, bool adds, bool reduces);
  sim::BlockId backward_end();
  sim::BlockId step_end();
  void add_to_bucket(BlockWriter& block, std::int64_t elements);
  void reduce_bucket(BlockWriter& block);
  void write_gathers(BlockWriter& block);
  void write_program();
  void write_resident(sim::Program& program) const;

  ColossalModel model_;
  std::vector<ColossalPart> parts_;
  ActivationOffload offload_;
  bool divides_gradients_;
  std::vector<std::vector<std::vector<ParameterTensor>>> tensors_;  // of each part and operator
  std::int64_t in_bucket_ = 0;                                      // elements
  sim::StreamId stream_{};
  sim::SlotId slot_{};
};

std::int64_t LowLevelZeroPlanner::owned() const {
  std::int64_t sum = 0;
  for (const auto& part : tensors_)
    for (const auto& op : part)
      for (const ParameterTensor& tensor : op) sum += padded(tensor.elements) / model_.data;
  return sum;
}

sim::BlockId LowLevelZeroPlanner::forward_block(const ColossalPart& part) {
  BlockWriter block = model_.builder.block("forward " + part.layer->name, model_.host.forward);
  block.memory(MemoryPurpose::activations, model_.saved(part));
  model_.tensor.write_forward(block, *part.layer);
  if (model_.is_embedding(part)) model_.tensor.write_embedding_end(block, *part.layer);
  if (model_.is_head(part)) model_.tensor.write_loss(block);
  return block.finish();
}

// A bucket that the next gradient would overfill is reduced before that is added.
void LowLevelZeroPlanner::add_to_bucket(BlockWriter& block, std::int64_t elements) {
  const std::int64_t most = model_.options.reduce_bucket_size_in_m << 20;
  if (in_bucket_ > 0 && in_bucket_ + elements > most) reduce_bucket(block);
  in_bucket_ += padded(elements);
}

// Gradients are copied into one flat tensor and divided by the ranks.
void LowLevelZeroPlanner::reduce_bucket(BlockWriter& block) {
  if (in_bucket_ == 0) return;
  const Bytes bucket{in_bucket_ * model_.state.gradient};
  in_bucket_ = 0;
  const sim::Kernel flatten = model_.pass("flatten gradients", 4 * bucket.count);
  block.compute({&flatten, 1});
  const CollectiveKind kind = divides_gradients_ ? CollectiveKind::reduce_scatter : CollectiveKind::all_reduce;
  if (model_.data > 1) block.communicate(stream_, block.call(slot_, kind, bucket, Purpose::data));
  const std::int64_t kept = divides_gradients_ ? bucket.count / model_.data : bucket.count;
  const sim::Kernel keep = model_.pass("keep gradients", 2 * kept);
  if (model_.options.overlap_communication)
    block.side_kernel(stream_, keep, 0);
  else
    block.wait_for(sim::set_of(stream_)).compute({&keep, 1});
  if (divides_gradients_) block.memory(MemoryPurpose::gradients, -bucket);
}

sim::BlockId LowLevelZeroPlanner::backward_block(std::size_t index, bool adds, bool reduces) {
  const ColossalPart& part = parts_[index];
  const workloads::Layer& layer = *part.layer;
  BlockWriter block =
      model_.builder.block("backward " + layer.name + (reduces ? " and reduce" : ""), model_.host.backward);
  const Bytes extra = model_.backward_extra(part);
  block.memory(MemoryPurpose::activations, extra);
  model_.tensor.write_recompute(block, layer, model_.recompute(part));
  const auto after = [&](BlockWriter& writer, std::size_t op) {
    const std::int64_t trained = layer.operators[op].trained;
    if (adds && trained > 0 && !divides_gradients_) {
      const sim::Kernel add = model_.pass("accumulate gradients", 3 * trained * model_.state.gradient);
      writer.compute({&add, 1});
    }
    if (!reduces) return;
    const auto& tensors = tensors_[index][op];
    for (std::size_t i = tensors.size(); i-- > 0;) {
      if (divides_gradients_)
        writer.memory(MemoryPurpose::gradients, Bytes{padded(tensors[i].elements) * model_.state.gradient});
      add_to_bucket(writer, tensors[i].elements);
    }
  };
  write_backward(block, layer, model_.tensor.line(), after);
  block.memory(MemoryPurpose::activations, -(extra + model_.saved(part)));
  return block.finish();
}

// The last bucket, or without hooks all of them; with a stream of their own the host waits for the device.
sim::BlockId LowLevelZeroPlanner::backward_end() {
  BlockWriter block = model_.builder.block("end of reduction", model_.host.backward);
  if (!hooks())
    for (const auto& part : tensors_)
      for (const auto& op : part)
        for (const ParameterTensor& tensor : op) add_to_bucket(block, tensor.elements);
  reduce_bucket(block);
  block.wait_for(sim::set_of(stream_));
  if (model_.options.overlap_communication) block.host_wait(sim::set_of(sim::compute_stream));
  return block.finish();
}

// One after the other, each into buffers that it is copied from.
void LowLevelZeroPlanner::write_gathers(BlockWriter& block) {
  if (model_.data == 1) return;
  for (const auto& part : tensors_)
    for (const auto& op : part)
      for (const ParameterTensor& tensor : op) {
        const Bytes whole{padded(tensor.elements) * model_.state.parameter};
        block.blocking(stream_, block.call(slot_, CollectiveKind::all_gather, whole, Purpose::data));
        const sim::Kernel copy = model_.pass("copy parameter", 2 * whole.count);
        block.compute({&copy, 1});
      }
}

sim::BlockId LowLevelZeroPlanner::step_end() {
  BlockWriter block = model_.builder.block("optimizer step", model_.host.backward);
  const std::vector<sim::Kernel> kernels =
      workloads::optimizer_kernels(model_.job.training, model_.state, owned(), model_.costs);
  block.compute({kernels.data(), 1});
  if (model_.data > 1) block.blocking(stream_, block.call(slot_, CollectiveKind::all_reduce, Bytes{4}, Purpose::data));
  model_.tensor.write_scalar(block);
  block.compute({kernels.data() + 1, kernels.size() - 1});
  write_gathers(block);
  block.host_wait(sim::set_of(sim::compute_stream)).host_work(model_.host.step);
  return block.finish();
}

// Stage 2 keeps shards of gradients, and a flat bucket beside the gradients that are in it.
void LowLevelZeroPlanner::write_resident(sim::Program& program) const {
  const auto resident = [&](MemoryPurpose purpose, Bytes bytes) {
    program.resident[static_cast<std::size_t>(purpose)] = bytes;
  };
  resident(MemoryPurpose::parameters, Bytes{model_.trained() * model_.state.parameter});
  resident(MemoryPurpose::gradients, Bytes{(divides_gradients_ ? owned() : model_.trained()) * model_.state.gradient});
  resident(MemoryPurpose::optimizer, model_.state.optimizer(owned()));
  const std::int64_t bucket = std::min(model_.options.reduce_bucket_size_in_m << 20, model_.trained());
  resident(MemoryPurpose::buffers, Bytes{bucket * model_.state.gradient});
}

void LowLevelZeroPlanner::write_program() {
  sim::Program program;
  program.name = "all ranks";
  write_resident(program);
  std::vector<sim::BlockId> forward;
  for (const ColossalPart& part : parts_) forward.push_back(forward_block(part));
  // By whether gradients are added, and reduced.
  std::map<std::pair<bool, bool>, std::vector<sim::BlockId>> backward;
  std::map<bool, sim::BlockId> ends;
  for (std::int64_t m = 0; m < model_.micro_batches; ++m) {
    const bool reducing = reduces(m);
    const std::pair key{m > 0, reducing};
    if (!backward.contains(key)) {
      backward[key].resize(parts_.size());
      for (std::size_t part = parts_.size(); part-- > 0;)
        backward[key][part] = backward_block(part, key.first, reducing && hooks());
      if (reducing) ends[key.first] = backward_end();
    }
    const auto micro_batch = static_cast<std::int32_t>(m);
    const auto call = [&](sim::BlockId block, std::int32_t layer) {
      program.calls.push_back({.block = block, .layer = layer, .micro_batch = micro_batch});
    };
    const auto place = [&](std::size_t part) {
      return ActivationOffload::Place{model_.expansion, 0, model_.expansion.layers(), parts_[part].index, micro_batch};
    };
    for (std::size_t part = 0; part < parts_.size(); ++part) {
      call(forward[part], parts_[part].index);
      if (parts_[part].index >= 0) offload_.after_forward(program, place(part));
    }
    for (std::size_t part = parts_.size(); part-- > 0;) {
      if (parts_[part].index >= 0) offload_.before_backward(program, place(part));
      call(backward.at(key)[part], parts_[part].index);
    }
    if (reducing) call(ends.at(key.first), -1);
  }
  program.calls.push_back({.block = step_end()});
  model_.builder.plan().programs.add(std::move(program));
}

PlannedStep LowLevelZeroPlanner::plan() {
  write_program();
  model_.connect(slot_, offload_);
  return model_.finish();
}

}  // namespace

PlannedStep plan_low_level_zero(const ColossalOptions& options, const Job& job) {
  return LowLevelZeroPlanner(options, job).plan();
}

}  // namespace trainyard::strategies
