#include "strategies/internal/deepspeed_planner.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::CollectiveKind;
using sim::Purpose;

// What arrives from another stage: it is copied `copies` times, then whole activations or gradients are put together
// from the tensor-parallel ranks' pieces `gathers` times, each into a buffer of zeros that is copied
// (deepspeed/runtime/utils.py, PartitionedTensor.full). Messages of some numbers that describe the pieces are left out.
sim::BlockId DeepspeedPlanner::arrival_block(const std::string& name, std::int64_t copies, int gathers) {
  const Bytes whole = model_.embedding.boundary;
  const bool in_pieces = options_.sends_pieces_of_activations() || options_.divides_sequence();
  const Bytes message{whole.count / (in_pieces ? options_.tensor : 1)};
  BlockWriter block = builder_.block(name, host_.forward);
  if (copies > 0) {
    const sim::Kernel copy = pass_over("copy received activations", 2 * message.count);
    for (std::int64_t i = 0; i < copies; ++i) block.compute({&copy, 1});
  }
  const sim::Kernel restore = pass_over("restore pieces", 3 * whole.count);
  for (int i = 0; i < gathers; ++i) {
    block.blocking(tensor_, builder_.call(tensor_slot_, CollectiveKind::all_gather, whole, Purpose::pipeline));
    block.compute({&restore, 1});
  }
  return block.finish();
}

// The output that a stage sent in pieces is gathered again for its backward pass (deepspeed/runtime/pipe/engine.py,
// _exec_backward_pass); what it received is copied on arrival and for the forward pass (_exec_recv_activations,
// _exec_forward_pass).
void DeepspeedPlanner::make_transfers() {
  const Bytes whole = model_.embedding.boundary;
  const bool activations = options_.sends_pieces_of_activations();
  const bool gradients = options_.sends_pieces_of_gradients();
  const auto message = [&](bool in_pieces) {
    const bool divided = in_pieces || options_.divides_sequence();
    return PipelineMessage{.bytes = Bytes{whole.count / (divided ? options_.tensor : 1)}};
  };
  PipelineMessages messages{.activations = message(activations), .gradients = message(gradients)};
  if (options_.pipeline > 1) {
    messages.activations.arrival = arrival_block("take up activations", 2, activations ? 1 : 0);
    if (activations || gradients)
      messages.gradients.arrival = arrival_block("take up gradients", 0, (activations ? 1 : 0) + (gradients ? 1 : 0));
    pipeline_slot_ = builder_.slot("pipeline");
    embedding_slot_ = builder_.slot("embedding");
  }
  transfers_.emplace(builder_, PipelinePlacement(ScheduleKind::one_forward_one_backward, options_.pipeline, 1),
                     messages, PipelineTransfers::Manner{.order = TransferOrder::in_turns, .launch = host_.forward});
}

sim::BlockId DeepspeedPlanner::dropping_block(const Part& part) {
  const auto known = dropping_blocks_.find(part.layer);
  if (known != dropping_blocks_.end()) return known->second;
  BlockWriter block = builder_.block("forward " + part.layer->name, host_.forward);
  write_forward_of(block, part, all_operators(*part.layer));
  return dropping_blocks_[part.layer] = block.finish();
}

// The input of a group is among what its first layer keeps when it runs again.
sim::BlockId DeepspeedPlanner::again_block(const Part& part) {
  const std::pair key{part.layer, begins_group(part)};
  const auto known = again_blocks_.find(key);
  if (known != again_blocks_.end()) return known->second;
  BlockWriter block = builder_.block("recompute " + part.layer->name, host_.forward);
  const Bytes kept = begins_group(part) ? kept_bytes(part) : Bytes{};
  block.memory(sim::MemoryPurpose::activations, part.layer->saved_bytes({}, false) - kept);
  write_recompute(block, *part.layer, job_.training.recompute, false, with_);
  return again_blocks_[key] = block.finish();
}

// Of the group that ends with part `last`.
void DeepspeedPlanner::write_group_again(sim::Program& program, std::size_t last, std::int32_t micro_batch) {
  std::size_t first = last;
  while (!begins_group(parts_[first])) --first;
  for (std::size_t i = first; i <= last; ++i)
    program.calls.push_back({.block = again_block(parts_[i]), .layer = parts_[i].index, .micro_batch = micro_batch});
}

// ReduceTiedGrads.
void DeepspeedPlanner::write_tied_gradient(sim::Program& program) {
  if (!embedding_is_shared() || job_.training.adapters || !(stage_.has_embedding || stage_.has_head)) return;
  BlockWriter block = builder_.block("reduce tied gradients", host_.backward);
  const Bytes matrix{shared_matrix() * state_.gradient};
  block.blocking(reduce_, builder_.call(embedding_slot_, CollectiveKind::all_reduce, matrix, Purpose::pipeline));
  program.calls.push_back({.block = block.finish()});
}

// Of the mean loss, and that of the data-parallel group, by the last stage (_aggregate_total_loss).
void DeepspeedPlanner::write_loss_broadcast(BlockWriter& block) {
  if (options_.pipeline == 1) return;
  block.blocking(reduce_, builder_.call(pipeline_slot_, CollectiveKind::broadcast, Bytes{8}, Purpose::pipeline));
}

}  // namespace trainyard::strategies
