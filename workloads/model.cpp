#include "workloads/model.hpp"

#include <numeric>

namespace trainyard::workloads {
namespace {

std::int64_t norm_parameters(const Model& model) {
  return model.norm == Model::Norm::layernorm && model.bias ? 2 * model.hidden : model.hidden;
}

void add_norm(std::vector<std::int64_t>& tensors, const Model& model) {
  tensors.push_back(model.hidden);
  if (norm_parameters(model) > model.hidden) tensors.push_back(model.hidden);
}

void add_linear(std::vector<std::int64_t>& tensors, std::int64_t inputs, std::int64_t outputs, bool bias) {
  tensors.push_back(inputs * outputs);
  if (bias) tensors.push_back(outputs);
}

}  // namespace

std::vector<std::int64_t> layer_tensors(const Model& model) {
  std::vector<std::int64_t> tensors;
  add_norm(tensors, model);
  if (model.gated()) {  // Llama-like code keeps the projections apart
    add_linear(tensors, model.hidden, model.query_width(), model.qkv_bias);
    add_linear(tensors, model.hidden, model.kv_width(), model.qkv_bias);
    add_linear(tensors, model.hidden, model.kv_width(), model.qkv_bias);
  } else {
    add_linear(tensors, model.hidden, model.query_width() + 2 * model.kv_width(), model.qkv_bias);
  }
  add_linear(tensors, model.query_width(), model.hidden, model.bias);
  add_norm(tensors, model);
  if (model.gated()) add_linear(tensors, model.hidden, model.ffn_hidden, model.bias);
  add_linear(tensors, model.hidden, model.ffn_hidden, model.bias);
  add_linear(tensors, model.ffn_hidden, model.hidden, model.bias);
  return tensors;
}

std::vector<std::int64_t> parameter_tensors(const Model& model) {
  std::vector<std::int64_t> tensors;
  tensors.push_back(model.vocab * model.hidden);
  if (model.position_embedding == Model::PositionEmbedding::learned) tensors.push_back(model.positions * model.hidden);
  const std::vector<std::int64_t> layer = layer_tensors(model);
  for (std::int64_t i = 0; i < model.layers; ++i) tensors.insert(tensors.end(), layer.begin(), layer.end());
  add_norm(tensors, model);
  if (!model.tied_embeddings) tensors.push_back(model.vocab * model.hidden);
  return tensors;
}

std::int64_t layer_parameters(const Model& model) {
  const std::vector<std::int64_t> tensors = layer_tensors(model);
  return std::accumulate(tensors.begin(), tensors.end(), std::int64_t{0});
}

std::int64_t embedding_parameters(const Model& model, std::int64_t vocab) {
  const bool learned = model.position_embedding == Model::PositionEmbedding::learned;
  return (vocab + (learned ? model.positions : 0)) * model.hidden;
}

std::int64_t head_parameters(const Model& model, std::int64_t vocab) {
  return norm_parameters(model) + (model.tied_embeddings ? 0 : vocab * model.hidden);
}

std::int64_t parameters(const Model& model) {
  return embedding_parameters(model, model.vocab) + model.layers * layer_parameters(model) +
         head_parameters(model, model.vocab);
}

double training_flops_per_token(const Model& model, std::int64_t sequence, bool causal) {
  const auto hidden = static_cast<double>(model.hidden);
  const auto query = static_cast<double>(model.query_width());
  const double projections =
      2 * hidden * static_cast<double>(model.query_width() + 2 * model.kv_width()) + 2 * query * hidden;
  const double ffn = 2.0 * static_cast<double>(model.ffn_matrices()) * hidden * static_cast<double>(model.ffn_hidden);
  const double attention = (causal ? 2.0 : 4.0) * static_cast<double>(sequence) * query;
  const double head = 2 * hidden * static_cast<double>(model.vocab);
  return 3 * (static_cast<double>(model.layers) * (projections + ffn + attention) + head);
}

}  // namespace trainyard::workloads
