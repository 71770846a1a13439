// The keys under `model`: which of them a structure has, what follows from others, and what contradicts itself.
#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/internal/entries.hpp"

namespace trainyard::scenarios {
namespace {

using workloads::Model;
using Structure = Model::Structure;

// Sets of structures.
using Structures = std::uint32_t;
constexpr Structures set_of(Structure structure) { return 1U << static_cast<unsigned>(structure); }
constexpr Structures decoders = set_of(Structure::decoder);
constexpr Structures encoders = set_of(Structure::encoder);
constexpr Structures pairs = set_of(Structure::encoder_decoder);
constexpr Structures visions = set_of(Structure::vision);
constexpr Structures convolutions = set_of(Structure::convolution);
constexpr Structures recommenders = set_of(Structure::recommendation);
constexpr Structures texts = decoders | encoders | pairs;
constexpr Structures transformers = texts | visions;
constexpr Structures images = visions | convolutions;
constexpr Structures all = transformers | convolutions | recommenders;

constexpr std::array<std::string_view, 6> structure_names{"decoder", "encoder",     "encoder-decoder",
                                                          "vision",  "convolution", "recommendation"};

// Far beyond any model; counts of bytes and FLOP must still fit 64 bits.
constexpr double most_parameters = 1e15;
constexpr std::size_t most_stages = 8;

// As they are written, where relations between keys say what they come to.
struct ModelKeys {
  sim::Choice family{.value = "",
                     .choices = {"gpt", "llama", "mixtral", "qwen3-moe", "deepseek-v3", "gpt-oss", "nemotron", "bert",
                                 "t5", "vit", "resnet", "dlrm"}};
  sim::Choice structure{.value = "decoder", .choices = {structure_names.begin(), structure_names.end()}};
  sim::Choice activation{.value = "", .choices = {"gelu", "swiglu", "geglu", "relu", "squared-relu"}};
  sim::Choice norm{.value = "", .choices = {"layernorm", "rmsnorm"}};
  sim::Choice position_embedding{.value = "", .choices = {"learned", "rope", "relative", "none"}};
  std::optional<bool> qkv_bias;
  std::optional<bool> output_bias;
  std::optional<bool> ffn_bias;
  std::optional<bool> norm_bias;
  std::optional<bool> separate_projections;
  std::optional<std::int64_t> ffn_hidden;
  std::optional<std::int64_t> kv_heads;
  std::optional<std::int64_t> head_dim;
  std::optional<std::int64_t> decoder_layers;
  std::int64_t q_rank = 0;
  std::optional<std::int64_t> kv_rank;
  std::optional<std::int64_t> nope_head_dim;
  std::optional<std::int64_t> rope_head_dim;
  std::optional<std::int64_t> v_head_dim;
  Model::Experts experts;
  std::optional<std::int64_t> expert_count;
  std::optional<std::int64_t> top_k;
};

// A key, the structures that have it, and those that need it.
struct ModelKey {
  sim::Key key;
  Structures in = all;
  Structures needed_by = 0;
};

ModelKey word(std::string_view name, sim::Key::Target target, Structures in, Structures needed_by = 0) {
  return {.key = {.name = name, .target = target, .help = ""}, .in = in, .needed_by = needed_by};
}

ModelKey number(std::string_view name, sim::Key::Target target, double most, Structures in, Structures needed_by = 0,
                double least = 1) {
  return {.key = {.name = name, .target = target, .help = "", .least = least, .most = most},
          .in = in,
          .needed_by = needed_by};
}

// A number of which 0 says that the model has no such thing.
ModelKey count(std::string_view name, sim::Key::Target target, double most, Structures in) {
  return number(name, target, most, in, 0, 0);
}

std::vector<ModelKey> keys_of(ModelKeys& keys, Model& model) {
  return {
      word("name", &model.name, all),
      word("description", &model.description, all),
      word("family", &keys.family, all, all),
      word("structure", &keys.structure, all),
      word("activation", &keys.activation, transformers, transformers),
      word("norm", &keys.norm, transformers, transformers),
      word("position_embedding", &keys.position_embedding, texts, texts),
      word("tied_embeddings", &model.tied_embeddings, texts, texts),
      word("bias", &model.bias, transformers, transformers),
      word("qkv_bias", &keys.qkv_bias, transformers),
      word("output_bias", &keys.output_bias, transformers),
      word("ffn_bias", &keys.ffn_bias, transformers),
      word("norm_bias", &keys.norm_bias, transformers),
      word("separate_projections", &keys.separate_projections, transformers),
      word("parallel_residual", &model.parallel_residual, decoders),
      word("post_norm", &model.post_norm, encoders),
      word("qk_norm", &model.qk_norm, transformers),
      count("dropout", &model.dropout, 0.99, transformers),
      number("layers", &model.layers, 1e5, transformers, transformers),
      number("hidden", &model.hidden, 1e6, transformers | recommenders, transformers | recommenders),
      number("ffn_hidden", &keys.ffn_hidden, 1e7, transformers),
      number("heads", &model.heads, 1e6, transformers, transformers),
      number("kv_heads", &keys.kv_heads, 1e6, transformers),
      number("head_dim", &keys.head_dim, 1e6, transformers),
      number("vocab", &model.vocab, 1e8, texts, texts),
      number("positions", &model.positions, 1e9, texts),
      count("sliding_window", &model.sliding_window, 1e9, decoders),
      count("full_attention_every", &model.full_attention_every, 1e5, decoders),
      count("mtp_layers", &model.mtp_layers, 1e3, decoders),
      count("q_rank", &keys.q_rank, 1e6, decoders),
      count("kv_rank", &keys.kv_rank, 1e6, decoders),
      number("nope_head_dim", &keys.nope_head_dim, 1e6, decoders),
      number("rope_head_dim", &keys.rope_head_dim, 1e6, decoders),
      number("v_head_dim", &keys.v_head_dim, 1e6, decoders),
      count("experts", &keys.expert_count, 1e6, decoders),
      number("top_k", &keys.top_k, 1e6, decoders),
      count("shared_ffn_hidden", &keys.experts.shared_hidden, 1e7, decoders),
      word("shared_gate", &keys.experts.shared_gate, decoders),
      word("router_bias", &keys.experts.router_bias, decoders),
      count("first_dense", &keys.experts.first_dense, 1e5, decoders),
      number("moe_every", &keys.experts.every, 1e5, decoders),
      count("dense_layers", &keys.experts.dense_layers, 1e5, decoders),
      count("dense_ffn_hidden", &keys.experts.dense_ffn_hidden, 1e7, decoders),
      count("segments", &model.segments, 1e6, encoders),
      word("pooler", &model.pooler, encoders),
      number("decoder_layers", &keys.decoder_layers, 1e5, pairs),
      count("relative_buckets", &model.relative_buckets, 1e6, pairs),
      count("decoder_sequence", &model.decoder_sequence, 1e9, pairs),
      number("image_size", &model.image_size, 65536, images, images),
      number("patch_size", &model.patch_size, 65536, visions, visions),
      number("channels", &model.channels, 65536, images),
      number("classes", &model.classes, 1e7, images, images),
      number("stage_blocks", &model.stage_blocks, 1e4, convolutions, convolutions),
      number("width", &model.width, 65536, convolutions, convolutions),
      number("tables", &model.tables, 1e12, recommenders, recommenders),
      number("pooling", &model.pooling, 1e6, recommenders),
      number("dense_features", &model.dense_features, 1e6, recommenders, recommenders),
      number("bottom_mlp", &model.bottom_mlp, 1e7, recommenders, recommenders),
      number("top_mlp", &model.top_mlp, 1e7, recommenders, recommenders),
  };
}

// Fills in what follows from other keys and reports contradictions; used when each key by itself is right.
class Completion {
 public:
  Completion(Reader& reader, const std::string& path, const ModelKeys& keys, Model& model)
      : reader_(reader), path_(path), keys_(keys), model_(model) {}

