#include "scenarios/internal/hf_config.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/model_files.hpp"
#include "workloads/architecture.hpp"

namespace trainyard::scenarios {
namespace {

using Json = nlohmann::ordered_json;
using workloads::Model;

// Fields with which any model type can be read.
Json small(const std::string& type, const Json& changes = Json::object()) {
  Json config{{"model_type", type},       {"hidden_size", 64},        {"num_hidden_layers", 4},
              {"num_attention_heads", 8}, {"intermediate_size", 128}, {"moe_intermediate_size", 32},
              {"vocab_size", 1000},       {"num_experts_per_tok", 2}};
  if (type == "t5") config["d_ff"] = 128;
  if (type == "gpt2") config["n_inner"] = 128;
  for (const auto& [field, value] : changes.items()) config[field] = value;
  return config;
}

// A folder with a scenario and a config.json.
class HuggingFace : public testing::Test {
 protected:
  ModelReading read(const std::string& config, const std::string& scenario = "{hf_config: config.json}") const {
    folder_.write("config.json", config);
    return read_model_text(Catalog{}, scenario, (folder_.path() / "a.yaml").string());
  }
  Model model(const char* config) const { return read(config).model; }
  Model model(const Json& config) const { return read(config.dump(2)).model; }
  std::vector<std::string> warnings(const Json& config) const { return read(config.dump(2)).warnings; }
  // Without the folder.
  std::string error(const std::string& config, const std::string& scenario = "{hf_config: config.json}") const {
    std::string message = error_of([&] { read(config, scenario); });
    const std::string folder = folder_.path().string() + "/";
    for (std::size_t at = message.find(folder); at != std::string::npos; at = message.find(folder))
      message.erase(at, folder.size());
    return message;
  }
  // One mistake, reported where the value of the field stands, or at the file.
  void expect_error(const std::string& type, const Json& changes, const std::string& field,
                    const std::string& message) const {
    const std::string config = small(type, changes).dump(2);
    EXPECT_EQ(error(config), "config.json:" + place(config, field) + ": " + message) << config;
  }
  const Folder& folder() const { return folder_; }

 private:
  static std::string place(const std::string& config, const std::string& field) {
    const std::string key = "\"" + field + "\": ";
    const std::size_t at = field.empty() ? std::string::npos : config.find("  " + key);
    if (at == std::string::npos) return "1:1";
    const auto line = 1 + std::count(config.begin(), config.begin() + static_cast<std::ptrdiff_t>(at), '\n');
    return std::to_string(line) + ":" + std::to_string(2 + key.size() + 1);
  }

  Folder folder_;
};

struct Counts {
  std::int64_t all = 0;
  std::int64_t active = 0;
  bool operator==(const Counts&) const = default;
};
[[maybe_unused]] std::ostream& operator<<(std::ostream& stream, const Counts& counts) {
  return stream << counts.all << " parameters, " << counts.active << " active";
}
Counts counts(const Model& model) { return {workloads::parameters(model), workloads::active_parameters(model)}; }

// Of published files, here with the fields that matter.

constexpr const char* llama2_7b =
    R"({"_name_or_path": "meta-llama/Llama-2-7b-hf", "architectures": ["LlamaForCausalLM"], "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 11008, "max_position_embeddings": 4096, "model_type": "llama", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 32, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": null, "tie_word_embeddings": false, "torch_dtype": "float16",
        "transformers_version": "4.31.0.dev0", "use_cache": true, "vocab_size": 32000})";

constexpr const char* llama3_8b =
    R"({"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 8192,
        "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "rope_theta": 500000.0, "rope_scaling": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "vocab_size": 128256})";

TEST_F(HuggingFace, LlamaHasThePublishedParameters) {
  const Model llama2 = model(llama2_7b);
  EXPECT_EQ(workloads::parameters(llama2), 6'738'415'616);
  EXPECT_EQ(llama2.name, "meta-llama/Llama-2-7b-hf");
  EXPECT_EQ(llama2.positions, 4096);
  EXPECT_EQ(workloads::parameters(model(llama3_8b)), 8'030'261'248);
}

TEST_F(HuggingFace, Llama32TiesItsEmbeddings) {
  EXPECT_EQ(workloads::parameters(model(
                R"({"architectures": ["LlamaForCausalLM"], "attention_bias": false, "head_dim": 64, "hidden_size": 2048,
              "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
              "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
              "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                               "original_max_position_embeddings": 8192, "rope_type": "llama3"},
              "tie_word_embeddings": true, "vocab_size": 128256})")),
            1'235'814'400);
}

TEST_F(HuggingFace, MistralLooksBackThroughAWindow) {
  const char* config =
      R"({"architectures": ["MistralForCausalLM"], "hidden_act": "silu", "hidden_size": 4096,
          "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
          "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "sliding_window": 4096,
          "tie_word_embeddings": false, "vocab_size": 32000})";
  const Model mistral = model(config);
  EXPECT_EQ(workloads::parameters(mistral), 7'241'732'096);
  EXPECT_EQ(mistral.sliding_window, 4096);
  EXPECT_EQ(mistral.full_attention_every, 0);
}

TEST_F(HuggingFace, Qwen2HasBiasesInItsProjectionsOnly) {
  const Model small_one = model(
      R"({"model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
          "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151936,
          "max_position_embeddings": 32768, "tie_word_embeddings": true, "use_sliding_window": false,
          "sliding_window": 4096})");
  EXPECT_EQ(workloads::parameters(small_one), 494'032'768);  // Qwen2-0.5B
  EXPECT_TRUE(small_one.qkv_bias);
  EXPECT_FALSE(small_one.output_bias || small_one.ffn_bias);
  EXPECT_EQ(small_one.sliding_window, 0);
  const char* qwen2 =
      R"({"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "hidden_act": "silu", "hidden_size": 3584,
          "intermediate_size": 18944, "max_position_embeddings": 131072, "max_window_layers": 28,
          "model_type": "qwen2", "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
          "sliding_window": 131072, "tie_word_embeddings": false, "use_mrope": false, "use_sliding_window": false,
          "vocab_size": 152064})";
  EXPECT_EQ(workloads::parameters(model(qwen2)), 7'615'616'512);  // Qwen2.5-7B
  EXPECT_EQ(workloads::parameters(model(
                R"({"architectures": ["Qwen2ForCausalLM"], "hidden_size": 8192, "intermediate_size": 29568,
                    "max_position_embeddings": 131072, "max_window_layers": 80, "model_type": "qwen2",
                    "num_attention_heads": 64, "num_hidden_layers": 80, "num_key_value_heads": 8,
                    "sliding_window": 131072, "use_sliding_window": false, "vocab_size": 152064})")),
            72'706'203'648);  // Qwen2.5-72B
}

TEST_F(HuggingFace, Qwen3NormsItsHeads) {
  const Model qwen3 = model(
      R"({"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "head_dim": 128, "hidden_act": "silu",
          "hidden_size": 4096, "intermediate_size": 12288, "max_position_embeddings": 40960, "max_window_layers": 36,
          "model_type": "qwen3", "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8,
          "sliding_window": null, "tie_word_embeddings": false, "use_sliding_window": false, "vocab_size": 151936})");
  EXPECT_EQ(workloads::parameters(qwen3), 8'190'735'360);
  EXPECT_TRUE(qwen3.qk_norm);
  EXPECT_FALSE(qwen3.qkv_bias);
}

TEST_F(HuggingFace, Qwen2MoeHasExpertsThatAllTokensPassThroughAGate) {
  const Model qwen2 = model(
      R"({"architectures": ["Qwen2MoeForCausalLM"], "decoder_sparse_step": 1, "hidden_act": "silu",
          "hidden_size": 2048, "intermediate_size": 5632, "max_position_embeddings": 8192, "max_window_layers": 21,
          "model_type": "qwen2_moe", "moe_intermediate_size": 1408, "norm_topk_prob": false,
          "num_attention_heads": 16, "num_experts": 60, "num_experts_per_tok": 4, "num_hidden_layers": 24,
          "num_key_value_heads": 16, "output_router_logits": false, "shared_expert_intermediate_size": 5632,
          "sliding_window": 32768, "tie_word_embeddings": false, "use_sliding_window": false,
          "vocab_size": 151936})");
  EXPECT_EQ(counts(qwen2), (Counts{14'315'784'192, 2'689'173'504}));  // Qwen1.5-MoE-A2.7B
  ASSERT_TRUE(qwen2.experts.has_value());
  EXPECT_TRUE(qwen2.experts->shared_gate);
  EXPECT_TRUE(qwen2.qkv_bias);
  EXPECT_FALSE(qwen2.qk_norm);
}

