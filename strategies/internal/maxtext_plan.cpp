#include <algorithm>

#include "strategies/checks.hpp"
#include "strategies/internal/maxtext_planner.hpp"
#include "strategies/shared_ranks.hpp"
#include "strategies/traffic.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using workloads::ContextExchange;
using workloads::Precision;

namespace {

// Clocks of TPUs are alike, but steps of slices are not, and all-reduces over DCN wait for the slowest of them. The
// standard deviation over the mean is calibrated on MTV5E-002 and MTV5E-010, the same step on one slice and on four.
constexpr double slice_spread = 0.043;

workloads::Accelerator paced(const Job& job) {
  workloads::Accelerator accelerator = job.accelerator;
  if (job.cluster.torus()) accelerator.clock_spread = slice_spread;
  return accelerator;
}

}  // namespace

MaxTextPlanner::MaxTextPlanner(const MaxTextOptions& options, const MeshSizes& sizes, const Job& job)
    : options_(options),
      sizes_(sizes),
      job_(job),
      mesh_(job.cluster, sizes),
      on_tpu_(job.cluster.torus().has_value()),
      micro_batch_(options.micro_batch(job, sizes)),
      pipelined_(options.pipelined(job, sizes)),
      accumulated_(job.training.global_batch / (sizes.batches() * micro_batch_ * pipelined_)),
      host_(xla_host(on_tpu_)),
      accelerator_(paced(job)),
      costs_(accelerator_, on_tpu_ ? slices_of(job.cluster).count : job.cluster.devices()),
      wire_bytes_(workloads::activation_bytes(job.training.precision)),
      reduce_bytes_(workloads::element_bytes(
          gradient_precision(job.training, wire_bytes_ == 2 ? Precision::bf16 : Precision::fp32))),
      architecture_(workloads::describe(job.model, job.training.sequence, 0, job.training.documents)),
      state_(workloads::state_bytes(job.training, workloads::StateLayout::full_precision, Precision::fp32,
                                    workloads::factored_moments(architecture_))) {
  using Axis = MeshAxis;
  dense_.shards = root_.shards = sizes.shards();
  experts_.shards = sizes.expert_shards();
  dense_.copies = experts_.copies = sizes.of(Axis::data);
  // Embedding and head are not divided into stages: all stages have them, for parts of the batch.
  root_.copies = sizes.of({Axis::data, Axis::pipeline});
}

workloads::Shard MaxTextPlanner::shard(std::int64_t micro_batch) const {
  const ContextExchange exchange = options_.context_exchange(sizes_);
  return {.micro_batch = micro_batch,
          .tensor = sizes_.tensor(),
          .sequence_parallel = sizes_.tensor() > 1,
          .context = sizes_.context(),
          .context_exchange = exchange,
          .context_heads = exchange == ContextExchange::all_to_all_and_ring ? sizes_.of(MeshAxis::sequence) : 1,
          .expert = sizes_.expert(),
          .expert_tensor = job_.model.experts ? sizes_.tensor() : 1};
}

void MaxTextPlanner::expand_model() {
  workloads::KernelStyle style = workloads::fused_style();
  style.split_projections = true;  // fused_qkv and fused_mlp are false
  // XLA makes casts and reductions part of what reads the logits: they exist in 16 bits, and so does their gradient.
  // Forward reads them for the maxima and for the sums.
  style.loss_forward_bytes = 4;
  style.loss_backward_bytes = 4;
  style.logits_bytes = 4.0 / static_cast<double>(options_.num_vocab_tiling);
  model_ = workloads::expand(architecture_, job_.training, shard(micro_batch_), style, costs_);
  root_model_ = sizes_.pipeline() == 1
                    ? model_
                    : workloads::expand(architecture_, job_.training,
                                        shard(micro_batch_ * pipelined_ / sizes_.pipeline()), style, costs_);
  const RematPolicy policy(options_.remat, job_.training);
  for (const workloads::Layer& kind : model_.kinds) remat_.push_back(policy.of(kind));
}

