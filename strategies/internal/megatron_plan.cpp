#include <algorithm>
#include <array>
#include <map>
#include <numeric>

#include "strategies/internal/checks.hpp"
#include "strategies/internal/host_profile.hpp"
#include "strategies/internal/layer_ops.hpp"
#include "strategies/internal/megatron.hpp"
#include "strategies/internal/offload.hpp"
#include "strategies/traffic.hpp"
#include "workloads/layers.hpp"

namespace trainyard::strategies {
namespace {

using sim::Bytes;
using sim::CollectiveKind;
using sim::MemoryPurpose;
using sim::Purpose;
using workloads::Precision;

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

// First words of blocks, by which a trace names passes: I3 and W3 of micro-batch 3.
constexpr const char* input_pass = "input-gradients ";
constexpr const char* weight_pass = "weight-gradients ";

// PyTorch keeps one for each thread that multiplies matrices, the forward and the backward one; the size on Hopper, and
// of Megatron's deterministic mode everywhere (CUBLAS_WORKSPACE_CONFIG=:4096:8; pytorch CublasHandlePool.cpp).
constexpr Bytes cublas_workspaces{2LL * (32 << 20)};

// Transformer Engine's own for all its products (NVIDIA/TransformerEngine get_cublas_workspace_size_bytes): larger
// since Hopper.
Bytes transformer_engine_workspace(bool hopper_or_later) { return Bytes{hopper_or_later ? 32LL << 20 : 4LL << 20}; }

// Everything about one step that its blocks and programs are made from.
class Planner {
 public:
  Planner(const MegatronOptions& options, const Job& job)
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

  PlannedStep plan();

 private:
  struct Stage {
    std::int64_t index = 0;
    std::vector<std::int64_t> layers;       // of each chunk
    std::vector<std::int64_t> first_layer;  // of each chunk
    // On each rank.
    std::int64_t parameters = 0;
    std::int64_t trained = 0;
    Bytes frozen{};
  };
  struct LayerBlocks {
    sim::BlockId forward{};
    sim::BlockId backward{};
    // Where the inputs of groups of layers are kept (Recompute::every): a forward pass that keeps nothing, the one that
    // runs again, and the backward pass behind that.
    sim::BlockId forward_dropping{};
    sim::BlockId again{};
    sim::BlockId backward_only{};
    // Schedules that split the backward pass; of the head the first is the whole of it.
    sim::BlockId backward_input{};
    sim::BlockId backward_weight{};
  };
  struct OverlappedTransfers {
    std::array<sim::BlockId, 2> post{};  // in turns
    std::array<sim::BlockId, 2> await{};
    sim::BlockId send{};
  };

  bool first(std::int64_t stage, std::int64_t chunk) const { return stage == 0 && chunk == 0; }
  bool last(std::int64_t stage, std::int64_t chunk) const {
    return stage == options_.pipeline - 1 && chunk == chunks_ - 1;
  }
  // Software with flash attention also has what came at about the same time (Megatron-LM 3.0 and later).
  bool recent_software() const { return job_.training.attention != workloads::AttentionKernel::unfused; }
  // Of the accelerators that Megatron runs on, those with 8-bit products are Hopper and later.
  bool hopper_or_later() const { return job_.accelerator.supports(Precision::fp8); }
  // fp16 stands for Megatron's own modules; others are Transformer Engine's.
  bool own_attention() const {
    return training_.precision == Precision::fp16 && training_.attention == workloads::AttentionKernel::unfused;
  }
  bool fuses_accumulation() const { return options_.gradient_accumulation_fusion.value_or(recent_software()); }
  bool embedding_is_shared() const { return job_.model.tied_embeddings && options_.pipeline > 1; }
  bool sequence_parallel() const { return options_.sequence_parallel && options_.tensor > 1; }
  bool gathers_in_forward() const { return options_.overlap_param_gather && data_ > 1; }
  bool splits_backward() const { return strategies::splits_backward(options_.schedule_kind()); }
  // 1F1B and GPipe wait for every transfer; interleaved schedules overlap them (overlap_p2p_comm), and so does the
  // runtime of zero-bubble ones (sail-sg/zero-bubble megatron/core/pipeline_parallel/zerobubble).
  bool overlaps_transfers() const { return chunks_ > 1 || splits_backward(); }

