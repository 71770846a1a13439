#include <algorithm>

#include "strategies/groups.hpp"
#include "strategies/internal/deepspeed_planner.hpp"
#include "strategies/shared_ranks.hpp"
#include "strategies/traffic.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using workloads::Precision;

namespace {

bool pins(const DeepspeedOptions& options) {
  return (!options.offloads_optimizer() || options.offload_optimizer_pin_memory) &&
         (!options.offloads_parameters() || options.offload_param_pin_memory);
}

}  // namespace

DeepspeedPlanner::DeepspeedPlanner(const DeepspeedOptions& options, const Job& job)
    : options_(options),
      job_(job),
      data_(job.cluster.devices()),
      shards_(data_),
      micro_batch_(job.training.micro_batch.value_or(job.training.global_batch / data_)),
      micro_batches_(job.training.global_batch / (data_ * micro_batch_)),
      host_(host_profile(job.training.backend, eager_host())),
      costs_(job.accelerator, job.cluster.devices()),
      element_(workloads::activation_bytes(job.training.precision)),
      reduced_bytes_(workloads::element_bytes(
          gradient_precision(job.training, element_ == 2 ? Precision::bf16 : Precision::fp32))),
      architecture_(workloads::describe(job.model, job.training.sequence, 0, job.training.documents)),
      state_(workloads::state_bytes(job.training, workloads::StateLayout::master_weights, Precision::bf16,
                                    workloads::factored_moments(architecture_))),
      offload_(builder_, job.training, host_.forward, false),
      host_state_(builder_, job.cluster, pins(options)) {}

Bytes DeepspeedPlanner::working_bytes(const Part& part) const {
  return std::max(part.layer->saved_bytes({}, false) - kept_bytes(part), Bytes{}) + backward_workspace(*part.layer);
}

void DeepspeedPlanner::expand_model() {
  workloads::KernelStyle style =
      workloads::fuses_kernels(job_.training.backend) ? workloads::fused_style() : workloads::eager_style(job_.model);
  style.split_projections = job_.model.separate_projections;
  const workloads::Shard shard{.micro_batch = micro_batch_, .expert = options_.expert};
  model_ = workloads::expand(architecture_, job_.training, shard, style, costs_);
  trained_ = model_.embedding.trained + model_.trained(0, model_.layers()) + model_.head.trained;
  const std::int64_t of_experts = options_.expert > 1 ? model_.expert_trained(0, model_.layers()) : 0;
  replicas_[0] = {.ranks = data_, .trained = trained_ - of_experts};
  replicas_[1] = {.ranks = data_ / options_.expert, .trained = of_experts};
  frozen_ = model_.embedding.frozen + model_.frozen(0, model_.layers()) + model_.head.frozen;
}

void DeepspeedPlanner::list_parts() {
  const auto tensors = [&](const workloads::Layer& layer, const workloads::Block& block) {
    kind_tensors_.push_back(owned_tensors(layer, block, job_.training, job_.model.separate_projections));
    // Experts that are on all ranks are like all else.
    for (std::vector<ParameterTensor>& of_operator : kind_tensors_.back())
      for (ParameterTensor& tensor : of_operator) tensor.of_experts = tensor.of_experts && options_.expert > 1;
  };
  for (std::size_t kind = 0; kind < model_.kinds.size(); ++kind) tensors(model_.kinds[kind], architecture_.kinds[kind]);
  tensors(model_.embedding, architecture_.embedding);
  tensors(model_.head, architecture_.head);
  const auto add = [&](const workloads::Layer& layer, std::size_t kind, std::int64_t index) {
    parts_.push_back({.layer = &layer,
                      .tensors = &kind_tensors_[kind],
                      .index = static_cast<std::int32_t>(index),
                      .first_tensor = static_cast<std::uint32_t>(tensors_.size())});
    for (const std::vector<ParameterTensor>& of_operator : kind_tensors_[kind])
      tensors_.insert(tensors_.end(), of_operator.begin(), of_operator.end());
  };
  add(model_.embedding, model_.kinds.size(), -1);
  for (std::int64_t i = 0; i < model_.layers(); ++i)
    add(model_.layer(i), model_.kind_of[static_cast<std::size_t>(i)], i);
  add(model_.head, model_.kinds.size() + 1, -1);
}

