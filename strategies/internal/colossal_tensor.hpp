// Tensor parallelism of Colossal-AI in one to three dimensions around the layers of a model. Rank orders are those of
// hpcaitech/ColossalAI colossalai/legacy/context/process_group_initializer/initializer_{2d,2p5d,3d}.py: along a row of
// the square first, then along a column, then over its layers; in the cube along weights, inputs, outputs.
#pragma once

#include <optional>

#include "strategies/groups.hpp"
#include "strategies/internal/colossal.hpp"
#include "strategies/internal/grid_products.hpp"
#include "strategies/layer_ops.hpp"

namespace trainyard::strategies {

class ColossalTensor {
 public:
  ColossalTensor(PlanBuilder& builder, const ColossalOptions& options, const Job& job);

  workloads::Shard shard() const;
  // Of which the vocabulary is padded to a multiple.
  std::int64_t vocabulary_unit() const;

  // In one dimension; without meaning on a grid.
  const LayerCommunication& line() const { return line_; }
  bool on_grid() const { return grid_.has_value(); }

  void write_forward(BlockWriter& block, const workloads::Layer& layer) const;
  void write_recompute(BlockWriter& block, const workloads::Layer& layer, const workloads::Recompute& recompute) const;
  void write_backward(BlockWriter& block, const workloads::Layer& layer) const;
  // Behind the forward passes of the embedding and of the head.
  void write_embedding_end(BlockWriter& block, const workloads::Layer& embedding) const;
  void write_loss(BlockWriter& block) const;
  // Behind all backward passes: gradients may still be on their way.
  void write_gradients_end(BlockWriter& block) const;
  // A number over all tensor ranks: norms of gradients, overflow.
  void write_scalar(BlockWriter& block) const;

  // The tensor ranks are the innermost `options.tensor` ones.
  void connect(sim::CommunicatorTable& table, std::int64_t ranks) const;

 private:
  GridSide make_side(PlanBuilder& builder, const char* name) const;

  const ColossalOptions& options_;
  std::int64_t samples_;  // of a rank
  sim::StreamId stream_{};
  sim::SlotId slot_{};
  LayerCommunication line_;
  std::optional<GridCommunication> grid_;
};

}  // namespace trainyard::strategies
