#include <algorithm>
#include <numeric>

#include "strategies/internal/pytorch_fsdp_planner.hpp"
#include "strategies/shared_ranks.hpp"
#include "strategies/traffic.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using workloads::ContextExchange;
using workloads::Fp8Recipe;
using workloads::Precision;

FsdpPlanner::FsdpPlanner(const FsdpOptions& options, const Job& job)
    : options_(options),
      job_(job),
      replicas_(options.ranks(job) / options.shards(job)),
      reshard_(*options.reshard()),
      micro_batch_(options.micro_batch(job)),
      micro_batches_(job.training.global_batch / (options.data(job) * micro_batch_)),
      // FSDP1 may wait for a unit three back (forward_prefetch).
      units_in_flight_(options.first_version() ? 4
                                               : 2 + std::max(options.modules_to_forward_prefetch,
                                                              options.modules_to_backward_prefetch - 1)),
      host_(host_profile(job.training, eager_host())),
      costs_(job.accelerator, job.cluster.devices()),
      gather_bytes_(workloads::activation_bytes(job.training.precision)),
      reduce_bytes_(workloads::element_bytes(
          gradient_precision(job.training, gather_bytes_ == 2 ? Precision::bf16 : Precision::fp32))),
      shards_columns_(options.shards_columns_of_experts(job)),
      architecture_(workloads::describe(job.model, job.training.sequence, 0, job.training.documents)),
      state_(workloads::state_bytes(job.training, workloads::StateLayout::full_precision, Precision::fp32,
                                    workloads::factored_moments(architecture_))),
      placement_(options.schedule_kind(), options.pipeline, options.chunks()),
      offload_(builder_, job.training, host_.forward, true),
      overlap_(builder_) {
  dense_.shards = options.shards(job);
  experts_.shards = options.expert_shards(job);
  if (reshard_.group == dense_.shards) reshard_.group = 0;  // resharding over all is what `true` does
}

workloads::Shard FsdpPlanner::shard() const {
  return {.micro_batch = micro_batch_,
          .tensor = options_.tensor,
          .sequence_parallel = sequence_parallel(),
          .keeps_gathered_inputs = true,
          .context = options_.context,
          .context_exchange = ContextExchange::ring,
          .expert = options_.expert,
          .expert_tensor = options_.expert_tensor};
}

void FsdpPlanner::expand_model() {
  workloads::KernelStyle style = workloads::kernel_style(job_.training, job_.model);
  if (options_.expert > 1) style.grouped_experts = true;  // torchtitan's (torchtitan/models/moe.py)
  // torchtitan compiles blocks, not the loss (pytorch/torchtitan train.py, 2024); GPT-like models stand for
  // llm-foundry's, whose loss is flash-attn's fused cross entropy: 16-bit logits and their gradient
  // (mosaicml/llm-foundry `loss_fn`).
  style.logits_bytes = job_.model.gated() ? workloads::eager_style(job_.model).logits_bytes : 4;
  // Over a tensor group the gradient is made from exponentials and their sum with it, in 32 bits beside the log-softmax
  // (pytorch/pytorch torch/distributed/tensor/parallel/loss.py).
  if (options_.tensor > 1) style.logits_bytes = 16;
  model_ = workloads::expand(architecture_, job_.training, shard(), style, costs_);
}

void FsdpPlanner::place_layers() {
  const std::vector<std::int64_t> layers =
      options_.stage_layers.empty() ? spread_layers(model_.layers(), placement_.positions()) : options_.stage_layers;
  std::vector<std::int64_t> starts(layers.size());
  std::exclusive_scan(layers.begin(), layers.end(), starts.begin(), std::int64_t{0});
  for (std::int64_t index = 0; index < options_.pipeline; ++index) {
    Stage& stage = stages_.emplace_back();
    stage.index = index;
    for (std::int64_t chunk = 0; chunk < options_.chunks(); ++chunk) {
      const auto position = static_cast<std::size_t>(placement_.position(index, chunk));
      stage.chunks.push_back({.layers = layers[position],
                              .first_layer = starts[position],
                              .has_embedding = placement_.first(index, chunk),
                              .has_head = placement_.last(index, chunk)});
    }
  }
}