void MaxTextPlanner::make_streams_and_slots() {
  all_gather_ = builder_.stream("all-gather");
  reduce_scatter_ = builder_.stream("reduce-scatter");
  all_reduce_ = builder_.stream("all-reduce");
  dense_.slot = root_.slot = builder_.slot("fsdp");
  experts_.slot = builder_.slot("fsdp of experts");
  dense_.copies_slot = experts_.copies_slot = root_.copies_slot = builder_.slot("data");
  all_slot_ = builder_.slot("mesh");
  if (sizes_.pipeline() > 1) {
    root_.copies_slot = builder_.slot("data and stages");
    stage_ = builder_.stream("stages");
    stage_slot_ = builder_.slot("stages");
  }
  if (std::ranges::any_of(remat_, [](const LayerRemat& remat) { return remat.offloaded.count > 0; })) {
    to_host_ = builder_.stream("offload to host");
    from_host_ = builder_.stream("fetch from host");
    host_slot_ = builder_.slot("host");
  }
  builder_.relative_events(2);
}

// The threshold is that of XLA's partitioner for an operand (xla/service/spmd/spmd_partitioner.h,
// threshold_for_windowed_einsum_mib: 256); on GPUs it is set beyond reach (xla/debug_options_flags.cc).
TensorCommunication MaxTextPlanner::tensor_communication(std::int64_t micro_batch, bool in_pieces) const {
  return {.stream = tensor_,
          .slot = tensor_slot_,
          .sequence_parallel = true,
          .loss = Bytes{micro_batch * job_.training.sequence / sizes_.context() * 4},
          .pieces = in_pieces ? sizes_.tensor() : 1};
}

void MaxTextPlanner::make_communication() {
  if (sizes_.tensor() > 1) {
    constexpr Bytes threshold{std::int64_t{256} << 20};
    const auto in_pieces = [&](const workloads::Layer& reads) {
      return options_.overlap_tensor.value_or(on_tpu_ && reads.boundary >= threshold);
    };
    tensor_ = builder_.stream("tensor parallel");
    tensor_slot_ = builder_.slot("tensor");
    with_.tensor = tensor_communication(micro_batch_, in_pieces(model_.embedding));
    root_with_.tensor =
        tensor_communication(micro_batch_ * pipelined_ / sizes_.pipeline(), in_pieces(root_model_.embedding));
  }
  if (sizes_.context() > 1) {
    const ContextExchange exchange = options_.context_exchange(sizes_);
    with_.context = context_communication(
        builder_, exchange,
        exchange == ContextExchange::all_to_all_and_ring ? sizes_.of(MeshAxis::sequence) : sizes_.context());
  }
  if (job_.model.experts && sizes_.expert() * sizes_.tensor() > 1)
    with_.expert = expert_communication(
        builder_, {.ranks = sizes_.expert(), .tensor_ranks = sizes_.tensor(), .top_k = job_.model.experts->top_k}, {});
  ring_.emplace(builder_, sizes_.pipeline(), Bytes{model_.embedding.boundary.count / sizes_.tensor()}, host_.forward);
}

void MaxTextPlanner::wire_context(sim::CommunicatorTable& table) const {
  using Axis = MeshAxis;
  if (!with_.context) return;
  const bool rings_among_groups = with_.context->exchange == ContextExchange::all_to_all_and_ring;
  if (with_.context->exchange != ContextExchange::ring)
    add_groups(
        table, mesh_.grid(),
        rings_among_groups ? mesh_.grid_axes({Axis::sequence}) : mesh_.grid_axes({Axis::sequence, Axis::context}),
        with_.context->group);
  if (!rings_among_groups && with_.context->exchange != ContextExchange::ring) return;
  for (std::int64_t i = 0; i < mesh_.grid().ranks(); ++i) {
    const sim::RankId rank{static_cast<std::uint32_t>(i)};
    table.add({rank, mesh_.next(rank, Axis::context)}, {with_.context->next, with_.context->previous});
  }
}

