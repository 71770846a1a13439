#include "strategies/layer_ops.hpp"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <span>

#include "strategies/internal/chunked_products.hpp"

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

// Of 16-bit values.
sim::Bytes gathered_bytes(const TensorCommunication& tensor, sim::Bytes divided) {
  return tensor.gathers_in_8_bits ? sim::Bytes{divided.count / 2} : divided;
}

// `divided` from every rank, for `kernels`.
void gather_for(BlockWriter& block, const TensorCommunication& tensor, sim::Bytes divided,
                const std::vector<sim::Kernel>& kernels) {
  const sim::Bytes bytes = gathered_bytes(tensor, divided);
  if (tensor.pieces > 1)
    return write_gathered_product(block, {tensor.stream, tensor.slot, CollectiveKind::all_gather, bytes, tensor.pieces},
                                  kernels);
  blocking(block, tensor, CollectiveKind::all_gather, bytes);
  block.compute(kernels);
}

// The results of `kernels` summed up: a part of them for every rank, or all for each.
void reduce_from(BlockWriter& block, const TensorCommunication& tensor, sim::Bytes divided,
                 const std::vector<sim::Kernel>& kernels) {
  const CollectiveKind kind = tensor.sequence_parallel ? CollectiveKind::reduce_scatter : CollectiveKind::all_reduce;
  if (tensor.pieces > 1)
    return write_reduced_product(block, {tensor.stream, tensor.slot, kind, divided, tensor.pieces}, kernels);
  block.compute(kernels);
  blocking(block, tensor, kind, divided);
}

bool gathers_input(const Operator& op, const LayerCommunication& with) {
  return with.tensor && with.tensor->sequence_parallel && op.role == Role::column_linear && !op.shares_input;
}

void exchange(BlockWriter& block, const LayerCommunication& with, sim::Bytes bytes) {
  block.communicate(with.exchange->stream,
                    block.call(with.exchange->slot, CollectiveKind::all_to_all, bytes, sim::Purpose::tensor));
}

// What the host issues while tokens are on their way.
using Beside = std::function<void()>;

// Way of tokens towards their experts, or back from them: forward, `dispatch` goes towards and `combine` back; backward
// it is the other way round.
void send_tokens(BlockWriter& block, const Operator& op, const ExpertCommunication& expert, bool towards,
                 const Beside& beside) {
  const sim::StreamSet stream = sim::set_of(expert.stream);
  const auto call = [&](sim::SlotId slot, CollectiveKind kind, sim::Bytes bytes) {
    return block.call(slot, kind, bytes, sim::Purpose::expert);
  };
  const sim::Bytes sent = towards ? op.dispatched : op.exchanged;
  const auto share = [&](double copies) { return sim::Bytes{std::llround(static_cast<double>(sent.count) * copies)}; };
  if (expert.dispatcher == workloads::TokenDispatcher::all_gather) {
    const CollectiveKind kind = towards ? CollectiveKind::all_gather : CollectiveKind::reduce_scatter;
    if (expert.group) block.blocking(expert.stream, call(*expert.group, kind, op.tokens_of_all));
    return;
  }
  const auto among_tensor_ranks = [&](CollectiveKind kind) {
    if (expert.tensor) block.blocking(expert.stream, call(*expert.tensor, kind, sent * expert.tensor_ranks));
  };
  if (!towards) among_tensor_ranks(CollectiveKind::reduce_scatter);
  if (expert.group && !expert.fused)
    block.communicate(expert.stream, call(*expert.group, CollectiveKind::all_to_all, sent));
  if (beside) beside();
  if (expert.group && !expert.fused) block.wait_for(stream);
  if (expert.fused) {
    sim::StreamSet used = stream;
    if (expert.fused->nodes) {
      used = static_cast<sim::StreamSet>(used | sim::set_of(expert.fused->network));
      block.communicate(expert.fused->network, call(*expert.fused->nodes, CollectiveKind::all_to_all,
                                                    share(expert.fused->node_copies_per_row)));
    }
    if (expert.group)
      block.communicate(expert.stream,
                        call(*expert.group, CollectiveKind::all_to_all, share(expert.fused->copies_per_row)));
    block.wait_for(used);
  }
  if (towards) among_tensor_ranks(CollectiveKind::all_gather);
}