TEST_F(HuggingFace, Qwen3MoeHasThePublishedParameters) {
  EXPECT_EQ(counts(model(
                R"({"architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false, "decoder_sparse_step": 1,
                    "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 6144,
                    "max_position_embeddings": 40960, "max_window_layers": 48, "mlp_only_layers": [],
                    "model_type": "qwen3_moe", "moe_intermediate_size": 768, "num_attention_heads": 32,
                    "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4,
                    "sliding_window": null, "use_sliding_window": false, "vocab_size": 151936})")),
            (Counts{30'532'122'624, 3'353'032'704}));  // 30B-A3B
  EXPECT_EQ(counts(model(
                R"({"architectures": ["Qwen3MoeForCausalLM"], "decoder_sparse_step": 1, "head_dim": 128,
                    "hidden_size": 4096, "intermediate_size": 12288, "max_position_embeddings": 40960,
                    "mlp_only_layers": [], "model_type": "qwen3_moe", "moe_intermediate_size": 1536,
                    "num_attention_heads": 64, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 94,
                    "num_key_value_heads": 4, "vocab_size": 151936})")),
            (Counts{235'093'634'560, 22'190'763'520}));  // 235B-A22B
}

TEST_F(HuggingFace, MixtralHasThePublishedParameters) {
  const char* mixtral =
      R"({"architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "hidden_act": "silu",
          "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mixtral",
          "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8,
          "num_local_experts": 8, "output_router_logits": false, "sliding_window": null,
          "tie_word_embeddings": false, "vocab_size": 32000})";
  const Model small_one = model(mixtral);
  EXPECT_EQ(counts(small_one), (Counts{46'702'792'704, 12'879'925'248}));  // 8x7B
  EXPECT_EQ(small_one.sliding_window, 0);
  EXPECT_EQ(counts(model(
                R"({"architectures": ["MixtralForCausalLM"], "hidden_size": 6144, "intermediate_size": 16384,
                    "max_position_embeddings": 65536, "model_type": "mixtral", "num_attention_heads": 48,
                    "num_experts_per_tok": 2, "num_hidden_layers": 56, "num_key_value_heads": 8,
                    "num_local_experts": 8, "vocab_size": 32768})")),
            (Counts{140'630'071'296, 39'161'468'928}));  // 8x22B
}

