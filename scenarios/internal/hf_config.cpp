#include "scenarios/internal/hf_config.hpp"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

namespace trainyard::scenarios {
namespace {

constexpr std::array<std::string_view, 4> model_types{"llama", "mistral", "qwen2", "gpt2"};
constexpr std::array<std::string_view, 4> class_names{"Llama", "Mistral", "Qwen2", "GPT2"};

// A field of the file and the key of `model` that means the same.
struct Dimension {
  std::string_view field;
  std::string_view key;
  bool required = true;
};

constexpr std::array<Dimension, 8> llama_dimensions{{{"hidden_size", "hidden"},
                                                     {"num_hidden_layers", "layers"},
                                                     {"num_attention_heads", "heads"},
                                                     {"intermediate_size", "ffn_hidden"},
                                                     {"vocab_size", "vocab"},
                                                     {"max_position_embeddings", "positions", false},
                                                     {"num_key_value_heads", "kv_heads", false},
                                                     {"head_dim", "head_dim", false}}};
constexpr std::array<Dimension, 6> gpt2_dimensions{{{"n_embd", "hidden"},
                                                    {"n_layer", "layers"},
                                                    {"n_head", "heads"},
                                                    {"vocab_size", "vocab"},
                                                    {"n_positions", "positions"},
                                                    {"n_inner", "ffn_hidden", false}}};
// Names under which transformers also knows the fields of gpt2; old files have n_ctx beside n_positions.
constexpr std::array<std::array<std::string_view, 2>, 5> gpt2_synonyms{{{"hidden_size", "n_embd"},
                                                                        {"num_hidden_layers", "n_layer"},
                                                                        {"num_attention_heads", "n_head"},
                                                                        {"max_position_embeddings", "n_positions"},
                                                                        {"n_ctx", "n_positions"}}};

// What is not a dimension, with the defaults of transformers' LlamaConfig and GPT2Config.
struct Switches {
  bool tied = false;
  bool attention_bias = false;
  bool mlp_bias = false;
  double attention_dropout = 0;
  double residual_dropout = 0.1;
  double embedding_dropout = 0.1;
  std::optional<bool> use_sliding_window;
  std::optional<std::int64_t> sliding_window;
  std::int64_t experts = 0;
  std::int64_t local_experts = 0;
  bool cross_attention = false;
  std::string name;
};

std::vector<sim::Key> switch_keys(Switches& switches, bool gpt2) {
  std::vector<sim::Key> keys{
      {.name = "tie_word_embeddings", .target = &switches.tied, .help = ""},
      {.name = "_name_or_path", .target = &switches.name, .help = ""},
      {.name = "num_experts", .target = &switches.experts, .help = ""},
      {.name = "num_local_experts", .target = &switches.local_experts, .help = ""},
  };
  const std::vector<sim::Key> more =
      gpt2 ? std::vector<sim::Key>{{.name = "attn_pdrop", .target = &switches.attention_dropout, .help = "", .most = 1},
                                   {.name = "resid_pdrop", .target = &switches.residual_dropout, .help = "", .most = 1},
                                   {.name = "embd_pdrop", .target = &switches.embedding_dropout, .help = "", .most = 1},
                                   {.name = "add_cross_attention", .target = &switches.cross_attention, .help = ""}}
           : std::vector<sim::Key>{
                 {.name = "attention_bias", .target = &switches.attention_bias, .help = ""},
                 {.name = "mlp_bias", .target = &switches.mlp_bias, .help = ""},
                 {.name = "attention_dropout", .target = &switches.attention_dropout, .help = "", .most = 1},
                 {.name = "use_sliding_window", .target = &switches.use_sliding_window, .help = ""},
                 {.name = "sliding_window", .target = &switches.sliding_window, .help = ""}};
  keys.insert(keys.end(), more.begin(), more.end());
  return keys;
}

Switches read_switches(Reader& reader, const Value& config, std::span<const Dimension> dimensions, bool gpt2) {
  Switches switches;
  if (gpt2) switches.attention_dropout = 0.1;
  switches.tied = gpt2;
  std::vector<sim::Key> keys = switch_keys(switches, gpt2);
  std::vector<std::int64_t> numbers(dimensions.size());  // read for their type; the model reads them again
  for (std::size_t i = 0; i < dimensions.size(); ++i)
    keys.push_back({.name = dimensions[i].field,
                    .target = &numbers[i],
                    .help = "",
                    .required = dimensions[i].required,
                    .least = 1});
  reader.read(config, "", {.keys = keys, .foreign = true});
  return switches;
}

// With the names that the file uses.
std::vector<Dimension> dimensions_of(const Value& config, bool gpt2) {
  if (!gpt2) return {llama_dimensions.begin(), llama_dimensions.end()};
  const auto given = [&](std::string_view field) {
    const Value* value = config.find(field);
    return value != nullptr && !value->is_null();
  };
  std::vector<Dimension> dimensions{gpt2_dimensions.begin(), gpt2_dimensions.end()};
  for (const auto& [synonym, field] : gpt2_synonyms)
    for (Dimension& dimension : dimensions)
      if (dimension.field == field && !given(field) && given(synonym)) dimension.field = synonym;
  return dimensions;
}

void check_contradictions(Reader& reader, const Value& config, std::size_t type) {
  const Value* classes = config.find("architectures");
  if (classes != nullptr && classes->is_sequence()) {
    for (const Value& item : classes->items) {
      const std::string_view name = item.scalar;
      const std::string_view wanted = class_names[type];
      const std::string_view rest = name.substr(std::min(wanted.size(), name.size()));
      const bool same = name.starts_with(wanted) && (rest.starts_with("For") || rest.starts_with("LMHead") ||
                                                     rest.starts_with("Model") || rest.starts_with("DoubleHeads"));
      if (!same)
        reader.report(item.where, "architectures: '" + item.scalar + "' contradicts model_type '" +
                                      std::string{model_types[type]} + "'");
    }
  }
  if (model_types[type] != "gpt2") return;
  for (const auto& [synonym, field] : gpt2_synonyms) {
    const Value* other = config.find(synonym);
    const Value* value = config.find(field);
    if (other == nullptr || value == nullptr || other->is_null() || other->scalar == value->scalar) continue;
    reader.report(other->where, std::string{synonym} + ": " + describe(*other) + " contradicts " + std::string{field} +
                                    ", which is " + describe(*value));
  }
}

void check_support(Reader& reader, const Value& config, const Switches& switches) {
  if (switches.experts > 0 || switches.local_experts > 0) {
    const Value* experts = config.find(switches.experts > 0 ? "num_experts" : "num_local_experts");
    reader.report(experts->where, "mixture-of-experts models are not supported yet");
  }
  if (switches.cross_attention)
    reader.report(config.find("add_cross_attention")->where,
                  "add_cross_attention: encoder-decoder models are not "
                  "supported yet");
}

Value boolean(bool value, const Location& where) { return make_scalar(value ? "true" : "false", where); }

Value number(double value, const Location& where) { return make_scalar(std::to_string(value), where); }

void add_llama_switches(HfModel& model, const Switches& switches, std::string_view type, const Location& where) {
  const bool qwen2 = type == "qwen2";
  const bool all_biases = switches.attention_bias && switches.mlp_bias;
  set(model.value, "bias", boolean(all_biases, where));
  set(model.value, "qkv_bias", boolean(qwen2 || switches.attention_bias, where));
  set(model.value, "dropout", number(switches.attention_dropout, where));
  if (switches.attention_bias && !all_biases && !qwen2)
    model.warnings.emplace_back("the bias of the attention's output projection is left out");
  if (switches.mlp_bias && !all_biases)
    model.warnings.emplace_back("the biases of the feed-forward block are left out");
  const bool windowed = switches.use_sliding_window.value_or(type == "mistral");
  if (windowed && type != "llama") model.sliding_window = switches.sliding_window;
}

void add_gpt2_switches(HfModel& model, const Switches& switches, const Location& where) {
  const double dropout = std::max({switches.attention_dropout, switches.residual_dropout, switches.embedding_dropout});
  set(model.value, "dropout", number(dropout, where));
  const bool zero =
      switches.attention_dropout == 0 || switches.residual_dropout == 0 || switches.embedding_dropout == 0;
  if (zero && dropout > 0)
    model.warnings.emplace_back("dropout is on for part of the model only; it is simulated everywhere");
}

// A file is mostly called config.json; then the folder has the model's name.
std::string name_of(const Switches& switches, const std::filesystem::path& path) {
  if (!switches.name.empty()) return switches.name;
  const std::filesystem::path folder = path.parent_path().filename();
  return path.stem() == "config" && !folder.empty() ? folder.string() : path.stem().string();
}

std::optional<std::size_t> read_model_type(Reader& reader, const Value& config) {
  const Value* type = config.find("model_type");
  if (type == nullptr) {
    reader.report(config.where, "missing key 'model_type'");
    return std::nullopt;
  }
  const auto found = std::find(model_types.begin(), model_types.end(), type->scalar);
  if (found == model_types.end()) {
    reader.report(type->where, "model_type: expected " + listed(model_types) + ", got " + describe(*type) +
                                   nearest(type->scalar, model_types));
    return std::nullopt;
  }
  return static_cast<std::size_t>(found - model_types.begin());
}

}  // namespace

std::optional<HfModel> read_hf_config(Reader& reader, const std::filesystem::path& path) {
  const Value config = read_document(path);
  if (!config.is_map()) {
    reader.report(config.where, "expected the fields of a config.json, got " + describe(config));
    return std::nullopt;
  }
  const std::optional<std::size_t> type = read_model_type(reader, config);
  if (!type) return std::nullopt;
  const std::size_t before = reader.mistakes();
  const bool gpt2 = model_types[*type] == "gpt2";
  const std::vector<Dimension> dimensions = dimensions_of(config, gpt2);
  const Switches switches = read_switches(reader, config, dimensions, gpt2);
  check_contradictions(reader, config, *type);
  check_support(reader, config, switches);
  if (reader.mistakes() > before) return std::nullopt;

  HfModel model;
  model.value = make_map(config.where);
  set(model.value, "base", make_scalar(gpt2 ? "gpt" : "llama", config.where));
  set(model.value, "name", make_scalar(name_of(switches, path), config.where));
  set(model.value, "tied_embeddings", boolean(switches.tied, config.where));
  for (const Dimension& dimension : dimensions) {
    const Value* value = config.find(dimension.field);
    if (value != nullptr && !value->is_null()) set(model.value, dimension.key, *value);
  }
  if (gpt2)
    add_gpt2_switches(model, switches, config.where);
  else
    add_llama_switches(model, switches, model_types[*type], config.where);
  return model;
}

}  // namespace trainyard::scenarios
