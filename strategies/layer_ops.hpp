// The kernels of a layer with the communication that tensor, context and expert parallelism put around them.
#pragma once

#include <functional>
#include <optional>

#include "strategies/plan_builder.hpp"
#include "workloads/layers.hpp"

namespace trainyard::strategies {

// Collectives over the tensor group, of what an operator reads or makes. Sources: NVIDIA/Megatron-LM
// megatron/core/tensor_parallel/layers.py and mappings.py; pytorch/pytorch torch/distributed/tensor/parallel/style.py.
struct TensorCommunication {
  sim::StreamId stream{};
  sim::SlotId slot{};
  bool sequence_parallel = false;
  bool overlaps_weight_gradients = true;  // else the gradient's all-reduce is exposed
  sim::Bytes loss{};                      // one number per token in 32 bits
  // Sequence parallelism of Megatron-LM gathers the inputs of column-parallel linears again for their weight gradients,
  // and hides that and the reduction of input gradients behind products. PyTorch's DTensor keeps what it has gathered,
  // or has recomputation gather it, and hides nothing.
  bool gathers_inputs_again = true;
  // Inputs and gradients of outputs are gathered as 8-bit casts (PyTorch's float8 with scales of whole tensors;
  // NVIDIA/TransformerEngine transformer_engine/pytorch/distributed.py).
  bool gathers_in_8_bits = false;
  // Above 1 (as many as ranks): collectives that would be exposed, cut up together with their products.
  std::int64_t pieces = 1;
};

// Results of tables that are divided over ranks: all-to-alls that go on beside compute until they are needed.
struct ExchangeCommunication {
  sim::StreamId stream{};
  sim::SlotId slot{};
};

// Around the attention of a sequence that ranks share (workloads::ContextExchange). Sources: NVIDIA/TransformerEngine
// transformer_engine/pytorch/attention/dot_product_attention/context_parallel.py; pytorch/pytorch
// torch/distributed/tensor/experimental/_attention.py.
//   ring: in each of c - 1 steps keys and values go to the next rank and come from the previous one while attention to
//   those at hand runs; backward sends their gradients along, twice the bytes.
//   gather: all keys and values before, their gradients reduce-scattered behind the backward pass; exposed.
//   all_to_all: queries, keys, values and the output, each exposed; backward the same. With rings through what is left,
//   around those.
struct ContextCommunication {
  workloads::ContextExchange exchange = workloads::ContextExchange::ring;
  std::int64_t ranks = 1;
  sim::StreamId send{};     // of the ring; collectives too
  sim::StreamId receive{};  // of the ring
  sim::SlotId group{};      // ranks of the collectives
  sim::SlotId next{};       // in the ring
  sim::SlotId previous{};
  // PyTorch's ring, whose kernels are those of a ring however keys and values come: gradients of keys and values go
  // round on their own, from every step to the next, and behind the last one to the rank that they belong to.
  struct PytorchRing {
    bool gathers = true;              // keys and values of all come at once while the first step runs
    std::int64_t gradient_width = 2;  // bytes per byte of a key: they are summed up in 32 bits
  };
  std::optional<PytorchRing> pytorch_ring = std::nullopt;
};

// Around the experts, to their ranks and back; all exposed. Sources: NVIDIA/Megatron-LM
// megatron/core/transformer/moe/token_dispatcher.py; deepseek-ai/DeepEP.
struct ExpertCommunication {
  workloads::TokenDispatcher dispatcher = workloads::TokenDispatcher::all_to_all;
  sim::StreamId stream{};
  // Ranks that share the experts, if several; all_gather: or each of them; fused over several nodes: those of a node.
  std::optional<sim::SlotId> group = std::nullopt;
  std::optional<sim::SlotId> tensor = std::nullopt;  // ranks that share each expert, if several
  std::int64_t tensor_ranks = 1;
  // Fused dispatch: a token goes once to every node that has one of its experts, there to the rank with the same
  // position, and from that to every rank that has one; the two ways run side by side.
  struct Fused {
    sim::StreamId network{};                          // stream of what goes between nodes
    std::optional<sim::SlotId> nodes = std::nullopt;  // ranks at the same position of all nodes, if several nodes
    double copies_per_row = 1;                        // copies of a token to ranks, over its experts
    double node_copies_per_row = 1;                   // and to nodes
  };
  std::optional<Fused> fused = std::nullopt;
  // The shared experts' products go beside all-to-alls: the first ones and the activation beside the way to the
  // experts, the last one beside the way back. Megatron-LM gives them a stream of their own, on which they wait for all
  // that was issued before the exchange; products of two streams would take the device in turns, so the compute stream
  // runs them between sending and waiting (megatron/core/transformer/moe/shared_experts.py).
  bool overlaps_shared_experts = false;
};

struct LayerCommunication {
  std::optional<TensorCommunication> tensor = std::nullopt;
  std::optional<ExchangeCommunication> exchange = std::nullopt;
  std::optional<ContextCommunication> context = std::nullopt;
  std::optional<ExpertCommunication> expert = std::nullopt;
  // The host reads how many tokens each expert gets before it launches what is to be done with them: without a
  // capacity, sizes of products and of exchanges depend on it (megatron/core/transformer/moe/token_dispatcher.py).
  bool host_reads_loads = false;
  // What the host pays for each of workloads::LoopOperators.
  sim::Duration loop_forward{};
  sim::Duration loop_backward{};
};

// Some of a layer's operators, for frameworks that put something between them.
struct OperatorRange {
  std::size_t first = 0;
  std::size_t end = 0;
};
constexpr OperatorRange all_operators(const workloads::Layer& layer) { return {0, layer.operators.size()}; }

// Forward: column-parallel linears read the whole sequence, row-parallel ones leave partial sums; both exposed.
void write_forward(BlockWriter& block, const workloads::Layer& layer, const LayerCommunication& with = {});
void write_forward(BlockWriter& block, const workloads::Layer& layer, OperatorRange range,
                   const LayerCommunication& with);

// Backward in reverse: the gradient's collective of a column-parallel linear overlaps its weight gradient, the second
// gather of its input overlaps its input gradient. `after` is called behind each operator with its index.
using AfterOperator = std::function<void(BlockWriter&, std::size_t)>;
void write_backward(BlockWriter& block, const workloads::Layer& layer, const LayerCommunication& with,
                    const AfterOperator& after = {});
void write_backward(BlockWriter& block, const workloads::Layer& layer, OperatorRange range,
                    const LayerCommunication& with, const AfterOperator& after = {});

// Backward in two passes, for schedules that put others between them: nothing is left to hide collectives behind.
// Weight gradients of column-parallel linears gather the input again under sequence parallelism, if at all; the
// gathered gradients of row-parallel ones are kept.
void write_input_gradients(BlockWriter& block, const workloads::Layer& layer, const LayerCommunication& with);
void write_weight_gradients(BlockWriter& block, const workloads::Layer& layer, const LayerCommunication& with,
                            const AfterOperator& after = {});

// What recomputation runs again before the backward pass of a layer.
void write_recompute(BlockWriter& block, const workloads::Layer& layer, const workloads::Recompute& recompute,
                     bool every_second_product, const LayerCommunication& with);
void write_recompute(BlockWriter& block, const workloads::Layer& layer, OperatorRange range,
                     const workloads::Recompute& recompute, bool every_second_product, const LayerCommunication& with);
// The same where the operators that run again are known.
void write_recompute(BlockWriter& block, const workloads::Layer& layer, const std::vector<bool>& runs_again,
                     const LayerCommunication& with);

// The head's loss needs three reductions over the tensor group: maximum, sum of exponentials, the target's logit.
void write_loss_reductions(BlockWriter& block, const LayerCommunication& with);

// Marks kernels as running again: they execute FLOP that are not the model's.
std::vector<sim::Kernel> again(std::vector<sim::Kernel> kernels);

}  // namespace trainyard::strategies