  void expand_model();
  void place_layers();
  void make_streams_and_slots();
  void make_calls();
  void make_layer_blocks();
  LayerBlocks make_layer_block(const workloads::Layer& layer, bool recomputed, bool loss);
  void make_split_blocks(const workloads::Layer& layer, const workloads::Recompute& recompute, LayerBlocks& blocks);
  void make_group_blocks(const workloads::Layer& layer, LayerBlocks& blocks);
  void accumulate_gradient(BlockWriter& block, const workloads::Operator& op);
  bool recomputes_groups() const { return training_.recompute.full() && training_.recompute.every > 1; }
  void make_overlapped_transfers();
  void write_program(const Stage& stage);
  void write_blocking(sim::Program& program, const Stage& stage, const std::vector<PipelineAction>& actions);
  void write_overlapped(sim::Program& program, const Stage& stage, const std::vector<PipelineAction>& actions);
  void write_action(sim::Program& program, const Stage& stage, const PipelineAction& action);
  void write_layer_backward(sim::Program& program, std::int64_t from, std::int64_t count, std::int64_t layer,
                            std::int32_t micro_batch);
  sim::BlockId drop_input_block(const workloads::Layer& layer);
  std::vector<std::int64_t> bucket_layers(const Stage& stage, std::size_t chunk) const;
  std::int64_t bucket_parameters(const Stage& stage, std::size_t chunk, std::size_t index) const;
  std::vector<std::int64_t> gathered_buckets(const Stage& stage) const;
  void write_parameter_gather(BlockWriter& block, const std::vector<std::int64_t>& buckets, std::size_t index);
  sim::BlockId await_parameters(const std::vector<std::int64_t>& buckets, std::size_t index);
  void write_transfers(sim::Program& program, const std::optional<PipelineAction>& done,
                       const std::optional<PipelineAction>& next, const Stage& stage);
  void write_step_start(sim::Program& program, const Stage& stage);
  void write_step_end(sim::Program& program, const Stage& stage);
  std::int64_t norm_parameters(const Stage& stage) const;
  Bytes workspaces() const;
  sim::BlockId reduce_block(std::int64_t parameters);
  void wire_ranks();

  static std::size_t direction_of(const PipelineAction& action) {
    return action.kind == PipelineAction::Kind::forward ? 0 : 1;
  }
  bool receives(const Stage& stage, const PipelineAction& action) const {
    if (action.kind == PipelineAction::Kind::backward_weight) return false;
    return action.kind == PipelineAction::Kind::forward ? !first(stage.index, action.chunk)
                                                        : !last(stage.index, action.chunk);
  }
  bool sends(const Stage& stage, const PipelineAction& action) const {
    if (action.kind == PipelineAction::Kind::backward_weight) return false;
    return action.kind == PipelineAction::Kind::forward ? !last(stage.index, action.chunk)
                                                        : !first(stage.index, action.chunk);
  }

  const MegatronOptions& options_;
  const Job& job_;
  workloads::Training training_;
  std::int64_t data_;
  std::int64_t micro_batch_;
  std::int64_t micro_batches_;
  std::int64_t chunks_;
  std::int64_t positions_;
  std::int64_t vocab_;  // padded
  HostProfile host_;
  workloads::KernelCosts costs_;
  Precision gradients_;
  workloads::Architecture architecture_;
  workloads::StateBytes state_;

  PlanBuilder builder_;
  ActivationOffload offload_;
  workloads::Expansion model_;
  std::vector<Stage> stages_;

