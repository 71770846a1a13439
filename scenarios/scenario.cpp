#include "scenarios/scenario.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>
#include <variant>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/cluster_entries.hpp"
#include "scenarios/internal/cost_entries.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/internal/entries.hpp"
#include "scenarios/internal/inference_entries.hpp"
#include "scenarios/internal/reader.hpp"
#include "scenarios/internal/reliability_entries.hpp"
#include "scenarios/internal/training_entries.hpp"
#include "scenarios/internal/value_text.hpp"
#include "workloads/architecture.hpp"

namespace trainyard::scenarios {
namespace {

// Frameworks of the scenario format; those without a strategy are refused as coming later, not as unknown.
constexpr std::array<std::string_view, 8> framework_names{"pytorch-ddp", "pytorch-fsdp", "deepspeed",  "megatron-lm",
                                                          "colossal-ai", "maxtext",      "tensorflow", "keras"};

struct Parts {
  const Value* cluster = nullptr;
  const Value* model = nullptr;
  const Value* training = nullptr;
  const Value* strategy = nullptr;
  const Value* cost = nullptr;
  const Value* run = nullptr;
  const Value* inference = nullptr;
  const Value* reliability = nullptr;
};

// A workload has sections of its own.
void refuse_other_workload(Reader& reader, const Parts& parts, bool serves) {
  const std::string instead =
      serves ? "says how a model is trained, and the workload is inference; give 'inference' alone"
             : "says how a model generates, and the workload is training; give 'workload: inference' with it";
  if (serves && parts.training != nullptr) reader.report_at("training", instead);
  if (serves && parts.strategy != nullptr) reader.report_at("strategy", instead);
  if (serves && parts.reliability != nullptr)
    reader.report_at("reliability", "says what becomes of training that fails, and the workload is inference");
  if (!serves && parts.inference != nullptr) reader.report_at("inference", instead);
}

Parts read_top(Reader& reader, const Value& root, Scenario& scenario) {
  Parts parts;
  sim::Choice workload{.value = "training", .choices = {"training", "inference"}};
  const Value* given = root.find("workload");
  const bool serves = given != nullptr && given->scalar == "inference";
  const std::vector<sim::Key> keys{
      {.name = "name", .target = &scenario.name, .help = ""},
      {.name = "seed", .target = &scenario.seed, .help = ""},
      {.name = "workload", .target = &workload, .help = ""},
  };
  const std::array<Section, 8> sections{{{"cluster", &parts.cluster, true},
                                         {"model", &parts.model, true},
                                         {"training", &parts.training, !serves},
                                         {"strategy", &parts.strategy, !serves},
                                         {"inference", &parts.inference, serves},
                                         {"reliability", &parts.reliability},
                                         {"cost", &parts.cost},
                                         {"run", &parts.run}}};
  reader.read(root, "", {.keys = keys, .sections = sections});
  refuse_other_workload(reader, parts, serves);
  return parts;
}

const Framework* find_framework(Reader& reader, const Value& name, std::span<const Framework> frameworks) {
  std::vector<std::string_view> names;
  for (const Framework& framework : frameworks) {
    if (framework.entry.name == name.scalar) return &framework;
    names.push_back(framework.entry.name);
  }
  const bool planned = std::find(framework_names.begin(), framework_names.end(), name.scalar) != framework_names.end();
  reader.report(name.where,
                "strategy.framework: " +
                    (planned ? describe(name) + " is not supported yet; choose " + listed(names)
                             : "expected " + listed(names) + ", got " + describe(name) + nearest(name.scalar, names)));
  return nullptr;
}

// The framework decides which other keys there are.
void read_strategy(Reader& reader, const Value& value, std::span<const Framework> frameworks, Scenario& scenario) {
  std::vector<sim::Key> keys{{.name = "framework", .target = &scenario.framework, .help = "", .required = true}};
  const Value* name = value.is_map() ? value.find("framework") : nullptr;
  if (name == nullptr || !name->is_scalar()) return reader.read(value, "strategy", {.keys = keys, .foreign = true});
  const Framework* framework = find_framework(reader, *name, frameworks);
  if (framework == nullptr) return;
  scenario.made_by = *framework;
  scenario.strategy = framework->make();
  const std::vector<sim::Key> options = scenario.strategy->keys();
  keys.insert(keys.end(), options.begin(), options.end());
  reader.read(value, "strategy", {.keys = keys});
}

void check_precision(Reader& reader, const Scenario& scenario) {
  const workloads::Accelerator& accelerator = scenario.accelerator;
  if (accelerator.supports(scenario.training.precision)) return;
  std::vector<std::string_view> supported;
  for (std::size_t i = 0; i < workloads::training_precisions; ++i)
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
  const double batch = training.micro_batch
                           ? static_cast<double>(*training.micro_batch)
                           : static_cast<double>(training.global_batch) / static_cast<double>(scenario.devices);
  const workloads::Architecture architecture = workloads::describe(model, training.sequence);
  double widest = std::max(workloads::forward_flops(architecture.embedding, false),
                           workloads::forward_flops(architecture.head, false));
  for (const workloads::Block& block : architecture.kinds)
    widest = std::max(widest, workloads::forward_flops(block, false));
  if (3 * batch * widest > most_flops)
    reader.report_at("training.sequence",
                     "a micro batch takes more than 10^17 FLOP in one layer; give a smaller "
                     "sequence or micro batch");
}

void check_positions(Reader& reader, Scenario& scenario) {
  workloads::Model& model = scenario.model;
  const std::int64_t sequence = scenario.training.sequence;
  if (!model.has_tokens()) {
    if (sequence > 0) reader.report_at("training.sequence", model.name + " has no tokens; leave the key out");
    if (!scenario.training.documents.empty())
      reader.report_at("training.documents", model.name + " has no tokens; leave the key out");
    return;
  }
  if (sequence == 0) return reader.report_at("training", "missing key 'training.sequence'");
  if (model.positions == 0) model.positions = sequence;
  if (model.positions >= sequence || model.position_embedding == workloads::Model::PositionEmbedding::relative) return;
  const std::string tokens = std::to_string(sequence) + " tokens are more than the ";
  const std::string positions = std::to_string(model.positions);
  if (model.position_embedding == workloads::Model::PositionEmbedding::learned)
    reader.report_at("training.sequence", tokens + positions + " learned positions of " + model.name);
  else
    scenario.warnings.push_back("training.sequence: " + tokens + positions + " of the context of " + model.name);
}

// Adapters on matrices that the model does not have would train nothing.
void check_targets(Reader& reader, const Scenario& scenario) {
  const workloads::Adapters& adapters = *scenario.training.adapters;
  if (adapters.targets.empty()) return;
  std::vector<std::string_view> parts;
  const workloads::Architecture architecture = workloads::describe(scenario.model, 1);
  for (const workloads::Block& block : architecture.kinds)
    for (const workloads::Operation& operation : block.operations) {
      const auto* linear = std::get_if<workloads::LinearWork>(&operation.work);
      if (linear == nullptr || !workloads::takes_adapters(operation.region)) continue;
      for (const workloads::LinearWork::Part& part : linear->parts)
        if (std::ranges::find(parts, part.name) == parts.end()) parts.emplace_back(part.name);
    }
  if (std::ranges::any_of(parts, [&](std::string_view part) { return adapters.on(part); })) return;
  reader.report_at("training.finetune", scenario.model.name + " has none of these targets; its linear layers are " +
                                            listed(parts) +
                                            (scenario.model.experts ? "; experts stay as they are" : ""));
}

// Keys that say something of what the model does not have.
void check_model_parts(Reader& reader, const Scenario& scenario) {
  const workloads::Training& training = scenario.training;
  if (!scenario.model.experts)
    for (const char* key : {"training.capacity_factor", "training.expert_imbalance", "training.expert_dirichlet"})
      if (reader.given(key)) reader.report_at(key, scenario.model.name + " has no experts");
  const workloads::Model& model = scenario.model;
  if (training.adapters && !model.transformer())
    reader.report_at("training.finetune",
                     "adapters go beside the linear layers of a transformer; " + model.name + " is none");
  if (training.adapters && model.transformer()) check_targets(reader, scenario);
  if (!training.documents.empty() && model.structure == workloads::Model::Structure::encoder_decoder)
    reader.report_at("training.documents", "packed sequences of an encoder and a decoder are not supported");
  if (model.experts && training.routing.imbalance * static_cast<double>(model.experts->top_k) >
                           static_cast<double>(model.experts->count))
    reader.report_at("training.expert_imbalance", "a token passes an expert once: the fullest has at most " +
                                                      std::to_string(model.experts->count) + "/" +
                                                      std::to_string(model.experts->top_k) + " times the mean");
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

void check_relations(Reader& reader, Scenario& scenario, bool asks_framework) {
  if (scenario.inference) return check_inference(reader, scenario);
  check_precision(reader, scenario);
  check_positions(reader, scenario);
  check_model_parts(reader, scenario);
  check_run(reader, scenario);
  if (reader.mistakes() > 0) return;
  check_size(reader, scenario);
  if (reader.mistakes() == 0 && asks_framework) check_job(reader, scenario);
  if (reader.mistakes() == 0 && scenario.reliability) check_reliability(reader, scenario);
}

Scenario read(const Value& root, const Catalog& catalog, bool asks_framework) {
  Scenario scenario;
  scenario.file = root.where.file;
  Reader reader;
  const Parts parts = read_top(reader, root, scenario);
  if (scenario.name.empty()) scenario.name = std::filesystem::path{root.where.file}.stem().string();
  ModelReading model;
  if (parts.cluster != nullptr) read_cluster(reader, catalog, *parts.cluster, scenario);
  if (parts.model != nullptr) model = read_model(reader, catalog, *parts.model, "model");
  if (parts.training != nullptr) read_training(reader, *parts.training, scenario.training);
  if (parts.strategy != nullptr) read_strategy(reader, *parts.strategy, catalog.frameworks(), scenario);
  if (parts.inference != nullptr) read_inference(reader, *parts.inference, scenario.inference.emplace());
  if (reader.mistakes() == 0 || parts.cost != nullptr) read_cost(reader, catalog, parts.cost, scenario);
  if (parts.run != nullptr) scenario.run = read_run(reader, *parts.run);
  if (parts.reliability != nullptr) scenario.reliability = read_reliability(reader, *parts.reliability);
  scenario.model = model.model;
  scenario.training.routing.seed = scenario.seed;
  for (const std::string& warning : model.warnings) scenario.warnings.push_back("model: " + warning);
  if (reader.mistakes() == 0) check_relations(reader, scenario, asks_framework);
  reader.throw_mistakes();
  return scenario;
}

}  // namespace

Scenario read_scenario(const Value& root, const Catalog& catalog) { return read(root, catalog, true); }

Scenario read_job(const Value& root, const Catalog& catalog) { return read(root, catalog, false); }

Scenario load_scenario(const std::filesystem::path& path, const Catalog& catalog, const LoadOptions& options) {
  return read_scenario(read_document(path, options.overrides), catalog);
}

std::string scenario_text(const std::filesystem::path& path, const LoadOptions& options) {
  return yaml_of(read_document(path, options.overrides));
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
  return read_cluster(read_document(path, options.overrides), catalog);
}

}  // namespace trainyard::scenarios
