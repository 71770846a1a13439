#include "strategies/internal/deepspeed.hpp"

#include <algorithm>

#include "strategies/checks.hpp"
#include "strategies/internal/deepspeed_partition.hpp"
#include "strategies/internal/deepspeed_planner.hpp"
#include "strategies/internal/megatron_style.hpp"
#include "strategies/search_values.hpp"

namespace trainyard::strategies {
namespace {

constexpr double most_elements = 1e12;

class Checker {
 public:
  Checker(const DeepspeedOptions& options, const Job& job) : options_(options), job_(job) {}

  std::vector<Problem> run() {
    check_model();
    check_tensor();
    check_pipeline();
    check_context();
    check_offload();
    check_groups();
    check_model_parallel(problems_, job_, options_.model_parallel());
    if (job_.cluster.devices() % options_.model_parallel() != 0) return std::move(problems_);
    check_experts();
    check_quantisation();
    append(check_batch(job_, options_.data(job_), job_.training.micro_batch.value_or(1)));
    return std::move(problems_);
  }

 private:
  void report(const std::string& key, std::string message) {
    problems_.push_back({.key = "strategy." + key, .message = std::move(message)});
  }
  void append(const std::vector<Problem>& problems) {
    problems_.insert(problems_.end(), problems.begin(), problems.end());
  }
  void from_stage(bool used, std::int64_t stage, const std::string& key, const std::string& what) {
    if (used && options_.zero_stage < stage)
      report(key, what + " needs zero_stage " + std::to_string(stage) + (stage < 3 ? " or more" : "") + ", got " +
                      std::to_string(options_.zero_stage));
  }

  std::int64_t shards() const { return options_.data(job_) * options_.context; }

  void check_model() {
    using Structure = workloads::Model::Structure;
    const workloads::Model& model = job_.model;
    if (model.structure == Structure::recommendation)
      problems_.push_back({.key = "model",
                           .message = "tables of a recommender are divided whole, not sharded by deepspeed; use "
                                      "framework 'pytorch-ddp'"});
    const auto needs_tokens = [&](const std::string& key, std::int64_t value) {
      if (value > 1 && !model.has_tokens()) report(key, "divides models of tokens; " + model.name + " is none: use 1");
    };
    needs_tokens("tensor", options_.tensor);
    needs_tokens("pipeline", options_.pipeline);
    needs_tokens("context", options_.context);
    if (model.structure != Structure::encoder_decoder) return;
    if (options_.pipeline > 1) report("pipeline", "a pipeline of encoder and decoder is not supported yet; use 1");
    if (options_.context > 1) report("context", "encoder and decoder cannot share their sequences over ranks; use 1");
  }

  void check_tensor() {
    if (options_.tensor == 1 || !job_.model.has_tokens()) return;
    check_tensor_parallel(problems_, job_, options_.tensor);
    if (job_.model.experts)
      report("tensor", "tensor parallelism beside experts is not supported yet; use 1, or framework 'megatron-lm'");
    if (!options_.sequence_parallel) return;
    require_divides(problems_, "strategy.tensor", options_.tensor, job_.training.sequence, "the sequence");
    const auto whole = [&](const std::string& key, bool in_pieces) {
      if (in_pieces && options_.pipeline > 1)
        report(key, "with sequence_parallel every rank has another part of what stages send; use false");
    };
    whole("pipe_partitioned", options_.pipe_partitioned.value_or(false));
    whole("grad_partitioned", options_.grad_partitioned.value_or(false));
  }

  // PipelineEngine.__init__ asserts that gradients and parameters are not partitioned.
  void check_pipeline() {
    if (options_.pipeline == 1) return;
    if (options_.zero_stage > 1)
      report("zero_stage", "ZeRO-2 and ZeRO-3 are incompatible with pipeline parallelism; use 1");
    const std::vector<PipelineItem> items = pipeline_items(job_.model.total_layers(), job_.model.tied_embeddings);
    if (const std::optional<std::string> problem = problem_of_method(options_.partition_method, items))
      report("partition_method", *problem);
    if (const auto most = static_cast<std::int64_t>(items.size()); options_.pipeline > most)
      report("pipeline", std::to_string(options_.pipeline) + " stages are more than embedding, layers and head; use " +
                             std::to_string(most) + " or fewer");
  }

