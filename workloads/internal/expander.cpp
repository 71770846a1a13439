#include "workloads/internal/expander.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace trainyard::workloads {

using sim::Bytes;
using sim::Kernel;

namespace {

bool is_gated(Model::Activation kind) { return kind == Model::Activation::swiglu || kind == Model::Activation::geglu; }

}  // namespace

Layer Expander::layer(std::int64_t input_elements) {
  layer_.name = block_.name;
  const std::int64_t ranks = shard_.sequence_parallel ? shard_.tensor : 1;
  layer_.input = bytes(own_columns(shard_.micro_batch * input_elements) / (ranks * shard_.context));
  layer_.boundary = bytes(tokens() * own_columns(block_.width));
  for (const Operation& operation : block_.operations) {
    region_ = operation.region;
    shared_experts_ = operation.of_shared_experts;
    std::visit([&](const auto& work) { expand(operation, work); }, operation.work);
  }
  for (Operator& op : layer_.operators) {
    if (serving_ != nullptr) store_weights(op);
    layer_.parameters += op.parameters;
    layer_.trained += op.trained;
    layer_.frozen += op.frozen;
    if (op.of_experts) layer_.expert_trained += op.trained;
  }
  // Gradients of hidden activations come when most of the logits are gone: they add nothing to the peak.
  if (&block_ == &architecture_.head)
    for (Operator& op : layer_.operators) op.output = {};
  return std::move(layer_);
}

Bytes Expander::passes(std::int64_t elements, double count) const {
  return Bytes{static_cast<std::int64_t>(static_cast<double>(bytes(elements).count) * count)};
}

Operator& Expander::add(std::string name, Role role) {
  Operator& op = layer_.operators.emplace_back();
  op.name = std::move(name);
  op.role = role;
  op.region = region_;
  op.of_shared_experts = shared_experts_;
  return op;
}

void Expander::elementwise(std::vector<Kernel>& kernels, const std::string& name, Bytes traffic,
                           std::int64_t count) const {
  for (std::int64_t i = 0; i < count; ++i) append(kernels, costs_.memory_bound(name, Bytes{traffic.count / count}));
}

bool Expander::adapted(const Operation& operation, const LinearWork::Part& part) const {
  return frozen() && takes_adapters(operation.region) && training_.adapters->on(part.name);
}

Precision Expander::wide() const {
  for (const Precision precision : {Precision::tf32, Precision::fp32, Precision::bf16})
    if (costs_.supports(precision)) return precision;
  return Precision::fp16;
}

void Expander::expand(const Operation& operation, const NormWork& work) {
  Operator& op = add(operation.name, work.per_head ? Role::local : Role::replicated);
  const std::int64_t vectors = work.per_head ? tokens() * std::max<std::int64_t>(1, work.per_token / shard_.tensor)
                                             : replicated() * work.per_token;
  const std::int64_t elements = vectors * (work.per_head ? work.width : own_columns(work.width));
  const bool composed = style_.norm_forward_passes > 2;
  elementwise(op.forward, operation.name, passes(elements, style_.norm_forward_passes), composed ? 3 : 1);
  // Frozen weights have no gradient: neither their sums nor the second reading of the input.
  const double backward = style_.norm_backward_passes - (frozen() ? 2 : 0);
  elementwise(op.input_gradient, operation.name + " gradient", passes(elements, backward), composed ? 4 : 1);
  if (work.keeps_input) op.saved = bytes(elements);
  op.output = bytes(elements);
  op.parameters = work.offset ? 2 * work.width : work.width;
  if (on_grid() && !work.per_head) {
    add_vectors(op, work.offset ? 2 : 1, op.parameters);
    op.statistics = Bytes{4 * vectors};
  }
  op.trained = frozen() ? 0 : op.parameters;
  op.frozen = frozen() ? bytes(op.parameters) : Bytes{};
  if (!work.per_head) op.module = Module::layer_norm;
  made_by_ = op.module;
}

Expander::Product Expander::product_of(const Operation& operation, const LinearWork& work,
                                       std::vector<LinearWork::Part> parts) const {
  Product product;
  // Parts that run apart are called by their own names.
  product.name = parts.size() < work.parts.size() ? parts.front().name : operation.name;
  product.tokens = work.token_count > 0        ? shard_.micro_batch * work.token_count
                   : work.split == Split::none ? replicated()
                                               : tokens();
  product.inputs = work.split == Split::row || on_grid() ? work.inputs / shard_.tensor : work.inputs;
  for (const LinearWork::Part& part : parts)
    product.outputs += work.split == Split::column || on_grid() ? divided(part) : part.width;
  product.parts = std::move(parts);
  product.precision = training_.precision;
  // The head is never quantised to 8 bits, and routers choose in 32.
  if (work.in_16_bits && product.precision == Precision::fp8) product.precision = Precision::bf16;
  if (work.in_32_bits) product.precision = wide();
  return product;
}

