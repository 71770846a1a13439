// Matrix products cut into pieces, so that the collective of one piece runs beside the product of another.
#pragma once

#include <cstdint>
#include <vector>

#include "strategies/plan_builder.hpp"

namespace trainyard::strategies {

// A tensor-parallel collective of `bytes` in so many pieces, one for each rank of the group.
struct PiecewiseCollective {
  sim::StreamId stream{};
  sim::SlotId slot{};
  sim::CollectiveKind kind = sim::CollectiveKind::all_gather;
  sim::Bytes bytes{};
  std::int64_t pieces = 1;
};

// Of n pieces the slower of the two goes through, and one piece of the other is left: max(T_product / efficiency +
// T_collective / n, T_collective + T_product / efficiency / n). So it comes out of three parts: a piece of one of them,
// n - 1 pieces of both side by side, a piece of the other. The pieces between are not calls of their own, since a piece
// is a copy between two ranks, which has little of a collective's latency. Sources: NVIDIA/TransformerEngine
// transformer_engine/ common/comm_gemm_overlap (tp_comm_overlap); pytorch/pytorch torch/distributed/_symmetric_memory
// (fused_all_gather_matmul, fused_matmul_reduce_scatter).

// The rows of `kernels` arrive piece by piece.
void write_gathered_product(BlockWriter& block, const PiecewiseCollective& gather,
                            const std::vector<sim::Kernel>& kernels);
// The results of `kernels` are reduced piece by piece; compute goes on when all are.
void write_reduced_product(BlockWriter& block, const PiecewiseCollective& reduction,
                           const std::vector<sim::Kernel>& kernels);

}  // namespace trainyard::strategies
