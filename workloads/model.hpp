// Decoder-only transformers, described by their dimensions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace trainyard::workloads {

struct Model {
  enum class Activation : std::uint8_t { gelu, swiglu };
  enum class Norm : std::uint8_t { layernorm, rmsnorm };
  enum class PositionEmbedding : std::uint8_t { learned, rope, none };

  std::string name;
  std::string family;  // gpt | llama
  std::string description;
  Activation activation = Activation::gelu;
  Norm norm = Norm::layernorm;
  PositionEmbedding position_embedding = PositionEmbedding::learned;
  bool tied_embeddings = true;  // the head uses the input embedding's matrix
  bool bias = true;             // of all linear layers and norms' offsets
  bool qkv_bias = true;         // of the query, key and value projections
  double dropout = 0.0;
  std::int64_t layers = 0;
  std::int64_t hidden = 0;
  std::int64_t ffn_hidden = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t vocab = 0;      // what the tokenizer has; frameworks pad it
  std::int64_t positions = 0;  // learned positions, or the longest context

  bool gated() const { return activation == Activation::swiglu; }
  std::int64_t ffn_matrices() const { return gated() ? 3 : 2; }
  std::int64_t query_width() const { return heads * head_dim; }
  std::int64_t kv_width() const { return kv_heads * head_dim; }
};

// Parameters, to the unit. `vocab` may be given padded.
// Layer: hidden x (query + 2 kv widths) + query width x hidden + matrices x hidden x ffn + norms + biases.
std::int64_t layer_parameters(const Model& model);
std::int64_t embedding_parameters(const Model& model, std::int64_t vocab);  // tokens and learned positions
std::int64_t head_parameters(const Model& model, std::int64_t vocab);       // final norm, and the matrix unless tied
std::int64_t parameters(const Model& model);

// Sizes of the parameter tensors in the order in which a framework registers them, for bucketing rules.
std::vector<std::int64_t> parameter_tensors(const Model& model);
std::vector<std::int64_t> layer_tensors(const Model& model);

// Training FLOP per token: three times the forward ones of matrix products and attention. A causal mask counts as half
// of the attention (`causal`), or in full. Llama-3-8B at 8192 tokens: 51.47e9 and 57.9e9.
double training_flops_per_token(const Model& model, std::int64_t sequence, bool causal);

}  // namespace trainyard::workloads
