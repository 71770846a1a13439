#include "workloads/architecture.hpp"

#include <algorithm>
#include <numeric>
#include <string_view>
#include <utility>

namespace trainyard::workloads {
namespace {

template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <class... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

// Writes the operations of one block, in the order of the forward pass.
class OperationWriter {
 public:
  OperationWriter(const Model& model, std::string name, std::int64_t tokens) : model_(model) {
    block_.name = std::move(name);
    block_.tokens = tokens;
    block_.width = model.hidden;
  }

  Operation& add(std::string name, Work work) {
    block_.operations.push_back(
        {.name = std::move(name), .work = std::move(work), .region = region_, .counted = counted_});
    return block_.operations.back();
  }
  void in(Region region) { region_ = region; }
  void counted(bool counted) { counted_ = counted; }

  void norm(std::string name, std::int64_t width, std::int64_t per_token = 1) {
    add(std::move(name), NormWork{.width = width,
                                  .offset = model_.norm == Model::Norm::layernorm && model_.norm_bias,
                                  .per_token = per_token,
                                  .per_head = per_token > 1});
  }
  void norm(std::string name) { norm(std::move(name), model_.hidden); }
  LinearWork& linear(std::string name, std::int64_t inputs, std::vector<LinearWork::Part> parts, bool bias,
                     Split split) {
    Operation& operation =
        add(std::move(name), LinearWork{.inputs = inputs, .parts = std::move(parts), .bias = bias, .split = split});
    return std::get<LinearWork>(operation.work);
  }
  void residual(std::string name) { add(std::move(name), ResidualWork{.width = model_.hidden}); }

  void self_attention(bool causal, std::int64_t window);
  void latent_attention(const Model::LatentAttention& latent, bool causal);
  void cross_attention(std::int64_t key_tokens);
  void feed_forward(std::int64_t ffn, bool keeps_input = true);
  void experts(const Model::Experts& experts);
  void transformer_layer(bool causal, std::int64_t window, bool has_experts);

  Block take() { return std::move(block_); }

 private:
  void attention_output(std::int64_t inputs) {
    linear("attention output", inputs, {{"output", model_.hidden}}, model_.output_bias, Split::row).keeps_input = false;
  }

  const Model& model_;
  Block block_;
  Region region_ = Region::other;
  bool counted_ = true;
};

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

// Blocks that are alike are stored once.
class LayerList {
 public:
  explicit LayerList(Architecture& architecture) : architecture_(architecture) {}
  template <class Make>
  void add(std::int64_t key, Make make) {
    const auto known = std::find(keys_.begin(), keys_.end(), key);
    if (known == keys_.end()) {
      keys_.push_back(key);
      architecture_.kinds.push_back(make());
      architecture_.layers.push_back(static_cast<std::uint32_t>(keys_.size() - 1));
    } else {
      architecture_.layers.push_back(static_cast<std::uint32_t>(known - keys_.begin()));
    }
  }

