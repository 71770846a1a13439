#include "scenarios/internal/model_figures.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string_view>
#include <vector>

#include "scenarios/internal/text.hpp"
#include "scenarios/quantity.hpp"
#include "workloads/accelerator.hpp"
#include "workloads/architecture.hpp"
#include "workloads/cost.hpp"
#include "workloads/layers.hpp"
#include "workloads/training.hpp"

namespace trainyard::scenarios {
namespace {

using workloads::Model;
using workloads::Precision;

// Where a model does not say how long its context is.
constexpr std::int64_t usual_sequence = 2048;

// The first column to the left, figures to the right; a row may have fewer cells than the widest.
class Columns {
 public:
  void add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string text() const {
    std::vector<std::size_t> widths;
    for (const std::vector<std::string>& row : rows_)
      for (std::size_t i = 0; i < row.size(); ++i) {
        if (i == widths.size()) widths.push_back(0);
        widths[i] = std::max(widths[i], row[i].size());
      }
    std::string result;
    for (const std::vector<std::string>& row : rows_) {
      result += "  " + (row.size() > 1 ? padded_right(row[0], widths[0]) : row[0]);
      for (std::size_t i = 1; i < row.size(); ++i) result += "  " + padded_left(row[i], widths[i]);
      result += "\n";
    }
    return result;
  }