// Whether tokens move before the operator's kernels: they are sorted before an all-to-all, selected behind a gather.
bool moves_before_kernels(const ExpertCommunication& expert, bool towards) {
  return (expert.dispatcher == workloads::TokenDispatcher::all_to_all) != towards;
}

struct TokenWay {
  bool towards = false;
  bool reads_loads = false;
  Beside beside = nullptr;
};
void write_tokens(BlockWriter& block, const Operator& op, const std::vector<sim::Kernel>& kernels,
                  const LayerCommunication& with, const TokenWay& way) {
  if (way.reads_loads) block.host_wait(sim::set_of(sim::compute_stream));
  const bool before = with.expert && moves_before_kernels(*with.expert, way.towards);
  if (before) send_tokens(block, op, *with.expert, way.towards, way.beside);
  block.compute(kernels);
  if (with.expert && !before) send_tokens(block, op, *with.expert, way.towards, way.beside);
}

bool goes_beside_exchange(const Operator& op, const LayerCommunication& with) {
  return op.of_shared_experts && with.expert && with.expert->overlaps_shared_experts;
}

// Of the shared experts' operators, those beside the way to the experts (`dispatch`) or beside the way back.
bool goes_beside(const Operator& op, const Operator& exchange, const LayerCommunication& with) {
  return goes_beside_exchange(op, with) && (op.role == Role::row_linear) == (exchange.role == Role::combine);
}

// The host goes on in a loop while the first of the experts' products runs.
void loop(BlockWriter& block, std::int64_t operators, sim::Duration each) {
  if (operators > 0 && each.count() > 0) block.host_work(each * operators);
}

// Queries, keys and values change from tokens to heads as the unit that ranks divide, and what attention made back.
void exchange_heads(BlockWriter& block, const ContextCommunication& context, std::initializer_list<sim::Bytes> parts) {
  for (const sim::Bytes part : parts)
    block.blocking(context.send, block.call(context.group, CollectiveKind::all_to_all, part, sim::Purpose::context));
}

// To the next rank of the ring, and from the one before.
void hand_on(BlockWriter& block, const ContextCommunication& context, sim::Bytes message) {
  const auto call = [&](sim::SlotId slot, CollectiveKind kind) {
    return block.call(slot, kind, message, sim::Purpose::context);
  };
  block.communicate(context.send, call(context.next, CollectiveKind::send));
  block.communicate(context.receive, call(context.previous, CollectiveKind::receive));
}

void write_ring(BlockWriter& block, const Operator& op, const std::vector<sim::Kernel>& kernels,
                const ContextCommunication& context, bool backward) {
  const auto streams = static_cast<sim::StreamSet>(sim::set_of(context.send) | sim::set_of(context.receive));
  const sim::Bytes keys_and_values = op.keys + op.values;
  const auto& pytorch = context.pytorch_ring;
  const bool gathers = pytorch && pytorch->gathers && op.ring_steps > 1;
  const sim::Bytes gathered = gathers ? keys_and_values * context.ranks : sim::Bytes{};
  if (gathers) block.memory(sim::MemoryPurpose::buffers, gathered);
  for (std::int64_t step = 0; step < op.ring_steps; ++step) {
    const bool more = step + 1 < op.ring_steps;
    if (gathers && step == 0)
      block.communicate(context.send,
                        block.call(context.group, CollectiveKind::all_gather, gathered, sim::Purpose::context));
    if (!gathers && more) hand_on(block, context, keys_and_values * (backward && !pytorch ? 2 : 1));
    block.compute({&kernels[static_cast<std::size_t>(step)], 1});
    const bool gradients = backward && pytorch;
    if (more || gradients) block.wait_for(streams);
    if (gradients) hand_on(block, context, keys_and_values * pytorch->gradient_width);
    if (gradients && !more) block.wait_for(streams);
  }
  if (gathers) block.memory(sim::MemoryPurpose::buffers, -gathered);
  block.compute(std::span(kernels).subspan(static_cast<std::size_t>(op.ring_steps)));
}

