#include <algorithm>
#include <string>

#include "strategies/internal/megatron_planner.hpp"
#include "strategies/traffic.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::CollectiveKind;
using sim::Purpose;
using workloads::Precision;

namespace {

// Gradients of bf16 training accumulate and reduce in 32 bits, those of fp16 training in 16 (megatron/training); 8-bit
// recipes reduce in 16 (NVIDIA-NeMo/Megatron-Bridge performance recipes: grad_reduce_in_fp32 = False).
Precision usual_gradients(Precision precision) {
  if (precision == Precision::fp8) return Precision::bf16;
  return precision == Precision::fp16 ? Precision::fp16 : Precision::fp32;
}

// Megatron's fp16 recipes divide the scores by the layer's number (apply-query-key-layer-scaling, once the default),
// which flash kernels cannot: unless told otherwise, its own attention runs.
workloads::AttentionKernel usual_attention(Precision precision) {
  return precision == Precision::fp16 ? workloads::AttentionKernel::unfused : workloads::AttentionKernel::flash;
}

workloads::Training with_attention(workloads::Training training) {
  if (!training.attention) training.attention = usual_attention(training.precision);
  return training;
}

}  // namespace

MegatronPlanner::MegatronPlanner(const MegatronOptions& options, const Job& job)
    : options_(options),
      job_(job),
      training_(with_attention(job.training)),
      data_(options.data(job)),
      micro_batch_(job.training.micro_batch.value_or(1)),
      micro_batches_(job.training.global_batch / (data_ * micro_batch_)),
      chunks_(options.chunks()),
      positions_(options.pipeline * chunks_),
      vocab_(padded_vocabulary(job.model.vocab, 128 * options.tensor)),
      host_(host_profile(job.training.backend, megatron_host())),
      costs_(job.accelerator, job.cluster.devices()),
      gradients_(gradient_precision(job.training, usual_gradients(job.training.precision))),
      architecture_(workloads::describe(job.model, job.training.sequence, vocab_, job.training.documents)),
      state_(workloads::state_bytes(job.training, workloads::StateLayout::master_weights, gradients_,
                                    workloads::factored_moments(architecture_))),
      offload_(builder_, training_, host_.forward, false) {}

void MegatronPlanner::expand_model() {
  const workloads::Shard shard{
      .micro_batch = micro_batch_, .tensor = options_.tensor, .sequence_parallel = sequence_parallel()};
  workloads::KernelStyle style = workloads::fused_style();
  // Vocabulary-parallel cross entropy casts to 32 bits, subtracts the maximum, exponentiates and sums in kernels of its
  // own; backward scales and casts (megatron/core/tensor_parallel/cross_entropy.py).
  style.loss_forward_bytes = 2 + 4 + 4 + (4 + 4) + (4 + 4) + 4;
  style.loss_backward_bytes = (4 + 4) + (4 + 2);
  if (fuses_accumulation()) style.weight_gradient_bytes = 2 * state_.gradient;
  // Since Hopper cuDNN's kernel is preferred, which takes sequences outermost, as Megatron has them (NVIDIA/
  // TransformerEngine get_attention_backend).
  style.attention_output_copied = !hopper_or_later();
  style.casts_saved = true;
  style.triangular_softmax = true;  // megatron/fused_kernels/scaled_upper_triang_masked_softmax.h
  model_ = workloads::expand(architecture_, training_, shard, style, costs_);
}

void MegatronPlanner::place_layers() {
  const std::vector<std::int64_t> layers =
      options_.stage_layers.empty() ? spread_layers(model_.layers(), positions_) : options_.stage_layers;
  stages_.resize(static_cast<std::size_t>(options_.pipeline));
  std::int64_t next = 0;
  for (std::int64_t position = 0; position < positions_; ++position) {
    Stage& stage = stages_[static_cast<std::size_t>(position % options_.pipeline)];
    stage.index = position % options_.pipeline;
    const std::int64_t count = layers[static_cast<std::size_t>(position)];
    stage.layers.push_back(count);
    stage.first_layer.push_back(next);
    stage.parameters += model_.parameters(next, count);
    stage.trained += model_.trained(next, count);
    stage.frozen += model_.frozen(next, count);
    next += count;
  }
  const auto add_part = [](Stage& stage, const workloads::Layer& part) {
    stage.parameters += part.parameters;
    stage.trained += part.trained;
    stage.frozen += part.frozen;
  };
  add_part(stages_.front(), model_.embedding);
  add_part(stages_.back(), model_.head);
  if (!embedding_is_shared()) return;
  const std::int64_t matrix = vocab_ / options_.tensor * job_.model.hidden;
  stages_.back().parameters += matrix;
  if (job_.training.adapters)
    stages_.back().frozen += Bytes{matrix * 2};
  else
    stages_.back().trained += matrix;
}

