#include "workloads/layers.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "workloads/internal/expander.hpp"

namespace trainyard::workloads {
namespace {

template <class Value, class Of>
Value sum_over(const Expansion& model, std::int64_t from, std::int64_t count, Of of) {
  Value sum{};
  for (std::int64_t i = from; i < from + count; ++i) sum = sum + of(model.layer(i));
  return sum;
}

}  // namespace

KernelStyle fused_style() { return {}; }

KernelStyle eager_style(const Model& model) {
  KernelStyle style;
  style.split_projections = model.separate_projections;
  if (model.norm == Model::Norm::rmsnorm) {
    // Composed of cast, square, mean, scale: reads and writes the activations in 32 bits several times.
    style.norm_forward_passes = 9;
    style.norm_backward_passes = 16;
  }
  if (model.gated()) {
    style.activation_forward_scale = 5.0 / 3;   // silu: 2 passes, product: 3
    style.activation_backward_scale = 9.0 / 5;  // both gradients of the product: 6, of silu: 3
  }
  style.rope_passes = 6;           // cast to complex 32-bit numbers, multiply, cast back
  style.loss_forward_bytes = 14;   // cast to 32 bits: 2 + 4; log-softmax: 4 + 4
  style.loss_backward_bytes = 18;  // of the log-softmax: 4 + 4 + 4; cast back: 4 + 2
  style.logits_bytes = 12;         // log-softmax, its gradient and that of its input, in 32 bits each
  style.grouped_experts = false;
  style.fused_norm_relu = false;
  return style;
}

std::size_t Layer::operators_until_last_kept() const {
  for (std::size_t i = operators.size(); i-- > 0;) {
    const Operator& op = operators[i];
    const bool product = op.role == Role::column_linear || op.role == Role::row_linear || op.of_experts;
    // Adapters' second products read what their first ones made.
    const bool adapted = op.trained > 0 && op.trained < op.parameters;
    if (product && !adapted) return i;
    if (product || op.saved.count > 0) return i + 1;
  }
  return 0;
}

KernelStyle kernel_style(const Training& training, const Model& model) {
  KernelStyle style = fuses_kernels(training) ? fused_style() : eager_style(model);
  style.split_projections = model.separate_projections;
  return style;
}

bool Layer::runs_again(const Operator& op, const Recompute& recompute, bool every_second_product) const {
  switch (recompute.kind) {
    case Recompute::Kind::none:
      return false;
    case Recompute::Kind::full:
      return true;
    case Recompute::Kind::selective:
      if (every_second_product) return !op.output_saved_selectively;
      return op.module == Module::core_attention;
    case Recompute::Kind::modules:
      return (op.module && recompute.has(*op.module)) ||
             (op.region == Region::feed_forward && recompute.has(Module::mlp)) ||
             (op.region == Region::experts && recompute.has(Module::moe));
  }
  return false;
}

sim::Bytes Layer::saved_bytes(const Recompute& recompute, bool every_second_product) const {
  if (recompute.full()) return input;
  sim::Bytes total{};
  if (recompute.kind == Recompute::Kind::selective && every_second_product) {
    total = input;
    for (const Operator& op : operators)
      if (op.output_saved_selectively) total += op.output;
    return total;
  }
  std::optional<Region> previous;
  for (const Operator& op : operators) {
    const bool whole = (op.region == Region::feed_forward && recompute.has(Module::mlp)) ||
                       (op.region == Region::experts && recompute.has(Module::moe));
    const bool starts = previous != op.region;
    previous = op.region;
    // A block that runs again as a whole keeps what it starts from.
    if (whole && !starts) continue;
    if (op.input_of && recompute.has(*op.input_of)) total += -op.remade;
    // Queries, keys, values and the output stay; the scores do not.
    if (op.module == Module::core_attention && recompute.has(Module::core_attention)) total += -op.scores;
    total += op.saved;
  }
  return total;
}

std::int64_t Expansion::parameters(std::int64_t from, std::int64_t count) const {
  return sum_over<std::int64_t>(*this, from, count, [](const Layer& layer) { return layer.parameters; });
}

std::int64_t Expansion::trained(std::int64_t from, std::int64_t count) const {
  return sum_over<std::int64_t>(*this, from, count, [](const Layer& layer) { return layer.trained; });
}

std::int64_t Expansion::expert_trained(std::int64_t from, std::int64_t count) const {
  return sum_over<std::int64_t>(*this, from, count, [](const Layer& layer) { return layer.expert_trained; });
}

sim::Bytes Expansion::frozen(std::int64_t from, std::int64_t count) const {
  return sum_over<sim::Bytes>(*this, from, count, [](const Layer& layer) { return layer.frozen; });
}

Expansion expand(const Architecture& architecture, const Training& training, const Shard& shard,
                 const KernelStyle& style, const KernelCosts& costs) {
  const auto layer = [&](const Block& block, std::int64_t input_elements) {
    return Expander(architecture, training, shard, style, costs, block).layer(input_elements);
  };
  Expansion expansion;
  expansion.embedding = layer(architecture.embedding, 0);
  expansion.kind_of = architecture.layers;
  expansion.kinds.resize(architecture.kinds.size());
  std::vector<bool> done(architecture.kinds.size(), false);
  // Elements of a sample that the block before hands on; a block is expanded where it is first met.
  const Block* previous = &architecture.embedding;
  for (const std::uint32_t kind : architecture.layers) {
    const Block& block = architecture.kinds[kind];
    if (!done[kind]) expansion.kinds[kind] = layer(block, block.tokens * previous->width);
    done[kind] = true;
    previous = &block;
  }
  expansion.head = layer(architecture.head, architecture.head.tokens * previous->width);
  return expansion;
}

double factored_moments(const Architecture& architecture) {
  double sums = 0;
  double elements = 0;
  const auto add = [&](const Block& block) {
    for (const Tensor& tensor : tensors_of(block, true)) {
      const bool matrix = tensor.rows > 1 && tensor.columns > 1;
      sums += static_cast<double>(matrix ? tensor.rows + tensor.columns : tensor.size());
      elements += static_cast<double>(tensor.size());
    }
  };
  add(architecture.embedding);
  for (const std::uint32_t kind : architecture.layers) add(architecture.kinds[kind]);
  add(architecture.head);
  return elements > 0 ? 4 * sums / elements : 0;
}

std::vector<sim::Kernel> optimizer_kernels(const Training& training, const StateBytes& state, std::int64_t parameters,
                                           const KernelCosts& costs) {
  const sim::Bytes gradients{parameters * state.gradient};
  const auto kernel = [&](const char* name, sim::Bytes traffic) {
    return costs.memory_bound(name, traffic, sim::KernelClass::optimizer);
  };
  const auto traffic =
      sim::Bytes{static_cast<std::int64_t>(static_cast<double>(parameters) * optimizer_traffic(state))};
  std::vector<sim::Kernel> kernels{kernel("gradient norm", gradients), kernel("clip gradients", gradients * 2)};
  // The update is written in 32 bits, its norm and the weights' taken, and it is read again.
  if (training.optimizer == Optimizer::lamb) kernels.push_back(kernel("update and norms", sim::Bytes{parameters} * 16));
  // The squared gradient is summed along rows and along columns, the update written and its mean square taken.
  if (training.optimizer == Optimizer::adafactor)
    kernels.push_back(kernel("row and column sums", gradients * 2 + sim::Bytes{parameters} * 8));
  kernels.push_back(kernel("optimizer", traffic));
  return kernels;
}

}  // namespace trainyard::workloads