FsdpPlanner::Unit FsdpPlanner::total_of(const Stage& stage) const {
  Unit total;
  const auto add = [](Part& sum, const Part& part) {
    sum.trained += part.trained;
    sum.frozen += part.frozen;
  };
  for (const Chunk& chunk : stage.chunks)
    for (std::int64_t i = root_unit; i < chunk.layers; ++i) {
      const Unit unit = i == root_unit ? root_of(chunk) : unit_of(chunk, kind_of(chunk, i));
      add(total.dense, unit.dense);
      add(total.experts, unit.experts);
    }
  return total;
}

void FsdpPlanner::make_streams_and_slots() {
  // A plan has few streams. Where chunks go both ways, those that pipelines seldom need serve for two things:
  // parameters are gathered once per step, and the stages' norm is summed up behind all reductions.
  const bool saves_streams = placement_.has_way_back();
  all_gather_ = builder_.stream("all-gather");
  copy_in_ = saves_streams ? all_gather_ : builder_.stream("all-gather copy-in");
  reduce_scatter_ = builder_.stream("reduce-scatter");
  all_reduce_ = builder_.stream("all-reduce");
  dense_.slot = dense_.after_forward = builder_.slot("shard");
  dense_.replicas = builder_.slot("replicate");
  if (reshard_.group > 0) dense_.after_forward = builder_.slot("reshard");
  experts_.slot = experts_.after_forward = builder_.slot("expert shard");
  experts_.replicas = builder_.slot("expert replicate");
  if (options_.cpu_offload) {
    from_host_ = builder_.slot("parameters from host");
    to_host_ = builder_.slot("gradients to host");
  }
  builder_.relative_events(static_cast<std::uint16_t>(2 * units_in_flight_));
}

void FsdpPlanner::make_communication() {
  if (options_.tensor > 1) {
    tensor_ = builder_.stream("tensor parallel");
    tensor_slot_ = builder_.slot("tensor");
    TensorCommunication tensor{.stream = tensor_,
                               .slot = tensor_slot_,
                               .sequence_parallel = sequence_parallel(),
                               .loss = Bytes{micro_batch_ * job_.training.sequence / options_.context * 4},
                               .gathers_inputs_again = false};
    root_with_.tensor = tensor;
    // torchao's float8 for tensor parallelism casts before the gather where a tensor has one scale
    // (torchao/float8/float8_tensor_parallel.py); the head stays in 16 bits.
    tensor.gathers_in_8_bits =
        job_.training.precision == Precision::fp8 && job_.training.fp8_recipe == Fp8Recipe::tensorwise;
    if (options_.overlap_tensor) tensor.pieces = options_.tensor;
    with_.tensor = tensor;
  }
  make_context_communication();
  // How many tokens come from each rank must be known before they are received (torchtitan/distributed/
  // expert_parallel.py).
  with_.host_reads_loads = job_.model.experts && options_.expert > 1;
  if (job_.model.experts && options_.expert * options_.expert_tensor > 1)
    with_.expert = expert_communication(
        builder_,
        {.ranks = options_.expert, .tensor_ranks = options_.expert_tensor, .top_k = job_.model.experts->top_k},
        expert_places(job_.cluster, expert_grid(), 1));
  const std::int64_t ranks = sequence_parallel() ? options_.tensor : 1;
  const PipelineMessage message{.bytes = Bytes{model_.embedding.boundary.count / ranks}};
  // Schedules of several chunks, or split passes, are run by _PipelineScheduleRuntime, which posts receives ahead
  // (pytorch/pytorch torch/distributed/pipelining/schedules.py).
  const bool posts_ahead = options_.chunks() > 1 || splits_backward(options_.schedule_kind());
  transfers_.emplace(builder_, placement_, PipelineMessages{.activations = message, .gradients = message},
                     PipelineTransfers::Manner{.order = posts_ahead ? TransferOrder::ahead : TransferOrder::at_once,
                                               .group = options_.micro_batch_group(micro_batches_),
                                               .launch = host_.forward});
  if (options_.pipeline > 1) {
    pipeline_ = placement_.has_way_back() ? all_reduce_ : builder_.stream("pipeline");
    pipeline_slot_ = builder_.slot("pipeline");
  }
}