  // Groups of layers are a matter of PipelineModule (activation_checkpoint_interval).
  void check_groups() {
    const std::int64_t every = job_.training.recompute.every;
    if (options_.pipeline == 1) return append(check_layer_groups(job_, "deepspeed without a pipeline"));
    const auto refuse = [&](const std::string& key, const std::string& message) {
      if (every > 1) problems_.push_back({.key = "training." + key, .message = message});
    };
    if (every > job_.model.total_layers())
      refuse("recompute", "groups of " + std::to_string(every) + " layers are more than the model's " +
                              std::to_string(job_.model.total_layers()));
    if (job_.training.activation_offload)
      refuse("activation_offload", "offloads what layers keep one by one; it cannot go with groups of layers");
  }

  // Ulysses divides heads for the time of the attention (deepspeed/sequence/layer.py); Megatron-DeepSpeed has it beside
  // data parallelism only (megatron/core/parallel_state.py).
  void check_context() {
    if (options_.context == 1) return;
    if (options_.of_megatron())
      report("context", "DeepSpeed's sequence parallelism does not work with tensor or pipeline parallelism; use 1");
    require_divides(problems_, "strategy.context", options_.context, job_.training.sequence, "the sequence");
    require_divides(problems_, "strategy.context", options_.context, job_.model.heads, "the attention heads");
    if (job_.model.heads % options_.context == 0)
      require_divides(problems_, "strategy.context", options_.context, job_.model.kv_heads, "the key-value heads");
  }

  // Experts are divided in stages 0 to 2 only (deepspeed/runtime/zero/stage3.py asserts it).
  void check_experts() {
    const std::int64_t expert = options_.expert;
    if (expert == 1) return;
    if (!job_.model.experts) return report("expert", job_.model.name + " has no experts; use 1");
    if (options_.zero_stage == 3)
      report("expert", "experts are not divided beside zero_stage 3; use 1, or zero_stage 2");
    require_divides(problems_, "strategy.expert", expert, job_.model.experts->count, "the experts");
    require_divides(problems_, "strategy.expert", expert, shards(),
                    options_.of_megatron() ? "the data-parallel ranks" : "the devices");
  }

  void check_offload() {
    const bool optimizer = options_.offloads_optimizer();
    from_stage(optimizer, 1, "offload_optimizer_device", "an optimizer on the host");
    from_stage(options_.offload_optimizer_device.value == "nvme", 3, "offload_optimizer_device",
               "an optimizer on drives");
    from_stage(options_.offloads_parameters(), 3, "offload_param_device", "parameters outside the device");
    from_stage(options_.offload_optimizer_ratio < 1, 3, "offload_optimizer_ratio",
               "an optimizer divided between host and device");
    if (options_.delayed_param_update && (!optimizer || options_.zero_stage == 3))
      report("delayed_param_update",
             "the update is delayed where it runs on the host, with zero_stage 1 or 2: set offload_optimizer_device "
             "to cpu, or delayed_param_update to false");
    if (optimizer && job_.training.precision != workloads::Precision::fp32 && !job_.training.master_weights)
      problems_.push_back(
          {.key = "training.master_weights", .message = "the optimizer on the host works on 32-bit weights; use true"});
    const auto& usual = job_.training.optimizer;
    using workloads::Optimizer;
    if (optimizer && usual != Optimizer::adam && usual != Optimizer::adamw)
      problems_.push_back(
          {.key = "training.optimizer", .message = "the optimizer on the host is DeepSpeedCPUAdam; use adam or adamw"});
  }

  void check_quantisation() {
    from_stage(options_.zero_quantized_weights, 3, "zero_quantized_weights", "gathering 8-bit weights");
    from_stage(options_.zero_quantized_gradients, 3, "zero_quantized_gradients", "reducing 4-bit gradients");
    from_stage(options_.zero_hpz_partition_size > 1, 3, "zero_hpz_partition_size", "a second partition");
    // Their groups are neighbours, and ranks of a node, whatever parameters those have (deepspeed/utils/groups.py).
    const auto same_parameters = [&](const std::string& key, bool used) {
      if (used && options_.tensor > 1)
        report(key,
               "is among neighbouring ranks, which have different parameters with tensor parallelism; use tensor 1");
    };
    same_parameters("zero_hpz_partition_size", options_.zero_hpz_partition_size > 1);
    same_parameters("zero_quantized_gradients", options_.zero_quantized_gradients);
    const std::int64_t devices = job_.cluster.devices();
    require_divides(problems_, "strategy.zero_hpz_partition_size", options_.zero_hpz_partition_size, devices,
                    "the devices");
    if (options_.zero_quantized_gradients && devices % job_.cluster.nodes() != 0)
      report("zero_quantized_gradients",
             "4-bit gradients go from node to node between ranks of the same place, but " + std::to_string(devices) +
                 " devices are not spread evenly over " + std::to_string(job_.cluster.nodes()) + " nodes; use " +
                 std::to_string(std::max(std::int64_t{1}, devices / job_.cluster.nodes()) * job_.cluster.nodes()) +
                 " devices, or false");
  }

