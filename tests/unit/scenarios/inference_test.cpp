// Whole requests: what they take, what they hold, and what is refused.
#include "scenarios/inference.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "scenarios/simulate.hpp"
#include "tests/support/simulated.hpp"

namespace trainyard::scenarios {
namespace {

const std::string on_a_card = R"(name: Card
workload: inference
cluster: {node: rtx-4090, nodes: 1}
model: llama2-7b
inference: {batch: 1, prompt: 512, generate: 128, weights: fp16}
)";

const std::string on_a_node = R"(name: Node
workload: inference
cluster: {node: dgx-h100, nodes: 1}
model: llama3-70b
inference: {batch: 8, prompt: 512, generate: 64, tensor: 8}
)";

Result answered(const std::string& base, const std::vector<std::string>& settings = {}) {
  return tests::simulated(base, settings).result;
}

double sum_of(const Breakdown& breakdown) { return std::accumulate(breakdown.begin(), breakdown.end(), 0.0); }

// A card that does nothing but read, at 10^12 B/s, and a host that is always ahead of it.
const std::vector<std::string> reading_alone{
    "cluster.node.accelerator={peak: {fp16: 100000 TFLOP/s, tf32: 100000 TFLOP/s}, memory_bandwidth: 1 TB/s, "
    "memory_efficiency: 1, memory_half_size: 1 B, kernel_latency: 1 ns}",
    "inference.backend=graph"};

TEST(Inference, ATokenOfAModelThatOnlyReadsTakesItsBytesOverTheBandwidth) {
  const Result result = answered(on_a_card, reading_alone);
  // Matrices without the embedding, of which a token reads one row; in the middle of decoding the keys and values of
  // 512 + 64 tokens. What passes between kernels is 13 MB more; behind it the host takes 0.2 ms.
  const double weights = 2 * (6738415616.0 - 32000 * 4096);
  const double cache = 2.0 * 32 * 4096 * 2 * 576;
  const double token = (weights + cache) / 1e12 + 0.2e-3;
  EXPECT_NEAR(result.inference->time_per_token_s, token, 0.005 * token);
  EXPECT_GT(result.inference->time_per_token_s, token);
  EXPECT_EQ(result.inference->weights_bytes, 2 * 6738415616);
}

TEST(Inference, TheCacheIsTwoVectorsPerTokenLayerAndHead) {
  const InferenceSummary card = *answered(on_a_card, {"inference.batch=2"}).inference;
  EXPECT_EQ(card.kv_cache_bytes_per_token, 2 * 32 * 32 * 128 * 2);
  EXPECT_EQ(card.kv_cache_bytes, 2 * 640 * card.kv_cache_bytes_per_token);
  const InferenceSummary node = *answered(on_a_node).inference;  // over all devices that share the copy
  EXPECT_EQ(node.kv_cache_bytes, 8 * 576LL * 2 * 80 * 8 * 128 * 2);
}

// 7B on a card at 0.78 of its bandwidth; expected by hand at 0.8: 17.6, 9.9 and 5.8 ms.
TEST(Inference, FewerBitsMakeTokensOfASingleSequenceFaster) {
  const auto token = [](const char* format) {
    return answered(on_a_card, {std::string{"inference.weights="} + format}).inference->time_per_token_s;
  };
  EXPECT_NEAR(token("fp16"), 17.6e-3, 0.1 * 17.6e-3);
  EXPECT_NEAR(token("w8a16"), 9.9e-3, 0.1 * 9.9e-3);
  EXPECT_NEAR(token("w4a16"), 5.8e-3, 0.1 * 5.8e-3);
}

TEST(Inference, FewerBitsGainLittleWhereArithmeticOrTheCacheTakesTheTime) {
  const auto figures = [](const char* format) {
    return *answered(on_a_card, {std::string{"inference.weights="} + format, "inference.batch=64"}).inference;
  };
  const InferenceSummary plain = figures("fp16");
  const InferenceSummary four_bits = figures("w4a16");
  EXPECT_GT(plain.time_per_token_s / four_bits.time_per_token_s, 1.1);
  EXPECT_LT(plain.time_per_token_s / four_bits.time_per_token_s, 1.5);
  EXPECT_GT(plain.prefill_s / four_bits.prefill_s, 0.88);
  EXPECT_LT(plain.prefill_s / four_bits.prefill_s, 1);
  const double eight_bits = plain.prefill_s / figures("fp8").prefill_s;
  EXPECT_GT(eight_bits, 1.6);
  EXPECT_LT(eight_bits, 1.95);
}

TEST(Inference, TimesGrowWithBatchContextAndBits) {
  const auto token = [](const std::string& setting) {
    return answered(on_a_card, {setting}).inference->time_per_token_s;
  };
  double before = 0;
  for (const char* batch : {"1", "2", "16", "17", "64", "65", "256"}) {
    const double now = token(std::string{"inference.batch="} + batch);
    EXPECT_GT(now, before) << batch;
    before = now;
  }
  EXPECT_LT(token("inference.prompt=128"), token("inference.prompt=2048"));
  EXPECT_LT(token("inference.kv_cache=int8"), token("inference.kv_cache=auto"));
}

