#include "workloads/cost.hpp"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "tests/support/models.hpp"

namespace trainyard::workloads {
namespace {

using namespace std::chrono_literals;
using sim::Kernel;

// Around multiples of tiles and waves, and far from them.
constexpr std::array<std::int64_t, 16> sizes{1,   63,  64,   65,   127,  128,  129,   255,
                                             256, 257, 1000, 2047, 4096, 5000, 12288, 33792};

double flop_rate(const Kernel& kernel) {
  return static_cast<double>(kernel.flops.count) / sim::to_seconds(kernel.duration);
}

// One FLOP per cycle and unit, four units with a tile each, no memory to speak of: times can be computed by hand.
Accelerator simple() {
  Accelerator device = tests::h100();
  device.peak.fill({1'000'000'000'000});
  device.gemm_efficiency.fill(1);
  device.sms = 4;
  device.tile_rows = 128;
  device.tile_columns = 128;
  device.half_k = 512;
  device.memory_bandwidth = {1'000'000'000'000'000};
  device.memory_efficiency = 1;
  device.memory_half_size = {0};
  device.kernel_latency = 1us;
  device.attention_forward_efficiency = 0.5;
  device.attention_backward_efficiency = 0.25;
  device.attention_half_sequence = 1024;
  return device;
}

TEST(GemmCost, TakesTheFlopsOverTheRateThatItsShapeReaches) {
  const Accelerator device = simple();
  const KernelCosts costs(device);
  // Four tiles on four units, and the inner dimension at which half the rate is reached.
  const Kernel kernel = costs.gemm("product", {.m = 256, .n = 256, .k = 512}, Precision::bf16);
  EXPECT_EQ(kernel.name, "product");
  EXPECT_EQ(kernel.kind, sim::KernelClass::matmul);
  EXPECT_EQ(kernel.flops.count, 2LL * 256 * 256 * 512);
  EXPECT_EQ(kernel.model_flops, kernel.flops);
  EXPECT_EQ(kernel.bytes.count, 2 * (256 * 512 + 512 * 256 + 256 * 256));
  EXPECT_EQ(kernel.duration, sim::from_seconds(2.0 * 256 * 256 * 512 / 0.5e12));
}

TEST(GemmCost, ARowTooManyCostsAWholeWave) {
  const Accelerator device = simple();
  const KernelCosts costs(device);
  const auto duration = [&](std::int64_t rows) {
    return costs.gemm("", {.m = rows, .n = 256, .k = 512}, Precision::bf16).duration;
  };
  EXPECT_EQ(duration(257), duration(256) * 2);
  EXPECT_EQ(duration(512), duration(257));
}

TEST(GemmCost, NeverFallsWhenADimensionGrows) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  const auto duration = [&](std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t batch = 1) {
    return costs.gemm("", {.m = m, .n = n, .k = k, .batch = batch}, Precision::bf16).duration;
  };
  for (const std::int64_t a : sizes) {
    for (const std::int64_t b : sizes) {
      for (std::size_t i = 1; i < sizes.size(); ++i) {
        const std::int64_t less = sizes.at(i - 1);
        const std::int64_t more = sizes.at(i);
        EXPECT_LE(duration(less, a, b), duration(more, a, b)) << less << ' ' << more << ' ' << a << ' ' << b;
        EXPECT_LE(duration(a, less, b), duration(a, more, b)) << less << ' ' << more << ' ' << a << ' ' << b;
        EXPECT_LE(duration(a, b, less), duration(a, b, more)) << less << ' ' << more << ' ' << a << ' ' << b;
      }
      EXPECT_LE(duration(a, b, 64, 3), duration(a, b, 64, 4)) << a << ' ' << b;
    }
  }
}

TEST(GemmCost, StaysBelowThePeakAndTheMemoryRateAndAboveTheLatency) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  const auto peak = static_cast<double>(device.peak.at(static_cast<std::size_t>(Precision::bf16)).count) *
                    device.gemm_efficiency.at(static_cast<std::size_t>(Precision::bf16));
  const double bandwidth = static_cast<double>(device.memory_bandwidth.count) * device.memory_efficiency;
  for (const std::int64_t m : sizes)
    for (const std::int64_t n : sizes)
      for (const std::int64_t k : sizes) {
        const Kernel kernel = costs.gemm("", {.m = m, .n = n, .k = k}, Precision::bf16);
        EXPECT_LE(flop_rate(kernel), peak) << m << ' ' << n << ' ' << k;
        EXPECT_LE(static_cast<double>(kernel.bytes.count) / sim::to_seconds(kernel.duration), bandwidth);
        EXPECT_GE(kernel.duration, device.kernel_latency);
      }
}

TEST(GemmCost, LargeProductsComeCloseToTheBestEfficiency) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  const Kernel kernel = costs.gemm("", {.m = 33792, .n = 16384, .k = 32768}, Precision::bf16);
  EXPECT_GT(flop_rate(kernel), 0.97 * 0.75 * 989e12);
}

