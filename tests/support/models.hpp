// Models and a device for tests, independent of the catalogue: figures that a test depends on stand still.
#pragma once

#include <cstdint>
#include <string>

#include "workloads/accelerator.hpp"
#include "workloads/model.hpp"

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
