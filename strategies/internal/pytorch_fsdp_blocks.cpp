#include <algorithm>
#include <string>

#include "strategies/internal/host_state.hpp"
#include "strategies/internal/pytorch_fsdp_planner.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::CollectiveKind;
using sim::MemoryPurpose;
using sim::Purpose;
using workloads::Layer;
using workloads::Operator;

const Layer* FsdpPlanner::part_of(const Pass& pass) const {
  if (pass.part == embedding_part) return &model_.embedding;
  if (pass.part == head_part) return &model_.head;
  return pass.part == no_part ? nullptr : &model_.kinds[static_cast<std::size_t>(pass.part)];
}

const LayerCommunication& FsdpPlanner::communication_of(const Pass& pass) const {
  return pass.part < 0 ? root_with_ : with_;
}

// Chunks differ in what their root holds.
sim::BlockId FsdpPlanner::block_of(const Chunk& chunk, const Pass& pass) {
  const std::pair key{(chunk.has_embedding ? 1 : 0) + (chunk.has_head ? 2 : 0), pass};
  const auto known = blocks_.find(key);
  if (known != blocks_.end()) return known->second;
  return blocks_[key] = pass.direction == Direction::forward ? forward_block(chunk, pass) : backward_block(chunk, pass);
}

sim::BlockId FsdpPlanner::forward_block(const Chunk& chunk, const Pass& pass) {
  const Layer* part = part_of(pass);
  BlockWriter block = builder_.block("forward " + (part != nullptr ? part->name : "root"), host_.forward);
  const Unit unit = unit_of(chunk, pass.part >= 0 ? pass.part : root_kind);
  write_gathers(block, chunk, pass.gathers);
  if (pass.arrives) write_arrival(block, unit);
  write_gathers(block, chunk, pass.prefetches);
  if (part != nullptr) {
    const auto recompute = pass.part >= 0 ? job_.training.recompute : workloads::Recompute{};
    block.memory(MemoryPurpose::activations, part->saved_bytes(recompute, true));
    write_forward(block, *part, communication_of(pass));
    if (pass.part == head_part) write_loss_reductions(block, root_with_);
    // Rows that other ranks hold are summed up, and the sequence divided.
    if (pass.part == embedding_part && root_with_.tensor)
      block.blocking(tensor_,
                     builder_.call(tensor_slot_, CollectiveKind::reduce_scatter, part->boundary, Purpose::tensor));
  }
  if (pass.frees) free_unit(block, unit, true);
  return block.finish();
}

sim::BlockId FsdpPlanner::backward_block(const Chunk& chunk, const Pass& pass) {
  const Layer* part = part_of(pass);
  // By its first word a trace tells what a pass is.
  const std::string kind = pass.direction == Direction::backward         ? "backward "
                           : pass.direction == Direction::backward_input ? "input-gradients "
                                                                         : "weight-gradients ";
  BlockWriter block = builder_.block(kind + (part != nullptr ? part->name : "root"), host_.backward);
  const Unit unit = unit_of(chunk, pass.part >= 0 ? pass.part : root_kind);
  write_gathers(block, chunk, pass.gathers);
  if (pass.arrives) write_arrival(block, unit);
  write_gathers(block, chunk, pass.prefetches);
  if (part != nullptr) write_part_backward(block, pass, *part);
  // Gradients of the root stay until all of them are there.
  if (pass.part == head_part || pass.direction == Direction::backward_input) return block.finish();
  if (pass.frees) free_unit(block, unit, false);
  write_gathers(block, chunk, pass.prefetches_after);
  if (with_.tensor) block.wait_for(sim::set_of(tensor_));
  write_gradients(block, unit, pass.gradients);
  block.memory(MemoryPurpose::gradients, Bytes{-unit.trained() * gather_bytes_});
  return block.finish();
}