 private:
  std::vector<std::vector<std::string>> rows_;
};

std::string short_count(std::int64_t count) { return format_count(static_cast<double>(count)); }

std::int64_t sequence_of(const Model& model) {
  if (!model.has_tokens()) return 0;
  return model.positions > 0 ? model.positions : usual_sequence;
}

std::string sample_of(const Model& model, std::int64_t sequence) {
  if (model.has_tokens()) return "a sequence of " + std::to_string(sequence) + " tokens";
  return model.structure == Model::Structure::recommendation ? "a sample" : "an image";
}

// How many layers there are of each kind, as "layer (32)".
std::vector<std::string> layer_names(const workloads::Architecture& architecture) {
  std::vector<std::int64_t> counts(architecture.kinds.size());
  for (const std::uint32_t kind : architecture.layers) ++counts[kind];
  std::vector<std::string> names;
  for (std::size_t i = 0; i < counts.size(); ++i)
    names.push_back("each " + architecture.kinds[i].name + " (" + std::to_string(counts[i]) + ")");
  return names;
}

std::string parameter_rows(const Model& model, const workloads::Architecture& architecture) {
  Columns columns;
  const auto add = [&](std::string name, std::int64_t count) {
    columns.add({std::move(name), std::to_string(count), short_count(count)});
  };
  const std::int64_t all = workloads::parameters(model);
  const std::int64_t trained = workloads::trained_parameters(model);
  add("all", all);
  if (model.experts) add("active for a token", workloads::active_parameters(model));
  if (trained > all) add("in training only", trained - all);
  add(architecture.embedding.name, workloads::parameters_of(architecture.embedding));
  const std::vector<std::string> names = layer_names(architecture);
  for (std::size_t i = 0; i < names.size(); ++i) add(names[i], workloads::parameters_of(architecture.kinds[i]));
  add(architecture.head.name, workloads::parameters_of(architecture.head));
  return "parameters\n" + columns.text();
}

std::string flop_rows(const Model& model, const workloads::Architecture& architecture, std::int64_t sequence) {
  Columns columns;
  std::vector<std::string> heading{""};
  if (architecture.causal) heading.emplace_back("causal");
  heading.emplace_back("attention in full");
  columns.add(std::move(heading));
  const auto add = [&](std::string name, double share) {
    std::vector<std::string> row{std::move(name)};
    if (architecture.causal)
      row.push_back(format_count(workloads::training_flops_per_sample(architecture, true) * share));
    row.push_back(format_count(workloads::training_flops_per_sample(architecture, false) * share));
    columns.add(std::move(row));
  };
  if (model.has_tokens()) add("for a token", 1 / static_cast<double>(sequence));
  add("for " + sample_of(model, sequence), 1);
  return "training FLOP\n" + columns.text();
}

// How parameters, gradients and the optimizer's state are kept.
struct Profile {
  std::string_view name;
  workloads::Training training;
  workloads::StateLayout layout = workloads::StateLayout::master_weights;
  Precision gradient = Precision::bf16;
};

std::vector<Profile> profiles() {
  using workloads::Optimizer;
  using workloads::StateLayout;
  const auto trained = [](Precision precision, Optimizer optimizer, bool master_weights = true) {
    workloads::Training training;
    training.precision = precision;
    training.optimizer = optimizer;
    training.master_weights = master_weights;
    return training;
  };
  const auto mixed = [&](Optimizer optimizer) { return trained(Precision::bf16, optimizer); };
  return {
      {.name = "fp32 or tf32, adamw", .training = trained(Precision::fp32, Optimizer::adamw)},
      {.name = "bf16 autocast, adamw", .training = mixed(Optimizer::adamw), .layout = StateLayout::full_precision},
      {.name = "bf16 or fp8, fp32 gradients, adamw", .training = mixed(Optimizer::adamw), .gradient = Precision::fp32},
      {.name = "bf16, adamw", .training = mixed(Optimizer::adamw)},
      {.name = "bf16, adam8bit", .training = mixed(Optimizer::adam8bit)},
      {.name = "bf16, momentum", .training = mixed(Optimizer::momentum)},
      {.name = "bf16, adafactor", .training = mixed(Optimizer::adafactor)},
      {.name = "bf16, sgd", .training = mixed(Optimizer::sgd)},
      {.name = "bf16, no master copy, adamw", .training = trained(Precision::bf16, Optimizer::adamw, false)},
  };
}

std::string state_rows(const Model& model, const workloads::Architecture& architecture) {
  Columns columns;
  columns.add({"bytes of model state", "parameter", "gradient", "master", "moments", "sum", "all"});
  const std::int64_t parameters = workloads::trained_parameters(model);
  const double factored = workloads::factored_moments(architecture);
  for (const Profile& profile : profiles()) {
    const workloads::StateBytes state =
        workloads::state_bytes(profile.training, profile.layout, profile.gradient, factored);
    const double all = std::ceil(state.total() * static_cast<double>(parameters));
    const auto figure = [](double bytes) { return fixed(bytes, std::floor(bytes) == bytes ? 0 : 3); };
    columns.add({std::string{profile.name}, std::to_string(state.parameter), std::to_string(state.gradient),
                 std::to_string(state.master), figure(state.moments), figure(state.total()),
                 format_bytes(sim::Bytes{static_cast<std::int64_t>(all)})});
  }
  return columns.text();
}

// Bytes do not depend on how fast the device is.
workloads::Accelerator any_device() {
  workloads::Accelerator device;
  device.memory_bandwidth = {1'000'000'000'000'000};
  device.sms = 1;
  device.peak.fill({1'000'000'000'000'000'000});
  device.gemm_efficiency.fill(1);
  device.tile_rows = 128;
  device.tile_columns = 128;
  device.half_k = 1;
  device.attention_forward_efficiency = 1;
  device.attention_backward_efficiency = 1;
  device.attention_half_sequence = 1;
  device.memory_efficiency = 1;
  device.memory_half_size = {1};
  return device;
}

std::string activation_rows(const Model& model, const workloads::Architecture& architecture, std::int64_t sequence) {
  using Kind = workloads::Recompute::Kind;
  constexpr std::array kinds{Kind::none, Kind::selective, Kind::full};
  const workloads::Accelerator device = any_device();
  const workloads::KernelCosts costs(device);
  workloads::Training training;
  training.sequence = sequence;
  const workloads::Expansion expansion =
      workloads::expand(architecture, training, workloads::Shard{}, workloads::fused_style(), costs);
  Columns columns;
  columns.add({"recompute", "none", "selective", "full"});
  const auto add = [&](std::string name, const auto& bytes_of) {
    std::vector<std::string> row{std::move(name)};
    for (const Kind kind : kinds)
      row.push_back(format_bytes(bytes_of(workloads::Recompute{.kind = kind, .modules = {}})));
    columns.add(std::move(row));
  };
  const std::vector<std::string> names = layer_names(architecture);
  for (std::size_t i = 0; i < names.size(); ++i)
    add(names[i],
        [&](const workloads::Recompute& recompute) { return expansion.kinds[i].saved_bytes(recompute, false); });
  add("all layers", [&](const workloads::Recompute& recompute) {
    sim::Bytes sum{};
    for (const std::uint32_t kind : expansion.kind_of) sum += expansion.kinds[kind].saved_bytes(recompute, false);
    return sum;
  });
  return "activations kept of " + sample_of(model, sequence) + ", bf16, flash attention, fused kernels\n" +
         columns.text();
}

}  // namespace

std::string model_figures(const Model& model) {
  const std::int64_t sequence = sequence_of(model);
  const workloads::Architecture architecture = workloads::describe(model, sequence);
  std::string text;
  for (const std::string& rows : {parameter_rows(model, architecture), flop_rows(model, architecture, sequence),
                                  state_rows(model, architecture), activation_rows(model, architecture, sequence)})
    text.append("\n").append(rows);
  return text;
}

}  // namespace trainyard::scenarios
