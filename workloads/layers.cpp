#include "workloads/layers.hpp"

#include <utility>

namespace trainyard::workloads {
namespace {

using sim::Bytes;
using sim::Kernel;

// Builds the operators of one device's share of a layer.
class LayerBuilder {
 public:
  LayerBuilder(const Model& model, const Training& training, const Shard& shard, const KernelStyle& style,
               const KernelCosts& costs)
      : model_(model), training_(training), shard_(shard), style_(style), costs_(costs) {}

  Layer decoder() {
    layer_.input = bytes(replicated() * model_.hidden);
    norm("norm 1");
    const std::int64_t query = model_.query_width() / shard_.tensor;
    const std::int64_t kv = kv_width();
    if (style_.split_projections) {
      linear("query", Role::column_linear, query, model_.hidden, model_.qkv_bias, true);
      linear("key", Role::column_linear, kv, model_.hidden, model_.qkv_bias, false);
      linear("value", Role::column_linear, kv, model_.hidden, model_.qkv_bias, true);
      share_input(2);
    } else {
      linear("query key value", Role::column_linear, query + 2 * kv, model_.hidden, model_.qkv_bias, true);
      // Its output is split by views; backward joins the three gradients in one copy.
      layer_.operators.back().input_gradient.insert(
          layer_.operators.back().input_gradient.begin(),
          costs_.memory_bound("join gradients", bytes(shard_.tokens() * (query + 2 * kv)) * 2));
    }
    if (model_.position_embedding == Model::PositionEmbedding::rope) rotary();
    attention();
    linear("attention output", Role::row_linear, model_.hidden, query, model_.bias, false);
    // The input of this product is the attention's output, which the attention has kept already.
    layer_.operators.back().saved = {};
    residual("residual 1");
    norm("norm 2");
    const std::int64_t ffn = model_.ffn_hidden / shard_.tensor;
    if (model_.gated() && style_.split_projections) {
      linear("gate", Role::column_linear, ffn, model_.hidden, model_.bias, true);
      linear("up", Role::column_linear, ffn, model_.hidden, model_.bias, false);
      share_input(1);
    } else {
      linear(model_.gated() ? "gate up" : "fc1", Role::column_linear, (model_.gated() ? 2 : 1) * ffn, model_.hidden,
             model_.bias, true);
    }
    activation(ffn);
    linear(model_.gated() ? "down" : "fc2", Role::row_linear, model_.hidden, ffn, model_.bias, true);
    residual("residual 2");
    for (const Operator& op : layer_.operators) layer_.parameters += op.parameters;
    return std::move(layer_);
  }

  Layer embedding(std::int64_t vocab) {
    Operator& op = add("embedding", Role::replicated);
    const std::int64_t rows = vocab / shard_.tensor;
    const Bytes output = bytes(shard_.tokens() * model_.hidden);
    op.forward.push_back(costs_.memory_bound("embedding lookup", output * 2));
    if (model_.dropout > 0) op.forward.push_back(costs_.memory_bound("embedding dropout", output * 2));
    // Backward adds rows into a gradient that is filled with zeros first.
    op.weight_gradient.push_back(
        costs_.memory_bound("embedding gradient", output * 2 + Bytes{rows * model_.hidden * activation()}));
    const bool learned = model_.position_embedding == Model::PositionEmbedding::learned;
    op.parameters = (rows + (learned ? model_.positions : 0)) * model_.hidden;
    op.saved = Bytes{8 * shard_.tokens()};  // token ids
    if (model_.dropout > 0) op.saved += Bytes{replicated() * model_.hidden};
    op.output = bytes(replicated() * model_.hidden);
    layer_.parameters = op.parameters;
    return std::move(layer_);
  }

