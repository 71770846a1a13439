// A model expanded into kernels: what one device executes per layer, forward and backward, and what it keeps.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sim/plan.hpp"
#include "workloads/architecture.hpp"
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
  local,          // elementwise between a column and a row linear
  exchange,       // its results go to the ranks whose samples they are (tables divided over ranks)
  dispatch,       // tokens go to the ranks of their experts
  combine         // and what the experts made of them comes back
};

// How ranks that share a sequence let every query see every key. Each rank has two chunks of the sequence, i and
// 2c - 1 - i of 2c, so that a causal mask leaves all ranks the same work.
enum class ContextExchange : std::uint8_t {
  ring,                // keys and values go round; attention to those at hand runs meanwhile
  gather,              // every rank gets all keys and values
  all_to_all,          // heads are divided instead of tokens for the time of the attention (DeepSpeed-Ulysses, arXiv
                       // 2309.14509)
  all_to_all_and_ring  // heads among neighbours, and rings through what is left (arXiv 2405.07719)
};

// How tokens reach their experts on other ranks.
enum class TokenDispatcher : std::uint8_t {
  all_to_all,  // sorted by expert, one copy per expert; sorted again where a rank has several experts
  all_gather,  // every rank gets all tokens and keeps those of its experts
  fused        // kernels that copy a token once per rank or node that it goes to, without sorting before (DeepEP)
};

// Products over ranks that form a square or a cube: Y[M,N] = X[M,K] W[K,N], where every rank has a block of each
// matrix. Rows of X and Y are tokens. Columns, and with them the width of all that lies between products, are divided
// by the ranks along a side (Shard::tensor). Sources: SUMMA (van de Geijn and Watts 1997) as 2D (arXiv 2104.05343)
// and 2.5D (arXiv 2105.14500) tensor parallelism; 3D (arXiv 2105.14450).
enum class ProductGrid : std::uint8_t {
  none,
  summa,    // side^2 blocks of W; a product runs in as many steps as a side has ranks, on blocks of others as they are
  gathered  // side^3 blocks of W; X and W are gathered along a side each, Y is summed up and scattered along the third
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
  // Held per logit at the peak, which lies in the loss. Softmax in place: the 16-bit logits, later their gradient, and
  // a 32-bit copy.
  double logits_bytes = 6;
  // The softmax of causal attention without flash kernels reads only up to the diagonal.
  bool triangular_softmax = false;
  // The flash kernel wants the batch outermost: what the projection after it reads is a copy of its output, and both
  // stay.
  bool attention_output_copied = false;
  // With 8-bit products, linears keep the 8-bit casts of their inputs for the weight gradients, not the inputs.
  bool casts_saved = false;
  // Bytes per element that the product of a weight gradient writes; 0: as activations. Accumulating into 32-bit
  // gradients inside the product reads and writes 4 each.
  std::int64_t weight_gradient_bytes = 0;
  bool grouped_experts = true;      // all experts in one kernel; else one after the other
  bool sequential_experts = false;  // each a module of its own: so are its casts and its activation
  // A loop over experts launches what a grouped product stands for: see Operator::loop.
  bool experts_in_a_loop = false;
  // Biases of the experts' outputs are weighted by the tokens' probabilities and added in passes of their own.
  bool weighted_expert_bias = false;
  bool fused_permutation = true;  // of tokens; else masks are selected from and rows added up by scattering
  bool fused_router = true;
  bool fused_norm_relu = true;  // batch norm, addition and ReLU in one pass
};
KernelStyle fused_style();                                // Megatron's fused kernels, graph compilers
KernelStyle eager_style(const Model&);                    // PyTorch operator by operator
KernelStyle kernel_style(const Training&, const Model&);  // fused where a compiler does it

// What is on one device.
struct Shard {
  std::int64_t micro_batch = 1;  // samples
  std::int64_t tensor = 1;
  bool sequence_parallel = false;      // replicated operators work on 1/tensor of the tokens
  bool keeps_gathered_inputs = false;  // column linears keep the tokens of all, not only their rank's
  std::int64_t table_ranks = 1;        // over which embedding tables are divided
  std::int64_t context = 1;            // ranks that share a sequence: each has 1/context of its tokens
  ContextExchange context_exchange = ContextExchange::ring;
  std::int64_t context_heads = 1;  // with all_to_all_and_ring: of these ranks, those that heads are divided over
  std::int64_t expert = 1;         // ranks that share the experts: each has 1/expert of them
  std::int64_t expert_tensor = 1;  // ranks that share every expert: each has 1/expert_tensor of its width
  TokenDispatcher dispatcher = TokenDispatcher::all_to_all;
  bool dispatches_in_8_bits = false;     // with a scale in 32 bits per 128 values
  ProductGrid grid = ProductGrid::none;  // else `micro_batch` counts the samples that this rank has columns of
  std::int64_t vector_ranks = 1;         // on a grid: over which weights of norms and biases are divided
};

// What the host does for an operator in a loop over experts, beyond one launch per kernel: operators in the sense of
// eager PyTorch, which take tensors, make tensors and launch.
struct LoopOperators {
  std::int64_t forward = 0;
  std::int64_t input_gradient = 0;
  std::int64_t weight_gradient = 0;
};

