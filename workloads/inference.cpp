#include "workloads/inference.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>

#include "workloads/internal/expander.hpp"

namespace trainyard::workloads {
namespace {

// The model without what only training has: its loss, and layers that predict further tokens. Of every sequence the
// last token is predicted from.
Architecture describe_serving(const Model& model, std::int64_t tokens) {
  Architecture result = describe(model, tokens);
  result.dropout = 0;
  std::vector<Operation>& head = result.head.operations;
  const auto loss = std::ranges::find_if(
      head, [](const Operation& operation) { return std::holds_alternative<LossWork>(operation.work); });
  head.erase(loss, head.end());
  for (Operation& operation : head)
    if (auto* logits = std::get_if<LinearWork>(&operation.work)) logits->token_count = 1;
  // Logits are cast to 32 bits, and searched for the largest: 2 + 4 and 4 bytes each, in 16-bit elements.
  head.push_back({.name = "choose token", .work = PassWork{.read = 3 * model.vocab, .written = 2 * model.vocab}});
  return result;
}

KernelStyle serving_style(const Model& model, Backend backend) {
  if (backend == Backend::eager) return eager_style(model);
  KernelStyle style = fused_style();
  // Serving engines and ONNX Runtime join the projections that read the same input; compilers take the model as it is.
  style.split_projections = fuses_kernels(backend) && model.separate_projections;
  return style;
}

struct Pass {
  std::int64_t sequences = 1;
  std::int64_t tokens = 1;   // of each
  std::int64_t context = 0;  // see Serving
};

Expansion expand_pass(const Model& model, const Inference& inference, const Pass& pass, const InferenceCosts& costs) {
  const Architecture architecture = describe_serving(model, pass.tokens);
  Training numbers;
  numbers.precision = costs.sixteen_bits;
  numbers.attention = inference.attention;
  const Shard shard{.micro_batch = pass.sequences, .tensor = inference.tensor, .expert_tensor = inference.tensor};
  const KernelStyle style = serving_style(model, inference.backend);
  const Serving serving{.inference = inference, .context = pass.context, .latent = model.latent_attention};
  const auto layer = [&](const Block& block, std::int64_t input_elements) {
    return Expander(architecture, numbers, shard, style, costs.kernels, block, &serving).layer(input_elements);
  };
  Expansion expansion;
  expansion.embedding = layer(architecture.embedding, 0);
  expansion.kind_of = architecture.layers;
  for (const Block& kind : architecture.kinds) expansion.kinds.push_back(layer(kind, kind.tokens * kind.width));
  expansion.head = layer(architecture.head, architecture.head.tokens * architecture.head.width);
  return expansion;
}

}  // namespace

std::int64_t Inference::prompts_at_once() const { return std::clamp<std::int64_t>(prefill_tokens / prompt, 1, batch); }

Precision arithmetic(WeightFormat format, Precision sixteen_bits) {
  if (format == WeightFormat::w8a8) return Precision::int8;
  return format == WeightFormat::fp8 ? Precision::fp8 : sixteen_bits;
}

double stored_bytes(const Inference& inference, std::int64_t inputs) {
  constexpr double scale = 2;
  switch (inference.weights) {
    case WeightFormat::bf16:
    case WeightFormat::fp16:
      return 2;
    case WeightFormat::w8a16:
    case WeightFormat::w8a8:
      return 1 + scale / static_cast<double>(inputs);
    case WeightFormat::fp8:
      return 1;
    case WeightFormat::w4a16:
      return 0.5 + 2 * scale / static_cast<double>(inference.group);
  }
  return 2;
}

sim::Bytes cache_bytes(CacheFormat format, std::int64_t values, std::int64_t vectors) {
  switch (format) {
    case CacheFormat::as_computed:
      return sim::Bytes{2 * values};
    case CacheFormat::fp8:
      return sim::Bytes{values};
    case CacheFormat::int8:
      return sim::Bytes{values + 4 * vectors};
    case CacheFormat::int4:
      return sim::Bytes{(values + 1) / 2 + 4 * vectors};
  }
  return sim::Bytes{2 * values};
}

sim::Bytes cache_bytes(const Model& model, const Inference& inference, std::int64_t sequences, std::int64_t tokens) {
  const Architecture architecture = describe(model, 1);
  sim::Bytes sum{};
  for (const std::uint32_t kind : architecture.layers)
    for (const Operation& operation : architecture.kinds[kind].operations) {
      const auto* attention = std::get_if<AttentionWork>(&operation.work);
      if (attention == nullptr) continue;
      const std::int64_t kept = attention->window > 0 ? std::min(tokens, attention->window) : tokens;
      if (model.latent_attention) {
        const std::int64_t width = model.latent_attention->kv_rank + model.latent_attention->rope_head_dim;
        sum += cache_bytes(inference.cache, sequences * kept * width, sequences * kept);
        continue;
      }
      const std::int64_t heads = sequences * kept * std::max<std::int64_t>(1, attention->kv_heads / inference.tensor);
      sum += cache_bytes(inference.cache, heads * (attention->qk_dim + attention->v_dim), 2 * heads);
    }
  return sum;
}

Expansion expand_prefill(const Model& model, const Inference& inference, std::int64_t sequences,
                         const InferenceCosts& costs) {
  return expand_pass(model, inference, {.sequences = sequences, .tokens = inference.prompt}, costs);
}

Expansion expand_decoding(const Model& model, const Inference& inference, std::int64_t context,
                          const InferenceCosts& costs) {
  return expand_pass(model, inference, {.sequences = inference.batch, .tokens = 1, .context = context}, costs);
}

}  // namespace trainyard::workloads