// What a layer keeps stays until the gradients of its weights are done (stage_backward_input in pytorch/pytorch
// torch/distributed/pipelining/_backward.py retains the graph).
void FsdpPlanner::write_part_backward(BlockWriter& block, const Pass& pass, const Layer& part) {
  const LayerCommunication& with = communication_of(pass);
  const auto recompute = pass.part >= 0 ? job_.training.recompute : workloads::Recompute{};
  const Bytes kept = part.saved_bytes(recompute, true);
  const Bytes again = std::max(part.saved_bytes({}, true) - kept, Bytes{});
  const Bytes workspace = backward_workspace(part);
  if (pass.direction != Direction::backward_weight) {
    block.memory(MemoryPurpose::activations, again + workspace);
    const OperatorRange range =
        options_.checkpoint_early_stop ? OperatorRange{0, part.operators_until_last_kept()} : all_operators(part);
    write_recompute(block, part, range, recompute, true, with);
  }
  if (pass.direction == Direction::backward_input) {
    write_input_gradients(block, part, with);
    block.memory(MemoryPurpose::activations, -workspace);
    return;
  }
  block.memory(MemoryPurpose::gradients, Bytes{part.trained * gather_bytes_});
  if (pass.direction == Direction::backward_weight) {
    write_weight_gradients(block, part, with, reduces_replicated(pass, part));
    block.memory(MemoryPurpose::activations, -(again + kept));
    return;
  }
  if (pass.part == embedding_part && with.tensor)
    block.blocking(tensor_, builder_.call(tensor_slot_, CollectiveKind::all_gather, part.boundary, Purpose::tensor));
  write_backward(block, part, with, reduces_replicated(pass, part));
  block.memory(MemoryPurpose::activations, -(again + workspace + kept));
}

// Every rank of the tensor group has the gradients of its part of the sequence.
AfterOperator FsdpPlanner::reduces_replicated(const Pass& pass, const Layer& part) {
  if (!communication_of(pass).tensor || pass.part == embedding_part) return {};
  return [this, &part](BlockWriter& writer, std::size_t index) {
    const Operator& op = part.operators[index];
    if (op.role != workloads::Role::replicated || op.trained == 0) return;
    writer.communicate(tensor_, builder_.call(tensor_slot_, CollectiveKind::all_reduce,
                                              Bytes{op.trained * gather_bytes_}, Purpose::tensor));
  };
}

// Behind the last backward pass of a pipeline stage's chunk (pytorch/pytorch torch/distributed/pipelining/stage.py,
// run_post_backward).
sim::BlockId FsdpPlanner::reduce_block(const Chunk& chunk, std::int64_t kind) {
  const Unit unit = unit_of(chunk, kind);
  const std::string name = kind == root_kind ? "root" : model_.kinds[static_cast<std::size_t>(kind)].name;
  BlockWriter block = builder_.block("reduce gradients of " + name, host_.backward);
  if (unit.trained() > 0) {
    write_reduction(block, unit, true, false);
    block.memory(MemoryPurpose::gradients, -kept_gradients(unit));
  }
  if (gathers()) free_unit(block, unit, false);
  return block.finish();
}

sim::BlockId FsdpPlanner::memory_block(const char* name, Bytes change) {
  const auto known = memory_blocks_.find(change);
  if (known != memory_blocks_.end()) return known->second;
  BlockWriter block = builder_.block(name, host_.forward);
  block.memory(MemoryPurpose::buffers, change);
  return memory_blocks_[change] = block.finish();
}

// The norm of the gradients is summed up over whoever holds a part of them.
void FsdpPlanner::write_norm(BlockWriter& block) {
  constexpr Bytes scalar{4};
  if (dense_.shards > 1)
    block.blocking(reduce_scatter_, builder_.call(dense_.slot, CollectiveKind::all_reduce, scalar, Purpose::data));
  if (options_.tensor > 1)
    block.blocking(tensor_, builder_.call(tensor_slot_, CollectiveKind::all_reduce, scalar, Purpose::tensor));
  if (options_.pipeline > 1)
    block.blocking(pipeline_, builder_.call(pipeline_slot_, CollectiveKind::all_reduce, scalar, Purpose::pipeline));
}

sim::BlockId FsdpPlanner::step_end(const Stage& stage) {
  BlockWriter block = builder_.block("optimizer step", host_.backward);
  if (reductions() != 0) block.wait_for(reductions());
  const std::int64_t parameters = owned(total_of(stage));
  if (options_.cpu_offload) {
    block.host_wait(static_cast<sim::StreamSet>(sim::set_of(sim::compute_stream) | reductions()));
    write_norm(block);
    // Norm, clipping and update; the devices of a node share their host's memory.
    const double bytes = static_cast<double>(parameters) * (4 + 8 + workloads::optimizer_traffic(state_));
    const std::int64_t devices = std::min(job_.cluster.node().devices, job_.cluster.devices());
    block.host_work(
        sim::time_for(Bytes{static_cast<std::int64_t>(bytes) * devices}, host_update_rate(job_.cluster.node())));
  } else {
    const std::vector<sim::Kernel> kernels = workloads::optimizer_kernels(job_.training, state_, parameters, costs_);
    block.compute({kernels.data(), 1});
    write_norm(block);
    block.compute({kernels.data() + 1, kernels.size() - 1});
  }
  block.host_wait(sim::set_of(sim::compute_stream)).host_work(host_.step);
  return block.finish();
}

}  // namespace trainyard::strategies
