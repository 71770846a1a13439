#include "strategies/internal/layer_ops.hpp"

namespace trainyard::strategies {
namespace {

using sim::CollectiveKind;
using workloads::Layer;
using workloads::Operator;
using workloads::Role;

sim::CallId tensor_call(BlockWriter& block, const TensorCommunication& tensor, CollectiveKind kind, sim::Bytes bytes) {
  return block.call(tensor.slot, kind, bytes, sim::Purpose::tensor);
}

void blocking(BlockWriter& block, const TensorCommunication& tensor, CollectiveKind kind, sim::Bytes bytes) {
  block.blocking(tensor.stream, tensor_call(block, tensor, kind, bytes));
}

void exchange(BlockWriter& block, const LayerCommunication& with, sim::Bytes bytes) {
  block.communicate(with.exchange->stream,
                    block.call(with.exchange->slot, CollectiveKind::all_to_all, bytes, sim::Purpose::tensor));
}

void write_operator(BlockWriter& block, const Operator& op, const std::vector<sim::Kernel>& kernels,
                    const LayerCommunication& with) {
  const auto& tensor = with.tensor;
  if (tensor && tensor->sequence_parallel && op.role == Role::column_linear && !op.shares_input)
    blocking(block, *tensor, CollectiveKind::all_gather, op.divided);
  if (with.exchange && op.awaits_exchange) block.wait_for(sim::set_of(with.exchange->stream));
  block.compute(kernels);
  if (with.exchange && op.role == Role::exchange) exchange(block, with, op.exchanged);
  if (tensor && op.role == Role::row_linear)
    blocking(block, *tensor, tensor->sequence_parallel ? CollectiveKind::reduce_scatter : CollectiveKind::all_reduce,
             op.divided);
}

// The gradient's collective of a column-parallel linear overlaps its weight gradient, the second gather of its input
// its input gradient.
void write_column_backward(BlockWriter& block, const Operator& op, const TensorCommunication& tensor) {
  const sim::StreamSet stream = sim::set_of(tensor.stream);
  const bool gathered = tensor.sequence_parallel;
  if (gathered) block.communicate(tensor.stream, tensor_call(block, tensor, CollectiveKind::all_gather, op.divided));
  block.compute(op.input_gradient);
  if (gathered) block.wait_for(stream);
  const CollectiveKind reduction = gathered ? CollectiveKind::reduce_scatter : CollectiveKind::all_reduce;
  block.communicate(tensor.stream, tensor_call(block, tensor, reduction, op.divided));
  if (!gathered && !tensor.overlaps_weight_gradients) block.wait_for(stream);
  block.compute(op.weight_gradient);
  block.wait_for(stream);
}

}  // namespace

std::vector<sim::Kernel> again(std::vector<sim::Kernel> kernels) {
  for (sim::Kernel& kernel : kernels) {
    kernel.name += " (recomputed)";
    kernel.model_flops = {};
  }
  return kernels;
}

void write_forward(BlockWriter& block, const Layer& layer, const LayerCommunication& with) {
  for (const Operator& op : layer.operators) write_operator(block, op, op.forward, with);
}

void write_recompute(BlockWriter& block, const Layer& layer, const workloads::Recompute& recompute,
                     bool every_second_product, const LayerCommunication& with) {
  for (const Operator& op : layer.operators)
    if (layer.runs_again(op, recompute, every_second_product)) write_operator(block, op, again(op.forward), with);
}

void write_backward(BlockWriter& block, const Layer& layer, const LayerCommunication& with,
                    const AfterOperator& after) {
  const auto& tensor = with.tensor;
  for (std::size_t i = layer.operators.size(); i-- > 0;) {
    const Operator& op = layer.operators[i];
    if (tensor && tensor->sequence_parallel && op.role == Role::row_linear)
      blocking(block, *tensor, CollectiveKind::all_gather, op.divided);
    if (with.exchange && op.role == Role::exchange) block.wait_for(sim::set_of(with.exchange->stream));
    if (tensor && op.role == Role::column_linear && !op.shares_input)
      write_column_backward(block, op, *tensor);
    else
      block.compute(op.input_gradient).compute(op.weight_gradient);
    // Its gradient goes back to the ranks that looked the rows up.
    if (with.exchange && op.awaits_exchange) exchange(block, with, op.exchanged);
    if (after) after(block, i);
  }
}

void write_input_gradients(BlockWriter& block, const Layer& layer, const LayerCommunication& with) {
  const auto& tensor = with.tensor;
  for (std::size_t i = layer.operators.size(); i-- > 0;) {
    const Operator& op = layer.operators[i];
    if (tensor && tensor->sequence_parallel && op.role == Role::row_linear)
      blocking(block, *tensor, CollectiveKind::all_gather, op.divided);
    block.compute(op.input_gradient);
    if (tensor && op.role == Role::column_linear && !op.shares_input)
      blocking(block, *tensor, tensor->sequence_parallel ? CollectiveKind::reduce_scatter : CollectiveKind::all_reduce,
               op.divided);
  }
}

void write_weight_gradients(BlockWriter& block, const Layer& layer, const LayerCommunication& with,
                            const AfterOperator& after) {
  const auto& tensor = with.tensor;
  for (std::size_t i = layer.operators.size(); i-- > 0;) {
    const Operator& op = layer.operators[i];
    if (op.weight_gradient.empty()) continue;
    if (tensor && tensor->sequence_parallel && op.role == Role::column_linear && !op.shares_input)
      blocking(block, *tensor, CollectiveKind::all_gather, op.divided);
    block.compute(op.weight_gradient);
    if (after) after(block, i);
  }
}

void write_loss_reductions(BlockWriter& block, const LayerCommunication& with) {
  if (!with.tensor) return;
  for (int i = 0; i < 3; ++i) blocking(block, *with.tensor, CollectiveKind::all_reduce, with.tensor->loss);
}

}  // namespace trainyard::strategies
