#include "workloads/inference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/support/models.hpp"
#include "workloads/routing.hpp"

namespace trainyard::workloads {
namespace {

using namespace std::chrono_literals;

Inference with(WeightFormat weights) {
  Inference inference;
  inference.weights = weights;
  return inference;
}

double seconds(const sim::Kernel& kernel) { return sim::to_seconds(kernel.duration); }

// A device on which nothing but reading takes time, at 10^12 B/s and 10^6 B before the first.
Accelerator reads_only() {
  Accelerator device = tests::h100();
  device.peak.fill({1'000'000'000'000'000'000});
  device.gemm_efficiency.fill(1);
  device.memory_bandwidth = {1'000'000'000'000};
  device.memory_efficiency = 1;
  device.memory_half_size = {1'000'000};
  device.kernel_latency = 1ns;
  return device;
}

TEST(StoredWeights, TakeTheirBitsAndTheirScales) {
  EXPECT_EQ(stored_bytes(with(WeightFormat::bf16), 4096), 2);
  EXPECT_EQ(stored_bytes(with(WeightFormat::fp8), 4096), 1);
  EXPECT_EQ(stored_bytes(with(WeightFormat::w8a16), 4096), 1 + 2.0 / 4096);
  EXPECT_EQ(stored_bytes(with(WeightFormat::w4a16), 4096), 0.53125);  // 4.25 bits, as AWQ and GPTQ state
  Inference fine = with(WeightFormat::w4a16);
  fine.group = 32;
  EXPECT_EQ(stored_bytes(fine, 4096), 0.625);
}

TEST(StoredWeights, AreMultipliedOnTheUnitsOfTheirFormat) {
  EXPECT_EQ(arithmetic(WeightFormat::w4a16, Precision::bf16), Precision::bf16);
  EXPECT_EQ(arithmetic(WeightFormat::w8a16, Precision::fp16), Precision::fp16);
  EXPECT_EQ(arithmetic(WeightFormat::w8a8, Precision::bf16), Precision::int8);
  EXPECT_EQ(arithmetic(WeightFormat::fp8, Precision::bf16), Precision::fp8);
}

TEST(StoredProduct, OfManyRowsIn16BitsIsAnyOtherProduct) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  for (const std::int64_t rows : {128, 512, 4096, 8192}) {
    const Gemm shape{.m = rows, .n = 12288, .k = 4096};
    EXPECT_EQ(costs.stored_gemm("", shape, {}).duration, costs.gemm("", shape, Precision::bf16).duration) << rows;
  }
}

TEST(StoredProduct, OfFewRowsTakesTheReadingOfItsWeights) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  for (const double width : {2.0, 1.0, 0.53125}) {
    const sim::Kernel kernel = costs.stored_gemm("", {.m = 1, .n = 8192, .k = 8192}, {.element_bytes = width});
    const double bytes = width * 8192 * 8192 + 2 * (8192 + 8192);
    EXPECT_NEAR(seconds(kernel), (bytes + 2e6) / (3.35e12 * 0.8), 1e-12);
  }
}

// Where arithmetic takes as long as reading: rows x 2 n k / rate = 2 n k / bandwidth, whole tiles and long sums aside.
TEST(StoredProduct, IsBoundByArithmeticFromTheCrossoverBatchOn) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  const double crossover = 989e12 * 0.75 / (3.35e12 * 0.8);
  EXPECT_NEAR(crossover, 277, 1);
  const auto time = [&](std::int64_t rows) {
    return seconds(costs.stored_gemm("", {.m = rows, .n = 16384, .k = 16384}, {}));
  };
  EXPECT_LT(time(128), 1.05 * time(1));
  EXPECT_GT(time(512), 1.3 * time(1));
  EXPECT_NEAR(time(4096) / time(2048), 2, 0.05);
}

TEST(StoredProduct, NeverFallsWithItsRowsOrItsBits) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  for (const double width : {0.53125, 1.0, 2.0}) {
    sim::Duration before{};
    for (std::int64_t rows = 1; rows <= 1024; rows += rows < 140 ? 1 : 13) {
      const Gemm shape{.m = rows, .n = 4096, .k = 4096};
      const sim::Kernel kernel = costs.stored_gemm("", shape, {.element_bytes = width, .dequantised = true});
      EXPECT_GE(kernel.duration, before) << rows;
      EXPECT_LE(kernel.duration, costs.stored_gemm("", shape, {.element_bytes = 2.1, .dequantised = true}).duration);
      before = kernel.duration;
    }
  }
}