// gpt-oss learns a sink for each head, which is left out: 2,304 of the larger one's parameters.
TEST_F(HuggingFace, GptOssHasBiasesEverywhereAndAWindowInEveryOtherLayer) {
  Json config = Json::parse(
      R"({"architectures": ["GptOssForCausalLM"], "attention_bias": true, "attention_dropout": 0.0,
          "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2880,
          "initial_context_length": 4096, "intermediate_size": 2880, "max_position_embeddings": 131072,
          "model_type": "gpt_oss", "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 24,
          "num_key_value_heads": 8, "num_local_experts": 32, "sliding_window": 128, "swiglu_limit": 7.0,
          "tie_word_embeddings": false, "vocab_size": 201088})");
  for (int i = 0; i < 12; ++i)
    for (const char* type : {"sliding_attention", "full_attention"}) config["layer_types"].push_back(type);
  const Model small_one = model(config);
  EXPECT_NEAR(static_cast<double>(workloads::parameters(small_one)), 20'914'757'184, 2e3);
  EXPECT_EQ(small_one.sliding_window, 128);
  EXPECT_EQ(small_one.full_attention_every, 2);
  EXPECT_TRUE(small_one.qkv_bias && small_one.output_bias && small_one.ffn_bias);
  EXPECT_FALSE(small_one.norm_bias);
  config.erase("layer_types");  // the same without saying so
  config["num_hidden_layers"] = 36;
  config["num_local_experts"] = 128;
  const Model large = model(config);
  EXPECT_NEAR(static_cast<double>(workloads::parameters(large)), 116'829'156'672, 3e3);
  EXPECT_EQ(large.full_attention_every, 2);
}

TEST_F(HuggingFace, DeepSeekV2HasLatentAttentionWithOrWithoutRankForQueries) {
  const Model large = model(
      R"({"architectures": ["DeepseekV2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
          "aux_loss_alpha": 0.001, "ep_size": 1, "first_k_dense_replace": 1, "hidden_act": "silu",
          "hidden_size": 5120, "intermediate_size": 12288, "kv_lora_rank": 512, "max_position_embeddings": 163840,
          "model_type": "deepseek_v2", "moe_intermediate_size": 1536, "moe_layer_freq": 1, "n_group": 8,
          "n_routed_experts": 160, "n_shared_experts": 2, "norm_topk_prob": false, "num_attention_heads": 128,
          "num_experts_per_tok": 6, "num_hidden_layers": 60, "num_key_value_heads": 128, "q_lora_rank": 1536,
          "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "scoring_func": "softmax", "topk_group": 3,
          "topk_method": "group_limited_greedy", "v_head_dim": 128, "vocab_size": 102400})");
  EXPECT_EQ(counts(large), (Counts{235'741'434'880, 21'375'800'320}));
  const Model lite = model(
      R"({"architectures": ["DeepseekV2ForCausalLM"], "first_k_dense_replace": 1, "hidden_act": "silu",
          "hidden_size": 2048, "intermediate_size": 10944, "kv_lora_rank": 512, "max_position_embeddings": 163840,
          "model_type": "deepseek_v2", "moe_intermediate_size": 1408, "moe_layer_freq": 1, "n_group": 1,
          "n_routed_experts": 64, "n_shared_experts": 2, "num_attention_heads": 16, "num_experts_per_tok": 6,
          "num_hidden_layers": 27, "num_key_value_heads": 16, "q_lora_rank": null, "qk_nope_head_dim": 128,
          "qk_rope_head_dim": 64, "topk_group": 1, "topk_method": "greedy", "v_head_dim": 128,
          "vocab_size": 102400})");
  EXPECT_EQ(counts(lite), (Counts{15'706'484'224, 2'661'150'208}));
  ASSERT_TRUE(lite.latent_attention.has_value());
  EXPECT_EQ(lite.latent_attention->q_rank, 0);
  EXPECT_FALSE(lite.experts->router_bias);
  EXPECT_EQ(lite.mtp_layers, 0);
}

constexpr const char* deepseek_v3 =
    R"({"architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "ep_size": 1,
        "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168, "intermediate_size": 18432,
        "kv_lora_rank": 512, "max_position_embeddings": 163840, "model_type": "deepseek_v3",
        "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256,
        "n_shared_experts": 1, "norm_topk_prob": true, "num_attention_heads": 128, "num_experts_per_tok": 8,
        "num_hidden_layers": 61, "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "q_lora_rank": 1536,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "quantization_config": {"activation_scheme": "dynamic",
        "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}, "routed_scaling_factor": 2.5,
        "scoring_func": "sigmoid", "tie_word_embeddings": false, "topk_group": 4, "topk_method": "noaux_tc",
        "torch_dtype": "bfloat16", "v_head_dim": 128, "vocab_size": 129280})";

TEST_F(HuggingFace, DeepSeekV3IsTheModelOfTheCatalogue) {
  const ModelReading reading = read(deepseek_v3);
  const Model of_catalogue = Catalog{}.model("deepseek-v3");
  EXPECT_EQ(counts(reading.model), (Counts{671'026'419'200, 37'552'297'472}));
  EXPECT_EQ(workloads::trained_parameters(reading.model), workloads::trained_parameters(of_catalogue));
  EXPECT_EQ(reading.model.mtp_layers, 1);
  EXPECT_EQ(reading.model.experts->first_dense, 3);
  EXPECT_EQ(reading.warnings,
            (std::vector<std::string>{"quantization_config is left out: the precision of the scenario holds"}));
}

TEST_F(HuggingFace, Gpt2HasItsOwnNamesAndDefaults) {
  const char* config =
      R"({"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
          "embd_pdrop": 0.1, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12,
          "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": null, "vocab_size": 50257})";
  const Model gpt2 = model(config);
  EXPECT_EQ(workloads::parameters(gpt2), 124'439'808);
  EXPECT_TRUE(gpt2.tied_embeddings);
  EXPECT_NEAR(gpt2.dropout, 0.1, 1e-9);
  EXPECT_EQ(workloads::parameters(model(
                R"({"model_type": "gpt2", "n_embd": 1600, "n_head": 25, "n_inner": null, "n_layer": 48,
                    "n_positions": 1024, "vocab_size": 50257})")),
            1'557'611'200);
}

TEST_F(HuggingFace, Gpt2IsAlsoKnownByTheNamesOfTransformers) {
  EXPECT_EQ(workloads::parameters(model(
                R"({"model_type": "gpt2", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
                    "max_position_embeddings": 1024, "vocab_size": 50257})")),
            124'439'808);
  EXPECT_EQ(error(R"({"model_type": "gpt2", "hidden_size": 0, "num_attention_heads": 12, "vocab_size": 50257})"),
            "config.json:1:1: missing key 'n_layer'\n"
            "config.json:1:39: hidden_size: expected at least 1, got '0'");
}

TEST_F(HuggingFace, GptNeoxRunsAttentionAndFeedForwardInParallel) {
  const Model neox = model(
      R"({"architectures": ["GPTNeoXForCausalLM"], "attention_probs_dropout_prob": 0, "hidden_act": "gelu_fast",
          "hidden_dropout_prob": 0, "hidden_size": 6144, "intermediate_size": 24576,
          "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 64,
          "num_hidden_layers": 44, "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": false,
          "torch_dtype": "float16", "use_cache": true, "vocab_size": 50432})");
  EXPECT_EQ(workloads::parameters(neox), 20'554'567'680);
  EXPECT_TRUE(neox.parallel_residual);
  EXPECT_EQ(neox.position_embedding, Model::PositionEmbedding::rope);
  EXPECT_FALSE(model(small("gpt_neox", {{"use_parallel_residual", false}})).parallel_residual);
  EXPECT_FALSE(model(small("gpt_neox", {{"attention_bias", false}})).qkv_bias);
}

