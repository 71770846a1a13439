// How long one kernel takes on one device: a roofline whose roof depends on the shape.
#pragma once

#include <string>

#include "sim/plan.hpp"
#include "workloads/accelerator.hpp"

namespace trainyard::workloads {

// m x n outputs, each a sum over k; `batch` such products in one kernel. Shapes are those of one device.
struct Gemm {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  std::int64_t batch = 1;
  std::int64_t output_bytes = 0;  // of an element, 0: as activations; 32-bit gradient accumulation reads and writes 4
};

struct AttentionShape {
  std::int64_t batch = 0;
  std::int64_t sequence = 0;
  std::int64_t heads = 0;     // on this device
  std::int64_t kv_heads = 0;  // likewise
  std::int64_t head_dim = 0;
};

class KernelCosts {
 public:
  explicit KernelCosts(const Accelerator& accelerator) : accelerator_(accelerator) {}

  // max(2mnk / (peak x efficiency), bytes / memory rate), at least the kernel latency, where
  //   efficiency = best x (tiles / (waves x SMs)) x (m n / padded m n) x k / (k + half_k)
  // tile and wave quantisation, and the ramp of the inner dimension. `precision` is the type of the inputs; 8-bit
  // products write 16 bits.
  sim::Kernel gemm(std::string name, const Gemm& shape, Precision precision) const;

  // One pass over `bytes` (read and written together).
  sim::Kernel memory_bound(std::string name, sim::Bytes bytes,
                           sim::KernelClass kind = sim::KernelClass::memory_bound) const;

  // Flash attention, causal. Forward executes 4 b s^2 a d FLOP, half of them under the mask; backward 2.5 times that
  // (it computes the scores again), of which twice the forward ones are the model's.
  sim::Kernel flash_forward(std::string name, const AttentionShape& shape, Precision precision) const;
  sim::Kernel flash_backward(std::string name, const AttentionShape& shape, Precision precision) const;

 private:
  struct FlashWork {  // in multiples of the forward pass
    double executed = 1;
    double model = 1;
    double passes = 1;
    double efficiency = 1;  // share of the peak
  };
  sim::Kernel flash(std::string name, const AttentionShape& shape, const FlashWork& work, Precision precision) const;
  double gemm_efficiency(const Gemm& shape, Precision precision) const;
  double memory_seconds(double bytes) const;
  double attention_shape_factor(const AttentionShape& shape) const;
  sim::Kernel finish(std::string name, sim::KernelClass kind, double seconds, double flops, double bytes) const;

  const Accelerator& accelerator_;
};

}  // namespace trainyard::workloads
