// The kernels of a layer with the tensor-parallel communication that Megatron puts around them.
#pragma once

#include <functional>
#include <optional>

#include "strategies/internal/plan_builder.hpp"
#include "workloads/layers.hpp"

namespace trainyard::strategies {

// Collectives over the tensor group, of what an operator reads or makes. Sources: NVIDIA/Megatron-LM
// megatron/core/tensor_parallel/layers.py and mappings.py.
struct TensorCommunication {
  sim::StreamId stream{};
  sim::SlotId slot{};
  bool sequence_parallel = false;
  bool overlaps_weight_gradients = true;  // else the gradient's all-reduce is exposed
  sim::Bytes loss{};                      // one number per token in 32 bits
};

// Results of tables that are divided over ranks: all-to-alls that go on beside compute until they are needed.
struct ExchangeCommunication {
  sim::StreamId stream{};
  sim::SlotId slot{};
};

struct LayerCommunication {
  std::optional<TensorCommunication> tensor = std::nullopt;
  std::optional<ExchangeCommunication> exchange = std::nullopt;
};

// Forward: column-parallel linears read the whole sequence, row-parallel ones leave partial sums; both exposed.
void write_forward(BlockWriter& block, const workloads::Layer& layer, const LayerCommunication& with = {});

// Backward in reverse: the gradient's collective of a column-parallel linear overlaps its weight gradient, the second
// gather of its input overlaps its input gradient. `after` is called behind each operator with its index.
using AfterOperator = std::function<void(BlockWriter&, std::size_t)>;
void write_backward(BlockWriter& block, const workloads::Layer& layer, const LayerCommunication& with,
                    const AfterOperator& after = {});

// Backward in two passes, for schedules that put others between them: nothing is left to hide collectives behind.
// Weight gradients of column-parallel linears gather the input again under sequence parallelism; the gathered gradients
// of row-parallel ones are kept.
void write_input_gradients(BlockWriter& block, const workloads::Layer& layer, const LayerCommunication& with);
void write_weight_gradients(BlockWriter& block, const workloads::Layer& layer, const LayerCommunication& with,
                            const AfterOperator& after = {});

// What recomputation runs again before the backward pass of a layer.
void write_recompute(BlockWriter& block, const workloads::Layer& layer, const workloads::Recompute& recompute,
                     bool every_second_product, const LayerCommunication& with);

// The head's loss needs three reductions over the tensor group: maximum, sum of exponentials, the target's logit.
void write_loss_reductions(BlockWriter& block, const LayerCommunication& with);

// Marks kernels as running again: they execute FLOP that are not the model's.
std::vector<sim::Kernel> again(std::vector<sim::Kernel> kernels);

}  // namespace trainyard::strategies