  sim::StreamId tensor_stream_{}, send_forward_{}, receive_forward_{}, send_backward_{}, receive_backward_{},
      data_stream_{}, model_stream_{};
  sim::SlotId tensor_slot_{}, data_slot_{}, model_slot_{}, embedding_slot_{}, next_{}, previous_{}, next_gradient_{},
      previous_gradient_{};
  LayerCommunication with_;  // of a layer's operators
  sim::CallId send_activation_{}, receive_activation_{}, send_gradient_{}, receive_gradient_{};
  std::vector<LayerBlocks> layers_;  // by kind
  LayerBlocks embedding_, head_;
  std::array<OverlappedTransfers, 2> transfers_{};  // of activations, of gradients
  std::map<std::int64_t, sim::BlockId> reduce_blocks_;
  std::map<Bytes, sim::BlockId> drop_input_blocks_;
  std::vector<sim::EventRef> gathered_;  // one per bucket of the stage with most of them
  std::vector<std::int64_t> gathers_;    // parameters of each bucket of the stage that is being written
  std::size_t next_gather_ = 0;
  std::map<std::pair<int, int>, sim::BlockId> transfer_blocks_;  // (sent, received)
};

void Planner::expand_model() {
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

void Planner::place_layers() {
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

void Planner::make_streams_and_slots() {
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

void Planner::make_calls() {
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

Planner::LayerBlocks Planner::make_layer_block(const workloads::Layer& layer, bool recomputed, bool loss) {
  const std::string& name = layer.name;
  const workloads::Recompute recompute = recomputed ? job_.training.recompute : workloads::Recompute{};
  const Bytes kept = layer.saved_bytes(recompute, false);
  const Bytes everything = layer.saved_bytes({}, false);
  const Bytes workspace = backward_workspace(layer);

  BlockWriter forward = builder_.block("forward " + name, host_.forward);
  forward.memory(MemoryPurpose::activations, kept);
  write_forward(forward, layer, with_);
  if (loss) {
    forward.host_work(host_.loss);
    write_loss_reductions(forward, with_);
  }
  const bool gathers_rows = &layer == &model_.embedding && with_.tensor;
  const auto rows = [&](BlockWriter& block, CollectiveKind kind) {
    block.blocking(tensor_stream_, builder_.call(tensor_slot_, kind, layer.boundary, Purpose::tensor));
  };
  if (gathers_rows) rows(forward, sequence_parallel() ? CollectiveKind::reduce_scatter : CollectiveKind::all_reduce);

  // Where passes are split, the head goes with those for inputs and the embedding with those for weights.
  const std::string pass = !splits_backward() || recomputed ? "backward " : loss ? input_pass : weight_pass;
  BlockWriter backward = builder_.block(pass + name, host_.backward);
  backward.memory(MemoryPurpose::activations, everything - kept + workspace);
  write_recompute(backward, layer, recompute, false, with_);
  if (gathers_rows && sequence_parallel()) rows(backward, CollectiveKind::all_gather);
  write_backward(backward, layer, with_,
                 [&](BlockWriter& writer, std::size_t index) { accumulate_gradient(writer, layer.operators[index]); });
  backward.memory(MemoryPurpose::activations, -(everything + workspace));
  LayerBlocks blocks;
  blocks.forward = forward.finish();
  blocks.backward = backward.finish();
  if (recomputed && recomputes_groups()) make_group_blocks(layer, blocks);
  if (splits_backward() && recomputed) make_split_blocks(layer, recompute, blocks);
  return blocks;
}

// Read the fresh gradient, read and write the accumulated one.
void Planner::accumulate_gradient(BlockWriter& block, const workloads::Operator& op) {
  if (fuses_accumulation() || op.weight_gradient.empty()) return;
  const std::int64_t traffic = workloads::activation_bytes(job_.training.precision) + 2 * state_.gradient;
  const sim::Kernel accumulate = costs_.memory_bound("accumulate gradients", Bytes{op.trained * traffic});
  block.compute({&accumulate, 1});
}

// What a layer keeps stays until its weight gradients are done.
void Planner::make_split_blocks(const workloads::Layer& layer, const workloads::Recompute& recompute,
                                LayerBlocks& blocks) {
  const Bytes everything = layer.saved_bytes({}, false);
  const Bytes workspace = backward_workspace(layer);
  BlockWriter inputs = builder_.block(input_pass + layer.name, host_.backward);
  inputs.memory(MemoryPurpose::activations, everything - layer.saved_bytes(recompute, false) + workspace);
  write_recompute(inputs, layer, recompute, false, with_);
  write_input_gradients(inputs, layer, with_);
  inputs.memory(MemoryPurpose::activations, -workspace);
  blocks.backward_input = inputs.finish();
  BlockWriter weights = builder_.block(weight_pass + layer.name, host_.backward);
  write_weight_gradients(weights, layer, with_, [&](BlockWriter& writer, std::size_t index) {
    accumulate_gradient(writer, layer.operators[index]);
  });
  weights.memory(MemoryPurpose::activations, -everything);
  blocks.backward_weight = weights.finish();
}

// recompute-num-layers with recompute-method uniform: a group's layers run again together, and all that they keep is
// there at once.
void Planner::make_group_blocks(const workloads::Layer& layer, LayerBlocks& blocks) {
  const Bytes everything = layer.saved_bytes({}, false);
  const Bytes workspace = backward_workspace(layer);
  BlockWriter dropping = builder_.block("forward " + layer.name, host_.forward);
  write_forward(dropping, layer, with_);
  blocks.forward_dropping = dropping.finish();
  BlockWriter again_block = builder_.block("recompute " + layer.name, host_.forward);
  again_block.memory(MemoryPurpose::activations, everything);
  write_recompute(again_block, layer, training_.recompute, false, with_);
  blocks.again = again_block.finish();
  BlockWriter backward = builder_.block("backward " + layer.name, host_.backward);
  backward.memory(MemoryPurpose::activations, workspace);
  write_backward(backward, layer, with_,
                 [&](BlockWriter& writer, std::size_t index) { accumulate_gradient(writer, layer.operators[index]); });
  backward.memory(MemoryPurpose::activations, -(everything + workspace));
  blocks.backward_only = backward.finish();
}

void Planner::make_layer_blocks() {
  for (const workloads::Layer& layer : model_.kinds) layers_.push_back(make_layer_block(layer, true, false));
  embedding_ = make_layer_block(model_.embedding, false, false);
  head_ = make_layer_block(model_.head, false, true);
}

sim::BlockId Planner::reduce_block(std::int64_t parameters) {
  const auto known = reduce_blocks_.find(parameters);
  if (known != reduce_blocks_.end()) return known->second;
  const CollectiveKind kind =
      options_.distributed_optimizer ? CollectiveKind::reduce_scatter : CollectiveKind::all_reduce;
  BlockWriter block = builder_.block("reduce gradients", host_.backward);
  block.communicate(data_stream_, builder_.call(data_slot_, kind, Bytes{parameters * state_.gradient}, Purpose::data));
  return reduce_blocks_[parameters] = block.finish();
}

// Layers of each bucket of a chunk, in the order of its backward pass. Buckets form on the first stage's first chunk
// only; elsewhere one bucket per chunk, since it is off the critical path (megatron/core/distributed).
std::vector<std::int64_t> Planner::bucket_layers(const Stage& stage, std::size_t chunk) const {
  const std::int64_t count = stage.layers[chunk];
  if (stage.index != 0 || chunk != 0) return {count};
  const std::int64_t size =
      options_.ddp_bucket_size > 0 ? options_.ddp_bucket_size : std::max<std::int64_t>(40'000'000, 1'000'000 * data_);
  std::vector<std::int64_t> buckets{0};
  std::int64_t filled = 0;
  for (std::int64_t i = count; i-- > 0;) {
    if (filled >= size) {
      buckets.push_back(0);
      filled = 0;
    }
    ++buckets.back();
    filled += model_.trained(stage.first_layer[chunk] + i, 1);
  }
  return buckets;
}

// Of bucket `index` in the order of the backward pass, on this rank: the last one also holds the embedding, the first
// one the head.
std::int64_t Planner::bucket_parameters(const Stage& stage, std::size_t chunk, std::size_t index) const {
  const std::vector<std::int64_t> buckets = bucket_layers(stage, chunk);
  const auto position = static_cast<std::int64_t>(chunk);
  std::int64_t end = stage.first_layer[chunk] + stage.layers[chunk];
  for (std::size_t i = 0; i < index; ++i) end -= buckets[i];
  std::int64_t parameters = model_.trained(end - buckets[index], buckets[index]);
  if (index + 1 == buckets.size() && first(stage.index, position)) parameters += model_.embedding.trained;
  if (index == 0 && last(stage.index, position)) {
    parameters += model_.head.trained;
    if (embedding_is_shared() && !job_.training.adapters) parameters += vocab_ / options_.tensor * job_.model.hidden;
  }
  return parameters;
}

// All gathers of the step, in the order in which forward passes need them.
std::vector<std::int64_t> Planner::gathered_buckets(const Stage& stage) const {
  std::vector<std::int64_t> buckets;
  for (std::size_t chunk = 0; chunk < stage.layers.size(); ++chunk)
    for (std::size_t index = bucket_layers(stage, chunk).size(); index-- > 0;)
      buckets.push_back(bucket_parameters(stage, chunk, index));
  return buckets;
}

// Posts the gather of bucket `index`, if there is one.
void Planner::write_parameter_gather(BlockWriter& block, const std::vector<std::int64_t>& buckets, std::size_t index) {
  if (index >= buckets.size()) return;
  while (gathered_.size() <= index) gathered_.push_back(builder_.event());
  block.communicate(
      data_stream_,
      builder_.call(data_slot_, CollectiveKind::all_gather, Bytes{buckets[index] * state_.parameter}, Purpose::data),
      sim::set_of(sim::compute_stream), {}, gathered_[index]);
}

// Waiting for a bucket sends for the next one.
sim::BlockId Planner::await_parameters(const std::vector<std::int64_t>& buckets, std::size_t index) {
  BlockWriter block = builder_.block("await parameters", host_.forward);
  write_parameter_gather(block, buckets, index + 1);
  block.wait_for(gathered_[index]);
  return block.finish();
}

void Planner::write_action(sim::Program& program, const Stage& stage, const PipelineAction& action) {
  const auto chunk = static_cast<std::size_t>(action.chunk);
  const auto micro_batch = static_cast<std::int32_t>(action.micro_batch);
  const auto call = [&](sim::BlockId block, std::int64_t layer) {
    program.calls.push_back({.block = block, .layer = static_cast<std::int32_t>(layer), .micro_batch = micro_batch});
  };
  const auto kind = [&](std::int64_t layer) { return model_.kind_of[static_cast<std::size_t>(layer)]; };
  const std::int64_t from = stage.first_layer[chunk];
  const std::int64_t count = stage.layers[chunk];
  if (action.kind == PipelineAction::Kind::forward) {
    std::vector<std::int64_t> starts;  // layers, within the chunk, before which a bucket must have arrived
    if (gathers_in_forward() && action.micro_batch == 0) {
      std::vector<std::int64_t> buckets = bucket_layers(stage, chunk);
      for (std::int64_t start = 0; !buckets.empty(); buckets.pop_back()) {
        starts.push_back(start);
        start += buckets.back();
      }
    }
    const auto await = [&](std::int64_t layer) {
      if (std::ranges::find(starts, layer) != starts.end()) call(await_parameters(gathers_, next_gather_++), -1);
    };
    await(0);
    if (first(stage.index, action.chunk)) call(embedding_.forward, -1);
    for (std::int64_t i = 0; i < count; ++i) {
      if (i > 0) await(i);
      const LayerBlocks& blocks = layers_[kind(from + i)];
      call(recomputes_groups() && i % training_.recompute.every != 0 ? blocks.forward_dropping : blocks.forward,
           from + i);
      offload_.after_forward(program, {model_, from, count, i, micro_batch});
    }
    if (last(stage.index, action.chunk)) call(head_.forward, -1);
    return;
  }
  if (action.kind == PipelineAction::Kind::backward_input) {
    // The head's logits are too large to keep until its weights' turn: both its gradients come at once.
    if (last(stage.index, action.chunk)) call(head_.backward, -1);
    for (std::int64_t i = count; i-- > 0;) call(layers_[kind(from + i)].backward_input, from + i);
    return;
  }
  const bool weights_alone = action.kind == PipelineAction::Kind::backward_weight;
  // Micro-batch m - 1 is the last to go backward, except under GPipe, which goes through them in reverse.
  const std::int64_t final_micro_batch = options_.schedule_kind() == ScheduleKind::gpipe ? 0 : micro_batches_ - 1;
  const bool reduces = options_.overlap_grad_reduce && data_ > 1 && action.micro_batch == final_micro_batch;
  const std::vector<std::int64_t> buckets = bucket_layers(stage, chunk);
  std::size_t bucket = 0;
  std::int64_t left = buckets.front();
  const auto reduce = [&] {
    if (!reduces) return;
    const std::int64_t parameters = bucket_parameters(stage, chunk, bucket);
    if (parameters > 0) program.calls.push_back({.block = reduce_block(parameters)});
  };
  if (last(stage.index, action.chunk) && !weights_alone) call(head_.backward, -1);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t layer = count - 1 - i;
    offload_.before_backward(program, {model_, from, count, layer, micro_batch});
    if (weights_alone)
      call(layers_[kind(from + layer)].backward_weight, from + layer);
    else
      write_layer_backward(program, from, count, layer, micro_batch);
    if (--left > 0 || bucket + 1 == buckets.size()) continue;
    reduce();
    left = buckets[++bucket];
  }
  if (first(stage.index, action.chunk)) call(embedding_.backward, -1);
  reduce();
}

// Of layer `layer` of a chunk. The first one of a group to go backward, which is its last, has the group run again; the
// group's first layer kept its input meanwhile.
void Planner::write_layer_backward(sim::Program& program, std::int64_t from, std::int64_t count, std::int64_t layer,
                                   std::int32_t micro_batch) {
  const auto blocks = [&](std::int64_t index) -> const LayerBlocks& {
    return layers_[model_.kind_of[static_cast<std::size_t>(from + index)]];
  };
  const auto call = [&](sim::BlockId block, std::int64_t index) {
    program.calls.push_back(
        {.block = block, .layer = static_cast<std::int32_t>(from + index), .micro_batch = micro_batch});
  };
  if (!recomputes_groups()) return call(blocks(layer).backward, layer);
  const std::int64_t start = layer / training_.recompute.every * training_.recompute.every;
  const std::int64_t end = std::min(start + training_.recompute.every, count);
  if (layer + 1 == end) {
    for (std::int64_t i = start; i < end; ++i) {
      if (i == start) call(drop_input_block(model_.layer(from + i)), i);
      call(blocks(i).again, i);
    }
  }
  call(blocks(layer).backward_only, layer);
}

// The input of a group is among what its first layer keeps when it runs again.
sim::BlockId Planner::drop_input_block(const workloads::Layer& layer) {
  const auto known = drop_input_blocks_.find(layer.input);
  if (known != drop_input_blocks_.end()) return known->second;
  BlockWriter block = builder_.block("take up kept input", host_.forward);
  block.memory(MemoryPurpose::activations, -layer.input);
  return drop_input_blocks_[layer.input] = block.finish();
}

// Between two actions: hand on what the first produced, and fetch what the second needs.
void Planner::write_transfers(sim::Program& program, const std::optional<PipelineAction>& done,
                              const std::optional<PipelineAction>& next, const Stage& stage) {
  const auto direction = [](bool used, const std::optional<PipelineAction>& action) {
    return !used ? 0 : action->kind == PipelineAction::Kind::forward ? 1 : 2;
  };
  const int sent = direction(done && sends(stage, *done), done);
  const int received = direction(next && receives(stage, *next), next);
  if (sent == 0 && received == 0) return;
  const std::pair key{sent, received};
  auto known = transfer_blocks_.find(key);
  if (known == transfer_blocks_.end()) {
    BlockWriter block = builder_.block("transfer", host_.forward);
    sim::StreamSet used = 0;
    const auto post = [&](sim::StreamId stream, sim::CallId call) {
      block.communicate(stream, call);
      used = static_cast<sim::StreamSet>(used | sim::set_of(stream));
    };
    if (sent == 1) post(send_forward_, send_activation_);
    if (sent == 2) post(send_backward_, send_gradient_);
    if (received == 1) post(receive_forward_, receive_activation_);
    if (received == 2) post(receive_backward_, receive_gradient_);
    // batch_p2p_sync: the host waits too, so kernels behind a transfer start with a launch.
    block.wait_for(used).host_wait(used);
    known = transfer_blocks_.emplace(key, block.finish()).first;
  }
  program.calls.push_back(
      {.block = known->second, .micro_batch = static_cast<std::int32_t>(done ? done->micro_batch : next->micro_batch)});
}

Bytes Planner::workspaces() const {
  if (!own_attention()) return cublas_workspaces + transformer_engine_workspace(hopper_or_later());
  // Scores before the softmax go to a buffer that all layers share
  // (megatron/core/transformer/dot_product_attention.py).
  const std::int64_t scores =
      micro_batch_ * (job_.model.heads / options_.tensor) * training_.sequence * training_.sequence;
  return cublas_workspaces + Bytes{scores * workloads::activation_bytes(training_.precision)};
}

void Planner::write_program(const Stage& stage) {
  sim::Program program;
  program.name = options_.pipeline > 1 ? "stage " + std::to_string(stage.index) : "all ranks";
  const std::int64_t optimizer_shards = options_.distributed_optimizer ? data_ : 1;
  program.resident[static_cast<std::size_t>(MemoryPurpose::parameters)] =
      Bytes{stage.trained * state_.parameter} + stage.frozen;
  program.resident[static_cast<std::size_t>(MemoryPurpose::gradients)] = Bytes{stage.trained * state_.gradient};
  program.resident[static_cast<std::size_t>(MemoryPurpose::optimizer)] =
      sim::scaled(state_.optimizer(stage.trained), 1, optimizer_shards);
  program.resident[static_cast<std::size_t>(MemoryPurpose::buffers)] = workspaces();

  write_step_start(program, stage);
  const std::vector<PipelineAction> actions =
      pipeline_schedule(options_.schedule_kind(), stage.index, options_.pipeline, micro_batches_, chunks_);
  if (overlaps_transfers())
    write_overlapped(program, stage, actions);
  else
    write_blocking(program, stage, actions);
  write_step_end(program, stage);
  builder_.plan().programs.add(std::move(program));
}

// Every transfer is waited for.
void Planner::write_blocking(sim::Program& program, const Stage& stage, const std::vector<PipelineAction>& actions) {
  std::optional<PipelineAction> done;
  for (const PipelineAction& action : actions) {
    write_transfers(program, done, action, stage);
    write_action(program, stage, action);
    done = action;
  }
  write_transfers(program, done, std::nullopt, stage);
}

// Receives are posted one action ahead, and nothing waits for a send.
void Planner::write_overlapped(sim::Program& program, const Stage& stage, const std::vector<PipelineAction>& actions) {
  std::array<std::size_t, 2> posted{};  // by direction
  std::array<std::size_t, 2> awaited{};
  const auto call = [&](sim::BlockId block, const PipelineAction& action) {
    program.calls.push_back({.block = block, .micro_batch = static_cast<std::int32_t>(action.micro_batch)});
  };
  const auto post = [&](const PipelineAction& action) {
    const std::size_t direction = direction_of(action);
    if (receives(stage, action)) call(transfers_[direction].post.at(posted.at(direction)++ % 2), action);
  };
  const auto transfers = [](const PipelineAction& action) {
    return action.kind != PipelineAction::Kind::backward_weight;
  };
  std::size_t next = 0;  // to post
  for (std::size_t i = 0; i < actions.size(); ++i) {
    const std::size_t direction = direction_of(actions[i]);
    // Up to the next action that may receive.
    std::size_t ahead = i + 1;
    while (ahead < actions.size() && !transfers(actions[ahead])) ++ahead;
    while (next < std::min(ahead + 1, actions.size())) post(actions[next++]);
    if (receives(stage, actions[i])) call(transfers_[direction].await.at(awaited.at(direction)++ % 2), actions[i]);
    write_action(program, stage, actions[i]);
    if (sends(stage, actions[i])) call(transfers_[direction].send, actions[i]);
  }
}

// Of activations, then of gradients. Two receives may be open, each with an event of its own.
void Planner::make_overlapped_transfers() {
  const std::array<sim::StreamId, 2> receive_streams{receive_forward_, receive_backward_};
  const std::array<sim::StreamId, 2> send_streams{send_forward_, send_backward_};
  const std::array<sim::CallId, 2> receives{receive_activation_, receive_gradient_};
  const std::array<sim::CallId, 2> sends{send_activation_, send_gradient_};
  for (std::size_t direction = 0; direction < 2; ++direction) {
    for (std::size_t turn = 0; turn < 2; ++turn) {
      const sim::EventRef arrived = builder_.event();
      BlockWriter post = builder_.block("post receive", host_.forward);
      post.communicate(receive_streams.at(direction), receives.at(direction), 0, {}, arrived);
      transfers_.at(direction).post.at(turn) = post.finish();
      BlockWriter await = builder_.block("await receive", host_.forward);
      await.wait_for(arrived);
      transfers_.at(direction).await.at(turn) = await.finish();
    }
    BlockWriter send = builder_.block("send", host_.forward);
    send.communicate(send_streams.at(direction), sends.at(direction));
    transfers_.at(direction).send = send.finish();
  }
}

// overlap_param_gather: parameters that the step before updated are gathered while forward passes go on. Only the first
// gather is exposed; each bucket that is waited for sends for the next.
void Planner::write_step_start(sim::Program& program, const Stage& stage) {
  if (!gathers_in_forward()) return;
  gathers_ = gathered_buckets(stage);
  next_gather_ = 0;
  BlockWriter block = builder_.block("gather parameters", host_.forward);
  write_parameter_gather(block, gathers_, 0);
  program.calls.push_back({.block = block.finish()});
}

// Replicated over the tensor group, each rank with the gradient of its part of the sequence.
std::int64_t Planner::norm_parameters(const Stage& stage) const {
  const auto of = [](const workloads::Layer& layer) {
    std::int64_t sum = 0;
    for (const workloads::Operator& op : layer.operators)
      if (op.role == workloads::Role::replicated) sum += op.trained;
    return sum;
  };
  std::int64_t sum = stage.index == options_.pipeline - 1 ? of(model_.head) : 0;
  for (std::size_t chunk = 0; chunk < stage.layers.size(); ++chunk)
    for (std::int64_t i = 0; i < stage.layers[chunk]; ++i) sum += of(model_.layer(stage.first_layer[chunk] + i));
  return sum;
}

// In order: gradient synchronisation, layer norms over the tensor group, tied embeddings between first and last stage,
// gradient norm over the model-parallel ranks, optimizer, gather of the parameters.
void Planner::write_step_end(sim::Program& program, const Stage& stage) {
  if (!options_.overlap_grad_reduce && data_ > 1) program.calls.push_back({.block = reduce_block(stage.trained)});
  BlockWriter block = builder_.block("optimizer step", host_.backward);
  if (data_ > 1) block.wait_for(sim::set_of(data_stream_));
  if (sequence_parallel()) {
    const Bytes norms{norm_parameters(stage) * state_.gradient};
    block.blocking(tensor_stream_, builder_.call(tensor_slot_, CollectiveKind::all_reduce, norms, Purpose::tensor));
  }
  if (embedding_is_shared() && !job_.training.adapters && (stage.index == 0 || stage.index == options_.pipeline - 1)) {
    const std::int64_t rows = vocab_ / options_.tensor;
    const Bytes matrix{rows * job_.model.hidden * state_.gradient};
    block.blocking(model_stream_,
                   builder_.call(embedding_slot_, CollectiveKind::all_reduce, matrix, Purpose::pipeline));
  }
  const std::int64_t owned = options_.distributed_optimizer ? (stage.trained + data_ - 1) / data_ : stage.trained;
  const std::vector<sim::Kernel> kernels = workloads::optimizer_kernels(job_.training, state_, owned, costs_);
  // The optimizer works on 32-bit copies of 16-bit gradients (megatron/core/optimizer/optimizer.py).
  const Bytes copies{state_.master > 0 && state_.gradient < 4 ? owned * 4 : 0};
  block.memory(MemoryPurpose::gradients, copies);
  block.compute({kernels.data(), 1});
  const bool norm_is_shared = options_.tensor * options_.pipeline > 1 || (options_.distributed_optimizer && data_ > 1);
  if (norm_is_shared && !options_.validates_afterwards())
    block.blocking(model_stream_, builder_.call(model_slot_, CollectiveKind::all_reduce, Bytes{4},
                                                options_.pipeline > 1 ? Purpose::pipeline : Purpose::tensor));
  block.host_wait(sim::set_of(model_stream_)).host_work(host_.step);
  block.compute({kernels.data() + 1, kernels.size() - 1});
  if (options_.distributed_optimizer && !options_.overlap_param_gather && data_ > 1)
    block.blocking(data_stream_, builder_.call(data_slot_, CollectiveKind::all_gather,
                                               Bytes{stage.trained * state_.parameter}, Purpose::data));
  block.memory(MemoryPurpose::gradients, -copies);
  // The timer around the optimizer synchronises with the device in older releases (_Timer in megatron/global_vars.py),
  // so the host does not run ahead into the next step.
  if (!recent_software()) block.host_wait(sim::set_of(sim::compute_stream));
  program.calls.push_back({.block = block.finish()});
}

void Planner::wire_ranks() {
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

PlannedStep Planner::plan() {
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

}  // namespace

PlannedStep plan_megatron(const MegatronOptions& options, const Job& job) { return Planner(options, job).plan(); }

}  // namespace trainyard::strategies
