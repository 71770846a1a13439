// One step of PyTorch FSDP in the making. Its members are defined by what they are about: pytorch_fsdp_plan.cpp sets up
// the model's stages and the ranks' groups, pytorch_fsdp_units.cpp gathers parameters and reduces gradients,
// pytorch_fsdp_blocks.cpp writes the passes of layers, pytorch_fsdp_programs.cpp puts them in order.
#pragma once

#include <compare>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "strategies/checks.hpp"
#include "strategies/groups.hpp"
#include "strategies/host_profile.hpp"
#include "strategies/internal/pass_overlap.hpp"
#include "strategies/internal/pipeline_transfers.hpp"
#include "strategies/internal/pytorch_fsdp.hpp"
#include "strategies/layer_ops.hpp"
#include "strategies/offload.hpp"
#include "strategies/pipeline_placement.hpp"
#include "strategies/plan_builder.hpp"
#include "workloads/architecture.hpp"
#include "workloads/cost.hpp"
#include "workloads/layers.hpp"

namespace trainyard::strategies {

class FsdpPlanner {
 public:
  FsdpPlanner(const FsdpOptions& options, const Job& job);

  PlannedStep plan();

 private:
  // What is gathered, sharded and reduced at once, over one group of ranks.
  struct Part {
    std::int64_t trained = 0;
    std::int64_t linear = 0;  // of these, the matrices of layers, which 8-bit gathers cover
    sim::Bytes frozen{};
    bool empty() const { return trained == 0 && frozen.count == 0; }
  };
  // Layers are numbered within a model chunk; its root (embedding, final norm and head, as far as they are there) is
  // unit -1. Experts are sharded over ranks of their own, and otherwise go with their layer.
  static constexpr std::int64_t root_unit = -1;
  struct Unit {
    Part dense;
    Part experts;
    std::int64_t trained() const { return dense.trained + experts.trained; }
  };

  // The parts of a block's work that depend on where it stands. Units are given relative to the block's own.
  struct Gather {
    std::int64_t unit = 0;
    std::int64_t kind = root_kind;  // of the layer
    bool again = false;             // for backward: from where parameters went after forward
    bool after_compute = false;
    std::optional<std::int64_t> awaits = std::nullopt;  // the unit whose room it takes
    auto operator<=>(const Gather&) const = default;
  };
  static constexpr std::int64_t root_kind = -1;
  static constexpr std::int64_t embedding_part = -1;
  static constexpr std::int64_t head_part = -2;
  static constexpr std::int64_t no_part = -3;
  enum class Gradients : std::uint8_t { keep, add, reduce, reduce_and_add, add_and_reduce };
  // Schedules may split a backward pass into one for inputs and one for weights.
  enum class Direction : std::uint8_t { forward, backward, backward_input, backward_weight };
  struct Pass {
    std::int64_t part = no_part;  // a kind of layer, or one of the three above
    Direction direction = Direction::forward;
    std::vector<Gather> gathers = {};           // needed at once
    std::vector<Gather> prefetches = {};        // before the pass
    std::vector<Gather> prefetches_after = {};  // behind it
    bool arrives = false;                       // waits for the gather of its own parameters
    bool frees = false;                         // lets go of them
    Gradients gradients = Gradients::reduce;
    auto operator<=>(const Pass&) const = default;
  };

  struct Chunk {
    std::int64_t layers = 0;
    std::int64_t first_layer = 0;
    bool has_embedding = false;
    bool has_head = false;
    // While its program is written.
    bool root_gathered = false;
    bool layers_gathered = false;
    std::int64_t backward_passes = 0;
  };
  struct Stage {
    std::int64_t index = 0;
    std::vector<Chunk> chunks;
  };

  // Where a part's shards are: over which groups it is gathered and reduced.
  struct ShardGroup {
    std::int64_t shards = 1;
    sim::SlotId slot{};
    sim::SlotId after_forward{};  // smaller, where parameters are resharded over some ranks only
    sim::SlotId replicas{};
  };

  bool gathers() const { return dense_.shards > 1 || experts_.shards > 1; }
  bool sequence_parallel() const { return options_.tensor > 1; }
  // Otherwise experts are shards like the rest of their layer.
  bool experts_apart() const { return options_.tensor * options_.expert * options_.expert_tensor > 1; }
  std::int64_t kind_of(const Chunk& chunk, std::int64_t layer) const {
    return model_.kind_of[static_cast<std::size_t>(chunk.first_layer + layer)];
  }
  sim::Kernel kernel(const char* name, std::int64_t bytes) const {
    return costs_.memory_bound(name, sim::Bytes{bytes});
  }

  // pytorch_fsdp_plan.cpp
  void expand_model();
  void place_layers();
  void make_streams_and_slots();
  void make_communication();
  void make_context_communication();
  void wire_ranks();
  Unit total_of(const Stage& stage) const;
  workloads::Shard shard() const;
  RankGrid dense_grid() const;
  RankGrid expert_grid() const;