void write_attention(BlockWriter& block, const Operator& op, const std::vector<sim::Kernel>& kernels,
                     const ContextCommunication& context, bool backward) {
  const auto all_keys = [&](CollectiveKind kind) {
    block.blocking(context.send,
                   block.call(context.group, kind, (op.keys + op.values) * context.ranks, sim::Purpose::context));
  };
  switch (context.exchange) {
    case workloads::ContextExchange::ring:
      return write_ring(block, op, kernels, context, backward);
    case workloads::ContextExchange::gather:
      if (!backward) all_keys(CollectiveKind::all_gather);
      block.compute(kernels);
      if (backward) all_keys(CollectiveKind::reduce_scatter);
      return;
    case workloads::ContextExchange::all_to_all:
    case workloads::ContextExchange::all_to_all_and_ring:
      if (backward)
        exchange_heads(block, context, {op.attended});
      else
        exchange_heads(block, context, {op.queries, op.keys, op.values});
      if (op.ring_steps > 1)
        write_ring(block, op, kernels, context, backward);
      else
        block.compute(kernels);
      if (backward)
        exchange_heads(block, context, {op.queries, op.keys, op.values});
      else
        exchange_heads(block, context, {op.attended});
  }
}

void write_operator(BlockWriter& block, const Operator& op, const std::vector<sim::Kernel>& kernels,
                    const LayerCommunication& with, const Beside& beside = nullptr) {
  const auto& tensor = with.tensor;
  if (op.role == Role::dispatch || op.role == Role::combine) {
    const bool towards = op.role == Role::dispatch;
    return write_tokens(block, op, kernels, with,
                        {.towards = towards, .reads_loads = with.host_reads_loads && towards, .beside = beside});
  }
  if (with.context && op.role == Role::attention) return write_attention(block, op, kernels, *with.context, false);
  if (gathers_input(op, with)) return gather_for(block, *tensor, op.divided, kernels);
  if (tensor && op.role == Role::row_linear) return reduce_from(block, *tensor, op.divided, kernels);
  if (with.exchange && op.awaits_exchange) block.wait_for(sim::set_of(with.exchange->stream));
  block.compute(kernels);
  loop(block, op.loop.forward, with.loop_forward);
  if (with.exchange && op.role == Role::exchange) exchange(block, with, op.exchanged);
}

// Kernels of operator `first` and of those behind it that read what it has gathered, if it runs in pieces with them;
// `next` becomes the first operator that is not among them.
std::vector<sim::Kernel> kernels_of_gather(const Layer& layer, std::size_t first, const LayerCommunication& with,
                                           std::size_t& next) {
  std::vector<sim::Kernel> kernels = layer.operators[first].forward;
  next = first + 1;
  if (!gathers_input(layer.operators[first], with) || with.tensor->pieces == 1) return kernels;
  for (; next < layer.operators.size() && layer.operators[next].shares_input; ++next) {
    const std::vector<sim::Kernel>& more = layer.operators[next].forward;
    kernels.insert(kernels.end(), more.begin(), more.end());
  }
  return kernels;
}

// The gradients of what an operator read, with what ranks exchange around them; false: it has no exchange of its own.
bool write_exchanged_gradient(BlockWriter& block, const Operator& op, const LayerCommunication& with,
                              const Beside& beside) {
  if (op.role == Role::dispatch || op.role == Role::combine) {
    write_tokens(block, op, op.input_gradient, with, {.towards = op.role == Role::combine, .beside = beside});
    return true;
  }
  if (!with.context || op.role != Role::attention) return false;
  write_attention(block, op, op.input_gradient, *with.context, true);
  return true;
}

