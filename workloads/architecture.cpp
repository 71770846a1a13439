#include "workloads/architecture.hpp"

#include <algorithm>
#include <numeric>

#include "workloads/internal/structures.hpp"

namespace trainyard::workloads {
namespace {

template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <class... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

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