  // pytorch_fsdp_units.cpp
  Unit unit_of(const workloads::Layer& layer) const;
  Unit root_of(const Chunk& chunk) const;
  Unit unit_of(const Chunk& chunk, std::int64_t kind) const;
  sim::Bytes gathered_bytes(const Part& part) const;
  sim::Bytes gathered_bytes(const Unit& unit) const {
    return gathered_bytes(unit.dense) + gathered_bytes(unit.experts);
  }
  sim::Bytes sharded(const Unit& unit, std::int64_t bytes, bool frozen) const;
  std::int64_t owned(const Unit& unit) const;
  sim::Bytes largest_gathered(const Chunk& chunk) const;
  sim::EventRef gathered(std::int64_t unit) const;
  sim::EventRef released(std::int64_t unit) const;
  std::uint16_t shift_of(std::int64_t unit) const;
  void write_gathers(BlockWriter& block, const Chunk& chunk, const std::vector<Gather>& gathers);
  void write_gather(BlockWriter& block, const Unit& unit, const Gather& gather);
  void write_copy_in(BlockWriter& block, const Unit& unit, sim::StreamSet after);
  void write_arrival(BlockWriter& block, const Unit& unit);
  void free_unit(BlockWriter& block, const Unit& unit, bool forward);
  void write_gradients(BlockWriter& block, const Unit& unit, Gradients gradients);
  void write_accumulation(BlockWriter& block, const Unit& unit, bool first);
  void write_reduction(BlockWriter& block, const Unit& unit, bool from_kept, bool adds);
  void write_pack(BlockWriter& block, const Unit& unit, bool from_kept);
  void write_reduction(BlockWriter& block, const Part& part, const ShardGroup& group);
  sim::StreamId last_reduction() const { return replicas_ > 1 ? all_reduce_ : reduce_scatter_; }
  sim::StreamSet reductions() const;
  sim::Bytes kept_gradients(const Unit& unit) const;

  // pytorch_fsdp_blocks.cpp
  sim::BlockId block_of(const Chunk& chunk, const Pass& pass);
  sim::BlockId forward_block(const Chunk& chunk, const Pass& pass);
  sim::BlockId backward_block(const Chunk& chunk, const Pass& pass);
  const workloads::Layer* part_of(const Pass& pass) const;
  const LayerCommunication& communication_of(const Pass& pass) const;
  void write_part_backward(BlockWriter& block, const Pass& pass, const workloads::Layer& part);
  AfterOperator reduces_replicated(const Pass& pass, const workloads::Layer& part);
  sim::BlockId reduce_block(const Chunk& chunk, std::int64_t kind);
  sim::BlockId memory_block(const char* name, sim::Bytes change);
  sim::BlockId step_end(const Stage& stage);
  void write_norm(BlockWriter& block);

  // pytorch_fsdp_programs.cpp
  void write_program(Stage& stage);
  void call(sim::Program& program, const Chunk& chunk, const Pass& pass, std::int64_t layer, std::int64_t unit,
            std::int32_t micro_batch);
  void write_forward_pass(sim::Program& program, Chunk& chunk, std::int32_t micro_batch);
  void write_action(sim::Program& program, Stage& stage, const PipelineAction& action);
  void write_backward_pass(sim::Program& program, Chunk& chunk, Direction direction, std::int32_t micro_batch);
  void write_layers_backward(sim::Program& program, Chunk& chunk, Direction direction, std::int32_t micro_batch);
  void write_last_reductions(sim::Program& program, const Chunk& chunk, std::int32_t micro_batch);
  std::vector<Gather> take_gathers(const Chunk& chunk, std::vector<bool>& issued, std::int64_t issuer,
                                   const std::vector<std::int64_t>& units, bool forward, bool prefetched);
  std::vector<std::int64_t> ahead_of(const Chunk& chunk, std::int64_t layer, bool forward) const;
  std::optional<std::int64_t> room_for(std::int64_t unit, std::int64_t issuer, bool forward, bool prefetched);
  Gradients gradients_of(const Chunk& chunk) const;
  bool frees_after_backward(const Chunk& chunk) const;

  const FsdpOptions& options_;
  const Job& job_;
  std::int64_t replicas_;
  ShardGroup dense_, experts_;
  Reshard reshard_;
  std::int64_t micro_batch_;
  std::int64_t micro_batches_;
  std::int64_t units_in_flight_;  // how many units have events of their own, in turns
  HostProfile host_;
  workloads::KernelCosts costs_;
  std::int64_t gather_bytes_;  // per element
  std::int64_t reduce_bytes_;
  bool shards_columns_;  // of experts
  workloads::Architecture architecture_;
  workloads::StateBytes state_;

  PipelinePlacement placement_;

  PlanBuilder builder_;
  ActivationOffload offload_;
  PassOverlap overlap_;
  workloads::Expansion model_;
  std::optional<PipelineTransfers> transfers_;
  std::vector<Stage> stages_;
  sim::StreamId copy_in_{}, all_gather_{}, reduce_scatter_{}, all_reduce_{}, tensor_{}, pipeline_{};
  sim::SlotId tensor_slot_{}, pipeline_slot_{}, from_host_{}, to_host_{};
  LayerCommunication with_;       // of layers
  LayerCommunication root_with_;  // of embedding and head, which are not compiled with the layers
  std::map<std::pair<std::int64_t, Pass>, sim::BlockId> blocks_;
  std::map<sim::Bytes, sim::BlockId> memory_blocks_;
  std::deque<std::int64_t> freed_;  // FSDP1: units whose release no gather has waited for
};

}  // namespace trainyard::strategies
