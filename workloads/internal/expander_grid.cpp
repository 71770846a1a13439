#include <utility>

#include "workloads/internal/expander.hpp"

namespace trainyard::workloads {

using sim::Bytes;
using sim::Kernel;

// `elements` in all.
void Expander::add_vectors(Operator& op, std::int64_t count, std::int64_t elements) const {
  op.vector_count = count;
  op.vectors = bytes(own_columns(elements));
  op.parameters = elements / shard_.vector_ranks;
}

// Blocks are copied into the buffers that they are broadcast from (Matmul_AB_2D and its kin in hpcaitech/ColossalAI
// colossalai/legacy/nn/layer/parallel_2d/_operation.py).
void Expander::add_step(std::vector<Kernel>& kernels, const std::vector<Bytes>& copied, Kernel product) const {
  for (const Bytes block : copied) append(kernels, costs_.memory_bound("copy block", block * 2));
  append(kernels, std::move(product));
}

// A product that has broadcast both of its factors adds to what earlier steps have made; one whose result is reduced
// makes a block of somebody's in every step.
void Expander::add_grid_product(const LinearWork& work, const Product& product) {
  Operator& op = add(product.name, work.split == Split::row ? Role::row_linear : Role::column_linear);
  const std::int64_t side = shard_.tensor;
  const bool gathers = shard_.grid == ProductGrid::gathered;
  const std::int64_t rows = product.tokens * (gathers ? side : 1);
  const std::int64_t matrix = product.inputs * product.outputs;
  const std::int64_t weight = matrix / (gathers ? side : 1);
  const Operator::Blocks& blocks =
      op.blocks.emplace(Operator::Blocks{.input = bytes(product.tokens * product.inputs),
                                         .weight = bytes(weight),
                                         .output = bytes(product.tokens * product.outputs),
                                         .transposed = !gathers && &block_ == &architecture_.head});
  const auto gemm = [&](const char* what, Gemm shape, bool adds) {
    if (adds) shape.output_bytes = 2 * element();
    return costs_.gemm(product.name + what, shape, product.precision);
  };
  using Copies = std::vector<Bytes>;
  const bool transposed = blocks.transposed;
  const Copies both{transposed ? blocks.output : blocks.input, blocks.weight};
  const Copies forward = gathers ? Copies{} : transposed ? Copies{blocks.weight} : both;
  const Copies input_gradient = gathers ? Copies{} : transposed ? both : Copies{blocks.weight};
  const Copies weight_gradient = gathers ? Copies{} : Copies{both.front()};
  for (std::int64_t step = 0; step < (gathers ? 1 : side); ++step) {
    add_step(op.forward, forward,
             gemm("", {.m = rows, .n = product.outputs, .k = product.inputs}, !gathers && !transposed));
    add_step(op.input_gradient, input_gradient,
             gemm(" input gradient", {.m = rows, .n = product.inputs, .k = product.outputs}, !gathers && transposed));
    add_step(op.weight_gradient, weight_gradient,
             gemm(" weight gradient", {.m = product.inputs, .n = product.outputs, .k = rows}, false));
  }
  if (work.bias) {
    add_vectors(op, 1, product.outputs * side);
    append(op.forward, costs_.memory_bound(product.name + " bias", blocks.output * 2));
    append(op.weight_gradient, costs_.memory_bound(product.name + " bias gradient", blocks.output));
  }
  op.parameters += work.tied ? 0 : weight;
  op.trained = op.parameters;
  // Gathered factors stay for backward (_Linear3D in colossalai/legacy/nn/layer/parallel_3d/_operation.py).
  if (gathers)
    op.saved = bytes(rows * product.inputs + matrix);
  else if (work.keeps_input && !input_kept_)
    op.saved = blocks.input;
  input_kept_ = true;
  op.output = blocks.output;
  op.output_saved_selectively = products_++ % 2 == 0;
  if (made_by_) op.input_of = made_by_, op.remade = op.saved;
}

// Every rank looks up the tokens of all ranks along a side in its rows; what they found is summed up and scattered
// (VocabParallelEmbedding2D and its kin in colossalai/legacy/nn/layer/parallel_{2d,2p5d,3d}/layers.py).
void Expander::expand_on_grid(const Operation& operation, const LookupWork& work) {
  Operator& op = add(operation.name, Role::replicated);
  const std::int64_t side = shard_.tensor;
  const std::int64_t own = tokens() * own_columns(work.width);
  std::int64_t added = 0;
  for (const std::int64_t rows : work.added) added += rows * work.width;
  if (added > 0) add_vectors(op, static_cast<std::int64_t>(work.added.size()), added);
  op.output = bytes(own);
  if (work.vocab > 0) {
    const std::int64_t table = work.vocab / side * own_columns(work.width);
    const std::int64_t weight = table / (shard_.grid == ProductGrid::gathered ? side : 1);
    op.blocks = Operator::Blocks{.weight = bytes(weight), .output = bytes(own)};
    op.parameters += weight;
    append(op.forward, costs_.memory_bound("embedding lookup", bytes(own * side) * 2));
    append(op.weight_gradient, costs_.memory_bound("embedding gradient", bytes(own * side) * 2 + bytes(table)));
    op.saved = Bytes{8 * tokens() * side};  // token ids
  }
  if (added > 0) {
    append(op.forward, costs_.memory_bound(operation.name + " addition", bytes(own) * 3));
    append(op.weight_gradient, costs_.memory_bound(operation.name + " addition gradient", bytes(own)));
  }
  if (work.dropout && dropout()) {
    append(op.forward, costs_.memory_bound("embedding dropout", bytes(own) * 2));
    op.saved += Bytes{own};
  }
  op.trained = op.parameters;
  made_by_ = {};
}

}  // namespace trainyard::workloads
