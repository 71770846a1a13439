#include "scenarios/internal/hf_rules.hpp"

#include <algorithm>
#include <string>
#include <vector>

namespace trainyard::scenarios::hf {
namespace {

bool is_gelu(std::string_view name) {
  return name == "gelu" || name == "gelu_new" || name == "gelu_fast" || name == "gelu_pytorch_tanh";
}

}  // namespace

bool says(HfFile& file, std::string_view field, bool otherwise) { return file.flag(field).value_or(otherwise); }

void set_gated_activation(HfFile& file) {
  const std::string name = file.text("hidden_act").value_or("silu");
  if (name == "silu" || name == "swish")
    file.set_text("activation", "swiglu");
  else if (is_gelu(name))
    file.set_text("activation", "geglu");
  else
    file.report("hidden_act", "a gate of '" + name + "' is not supported; expected 'silu' or 'gelu'");
}

void set_plain_activation(HfFile& file, std::string_view field, std::string_view otherwise) {
  const std::string name = file.text(field).value_or(std::string{otherwise});
  if (is_gelu(name))
    file.set_text("activation", "gelu");
  else if (name == "relu")
    file.set_text("activation", "relu");
  else if (name == "relu2")
    file.set_text("activation", "squared-relu");
  else
    file.report(field, "'" + name + "' is not supported; expected 'gelu', 'relu' or 'relu2'");
}

void set_biases(HfFile& file, const Biases& biases) {
  file.set_flag("bias", biases.qkv && biases.output && biases.ffn);
  file.set_flag("qkv_bias", biases.qkv);
  file.set_flag("output_bias", biases.output);
  file.set_flag("ffn_bias", biases.ffn);
  file.set_flag("norm_bias", biases.norm);
}

void set_dropout(HfFile& file, std::initializer_list<std::string_view> fields, double otherwise) {
  double most = 0;
  double least = 1;
  for (const std::string_view field : fields) {
    const double dropout = file.share(field).value_or(otherwise);
    most = std::max(most, dropout);
    least = std::min(least, dropout);
  }
  file.set_share("dropout", most);
  if (most > 0 && least == 0) file.warn("dropout is on for part of the model only; it is simulated everywhere");
}

void set_tied(HfFile& file, bool otherwise) {
  file.set_flag("tied_embeddings", says(file, "tie_word_embeddings", otherwise));
}

void refuse(HfFile& file, std::string_view field, std::string_view what) {
  if (says(file, field, false)) file.report(field, std::string{what} + " not supported");
}

void check_at_most(HfFile& file, const HfField& field, const HfField& limit) {
  const auto number = file.model_number(field.key);
  const auto most = file.model_number(limit.key);
  if (number && most && *number > *most)
    file.report(field, "expected at most " + std::to_string(*most) + ", the " + std::string{file.name_of(limit)} +
                           ", got '" + std::to_string(*number) + "'");
}

void check_multiple(HfFile& file, const HfField& field, const HfField& divisor) {
  const auto number = file.model_number(field.key);
  const auto by = file.model_number(divisor.key);
  if (number && by && *number % *by != 0)
    file.report(divisor, std::string{file.name_of(field)} + ", which is '" + std::to_string(*number) +
                             "', is no multiple of '" + std::to_string(*by) + "'");
}

void check_heads(HfFile& file) {
  check_multiple(file, heads, kv_heads);
  if (!file.model_number("head_dim")) check_multiple(file, hidden, heads);
}

void set_window(HfFile& file, std::int64_t window, std::int64_t every) {
  file.set_number("sliding_window", window);
  file.set_number("full_attention_every", every);
  const std::vector<Value>* types = file.list("layer_types");
  if (types == nullptr) return;
  std::vector<bool> full;
  for (const Value& type : *types) {
    if (type.scalar != "full_attention" && type.scalar != "sliding_attention")
      return file.report("layer_types", describe(type) +
                                            " is not supported; expected 'full_attention' or "
                                            "'sliding_attention'");
    full.push_back(type.scalar == "full_attention");
  }
  const std::int64_t count = file.model_number("layers").value_or(static_cast<std::int64_t>(full.size()));
  if (static_cast<std::int64_t>(full.size()) != count)
    return file.report("layer_types", "expected one for each of " + std::to_string(count) + " layers, got " +
                                          std::to_string(full.size()));
  const auto first = std::find(full.begin(), full.end(), true);
  const bool windowed = std::find(full.begin(), full.end(), false) != full.end();
  if (windowed && window == 0)
    return file.report("layer_types", "'sliding_attention' contradicts sliding_window, which is off");
  file.set_number("sliding_window", windowed ? window : 0);
  const std::size_t period = first == full.end() ? 0 : static_cast<std::size_t>(first - full.begin()) + 1;
  file.set_number("full_attention_every", windowed ? static_cast<std::int64_t>(period) : 0);
  for (std::size_t i = 0; windowed && period > 0 && i < full.size(); ++i)
    if (full[i] != ((i + 1) % period == 0))
      return file.report("layer_types", "only groups of layers of which the last one has full attention are supported");
}

std::int64_t window_or(HfFile& file, std::int64_t otherwise) {
  if (file.is_null("sliding_window")) return 0;
  return file.whole("sliding_window").value_or(otherwise);
}

void set_qwen_window(HfFile& file) {
  const bool on = says(file, "use_sliding_window", false);
  const std::int64_t count = file.model_number("layers").value_or(0);
  const std::int64_t without = file.whole("max_window_layers").value_or(28);
  const bool listed = file.find("layer_types") != nullptr;
  if (on && !listed && without > 0 && without < count)
    file.report("max_window_layers", "a window for the last layers alone is not supported");
  set_window(file, on && (listed || without < count) ? window_or(file, 4096) : 0);
}

void set_expert_layers(HfFile& file) {
  const std::int64_t every = file.whole("decoder_sparse_step", 1).value_or(1);
  const std::int64_t count = file.model_number("layers").value_or(0);
  if (every > count && count > 0)
    file.report("decoder_sparse_step", "expected at most " + std::to_string(count) + ", the num_hidden_layers, got '" +
                                           std::to_string(every) + "'");
  file.set_number("moe_every", every);
  const std::vector<std::int64_t> dense = file.wholes("mlp_only_layers").value_or(std::vector<std::int64_t>{});
  for (const std::int64_t layer : dense)
    if (count > 0 && layer >= count)
      return file.report("mlp_only_layers", "there is no layer " + std::to_string(layer) + " among " +
                                                std::to_string(count) + ", counted from 0");
  file.set_numbers("dense_layers", dense);
  check_at_most(file, top_k, experts);
}

}  // namespace trainyard::scenarios::hf
