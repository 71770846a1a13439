#include "scenarios/scenario.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/cluster_entries.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/internal/entries.hpp"
#include "scenarios/internal/reader.hpp"

namespace trainyard::scenarios {
namespace {

using strategies::StrategyEntry;

// Frameworks of the scenario format; those without a strategy are refused as coming later, not as unknown.
constexpr std::array<std::string_view, 8> framework_names{"pytorch-ddp", "pytorch-fsdp", "deepspeed",  "megatron-lm",
                                                          "colossal-ai", "maxtext",      "tensorflow", "keras"};

struct Parts {
  const Value* cluster = nullptr;
  const Value* model = nullptr;
  const Value* training = nullptr;
  const Value* strategy = nullptr;
};

Parts read_top(Reader& reader, const Value& root, Scenario& scenario) {
  Parts parts;
  sim::Choice workload{.value = "training", .choices = {"training"}};
  const std::vector<sim::Key> keys{
      {.name = "name", .target = &scenario.name, .help = ""},
      {.name = "seed", .target = &scenario.seed, .help = ""},
      {.name = "workload", .target = &workload, .help = ""},
  };
  const std::array<Section, 4> sections{{{"cluster", &parts.cluster, true},
                                         {"model", &parts.model, true},
                                         {"training", &parts.training, true},
                                         {"strategy", &parts.strategy, true}}};
  const std::array<Later, 5> later{{{"workload", "inference"}, {"inference"}, {"reliability"}, {"cost"}, {"run"}}};
  reader.read(root, "", {.keys = keys, .sections = sections, .later = later});
  return parts;
}

void check_finetune(Reader& reader, const Value* finetune) {
  if (finetune == nullptr || (finetune->is_scalar() && finetune->scalar == "full")) return;
  const bool lora = finetune->is_scalar() ? finetune->scalar == "lora" || finetune->scalar == "qlora"
                                          : finetune->find("lora") != nullptr || finetune->find("qlora") != nullptr;
  reader.report_at("training.finetune", lora ? "low-rank adapters are not supported yet; choose 'full'"
                                             : "expected 'full', got " + describe(*finetune));
}

// The words of `training`; each list is in the order of its enumeration.
struct TrainingChoices {
  sim::Choice precision{.value = "bf16",
                        .choices = {workloads::precision_names.begin(), workloads::precision_names.end()}};
  sim::Choice optimizer{.value = "adamw",
                        .choices = {workloads::optimizer_names.begin(), workloads::optimizer_names.end()}};
  sim::Choice recompute{.value = "none",
                        .choices = {workloads::recompute_names.begin(), workloads::recompute_names.end()}};
  sim::Choice attention{.value = "flash", .choices = {"flash", "unfused"}};
  sim::Choice gradient_precision{.value = "", .choices = {"fp32", "fp16", "bf16"}};
};

std::size_t index_of(const sim::Choice& choice) {
  return static_cast<std::size_t>(std::find(choice.choices.begin(), choice.choices.end(), choice.value) -
                                  choice.choices.begin());
}

void read_training(Reader& reader, const Value& value, workloads::Training& training) {
  TrainingChoices choices;
  const Value* finetune = nullptr;
  const std::vector<sim::Key> keys{
      {.name = "global_batch", .target = &training.global_batch, .help = "", .required = true, .least = 1, .most = 1e9},
      {.name = "micro_batch", .target = &training.micro_batch, .help = "", .least = 1, .most = 1e9},
      {.name = "sequence", .target = &training.sequence, .help = "", .required = true, .least = 1, .most = 1e9},
      {.name = "precision", .target = &choices.precision, .help = ""},
      {.name = "optimizer", .target = &choices.optimizer, .help = ""},
      {.name = "recompute", .target = &choices.recompute, .help = ""},
      {.name = "attention", .target = &choices.attention, .help = ""},
      {.name = "gradient_precision", .target = &choices.gradient_precision, .help = ""},
      {.name = "compile", .target = &training.compile, .help = ""},
  };
  const std::array<Section, 1> sections{{{"finetune", &finetune}}};
  const std::array<Later, 6> later{{{"optimizer", "adafactor"},
                                    {"optimizer", "adam8bit"},
                                    {"optimizer", "lamb"},
                                    {"recompute", "auto"},
                                    {"micro_batch", "auto", "give a number, or leave the key out"},
                                    {"fp8_recipe", "", "leave the key out"}}};
  reader.read(value, "training", {.keys = keys, .sections = sections, .later = later});
  check_finetune(reader, finetune);
  training.precision = static_cast<workloads::Precision>(index_of(choices.precision));
  training.optimizer = static_cast<workloads::Optimizer>(index_of(choices.optimizer));
  training.recompute = static_cast<workloads::Recompute>(index_of(choices.recompute));
  training.attention = static_cast<workloads::AttentionKernel>(index_of(choices.attention));
  const auto& names = workloads::precision_names;
  const auto* gradient = std::find(names.begin(), names.end(), choices.gradient_precision.value);
  if (gradient != names.end())
    training.gradient_precision = static_cast<workloads::Precision>(gradient - names.begin());
}

const StrategyEntry* find_framework(Reader& reader, const Value& name, std::span<const StrategyEntry> frameworks) {
  const auto found = std::find_if(frameworks.begin(), frameworks.end(),
                                  [&](const StrategyEntry& entry) { return entry.name == name.scalar; });
  if (found != frameworks.end()) return &*found;
  std::vector<std::string_view> names;
  for (const StrategyEntry& entry : frameworks) names.push_back(entry.name);
  const bool planned = std::find(framework_names.begin(), framework_names.end(), name.scalar) != framework_names.end();
  reader.report(name.where,
                "strategy.framework: " +
                    (planned ? describe(name) + " is not supported yet; choose " + listed(names)
                             : "expected " + listed(names) + ", got " + describe(name) + nearest(name.scalar, names)));
  return nullptr;
}

// The framework decides which other keys there are.
void read_strategy(Reader& reader, const Value& value, std::span<const StrategyEntry> frameworks, Scenario& scenario) {
  std::vector<sim::Key> keys{{.name = "framework", .target = &scenario.framework, .help = "", .required = true}};
  const Value* name = value.is_map() ? value.find("framework") : nullptr;
  if (name == nullptr || !name->is_scalar()) return reader.read(value, "strategy", {.keys = keys, .foreign = true});
  const StrategyEntry* entry = find_framework(reader, *name, frameworks);
  if (entry == nullptr) return;
  scenario.strategy = entry->make();
  const std::vector<sim::Key> options = scenario.strategy->keys();
  keys.insert(keys.end(), options.begin(), options.end());
  reader.read(value, "strategy", {.keys = keys});
}

void check_precision(Reader& reader, const Scenario& scenario) {
  const workloads::Accelerator& accelerator = scenario.accelerator;
  if (accelerator.supports(scenario.training.precision)) return;
  std::vector<std::string_view> supported;
  for (std::size_t i = 0; i < workloads::precisions; ++i)
    if (accelerator.peak[i].count > 0) supported.push_back(workloads::precision_names[i]);
  reader.report_at("training.precision", accelerator.name + " has no " +
                                             std::string{to_string(scenario.training.precision)} + "; choose " +
                                             listed(supported));
}

// Counts of FLOP must fit 64 bits with room for what a framework adds.
void check_size(Reader& reader, const Scenario& scenario) {
  constexpr double most_flops = 1e17;
  const workloads::Model& model = scenario.model;
  const workloads::Training& training = scenario.training;
  const auto sequence = static_cast<double>(training.sequence);
  const double batch = training.micro_batch
                           ? static_cast<double>(*training.micro_batch)
                           : static_cast<double>(training.global_batch) / static_cast<double>(scenario.devices);
  const double widest = std::max(static_cast<double>(workloads::layer_parameters(model)),
                                 static_cast<double>(model.vocab) * static_cast<double>(model.hidden));
  const double attention = 2 * static_cast<double>(model.query_width()) * sequence;
  if (6 * batch * sequence * (widest + attention) > most_flops)
    reader.report_at("training.sequence",
                     "a micro batch takes more than 10^17 FLOP in one layer; give a smaller "
                     "sequence or micro batch");
}

void check_positions(Reader& reader, Scenario& scenario) {
  workloads::Model& model = scenario.model;
  const std::int64_t sequence = scenario.training.sequence;
  if (model.positions == 0) model.positions = sequence;
  if (model.positions >= sequence) return;
  const std::string tokens = std::to_string(sequence) + " tokens are more than the ";
  const std::string positions = std::to_string(model.positions);
  if (model.position_embedding == workloads::Model::PositionEmbedding::learned)
    reader.report_at("training.sequence", tokens + positions + " learned positions of " + model.name);
  else
    scenario.warnings.push_back("training.sequence: " + tokens + positions + " of the context of " + model.name);
}

// What the framework says of the whole; only asked when everything else is right.
void check_job(Reader& reader, Scenario& scenario) {
  const topology::Cluster cluster = make_cluster(scenario);
  const strategies::Job job{
      .model = scenario.model, .training = scenario.training, .accelerator = scenario.accelerator, .cluster = cluster};
  try {
    for (const strategies::Problem& problem : scenario.strategy->check(job))
      reader.report_at(problem.key, problem.message);
    if (reader.mistakes() > 0) return;
    const std::vector<std::string> warnings = scenario.strategy->warnings(job);
    scenario.warnings.insert(scenario.warnings.end(), warnings.begin(), warnings.end());
  } catch (const sim::TooLarge& error) {
    reader.report_at("", std::string{"too large to simulate: "} + error.what());
  }
}

void check_relations(Reader& reader, Scenario& scenario, const ModelReading& model) {
  check_precision(reader, scenario);
  check_positions(reader, scenario);
  check_size(reader, scenario);
  if (model.sliding_window && *model.sliding_window < scenario.training.sequence)
    scenario.warnings.push_back("model: the sliding window of " + std::to_string(*model.sliding_window) +
                                " tokens is ignored: attention spans the whole sequence");
  if (reader.mistakes() == 0) check_job(reader, scenario);
}

}  // namespace

Scenario read_scenario(const Value& root, const Catalog& catalog, std::span<const StrategyEntry> frameworks) {
  Scenario scenario;
  scenario.file = root.where.file;
  Reader reader;
  const Parts parts = read_top(reader, root, scenario);
  if (scenario.name.empty()) scenario.name = std::filesystem::path{root.where.file}.stem().string();
  ModelReading model;
  if (parts.cluster != nullptr) read_cluster(reader, catalog, *parts.cluster, scenario);
  if (parts.model != nullptr) model = read_model(reader, catalog, *parts.model, "model");
  if (parts.training != nullptr) read_training(reader, *parts.training, scenario.training);
  if (parts.strategy != nullptr) read_strategy(reader, *parts.strategy, frameworks, scenario);
  scenario.model = model.model;
  for (const std::string& warning : model.warnings) scenario.warnings.push_back("model: " + warning);
  if (reader.mistakes() == 0) check_relations(reader, scenario, model);
  reader.throw_mistakes();
  return scenario;
}

namespace {

// The file with what is overridden.
Value load_root(const std::filesystem::path& path, const LoadOptions& options) {
  Value root = read_document(path);
  if (!root.is_map()) throw ScenarioError(root.where, "expected a map of keys, got " + describe(root));
  std::vector<Diagnostic> mistakes;
  for (const std::string& assignment : options.overrides) {
    try {
      apply_override(root, assignment);
    } catch (const ScenarioError& error) {  // the others may be wrong too
      mistakes.insert(mistakes.end(), error.diagnostics().begin(), error.diagnostics().end());
    }
  }
  if (!mistakes.empty()) throw ScenarioError(std::move(mistakes));
  return root;
}

}  // namespace

Scenario load_scenario(const std::filesystem::path& path, const Catalog& catalog, const LoadOptions& options,
                       std::span<const StrategyEntry> frameworks) {
  return read_scenario(load_root(path, options), catalog, frameworks);
}

Scenario read_cluster(const Value& root, const Catalog& catalog) {
  Scenario scenario;
  scenario.file = root.where.file;
  Reader reader;
  const Value* cluster = nullptr;
  const std::vector<sim::Key> keys{{.name = "name", .target = &scenario.name, .help = ""},
                                   {.name = "seed", .target = &scenario.seed, .help = ""}};
  const std::array<Section, 1> sections{{{"cluster", &cluster, true}}};
  reader.read(root, "", {.keys = keys, .sections = sections, .foreign = true});
  if (scenario.name.empty()) scenario.name = std::filesystem::path{root.where.file}.stem().string();
  if (cluster != nullptr) read_cluster(reader, catalog, *cluster, scenario);
  reader.throw_mistakes();
  return scenario;
}

Scenario load_cluster(const std::filesystem::path& path, const Catalog& catalog, const LoadOptions& options) {
  return read_cluster(load_root(path, options), catalog);
}

}  // namespace trainyard::scenarios
