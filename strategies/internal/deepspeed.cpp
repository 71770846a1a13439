#include "strategies/internal/deepspeed.hpp"

#include <algorithm>

#include "strategies/checks.hpp"
#include "strategies/internal/deepspeed_planner.hpp"

namespace trainyard::strategies {
namespace {

constexpr double most_elements = 1e12;

class Checker {
 public:
  Checker(const DeepspeedOptions& options, const Job& job) : options_(options), job_(job) {}

  std::vector<Problem> run() {
    check_degrees();
    check_experts();
    check_offload();
    check_quantisation();
    append(check_layer_groups(job_, "deepspeed"));
    append(check_batch(job_, job_.cluster.devices(), job_.training.micro_batch.value_or(1)));
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

  void check_degrees() {
    const auto only_one = [&](const std::string& key, std::int64_t value) {
      if (value != 1) report(key, "deepspeed with " + key + " parallelism is not supported yet; use 1");
    };
    only_one("tensor", options_.tensor);
    only_one("pipeline", options_.pipeline);
    only_one("context", options_.context);
    if (job_.model.structure == workloads::Model::Structure::recommendation)
      problems_.push_back({.key = "model",
                           .message = "tables of a recommender are divided whole, not sharded by deepspeed; use "
                                      "framework 'pytorch-ddp'"});
  }

  // Experts are divided in stages 0 to 2 only (deepspeed/runtime/zero/stage3.py asserts it).
  void check_experts() {
    const std::int64_t expert = options_.expert;
    if (expert == 1) return;
    if (!job_.model.experts) return report("expert", job_.model.name + " has no experts; use 1");
    if (options_.zero_stage == 3)
      report("expert", "experts are not divided beside zero_stage 3; use 1, or zero_stage 2");
    require_divides(problems_, "strategy.expert", expert, job_.model.experts->count, "the experts");
    require_divides(problems_, "strategy.expert", expert, job_.cluster.devices(), "the devices");
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
      {"tensor", &o.tensor, "tensor parallelism beside ZeRO", false, 1, most_ranks},
      {"pipeline", &o.pipeline, "pipeline parallelism beside ZeRO", false, 1, most_ranks},
      {"context", &o.context, "context parallelism beside ZeRO", false, 1, most_ranks},
      {"expert", &o.expert, "ranks that share the experts (ep_size); stages 0 to 2", false, 1, most_ranks},
      {"zero_stage", &o.zero_stage,
       "what ranks divide: 0 nothing, 1 optimizer state, 2 also gradients, 3 also parameters", false, 0, 3},
      {"overlap_comm", &o.overlap_comm, "reduce (and gather) beside compute; absent: in stage 3"},
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

}  // namespace trainyard::strategies
