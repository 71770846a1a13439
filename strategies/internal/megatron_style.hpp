// What models made of Megatron-LM's modules have in common, whoever schedules them: Megatron-LM itself, or DeepSpeed
// with Megatron-DeepSpeed's models.
#pragma once

#include <cstdint>
#include <vector>

#include "strategies/strategy.hpp"
#include "workloads/layers.hpp"

namespace trainyard::strategies {

// Kernels of megatron/core/tensor_parallel and megatron/fused_kernels. `attention_output_copied` as in KernelStyle;
// `weight_gradient_bytes` likewise.
workloads::KernelStyle megatron_style(bool attention_output_copied, std::int64_t weight_gradient_bytes);

// What a tensor group of `tensor` ranks must divide: heads, key-value heads and the width of feed-forward blocks.
void check_tensor_parallel(std::vector<Problem>& problems, const Job& job, std::int64_t tensor);

// `product` = tensor x pipeline x context must divide the devices.
void check_model_parallel(std::vector<Problem>& problems, const Job& job, std::int64_t product);

}  // namespace trainyard::strategies
