#include "workloads/training.hpp"

namespace trainyard::workloads {

std::int64_t moment_bytes(Optimizer optimizer) {
  switch (optimizer) {
    case Optimizer::sgd:
      return 0;
    case Optimizer::momentum:
      return 4;
    case Optimizer::adam:
    case Optimizer::adamw:
      return 8;
  }
  return 8;
}

StateBytes state_bytes(const Training& training, StateLayout layout, Precision gradient) {
  const bool wide = training.precision == Precision::fp32 || training.precision == Precision::tf32;
  StateBytes state;
  state.moments = moment_bytes(training.optimizer);
  if (wide || layout == StateLayout::full_precision) {
    state.parameter = 4;
    state.gradient = 4;
    return state;
  }
  state.parameter = 2;
  state.gradient = element_bytes(gradient);
  state.master = 4;
  return state;
}

std::int64_t optimizer_traffic(const StateBytes& state) {
  const std::int64_t weights = state.master > 0 ? 2 * state.master + state.parameter : 2 * state.parameter;
  return state.gradient + weights + 2 * state.moments;
}

}  // namespace trainyard::workloads
