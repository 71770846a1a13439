// How long one kernel takes on one device: a roofline whose roof depends on the shape.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "sim/plan.hpp"
#include "workloads/accelerator.hpp"
#include "workloads/training.hpp"

namespace trainyard::workloads {

// m x n outputs, each a sum over k; `batch` such products in one kernel. Shapes are those of one device.
struct Gemm {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  std::int64_t batch = 1;
  std::int64_t output_bytes = 0;    // of an element, 0: as activations; 32-bit gradient accumulation reads and writes 4
  std::int64_t input_elements = 0;  // really read of the first factor, where it is not stored as m x k (convolutions)
};

// Products of several groups of rows with a matrix each, in one kernel: rows[i] x n outputs, each a sum over k; for
// gradients of the matrices k x n outputs per group, sums over rows[i].
struct GroupedGemm {
  std::vector<std::int64_t> rows;
  std::int64_t n = 0;
  std::int64_t k = 0;
  bool weight_gradient = false;
  std::int64_t output_bytes = 0;
};

struct AttentionShape {
  std::int64_t batch = 0;
  std::int64_t queries = 0;  // tokens of a sample
  std::int64_t keys = 0;
  std::int64_t heads = 0;     // on this device
  std::int64_t kv_heads = 0;  // likewise
  std::int64_t qk_dim = 0;
  std::int64_t v_dim = 0;
  std::int64_t span = 0;  // tokens of an unbroken sequence in which queries reach as many keys on average
  double pairs = 0;       // of queries and keys that are computed, per head and sample
};

// Matrices of weights as inference keeps them, and how they are multiplied.
struct StoredWeights {
  double element_bytes = 2;                // in memory, with their scales
  Precision arithmetic = Precision::bf16;  // of the product; the other factor is read in it too
  bool dequantised = false;                // brought to `arithmetic` inside the kernel, on the way to the product
};

class KernelCosts {
 public:
  // On the slowest of `devices` parts.
  explicit KernelCosts(const Accelerator& accelerator, std::int64_t devices = 1)
      : accelerator_(accelerator), clock_(accelerator.clock_share() * accelerator.slowest_clock(devices)) {}

  bool supports(Precision precision) const { return accelerator_.supports(precision); }

  // max(2mnk / (peak x efficiency), bytes / memory rate), at least the kernel latency, where
  //   efficiency = best x (tiles / (waves x SMs)) x (m n / padded m n) x k / (k + half_k)
  // tile and wave quantisation, and the ramp of the inner dimension. Where tiles are too few for the SMs, the inner
  // sums are split among several thread blocks, whose partial sums go through memory in 32 bits (split-K, as cuBLAS and
  // cuDNN do for weight gradients). `precision` is the type of the inputs; 8-bit products write 16 bits.
  sim::Kernel gemm(std::string name, const Gemm& shape, Precision precision) const;

  // As gemm(), with tiles counted group by group.
  sim::Kernel grouped_gemm(std::string name, const GroupedGemm& shape, Precision precision) const;

  // Rows of `row_bytes` read or written at random places, `bytes` in all. Short rows waste part of each access: half
  // of the streaming rate at 512 bytes (an estimate from 40 to 60 % for embedding tables of 128 32-bit numbers).
  sim::Kernel gather(std::string name, sim::Bytes bytes, sim::Bytes row_bytes) const;

  // One pass over `bytes` (read and written together).
  sim::Kernel memory_bound(std::string name, sim::Bytes bytes,
                           sim::KernelClass kind = sim::KernelClass::memory_bound) const;

  // Flash attention. Forward executes 2 FLOP per pair of query and key and element of their two products; backward
  // computes the scores again: 3 qk + 2 v instead of qk + v, 2.5 times as much where they are equally wide, of which
  // twice the forward ones are the model's.
  sim::Kernel flash_forward(std::string name, const AttentionShape& shape, Precision precision,
                            AttentionKernel kernel = AttentionKernel::flash) const;
  sim::Kernel flash_backward(std::string name, const AttentionShape& shape, Precision precision,
                             AttentionKernel kernel = AttentionKernel::flash) const;

  // Of inference, in inference_cost.cpp. As gemm() and grouped_gemm(), with the weights (k x n) read as they are
  // stored. Few rows, as in decoding, have kernels of their own, whose tiles are no taller than the rows: reading the
  // weights is then what takes the time.
  sim::Kernel stored_gemm(std::string name, const Gemm& shape, const StoredWeights& weights) const;
  sim::Kernel stored_grouped_gemm(std::string name, const GroupedGemm& shape, const StoredWeights& weights) const;

  // Queries against keys and values in a cache, of which they read `cache` bytes once: heads that share them do so
  // together, and parts of long sequences are spread over the SMs (FlashAttention-2, arXiv 2307.08691, with the split
  // along keys of Flash-Decoding, pytorch.org/blog/flash-decoding, 2023).
  sim::Kernel cached_attention(std::string name, const AttentionShape& shape, sim::Bytes cache, Precision precision,
                               AttentionKernel kernel) const;

 private:
  struct FlashWork {  // in multiples of the forward pass
    double qk = 1;    // products along the keys' dimension
    double v = 1;     // and along the values'
    double model = 1;
    double passes = 1;
    double efficiency = 1;  // share of the peak
  };
  sim::Kernel flash(std::string name, const AttentionShape& shape, const FlashWork& work, Precision precision) const;
  // Of the output in tiles: m x n each, so many times.
  struct Outputs {
    std::int64_t m = 0;
    std::int64_t n = 0;
    std::int64_t count = 0;
  };
  double wave_efficiency(std::span<const Outputs> outputs) const;
  double ramp(double k) const;
  // Seconds for `flops` of products with inner sums over `k`, split where that is faster.
  double product_seconds(double flops, const Outputs& outputs, std::int64_t k, Precision precision) const;
  double peak(Precision precision) const;
  double memory_seconds(double bytes) const;
  double attention_shape_factor(const AttentionShape& shape) const;
  double stored_product_seconds(std::span<const Outputs> outputs, double k, const StoredWeights& weights) const;
  double flash_rate(Precision precision, double efficiency) const;
  double forward_flash_rate(Precision precision, AttentionKernel kernel) const;
  sim::Kernel finish(std::string name, sim::KernelClass kind, double seconds, double flops, double bytes) const;

  const Accelerator& accelerator_;
  double clock_;  // as a share of the one that the peak is given at
};

}  // namespace trainyard::workloads
