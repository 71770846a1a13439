// Megatron-LM: tensor and sequence parallelism, pipeline schedules, data parallelism with or without the distributed
// optimizer. Sources: NVIDIA/Megatron-LM megatron/core/{tensor_parallel,pipeline_parallel,distributed}.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "strategies/groups.hpp"
#include "strategies/pipeline_placement.hpp"
#include "strategies/pipeline_schedule.hpp"
#include "strategies/shared_ranks.hpp"
#include "strategies/strategy.hpp"
#include "workloads/layers.hpp"

namespace trainyard::strategies {

struct MegatronOptions {
  std::int64_t tensor = 1;
  std::int64_t pipeline = 1;
  std::int64_t context = 1;
  std::int64_t expert = 1;
  std::int64_t expert_tensor = 1;
  sim::Choice cp_comm_type{"p2p", {"p2p", "all_gather", "a2a", "a2a+p2p"}};
  std::vector<std::int64_t> hierarchical_context_parallel_sizes;  // of all-to-alls, of rings
  sim::Choice schedule{"1f1b", {"gpipe", "1f1b", "interleaved", "zb-h1", "zb-h2", "zb-v", "dualpipe", "dualpipe-v"}};
  std::optional<std::int64_t> virtual_pipeline;
  std::optional<std::int64_t> microbatch_group_size_per_vp_stage;
  std::vector<std::int64_t> stage_layers;
  std::optional<std::int64_t> num_layers_in_first_pipeline_stage;
  std::optional<std::int64_t> num_layers_in_last_pipeline_stage;
  bool account_for_embedding_in_pipeline_split = false;
  bool account_for_loss_in_pipeline_split = false;
  bool sequence_parallel = false;
  std::optional<bool> overlap_tensor;
  bool distributed_optimizer = false;
  bool overlap_grad_reduce = false;
  bool overlap_param_gather = false;
  std::int64_t ddp_bucket_size = 0;
  std::optional<bool> gradient_accumulation_fusion;
  bool async_tensor_model_parallel_allreduce = true;
  std::optional<bool> post_validation;
  std::string order = "tp-cp-ep-dp-pp";
  std::int64_t num_distributed_optimizer_instances = 1;
  bool fp8_param_gather = false;
  sim::Choice moe_token_dispatcher_type{"auto", {"auto", "allgather", "alltoall", "flex"}};
  std::int64_t moe_router_group_topk = 0;
  std::optional<bool> moe_grouped_gemm;
  std::optional<bool> moe_permute_fusion;
  std::optional<bool> moe_router_fusion;
  bool moe_shared_expert_overlap = false;
  bool use_fp8_dispatch = false;
  std::optional<bool> overlap_moe_expert_parallel_comm;
  std::optional<bool> overlap_p2p_comm;
  std::optional<bool> scatter_gather_tensors_in_pipeline;

  std::int64_t data(const Job& job) const;  // what remains of the devices
  // Ranks that have the same experts: parallel folding gives experts an order of their own over the same ranks.
  std::int64_t expert_data(const Job& job) const { return job.cluster.devices() / (expert_tensor * expert * pipeline); }
  workloads::ContextExchange context_exchange() const;
  // Ranks of a ring; the others are those of a collective.
  std::int64_t context_ring() const {
    return context_exchange() == workloads::ContextExchange::gather ? 1 : context / context_heads();
  }
  std::int64_t context_heads() const;  // ranks that heads are divided over for the time of the attention
  // Of experts whose ranks are there, or of those that it can only be.
  workloads::TokenDispatcher dispatcher(const Job& job, const ExpertPlaces& places) const;
  // On each rank. Naming several chooses the interleaved schedule, as in Megatron, unless the schedule has two by
  // itself: those of a V, or of two copies of the model.
  std::int64_t chunks() const;
  std::int64_t micro_batch_group() const { return microbatch_group_size_per_vp_stage.value_or(pipeline); }
  ScheduleKind schedule_kind() const;
  // NVIDIA's performance recipes of dense models for Hopper and later have it on (Megatron-Bridge scripts/performance/
  // configs/llama, comm_overlap.tp_comm_overlap_cfg); Megatron-LM itself has it off.
  bool overlaps_tensor(const Job& job) const {
    return tensor > 1 && sequence_parallel &&
           overlap_tensor.value_or(job.leading_accelerator().supports(workloads::Precision::fp8));
  }
  PipelinePlacement placement() const { return {schedule_kind(), pipeline, chunks()}; }
  // Layers of each position of the placement, of a model with so many.
  std::vector<std::int64_t> position_layers(std::int64_t layers, std::int64_t further) const;
  CountedParts counted_parts() const {
    return {.embedding = account_for_embedding_in_pipeline_split, .head = account_for_loss_in_pipeline_split};
  }
  EndLayers end_layers() const {
    return {.first = num_layers_in_first_pipeline_stage, .last = num_layers_in_last_pipeline_stage};
  }
  bool validates_afterwards() const;
};

// What is about the pipeline: megatron_pipeline.cpp. Schedule, chunks and layers of stages; then, where the batch
// divides, whether the schedule can have so many micro-batches.
std::vector<sim::Key> pipeline_keys(MegatronOptions& options);
void check_pipeline(std::vector<Problem>& problems, const MegatronOptions& options, const Job& job);
void check_micro_batches(std::vector<Problem>& problems, const MegatronOptions& options, std::int64_t micro_batches,
                         std::int64_t batch_per_micro_batch);
std::vector<std::string> pipeline_warnings(const MegatronOptions& options, std::int64_t micro_batches);

// The axes in the order given, or nothing if it is no permutation of tp, cp, ep, dp and pp.
std::optional<std::vector<std::string>> parse_rank_order(const std::string& text);

// Options and job have been checked.
PlannedStep plan_megatron(const MegatronOptions& options, const Job& job);

class MegatronLm final : public Strategy {
 public:
  std::vector<sim::Key> keys() override;
  std::vector<Problem> check(const Job& job) const override;
  std::vector<std::string> warnings(const Job& job) const override;
  PlannedStep plan(const Job& job) const override;
  std::vector<SearchKey> search_keys(const Job& job) const override;

 private:
  MegatronOptions options_;
};

}  // namespace trainyard::strategies