void Expander::expand(const Operation& operation, const LinearWork& work) {
  outputs_divided_ = work.split == Split::column;
  input_kept_ = false;
  if (style_.split_projections && work.parts.size() > 1) {
    for (std::size_t i = 0; i < work.parts.size(); ++i)
      add_product(operation, work, product_of(operation, work, {work.parts[i]}), i == 0);
  } else {
    add_product(operation, work, product_of(operation, work, work.parts), true);
  }
  made_by_ = {};
  // The projections up from the narrow states can run again instead of keeping what they make.
  if (operation.name == "query up" || operation.name == "key value up")
    made_by_ = layer_.operators.back().module = Module::mla_up_projection;
}

// Inputs and gradients are cast as they come: read 16 bits, write 8, straight and transposed. A scale of the tensor at
// hand takes a reading of its own before, one remembered from earlier steps (delayed) none; blocks carry their scales
// along, in 32 bits per 128 values or 8 per 32.
void Expander::add_casts(Operator& op, const Product& product) const {
  if (product.precision != Precision::fp8) return;
  constexpr std::array<double, fp8_recipe_names.size()> bytes_per_value{4, 6, 6, 4 + 2 * 4.0 / 128, 4 + 2 * 1.0 / 32};
  // Of what is in 8 bits already, the transposed copy is left to make.
  constexpr double transposed = 2 + 2 * 4.0 / 128;
  const double per_value = bytes_per_value[static_cast<std::size_t>(training_.fp8_recipe)];
  const auto cast = [&](const std::string& name, std::int64_t values, bool arrives_cast) {
    const double bytes = arrives_cast ? transposed : per_value;
    return costs_.memory_bound(name, Bytes{static_cast<std::int64_t>(static_cast<double>(values) * bytes)});
  };
  append(op.forward, cast(product.name + " cast", product.tokens * product.inputs, product.input_arrives_cast));
  append(op.input_gradient,
         cast(product.name + " gradient cast", product.tokens * product.outputs, product.gradient_arrives_cast));
}

void Expander::add_product(const Operation& operation, const LinearWork& work, const Product& product, bool first) {
  if (on_grid()) return add_grid_product(work, product);
  const Role role = work.split == Split::column ? Role::column_linear
                    : work.split == Split::row  ? Role::row_linear
                                                : Role::replicated;
  Operator& op = add(product.name, role);
  op.parameters = (work.tied ? 0 : product.inputs * product.outputs) + (work.bias ? product.outputs : 0);
  const bool in_four_bits = quantized() && !work.in_32_bits;
  if (in_four_bits) add_dequantisation(op, product.name);
  // Joined products are split by views; backward joins the gradients in one copy.
  if (product.parts.size() > 2)
    append(op.input_gradient, costs_.memory_bound("join gradients", bytes(product.tokens * product.outputs) * 2));
  add_casts(op, product);
  if (serving_ != nullptr)
    add_stored_product(op, product, work.bias);
  else
    append(op.forward, costs_.gemm(product.name, {.m = product.tokens, .n = product.outputs, .k = product.inputs},
                                   product.precision));
  append(op.input_gradient,
         costs_.gemm(product.name + " input gradient", {.m = product.tokens, .n = product.inputs, .k = product.outputs},
                     product.precision));
  if (!frozen())
    append(op.weight_gradient, costs_.gemm(product.name + " weight gradient",
                                           {.m = product.inputs,
                                            .n = product.outputs,
                                            .k = product.tokens,
                                            .output_bytes = style_.weight_gradient_bytes},
                                           product.precision));
  const bool whole = work.token_count == 0;
  const bool keeps = std::ranges::any_of(product.parts, [&](const auto& part) { return adapted(operation, part); });
  // The attention keeps its output itself, but not the cast of it.
  const bool casts = style_.casts_saved && product.precision == Precision::fp8;
  if ((work.keeps_input || casts) && !input_kept_ && (!frozen() || keeps)) {
    input_kept_ = true;
    const bool kept_in_part = work.split == Split::column && whole && !shard_.keeps_gathered_inputs;
    const std::int64_t kept = (kept_in_part ? replicated() : product.tokens) * product.inputs;
    op.saved = casts ? Bytes{kept} : bytes(kept);
  }
  op.output = bytes((work.split == Split::row && whole ? replicated() : product.tokens) * product.outputs);
  op.divided = bytes(product.tokens * (work.split == Split::column ? product.inputs : product.outputs));
  op.shares_input = !first;
  op.output_saved_selectively = products_++ % 2 == 0;
  op.trained = frozen() ? 0 : op.parameters;
  if (frozen()) op.frozen = in_four_bits ? four_bit_bytes(op.parameters) : bytes(op.parameters);
  if (made_by_ && op.saved.count > 0) {
    op.input_of = made_by_;
    op.remade = op.saved;
  }
  if (keeps) add_adapters(op, work, product);
}

