// Gradients on their way to a reduction: ZeRO's "independent parallel gradient" bucket.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "strategies/internal/deepspeed_parameters.hpp"

namespace trainyard::strategies {

// What is reduced at once.
struct GradientBucket {
  std::vector<ParameterTensor> tensors;
  std::int64_t first = 0;     // of its elements, in the order in which gradients become ready
  std::int64_t elements = 0;  // in all
};

// A bucket leaves when the next gradient would overflow it; one larger than a bucket leaves alone. Source:
// deepspeedai/DeepSpeed deepspeed/runtime/zero/{stage_1_and_2,stage3}.py, reduce_independent_p_g_buckets_and_remove_-
// grads.
class GradientBuckets {
 public:
  explicit GradientBuckets(std::int64_t bucket_size) : bucket_size_(bucket_size) {}

  // What has to leave before the gradient can enter.
  std::optional<GradientBucket> add(const ParameterTensor& tensor) {
    std::optional<GradientBucket> full;
    if (open_.elements > 0 && open_.elements + tensor.elements > bucket_size_) full = take();
    open_.tensors.push_back(tensor);
    open_.elements += tensor.elements;
    return full;
  }
  // What is left at the end of a backward pass.
  std::optional<GradientBucket> finish() {
    if (open_.elements == 0) return std::nullopt;
    return take();
  }

 private:
  GradientBucket take() {
    GradientBucket bucket = std::move(open_);
    open_ = {.tensors = {}, .first = bucket.first + bucket.elements, .elements = 0};
    return bucket;
  }

  std::int64_t bucket_size_;
  GradientBucket open_;
};

}  // namespace trainyard::strategies
