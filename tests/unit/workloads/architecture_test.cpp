// Models of every structure as lists of operations. Dense decoders are in model_test.cpp.
#include "workloads/architecture.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "tests/support/models.hpp"

namespace trainyard::workloads {
namespace {

double billions(std::int64_t count) { return static_cast<double>(count) * 1e-9; }
double billions(double count) { return count * 1e-9; }

template <class Of>
std::vector<Of> works_of(const Block& block) {
  std::vector<Of> works;
  for (const Operation& operation : block.operations)
    if (const auto* work = std::get_if<Of>(&operation.work)) works.push_back(*work);
  return works;
}
std::vector<std::string> names_of(const Block& block) {
  std::vector<std::string> names;
  for (const Operation& operation : block.operations) names.push_back(operation.name);
  return names;
}
const LinearWork& linear(const Block& block, const std::string& name) {
  const auto found = std::ranges::find(block.operations, name, &Operation::name);
  return std::get<LinearWork>(found->work);
}

TEST(Parameters, OfEncodersCountThePoolerButNotThePredictionHead) {
  EXPECT_EQ(parameters(tests::bert_base()), 109'482'240);
  EXPECT_EQ(parameters(tests::bert(24, 1024, 16)), 335'141'888);  // BERT-large
  // A linear, a norm and the bias of logits that use the embedding's matrix.
  EXPECT_EQ(trained_parameters(tests::bert_base()) - parameters(tests::bert_base()), 768 * 768 + 768 + 2 * 768 + 30522);
}

TEST(Parameters, OfVisionTransformersAreCountedToTheUnit) {
  EXPECT_EQ(parameters(tests::vit_b16()), 86'567'656);
  EXPECT_EQ(parameters(tests::vit(24, 1024, 16)), 304'326'632);  // ViT-L/16
}

TEST(Parameters, OfResNet50LieIn161Tensors) {
  const std::vector<std::int64_t> tensors = parameter_tensors(tests::resnet50());
  EXPECT_EQ(tensors.size(), 161U);
  EXPECT_EQ(std::accumulate(tensors.begin(), tensors.end(), std::int64_t{0}), 25'557'032);
  EXPECT_EQ(parameters(tests::resnet50()), 25'557'032);
}

TEST(Parameters, OfEncoderDecodersAreTheOnesOfT5) {
  EXPECT_EQ(parameters(tests::t5(6, 512, 2048, 8, 64)), 60'506'624);
  EXPECT_EQ(parameters(tests::t5(12, 768, 3072, 12, 64)), 222'903'552);
  EXPECT_NEAR(billions(parameters(tests::t5(24, 1024, 4096, 16, 64))), 0.737668, 0.5e-6);
  EXPECT_NEAR(billions(parameters(tests::t5(24, 1024, 16384, 32, 128))), 2.8516, 0.5e-4);
  EXPECT_NEAR(billions(parameters(tests::t5(24, 1024, 65536, 128, 128))), 11.3073, 0.5e-4);
}

TEST(Parameters, OfT5WithGatesHaveAThirdMatrixAndAHeadOfTheirOwn) {
  const Model model = tests::t5(6, 512, 1024, 6, 64);
  Model gated = model;  // v1.1
  gated.activation = Model::Activation::geglu;
  gated.tied_embeddings = false;
  EXPECT_EQ(parameters(gated) - parameters(model), 2 * 6 * 512 * 1024 + 32128 * 512);
}

TEST(Parameters, OfHeadsWithNormsOfTheirOwnAreTheOnesOfQwen3) {
  EXPECT_EQ(parameters(tests::qwen3_8b()), 8'190'735'360);
}

TEST(Parameters, OfMixturesOfExpertsCountAllOfThem) {
  EXPECT_NEAR(billions(parameters(tests::mixtral_8x7b())), 46.703, 0.5e-3);
  EXPECT_NEAR(billions(parameters(tests::mixtral_8x22b())), 140.630, 0.5e-3);
  EXPECT_NEAR(billions(parameters(tests::qwen3_moe(48, 2048, 768, 32))), 30.532, 0.5e-3);
  EXPECT_NEAR(billions(parameters(tests::qwen3_moe(94, 4096, 1536, 64))), 235.094, 0.5e-3);
  EXPECT_NEAR(billions(parameters(tests::deepseek_v3())), 671.026, 0.5e-3);
}

TEST(Parameters, ThatAreActiveCountTheExpertsThatATokenPasses) {
  EXPECT_NEAR(billions(active_parameters(tests::mixtral_8x7b())), 12.880, 0.5e-3);
  EXPECT_NEAR(billions(active_parameters(tests::mixtral_8x22b())), 39.161, 0.5e-3);
  EXPECT_NEAR(billions(active_parameters(tests::qwen3_moe(48, 2048, 768, 32))), 3.353, 0.5e-3);
  EXPECT_NEAR(billions(active_parameters(tests::qwen3_moe(94, 4096, 1536, 64))), 22.191, 0.5e-3);
  EXPECT_NEAR(billions(active_parameters(tests::deepseek_v3())), 37.552, 0.5e-3);
  EXPECT_EQ(active_parameters(tests::llama3_8b()), parameters(tests::llama3_8b()));
}

TEST(Parameters, OfLatentAttentionAreOfFiveMatricesAndTwoNorms) {
  const Block layer = describe(tests::deepseek_v3(), 1).kinds.front();
  std::int64_t sum = 0;
  for (const Operation& operation : layer.operations)
    if (operation.region == Region::attention) sum += parameters_of(operation);
  constexpr std::int64_t query = 7168 * 1536 + 1536 * 128 * (128 + 64);
  constexpr std::int64_t key_value = 7168 * (512 + 64) + 512 * 128 * (128 + 128);
  constexpr std::int64_t output = 128 * 128 * 7168;
  EXPECT_EQ(sum, query + key_value + output + 1536 + 512);
  EXPECT_NEAR(static_cast<double>(query + key_value + output) * 1e-6, 187.1, 0.05);
}

TEST(Parameters, OfLatentAttentionWithoutAQueryRankComeStraightFromTheHiddenState) {
  Model direct = tests::deepseek_v3();
  direct.latent_attention->q_rank = 0;
  EXPECT_EQ(parameters(tests::deepseek_v3()) - parameters(direct),
            61LL * (7168 * 1536 + 1536 + 1536 * 128 * 192 - 7168 * 128 * 192));
}

TEST(Parameters, OfLayersForFurtherTokensAreTrainedButNotPublished) {
  const Model model = tests::deepseek_v3();
  Model without = model;
  without.mtp_layers = 0;
  EXPECT_EQ(parameters(model), parameters(without));
  EXPECT_EQ(active_parameters(model), active_parameters(without));
  // A layer with experts, the projection of two hidden states, and norms of both and of the result.
  const std::int64_t layer = parameters_of(describe(model, 1).kinds.at(1));
  EXPECT_EQ(trained_parameters(model) - trained_parameters(without), layer + 2 * 7168 * 7168 + 3 * 7168);
}

TEST(Parameters, OfSharedExpertsAreOfOneBlockAndItsGate) {
  Model shared = tests::mixtral_8x7b();
  shared.experts->shared_hidden = 1000;
  const std::int64_t block = 32 * 3 * 4096 * 1000;
  EXPECT_EQ(parameters(shared) - parameters(tests::mixtral_8x7b()), block);
  EXPECT_EQ(active_parameters(shared) - active_parameters(tests::mixtral_8x7b()), block);
  shared.experts->shared_gate = true;
  EXPECT_EQ(parameters(shared) - parameters(tests::mixtral_8x7b()), block + 32 * 4096);
}

TEST(Parameters, OfARecommenderAreTablesAndTwoPerceptrons) {
  constexpr std::int64_t bottom = (13 + 1) * 512 + (512 + 1) * 256 + (256 + 1) * 128;
  constexpr std::int64_t top = (479 + 1) * 1024 + (1024 + 1) * 1024 + (1024 + 1) * 512 + (512 + 1) * 256 + 256 + 1;
  const Architecture architecture = describe(tests::dlrm(), 0);
  EXPECT_EQ(parameters_of(architecture.kinds.at(0)), bottom);
  EXPECT_EQ(parameters_of(architecture.kinds.at(1)), top);
  EXPECT_NEAR(static_cast<double>(bottom + top) * 1e-6, 2.4, 0.05);
  EXPECT_EQ(parameters(tests::dlrm()), 26 * 1'000'000LL * 128 + bottom + top);
}

TEST(Parameters, AreTheSumOfTheTensorsOfEveryStructure) {
  for (const Model& model : {tests::bert_base(), tests::vit_b16(), tests::t5(6, 512, 2048, 8, 64), tests::resnet50(),
                             tests::dlrm(), tests::mixtral_8x7b(), tests::gpt_oss_20b(), tests::qwen3_8b()}) {
    const std::vector<std::int64_t> tensors = parameter_tensors(model);
    EXPECT_EQ(std::accumulate(tensors.begin(), tensors.end(), std::int64_t{0}), trained_parameters(model))
        << model.name;
  }
}

TEST(TrainingFlops, OfAnImageAreTheOnesOfTheModel) {
  EXPECT_NEAR(billions(training_flops_per_sample(tests::vit_b16(), 0, true)), 3 * 35.0, 3 * 0.5);
  EXPECT_NEAR(billions(training_flops_per_sample(tests::resnet50(), 0, true)), 24.5, 0.05);
}

TEST(TrainingFlops, OfEncodersHaveNoMaskToHalve) {
  constexpr double s = 512;
  constexpr double h = 768;
  constexpr double layer = 2 * s * 12 * h * h + 4 * s * s * h;
  constexpr double head = 2 * h * h + 2 * s * h * h + 2 * s * h * 30522;  // pooler, prediction, logits
  for (const bool causal : {true, false})
    EXPECT_DOUBLE_EQ(training_flops_per_sample(tests::bert_base(), 512, causal), 3 * (12 * layer + head));
}

TEST(TrainingFlops, OfADecoderBesideAnEncoderCrossFromItsQueriesToTheEncodersKeys) {
  Model model = tests::t5(6, 512, 2048, 6, 64);  // heads are narrower than hidden together
  model.decoder_sequence = 100;
  constexpr double s = 400;
  constexpr double t = 100;
  constexpr double h = 512;
  constexpr double inner = 6 * 64;
  constexpr double feed_forward = 2 * 2 * h * 2048;
  constexpr double encoder = s * (2 * 4 * h * inner + feed_forward) + 4 * s * s * inner;
  constexpr double decoder = t * (2 * 4 * h * inner + feed_forward) + 4 * t * t * inner / 2;
  constexpr double cross = t * 2 * 2 * h * inner + s * 2 * 2 * h * inner + 4 * t * s * inner;
  constexpr double logits = 2 * t * h * 32128;
  EXPECT_DOUBLE_EQ(training_flops_per_sample(model, 400, true), 3 * (6 * (encoder + decoder + cross) + logits));
  EXPECT_DOUBLE_EQ(training_flops_per_sample(model, 400, false),
                   3 * (6 * (encoder + decoder + 2 * t * t * inner + cross) + logits));
}

TEST(TrainingFlops, OfExpertsCountThoseThatATokenPasses) {
  const Model model = tests::mixtral_8x7b();
  // Every active matrix but the embedding, and of the attention half the scores.
  const double products = static_cast<double>(active_parameters(model)) - 32000.0 * 4096 - (2 * 32 + 1) * 4096.0;
  const double attention = 32 * 2 * 4096.0 * 4096;
  EXPECT_DOUBLE_EQ(training_flops_per_token(model, 4096, true), 6 * products + 3 * attention);
}

TEST(TrainingFlops, OfLatentAttentionFollowItsTwoWidths) {
  Model model = tests::deepseek_v3();
  const auto flops = [&](std::int64_t sequence, bool causal) {
    return training_flops_per_token(model, sequence, causal);
  };
  constexpr double core = 61 * 2 * 128 * (128 + 64 + 128);  // per token and token that it sees
  model.mtp_layers = 0;
  EXPECT_DOUBLE_EQ(flops(8192, true) - flops(4096, true), 3 * core * 4096 / 2);
  EXPECT_DOUBLE_EQ(flops(8192, false) - flops(4096, false), 3 * core * 4096);
}

TEST(TrainingFlops, OfALayerForFurtherTokensPassTheHeadAgain) {
  const Model model = tests::deepseek_v3();
  Model without = model;
  without.mtp_layers = 0;
  const double layer = forward_flops(describe(model, 4096).kinds.at(1), true);
  const double further = layer + 2 * 4096.0 * 2 * 7168 * 7168 + 2 * 4096.0 * 7168 * 129280;
  EXPECT_DOUBLE_EQ(training_flops_per_sample(model, 4096, true) - training_flops_per_sample(without, 4096, true),
                   3 * further);
}

TEST(TrainingFlops, OfARecommenderAreItsPerceptronsAndTheDotProductsOfAllPairs) {
  constexpr double weights = 13 * 512 + 512 * 256 + 256 * 128 +                            //
                             479 * 1024 + 1024 * 1024 + 1024 * 512 + 512 * 256 + 256 * 1;  //
  EXPECT_DOUBLE_EQ(training_flops_per_sample(tests::dlrm(), 0, true), 6 * weights + 6 * 27 * 27 * 128);
}

TEST(TrainingFlops, OfPackedDocumentsSeeOnlyTheirOwn) {
  const Model model = tests::llama3_8b();
  const auto flops = [&](const std::vector<std::int64_t>& documents) {
    return training_flops_per_sample(describe(model, 4096, 0, documents), false);
  };
  // The sum of squares instead of the square of the sum.
  constexpr double pairs = 1000.0 * 1000 + 3000.0 * 3000 + 96.0 * 96;
  EXPECT_DOUBLE_EQ(flops({}) - flops({1000, 3000, 96}), 3 * 32 * 4 * 4096 * (4096.0 * 4096 - pairs));
  EXPECT_DOUBLE_EQ(flops({512}), flops(std::vector<std::int64_t>(8, 512)));
}

// Pairs that a mask lets through, one by one.
struct Mask {
  bool causal = true;
  std::int64_t window = 0;
  std::vector<std::int64_t> documents;
};
std::int64_t counted_pairs(const Mask& mask) {
  std::int64_t pairs = 0;
  for (const std::int64_t length : mask.documents)
    for (std::int64_t query = 0; query < length; ++query)
      for (std::int64_t key = 0; key < length; ++key) {
        const bool seen = !mask.causal || key <= query;
        const bool near = mask.window == 0 || query - key < mask.window;
        pairs += seen && near ? 1 : 0;
      }
  return pairs;
}

TEST(AttendedPairs, OfCausalMasksAreThoseThatTheMaskLeavesButForHalfOfTheDiagonal) {
  for (const std::int64_t window : {0, 1, 2, 7, 24, 100})
    for (const std::vector<std::int64_t>& documents :
         std::vector<std::vector<std::int64_t>>{{24}, {8, 8, 8}, {1, 2, 21}, {24 - 7, 7}}) {
      const AttentionWork work{.window = window, .documents = documents};
      // A query and its own key count as half a pair, along an edge as long as the first window.
      double halves = 0;
      for (const std::int64_t length : documents)
        halves += static_cast<double>(window > 0 ? std::min(length, window) : length) / 2;
      EXPECT_DOUBLE_EQ(attended_pairs(work, 24, true) + halves,
                       static_cast<double>(counted_pairs({.window = window, .documents = documents})))
          << window << ' ' << documents.size();
    }
}

TEST(AttendedPairs, WithoutTheMaskAreSquares) {
  for (const bool causal : {true, false}) {
    const AttentionWork whole{.causal = causal};
    EXPECT_EQ(attended_pairs(whole, 24, false), counted_pairs({.causal = false, .documents = {24}}));
    const AttentionWork packed{.causal = causal, .documents = {4, 20}};
    EXPECT_EQ(attended_pairs(packed, 24, false), counted_pairs({.causal = false, .documents = {4, 20}}));
    const AttentionWork windowed{.causal = causal, .window = 6};
    EXPECT_EQ(attended_pairs(windowed, 24, false), 24 * 6);
  }
  // An encoder has none to count as half.
  EXPECT_EQ(attended_pairs({.causal = false}, 24, true), 24 * 24);
}

TEST(AttendedPairs, OfOneLengthFillTheSequenceWithDocumentsOfIt) {
  const AttentionWork one{.documents = {6}};
  const AttentionWork all{.documents = {6, 6, 6, 6}};
  for (const bool half : {true, false}) EXPECT_DOUBLE_EQ(attended_pairs(one, 24, half), attended_pairs(all, 24, half));
  // A document that is longer than the sequence is cut.
  EXPECT_DOUBLE_EQ(attended_pairs({.documents = {1000}}, 24, true), 0.5 * 24 * 24);
}

TEST(AttendedPairs, OfCrossAttentionAreAllOfBothSides) {
  EXPECT_EQ(attended_pairs({.causal = false, .key_tokens = 50}, 24, true), 24 * 50);
}

TEST(Layers, AlternateBetweenAWindowAndTheWholeSequence) {
  const Architecture architecture = describe(tests::gpt_oss_20b(), 4096);
  ASSERT_EQ(architecture.kinds.size(), 2U);
  ASSERT_EQ(architecture.layers.size(), 24U);
  for (std::size_t i = 0; i < 24; ++i) {
    const Block& layer = architecture.kinds.at(architecture.layers.at(i));
    EXPECT_EQ(works_of<AttentionWork>(layer).at(0).window, i % 2 == 0 ? 128 : 0) << i;
    EXPECT_EQ(layer.name, i % 2 == 0 ? "windowed layer" : "layer");
    EXPECT_EQ(works_of<ExpertsWork>(layer).size(), 1U);
  }
}

TEST(Layers, AllHaveTheWindowWhereNoneIsLeftOut) {
  Model model = tests::llama2_7b();
  model.sliding_window = 512;
  const Architecture architecture = describe(model, 4096);
  ASSERT_EQ(architecture.kinds.size(), 1U);
  EXPECT_EQ(works_of<AttentionWork>(architecture.kinds.front()).at(0).window, 512);
  // Of what a query sees, the first 512 see half a window less.
  constexpr double pairs = 4096.0 * 512 - 512.0 * 512 / 2;
  EXPECT_DOUBLE_EQ(
      training_flops_per_sample(tests::llama2_7b(), 4096, true) - training_flops_per_sample(model, 4096, true),
      3 * 32 * 4 * 4096 * (4096.0 * 4096 / 2 - pairs));
}

TEST(Layers, AreDenseFirstWhereExpertsComeLater) {
  const Architecture architecture = describe(tests::deepseek_v3(), 4096);
  ASSERT_EQ(architecture.layers.size(), 61U);
  for (std::size_t i = 0; i < 61; ++i) {
    const Block& layer = architecture.kinds.at(architecture.layers.at(i));
    EXPECT_EQ(layer.name, i < 3 ? "dense layer" : "layer");
    EXPECT_EQ(works_of<ExpertsWork>(layer).size(), i < 3 ? 0U : 1U) << i;
    EXPECT_EQ(linear(layer, "gate up").outputs(), 2 * (i < 3 ? 18432 : 2048)) << i;  // later those of the shared expert
  }
}

TEST(Layers, HaveExpertsWhereTheModelSaysSo) {
  Model model = tests::mixtral_8x7b();
  model.layers = 8;
  model.experts->every = 2;
  model.experts->dense_layers = {3};
  std::vector<bool> experts;
  const Architecture architecture = describe(model, 1);
  for (const std::uint32_t kind : architecture.layers)
    experts.push_back(!works_of<ExpertsWork>(architecture.kinds.at(kind)).empty());
  EXPECT_EQ(experts, (std::vector<bool>{false, true, false, false, false, true, false, true}));
  // Without a width of their own, dense ones are as wide as an expert.
  EXPECT_EQ(linear(architecture.kinds.at(architecture.layers.at(0)), "gate up").outputs(), 2 * 14336);
}

TEST(Layers, InParallelAddAttentionAndFeedForwardToTheSameInput) {
  const Model parallel = tests::neox_20b();
  Model sequential = parallel;
  sequential.parallel_residual = false;
  EXPECT_NEAR(billions(parameters(parallel)), 20.5546, 0.5e-4);
  EXPECT_EQ(parameters(parallel), parameters(sequential));
  EXPECT_EQ(training_flops_per_token(parallel, 2048, true), training_flops_per_token(sequential, 2048, true));
  EXPECT_EQ(names_of(describe(parallel, 1).kinds.front()),
            (std::vector<std::string>{"norm 1", "query key value", "rotary", "attention", "attention output", "norm 2",
                                      "fc1", "gelu", "fc2", "residual"}));
  EXPECT_EQ(works_of<ResidualWork>(describe(sequential, 1).kinds.front()).size(), 2U);
}

TEST(Layers, OfBertHaveTheirNormsBehindTheAdditions) {
  const Architecture architecture = describe(tests::bert_base(), 128);
  EXPECT_FALSE(architecture.causal);
  EXPECT_EQ(names_of(architecture.embedding), (std::vector<std::string>{"embedding", "embedding norm"}));
  EXPECT_EQ(names_of(architecture.kinds.front()),
            (std::vector<std::string>{"query key value", "attention", "attention output", "residual 1", "norm 1", "fc1",
                                      "gelu", "fc2", "residual 2", "norm 2"}));
  EXPECT_FALSE(works_of<AttentionWork>(architecture.kinds.front()).at(0).causal);
  EXPECT_EQ(names_of(architecture.head),
            (std::vector<std::string>{"pooler", "prediction", "prediction gelu", "prediction norm", "logits", "loss"}));
}

TEST(Layers, OfT5BiasSelfAttentionByDistanceAndCrossAttentionNot) {
  const Architecture architecture = describe(tests::t5(6, 512, 2048, 8, 64), 128);
  ASSERT_EQ(architecture.layers.size(), 12U);
  const auto attention = [&](std::size_t layer) {
    return works_of<AttentionWork>(architecture.kinds.at(architecture.layers.at(layer)));
  };
  for (std::size_t i = 0; i < 6; ++i) {
    ASSERT_EQ(attention(i).size(), 1U);
    EXPECT_TRUE(attention(i).at(0).relative_bias);
    EXPECT_FALSE(attention(i).at(0).causal);
  }
  for (std::size_t i = 6; i < 12; ++i) {
    ASSERT_EQ(attention(i).size(), 2U);
    EXPECT_TRUE(attention(i).at(0).relative_bias);
    EXPECT_TRUE(attention(i).at(0).causal);
    EXPECT_FALSE(attention(i).at(1).relative_bias);
    EXPECT_FALSE(attention(i).at(1).causal);
    EXPECT_EQ(attention(i).at(1).key_tokens, 128);
  }
  // 32 distances for each head, once for the encoder and once for the decoder.
  EXPECT_EQ(parameters_of(architecture.embedding), 32128 * 512 + 2 * 32 * 8);
  // The encoder's last layer ends in a norm.
  EXPECT_EQ(parameters_of(architecture.kinds.at(architecture.layers.at(5))) -
                parameters_of(architecture.kinds.at(architecture.layers.at(4))),
            512);
}

TEST(Layers, OfADecoderSeeAllOfTheEncoderHoweverDocumentsArePacked) {
  const Architecture architecture = describe(tests::t5(1, 512, 2048, 8, 64), 128, 0, {32});
  const std::vector<AttentionWork> attention = works_of<AttentionWork>(architecture.kinds.back());
  EXPECT_EQ(attention.at(0).documents, std::vector<std::int64_t>{32});
  EXPECT_TRUE(attention.at(1).documents.empty());
}

TEST(Layers, OfResNet50HalveTheImageAndDoubleTheChannels) {
  const Architecture architecture = describe(tests::resnet50(), 0);
  ASSERT_EQ(architecture.layers.size(), 16U);
  EXPECT_EQ(architecture.embedding.width, 64 * 56 * 56);
  const std::vector<std::size_t> ends{2, 6, 12, 15};
  for (std::size_t stage = 0; stage < 4; ++stage) {
    const std::int64_t channels = 256LL << stage;
    const std::int64_t size = 56 >> stage;
    const Block& last = architecture.kinds.at(architecture.layers.at(ends.at(stage)));
    EXPECT_EQ(last.width, channels * size * size) << stage;
    EXPECT_EQ(works_of<ConvolutionWork>(last).size(), 3U);
  }
  // Only the first block of a stage has a shortcut; in the later stages its 3x3 convolution halves the image.
  const std::vector<ConvolutionWork> first =
      works_of<ConvolutionWork>(architecture.kinds.at(architecture.layers.at(3)));
  ASSERT_EQ(first.size(), 4U);
  EXPECT_EQ(first.at(0).size, 56);
  EXPECT_EQ(first.at(1).kernel, 3);
  EXPECT_EQ(first.at(1).in_size, 56);
  EXPECT_EQ(first.at(1).size, 28);
  EXPECT_EQ(first.at(3).in_channels, 256);
  EXPECT_EQ(first.at(3).out_channels, 512);
}

TEST(Layers, OfVisionTransformersSeePatchesAndAClassToken) {
  const Architecture architecture = describe(tests::vit_b16(), 0);
  EXPECT_EQ(architecture.embedding.tokens, 14 * 14 + 1);
  EXPECT_FALSE(architecture.causal);
  // A patch is a convolution that does not overlap, from 3 x 16 x 16 pixels to the hidden state.
  EXPECT_DOUBLE_EQ(forward_flops(architecture.embedding, true), 2.0 * 196 * 768 * 3 * 16 * 16);
  EXPECT_EQ(linear(architecture.head, "classifier").token_count, 1);
}

}  // namespace
}  // namespace trainyard::workloads
