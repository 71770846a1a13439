#include "scenarios/internal/memory.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "sim/lower_bound.hpp"
#include "strategies/device_classes.hpp"

namespace trainyard::scenarios {
namespace {

using workloads::Recompute;

// A device context and torch.distributed take 1.5 GiB (0.5 to 0.9 and about 1 GiB, stas00/ml-engineering
// training/performance/README.md); each further communicator about 0.3 GiB of buffers (4 MiB per channel and direction,
// NVIDIA/nccl). Estimates within the published ranges.
constexpr std::int64_t context_bytes = 3LL << 29;
constexpr std::int64_t group_bytes = 3LL * (1LL << 30) / 10;
// What the runtime of a TPU keeps for itself: of 16 GiB of a v5e, XLA reports 15.75 as usable.
constexpr std::int64_t runtime_bytes = 1LL << 28;
// Reserved over allocated: 1.03 to 1.08 with expandable segments, more without; an estimate.
constexpr double fragmentation = 1.05;
// Allocators fail before the last byte: driver and library allocations outside them.
constexpr double usable_share = 0.98;

constexpr const char* full_recompute = "training.recompute=full";

// What `auto` tries, from the least work to the most.
std::vector<Recompute> recompute_ladder(const workloads::Model& model) {
  using workloads::Module;
  std::vector<Recompute> ladder{{.kind = Recompute::Kind::none, .modules = {}}};
  const auto add_modules = [&](const std::vector<Module>& modules) {
    ladder.push_back({.kind = Recompute::Kind::modules, .modules = modules});
  };
  std::vector<Module> modules{Module::layer_norm};
  if (model.experts) modules.push_back(Module::activation);
  add_modules(modules);
  if (model.latent_attention) {
    modules.push_back(Module::mla_up_projection);
    add_modules(modules);
  }
  ladder.push_back({.kind = Recompute::Kind::selective, .modules = {}});
  modules.push_back(Module::mlp);
  add_modules(modules);
  if (model.experts) {
    modules.push_back(Module::moe);
    add_modules(modules);
  }
  ladder.push_back({.kind = Recompute::Kind::full, .modules = {}});
  return ladder;
}

strategies::PlannedStep planned(const Scenario& scenario, const strategies::Strategy& strategy,
                                const workloads::Training& training, const topology::Cluster& cluster) {
  const strategies::Job job{
      .model = scenario.model, .training = training, .accelerator = scenario.accelerators.front(), .cluster = cluster};
  return strategies::plan_on_devices(strategy, job, scenario.accelerators);
}

// Of what is allocated.
std::int64_t overhead_of(const strategies::PlannedStep& step, std::int64_t allocated) {
  if (step.static_buffers) return runtime_bytes;
  const auto reserved = static_cast<std::int64_t>(static_cast<double>(allocated) * fragmentation);
  return reserved - allocated + context_bytes + step.communicator_groups * group_bytes;
}

bool fits(const strategies::PlannedStep& step, std::int64_t peak, sim::Bytes capacity) {
  const double usable = step.static_buffers ? 1 : usable_share;
  return static_cast<double>(peak) <= usable * static_cast<double>(capacity.count);
}

// "forward layer", "backward layer" and "recompute layer" hold memory for the same thing.
std::string_view without_direction(std::string_view block) {
  for (const std::string_view word :
       {"forward ", "backward ", "input-gradients ", "weight-gradients ", "recompute ", "first "})
    if (block.starts_with(word)) block.remove_prefix(word.size());
  return block.substr(0, block.find(" and reduce"));
}

// Sets one option of a strategy; nothing where it has no such option, or has that value already.
template <class Value>
bool set_option(strategies::Strategy& strategy, std::string_view name, Value value) {
  for (const sim::Key& key : strategy.keys()) {
    if (key.name != name) continue;
    if (auto* const* plain = std::get_if<Value*>(&key.target)) return std::exchange(**plain, value) != value;
    if (auto* const* optional = std::get_if<std::optional<Value>*>(&key.target))
      return std::exchange(**optional, value) != value;
  }
  return false;
}

std::int64_t number_option(strategies::Strategy& strategy, std::string_view name, std::int64_t otherwise) {
  for (const sim::Key& key : strategy.keys())
    if (key.name == name)
      if (auto* const* number = std::get_if<std::int64_t*>(&key.target)) return **number;
  return otherwise;
}

// Another one with the same options.
std::unique_ptr<strategies::Strategy> copy_of(const Scenario& scenario) {
  std::unique_ptr<strategies::Strategy> copy = scenario.made_by.make();
  const std::vector<sim::Key> from = scenario.strategy->keys();
  const std::vector<sim::Key> to = copy->keys();
  for (std::size_t i = 0; i < to.size(); ++i)
    std::visit(
        [&](auto* target) {
          if (auto* const* source = std::get_if<decltype(target)>(&from[i].target)) *target = **source;
        },
        to[i].target);
  return copy;
}

// A scenario with something changed.
struct Variant {
  std::vector<std::string> settings;
  std::unique_ptr<strategies::Strategy> strategy;
  workloads::Training training;
};

class Search {
 public:
  Search(const Scenario& scenario, const workloads::Training& training)
      : scenario_(scenario),
        training_(training),
        cluster_(make_cluster(scenario)),
        capacity_(smallest_memory(scenario)) {}