TEST(GemmCost, AThinProductIsBoundByMemory) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  const Kernel kernel = costs.gemm("", {.m = 1, .n = 16384, .k = 16384}, Precision::bf16);
  EXPECT_EQ(kernel.duration, costs.memory_bound("", kernel.bytes).duration);
}

TEST(GemmCost, EightBitsAreFasterThanSixteenAndSixteenThanMore) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  const auto duration = [&](Precision precision) {
    return costs.gemm("", {.m = 8192, .n = 8192, .k = 8192}, precision).duration;
  };
  EXPECT_LT(duration(Precision::fp8), duration(Precision::bf16));
  EXPECT_GT(duration(Precision::fp8) * 2.1, duration(Precision::bf16));
  EXPECT_EQ(duration(Precision::fp16), duration(Precision::bf16));
  EXPECT_LT(duration(Precision::bf16), duration(Precision::tf32));
  EXPECT_LT(duration(Precision::tf32), duration(Precision::fp32));
}

TEST(GemmCost, WideOutputsMoveMoreBytes) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  const Gemm narrow{.m = 4096, .n = 4096, .k = 128};
  Gemm wide = narrow;
  wide.output_bytes = 8;  // 32-bit accumulation: read and written
  const Kernel less = costs.gemm("", narrow, Precision::bf16);
  const Kernel more = costs.gemm("", wide, Precision::bf16);
  EXPECT_EQ((more.bytes - less.bytes).count, 4096LL * 4096 * 6);
  EXPECT_GT(more.duration, less.duration);
}

