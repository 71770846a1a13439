// Colossal-AI: the plug-ins Gemini, LowLevelZero and HybridParallel of its Booster (colossalai/booster/plugin/
// {gemini,low_level_zero,hybrid_parallel}_plugin.py), and the tensor parallelism of its Engine in one to three
// dimensions (colossalai/legacy/nn/layer/parallel_{1d,2d,2p5d,3d}), both of hpcaitech/ColossalAI.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "strategies/strategy.hpp"

namespace trainyard::strategies {

enum class ColossalMode : std::uint8_t { one, two, two_and_a_half, three };

struct ColossalOptions {
  std::int64_t tensor = 1;
  std::int64_t pipeline = 1;
  std::int64_t context = 1;
  std::int64_t expert = 1;
  sim::Choice mode{"1d", {"1d", "2d", "2.5d", "3d"}};
  std::optional<std::int64_t> depth;
  sim::Choice plugin{"auto", {"auto", "engine", "gemini", "low-level-zero", "torch-ddp", "hybrid-parallel"}};

  // GeminiPlugin
  sim::Choice placement_policy{"static", {"static", "auto"}};
  double shard_param_frac = 1;
  double offload_optim_frac = 0;
  double offload_param_frac = 0;
  double warmup_non_model_data_ratio = 0.8;
  double steady_cuda_cap_ratio = 0.9;
  std::int64_t search_range_m = 32;
  std::optional<std::int64_t> hidden_dim;
  double min_chunk_size_m = 32;
  std::int64_t max_prefetch = 0;
  bool enable_gradient_accumulation = false;
  bool enable_async_reduce = true;
  bool pin_memory = false;

  // LowLevelZeroPlugin and HybridParallelPlugin
  std::optional<std::int64_t> zero_stage;
  std::int64_t reduce_bucket_size_in_m = 12;
  bool overlap_communication = true;
  bool no_sync = true;

  ColossalMode tensor_mode() const;
  bool on_grid() const { return tensor_mode() != ColossalMode::one; }
  bool gemini() const { return plugin.value == "gemini" || (plugin.value == "auto" && !on_grid()); }
  bool hybrid() const { return plugin.value == "hybrid-parallel"; }
  bool low_level_zero() const { return plugin.value == "low-level-zero" || hybrid(); }
  std::int64_t stage() const { return zero_stage.value_or(hybrid() ? 0 : 1); }
  bool engine() const { return plugin.value == "engine" || (plugin.value == "auto" && on_grid()); }
  // Ranks along a side of the square, of each layer's, or of the cube; 0 where there is none of that size.
  std::int64_t side() const;
  // Over which tokens, and not only widths, are divided.
  std::int64_t sample_ranks() const;
  // Parameters on the host make sense for Gemini only where all are sharded and all optimizer state is there
  // (StaticPlacementPolicy in colossalai/zero/gemini/placement_policy.py).
  double offloaded_parameters() const {
    return shard_param_frac == 1 && offload_optim_frac == 1 ? offload_param_frac : 0;
  }
  std::int64_t data(const Job& job) const { return job.cluster.devices() / tensor; }
  std::int64_t micro_batch(const Job& job) const;  // of all tensor ranks together
};

// Options and job have been checked.
PlannedStep plan_colossal_engine(const ColossalOptions& options, const Job& job);
PlannedStep plan_low_level_zero(const ColossalOptions& options, const Job& job);
PlannedStep plan_gemini(const ColossalOptions& options, const Job& job);

class ColossalAi final : public Strategy {
 public:
  std::vector<sim::Key> keys() override;
  std::vector<Problem> check(const Job& job) const override;
  std::vector<std::string> warnings(const Job& job) const override;
  PlannedStep plan(const Job& job) const override;
  std::vector<SearchKey> search_keys(const Job& job) const override;

 private:
  ColossalOptions options_;
};

}  // namespace trainyard::strategies
