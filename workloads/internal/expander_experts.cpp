#include "workloads/internal/expander.hpp"
#include "workloads/routing.hpp"

namespace trainyard::workloads {

using sim::Bytes;
using sim::Kernel;

// Softmax over the experts' scores, the best of them, their shares, and the places of tokens in the buffers; a few
// passes over scores in 32 bits.
void Expander::expand(const Operation& operation, const RouterWork& work) {
  Operator& op = add(operation.name, Role::replicated);
  const Bytes scores{4 * replicated() * work.experts};
  elementwise(op.forward, operation.name, scores * 6, 3);
  elementwise(op.input_gradient, operation.name + " gradient", scores * 4, 2);
  op.saved = scores;
  made_by_ = {};
}

// Matrices of all experts on rows that are sorted by expert.
void Expander::add_grouped_product(const std::string& name, const GroupedGemm& shape, bool bias) {
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
  const auto product = [&](std::vector<Kernel>& kernels, const std::string& called, const GroupedGemm& groups) {
    if (style_.grouped_experts) return append(kernels, costs_.grouped_gemm(called, groups, precision));
    GroupedGemm one = groups;
    for (const std::int64_t rows : groups.rows) {
      one.rows = {rows};
      if (rows > 0) append(kernels, costs_.grouped_gemm(called, one, precision));
    }
  };
  std::int64_t rows = 0;
  for (const std::int64_t group : shape.rows) rows += group;
  op.parameters = experts * (shape.k * shape.n + (bias ? shape.n : 0));
  if (quantized()) add_dequantisation(op, name);
  add_casts(op,
            {.name = name, .parts = {}, .tokens = rows, .inputs = shape.k, .outputs = shape.n, .precision = precision});
  product(op.forward, name, shape);
  product(op.input_gradient, name + " input gradient", input_gradient);
  if (!frozen()) product(op.weight_gradient, name + " weight gradient", weight_gradient);
  const bool casts = style_.casts_saved && precision == Precision::fp8;
  if (!frozen()) op.saved = casts ? Bytes{rows * shape.k} : bytes(rows * shape.k);
  op.output = bytes(rows * shape.n);
  op.output_saved_selectively = products_++ % 2 == 0;
  op.trained = frozen() ? 0 : op.parameters;
  if (frozen()) op.frozen = quantized() ? four_bit_bytes(op.parameters) : bytes(op.parameters);
  if (made_by_ && op.saved.count > 0) op.input_of = made_by_, op.remade = op.saved;
  made_by_ = {};
}

Operator& Expander::add_permutation(const std::string& name, Role role, Bytes traffic, Bytes output) {
  Operator& op = add(name, role);
  if (traffic.count > 0) {
    append(op.forward, costs_.memory_bound(name, traffic));
    append(op.input_gradient, costs_.memory_bound(name + " gradient", traffic));
  }
  op.output = output;
  return op;
}

// All ranks that share the experts are taken to be as loaded as the most loaded of them, for which the others wait.
void Expander::expand(const Operation& operation, const ExpertsWork& work) {
  const bool all_to_all = shard_.dispatcher == TokenDispatcher::all_to_all;
  const std::int64_t own = replicated();
  std::vector<std::int64_t> loads =
      busiest_rank_loads(training_.routing, work.count, work.top_k, own * work.top_k, shard_.expert);
  std::int64_t sent = 0;  // rows that go between ranks, each way
  for (std::int64_t& load : loads) {
    sent += load;
    load *= shard_.expert_tensor;
  }
  const std::int64_t held = sent * shard_.expert_tensor;  // rows of the buffers, or of the capacity
  // Rows are copied to where their expert's are, and the results weighted and summed up.
  const Bytes tokens = bytes(own * work.hidden);
  const Bytes sent_rows = bytes(sent * work.hidden);
  const Bytes held_rows = bytes(held * work.hidden);
  const bool sorts_again = all_to_all && shard_.expert > 1 && (loads.size() > 1 || shard_.expert_tensor > 1);
  const bool alone = shard_.expert * shard_.expert_tensor == 1;
  const Bytes copied = all_to_all || alone ? tokens + sent_rows : held_rows * 2;
  const auto exchange = [&](Operator& op) {
    op.exchanged = sent_rows;
    op.tokens_of_all = tokens * (shard_.expert * shard_.expert_tensor);
  };
  Operator& permute = add_permutation("permute tokens", Role::dispatch, copied, sent_rows);
  permute.saved = Bytes{4 * held};  // where each row came from
  exchange(permute);
  if (sorts_again) add_permutation("sort by expert", Role::local, held_rows * 2, held_rows);
  const std::int64_t inner = (work.gated() ? 2 : 1) * work.ffn / shard_.expert_tensor;
  made_by_ = {};
  add_grouped_product(work.gated() ? "experts gate up" : operation.name + " fc1",
                      {.rows = loads, .n = inner, .k = work.hidden}, work.bias);
  add_activation("experts activation", work.activation, held * work.ffn / shard_.expert_tensor);
  made_by_ = layer_.operators.back().module = Module::activation;
  add_grouped_product(work.gated() ? "experts down" : operation.name + " fc2",
                      {.rows = loads, .n = work.hidden, .k = work.ffn / shard_.expert_tensor}, work.bias);
  if (sorts_again) add_permutation("sort by source", Role::local, held_rows * 2, held_rows);
  exchange(add_permutation("combine tokens", Role::combine, copied, tokens));
}

}  // namespace trainyard::workloads
