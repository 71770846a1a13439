#include "workloads/cost.hpp"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "tests/support/models.hpp"

namespace trainyard::workloads {
namespace {

AttentionShape causal(std::int64_t batch, std::int64_t sequence, std::int64_t heads, std::int64_t kv_heads,
                      std::int64_t head_dim) {
  const auto length = static_cast<double>(sequence);
  return {.batch = batch,
          .queries = sequence,
          .keys = sequence,
          .heads = heads,
          .kv_heads = kv_heads,
          .qk_dim = head_dim,
          .v_dim = head_dim,
          .span = sequence,
          .pairs = length * length / 2};
}

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

TEST(GemmCost, ReachesHalfOfItsRateWhereTheInnerDimensionIsHalfOfTheRamps) {
  const Accelerator device = simple();
  const KernelCosts costs(device);
  const auto duration = [&](std::int64_t k) {
    return sim::to_seconds(costs.gemm("", {.m = 256, .n = 256, .k = k}, Precision::bf16).duration);
  };
  // k / (k + 512) of a rate of k per time: the time goes with k + 512.
  EXPECT_NEAR(duration(1536) / duration(512), 2, 1e-6);
  EXPECT_NEAR(duration(65536) / duration(512), 64.5, 1e-4);
}

TEST(GemmCost, PadsItsOutputsToWholeTiles) {
  const Accelerator device = simple();
  const KernelCosts costs(device);
  const auto duration = [&](std::int64_t rows, std::int64_t columns) {
    return costs.gemm("", {.m = rows, .n = columns, .k = 512}, Precision::bf16).duration;
  };
  // Three tiles of four units' work for one row more than two have, and as long as three tiles that are full.
  EXPECT_EQ(duration(512 + 129, 256), duration(768, 256));
  EXPECT_EQ(duration(129, 1024), duration(256, 1024));
  // Either way round.
  EXPECT_EQ(duration(1024, 129), duration(129, 1024));
}

TEST(GemmCost, BatchesFillTheWavesTogether) {
  const Accelerator device = simple();
  const KernelCosts costs(device);
  const auto duration = [&](std::int64_t batch) {
    return costs.gemm("", {.m = 128, .n = 128, .k = 512, .batch = batch}, Precision::bf16).duration;
  };
  EXPECT_EQ(duration(3), duration(4));
  EXPECT_EQ(duration(5), duration(8));
  EXPECT_EQ(duration(8), duration(4) * 2);
}

TEST(GemmCost, ReadsAsMuchOfAnImageAsThereIs) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  const Gemm matrix{.m = 56 * 56, .n = 64, .k = 9 * 64};
  Gemm convolution = matrix;
  convolution.input_elements = 56 * 56 * 64;
  // An implicit product reads each pixel once where the matrix would hold it nine times.
  EXPECT_EQ((costs.gemm("", matrix, Precision::bf16).bytes - costs.gemm("", convolution, Precision::bf16).bytes).count,
            2 * 8 * 56 * 56 * 64);
  EXPECT_EQ(costs.gemm("", matrix, Precision::bf16).flops, costs.gemm("", convolution, Precision::bf16).flops);
}

TEST(GroupedGemmCost, OfOneGroupIsThatOfAProduct) {
  // Whole waves, forward and for the gradient.
  struct Case {
    Accelerator device;
    std::int64_t rows;
    std::int64_t n;
    std::int64_t k;
  };
  for (const Case& on : {Case{simple(), 512, 256, 512}, Case{tests::h100(), 8448, 4096, 8448}}) {
    const KernelCosts costs(on.device);
    const Kernel grouped = costs.grouped_gemm("", {.rows = {on.rows}, .n = on.n, .k = on.k}, Precision::bf16);
    const Kernel product = costs.gemm("", {.m = on.rows, .n = on.n, .k = on.k}, Precision::bf16);
    EXPECT_EQ(grouped.kind, sim::KernelClass::matmul);
    EXPECT_EQ(grouped.flops, product.flops);
    EXPECT_EQ(grouped.model_flops, product.model_flops);
    EXPECT_EQ(grouped.bytes, product.bytes);
    EXPECT_EQ(grouped.duration, product.duration);
    const GroupedGemm gradient{.rows = {on.rows}, .n = on.n, .k = on.k, .weight_gradient = true, .output_bytes = 8};
    const Kernel grouped_gradient = costs.grouped_gemm("", gradient, Precision::bf16);
    const Kernel of_product = costs.gemm("", {.m = on.k, .n = on.n, .k = on.rows, .output_bytes = 8}, Precision::bf16);
    EXPECT_EQ(grouped_gradient.bytes, of_product.bytes);
    EXPECT_EQ(grouped_gradient.duration, of_product.duration);
  }
}

TEST(GroupedGemmCost, FillsTilesGroupByGroup) {
  const Accelerator device = simple();
  const KernelCosts costs(device);
  const auto grouped = [&](std::vector<std::int64_t> rows) {
    return costs.grouped_gemm("", {.rows = std::move(rows), .n = 128, .k = 512}, Precision::bf16).duration;
  };
  // Three groups of 129 rows take two tiles each, two waves of the four units; their rows together take four tiles.
  EXPECT_EQ(grouped({129, 129, 129}), grouped({387}) * 2);
  // Without remainders nothing is lost.
  EXPECT_EQ(grouped({128, 256, 128}), grouped({512}));
}

TEST(GroupedGemmCost, IsNeverBelowThatOfAllRowsWithOneMatrix) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  for (const std::int64_t groups : {2, 8, 64, 256})
    for (const std::int64_t rows : {1, 16, 100, 128, 300, 1024, 4096})
      for (const std::int64_t n : {1024, 4096, 14336}) {
        const std::vector<std::int64_t> loads(static_cast<std::size_t>(groups), rows);
        const Kernel grouped = costs.grouped_gemm("", {.rows = loads, .n = n, .k = 4096}, Precision::bf16);
        const Kernel product = costs.gemm("", {.m = groups * rows, .n = n, .k = 4096}, Precision::bf16);
        EXPECT_EQ(grouped.flops, product.flops);
        EXPECT_GE(grouped.duration, product.duration) << groups << ' ' << rows << ' ' << n;
      }
}

