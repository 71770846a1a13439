#include <algorithm>
#include <cmath>

#include "workloads/internal/expander.hpp"

namespace trainyard::workloads {

using sim::Bytes;
using sim::Kernel;

// What one kernel computes: everything on this device, or, where keys go round a ring, the part of one step.
AttentionShape Expander::attention_shape(const AttentionWork& work) const {
  const std::int64_t head_ranks = shard_.tensor * context_heads();
  const std::int64_t token_ranks = shard_.context / context_heads();
  const std::int64_t keys = work.key_tokens > 0 ? work.key_tokens : block_.tokens;
  // Of a causal sequence without window or documents that has as many pairs per query: the sequence itself if it is
  // one.
  double pairs = attended_pairs(work, block_.tokens, true);
  const bool masked = work.causal && work.key_tokens == 0;
  auto span = static_cast<std::int64_t>(std::llround((masked ? 2 : 1) * pairs / static_cast<double>(block_.tokens)));
  AttentionShape shape{.batch = shard_.micro_batch,
                       .queries = block_.tokens / token_ranks,
                       .keys = keys,
                       .heads = work.heads / head_ranks,
                       .kv_heads = std::max<std::int64_t>(1, work.kv_heads / head_ranks),
                       .qk_dim = work.qk_dim,
                       .v_dim = work.v_dim};
  pairs /= static_cast<double>(token_ranks);
  if (goes_round()) {
    shape.keys = keys / token_ranks;
    pairs /= static_cast<double>(token_ranks);
    span = std::max<std::int64_t>(1, span / token_ranks);
  }
  shape.span = span;
  shape.pairs = pairs;
  return shape;
}

void Expander::add_flash_attention(Operator& op, const AttentionShape& shape, AttentionKernel kernel) const {
  const sim::Kernel forward = costs_.flash_forward(op.name, shape, training_.precision, kernel);
  const sim::Kernel backward = costs_.flash_backward(op.name + " gradient", shape, training_.precision, kernel);
  op.forward.insert(op.forward.end(), static_cast<std::size_t>(op.ring_steps), forward);
  op.input_gradient.insert(op.input_gradient.end(), static_cast<std::size_t>(op.ring_steps), backward);
  if (op.ring_steps == 1) return;
  // Each step's output is read, rescaled and added to what is there (NVIDIA/TransformerEngine
  // transformer_engine/pytorch/attention/dot_product_attention/context_parallel.py); backward adds the gradients of
  // queries, keys and values of every step.
  append(op.forward, costs_.memory_bound("merge " + op.name, op.attended * (3 * op.ring_steps)));
  append(op.input_gradient, costs_.memory_bound("add " + op.name + " gradients",
                                                (op.queries + op.keys + op.values) * (3 * op.ring_steps)));
}

void Expander::expand(const Operation& operation, const AttentionWork& work) {
  if (serving_ != nullptr) add_cache_write(work);
  Operator& op = add(operation.name, Role::attention);
  op.module = Module::core_attention;
  op.output_saved_selectively = true;
  const AttentionShape shape = attention_shape(work);
  const std::int64_t heads = work.heads / shard_.tensor;
  const std::int64_t kv_heads = std::max<std::int64_t>(1, work.kv_heads / shard_.tensor);
  const std::int64_t key_tokens = shard_.micro_batch * (work.key_tokens > 0 ? work.key_tokens : own_tokens());
  op.queries = bytes(tokens() * heads * work.qk_dim);
  op.keys = bytes(key_tokens * kv_heads * work.qk_dim);
  op.values = bytes(key_tokens * kv_heads * work.v_dim);
  op.attended = op.output = bytes(tokens() * heads * work.v_dim);
  if (goes_round()) op.ring_steps = shard_.context / context_heads();
  // Queries, keys and values stay for backward in either form; of those that were gathered, all.
  const bool gathered = shard_.context > 1 && shard_.context_exchange == ContextExchange::gather;
  const Bytes inputs = op.queries + (op.keys + op.values) * (gathered ? shard_.context : 1);
  if (made_by_ == Module::mla_up_projection) op.input_of = made_by_, op.remade = inputs;
  const AttentionKernel kernel = training_.attention.value_or(AttentionKernel::flash);
  const bool flash = kernel != AttentionKernel::unfused;
  if (!flash) {
    add_unfused_attention(op, shape, work);
    const std::int64_t scores = shard_.micro_batch * heads * own_tokens() * shape.keys;
    // Softmax output; with dropout also its result and a mask of one byte (Korthikanti et al., arXiv 2205.05198).
    op.scores = Bytes{scores * (dropout() ? 2 * element() + 1 : element())};
  } else {
    if (!add_cached_attention(op, work)) add_flash_attention(op, shape, kernel);
    op.scores = Bytes{4 * tokens() * heads};  // the log-sum-exp of every row
  }
  op.saved = inputs + op.output * (flash && style_.attention_output_copied ? 2 : 1) + op.scores;
  made_by_ = {};
}

// Scores go through memory: two batched products, a masked softmax and dropout between them.
void Expander::add_unfused_attention(Operator& op, const AttentionShape& shape, const AttentionWork& work) {
  const std::int64_t batch = shape.batch * shape.heads;
  const Precision precision = training_.precision == Precision::fp8 ? Precision::bf16 : training_.precision;
  const Gemm scores{.m = shape.queries, .n = shape.keys, .k = shape.qk_dim, .batch = batch};
  const Gemm values{.m = shape.queries, .n = shape.v_dim, .k = shape.keys, .batch = batch};
  // The kernels execute what the mask throws away; the model's FLOP do not count that.
  const double share = shape.pairs / (static_cast<double>(shape.queries) * static_cast<double>(shape.keys));
  const auto product = [&](const std::string& name, const Gemm& gemm) {
    Kernel kernel = costs_.gemm(name, gemm, precision);
    kernel.kind = sim::KernelClass::attention;
    kernel.model_flops = {static_cast<std::int64_t>(static_cast<double>(kernel.flops.count) * share)};
    return kernel;
  };
  const auto pass = [&](const std::string& name, double bytes_per_score) {
    const double scores_count = static_cast<double>(batch) * static_cast<double>(shape.queries * shape.keys);
    const Bytes traffic{static_cast<std::int64_t>(scores_count * bytes_per_score)};
    return costs_.memory_bound(name, traffic, sim::KernelClass::attention);
  };
  const auto score = static_cast<double>(element());
  // Of what a fused causal softmax reads; it writes all, zeros above the diagonal.
  const double read = work.causal && style_.triangular_softmax ? 0.5 : 1;
  append(op.forward, product("attention scores", scores));
  if (work.relative_bias) append(op.forward, pass("relative positions", 2 * score));
  append(op.forward, pass("masked softmax", (read + 1) * score));
  if (dropout()) append(op.forward, pass("attention dropout", 2 * score + 1));
  append(op.forward, product("attention values", values));
  // Heads are put back beside each other, in a copy each way.
  const Kernel transpose =
      costs_.memory_bound("join heads", bytes(shape.batch * shape.queries * shape.heads * shape.v_dim) * 2);
  append(op.forward, transpose);
  append(op.input_gradient, transpose);
  append(op.input_gradient,
         product("attention values gradient", {.m = shape.queries, .n = shape.keys, .k = shape.v_dim, .batch = batch}));
  append(op.input_gradient,
         product("value gradient", {.m = shape.keys, .n = shape.v_dim, .k = shape.queries, .batch = batch}));
  if (dropout()) append(op.input_gradient, pass("attention dropout gradient", 2 * score + 1));
  append(op.input_gradient, pass("masked softmax gradient", (2 * read + 1) * score));
  append(op.input_gradient,
         product("query gradient", {.m = shape.queries, .n = shape.qk_dim, .k = shape.keys, .batch = batch}));
  append(op.input_gradient,
         product("key gradient", {.m = shape.keys, .n = shape.qk_dim, .k = shape.queries, .batch = batch}));
}

}  // namespace trainyard::workloads
