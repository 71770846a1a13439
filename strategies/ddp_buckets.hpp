// PyTorch DDP's rule for gathering gradients into buckets.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sim/units.hpp"

namespace trainyard::strategies {

// Sizes of the buckets for gradient tensors in the order in which they become ready. A tensor is added, then the bucket
// closes if it has reached its limit (1 MiB for the first, the cap for the others), so buckets overshoot.
// Source: pytorch/pytorch torch/csrc/distributed/c10d/reducer.cpp, compute_bucket_assignment_by_size.
std::vector<sim::Bytes> ddp_buckets(std::span<const sim::Bytes> tensors, sim::Bytes first_limit, sim::Bytes cap);

}  // namespace trainyard::strategies
