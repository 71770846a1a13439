// Models and a device for tests, independent of the catalogue: figures that a test depends on stand still.
#pragma once

#include <cstdint>
#include <string>

#include "workloads/accelerator.hpp"
#include "workloads/model.hpp"
#include "workloads/training.hpp"

namespace trainyard::tests {

// The architecture of GPT-2, GPT-3 and Megatron-LM: four times hidden in the feed-forward block, tied embeddings.
inline workloads::Model gpt(std::int64_t layers, std::int64_t hidden, std::int64_t heads, std::int64_t vocab = 50257,
                            std::int64_t positions = 2048) {
  workloads::Model model;
  model.name = "gpt";
  model.family = "gpt";
  model.dropout = 0.1;
  model.layers = layers;
  model.hidden = hidden;
  model.ffn_hidden = 4 * hidden;
  model.heads = heads;
  model.kv_heads = heads;
  model.head_dim = hidden / heads;
  model.vocab = vocab;
  model.positions = positions;
  return model;
}

// The architecture of Llama 1 to 3.1: rotary embeddings, no biases, a head of its own.
inline workloads::Model llama(std::int64_t layers, std::int64_t hidden, std::int64_t ffn_hidden, std::int64_t heads,
                              std::int64_t kv_heads, std::int64_t vocab) {
  workloads::Model model = gpt(layers, hidden, heads, vocab);
  model.name = "llama";
  model.family = "llama";
  model.activation = workloads::Model::Activation::swiglu;
  model.norm = workloads::Model::Norm::rmsnorm;
  model.position_embedding = workloads::Model::PositionEmbedding::rope;
  model.tied_embeddings = false;
  model.bias = false;
  model.output_bias = model.ffn_bias = model.norm_bias = false;
  model.separate_projections = true;
  model.qkv_bias = false;
  model.dropout = 0;
  model.ffn_hidden = ffn_hidden;
  model.kv_heads = kv_heads;
  return model;
}

inline workloads::Model gpt2() { return gpt(12, 768, 12, 50257, 1024); }
inline workloads::Model gpt3_175b() { return gpt(96, 12288, 96); }
inline workloads::Model llama2_7b() { return llama(32, 4096, 11008, 32, 32, 32000); }
inline workloads::Model llama3_8b() { return llama(32, 4096, 14336, 32, 8, 128256); }
inline workloads::Model llama3_70b() { return llama(80, 8192, 28672, 64, 8, 128256); }
inline workloads::Model llama3_405b() { return llama(126, 16384, 53248, 128, 8, 128256); }

inline workloads::Model neox_20b() {
  workloads::Model model = gpt(44, 6144, 64, 50432);
  model.name = "neox";
  model.position_embedding = workloads::Model::PositionEmbedding::rope;
  model.tied_embeddings = false;
  model.parallel_residual = true;
  model.dropout = 0;
  return model;
}

inline workloads::Model qwen3_8b() {
  workloads::Model model = llama(36, 4096, 12288, 32, 8, 151936);
  model.qk_norm = true;
  return model;
}

inline workloads::Model with_experts(workloads::Model model, std::int64_t count, std::int64_t top_k) {
  workloads::Model::Experts experts;
  experts.count = count;
  experts.top_k = top_k;
  model.experts = experts;
  return model;
}
inline workloads::Model mixtral_8x7b() { return with_experts(llama(32, 4096, 14336, 32, 8, 32000), 8, 2); }
inline workloads::Model mixtral_8x22b() { return with_experts(llama(56, 6144, 16384, 48, 8, 32768), 8, 2); }
inline workloads::Model qwen3_moe(std::int64_t layers, std::int64_t hidden, std::int64_t ffn_hidden,
                                  std::int64_t heads) {
  workloads::Model model = with_experts(llama(layers, hidden, ffn_hidden, heads, 4, 151936), 128, 8);
  model.name = model.family = "qwen3-moe";
  model.head_dim = 128;
  model.qk_norm = true;
  return model;
}

inline workloads::Model deepseek_v3() {
  workloads::Model model = with_experts(llama(61, 7168, 2048, 128, 128, 129280), 256, 8);
  model.name = model.family = "deepseek";
  model.experts->shared_hidden = 2048;
  model.experts->router_bias = true;
  model.experts->first_dense = 3;
  model.experts->dense_ffn_hidden = 18432;
  model.latent_attention = workloads::Model::LatentAttention{
      .q_rank = 1536, .kv_rank = 512, .nope_head_dim = 128, .rope_head_dim = 64, .v_head_dim = 128};
  model.head_dim = 192;
  model.mtp_layers = 1;
  return model;
}

// The architecture of gpt-oss: a window in every layer but each second.
inline workloads::Model gpt_oss_20b() {
  workloads::Model model = with_experts(llama(24, 2880, 2880, 64, 8, 201088), 32, 4);
  model.name = model.family = "gpt-oss";
  model.head_dim = 64;
  model.sliding_window = 128;
  model.full_attention_every = 2;
  return model;
}

inline workloads::Model bert(std::int64_t layers, std::int64_t hidden, std::int64_t heads) {
  workloads::Model model = gpt(layers, hidden, heads, 30522, 512);
  model.name = model.family = "bert";
  model.structure = workloads::Model::Structure::encoder;
  model.post_norm = true;
  model.pooler = true;
  model.segments = 2;
  return model;
}
inline workloads::Model bert_base() { return bert(12, 768, 12); }

inline workloads::Model t5(std::int64_t layers, std::int64_t hidden, std::int64_t ffn_hidden, std::int64_t heads,
                           std::int64_t head_dim) {
  workloads::Model model = llama(layers, hidden, ffn_hidden, heads, heads, 32128);
  model.name = model.family = "t5";
  model.structure = workloads::Model::Structure::encoder_decoder;
  model.activation = workloads::Model::Activation::relu;
  model.position_embedding = workloads::Model::PositionEmbedding::relative;
  model.relative_buckets = 32;
  model.tied_embeddings = true;
  model.decoder_layers = layers;
  model.head_dim = head_dim;
  return model;
}

inline workloads::Model vit(std::int64_t layers, std::int64_t hidden, std::int64_t heads) {
  workloads::Model model = gpt(layers, hidden, heads, 0, 0);
  model.name = model.family = "vit";
  model.structure = workloads::Model::Structure::vision;
  model.dropout = 0;
  model.image_size = 224;
  model.patch_size = 16;
  model.classes = 1000;
  return model;
}
inline workloads::Model vit_b16() { return vit(12, 768, 12); }

inline workloads::Model resnet50() {
  workloads::Model model;
  model.name = model.family = "resnet";
  model.structure = workloads::Model::Structure::convolution;
  model.stage_blocks = {3, 4, 6, 3};
  model.width = 64;
  model.image_size = 224;
  model.classes = 1000;
  return model;
}

// The perceptrons of MLPerf's DLRM, and 26 tables of a million rows.
inline workloads::Model dlrm() {
  workloads::Model model;
  model.name = model.family = "dlrm";
  model.structure = workloads::Model::Structure::recommendation;
  model.hidden = 128;
  model.tables.assign(26, 1'000'000);
  model.dense_features = 13;
  model.bottom_mlp = {512, 256, 128};
  model.top_mlp = {1024, 1024, 512, 256, 1};
  return model;
}

inline workloads::ExpertRouting capacity(double factor) {
  workloads::ExpertRouting routing;
  routing.capacity_factor = factor;
  return routing;
}
inline workloads::ExpertRouting imbalance(double most_over_mean) {
  workloads::ExpertRouting routing;
  routing.imbalance = most_over_mean;
  return routing;
}
inline workloads::ExpertRouting dirichlet(double concentration, std::int64_t seed = 1) {
  workloads::ExpertRouting routing;
  routing.dirichlet = concentration;
  routing.seed = seed;
  return routing;
}

// An H100 in the figures that its data sheet gives, with efficiencies near those measured.
inline workloads::Accelerator h100() {
  using workloads::Precision;
  workloads::Accelerator device;
  device.name = "h100";
  device.memory = {79LL << 30};
  device.memory_bandwidth = {3'350'000'000'000};
  device.l2_cache = {50'000'000};
  device.sms = 132;
  const auto set = [&](Precision precision, std::int64_t peak, double efficiency) {
    device.peak.at(static_cast<std::size_t>(precision)) = {peak};
    device.gemm_efficiency.at(static_cast<std::size_t>(precision)) = efficiency;
  };
  set(Precision::fp32, 67'000'000'000'000, 0.9);
  set(Precision::tf32, 494'500'000'000'000, 0.8);
  set(Precision::fp16, 989'000'000'000'000, 0.75);
  set(Precision::bf16, 989'000'000'000'000, 0.75);
  set(Precision::fp8, 1'979'000'000'000'000, 0.7);
  device.tile_rows = 256;
  device.tile_columns = 128;
  device.half_k = 512;
  device.attention_forward_efficiency = 0.35;
  device.attention_backward_efficiency = 0.33;
  device.attention_half_sequence = 600;
  device.memory_efficiency = 0.8;
  device.memory_half_size = {2'000'000};
  device.kernel_latency = std::chrono::microseconds{3};
  return device;
}

}  // namespace trainyard::tests
