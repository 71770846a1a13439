// DeepSpeed: ZeRO stages 0 to 3 with offload, and ZeRO++; beside them its pipeline engine, the tensor parallelism of
// Megatron-DeepSpeed's layers, and sequences that ranks share (Ulysses). Sources: deepspeedai/DeepSpeed
// deepspeed/runtime/zero/{config,offload_config,stage_1_and_2,stage3,partitioned_param_coordinator,
// partition_parameters}.py, deepspeed/runtime/{engine,utils,bf16_optimizer}.py, deepspeed/runtime/pipe/{engine,module,
// schedule,p2p,topology}.py, deepspeed/sequence/layer.py; microsoft/Megatron-DeepSpeed
// megatron/core/parallel_state.py.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "strategies/strategy.hpp"

namespace trainyard::strategies {

// Sizes count elements, as DeepSpeed's do.
struct DeepspeedOptions {
  std::int64_t tensor = 1;
  std::int64_t pipeline = 1;
  std::int64_t context = 1;
  std::int64_t expert = 1;

  std::string partition_method = "parameters";
  std::optional<bool> pipe_partitioned;  // absent: unless sequence_parallel
  std::optional<bool> grad_partitioned;
  bool sequence_parallel = false;
  bool async_tensor_model_parallel_allreduce = true;

  std::int64_t zero_stage = 0;
  std::optional<bool> overlap_comm;  // absent: in stage 3
  std::int64_t reduce_bucket_size = 500'000'000;
  std::int64_t allgather_bucket_size = 500'000'000;
  bool reduce_scatter = true;
  bool use_multi_rank_bucket_allreduce = true;
  bool contiguous_gradients = true;
  bool round_robin_gradients = false;
  sim::Choice zero12_wire_op{"auto", {"auto", "all_reduce", "reduce", "reduce_scatter"}};

  std::int64_t stage3_prefetch_bucket_size = 50'000'000;
  std::int64_t stage3_param_persistence_threshold = 100'000;
  std::int64_t stage3_max_live_parameters = 1'000'000'000;
  std::int64_t stage3_max_reuse_distance = 1'000'000'000;
  std::int64_t sub_group_size = 1'000'000'000;
  bool slice_lists = false;

  bool zero_quantized_weights = false;
  bool zero_quantized_gradients = false;
  std::int64_t zero_hpz_partition_size = 1;

  sim::Choice offload_optimizer_device{"none", {"none", "cpu", "nvme"}};
  bool offload_optimizer_pin_memory = true;
  std::int64_t offload_optimizer_buffer_count = 4;
  bool offload_optimizer_pipeline_read = false;
  bool offload_optimizer_pipeline_write = false;
  double offload_optimizer_ratio = 1;
  bool delayed_param_update = false;
  sim::Choice offload_param_device{"none", {"none", "cpu", "nvme"}};
  bool offload_param_pin_memory = true;
  std::int64_t offload_param_buffer_count = 5;
  std::int64_t offload_param_buffer_size = 100'000'000;
  std::int64_t offload_param_max_in_cpu = 1'000'000'000;

  // Without effect under the pipeline engine, which turns it off (deepspeed/runtime/engine.py,
  // _configure_zero_optimizer).
  bool overlaps() const { return zero_stage > 0 && pipeline == 1 && overlap_comm.value_or(zero_stage == 3); }
  std::int64_t model_parallel() const { return tensor * pipeline * context; }
  std::int64_t data(const Job& job) const { return job.cluster.devices() / model_parallel(); }
  // Models that are divided by layers or inside them are Megatron-DeepSpeed's.
  bool of_megatron() const { return tensor > 1 || pipeline > 1; }
  bool divides_sequence() const { return sequence_parallel && tensor > 1; }
  // Of what stages send each other, every tensor-parallel rank sends a part, which the receivers gather.
  bool sends_pieces_of_activations() const { return tensor > 1 && pipe_partitioned.value_or(!sequence_parallel); }
  bool sends_pieces_of_gradients() const { return tensor > 1 && grad_partitioned.value_or(!sequence_parallel); }
  bool offloads_optimizer() const { return offload_optimizer_device.value != "none"; }
  bool offloads_parameters() const { return offload_param_device.value != "none"; }
  bool uses_drives() const { return offload_optimizer_device.value == "nvme" || offload_param_device.value == "nvme"; }
};

class Deepspeed final : public Strategy {
 public:
  std::vector<sim::Key> keys() override;
  std::vector<Problem> check(const Job& job) const override;
  std::vector<std::string> warnings(const Job& job) const override;
  PlannedStep plan(const Job& job) const override;
  std::vector<SearchKey> search_keys(const Job& job) const override;

 private:
  DeepspeedOptions options_;
};

}  // namespace trainyard::strategies
