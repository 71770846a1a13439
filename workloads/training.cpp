#include "workloads/training.hpp"

#include <algorithm>
#include <cmath>

namespace trainyard::workloads {

bool Recompute::has(Module module) const {
  if (kind == Kind::selective) return module == Module::core_attention;
  return kind == Kind::modules && std::find(modules.begin(), modules.end(), module) != modules.end();
}

std::string to_string(const Recompute& recompute) {
  if (recompute.kind == Recompute::Kind::modules) {
    std::string names;
    for (const Module module : recompute.modules)
      names += (names.empty() ? "" : ", ") + std::string{module_names[static_cast<std::size_t>(module)]};
    return "{modules: [" + names + "]}";
  }
  if (recompute.full() && recompute.every > 1) return "{every: " + std::to_string(recompute.every) + "}";
  return std::string{recompute_names[static_cast<std::size_t>(recompute.kind)]};
}

bool Adapters::on(std::string_view part) const {
  return targets.empty() || std::find(targets.begin(), targets.end(), part) != targets.end();
}

sim::Bytes StateBytes::optimizer(std::int64_t parameters) const {
  return sim::Bytes{parameters} * master +
         sim::Bytes{static_cast<std::int64_t>(std::ceil(moments * static_cast<double>(parameters)))};
}

double moment_bytes(const Training& training, double factored) {
  const bool wide = activation_bytes(training.precision) == 4 || training.master_weights;
  const double element = wide ? 4 : 2;
  switch (training.optimizer) {
    case Optimizer::sgd:
      return 0;
    case Optimizer::momentum:
      return element;
    case Optimizer::adam:
    case Optimizer::adamw:
    case Optimizer::lamb:
      return 2 * element;
    case Optimizer::adam8bit:
      return 2 + 2 * 4.0 / 256;
    case Optimizer::adafactor:
      return factored;
  }
  return 2 * element;
}

StateBytes state_bytes(const Training& training, StateLayout layout, Precision gradient, double factored) {
  StateBytes state;
  state.moments = moment_bytes(training, factored);
  if (activation_bytes(training.precision) == 4 || (layout == StateLayout::full_precision && training.master_weights)) {
    state.parameter = 4;
    state.gradient = 4;
    return state;
  }
  state.parameter = 2;
  state.gradient = training.master_weights ? element_bytes(gradient) : 2;
  state.master = training.master_weights ? 4 : 0;
  return state;
}

double optimizer_traffic(const StateBytes& state) {
  const std::int64_t weights = state.master > 0 ? 2 * state.master + state.parameter : 2 * state.parameter;
  return static_cast<double>(state.gradient + weights) + 2 * state.moments;
}

}  // namespace trainyard::workloads
