#include "strategies/internal/colossal_tensor.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::CollectiveKind;
using sim::Purpose;
using workloads::Layer;
using workloads::ProductGrid;

ColossalTensor::ColossalTensor(PlanBuilder& builder, const ColossalOptions& options, const Job& job)
    : options_(options), samples_(options.micro_batch(job) / options.sample_ranks()) {
  if (options.tensor == 1) return;
  stream_ = builder.stream("tensor parallel");
  slot_ = builder.slot("tensor");
  const Bytes loss{4 * samples_ * job.training.sequence};
  if (!options.on_grid()) {
    line_.tensor = TensorCommunication{.stream = stream_, .slot = slot_, .loss = loss};
    return;
  }
  GridCommunication& grid = grid_.emplace();
  const bool cube = options.tensor_mode() == ColossalMode::three;
  grid.grid = cube ? ProductGrid::gathered : ProductGrid::summa;
  grid.side = options.side();
  grid.loss = loss;
  grid.element = workloads::activation_bytes(job.training.precision);
  grid.row = make_side(builder, cube ? "output" : "row");
  grid.column = make_side(builder, cube ? "input" : "column");
  grid.layers = options.tensor_mode() == ColossalMode::two_and_a_half && options.depth.value_or(1) > 1;
  if (cube || grid.layers) grid.third = make_side(builder, cube ? "weight" : "depth");
  if (cube) grid.vectors = make_side(builder, "input x weight");
}

GridSide ColossalTensor::make_side(PlanBuilder& builder, const char* name) const {
  return {.stream = builder.stream(name), .slot = builder.slot(name), .done = {builder.event(), builder.event()}};
}

workloads::Shard ColossalTensor::shard() const {
  workloads::Shard shard{.micro_batch = samples_, .tensor = options_.tensor};
  if (!grid_) return shard;
  shard.tensor = grid_->side;
  shard.grid = grid_->grid;
  // Linear2D has a part of every bias, Linear2p5D and Linear3D have all that their columns need
  // (colossalai/legacy/nn/layer/parallel_{2d,2p5d,3d}/layers.py).
  const bool over_all = grid_->grid == ProductGrid::summa && !grid_->layers;
  shard.vector_ranks = over_all ? grid_->side * grid_->side : grid_->side;
  return shard;
}

// VocabParallelEmbedding1D pads to 64 rows of every rank (make_vocab_size_divisible_by in colossalai/shardformer/layer/
// embedding.py); on a grid the user has to, so that rows divide.
std::int64_t ColossalTensor::vocabulary_unit() const {
  if (!grid_) return options_.tensor > 1 ? 64 * options_.tensor : 1;
  return grid_->grid == ProductGrid::gathered ? grid_->side * grid_->side : grid_->side;
}

void ColossalTensor::write_forward(BlockWriter& block, const Layer& layer) const {
  if (grid_)
    write_grid_forward(block, layer, *grid_);
  else
    strategies::write_forward(block, layer, line_);
}

void ColossalTensor::write_recompute(BlockWriter& block, const Layer& layer,
                                     const workloads::Recompute& recompute) const {
  if (grid_)
    write_grid_recompute(block, layer, recompute, true, *grid_);
  else
    strategies::write_recompute(block, layer, recompute, true, line_);
}

void ColossalTensor::write_backward(BlockWriter& block, const Layer& layer) const {
  if (grid_)
    write_grid_backward(block, layer, *grid_);
  else
    strategies::write_backward(block, layer, line_);
}

// Rows that other ranks have are summed up.
void ColossalTensor::write_embedding_end(BlockWriter& block, const Layer& embedding) const {
  if (line_.tensor)
    block.blocking(stream_, block.call(slot_, CollectiveKind::all_reduce, embedding.boundary, Purpose::tensor));
}

void ColossalTensor::write_loss(BlockWriter& block) const {
  if (grid_)
    write_grid_loss(block, *grid_);
  else
    write_loss_reductions(block, line_);
}

void ColossalTensor::write_gradients_end(BlockWriter& block) const {
  if (grid_ && grid_->gradients_on() != 0) block.wait_for(grid_->gradients_on());
}

void ColossalTensor::write_scalar(BlockWriter& block) const {
  if (options_.tensor > 1)
    block.blocking(stream_, block.call(slot_, CollectiveKind::all_reduce, Bytes{4}, Purpose::tensor));
}

void ColossalTensor::connect(sim::CommunicatorTable& table, std::int64_t ranks) const {
  if (options_.tensor == 1) return;
  add_groups(table, RankGrid({options_.tensor, ranks / options_.tensor}), {0}, slot_);
  if (!grid_) return;
  const std::int64_t side = grid_->side;
  const RankGrid axes({side, side, options_.tensor / (side * side), ranks / options_.tensor});
  if (grid_->grid == ProductGrid::gathered) {
    add_groups(table, axes, {0}, grid_->third.slot);
    add_groups(table, axes, {1}, grid_->column.slot);
    add_groups(table, axes, {2}, grid_->row.slot);
    add_groups(table, axes, {0, 1}, grid_->vectors.slot);
    return;
  }
  add_groups(table, axes, {0}, grid_->row.slot);
  add_groups(table, axes, {1}, grid_->column.slot);
  if (grid_->layers) add_groups(table, axes, {2}, grid_->third.slot);
}

}  // namespace trainyard::strategies
