#include "scenarios/internal/inference_entries.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "scenarios/internal/entries.hpp"
#include "topology/cluster.hpp"
#include "workloads/architecture.hpp"

namespace trainyard::scenarios {
namespace {

using workloads::Precision;
using workloads::WeightFormat;

std::string name_of(WeightFormat format) {
  return std::string{workloads::weight_format_names.at(static_cast<std::size_t>(format))};
}

// Formats whose products the accelerator can do.
std::vector<std::string_view> formats_on(const workloads::Accelerator& accelerator) {
  std::vector<std::string_view> names;
  for (std::size_t i = 0; i < workloads::weight_format_names.size(); ++i) {
    workloads::Inference with;
    with.weights = static_cast<WeightFormat>(i);
    if (accelerator.supports(workloads::arithmetic(with.weights, sixteen_bits(with, accelerator))))
      names.push_back(workloads::weight_format_names.at(i));
  }
  return names;
}

void check_format(Reader& reader, const Scenario& scenario) {
  const workloads::Inference& inference = *scenario.inference;
  const workloads::Accelerator& accelerator = scenario.accelerator;
  const Precision needed = workloads::arithmetic(inference.weights, sixteen_bits(inference, accelerator));
  if (accelerator.supports(needed)) return;
  reader.report_at("inference.weights", name_of(inference.weights) + " needs products in " +
                                            std::string{to_string(needed)} +
                                            ", of which the catalogue has no peak for " + accelerator.name +
                                            " (`peak` of the accelerator); choose " + listed(formats_on(accelerator)));
}

void check_devices(Reader& reader, const Scenario& scenario) {
  const std::int64_t tensor = scenario.inference->tensor;
  if (!scenario.other_nodes.empty()) return reader.report_at("cluster.groups", "inference runs on nodes of one type");
  if (!scenario.device_faults.empty() || !scenario.node_faults.empty())
    reader.report_at("cluster.faults", "slow devices are simulated in training alone");
  if (tensor > scenario.node.devices)
    return reader.report_at("inference.tensor", "a copy of the model stays on one node: expected at most the " +
                                                    std::to_string(scenario.node.devices) + " devices of " +
                                                    scenario.node.name + ", got " + std::to_string(tensor));
  const std::int64_t nodes =
      scenario.placement.empty() ? scenario.nodes : static_cast<std::int64_t>(scenario.placement.size());
  if (scenario.devices % nodes != 0 || scenario.devices / nodes % tensor != 0)
    reader.report_at("inference.tensor", std::to_string(scenario.devices) + " devices on " + std::to_string(nodes) +
                                             (nodes == 1 ? " node" : " nodes") + " are no whole copies on " +
                                             std::to_string(tensor) +
                                             " devices each; give another number, or "
                                             "`cluster.devices`");
}

// Of the model, what tensor parallelism divides.
void check_division(Reader& reader, const Scenario& scenario) {
  const workloads::Model& model = scenario.model;
  const std::int64_t tensor = scenario.inference->tensor;
  const auto divides = [&](std::int64_t number, const char* what) {
    if (number % tensor != 0)
      reader.report_at("inference.tensor", std::to_string(number) + " " + what + " of " + model.name +
                                               " cannot be divided among " + std::to_string(tensor) + " devices");
  };
  divides(model.heads, "attention heads");
  divides(model.ffn_hidden, "columns of the feed-forward block");
  if (!model.latent_attention && model.kv_heads < tensor && tensor % model.kv_heads != 0)
    reader.report_at("inference.tensor", std::to_string(tensor) + " devices cannot share the " +
                                             std::to_string(model.kv_heads) + " heads of keys and values of " +
                                             model.name + " evenly");
  else if (!model.latent_attention && model.kv_heads >= tensor)
    divides(model.kv_heads, "heads of keys and values");
}

void check_tokens(Reader& reader, Scenario& scenario) {
  workloads::Model& model = scenario.model;
  const std::int64_t tokens = scenario.inference->tokens();
  if (model.positions == 0) model.positions = tokens;
  if (model.positions >= tokens) return;
  const std::string message =
      std::to_string(tokens) + " tokens with what is generated are more than the " + std::to_string(model.positions);
  if (model.position_embedding == workloads::Model::PositionEmbedding::learned)
    reader.report_at("inference.prompt", message + " learned positions of " + model.name);
  else
    scenario.warnings.push_back("inference.prompt: " + message + " of the context of " + model.name);
}

// Counts of FLOP and bytes must fit 64 bits.
void check_size(Reader& reader, const Scenario& scenario) {
  constexpr double most_flops = 1e17;
  constexpr double most_cache = 1e16;
  const workloads::Inference& inference = *scenario.inference;
  const workloads::Architecture architecture = workloads::describe(scenario.model, inference.prompt);
  double widest = workloads::forward_flops(architecture.head, false);
  for (const workloads::Block& block : architecture.kinds)
    widest = std::max(widest, workloads::forward_flops(block, false));
  const double cache =
      static_cast<double>(workloads::cache_bytes(scenario.model, inference, 1, inference.tokens()).count);
  if (static_cast<double>(inference.prompts_at_once()) * widest > most_flops ||
      static_cast<double>(inference.batch) * cache > most_cache)
    reader.report_at("inference.batch",
                     "a pass takes more than 10^17 FLOP in one layer, or a cache 10^16 bytes; give a "
                     "smaller batch or prompt");
}

}  // namespace

Precision sixteen_bits(const workloads::Inference& inference, const workloads::Accelerator& accelerator) {
  if (inference.weights == WeightFormat::fp16) return Precision::fp16;
  const bool either = inference.weights != WeightFormat::bf16;
  return either && !accelerator.supports(Precision::bf16) ? Precision::fp16 : Precision::bf16;
}

void read_inference(Reader& reader, const Value& value, workloads::Inference& inference) {
  sim::Choice weights = choice_of(workloads::weight_format_names, "bf16");
  sim::Choice cache = choice_of(workloads::cache_format_names, "auto");
  sim::Choice backend = choice_of(workloads::backend_names, "cuda-graph");
  sim::Choice attention{.value = "flash2", .choices = {"flash", "flash2", "flash3", "cudnn"}};
  constexpr double most = 1e7;
  const std::vector<sim::Key> keys{
      {"batch", &inference.batch, "sequences that a copy of the model decodes at once", false, 1, most},
      {"prompt", &inference.prompt, "tokens of each sequence's prompt", false, 1, most},
      {"generate", &inference.generate, "tokens that are generated for each", false, 1, most},
      {"weights", &weights, "bits of the layers' weights and of what they are multiplied with: w4a16 is 4 and 16"},
      {"group", &inference.group, "w4a16: weights that share a scale and an offset", false, 1, most},
      {"kv_cache", &cache, "type of cached keys and values; auto: as activations, 16 bits"},
      {"tensor", &inference.tensor, "devices of a node that share a copy of the model", false, 1, most},
      {"prefill_tokens", &inference.prefill_tokens, "of prompts in one pass at most, a whole prompt at least", false, 1,
       most},
      {"backend", &backend,
       "eager: PyTorch operator by operator; compiled: fused kernels, launched one by one; cuda-graph: a serving "
       "engine's kernels, recorded and replayed; graph: ONNX Runtime; xla: one program"},
      {"attention", &attention, "generation of the attention kernels"},
  };
  reader.read(value, "inference", {.keys = keys});
  inference.weights = chosen<WeightFormat>(weights);
  inference.cache = chosen<workloads::CacheFormat>(cache);
  inference.backend = chosen<workloads::Backend>(backend);
  const auto kernels = std::find(workloads::attention_names.begin(), workloads::attention_names.end(), attention.value);
  inference.attention = static_cast<workloads::AttentionKernel>(kernels - workloads::attention_names.begin());
}

void check_inference(Reader& reader, Scenario& scenario) {
  workloads::Inference& inference = *scenario.inference;
  if (scenario.model.structure != workloads::Model::Structure::decoder)
    return reader.report_at("model", scenario.model.name + " is no decoder; inference generates token by token");
  const bool on_tpu = make_cluster(scenario).torus().has_value();
  if (!reader.given("inference.backend") && on_tpu) inference.backend = workloads::Backend::xla;
  if (on_tpu && inference.backend != workloads::Backend::xla)
    scenario.warnings.emplace_back("inference.backend: TPUs run programs of XLA");
  const bool newest = inference.backend != workloads::Backend::eager && scenario.accelerator.flash3.known();
  if (!reader.given("inference.attention") && newest) inference.attention = workloads::AttentionKernel::flash3;
  check_format(reader, scenario);
  check_devices(reader, scenario);
  check_division(reader, scenario);
  check_tokens(reader, scenario);
  if (reader.mistakes() == 0) check_size(reader, scenario);
}

}  // namespace trainyard::scenarios