// Matrices are brought back to 16 bits each time that they are used.
void Expander::add_dequantisation(Operator& op, const std::string& name) const {
  const Bytes traffic = four_bit_bytes(op.parameters) + Bytes{2 * op.parameters};
  append(op.forward, costs_.memory_bound(name + " dequantise", traffic));
  append(op.input_gradient, costs_.memory_bound(name + " dequantise", traffic));
}

// Two thin products beside each adapted matrix: down to the rank, and up to the outputs, where they are added.
void Expander::add_adapters(Operator& op, const LinearWork& work, const Product& product) const {
  const std::int64_t rank = training_.adapters->rank;
  const Precision precision = product.precision == Precision::fp8 ? Precision::bf16 : product.precision;
  for (const LinearWork::Part& part : product.parts) {
    if (!training_.adapters->on(part.name)) continue;
    const std::int64_t outputs = work.split == Split::column ? divided(part) : part.width;
    const Gemm down{.m = product.tokens, .n = rank, .k = product.inputs};
    const Gemm up{.m = product.tokens, .n = outputs, .k = rank};
    const std::string name = part.name + " adapter";
    append(op.forward, costs_.gemm(name + " down", down, precision));
    append(op.forward, costs_.gemm(name + " up", up, precision));
    append(op.forward, costs_.memory_bound(name + " add", bytes(product.tokens * outputs) * 3));
    append(op.input_gradient, costs_.gemm(name + " up input gradient", {.m = up.m, .n = up.k, .k = up.n}, precision));
    append(op.input_gradient,
           costs_.gemm(name + " down input gradient", {.m = down.m, .n = down.k, .k = down.n}, precision));
    append(op.input_gradient, costs_.memory_bound(name + " add gradients", bytes(product.tokens * product.inputs) * 3));
    append(op.weight_gradient,
           costs_.gemm(name + " up weight gradient", {.m = rank, .n = outputs, .k = product.tokens}, precision));
    append(op.weight_gradient, costs_.gemm(name + " down weight gradient",
                                           {.m = product.inputs, .n = rank, .k = product.tokens}, precision));
    op.saved += bytes(product.tokens * rank);
    op.parameters += rank * (product.inputs + outputs);
    op.trained += rank * (product.inputs + outputs);
  }
}

void Expander::expand(const Operation& operation, const RotaryWork& work) {
  Operator& op = add(operation.name, Role::local);
  const std::int64_t width = work.query_width / shard_.tensor + std::max(work.kv_least, work.kv_width / shard_.tensor);
  const std::int64_t count = style_.rope_passes > 2 ? 2 : 1;
  elementwise(op.forward, operation.name, passes(tokens() * width, style_.rope_passes), count);
  elementwise(op.input_gradient, operation.name + " gradient", passes(tokens() * width, style_.rope_passes), count);
}

void Expander::add_activation(const std::string& name, Model::Activation kind, std::int64_t elements) {
  Operator& op = add(name, Role::local);
  const bool gated = is_gated(kind);
  const double forward = (gated ? 3 : 2) * style_.activation_forward_scale;
  const double backward = (gated ? 5 : 3) * style_.activation_backward_scale;
  const std::int64_t count = gated && style_.activation_forward_scale > 1 ? 2 : 1;
  elementwise(op.forward, name, passes(elements, forward), count);
  elementwise(op.input_gradient, name + " gradient", passes(elements, backward), count);
  op.saved = bytes((gated ? 2 : 1) * elements);
  op.output = bytes(elements);
}

void Expander::expand(const Operation& operation, const ActivationWork& work) {
  add_activation(operation.name, work.kind, tokens() * work.width / (outputs_divided_ ? shard_.tensor : 1));
  made_by_ = {};
}

