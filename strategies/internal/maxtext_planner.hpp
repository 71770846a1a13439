// One step of MaxText in the making. Its members are defined by what they are about: maxtext_plan.cpp sets up the
// model, the groups of ranks and their communication, maxtext_blocks.cpp writes the passes of layers,
// maxtext_programs.cpp puts them in order.
//
// Layers are one loop (jax.lax.scan). XLA's latency-hiding scheduler starts the gather of the next layer's weights when
// a layer begins, and the reduction of each gradient when its product is done; compute waits for a gather when it needs
// it, and for reductions before the optimizer. Reductions over DCN go on through later layers
// (xla_tpu_enable_data_parallel_all_reduce_opt and xla_tpu_data_parallel_opt_different_sized_ops, which MaxText's
// scripts set). Weights are cast to the type of activations before they are gathered, and gradients are summed up in
// it: a product's result is reduced before it is cast (docs/guides/optimization/sharding.md counts both with 2 bytes).
#pragma once

#include <compare>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "strategies/host_profile.hpp"
#include "strategies/internal/maxtext.hpp"
#include "strategies/internal/maxtext_stages.hpp"
#include "strategies/layer_ops.hpp"
#include "strategies/plan_builder.hpp"
#include "workloads/architecture.hpp"
#include "workloads/cost.hpp"
#include "workloads/layers.hpp"

namespace trainyard::strategies {

class MaxTextPlanner {
 public:
  MaxTextPlanner(const MaxTextOptions& options, const MeshSizes& sizes, const Job& job);

  PlannedStep plan();

 private:
  // A kind of layer, or one of these.
  static constexpr std::int64_t embedding_part = -1;
  static constexpr std::int64_t head_part = -2;
  static constexpr std::int64_t no_part = -3;

  enum class Gradients : std::uint8_t { reduce, reduce_and_add, keep, add, add_and_reduce };
  // What may differ between passes of the same part; every pass is a block.
  struct Pass {
    std::int64_t part = embedding_part;
    bool forward = true;
    bool gathers = false;      // its weights arrive for it
    bool gathers_now = false;  // and nobody has asked for them before
    bool frees = false;        // and go with it
    Gradients gradients = Gradients::reduce;
    std::int64_t gathers_next = no_part;   // weights that are gathered meanwhile
    std::int64_t fetches_next = no_part;   // what a layer has in host memory, likewise
    std::int64_t copied_before = no_part;  // the layer that is still on its way to the host
    auto operator<=>(const Pass&) const = default;
  };
  struct Visit {
    Pass pass;
    std::int32_t layer = -1;
    std::int32_t micro_batch = 0;
  };
  // Weights of a part: those of experts are divided over other ranks.
  struct Weights {
    std::int64_t trained = 0;
    sim::Bytes frozen{};
    bool empty() const { return trained == 0 && frozen.count == 0; }
  };
  struct PartWeights {
    Weights dense;
    Weights experts;
    std::int64_t trained() const { return dense.trained + experts.trained; }
  };
  struct ShardGroup {
    std::int64_t shards = 1;
    sim::SlotId slot{};
    std::int64_t copies = 1;
    sim::SlotId copies_slot{};
  };

  // maxtext_plan.cpp
  void expand_model();
  workloads::Shard shard(std::int64_t micro_batch) const;
  void make_streams_and_slots();
  void make_communication();
  TensorCommunication tensor_communication(std::int64_t micro_batch, bool in_pieces) const;
  void wire_ranks();
  void wire_context(sim::CommunicatorTable& table) const;

  // maxtext_blocks.cpp
  const workloads::Layer& layer_of(std::int64_t part) const;
  const LayerRemat* remat_of(std::int64_t part) const;
  PartWeights weights_of(std::int64_t part) const;
  PartWeights gathered_weights(std::int64_t part) const;
  sim::Bytes gathered_bytes(const Weights& weights) const;
  sim::Bytes gathered_bytes(const PartWeights& weights) const {
    return gathered_bytes(weights.dense) + gathered_bytes(weights.experts);
  }
  sim::Bytes sharded(const PartWeights& weights, std::int64_t bytes, bool frozen) const;
  const ShardGroup& dense_group(std::int64_t part) const { return part < 0 ? root_ : dense_; }
  bool gathers(std::int64_t part) const;
  sim::BlockId block_of(const Pass& pass);
  sim::BlockId write_block(const Pass& pass);
  void write_ahead(BlockWriter& block, const Pass& pass);
  void write_forward_pass(BlockWriter& block, const Pass& pass);
  void write_backward_pass(BlockWriter& block, const Pass& pass);
  sim::Bytes whole_gradients(const Pass& pass) const;
  void write_sections(BlockWriter& block, const Pass& pass);
  void exchange_with_stages(BlockWriter& block, std::int64_t part, std::int64_t at);
  void scatter(BlockWriter& block, std::int64_t part, std::int64_t trained, bool of_experts);
  void write_reduction(BlockWriter& block, const Pass& pass);
  const LayerCommunication& communication_of(std::int64_t part) const { return part < 0 ? root_with_ : with_; }
  sim::StreamSet reductions() const;
  sim::BlockId step_end();

  // maxtext_programs.cpp
  // Through one chunk of layers, or through what lies around them.
  using Passes = std::vector<Visit>;
  std::vector<Passes> passes_of(std::int64_t stage) const;
  void add_accumulation(std::vector<Passes>& all, std::int64_t stage, std::int64_t step) const;
  void settle(std::vector<Passes>& all) const;
  void settle_gathers(std::vector<Visit*>& visits) const;
  void settle_gradients(std::vector<Visit*>& visits) const;
  static void look_ahead(std::vector<Visit*>& visits, const std::vector<bool>& offloads);
  void write_program(std::int64_t stage);

  const MaxTextOptions& options_;
  const MeshSizes& sizes_;
  const Job& job_;
  DeviceMesh mesh_;
  bool on_tpu_;
  std::int64_t micro_batch_;
  std::int64_t pipelined_;    // micro-batches in the pipeline
  std::int64_t accumulated_;  // passes whose gradients add up
  HostProfile host_;
  workloads::Accelerator accelerator_;
  workloads::KernelCosts costs_;
  std::int64_t wire_bytes_;    // of a weight
  std::int64_t reduce_bytes_;  // of a gradient
  workloads::Architecture architecture_;
  workloads::StateBytes state_;

  PlanBuilder builder_;
  workloads::Expansion model_;       // as one micro-batch goes through layers
  workloads::Expansion root_model_;  // as embedding and head see it
  std::vector<LayerRemat> remat_;
  std::optional<StageRing> ring_;
  sim::StreamId all_gather_{}, reduce_scatter_{}, all_reduce_{}, tensor_{}, stage_{}, to_host_{}, from_host_{};
  ShardGroup dense_, experts_, root_;
  sim::SlotId tensor_slot_{}, stage_slot_{}, all_slot_{}, host_slot_{};
  LayerCommunication with_, root_with_;
  std::map<Pass, sim::BlockId> blocks_;
};

}  // namespace trainyard::strategies
