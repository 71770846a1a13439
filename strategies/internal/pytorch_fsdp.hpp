// PyTorch fully sharded data parallel: FSDP2 (fully_shard) and FSDP1 (FullyShardedDataParallel), composed with tensor,
// pipeline, context and expert parallelism as torchtitan does. Sources: pytorch/pytorch
// torch/distributed/fsdp/_fully_shard/{_fully_shard,_fsdp_param_group,_fsdp_collectives,_fsdp_state}.py and
// torch/distributed/fsdp/{api,_runtime_utils,_flat_param,_limiter_utils}.py; pytorch/torchtitan
// torchtitan/models/llama3/infra/{parallelize,pipeline}.py.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "strategies/pipeline_schedule.hpp"
#include "strategies/strategy.hpp"

namespace trainyard::strategies {

// What happens to gathered parameters between forward and backward.
struct Reshard {
  bool frees = true;
  std::int64_t group = 0;  // > 0: they stay sharded over groups of so many ranks
};

struct FsdpOptions {
  std::int64_t tensor = 1;
  std::int64_t pipeline = 1;
  std::int64_t context = 1;
  std::int64_t expert = 1;
  std::int64_t expert_tensor = 1;
  bool overlap_tensor = false;
  sim::Choice context_parallel_rotate_method{"allgather", {"allgather", "alltoall"}};
  sim::Choice schedule{"1f1b", {"gpipe", "1f1b", "interleaved", "zb-h1", "zb-h2", "zb-v", "dualpipe", "dualpipe-v"}};
  bool pipeline_parallel_expert_parallel_overlap = true;
  std::optional<std::int64_t> virtual_pipeline;
  std::vector<std::int64_t> stage_layers;

  std::int64_t fsdp_version = 2;
  std::optional<std::int64_t> shard;
  bool requires_gradient_sync = true;
  bool checkpoint_early_stop = true;
  bool cpu_offload = false;
  bool pin_memory = true;
  // FSDP2
  std::string reshard_after_forward = "default";
  std::int64_t modules_to_forward_prefetch = 0;
  std::int64_t modules_to_backward_prefetch = 1;
  bool enable_fsdp_float8_all_gather = false;
  // FSDP1
  sim::Choice sharding_strategy{"FULL_SHARD",
                                {"FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD", "_HYBRID_SHARD_ZERO2"}};
  sim::Choice backward_prefetch{"BACKWARD_PRE", {"BACKWARD_PRE", "BACKWARD_POST", "none"}};
  bool forward_prefetch = false;
  bool limit_all_gathers = true;

  bool first_version() const { return fsdp_version == 1; }
  std::int64_t chunks() const;  // model chunks per pipeline stage
  ScheduleKind schedule_kind() const;
  // Experts that are shared are sharded over more ranks than there are: each of their matrices on its second dimension
  // (apply_fsdp in torchtitan/models/llama4/infra/parallelize.py).
  bool shards_columns_of_experts(const Job& job) const {
    return !first_version() && expert > 1 && expert_shards(job) * expert > job.model.experts->count;
  }
  // Of micro-batches that go through a chunk together, see pipeline_schedule(): all of them, or those of a round, of
  // which there are as many as the stages go into the micro-batches (ScheduleInterleaved1F1B and
  // ScheduleInterleavedZeroBubble in pytorch/pytorch torch/distributed/pipelining/schedules.py).
  std::int64_t rounds(std::int64_t micro_batches) const { return std::max<std::int64_t>(1, micro_batches / pipeline); }
  std::int64_t micro_batch_group(std::int64_t micro_batches) const {
    return schedule_kind() == ScheduleKind::gpipe ? micro_batches : micro_batches / rounds(micro_batches);
  }
  // The two passes that DualPipe does at once run one after the other unless there are tokens to exchange meanwhile
  // (torchtitan/distributed/dual_pipe_v.py).
  bool overlaps_passes() const {
    return schedule_kind() == ScheduleKind::dualpipe_v && pipeline_parallel_expert_parallel_overlap && expert > 1;
  }
  std::int64_t data(const Job& job) const { return job.cluster.devices() / (tensor * pipeline * context); }
  // Ranks with the same part of the model: parameters are sharded and replicated over them.
  std::int64_t ranks(const Job& job) const { return job.cluster.devices() / (tensor * pipeline); }
  // Of these, the ones that hold one copy.
  std::int64_t shards(const Job& job) const;
  // The ranks that hold one copy of the same experts: the shard group and the tensor ranks, dealt out anew.
  std::int64_t expert_shards(const Job& job) const { return shards(job) * tensor / (expert * expert_tensor); }
  std::int64_t micro_batch(const Job& job) const;
  // Nothing if `reshard_after_forward` cannot be read.
  std::optional<Reshard> reshard() const;
};

// Options and job have been checked.
PlannedStep plan_fsdp(const FsdpOptions& options, const Job& job);

class PytorchFsdp final : public Strategy {
 public:
  std::vector<sim::Key> keys() override;
  std::vector<Problem> check(const Job& job) const override;
  std::vector<std::string> warnings(const Job& job) const override;
  PlannedStep plan(const Job& job) const override;
  std::vector<SearchKey> search_keys(const Job& job) const override;

 private:
  FsdpOptions options_;
};

}  // namespace trainyard::strategies
