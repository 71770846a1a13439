#include "strategies/internal/megatron_style.hpp"

#include <string>

#include "strategies/checks.hpp"

namespace trainyard::strategies {

workloads::KernelStyle megatron_style(bool attention_output_copied, std::int64_t weight_gradient_bytes) {
  workloads::KernelStyle style = workloads::fused_style();
  // Vocabulary-parallel cross entropy casts to 32 bits, subtracts the maximum, exponentiates and sums in kernels of its
  // own; backward scales and casts (megatron/core/tensor_parallel/cross_entropy.py).
  style.loss_forward_bytes = 2 + 4 + 4 + (4 + 4) + (4 + 4) + 4;
  style.loss_backward_bytes = (4 + 4) + (4 + 2);
  style.weight_gradient_bytes = weight_gradient_bytes;
  style.attention_output_copied = attention_output_copied;
  style.casts_saved = true;
  style.triangular_softmax = true;  // megatron/fused_kernels/scaled_upper_triang_masked_softmax.h
  return style;
}

void check_tensor_parallel(std::vector<Problem>& problems, const Job& job, std::int64_t tensor) {
  require_divides(problems, "strategy.tensor", tensor, job.model.heads, "the attention heads");
  if (job.model.heads % tensor == 0)
    require_divides(problems, "strategy.tensor", tensor, job.model.kv_heads, "the key-value heads");
  if (!job.model.experts)
    require_divides(problems, "strategy.tensor", tensor, job.model.ffn_hidden, "the feed-forward width");
}

void check_model_parallel(std::vector<Problem>& problems, const Job& job, std::int64_t product) {
  if (job.cluster.devices() % product == 0) return;
  problems.push_back({.key = "strategy.tensor",
                      .message = "tensor x pipeline x context = " + std::to_string(product) + " does not divide the " +
                                 std::to_string(job.cluster.devices()) + " devices; the nearest product that does is " +
                                 std::to_string(nearest_divisor(job.cluster.devices(), product))});
}

}  // namespace trainyard::strategies