void MaxTextPlanner::wire_ranks() {
  using Axis = MeshAxis;
  sim::Plan& plan = builder_.plan();
  const RankGrid& grid = mesh_.grid();
  const auto ranks = static_cast<std::size_t>(grid.ranks());
  plan.program_of = sim::Table<sim::RankId, sim::ProgramId>(ranks);
  plan.communicators = sim::CommunicatorTable(ranks, plan.slots.size());
  sim::CommunicatorTable& table = plan.communicators;
  const bool offloads = std::ranges::any_of(remat_, [](const LayerRemat& remat) { return remat.offloaded.count > 0; });
  for (std::size_t i = 0; i < ranks; ++i) {
    const sim::RankId rank = plan.program_of.id(i);
    plan.program_of[rank] = sim::ProgramId{static_cast<std::uint32_t>(mesh_.coordinate(rank, Axis::pipeline))};
    if (offloads) table.add({rank}, {host_slot_});
  }
  const auto add = [&](sim::SlotId slot, std::initializer_list<Axis> axes) {
    add_groups(table, grid, mesh_.grid_axes(axes), slot);
  };
  add(dense_.slot, {Axis::fsdp, Axis::fsdp_transpose, Axis::sequence, Axis::context, Axis::expert});
  add(experts_.slot, {Axis::fsdp, Axis::fsdp_transpose, Axis::sequence, Axis::context});
  add(dense_.copies_slot, {Axis::data});
  add_groups(table, grid,
             mesh_.grid_axes({Axis::data, Axis::pipeline, Axis::fsdp, Axis::fsdp_transpose, Axis::sequence,
                              Axis::context, Axis::tensor, Axis::tensor_sequence, Axis::expert}),
             all_slot_);
  if (sizes_.pipeline() > 1) {
    add(root_.copies_slot, {Axis::data, Axis::pipeline});
    add(stage_slot_, {Axis::pipeline});
  }
  if (with_.tensor) add(tensor_slot_, {Axis::tensor, Axis::tensor_sequence});
  if (with_.expert && with_.expert->tensor) add(*with_.expert->tensor, {Axis::tensor, Axis::tensor_sequence});
  if (with_.expert && with_.expert->group) add(*with_.expert->group, {Axis::expert});
  wire_context(table);
  ring_->connect(plan, [&](sim::RankId rank) { return mesh_.next(rank, Axis::pipeline); });
  price_communications(plan, job_);
}

PlannedStep MaxTextPlanner::plan() {
  expand_model();
  make_streams_and_slots();
  make_communication();
  for (std::int64_t stage = 0; stage < sizes_.pipeline(); ++stage) write_program(stage);
  wire_ranks();
  PlannedStep step;
  step.parallelism = {.data = job_.cluster.devices() / (sizes_.tensor() * sizes_.pipeline() * sizes_.context()),
                      .tensor = sizes_.tensor(),
                      .pipeline = sizes_.pipeline(),
                      .context = sizes_.context(),
                      .expert = sizes_.expert()};
  step.micro_batch = micro_batch_;
  step.micro_batches = pipelined_ * accumulated_;
  // On GPUs every set of ranks has a communicator of NCCL.
  if (!on_tpu_)
    for (const std::int64_t ranks : {sizes_.shards(), sizes_.of(MeshAxis::data), sizes_.tensor(), sizes_.pipeline(),
                                     sizes_.context(), sizes_.expert()})
      step.communicator_groups += ranks > 1 && ranks < job_.cluster.devices() ? 1 : 0;
  step.static_buffers = on_tpu_;
  step.plan = builder_.take();
  return step;
}

PlannedStep plan_maxtext(const MaxTextOptions& options, const MeshSizes& sizes, const Job& job) {
  return MaxTextPlanner(options, sizes, job).plan();
}

}  // namespace trainyard::strategies
