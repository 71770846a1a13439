// What is trained, described by its dimensions as a configuration file has them. What that means operator by operator
// says workloads/architecture.hpp.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace trainyard::workloads {

struct Model {
  enum class Structure : std::uint8_t {
    decoder,          // GPT, Llama, Mixtral, DeepSeek: tokens in, the next token out
    encoder,          // BERT: every token sees every other
    encoder_decoder,  // T5: `layers` of encoder, `decoder_layers` that also look at the encoder's output
    vision,           // ViT: an encoder over patches of an image
    convolution,      // ResNet: stages of bottleneck blocks
    recommendation    // DLRM: embedding tables, interactions, two perceptrons
  };
  enum class Activation : std::uint8_t { gelu, swiglu, geglu, relu, squared_relu };
  enum class Norm : std::uint8_t { layernorm, rmsnorm };
  enum class PositionEmbedding : std::uint8_t { learned, rope, relative, none };

  std::string name;
  std::string family;  // the catalogue's entry of the architecture
  std::string description;
  Structure structure = Structure::decoder;
  Activation activation = Activation::gelu;
  Norm norm = Norm::layernorm;
  PositionEmbedding position_embedding = PositionEmbedding::learned;
  bool tied_embeddings = true;        // the head uses the input embedding's matrix
  bool bias = true;                   // of linear layers and norms, unless one of the four below says otherwise
  bool qkv_bias = true;               // of the query, key and value projections
  bool output_bias = true;            // of the attention's output projection
  bool ffn_bias = true;               // of the feed-forward block
  bool norm_bias = true;              // the offset of a layernorm
  bool separate_projections = false;  // query, key and value (and gate and up) are parameters of their own
  bool parallel_residual = false;     // attention and feed-forward read the same input (GPT-NeoX)
  bool post_norm = false;             // norms follow the residual additions (BERT)
  bool qk_norm = false;               // a norm over each head's query and key (Qwen3)
  double dropout = 0.0;
  std::int64_t layers = 0;
  std::int64_t hidden = 0;
  std::int64_t ffn_hidden = 0;  // with experts, the width of one
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;   // of queries and keys
  std::int64_t vocab = 0;      // what the tokenizer has; frameworks pad it
  std::int64_t positions = 0;  // learned positions, or the longest context

  std::int64_t sliding_window = 0;        // tokens that a query looks back at; 0: all
  std::int64_t full_attention_every = 0;  // of so many layers the last has no window; 0: all have it
  std::int64_t mtp_layers = 0;            // layers that predict tokens further on (DeepSeek-V3), each with a head pass

  // Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434).
  struct LatentAttention {
    std::int64_t q_rank = 0;  // 0: queries come straight from the hidden state (V2-Lite)
    std::int64_t kv_rank = 0;
    std::int64_t nope_head_dim = 0;
    std::int64_t rope_head_dim = 0;
    std::int64_t v_head_dim = 0;
  };
  std::optional<LatentAttention> latent_attention;

  struct Experts {
    std::int64_t count = 0;
    std::int64_t top_k = 0;
    std::int64_t shared_hidden = 0;  // width of the experts that all tokens pass, together; 0: none
    bool shared_gate = false;        // their output is scaled by a gate (Qwen2-MoE)
    bool router_bias = false;
    std::int64_t first_dense = 0;            // the first layers have a dense feed-forward block
    std::int64_t every = 1;                  // of so many layers the last has experts
    std::vector<std::int64_t> dense_layers;  // further ones without, counted from 0
    std::int64_t dense_ffn_hidden = 0;       // width of the dense ones
    bool in_layer(std::int64_t layer) const;
  };
  std::optional<Experts> experts;

  // Encoders.
  std::int64_t segments = 0;        // rows of BERT's table of segment types
  bool pooler = false;              // BERT's: a linear over the first token
  std::int64_t decoder_layers = 0;  // T5
  std::int64_t relative_buckets = 0;
  std::int64_t decoder_sequence = 0;  // tokens of T5's targets; 0: as the encoder's

  // Images (vision and convolution).
  std::int64_t image_size = 0;
  std::int64_t patch_size = 0;
  std::int64_t channels = 3;
  std::int64_t classes = 0;
  std::vector<std::int64_t>
      stage_blocks;  // of ResNet; stage i is `width` x 2^i channels wide inside, four times outside
  std::int64_t width = 0;

  // Recommendation. The embedding's dimension is `hidden`.
  std::vector<std::int64_t> tables;  // rows of each
  std::int64_t pooling = 1;          // rows that a sample looks up in each table
  std::int64_t dense_features = 0;
  std::vector<std::int64_t> bottom_mlp;  // widths after `dense_features`; the last one is `hidden`
  std::vector<std::int64_t> top_mlp;     // widths after the interaction

  bool gated() const { return activation == Activation::swiglu || activation == Activation::geglu; }
  std::int64_t ffn_matrices() const { return gated() ? 3 : 2; }
  std::int64_t value_dim() const { return latent_attention ? latent_attention->v_head_dim : head_dim; }
  std::int64_t query_width() const { return heads * head_dim; }
  std::int64_t kv_width() const { return kv_heads * head_dim; }
  bool transformer() const { return structure != Structure::convolution && structure != Structure::recommendation; }
  bool has_tokens() const { return transformer() && structure != Structure::vision; }
  // Layers of the whole model as pipeline stages and FSDP units see them: blocks of a ResNet, encoder and decoder
  // layers of a T5, perceptron layers of a DLRM.
  std::int64_t total_layers() const;
};

}  // namespace trainyard::workloads
