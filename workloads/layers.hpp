// A model expanded into kernels: what one device executes per layer, forward and backward, and what it keeps.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sim/plan.hpp"
#include "workloads/cost.hpp"
#include "workloads/model.hpp"
#include "workloads/training.hpp"

namespace trainyard::workloads {

// Where an operator stands towards tensor parallelism; strategies put communication around it accordingly.
enum class Role : std::uint8_t {
  replicated,     // norms, residuals, dropout: on every rank, or on its part of the sequence
  column_linear,  // output features divided
  row_linear,     // input features divided; its output is a partial sum
  attention,      // heads divided
  local           // elementwise between a column and a row linear
};

// How a framework's kernels are fused. `passes` count how often a tensor element crosses the memory bus.
struct KernelStyle {
  bool split_projections = false;       // query, key, value (and gate, up) as matrix products of their own
  double norm_forward_passes = 2;       // of the hidden activations: one read and one write when fused
  double norm_backward_passes = 5;      // gradients of the input (3) and, in a kernel of their own, of the weights (2)
  double activation_forward_scale = 1;  // on the traffic of a fused activation
  double activation_backward_scale = 1;
  double rope_passes = 2;
  // Cross entropy, per logit. Fused: forward reads 16 bits and writes 32, backward reads those and writes 16.
  double loss_forward_bytes = 6;
  double loss_backward_bytes = 6;
  double logits_saved_bytes = 6;  // kept from forward to backward per logit: 16-bit and 32-bit copies
  // Bytes per element that the product of a weight gradient writes; 0: as activations. Accumulating into 32-bit
  // gradients inside the product reads and writes 4 each.
  std::int64_t weight_gradient_bytes = 0;
};
KernelStyle fused_style();              // Megatron's fused kernels, graph compilers
KernelStyle eager_style(const Model&);  // PyTorch operator by operator

// What is on one device.
struct Shard {
  std::int64_t micro_batch = 1;  // sequences
  std::int64_t sequence = 1;     // tokens of each
  std::int64_t tensor = 1;
  bool sequence_parallel = false;  // replicated operators work on 1/tensor of the tokens
  std::int64_t tokens() const { return micro_batch * sequence; }
  std::int64_t replicated_tokens() const { return sequence_parallel ? tokens() / tensor : tokens(); }
};

struct Operator {
  std::string name;
  Role role = Role::replicated;
  bool core_attention = false;  // what Megatron's selective recomputation runs again
  bool output_saved_selectively =
      false;  // every second matrix product and the attention: torchtitan's selective policy
  std::vector<sim::Kernel> forward;
  std::vector<sim::Kernel> input_gradient;
  std::vector<sim::Kernel> weight_gradient;
  sim::Bytes saved{};   // kept for backward when nothing is recomputed
  sim::Bytes scores{};  // of these, what core attention computes again under selective recomputation (Megatron)
  sim::Bytes output{};
  std::int64_t parameters = 0;  // on this device
};

struct Layer {
  std::vector<Operator> operators;
  sim::Bytes input{};  // of the layer, on this device
  std::int64_t parameters = 0;

  sim::Bytes saved_bytes(Recompute recompute, bool every_second_product) const;
};

struct Expansion {
  Layer layer;  // all layers of a decoder are alike
  Layer embedding;
  Layer head;             // final norm, logits and loss
  sim::Bytes boundary{};  // activations handed from layer to layer, not divided by sequence parallelism
};

// `vocab` is the padded one.
Expansion expand(const Model& model, const Training& training, const Shard& shard, std::int64_t vocab,
                 const KernelStyle& style, const KernelCosts& costs);

// The optimizer step on `parameters` of this device: the gradients' norm, which ranks then sum up; clipping by it (the
// default of Megatron-LM, and usual elsewhere); one fused pass over the state.
std::vector<sim::Kernel> optimizer_kernels(const StateBytes& state, std::int64_t parameters, const KernelCosts& costs);

}  // namespace trainyard::workloads