  Layer head(std::int64_t vocab) {
    layer_.input = bytes(replicated() * model_.hidden);
    norm("final norm");
    const std::int64_t columns = vocab / shard_.tensor;
    linear("logits", Role::column_linear, columns, model_.hidden, false, false);
    // Tied, it owns no parameters.
    if (model_.tied_embeddings) layer_.operators.back().parameters = 0;
    Operator& loss = add("loss", Role::local);
    const auto logits = static_cast<double>(shard_.tokens()) * static_cast<double>(columns);
    const auto traffic = [&](double bytes_per_logit) {
      return Bytes{static_cast<std::int64_t>(logits * bytes_per_logit)};
    };
    loss.forward.push_back(costs_.memory_bound("cross entropy", traffic(style_.loss_forward_bytes)));
    loss.input_gradient.push_back(costs_.memory_bound("cross entropy gradient", traffic(style_.loss_backward_bytes)));
    loss.saved = Bytes{static_cast<std::int64_t>(logits * style_.logits_saved_bytes)};
    for (const Operator& op : layer_.operators) layer_.parameters += op.parameters;
    return std::move(layer_);
  }

 private:
  std::int64_t activation() const { return activation_bytes(training_.precision); }
  std::int64_t replicated() const { return shard_.replicated_tokens(); }
  std::int64_t kv_width() const {
    // Fewer key-value heads than ranks are replicated.
    const std::int64_t heads = model_.kv_heads >= shard_.tensor ? model_.kv_heads / shard_.tensor : 1;
    return heads * model_.head_dim;
  }
  Bytes bytes(std::int64_t elements) const { return Bytes{elements} * activation(); }
  Bytes passes(std::int64_t elements, double count) const {
    return Bytes{static_cast<std::int64_t>(static_cast<double>(bytes(elements).count) * count)};
  }

  Operator& add(std::string name, Role role) {
    Operator& op = layer_.operators.emplace_back();
    op.name = std::move(name);
    op.role = role;
    return op;
  }

  // One kernel when fused; several, of the same traffic in all, when a framework runs operator by operator.
  void elementwise(std::vector<Kernel>& kernels, const std::string& name, Bytes traffic, std::int64_t count = 1) {
    for (std::int64_t i = 0; i < count; ++i) kernels.push_back(costs_.memory_bound(name, Bytes{traffic.count / count}));
  }

  void norm(const std::string& name) {
    Operator& op = add(name, Role::replicated);
    const std::int64_t elements = replicated() * model_.hidden;
    const bool composed = style_.norm_forward_passes > 2;
    elementwise(op.forward, name, passes(elements, style_.norm_forward_passes), composed ? 3 : 1);
    elementwise(op.input_gradient, name + " gradient", passes(elements, style_.norm_backward_passes), composed ? 4 : 1);
    op.saved = bytes(elements);
    op.output = bytes(elements);
    op.parameters = model_.norm == Model::Norm::layernorm && model_.bias ? 2 * model_.hidden : model_.hidden;
  }

  void linear(const std::string& name, Role role, std::int64_t outputs, std::int64_t inputs, bool bias,
              bool saved_selectively) {
    Operator& op = add(name, role);
    const std::int64_t tokens = shard_.tokens();
    // The head is never quantised to 8 bits.
    const Precision precision =
        name == "logits" && training_.precision == Precision::fp8 ? Precision::bf16 : training_.precision;
    if (precision == Precision::fp8) {
      // Inputs and gradients are cast as they come: read 16 bits, write 8, straight and transposed.
      op.forward.push_back(costs_.memory_bound(name + " cast", Bytes{tokens * inputs * 4}));
      op.input_gradient.push_back(costs_.memory_bound(name + " gradient cast", Bytes{tokens * outputs * 4}));
    }
    op.forward.push_back(costs_.gemm(name, {.m = tokens, .n = outputs, .k = inputs}, precision));
    op.input_gradient.push_back(
        costs_.gemm(name + " input gradient", {.m = tokens, .n = inputs, .k = outputs}, precision));
    op.weight_gradient.push_back(
        costs_.gemm(name + " weight gradient",
                    {.m = inputs, .n = outputs, .k = tokens, .output_bytes = style_.weight_gradient_bytes}, precision));
    const std::int64_t kept = role == Role::column_linear ? replicated() * inputs : tokens * inputs;
    op.saved = bytes(kept);
    op.output = bytes(role == Role::row_linear ? replicated() * outputs : tokens * outputs);
    op.output_saved_selectively = saved_selectively;
    op.parameters = inputs * outputs + (bias ? outputs : 0);
  }

  // The last `count` linears read what the one before them keeps already.
  void share_input(std::size_t count) {
    for (std::size_t i = layer_.operators.size() - count; i < layer_.operators.size(); ++i)
      layer_.operators[i].saved = {};
  }

