#include <algorithm>
#include <string>

#include "strategies/internal/pytorch_fsdp_planner.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::MemoryPurpose;

// Units that are gathered before their turn while `layer` computes, the nearest first.
std::vector<std::int64_t> FsdpPlanner::ahead_of(const Chunk& chunk, std::int64_t layer, bool forward) const {
  std::int64_t depth = 0;
  if (options_.first_version())
    depth = forward ? (options_.forward_prefetch ? 1 : 0) : (options_.backward_prefetch.value == "none" ? 0 : 1);
  else
    depth = forward ? options_.modules_to_forward_prefetch : options_.modules_to_backward_prefetch;
  std::vector<std::int64_t> units;
  for (std::int64_t i = 1; i <= depth; ++i) {
    const std::int64_t unit = forward ? layer + i : layer - i;
    if (unit >= 0 && unit < chunk.layers) units.push_back(unit);
  }
  return units;
}

// The unit whose release a gather waits for. In FSDP2 (wait_for_unshard) gathers of forward wait until the output of
// the last but one has been copied out, those that are prefetched until that of the one in hand has been. The limiter
// of FSDP1 waits for the oldest of two units that have been freed and not been waited for.
std::optional<std::int64_t> FsdpPlanner::room_for(std::int64_t unit, std::int64_t issuer, bool forward,
                                                  bool prefetched) {
  if (options_.first_version()) {
    constexpr std::size_t most_in_flight = 2;
    if (!options_.limit_all_gathers || freed_.size() < most_in_flight) return std::nullopt;
    const std::int64_t oldest = freed_.front();
    freed_.pop_front();
    return oldest;
  }
  const std::int64_t before = prefetched ? (forward ? issuer - 1 : issuer) : (forward ? unit - 2 : unit - 1);
  if (before < root_unit) return std::nullopt;
  return before;
}

// The gathers of `units` that have not been issued yet, by the block of unit `issuer`.
std::vector<FsdpPlanner::Gather> FsdpPlanner::take_gathers(const Chunk& chunk, std::vector<bool>& issued,
                                                           std::int64_t issuer, const std::vector<std::int64_t>& units,
                                                           bool forward, bool prefetched) {
  std::vector<Gather> gathers;
  for (const std::int64_t unit : units) {
    if (issued[static_cast<std::size_t>(unit)]) continue;
    issued[static_cast<std::size_t>(unit)] = true;
    std::optional<std::int64_t> room = room_for(unit, issuer, forward, prefetched);
    if (room) *room -= issuer;
    gathers.push_back({.unit = unit - issuer, .kind = kind_of(chunk, unit), .again = !forward, .awaits = room});
  }
  return gathers;
}

void FsdpPlanner::call(sim::Program& program, const Chunk& chunk, const Pass& pass, std::int64_t layer,
                       std::int64_t unit, std::int32_t micro_batch) {
  program.calls.push_back({.block = block_of(chunk, pass),
                           .layer = static_cast<std::int32_t>(layer < 0 ? -1 : chunk.first_layer + layer),
                           .micro_batch = micro_batch,
                           .event_shift = shift_of(unit)});
}

void FsdpPlanner::write_forward_pass(sim::Program& program, Chunk& chunk, std::int32_t micro_batch) {
  const bool gathers_root = gathers() && !chunk.root_gathered && gathered_bytes(root_of(chunk)).count > 0;
  const bool gathers_layers = gathers() && !chunk.layers_gathered;
  if (chunk.has_embedding || gathers_root) {
    Pass pass{.part = chunk.has_embedding ? embedding_part : no_part};
    if (gathers_root) {
      std::optional<std::int64_t> room;
      if (options_.first_version()) room = room_for(root_unit, root_unit, true, false);
      if (room) *room -= root_unit;
      pass.gathers.push_back({.after_compute = true, .awaits = room});
    }
    pass.arrives = gathers_root;
    call(program, chunk, pass, -1, root_unit, micro_batch);
  }
  // While a layer computes with its parameters, those of the next arrive.
  const Bytes arriving = largest_gathered(chunk) * (1 + static_cast<std::int64_t>(ahead_of(chunk, 0, true).size()));
  const auto reserve = [&](Bytes change) {
    if (gathers_layers)
      program.calls.push_back({.block = memory_block("buffers of gathers", change), .micro_batch = micro_batch});
  };
  reserve(arriving);
  std::vector<bool> issued(static_cast<std::size_t>(chunk.layers), !gathers_layers);
  for (std::int64_t layer = 0; layer < chunk.layers; ++layer) {
    Pass pass{.part = kind_of(chunk, layer)};
    pass.gathers = take_gathers(chunk, issued, layer, {layer}, true, false);
    pass.prefetches = take_gathers(chunk, issued, layer, ahead_of(chunk, layer, true), true, true);
    pass.arrives = gathers_layers;
    pass.frees = gathers() && reshard_.frees;
    call(program, chunk, pass, layer, layer, micro_batch);
    if (pass.frees) freed_.push_back(layer);
    offload_.after_forward(program, {model_, chunk.first_layer, chunk.layers, layer, micro_batch});
  }
  reserve(-arriving);
  if (chunk.has_head) call(program, chunk, {.part = head_part}, -1, root_unit, micro_batch);
  chunk.root_gathered = gathers();
  chunk.layers_gathered = gathers() && !reshard_.frees;
}