TEST(StoredProduct, DequantisingCostsATenthOfTheRate) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  const Gemm shape{.m = 8192, .n = 8192, .k = 8192};
  const double plain = seconds(costs.stored_gemm("", shape, {}));
  EXPECT_NEAR(seconds(costs.stored_gemm("", shape, {.element_bytes = 0.53125, .dequantised = true})), plain / 0.9,
              1e-6 * plain);
}

TEST(Cache, HoldsTwoVectorsPerHeadTokenAndLayer) {
  const Inference inference;
  EXPECT_EQ(cache_bytes(tests::llama2_7b(), inference, 1, 1).count, 2 * 32 * 32 * 128 * 2);
  EXPECT_EQ(cache_bytes(tests::llama3_70b(), inference, 3, 100).count, 300 * 2 * 80 * 8 * 128 * 2);
}

TEST(Cache, IsDividedByHeadsAndEveryDeviceHasOne) {
  Inference inference;
  const sim::Bytes whole = cache_bytes(tests::llama3_70b(), inference, 1, 1000);
  inference.tensor = 8;
  EXPECT_EQ(cache_bytes(tests::llama3_70b(), inference, 1, 1000) * 8, whole);
  inference.tensor = 16;
  EXPECT_EQ(cache_bytes(tests::llama3_70b(), inference, 1, 1000) * 8, whole);
}

TEST(Cache, InFewerBitsHasScalesPerHead) {
  Inference inference;
  const std::int64_t vectors = 2 * 32 * 32;
  inference.cache = CacheFormat::fp8;
  EXPECT_EQ(cache_bytes(tests::llama2_7b(), inference, 1, 1).count, vectors * 128);
  inference.cache = CacheFormat::int8;
  EXPECT_EQ(cache_bytes(tests::llama2_7b(), inference, 1, 1).count, vectors * (128 + 4));
  inference.cache = CacheFormat::int4;
  EXPECT_EQ(cache_bytes(tests::llama2_7b(), inference, 1, 1).count, vectors * (64 + 4));
}

// DeepSeek-V2, arXiv 2405.04434, table 1: (d_c + d_R) l elements, as much on every device.
TEST(Cache, OfLatentAttentionIsTheNarrowState) {
  Inference inference;
  EXPECT_EQ(cache_bytes(tests::deepseek_v3(), inference, 1, 1).count, 61 * (512 + 64) * 2);
  inference.tensor = 8;
  EXPECT_EQ(cache_bytes(tests::deepseek_v3(), inference, 1, 1).count, 61 * (512 + 64) * 2);
}

TEST(Cache, KeepsNoMoreThanAWindow) {
  Model model = tests::gpt_oss_20b();  // 128 tokens in every second layer
  const Inference inference;
  const std::int64_t of_a_layer = 2 * model.kv_width() * 2;
  EXPECT_EQ(cache_bytes(model, inference, 1, 1000).count, model.layers / 2 * of_a_layer * (1000 + 128));
}

TEST(CachedAttention, TakesTheReadingOfTheCache) {
  const Accelerator device = reads_only();
  const KernelCosts costs(device);
  const AttentionShape shape{
      .batch = 4, .queries = 1, .keys = 1000, .heads = 32, .kv_heads = 8, .qk_dim = 128, .v_dim = 128};
  const sim::Bytes cache{4 * 1000 * 8 * 256 * 2};
  const sim::Kernel kernel = costs.cached_attention("", shape, cache, Precision::bf16, AttentionKernel::flash2);
  const double queries_and_outputs = 4 * 32 * 256 * 2;
  EXPECT_NEAR(seconds(kernel), (static_cast<double>(cache.count) + queries_and_outputs + 1e6) / 1e12, 1e-9);
  EXPECT_EQ(kernel.flops.count, 2 * 4 * 32 * 1000 * 256);
}

TEST(DrawnExperts, AreAsManyAsRandomTokensTouchOnAverage) {
  const auto touched = [](std::int64_t experts, std::int64_t top_k, std::int64_t tokens) {
    const std::vector<std::int64_t> loads = drawn_loads(experts, top_k, tokens);
    EXPECT_EQ(std::accumulate(loads.begin(), loads.end(), std::int64_t{0}), tokens * top_k);
    return std::ranges::count_if(loads, [](std::int64_t load) { return load > 0; });
  };
  EXPECT_EQ(touched(8, 2, 1), 2);
  EXPECT_EQ(touched(8, 2, 4), 5);      // 8 (1 - (3/4)^4) = 5.47
  EXPECT_EQ(touched(128, 8, 16), 82);  // 128 (1 - (15/16)^16) = 82.4
  EXPECT_EQ(touched(128, 8, 1000), 128);
}

