// A model as a list of operators with their shapes, on no device yet: the one description that parameter counts, FLOP
// counts, gradient buckets and kernels follow from.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "workloads/model.hpp"

namespace trainyard::workloads {

// Operators. "Tokens" are the positions of a block (patches of an image, one for a sample of a recommender).

// Over vectors of `width`; `per_token` of them for each token (the norms of heads).
struct NormWork {
  std::int64_t width = 0;
  bool offset = false;
  std::int64_t per_token = 1;
  bool per_head = false;    // divided with the heads under tensor parallelism
  bool keeps_input = true;  // false: another norm keeps the same input for backward
};

// How tensor parallelism divides a matrix: its outputs, its inputs, or not at all.
enum class Split : std::uint8_t { column, row, none };

// Several matrices over the same input, one per part, run as one product where a framework joins them.
struct LinearWork {
  struct Part {
    std::string name;        // as adapters and, where parts run apart, kernels are called: query, key, gate, …
    std::int64_t width = 0;  // outputs
    std::int64_t least = 1;  // outputs that a rank has at least: a head, however many ranks there are
  };
  std::int64_t inputs = 0;
  std::vector<Part> parts;
  bool bias = false;
  Split split = Split::none;
  bool in_16_bits = false;       // also in 8-bit training (head, router)
  bool in_32_bits = false;       // always (routers)
  bool tied = false;             // uses the embedding's matrix
  bool keeps_input = true;       // false: an operation before it keeps that for backward
  std::int64_t token_count = 0;  // works on so many tokens of a sample (BERT's pooler on one); 0: on all
  std::int64_t outputs() const;
};

struct AttentionWork {
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t qk_dim = 0;
  std::int64_t v_dim = 0;
  bool causal = true;
  std::int64_t window = 0;      // 0: none
  std::int64_t key_tokens = 0;  // of cross attention; 0: the block's own
  bool relative_bias = false;   // added to the scores (T5)
  // Tokens of the documents packed into a sequence, which do not see each other; one number: all are of that length.
  std::vector<std::int64_t> documents = {};
};

struct RotaryWork {
  std::int64_t query_width = 0;
  std::int64_t kv_width = 0;
  std::int64_t kv_least = 0;  // see LinearWork::Part::least
};

struct ActivationWork {
  Model::Activation kind = Model::Activation::gelu;
  std::int64_t width = 0;  // of the output
};

// Adds what a block computed to its input, with bias and dropout.
struct ResidualWork {
  std::int64_t width = 0;
  bool dropout = true;
};

// Rows of a table, one per token.
struct LookupWork {
  std::int64_t vocab = 0;  // divided under tensor parallelism
  std::int64_t width = 0;
  std::vector<std::int64_t> added = {};  // rows of further tables whose rows are added: positions, segments
  bool dropout = true;
};

// Scores, the best `top_k` of them, and their weights, behind the router's linear.
struct RouterWork {
  std::int64_t experts = 0;
  std::int64_t top_k = 0;
};

// Feed-forward blocks of which each token passes `top_k`: tokens are sorted by expert, multiplied in groups, put back.
struct ExpertsWork {
  std::int64_t count = 0;
  std::int64_t top_k = 0;
  std::int64_t hidden = 0;
  std::int64_t ffn = 0;
  Model::Activation activation = Model::Activation::swiglu;
  bool bias = false;
  bool gated() const { return activation == Model::Activation::swiglu || activation == Model::Activation::geglu; }
};

// Square images and kernels; an implicit GEMM of size^2 x out x (in kernel^2) per sample.
struct ConvolutionWork {
  std::int64_t in_channels = 0;
  std::int64_t out_channels = 0;
  std::int64_t kernel = 1;
  std::int64_t in_size = 0;
  std::int64_t size = 0;  // of the output
  bool bias = false;
  bool keeps_input = true;  // false: another convolution keeps the same input for backward
};

struct BatchNormWork {
  std::int64_t channels = 0;
  std::int64_t size = 0;
  bool relu = false;      // in the same pass where a framework fuses them
  bool addition = false;  // of the block's input before the activation
};

// A pass over so many elements of a sample: pooling, concatenation, interaction inputs.
struct PassWork {
  std::int64_t read = 0;
  std::int64_t written = 0;
  std::int64_t kept = 0;  // elements kept for backward
};

// Embedding tables, each on one rank where there are several; every sample looks up `pooling` rows in each.
struct TablesWork {
  std::vector<std::int64_t> rows;
  std::int64_t width = 0;
  std::int64_t pooling = 1;
};

// Dot products of every pair of vectors.
struct InteractionWork {
  std::int64_t vectors = 0;
  std::int64_t width = 0;
};

// Cross entropy over `classes` for each token; two classes of one logit (DLRM): 1.
struct LossWork {
  std::int64_t classes = 0;
  std::int64_t token_count = 0;  // of a sample; 0: all
};

using Work =
    std::variant<NormWork, LinearWork, AttentionWork, RotaryWork, ActivationWork, ResidualWork, LookupWork, RouterWork,
                 ExpertsWork, ConvolutionWork, BatchNormWork, PassWork, TablesWork, InteractionWork, LossWork>;

// Where an operation stands in a transformer layer, as recomputation by module has it.
enum class Region : std::uint8_t { other, attention, feed_forward, experts };
// Low-rank adapters go beside the linear layers of these.
constexpr bool takes_adapters(Region region) { return region == Region::attention || region == Region::feed_forward; }

struct Operation {
  std::string name;
  Work work;
  Region region = Region::other;
  bool of_shared_experts = false;  // of those that all tokens pass
  bool counted = true;  // false: trained with the model, but not among its published parameters (BERT's prediction
                        // head, DeepSeek-V3's layers for further tokens)
};

struct Block {
  std::string name;         // "layer", "dense layer", "decoder layer"
  std::int64_t tokens = 0;  // of a sample
  std::int64_t width = 0;   // of the activations handed on to the next block, per token
  std::vector<Operation> operations;
};

struct Architecture {
  Block embedding;
  std::vector<Block> kinds;           // the different layers
  std::vector<std::uint32_t> layers;  // the kind of each, in the order of the forward pass
  Block head;
  bool causal = true;
  double dropout = 0;
};

// `sequence` is that of the training (without meaning for images and recommendation), `vocab` the padded vocabulary
// (0: the model's own), `documents` as in AttentionWork.
Architecture describe(const Model& model, std::int64_t sequence, std::int64_t vocab = 0,
                      const std::vector<std::int64_t>& documents = {});

// Sizes of the parameter tensors in the order in which a framework registers them, for bucketing rules.
// `separate`: the parts of a linear are tensors of their own.
struct Tensor {
  std::string name;
  std::int64_t rows = 1;
  std::int64_t columns = 1;
  bool table = false;  // of an embedding, where only some rows have a gradient
  std::int64_t size() const { return rows * columns; }
};
std::vector<Tensor> tensors_of(const Block& block, bool separate);

// Parameters, to the unit.
std::int64_t parameters_of(const Operation& operation);
std::int64_t parameters_of(const Block& block);
std::int64_t parameters(const Model& model);          // as its publisher counts them
std::int64_t trained_parameters(const Model& model);  // with those that only training has
// Those that one token passes: of the experts only `top_k`.
std::int64_t active_parameters(const Model& model);
std::vector<std::int64_t> parameter_tensors(const Model& model);

// Training FLOP of a sample: three times the forward ones of matrix products, convolutions and attention. A causal mask
// counts as half of the attention (`causal`), or in full; a window counts what it leaves of either. `frozen`: matrices
// beside adapters have no gradients of their own, and count twice; the adapters are not counted.
double training_flops_per_sample(const Architecture& architecture, bool causal, bool frozen = false);
double training_flops_per_sample(const Model& model, std::int64_t sequence, bool causal);
// Llama-3-8B at 8192 tokens: 51.47e9 and 57.9e9.
double training_flops_per_token(const Model& model, std::int64_t sequence, bool causal);
// Forward FLOP of a block for one sample.
double forward_flops(const Block& block, bool causal);

// Pairs of a query and a key that attention over `tokens` computes, per head and sample.
double attended_pairs(const AttentionWork& work, std::int64_t tokens, bool causal_counts_half);

}  // namespace trainyard::workloads