TEST(MemoryBoundCost, IsAStartAndARate) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  const auto duration = [&](std::int64_t bytes) { return costs.memory_bound("", {bytes}).duration; };
  const double rate = 3.35e12 * 0.8;
  // At `memory_half_size` a kernel reaches half of the rate, long after it all of it.
  EXPECT_NEAR(sim::to_seconds(duration(20'000'000)), 22e6 / rate, 1e-12);
  EXPECT_NEAR(sim::to_seconds(duration(8'000'000'000)), 8e9 / rate, 1e-3 * 8e9 / rate);
  EXPECT_EQ(duration(0), device.kernel_latency);
  EXPECT_EQ(costs.memory_bound("", {1000}).flops.count, 0);
}

TEST(FlashAttentionCost, ExecutesHalfOfTheScoresForwardAndTwoAndAHalfTimesThatBackward) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  const AttentionShape shape{.batch = 2, .sequence = 4096, .heads = 32, .kv_heads = 8, .head_dim = 128};
  const Kernel forward = costs.flash_forward("", shape, Precision::bf16);
  const Kernel backward = costs.flash_backward("", shape, Precision::bf16);
  EXPECT_EQ(forward.kind, sim::KernelClass::attention);
  EXPECT_EQ(backward.kind, sim::KernelClass::attention);
  EXPECT_EQ(forward.flops.count, 2LL * 2 * 4096 * 4096 * 32 * 128);
  EXPECT_EQ(forward.model_flops, forward.flops);
  EXPECT_EQ(backward.flops.count * 2, forward.flops.count * 5);
  // Of which the scores computed again are not the model's.
  EXPECT_EQ(backward.model_flops, forward.flops * 2);
  EXPECT_GT(backward.duration, forward.duration * 2);
}

TEST(FlashAttentionCost, TakesTheFlopsOverTheRateThatItsShapeReaches) {
  const Accelerator device = simple();
  const KernelCosts costs(device);
  // Eight blocks of queries per head: two full waves of the four units; half the rate at 1024 tokens.
  const AttentionShape shape{.batch = 1, .sequence = 1024, .heads = 1, .kv_heads = 1, .head_dim = 128};
  const double flops = 2.0 * 1024 * 1024 * 128;
  EXPECT_EQ(costs.flash_forward("", shape, Precision::bf16).duration, sim::from_seconds(flops / (1e12 * 0.5 * 0.5)));
  EXPECT_EQ(costs.flash_backward("", shape, Precision::bf16).duration,
            sim::from_seconds(2.5 * flops / (1e12 * 0.25 * 0.5)));
}

TEST(FlashAttentionCost, NeverFallsWhenADimensionGrowsAndStaysBelowThePeak) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  const std::vector<std::int64_t> sequences{1, 128, 129, 500, 512, 2048, 3000, 8192, 131072};
  const std::vector<std::int64_t> counts{1, 3, 4, 16, 33, 40};
  const std::vector<std::int64_t> head_dims{32, 64, 96, 128, 256};
  for (const std::int64_t sequence : sequences)
    for (const std::int64_t heads : counts)
      for (const std::int64_t head_dim : head_dims)
        for (const bool forward : {true, false}) {
          const auto kernel = [&](std::int64_t batch, std::int64_t s, std::int64_t a, std::int64_t d) {
            const AttentionShape shape{.batch = batch, .sequence = s, .heads = a, .kv_heads = a, .head_dim = d};
            return forward ? costs.flash_forward("", shape, Precision::bf16)
                           : costs.flash_backward("", shape, Precision::bf16);
          };
          const Kernel here = kernel(1, sequence, heads, head_dim);
          EXPECT_LE(here.duration, kernel(2, sequence, heads, head_dim).duration);
          EXPECT_LE(here.duration, kernel(1, sequence + 128, heads, head_dim).duration);
          EXPECT_LE(here.duration, kernel(1, sequence, heads + 1, head_dim).duration);
          EXPECT_LE(here.duration, kernel(1, sequence, heads, head_dim + 32).duration);
          EXPECT_LE(flop_rate(here), 0.35 * 989e12);
          EXPECT_GE(here.duration, device.kernel_latency);
        }
}

TEST(FlashAttentionCost, FewerKeyValueHeadsMoveFewerBytes) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  const auto bytes = [&](std::int64_t kv_heads) {
    const AttentionShape shape{.batch = 1, .sequence = 1000, .heads = 32, .kv_heads = kv_heads, .head_dim = 128};
    return costs.flash_forward("", shape, Precision::bf16).bytes.count;
  };
  EXPECT_EQ(bytes(32), 2LL * 1000 * 128 * 128);
  EXPECT_EQ(bytes(8), 2LL * 1000 * 80 * 128);
}

TEST(FlashAttentionCost, EightBitTrainingComputesAttentionIn16Bits) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  const AttentionShape shape{.batch = 1, .sequence = 8192, .heads = 32, .kv_heads = 8, .head_dim = 128};
  EXPECT_EQ(costs.flash_forward("", shape, Precision::fp8).duration,
            costs.flash_forward("", shape, Precision::bf16).duration);
  EXPECT_EQ(costs.flash_backward("", shape, Precision::fp8).duration,
            costs.flash_backward("", shape, Precision::bf16).duration);
}

}  // namespace
}  // namespace trainyard::workloads
