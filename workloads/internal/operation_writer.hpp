// From what architectures are put together: blocks operation by operation, and the list of their layers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "workloads/architecture.hpp"

namespace trainyard::workloads {

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

}  // namespace trainyard::workloads
