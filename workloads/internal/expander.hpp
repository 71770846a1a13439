// One block of a model expanded into the kernels of one device's share of it. Attention is in expander_attention.cpp,
// experts are in expander_experts.cpp, products over grids of ranks in expander_grid.cpp, what is particular to
// inference in expander_inference.cpp.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "workloads/inference.hpp"
#include "workloads/layers.hpp"

namespace trainyard::workloads {

// A forward pass for its own sake: weights as they are stored, keys and values in a cache.
struct Serving {
  const Inference& inference;
  std::int64_t context = 0;  // tokens that each query sees in the cache; 0: prompts, which see themselves
  std::optional<Model::LatentAttention> latent = {};
};

class Expander {
 public:
  Expander(const Architecture& architecture, const Training& training, const Shard& shard, const KernelStyle& style,
           const KernelCosts& costs, const Block& block, const Serving* serving = nullptr)
      : architecture_(architecture),
        training_(training),
        shard_(shard),
        style_(style),
        costs_(costs),
        block_(block),
        serving_(serving) {}

  // `input_elements`: of a sample, what the block before hands on.
  Layer layer(std::int64_t input_elements);

 private:
  void expand(const Operation& operation, const NormWork& work);
  void expand(const Operation& operation, const LinearWork& work);
  void expand(const Operation& operation, const AttentionWork& work);
  void expand(const Operation& operation, const RotaryWork& work);
  void expand(const Operation& operation, const ActivationWork& work);
  void expand(const Operation& operation, const ResidualWork& work);
  void expand(const Operation& operation, const LookupWork& work);
  void expand(const Operation& operation, const RouterWork& work);
  void expand(const Operation& operation, const ExpertsWork& work);
  void expand(const Operation& operation, const ConvolutionWork& work);
  void expand(const Operation& operation, const BatchNormWork& work);
  void expand(const Operation& operation, const PassWork& work);
  void expand(const Operation& operation, const TablesWork& work);
  void expand(const Operation& operation, const InteractionWork& work);
  void expand(const Operation& operation, const LossWork& work);

  // Parts of a linear that run as one product.
  struct Product {
    std::string name;
    std::vector<LinearWork::Part> parts;
    std::int64_t tokens = 0;
    std::int64_t inputs = 0;   // on this device
    std::int64_t outputs = 0;  // likewise
    Precision precision{};
    // They come in 8 bits from other ranks.
    bool input_arrives_cast = false;
    bool gradient_arrives_cast = false;
  };
  Product product_of(const Operation& operation, const LinearWork& work, std::vector<LinearWork::Part> parts) const;
  void add_product(const Operation& operation, const LinearWork& work, const Product& product, bool first);
  void add_grid_product(const LinearWork& work, const Product& product);
  void add_step(std::vector<sim::Kernel>& kernels, const std::vector<sim::Bytes>& copied, sim::Kernel product) const;
  void expand_on_grid(const Operation& operation, const LookupWork& work);
  void add_casts(Operator& op, const Product& product) const;
  void add_dequantisation(Operator& op, const std::string& name) const;
  void add_adapters(Operator& op, const LinearWork& work, const Product& product) const;
  void add_unfused_attention(Operator& op, const AttentionShape& shape, const AttentionWork& work);
  void add_flash_attention(Operator& op, const AttentionShape& shape, AttentionKernel kernel) const;
  AttentionShape attention_shape(const AttentionWork& work) const;
  void add_activation(const std::string& name, Model::Activation kind, std::int64_t elements);
  struct ExpertProduct {
    std::string name;
    GroupedGemm shape;
    bool bias = false;
    bool first = false;  // it reads the tokens; else it makes what goes back to them
  };
  void add_expert_product(const ExpertProduct& product);
  void add_weighted_bias(Operator& op, const GroupedGemm& shape) const;
  LoopOperators loop_operators(const ExpertProduct& product) const;
  void add_experts_activation(const ExpertsWork& work, const std::vector<std::int64_t>& loads);
  void divide_by_expert(std::vector<sim::Kernel>& kernels, const std::vector<std::int64_t>& rows) const;
  void join_experts(std::vector<sim::Kernel>& kernels, const GroupedGemm& shape, std::int64_t width) const;
  // A pass of rows from one order into another, forward and backward.
  struct Permutation {
    std::string name;
    Role role = Role::local;
    sim::Bytes forward{};  // traffic
    sim::Bytes backward{};
    sim::Bytes output{};
  };
  Operator& add_permutation(const Permutation& permutation);
  void add_selection(Operator& op, std::int64_t experts) const;
  bool quantises_rows() const { return shard_.dispatches_in_8_bits && shard_.expert > 1; }

