#include "workloads/cost.hpp"

#include <algorithm>
#include <cmath>

#include "workloads/training.hpp"

namespace trainyard::workloads {
namespace {

// Efficiencies of the generation of flash kernels that the training names, or the device's usual ones.
Accelerator::FlashKernels flash_kernels(const Accelerator& accelerator, AttentionKernel kernel) {
  if (kernel == AttentionKernel::flash2 && accelerator.flash2.known()) return accelerator.flash2;
  if (kernel == AttentionKernel::flash3 && accelerator.flash3.known()) return accelerator.flash3;
  if (kernel == AttentionKernel::cudnn && accelerator.cudnn.known()) return accelerator.cudnn;
  return {.forward = accelerator.attention_forward_efficiency, .backward = accelerator.attention_backward_efficiency};
}

std::int64_t tiles_along(std::int64_t size, std::int64_t tile) { return (size + tile - 1) / tile; }

}  // namespace

double Accelerator::clock_share() const {
  if (power_w <= 0 || power_limit_w <= 0 || power_limit_w >= power_w) return 1;
  return std::cbrt(power_limit_w / power_w);
}

namespace {

// Where the standard normal distribution reaches `share`, by bisection.
double normal_quantile(double share) {
  double low = -10;
  double high = 10;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (std::erfc(-middle / std::sqrt(2.0)) / 2 < share ? low : high) = middle;
  }
  return low;
}

}  // namespace

double Accelerator::slowest_clock(std::int64_t devices) const {
  if (devices <= 1 || clock_spread <= 0) return 1;
  const auto n = static_cast<double>(devices);
  return 1 / (1 + clock_spread * normal_quantile((n - 0.375) / (n + 0.25)));
}

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

double KernelCosts::wave_efficiency(std::span<const Outputs> outputs) const {
  // Libraries choose among tile shapes; the tile and its transpose are the two that matter for skewed outputs.
  const auto quantised = [&](std::int64_t rows, std::int64_t columns) {
    double tiles = 0;
    double used = 0;
    for (const Outputs& output : outputs) {
      const std::int64_t along_m = tiles_along(output.m, rows);
      const std::int64_t along_n = tiles_along(output.n, columns);
      const auto count = static_cast<double>(output.count);
      tiles += static_cast<double>(along_m) * static_cast<double>(along_n) * count;
      used += static_cast<double>(output.m) * static_cast<double>(output.n) * count;
    }
    if (tiles == 0) return 1.0;
    const auto sms = static_cast<double>(accelerator_.sms);
    const double waves = std::ceil(tiles / sms);
    return used / (waves * sms * static_cast<double>(rows * columns));
  };
  const std::int64_t rows = accelerator_.tile_rows;
  const std::int64_t columns = accelerator_.tile_columns;
  // Half-size tiles quantise finer, but reuse less of what they load; how much that costs is an estimate.
  constexpr double half_tile_penalty = 0.85;
  const double best =
      std::max({quantised(rows, columns), quantised(columns, rows), half_tile_penalty * quantised(columns, columns),
                half_tile_penalty * half_tile_penalty * quantised(columns, columns / 2)});
  // Thin outputs (adapters, routers) have tiles of their own, narrower by a factor of two once more.
  const bool thin =
      std::ranges::all_of(outputs, [&](const Outputs& output) { return std::min(output.m, output.n) * 2 <= columns; });
  if (!thin) return best;
  constexpr double thin_penalty = half_tile_penalty * half_tile_penalty * half_tile_penalty;
  const std::int64_t narrow = std::max<std::int64_t>(1, columns / 4);
  return std::max({best, thin_penalty * quantised(columns, narrow), thin_penalty * quantised(narrow, columns)});
}

double KernelCosts::ramp(double k) const { return k / (k + static_cast<double>(accelerator_.half_k)); }

double KernelCosts::peak(Precision precision) const {
  return clock_ * static_cast<double>(accelerator_.peak[static_cast<std::size_t>(precision)].count) *
         accelerator_.gemm_efficiency[static_cast<std::size_t>(precision)];
}

double KernelCosts::product_seconds(double flops, const Outputs& outputs, std::int64_t k, Precision precision) const {
  const double elements =
      static_cast<double>(outputs.m) * static_cast<double>(outputs.n) * static_cast<double>(outputs.count);
  double best = 0;
  for (std::int64_t parts = 1; parts <= 64; parts *= 2) {
    Outputs split = outputs;
    split.count *= parts;
    const double partial_sums = parts == 1 ? 0 : memory_seconds(2 * 4 * elements * static_cast<double>(parts));
    const double inner = static_cast<double>(k) / static_cast<double>(parts);
    const double seconds = flops / (peak(precision) * wave_efficiency({&split, 1}) * ramp(inner)) + partial_sums;
    if (parts == 1 || seconds < best) best = seconds;
  }
  return best;
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
  const double first = shape.input_elements > 0 ? static_cast<double>(shape.input_elements) : m * k;
  const double bytes = batch * (input * (first + k * n) + output * m * n);
  const double compute = product_seconds(flops, {.m = shape.m, .n = shape.n, .count = shape.batch}, shape.k, precision);
  sim::Kernel kernel =
      finish(std::move(name), sim::KernelClass::matmul, std::max(compute, memory_seconds(bytes)), flops, bytes);
  kernel.model_flops = kernel.flops;
  return kernel;
}