// What becomes of the gradients of the chunk's next backward pass.
FsdpPlanner::Gradients FsdpPlanner::gradients_of(const Chunk& chunk) const {
  const bool first = chunk.backward_passes == 0;
  if (options_.pipeline == 1 && options_.requires_gradient_sync)
    return first ? Gradients::reduce : Gradients::reduce_and_add;
  if (options_.pipeline == 1 && chunk.backward_passes + 1 == micro_batches_)
    return first ? Gradients::reduce : Gradients::add_and_reduce;
  return first ? Gradients::keep : Gradients::add;
}

// FSDP1 without synchronisation keeps parameters that it does not reshard after forward either (_should_free_in_
// backward); pipelines keep them until their last backward pass, and reduce then.
bool FsdpPlanner::frees_after_backward(const Chunk& chunk) const {
  if (!gathers() || options_.pipeline > 1) return false;
  return !options_.first_version() || reshard_.frees || options_.requires_gradient_sync ||
         chunk.backward_passes + 1 == micro_batches_;
}

// Nothing needs the gradients of the model's inputs: where passes are split, the first stage does all of them in that
// for weights (backward_one_chunk and backward_weight_one_chunk in pytorch/pytorch torch/distributed/pipelining/
// stage.py).
void FsdpPlanner::write_backward_pass(sim::Program& program, Chunk& chunk, Direction direction,
                                      std::int32_t micro_batch) {
  if (chunk.has_embedding && direction == Direction::backward_input) return;
  if (chunk.has_embedding) direction = Direction::backward;
  const bool frees = frees_after_backward(chunk);
  write_layers_backward(program, chunk, direction, micro_batch);
  if (direction != Direction::backward_weight) chunk.root_gathered = chunk.layers_gathered = gathers() && !frees;
  if (direction == Direction::backward_input) return;
  if (chunk.has_embedding || chunk.has_head) {
    const std::int64_t part = chunk.has_embedding ? embedding_part : no_part;
    call(program, chunk,
         {.part = part, .direction = Direction::backward, .frees = frees, .gradients = gradients_of(chunk)}, -1,
         root_unit, micro_batch);
    if (frees) freed_.push_back(root_unit);
  }
  ++chunk.backward_passes;
  if (options_.pipeline > 1 && chunk.backward_passes == micro_batches_)
    write_last_reductions(program, chunk, micro_batch);
}

// The head and the layers. Gradients of weights need no parameters.
void FsdpPlanner::write_layers_backward(sim::Program& program, Chunk& chunk, Direction direction,
                                        std::int32_t micro_batch) {
  const bool needs_parameters = direction != Direction::backward_weight;
  const bool gathers_layers = gathers() && !chunk.layers_gathered && needs_parameters;
  const bool frees = frees_after_backward(chunk);
  const Gradients gradients = direction == Direction::backward_input ? Gradients::keep : gradients_of(chunk);
  const bool prefetches_after = options_.first_version() && options_.backward_prefetch.value == "BACKWARD_POST";
  std::vector<bool> issued(static_cast<std::size_t>(chunk.layers), !gathers_layers);
  if (chunk.has_head) {
    // Its block is called in the turn of the layer that it prefetches.
    Pass pass{.part = head_part, .direction = direction};
    if (!prefetches_after)
      pass.prefetches =
          take_gathers(chunk, issued, chunk.layers - 1, ahead_of(chunk, chunk.layers, false), false, false);
    call(program, chunk, pass, -1, chunk.layers - 1, micro_batch);
  }
  for (std::int64_t layer = chunk.layers; layer-- > 0;) {
    if (needs_parameters)
      offload_.before_backward(program, {model_, chunk.first_layer, chunk.layers, layer, micro_batch});
    Pass pass{.part = kind_of(chunk, layer), .direction = direction, .frees = frees, .gradients = gradients};
    pass.gathers = take_gathers(chunk, issued, layer, {layer}, false, false);
    pass.arrives = gathers_layers;
    if (!prefetches_after)
      pass.prefetches = take_gathers(chunk, issued, layer, ahead_of(chunk, layer, false), false, true);
    if (frees) freed_.push_back(layer);
    if (prefetches_after)
      pass.prefetches_after = take_gathers(chunk, issued, layer, ahead_of(chunk, layer, false), false, true);
    call(program, chunk, pass, layer, layer, micro_batch);
  }
}