// Nemotron-4: "12.5 billion non-embedding parameters and 3.1 billion embedding parameters" (arXiv 2402.16819), and 341
// billion (arXiv 2406.11704).
TEST_F(HuggingFace, NemotronSquaresItsActivations) {
  const Model nemotron = model(
      R"({"architectures": ["NemotronForCausalLM"], "attention_bias": false, "head_dim": 192, "hidden_act": "relu2",
          "hidden_size": 18432, "intermediate_size": 73728, "max_position_embeddings": 4096, "mlp_bias": false,
          "model_type": "nemotron", "norm_eps": 1e-05, "num_attention_heads": 96, "num_hidden_layers": 96,
          "num_key_value_heads": 8, "partial_rotary_factor": 0.5, "tie_word_embeddings": false,
          "vocab_size": 256000})");
  EXPECT_NEAR(static_cast<double>(workloads::parameters(nemotron)), 341e9, 341e6);
  EXPECT_EQ(nemotron.activation, Model::Activation::squared_relu);
  EXPECT_TRUE(nemotron.norm_bias);
  EXPECT_NEAR(static_cast<double>(workloads::parameters(model(
                  R"({"model_type": "nemotron", "hidden_size": 6144, "intermediate_size": 24576,
                      "num_attention_heads": 48, "num_key_value_heads": 8, "num_hidden_layers": 32,
                      "vocab_size": 256000})"))),
              15.63e9, 15.63e6);
}

TEST_F(HuggingFace, BertIsAnEncoderWithSegmentsAndAPooler) {
  const Json config = Json::parse(
      R"({"architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1, "gradient_checkpointing": false,
          "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768, "intermediate_size": 3072,
          "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert", "num_attention_heads": 12,
          "num_hidden_layers": 12, "pad_token_id": 0, "position_embedding_type": "absolute", "type_vocab_size": 2,
          "vocab_size": 30522})");
  const Model base = model(config);
  EXPECT_EQ(workloads::parameters(base), 109'482'240);
  EXPECT_EQ(base.structure, Model::Structure::encoder);
  Json large = config;
  large.update(
      {{"hidden_size", 1024}, {"intermediate_size", 4096}, {"num_attention_heads", 16}, {"num_hidden_layers", 24}});
  EXPECT_EQ(workloads::parameters(model(large)), 335'141'888);
}

TEST_F(HuggingFace, VitHasAsManyClassesAsLabels) {
  Json config = Json::parse(
      R"({"architectures": ["ViTForImageClassification"], "attention_probs_dropout_prob": 0.0, "hidden_act": "gelu",
          "hidden_dropout_prob": 0.0, "hidden_size": 768, "id2label": {}, "image_size": 224,
          "intermediate_size": 3072, "model_type": "vit", "num_attention_heads": 12, "num_channels": 3,
          "num_hidden_layers": 12, "patch_size": 16, "qkv_bias": true})");
  EXPECT_EQ(model(config).classes, 2);
  for (int i = 0; i < 1000; ++i) config["id2label"][std::to_string(i)] = "tench, Tinca tinca";
  EXPECT_EQ(workloads::parameters(model(config)), 86'567'656);
  config.update(
      {{"hidden_size", 1024}, {"intermediate_size", 4096}, {"num_attention_heads", 16}, {"num_hidden_layers", 24}});
  EXPECT_EQ(workloads::parameters(model(config)), 304'326'632);
  EXPECT_EQ(model(small("vit", {{"num_labels", 10}})).classes, 10);
  EXPECT_FALSE(model(small("vit", {{"qkv_bias", false}})).qkv_bias);
}

// T5 as published; the sizes differ in the fields of the arguments.
Json t5(int hidden, int layers, int heads, int head_dim, int ffn_hidden) {
  return {{"architectures", Json::array({"T5ForConditionalGeneration"})},
          {"d_ff", ffn_hidden},
          {"d_kv", head_dim},
          {"d_model", hidden},
          {"dropout_rate", 0.1},
          {"is_encoder_decoder", true},
          {"model_type", "t5"},
          {"n_positions", 512},
          {"num_heads", heads},
          {"num_layers", layers},
          {"relative_attention_num_buckets", 32},
          {"task_specific_params", {{"summarization", {{"prefix", "summarize: "}}}}},
          {"vocab_size", 32128}};
}