// Both ways keys and values, and their gradients on their own, are those of a ring's steps (pytorch/pytorch
// torch/distributed/tensor/experimental/_attention.py: _templated_ring_attention and its backward, where only keys and
// values follow set_rotate_method).
void FsdpPlanner::make_context_communication() {
  if (options_.context == 1) return;
  with_.context = context_communication(builder_, ContextExchange::ring, options_.context);
  const bool gathers = options_.context_parallel_rotate_method.value == "allgather";
  if (gathers) with_.context->group = builder_.slot("context");
  with_.context->pytorch_ring =
      ContextCommunication::PytorchRing{.gathers = gathers, .gradient_width = 4 / gather_bytes_};
}

// From neighbouring ranks outwards: tensor, shards (context innermost) in two parts for resharding, replicas, stages
// (torchtitan/distributed/parallel_dims.py).
RankGrid FsdpPlanner::dense_grid() const {
  const std::int64_t inner = reshard_.group > 0 ? reshard_.group : 1;
  return RankGrid({options_.tensor, inner, dense_.shards / inner, replicas_, options_.pipeline});
}

// Experts take the tensor and the innermost shard ranks.
RankGrid FsdpPlanner::expert_grid() const {
  return RankGrid({options_.expert_tensor, options_.expert, experts_.shards, replicas_, options_.pipeline});
}

void FsdpPlanner::wire_ranks() {
  sim::Plan& plan = builder_.plan();
  const RankGrid grid = dense_grid();
  const auto ranks = static_cast<std::size_t>(grid.ranks());
  plan.program_of = sim::Table<sim::RankId, sim::ProgramId>(ranks);
  plan.communicators = sim::CommunicatorTable(ranks, plan.slots.size());
  sim::CommunicatorTable& table = plan.communicators;
  for (std::size_t i = 0; i < ranks; ++i) {
    const sim::RankId rank = plan.program_of.id(i);
    plan.program_of[rank] = sim::ProgramId{static_cast<std::uint32_t>(grid.coordinate(rank, 4))};
    if (!options_.cpu_offload) continue;
    table.add({rank}, {from_host_});
    table.add({rank}, {to_host_});
  }
  add_groups(table, grid, {1, 2}, dense_.slot);
  add_groups(table, grid, {3}, dense_.replicas);
  if (reshard_.group > 0) add_groups(table, grid, {1}, dense_.after_forward);
  if (options_.tensor > 1) add_groups(table, grid, {0}, tensor_slot_);
  if (options_.pipeline > 1) add_groups(table, grid, {4}, pipeline_slot_);
  if (with_.context)
    connect_context(
        table,
        RankGrid({options_.tensor, options_.context, dense_.shards / options_.context * replicas_, options_.pipeline}),
        1, *with_.context);
  if (job_.model.experts) {
    const RankGrid experts = expert_grid();
    add_groups(table, experts, {2}, experts_.slot);
    add_groups(table, experts, {3}, experts_.replicas);
    if (with_.expert) connect_experts(table, job_.cluster, experts, 1, 0, *with_.expert);
  }
  transfers_->connect(plan, grid, 4);
  offload_.connect(plan, grid.ranks());
  price_communications(plan, job_);
}

PlannedStep FsdpPlanner::plan() {
  expand_model();
  place_layers();
  make_streams_and_slots();
  make_communication();
  for (Stage& stage : stages_) write_program(stage);
  wire_ranks();
  PlannedStep step;
  step.parallelism = {.data = options_.data(job_),
                      .tensor = options_.tensor,
                      .pipeline = options_.pipeline,
                      .context = options_.context,
                      .expert = options_.expert};
  step.micro_batch = micro_batch_;
  step.micro_batches = micro_batches_;
  for (const std::int64_t ranks : {options_.tensor, options_.pipeline, options_.context, options_.expert})
    step.communicator_groups += ranks > 1 ? 1 : 0;
  step.communicator_groups += replicas_ > 1 ? 1 : 0;
  step.plan = builder_.take();
  return step;
}

PlannedStep plan_fsdp(const FsdpOptions& options, const Job& job) { return FsdpPlanner(options, job).plan(); }

}  // namespace trainyard::strategies
