#include "strategies/internal/colossal_planner.hpp"

#include <algorithm>

#include "strategies/groups.hpp"
#include "strategies/traffic.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using workloads::Precision;

namespace {

// Gradients are as wide as the parameters of the model.
Precision gradient_type(const Job& job) {
  const bool in_16_bits = workloads::activation_bytes(job.training.precision) == 2;
  return gradient_precision(job.training, in_16_bits ? Precision::bf16 : Precision::fp32);
}

}  // namespace

ColossalModel::ColossalModel(const ColossalOptions& with, const Job& of)
    : options(with),
      job(of),
      data(with.data(of)),
      micro_batches(of.training.global_batch / (data * with.micro_batch(of))),
      host(host_profile(of.training, eager_host())),
      costs(of.accelerator, of.cluster.devices()),
      tensor(builder, with, of),
      architecture(workloads::describe(of.model, of.training.sequence,
                                       padded_vocabulary(of.model.vocab, tensor.vocabulary_unit()),
                                       of.training.documents)),
      state(workloads::state_bytes(of.training, workloads::StateLayout::master_weights, gradient_type(of),
                                   workloads::factored_moments(architecture))) {
  expansion = workloads::expand(architecture, of.training, tensor.shard(),
                                workloads::kernel_style(of.training, of.model), costs);
}

std::vector<ColossalPart> ColossalModel::parts() const {
  std::vector<ColossalPart> parts{{.layer = &expansion.embedding, .block = &architecture.embedding}};
  for (std::int64_t i = 0; i < expansion.layers(); ++i)
    parts.push_back({.layer = &expansion.layer(i),
                     .block = &architecture.kinds[expansion.kind_of[static_cast<std::size_t>(i)]],
                     .index = static_cast<std::int32_t>(i)});
  parts.push_back({.layer = &expansion.head, .block = &architecture.head});
  return parts;
}

std::int64_t ColossalModel::trained() const {
  return expansion.embedding.trained + expansion.trained(0, expansion.layers()) + expansion.head.trained;
}

workloads::Recompute ColossalModel::recompute(const ColossalPart& part) const {
  return part.index >= 0 ? job.training.recompute : workloads::Recompute{};
}

Bytes ColossalModel::saved(const ColossalPart& part) const { return part.layer->saved_bytes(recompute(part), true); }

Bytes ColossalModel::backward_extra(const ColossalPart& part) const {
  return std::max(part.layer->saved_bytes({}, true) - saved(part), Bytes{}) + backward_workspace(*part.layer);
}

void ColossalModel::connect(sim::SlotId replicas, const ActivationOffload& offload) {
  sim::Plan& plan = builder.plan();
  const std::int64_t ranks = job.cluster.devices();
  plan.program_of = sim::Table<sim::RankId, sim::ProgramId>(static_cast<std::size_t>(ranks));
  plan.communicators = sim::CommunicatorTable(static_cast<std::size_t>(ranks), plan.slots.size());
  tensor.connect(plan.communicators, ranks);
  add_groups(plan.communicators, RankGrid({options.tensor, data}), {1}, replicas);
  offload.connect(plan, ranks);
}

PlannedStep ColossalModel::finish() {
  price_communications(builder.plan(), job.cluster);
  PlannedStep step;
  step.parallelism.data = data;
  step.parallelism.tensor = options.tensor;
  step.micro_batch = options.micro_batch(job);
  step.micro_batches = micro_batches;
  step.communicator_groups = (options.tensor > 1 ? 1 : 0) + (options.on_grid() ? 2 : 0);
  step.plan = builder.take();
  return step;
}

}  // namespace trainyard::strategies
