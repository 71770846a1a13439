#include "workloads/layers.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "tests/support/models.hpp"

namespace trainyard::workloads {
namespace {

using sim::Bytes;
using sim::Kernel;

// What one device has of sequences of that length.
struct Part {
  std::int64_t micro_batch = 1;
  std::int64_t sequence = 1;
  std::int64_t tensor = 1;
  bool sequence_parallel = false;
};

Expansion expanded(const Model& model, const Training& training, const Part& part,
                   const KernelStyle& style = fused_style()) {
  const Accelerator device = tests::h100();
  const Shard shard{
      .micro_batch = part.micro_batch, .tensor = part.tensor, .sequence_parallel = part.sequence_parallel};
  return expand(describe(model, part.sequence), training, shard, style, KernelCosts(device));
}

const Recompute nothing{};
const Recompute selective{.kind = Recompute::Kind::selective};
const Recompute full{.kind = Recompute::Kind::full};

Training unfused() {
  Training training;
  training.attention = AttentionKernel::unfused;
  return training;
}

// Of one layer of GPT-3 175B, one sequence of 2048 tokens.
double kept_mebibytes(const Recompute& recompute, std::int64_t tensor, bool sequence_parallel,
                      const Training& training) {
  const Part shard{.micro_batch = 1, .sequence = 2048, .tensor = tensor, .sequence_parallel = sequence_parallel};
  const Layer layer = expanded(tests::gpt3_175b(), training, shard).kinds.front();
  return static_cast<double>(layer.saved_bytes(recompute, false).count) / (1 << 20);
}

// Korthikanti et al., arXiv 2205.05198, table 2.
TEST(SavedActivations, AreTheOnesOfThePaperWithoutParallelism) {
  EXPECT_EQ(kept_mebibytes(nothing, 1, false, unfused()), 2736);  // s b h (34 + 5 a s / h)
}
TEST(SavedActivations, AreTheOnesOfThePaperWithTensorParallelism) {
  EXPECT_EQ(kept_mebibytes(nothing, 8, false, unfused()), 552);  // s b h (10 + 24 / t + 5 a s / (h t))
}
TEST(SavedActivations, AreTheOnesOfThePaperWithSequenceParallelism) {
  EXPECT_EQ(kept_mebibytes(nothing, 8, true, unfused()), 342);  // s b h / t (34 + 5 a s / h)
}
TEST(SavedActivations, AreTheOnesOfThePaperWithSelectiveRecomputation) {
  EXPECT_EQ(kept_mebibytes(selective, 8, true, unfused()), 102);  // 34 s b h / t
}
TEST(SavedActivations, AreTheInputOfTheLayerWithFullRecomputation) {
  EXPECT_EQ(kept_mebibytes(full, 1, false, unfused()), 48);  // 2 s b h
  EXPECT_EQ(kept_mebibytes(full, 8, false, unfused()), 48);
  EXPECT_EQ(kept_mebibytes(full, 8, true, unfused()), 6);  // and a part of it with sequence parallelism
}

TEST(SavedActivations, WithFlashAttentionAreOneNumberPerRowInsteadOfTheScores) {
  const double scores = 5.0 * 96 * 2048 * 2048 / (1 << 20);
  const double row_sums = 4.0 * 96 * 2048 / (1 << 20);
  EXPECT_EQ(kept_mebibytes(nothing, 1, false, {}), 2736 - scores + row_sums);
  EXPECT_EQ(kept_mebibytes(nothing, 8, true, {}), 342 - scores / 8 + row_sums / 8);
}

TEST(SavedActivations, WithoutDropoutHaveNoMasks) {
  Model model = tests::gpt3_175b();
  model.dropout = 0;
  const Part shard{.micro_batch = 1, .sequence = 2048};
  // Two masks of the hidden activations, and of the attention a mask and the result of dropout beside the softmax.
  const std::int64_t expected = 2LL * 2048 * 12288 + 3LL * 96 * 2048 * 2048;
  const auto saved = [&](const Model& which) {
    return expanded(which, unfused(), shard).kinds.front().saved_bytes(nothing, false).count;
  };
  EXPECT_EQ(saved(tests::gpt3_175b()) - saved(model), expected);
}

TEST(SavedActivations, OfALlamaLayerTake139KilobytesPerToken) {
  const Part shard{.micro_batch = 1, .sequence = 8192};
  // Four times the hidden activations, queries, keys, values and the output, a number per head, gate, up and product.
  constexpr std::int64_t per_token = 2 * (4 * 4096) + 2 * (2 * 4096 + 2 * 1024) + 4 * 32 + 6 * 14336;
  static_assert(per_token == 139'392);
  KernelStyle split = fused_style();
  split.split_projections = true;  // the products share their input, which is kept once
  for (const KernelStyle& style : {fused_style(), split}) {
    const Layer layer = expanded(tests::llama3_8b(), {}, shard, style).kinds.front();
    EXPECT_EQ(layer.saved_bytes(nothing, false).count, 8192 * per_token);
  }
}

TEST(SavedActivations, OfTorchtitansSelectivePolicyAreTheInputAndEverySecondProduct) {
  const Part shard{.micro_batch = 1, .sequence = 8192};
  KernelStyle split = fused_style();
  split.split_projections = true;
  const Layer layer = expanded(tests::llama3_8b(), {}, shard, split).kinds.front();
  // Outputs of query, value, gate and down, and of the attention.
  constexpr std::int64_t per_token = 2 * (4096 + 4096 + 1024 + 14336 + 4096 + 4096);
  EXPECT_EQ(layer.saved_bytes(selective, true).count, 8192 * per_token);
}

TEST(SavedActivations, HoldTheAttentionsOutputTwiceWhereItIsCopied) {
  const Part part{.micro_batch = 1, .sequence = 8192};
  KernelStyle copying = fused_style();
  copying.attention_output_copied = true;
  const auto saved = [&](const Training& training, const KernelStyle& style) {
    return expanded(tests::llama3_8b(), training, part, style).kinds.front().saved_bytes(nothing, false).count;
  };
  EXPECT_EQ(saved({}, copying) - saved({}, fused_style()), 2 * 8192 * 4096);
  EXPECT_EQ(saved(unfused(), copying), saved(unfused(), fused_style()));
}

TEST(SavedActivations, AreEightBitInputsOfLinearsWhereTheirCastsStay) {
  const Part part{.micro_batch = 1, .sequence = 8192};
  KernelStyle casting = fused_style();
  casting.casts_saved = true;
  const auto saved = [&](Precision precision, const KernelStyle& style) {
    Training training;
    training.precision = precision;
    return expanded(tests::llama3_8b(), training, part, style).kinds.front().saved_bytes(nothing, false).count;
  };
  // Half of two norms' outputs and of the product; the attention keeps its own output, the linear after it a cast.
  EXPECT_EQ(saved(Precision::fp8, fused_style()) - saved(Precision::fp8, casting), 8192 * (4096 + 4096 + 14336 - 4096));
  EXPECT_EQ(saved(Precision::bf16, casting), saved(Precision::bf16, fused_style()));
}

TEST(SavedActivations, OfTheHeadAreLogitsAndTheirCopies) {
  const Part part{.micro_batch = 1, .sequence = 8192};
  const auto saved = [&](double logits_bytes) {
    KernelStyle style = fused_style();
    style.logits_bytes = logits_bytes;
    return expanded(tests::llama3_8b(), {}, part, style).head.saved_bytes(nothing, false).count;
  };
  EXPECT_EQ(saved(6), 2LL * 2 * 8192 * 4096 + 6LL * 8192 * 128256);  // the final norm's input and output
  EXPECT_EQ(saved(12) - saved(6), 6LL * 8192 * 128256);
}

TEST(SavedActivations, GrowWithTheMicroBatch) {
  const Part one{.micro_batch = 1, .sequence = 1024};
  const Part four{.micro_batch = 4, .sequence = 1024};
  for (const Recompute& recompute : {nothing, selective, full})
    EXPECT_EQ(expanded(tests::gpt2(), unfused(), four).kinds.front().saved_bytes(recompute, false).count,
              expanded(tests::gpt2(), unfused(), one).kinds.front().saved_bytes(recompute, false).count * 4);
}

template <class Value>
Value sum_over_kernels(const Layer& layer, Value (*of)(const Kernel&), bool forward, bool backward) {
  Value sum{};
  for (const Operator& op : layer.operators) {
    if (forward)
      for (const Kernel& kernel : op.forward) sum += of(kernel);
    if (backward)
      for (const auto* kernels : {&op.input_gradient, &op.weight_gradient})
        for (const Kernel& kernel : *kernels) sum += of(kernel);
  }
  return sum;
}
sim::Flops model_flops(const Layer& layer, bool forward = true, bool backward = true) {
  return sum_over_kernels<sim::Flops>(
      layer, [](const Kernel& kernel) { return kernel.model_flops; }, forward, backward);
}
sim::Flops flops(const Layer& layer, bool forward = true, bool backward = true) {
  return sum_over_kernels<sim::Flops>(
      layer, [](const Kernel& kernel) { return kernel.flops; }, forward, backward);
}

TEST(Expansion, HasTheFlopsOfTheModel) {
  for (const Model& model : {tests::gpt2(), tests::llama3_8b()})
    for (const AttentionKernel attention : {AttentionKernel::flash, AttentionKernel::unfused})
      for (const KernelStyle& style : {fused_style(), eager_style(model)}) {
        Training training;
        training.attention = attention;
        const Part shard{.micro_batch = 2, .sequence = 1024};
        const Expansion expansion = expanded(model, training, shard, style);
        const std::int64_t total = model_flops(expansion.kinds.front()).count * model.layers +
                                   model_flops(expansion.embedding).count + model_flops(expansion.head).count;
        EXPECT_EQ(static_cast<double>(total), training_flops_per_token(model, 1024, true) * 2 * 1024);
      }
}

TEST(Expansion, ComputesTwiceAsMuchBackwardAsForward) {
  const Expansion expansion = expanded(tests::llama3_8b(), {}, {.micro_batch = 1, .sequence = 4096});
  EXPECT_EQ(model_flops(expansion.kinds.front(), false, true), model_flops(expansion.kinds.front(), true, false) * 2);
  EXPECT_EQ(model_flops(expansion.head, false, true), model_flops(expansion.head, true, false) * 2);
  // Flash attention computes its scores again, half an attention more than the model has.
  const std::int64_t attention = 2LL * 4096 * 4096 * 4096;
  EXPECT_EQ(flops(expansion.kinds.front()).count, model_flops(expansion.kinds.front()).count + attention / 2);
}

TEST(Expansion, UnfusedAttentionExecutesWhatTheMaskThrowsAway) {
  const Part shard{.micro_batch = 1, .sequence = 2048};
  const Layer layer = expanded(tests::gpt3_175b(), unfused(), shard).kinds.front();
  const std::int64_t attention = 2LL * 2048 * 2048 * 12288;  // forward, causal
  EXPECT_EQ(flops(layer).count - model_flops(layer).count, 3 * attention);
}

TEST(Expansion, DividesMatrixProductsAndAttentionOverTheTensorGroup) {
  for (const Model& model : {tests::gpt3_175b(), tests::llama3_70b()}) {
    const Layer whole = expanded(model, {}, {.micro_batch = 1, .sequence = 2048}).kinds.front();
    const Layer part = expanded(model, {}, {.micro_batch = 1, .sequence = 2048, .tensor = 8}).kinds.front();
    EXPECT_EQ(flops(part) * 8, flops(whole));
    EXPECT_EQ(model_flops(part) * 8, model_flops(whole));
  }
}

TEST(Expansion, SequenceParallelismDividesTheTrafficOfReplicatedOperators) {
  const auto traffic = [](bool sequence_parallel, Role role) {
    const Part shard{.micro_batch = 1, .sequence = 2048, .tensor = 8, .sequence_parallel = sequence_parallel};
    std::int64_t sum = 0;
    const Expansion expansion = expanded(tests::gpt3_175b(), {}, shard);
    for (const Operator& op : expansion.kinds.front().operators)
      if (op.role == role)
        for (const auto* kernels : {&op.forward, &op.input_gradient})
          for (const Kernel& kernel : *kernels) sum += kernel.bytes.count;
    return sum;
  };
  EXPECT_EQ(traffic(true, Role::replicated) * 8, traffic(false, Role::replicated));
  EXPECT_EQ(traffic(true, Role::column_linear), traffic(false, Role::column_linear));
}

TEST(Expansion, HasTheParametersOfTheModel) {
  for (const Model& model : {tests::gpt2(), tests::gpt3_175b(), tests::llama2_7b(), tests::llama3_405b()})
    for (const KernelStyle& style : {fused_style(), eager_style(model)}) {
      const Expansion expansion = expanded(model, {}, {.micro_batch = 1, .sequence = 128}, style);
      const Architecture architecture = describe(model, 128);
      EXPECT_EQ(expansion.kinds.front().parameters, parameters_of(architecture.kinds.front()));
      EXPECT_EQ(expansion.embedding.parameters, parameters_of(architecture.embedding));
      EXPECT_EQ(expansion.head.parameters, parameters_of(architecture.head));
    }
}

TEST(Expansion, KeepsNormsAndRowBiasesOnEveryTensorRank) {
  const Model model = tests::gpt3_175b();
  const std::int64_t hidden = model.hidden;
  const Layer part = expanded(model, {}, {.micro_batch = 1, .sequence = 128, .tensor = 8}).kinds.front();
  // Two norms of two vectors, and the biases behind the two row-parallel products.
  const std::int64_t everywhere = 6 * hidden;
  EXPECT_EQ((part.parameters - everywhere) * 8, parameters_of(describe(model, 128).kinds.front()) - everywhere);
}

TEST(Expansion, RunsOperatorByOperatorInMoreKernelsThanFused) {
  const Model model = tests::llama3_8b();
  const Part shard{.micro_batch = 1, .sequence = 2048};
  const auto kernels = [&](const KernelStyle& style) {
    std::size_t count = 0;
    sim::Duration duration{};
    const Expansion expansion = expanded(model, {}, shard, style);
    for (const Operator& op : expansion.kinds.front().operators)
      for (const auto* list : {&op.forward, &op.input_gradient, &op.weight_gradient})
        for (const Kernel& kernel : *list) {
          ++count;
          duration += kernel.duration;
        }
    return std::pair{count, duration};
  };
  const auto [fused_count, fused_time] = kernels(fused_style());
  const auto [eager_count, eager_time] = kernels(eager_style(model));
  EXPECT_GT(eager_count, fused_count + 10);
  EXPECT_GT(eager_time, fused_time);
}

TEST(Expansion, EightBitTrainingCastsAroundProductsAndLeavesTheHeadAlone) {
  Training training;
  training.precision = Precision::fp8;
  const Part shard{.micro_batch = 1, .sequence = 4096};
  const Expansion narrow = expanded(tests::llama3_8b(), training, shard);
  const Expansion wide = expanded(tests::llama3_8b(), {}, shard);
  const auto duration_of = [](const Layer& layer, const std::string& name) {
    for (const Operator& op : layer.operators)
      for (const Kernel& kernel : op.forward)
        if (kernel.name == name) return kernel.duration;
    return sim::Duration{};
  };
  EXPECT_GT(duration_of(narrow.kinds.front(), "gate up cast"), sim::Duration{});
  EXPECT_LT(duration_of(narrow.kinds.front(), "gate up"), duration_of(wide.kinds.front(), "gate up"));
  EXPECT_EQ(duration_of(narrow.head, "logits"), duration_of(wide.head, "logits"));
  EXPECT_EQ(duration_of(narrow.head, "logits cast"), sim::Duration{});
  EXPECT_EQ(narrow.kinds.front().saved_bytes(nothing, false), wide.kinds.front().saved_bytes(nothing, false));
}

TEST(Expansion, HandsOnWholeActivations) {
  const Part shard{.micro_batch = 2, .sequence = 2048, .tensor = 8, .sequence_parallel = true};
  EXPECT_EQ(expanded(tests::gpt3_175b(), {}, shard).embedding.boundary.count, 2LL * 2 * 2048 * 12288);
}

TEST(OptimizerStep, ReadsGradientsForTheirNormClipsThemAndPassesOverTheState) {
  const Accelerator device = tests::h100();
  const KernelCosts costs(device);
  const Training training;
  const StateBytes state = state_bytes(training, StateLayout::master_weights, Precision::fp32);
  constexpr std::int64_t parameters = 1'000'000'000;
  const std::vector<Kernel> kernels = optimizer_kernels(training, state, parameters, costs);
  ASSERT_EQ(kernels.size(), 3U);
  for (const Kernel& kernel : kernels) EXPECT_EQ(kernel.kind, sim::KernelClass::optimizer);
  EXPECT_EQ(kernels[0].bytes.count, 4 * parameters);
  EXPECT_EQ(kernels[1].bytes.count, 8 * parameters);
  EXPECT_EQ(static_cast<double>(kernels[2].bytes.count), optimizer_traffic(state) * parameters);
}

}  // namespace
}  // namespace trainyard::workloads
