#include "workloads/training.hpp"

#include <gtest/gtest.h>

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
}

TEST(Precision, EightBitsAreForMatrixProductsAndNotForActivations) {
  EXPECT_EQ(element_bytes(Precision::fp8), 1);
  EXPECT_EQ(activation_bytes(Precision::fp8), 2);
  EXPECT_EQ(activation_bytes(Precision::bf16), 2);
  EXPECT_EQ(activation_bytes(Precision::tf32), 4);
  EXPECT_EQ(element_bytes(Precision::tf32), 4);
}

}  // namespace
}  // namespace trainyard::workloads