void FsdpPlanner::write_action(sim::Program& program, Stage& stage, const PipelineAction& action) {
  using Kind = PipelineAction::Kind;
  Chunk& chunk = stage.chunks[static_cast<std::size_t>(action.chunk)];
  const auto micro_batch = static_cast<std::int32_t>(action.micro_batch);
  switch (action.kind) {
    case Kind::forward:
      return write_forward_pass(program, chunk, micro_batch);
    case Kind::backward:
      return write_backward_pass(program, chunk, Direction::backward, micro_batch);
    case Kind::backward_input:
      return write_backward_pass(program, chunk, Direction::backward_input, micro_batch);
    case Kind::backward_weight:
      return write_backward_pass(program, chunk, Direction::backward_weight, micro_batch);
    case Kind::forward_and_backward: {
      const std::vector<PipelineAction> passes = action.passes();
      if (!options_.overlaps_passes()) {
        for (const PipelineAction& pass : passes) write_action(program, stage, pass);
        return;
      }
      sim::Program forward;
      sim::Program backward;
      write_action(forward, stage, passes.front());
      write_action(backward, stage, passes.back());
      overlap_.write(program, forward.calls, backward.calls);
    }
  }
}

void FsdpPlanner::write_last_reductions(sim::Program& program, const Chunk& chunk, std::int32_t micro_batch) {
  const auto reduce = [&](std::int64_t kind, std::int64_t layer) {
    program.calls.push_back({.block = reduce_block(chunk, kind),
                             .layer = static_cast<std::int32_t>(layer),
                             .micro_batch = micro_batch,
                             .event_shift = shift_of(layer)});
  };
  if (chunk.has_embedding || chunk.has_head) reduce(root_kind, -1);
  for (std::int64_t i = 0; i < chunk.layers; ++i) reduce(kind_of(chunk, i), chunk.first_layer + i);
}

void FsdpPlanner::write_program(Stage& stage) {
  sim::Program program;
  program.name = options_.pipeline > 1 ? "stage " + std::to_string(stage.index) : "all ranks";
  const auto resident = [&](MemoryPurpose purpose) -> Bytes& {
    return program.resident[static_cast<std::size_t>(purpose)];
  };
  const Unit total = total_of(stage);
  if (!options_.cpu_offload) {
    resident(MemoryPurpose::parameters) = sharded(total, state_.parameter, true);
    resident(MemoryPurpose::gradients) = sharded(total, state_.gradient, false);
    resident(MemoryPurpose::optimizer) = state_.optimizer(owned(total));
  }
  // The packed gradients of a unit are being reduced while the next one is computed.
  std::int64_t most_trained = 0;
  for (const Chunk& chunk : stage.chunks)
    for (std::int64_t i = 0; i < chunk.layers; ++i)
      most_trained = std::max(most_trained, unit_of(chunk, kind_of(chunk, i)).trained());
  if (gathers()) resident(MemoryPurpose::buffers) = Bytes{most_trained * reduce_bytes_};

  freed_.clear();
  const std::vector<PipelineAction> actions =
      pipeline_schedule(options_.schedule_kind(), stage.index, options_.pipeline, micro_batches_, options_.chunks(),
                        options_.micro_batch_group(micro_batches_));
  transfers_->write(program, stage.index, actions,
                    [&](const PipelineAction& action) { write_action(program, stage, action); });
  program.calls.push_back({.block = step_end(stage)});
  builder_.plan().programs.add(std::move(program));
}

}  // namespace trainyard::strategies