  void rotary() {
    Operator& op = add("rotary", Role::local);
    const std::int64_t elements = shard_.tokens() * (model_.query_width() / shard_.tensor + kv_width());
    const std::int64_t count = style_.rope_passes > 2 ? 2 : 1;
    elementwise(op.forward, "rotary", passes(elements, style_.rope_passes), count);
    elementwise(op.input_gradient, "rotary gradient", passes(elements, style_.rope_passes), count);
  }

  void attention() {
    Operator& op = add("attention", Role::attention);
    op.core_attention = true;
    op.output_saved_selectively = true;
    const std::int64_t heads = model_.heads / shard_.tensor;
    const std::int64_t tokens = shard_.tokens();
    const AttentionShape shape{.batch = shard_.micro_batch,
                               .sequence = shard_.sequence,
                               .heads = heads,
                               .kv_heads = kv_width() / model_.head_dim,
                               .head_dim = model_.head_dim};
    // Queries, keys and values stay for backward in either form.
    const Bytes inputs = bytes(tokens * (heads * model_.head_dim + 2 * kv_width()));
    op.output = bytes(tokens * heads * model_.head_dim);
    if (training_.attention == AttentionKernel::flash) {
      op.forward.push_back(costs_.flash_forward("attention", shape, training_.precision));
      op.input_gradient.push_back(costs_.flash_backward("attention gradient", shape, training_.precision));
      op.scores = Bytes{4 * tokens * heads};  // the log-sum-exp of every row
      op.saved = inputs + op.output + op.scores;
      return;
    }
    unfused_attention(op, shape);
    const std::int64_t scores = shard_.micro_batch * heads * shard_.sequence * shard_.sequence;
    // Softmax output; with dropout also its result and a mask of one byte (Korthikanti et al., arXiv 2205.05198).
    const std::int64_t per_score = model_.dropout > 0 ? 2 * activation() + 1 : activation();
    op.scores = Bytes{scores * per_score};
    op.saved = inputs + op.output + op.scores;
  }

  // Scores go through memory: two batched products, a masked softmax and dropout between them.
  void unfused_attention(Operator& op, const AttentionShape& shape) {
    const std::int64_t batch = shape.batch * shape.heads;
    const Precision precision = training_.precision == Precision::fp8 ? Precision::bf16 : training_.precision;
    const Gemm scores{.m = shape.sequence, .n = shape.sequence, .k = shape.head_dim, .batch = batch};
    const Gemm values{.m = shape.sequence, .n = shape.head_dim, .k = shape.sequence, .batch = batch};
    const auto product = [&](const std::string& name, const Gemm& gemm) {
      Kernel kernel = costs_.gemm(name, gemm, precision);
      kernel.kind = sim::KernelClass::attention;
      // The kernel executes what the causal mask throws away; the model's FLOP count half.
      kernel.model_flops = {kernel.flops.count / 2};
      return kernel;
    };
    const auto pass = [&](const std::string& name, std::int64_t bytes_per_score) {
      const Bytes traffic = Bytes{batch * shape.sequence * shape.sequence} * bytes_per_score;
      return costs_.memory_bound(name, traffic, sim::KernelClass::attention);
    };
    const std::int64_t element = activation();
    op.forward.push_back(product("attention scores", scores));
    op.forward.push_back(pass("masked softmax", 2 * element));
    if (model_.dropout > 0) op.forward.push_back(pass("attention dropout", 2 * element + 1));
    op.forward.push_back(product("attention values", values));
    // Heads are put back beside each other, in a copy each way.
    const Kernel transpose =
        costs_.memory_bound("join heads", bytes(shape.batch * shape.sequence * shape.heads * shape.head_dim) * 2);
    op.forward.push_back(transpose);
    op.input_gradient.push_back(transpose);
    op.input_gradient.push_back(product("attention values gradient", scores));
    op.input_gradient.push_back(product("value gradient", values));
    if (model_.dropout > 0) op.input_gradient.push_back(pass("attention dropout gradient", 2 * element + 1));
    op.input_gradient.push_back(pass("masked softmax gradient", 3 * element));
    op.input_gradient.push_back(product("query gradient", values));
    op.input_gradient.push_back(product("key gradient", values));
  }