sim::Kernel KernelCosts::grouped_gemm(std::string name, const GroupedGemm& shape, Precision precision) const {
  const auto n = static_cast<double>(shape.n);
  const auto k = static_cast<double>(shape.k);
  const auto input = static_cast<double>(element_bytes(precision));
  const double output = shape.output_bytes > 0 ? static_cast<double>(shape.output_bytes)
                                               : static_cast<double>(activation_bytes(precision));
  std::vector<Outputs> outputs;
  double flops = 0;
  double bytes = 0;
  double weighted_k = 0;  // by FLOP: how long the inner sums are where the work is
  for (const std::int64_t rows : shape.rows) {
    const auto m = static_cast<double>(rows);
    if (rows > 0) outputs.push_back({.m = shape.weight_gradient ? shape.k : rows, .n = shape.n, .count = 1});
    flops += 2 * m * n * k;
    weighted_k += 2 * m * n * k * (shape.weight_gradient ? m : k);
    // A gradient is written for experts without tokens too.
    bytes += shape.weight_gradient ? input * m * (n + k) + output * k * n
                                   : (rows > 0 ? input * k * n : 0) + m * (input * k + output * n);
  }
  const double inner = flops > 0 ? weighted_k / flops : k;
  const double compute = flops / (peak(precision) * wave_efficiency(outputs) * ramp(inner));
  sim::Kernel kernel =
      finish(std::move(name), sim::KernelClass::matmul, std::max(compute, memory_seconds(bytes)), flops, bytes);
  kernel.model_flops = kernel.flops;
  return kernel;
}

sim::Kernel KernelCosts::gather(std::string name, sim::Bytes bytes, sim::Bytes row_bytes) const {
  constexpr double half_row = 512;
  const auto amount = static_cast<double>(bytes.count);
  const auto row = static_cast<double>(row_bytes.count);
  return finish(std::move(name), sim::KernelClass::memory_bound, memory_seconds(amount * (row + half_row) / row), 0,
                amount);
}

sim::Kernel KernelCosts::memory_bound(std::string name, sim::Bytes bytes, sim::KernelClass kind) const {
  const auto amount = static_cast<double>(bytes.count);
  return finish(std::move(name), kind, memory_seconds(amount), 0, amount);
}

double KernelCosts::attention_shape_factor(const AttentionShape& shape) const {
  const auto span = static_cast<double>(shape.span);
  const double ramp = span / (span + static_cast<double>(accelerator_.attention_half_sequence));
  // Head dimension 64 costs 15 to 25 % against 128 (FlashAttention-2, arXiv 2307.08691, figures 4 to 6).
  const double head = std::min(1.0, 0.6 + 0.4 * static_cast<double>(shape.qk_dim + shape.v_dim) / 256.0);
  // Thread blocks take 128 queries each (FlashAttention-2, arXiv 2307.08691, section 3.3).
  const double blocks = static_cast<double>(shape.batch * shape.heads * tiles_along(shape.queries, 128));
  const auto sms = static_cast<double>(accelerator_.sms);
  const double wave = blocks / (std::ceil(blocks / sms) * sms);
  return ramp * head * wave;
}

double KernelCosts::flash_rate(Precision precision, double efficiency) const {
  const Precision compute = precision == Precision::fp8 ? Precision::bf16 : precision;
  return clock_ * static_cast<double>(accelerator_.peak[static_cast<std::size_t>(compute)].count) * efficiency;
}

double KernelCosts::forward_flash_rate(Precision precision, AttentionKernel kernel) const {
  return flash_rate(precision, flash_kernels(accelerator_, kernel).forward);
}

sim::Kernel KernelCosts::flash(std::string name, const AttentionShape& shape, const FlashWork& work,
                               Precision precision) const {
  const double products = 2 * static_cast<double>(shape.batch) * shape.pairs * static_cast<double>(shape.heads);
  const double forward = products * static_cast<double>(shape.qk_dim + shape.v_dim);
  const double executed =
      products * (work.qk * static_cast<double>(shape.qk_dim) + work.v * static_cast<double>(shape.v_dim));
  const std::int64_t elements = shape.queries * shape.heads * (shape.qk_dim + shape.v_dim) +
                                shape.keys * shape.kv_heads * (shape.qk_dim + shape.v_dim);
  const double bytes = work.passes * static_cast<double>(shape.batch * elements * activation_bytes(precision));
  const double seconds = executed / (flash_rate(precision, work.efficiency) * attention_shape_factor(shape));
  sim::Kernel kernel =
      finish(std::move(name), sim::KernelClass::attention, std::max(seconds, memory_seconds(bytes)), executed, bytes);
  kernel.model_flops = {static_cast<std::int64_t>(forward * work.model)};
  return kernel;
}

sim::Kernel KernelCosts::flash_forward(std::string name, const AttentionShape& shape, Precision precision,
                                       AttentionKernel kernel) const {
  return flash(std::move(name), shape,
               {.qk = 1, .v = 1, .model = 1, .passes = 1, .efficiency = flash_kernels(accelerator_, kernel).forward},
               precision);
}

// It also reads and writes the gradients of all that forward read and wrote.
sim::Kernel KernelCosts::flash_backward(std::string name, const AttentionShape& shape, Precision precision,
                                        AttentionKernel kernel) const {
  return flash(std::move(name), shape,
               {.qk = 3, .v = 2, .model = 2, .passes = 2, .efficiency = flash_kernels(accelerator_, kernel).backward},
               precision);
}

}  // namespace trainyard::workloads