  const DeepspeedOptions& options_;
  const Job& job_;
  std::vector<Problem> problems_;
};

// Bytes that ranks of a node hold in its memory: what ZeRO leaves to a rank, once for each of them.
sim::Bytes host_bytes(const DeepspeedOptions& options, const Job& job) {
  const std::int64_t nodes = job.cluster.nodes();
  const std::int64_t parameters = workloads::trained_parameters(job.model);
  std::int64_t per_parameter = 0;
  if (options.offload_optimizer_device.value == "cpu") per_parameter += 16;
  if (options.offload_param_device.value == "cpu") per_parameter += 2;
  return sim::scaled(sim::Bytes{parameters}, per_parameter, nodes);
}

}  // namespace

std::vector<sim::Key> Deepspeed::keys() {
  DeepspeedOptions& o = options_;
  return {
      {"tensor", &o.tensor,
       "ranks that share every layer, as Megatron-DeepSpeed's layers do (tensor-model-parallel-size)", false, 1,
       most_ranks},
      {"pipeline", &o.pipeline,
       "stages of the pipeline engine; with zero_stage 0 or 1. Micro-batches are gradient_accumulation_steps; "
       "training.recompute: {every: N} is activation_checkpoint_interval N",
       false, 1, most_ranks},
      {"context", &o.context,
       "ranks that share a sequence (DeepSpeed-Ulysses, ds-sequence-parallel-size): ZeRO divides over data x context "
       "ranks",
       false, 1, most_ranks},
      {"expert", &o.expert, "ranks that share the experts (ep_size); stages 0 to 2", false, 1, most_ranks},
      {"partition_method", &o.partition_method,
       "pipeline: what stages have equally much of: parameters, uniform (embedding, layers and head each count as one) "
       "or type:REGEX, which counts those whose class it is found in: EmbeddingPipe, ParallelTransformerLayerPipe, "
       "LMHeadPipe (EmbeddingPipe where embeddings are tied)"},
      {"pipe_partitioned", &o.pipe_partitioned,
       "pipeline: every tensor-parallel rank sends a part of the activations, which the next stage gathers; absent: "
       "unless sequence_parallel"},
      {"grad_partitioned", &o.grad_partitioned, "pipeline: the same of their gradients"},
      {"sequence_parallel", &o.sequence_parallel,
       "divide norms, dropout and residuals over the tensor group (sequence-parallel of Megatron-DeepSpeed)"},
      {"async_tensor_model_parallel_allreduce", &o.async_tensor_model_parallel_allreduce,
       "overlap the all-reduce of input gradients with weight gradients, as releases of Megatron-LM since the end of "
       "2021 do (with sequence_parallel always)"},
      {"zero_stage", &o.zero_stage,
       "what ranks divide: 0 nothing (in bf16 optimizer state, by BF16_Optimizer), 1 optimizer state, 2 also "
       "gradients, "
       "3 also parameters",
       false, 0, 3},
      {"overlap_comm", &o.overlap_comm,
       "reduce (and gather) beside compute; absent: in stage 3; never with a pipeline"},
      {"reduce_bucket_size", &o.reduce_bucket_size, "elements of gradients reduced at once", false, 1, most_elements},
      {"allgather_bucket_size", &o.allgather_bucket_size,
       "elements gathered at once by releases without all_gather_into_tensor; without effect here", false, 1,
       most_elements},
      {"reduce_scatter", &o.reduce_scatter, "ranks get their slices of gradients; false: all-reduce"},
      {"use_multi_rank_bucket_allreduce", &o.use_multi_rank_bucket_allreduce,
       "stages 1 and 2: slices by an all-reduce of the bucket; false: a reduction to each owner"},
      {"contiguous_gradients", &o.contiguous_gradients, "gradients are copied into a buffer of a bucket as they come"},
      {"round_robin_gradients", &o.round_robin_gradients,
       "stages 1 and 2 with an optimizer on the host: every rank owns part of each bucket"},
      {"zero12_wire_op", &o.zero12_wire_op,
       "stages 1 and 2: all_reduce, reduce or reduce_scatter instead of what the framework does (auto)"},
      {"stage3_prefetch_bucket_size", &o.stage3_prefetch_bucket_size, "elements fetched ahead at once; 0: none", false,
       0, most_elements},
      {"stage3_param_persistence_threshold", &o.stage3_param_persistence_threshold,
       "elements up to which a parameter stays on every rank", false, 0, most_elements},
      {"stage3_max_live_parameters", &o.stage3_max_live_parameters,
       "gathered elements beyond which none are fetched ahead", false, 0, most_elements},
      {"stage3_max_reuse_distance", &o.stage3_max_reuse_distance,
       "elements used until its next use within which a parameter stays gathered", false, 0, most_elements},
      {"sub_group_size", &o.sub_group_size, "stage 3: elements updated at once", false, 1, most_elements},
      {"slice_lists", &o.slice_lists,
       "stage 3 as in DeepSpeed before 0.4.4 (July 2021): every tensor is gathered, and its gradient reduced, by "
       "itself as "
       "a list of one slice for each rank, which the host cuts and copies one by one"},
      {"zero_quantized_weights", &o.zero_quantized_weights, "ZeRO++ qwZ: parameters are gathered in 8 bits"},
      {"zero_quantized_gradients", &o.zero_quantized_gradients,
       "ZeRO++ qgZ: gradients go in 4 bits, inside nodes, then between them"},
      {"zero_hpz_partition_size", &o.zero_hpz_partition_size,
       "ZeRO++ hpZ: ranks that hold a second copy of all parameters, for backward; 1: none", false, 1, most_ranks},
      {"offload_optimizer_device", &o.offload_optimizer_device,
       "where optimizer state is: none (on the device), cpu, nvme"},
      {"offload_optimizer_pin_memory", &o.offload_optimizer_pin_memory, "copies through page-locked memory"},
      {"offload_optimizer_buffer_count", &o.offload_optimizer_buffer_count,
       "buffers in host memory for nvme; takes host memory, no time", false, 1, 1024},
      {"offload_optimizer_pipeline_read", &o.offload_optimizer_pipeline_read,
       "nvme: a sub-group is read while another is updated"},
      {"offload_optimizer_pipeline_write", &o.offload_optimizer_pipeline_write,
       "nvme: a sub-group is written while another is updated"},
      {"offload_optimizer_ratio", &o.offload_optimizer_ratio, "stage 3: share of the parameters updated on the host",
       false, 0, 1},
      {"delayed_param_update", &o.delayed_param_update,
       "ZeRO-Offload's one-step delayed update: the host updates beside the next step"},
      {"offload_param_device", &o.offload_param_device,
       "stage 3: where parameters are: none (on the device), cpu, nvme"},
      {"offload_param_pin_memory", &o.offload_param_pin_memory, "copies through page-locked memory"},
      {"offload_param_buffer_count", &o.offload_param_buffer_count,
       "buffers in host memory for nvme; takes host memory, no time", false, 1, 1024},
      {"offload_param_buffer_size", &o.offload_param_buffer_size,
       "elements of such a buffer; takes host memory, no time", false, 1, most_elements},
      {"offload_param_max_in_cpu", &o.offload_param_max_in_cpu,
       "nvme: elements that stay in host memory; without effect here", false, 0, most_elements},
  };
}

std::vector<Problem> Deepspeed::check(const Job& job) const { return Checker(options_, job).run(); }

std::vector<std::string> Deepspeed::warnings(const Job& job) const {
  const DeepspeedOptions usual;
  const DeepspeedOptions& o = options_;
  std::vector<std::string> warnings = warn_without_cuda(job, "deepspeed");
  const auto without_effect = [&](bool given, const std::string& key, const std::string& why) {
    if (given) warnings.push_back("strategy." + key + " has no effect: " + why);
  };
  without_effect(o.allgather_bucket_size != usual.allgather_bucket_size, "allgather_bucket_size",
                 "all parameters are gathered at once where torch has all_gather_into_tensor");
  without_effect(o.zero_stage == 0 && o.overlap_comm.value_or(false), "overlap_comm",
                 "stage 0 reduces behind the backward pass");
  without_effect(o.pipeline > 1 && o.zero_stage > 0 && o.overlap_comm.value_or(false), "overlap_comm",
                 "the pipeline engine reduces behind all passes");
  without_effect(o.pipeline == 1 && o.partition_method != usual.partition_method, "partition_method",
                 "there is one stage");
  const bool sends_pieces = o.pipeline > 1 && o.tensor > 1;
  without_effect(!sends_pieces && (o.pipe_partitioned || o.grad_partitioned),
                 o.pipe_partitioned ? "pipe_partitioned" : "grad_partitioned",
                 "it is for tensor-parallel ranks of a pipeline");
  without_effect(o.tensor == 1 && (o.sequence_parallel || !o.async_tensor_model_parallel_allreduce),
                 o.sequence_parallel ? "sequence_parallel" : "async_tensor_model_parallel_allreduce",
                 "there is no tensor parallelism");
  if (o.tensor > job.cluster.node().devices)
    warnings.emplace_back("strategy.tensor spans several nodes: its collectives cross the network");
  const bool replicated = o.zero_stage == 1 || o.zero_stage == 2;
  without_effect(!replicated && (!o.use_multi_rank_bucket_allreduce || o.zero12_wire_op.value != "auto"),
                 o.use_multi_rank_bucket_allreduce ? "zero12_wire_op" : "use_multi_rank_bucket_allreduce",
                 "only stages 1 and 2 have a choice");
  without_effect(o.round_robin_gradients && !(replicated && o.offloads_optimizer()), "round_robin_gradients",
                 "it spreads copies to the host in stages 1 and 2");
  const bool stage3 = o.stage3_prefetch_bucket_size != usual.stage3_prefetch_bucket_size ||
                      o.stage3_max_live_parameters != usual.stage3_max_live_parameters ||
                      o.stage3_max_reuse_distance != usual.stage3_max_reuse_distance ||
                      o.stage3_param_persistence_threshold != usual.stage3_param_persistence_threshold;
  without_effect(o.zero_stage < 3 && o.slice_lists, "slice_lists", "only stage 3 has slices of single tensors");
  if (o.zero_stage < 3 && stage3) warnings.push_back("strategy.stage3_* have no effect before zero_stage 3");
  without_effect(o.zero_quantized_gradients && job.cluster.nodes() == 1, "zero_quantized_gradients",
                 "on one node gradients are reduced in full precision");
  const bool pipelined = o.offload_optimizer_pipeline_read || o.offload_optimizer_pipeline_write;
  without_effect(
      pipelined && o.offload_optimizer_device.value != "nvme",
      o.offload_optimizer_pipeline_read ? "offload_optimizer_pipeline_read" : "offload_optimizer_pipeline_write",
      "it is for offload_optimizer_device nvme");
  without_effect(o.offload_param_max_in_cpu != usual.offload_param_max_in_cpu, "offload_param_max_in_cpu",
                 "with nvme all parameters are read from the drives");
  const sim::Bytes needed = host_bytes(o, job);
  const sim::Bytes there = job.cluster.node().host_memory;
  if (there.count > 0 && needed > there)
    warnings.push_back("offloaded state takes " + std::to_string(needed.count >> 30U) +
                       " GiB of host memory in a node, which has " + std::to_string(there.count >> 30U) + " GiB");
  return warnings;
}

PlannedStep Deepspeed::plan(const Job& job) const { return DeepspeedPlanner(options_, job).plan(); }

std::vector<SearchKey> Deepspeed::search_keys(const Job& job) const {
  if (job.model.structure == workloads::Model::Structure::recommendation) return {};
  const std::string stage = "strategy.zero_stage";
  std::vector<SearchKey> keys{{.path = stage, .values = {"0", "1", "2", "3"}},
                              switch_key("strategy.overlap_comm", stage)};
  if (job.cluster.nodes() > 1)
    keys.push_back({.path = "strategy.zero_hpz_partition_size",
                    .values = {"1", std::to_string(job.cluster.devices() / job.cluster.nodes())},
                    .only_with = stage,
                    .only_value = "3"});
  if (reaches_for_offload(job)) {
    keys.push_back({.path = "strategy.offload_optimizer_device", .values = {"none", "cpu"}, .only_with = stage});
    keys.push_back(
        {.path = "strategy.offload_param_device", .values = {"none", "cpu"}, .only_with = stage, .only_value = "3"});
  }
  // Experts are not divided along with layers.
  if (job.model.experts)
    keys.push_back(sizes_key("strategy.expert", expert_sizes(job)));
  else
    keys.insert(keys.end(), {sizes_key("strategy.tensor", tensor_sizes(job)),
                             switch_key("strategy.sequence_parallel", "strategy.tensor")});
  keys.insert(keys.end(),
              {sizes_key("strategy.pipeline", pipeline_sizes(job)), sizes_key("strategy.context", context_sizes(job)),
               micro_batch_key(job), recompute_key(job)});
  // Optimizers of different stages accumulate gradients with kernels of their own, and so does the pipeline engine.
  return with_effect(std::move(keys), SearchEffect::state, {"strategy.overlap_comm"});
}

}  // namespace trainyard::strategies
