// Layers over grids of ranks (workloads::ProductGrid): what is broadcast or gathered before their products, and what is
// reduced after them. Sources: hpcaitech/ColossalAI colossalai/legacy/nn/layer/parallel_{2d,2p5d,3d}/_operation.py.
//
// Elements that a rank receives for a product Y[M,N] = X[M,K] W[K,N], forward and backward, with q ranks along a side:
//   summa     3 (q - 1) (M K + K N) / q^2; of d layers each has M / d rows, and sums up gradients of W over them:
//             2 (d - 1) / d K N / q^2. Where W is kept transposed, N takes the place of K in M K.
//   gathered  2 (q - 1) (M K + K N + M N) / q^3
#pragma once

#include <array>
#include <optional>

#include "strategies/layer_ops.hpp"
#include "strategies/plan_builder.hpp"
#include "workloads/layers.hpp"

namespace trainyard::strategies {

// A group of ranks along a side, with the stream that serves it.
struct GridSide {
  sim::StreamId stream{};
  sim::SlotId slot{};
  std::array<sim::EventRef, 2> done{};  // of the transfers into or out of the two buffers that steps take in turns
};

struct GridCommunication {
  workloads::ProductGrid grid = workloads::ProductGrid::summa;
  std::int64_t side = 1;
  // summa: ranks of a row have columns of the same tokens, ranks of a column rows of the same features.
  // gathered: X is gathered over `column` and Y scattered over `row` behind column-parallel linears, the other way
  // round behind row-parallel ones, so that one's output is distributed as the next one's input.
  GridSide row, column;
  GridSide third;  // gathered: over which W is; summa: layers of the grid, if it has several
  bool layers = false;
  GridSide vectors;          // gathered: all ranks with the same columns
  sim::Bytes loss{};         // one number per token in 32 bits
  std::int64_t element = 2;  // bytes of a gradient
  sim::StreamSet gradients_on() const { return layers ? sim::set_of(third.stream) : sim::StreamSet{0}; }
};

void write_grid_forward(BlockWriter& block, const workloads::Layer& layer, const GridCommunication& with);
void write_grid_recompute(BlockWriter& block, const workloads::Layer& layer, const workloads::Recompute& recompute,
                          bool every_second_product, const GridCommunication& with);
// Gradients may still be on their way on streams `gradients_on()`.
void write_grid_backward(BlockWriter& block, const workloads::Layer& layer, const GridCommunication& with);
// Maximum, sum of exponentials and the target's logit (VocabParallelCrossEntropyLoss2D and its kin).
void write_grid_loss(BlockWriter& block, const GridCommunication& with);

}  // namespace trainyard::strategies
