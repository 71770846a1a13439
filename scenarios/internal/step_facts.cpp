#include "scenarios/internal/step_facts.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "sim/fold.hpp"
#include "strategies/device_classes.hpp"
#include "workloads/architecture.hpp"
#include "workloads/layers.hpp"

namespace trainyard::scenarios {
namespace {

std::int64_t adapter_parameters(const workloads::Architecture& architecture, const workloads::Adapters& adapters) {
  const auto of_block = [&](const workloads::Block& block) {
    std::int64_t sum = 0;
    for (const workloads::Operation& operation : block.operations) {
      const auto* linear = std::get_if<workloads::LinearWork>(&operation.work);
      if (linear == nullptr || !workloads::takes_adapters(operation.region)) continue;
      for (const workloads::LinearWork::Part& part : linear->parts)
        if (adapters.on(part.name)) sum += adapters.rank * (linear->inputs + part.width);
    }
    return sum;
  };
  return std::accumulate(
      architecture.layers.begin(), architecture.layers.end(), std::int64_t{0},
      [&](std::int64_t sum, std::uint32_t kind) { return sum + of_block(architecture.kinds[kind]); });
}

// The step where the first healthy node is slow. Slow nodes elsewhere, and several of them, cost about as much: all
// wait for the slowest.
double straggling_step_s(const Scenario& scenario, const workloads::Training& training, double slowdown) {
  std::int64_t node = 0;
  const auto slow_already = [&](const topology::Cluster::NodeFault& fault) { return fault.node == node; };
  while (std::ranges::any_of(scenario.node_faults, slow_already)) ++node;
  const topology::Cluster cluster = make_cluster(scenario, {.node = node, .speed = 1 / slowdown});
  const strategies::Job job{
      .model = scenario.model, .training = training, .accelerator = scenario.accelerators.front(), .cluster = cluster};
  const strategies::PlannedStep step = strategies::plan_on_devices(*scenario.strategy, job, scenario.accelerators);
  return sim::to_seconds(sim::run(step.plan, sim::fold(step.plan), {}).step_time);
}

}  // namespace

std::int64_t network_adapters(const topology::Cluster& cluster) {
  std::int64_t sum = 0;
  for (std::size_t type = 0; type < cluster.node_types(); ++type)
    sum += cluster.nodes_of_type(type) * cluster.node_type(type).nics;
  return sum;
}

sim::Bytes checkpoint_bytes(const workloads::Model& model, const workloads::Training& training) {
  const workloads::Architecture architecture = workloads::describe(model, std::max<std::int64_t>(training.sequence, 1));
  const workloads::StateBytes state =
      workloads::state_bytes(training, workloads::StateLayout::master_weights, workloads::Precision::fp32,
                             workloads::factored_moments(architecture));
  const std::int64_t trained =
      training.adapters ? adapter_parameters(architecture, *training.adapters) : workloads::trained_parameters(model);
  return sim::Bytes{trained} * state.parameter + state.optimizer(trained);
}

StepFacts facts_of(const Scenario& scenario, const workloads::Training& training, const Result& result) {
  const topology::Cluster cluster = make_cluster(scenario);
  StepFacts facts;
  facts.step_s = result.step_time_s;
  facts.kernels_s = std::accumulate(result.breakdown_s.begin(), result.breakdown_s.begin() + sim::kernel_classes, 0.0);
  facts.devices = cluster.devices();
  facts.nodes = cluster.nodes();
  facts.links = network_adapters(cluster);
  facts.replicas = result.parallelism.data;
  facts.saved = checkpoint_bytes(scenario.model, training);
  facts.host_rate = scenario.node.host_rate;
  if (scenario.reliability && scenario.reliability->stragglers)
    facts.straggling_step_s = straggling_step_s(scenario, training, scenario.reliability->stragglers->slowdown);
  return facts;
}

}  // namespace trainyard::scenarios
