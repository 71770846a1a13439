#include "workloads/internal/operation_writer.hpp"

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace trainyard::workloads {
namespace {

std::string_view activation_name(Model::Activation activation) {
  switch (activation) {
    case Model::Activation::gelu:
      return "gelu";
    case Model::Activation::swiglu:
      return "swiglu";
    case Model::Activation::geglu:
      return "geglu";
    case Model::Activation::relu:
      return "relu";
    case Model::Activation::squared_relu:
      return "squared relu";
  }
  return "";
}

}  // namespace

void OperationWriter::self_attention(bool causal, std::int64_t window) {
  if (model_.latent_attention) return latent_attention(*model_.latent_attention, causal);
  const std::int64_t query = model_.query_width();
  const std::int64_t kv = model_.kv_width();
  linear("query key value", model_.hidden,
         {{"query", query, model_.head_dim}, {"key", kv, model_.head_dim}, {"value", kv, model_.head_dim}},
         model_.qkv_bias, Split::column);
  if (model_.qk_norm) {
    norm("query norm", model_.head_dim, model_.heads);
    norm("key norm", model_.head_dim, model_.kv_heads);
  }
  if (model_.position_embedding == Model::PositionEmbedding::rope)
    add("rotary", RotaryWork{.query_width = query, .kv_width = kv, .kv_least = model_.head_dim});
  add("attention", AttentionWork{.heads = model_.heads,
                                 .kv_heads = model_.kv_heads,
                                 .qk_dim = model_.head_dim,
                                 .v_dim = model_.head_dim,
                                 .causal = causal,
                                 .window = window,
                                 .relative_bias = model_.position_embedding == Model::PositionEmbedding::relative});
  attention_output(query);
}

// Queries, keys and values pass through a narrow state of their own; part of each key, with the rotary embedding, is
// shared by all heads (DeepSeek-V2, arXiv 2405.04434, section 2.1).
void OperationWriter::latent_attention(const Model::LatentAttention& latent, bool causal) {
  const std::int64_t query = model_.heads * (latent.nope_head_dim + latent.rope_head_dim);
  const auto head = latent.nope_head_dim + latent.rope_head_dim;
  if (latent.q_rank > 0) {
    linear("query down", model_.hidden, {{"query_down", latent.q_rank}}, model_.qkv_bias, Split::none);
    norm("query rank norm", latent.q_rank);
    linear("query up", latent.q_rank, {{"query", query, head}}, false, Split::column);
  } else {
    linear("query", model_.hidden, {{"query", query, head}}, false, Split::column);
  }
  const std::int64_t narrow = latent.kv_rank + latent.rope_head_dim;
  linear("key value down", model_.hidden, {{"key_value_down", narrow}}, model_.qkv_bias, Split::none).keeps_input =
      false;  // the query's is the same
  norm("key value rank norm", latent.kv_rank);
  linear("key value up", latent.kv_rank,
         {{"key_value", model_.heads * (latent.nope_head_dim + latent.v_head_dim),
           latent.nope_head_dim + latent.v_head_dim}},
         false, Split::column);
  add("rotary", RotaryWork{.query_width = model_.heads * latent.rope_head_dim,
                           .kv_width = latent.rope_head_dim,
                           .kv_least = latent.rope_head_dim});
  add("attention", AttentionWork{.heads = model_.heads,
                                 .kv_heads = model_.heads,
                                 .qk_dim = head,
                                 .v_dim = latent.v_head_dim,
                                 .causal = causal});
  attention_output(model_.heads * latent.v_head_dim);
}

// Queries of the decoder, keys and values of what the encoder made.
void OperationWriter::cross_attention(std::int64_t key_tokens) {
  const std::int64_t width = model_.query_width();
  linear("cross query", model_.hidden, {{"query", width, model_.head_dim}}, model_.qkv_bias, Split::column);
  linear("cross key value", model_.hidden, {{"key", width, model_.head_dim}, {"value", width, model_.head_dim}},
         model_.qkv_bias, Split::column)
      .token_count = key_tokens;
  add("cross attention", AttentionWork{.heads = model_.heads,
                                       .kv_heads = model_.heads,
                                       .qk_dim = model_.head_dim,
                                       .v_dim = model_.head_dim,
                                       .causal = false,
                                       .key_tokens = key_tokens});
  linear("cross attention output", width, {{"output", model_.hidden}}, model_.output_bias, Split::row).keeps_input =
      false;
}

void OperationWriter::feed_forward(std::int64_t ffn, bool keeps_input) {
  LinearWork& first =
      model_.gated() ? linear("gate up", model_.hidden, {{"gate", ffn}, {"up", ffn}}, model_.ffn_bias, Split::column)
                     : linear("fc1", model_.hidden, {{"up", ffn}}, model_.ffn_bias, Split::column);
  first.keeps_input = keeps_input;
  add(std::string{activation_name(model_.activation)}, ActivationWork{.kind = model_.activation, .width = ffn});
  linear(model_.gated() ? "down" : "fc2", ffn, {{"down", model_.hidden}}, model_.ffn_bias, Split::row);
}

void OperationWriter::experts(const Model::Experts& experts) {
  linear("router", model_.hidden, {{"router", experts.count}}, experts.router_bias, Split::none).in_32_bits = true;
  add("top k", RouterWork{.experts = experts.count, .top_k = experts.top_k});
  add("experts", ExpertsWork{.count = experts.count,
                             .top_k = experts.top_k,
                             .hidden = model_.hidden,
                             .ffn = model_.ffn_hidden,
                             .activation = model_.activation,
                             .bias = model_.ffn_bias});
  if (experts.shared_hidden == 0) return;
  // They read what the router keeps.
  const auto first = static_cast<std::ptrdiff_t>(block_.operations.size());
  if (experts.shared_gate)
    linear("shared gate", model_.hidden, {{"shared_gate", 1}}, false, Split::none).keeps_input = false;
  feed_forward(experts.shared_hidden, false);
  std::for_each(block_.operations.begin() + first, block_.operations.end(),
                [](Operation& operation) { operation.of_shared_experts = true; });
}

void OperationWriter::transformer_layer(bool causal, std::int64_t window, bool has_experts) {
  const auto ffn = [&] {
    in(has_experts ? Region::experts : Region::feed_forward);
    if (has_experts)
      experts(*model_.experts);
    else
      feed_forward(model_.experts && model_.experts->dense_ffn_hidden > 0 ? model_.experts->dense_ffn_hidden
                                                                          : model_.ffn_hidden);
  };
  const auto attend = [&] {
    in(Region::attention);
    self_attention(causal, window);
  };
  const auto between = [&](auto write) {
    in(Region::other);
    write();
  };
  if (model_.post_norm) {
    attend();
    between([&] { residual("residual 1"), norm("norm 1"); });
    ffn();
    between([&] { residual("residual 2"), norm("norm 2"); });
    return;
  }
  between([&] { norm("norm 1"); });
  attend();
  between([&] {
    if (!model_.parallel_residual) residual("residual 1");
    norm("norm 2");
    if (model_.parallel_residual) std::get<NormWork>(block_.operations.back().work).keeps_input = false;
  });
  ffn();
  between([&] { residual(model_.parallel_residual ? "residual" : "residual 2"); });
}

}  // namespace trainyard::workloads