// Bias, dropout and residual in one pass; backward scales by the mask and adds the two gradients.
void Expander::expand(const Operation& operation, const ResidualWork& work) {
  Operator& op = add(operation.name, Role::replicated);
  const std::int64_t elements = replicated() * own_columns(work.width);
  const bool drops = work.dropout && dropout();
  const Bytes mask = drops ? Bytes{elements} : Bytes{};
  append(op.forward, costs_.memory_bound(operation.name, bytes(elements) * 3 + mask));
  append(op.input_gradient,
         costs_.memory_bound(operation.name + " gradient", bytes(elements) * (drops ? 5 : 3) + mask));
  op.saved = mask;
  op.output = bytes(elements);
  made_by_ = {};
}

void Expander::expand(const Operation& operation, const LookupWork& work) {
  if (on_grid()) return expand_on_grid(operation, work);
  Operator& op = add(operation.name, Role::replicated);
  const std::int64_t rows = work.vocab / shard_.tensor;
  const Bytes output = bytes(tokens() * work.width);
  for (const std::int64_t added : work.added) op.parameters += added * work.width;
  op.parameters += rows * work.width;
  op.trained = frozen() ? 0 : op.parameters;
  op.frozen = frozen() ? bytes(op.parameters) : Bytes{};
  op.output = bytes(replicated() * work.width);
  if (work.vocab == 0) {  // rows of a small table are added to what is there
    append(op.forward, costs_.memory_bound(operation.name, output * 3));
    if (!frozen()) append(op.weight_gradient, costs_.memory_bound(operation.name + " gradient", output));
    return;
  }
  append(op.forward, costs_.memory_bound("embedding lookup", output * 2));
  const bool drops = work.dropout && dropout();
  if (drops) append(op.forward, costs_.memory_bound("embedding dropout", output * 2));
  // Backward adds rows into a gradient that is filled with zeros first.
  if (!frozen())
    append(op.weight_gradient,
           costs_.memory_bound("embedding gradient", output * 2 + Bytes{rows * work.width * element()}));
  op.saved = Bytes{8 * tokens()};  // token ids
  if (drops) op.saved += Bytes{replicated() * work.width};
  made_by_ = {};
}

// An implicit GEMM: rows are positions of the output, sums run over channels and the kernel's window.
void Expander::expand(const Operation& operation, const ConvolutionWork& work) {
  Operator& op = add(operation.name, Role::replicated);
  const std::int64_t positions = shard_.micro_batch * work.size * work.size;
  const std::int64_t in_positions = shard_.micro_batch * work.in_size * work.in_size;
  const std::int64_t window = work.kernel * work.kernel;
  const Precision precision = training_.precision == Precision::fp8 ? Precision::bf16 : training_.precision;
  append(op.forward, costs_.gemm(operation.name,
                                 {.m = positions,
                                  .n = work.out_channels,
                                  .k = work.in_channels * window,
                                  .input_elements = in_positions * work.in_channels},
                                 precision));
  // Images have no gradient.
  const bool images = &operation == &architecture_.embedding.operations.front();
  if (!images) {
    // As many products as forward, spread over the input's positions.
    const std::int64_t k = std::max<std::int64_t>(1, work.out_channels * window * positions / in_positions);
    append(
        op.input_gradient,
        costs_.gemm(operation.name + " input gradient",
                    {.m = in_positions, .n = work.in_channels, .k = k, .input_elements = positions * work.out_channels},
                    precision));
  }
  if (!frozen())
    append(op.weight_gradient, costs_.gemm(operation.name + " weight gradient",
                                           {.m = work.in_channels * window,
                                            .n = work.out_channels,
                                            .k = positions,
                                            .input_elements = in_positions * work.in_channels},
                                           precision));
  if (work.keeps_input) op.saved = bytes(in_positions * work.in_channels);
  op.output = bytes(positions * work.out_channels);
  op.output_saved_selectively = products_++ % 2 == 0;
  op.parameters = work.out_channels * work.in_channels * window + (work.bias ? work.out_channels : 0);
  op.trained = frozen() ? 0 : op.parameters;
  op.frozen = frozen() ? bytes(op.parameters) : Bytes{};
  made_by_ = {};
}

