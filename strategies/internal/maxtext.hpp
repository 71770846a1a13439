// MaxText: one program per step, which GSPMD divides over the axes of a mesh of TPUs or GPUs. Sources:
// AI-Hypercomputer/maxtext src/maxtext/configs/base.yml, docs/guides/optimization/sharding.md, layers/decoders.py,
// layers/pipeline.py; openxla/xla xla/service/spmd/spmd_partitioner.h; jax-ml/scaling-book sharding.md, training.md.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "strategies/internal/maxtext_mesh.hpp"
#include "strategies/internal/maxtext_remat.hpp"
#include "strategies/strategy.hpp"

namespace trainyard::strategies {

constexpr std::int64_t the_rest = -1;  // what other axes leave

struct MaxTextOptions {
  // By the names that all frameworks share. They lie inside slices as far as they fit.
  std::optional<std::int64_t> tensor, pipeline, context, expert, shard;
  std::optional<bool> overlap_tensor;
  PerAxis<std::int64_t> ici{1, 1, the_rest, 1, 1, 1, 1, 1, 1};
  PerAxis<std::int64_t> dcn{the_rest, 1, 1, 1, 1, 1, 1, 1, 1};
  bool allow_split_physical_axes = false;
  sim::Choice context_parallel_strategy{"all_gather", {"all_gather", "ring", "ulysses"}};
  RematOptions remat;
  std::int64_t num_vocab_tiling = 1;
  std::int64_t gradient_accumulation_steps = 1;
  std::int64_t num_layers_per_pipeline_stage = 1;
  std::int64_t num_pipeline_repeats = the_rest;
  std::int64_t num_pipeline_microbatches = the_rest;
  bool pipeline_fsdp_ag_once = false;

  workloads::ContextExchange context_exchange(const MeshSizes& sizes) const;
  std::int64_t micro_batch(const Job& job, const MeshSizes& sizes) const;
  std::int64_t repeats(const Job& job, const MeshSizes& sizes) const;
  // Micro-batches that go through the pipeline at a time; between them gradients add up.
  std::int64_t pipelined(const Job& job, const MeshSizes& sizes) const;
};

// The sizes of all axes, or what is wrong with them.
struct MeshResolution {
  std::optional<MeshSizes> sizes;
  std::vector<Problem> problems;
};
MeshResolution resolve_mesh(const MaxTextOptions& options, const topology::Cluster& cluster);

// Options and job have been checked.
PlannedStep plan_maxtext(const MaxTextOptions& options, const MeshSizes& sizes, const Job& job);

class MaxText final : public Strategy {
 public:
  explicit MaxText(MaxTextOptions options = {}) : options_(std::move(options)) {}
  std::vector<sim::Key> keys() override;
  std::vector<Problem> check(const Job& job) const override;
  std::vector<std::string> warnings(const Job& job) const override;
  PlannedStep plan(const Job& job) const override;
  std::vector<SearchKey> search_keys(const Job& job) const override;

 private:
  MaxTextOptions options_;
};

}  // namespace trainyard::strategies
