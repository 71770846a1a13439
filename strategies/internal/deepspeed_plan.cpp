#include <algorithm>
#include <numeric>
#include <variant>

#include "strategies/internal/deepspeed_partition.hpp"
#include "strategies/internal/deepspeed_planner.hpp"
#include "strategies/internal/megatron_style.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::MemoryPurpose;
using workloads::Precision;

namespace {

bool pins(const DeepspeedOptions& options) {
  return (!options.offloads_optimizer() || options.offload_optimizer_pin_memory) &&
         (!options.offloads_parameters() || options.offload_param_pin_memory);
}

bool adds_up_in_32_bits(const DeepspeedOptions& options, const workloads::Training& training) {
  return options.zero_stage == 0 && training.master_weights && training.precision != Precision::fp16 &&
         workloads::activation_bytes(training.precision) == 2;
}

// Under a pipeline engine micro-batches are what fills the pipeline (train_micro_batch_size_per_gpu has no default).
std::int64_t usual_micro_batch(const DeepspeedOptions& options, const Job& job) {
  return options.pipeline > 1 ? 1 : job.training.global_batch / options.data(job);
}

// Vocabularies of Megatron-DeepSpeed are padded as Megatron-LM's (make-vocab-size-divisible-by).
std::int64_t vocabulary(const DeepspeedOptions& options, const workloads::Model& model) {
  return options.of_megatron() ? padded_vocabulary(model.vocab, 128 * options.tensor) : model.vocab;
}

// The operator of a head that uses the embedding's matrix, if there is one.
std::string tied_operation(const workloads::Block& head) {
  for (const workloads::Operation& operation : head.operations)
    if (const auto* linear = std::get_if<workloads::LinearWork>(&operation.work))
      if (linear->tied) return operation.name;
  return {};
}

}  // namespace

DeepspeedPlanner::DeepspeedPlanner(const DeepspeedOptions& options, const Job& job)
    : options_(options),
      job_(job),
      data_(options.data(job)),
      shards_(data_ * options.context),
      micro_batch_(job.training.micro_batch.value_or(usual_micro_batch(options, job))),
      micro_batches_(job.training.global_batch / (data_ * micro_batch_)),
      host_(host_profile(job.training, options.of_megatron() ? megatron_host() : eager_host())),
      costs_(job.accelerator, job.cluster.devices()),
      element_(workloads::activation_bytes(job.training.precision)),
      reduced_bytes_(workloads::element_bytes(
          gradient_precision(job.training, element_ == 2 ? Precision::bf16 : Precision::fp32))),
      wide_gradients_(adds_up_in_32_bits(options, job.training)),
      architecture_(workloads::describe(job.model, job.training.sequence, vocabulary(options, job.model),
                                        job.training.documents)),
      state_(workloads::state_bytes(job.training, workloads::StateLayout::master_weights,
                                    wide_gradients_ ? Precision::fp32 : Precision::bf16,
                                    workloads::factored_moments(architecture_))),
      offload_(builder_, job.training, host_.forward, false),
      host_state_(builder_, job.cluster, pins(options)) {}

Bytes DeepspeedPlanner::working_bytes(const Part& part) const {
  return std::max(part.layer->saved_bytes({}, false) - kept_bytes(part), Bytes{}) + backward_workspace(*part.layer);
}

workloads::KernelStyle DeepspeedPlanner::style() const {
  // Flash attention takes the batch outermost, which Megatron has second; products leave gradients to be added up.
  if (options_.of_megatron()) return megatron_style(true, 0);
  return workloads::kernel_style(job_.training, job_.model);
}

void DeepspeedPlanner::expand_model() {
  const workloads::Shard shard{.micro_batch = micro_batch_,
                               .tensor = options_.tensor,
                               .sequence_parallel = options_.divides_sequence(),
                               .context = options_.context,
                               .context_exchange = workloads::ContextExchange::all_to_all,
                               .expert = options_.expert};
  model_ = workloads::expand(architecture_, job_.training, shard, style(), costs_);
}

// Of the matrix that embedding and head share, what a rank of the last stage has.
std::int64_t DeepspeedPlanner::shared_matrix() const {
  return vocabulary(options_, job_.model) / options_.tensor * job_.model.hidden;
}