void MegatronPlanner::make_streams_and_slots() {
  tensor_stream_ = builder_.stream("tensor parallel");
  send_forward_ = builder_.stream("send forward");
  receive_forward_ = builder_.stream("receive forward");
  send_backward_ = builder_.stream("send backward");
  receive_backward_ = builder_.stream("receive backward");
  data_stream_ = builder_.stream("data parallel");
  model_stream_ = builder_.stream("model parallel");
  tensor_slot_ = builder_.slot("tensor");
  data_slot_ = builder_.slot("data");
  model_slot_ = builder_.slot("model");
  embedding_slot_ = builder_.slot("embedding");
  next_ = builder_.slot("next stage");
  previous_ = builder_.slot("previous stage");
  next_gradient_ = builder_.slot("gradient from next stage");
  previous_gradient_ = builder_.slot("gradient to previous stage");
}

void MegatronPlanner::make_calls() {
  if (options_.tensor > 1) {
    with_.tensor = TensorCommunication{
        .stream = tensor_stream_,
        .slot = tensor_slot_,
        .sequence_parallel = sequence_parallel(),
        .overlaps_weight_gradients = options_.async_tensor_model_parallel_allreduce.value_or(recent_software()),
        .loss = Bytes{micro_batch_ * job_.training.sequence * 4}};
  }
  if (options_.pipeline > 1) {
    const Bytes boundary = model_.embedding.boundary;
    const Bytes message{sequence_parallel() ? boundary.count / options_.tensor : boundary.count};
    send_activation_ = builder_.call(next_, CollectiveKind::send, message, Purpose::pipeline);
    receive_activation_ = builder_.call(previous_, CollectiveKind::receive, message, Purpose::pipeline);
    send_gradient_ = builder_.call(previous_gradient_, CollectiveKind::send, message, Purpose::pipeline);
    receive_gradient_ = builder_.call(next_gradient_, CollectiveKind::receive, message, Purpose::pipeline);
  }
}

void MegatronPlanner::wire_ranks() {
  const std::vector<std::string> order = *parse_rank_order(options_.order);
  std::vector<std::int64_t> sizes;
  std::map<std::string, std::size_t> axis;
  for (std::size_t i = 0; i < order.size(); ++i) {
    axis[order[i]] = i;
    sizes.push_back(order[i] == "tp"   ? options_.tensor
                    : order[i] == "pp" ? options_.pipeline
                    : order[i] == "dp" ? data_
                                       : 1);
  }
  const RankGrid grid(sizes);
  const std::size_t stages = axis["pp"];
  sim::Plan& plan = builder_.plan();
  const auto ranks = static_cast<std::size_t>(grid.ranks());
  plan.program_of = sim::Table<sim::RankId, sim::ProgramId>(ranks);
  plan.communicators = sim::CommunicatorTable(ranks, plan.slots.size());
  for (std::size_t i = 0; i < ranks; ++i) {
    const sim::RankId rank = plan.program_of.id(i);
    plan.program_of[rank] = sim::ProgramId{static_cast<std::uint32_t>(grid.coordinate(rank, stages))};
  }
  offload_.connect(plan, grid.ranks());
  add_groups(plan.communicators, grid, {axis["tp"]}, tensor_slot_);
  add_groups(plan.communicators, grid, {axis["dp"]}, data_slot_);
  // With a distributed optimizer every data-parallel rank knows only its part of the gradient.
  std::vector<std::size_t> norm_axes{axis["tp"], axis["pp"]};
  if (options_.distributed_optimizer) norm_axes.push_back(axis["dp"]);
  add_groups(plan.communicators, grid, norm_axes, model_slot_);
  if (options_.pipeline == 1) return;
  for (std::size_t i = 0; i < ranks; ++i) {
    const sim::RankId rank = plan.program_of.id(i);
    const std::int64_t stage = grid.coordinate(rank, stages);
    if (embedding_is_shared() && stage == 0)
      plan.communicators.add({rank, grid.moved(rank, stages, options_.pipeline - 1)},
                             {embedding_slot_, embedding_slot_});
    if (stage == options_.pipeline - 1 && chunks_ == 1) continue;
    const sim::RankId next = grid.moved(rank, stages, (stage + 1) % options_.pipeline);
    plan.communicators.add({rank, next}, {next_, previous_});
    plan.communicators.add({next, rank}, {previous_gradient_, next_gradient_});
  }
}

PlannedStep MegatronPlanner::plan() {
  expand_model();
  place_layers();
  make_streams_and_slots();
  make_calls();
  make_layer_blocks();
  if (overlaps_transfers()) make_overlapped_transfers();
  for (const Stage& stage : stages_) write_program(stage);
  wire_ranks();
  PlannedStep step;
  step.parallelism = {.data = data_,
                      .tensor = options_.tensor,
                      .pipeline = options_.pipeline,
                      .context = options_.context,
                      .expert = options_.expert};
  step.micro_batch = micro_batch_;
  step.micro_batches = micro_batches_;
  step.communicator_groups = (options_.tensor > 1 ? 1 : 0) + (data_ > 1 ? 1 : 0) + (options_.pipeline > 1 ? 1 : 0);
  price_communications(builder_.plan(), job_.cluster);
  step.plan = builder_.take();
  return step;
}

PlannedStep plan_megatron(const MegatronOptions& options, const Job& job) {
  return MegatronPlanner(options, job).plan();
}

}  // namespace trainyard::strategies