TEST_F(HuggingFace, T5HasThePublishedParameters) {
  EXPECT_EQ(workloads::parameters(model(t5(512, 6, 8, 64, 2048))), 60'506'624);
  EXPECT_EQ(workloads::parameters(model(t5(768, 12, 12, 64, 3072))), 222'903'552);
  EXPECT_EQ(workloads::parameters(model(t5(1024, 24, 16, 64, 4096))), 737'668'096);
  EXPECT_EQ(workloads::parameters(model(t5(1024, 24, 32, 128, 16384))), 2'851'598'336);
  EXPECT_EQ(workloads::parameters(model(t5(1024, 24, 128, 128, 65536))), 11'307'321'344);
}

TEST_F(HuggingFace, T5OfVersion11IsGatedAndHasAHeadOfItsOwn) {
  const auto version_1_1 = [](Json config) {
    config.update({{"feed_forward_proj", "gated-gelu"},
                   {"is_gated_act", true},
                   {"dense_act_fn", "gelu_new"},
                   {"num_decoder_layers", config["num_layers"]},
                   {"tie_word_embeddings", false}});
    return config;
  };
  const Model small_one = model(version_1_1(t5(512, 8, 6, 64, 1024)));
  EXPECT_EQ(workloads::parameters(small_one), 76'961'152);
  EXPECT_EQ(small_one.activation, Model::Activation::geglu);
  EXPECT_FALSE(small_one.tied_embeddings);
  EXPECT_EQ(workloads::parameters(model(version_1_1(t5(768, 12, 12, 64, 2048)))), 247'577'856);
  EXPECT_EQ(workloads::parameters(model(version_1_1(t5(4096, 24, 64, 64, 10240)))), 11'135'332'352);
}

TEST_F(HuggingFace, T5MayHaveFewerDecoderLayers) {
  EXPECT_EQ(model(small("t5", {{"num_decoder_layers", 2}})).decoder_layers, 2);
  EXPECT_EQ(model(small("t5", {{"num_decoder_layers", nullptr}})).decoder_layers, 4);
}

TEST_F(HuggingFace, AFileIsTheModelOfTheCatalogue) {
  const Model of_file = model(llama3_8b);
  const Model of_catalogue = Catalog{}.model("llama3-8b");
  EXPECT_EQ(workloads::parameter_tensors(of_file), workloads::parameter_tensors(of_catalogue));
  EXPECT_EQ(of_file.positions, of_catalogue.positions);
}

TEST_F(HuggingFace, KeysBesideTheFileOverrideIt) {
  const Model changed = read(llama3_8b, "{hf_config: config.json, layers: 4, name: small}").model;
  EXPECT_EQ(changed.layers, 4);
  EXPECT_EQ(changed.hidden, 4096);
  EXPECT_EQ(changed.name, "small");
  EXPECT_FALSE(read(deepseek_v3, "{hf_config: config.json, experts: 0}").model.experts.has_value());
}

TEST_F(HuggingFace, ACatalogueEntryMayBeAFile) {
  folder().write("models/mine.yaml", "hf_config: ../config.json\nlayers: 2\n");
  folder().write("config.json", llama3_8b);
  EXPECT_EQ(folder().catalog().model("mine").layers, 2);
}

TEST_F(HuggingFace, AModelWithoutANameIsCalledAsItsFileOrFolder) {
  const std::string config = small("llama").dump();
  folder().write("tiny/config.json", config);
  folder().write("tiny/huge.json", config);
  const auto name = [&](const std::string& path) {
    return read_model_text(Catalog{}, "{hf_config: " + path + "}", (folder().path() / "tiny/a.yaml").string())
        .model.name;
  };
  EXPECT_EQ(name("config.json"), "tiny");
  EXPECT_EQ(name("./config.json"), "tiny");
  EXPECT_EQ(name("../tiny/config.json"), "tiny");
  EXPECT_EQ(name("huge.json"), "huge");
}

// What transformers takes where a file says nothing: configuration_*.py of each model type.
TEST_F(HuggingFace, WhatAFileLeavesOutIsUsual) {
  const Model llama = model(small("llama"));
  EXPECT_EQ(llama.kv_heads, 8);
  EXPECT_EQ(llama.head_dim, 8);
  EXPECT_EQ(llama.positions, 2048);
  EXPECT_EQ(llama.activation, Model::Activation::swiglu);
  EXPECT_FALSE(llama.tied_embeddings || llama.qkv_bias || llama.ffn_bias);
  EXPECT_EQ(model(small("mistral")).sliding_window, 4096);
  EXPECT_EQ(model(small("mistral", {{"num_attention_heads", 16}})).kv_heads, 8);
  EXPECT_EQ(model(small("qwen2", {{"num_attention_heads", 64}})).kv_heads, 32);
  EXPECT_EQ(model(small("qwen3", {{"num_attention_heads", 64}})).kv_heads, 32);
  EXPECT_EQ(model(small("qwen3", {{"num_attention_heads", 64}})).head_dim, 128);
  EXPECT_EQ(model(small("qwen2_moe", {{"num_attention_heads", 32}})).kv_heads, 16);
  EXPECT_EQ(model(small("qwen2_moe", {{"num_key_value_heads", 8}})).experts->count, 60);
  EXPECT_EQ(model(small("qwen2_moe", {{"num_key_value_heads", 8}})).experts->shared_hidden, 5632);
  const Model qwen3_moe = model(small("qwen3_moe", {{"intermediate_size", nullptr}}));
  EXPECT_EQ(qwen3_moe.kv_heads, 4);
  EXPECT_EQ(qwen3_moe.head_dim, 8);
  EXPECT_EQ(qwen3_moe.experts->count, 128);
  EXPECT_EQ(qwen3_moe.experts->dense_ffn_hidden, 6144);
  EXPECT_EQ(model(small("mixtral")).experts->count, 8);
  EXPECT_EQ(model(small("mixtral")).sliding_window, 0);
  EXPECT_EQ(model(small("gpt_oss")).head_dim, 64);
  EXPECT_EQ(model(small("gpt_oss")).experts->count, 128);
  EXPECT_EQ(model(small("gpt_oss")).sliding_window, 128);
  const Model deepseek = model(small("deepseek_v3"));
  EXPECT_EQ(deepseek.latent_attention->q_rank, 1536);
  EXPECT_EQ(deepseek.latent_attention->kv_rank, 512);
  EXPECT_EQ(deepseek.head_dim, 192);
  EXPECT_EQ(deepseek.experts->count, 256);
  EXPECT_EQ(deepseek.experts->shared_hidden, 32);
  EXPECT_EQ(deepseek.experts->first_dense, 3);
  EXPECT_TRUE(deepseek.experts->router_bias);
  EXPECT_EQ(deepseek.mtp_layers, 0);
  const Model deepseek_v2 = model(small("deepseek_v2"));
  EXPECT_EQ(deepseek_v2.experts->count, 64);
  EXPECT_EQ(deepseek_v2.experts->shared_hidden, 64);
  EXPECT_EQ(deepseek_v2.experts->first_dense, 0);
  EXPECT_FALSE(deepseek_v2.experts->router_bias);
  EXPECT_EQ(model(small("gpt2", {{"n_inner", nullptr}})).ffn_hidden, 256);
  EXPECT_EQ(model(small("t5")).head_dim, 64);
  EXPECT_EQ(model(small("t5")).activation, Model::Activation::relu);
  EXPECT_EQ(model(small("bert")).positions, 512);
  EXPECT_EQ(model(small("vit")).classes, 2);
}

TEST_F(HuggingFace, NullIsAStatementOfItsOwnWhereTransformersTakesItSo) {
  for (const char* type : {"llama", "mistral", "qwen2", "mixtral", "nemotron", "gpt_oss"})
    EXPECT_EQ(model(small(type, {{"num_key_value_heads", nullptr}})).kv_heads, 8) << type;
  for (const char* type : {"llama", "mistral", "mixtral", "nemotron", "gpt_oss"})
    EXPECT_EQ(model(small(type, {{"head_dim", nullptr}})).head_dim, 8) << type;
  EXPECT_EQ(model(small("mistral", {{"sliding_window", nullptr}})).sliding_window, 0);
  EXPECT_EQ(model(small("gpt_oss", {{"sliding_window", nullptr}})).sliding_window, 0);
  EXPECT_EQ(model(small("deepseek_v3", {{"n_shared_experts", nullptr}})).experts->shared_hidden, 0);
}

TEST_F(HuggingFace, BiasesAreReadWhereATypeHasThem) {
  const Model attention = model(small("llama", {{"attention_bias", true}}));
  EXPECT_TRUE(attention.qkv_bias && attention.output_bias);
  EXPECT_FALSE(attention.ffn_bias || attention.norm_bias);
  EXPECT_TRUE(model(small("llama", {{"mlp_bias", true}})).ffn_bias);
  const Json with_bias{{"num_key_value_heads", 8}, {"attention_bias", true}};
  EXPECT_TRUE(model(small("qwen3", with_bias)).output_bias);
  EXPECT_FALSE(model(small("qwen2", with_bias)).output_bias);
  EXPECT_FALSE(model(small("qwen2_moe", {{"num_key_value_heads", 8}, {"qkv_bias", false}})).qkv_bias);
  EXPECT_FALSE(model(small("gpt_oss", {{"attention_bias", false}})).qkv_bias);
  EXPECT_TRUE(model(small("nemotron", {{"mlp_bias", true}})).ffn_bias);
}

TEST_F(HuggingFace, ActivationsAreReadByTheirNames) {
  EXPECT_EQ(model(small("llama", {{"hidden_act", "gelu_pytorch_tanh"}})).activation, Model::Activation::geglu);
  EXPECT_EQ(model(small("gpt2", {{"activation_function", "relu"}})).activation, Model::Activation::relu);
  EXPECT_EQ(model(small("gpt_neox", {{"hidden_act", "gelu_fast"}})).activation, Model::Activation::gelu);
  EXPECT_EQ(model(small("t5", {{"feed_forward_proj", "gated-silu"}})).activation, Model::Activation::swiglu);
}

TEST_F(HuggingFace, OtherSpellingsMeanTheSame) {
  for (const char* name : {"n_routed_experts", "num_routed_experts", "num_local_experts", "num_experts"})
    EXPECT_EQ(model(small("deepseek_v3", {{name, 16}})).experts->count, 16) << name;
  EXPECT_EQ(model(small("deepseek_v3", {{"num_shared_experts", 3}})).experts->shared_hidden, 96);
  EXPECT_EQ(model(small("qwen3_moe", {{"num_local_experts", 16}})).experts->count, 16);
  EXPECT_EQ(model(small("mixtral", {{"num_experts", 16}, {"num_local_experts", 16}})).experts->count, 16);
  EXPECT_EQ(model(small("gpt_oss", {{"num_experts_per_tok", nullptr}, {"experts_per_token", 3}})).experts->top_k, 3);
  EXPECT_EQ(model(small("gpt2", {{"n_ctx", 77}})).positions, 77);
}

TEST_F(HuggingFace, LayersWithoutExpertsAreReadAsTheyAreSaid) {
  const auto layers_with = [](const Model& model) {
    std::vector<std::int64_t> layers;
    for (std::int64_t i = 0; i < model.layers; ++i)
      if (model.experts->in_layer(i)) layers.push_back(i);
    return layers;
  };
  using Layers = std::vector<std::int64_t>;
  const auto qwen3 = [&](const Json& changes) { return layers_with(model(small("qwen3_moe", changes))); };
  EXPECT_EQ(qwen3({}), (Layers{0, 1, 2, 3}));
  EXPECT_EQ(qwen3({{"decoder_sparse_step", 2}}), (Layers{1, 3}));
  EXPECT_EQ(qwen3({{"decoder_sparse_step", 2}, {"mlp_only_layers", {0, 3}}}), (Layers{1}));
  const auto deepseek = [&](const Json& changes) { return layers_with(model(small("deepseek_v3", changes))); };
  EXPECT_EQ(deepseek({{"first_k_dense_replace", 1}}), (Layers{1, 2, 3}));
  EXPECT_EQ(deepseek({{"first_k_dense_replace", 1}, {"moe_layer_freq", 2}}), (Layers{2}));
  EXPECT_EQ(deepseek({{"first_k_dense_replace", 4}}), Layers{});
}

TEST_F(HuggingFace, WindowsAreReadAsTheyAreSaid) {
  struct Windows {
    std::int64_t tokens = 0;
    std::int64_t full_attention_every = 0;
    bool operator==(const Windows&) const = default;
  };
  const auto windows = [&](const std::string& type, const Json& changes) {
    const Model read = model(small(type, changes));
    return Windows{read.sliding_window, read.full_attention_every};
  };
  const char* full = "full_attention";
  const char* near = "sliding_attention";
  const Json off{{"num_key_value_heads", 8}, {"sliding_window", 16}};
  EXPECT_EQ(windows("qwen2", off), Windows{});
  Json on = off;
  on["use_sliding_window"] = true;
  EXPECT_EQ(windows("qwen2", on), Windows{});  // max_window_layers is 28: it begins behind the last layer
  on["max_window_layers"] = 0;
  EXPECT_EQ(windows("qwen2", on), (Windows{16, 0}));
  EXPECT_EQ(windows("qwen3_moe", on), (Windows{16, 0}));
  on["layer_types"] = {near, near, near, full};
  EXPECT_EQ(windows("qwen2", on), (Windows{16, 4}));
  EXPECT_EQ(windows("qwen2_moe", on), (Windows{16, 4}));
  on["layer_types"] = {full, full, full, full};
  EXPECT_EQ(windows("qwen2", on), Windows{});
  on["layer_types"] = {near, near, near, near};
  EXPECT_EQ(windows("qwen2", on), (Windows{16, 0}));
  EXPECT_EQ(windows("mistral", {{"layer_types", {near, full, near, full}}}), (Windows{4096, 2}));
}

TEST_F(HuggingFace, PrecisionAndWhatHasNoPartInTrainingDoNotMatter) {
  for (const char* field : {"torch_dtype", "dtype", "transformers_version", "rope_parameters", "auto_map"}) {
    EXPECT_EQ(workloads::parameters(model(small("llama", {{field, "x"}}))),
              workloads::parameters(model(small("llama"))));
    EXPECT_EQ(warnings(small("llama", {{field, {{"nested", nullptr}}}})), std::vector<std::string>{});
  }
}

TEST_F(HuggingFace, WhatIsLeftOutIsAWarning) {
  EXPECT_EQ(warnings(small("llama", {{"quantization_config", {{"bits", 4}}}})),
            (std::vector<std::string>{"quantization_config is left out: the precision of the scenario holds"}));
  EXPECT_EQ(warnings(small("llama", {{"quantization_config", nullptr}})), std::vector<std::string>{});
  EXPECT_EQ(warnings(small("gpt2", {{"attn_pdrop", 0.0}})),
            (std::vector<std::string>{"dropout is on for part of the model only; it is simulated everywhere"}));
}

TEST_F(HuggingFace, AFileThatCannotBeReadHidesNoOtherMistake) {
  const std::string broken = error("{\"model_type\": ", "{hf_config: config.json, layrs: 1}");
  EXPECT_NE(broken.find("config.json:1:"), std::string::npos) << broken;
  EXPECT_NE(broken.find("unknown key 'layrs' in 'model' (did you mean 'layers'?)"), std::string::npos) << broken;
  const std::string missing = error("{}", "{hf_config: no.json, layrs: 1}");
  EXPECT_NE(missing.find("no such file"), std::string::npos) << missing;
  EXPECT_NE(missing.find("unknown key 'layrs'"), std::string::npos) << missing;
  EXPECT_EQ(missing.find("missing key"), std::string::npos) << missing;
}

TEST_F(HuggingFace, WhatCannotBeReadIsReportedInTheFile) {
  EXPECT_EQ(error(R"({"model_type": "qwen4"})"),
            "config.json:1:16: model_type: expected 'llama', 'mistral', 'qwen2', 'qwen3', 'qwen2_moe', 'qwen3_moe', "
            "'mixtral', 'gpt_oss', 'deepseek_v2', 'deepseek_v3', 'gpt2', 'gpt_neox', 'nemotron', 'bert', 'vit' or "
            "'t5', got the text 'qwen4' (did you mean 'qwen2'?)");
  EXPECT_EQ(error("{}"), "config.json:1:1: missing key 'model_type'");
  EXPECT_EQ(error("[1]"), "config.json:1:1: expected the fields of a config.json, got a list");
  EXPECT_EQ(error(R"({"model_type": "vit", "hidden_size": "x"})"),
            "config.json:1:1: missing key 'intermediate_size'\n"
            "config.json:1:1: missing key 'num_attention_heads'\n"
            "config.json:1:1: missing key 'num_hidden_layers'\n"
            "config.json:1:38: hidden_size: expected a whole number, got the text 'x'");
  EXPECT_EQ(error("{}", "{hf_config: none.json}"), "a.yaml:1:13: model.hf_config: no such file: 'none.json'");
  EXPECT_EQ(error("{}", "{hf_config: [1]}"),
            "a.yaml:1:13: model.hf_config: expected the path of a config.json, got a list");
}

TEST_F(HuggingFace, MissingSizesAreReportedAtTheFile) {
  const auto without = [&](const std::string& type, const std::string& field) {
    Json config = small(type);
    config.erase(field);
    return error(config.dump(2));
  };
  for (const char* field :
       {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"})
    EXPECT_EQ(without("llama", field), "config.json:1:1: missing key '" + std::string{field} + "'");
  EXPECT_EQ(without("deepseek_v2", "num_experts_per_tok"), "config.json:1:1: missing key 'num_experts_per_tok'");
  EXPECT_EQ(without("qwen3_moe", "moe_intermediate_size"), "config.json:1:1: missing key 'moe_intermediate_size'");
  EXPECT_EQ(without("t5", "d_ff"), "config.json:1:1: missing key 'd_ff'");
}

TEST_F(HuggingFace, ValuesOfTheWrongKindAreReportedWhereTheyStand) {
  const auto expect = [&](const char* type, const char* field, const Json& value, const std::string& message) {
    expect_error(type, {{field, value}}, field, message);
  };
  expect("llama", "num_attention_heads", 0, "num_attention_heads: expected at least 1, got '0'");
  expect("llama", "num_key_value_heads", 0, "num_key_value_heads: expected at least 1, got '0'");
  expect("llama", "num_hidden_layers", -1, "num_hidden_layers: expected at least 1, got '-1'");
  expect("llama", "hidden_size", "64", "hidden_size: expected a whole number, got the text '64'");
  expect("llama", "hidden_size", 64.5, "hidden_size: expected a whole number, got '64.5'");
  expect("llama", "hidden_size", Json::array({64}), "hidden_size: expected a whole number, got a list");
  expect("llama", "hidden_size", {{"value", 64}}, "hidden_size: expected a whole number, got a map");
  expect("llama", "hidden_size", 8'000'000'000, "hidden_size: expected at most 1000000000, got '8000000000'");
  expect("llama", "vocab_size", 200'000'000, "model.vocab: expected at most 100000000, got '200000000'");
  expect("llama", "tie_word_embeddings", 1, "tie_word_embeddings: expected true or false, got '1'");
  expect("llama", "attention_bias", "true", "attention_bias: expected true or false, got the text 'true'");
  expect("llama", "hidden_act", Json::array({"silu"}), "hidden_act: expected text, got a list");
  expect("llama", "attention_dropout", 1, "attention_dropout: expected at most 0.99, got '1'");
  expect("llama", "attention_dropout", "x", "attention_dropout: expected a number, got the text 'x'");
  expect("llama", "num_experts", "8", "num_experts: expected a whole number, got the text '8'");
  expect("llama", "_name_or_path", {{"a", 1}}, "_name_or_path: expected text, got a map");
  expect("mistral", "layer_types", "full_attention", "layer_types: expected a list, got the text 'full_attention'");
  expect("qwen3_moe", "mlp_only_layers", 1, "mlp_only_layers: expected a list such as [1, 2], got '1'");
  expect("qwen3_moe", "mlp_only_layers", Json::array({-1}), "mlp_only_layers: expected at least 0, got '-1'");
  expect("vit", "id2label", Json::array({"cat", "dog"}), "id2label: expected a map, got a list");
  expect("vit", "image_size", {224, 224}, "image_size: expected a whole number, got a list");
  expect("vit", "num_labels", 20'000'000, "model.classes: expected at most 10000000, got '20000000'");
  expect("deepseek_v3", "n_shared_experts", 1'000'000,
         "model.shared_ffn_hidden: expected at most 10000000, got '32000000'");
}

TEST_F(HuggingFace, ContradictionsAreReportedWhereTheyStand) {
  const auto expect = [&](const char* type, const Json& changes, const std::string& message) {
    expect_error(type, changes, message.substr(0, message.find(':')), message);
  };
  expect("llama", {{"num_attention_heads", 5}},
         "num_attention_heads: hidden_size, which is '64', is no multiple of '5'");
  expect("llama", {{"num_key_value_heads", 3}},
         "num_key_value_heads: num_attention_heads, which is '8', is no multiple of '3'");
  expect("qwen2", {}, "num_key_value_heads: num_attention_heads, which is '8', is no multiple of '32'");
  expect("mixtral", {{"num_local_experts", 8}, {"num_experts_per_tok", 9}},
         "num_experts_per_tok: expected at most 8, the num_local_experts, got '9'");
  expect("mixtral", {{"num_local_experts", 8}, {"num_routed_experts", 4}},
         "num_routed_experts: '4' contradicts num_local_experts, which is '8'");
  expect("gpt2", {{"n_embd", 64}, {"hidden_size", 32}}, "hidden_size: '32' contradicts n_embd, which is '64'");
  expect("qwen3_moe", {{"mlp_only_layers", Json::array({4})}},
         "mlp_only_layers: there is no layer 4 among 4, counted from 0");
  expect("qwen3_moe", {{"decoder_sparse_step", 5}},
         "decoder_sparse_step: expected at most 4, the num_hidden_layers, got '5'");
  expect("deepseek_v3", {{"first_k_dense_replace", 5}},
         "first_k_dense_replace: expected at most 4, the num_hidden_layers, got '5'");
  expect("deepseek_v3", {{"num_key_value_heads", 2}},
         "num_key_value_heads: '2' contradicts num_attention_heads: latent attention has a key and a value for each "
         "query");
  expect("deepseek_v3", {{"head_dim", 128}},
         "head_dim: '128' contradicts qk_nope_head_dim + qk_rope_head_dim, which is 192");
  expect("deepseek_v3", {{"qk_head_dim", 64}},
         "qk_head_dim: '64' contradicts qk_nope_head_dim + qk_rope_head_dim, which is 192");
  expect("mistral", {{"layer_types", Json::array({"full_attention"})}},
         "layer_types: expected one for each of 4 layers, got 1");
  expect("mistral",
         {{"sliding_window", nullptr},
          {"layer_types", {"sliding_attention", "full_attention", "sliding_attention", "full_attention"}}},
         "layer_types: 'sliding_attention' contradicts sliding_window, which is off");
  expect("t5", {{"is_gated_act", true}}, "is_gated_act: contradicts feed_forward_proj, which is 'relu'");
  expect("vit", {{"id2label", {{"0", "cat"}}}, {"num_labels", 2}},
         "num_labels: '2' contradicts id2label, which names 1");
  expect("vit", {{"patch_size", 15}}, "patch_size: image_size, which is '224', is no multiple of '15'");
}

TEST_F(HuggingFace, AFieldGivenTwiceIsReportedOnce) {
  std::string config = small("llama").dump();
  config.replace(config.find("vocab_size"), 10, "hidden_size");
  EXPECT_EQ(error(config),
            "config.json:1:1: missing key 'vocab_size'\nconfig.json:1:137: key 'hidden_size' is given twice");
}

TEST_F(HuggingFace, TabsAndLineEndingsOfOtherSystemsDoNotMatter) {
  std::string config = small("llama", {{"id2label", {{"0", "{%- if a: b -%} # \t\n"}}}}).dump(1, '\t');
  for (std::size_t at = config.find('\n'); at != std::string::npos; at = config.find('\n', at + 2))
    config.insert(at, 1, '\r');
  EXPECT_EQ(error(config), "");
}

TEST_F(HuggingFace, ClassesOfAnotherTypeAreReported) {
  EXPECT_EQ(error(R"({"model_type": "llama", "architectures": ["LlamaMoeForCausalLM"], "hidden_size": 64,
  "num_hidden_layers": 4, "num_attention_heads": 8, "intermediate_size": 128, "vocab_size": 1000})"),
            "config.json:1:43: architectures: the text 'LlamaMoeForCausalLM' contradicts model_type 'llama'");
  for (const auto& [type, name] :
       std::vector<std::pair<const char*, const char*>>{{"llama", "LlamaForSequenceClassification"},
                                                        {"gpt2", "GPT2DoubleHeadsModel"},
                                                        {"t5", "T5WithLMHeadModel"},
                                                        {"bert", "BertModel"},
                                                        {"gpt_neox", "GPTNeoXForCausalLM"}})
    EXPECT_EQ(error(small(type, {{"architectures", Json::array({name})}}).dump()), "") << name;
}

TEST_F(HuggingFace, WhatIsNotSupportedIsReportedWhereItStands) {
  const auto expect = [&](const char* type, const Json& changes, const std::string& message) {
    expect_error(type, changes, message.substr(0, message.find(':')), message);
  };
  for (const char* field : {"num_experts", "num_local_experts", "n_routed_experts", "num_routed_experts"}) {
    expect("llama", {{field, 8}}, std::string{field} + ": experts are not supported in model_type 'llama'");
    EXPECT_EQ(error(small("llama", {{field, 0}}).dump()), "");
  }
  expect("llama", {{"hidden_act", "relu"}}, "hidden_act: a gate of 'relu' is not supported; expected 'silu' or 'gelu'");
  expect("bert", {{"hidden_act", "silu"}}, "hidden_act: 'silu' is not supported; expected 'gelu', 'relu' or 'relu2'");
  expect("gpt2", {{"activation_function", "tanh"}},
         "activation_function: 'tanh' is not supported; expected 'gelu', 'relu' or 'relu2'");
  expect("gpt2", {{"add_cross_attention", true}}, "add_cross_attention: cross attention of a decoder is not supported");
  expect("bert", {{"is_decoder", true}}, "is_decoder: a BERT as decoder is not supported");
  expect("bert", {{"add_cross_attention", true}},
         "add_cross_attention: cross attention of an encoder is not supported");
  expect("bert", {{"position_embedding_type", "relative_key"}},
         "position_embedding_type: 'relative_key' is not supported; expected 'absolute'");
  expect("t5", {{"is_encoder_decoder", false}}, "is_encoder_decoder: an encoder alone is not supported");
  expect("t5", {{"feed_forward_proj", "gated-tanh"}},
         "feed_forward_proj: 'gated-tanh' is not supported; expected 'relu', 'gelu', 'gated-gelu' or 'gated-silu'");
  expect("deepseek_v3", {{"attention_bias", true}}, "attention_bias: biases of latent attention are not supported");
  expect("deepseek_v3", {{"mlp_bias", true}}, "mlp_bias: biases of experts are not supported");
  expect("deepseek_v3", {{"n_routed_experts", nullptr}},
         "n_routed_experts: a model of this type without experts is not supported");
  const Json on{{"num_key_value_heads", 8}, {"use_sliding_window", true}, {"max_window_layers", 2}};
  expect("qwen2", on, "max_window_layers: a window for the last layers alone is not supported");
  expect("qwen2_moe", on, "use_sliding_window: a window without layer_types is not supported for this model type");
  expect("mistral", {{"layer_types", {"sliding_attention", "full_attention", "full_attention", "full_attention"}}},
         "layer_types: only groups of layers of which the last one has full attention are supported");
  expect("mistral", {{"layer_types", Json::array({"linear_attention"})}},
         "layer_types: the text 'linear_attention' is not supported; expected 'full_attention' or "
         "'sliding_attention'");
}

}  // namespace
}  // namespace trainyard::scenarios