// The gradient's collective of a column-parallel linear overlaps its weight gradient, the second gather of its input
// its input gradient.
void write_column_backward(BlockWriter& block, const Operator& op, const TensorCommunication& tensor) {
  const sim::StreamSet stream = sim::set_of(tensor.stream);
  const bool gathered = tensor.sequence_parallel;
  if (gathered && !tensor.gathers_inputs_again) {
    if (tensor.pieces > 1) {
      reduce_from(block, tensor, op.divided, op.input_gradient);
      block.compute(op.weight_gradient);
    } else {
      block.compute(op.input_gradient).compute(op.weight_gradient);
      blocking(block, tensor, CollectiveKind::reduce_scatter, op.divided);
    }
    return;
  }
  if (gathered)
    block.communicate(tensor.stream,
                      tensor_call(block, tensor, CollectiveKind::all_gather, gathered_bytes(tensor, op.divided)));
  block.compute(op.input_gradient);
  if (gathered) block.wait_for(stream);
  const CollectiveKind reduction = gathered ? CollectiveKind::reduce_scatter : CollectiveKind::all_reduce;
  block.communicate(tensor.stream, tensor_call(block, tensor, reduction, op.divided));
  if (!gathered && !tensor.overlaps_weight_gradients) block.wait_for(stream);
  block.compute(op.weight_gradient);
  block.wait_for(stream);
}

void write_operator_backward(BlockWriter& block, const Operator& op, const LayerCommunication& with,
                             const Beside& beside) {
  const auto& tensor = with.tensor;
  if (with.exchange && op.role == Role::exchange) block.wait_for(sim::set_of(with.exchange->stream));
  if (tensor && tensor->sequence_parallel && op.role == Role::row_linear) {
    gather_for(block, *tensor, op.divided, op.input_gradient);
    block.compute(op.weight_gradient);
  } else if (tensor && op.role == Role::column_linear && !op.shares_input) {
    write_column_backward(block, op, *tensor);
  } else if (!write_exchanged_gradient(block, op, with, beside)) {
    block.compute(op.input_gradient).compute(op.weight_gradient);
    loop(block, op.loop.input_gradient + op.loop.weight_gradient, with.loop_backward);
  }
  // Its gradient goes back to the ranks that looked the rows up.
  if (with.exchange && op.awaits_exchange) exchange(block, with, op.exchanged);
}

void write_input_gradient(BlockWriter& block, const Operator& op, const LayerCommunication& with,
                          const Beside& beside) {
  const auto& tensor = with.tensor;
  if (tensor && tensor->sequence_parallel && op.role == Role::row_linear)
    blocking(block, *tensor, CollectiveKind::all_gather, op.divided);
  if (!write_exchanged_gradient(block, op, with, beside)) {
    block.compute(op.input_gradient);
    loop(block, op.loop.input_gradient, with.loop_backward);
  }
  if (tensor && op.role == Role::column_linear && !op.shares_input)
    blocking(block, *tensor, tensor->sequence_parallel ? CollectiveKind::reduce_scatter : CollectiveKind::all_reduce,
             op.divided);
}

// Shared experts beside an exchange do without collectives in pieces (SharedExpertMLP turns user buffers off).
LayerCommunication in_one_piece(LayerCommunication with) {
  if (with.tensor) with.tensor->pieces = 1;
  return with;
}

// What goes beside `op`, if it is an exchange of tokens: the shared experts' operators, each written by `write`.
// Forward passes and backward ones alike take them in their own order.
template <class Write>
Beside beside_exchange(const Layer& layer, const Operator& op, const LayerCommunication& with, bool backward,
                       Write write) {
  if (op.role != Role::dispatch && op.role != Role::combine) return nullptr;
  return [&layer, &op, &with, backward, write] {
    const std::size_t count = layer.operators.size();
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t index = backward ? count - 1 - i : i;
      if (goes_beside(layer.operators[index], op, with)) write(index);
    }
  };
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
  write_forward(block, layer, all_operators(layer), with);
}

void write_forward(BlockWriter& block, const Layer& layer, OperatorRange range, const LayerCommunication& with) {
  for (std::size_t i = range.first; i < range.end;) {
    const Operator& op = layer.operators[i];
    if (goes_beside_exchange(op, with)) {
      ++i;
      continue;
    }
    const std::vector<sim::Kernel> kernels = kernels_of_gather(layer, i, with, i);
    write_operator(block, op, kernels, with, beside_exchange(layer, op, with, false, [&](std::size_t shared) {
                     write_operator(block, layer.operators[shared], layer.operators[shared].forward,
                                    in_one_piece(with));
                   }));
  }
}