void DeepspeedPlanner::list_tensors() {
  const bool separate = job_.model.separate_projections && !options_.of_megatron();
  const auto tensors = [&](const workloads::Layer& layer, const workloads::Block& block) {
    kind_tensors_.push_back(owned_tensors(layer, block, job_.training, separate, options_.tensor));
    // Experts that are on all ranks are like all else.
    for (std::vector<ParameterTensor>& of_operator : kind_tensors_.back())
      for (ParameterTensor& tensor : of_operator) tensor.of_experts = tensor.of_experts && options_.expert > 1;
  };
  for (std::size_t kind = 0; kind < model_.kinds.size(); ++kind) tensors(model_.kinds[kind], architecture_.kinds[kind]);
  tensors(model_.embedding, architecture_.embedding);
  tensors(model_.head, architecture_.head);
  tied_ = tied_operation(architecture_.head);
  if (!embedding_is_shared()) return;
  for (std::size_t i = 0; i < model_.head.operators.size(); ++i)
    if (model_.head.operators[i].name == tied_)
      kind_tensors_.back()[i].push_back({.elements = shared_matrix(),
                                         .bytes = Bytes{shared_matrix() * element_},
                                         .trained = !job_.training.adapters,
                                         .matrix = true});
}

void DeepspeedPlanner::place_layers() {
  std::vector<PipelineItem> items = pipeline_items(model_.layers(), job_.model.tied_embeddings);
  const auto count = static_cast<std::int64_t>(items.size());
  items.front().trained = model_.embedding.trained;
  for (std::int64_t i = 0; i < model_.layers(); ++i)
    items[static_cast<std::size_t>(i) + 1].trained = model_.layer(i).trained;
  items.back().trained = model_.head.trained + (embedding_is_shared() ? shared_matrix() : 0);
  const std::vector<std::int64_t> bounds = partition_items(options_.partition_method, items, options_.pipeline);
  for (std::int64_t index = 0; index < options_.pipeline; ++index) {
    const std::int64_t begin = bounds[static_cast<std::size_t>(index)];
    const std::int64_t end = bounds[static_cast<std::size_t>(index) + 1];
    Stage stage{.index = index, .has_embedding = begin == 0, .has_head = end == count};
    stage.first_layer = std::max<std::int64_t>(begin - 1, 0);
    stage.layers = std::min(end - 1, model_.layers()) - stage.first_layer;
    stages_.push_back(stage);
  }
}

void DeepspeedPlanner::take_up(const Stage& stage) {
  stage_ = stage;
  parts_.clear();
  tensors_.clear();
  forward_blocks_.clear();
  backward_blocks_.clear();
  const auto add = [&](const workloads::Layer& layer, std::size_t kind, std::int64_t index) {
    parts_.push_back({.layer = &layer,
                      .tensors = &kind_tensors_[kind],
                      .index = static_cast<std::int32_t>(index),
                      .first_tensor = static_cast<std::uint32_t>(tensors_.size())});
    for (const std::vector<ParameterTensor>& of_operator : kind_tensors_[kind])
      tensors_.insert(tensors_.end(), of_operator.begin(), of_operator.end());
  };
  if (stage.has_embedding) add(model_.embedding, model_.kinds.size(), -1);
  for (std::int64_t i = stage.first_layer; i < stage.first_layer + stage.layers; ++i)
    add(model_.layer(i), model_.kind_of[static_cast<std::size_t>(i)], i);
  if (stage.has_head) add(model_.head, model_.kinds.size() + 1, -1);
  trained_ = 0;
  frozen_ = {};
  std::int64_t of_experts = 0;
  for (const ParameterTensor& tensor : tensors_) {
    if (tensor.trained) trained_ += tensor.elements;
    if (tensor.trained && tensor.of_experts) of_experts += tensor.elements;
    if (!tensor.trained) frozen_ += tensor.bytes;
  }
  replicas_[0].trained = trained_ - of_experts;
  replicas_[1].trained = of_experts;
}

void DeepspeedPlanner::write_program(const Stage& stage) {
  take_up(stage);
  sim::Program program;
  program.name = options_.pipeline > 1 ? "stage " + std::to_string(stage.index) : "all ranks";
  if (options_.zero_stage == 3)
    write_partitioned(program);
  else
    write_replicated(program);
  program.calls.push_back({.block = step_block()});
  write_resident(program);
  builder_.plan().programs.add(std::move(program));
}

PlannedStep DeepspeedPlanner::plan() {
  expand_model();
  list_tensors();
  place_layers();
  make_streams();
  make_communication();
  make_transfers();
  for (const Stage& stage : stages_) write_program(stage);
  wire_ranks();
  PlannedStep step;
  step.parallelism = {.data = data_,
                      .tensor = options_.tensor,
                      .pipeline = options_.pipeline,
                      .context = options_.context,
                      .expert = options_.expert};
  step.communicator_groups = communicator_groups();
  step.micro_batch = micro_batch_;
  step.micro_batches = micro_batches_;
  step.plan = builder_.take();
  return step;
}

}  // namespace trainyard::strategies
