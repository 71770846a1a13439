// Which parameter tensors the operators of a layer own: DeepSpeed gathers, keeps and reduces tensor by tensor.
#pragma once

#include <cstdint>
#include <vector>

#include "workloads/architecture.hpp"
#include "workloads/layers.hpp"

namespace trainyard::strategies {

struct ParameterTensor {
  std::int64_t elements = 0;
  sim::Bytes bytes{};  // as ranks keep and gather it
  bool trained = true;
  bool matrix = false;
  bool of_experts = false;
};

// Of each operator of `layer`, in the order in which a module registers them: what it trains or keeps frozen, then its
// adapters. Experts are one tensor per product, since DeepSpeed takes them as one leaf (z3_leaf_module). `ranks` share
// every layer (tensor parallelism).
std::vector<std::vector<ParameterTensor>> owned_tensors(const workloads::Layer& layer, const workloads::Block& block,
                                                        const workloads::Training& training, bool separate,
                                                        std::int64_t ranks);

}  // namespace trainyard::strategies
