#include "strategies/internal/grid_products.hpp"

#include <span>
#include <vector>

namespace trainyard::strategies {
namespace {

using sim::Bytes;
using sim::CollectiveKind;
using workloads::Operator;
using workloads::ProductGrid;
using workloads::Role;

sim::CallId call(BlockWriter& block, const GridSide& side, CollectiveKind kind, Bytes bytes) {
  return block.call(side.slot, kind, bytes, sim::Purpose::tensor);
}

void blocking(BlockWriter& block, const GridSide& side, CollectiveKind kind, Bytes bytes) {
  block.blocking(side.stream, call(block, side, kind, bytes));
}

// What goes along a side in every step.
struct Moved {
  const GridSide* side = nullptr;
  Bytes block{};
};

// The kernels of a step are the copies of what is broadcast, and the product. While it runs, the blocks of the next
// step come, and the result of the one before is reduced; there are two buffers for each.
void write_steps(BlockWriter& block, const std::vector<sim::Kernel>& kernels, std::int64_t steps,
                 const std::vector<Moved>& broadcasts, const std::optional<Moved>& reduced) {
  const std::size_t per_step = broadcasts.size() + 1;
  const auto buffer = [](const GridSide& side, std::int64_t step) {
    return side.done.at(static_cast<std::size_t>(step % 2));
  };
  const auto issue = [&](const Moved& moved, CollectiveKind kind, std::int64_t step) {
    block.communicate(moved.side->stream, call(block, *moved.side, kind, moved.block), sim::set_of(sim::compute_stream),
                      {}, buffer(*moved.side, step));
  };
  const auto kernel = [&](std::int64_t step, std::size_t index) {
    return std::span(&kernels[static_cast<std::size_t>(step) * per_step + index], 1);
  };
  const auto broadcast = [&](std::int64_t step) {
    for (std::size_t i = 0; i < broadcasts.size(); ++i) {
      block.compute(kernel(step, i));
      issue(broadcasts[i], CollectiveKind::broadcast, step);
    }
  };
  broadcast(0);
  for (std::int64_t step = 0; step < steps; ++step) {
    if (step + 1 < steps) broadcast(step + 1);
    if (reduced && step >= 2) block.wait_for(buffer(*reduced->side, step));
    for (const Moved& moved : broadcasts) block.wait_for(buffer(*moved.side, step));
    block.compute(kernel(step, broadcasts.size()));
    if (reduced) issue(*reduced, CollectiveKind::reduce, step);
  }
  if (reduced) block.wait_for(sim::set_of(reduced->side->stream));
  block.compute(std::span(kernels).subspan(static_cast<std::size_t>(steps) * per_step));
}

void summa_forward(BlockWriter& block, const Operator& op, const std::vector<sim::Kernel>& kernels,
                   const GridCommunication& with) {
  const Moved weight{&with.column, op.blocks->weight};
  if (op.blocks->transposed)
    write_steps(block, kernels, with.side, {weight}, Moved{&with.row, op.blocks->output});
  else
    write_steps(block, kernels, with.side, {{&with.row, op.blocks->input}, weight}, std::nullopt);
}

void summa_backward(BlockWriter& block, const Operator& op, const GridCommunication& with) {
  const Moved input{&with.row, op.blocks->input};
  const Moved output{&with.row, op.blocks->output};
  const Moved weight{&with.column, op.blocks->weight};
  const bool transposed = op.blocks->transposed;
  if (transposed)
    write_steps(block, op.input_gradient, with.side, {output, weight}, std::nullopt);
  else
    write_steps(block, op.input_gradient, with.side, {weight}, input);
  write_steps(block, op.weight_gradient, with.side, {transposed ? output : input}, weight);
}

struct Directions {
  const GridSide& input;
  const GridSide& output;
};
Directions directions(const Operator& op, const GridCommunication& with) {
  if (op.role == Role::row_linear) return {with.row, with.column};
  return {with.column, with.row};
}

void gathered_forward(BlockWriter& block, const Operator& op, const std::vector<sim::Kernel>& kernels,
                      const GridCommunication& with) {
  const auto [input, output] = directions(op, with);
  blocking(block, input, CollectiveKind::all_gather, op.blocks->input * with.side);
  blocking(block, with.third, CollectiveKind::all_gather, op.blocks->weight * with.side);
  block.compute({kernels.data(), 1});
  blocking(block, output, CollectiveKind::reduce_scatter, op.blocks->output * with.side);
  block.compute({kernels.data() + 1, kernels.size() - 1});
}

// The gradient of the input is scattered beside the product for that of the weight, whose own scatter the parameter's
// hook waits for (push_async_grad in colossalai/legacy/nn/layer/parallel_3d/_utils.py).
void gathered_backward(BlockWriter& block, const Operator& op, const GridCommunication& with) {
  const auto [input, output] = directions(op, with);
  blocking(block, output, CollectiveKind::all_gather, op.blocks->output * with.side);
  block.compute(op.input_gradient);
  block.communicate(input.stream, call(block, input, CollectiveKind::reduce_scatter, op.blocks->input * with.side));
  block.compute(op.weight_gradient);
  blocking(block, with.third, CollectiveKind::reduce_scatter, op.blocks->weight * with.side);
  block.wait_for(sim::set_of(input.stream));
}

// Weights of norms and biases: in 2D over all ranks, gathered over a column; in 2.5D with the first rank of a column,
// which broadcasts them; in 3D with every rank.
void write_vectors(BlockWriter& block, const Operator& op, const GridCommunication& with, bool backward) {
  if (op.vector_count == 0) return;
  const bool gathers = with.grid == ProductGrid::gathered;
  if (gathers && !backward) return;
  const CollectiveKind kind = gathers       ? CollectiveKind::all_reduce
                              : with.layers ? (backward ? CollectiveKind::reduce : CollectiveKind::broadcast)
                              : backward    ? CollectiveKind::reduce_scatter
                                            : CollectiveKind::all_gather;
  for (std::int64_t i = 0; i < op.vector_count; ++i)
    blocking(block, gathers ? with.vectors : with.column, kind, Bytes{op.vectors.count / op.vector_count});
}

// 2D and 2.5D reduce every sum on its own, 3D both at once.
void write_statistics(BlockWriter& block, const Operator& op, const GridCommunication& with) {
  if (op.statistics.count == 0) return;
  if (with.grid == ProductGrid::gathered)
    return blocking(block, with.row, CollectiveKind::all_reduce, op.statistics * op.vector_count);
  for (std::int64_t i = 0; i < op.vector_count; ++i)
    blocking(block, with.row, CollectiveKind::all_reduce, op.statistics);
}

bool is_lookup(const Operator& op) { return op.blocks && op.role == Role::replicated; }

void write_lookup(BlockWriter& block, const Operator& op, const std::vector<sim::Kernel>& kernels,
                  const GridCommunication& with) {
  if (with.grid == ProductGrid::gathered)
    blocking(block, with.third, CollectiveKind::all_gather, op.blocks->weight * with.side);
  block.compute({kernels.data(), 1});
  blocking(block, with.column, CollectiveKind::reduce_scatter, op.blocks->output * with.side);
  write_vectors(block, op, with, false);
  block.compute({kernels.data() + 1, kernels.size() - 1});
}

void write_lookup_backward(BlockWriter& block, const Operator& op, const GridCommunication& with) {
  write_vectors(block, op, with, true);
  blocking(block, with.column, CollectiveKind::all_gather, op.blocks->output * with.side);
  block.compute(op.weight_gradient);
  if (with.grid == ProductGrid::gathered)
    blocking(block, with.third, CollectiveKind::reduce_scatter, op.blocks->weight * with.side);
}

void write_operator(BlockWriter& block, const Operator& op, const std::vector<sim::Kernel>& kernels,
                    const GridCommunication& with) {
  if (is_lookup(op)) return write_lookup(block, op, kernels, with);
  if (!op.blocks) {
    write_statistics(block, op, with);
    write_vectors(block, op, with, false);
    block.compute(kernels);
    return;
  }
  if (with.grid == ProductGrid::gathered)
    gathered_forward(block, op, kernels, with);
  else
    summa_forward(block, op, kernels, with);
  write_vectors(block, op, with, false);
}

void write_operator_backward(BlockWriter& block, const Operator& op, const GridCommunication& with) {
  if (is_lookup(op)) {
    write_lookup_backward(block, op, with);
  } else {
    write_vectors(block, op, with, true);
    write_statistics(block, op, with);
    if (!op.blocks)
      block.compute(op.input_gradient).compute(op.weight_gradient);
    else if (with.grid == ProductGrid::gathered)
      gathered_backward(block, op, with);
    else
      summa_backward(block, op, with);
  }
  if (with.layers && op.trained > 0)
    block.communicate(with.third.stream,
                      call(block, with.third, CollectiveKind::all_reduce, Bytes{op.trained * with.element}));
}

}  // namespace

void write_grid_forward(BlockWriter& block, const workloads::Layer& layer, const GridCommunication& with) {
  for (const Operator& op : layer.operators) write_operator(block, op, op.forward, with);
}

void write_grid_recompute(BlockWriter& block, const workloads::Layer& layer, const workloads::Recompute& recompute,
                          bool every_second_product, const GridCommunication& with) {
  for (const Operator& op : layer.operators)
    if (layer.runs_again(op, recompute, every_second_product)) write_operator(block, op, again(op.forward), with);
}

void write_grid_backward(BlockWriter& block, const workloads::Layer& layer, const GridCommunication& with) {
  for (std::size_t i = layer.operators.size(); i-- > 0;) write_operator_backward(block, layer.operators[i], with);
}

void write_grid_loss(BlockWriter& block, const GridCommunication& with) {
  for (int i = 0; i < 3; ++i) blocking(block, with.row, CollectiveKind::all_reduce, with.loss);
}

}  // namespace trainyard::strategies
