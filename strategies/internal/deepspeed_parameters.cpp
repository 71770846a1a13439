#include "strategies/internal/deepspeed_parameters.hpp"

#include <algorithm>
#include <variant>

namespace trainyard::strategies {
namespace {

using workloads::Operator;
using workloads::Tensor;

// The adapters of the linear that `op` was made from: two thin matrices for each adapted part.
std::vector<ParameterTensor> adapters_of(const Operator& op, const workloads::Block& block,
                                         const workloads::Training& training, std::int64_t element) {
  std::vector<ParameterTensor> tensors;
  std::int64_t sum = 0;
  const auto add = [&](std::int64_t elements) {
    sum += elements;
    tensors.push_back({.elements = elements, .bytes = sim::Bytes{elements * element}, .matrix = true});
  };
  for (const workloads::Operation& operation : block.operations) {
    const auto* linear = std::get_if<workloads::LinearWork>(&operation.work);
    if (linear == nullptr) continue;
    for (const workloads::LinearWork::Part& part : linear->parts) {
      if ((op.name != operation.name && op.name != part.name) || !training.adapters->on(part.name)) continue;
      add(training.adapters->rank * linear->inputs);
      add(training.adapters->rank * part.width);
    }
  }
  if (sum == op.trained) return tensors;
  return {{.elements = op.trained, .bytes = sim::Bytes{op.trained * element}, .matrix = true}};
}

// What one of `ranks` that share a layer has of a tensor of the operator, which has `elements` on each: of a
// column-parallel linear a part of matrix and bias, of a row-parallel one a part of the matrix, of the vocabulary some
// rows; tables of positions are whole.
Tensor share_of(const Tensor& tensor, const Operator& op, std::int64_t elements, std::int64_t ranks) {
  const bool matrix = tensor.rows > 1 && tensor.columns > 1;
  const bool divided = op.role == workloads::Role::column_linear ||
                       (op.role == workloads::Role::row_linear && matrix) || (tensor.table && tensor.size() > elements);
  Tensor share = tensor;
  if (divided) (share.rows % ranks == 0 ? share.rows : share.columns) /= ranks;
  return share;
}

// The next tensors that together are as large as `elements` of the operator on this rank; nothing where the list has
// others next.
std::vector<Tensor> take(std::vector<Tensor>& tensors, const Operator& op, std::int64_t elements, std::int64_t ranks) {
  std::int64_t sum = 0;
  std::vector<Tensor> taken;
  while (taken.size() < tensors.size() && sum < elements) {
    taken.push_back(share_of(tensors[taken.size()], op, elements, ranks));
    sum += taken.back().size();
  }
  if (sum != elements) return {};
  tensors.erase(tensors.begin(), tensors.begin() + std::ssize(taken));
  return taken;
}

}  // namespace

std::vector<std::vector<ParameterTensor>> owned_tensors(const workloads::Layer& layer, const workloads::Block& block,
                                                        const workloads::Training& training, bool separate,
                                                        std::int64_t ranks) {
  workloads::Block listed = block;
  std::erase_if(listed.operations, [](const workloads::Operation& operation) {
    return std::holds_alternative<workloads::ExpertsWork>(operation.work);
  });
  std::vector<Tensor> rest = workloads::tensors_of(listed, separate);
  const std::int64_t element = workloads::activation_bytes(training.precision);
  std::vector<std::vector<ParameterTensor>> owned;
  for (const Operator& op : layer.operators) {
    std::vector<ParameterTensor>& tensors = owned.emplace_back();
    const bool adapted = training.adapters && op.trained > 0;
    const std::int64_t own = adapted ? op.parameters - op.trained : op.parameters;
    const bool trained = !training.adapters && op.trained > 0;
    const auto add = [&](std::int64_t elements, bool matrix) {
      const sim::Bytes bytes = trained ? sim::Bytes{elements * element} : sim::scaled(op.frozen, elements, own);
      tensors.push_back(
          {.elements = elements, .bytes = bytes, .trained = trained, .matrix = matrix, .of_experts = op.of_experts});
    };
    if (own > 0) {
      const std::vector<Tensor> taken = take(rest, op, own, ranks);
      for (const Tensor& tensor : taken) add(tensor.size(), tensor.rows > 1 && tensor.columns > 1);
      if (taken.empty()) add(own, true);
    }
    if (!adapted) continue;
    const std::vector<ParameterTensor> adapters = adapters_of(op, block, training, element);
    tensors.insert(tensors.end(), adapters.begin(), adapters.end());
  }
  return owned;
}

}  // namespace trainyard::strategies
