// DeepSpeed: ZeRO stages 0 to 3 with offload, and ZeRO++. Sources: deepspeedai/DeepSpeed deepspeed/runtime/zero/
// {config,offload_config,stage_1_and_2,stage3,partitioned_param_coordinator,partition_parameters}.py and
// deepspeed/runtime/{engine,utils}.py.
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

  bool overlaps() const { return zero_stage > 0 && overlap_comm.value_or(zero_stage == 3); }
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

 private:
  DeepspeedOptions options_;
};

}  // namespace trainyard::strategies