  std::vector<MemoryChange> run();

 private:
  void try_training(std::vector<std::string> settings, const std::function<void(workloads::Training&)>& edit);
  void try_option(std::string setting, const std::function<bool(strategies::Strategy&)>& edit);
  void try_variant(Variant variant);
  void try_trainings();
  void try_options();

  const Scenario& scenario_;
  const workloads::Training& training_;
  topology::Cluster cluster_;
  sim::Bytes capacity_;
  std::vector<MemoryChange> tried_;
};

void Search::try_variant(Variant variant) {
  const strategies::Job job{.model = scenario_.model,
                            .training = variant.training,
                            .accelerator = scenario_.accelerators.front(),
                            .cluster = cluster_};
  if (!variant.strategy->check(job).empty()) return;
  const MemorySummary memory = memory_of(planned(scenario_, *variant.strategy, variant.training, cluster_), capacity_);
  tried_.push_back({.settings = std::move(variant.settings), .peak = memory.peak, .fits = memory.fits});
}

void Search::try_training(std::vector<std::string> settings, const std::function<void(workloads::Training&)>& edit) {
  Variant variant{.settings = std::move(settings), .strategy = copy_of(scenario_), .training = training_};
  edit(variant.training);
  try_variant(std::move(variant));
}

// Alone, and where that is not enough with full recomputation.
void Search::try_option(std::string setting, const std::function<bool(strategies::Strategy&)>& edit) {
  const auto attempt = [&](std::vector<std::string> settings, const workloads::Training& training) {
    Variant variant{.settings = std::move(settings), .strategy = copy_of(scenario_), .training = training};
    if (edit(*variant.strategy)) try_variant(std::move(variant));
  };
  const std::size_t before = tried_.size();
  attempt({setting}, training_);
  if (tried_.size() == before || tried_.back().fits || training_.recompute.full()) return;
  workloads::Training recomputing = training_;
  recomputing.recompute = {.kind = Recompute::Kind::full, .modules = {}};
  attempt({std::move(setting), full_recompute}, recomputing);
}

void Search::try_trainings() {
  for (const Recompute::Kind kind : {Recompute::Kind::selective, Recompute::Kind::full})
    if (kind > training_.recompute.kind && !training_.recompute.full())
      try_training({"training.recompute=" + to_string(Recompute{.kind = kind, .modules = {}})},
                   [&](auto& training) { training.recompute = {.kind = kind, .modules = {}}; });
  // Planning takes as long as there are micro-batches; memory does not depend on most of them.
  constexpr std::int64_t most_micro_batches = 4096;
  if (training_.global_batch > most_micro_batches * scenario_.devices) return;
  if (training_.micro_batch.value_or(1) > 1)
    try_training({"training.micro_batch=1"}, [](auto& training) { training.micro_batch = 1; });
  if (training_.micro_batch.value_or(2) > 1 && !training_.recompute.full())
    try_training({"training.micro_batch=1", full_recompute}, [](auto& training) {
      training.micro_batch = 1;
      training.recompute = {.kind = Recompute::Kind::full, .modules = {}};
    });
}

void Search::try_options() {
  using strategies::Strategy;
  const auto set_true = [&](const std::string& name) {
    try_option("strategy." + name + "=true", [&](Strategy& strategy) { return set_option(strategy, name, true); });
  };
  set_true("distributed_optimizer");
  if (number_option(*scenario_.strategy, "tensor", 1) > 1) set_true("sequence_parallel");
  try_option("strategy.reshard_after_forward=true",
             [](Strategy& strategy) { return set_option(strategy, "reshard_after_forward", std::string{"true"}); });
  for (std::int64_t stage = number_option(*scenario_.strategy, "zero_stage", 3) + 1; stage <= 3; ++stage)
    try_option("strategy.zero_stage=" + std::to_string(stage),
               [&](Strategy& strategy) { return set_option(strategy, "zero_stage", stage); });
  for (const std::string name : {"tensor", "pipeline"}) {
    const std::int64_t now = number_option(*scenario_.strategy, name, 0);
    for (std::int64_t more = 2 * now; now > 0 && more <= 8 * now && more <= scenario_.devices; more *= 2)
      try_option("strategy." + name + "=" + std::to_string(more),
                 [&](Strategy& strategy) { return set_option(strategy, name, more); });
  }
  if (scenario_.framework != "pytorch-ddp") return;
  for (const bool recomputes : {false, true}) {
    Variant sharded{.settings = {"strategy.framework=pytorch-fsdp"}, .strategy = nullptr, .training = training_};
    if (recomputes) {
      if (training_.recompute.full()) break;
      sharded.settings.emplace_back(full_recompute);
      sharded.training.recompute = {.kind = Recompute::Kind::full, .modules = {}};
    }
    for (const strategies::StrategyEntry& entry : strategies::catalog())
      if (entry.name == "pytorch-fsdp") sharded.strategy = entry.make();
    try_variant(std::move(sharded));
  }
}

std::vector<MemoryChange> Search::run() {
  try_trainings();
  try_options();
  if (!training_.activation_offload)
    try_training({"training.activation_offload=true"}, [](auto& training) { training.activation_offload = true; });
  if (training_.optimizer == workloads::Optimizer::adam || training_.optimizer == workloads::Optimizer::adamw)
    try_training({"training.optimizer=adam8bit"},
                 [](auto& training) { training.optimizer = workloads::Optimizer::adam8bit; });
  if (!training_.adapters && scenario_.model.transformer())
    try_training({"training.finetune=lora"}, [](auto& training) { training.adapters = workloads::Adapters{}; });
  std::vector<MemoryChange> fitting;
  std::ranges::copy_if(tried_, std::back_inserter(fitting), &MemoryChange::fits);
  if (!fitting.empty() || tried_.empty()) return fitting;
  return {*std::ranges::min_element(tried_, {}, &MemoryChange::peak)};
}

}  // namespace

sim::Bytes smallest_memory(const Scenario& scenario) {
  return std::ranges::min_element(scenario.accelerators, {}, &workloads::Accelerator::memory)->memory;
}

bool activations_fit(const strategies::PlannedStep& step, sim::Bytes capacity) {
  return std::ranges::all_of(step.plan.programs, [&](const sim::Program& program) {
    return fits(step, sim::activation_peak(step.plan, program).count, capacity);
  });
}

MemorySummary memory_of(const strategies::PlannedStep& step, sim::Bytes capacity) {
  const sim::Plan& plan = step.plan;
  std::vector<sim::MemoryPeak> peaks;
  for (const sim::Program& program : plan.programs) peaks.push_back(sim::memory_peak(plan, program));
  std::size_t worst_rank = 0;
  const auto peak_of = [&](std::size_t rank) -> const sim::MemoryPeak& {
    return peaks[sim::index_of(plan.program_of[plan.program_of.id(rank)])];
  };
  for (std::size_t rank = 1; rank < plan.program_of.size(); ++rank)
    if (peak_of(rank).total > peak_of(worst_rank).total) worst_rank = rank;

  const sim::MemoryPeak& worst = peak_of(worst_rank);
  MemorySummary memory;
  memory.capacity = capacity.count;
  memory.allocated = worst.total.count;
  memory.last_rank_allocated = peak_of(plan.program_of.size() - 1).total.count;
  for (std::size_t i = 0; i < sim::memory_purposes; ++i) memory.parts.at(i) = worst.at_peak.at(i).count;
  memory.overhead = overhead_of(step, memory.allocated);
  memory.peak = memory.allocated + memory.overhead;
  memory.fits = fits(step, memory.peak, capacity);
  memory.peak_rank = static_cast<std::int64_t>(worst_rank);
  return memory;
}

std::vector<MemoryPart> largest_parts(const strategies::PlannedStep& step, const MemorySummary& memory) {
  constexpr std::int64_t least_share = 50;  // what is below a fiftieth of the peak explains nothing
  const sim::Plan& plan = step.plan;
  const sim::RankId rank{static_cast<std::uint32_t>(memory.peak_rank)};
  const sim::Program& program = plan.programs[plan.program_of[rank]];
  std::map<std::string, std::int64_t> parts;
  for (std::size_t i = 0; i < sim::memory_purposes; ++i)
    parts[std::string{to_string(static_cast<sim::MemoryPurpose>(i))}] += program.resident.at(i).count;
  for (const sim::MemoryHolder& holder : sim::memory_holders(plan, program))
    parts[std::string{to_string(holder.purpose)} + " of " +
          std::string{without_direction(plan.blocks[holder.block].name)}] += holder.bytes.count;
  parts["context, communication buffers and fragmentation"] = memory.overhead;
  std::vector<MemoryPart> result;
  for (const auto& [what, bytes] : parts)
    if (bytes * least_share >= memory.peak) result.push_back({.what = what, .bytes = bytes});
  std::ranges::stable_sort(result, std::greater{}, &MemoryPart::bytes);
  return result;
}

workloads::Training with_recompute(const Scenario& scenario, const topology::Cluster& cluster) {
  workloads::Training training = scenario.training;
  if (!training.automatic_recompute) return training;
  for (const Recompute& recompute : recompute_ladder(scenario.model)) {
    training.recompute = recompute;
    if (recompute.full()) break;
    if (memory_of(planned(scenario, *scenario.strategy, training, cluster), smallest_memory(scenario)).fits) break;
  }
  return training;
}

std::vector<MemoryChange> what_would_fit(const Scenario& scenario, const workloads::Training& training) {
  // A dozen plans: beyond this they would take longer than the step itself.
  constexpr std::int64_t most_devices = 32768;
  if (scenario.devices > most_devices) return {};
  return Search(scenario, training).run();
}

}  // namespace trainyard::scenarios