TEST(GroupedGemmCost, FallsBehindWithFewerTokensForEachExpert) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  double rate = 0;
  for (const std::int64_t groups : {1024, 256, 64, 16, 4}) {
    const std::vector<std::int64_t> rows(static_cast<std::size_t>(groups), 16384 / groups);
    const double better = flop_rate(costs.grouped_gemm("", {.rows = rows, .n = 4096, .k = 4096}, Precision::bf16));
    EXPECT_GE(better, rate) << groups;
    rate = better;
  }
  EXPECT_LT(flop_rate(costs.grouped_gemm("", {.rows = std::vector<std::int64_t>(1024, 16), .n = 4096, .k = 4096},
                                         Precision::bf16)),
            0.2 * rate);
}

TEST(GroupedGemmCost, ReadsTheMatricesOfExpertsWithTokensAndWritesTheGradientsOfAll) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  const auto bytes = [&](bool weight_gradient) {
    return costs
        .grouped_gemm("", {.rows = {100, 0, 28}, .n = 512, .k = 256, .weight_gradient = weight_gradient},
                      Precision::bf16)
        .bytes.count;
  };
  EXPECT_EQ(bytes(false), 2 * (128 * (256 + 512) + 2 * 256 * 512));
  EXPECT_EQ(bytes(true), 2 * (128 * (256 + 512) + 3 * 256 * 512));
  // Nothing at all to do takes a launch.
  EXPECT_EQ(costs.grouped_gemm("", {.rows = {0, 0}, .n = 512, .k = 256}, Precision::bf16).duration,
            device.kernel_latency);
}

