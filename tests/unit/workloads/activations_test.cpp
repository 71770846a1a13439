// What devices keep and compute when only a part is kept, trained or routed. Plain layers are in layers_test.cpp.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/support/models.hpp"
#include "workloads/layers.hpp"

namespace trainyard::workloads {
namespace {

using sim::Kernel;

KernelStyle split_style() {
  KernelStyle style = fused_style();
  style.split_projections = true;
  return style;
}

Expansion expanded(const Model& model, const Training& training, std::int64_t sequence,
                   const KernelStyle& style = fused_style(), std::int64_t micro_batch = 1) {
  const Accelerator device = tests::h100();
  return expand(describe(model, sequence, 0, training.documents), training, {.micro_batch = micro_batch}, style,
                KernelCosts(device));
}

std::int64_t saved(const Layer& layer, const Recompute& recompute = {}) {
  return layer.saved_bytes(recompute, false).count;
}

std::vector<const Layer*> all_of(const Expansion& expansion) {
  std::vector<const Layer*> layers{&expansion.embedding};
  for (std::int64_t i = 0; i < expansion.layers(); ++i) layers.push_back(&expansion.layer(i));
  layers.push_back(&expansion.head);
  return layers;
}

template <class Of>
std::int64_t sum_over_kernels(const Layer& layer, Of of) {
  std::int64_t sum = 0;
  for (const Operator& op : layer.operators)
    for (const auto* kernels : {&op.forward, &op.input_gradient, &op.weight_gradient})
      for (const Kernel& kernel : *kernels) sum += of(kernel);
  return sum;
}
std::int64_t model_flops(const Layer& layer) {
  return sum_over_kernels(layer, [](const Kernel& kernel) { return kernel.model_flops.count; });
}

const Operator& operator_of(const Layer& layer, const std::string& name) {
  const auto found = std::ranges::find(layer.operators, name, &Operator::name);
  EXPECT_NE(found, layer.operators.end()) << name;
  return *found;
}

std::vector<Model> one_of_each() {
  return {tests::gpt2(),        tests::neox_20b(),    tests::qwen3_8b(),  tests::mixtral_8x7b(),
          tests::deepseek_v3(), tests::gpt_oss_20b(), tests::bert_base(), tests::t5(6, 512, 2048, 8, 64),
          tests::vit_b16(),     tests::resnet50(),    tests::dlrm()};
}

// The first product of an image's model has no gradient of its input, a third of its training.
double without_gradient_of_images(const Model& model, double micro_batch) {
  if (model.structure == Model::Structure::vision) return micro_batch * 2 * 196 * 768 * (3 * 16 * 16);
  if (model.structure == Model::Structure::convolution) return micro_batch * 2 * 112 * 112 * 64 * (3 * 7 * 7);
  return 0;
}

TEST(Expansion, OfEveryStructureHasItsParametersAndFlops) {
  for (const Model& model : one_of_each())
    for (const KernelStyle& style : {fused_style(), split_style(), eager_style(model)})
      for (const AttentionKernel attention : {AttentionKernel::flash, AttentionKernel::unfused}) {
        constexpr std::int64_t sequence = 512;
        Training training;
        training.attention = attention;
        const Expansion expansion = expanded(model, training, sequence, style, 2);
        std::int64_t parameters = 0;
        double flops = 0;
        for (const Layer* layer : all_of(expansion)) {
          parameters += layer->parameters;
          flops += static_cast<double>(model_flops(*layer));
        }
        EXPECT_EQ(parameters, trained_parameters(model)) << model.name;
        const double expected =
            2 * training_flops_per_sample(model, sequence, true) - without_gradient_of_images(model, 2);
        EXPECT_NEAR(flops / expected, 1, 1e-9) << model.name;
      }
}

TEST(Expansion, OfPackedDocumentsComputesThePairsWithinThem) {
  const Model model = tests::llama3_8b();
  Training packed;
  packed.documents = {1000, 3000, 96};
  const auto attention = [&](const Training& training) {
    return operator_of(expanded(model, training, 4096).kinds.front(), "attention").forward.front();
  };
  EXPECT_EQ(attention(packed).flops.count, 2LL * 4096 * (1000 * 1000 + 3000 * 3000 + 96 * 96));
  EXPECT_LT(attention(packed).duration, attention({}).duration);
}

TEST(Expansion, TrainsEverythingButTables) {
  for (const Model& model : one_of_each()) {
    const bool tables = model.structure == Model::Structure::recommendation;
    const Expansion expansion = expanded(model, {}, 128);
    for (const Layer* layer : all_of(expansion))
      EXPECT_EQ(layer->trained, tables && layer->name == "tables" ? 0 : layer->parameters) << model.name;
  }
}

// Adapters of rank 8 on queries and values of Llama-2-7B unless said otherwise.
Training adapting(std::vector<std::string> targets = {"query", "value"}, std::int64_t rank = 8) {
  Training training;
  training.adapters = Adapters{.rank = rank, .targets = std::move(targets)};
  return training;
}

std::int64_t trained(const Training& training, const KernelStyle& style = fused_style()) {
  const Expansion expansion = expanded(tests::llama2_7b(), training, 128, style);
  std::int64_t sum = 0;
  for (const Layer* layer : all_of(expansion)) sum += layer->trained;
  return sum;
}

TEST(Adapters, AreTrainedAlone) {
  for (const KernelStyle& style : {fused_style(), split_style()}) {
    EXPECT_EQ(trained(adapting(), style), 32 * 2 * 8 * (4096 + 4096));  // 4.194 M
    EXPECT_EQ(trained(adapting({"query", "value"}, 16), style), 8'388'608);
    // Four square matrices and three to or from the feed-forward width: 39.98 M.
    EXPECT_EQ(trained(adapting({}, 16), style), 32LL * 16 * (4 * 2 * 4096 + 3 * (4096 + 11008)));
  }
  EXPECT_NEAR(static_cast<double>(trained(adapting({}, 16))) * 1e-6, 39.98, 0.005);
}

TEST(Adapters, LeaveEverythingElseFrozenIn16Bits) {
  const Expansion expansion = expanded(tests::llama2_7b(), adapting(), 128);
  std::int64_t frozen = 0;
  std::int64_t held = 0;
  for (const Layer* layer : all_of(expansion)) {
    frozen += layer->frozen.count;
    held += layer->parameters - layer->trained;
  }
  EXPECT_EQ(held, 6'738'415'616);
  EXPECT_EQ(frozen, 2 * held);
}

TEST(Adapters, BesideFourBitMatricesLeaveEmbeddingsHeadAndNormsIn16Bits) {
  Training training = adapting({}, 16);
  training.adapters->quantized = true;
  const Expansion expansion = expanded(tests::llama2_7b(), training, 128);
  constexpr double linears = 4 * 4096.0 * 4096 + 3 * 4096.0 * 11008;
  // 4.127 bits a weight; every matrix rounds down to a byte.
  EXPECT_NEAR(static_cast<double>(expansion.kinds.front().frozen.count), 0.515875 * linears + 2 * 2 * 4096, 7);
  EXPECT_EQ(expansion.embedding.frozen.count, 2LL * 32000 * 4096);
  EXPECT_EQ(expansion.head.frozen.count, 2LL * (32000 * 4096 + 4096));
}

TEST(Adapters, BesideFourBitMatricesHaveExpertsInFourBitsToo) {
  Training training = adapting({}, 16);
  training.adapters->quantized = true;
  const Layer layer = expanded(tests::mixtral_8x7b(), training, 128).kinds.front();
  constexpr double matrices = 2 * 4096.0 * (4096 + 1024) + 8 * 3 * 4096.0 * 14336;
  // Norms and the router are too small to matter.
  EXPECT_NEAR(static_cast<double>(layer.frozen.count) / matrices, 0.516, 0.001);
}

TEST(Adapters, BesideFourBitMatricesTakeLongerToReadThem) {
  Training training = adapting();
  const auto duration = [&](bool quantized) {
    training.adapters->quantized = quantized;
    return sum_over_kernels(expanded(tests::llama2_7b(), training, 512).kinds.front(),
                            [](const Kernel& kernel) { return kernel.duration.count(); });
  };
  EXPECT_GT(duration(true), duration(false));
}

TEST(Adapters, NeedNoGradientsOfFrozenMatrices) {
  constexpr std::int64_t tokens = 1024;
  constexpr std::int64_t linears = 4LL * 4096 * 4096 + 3LL * 4096 * 11008;
  constexpr std::int64_t attention = 2LL * tokens * tokens * 4096;  // forward, causal
  const auto of_layer = [&](const Training& training) {
    return model_flops(expanded(tests::llama2_7b(), training, tokens).kinds.front());
  };
  EXPECT_EQ(of_layer({}), 6 * tokens * linears + 3 * attention);
  EXPECT_EQ(of_layer(adapting()), 4 * tokens * linears + 3 * attention + 6 * tokens * (2 * 8 * (4096 + 4096)));
  EXPECT_EQ(of_layer(adapting({}, 16)),
            4 * tokens * linears + 3 * attention + 6 * tokens * 16 * (4 * 2 * 4096 + 3 * (4096 + 11008)));
  // The head has none at all, and a lookup never had products.
  EXPECT_EQ(model_flops(expanded(tests::llama2_7b(), adapting(), tokens).head), 4 * tokens * 32000 * 4096);
}

// Per token of a layer of Llama-2-7B: inputs of both norms, queries, keys, values and the output, a number per head,
// gate and up; then the inputs that are kept for gradients of weights.
constexpr std::int64_t kept_always = 2 * 2 * 4096 + 2 * 4 * 4096 + 4 * 32 + 2 * 2 * 11008;

TEST(Adapters, KeepInputsOfFrozenMatricesOnlyWhereTheyReadThem) {
  constexpr std::int64_t tokens = 256;
  const auto kept = [&](const Training& training, const KernelStyle& style) {
    return saved(expanded(tests::llama2_7b(), training, tokens, style).kinds.front());
  };
  for (const KernelStyle& style : {fused_style(), split_style()}) {
    EXPECT_EQ(kept({}, style), tokens * (kept_always + 2 * 4096 + 2 * 4096 + 2 * 11008));
    // What the two adapters make between their products stays too.
    EXPECT_EQ(kept(adapting(), style), tokens * (kept_always + 2 * 4096 + 2 * 2 * 8));
    EXPECT_EQ(kept(adapting({"gate", "up"}), style), tokens * (kept_always + 2 * 4096 + 2 * 2 * 8));
    EXPECT_EQ(kept(adapting({"down"}), style), tokens * (kept_always + 2 * 11008 + 2 * 8));
    // The attention keeps its output anyway.
    EXPECT_EQ(kept(adapting({"output"}), style), tokens * (kept_always + 2 * 8));
  }
}

TEST(Adapters, OnOneOfSeveralMatricesKeepTheInputThatTheseShare) {
  constexpr std::int64_t tokens = 256;
  for (const char* target : {"query", "key", "value", "gate", "up"})
    for (const KernelStyle& style : {fused_style(), split_style()}) {
      const Layer layer = expanded(tests::llama2_7b(), adapting({target}), tokens, style).kinds.front();
      EXPECT_EQ(saved(layer), tokens * (kept_always + 2 * 4096 + 2 * 8)) << target;
    }
}

TEST(Adapters, LeaveExpertsAndRoutersFrozen) {
  const Layer layer = expanded(tests::mixtral_8x7b(), adapting({}, 16), 256).kinds.front();
  EXPECT_EQ(layer.trained, 16 * (2 * (4096 + 4096) + 2 * (4096 + 1024)));
  for (const char* frozen : {"router", "experts gate up", "experts down"}) {
    EXPECT_TRUE(operator_of(layer, frozen).weight_gradient.empty()) << frozen;
    EXPECT_EQ(operator_of(layer, frozen).saved.count, 0) << frozen;
  }
}

Recompute only(std::vector<Module> modules) {
  return {.kind = Recompute::Kind::modules, .modules = std::move(modules)};
}

std::vector<std::string> run_again(const Layer& layer, const Recompute& recompute) {
  std::vector<std::string> names;
  for (const Operator& op : layer.operators)
    if (layer.runs_again(op, recompute, false)) names.push_back(op.name);
  return names;
}
using Names = std::vector<std::string>;

TEST(RecomputedModules, OfCoreAttentionAreTheSelectiveOnes) {
  Training unfused;
  unfused.attention = AttentionKernel::unfused;
  const Layer layer = expanded(tests::gpt3_175b(), unfused, 2048).kinds.front();
  const Recompute selective{.kind = Recompute::Kind::selective};
  EXPECT_EQ(saved(layer, only({Module::core_attention})), saved(layer, selective));
  EXPECT_EQ(saved(layer, selective), 34 * 2048 * 12288);  // 34 s b h
  EXPECT_EQ(run_again(layer, only({Module::core_attention})), Names{"attention"});
}

TEST(RecomputedModules, OfNormsDropTheInputsOfTheProductsBehindThem) {
  const Layer layer = expanded(tests::llama3_8b(), {}, 1024).kinds.front();
  EXPECT_EQ(saved(layer) - saved(layer, only({Module::layer_norm})), 2 * 1024 * 2 * 4096);
  EXPECT_EQ(run_again(layer, only({Module::layer_norm})), (Names{"norm 1", "norm 2"}));
}

TEST(RecomputedModules, OfFeedForwardBlocksLeaveTheirInput) {
  const Layer layer = expanded(tests::llama3_8b(), {}, 1024).kinds.front();
  EXPECT_EQ(saved(layer) - saved(layer, only({Module::mlp})), 1024 * 6 * 14336);  // gate, up and their product
  EXPECT_EQ(run_again(layer, only({Module::mlp})), (Names{"gate up", "swiglu", "down"}));
  // And not even that if the norm before it runs again too.
  EXPECT_EQ(saved(layer, only({Module::mlp})) - saved(layer, only({Module::mlp, Module::layer_norm})),
            2 * 1024 * 2 * 4096);
}

// DeepSeek-V3's first layer is dense, its fourth has experts.
TEST(RecomputedModules, OfLatentProjectionsDropQueriesKeysAndValues) {
  const Layer layer = expanded(tests::deepseek_v3(), {}, 1024).kinds.front();
  const Recompute projections = only({Module::mla_up_projection});
  EXPECT_EQ(saved(layer) - saved(layer, projections), 1024 * 2 * 128 * (192 + 192 + 128));
  const Names again = run_again(layer, projections);
  EXPECT_EQ(again, (Names{"query up", "key value up"}));
}

TEST(RecomputedModules, OfExpertsAreApartFromDenseFeedForwardBlocks) {
  const Expansion expansion = expanded(tests::deepseek_v3(), {}, 1024);
  const Layer& dense = expansion.layer(0);
  const Layer& layer = expansion.layer(3);
  EXPECT_EQ(saved(dense, only({Module::moe})), saved(dense));
  EXPECT_EQ(saved(dense) - saved(dense, only({Module::mlp})), 1024 * 6 * 18432);
  EXPECT_EQ(saved(layer, only({Module::mlp})), saved(layer));
  // What is left of the block is the input of the router.
  std::int64_t block = 0;
  for (const Operator& op : layer.operators)
    if (op.region == Region::experts) block += op.saved.count;
  EXPECT_EQ(saved(layer) - saved(layer, only({Module::moe})), block - 2 * 1024 * 7168);
}

TEST(RecomputedModules, OfTheActivationDropTheProductsThatExpertsMultiplyLast) {
  const Layer layer = expanded(tests::mixtral_8x7b(), {}, 1024).kinds.front();
  EXPECT_EQ(saved(layer) - saved(layer, only({Module::activation})), 2 * 1024 * 2 * 14336);
  EXPECT_EQ(run_again(layer, only({Module::activation})), Names{"experts activation"});
}

TEST(RecomputedModules, AddUp) {
  const Layer layer = expanded(tests::deepseek_v3(), {}, 1024).layer(3);
  std::int64_t each = 0;
  const std::vector<Module> modules{Module::core_attention, Module::mla_up_projection, Module::moe};
  for (const Module module : modules) each += saved(layer) - saved(layer, only({module}));
  EXPECT_EQ(saved(layer) - saved(layer, only(modules)), each);
}

TEST(FullRecomputation, KeepsTheInputOfALayerAndRunsAllOfItAgainHoweverLayersAreGrouped) {
  const Layer layer = expanded(tests::deepseek_v3(), {}, 1024).layer(3);
  for (const std::int64_t every : {1, 2, 10}) {
    const Recompute full{.kind = Recompute::Kind::full, .every = every};
    EXPECT_EQ(saved(layer, full), 2 * 1024 * 7168);
    EXPECT_EQ(run_again(layer, full).size(), layer.operators.size());
  }
}

TEST(SavedActivations, OfEncodersAreTheOnesOfDecoders) {
  Training unfused;
  unfused.attention = AttentionKernel::unfused;
  const Layer layer = expanded(tests::bert_base(), unfused, 512).kinds.front();
  EXPECT_EQ(saved(layer), 34 * 512 * 768 + 5 * 12 * 512 * 512);  // s b h (34 + 5 a s / h)
}

TEST(SavedActivations, OfADecoderLayerHoldTheKeysAndValuesOfTheEncoder) {
  Model model = tests::t5(6, 512, 2048, 6, 64);
  model.decoder_sequence = 100;
  const Layer layer = expanded(model, {}, 400).layer(6);
  constexpr std::int64_t inner = 6 * 64;
  // Of a target: inputs and outputs of three norms, queries of both attentions, keys and values of one, two outputs,
  // two numbers per head, and the feed-forward block before and behind its activation.
  constexpr std::int64_t per_target = 2 * 6 * 512 + 2 * (2 + 2 + 2) * inner + 2 * 4 * 6 + 2 * 2 * 2048;
  constexpr std::int64_t per_source = 2 * 2 * inner;
  // The encoder's output itself belongs to all decoder layers.
  const std::int64_t shared = operator_of(layer, "cross key value").saved.count;
  EXPECT_EQ(saved(layer) - shared, 100 * per_target + 400 * per_source);
}

TEST(SavedActivations, OfABottleneckAreTheInputsOfItsConvolutionsAndTheirNorms) {
  const Expansion expansion = expanded(tests::resnet50(), {}, 0);
  constexpr std::int64_t positions = 56 * 56;
  EXPECT_EQ(saved(expansion.layer(1)), 2 * positions * ((256 + 64 + 64) + (64 + 64 + 256)));
  // The shortcut of a first block reads the block's input too, which is kept once.
  EXPECT_EQ(saved(expansion.layer(0)), 2 * positions * ((64 + 64 + 64) + (64 + 64 + 256 + 256)));
}

TEST(SavedActivations, AroundTheBlocksOfAResNetAreWhatPoolsRead) {
  const Expansion expansion = expanded(tests::resnet50(), {}, 0);
  constexpr std::int64_t channels = 64 * 112 * 112;
  // The image, what norm and pool read, and where each of the pool's results came from.
  EXPECT_EQ(saved(expansion.embedding), 2 * (3 * 224 * 224 + channels + channels + 64 * 56 * 56));
  const Operator& pool = operator_of(expansion.head, "average pool");
  EXPECT_EQ(pool.saved.count, 2 * 2048 * 7 * 7);
}

TEST(SavedActivations, OfParallelBlocksHoldTheirCommonInputOnce) {
  Model sequential = tests::neox_20b();
  sequential.parallel_residual = false;
  const auto kept = [](const Model& model) { return saved(expanded(model, {}, 1024).kinds.front()); };
  EXPECT_EQ(kept(sequential) - kept(tests::neox_20b()), 2 * 1024 * 6144);
}

TEST(SavedActivations, OfVisionTransformersAreOfPatchesAndAClassToken) {
  const Expansion expansion = expanded(tests::vit_b16(), {}, 0);
  EXPECT_EQ(expansion.embedding.boundary.count, 2 * 197 * 768);
  // s b h (34 + 4 a / h) without its two masks.
  EXPECT_EQ(saved(expansion.kinds.front()), 197 * (32 * 768 + 4 * 12));
}

// Of Mixtral's feed-forward blocks: 1024 tokens on two of eight experts each.
constexpr std::int64_t tokens = 1024;
constexpr std::int64_t rows = 2 * tokens;

std::int64_t of_experts(const Layer& layer) {
  std::int64_t sum = 0;
  for (const Operator& op : layer.operators)
    if (op.region == Region::experts) sum += op.saved.count;
  return sum;
}
// A row of the buffers: where it came from, its input, gate, up and their product.
constexpr std::int64_t per_row = 4 + 2 * (4096 + 3 * 14336);
constexpr std::int64_t per_token = 2 * 4096 + 4 * 8;  // the router's input and the scores in 32 bits

Training routed(const ExpertRouting& routing) {
  Training training;
  training.routing = routing;
  return training;
}

TEST(Experts, KeepTheRowsOfEveryTokenThatTheyGet) {
  const Layer layer = expanded(tests::mixtral_8x7b(), {}, tokens).kinds.front();
  EXPECT_EQ(of_experts(layer), tokens * per_token + rows * per_row);
}

TEST(Experts, WithACapacityKeepAndComputeWholeBuffers) {
  for (const double factor : {0.5, 1.0, 1.25, 2.0}) {
    const auto held = static_cast<std::int64_t>(factor * rows);
    const Layer layer = expanded(tests::mixtral_8x7b(), routed(tests::capacity(factor)), tokens).kinds.front();
    EXPECT_EQ(of_experts(layer), tokens * per_token + held * per_row) << factor;
    const Operator& product = operator_of(layer, "experts gate up");
    EXPECT_EQ(product.forward.front().flops.count, 2 * held * 4096 * 2 * 14336) << factor;
    EXPECT_EQ(product.weight_gradient.front().flops.count, 2 * held * 4096 * 2 * 14336) << factor;
    // The rows between buffers and tokens are copied: of all of the buffers, but once for each token.
    EXPECT_EQ(operator_of(layer, "permute tokens").forward.front().bytes.count, 2 * 4096 * (tokens + held)) << factor;
  }
}

TEST(Experts, WithoutACapacityComputeEveryTokenHoweverUneven) {
  const auto layer = [&](const ExpertRouting& routing) {
    return expanded(tests::mixtral_8x7b(), routed(routing), tokens).kinds.front();
  };
  const Layer even = layer({});
  for (const ExpertRouting& routing : {tests::imbalance(3), tests::dirichlet(0.5)}) {
    const Layer uneven = layer(routing);
    EXPECT_EQ(of_experts(uneven), of_experts(even));
    EXPECT_EQ(model_flops(uneven), model_flops(even));
  }
}

TEST(Experts, WithoutAGroupedKernelRunOneAfterTheOther) {
  KernelStyle style = fused_style();
  style.grouped_experts = false;
  const auto products = [&](const ExpertRouting& routing, const KernelStyle& which) {
    const Layer layer = expanded(tests::mixtral_8x7b(), routed(routing), tokens, which).kinds.front();
    return operator_of(layer, "experts gate up").forward;
  };
  EXPECT_EQ(products({}, fused_style()).size(), 1U);
  EXPECT_EQ(products({}, style).size(), 8U);
  // Experts without tokens have nothing to run.
  EXPECT_EQ(products(tests::dirichlet(0.001), style).size(), 2U);  // nearly all tokens choose the same two
  sim::Duration apart{};
  for (const Kernel& kernel : products({}, style)) apart += kernel.duration;
  EXPECT_GE(apart, products({}, fused_style()).front().duration);
}

TEST(Experts, ChooseIn32BitsWhateverTheTraining) {
  const auto router = [](Precision precision) {
    Training training;
    training.precision = precision;
    return operator_of(expanded(tests::mixtral_8x7b(), training, tokens).kinds.front(), "router").forward.back();
  };
  EXPECT_EQ(router(Precision::fp8).duration, router(Precision::bf16).duration);
  // Scores and matrix in 32 bits.
  EXPECT_EQ(router(Precision::bf16).bytes.count, 4 * (tokens * 4096 + 4096 * 8 + tokens * 8));
}

TEST(TableExchange, SendsAVectorOfEveryTableForEverySample) {
  const Expansion expansion = expanded(tests::dlrm(), {}, 0, fused_style(), 64);
  EXPECT_EQ(operator_of(expansion.embedding, "table lookup").exchanged.count, 2 * 64 * 26 * 128);
  EXPECT_EQ(operator_of(expansion.layer(1), "interaction").exchanged.count, 2 * 64 * 26 * 128);
}

TEST(TableExchange, LooksUpTheSamplesOfAllRanksInTheTablesOfOne) {
  const Accelerator device = tests::h100();
  const auto lookup = [&](std::int64_t ranks) {
    return expand(describe(tests::dlrm(), 0), {}, {.micro_batch = 64, .table_ranks = ranks}, fused_style(),
                  KernelCosts(device))
        .embedding.operators.front();
  };
  // 26 tables in 32 bits with a number of Adagrad for each row, divided; as many rows as samples times tables read.
  EXPECT_EQ(lookup(1).parameters, 26'000'000LL * 128);
  EXPECT_EQ(lookup(1).frozen.count, 26'000'000LL * (4 * 128 + 4));
  EXPECT_EQ(lookup(13).frozen.count, 2'000'000LL * (4 * 128 + 4));
  EXPECT_EQ(lookup(13).forward.front().bytes.count, lookup(1).forward.front().bytes.count);
  EXPECT_EQ(lookup(1).forward.front().bytes.count, 64 * 26 * 128 * (4 + 2));
}

}  // namespace
}  // namespace trainyard::workloads