double weights_of(const Expansion& model) {
  return static_cast<double>((model.embedding.frozen + model.frozen(0, model.layers()) + model.head.frozen).count);
}

double flops_of(const Expansion& model) {
  double sum = 0;
  const auto add = [&](const Layer& layer) {
    for (const Operator& op : layer.operators)
      for (const sim::Kernel& kernel : op.forward) sum += static_cast<double>(kernel.flops.count);
  };
  add(model.embedding);
  for (std::int64_t i = 0; i < model.layers(); ++i) add(model.layer(i));
  add(model.head);
  return sum;
}

double bytes_of(const Expansion& model) {
  double sum = 0;
  for (std::int64_t i = 0; i < model.layers(); ++i)
    for (const Operator& op : model.layer(i).operators)
      for (const sim::Kernel& kernel : op.forward) sum += static_cast<double>(kernel.bytes.count);
  return sum;
}

class Expansions : public testing::Test {
 protected:
  Accelerator device_ = tests::h100();
  KernelCosts kernels_{device_};
  InferenceCosts costs_{.kernels = kernels_};
};

TEST_F(Expansions, HoldTheWeightsAsTheyAreStored) {
  const Model model = tests::llama2_7b();
  const auto all = static_cast<double>(parameters(model));
  EXPECT_EQ(weights_of(expand_decoding(model, with(WeightFormat::bf16), 100, costs_)), 2 * all);
  // Embedding, head and norms stay in 16 bits.
  const double in_16_bits = 2 * 32000 * 4096 + 65 * 4096;
  EXPECT_EQ(weights_of(expand_decoding(model, with(WeightFormat::w4a16), 100, costs_)),
            2 * in_16_bits + 0.53125 * (all - in_16_bits));
}

TEST_F(Expansions, DevicesThatShareACopyHaveAPartOfEachMatrix) {
  Inference inference;
  inference.tensor = 4;
  for (const Model& model : {tests::llama3_70b(), tests::mixtral_8x7b()}) {
    const auto all = 2 * static_cast<double>(parameters(model));
    EXPECT_NEAR(weights_of(expand_decoding(model, inference, 100, costs_)), all / 4, 1e-3 * all);
  }
}

// 2 FLOP per parameter and token, without embedding, and of the head for the last token alone.
TEST_F(Expansions, APrefillIsTheForwardPassOfItsTokens) {
  const Model model = tests::llama2_7b();
  Inference inference;
  inference.prompt = 1024;
  const double head = 32000.0 * 4096;
  const double products = 2 * 1024 * (static_cast<double>(parameters(model)) - 2 * head - 65 * 4096) + 2 * head;
  const double attention = 32 * 2.0 * 1024 * 1024 / 2 * 32 * 256;
  EXPECT_NEAR(flops_of(expand_prefill(model, inference, 1, costs_)), products + attention,
              1e-6 * (products + attention));
}

TEST_F(Expansions, ATokenOfASparseModelReadsTheExpertsThatItsBatchTouches) {
  Inference inference;
  const Model model = tests::mixtral_8x7b();
  const double expert = 32 * 3.0 * 4096 * 14336 * 2;  // bytes of one in all layers
  const double alone = bytes_of(expand_decoding(model, inference, 1, costs_));
  inference.batch = 4;
  const double four = bytes_of(expand_decoding(model, inference, 1, costs_));
  EXPECT_NEAR((four - alone) / expert, 3, 0.02);  // 5 experts instead of 2
}

TEST_F(Expansions, LatentAttentionReadsOneStateForAllHeads) {
  const Model model = tests::deepseek_v3();
  const Inference inference;
  const auto read = [&](std::int64_t context) { return bytes_of(expand_decoding(model, inference, context, costs_)); };
  EXPECT_NEAR(read(2001) - read(1001), 1000 * 61 * (512 + 64) * 2.0, 1);
}

TEST_F(Expansions, WindowsEndWhatATokenReads) {
  const Model model = tests::gpt_oss_20b();
  const Inference inference;
  const auto read = [&](std::int64_t context) { return bytes_of(expand_decoding(model, inference, context, costs_)); };
  const auto of_a_layer = static_cast<double>(2 * model.kv_width() * 2);
  EXPECT_NEAR(read(100) - read(50), 50 * static_cast<double>(model.layers) * of_a_layer, 1);
  EXPECT_NEAR(read(1000) - read(500), 500 * static_cast<double>(model.layers) / 2 * of_a_layer, 1);
}

}  // namespace
}  // namespace trainyard::workloads
