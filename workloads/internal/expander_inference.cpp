#include <algorithm>
#include <string>
#include <utility>

#include "workloads/internal/expander.hpp"

namespace trainyard::workloads {

using sim::Bytes;

// Matrices of the layers are, unless they are multiplied in more bits than the rest (routers).
bool Expander::serves_quantised(Precision precision) const {
  const WeightFormat format = serving_->inference.weights;
  const bool quantises = format != WeightFormat::bf16 && format != WeightFormat::fp16;
  return quantises && region_ != Region::other && precision == training_.precision;
}

StoredWeights Expander::stored_weights(Precision precision, std::int64_t inputs) const {
  if (!serves_quantised(precision))
    return {.element_bytes = static_cast<double>(element_bytes(precision)), .arithmetic = precision};
  const Precision multiplied = arithmetic(serving_->inference.weights, training_.precision);
  return {.element_bytes = stored_bytes(serving_->inference, inputs),
          .arithmetic = multiplied,
          .dequantised = multiplied == training_.precision};
}

Bytes Expander::weights_in_store(std::int64_t weights, std::int64_t inputs, Precision precision) const {
  // What is multiplied in 32 bits is stored as the rest is.
  const double each =
      serves_quantised(precision) ? stored_bytes(serving_->inference, inputs) : static_cast<double>(element());
  return Bytes{static_cast<std::int64_t>(static_cast<double>(weights) * each)};
}

// Inputs of 8-bit products are cast as they come, with a scale per token: 16 bits are read, 8 written.
void Expander::add_quantisation(Operator& op, const std::string& name, std::int64_t values, Precision precision) const {
  if (!serves_quantised(precision) || stored_weights(precision, 1).dequantised) return;
  append(op.forward, costs_.memory_bound(name + " quantise", Bytes{3 * values}));
}

void Expander::add_stored_product(Operator& op, const Product& product, bool bias) const {
  add_quantisation(op, product.name, product.tokens * product.inputs, product.precision);
  append(op.forward, costs_.stored_gemm(product.name, {.m = product.tokens, .n = product.outputs, .k = product.inputs},
                                        stored_weights(product.precision, product.inputs)));
  const std::int64_t vector = bias ? product.outputs : 0;
  op.frozen = weights_in_store(op.parameters - vector, product.inputs, product.precision) + bytes(vector);
}

// Nothing is trained; what has not said how it is stored is in 16 bits.
void Expander::store_weights(Operator& op) const {
  op.trained = 0;
  if (op.frozen.count == 0) op.frozen = bytes(op.parameters);
}

// New keys and values are written to their places in the cache, cast if it has another type.
void Expander::add_cache_write(const AttentionWork& work) {
  const CacheFormat format = serving_->inference.cache;
  const std::int64_t heads = serving_->latent ? 1 : std::max<std::int64_t>(1, work.kv_heads / shard_.tensor);
  const std::int64_t width =
      serving_->latent ? serving_->latent->kv_rank + serving_->latent->rope_head_dim : work.qk_dim + work.v_dim;
  const std::int64_t vectors = tokens() * heads * (serving_->latent ? 1 : 2);
  const std::int64_t values = tokens() * heads * width;
  Operator& op = add("store keys and values", Role::attention);
  append(op.forward, costs_.memory_bound(op.name, bytes(values) + cache_bytes(format, values, vectors)));
}

// Latent attention does not bring the cached states up to heads: what would is multiplied into queries and outputs
// instead, which is as much work ("key value up" in either form), and all heads read the same narrow state
// (DeepSeek-V2, arXiv 2405.04434, section 2.1.2).
bool Expander::add_cached_attention(Operator& op, const AttentionWork& work) const {
  if (serving_ == nullptr || serving_->context == 0) return false;
  const std::int64_t seen = work.window > 0 ? std::min(serving_->context, work.window) : serving_->context;
  AttentionShape shape{.batch = shard_.micro_batch,
                       .queries = 1,
                       .keys = seen,
                       .heads = work.heads / shard_.tensor,
                       .kv_heads = std::max<std::int64_t>(1, work.kv_heads / shard_.tensor),
                       .qk_dim = work.qk_dim,
                       .v_dim = work.v_dim};
  std::int64_t values = work.qk_dim + work.v_dim;  // of a token and head in the cache
  if (serving_->latent) {
    shape.kv_heads = 1;
    shape.v_dim = serving_->latent->kv_rank;
    values = shape.qk_dim = serving_->latent->kv_rank + serving_->latent->rope_head_dim;
  }
  const std::int64_t heads = shape.batch * seen * shape.kv_heads;
  const Bytes cache = cache_bytes(serving_->inference.cache, heads * values, heads * (serving_->latent ? 1 : 2));
  append(op.forward, costs_.cached_attention(op.name, shape, cache, training_.precision, *training_.attention));
  return true;
}

}  // namespace trainyard::workloads
