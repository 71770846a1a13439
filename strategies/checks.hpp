// What several frameworks check and choose alike: batches, divisibility, padding, the type of gradients.
#pragma once

#include <string>
#include <vector>

#include "strategies/plan_builder.hpp"
#include "strategies/strategy.hpp"
#include "workloads/layers.hpp"

namespace trainyard::strategies {

// No degree of parallelism is larger than the largest cluster that a scenario may describe.
constexpr double most_ranks = 1 << 20;

// The nearest divisor of `number` to `wanted`, to suggest.
std::int64_t nearest_divisor(std::int64_t number, std::int64_t wanted);

// "devices / tensor must be whole" and the like: a problem at `key` unless `divisor` divides `number`.
void require_divides(std::vector<Problem>& problems, std::string key, std::int64_t divisor, std::int64_t number,
                     const std::string& what);

// The vocabulary padded to a multiple of `multiple`.
std::int64_t padded_vocabulary(std::int64_t vocab, std::int64_t multiple);

// Twice the largest operator output of a layer: what backward needs for gradients of activations as it goes.
sim::Bytes backward_workspace(const workloads::Layer& layer);

// Gradient type of the reduction: what the scenario says, else `usual`.
workloads::Precision gradient_precision(const workloads::Training& training, workloads::Precision usual);

// Only Megatron-LM recomputes groups of layers from one kept input.
std::vector<Problem> check_layer_groups(const Job& job, const std::string& framework);

// TensorFlow's executor under a framework of PyTorch: no such combination exists (TensorFlow with DeepSpeed, with
// Megatron-LM). It runs here all the same, since backends and strategies are apart.
std::vector<std::string> warn_without_tensorflow(const Job& job, const std::string& framework);

// What a framework made for CUDA devices has no counterpart for in reality: TPUs, programs of XLA. It runs here all the
// same, to compare schedules.
std::vector<std::string> warn_without_cuda(const Job& job, const std::string& framework);

// What is wrong with a global batch that ranks and micro batches do not divide, or that has too many passes.
std::vector<Problem> check_batch(const Job& job, std::int64_t data, std::int64_t micro_batch);

}  // namespace trainyard::strategies
