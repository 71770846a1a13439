// Kernels of inference: products with weights in fewer bits, attention to a cache.
#include <algorithm>
#include <cmath>

#include "workloads/cost.hpp"
#include "workloads/training.hpp"

namespace trainyard::workloads {
namespace {

// Rows that one instruction of the tensor cores takes (m16n8k16 of mma, NVIDIA PTX ISA 9.7.14).
constexpr std::int64_t instruction_rows = 16;
// Up to here libraries have kernels whose tiles are as tall as the rows (cuBLAS; MARLIN, arXiv 2408.11743, section 3).
constexpr std::int64_t few_rows = 64;
// Bringing weights to 16 bits costs the products 0 to 20 % of their rate, by kernel and shape; the middle is used (an
// estimate).
constexpr double dequantising_rate = 0.9;

double padded(std::int64_t rows) {
  return static_cast<double>((rows + instruction_rows - 1) / instruction_rows * instruction_rows);
}

}  // namespace

double KernelCosts::stored_product_seconds(std::span<const Outputs> outputs, double k,
                                           const StoredWeights& weights) const {
  const double rate = peak(weights.arithmetic) * ramp(k) * (weights.dequantised ? dequantising_rate : 1);
  double elements = 0;
  double executed = 0;  // of few rows, with what pads them
  bool few = true;
  for (const Outputs& output : outputs) {
    const auto n = static_cast<double>(output.n) * static_cast<double>(output.count);
    elements += static_cast<double>(output.m) * n;
    executed += padded(output.m) * n;
    few = few && output.m <= few_rows;
  }
  if (elements == 0) return 0;
  const double tiled = 2 * elements * k / (rate * wave_efficiency(outputs));
  return few ? std::min(tiled, 2 * executed * k / rate) : tiled;
}

sim::Kernel KernelCosts::stored_gemm(std::string name, const Gemm& shape, const StoredWeights& weights) const {
  const auto m = static_cast<double>(shape.m);
  const auto n = static_cast<double>(shape.n);
  const auto k = static_cast<double>(shape.k);
  const auto input = static_cast<double>(element_bytes(weights.arithmetic));
  const auto output = static_cast<double>(activation_bytes(weights.arithmetic));
  const double bytes = input * m * k + weights.element_bytes * k * n + output * m * n;
  const Outputs outputs{.m = shape.m, .n = shape.n, .count = 1};
  double compute = stored_product_seconds({&outputs, 1}, k, weights);
  // Sums may be split where tiles are too few, as in gemm().
  const double slower = weights.dequantised ? 1 / dequantising_rate : 1;
  compute = std::min(compute, slower * product_seconds(2 * m * n * k, outputs, shape.k, weights.arithmetic));
  sim::Kernel kernel =
      finish(std::move(name), sim::KernelClass::matmul, std::max(compute, memory_seconds(bytes)), 2 * m * n * k, bytes);
  kernel.model_flops = kernel.flops;
  return kernel;
}

sim::Kernel KernelCosts::stored_grouped_gemm(std::string name, const GroupedGemm& shape,
                                             const StoredWeights& weights) const {
  const auto n = static_cast<double>(shape.n);
  const auto k = static_cast<double>(shape.k);
  const auto input = static_cast<double>(element_bytes(weights.arithmetic));
  const auto output = static_cast<double>(activation_bytes(weights.arithmetic));
  std::vector<Outputs> outputs;
  double flops = 0;
  double bytes = 0;
  for (const std::int64_t rows : shape.rows) {
    if (rows == 0) continue;  // its matrix is not read
    const auto m = static_cast<double>(rows);
    outputs.push_back({.m = rows, .n = shape.n, .count = 1});
    flops += 2 * m * n * k;
    bytes += weights.element_bytes * k * n + m * (input * k + output * n);
  }
  const double compute = stored_product_seconds(outputs, k, weights);
  sim::Kernel kernel =
      finish(std::move(name), sim::KernelClass::matmul, std::max(compute, memory_seconds(bytes)), flops, bytes);
  kernel.model_flops = kernel.flops;
  return kernel;
}

sim::Kernel KernelCosts::cached_attention(std::string name, const AttentionShape& shape, sim::Bytes cache,
                                          Precision precision, AttentionKernel kernel) const {
  const std::int64_t sharing = shape.heads / shape.kv_heads * shape.queries;  // queries per head of keys and values
  const auto width = static_cast<double>(shape.qk_dim + shape.v_dim);
  const auto sequences = static_cast<double>(shape.batch * shape.kv_heads);
  const auto keys = static_cast<double>(shape.keys);
  const double flops = 2 * sequences * static_cast<double>(sharing) * keys * width;
  const double executed = 2 * sequences * padded(sharing) * keys * width;
  const double queries = static_cast<double>(shape.batch * shape.queries * shape.heads) * width;
  const double bytes = static_cast<double>(cache.count) + queries * static_cast<double>(activation_bytes(precision));
  const double seconds = executed / forward_flash_rate(precision, kernel);
  sim::Kernel result =
      finish(std::move(name), sim::KernelClass::attention, std::max(seconds, memory_seconds(bytes)), flops, bytes);
  result.model_flops = result.flops;
  return result;
}

}  // namespace trainyard::workloads