  void activation(std::int64_t ffn) {
    Operator& op = add(model_.gated() ? "swiglu" : "gelu", Role::local);
    const std::int64_t elements = shard_.tokens() * ffn;
    const double forward = (model_.gated() ? 3 : 2) * style_.activation_forward_scale;
    const double backward = (model_.gated() ? 5 : 3) * style_.activation_backward_scale;
    const std::int64_t count = model_.gated() && style_.activation_forward_scale > 1 ? 2 : 1;
    elementwise(op.forward, op.name, passes(elements, forward), count);
    elementwise(op.input_gradient, op.name + " gradient", passes(elements, backward), count);
    op.saved = bytes((model_.gated() ? 2 : 1) * elements);
    op.output = bytes(elements);
  }

  // Bias, dropout and residual in one pass; backward scales by the mask and adds the two gradients.
  void residual(const std::string& name) {
    Operator& op = add(name, Role::replicated);
    const std::int64_t elements = replicated() * model_.hidden;
    const Bytes mask = model_.dropout > 0 ? Bytes{elements} : Bytes{};
    op.forward.push_back(costs_.memory_bound(name, bytes(elements) * 3 + mask));
    op.input_gradient.push_back(
        costs_.memory_bound(name + " gradient", bytes(elements) * (model_.dropout > 0 ? 5 : 3) + mask));
    op.saved = mask;
    op.output = bytes(elements);
  }

  const Model& model_;
  const Training& training_;
  const Shard& shard_;
  const KernelStyle& style_;
  const KernelCosts& costs_;
  Layer layer_;
};

}  // namespace

KernelStyle fused_style() { return {}; }

KernelStyle eager_style(const Model& model) {
  KernelStyle style;
  style.split_projections = model.gated();
  if (model.norm == Model::Norm::rmsnorm) {
    // Composed of cast, square, mean, scale: reads and writes the activations in 32 bits several times.
    style.norm_forward_passes = 9;
    style.norm_backward_passes = 16;
  }
  if (model.gated()) {
    style.activation_forward_scale = 5.0 / 3;   // silu: 2 passes, product: 3
    style.activation_backward_scale = 9.0 / 5;  // both gradients of the product: 6, of silu: 3
  }
  style.rope_passes = 6;           // cast to complex 32-bit numbers, multiply, cast back
  style.loss_forward_bytes = 14;   // cast to 32 bits: 2 + 4; log-softmax: 4 + 4
  style.loss_backward_bytes = 18;  // of the log-softmax: 4 + 4 + 4; cast back: 4 + 2
  return style;
}

Bytes Layer::saved_bytes(Recompute recompute, bool every_second_product) const {
  if (recompute == Recompute::full) return input;
  Bytes total{};
  if (recompute == Recompute::selective && every_second_product) {
    total = input;
    for (const Operator& op : operators)
      if (op.output_saved_selectively) total += op.output;
    return total;
  }
  for (const Operator& op : operators) {
    // Queries, keys, values and the output stay; the scores do not.
    if (recompute == Recompute::selective) total += -op.scores;
    total += op.saved;
  }
  return total;
}

Expansion expand(const Model& model, const Training& training, const Shard& shard, std::int64_t vocab,
                 const KernelStyle& style, const KernelCosts& costs) {
  Expansion expansion;
  expansion.layer = LayerBuilder(model, training, shard, style, costs).decoder();
  expansion.embedding = LayerBuilder(model, training, shard, style, costs).embedding(vocab);
  expansion.head = LayerBuilder(model, training, shard, style, costs).head(vocab);
  expansion.boundary = Bytes{shard.tokens() * model.hidden * activation_bytes(training.precision)};
  return expansion;
}

std::vector<Kernel> optimizer_kernels(const StateBytes& state, std::int64_t parameters, const KernelCosts& costs) {
  const Bytes gradients{parameters * state.gradient};
  const auto kernel = [&](const char* name, Bytes traffic) {
    return costs.memory_bound(name, traffic, sim::KernelClass::optimizer);
  };
  return {kernel("gradient norm", gradients), kernel("clip gradients", gradients * 2),
          kernel("optimizer", Bytes{parameters} * optimizer_traffic(state))};
}

}  // namespace trainyard::workloads
