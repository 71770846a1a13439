// Transformers over tokens.
#include <string>
#include <utility>

#include "workloads/internal/operation_writer.hpp"
#include "workloads/internal/structures.hpp"

namespace trainyard::workloads {
namespace {

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

}  // namespace

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

}  // namespace trainyard::workloads