void DeepspeedPlanner::make_streams() {
  gather_ = builder_.stream("all-gather");
  arrive_ = builder_.stream("gathered parameters");
  reduce_ = builder_.stream("reduce");
  fetch_events_ = builder_.stream("fetch events");
  data_slot_ = replicas_[0].slot = builder_.slot("data");
  make_expert_groups();
  secondary_slot_ = builder_.slot("secondary partition");
  node_slot_ = builder_.slot("node");
  across_slot_ = builder_.slot("across nodes");
  if (options_.offloads_optimizer() || options_.offloads_parameters()) host_state_.open();
}

// Neighbours share the experts, ranks of the same place reduce them (deepspeed/utils/groups.py).
RankGrid DeepspeedPlanner::expert_grid() const { return RankGrid({1, options_.expert, data_ / options_.expert}); }

void DeepspeedPlanner::make_expert_groups() {
  if (!job_.model.experts) return;
  with_.host_reads_loads = !job_.training.routing.capacity_factor;
  if (options_.expert == 1) return;
  replicas_[1].slot = builder_.slot("expert data");
  with_.expert = expert_communication(builder_, {.ranks = options_.expert, .top_k = job_.model.experts->top_k},
                                      expert_places(job_.cluster, expert_grid(), 1));
}

sim::StreamSet DeepspeedPlanner::all_streams() const {
  return static_cast<sim::StreamSet>(sim::set_of(sim::compute_stream) | sim::set_of(gather_) | sim::set_of(arrive_) |
                                     sim::set_of(reduce_));
}

void DeepspeedPlanner::wire_ranks() {
  sim::Plan& plan = builder_.plan();
  plan.program_of = sim::Table<sim::RankId, sim::ProgramId>(static_cast<std::size_t>(data_));
  plan.communicators = sim::CommunicatorTable(static_cast<std::size_t>(data_), plan.slots.size());
  add_groups(plan.communicators, RankGrid({data_}), {0}, data_slot_);
  if (options_.zero_stage == 3 && options_.zero_hpz_partition_size > 1)
    add_groups(plan.communicators,
               RankGrid({options_.zero_hpz_partition_size, data_ / options_.zero_hpz_partition_size}), {0},
               secondary_slot_);
  if (with_.expert) {
    connect_experts(plan.communicators, job_.cluster, expert_grid(), 1, 0, *with_.expert);
    add_groups(plan.communicators, expert_grid(), {2}, replicas_[1].slot);
  }
  if (quantizes_gradients()) {
    const RankGrid grid({data_ / job_.cluster.nodes(), job_.cluster.nodes()});
    add_groups(plan.communicators, grid, {0}, node_slot_);
    add_groups(plan.communicators, grid, {1}, across_slot_);
  }
  offload_.connect(plan, data_);
  host_state_.connect(plan, data_);
  price_communications(plan, job_.cluster);
  host_state_.price(plan);
}

PlannedStep DeepspeedPlanner::plan() {
  expand_model();
  list_parts();
  make_streams();
  sim::Program program;
  program.name = "all ranks";
  if (options_.zero_stage == 3)
    write_partitioned(program);
  else
    write_replicated(program);
  program.calls.push_back({.block = step_block()});
  write_resident(program);
  builder_.plan().programs.add(std::move(program));
  wire_ranks();
  PlannedStep step;
  step.parallelism.data = data_;
  step.parallelism.expert = options_.expert;
  step.communicator_groups = options_.expert > 1 ? 2 : 0;
  step.micro_batch = micro_batch_;
  step.micro_batches = micro_batches_;
  step.plan = builder_.take();
  return step;
}

}  // namespace trainyard::strategies
