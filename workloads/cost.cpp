#include "workloads/cost.hpp"

#include <algorithm>
#include <cmath>

#include "workloads/training.hpp"

namespace trainyard::workloads {
namespace {

std::int64_t tiles_along(std::int64_t size, std::int64_t tile) { return (size + tile - 1) / tile; }

}  // namespace

sim::Kernel KernelCosts::finish(std::string name, sim::KernelClass kind, double seconds, double flops,
                                double bytes) const {
  sim::Kernel kernel;
  kernel.name = std::move(name);
  kernel.kind = kind;
  kernel.duration = std::max(sim::from_seconds(seconds), accelerator_.kernel_latency);
  kernel.flops = {static_cast<std::int64_t>(flops)};
  kernel.bytes = {static_cast<std::int64_t>(bytes)};
  return kernel;
}

double KernelCosts::memory_seconds(double bytes) const {
  // eff(bytes) = best x bytes / (bytes + half), so the time is linear in the bytes with a constant start.
  const double rate = static_cast<double>(accelerator_.memory_bandwidth.count) * accelerator_.memory_efficiency;
  return (bytes + static_cast<double>(accelerator_.memory_half_size.count)) / rate;
}

double KernelCosts::gemm_efficiency(const Gemm& shape, Precision precision) const {
  // Libraries choose among tile shapes; the tile and its transpose are the two that matter for skewed outputs.
  const auto quantised = [&](std::int64_t rows, std::int64_t columns) {
    const std::int64_t along_m = tiles_along(shape.m, rows);
    const std::int64_t along_n = tiles_along(shape.n, columns);
    const double tiles = static_cast<double>(along_m) * static_cast<double>(along_n) * static_cast<double>(shape.batch);
    const auto sms = static_cast<double>(accelerator_.sms);
    const double waves = std::ceil(tiles / sms);
    const double used = static_cast<double>(shape.m) * static_cast<double>(shape.n) /
                        (static_cast<double>(along_m * rows) * static_cast<double>(along_n * columns));
    return tiles / (waves * sms) * used;
  };
  const std::int64_t rows = accelerator_.tile_rows;
  const std::int64_t columns = accelerator_.tile_columns;
  // Half-size tiles quantise finer, but reuse less of what they load; how much that costs is an estimate.
  constexpr double half_tile_penalty = 0.85;
  const double wave =
      std::max({quantised(rows, columns), quantised(columns, rows), half_tile_penalty * quantised(columns, columns),
                half_tile_penalty * half_tile_penalty * quantised(columns, columns / 2)});
  const auto k = static_cast<double>(shape.k);
  const double ramp = k / (k + static_cast<double>(accelerator_.half_k));
  return accelerator_.gemm_efficiency[static_cast<std::size_t>(precision)] * wave * ramp;
}

sim::Kernel KernelCosts::gemm(std::string name, const Gemm& shape, Precision precision) const {
  const auto m = static_cast<double>(shape.m);
  const auto n = static_cast<double>(shape.n);
  const auto k = static_cast<double>(shape.k);
  const auto batch = static_cast<double>(shape.batch);
  const auto input = static_cast<double>(element_bytes(precision));
  const double output = shape.output_bytes > 0 ? static_cast<double>(shape.output_bytes)
                                               : static_cast<double>(activation_bytes(precision));
  const double flops = 2 * m * n * k * batch;
  const double bytes = batch * (input * (m * k + k * n) + output * m * n);
  const double peak = static_cast<double>(accelerator_.peak[static_cast<std::size_t>(precision)].count);
  const double compute = flops / (peak * gemm_efficiency(shape, precision));
  sim::Kernel kernel =
      finish(std::move(name), sim::KernelClass::matmul, std::max(compute, memory_seconds(bytes)), flops, bytes);
  kernel.model_flops = kernel.flops;
  return kernel;
}

sim::Kernel KernelCosts::memory_bound(std::string name, sim::Bytes bytes, sim::KernelClass kind) const {
  const auto amount = static_cast<double>(bytes.count);
  return finish(std::move(name), kind, memory_seconds(amount), 0, amount);
}

double KernelCosts::attention_shape_factor(const AttentionShape& shape) const {
  const auto sequence = static_cast<double>(shape.sequence);
  const double ramp = sequence / (sequence + static_cast<double>(accelerator_.attention_half_sequence));
  // Head dimension 64 costs 15 to 25 % against 128 (FlashAttention-2, arXiv 2307.08691, figures 4 to 6).
  const double head = std::min(1.0, 0.6 + 0.4 * static_cast<double>(shape.head_dim) / 128.0);
  // Thread blocks take 128 queries each (FlashAttention-2, arXiv 2307.08691, section 3.3).
  const double blocks = static_cast<double>(shape.batch * shape.heads * tiles_along(shape.sequence, 128));
  const auto sms = static_cast<double>(accelerator_.sms);
  const double wave = blocks / (std::ceil(blocks / sms) * sms);
  return ramp * head * wave;
}

sim::Kernel KernelCosts::flash(std::string name, const AttentionShape& shape, const FlashWork& work,
                               Precision precision) const {
  const auto sequence = static_cast<double>(shape.sequence);
  // 4 b s^2 a d in full, half of it under a causal mask.
  const double forward =
      2.0 * static_cast<double>(shape.batch) * sequence * sequence * static_cast<double>(shape.heads * shape.head_dim);
  const double executed = forward * work.executed;
  const double bytes =
      work.passes * static_cast<double>(shape.batch * shape.sequence * shape.head_dim *
                                        (2 * shape.heads + 2 * shape.kv_heads) * activation_bytes(precision));
  const Precision compute = precision == Precision::fp8 ? Precision::bf16 : precision;
  const double peak = static_cast<double>(accelerator_.peak[static_cast<std::size_t>(compute)].count);
  const double seconds = executed / (peak * work.efficiency * attention_shape_factor(shape));
  sim::Kernel kernel =
      finish(std::move(name), sim::KernelClass::attention, std::max(seconds, memory_seconds(bytes)), executed, bytes);
  kernel.model_flops = {static_cast<std::int64_t>(forward * work.model)};
  return kernel;
}

sim::Kernel KernelCosts::flash_forward(std::string name, const AttentionShape& shape, Precision precision) const {
  return flash(std::move(name), shape,
               {.executed = 1, .model = 1, .passes = 1, .efficiency = accelerator_.attention_forward_efficiency},
               precision);
}

// It also reads and writes the gradients of all that forward read and wrote.
sim::Kernel KernelCosts::flash_backward(std::string name, const AttentionShape& shape, Precision precision) const {
  return flash(std::move(name), shape,
               {.executed = 2.5, .model = 2, .passes = 2, .efficiency = accelerator_.attention_backward_efficiency},
               precision);
}

}  // namespace trainyard::workloads
