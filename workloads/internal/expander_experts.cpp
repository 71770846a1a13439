#include <algorithm>
#include <numeric>

#include "workloads/internal/expander.hpp"
#include "workloads/routing.hpp"

namespace trainyard::workloads {

using sim::Bytes;
using sim::Kernel;

namespace {

std::int64_t sum_of(const std::vector<std::int64_t>& rows) {
  return std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
}

// Operators that cast the rows of one expert to 8 bits: the largest value, the scale that follows from it, the cast;
// with blocks the cast alone. Scales remembered from earlier steps let one kernel cast the rows of all
// (NVIDIA/TransformerEngine transformer_engine/pytorch/csrc/extensions/cast.cpp split_quantize, quantizer.cpp).
std::int64_t cast_operators(Fp8Recipe recipe) {
  if (recipe == Fp8Recipe::delayed) return 0;
  return recipe == Fp8Recipe::tensorwise ? 3 : 1;
}

}  // namespace

// Softmax over the experts' scores, the best of them, their shares, and the places of tokens in the buffers; a few
// passes over scores in 32 bits. Unfused it is as many operators as megatron/core/transformer/moe/moe_utils.py
// (topk_routing_with_score_function, the auxiliary loss) has, some of which take several passes: softmax, top k, masks
// and probabilities scattered into zeros, sums of them; counted by reading, 60 bytes a score forward, 32 backward.
void Expander::expand(const Operation& operation, const RouterWork& work) {
  Operator& op = add(operation.name, Role::replicated);
  const Bytes scores{4 * replicated() * work.experts};
  const bool fused = style_.fused_router;
  elementwise(op.forward, operation.name, scores * (fused ? 6 : 15), fused ? 3 : 14);
  elementwise(op.input_gradient, operation.name + " gradient", scores * (fused ? 4 : 8), fused ? 2 : 8);
  op.saved = scores;
  made_by_ = {};
}

// A kernel over the rows of all experts becomes one for each of them.
void Expander::divide_by_expert(std::vector<Kernel>& kernels, const std::vector<std::int64_t>& rows) const {
  const std::int64_t all = sum_of(rows);
  std::vector<Kernel> divided;
  for (Kernel& kernel : kernels) {
    if (kernel.kind != sim::KernelClass::memory_bound) {
      divided.push_back(std::move(kernel));
      continue;
    }
    for (const std::int64_t own : rows)
      if (own > 0) divided.push_back(costs_.memory_bound(kernel.name, sim::scaled(kernel.bytes, own, all)));
  }
  kernels = std::move(divided);
}

// What experts made one after the other is copied into one tensor (megatron/core/transformer/moe/experts.py
// SequentialMLP).
void Expander::join_experts(std::vector<Kernel>& kernels, const GroupedGemm& shape, std::int64_t width) const {
  append(kernels, costs_.memory_bound("join experts", bytes(sum_of(shape.rows) * width) * 2));
}

// Of NVIDIA/TransformerEngine transformer_engine/pytorch/module/grouped_linear.py, which launches the product of every
// expert by itself, on several streams: per further expert the product; in 8 bits the casts, and the matrix, whose cast
// is looked up; backward a hook that takes the gradient. The bias of the outputs is weighted and added expert by
// expert.
LoopOperators Expander::loop_operators(const ExpertProduct& product) const {
  if (!style_.grouped_experts || !style_.experts_in_a_loop) return {};
  const auto further = static_cast<std::int64_t>(product.shape.rows.size()) - 1;
  const bool casts = training_.precision == Precision::fp8;
  const std::int64_t cast = casts ? cast_operators(training_.fp8_recipe) : 0;
  const bool adds_bias = product.bias && !product.first && style_.weighted_expert_bias;
  return {.forward = further * (1 + cast + (casts ? 1 : 0) + (adds_bias ? 2 : 0)),
          .input_gradient = further * (1 + cast + (adds_bias ? 6 : 0)),
          .weight_gradient = frozen() ? 0 : further * 2};
}

// The bias times each token's probability, in 32 bits as probabilities are, added to the output, the experts' joined
// and cast back (megatron/core/transformer/moe/experts.py TEGroupedMLP._apply_bias). Per element forward: product 4,
// sum 2 + 4 + 4, joined 4 + 4, cast 4 + 2 bytes. Backward: cast 2 + 4, gradient of the output 4 + 2, of the bias
// 4 + 4 and its sum 4, of the probabilities the same.
void Expander::add_weighted_bias(Operator& op, const GroupedGemm& shape) const {
  const Bytes elements{sum_of(shape.rows) * shape.n};
  elementwise(op.forward, "weighted bias", elements * 28, 4);
  std::vector<Kernel> gradient;
  elementwise(gradient, "weighted bias gradient", elements * 36, 6);
  op.input_gradient.insert(op.input_gradient.begin(), gradient.begin(), gradient.end());
}

// Matrices of all experts on rows that are sorted by expert.
void Expander::add_expert_product(const ExpertProduct& product) {
  const auto& [name, shape, bias, first] = product;
  Operator& op = add(name, Role::local);
  op.of_experts = true;
  const auto experts = static_cast<std::int64_t>(shape.rows.size());
  const Precision precision = training_.precision;
  const GroupedGemm input_gradient{.rows = shape.rows, .n = shape.k, .k = shape.n};
  const GroupedGemm weight_gradient{.rows = shape.rows,
                                    .n = shape.n,
                                    .k = shape.k,
                                    .weight_gradient = true,
                                    .output_bytes = style_.weight_gradient_bytes};
  // Without a grouped kernel, one expert after the other.
  const auto multiply = [&](std::vector<Kernel>& kernels, const std::string& called, const GroupedGemm& groups) {
    const auto multiply_some = [&](const GroupedGemm& some) {
      append(kernels, serving_ != nullptr ? costs_.stored_grouped_gemm(called, some, stored_weights(precision, some.k))
                                          : costs_.grouped_gemm(called, some, precision));
    };
    if (style_.grouped_experts) return multiply_some(groups);
    GroupedGemm one = groups;
    for (const std::int64_t rows : groups.rows) {
      one.rows = {rows};
      if (rows > 0) multiply_some(one);
    }
  };
  const std::int64_t rows = sum_of(shape.rows);
  op.parameters = experts * (shape.k * shape.n + (bias ? shape.n : 0));
  if (quantized()) add_dequantisation(op, name);
  if (serving_ != nullptr) {
    add_quantisation(op, name, rows * shape.k, precision);
    op.frozen = weights_in_store(experts * shape.k * shape.n, shape.k, precision) + bytes(bias ? experts * shape.n : 0);
  }
  add_casts(op, {.name = name,
                 .parts = {},
                 .tokens = rows,
                 .inputs = shape.k,
                 .outputs = shape.n,
                 .precision = precision,
                 .input_arrives_cast = first && quantises_rows(),
                 .gradient_arrives_cast = !first && quantises_rows()});
  if (style_.sequential_experts) {
    divide_by_expert(op.forward, shape.rows);
    divide_by_expert(op.input_gradient, shape.rows);
  }
  multiply(op.forward, name, shape);
  multiply(op.input_gradient, name + " input gradient", input_gradient);
  if (!frozen()) multiply(op.weight_gradient, name + " weight gradient", weight_gradient);
  if (style_.sequential_experts && !first) join_experts(op.forward, shape, shape.n);
  if (style_.sequential_experts && first) join_experts(op.input_gradient, shape, shape.k);
  if (bias && !first && style_.weighted_expert_bias) add_weighted_bias(op, shape);
  op.loop = loop_operators(product);
  const bool casts = style_.casts_saved && precision == Precision::fp8;
  if (!frozen()) op.saved = casts ? Bytes{rows * shape.k} : bytes(rows * shape.k);
  op.output = bytes(rows * shape.n);
  op.output_saved_selectively = products_++ % 2 == 0;
  op.trained = frozen() ? 0 : op.parameters;
  if (frozen()) op.frozen = quantized() ? four_bit_bytes(op.parameters) : bytes(op.parameters);
  if (made_by_ && op.saved.count > 0) op.input_of = made_by_, op.remade = op.saved;
  made_by_ = {};
}

void Expander::add_experts_activation(const ExpertsWork& work, const std::vector<std::int64_t>& loads) {
  add_activation("experts activation", work.activation, sum_of(loads) * work.ffn / shard_.expert_tensor);
  Operator& op = layer_.operators.back();
  if (style_.sequential_experts) {
    divide_by_expert(op.forward, loads);
    divide_by_expert(op.input_gradient, loads);
  }
  made_by_ = op.module = Module::activation;
}

Operator& Expander::add_permutation(const Permutation& permutation) {
  Operator& op = add(permutation.name, permutation.role);
  if (permutation.forward.count > 0) append(op.forward, costs_.memory_bound(op.name, permutation.forward));
  if (permutation.backward.count > 0)
    append(op.input_gradient, costs_.memory_bound(op.name + " gradient", permutation.backward));
  op.output = permutation.output;
  return op;
}

// Without a fused kernel the rows' places are selected by a mask: it is transposed (1 + 1 bytes per token and expert),
// so are the probabilities (4 + 4), and places (8) and probabilities (4) are selected by it (1 each), after a scan each
// of where it is set (megatron/core/transformer/moe/moe_utils.py permute).
void Expander::add_selection(Operator& op, std::int64_t experts) const {
  std::vector<Kernel> selection;
  elementwise(selection, "select rows", Bytes{24 * replicated() * experts}, 6);
  op.forward.insert(op.forward.begin(), selection.begin(), selection.end());
}

// All ranks that share the experts are taken to be as loaded as the most loaded of them, for which the others wait.
void Expander::expand(const Operation& operation, const ExpertsWork& work) {
  const bool all_to_all = shard_.dispatcher == TokenDispatcher::all_to_all;
  const std::int64_t own = replicated();
  std::vector<std::int64_t> loads = serving_ != nullptr ? drawn_loads(work.count, work.top_k, own)
                                                        : busiest_rank_loads(training_.routing, work.count, work.top_k,
                                                                             own * work.top_k, shard_.expert);
  const std::int64_t sent = sum_of(loads);  // rows that go between ranks, each way
  // Ranks that share every expert bring their tokens to it; in inference all have the same ones.
  const std::int64_t sharing = serving_ != nullptr ? 1 : shard_.expert_tensor;
  for (std::int64_t& load : loads) load *= sharing;
  const std::int64_t held = sent * sharing;  // rows of the buffers, or of the capacity
  const Bytes tokens = bytes(own * work.hidden);
  const Bytes sent_rows = bytes(sent * work.hidden);
  const Bytes held_rows = bytes(held * work.hidden);
  const bool sorts_again = all_to_all && shard_.expert > 1 && (loads.size() > 1 || shard_.expert_tensor > 1);
  const bool sorts = all_to_all || shard_.expert * shard_.expert_tensor == 1;
  // Rows are copied to where their expert's are, and the results weighted and summed up. Unfused, a token is read for
  // each of its copies, and copies are added in memory one by one to a sum that starts with zeros.
  const Bytes copies = sorts ? sent_rows : held_rows;
  const Bytes fused = sorts ? tokens + sent_rows : held_rows * 2;
  const Bytes spread = style_.fused_permutation ? fused : copies * 2;
  const Bytes summed = style_.fused_permutation ? fused : tokens + copies * 3;
  const auto exchange = [&](Operator& op) {
    op.exchanged = sent_rows;
    op.dispatched = quantises_rows() ? eight_bit_bytes(sent * work.hidden) : sent_rows;
    op.tokens_of_all = tokens * (shard_.expert * shard_.expert_tensor);
  };
  const Bytes to_8_bits = tokens + eight_bit_bytes(own * work.hidden);
  if (quantises_rows())
    append(add("quantise tokens", Role::replicated).forward, costs_.memory_bound("quantise tokens", to_8_bits));
  Operator& permute = add_permutation({"permute tokens", Role::dispatch, spread, summed, sent_rows});
  permute.saved = Bytes{4 * held};  // where each row came from
  if (!style_.fused_permutation) add_selection(permute, work.count);
  exchange(permute);
  if (sorts_again) add_permutation({"sort by expert", Role::local, held_rows * 2, held_rows * 2, held_rows});
  const std::int64_t inner = (work.gated() ? 2 : 1) * work.ffn / shard_.expert_tensor;
  made_by_ = {};
  add_expert_product({.name = work.gated() ? "experts gate up" : operation.name + " fc1",
                      .shape = {.rows = loads, .n = inner, .k = work.hidden},
                      .bias = work.bias,
                      .first = true});
  add_experts_activation(work, loads);
  add_expert_product({.name = work.gated() ? "experts down" : operation.name + " fc2",
                      .shape = {.rows = loads, .n = work.hidden, .k = work.ffn / shard_.expert_tensor},
                      .bias = work.bias});
  if (sorts_again) add_permutation({"sort by source", Role::local, held_rows * 2, held_rows * 2, held_rows});
  exchange(add_permutation({"combine tokens", Role::combine, summed, spread, tokens}));
  if (quantises_rows())
    append(add("quantise gradients", Role::replicated).input_gradient,
           costs_.memory_bound("quantise gradients", to_8_bits));
}

}  // namespace trainyard::workloads