// Between contexts times are straight lines, or are divided until they are.
TEST(Inference, TokensAreTheMeanOverTheirContexts) {
  const auto mean = [](std::int64_t prompt, std::int64_t generate) {
    return answered(on_a_card,
                    {"model=gpt-oss-20b", "inference.weights=w4a16", "inference.prompt=" + std::to_string(prompt),
                     "inference.generate=" + std::to_string(generate)})
        .inference->time_per_token_s;
  };
  double sum = 0;
  for (std::int64_t prompt = 100; prompt < 160; ++prompt) sum += mean(prompt, 1);  // windows are full at 128
  EXPECT_NEAR(mean(100, 61), sum / 60, 1e-6 * sum / 60);
}

TEST(Inference, PhasesAddUpToTheRequest) {
  for (const std::string& base : {on_a_card, on_a_node}) {
    const Result result = answered(base);
    const InferenceSummary& inference = *result.inference;
    EXPECT_EQ(result.step_time_s, inference.request_s);
    EXPECT_NEAR(sum_of(result.breakdown_s), result.step_time_s, 1e-9 * result.step_time_s);
    EXPECT_NEAR(sum_of(inference.prefill_breakdown_s), inference.prefill_s, 1e-9);
    EXPECT_NEAR(sum_of(inference.prefill_breakdown_s) + sum_of(inference.decode_breakdown_s), result.step_time_s, 1e-9);
    const auto steps = static_cast<double>(base == on_a_card ? 127 : 63);
    EXPECT_NEAR(inference.prefill_s + steps * inference.time_per_token_s, inference.request_s, 1e-9);
  }
}

TEST(Inference, ASingleTokenIsThePrefill) {
  const Result result = answered(on_a_card, {"inference.generate=1"});
  EXPECT_EQ(result.step_time_s, result.inference->prefill_s);
  EXPECT_EQ(sum_of(result.inference->decode_breakdown_s), 0);
  EXPECT_GT(result.inference->time_per_token_s, 0);
}

TEST(Inference, PromptsBeyondAPassTakeSeveral) {
  const auto prefill = [](const char* batch) {
    return answered(on_a_card, {std::string{"inference.batch="} + batch, "inference.prefill_tokens=1024"})
        .inference->prefill_s;
  };
  EXPECT_NEAR(prefill("6"), 3 * prefill("2"), 1e-9);
  EXPECT_NEAR(prefill("7"), 3 * prefill("2") + prefill("1"), 1e-9);
}

TEST(Inference, OtherDevicesHaveCopiesOfTheirOwn) {
  const Result one = answered(on_a_node, {"inference.tensor=4", "cluster.devices=4"});
  const Result four = answered(on_a_node, {"inference.tensor=4", "cluster.nodes=2"});
  EXPECT_EQ(four.inference->replicas, 4);
  EXPECT_EQ(four.parallelism.data, 4);
  EXPECT_NEAR(four.inference->time_per_token_s, one.inference->time_per_token_s, 1e-12);
  EXPECT_NEAR(four.tokens_per_s, 4 * one.tokens_per_s, 1e-9 * four.tokens_per_s);
  EXPECT_NEAR(four.tokens_per_s_per_device, one.tokens_per_s_per_device, 1e-9 * one.tokens_per_s_per_device);
}

// Two per layer, one behind the embedding, and the logits of the tokens that are chosen, in every pass.
TEST(Inference, DevicesThatShareACopyReduceTwiceALayer) {
  const Result result = answered(on_a_node);
  const CommunicationSummary reduced = tests::row(result, sim::Purpose::tensor, sim::CollectiveKind::all_reduce);
  EXPECT_EQ(reduced.count, 64 * 161);
  EXPECT_EQ(reduced.bytes, 161.0 * 8192 * 2 * (8 * 512 + 63 * 8));
  const CommunicationSummary gathered = tests::row(result, sim::Purpose::tensor, sim::CollectiveKind::all_gather);
  EXPECT_EQ(gathered.count, 64);
  EXPECT_EQ(gathered.bytes, 64.0 * 8 * 128256 * 2);
}

TEST(Inference, MemoryHoldsWeightsAndCacheAndSaysWhatElseWouldFit) {
  const Result result = answered(on_a_card);
  EXPECT_TRUE(result.memory.fits);
  const std::int64_t most = result.inference->largest_batch;
  EXPECT_GT(most, 10);
  EXPECT_LT(most, 40);
  EXPECT_TRUE(answered(on_a_card, {"inference.batch=" + std::to_string(most)}).memory.fits);
  EXPECT_FALSE(answered(on_a_card, {"inference.batch=" + std::to_string(most + 1)}).memory.fits);
  EXPECT_GT(answered(on_a_card, {"inference.weights=w4a16"}).inference->largest_batch, most);
  EXPECT_EQ(answered(on_a_card, {"model=llama2-70b"}).inference->largest_batch, 0);
}

