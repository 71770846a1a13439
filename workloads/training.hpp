// How a model is trained: batch, numbers, optimizer, what is trained of it, recomputation.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sim/units.hpp"
#include "workloads/accelerator.hpp"

namespace trainyard::workloads {

enum class Optimizer : std::uint8_t { sgd, momentum, adam, adamw, adafactor, adam8bit, lamb };
constexpr std::array<std::string_view, 7> optimizer_names{"sgd",       "momentum", "adam", "adamw",
                                                          "adafactor", "adam8bit", "lamb"};

// Parts of a layer whose results can be dropped and computed again, by the names of Megatron-LM's recompute_modules.
enum class Module : std::uint8_t { core_attention, layer_norm, activation, mla_up_projection, mlp, moe };
constexpr std::array<std::string_view, 6> module_names{"core_attn",   "layernorm", "moe_act",
                                                       "mla_up_proj", "mlp",       "moe"};

// What backward passes compute again instead of keeping it.
struct Recompute {
  enum class Kind : std::uint8_t { none, selective, full, modules };
  Kind kind = Kind::none;
  std::int64_t every = 1;            // full: the inputs of every so many-th layer are kept
  std::vector<Module> modules = {};  // modules: these

  bool none() const { return kind == Kind::none; }
  bool full() const { return kind == Kind::full; }
  bool has(Module module) const;
  bool operator==(const Recompute&) const = default;
};
constexpr std::array<std::string_view, 3> recompute_names{"none", "selective", "full"};
std::string to_string(const Recompute& recompute);  // as a scenario has it

// `flash` is the generation that the accelerator's measurements are of.
enum class AttentionKernel : std::uint8_t { flash, unfused, flash2, flash3, cudnn };
constexpr std::array<std::string_view, 5> attention_names{"flash", "unfused", "flash2", "flash3", "cudnn"};

// How 8-bit products are scaled, and hence what a cast reads and writes beside the values.
enum class Fp8Recipe : std::uint8_t { delayed, tensorwise, rowwise, blockwise, mxfp8 };
constexpr std::array<std::string_view, 5> fp8_recipe_names{"delayed", "tensorwise", "rowwise", "blockwise", "mxfp8"};

// Low-rank adapters (LoRA, arXiv 2106.09685) beside frozen matrices, which QLoRA (arXiv 2305.14314) keeps in 4 bits.
struct Adapters {
  std::int64_t rank = 16;
  std::vector<std::string> targets = {};  // as LinearWork::Part::name; empty: all linear layers of the transformer
  bool quantized = false;
  bool on(std::string_view part) const;
};

// Which experts tokens go to.
struct ExpertRouting {
  std::optional<double> capacity_factor;  // tokens above it are dropped, buffers padded to it; absent: dropless
  double imbalance = 1;                   // load of the most loaded expert over the mean
  std::optional<double> dirichlet;        // instead: shares drawn with this concentration
  std::int64_t seed = 1;
};

// How kernels come about: what the host pays for each, and which of them are fused.
enum class Backend : std::uint8_t {
  eager,       // operator by operator
  compiled,    // fused kernels, launched one by one (torch.compile)
  cuda_graph,  // the eager kernels, recorded once and replayed
  graph,       // the eager kernels, launched one by one by an executor without Python (TensorFlow)
  xla          // fused kernels in one program per step
};
constexpr std::array<std::string_view, 5> backend_names{"eager", "compiled", "cuda-graph", "graph", "xla"};
constexpr bool fuses_kernels(Backend backend) { return backend == Backend::compiled || backend == Backend::xla; }

struct Training {
  std::int64_t global_batch = 0;            // sequences (samples) per optimizer step
  std::optional<std::int64_t> micro_batch;  // sequences per data-parallel rank per forward pass
  std::int64_t sequence = 0;                // tokens; 0 for images and recommendation
  std::vector<std::int64_t> documents;      // packed into a sequence: see AttentionWork
  Precision precision = Precision::bf16;
  Fp8Recipe fp8_recipe = Fp8Recipe::tensorwise;
  Optimizer optimizer = Optimizer::adamw;
  bool master_weights = true;  // 32-bit copies of 16-bit parameters for the optimizer
  Recompute recompute;
  bool automatic_recompute = false;          // the least that fits; `recompute` is what was chosen
  bool activation_offload = false;           // kept activations go to host memory between forward and backward
  std::optional<AttentionKernel> attention;  // absent: the framework's, flash with most
  std::optional<Adapters> adapters;
  ExpertRouting routing;
  std::optional<Precision> gradient_precision;  // in which gradients are reduced; absent: the framework's
  std::optional<Backend> backend;               // absent: the framework's, eager with most
};
inline bool fuses_kernels(const Training& training) { return training.backend && fuses_kernels(*training.backend); }

// Bytes of an activation element: fp8 recipes keep activations in 16 bits and cast at the matrix products.
constexpr std::int64_t activation_bytes(Precision precision) {
  return precision == Precision::fp32 || precision == Precision::tf32 ? 4 : 2;
}
constexpr std::int64_t element_bytes(Precision precision) {
  switch (precision) {
    case Precision::fp32:
    case Precision::tf32:
      return 4;
    case Precision::fp16:
    case Precision::bf16:
      return 2;
    case Precision::fp8:
    case Precision::int8:
      return 1;
  }
  return 4;
}

// Persistent bytes per trained parameter. Mixed precision keeps 16-bit parameters for the model and a 32-bit master
// copy for the optimizer; where parameters are 32-bit themselves (fp32, tf32, autocast) there is no second copy.
struct StateBytes {
  std::int64_t parameter = 0;
  std::int64_t gradient = 0;
  std::int64_t master = 0;
  double moments = 0;  // a fraction where they are blocks of 8 bits with scales, or factored
  double total() const { return static_cast<double>(parameter + gradient + master) + moments; }
  sim::Bytes optimizer(std::int64_t parameters) const;  // master copy and moments
};
enum class StateLayout : std::uint8_t {
  master_weights,  // Megatron: 16-bit parameters, gradients in the reduction type, 32-bit master and moments
  full_precision,  // PyTorch autocast and FSDP mixed precision: everything in 32 bits, cast when used
};
// `factored`: bytes per parameter of Adafactor's row and column sums, see factored_moments().
StateBytes state_bytes(const Training& training, StateLayout layout, Precision gradient, double factored = 0);

// Moments per parameter. In 32 bits Adam(W) and LAMB have two, momentum one, plain SGD none; 8-bit Adam two of a byte
// with a 32-bit scale per 256 of each (bitsandbytes, arXiv 2110.02861), Adafactor those of rows and columns
// (arXiv 1804.04235). Without master weights they are as wide as the parameters.
double moment_bytes(const Training& training, double factored);

// Bytes of a frozen parameter: 16 bits, or NF4 with doubly quantised scales: 4.127 bits (QLoRA, arXiv 2305.14314).
constexpr double nf4_bytes = 4.127 / 8;

// Bytes that an optimizer step moves per parameter: it reads gradient, weights and moments and writes weights, moments
// and, with master weights, the 16-bit copy.
double optimizer_traffic(const StateBytes& state);

}  // namespace trainyard::workloads
