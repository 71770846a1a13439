#include "scenarios/internal/hf_types.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "scenarios/internal/hf_rules.hpp"

namespace trainyard::scenarios {
namespace hf {
namespace {

constexpr std::array llama_fields{hidden, layers, heads, ffn_hidden, vocab, kv_heads, head_dim, usual(positions, 2048)};
void complete_llama(HfFile& file) {
  const bool attention = says(file, "attention_bias", false);
  set_biases(file, {.qkv = attention, .output = attention, .ffn = says(file, "mlp_bias", false)});
  set_gated_activation(file);
  set_dropout(file, {"attention_dropout"}, 0);
  set_tied(file, false);
  check_heads(file);
}

constexpr std::array mistral_fields{
    hidden, layers, heads, ffn_hidden, vocab, usual(kv_heads, 8), head_dim, usual(positions, 131072)};
void complete_mistral(HfFile& file) {
  complete_llama(file);
  set_window(file, window_or(file, 4096));
}

constexpr std::array qwen2_fields{
    hidden, layers, heads, ffn_hidden, vocab, usual(kv_heads, 32), head_dim, usual(positions, 32768)};
void complete_qwen2(HfFile& file) {
  complete_llama(file);
  set_biases(file, {.qkv = true});
  set_qwen_window(file);
}

constexpr std::array qwen3_fields{
    hidden, layers, heads, ffn_hidden, vocab, usual(kv_heads, 32), usual(head_dim, 128), usual(positions, 32768)};
void complete_qwen3(HfFile& file) {
  complete_llama(file);
  file.set_flag("qk_norm", true);
  set_qwen_window(file);
}

// The family in the catalogue has one, which files of these types do not take over.
void set_head_dim(HfFile& file) {
  const auto hidden_size = file.model_number("hidden");
  const auto count = file.model_number("heads");
  if (!file.model_number("head_dim") && hidden_size && count) file.set_number("head_dim", *hidden_size / *count);
}

constexpr std::array qwen2_moe_fields{
    hidden,
    layers,
    heads,
    expert_hidden,
    usual(dense_hidden, 5632),
    vocab,
    usual(kv_heads, 16),
    head_dim,
    usual(positions, 32768),
    usual(experts, 60),
    usual(top_k, 4),
    HfField{.name = "shared_expert_intermediate_size", .key = "shared_ffn_hidden", .usual = 5632, .least = 0}};
void complete_qwen2_moe(HfFile& file) {
  complete_llama(file);
  set_biases(file, {.qkv = says(file, "qkv_bias", true)});
  file.set_flag("qk_norm", false);
  file.set_flag("shared_gate", file.model_number("shared_ffn_hidden").value_or(0) > 0);
  set_head_dim(file);
  const bool on = says(file, "use_sliding_window", false);
  if (on && file.find("layer_types") == nullptr)
    file.report("use_sliding_window", "a window without layer_types is not supported for this model type");
  set_window(file, on ? window_or(file, 4096) : 0);
  set_expert_layers(file);
}

constexpr std::array qwen3_moe_fields{hidden,
                                      layers,
                                      heads,
                                      expert_hidden,
                                      usual(dense_hidden, 6144),
                                      vocab,
                                      usual(kv_heads, 4),
                                      head_dim,
                                      usual(positions, 32768),
                                      usual(experts, 128),
                                      usual(top_k, 8)};
void complete_qwen3_moe(HfFile& file) {
  complete_llama(file);
  set_head_dim(file);
  set_window(file, says(file, "use_sliding_window", false) ? window_or(file, 4096) : 0);
  set_expert_layers(file);
}

constexpr std::array mixtral_fields{hidden,
                                    layers,
                                    heads,
                                    ffn_hidden,
                                    vocab,
                                    usual(kv_heads, 8),
                                    head_dim,
                                    usual(positions, 131072),
                                    usual(experts, 8),
                                    usual(top_k, 2)};
void complete_mixtral(HfFile& file) {
  complete_llama(file);
  set_window(file, window_or(file, 0));
  check_at_most(file, top_k, experts);
}

constexpr std::array gpt_oss_fields{hidden,
                                    layers,
                                    heads,
                                    ffn_hidden,
                                    vocab,
                                    usual(kv_heads, 8),
                                    usual(head_dim, 64),
                                    usual(positions, 131072),
                                    usual(experts, 128),
                                    usual(top_k, 4)};
void complete_gpt_oss(HfFile& file) {
  complete_llama(file);
  const bool attention = says(file, "attention_bias", true);
  set_biases(file, {.qkv = attention, .output = attention, .ffn = true});
  file.set_flag("router_bias", true);
  set_head_dim(file);
  set_window(file, window_or(file, 128), 2);
  check_at_most(file, top_k, experts);
}

constexpr HfField q_rank{.name = "q_lora_rank", .key = "q_rank", .usual = 1536, .null_is_none = true};
constexpr HfField routed_experts{.name = "n_routed_experts",
                                 .key = "experts",
                                 .null_is_none = true,
                                 .synonyms = {"num_routed_experts", "num_local_experts", "num_experts"}};
constexpr HfField shared_experts{.name = "n_shared_experts",
                                 .key = "shared_experts",
                                 .null_is_none = true,
                                 .least = 0,
                                 .synonyms = {"num_shared_experts"}};
constexpr HfField first_dense{.name = "first_k_dense_replace", .key = "first_dense", .least = 0};
constexpr HfField further_layers{.name = "num_nextn_predict_layers", .key = "mtp_layers", .usual = 0, .least = 0};
constexpr HfField kv_rank{.name = "kv_lora_rank", .key = "kv_rank", .usual = 512};
constexpr HfField nope_head_dim{.name = "qk_nope_head_dim", .key = "nope_head_dim", .usual = 128};
constexpr HfField rope_head_dim{.name = "qk_rope_head_dim", .key = "rope_head_dim", .usual = 64};
constexpr HfField v_head_dim{.name = "v_head_dim", .key = "v_head_dim", .usual = 128};

constexpr std::array deepseek_v2_fields{hidden,
                                        layers,
                                        heads,
                                        expert_hidden,
                                        required(dense_hidden),
                                        vocab,
                                        usual(positions, 2048),
                                        q_rank,
                                        kv_rank,
                                        nope_head_dim,
                                        rope_head_dim,
                                        v_head_dim,
                                        usual(routed_experts, 64),
                                        required(top_k),
                                        usual(first_dense, 0),
                                        further_layers};
constexpr std::array deepseek_v3_fields{hidden,
                                        layers,
                                        heads,
                                        expert_hidden,
                                        required(dense_hidden),
                                        vocab,
                                        usual(positions, 4096),
                                        q_rank,
                                        kv_rank,
                                        nope_head_dim,
                                        rope_head_dim,
                                        v_head_dim,
                                        usual(routed_experts, 256),
                                        usual(top_k, 8),
                                        usual(first_dense, 3),
                                        further_layers};

// Heads of queries and keys have a part with positions and one without; files also state sums and parts of them.
void check_latent_dimensions(HfFile& file) {
  const auto expect = [&](std::string_view field, bool right, std::string_view other) {
    const Value* value = file.find(field);
    if (!right && value != nullptr) file.report(field, describe(*value) + " contradicts " + std::string{other});
  };
  const auto given_heads = file.whole("num_key_value_heads");
  const auto count = file.model_number("heads");
  expect("num_key_value_heads", !given_heads || !count || *given_heads == *count,
         "num_attention_heads: latent attention has a key and a value for each query");
  const auto nope = file.model_number("nope_head_dim");
  const auto rope = file.model_number("rope_head_dim");
  if (!nope || !rope) return;
  const std::string sum = "qk_nope_head_dim + qk_rope_head_dim, which is " + std::to_string(*nope + *rope);
  const std::int64_t given_sum = file.whole("qk_head_dim").value_or(*nope + *rope);
  expect("qk_head_dim", given_sum == *nope + *rope, sum);
  const std::int64_t given = file.whole("head_dim").value_or(*rope);  // transformers saves the part with positions
  expect("head_dim", given == *rope || given == *nope + *rope, sum);
}

void complete_deepseek(HfFile& file, std::int64_t usual_shared) {
  set_gated_activation(file);
  refuse(file, "attention_bias", "biases of latent attention are");
  refuse(file, "mlp_bias", "biases of experts are");
  set_biases(file, {});
  set_dropout(file, {"attention_dropout"}, 0);
  set_tied(file, false);
  if (file.is_null(q_rank.name)) file.set_number(q_rank.key, 0);
  check_latent_dimensions(file);
  if (file.is_null(routed_experts.name))
    file.report(routed_experts, "a model of this type without experts is not supported");
  check_at_most(file, top_k, routed_experts);
  check_at_most(file, first_dense, layers);
  // Shared experts lie side by side: one block as wide as all of them.
  const auto shared = file.number(usual(shared_experts, usual_shared));
  file.set_number("shared_ffn_hidden", shared.value_or(0) * file.model_number("ffn_hidden").value_or(0),
                  shared_experts.name);
  const std::int64_t every = file.whole("moe_layer_freq", 1).value_or(1);
  constexpr std::int64_t most_layers = 100'000;  // more are reported when the model is read
  const std::int64_t count = every == 1 ? 0 : std::min(file.model_number("layers").value_or(0), most_layers);
  std::vector<std::int64_t> dense;
  for (std::int64_t i = file.model_number("first_dense").value_or(0); i < count; ++i)
    if (i % every != 0) dense.push_back(i);
  file.set_numbers("dense_layers", dense);
}

void complete_deepseek_v2(HfFile& file) {
  complete_deepseek(file, 2);
  file.set_flag("router_bias", false);
}

// The router's correction, which balances the load instead of a loss (arXiv 2412.19437, section 2.1.2), is kept as a
// bias.
void complete_deepseek_v3(HfFile& file) {
  complete_deepseek(file, 1);
  file.set_flag("router_bias", file.text("topk_method").value_or("noaux_tc") == "noaux_tc");
}

constexpr std::array gpt2_fields{
    HfField{.name = "n_embd", .key = "hidden", .required = true, .synonyms = {"hidden_size"}},
    HfField{.name = "n_layer", .key = "layers", .required = true, .synonyms = {"num_hidden_layers"}},
    HfField{.name = "n_head", .key = "heads", .required = true, .synonyms = {"num_attention_heads"}},
    HfField{.name = "n_positions",
            .key = "positions",
            .usual = 1024,
            .synonyms = {"max_position_embeddings", "n_ctx"}},  // old files have n_ctx beside n_positions
    HfField{.name = "n_inner", .key = "ffn_hidden"},            // else four times hidden
    vocab};
void complete_gpt2(HfFile& file) {
  refuse(file, "add_cross_attention", "cross attention of a decoder is");
  set_plain_activation(file, "activation_function", "gelu_new");
  set_dropout(file, {"attn_pdrop", "resid_pdrop", "embd_pdrop"}, 0.1);
  set_tied(file, true);
  check_multiple(file, gpt2_fields[0], gpt2_fields[2]);
}

constexpr std::array gpt_neox_fields{hidden, layers, heads, ffn_hidden, vocab, usual(positions, 2048)};
void complete_gpt_neox(HfFile& file) {
  const bool attention = says(file, "attention_bias", true);
  file.set_text("position_embedding", "rope");
  set_biases(file, {.qkv = attention, .output = attention, .ffn = true, .norm = true});
  file.set_flag("parallel_residual", says(file, "use_parallel_residual", true));
  set_plain_activation(file, "hidden_act", "gelu");
  set_dropout(file, {"hidden_dropout", "attention_dropout"}, 0);
  set_tied(file, false);
  check_multiple(file, hidden, heads);
}

constexpr std::array nemotron_fields{hidden, layers,   heads,    ffn_hidden,
                                     vocab,  kv_heads, head_dim, usual(positions, 4096)};
void complete_nemotron(HfFile& file) {
  const bool attention = says(file, "attention_bias", false);
  set_biases(file, {.qkv = attention, .output = attention, .ffn = says(file, "mlp_bias", false), .norm = true});
  set_plain_activation(file, "hidden_act", "relu2");
  set_dropout(file, {"attention_dropout"}, 0);
  set_tied(file, false);
  check_heads(file);
}

constexpr std::array bert_fields{hidden,
                                 layers,
                                 heads,
                                 ffn_hidden,
                                 vocab,
                                 usual(positions, 512),
                                 HfField{.name = "type_vocab_size", .key = "segments", .usual = 2}};
void complete_bert(HfFile& file) {
  refuse(file, "is_decoder", "a BERT as decoder is");
  refuse(file, "add_cross_attention", "cross attention of an encoder is");
  const std::string kind = file.text("position_embedding_type").value_or("absolute");
  if (kind != "absolute")
    file.report("position_embedding_type", "'" + kind + "' is not supported; expected 'absolute'");
  set_plain_activation(file, "hidden_act", "gelu");
  set_dropout(file, {"hidden_dropout_prob", "attention_probs_dropout_prob"}, 0.1);
  set_tied(file, true);
  check_multiple(file, hidden, heads);
}

constexpr HfField image_size{.name = "image_size", .key = "image_size", .usual = 224};
constexpr HfField patch_size{.name = "patch_size", .key = "patch_size", .usual = 16};
constexpr std::array vit_fields{hidden,
                                layers,
                                heads,
                                ffn_hidden,
                                image_size,
                                patch_size,
                                HfField{.name = "num_channels", .key = "channels", .usual = 3}};
void complete_vit(HfFile& file) {
  const bool qkv = says(file, "qkv_bias", true);
  set_biases(file, {.qkv = qkv, .output = true, .ffn = true, .norm = true});
  set_plain_activation(file, "hidden_act", "gelu");
  set_dropout(file, {"hidden_dropout_prob", "attention_probs_dropout_prob"}, 0);
  const std::int64_t named = file.size_of_map("id2label");
  const auto count = file.whole("num_labels", 1);
  if (count && named > 0 && *count != named)
    file.report("num_labels",
                describe(*file.find("num_labels")) + " contradicts id2label, which names " + std::to_string(named));
  file.set_number("classes", count ? *count : (named > 0 ? named : 2), "num_labels");
  check_multiple(file, hidden, heads);
  check_multiple(file, image_size, patch_size);
}

constexpr std::array t5_fields{
    HfField{.name = "d_model", .key = "hidden", .required = true, .synonyms = {"hidden_size"}},
    HfField{.name = "num_layers", .key = "layers", .required = true, .synonyms = {"num_hidden_layers"}},
    HfField{.name = "num_heads", .key = "heads", .required = true, .synonyms = {"num_attention_heads"}},
    HfField{.name = "d_kv", .key = "head_dim", .usual = 64},
    HfField{.name = "d_ff", .key = "ffn_hidden", .required = true},
    HfField{.name = "num_decoder_layers", .key = "decoder_layers"},
    HfField{.name = "relative_attention_num_buckets", .key = "relative_buckets", .usual = 32},
    vocab};
void complete_t5(HfFile& file) {
  if (!says(file, "is_encoder_decoder", true)) file.report("is_encoder_decoder", "an encoder alone is not supported");
  const std::string kind = file.text("feed_forward_proj").value_or("relu");
  if (kind == "relu" || kind == "gelu")
    file.set_text("activation", kind);
  else if (kind == "gated-gelu")
    file.set_text("activation", "geglu");
  else if (kind == "gated-silu")
    file.set_text("activation", "swiglu");
  else
    file.report("feed_forward_proj",
                "'" + kind + "' is not supported; expected 'relu', 'gelu', 'gated-gelu' or 'gated-silu'");
  const auto gated = file.flag("is_gated_act");
  if (gated && *gated != kind.starts_with("gated"))
    file.report("is_gated_act", "contradicts feed_forward_proj, which is '" + kind + "'");
  set_dropout(file, {"dropout_rate"}, 0.1);
  set_tied(file, true);
  if (!file.model_number("decoder_layers") && file.model_number("layers"))
    file.set_number("decoder_layers", *file.model_number("layers"));
}

constexpr std::array<HfType, 16> types{{
    {"llama", "Llama", "llama", llama_fields, complete_llama},
    {"mistral", "Mistral", "llama", mistral_fields, complete_mistral},
    {"qwen2", "Qwen2", "llama", qwen2_fields, complete_qwen2},
    {"qwen3", "Qwen3", "llama", qwen3_fields, complete_qwen3},
    {"qwen2_moe", "Qwen2Moe", "qwen3-moe", qwen2_moe_fields, complete_qwen2_moe},
    {"qwen3_moe", "Qwen3Moe", "qwen3-moe", qwen3_moe_fields, complete_qwen3_moe},
    {"mixtral", "Mixtral", "mixtral", mixtral_fields, complete_mixtral},
    {"gpt_oss", "GptOss", "gpt-oss", gpt_oss_fields, complete_gpt_oss},
    {"deepseek_v2", "DeepseekV2", "deepseek-v3", deepseek_v2_fields, complete_deepseek_v2},
    {"deepseek_v3", "DeepseekV3", "deepseek-v3", deepseek_v3_fields, complete_deepseek_v3},
    {"gpt2", "GPT2", "gpt", gpt2_fields, complete_gpt2},
    {"gpt_neox", "GPTNeoX", "gpt", gpt_neox_fields, complete_gpt_neox},
    {"nemotron", "Nemotron", "nemotron", nemotron_fields, complete_nemotron},
    {"bert", "Bert", "bert", bert_fields, complete_bert},
    {"vit", "ViT", "vit", vit_fields, complete_vit},
    {"t5", "T5", "t5", t5_fields, complete_t5},
}};

}  // namespace
}  // namespace hf

std::span<const HfType> hf_types() { return hf::types; }

}  // namespace trainyard::scenarios