  void complete();

 private:
  void take_choices();
  void complete_transformer();
  void complete_latent_attention();
  void complete_experts();
  void check_experts(const Model::Experts& experts);
  void check_positions();
  void check_images();
  void check_recommendation();
  void check_size();

  void report(std::string_view key, const std::string& message) { reader_.report_at(join(path_, key), message); }
  void missing(std::string_view key, const std::string& why) {
    reader_.report(reader_.location_of(path_), "missing key '" + join(path_, key) + "', " + why);
  }
  void expect_at_most(std::string_view key, std::int64_t value, std::int64_t most, std::string_view of) {
    if (value > most)
      report(key,
             "expected at most " + std::to_string(most) + " " + std::string{of} + ", got " + std::to_string(value));
  }

  Reader& reader_;
  const std::string& path_;
  const ModelKeys& keys_;
  Model& model_;
};

void Completion::take_choices() {
  model_.family = keys_.family.value;
  model_.structure = chosen<Structure>(keys_.structure);
  if (!model_.transformer()) return;
  model_.activation = chosen<Model::Activation>(keys_.activation);
  model_.norm = chosen<Model::Norm>(keys_.norm);
  model_.position_embedding = chosen<Model::PositionEmbedding>(keys_.position_embedding);
  model_.qkv_bias = keys_.qkv_bias.value_or(model_.bias);
  model_.output_bias = keys_.output_bias.value_or(model_.bias);
  model_.ffn_bias = keys_.ffn_bias.value_or(model_.bias);
  model_.norm_bias = keys_.norm_bias.value_or(model_.bias);
  model_.separate_projections = keys_.separate_projections.value_or(model_.gated());
}

void Completion::complete_transformer() {
  model_.decoder_layers =
      keys_.decoder_layers.value_or(model_.structure == Structure::encoder_decoder ? model_.layers : 0);
  model_.kv_heads = keys_.kv_heads.value_or(model_.heads);
  model_.ffn_hidden = keys_.ffn_hidden.value_or(4 * model_.hidden);
  if (!keys_.ffn_hidden && model_.gated())
    missing("ffn_hidden", "which has no usual value where activation is " + keys_.activation.value);
  complete_latent_attention();
  if (!model_.latent_attention) {
    model_.head_dim = keys_.head_dim.value_or(model_.hidden / model_.heads);
    if (!keys_.head_dim && model_.hidden % model_.heads != 0)
      report("heads", "hidden " + std::to_string(model_.hidden) + " is no multiple of " + std::to_string(model_.heads) +
                          " heads; give 'head_dim'");
  }
  if (model_.heads % model_.kv_heads != 0)
    report("kv_heads",
           "expected a divisor of " + std::to_string(model_.heads) + " heads, got " + std::to_string(model_.kv_heads));
  if (model_.structure == Structure::encoder_decoder && model_.kv_heads != model_.heads)
    report("kv_heads",
           "fewer heads of keys and values than of queries are not supported in structure "
           "'encoder-decoder'");
  complete_experts();
  check_positions();
}

// `kv_rank` says whether there is any; a refinement may switch it off with 0.
void Completion::complete_latent_attention() {
  const bool others = keys_.nope_head_dim || keys_.rope_head_dim || keys_.v_head_dim || keys_.q_rank > 0;
  if (!keys_.kv_rank && others) missing("kv_rank", "which latent attention needs");
  if (keys_.kv_rank.value_or(0) == 0) return;
  const auto need = [&](std::string_view key, std::optional<std::int64_t> value) {
    if (!value) missing(key, "which latent attention (kv_rank) needs");
    return value.value_or(1);
  };
  const Model::LatentAttention latent{.q_rank = keys_.q_rank,
                                      .kv_rank = *keys_.kv_rank,
                                      .nope_head_dim = need("nope_head_dim", keys_.nope_head_dim),
                                      .rope_head_dim = need("rope_head_dim", keys_.rope_head_dim),
                                      .v_head_dim = need("v_head_dim", keys_.v_head_dim)};
  model_.latent_attention = latent;
  model_.head_dim = latent.nope_head_dim + latent.rope_head_dim;
  if (keys_.head_dim && *keys_.head_dim != model_.head_dim)
    report("head_dim", "expected nope_head_dim + rope_head_dim, " + std::to_string(model_.head_dim) + ", got " +
                           std::to_string(*keys_.head_dim));
  if (model_.kv_heads != model_.heads)
    report("kv_heads", "latent attention has keys and values for each of " + std::to_string(model_.heads) +
                           " heads, got " + std::to_string(model_.kv_heads));
  if (model_.sliding_window > 0) report("sliding_window", "latent attention with a window is not supported");
  if (model_.qk_norm) report("qk_norm", "latent attention has norms of its own");
}

void Completion::complete_experts() {
  const Model::Experts& given = keys_.experts;
  const bool others = keys_.top_k || given.shared_hidden > 0 || given.first_dense > 0 || !given.dense_layers.empty() ||
                      given.shared_gate || given.router_bias || given.every > 1 || given.dense_ffn_hidden > 0;
  if (!keys_.expert_count && others)
    report(keys_.top_k ? "top_k" : "experts", "a model without 'experts' has nothing to choose from");
  if (keys_.expert_count.value_or(0) == 0) return;
  Model::Experts experts = given;
  experts.count = *keys_.expert_count;
  experts.top_k = keys_.top_k.value_or(1);
  if (!keys_.top_k) missing("top_k", "which experts need");
  if (experts.dense_ffn_hidden == 0) experts.dense_ffn_hidden = model_.ffn_hidden;
  check_experts(experts);
  model_.experts = std::move(experts);
}

void Completion::check_experts(const Model::Experts& experts) {
  expect_at_most("top_k", experts.top_k, experts.count, "experts");
  expect_at_most("first_dense", experts.first_dense, model_.layers, "layers");
  expect_at_most("moe_every", experts.every, model_.layers, "layers");
  expect_at_most("dense_layers", static_cast<std::int64_t>(experts.dense_layers.size()), model_.layers, "layers");
  for (const std::int64_t layer : experts.dense_layers)
    if (layer >= model_.layers)
      return report("dense_layers", "there is no layer " + std::to_string(layer) + " among " +
                                        std::to_string(model_.layers) + ", counted from 0");
  if (experts.shared_gate && experts.shared_hidden == 0)
    report("shared_gate", "a gate needs shared experts ('shared_ffn_hidden')");
}

void Completion::check_positions() {
  const bool relative = model_.position_embedding == Model::PositionEmbedding::relative;
  if (relative && model_.structure != Structure::encoder_decoder)
    report("position_embedding", "'relative' is not supported in structure '" + keys_.structure.value + "'");
  else if (relative && model_.relative_buckets == 0)
    missing("relative_buckets", "which relative positions need");
}

void Completion::check_images() {
  if (model_.structure == Structure::vision && model_.image_size % model_.patch_size != 0)
    report("patch_size", "expected a divisor of image_size " + std::to_string(model_.image_size) + ", got " +
                             std::to_string(model_.patch_size));
  if (model_.structure != Structure::convolution) return;
  const std::size_t stages = model_.stage_blocks.size();
  if (stages == 0 || stages > most_stages)
    return report("stage_blocks",
                  "expected one to " + std::to_string(most_stages) + " stages, got " + std::to_string(stages));
  const std::int64_t least = std::int64_t{2} << stages;  // the stem halves twice, each further stage once
  if (model_.image_size < least)
    report("image_size", "expected at least " + std::to_string(least) + " for " + std::to_string(stages) +
                             " stages that halve it, got " + std::to_string(model_.image_size));
}

void Completion::check_recommendation() {
  const auto last = [&](std::string_view key, const std::vector<std::int64_t>& widths, std::int64_t expected,
                        const std::string& why) {
    if (widths.empty())
      report(key, "expected one width at least");
    else if (widths.back() != expected)
      report(key, "expected the last width to be " + std::to_string(expected) + ", " + why + ", got " +
                      std::to_string(widths.back()));
  };
  if (model_.tables.empty()) report("tables", "expected one table at least");
  last("bottom_mlp", model_.bottom_mlp, model_.hidden, "as hidden");
  last("top_mlp", model_.top_mlp, 1, "the logit");
}

// In floating point: what is too large here would not fit 64 bits.
void Completion::check_size() {
  const auto real = [](std::int64_t value) { return static_cast<double>(value); };
  const double hidden = real(model_.hidden);
  const double heads_width = real(model_.heads) * real(model_.head_dim + model_.value_dim());
  double layer = hidden * (2 * heads_width + 2 * real(model_.kv_width()));
  if (model_.latent_attention)
    layer += real(model_.latent_attention->q_rank + model_.latent_attention->kv_rank) * (2 * heads_width + hidden);
  double ffn = real(model_.ffn_hidden);
  if (model_.experts)
    ffn = ffn * real(model_.experts->count) + real(model_.experts->shared_hidden + model_.experts->dense_ffn_hidden);
  layer += hidden * real(model_.ffn_matrices()) * ffn;
  double sum = real(model_.layers + 2 * model_.decoder_layers + model_.mtp_layers) * layer;
  sum += 2 * real(model_.vocab + model_.positions + model_.segments + model_.classes) * hidden;
  sum += real(model_.channels) * real(model_.patch_size) * real(model_.patch_size) * hidden;
  double inner = real(model_.width);
  for (const std::int64_t blocks : model_.stage_blocks) {  // 1 + 3 x 3 + 1 products four times as wide outside
    sum += real(blocks) * 25 * inner * inner;
    inner *= 2;
  }
  for (const std::int64_t rows : model_.tables) sum += real(rows) * hidden;
  const auto add_perceptron = [&](double inputs, const std::vector<std::int64_t>& widths) {
    for (const std::int64_t width : widths) {
      sum += inputs * real(width);
      inputs = real(width);
    }
  };
  const double vectors = real(static_cast<std::int64_t>(model_.tables.size()) + 1);
  add_perceptron(real(model_.dense_features), model_.bottom_mlp);
  add_perceptron(vectors * vectors + hidden, model_.top_mlp);
  if (sum > most_parameters) reader_.report_at(path_, "the model has more than 10^15 parameters");
}

void Completion::complete() {
  take_choices();
  if (model_.transformer()) complete_transformer();
  check_images();
  if (model_.structure == Structure::recommendation) check_recommendation();
  check_size();
}

std::string names_of(Structures structures) {
  std::vector<std::string_view> names;
  for (std::size_t i = 0; i < structure_names.size(); ++i)
    if ((structures & (1U << i)) != 0) names.push_back(structure_names[i]);
  return listed(names);
}

// Of a model whose structure is known, the keys that it does not have are reported and left out.
std::vector<sim::Key> keys_of_structure(Reader& reader, const std::string& path, const ModelKeys& keys,
                                        const std::vector<ModelKey>& all_keys, Value& value) {
  const Value* given = value.find("structure");
  const auto& names = keys.structure.choices;
  const std::string name = given == nullptr ? keys.structure.value : given->scalar;
  const auto found = std::find(names.begin(), names.end(), name);
  const bool known = found != names.end() && !(value.partial && given == nullptr);
  const Structures structure = known ? 1U << static_cast<unsigned>(found - names.begin()) : all;
  std::vector<sim::Key> result;
  std::vector<std::string> senseless;
  for (const ModelKey& key : all_keys) {
    result.push_back(key.key);
    result.back().required = known && (key.needed_by & structure) != 0;
    if ((key.in & structure) != 0) continue;
    for (const Entry& entry : value.entries)
      if (entry.key.scalar == key.key.name) {
        reader.report(entry.key.where, join(path, key.key.name) + ": only structure " + names_of(key.in) +
                                           " has this, not '" + name + "'");
        senseless.push_back(entry.key.scalar);
      }
  }
  for (const std::string& key : senseless) remove(value, key);
  return result;
}

}  // namespace

ModelReading read_model(Reader& reader, const Catalog& catalog, const Value& value, const std::string& path) {
  ModelReading result;
  std::optional<Resolved> resolved = resolve(reader, catalog, EntryKind::model, value, path);
  if (!resolved) return result;
  result.warnings = std::move(resolved->warnings);
  result.model.name = resolved->name;
  ModelKeys model_keys;
  const Value* sources = nullptr;
  const std::array<Section, 1> sections{{{"sources", &sources}}};
  const std::size_t before = reader.mistakes();
  const std::vector<sim::Key> keys =
      keys_of_structure(reader, path, model_keys, keys_of(model_keys, result.model), resolved->value);
  reader.read(resolved->value, path, {.keys = keys, .sections = sections});
  if (reader.mistakes() == before && !resolved->value.partial)
    Completion(reader, path, model_keys, result.model).complete();
  return result;
}

}  // namespace trainyard::scenarios
