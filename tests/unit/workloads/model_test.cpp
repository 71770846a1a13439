#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "tests/support/models.hpp"
#include "workloads/architecture.hpp"

namespace trainyard::workloads {
namespace {

std::int64_t layer_parameters(const Model& model) { return parameters_of(describe(model, 1).kinds.front()); }
std::int64_t embedding_parameters(const Model& model, std::int64_t vocab) {
  return parameters_of(describe(model, 1, vocab).embedding);
}
std::int64_t head_parameters(const Model& model, std::int64_t vocab) {
  return parameters_of(describe(model, 1, vocab).head);
}

using tests::gpt;
using tests::llama;

Model qwen2(std::int64_t layers, std::int64_t hidden, std::int64_t ffn_hidden, std::int64_t heads,
            std::int64_t kv_heads) {
  Model model = llama(layers, hidden, ffn_hidden, heads, kv_heads, 152064);
  model.qkv_bias = true;
  return model;
}

Model neox_20b() {
  Model model = gpt(44, 6144, 64, 50432);
  model.position_embedding = Model::PositionEmbedding::rope;
  model.tied_embeddings = false;
  return model;
}

TEST(Model, ParametersOfPublishedCheckpointsAreCountedToTheUnit) {
  EXPECT_EQ(parameters(tests::gpt2()), 124'439'808);
  EXPECT_EQ(parameters(gpt(48, 1600, 25, 50257, 1024)), 1'557'611'200);  // GPT-2 XL
  EXPECT_EQ(parameters(gpt(24, 2048, 16)), 1'315'723'264);               // GPT "1.3B"
  EXPECT_EQ(parameters(tests::llama2_7b()), 6'738'415'616);
  EXPECT_EQ(parameters(qwen2(28, 3584, 18944, 28, 4)), 7'615'616'512);  // Qwen2.5-7B
}

TEST(Model, ParametersOfOtherDenseDecodersAreCountedToATenthOfAPercent) {
  const auto expect_near = [](const Model& model, double expected) {
    EXPECT_NEAR(static_cast<double>(parameters(model)) / expected, 1, 1e-3) << expected;
  };
  expect_near(gpt(40, 5120, 40), 12.853e9);
  expect_near(tests::gpt3_175b(), 174.604e9);
  expect_near(gpt(128, 25600, 160, 51200), 1.00804e12);  // Megatron 1T
  expect_near(neox_20b(), 20.5546e9);
  expect_near(llama(40, 5120, 13824, 40, 40, 32000), 13.016e9);  // Llama 2
  expect_near(llama(80, 8192, 28672, 64, 8, 32000), 68.977e9);
  expect_near(tests::llama3_8b(), 8.030e9);
  expect_near(tests::llama3_70b(), 70.554e9);
  expect_near(tests::llama3_405b(), 405.853e9);
  expect_near(qwen2(80, 8192, 29568, 64, 8), 72.706e9);
  expect_near(llama(36, 4096, 12288, 32, 8, 151936), 8'190'735'360.0);  // Qwen3-8B, but for its query and key norms
}

TEST(Model, AWidthOfHeadsOtherThanHiddenCounts) {
  Model model = llama(1, 1024, 4096, 16, 8, 1000);
  model.head_dim = 128;  // 16 heads are twice as wide as hidden
  EXPECT_EQ(layer_parameters(model), 1024 * (2048 + 2 * 1024) + 2048 * 1024 + 3 * 1024 * 4096 + 2 * 1024);
}

TEST(Model, APaddedVocabularyAddsRowsToTheEmbeddingAndToAHeadOfItsOwn) {
  const Model tied = tests::gpt2();
  EXPECT_EQ(embedding_parameters(tied, 50304) - embedding_parameters(tied, 50257), 47 * 768);
  EXPECT_EQ(head_parameters(tied, 50304), head_parameters(tied, 50257));
  const Model untied = tests::llama2_7b();
  EXPECT_EQ(embedding_parameters(untied, 32128) - embedding_parameters(untied, 32000), 128 * 4096);
  EXPECT_EQ(head_parameters(untied, 32128) - head_parameters(untied, 32000), 128 * 4096);
}

TEST(Model, TensorsAddUpToTheParameters) {
  Model no_bias = tests::gpt2();
  no_bias.bias = false;
  no_bias.qkv_bias = no_bias.output_bias = no_bias.ffn_bias = no_bias.norm_bias = false;
  for (const Model& model : {tests::gpt2(), no_bias, neox_20b(), tests::llama3_8b(), qwen2(28, 3584, 18944, 28, 4)}) {
    const std::vector<std::int64_t> tensors = parameter_tensors(model);
    EXPECT_EQ(std::accumulate(tensors.begin(), tensors.end(), std::int64_t{0}), parameters(model));
  }
}

TEST(Model, TensorsComeInTheOrderOfRegistration) {
  const std::vector<std::int64_t> tensors = parameter_tensors(gpt(1, 4, 2, 10, 6));
  const std::vector<std::int64_t> expected{
      40, 24,               // tokens, positions
      4,  4,  48, 12,       // norm 1, query key value
      16, 4,  4,  4,        // attention output, norm 2
      64, 16, 64, 4,  4, 4  // fc1, fc2, final norm
  };
  EXPECT_EQ(tensors, expected);
  // Llama-like code keeps query, key, value, gate and up apart.
  EXPECT_EQ(parameter_tensors(llama(1, 4, 8, 2, 1, 10)),
            (std::vector<std::int64_t>{40, 4, 16, 8, 8, 16, 4, 32, 32, 32, 4, 40}));
}

TEST(Model, TrainingFlopsPerTokenAreThreeTimesTheForwardOnesOfProductsAndAttention) {
  EXPECT_NEAR(training_flops_per_token(tests::llama2_7b(), 4096, true), 42.86e9, 0.005e9);
  EXPECT_NEAR(training_flops_per_token(tests::llama3_8b(), 8192, true), 51.47e9, 0.005e9);
  EXPECT_NEAR(training_flops_per_token(tests::llama3_70b(), 8192, true), 449.2e9, 0.05e9);
  EXPECT_NEAR(training_flops_per_token(tests::llama3_405b(), 8192, true), 2524e9, 0.5e9);
}

TEST(Model, WithoutTheCausalMaskAttentionCountsInFull) {
  EXPECT_NEAR(training_flops_per_token(tests::llama2_7b(), 4096, false), 46.1e9, 0.05e9);
  EXPECT_NEAR(training_flops_per_token(tests::llama3_8b(), 8192, false), 57.9e9, 0.05e9);
  EXPECT_NEAR(training_flops_per_token(tests::llama3_70b(), 8192, false), 481.4e9, 0.05e9);
  EXPECT_NEAR(training_flops_per_token(tests::llama3_405b(), 8192, false), 2625e9, 0.5e9);
}

TEST(Model, TheEmbeddingLookupIsNoProduct) {
  // All matrices but the embedding, twice forward and four times backward; a sequence of one has hardly any attention.
  const Model model = tests::llama3_8b();
  const auto norms = static_cast<double>((2 * model.layers + 1) * model.hidden);
  const double matrices = static_cast<double>(parameters(model) - embedding_parameters(model, model.vocab)) - norms;
  const double attention = 3 * 2.0 * static_cast<double>(model.layers * model.query_width());
  EXPECT_DOUBLE_EQ(training_flops_per_token(model, 1, true), 6 * matrices + attention);
}

}  // namespace
}  // namespace trainyard::workloads