struct Operator {
  std::string name;
  Role role = Role::replicated;
  Region region = Region::other;
  // What its forward pass is, and what made the input that it keeps, for recomputation by module.
  std::optional<Module> module;
  std::optional<Module> input_of;
  bool output_saved_selectively =
      false;  // every second matrix product and the attention: torchtitan's selective policy
  std::vector<sim::Kernel> forward;
  std::vector<sim::Kernel> input_gradient;
  std::vector<sim::Kernel> weight_gradient;
  sim::Bytes saved{};   // kept for backward when nothing is recomputed
  sim::Bytes remade{};  // of these, what `input_of` can compute again
  sim::Bytes scores{};  // of these, what core attention computes again under selective recomputation (Megatron)
  sim::Bytes output{};
  sim::Bytes divided{};          // of a column linear the whole input, of a row linear the whole output: what tensor
                                 // parallelism gathers or reduces
  bool shares_input = false;     // a column linear that reads what the one before it has gathered
  sim::Bytes exchanged{};        // what a rank sends and receives, roles `exchange`, `dispatch` and `combine`: of the
                                 // latter on the most loaded rank, one copy per token and expert
  bool awaits_exchange = false;  // the first that needs it
  sim::Bytes dispatched{};       // of `exchanged`, towards the experts: less where it goes in 8 bits
  sim::Bytes tokens_of_all{};    // roles `dispatch` and `combine`: the tokens of all ranks that share the experts
  // Of an attention over a sequence that ranks share, what this rank's tokens have.
  sim::Bytes queries{};
  sim::Bytes keys{};
  sim::Bytes values{};
  sim::Bytes attended{};           // outputs
  std::int64_t ring_steps = 1;     // the first so many kernels of either pass take the keys at hand, in turns
  bool of_experts = false;         // its parameters are divided over the ranks that share the experts
  bool of_shared_experts = false;  // those that all tokens pass
  LoopOperators loop{};
  // Of a product over a grid, or of a table's rows: the blocks that this rank has. The first kernels of every pass are
  // those of the steps: the copy of each block that is broadcast, and the product.
  struct Blocks {
    sim::Bytes input{};
    sim::Bytes weight{};
    sim::Bytes output{};
    bool transposed = false;  // W is kept as N x K
  };
  std::optional<Blocks> blocks;
  // On a grid, weights of norms, biases and positions: so many tensors, in all as much of them as its columns need.
  std::int64_t vector_count = 0;
  sim::Bytes vectors{};
  sim::Bytes statistics{};      // of a norm on a grid: a sum over the width for every token, in 32 bits
  std::int64_t parameters = 0;  // on this device
  std::int64_t trained = 0;     // of these, the ones with gradients and optimizer state
  sim::Bytes frozen{};          // bytes of the others
};

struct Layer {
  std::string name;
  std::vector<Operator> operators;
  sim::Bytes input{};     // of the layer, on this device
  sim::Bytes boundary{};  // its output, handed to the next layer, not divided by sequence parallelism
  std::int64_t parameters = 0;
  std::int64_t trained = 0;
  sim::Bytes frozen{};
  std::int64_t expert_trained = 0;  // of `trained`, those of experts

  sim::Bytes saved_bytes(const Recompute& recompute, bool every_second_product) const;
  // How many operators run again at most where recomputation ends with the last value that is kept for backward: a
  // matrix product keeps its input before it runs (set_checkpoint_early_stop in pytorch/pytorch
  // torch/utils/checkpoint.py).
  std::size_t operators_until_last_kept() const;
  // Whether `op` runs again in the backward pass.
  bool runs_again(const Operator& op, const Recompute& recompute, bool every_second_product) const;
};

struct Expansion {
  Layer embedding;
  std::vector<Layer> kinds;
  std::vector<std::uint32_t> kind_of;  // each layer's, in the order of the forward pass
  Layer head;                          // final norm, logits and loss

  std::int64_t layers() const { return static_cast<std::int64_t>(kind_of.size()); }
  const Layer& layer(std::int64_t index) const { return kinds[kind_of[static_cast<std::size_t>(index)]]; }
  // Of layers `from` to `from + count`.
  std::int64_t parameters(std::int64_t from, std::int64_t count) const;
  std::int64_t trained(std::int64_t from, std::int64_t count) const;
  std::int64_t expert_trained(std::int64_t from, std::int64_t count) const;
  sim::Bytes frozen(std::int64_t from, std::int64_t count) const;
};

Expansion expand(const Architecture& architecture, const Training& training, const Shard& shard,
                 const KernelStyle& style, const KernelCosts& costs);

// Bytes per parameter of Adafactor's second moments: a 32-bit sum per row and per column of every matrix, one per
// element of vectors.
double factored_moments(const Architecture& architecture);

// The optimizer step on `parameters` of this device: the gradients' norm, which ranks then sum up; clipping by it (the
// default of Megatron-LM, and usual elsewhere); one fused pass over the state. LAMB computes its update in a pass of
// its own, since layers scale it by their norms; Adafactor needs the sums of rows and columns first.
std::vector<sim::Kernel> optimizer_kernels(const Training& training, const StateBytes& state, std::int64_t parameters,
                                           const KernelCosts& costs);

}  // namespace trainyard::workloads
