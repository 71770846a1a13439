#include "workloads/training.hpp"

#include <gtest/gtest.h>

#include "tests/support/models.hpp"
#include "workloads/layers.hpp"

namespace trainyard::workloads {
namespace {

Training with(Precision precision, Optimizer optimizer = Optimizer::adamw) {
  Training training;
  training.precision = precision;
  training.optimizer = optimizer;
  return training;
}

void expect_bytes(const StateBytes& state, std::int64_t parameter, std::int64_t gradient, std::int64_t master,
                  std::int64_t moments) {
  EXPECT_EQ(state.parameter, parameter);
  EXPECT_EQ(state.gradient, gradient);
  EXPECT_EQ(state.master, master);
  EXPECT_EQ(state.moments, moments);
  EXPECT_EQ(state.total(), parameter + gradient + master + moments);
}

TEST(StateBytes, FullPrecisionHasNoSecondCopyOfTheWeights) {
  for (const StateLayout layout : {StateLayout::master_weights, StateLayout::full_precision}) {
    expect_bytes(state_bytes(with(Precision::fp32), layout, Precision::fp32), 4, 4, 0, 8);
    expect_bytes(state_bytes(with(Precision::tf32), layout, Precision::fp32), 4, 4, 0, 8);
  }
}

TEST(StateBytes, AutocastKeepsEverythingIn32Bits) {
  for (const Precision precision : {Precision::fp16, Precision::bf16, Precision::fp8})
    expect_bytes(state_bytes(with(precision), StateLayout::full_precision, Precision::fp32), 4, 4, 0, 8);
}

TEST(StateBytes, MasterWeightsTake18BytesWith32BitGradients) {
  for (const Precision precision : {Precision::fp16, Precision::bf16, Precision::fp8})
    expect_bytes(state_bytes(with(precision), StateLayout::master_weights, Precision::fp32), 2, 4, 4, 8);
}

TEST(StateBytes, MasterWeightsTake16BytesWith16BitGradients) {
  expect_bytes(state_bytes(with(Precision::fp16), StateLayout::master_weights, Precision::fp16), 2, 2, 4, 8);
}

TEST(StateBytes, MomentsBelongToTheOptimizer) {
  const auto total = [](Optimizer optimizer) {
    return state_bytes(with(Precision::bf16, optimizer), StateLayout::master_weights, Precision::bf16).total();
  };
  EXPECT_EQ(total(Optimizer::sgd), 8);
  EXPECT_EQ(total(Optimizer::momentum), 12);
  EXPECT_EQ(total(Optimizer::adam), 16);
  EXPECT_EQ(total(Optimizer::adamw), 16);
}

TEST(StateBytes, OfLambAreTheOnesOfAdam) {
  const auto state = state_bytes(with(Precision::bf16, Optimizer::lamb), StateLayout::master_weights, Precision::fp32);
  expect_bytes(state, 2, 4, 4, 8);
}

TEST(StateBytes, WithoutMasterWeightsAreAllIn16Bits) {
  Training pure = with(Precision::bf16);
  pure.master_weights = false;
  for (const StateLayout layout : {StateLayout::master_weights, StateLayout::full_precision})
    for (const Precision gradient : {Precision::fp32, Precision::bf16})
      expect_bytes(state_bytes(pure, layout, gradient), 2, 2, 0, 4);
  pure.optimizer = Optimizer::momentum;
  expect_bytes(state_bytes(pure, StateLayout::master_weights, Precision::bf16), 2, 2, 0, 2);
  // 32-bit parameters need no copies to begin with.
  pure.precision = Precision::fp32;
  expect_bytes(state_bytes(pure, StateLayout::full_precision, Precision::fp32), 4, 4, 0, 4);
}

TEST(StateBytes, EightBitMomentsAreOfOneByteAndAScaleFor256) {
  const auto state =
      state_bytes(with(Precision::bf16, Optimizer::adam8bit), StateLayout::master_weights, Precision::bf16);
  EXPECT_EQ(state.total(), 2 + 2 + 4 + 2 * (1 + 4.0 / 256));
  EXPECT_NEAR(state.total(), 10.03, 0.005);
}

TEST(StateBytes, FactoredMomentsAreSumsOfRowsAndColumns) {
  const Training training = with(Precision::bf16, Optimizer::adafactor);
  const Model model = tests::llama(1, 64, 256, 4, 4, 1000);
  // Embedding and head, four square matrices, gate, up and down, and in full the vectors of three norms.
  constexpr double sums = 2 * (1000 + 64) + 4 * (64 + 64) + 3 * (64 + 256) + 3 * 64;
  constexpr double elements = 2 * 1000 * 64 + 4 * 64 * 64 + 3 * 64 * 256 + 3 * 64;
  const double factored = factored_moments(describe(model, 1));
  EXPECT_DOUBLE_EQ(factored, 4 * sums / elements);
  const StateBytes state = state_bytes(training, StateLayout::master_weights, Precision::bf16, factored);
  EXPECT_DOUBLE_EQ(state.total(), 8 + factored);
  // Next to nothing for the matrices of a real model.
  EXPECT_LT(factored_moments(describe(tests::llama2_7b(), 1)), 0.01);
}

TEST(StateBytes, OfTheOptimizerRoundUpToWholeBytes) {
  const auto state =
      state_bytes(with(Precision::bf16, Optimizer::adam8bit), StateLayout::master_weights, Precision::bf16);
  EXPECT_EQ(state.optimizer(1).count, 4 + 3);
  EXPECT_EQ(state.optimizer(256).count, 256 * 4 + 2 * (256 + 4));
  EXPECT_EQ(state_bytes({}, StateLayout::master_weights, Precision::fp32).optimizer(10).count, 10 * 12);
}

TEST(StateBytes, OfFourBitMatricesAreJustOverHalfAByte) { EXPECT_NEAR(nf4_bytes, 0.516, 0.0005); }

TEST(StateBytes, AnOptimizerStepReadsGradientsAndReadsAndWritesTheRest) {
  const auto traffic = [](Precision precision, StateLayout layout, Optimizer optimizer) {
    return optimizer_traffic(state_bytes(with(precision, optimizer), layout, Precision::fp32));
  };
  // Gradient 4, weights 4 + 4, moments 8 + 8.
  EXPECT_EQ(traffic(Precision::fp32, StateLayout::full_precision, Optimizer::adamw), 28);
  EXPECT_EQ(traffic(Precision::fp32, StateLayout::full_precision, Optimizer::sgd), 12);
  // The same on the master copy, and the 16-bit one written.
  EXPECT_EQ(traffic(Precision::bf16, StateLayout::master_weights, Optimizer::adamw), 30);
  EXPECT_EQ(traffic(Precision::bf16, StateLayout::master_weights, Optimizer::momentum), 22);
  // Gradient 4, master copy 4 + 4, the 16-bit one 2, and two moments of a byte with their scales, read and written.
  EXPECT_EQ(traffic(Precision::bf16, StateLayout::master_weights, Optimizer::adam8bit), 14 + 4 * (1 + 4.0 / 256));
}

TEST(Precision, EightBitsAreForMatrixProductsAndNotForActivations) {
  EXPECT_EQ(element_bytes(Precision::fp8), 1);
  EXPECT_EQ(activation_bytes(Precision::fp8), 2);
  EXPECT_EQ(activation_bytes(Precision::bf16), 2);
  EXPECT_EQ(activation_bytes(Precision::tf32), 4);
  EXPECT_EQ(element_bytes(Precision::tf32), 4);
}

TEST(Recompute, NamesTheModulesOrTheGroups) {
  EXPECT_EQ(to_string(Recompute{}), "none");
  EXPECT_EQ(to_string(Recompute{.kind = Recompute::Kind::selective}), "selective");
  EXPECT_EQ(to_string(Recompute{.kind = Recompute::Kind::full}), "full");
  EXPECT_EQ(to_string(Recompute{.kind = Recompute::Kind::full, .every = 4}), "{every: 4}");
  EXPECT_EQ(to_string(Recompute{.kind = Recompute::Kind::modules, .modules = {Module::mlp, Module::layer_norm}}),
            "{modules: [mlp, layernorm]}");
}

TEST(Recompute, HasTheModulesThatItListsAndSelectiveCoreAttention) {
  const Recompute listed{.kind = Recompute::Kind::modules, .modules = {Module::mlp, Module::moe}};
  EXPECT_TRUE(listed.has(Module::mlp));
  EXPECT_TRUE(listed.has(Module::moe));
  EXPECT_FALSE(listed.has(Module::core_attention));
  EXPECT_TRUE(Recompute{.kind = Recompute::Kind::selective}.has(Module::core_attention));
  EXPECT_FALSE(Recompute{.kind = Recompute::Kind::selective}.has(Module::mlp));
  EXPECT_FALSE(Recompute{}.has(Module::core_attention));
}

TEST(Adapters, AreOnTheirTargetsOrOnEveryLinear) {
  Adapters adapters;
  EXPECT_TRUE(adapters.on("query"));
  adapters.targets = {"key", "value"};
  EXPECT_TRUE(adapters.on("value"));
  EXPECT_FALSE(adapters.on("query"));
}

}  // namespace
}  // namespace trainyard::workloads
