#include "strategies/internal/replicated_passes.hpp"

#include <algorithm>
#include <utility>

#include "strategies/checks.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::MemoryPurpose;

ReplicatedPasses::ReplicatedPasses(PlanBuilder& builder, const Job& job, const workloads::Training& training,
                                   const HostProfile& host, const workloads::KernelStyle& style)
    : builder_(builder),
      job_(job),
      training_(training),
      replicas_(job.cluster.devices()),
      micro_batch_(training.micro_batch.value_or(training.global_batch / replicas_)),
      micro_batches_(training.global_batch / (replicas_ * micro_batch_)),
      host_(host),
      costs_(job.accelerator, job.cluster.devices()),
      architecture_(workloads::describe(job.model, training.sequence, 0, training.documents)),
      state_(workloads::state_bytes(training, workloads::StateLayout::full_precision, workloads::Precision::fp32,
                                    workloads::factored_moments(architecture_))),
      model_(workloads::expand(architecture_, training_, {.micro_batch = micro_batch_, .table_ranks = replicas_}, style,
                               costs_)),
      offload_(builder, training_, host_.forward, true),
      trained_(model_.embedding.trained + model_.trained(0, model_.layers()) + model_.head.trained),
      frozen_(model_.embedding.frozen + model_.frozen(0, model_.layers()) + model_.head.frozen) {
  parts_.push_back({.layer = &model_.embedding});
  for (std::int64_t i = 0; i < model_.layers(); ++i)
    parts_.push_back({.layer = &model_.layer(i), .index = static_cast<std::int32_t>(i), .recomputed = true});
  parts_.push_back({.layer = &model_.head});
}

void ReplicatedPasses::exchange_tables(sim::SlotId group) {
  if (job_.model.structure == workloads::Model::Structure::recommendation && replicas_ > 1)
    with_.exchange = ExchangeCommunication{.stream = builder_.stream("table exchange"), .slot = group};
}

std::vector<std::int64_t> ReplicatedPasses::gradient_tensors() const {
  std::vector<std::int64_t> sizes;
  const auto add = [&](const workloads::Layer& layer, const workloads::Block& block) {
    if (layer.trained == 0) return;
    if (layer.trained == workloads::parameters_of(block)) {
      for (const workloads::Tensor& tensor : workloads::tensors_of(block, job_.model.separate_projections))
        sizes.push_back(tensor.size());
      return;
    }
    for (const workloads::Operator& op : layer.operators)  // adapters
      if (op.trained > 0) sizes.push_back(op.trained);
  };
  add(model_.embedding, architecture_.embedding);
  for (const std::uint32_t kind : architecture_.layers) add(model_.kinds[kind], architecture_.kinds[kind]);
  add(model_.head, architecture_.head);
  return sizes;
}

std::int64_t ReplicatedPasses::cast_parameters(const Part& part) const {
  if (!mixed()) return 0;
  std::int64_t sum = 0;
  for (const workloads::Operator& op : part.layer->operators)
    if (op.role == workloads::Role::column_linear || op.role == workloads::Role::row_linear) sum += op.trained;
  // A tied head has no parameters of its own, but uses the embedding's matrix.
  if (part.layer == &model_.head && job_.model.tied_embeddings && !training_.adapters)
    sum += job_.model.vocab * job_.model.hidden;
  return sum;
}

sim::Program ReplicatedPasses::program(std::string name) const {
  sim::Program program;
  program.name = std::move(name);
  program.resident[static_cast<std::size_t>(MemoryPurpose::parameters)] = Bytes{trained_ * state_.parameter} + frozen_;
  program.resident[static_cast<std::size_t>(MemoryPurpose::gradients)] = Bytes{trained_ * state_.gradient};
  program.resident[static_cast<std::size_t>(MemoryPurpose::optimizer)] = state_.optimizer(trained_);
  return program;
}

sim::BlockId ReplicatedPasses::forward_block(const Part& part) {
  BlockWriter block = builder_.block("forward " + part.layer->name, host_.forward);
  const auto recompute = part.recomputed ? training_.recompute : workloads::Recompute{};
  block.memory(MemoryPurpose::activations, part.layer->saved_bytes(recompute, true));
  // 32-bit weights of linear layers are cast to 16 bits once per forward pass and kept for backward.
  if (const std::int64_t cast = cast_parameters(part); cast > 0) {
    const sim::Kernel kernel = costs_.memory_bound("cast weights", Bytes{cast * 6});
    block.compute({&kernel, 1});
    block.memory(MemoryPurpose::buffers, Bytes{cast * 2});
  }
  strategies::write_forward(block, *part.layer, with_);
  return block.finish();
}

sim::BlockId ReplicatedPasses::backward_block(const Part& part, const std::string& name, const AfterGradient& after) {
  BlockWriter block = builder_.block(name, host_.backward);
  const auto recompute = part.recomputed ? training_.recompute : workloads::Recompute{};
  const Bytes kept = part.layer->saved_bytes(recompute, true);
  const Bytes everything = part.layer->saved_bytes({}, true);
  const Bytes workspace = backward_workspace(*part.layer);
  block.memory(MemoryPurpose::activations, std::max(everything - kept, Bytes{}) + workspace);
  write_recompute(block, *part.layer, recompute, true, with_);
  strategies::write_backward(block, *part.layer, with_, [&](BlockWriter& writer, std::size_t index) {
    const std::int64_t parameters = part.layer->operators[index].trained;
    if (parameters > 0) after(writer, parameters);
  });
  block.memory(MemoryPurpose::activations, -(std::max(everything, kept) + workspace));
  block.memory(MemoryPurpose::buffers, Bytes{-cast_parameters(part) * 2});
  return block.finish();
}

std::int64_t ReplicatedPasses::accumulation_traffic() const {
  const std::int64_t cast = mixed() ? 6 : 0;
  const std::int64_t accumulate =
      micro_batches_ > 1 ? 3 * gradient_bytes() : 0;  // read the fresh and the accumulated one, write
  return cast + accumulate;
}

void ReplicatedPasses::write_forward(sim::Program& program, std::int64_t micro_batch) {
  const auto m = static_cast<std::int32_t>(micro_batch);
  for (const Part& part : parts_) {
    auto known = forward_.find(part.layer);
    if (known == forward_.end()) known = forward_.emplace(part.layer, forward_block(part)).first;
    program.calls.push_back({.block = known->second, .layer = part.index, .micro_batch = m});
    if (part.index >= 0) offload_.after_forward(program, {model_, 0, model_.layers(), part.index, m});
  }
}

void ReplicatedPasses::write_backward(sim::Program& program, std::int64_t micro_batch, const BackwardOf& block) {
  const auto m = static_cast<std::int32_t>(micro_batch);
  for (std::size_t i = parts_.size(); i-- > 0;) {
    const Part& part = parts_[i];
    if (part.index >= 0) offload_.before_backward(program, {model_, 0, model_.layers(), part.index, m});
    program.calls.push_back({.block = block(part), .layer = part.index, .micro_batch = m});
  }
}

void ReplicatedPasses::write_update(BlockWriter& block, std::int64_t parameters) const {
  const std::vector<sim::Kernel> kernels = workloads::optimizer_kernels(training_, state_, parameters, costs_);
  block.compute(kernels);
}

}  // namespace trainyard::strategies