  // Of inference.
  bool serves_quantised(Precision precision) const;
  StoredWeights stored_weights(Precision precision, std::int64_t inputs) const;
  void add_quantisation(Operator& op, const std::string& name, std::int64_t values, Precision precision) const;
  void add_stored_product(Operator& op, const Product& product, bool bias) const;
  sim::Bytes weights_in_store(std::int64_t weights, std::int64_t inputs, Precision precision) const;
  void store_weights(Operator& op) const;
  void add_cache_write(const AttentionWork& work);
  bool add_cached_attention(Operator& op, const AttentionWork& work) const;

  Operator& add(std::string name, Role role);
  static void append(std::vector<sim::Kernel>& kernels, sim::Kernel kernel) { kernels.push_back(std::move(kernel)); }
  // With a scale in 32 bits per 128 values (DeepSeek-V3, arXiv 2412.19437, section 3.3).
  static sim::Bytes eight_bit_bytes(std::int64_t values) { return sim::Bytes{values + 4 * ((values + 127) / 128)}; }
  static sim::Bytes four_bit_bytes(std::int64_t parameters) {
    return sim::Bytes{static_cast<std::int64_t>(static_cast<double>(parameters) * nf4_bytes)};
  }
  // One kernel when fused; several, of the same traffic in all, when a framework runs operator by operator.
  void elementwise(std::vector<sim::Kernel>& kernels, const std::string& name, sim::Bytes traffic,
                   std::int64_t count = 1) const;
  std::int64_t element() const { return activation_bytes(training_.precision); }
  std::int64_t own_tokens() const { return block_.tokens / shard_.context; }  // of a sample
  std::int64_t tokens() const { return shard_.micro_batch * own_tokens(); }
  // Ranks that divide heads instead of tokens for the time of the attention.
  std::int64_t context_heads() const {
    return shard_.context_exchange == ContextExchange::all_to_all ? shard_.context : shard_.context_heads;
  }
  // Keys and values go round a ring of ranks.
  bool goes_round() const {
    return shard_.context_exchange == ContextExchange::ring ||
           shard_.context_exchange == ContextExchange::all_to_all_and_ring;
  }
  std::int64_t replicated() const { return shard_.sequence_parallel ? tokens() / shard_.tensor : tokens(); }
  bool on_grid() const { return shard_.grid != ProductGrid::none; }
  // Of what lies between products, the part of its width that is on this device.
  std::int64_t own_columns(std::int64_t width) const { return on_grid() ? width / shard_.tensor : width; }
  void add_vectors(Operator& op, std::int64_t count, std::int64_t elements) const;
  std::int64_t divided(const LinearWork::Part& part) const { return std::max(part.least, part.width / shard_.tensor); }
  sim::Bytes bytes(std::int64_t elements) const { return sim::Bytes{elements} * element(); }
  sim::Bytes passes(std::int64_t elements, double count) const;
  bool dropout() const { return architecture_.dropout > 0; }
  bool frozen() const { return training_.adapters.has_value(); }
  bool quantized() const { return frozen() && training_.adapters->quantized && region_ != Region::other; }
  bool adapted(const Operation& operation, const LinearWork::Part& part) const;
  // Precision of a product that runs in 32 bits, on the fastest units that take such numbers.
  Precision wide() const;

  const Architecture& architecture_;
  const Training& training_;
  const Shard& shard_;
  const KernelStyle& style_;
  const KernelCosts& costs_;
  const Block& block_;
  const Serving* serving_;  // absent where a model is trained
  Layer layer_;
  Region region_ = Region::other;
  bool shared_experts_ = false;    // the operation at hand is of those
  std::int64_t products_ = 0;      // so far: every second one's output is kept by torchtitan's selective policy
  bool input_kept_ = false;        // of the linear at hand, by one of its products
  bool outputs_divided_ = false;   // of the last linear, over the tensor group
  std::optional<Module> made_by_;  // what the operator before is, if it can run again
};

}  // namespace trainyard::workloads
