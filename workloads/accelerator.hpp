// What the compute cost model knows of a device. The figures come from the catalogue, each with its source there.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "sim/units.hpp"

namespace trainyard::workloads {

enum class Precision : std::uint8_t { fp32, tf32, fp16, bf16, fp8, int8 };
constexpr std::size_t precisions = 6;
constexpr std::size_t training_precisions = 5;  // the first so many; whole numbers only multiply in inference
constexpr std::array<std::string_view, precisions> precision_names{"fp32", "tf32", "fp16", "bf16", "fp8", "int8"};
constexpr std::string_view to_string(Precision precision) {
  return precision_names[static_cast<std::size_t>(precision)];
}

template <class Value>
using PerPrecision = std::array<Value, precisions>;

struct Accelerator {
  std::string name;
  std::string description;
  sim::Bytes memory{};  // what the driver exposes
  sim::BytesPerSecond memory_bandwidth{};
  sim::Bytes l2_cache{};
  std::int64_t sms = 0;
  PerPrecision<sim::FlopsPerSecond> peak{};  // dense; 0 where the device cannot
  PerPrecision<double> gemm_efficiency{};    // best achieved share of `peak`
  std::int64_t tile_rows = 0;                // of the output a thread block computes
  std::int64_t tile_columns = 0;
  std::int64_t half_k = 0;                  // inner dimension at which k/(k + half_k) is one half
  double attention_forward_efficiency = 0;  // flash kernels, head dimension 128, long sequences
  double attention_backward_efficiency = 0;
  // Of the generations of flash kernels by name, where the catalogue tells them apart.
  struct FlashKernels {
    double forward = 0;
    double backward = 0;
    bool known() const { return forward > 0; }
  };
  FlashKernels flash2;                       // FlashAttention-2, arXiv 2307.08691
  FlashKernels flash3;                       // FlashAttention-3, arXiv 2407.08608
  FlashKernels cudnn;                        // NVIDIA's own, as Transformer Engine calls it
  std::int64_t attention_half_sequence = 0;  // sequence at which s/(s + half_sequence) is one half
  double memory_efficiency = 0;              // streaming share of `memory_bandwidth`
  sim::Bytes memory_half_size{};             // bytes at which a memory-bound kernel reaches half of it
  sim::Duration kernel_latency{};            // the least that a kernel takes
  double power_w = 0;                        // that the part is built for; 0: not known
  double power_limit_w = 0;                  // that it is held to; 0: none

  // Of the clocks of parts of one type under load, as a share: their standard deviation. 0: all alike.
  double clock_spread = 0;

  // What the clock, and with it products and attention, keep below a power limit. Dynamic power grows with the clock
  // and the square of the voltage, which follows the clock: the clock goes with the cube root of the power. 700 W to
  // 500 W cost 10.6 %, where torchtitan's 500 W parts are about 10 % slower (an estimate).
  double clock_share() const;

  // Of `devices` parts that wait for each other step by step, the slowest sets the pace: the expected largest of so
  // many normal deviates (Blom's approximation, Statistical Estimates and Transformed Beta-Variables, 1958) times the
  // spread.
  double slowest_clock(std::int64_t devices) const;

  bool supports(Precision precision) const { return peak[static_cast<std::size_t>(precision)].count > 0; }
};

}  // namespace trainyard::workloads