 private:
  Architecture& architecture_;
  std::vector<std::int64_t> keys_;
};

Block token_embedding(const Model& model, std::int64_t tokens, std::int64_t vocab) {
  OperationWriter block(model, "embedding", tokens);
  LookupWork lookup{.vocab = vocab, .width = model.hidden};
  if (model.position_embedding == Model::PositionEmbedding::learned) lookup.added.push_back(model.positions);
  if (model.segments > 0) lookup.added.push_back(model.segments);
  block.add("embedding", lookup);
  if (model.position_embedding == Model::PositionEmbedding::relative)  // one table for the encoder, one for the decoder
    block.add(
        "relative positions",
        LookupWork{.width = model.heads, .added = {model.relative_buckets, model.relative_buckets}, .dropout = false});
  if (model.post_norm) block.norm("embedding norm");
  return block.take();
}

LinearWork& add_logits(OperationWriter& block, std::string name, const Model& model, std::int64_t vocab) {
  LinearWork& logits = block.linear(std::move(name), model.hidden, {{"logits", vocab}}, false, Split::column);
  logits.in_16_bits = true;
  logits.tied = model.tied_embeddings;
  return logits;
}

void describe_decoder(const Model& model, std::int64_t sequence, std::int64_t vocab, Architecture& result) {
  result.embedding = token_embedding(model, sequence, vocab);
  LayerList layers(result);
  for (std::int64_t i = 0; i < model.layers; ++i) {
    const bool experts = model.experts && model.experts->in_layer(i);
    const bool full = model.full_attention_every > 0 && (i + 1) % model.full_attention_every == 0;
    const std::int64_t window = full ? 0 : model.sliding_window;
    const char* name = experts || !model.experts ? "layer" : "dense layer";
    layers.add(window * 2 + (experts ? 1 : 0), [&] {
      OperationWriter block(
          model, window > 0 && model.full_attention_every > 0 ? std::string("windowed ") + name : name, sequence);
      block.transformer_layer(true, window, experts);
      return block.take();
    });
  }
  OperationWriter head(model, "head", sequence);
  head.norm("final norm");
  add_logits(head, "logits", model, vocab);
  head.add("loss", LossWork{.classes = vocab});
  // Each further token: its embedding beside the hidden state, projected back, one layer, and the head once more
  // (DeepSeek-V3, arXiv 2412.19437, section 2.2).
  head.counted(false);
  for (std::int64_t i = 0; i < model.mtp_layers; ++i) {
    head.norm("hidden norm");
    head.norm("token norm");
    head.linear("next token projection", 2 * model.hidden, {{"projection", model.hidden}}, false, Split::none);
    head.transformer_layer(true, model.sliding_window, model.experts.has_value());
    head.in(Region::other);
    head.norm("next token norm");
    add_logits(head, "next token logits", model, vocab).tied = true;  // the head's own matrix
    head.add("next token loss", LossWork{.classes = vocab});
  }
  result.head = head.take();
}

void describe_encoder(const Model& model, std::int64_t sequence, std::int64_t vocab, Architecture& result) {
  result.causal = false;
  result.embedding = token_embedding(model, sequence, vocab);
  LayerList layers(result);
  for (std::int64_t i = 0; i < model.layers; ++i) {
    layers.add(0, [&] {
      OperationWriter block(model, "layer", sequence);
      block.transformer_layer(false, 0, false);
      return block.take();
    });
  }
  OperationWriter head(model, "head", sequence);
  if (!model.post_norm) head.norm("final norm");
  if (model.pooler) head.linear("pooler", model.hidden, {{"pooler", model.hidden}}, true, Split::none).token_count = 1;
  // The masked-language-model head: a linear, an activation and a norm, then the embedding's matrix with a bias.
  head.counted(false);
  head.linear("prediction", model.hidden, {{"prediction", model.hidden}}, true, Split::none);
  head.add("prediction gelu", ActivationWork{.kind = Model::Activation::gelu, .width = model.hidden});
  head.norm("prediction norm");
  add_logits(head, "logits", model, vocab).bias = true;
  head.add("loss", LossWork{.classes = vocab});
  result.head = head.take();
}

void describe_encoder_decoder(const Model& model, std::int64_t sequence, std::int64_t vocab, Architecture& result) {
  const std::int64_t targets = model.decoder_sequence > 0 ? model.decoder_sequence : sequence;
  result.embedding = token_embedding(model, sequence + targets, vocab);
  LayerList layers(result);
  const auto attention = [](OperationWriter& block, bool causal) {
    block.norm("norm 1");
    block.in(Region::attention);
    block.self_attention(causal, 0);
    block.in(Region::other);
    block.residual("residual 1");
  };
  const auto feed_forward = [&](OperationWriter& block) {
    block.norm("norm 2");
    block.in(Region::feed_forward);
    block.feed_forward(model.ffn_hidden);
    block.in(Region::other);
    block.residual("residual 2");
  };
  for (std::int64_t i = 0; i < model.layers; ++i) {
    const bool last = i + 1 == model.layers;
    layers.add(last ? 1 : 0, [&] {
      OperationWriter block(model, "encoder layer", sequence);
      attention(block, false);
      feed_forward(block);
      if (last) block.norm("encoder final norm");
      return block.take();
    });
  }
  for (std::int64_t i = 0; i < model.decoder_layers; ++i) {
    layers.add(2, [&] {
      OperationWriter block(model, "decoder layer", targets);
      attention(block, true);
      block.norm("cross norm");
      block.in(Region::attention);
      block.cross_attention(sequence);
      block.in(Region::other);
      block.residual("cross residual");
      feed_forward(block);
      return block.take();
    });
  }
  OperationWriter head(model, "head", targets);
  head.norm("final norm");
  add_logits(head, "logits", model, vocab);
  head.add("loss", LossWork{.classes = vocab});
  result.head = head.take();
}

void describe_vision(const Model& model, Architecture& result) {
  result.causal = false;
  const std::int64_t side = model.image_size / model.patch_size;
  const std::int64_t tokens = side * side + 1;  // and the class token
  OperationWriter embedding(model, "patch embedding", tokens);
  embedding.add("patches", ConvolutionWork{.in_channels = model.channels,
                                           .out_channels = model.hidden,
                                           .kernel = model.patch_size,
                                           .in_size = model.image_size,
                                           .size = side,
                                           .bias = true});
  embedding.add("positions", LookupWork{.width = model.hidden, .added = {tokens, 1}});
  result.embedding = embedding.take();
  LayerList layers(result);
  for (std::int64_t i = 0; i < model.layers; ++i) {
    layers.add(0, [&] {
      OperationWriter block(model, "layer", tokens);
      block.transformer_layer(false, 0, false);
      return block.take();
    });
  }
  OperationWriter head(model, "head", tokens);
  head.norm("final norm");
  head.linear("classifier", model.hidden, {{"classifier", model.classes}}, true, Split::none).token_count = 1;
  head.add("loss", LossWork{.classes = model.classes, .token_count = 1});
  result.head = head.take();
}

// A convolution and its norm, as ResNet has them throughout.
void add_convolution(OperationWriter& block, const std::string& name, const ConvolutionWork& work, bool relu,
                     bool addition) {
  block.add(name, work);
  block.add(name + " norm",
            BatchNormWork{.channels = work.out_channels, .size = work.size, .relu = relu, .addition = addition});
}

// ResNet with bottleneck blocks (arXiv 1512.03385, table 1; the stride is in the 3x3 convolution, as in torchvision).
void describe_convolution(const Model& model, Architecture& result) {
  result.causal = false;
  const auto half = [](std::int64_t size) { return (size + 1) / 2; };
  std::int64_t size = half(model.image_size);
  OperationWriter stem(model, "stem", 1);
  add_convolution(stem, "convolution 1",
                  {.in_channels = model.channels,
                   .out_channels = model.width,
                   .kernel = 7,
                   .in_size = model.image_size,
                   .size = size},
                  true, false);
  const std::int64_t pooled = half(size);
  // Its input stays for the ReLU before it, and where each result came from.
  stem.add("max pool", PassWork{.read = model.width * size * size,
                                .written = model.width * pooled * pooled,
                                .kept = model.width * (size * size + pooled * pooled)});
  result.embedding = stem.take();
  result.embedding.width = model.width * pooled * pooled;
  size = pooled;
  std::int64_t channels = model.width;
  LayerList layers(result);
  for (std::size_t stage = 0; stage < model.stage_blocks.size(); ++stage) {
    const std::int64_t inner = model.width << stage;
    const std::int64_t outer = 4 * inner;
    for (std::int64_t i = 0; i < model.stage_blocks[stage]; ++i) {
      const bool first = i == 0;
      const std::int64_t in_size = size;
      if (first && stage > 0) size = half(size);
      layers.add(static_cast<std::int64_t>(2 * stage) + (first ? 1 : 0), [&] {
        OperationWriter block(model, "block of stage " + std::to_string(stage + 1) + (first ? ", first" : ""), 1);
        add_convolution(block, "reduce",
                        {.in_channels = channels, .out_channels = inner, .in_size = in_size, .size = in_size}, true,
                        false);
        add_convolution(block, "convolve",
                        {.in_channels = inner, .out_channels = inner, .kernel = 3, .in_size = in_size, .size = size},
                        true, false);
        add_convolution(block, "expand", {.in_channels = inner, .out_channels = outer, .in_size = size, .size = size},
                        true, true);
        if (first)
          add_convolution(
              block, "shortcut",
              {.in_channels = channels, .out_channels = outer, .in_size = in_size, .size = size, .keeps_input = false},
              false, false);
        Block result_block = block.take();
        result_block.width = outer * size * size;
        return result_block;
      });
      channels = outer;
    }
  }
  OperationWriter head(model, "head", 1);
  // Its input stays for the ReLU of the last block.
  head.add("average pool",
           PassWork{.read = channels * size * size, .written = channels, .kept = channels * size * size});
  head.linear("classifier", channels, {{"classifier", model.classes}}, true, Split::none);
  head.add("loss", LossWork{.classes = model.classes});
  result.head = head.take();
}

void add_perceptron(OperationWriter& block, const std::string& name, std::int64_t inputs,
                    const std::vector<std::int64_t>& widths, bool last_is_linear) {
  for (std::size_t i = 0; i < widths.size(); ++i) {
    const std::string number = name + " " + std::to_string(i + 1);
    block.linear(number, inputs, {{number, widths[i]}}, true, Split::none);
    inputs = widths[i];
    if (!last_is_linear || i + 1 < widths.size())
      block.add(number + " relu", ActivationWork{.kind = Model::Activation::relu, .width = inputs});
  }
}

// DLRM (Naumov et al., arXiv 1906.00091).
void describe_recommendation(const Model& model, Architecture& result) {
  OperationWriter embedding(model, "tables", 1);
  embedding.add("table lookup", TablesWork{.rows = model.tables, .width = model.hidden, .pooling = model.pooling});
  result.embedding = embedding.take();
  result.causal = false;
  OperationWriter bottom(model, "bottom perceptron", 1);
  add_perceptron(bottom, "bottom", model.dense_features, model.bottom_mlp, false);
  OperationWriter top(model, "top perceptron", 1);
  const auto vectors = static_cast<std::int64_t>(model.tables.size()) + 1;
  top.add("interaction", InteractionWork{.vectors = vectors, .width = model.hidden});
  add_perceptron(top, "top", vectors * (vectors - 1) / 2 + model.hidden, model.top_mlp, true);
  result.kinds = {bottom.take(), top.take()};
  result.layers = {0, 1};
  OperationWriter head(model, "head", 1);
  head.add("loss", LossWork{.classes = 1});
  result.head = head.take();
}

double products_flops(const Operation& operation, std::int64_t tokens, bool causal) {
  const auto count = static_cast<double>(tokens);
  return std::visit(
      Overloaded{[&](const LinearWork& work) {
                   const double rows = work.token_count > 0 ? static_cast<double>(work.token_count) : count;
                   return 2 * rows * static_cast<double>(work.inputs) * static_cast<double>(work.outputs());
                 },
                 [&](const AttentionWork& work) {
                   return 2 * attended_pairs(work, tokens, causal) *
                          static_cast<double>(work.heads * (work.qk_dim + work.v_dim));
                 },
                 [&](const ExpertsWork& work) {
                   return 2 * count * static_cast<double>(work.top_k) * static_cast<double>(work.gated() ? 3 : 2) *
                          static_cast<double>(work.hidden) * static_cast<double>(work.ffn);
                 },
                 [&](const ConvolutionWork& work) {
                   return 2 * static_cast<double>(work.size * work.size) * static_cast<double>(work.out_channels) *
                          static_cast<double>(work.in_channels * work.kernel * work.kernel);
                 },
                 [&](const InteractionWork& work) {
                   return 2 * static_cast<double>(work.vectors * work.vectors * work.width);
                 },
                 [](const auto&) { return 0.0; }},
      operation.work);
}

void add_tensors(const Operation& operation, bool separate, std::vector<Tensor>& tensors) {
  const auto add = [&](std::int64_t rows, std::int64_t columns, bool table = false) {
    if (rows * columns > 0)
      tensors.push_back({.name = operation.name, .rows = rows, .columns = columns, .table = table});
  };
  std::visit(Overloaded{[&](const NormWork& work) {
                          add(work.width, 1);
                          if (work.offset) add(work.width, 1);
                        },
                        [&](const LinearWork& work) {
                          const std::int64_t matrix = work.tied ? 0 : work.inputs;
                          if (!separate) {
                            add(work.outputs(), matrix);
                            if (work.bias) add(work.outputs(), 1);
                            return;
                          }
                          for (const LinearWork::Part& part : work.parts) {
                            add(part.width, matrix);
                            if (work.bias) add(part.width, 1);
                          }
                        },
                        [&](const LookupWork& work) {
                          add(work.vocab, work.width, true);
                          for (const std::int64_t rows : work.added) add(rows, work.width, true);
                        },
                        [&](const ExpertsWork& work) {
                          for (std::int64_t i = 0; i < work.count; ++i) {
                            const std::int64_t inner = work.gated() ? 2 * work.ffn : work.ffn;
                            add(inner, work.hidden);
                            if (work.bias) add(inner, 1);
                            add(work.hidden, work.ffn);
                            if (work.bias) add(work.hidden, 1);
                          }
                        },
                        [&](const ConvolutionWork& work) {
                          add(work.out_channels, work.in_channels * work.kernel * work.kernel);
                          if (work.bias) add(work.out_channels, 1);
                        },
                        [&](const BatchNormWork& work) {
                          add(work.channels, 1);
                          add(work.channels, 1);
                        },
                        [&](const TablesWork& work) {
                          for (const std::int64_t rows : work.rows) add(rows, work.width, true);
                        },
                        [](const auto&) {}},
             operation.work);
}

template <class Function>
void for_each_block(const Architecture& architecture, Function function) {
  function(architecture.embedding);
  for (const std::uint32_t kind : architecture.layers) function(architecture.kinds[kind]);
  function(architecture.head);
}

template <class Function>
void for_each_attention(Architecture& architecture, Function function) {
  const auto visit = [&](Block& block) {
    for (Operation& operation : block.operations)
      if (auto* attention = std::get_if<AttentionWork>(&operation.work)) function(*attention);
  };
  visit(architecture.embedding);
  for (Block& block : architecture.kinds) visit(block);
  visit(architecture.head);
}

std::int64_t active_parameters_of(const Operation& operation) {
  const std::int64_t all = parameters_of(operation);
  const auto* experts = std::get_if<ExpertsWork>(&operation.work);
  return experts == nullptr ? all : all / experts->count * experts->top_k;
}

}  // namespace

bool Model::Experts::in_layer(std::int64_t layer) const {
  return layer >= first_dense && (layer + 1) % every == 0 &&
         std::find(dense_layers.begin(), dense_layers.end(), layer) == dense_layers.end();
}

std::int64_t Model::total_layers() const {
  switch (structure) {
    case Structure::decoder:
    case Structure::encoder:
    case Structure::vision:
      return layers;
    case Structure::encoder_decoder:
      return layers + decoder_layers;
    case Structure::convolution:
      return std::accumulate(stage_blocks.begin(), stage_blocks.end(), std::int64_t{0});
    case Structure::recommendation:
      return 2;
  }
  return layers;
}

std::int64_t LinearWork::outputs() const {
  std::int64_t sum = 0;
  for (const Part& part : parts) sum += part.width;
  return sum;
}

Architecture describe(const Model& model, std::int64_t sequence, std::int64_t vocab,
                      const std::vector<std::int64_t>& documents) {
  Architecture result;
  result.dropout = model.dropout;
  if (vocab == 0) vocab = model.vocab;
  switch (model.structure) {
    case Model::Structure::decoder:
      describe_decoder(model, sequence, vocab, result);
      break;
    case Model::Structure::encoder:
      describe_encoder(model, sequence, vocab, result);
      break;
    case Model::Structure::encoder_decoder:
      describe_encoder_decoder(model, sequence, vocab, result);
      break;
    case Model::Structure::vision:
      describe_vision(model, result);
      break;
    case Model::Structure::convolution:
      describe_convolution(model, result);
      break;
    case Model::Structure::recommendation:
      describe_recommendation(model, result);
      break;
  }
  for_each_attention(result, [&](AttentionWork& work) {
    if (work.key_tokens == 0) work.documents = documents;
  });
  return result;
}

std::vector<Tensor> tensors_of(const Block& block, bool separate) {
  std::vector<Tensor> tensors;
  for (const Operation& operation : block.operations) add_tensors(operation, separate, tensors);
  return tensors;
}

std::int64_t parameters_of(const Operation& operation) {
  if (const auto* experts = std::get_if<ExpertsWork>(&operation.work)) {  // too many tensors to list for a sum
    ExpertsWork one = *experts;
    one.count = 1;
    std::vector<Tensor> tensors;
    add_tensors({.name = operation.name, .work = one}, false, tensors);
    std::int64_t sum = 0;
    for (const Tensor& tensor : tensors) sum += tensor.size();
    return sum * experts->count;
  }
  std::vector<Tensor> tensors;
  add_tensors(operation, false, tensors);
  std::int64_t sum = 0;
  for (const Tensor& tensor : tensors) sum += tensor.size();
  return sum;
}

std::int64_t parameters_of(const Block& block) {
  std::int64_t sum = 0;
  for (const Operation& operation : block.operations) sum += parameters_of(operation);
  return sum;
}

std::int64_t parameters(const Model& model) {
  std::int64_t sum = 0;
  for_each_block(describe(model, 1), [&](const Block& block) {
    for (const Operation& operation : block.operations)
      if (operation.counted) sum += parameters_of(operation);
  });
  return sum;
}

std::int64_t trained_parameters(const Model& model) {
  std::int64_t sum = 0;
  for_each_block(describe(model, 1), [&](const Block& block) { sum += parameters_of(block); });
  return sum;
}

std::int64_t active_parameters(const Model& model) {
  std::int64_t sum = 0;
  for_each_block(describe(model, 1), [&](const Block& block) {
    for (const Operation& operation : block.operations)
      if (operation.counted) sum += active_parameters_of(operation);
  });
  return sum;
}

std::vector<std::int64_t> parameter_tensors(const Model& model) {
  std::vector<std::int64_t> sizes;
  for_each_block(describe(model, 1), [&](const Block& block) {
    for (const Tensor& tensor : tensors_of(block, model.separate_projections)) sizes.push_back(tensor.size());
  });
  return sizes;
}

double attended_pairs(const AttentionWork& work, std::int64_t tokens, bool causal_counts_half) {
  const auto queries = static_cast<double>(tokens);
  if (work.key_tokens > 0) return queries * static_cast<double>(work.key_tokens);
  const auto of_document = [&](double length) {
    const double seen = work.window > 0 ? std::min(length, static_cast<double>(work.window)) : length;
    // Under a causal mask the first queries see fewer than the window.
    if (work.causal && causal_counts_half) return length * seen - seen * seen / 2;
    return length * seen;
  };
  if (work.documents.empty()) return of_document(queries);
  if (work.documents.size() == 1) {
    const double length = std::min(queries, static_cast<double>(work.documents.front()));
    return queries / length * of_document(length);
  }
  double sum = 0;
  for (const std::int64_t document : work.documents) sum += of_document(static_cast<double>(document));
  return sum;
}

double forward_flops(const Block& block, bool causal) {
  double sum = 0;
  for (const Operation& operation : block.operations) sum += products_flops(operation, block.tokens, causal);
  return sum;
}

double training_flops_per_sample(const Architecture& architecture, bool causal, bool frozen) {
  double sum = 0;
  for_each_block(architecture, [&](const Block& block) {
    for (const Operation& operation : block.operations) {
      const bool has_weights = std::holds_alternative<LinearWork>(operation.work) ||  // tied ones too
                               std::holds_alternative<ExpertsWork>(operation.work);
      const double passes = frozen && has_weights ? 2 : 3;
      sum += passes * products_flops(operation, block.tokens, causal);
    }
  });
  return sum;
}

double training_flops_per_sample(const Model& model, std::int64_t sequence, bool causal) {
  return training_flops_per_sample(describe(model, sequence), causal);
}

double training_flops_per_token(const Model& model, std::int64_t sequence, bool causal) {
  return training_flops_per_sample(model, sequence, causal) / static_cast<double>(sequence);
}

}  // namespace trainyard::workloads