// Statistics take a reading of their own; backward sums, then writes. Unfused, addition and ReLU are passes of theirs.
void Expander::expand(const Operation& operation, const BatchNormWork& work) {
  Operator& op = add(operation.name, Role::replicated);
  const std::int64_t elements = shard_.micro_batch * work.channels * work.size * work.size;
  const double addition = work.addition ? (style_.fused_norm_relu ? 1 : 3) : 0;
  const double relu = work.relu && !style_.fused_norm_relu ? 2 : 0;
  const double relu_gradient = work.relu ? (style_.fused_norm_relu ? 1 : 3) : 0;
  append(op.forward, costs_.memory_bound(operation.name, passes(elements, 3)));
  if (addition > 0) append(op.forward, costs_.memory_bound(operation.name + " addition", passes(elements, addition)));
  if (relu > 0) append(op.forward, costs_.memory_bound(operation.name + " relu", passes(elements, relu)));
  if (relu_gradient > 0)
    append(op.input_gradient, costs_.memory_bound(operation.name + " relu gradient", passes(elements, relu_gradient)));
  append(op.input_gradient, costs_.memory_bound(operation.name + " gradient", passes(elements, 5)));
  op.saved = bytes(elements);
  op.output = bytes(elements);
  op.parameters = 2 * work.channels;
  op.trained = frozen() ? 0 : op.parameters;
  op.frozen = frozen() ? bytes(op.parameters) : Bytes{};
  made_by_ = {};
}

void Expander::expand(const Operation& operation, const PassWork& work) {
  Operator& op = add(operation.name, Role::replicated);
  const Bytes traffic = bytes(shard_.micro_batch * (work.read + work.written));
  append(op.forward, costs_.memory_bound(operation.name, traffic));
  append(op.input_gradient, costs_.memory_bound(operation.name + " gradient", traffic));
  op.saved = bytes(shard_.micro_batch * work.kept);
  op.output = bytes(shard_.micro_batch * work.written);
  made_by_ = {};
}

// The samples of all ranks look up this rank's tables, in 32 bits; rows that were looked up are updated at once, by
// row-wise Adagrad with one number of state per row (facebookresearch/dlrm).
void Expander::expand(const Operation& operation, const TablesWork& work) {
  Operator& op = add(operation.name, Role::exchange);
  const auto tables = static_cast<std::int64_t>(work.rows.size());
  const Bytes row{4 * work.width};
  const Bytes looked_up = row * (shard_.micro_batch * tables * work.pooling);
  const Bytes made = bytes(shard_.micro_batch * tables * work.width);
  append(op.forward, costs_.gather(operation.name, looked_up + made, row));
  append(op.weight_gradient, costs_.gather(operation.name + " update", looked_up * 2 + made, row));
  std::int64_t rows = 0;
  for (const std::int64_t count : work.rows) rows += count;
  op.parameters = (rows * work.width + shard_.table_ranks - 1) / shard_.table_ranks;
  op.frozen = Bytes{4 * op.parameters + 4 * ((rows + shard_.table_ranks - 1) / shard_.table_ranks)};
  op.saved = Bytes{8 * shard_.micro_batch * tables * work.pooling};  // indices
  op.output = made;
  op.exchanged = made;
  made_by_ = {};
}

void Expander::expand(const Operation& operation, const InteractionWork& work) {
  Operator& op = add(operation.name, Role::replicated);
  const Gemm forward{.m = work.vectors, .n = work.vectors, .k = work.width, .batch = shard_.micro_batch};
  const Gemm backward{.m = work.vectors, .n = work.width, .k = work.vectors, .batch = shard_.micro_batch};
  op.awaits_exchange = true;
  op.exchanged = bytes(shard_.micro_batch * (work.vectors - 1) * work.width);
  append(op.forward, costs_.gemm(operation.name, forward, training_.precision));
  append(op.input_gradient, costs_.gemm(operation.name + " gradient", backward, training_.precision));
  append(op.input_gradient, costs_.gemm(operation.name + " gradient", backward, training_.precision));
  op.saved = bytes(shard_.micro_batch * work.vectors * work.width);
  op.output = bytes(shard_.micro_batch * work.vectors * work.vectors);
  made_by_ = {};
}

void Expander::expand(const Operation& operation, const LossWork& work) {
  Operator& op = add(operation.name, Role::local);
  const std::int64_t rows = work.token_count > 0 ? shard_.micro_batch * work.token_count : tokens();
  const std::int64_t columns = outputs_divided_ ? work.classes / shard_.tensor : work.classes;
  const auto logits = static_cast<double>(rows) * static_cast<double>(columns);
  const auto traffic = [&](double bytes_per_logit) {
    return Bytes{static_cast<std::int64_t>(logits * bytes_per_logit)};
  };
  append(op.forward, costs_.memory_bound("cross entropy", traffic(style_.loss_forward_bytes)));
  append(op.input_gradient, costs_.memory_bound("cross entropy gradient", traffic(style_.loss_backward_bytes)));
  op.saved = traffic(style_.logits_bytes);
  made_by_ = {};
}

}  // namespace trainyard::workloads