TEST(GatherCost, ReachesHalfOfTheStreamingRateWithRowsOf512Bytes) {
  const Accelerator device = simple();  // without a start
  const KernelCosts costs(device);
  const auto seconds = [&](std::int64_t row_bytes) {
    return sim::to_seconds(costs.gather("", {1'000'000'000'000}, {row_bytes}).duration);
  };
  EXPECT_NEAR(seconds(512), 2 * 1e12 / 1e15, 1e-9);
  EXPECT_NEAR(seconds(128), 5 * 1e12 / 1e15, 1e-9);
  EXPECT_NEAR(seconds(512 * 1024), 1e12 / 1e15, 2e-6);
  EXPECT_EQ(costs.gather("", {1000}, {512}).bytes.count, 1000);
}

TEST(PowerLimit, From700WTo500WCostsATenthOfTheRateOfProductsAndAttention) {
  struct Rates {
    double products = 0;
    double attention = 0;
    double copying = 0;
    bool operator==(const Rates&) const = default;
  };
  const auto rates = [](double power_w, double power_limit_w) {
    Accelerator device = tests::h100();
    device.power_w = power_w;
    device.power_limit_w = power_limit_w;
    const KernelCosts costs(device);
    return Rates{.products = flop_rate(costs.gemm("", {.m = 8192, .n = 8192, .k = 8192}, Precision::bf16)),
                 .attention = flop_rate(costs.flash_forward("", causal(1, 8192, 32, 8, 128), Precision::bf16)),
                 .copying = 1 / sim::to_seconds(costs.memory_bound("", {1 << 30}).duration)};
  };
  const Rates free = rates(0, 0);
  EXPECT_EQ(rates(700, 0), free);
  EXPECT_EQ(rates(700, 700), free);
  EXPECT_EQ(rates(700, 1000), free);
  EXPECT_EQ(rates(0, 500), free);  // of a part whose own power is not known
  const Rates limited = rates(700, 500);
  EXPECT_NEAR(limited.products / free.products, 0.9, 0.01);
  EXPECT_NEAR(limited.attention / free.attention, 0.9, 0.01);
  EXPECT_EQ(limited.copying, free.copying);
}

TEST(MemoryBoundCost, IsLinearInTheBytes) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  const auto picoseconds = [&](std::int64_t megabytes) {
    return costs.memory_bound("", {megabytes * 1'000'000}).duration.count();
  };
  const std::int64_t step = picoseconds(200) - picoseconds(100);
  for (std::int64_t megabytes = 200; megabytes < 1000; megabytes += 100)
    EXPECT_NEAR(static_cast<double>(picoseconds(megabytes + 100) - picoseconds(megabytes)), static_cast<double>(step),
                1);
  // What is left for no bytes at all is the start: that of `memory_half_size`.
  EXPECT_NEAR(static_cast<double>(picoseconds(100) - step), 2e6 / (0.8 * 3.35e12) * 1e12, 2);
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
  const AttentionShape shape = causal(2, 4096, 32, 8, 128);
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
  const AttentionShape shape = causal(1, 1024, 1, 1, 128);
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
            const AttentionShape shape = causal(batch, s, a, a, d);
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
    const AttentionShape shape = causal(1, 1000, 32, kv_heads, 128);
    return costs.flash_forward("", shape, Precision::bf16).bytes.count;
  };
  EXPECT_EQ(bytes(32), 2LL * 1000 * 128 * 128);
  EXPECT_EQ(bytes(8), 2LL * 1000 * 80 * 128);
}

TEST(FlashAttentionCost, EightBitTrainingComputesAttentionIn16Bits) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  const AttentionShape shape = causal(1, 8192, 32, 8, 128);
  EXPECT_EQ(costs.flash_forward("", shape, Precision::fp8).duration,
            costs.flash_forward("", shape, Precision::bf16).duration);
  EXPECT_EQ(costs.flash_backward("", shape, Precision::fp8).duration,
            costs.flash_backward("", shape, Precision::bf16).duration);
}