void write_recompute(BlockWriter& block, const Layer& layer, const workloads::Recompute& recompute,
                     bool every_second_product, const LayerCommunication& with) {
  write_recompute(block, layer, all_operators(layer), recompute, every_second_product, with);
}

void write_recompute(BlockWriter& block, const Layer& layer, OperatorRange range, const workloads::Recompute& recompute,
                     bool every_second_product, const LayerCommunication& with) {
  // torchtitan's selective policy keeps what reductions made, but not what gathers did (torchtitan/models/llama3/infra/
  // parallelize.py, _save_list).
  const bool keeps_reductions = every_second_product && recompute.kind == workloads::Recompute::Kind::selective;
  const auto runs_again = [&](const Operator& op) { return layer.runs_again(op, recompute, every_second_product); };
  const bool exchanges_again = std::ranges::any_of(
      layer.operators, [&](const Operator& op) { return op.role == Role::dispatch && runs_again(op); });
  for (std::size_t i = range.first; i < range.end; ++i) {
    const Operator& op = layer.operators[i];
    if (exchanges_again && goes_beside_exchange(op, with)) continue;
    if (runs_again(op)) {
      if (keeps_reductions && with.tensor && op.role == Role::row_linear)
        block.compute(again(op.forward));
      else
        write_operator(block, op, again(op.forward), with,
                       beside_exchange(layer, op, with, false, [&](std::size_t shared) {
                         write_operator(block, layer.operators[shared], again(layer.operators[shared].forward),
                                        in_one_piece(with));
                       }));
    } else if (keeps_reductions && gathers_input(op, with)) {
      blocking(block, *with.tensor, CollectiveKind::all_gather, gathered_bytes(*with.tensor, op.divided));
    }
  }
}

void write_recompute(BlockWriter& block, const Layer& layer, const std::vector<bool>& runs_again,
                     const LayerCommunication& with) {
  for (std::size_t i = 0; i < layer.operators.size(); ++i)
    if (runs_again[i]) write_operator(block, layer.operators[i], again(layer.operators[i].forward), with);
}

void write_backward(BlockWriter& block, const Layer& layer, const LayerCommunication& with,
                    const AfterOperator& after) {
  write_backward(block, layer, all_operators(layer), with, after);
}

void write_backward(BlockWriter& block, const Layer& layer, OperatorRange range, const LayerCommunication& with,
                    const AfterOperator& after) {
  for (std::size_t i = range.end; i-- > range.first;) {
    const Operator& op = layer.operators[i];
    if (goes_beside_exchange(op, with)) continue;
    write_operator_backward(block, op, with, beside_exchange(layer, op, with, true, [&](std::size_t shared) {
                              write_operator_backward(block, layer.operators[shared], in_one_piece(with), nullptr);
                              if (after) after(block, shared);
                            }));
    if (after) after(block, i);
  }
}

void write_input_gradients(BlockWriter& block, const Layer& layer, const LayerCommunication& with) {
  for (std::size_t i = layer.operators.size(); i-- > 0;) {
    const Operator& op = layer.operators[i];
    if (goes_beside_exchange(op, with)) continue;
    write_input_gradient(block, op, with, beside_exchange(layer, op, with, true, [&](std::size_t shared) {
                           write_input_gradient(block, layer.operators[shared], with, nullptr);
                         }));
  }
}

void write_weight_gradients(BlockWriter& block, const Layer& layer, const LayerCommunication& with,
                            const AfterOperator& after) {
  const auto& tensor = with.tensor;
  for (std::size_t i = layer.operators.size(); i-- > 0;) {
    const Operator& op = layer.operators[i];
    if (op.weight_gradient.empty()) continue;
    if (gathers_input(op, with) && tensor->gathers_inputs_again)
      blocking(block, *tensor, CollectiveKind::all_gather, op.divided);
    block.compute(op.weight_gradient);
    loop(block, op.loop.weight_gradient, with.loop_backward);
    if (after) after(block, i);
  }
}

void write_loss_reductions(BlockWriter& block, const LayerCommunication& with) {
  if (!with.tensor) return;
  for (int i = 0; i < 3; ++i) blocking(block, *with.tensor, CollectiveKind::all_reduce, with.tensor->loss);
}

}  // namespace trainyard::strategies
