// How a model is trained: batch, numbers, optimizer, recomputation.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "sim/units.hpp"
#include "workloads/accelerator.hpp"

namespace trainyard::workloads {

enum class Optimizer : std::uint8_t { sgd, momentum, adam, adamw };
constexpr std::array<std::string_view, 4> optimizer_names{"sgd", "momentum", "adam", "adamw"};

enum class Recompute : std::uint8_t { none, selective, full };
constexpr std::array<std::string_view, 3> recompute_names{"none", "selective", "full"};
constexpr std::string_view to_string(Recompute recompute) {
  return recompute_names[static_cast<std::size_t>(recompute)];
}

enum class AttentionKernel : std::uint8_t { flash, unfused };

struct Training {
  std::int64_t global_batch = 0;            // sequences per optimizer step
  std::optional<std::int64_t> micro_batch;  // sequences per data-parallel rank per forward pass
  std::int64_t sequence = 0;                // tokens
  Precision precision = Precision::bf16;
  Optimizer optimizer = Optimizer::adamw;
  Recompute recompute = Recompute::none;
  AttentionKernel attention = AttentionKernel::flash;
  std::optional<Precision> gradient_precision;  // in which gradients are reduced; absent: the framework's
  bool compile = false;                         // fused, graph-compiled kernels
};

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
      return 1;
  }
  return 4;
}

// Persistent bytes per parameter. Mixed precision keeps 16-bit parameters for the model and a 32-bit master copy for
// the optimizer; where parameters are 32-bit themselves (fp32, tf32, autocast) there is no second copy.
struct StateBytes {
  std::int64_t parameter = 0;
  std::int64_t gradient = 0;
  std::int64_t master = 0;
  std::int64_t moments = 0;
  std::int64_t total() const { return parameter + gradient + master + moments; }
};
enum class StateLayout : std::uint8_t {
  master_weights,  // Megatron: 16-bit parameters, gradients in the reduction type, 32-bit master and moments
  full_precision,  // PyTorch autocast and FSDP mixed precision: everything in 32 bits, cast when used
};
StateBytes state_bytes(const Training& training, StateLayout layout, Precision gradient);

// Moments in 32 bits: Adam(W) two, momentum one, plain SGD none.
std::int64_t moment_bytes(Optimizer optimizer);

// Bytes that an optimizer step moves per parameter: it reads gradient, weights and moments and writes weights, moments
// and, with master weights, the 16-bit copy.
std::int64_t optimizer_traffic(const StateBytes& state);

}  // namespace trainyard::workloads
