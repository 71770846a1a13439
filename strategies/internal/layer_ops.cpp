#include "strategies/internal/layer_ops.hpp"

namespace trainyard::strategies {
namespace {

using workloads::Layer;
using workloads::Operator;
using workloads::Role;

void write_operator(BlockWriter& block, const Operator& op, const std::vector<sim::Kernel>& kernels,
                    const std::optional<TensorCommunication>& tensor) {
  if (tensor && tensor->sequence_parallel && op.role == Role::column_linear)
    block.blocking(tensor->stream, tensor->all_gather);
  block.compute(kernels);
  if (tensor && op.role == Role::row_linear)
    block.blocking(tensor->stream, tensor->sequence_parallel ? tensor->reduce_scatter : tensor->all_reduce);
}

}  // namespace

std::vector<sim::Kernel> again(std::vector<sim::Kernel> kernels) {
  for (sim::Kernel& kernel : kernels) {
    kernel.name += " (recomputed)";
    kernel.model_flops = {};
  }
  return kernels;
}

void write_forward(BlockWriter& block, const Layer& layer, const std::optional<TensorCommunication>& tensor) {
  for (const Operator& op : layer.operators) write_operator(block, op, op.forward, tensor);
}

void write_recompute(BlockWriter& block, const Layer& layer, workloads::Recompute recompute, bool every_second_product,
                     const std::optional<TensorCommunication>& tensor) {
  if (recompute == workloads::Recompute::none) return;
  for (const Operator& op : layer.operators) {
    if (recompute == workloads::Recompute::selective &&
        (every_second_product ? op.output_saved_selectively : !op.core_attention))
      continue;
    write_operator(block, op, again(op.forward), tensor);
  }
}

void write_backward(BlockWriter& block, const Layer& layer, const std::optional<TensorCommunication>& tensor,
                    const AfterOperator& after) {
  for (std::size_t i = layer.operators.size(); i-- > 0;) {
    const Operator& op = layer.operators[i];
    const bool gathered = tensor && tensor->sequence_parallel;
    if (gathered && op.role == Role::row_linear) block.blocking(tensor->stream, tensor->all_gather);
    if (tensor && op.role == Role::column_linear) {
      if (gathered) block.communicate(tensor->stream, tensor->all_gather);
      block.compute(op.input_gradient);
      if (gathered) block.wait_for(sim::set_of(tensor->stream));
      block.communicate(tensor->stream, gathered ? tensor->reduce_scatter : tensor->all_reduce);
      if (!gathered && !tensor->overlaps_weight_gradients) block.wait_for(sim::set_of(tensor->stream));
      block.compute(op.weight_gradient);
      block.wait_for(sim::set_of(tensor->stream));
    } else {
      block.compute(op.input_gradient).compute(op.weight_gradient);
    }
    if (after) after(block, i);
  }
}

void write_loss_reductions(BlockWriter& block, const std::optional<TensorCommunication>& tensor) {
  if (!tensor) return;
  for (int i = 0; i < 3; ++i) block.blocking(tensor->stream, tensor->loss);
}

}  // namespace trainyard::strategies