TEST(FlashAttentionCost, IsThatOfTheGenerationThatTheTrainingNames) {
  const AttentionShape shape = causal(1, 8192, 32, 8, 128);
  const auto forward = [&](const Accelerator& device, AttentionKernel kernel) {
    return sim::to_seconds(KernelCosts(device).flash_forward("", shape, Precision::bf16, kernel).duration);
  };
  const auto backward = [&](const Accelerator& device, AttentionKernel kernel) {
    return sim::to_seconds(KernelCosts(device).flash_backward("", shape, Precision::bf16, kernel).duration);
  };
  const Accelerator plain = tests::h100();
  Accelerator known = plain;
  known.flash2 = {.forward = 0.36, .backward = 0.3};
  known.flash3 = {.forward = 0.72, .backward = 0.54};
  known.cudnn = {.forward = 0.7, .backward = 0.5};
  const double usual = forward(plain, AttentionKernel::flash);
  EXPECT_EQ(forward(known, AttentionKernel::flash), usual);
  // Where the device does not tell generations apart, they are its usual one.
  EXPECT_EQ(forward(plain, AttentionKernel::flash2), usual);
  EXPECT_EQ(forward(plain, AttentionKernel::flash3), usual);
  EXPECT_EQ(forward(plain, AttentionKernel::cudnn), usual);
  EXPECT_NEAR(forward(known, AttentionKernel::flash2) / usual, 0.35 / 0.36, 1e-6);
  EXPECT_NEAR(forward(known, AttentionKernel::flash3) / usual, 0.35 / 0.72, 1e-6);
  EXPECT_NEAR(forward(known, AttentionKernel::cudnn) / usual, 0.35 / 0.7, 1e-6);
  EXPECT_NEAR(backward(known, AttentionKernel::flash2) / backward(known, AttentionKernel::flash3), 1.8, 1e-6);
}

TEST(FlashAttentionCost, IsCheaperWithAWindowThoughLessThanThePairsAre) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  const AttentionShape whole = causal(1, 32768, 32, 8, 128);
  AttentionShape windowed = whole;
  windowed.span = 1024;
  windowed.pairs = 32768.0 * 1024 - 1024.0 * 1024 / 2;
  const Kernel all = costs.flash_forward("", whole, Precision::bf16);
  const Kernel some = costs.flash_forward("", windowed, Precision::bf16);
  EXPECT_EQ(static_cast<double>(some.flops.count) / static_cast<double>(all.flops.count), windowed.pairs / whole.pairs);
  EXPECT_EQ(some.bytes, all.bytes);
  // A query that reaches 1024 keys runs at the rate of a sequence of 1024: 600 tokens are half of it here.
  const double slower = (32768.0 / (32768 + 600)) / (1024.0 / (1024 + 600));
  EXPECT_NEAR(sim::to_seconds(some.duration) / sim::to_seconds(all.duration), windowed.pairs / whole.pairs * slower,
              1e-6);
}

TEST(FlashAttentionCost, OfUnequalWidthsComputesTheScoresAgainBackward) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  AttentionShape shape = causal(1, 4096, 16, 16, 192);  // latent attention: values are narrower
  shape.v_dim = 128;
  const Kernel forward = costs.flash_forward("", shape, Precision::bf16);
  const Kernel backward = costs.flash_backward("", shape, Precision::bf16);
  constexpr std::int64_t pairs = 16LL * 4096 * 4096 / 2;
  EXPECT_EQ(forward.flops.count, 2 * pairs * (192 + 128));
  EXPECT_EQ(backward.flops.count, 2 * pairs * (3 * 192 + 2 * 128));
  EXPECT_EQ(backward.model_flops.count, 2 * forward.flops.count);
}

}  // namespace
}  // namespace trainyard::workloads
