#include "scenarios/internal/training_entries.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "scenarios/internal/entries.hpp"
#include "scenarios/quantity.hpp"
#include "sim/ensure.hpp"

namespace trainyard::scenarios {
namespace {

// The words of `items`, each of which must be one of `names`; its place in the list.
std::vector<std::size_t> read_words(Reader& reader, const Value& value, const std::string& path,
                                    std::span<const std::string_view> names) {
  std::vector<std::size_t> result;
  if (!value.is_sequence()) {
    reader.report(value.where, path + ": expected a list of " + listed(names) + ", got " + describe(value));
    return result;
  }
  for (const Value& item : value.items) {
    const auto found = std::find(names.begin(), names.end(), item.scalar);
    if (found == names.end())
      reader.report(item.where,
                    path + ": expected " + listed(names) + ", got " + describe(item) + nearest(item.scalar, names));
    else
      result.push_back(static_cast<std::size_t>(found - names.begin()));
  }
  return result;
}

// A word, or {every: layers}, or {modules: [...]}.
void read_recompute(Reader& reader, const Value& value, workloads::Training& training) {
  using Kind = workloads::Recompute::Kind;
  constexpr std::array<std::string_view, 4> words{"none", "selective", "full", "auto"};
  workloads::Recompute& recompute = training.recompute;
  const std::string path = "training.recompute";
  if (value.is_scalar()) {
    const auto found = std::find(words.begin(), words.end(), value.scalar);
    if (found == words.end())
      return reader.report(value.where, path + ": expected " + listed(words) + ", got " + describe(value) +
                                            nearest(value.scalar, words));
    training.automatic_recompute = value.scalar == "auto";
    recompute.kind = training.automatic_recompute ? Kind::none : static_cast<Kind>(found - words.begin());
    return;
  }
  std::optional<std::int64_t> every;
  const Value* modules = nullptr;
  const std::vector<sim::Key> keys{{.name = "every", .target = &every, .help = "", .least = 1, .most = 1e5}};
  const std::array<Section, 1> sections{{{"modules", &modules}}};
  const std::size_t before = reader.mistakes();
  reader.read(value, path, {.keys = keys, .sections = sections});
  if (reader.mistakes() > before) return;
  if (every.has_value() == (modules != nullptr))
    return reader.report(
        value.where, path + ": expected " + listed(words) + ", either {every: layers} or {modules: [core_attn, mlp]}");
  if (modules != nullptr && modules->is_sequence() && modules->items.empty())
    return reader.report(modules->where,
                         join(path, "modules") + ": expected one at least of " + listed(workloads::module_names));
  if (every) {
    recompute = {.kind = Kind::full, .every = *every, .modules = {}};
    return;
  }
  recompute.kind = Kind::modules;
  for (const std::size_t module : read_words(reader, *modules, join(path, "modules"), workloads::module_names))
    recompute.modules.push_back(static_cast<workloads::Module>(module));
}

// The names under which libraries know the matrices of a layer.
struct TargetName {
  std::string_view name;
  std::string_view part;
};
constexpr std::array<TargetName, 25> target_names{{
    {"query", "query"},      {"key", "key"},        {"value", "value"},      {"output", "output"},
    {"gate", "gate"},        {"up", "up"},          {"down", "down"},        {"q_proj", "query"},
    {"k_proj", "key"},       {"v_proj", "value"},   {"o_proj", "output"},    {"gate_proj", "gate"},
    {"up_proj", "up"},       {"down_proj", "down"}, {"c_attn", "query"},     {"c_attn", "key"},
    {"c_attn", "value"},     {"c_fc", "up"},        {"c_proj", "output"},    {"c_proj", "down"},
    {"linear_qkv", "query"}, {"linear_qkv", "key"}, {"linear_qkv", "value"}, {"linear_proj", "output"},
    {"linear_fc2", "down"},
}};

void read_targets(Reader& reader, const Value& value, const std::string& path, workloads::Adapters& adapters) {
  const auto means_all = [](const Value& word) { return word.scalar == "all-linear" || word.scalar == "all"; };
  if (value.is_scalar() && means_all(value)) return;
  if (value.is_sequence() && value.items.size() == 1 && means_all(value.items.front())) return;
  std::vector<std::string_view> names;
  for (const TargetName& target : target_names)
    if (names.empty() || names.back() != target.name) names.push_back(target.name);
  names.insert(names.end(), {"linear_fc1", "key_value", "query_down", "key_value_down"});
  for (const std::size_t word : read_words(reader, value, path, names)) {
    const std::string_view name = names[word];
    if (name == "linear_fc1") adapters.targets.insert(adapters.targets.end(), {"gate", "up"});
    bool known = name == "linear_fc1";
    for (const TargetName& target : target_names) {
      if (target.name != name) continue;
      adapters.targets.emplace_back(target.part);
      known = true;
    }
    if (!known) adapters.targets.emplace_back(name);
  }
  if (value.is_sequence() && value.items.empty())
    reader.report(value.where, path + ": expected one target at least; leave the key out for all linear layers");
}

// full, lora, qlora, or {lora: {rank: 16, targets: [...]}}.
void read_finetune(Reader& reader, const Value& value, workloads::Training& training) {
  constexpr std::array<std::string_view, 3> words{"full", "lora", "qlora"};
  const std::string path = "training.finetune";
  if (value.is_scalar()) {
    if (std::find(words.begin(), words.end(), value.scalar) == words.end())
      return reader.report(value.where, path + ": expected " + listed(words) + ", got " + describe(value) +
                                            nearest(value.scalar, words));
    if (value.scalar != "full") training.adapters = workloads::Adapters{.quantized = value.scalar == "qlora"};
    return;
  }
  const Value* lora = nullptr;
  const Value* qlora = nullptr;
  const std::array<Section, 2> sections{{{"lora", &lora}, {"qlora", &qlora}}};
  const std::size_t before = reader.mistakes();
  reader.read(value, path, {.sections = sections});
  if (reader.mistakes() > before) return;
  if ((lora == nullptr) == (qlora == nullptr))
    return reader.report(value.where, path + ": expected either 'lora' or 'qlora', such as {lora: {rank: 16}}");
  workloads::Adapters adapters{.quantized = qlora != nullptr};
  const Value& chosen_kind = qlora != nullptr ? *qlora : *lora;
  const std::string kind_path = join(path, qlora != nullptr ? "qlora" : "lora");
  if (!chosen_kind.is_null()) {
    const Value* targets = nullptr;
    const std::vector<sim::Key> keys{{.name = "rank", .target = &adapters.rank, .help = "", .least = 1, .most = 1e5}};
    const std::array<Section, 1> inner{{{"targets", &targets}}};
    reader.read(chosen_kind, kind_path, {.keys = keys, .sections = inner});
    if (targets != nullptr) read_targets(reader, *targets, join(kind_path, "targets"), adapters);
  }
  training.adapters = std::move(adapters);
}

void check_training(Reader& reader, const workloads::Training& training) {
  std::int64_t sum = 0;
  for (const std::int64_t document : training.documents) sum += document;
  const bool has_sequence = training.sequence > 0;  // that it should have one is said of the model
  if (has_sequence && training.documents.size() > 1 && sum != training.sequence)
    reader.report_at("training.documents", "the documents have " + std::to_string(sum) + " tokens, but the sequence " +
                                               std::to_string(training.sequence));
  if (has_sequence && training.documents.size() == 1 && sum > training.sequence)
    reader.report_at("training.documents", "a document of " + std::to_string(sum) +
                                               " tokens is longer than the sequence of " +
                                               std::to_string(training.sequence));
  if (training.routing.capacity_factor && (training.routing.dirichlet || training.routing.imbalance > 1))
    reader.report_at("training.capacity_factor",
                     "with a capacity every expert computes the same number of rows; give "
                     "either it or an imbalance");
  if (training.routing.dirichlet && training.routing.imbalance > 1)
    reader.report_at("training.expert_dirichlet", "expected either expert_imbalance or expert_dirichlet");
}

}  // namespace

void read_training(Reader& reader, const Value& value, workloads::Training& training) {
  const auto* const precision_names = workloads::precision_names.begin();
  sim::Choice precision{.value = "bf16",
                        .choices = {precision_names, precision_names + workloads::training_precisions}};
  sim::Choice recipe = choice_of(workloads::fp8_recipe_names, "tensorwise");
  sim::Choice optimizer = choice_of(workloads::optimizer_names, "adamw");
  sim::Choice attention = choice_of(workloads::attention_names, "");
  sim::Choice gradient_precision{.value = "", .choices = {"fp32", "fp16", "bf16"}};
  sim::Choice backend = choice_of(workloads::backend_names, "");
  std::optional<bool> compile;
  const Value* finetune = nullptr;
  const Value* recompute = nullptr;
  const std::vector<sim::Key> keys{
      {.name = "global_batch", .target = &training.global_batch, .help = "", .required = true, .least = 1, .most = 1e9},
      {.name = "micro_batch", .target = &training.micro_batch, .help = "", .least = 1, .most = 1e9},
      {.name = "sequence", .target = &training.sequence, .help = "", .least = 1, .most = 1e9},
      {.name = "documents", .target = &training.documents, .help = "", .least = 1, .most = 1e9},
      {.name = "precision", .target = &precision, .help = ""},
      {.name = "fp8_recipe", .target = &recipe, .help = ""},
      {.name = "optimizer", .target = &optimizer, .help = ""},
      {.name = "master_weights", .target = &training.master_weights, .help = ""},
      {.name = "attention", .target = &attention, .help = ""},
      {.name = "gradient_precision", .target = &gradient_precision, .help = ""},
      {.name = "compile", .target = &compile, .help = ""},
      {.name = "backend", .target = &backend, .help = ""},
      {.name = "activation_offload", .target = &training.activation_offload, .help = ""},
      {.name = "capacity_factor", .target = &training.routing.capacity_factor, .help = "", .least = 0.01, .most = 1e3},
      {.name = "expert_imbalance", .target = &training.routing.imbalance, .help = "", .least = 1, .most = 1e5},
      {.name = "expert_dirichlet", .target = &training.routing.dirichlet, .help = "", .least = 1e-3, .most = 1e9},
  };
  const std::array<Section, 2> sections{{{"finetune", &finetune}, {"recompute", &recompute}}};
  const std::array<Later, 1> later{{{"micro_batch", "auto", "give a number, or leave the key out"}}};
  const std::size_t before = reader.mistakes();
  reader.read(value, "training", {.keys = keys, .sections = sections, .later = later});
  if (finetune != nullptr) read_finetune(reader, *finetune, training);
  if (recompute != nullptr) read_recompute(reader, *recompute, training);
  training.precision = chosen<workloads::Precision>(precision);
  training.fp8_recipe = chosen<workloads::Fp8Recipe>(recipe);
  if (!backend.value.empty())
    training.backend = chosen<workloads::Backend>(backend);
  else if (compile)
    training.backend = *compile ? workloads::Backend::compiled : workloads::Backend::eager;
  if (compile && *compile != workloads::fuses_kernels(*training.backend))
    reader.report_at("training.compile", "contradicts training.backend: " + backend.value);
  training.optimizer = chosen<workloads::Optimizer>(optimizer);
  if (!attention.value.empty()) training.attention = chosen<workloads::AttentionKernel>(attention);
  const auto& names = workloads::precision_names;
  const auto* gradient = std::find(names.begin(), names.end(), gradient_precision.value);
  if (gradient != names.end())
    training.gradient_precision = static_cast<workloads::Precision>(gradient - names.begin());
  if (reader.mistakes() == before) check_training(reader, training);
}

void set_training(workloads::Training& training, std::string_view path, const Value& value) {
  Reader reader;
  if (path == "training.recompute")
    read_recompute(reader, value, training);
  else if (path == "training.micro_batch")
    training.micro_batch = parse_whole_number(value.scalar).value;
  else
    sim::ensure(false, "a search varies micro batch and recomputation, and no other key of the training");
  reader.throw_mistakes();
}

}  // namespace trainyard::scenarios
