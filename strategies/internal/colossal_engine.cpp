// The Engine of Colossal-AI: tensor parallelism in any number of dimensions, and gradients that replicas all-reduce in
// one piece behind the last backward pass of a step. Sources: hpcaitech/ColossalAI colossalai/legacy/engine/
// gradient_handler/{_data_parallel_gradient_handler,utils}.py; colossalai/legacy/amp/naive_amp/naive_amp.py.
#include <map>

#include "strategies/internal/colossal_planner.hpp"

namespace trainyard::strategies {
namespace {

using sim::Bytes;
using sim::CollectiveKind;
using sim::MemoryPurpose;

class EnginePlanner {
 public:
  EnginePlanner(const ColossalOptions& options, const Job& job)
      : model_(options, job), offload_(model_.builder, job.training, model_.host.forward, true) {
    stream_ = model_.builder.stream("gradient all-reduce");
    slot_ = model_.builder.slot("data");
  }

  PlannedStep plan();

 private:
  sim::BlockId forward_block(const ColossalPart& part);
  sim::BlockId backward_block(const ColossalPart& part, bool adds);
  sim::BlockId step_end();
  void write_program();

  ColossalModel model_;
  ActivationOffload offload_;
  sim::StreamId stream_{};
  sim::SlotId slot_{};
};

sim::BlockId EnginePlanner::forward_block(const ColossalPart& part) {
  BlockWriter block = model_.builder.block("forward " + part.layer->name, model_.host.forward);
  block.memory(MemoryPurpose::activations, model_.saved(part));
  model_.tensor.write_forward(block, *part.layer);
  if (model_.is_embedding(part)) model_.tensor.write_embedding_end(block, *part.layer);
  if (model_.is_head(part)) model_.tensor.write_loss(block);
  return block.finish();
}

// Gradients of the first micro-batch become those of the parameters, later ones are added to them.
sim::BlockId EnginePlanner::backward_block(const ColossalPart& part, bool adds) {
  BlockWriter block =
      model_.builder.block("backward " + part.layer->name + (adds ? " and add" : ""), model_.host.backward);
  const Bytes extra = model_.backward_extra(part);
  block.memory(MemoryPurpose::activations, extra);
  model_.tensor.write_recompute(block, *part.layer, model_.recompute(part));
  model_.tensor.write_backward(block, *part.layer);
  if (adds && part.layer->trained > 0) {
    const sim::Kernel add = model_.pass("accumulate gradients", part.layer->trained * model_.state.gradient * 3);
    block.compute({&add, 1});
  }
  block.memory(MemoryPurpose::activations, -(extra + model_.saved(part)));
  return block.finish();
}

// All gradients are copied into one flat buffer, and back from it.
sim::BlockId EnginePlanner::step_end() {
  BlockWriter block = model_.builder.block("optimizer step", model_.host.backward);
  model_.tensor.write_gradients_end(block);
  if (model_.data > 1) {
    const Bytes gradients{model_.trained() * model_.state.gradient};
    const sim::Kernel flatten = model_.pass("flatten gradients", 2 * gradients.count);
    const sim::Kernel unflatten = model_.pass("unflatten gradients", 2 * gradients.count);
    block.memory(MemoryPurpose::buffers, gradients);
    block.compute({&flatten, 1});
    block.blocking(stream_, model_.builder.call(slot_, CollectiveKind::all_reduce, gradients, sim::Purpose::data));
    block.compute({&unflatten, 1});
    block.memory(MemoryPurpose::buffers, -gradients);
  }
  const std::vector<sim::Kernel> kernels =
      workloads::optimizer_kernels(model_.job.training, model_.state, model_.trained(), model_.costs);
  block.compute({kernels.data(), 1});
  model_.tensor.write_scalar(block);
  block.compute({kernels.data() + 1, kernels.size() - 1});
  block.host_wait(sim::set_of(sim::compute_stream)).host_work(model_.host.step);
  return block.finish();
}

void EnginePlanner::write_program() {
  sim::Program program;
  program.name = "all ranks";
  const auto resident = [&](MemoryPurpose purpose, Bytes bytes) {
    program.resident[static_cast<std::size_t>(purpose)] = bytes;
  };
  resident(MemoryPurpose::parameters, Bytes{model_.trained() * model_.state.parameter});
  resident(MemoryPurpose::gradients, Bytes{model_.trained() * model_.state.gradient});
  resident(MemoryPurpose::optimizer, model_.state.optimizer(model_.trained()));
  const std::vector<ColossalPart> parts = model_.parts();
  std::map<const workloads::Layer*, sim::BlockId> forward;
  std::map<std::pair<const workloads::Layer*, bool>, sim::BlockId> backward;
  for (const ColossalPart& part : parts) {
    if (forward.contains(part.layer)) continue;
    forward[part.layer] = forward_block(part);
    backward[{part.layer, false}] = backward_block(part, false);
    if (model_.micro_batches > 1) backward[{part.layer, true}] = backward_block(part, true);
  }
  for (std::int64_t m = 0; m < model_.micro_batches; ++m) {
    const auto micro_batch = static_cast<std::int32_t>(m);
    const auto place = [&](const ColossalPart& part) {
      return ActivationOffload::Place{model_.expansion, 0, model_.expansion.layers(), part.index, micro_batch};
    };
    for (const ColossalPart& part : parts) {
      program.calls.push_back({.block = forward.at(part.layer), .layer = part.index, .micro_batch = micro_batch});
      if (part.index >= 0) offload_.after_forward(program, place(part));
    }
    for (std::size_t i = parts.size(); i-- > 0;) {
      if (parts[i].index >= 0) offload_.before_backward(program, place(parts[i]));
      program.calls.push_back(
          {.block = backward.at({parts[i].layer, m > 0}), .layer = parts[i].index, .micro_batch = micro_batch});
    }
  }
  program.calls.push_back({.block = step_end()});
  model_.builder.plan().programs.add(std::move(program));
}

PlannedStep EnginePlanner::plan() {
  write_program();
  model_.connect(slot_, offload_);
  return model_.finish();
}

}  // namespace

PlannedStep plan_colossal_engine(const ColossalOptions& options, const Job& job) {
  return EnginePlanner(options, job).plan();
}

}  // namespace trainyard::strategies
