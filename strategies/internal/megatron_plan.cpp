#include <algorithm>
#include <numeric>
#include <string>

#include "strategies/internal/megatron_planner.hpp"
#include "strategies/traffic.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using workloads::Precision;

namespace {

// Gradients of bf16 training accumulate and reduce in 32 bits, those of fp16 training in 16 (megatron/training); 8-bit
// recipes reduce in 16 (NVIDIA-NeMo/Megatron-Bridge performance recipes: grad_reduce_in_fp32 = False).
Precision usual_gradients(Precision precision) {
  if (precision == Precision::fp8) return Precision::bf16;
  return precision == Precision::fp16 ? Precision::fp16 : Precision::fp32;
}

// Megatron's fp16 recipes divide the scores by the layer's number (apply-query-key-layer-scaling, once the default),
// which flash kernels cannot: unless told otherwise, its own attention runs. On Hopper Transformer Engine prefers
// cuDNN's kernel to FlashAttention-2 (transformer_engine/pytorch/attention get_attention_backend).
workloads::AttentionKernel usual_attention(Precision precision, const workloads::Accelerator& accelerator) {
  if (precision == Precision::fp16) return workloads::AttentionKernel::unfused;
  return accelerator.cudnn.known() ? workloads::AttentionKernel::cudnn : workloads::AttentionKernel::flash;
}

workloads::Training with_attention(workloads::Training training, const workloads::Accelerator& accelerator) {
  if (!training.attention) training.attention = usual_attention(training.precision, accelerator);
  return training;
}

}  // namespace

MegatronPlanner::MegatronPlanner(const MegatronOptions& options, const Job& job)
    : options_(options),
      job_(job),
      training_(with_attention(job.training, job.accelerator)),
      data_(options.data(job)),
      micro_batch_(job.training.micro_batch.value_or(1)),
      micro_batches_(job.training.global_batch / (data_ * micro_batch_)),
      chunks_(options.chunks()),
      placement_(options.placement()),
      vocab_(padded_vocabulary(job.model.vocab, 128 * options.tensor)),
      host_(host_profile(job.training, megatron_host())),
      costs_(job.accelerator, job.cluster.devices()),
      gradients_(gradient_precision(job.training, usual_gradients(job.training.precision))),
      architecture_(workloads::describe(job.model, job.training.sequence, vocab_, job.training.documents)),
      state_(workloads::state_bytes(job.training, workloads::StateLayout::master_weights, gradients_,
                                    workloads::factored_moments(architecture_))),
      expert_places_(places_of_experts()),
      dispatcher_(options.dispatcher(job, expert_places_)),
      offload_(builder_, training_, host_.forward, false),
      overlap_(builder_) {}

workloads::Shard MegatronPlanner::shard() const {
  return {.micro_batch = micro_batch_,
          .tensor = options_.tensor,
          .sequence_parallel = sequence_parallel(),
          .context = options_.context,
          .context_exchange = options_.context_exchange(),
          .context_heads = options_.context_heads(),
          .expert = options_.expert,
          .expert_tensor = options_.expert_tensor,
          .dispatcher = dispatcher_,
          .dispatches_in_8_bits = options_.use_fp8_dispatch};
}

workloads::KernelStyle MegatronPlanner::kernel_style() const {
  // Since Hopper cuDNN's kernel is preferred, which takes sequences outermost, as Megatron has them (NVIDIA/
  // TransformerEngine get_attention_backend).
  workloads::KernelStyle style = megatron_style(!hopper_or_later(), fuses_accumulation() ? 2 * state_.gradient : 0);
  // Megatron-Bridge's models have all three on, its performance recipes the last one; Megatron-LM itself has them off.
  style.grouped_experts = options_.moe_grouped_gemm.value_or(true);
  style.sequential_experts = !style.grouped_experts;
  style.experts_in_a_loop = true;
  style.weighted_expert_bias = style.grouped_experts;
  style.fused_permutation = options_.moe_permute_fusion.value_or(true);
  style.fused_router = options_.moe_router_fusion.value_or(true);
  return style;
}

void MegatronPlanner::expand_model() {
  model_ = workloads::expand(architecture_, training_, shard(), kernel_style(), costs_);
}

bool MegatronPlanner::has_first(const Stage& stage) const {
  for (std::int64_t chunk = 0; chunk < chunks_; ++chunk)
    if (first(stage.index, chunk)) return true;
  return false;
}

bool MegatronPlanner::has_last(const Stage& stage) const {
  for (std::int64_t chunk = 0; chunk < chunks_; ++chunk)
    if (last(stage.index, chunk)) return true;
  return false;
}

void MegatronPlanner::place_layers() {
  const std::vector<std::int64_t> layers = options_.position_layers(model_.layers(), job_.model.mtp_layers);
  std::vector<std::int64_t> starts(layers.size());
  std::exclusive_scan(layers.begin(), layers.end(), starts.begin(), std::int64_t{0});
  const auto add_part = [](Stage& stage, const workloads::Layer& part) {
    stage.parameters += part.parameters;
    stage.trained += part.trained;
    stage.expert_trained += part.expert_trained;
    stage.frozen += part.frozen;
  };
  for (std::int64_t index = 0; index < options_.pipeline; ++index) {
    Stage& stage = stages_.emplace_back();
    stage.index = index;
    for (std::int64_t chunk = 0; chunk < chunks_; ++chunk) {
      const auto position = static_cast<std::size_t>(placement_.position(index, chunk));
      stage.layers.push_back(layers[position]);
      stage.first_layer.push_back(starts[position]);
      stage.parameters += model_.parameters(starts[position], layers[position]);
      stage.trained += model_.trained(starts[position], layers[position]);
      stage.expert_trained += model_.expert_trained(starts[position], layers[position]);
      stage.frozen += model_.frozen(starts[position], layers[position]);
    }
    if (has_first(stage)) add_part(stage, model_.embedding);
    if (has_last(stage)) add_part(stage, model_.head);
  }
  if (!embedding_is_shared()) return;
  const std::int64_t matrix = vocab_ / options_.tensor * job_.model.hidden;
  stages_.back().parameters += matrix;
  if (job_.training.adapters)
    stages_.back().frozen += Bytes{matrix * 2};
  else
    stages_.back().trained += matrix;
}

PlannedStep MegatronPlanner::plan() {
  expand_model();
  place_layers();
  make_streams_and_slots();
  make_gradient_groups();
  make_calls();
  make_layer_blocks();
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
  for (const std::int64_t ranks :
       {options_.tensor, options_.pipeline, options_.context, options_.expert, options_.expert_tensor})
    step.communicator_groups += ranks > 1 ? 1 : 0;
  for (const GradientGroup& group : gradient_groups_) step.communicator_groups += group.ranks > 1 ? 1 : 0;
  price_communications(builder_.plan(), job_);
  step.plan = builder_.take();
  return step;
}

PlannedStep plan_megatron(const MegatronOptions& options, const Job& job) {
  return MegatronPlanner(options, job).plan();
}

}  // namespace trainyard::strategies
