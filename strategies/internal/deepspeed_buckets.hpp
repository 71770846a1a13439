// Gradients on their way to a reduction: ZeRO's "independent parallel gradient" bucket.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "strategies/internal/deepspeed_parameters.hpp"

namespace trainyard::strategies {

// What is reduced at once: gradients of parameters that all ranks have, and of experts that only some have, each among
// the ranks that have them.
struct GradientBucket {
  struct Run {
    std::int64_t first = 0;  // in the order in which gradients of its kind become ready
    std::int64_t elements = 0;
  };
  std::vector<ParameterTensor> tensors;
  std::array<Run, 2> runs;  // of what all ranks have, of experts

  std::int64_t elements() const { return runs[0].elements + runs[1].elements; }
};

// A bucket leaves when the next gradient would overflow it; one larger than a bucket leaves alone. Source:
// deepspeedai/DeepSpeed deepspeed/runtime/zero/{stage_1_and_2,stage3}.py, in their function
// reduce_independent_p_g_buckets_and_remove_grads.
class GradientBuckets {
 public:
  explicit GradientBuckets(std::int64_t bucket_size) : bucket_size_(bucket_size) {}

  // What has to leave before the gradient can enter.
  std::optional<GradientBucket> add(const ParameterTensor& tensor) {
    std::optional<GradientBucket> full;
    if (open_.elements() > 0 && open_.elements() + tensor.elements > bucket_size_) full = take();
    open_.tensors.push_back(tensor);
    open_.runs.at(tensor.of_experts ? 1 : 0).elements += tensor.elements;
    return full;
  }
  // What is left at the end of a backward pass.
  std::optional<GradientBucket> finish() {
    if (open_.elements() == 0) return std::nullopt;
    return take();
  }

 private:
  GradientBucket take() {
    GradientBucket bucket = std::move(open_);
    open_ = {};
    for (std::size_t kind = 0; kind < bucket.runs.size(); ++kind)
      open_.runs.at(kind).first = bucket.runs.at(kind).first + bucket.runs.at(kind).elements;
    return bucket;
  }

  std::int64_t bucket_size_;
  GradientBucket open_;
};

}  // namespace trainyard::strategies
