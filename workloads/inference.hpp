// A decoder that generates text: its forward pass over prompts, and over one token of every sequence at a time against
// the keys and values of all tokens before, which stay in a cache.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "sim/units.hpp"
#include "workloads/architecture.hpp"
#include "workloads/cost.hpp"
#include "workloads/layers.hpp"
#include "workloads/model.hpp"
#include "workloads/training.hpp"

namespace trainyard::workloads {

// Of the matrices in the layers: bits of weights and of what they are multiplied with. The embedding, the head, routers
// and norms stay in 16 bits (`ignore: [lm_head]` of vllm-project/llm-compressor's recipes, which name formats like
// this).
enum class WeightFormat : std::uint8_t {
  bf16,
  fp16,
  w8a16,  // weights brought to 16 bits inside the products
  w8a8,   // products of 8-bit whole numbers
  fp8,    // products of 8-bit floating-point numbers
  w4a16   // as w8a16, with scales per group of weights (GPTQ, arXiv 2210.17323; AWQ, arXiv 2306.00978)
};
constexpr std::array<std::string_view, 6> weight_format_names{"bf16", "fp16", "w8a16", "w8a8", "fp8", "w4a16"};

// Of keys and values. 8 and 4-bit whole numbers have a scale and an offset per token and head, in 16 bits each
// (InternLM/lmdeploy docs/en/quantization/kv_quant.md); 8-bit floating-point ones share a scale.
enum class CacheFormat : std::uint8_t { as_computed, fp8, int8, int4 };
constexpr std::array<std::string_view, 4> cache_format_names{"auto", "fp8", "int8", "int4"};

struct Inference {
  std::int64_t batch = 1;       // sequences that a copy of the model decodes at once
  std::int64_t prompt = 512;    // tokens of each
  std::int64_t generate = 128;  // tokens that are added to each
  WeightFormat weights = WeightFormat::bf16;
  std::int64_t group = 128;  // w4a16: weights that share a scale and an offset
  CacheFormat cache = CacheFormat::as_computed;
  std::int64_t tensor = 1;             // devices that share a copy of the model
  std::int64_t prefill_tokens = 8192;  // that one pass over prompts takes at most, a whole prompt at least
  Backend backend = Backend::cuda_graph;
  AttentionKernel attention = AttentionKernel::flash2;

  std::int64_t tokens() const { return prompt + generate; }  // of a sequence in the end
  // Prompts that one pass takes.
  std::int64_t prompts_at_once() const;
};

// Of the products in the layers; embedding, head and attention take the 16-bit type beside it.
Precision arithmetic(WeightFormat format, Precision sixteen_bits);
// Bytes of a weight in a matrix of so many inputs, with its part of the scales: one per output in 16 bits with 8-bit
// whole numbers, one per matrix with 8-bit floating-point ones; scale and offset of 16 bits each per group with 4 bits.
double stored_bytes(const Inference& inference, std::int64_t inputs);

// Bytes of `values` keys or values in the cache, `vectors` of them with a scale of their own.
sim::Bytes cache_bytes(CacheFormat format, std::int64_t values, std::int64_t vectors);

// On one of the devices that share the model: what `tokens` of `sequences` hold in all layers. Heads of keys and values
// are divided, but every device has one at least; latent attention keeps its narrow state whole on each (DeepSeek-V2,
// arXiv 2405.04434, section 2.1); windows keep no more tokens than they see.
sim::Bytes cache_bytes(const Model& model, const Inference& inference, std::int64_t sequences, std::int64_t tokens);

// What a device executes, forward alone; `frozen` of layers is what their weights take.
struct InferenceCosts {
  const KernelCosts& kernels;
  Precision sixteen_bits = Precision::bf16;  // of activations and of what is not quantised
};
// Prompts of `sequences`, up to the first token of each.
Expansion expand_prefill(const Model& model, const Inference& inference, std::int64_t sequences,
                         const InferenceCosts& costs);
// One more token of each sequence, which sees `context` tokens, itself included.
Expansion expand_decoding(const Model& model, const Inference& inference, std::int64_t context,
                          const InferenceCosts& costs);

}  // namespace trainyard::workloads