TEST(Inference, EagerKernelsWaitForTheirHost) {
  const auto host = [](const char* backend) {
    const Result result = answered(
        on_a_card, {"model=llama3.2-1b", "inference.weights=w4a16", std::string{"inference.backend="} + backend});
    return result.breakdown_s.at(11) / result.step_time_s;
  };
  EXPECT_GT(host("eager"), 0.35);
  EXPECT_LT(host("cuda-graph"), 0.15);
}

TEST(Inference, EveryLanguageModelOfTheCatalogueGeneratesAndEveryAcceleratorServes) {
  for (const char* model : {"gpt2", "gpt-neox-20b", "mixtral-8x7b", "deepseek-v2-lite", "deepseek-v3", "gpt-oss-120b",
                            "qwen3-30b-a3b", "nemotron-4-15b"}) {
    const Result result = answered(on_a_node, {std::string{"model="} + model, "inference.tensor=1"});
    EXPECT_GT(result.inference->time_per_token_s, 0) << model;
    EXPECT_LT(result.inference->decode_memory_utilization, 0.8) << model;
  }
  for (const char* node : {"v100", "a100-80gb", "h200", "mi300x", "tpu-v5e", "dgx-b200"}) {
    const bool old = std::string{node} == "v100";
    EXPECT_GT(answered(on_a_card, {std::string{"cluster.node="} + node,
                                   std::string{"inference.weights="} + (old ? "fp16" : "bf16")})
                  .tokens_per_s,
              0)
        << node;
  }
}

TEST(Inference, TheResultHasNothingOfTraining) {
  const nlohmann::json json = nlohmann::json::parse(to_json(answered(on_a_card)));
  for (const char* field : {"micro_batch", "micro_batches", "recompute", "links"}) EXPECT_FALSE(json.contains(field));
  for (const char* field : {"prefill_s", "time_per_token_s", "tokens_per_s", "kv_cache_bytes", "decode_breakdown_s"})
    EXPECT_TRUE(json.at("inference").contains(field)) << field;
  EXPECT_FALSE(nlohmann::json::parse(to_json(Result{})).contains("inference"));
}

TEST(Inference, TheSummarySaysWhatPeopleAsk) {
  const Scenario scenario = tests::scenario_of(on_a_node, {});
  const std::string text = to_summary(scenario, simulate(scenario).result);
  for (const char* part : {"1 copy of the model on 8 devices each", "8 sequences at once, 512 tokens of prompt, 64",
                           "first token", "each further", "tokens/s while decoding", "waiting for tensor",
                           "320 KiB per token of a sequence", ": fits; up to"})
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
}

void refuses(const std::string& base, const std::vector<std::string>& settings, const std::string& expected) {
  const std::string refusal = tests::refusal(base, settings);
  EXPECT_NE(refusal.find(expected), std::string::npos) << refusal;
}

TEST(Inference, WhatCannotRunIsRefused) {
  refuses(on_a_card, {"inference.tensor=2"}, "a copy of the model stays on one node: expected at most the 1 devices");
  refuses(on_a_node, {"cluster.devices=6"}, "6 devices on 1 node are no whole copies on 8 devices each");
  refuses(on_a_node, {"cluster.devices=6", "inference.tensor=6"},
          "64 attention heads of Llama 3 70B cannot be divided among 6 devices");
  refuses(on_a_card, {"model=bert-large"},
          "model: BERT large, uncased is no decoder; inference generates token by token");
  refuses(on_a_card, {"model=gpt2", "inference.prompt=1000"}, "1128 tokens with what is generated are more than");
  refuses(on_a_card, {"inference.weights=int4"}, "expected 'bf16', 'fp16', 'w8a16', 'w8a8', 'fp8' or 'w4a16'");
  refuses(on_a_card, {"cluster.node=v100", "inference.weights=bf16"}, "bf16 needs products in bf16");
  refuses(on_a_card, {"cluster.node=v100", "inference.weights=w8a8"},
          "w8a8 needs products in int8, of which the catalogue has no peak for v100-pcie-32gb (`peak` of the "
          "accelerator); choose 'fp16', 'w8a16' or 'w4a16'");
  refuses(on_a_node, {"cluster.faults=[{device: 1, speed: 0.9}]"}, "slow devices are simulated in training alone");
}

TEST(Inference, AWorkloadHasSectionsOfItsOwn) {
  refuses(on_a_card, {"training={global_batch: 1, sequence: 8}"}, "training: says how a model is trained");
  refuses(on_a_card, {"strategy={framework: pytorch-ddp}"}, "strategy: says how a model is trained");
  refuses(on_a_card, {"workload=training"}, "inference: says how a model generates");
  refuses("name: x\nworkload: inference\n", {}, "missing key 'inference'");
}

}  // namespace
}  // namespace trainyard::scenarios
