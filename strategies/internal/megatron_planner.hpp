// One step of Megatron-LM in the making. Its members are defined by what they are about: megatron_plan.cpp sets up the
// model's stages, megatron_groups.cpp the ranks' groups, megatron_blocks.cpp writes the passes of layers,
// megatron_programs.cpp puts them in the order of the schedule, megatron_data.cpp reduces gradients and gathers
// parameters.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "strategies/checks.hpp"
#include "strategies/host_profile.hpp"
#include "strategies/internal/megatron.hpp"
#include "strategies/internal/megatron_style.hpp"
#include "strategies/internal/pass_overlap.hpp"
#include "strategies/internal/pipeline_transfers.hpp"
#include "strategies/layer_ops.hpp"
#include "strategies/offload.hpp"
#include "strategies/plan_builder.hpp"
#include "strategies/shared_ranks.hpp"
#include "workloads/architecture.hpp"
#include "workloads/cost.hpp"
#include "workloads/layers.hpp"

namespace trainyard::strategies {

// Everything about one step that its blocks and programs are made from.
class MegatronPlanner {
 public:
  MegatronPlanner(const MegatronOptions& options, const Job& job);

  PlannedStep plan();

 private:
  struct Stage {
    std::int64_t index = 0;
    std::vector<std::int64_t> layers;       // of each chunk
    std::vector<std::int64_t> first_layer;  // of each chunk
    // On each rank.
    std::int64_t parameters = 0;
    std::int64_t trained = 0;
    std::int64_t expert_trained = 0;  // of these
    sim::Bytes frozen{};
  };
  // Gradients that are reduced over the same ranks: those of experts, and all others. With several instances of the
  // distributed optimizer, one shards its state over `shards` of the ranks.
  struct GradientGroup {
    bool experts = false;
    std::int64_t ranks = 1;
    std::int64_t shards = 1;
    sim::StreamId stream{};
    sim::SlotId slot{};                     // ranks of an instance
    sim::SlotId instances{};                // the same shard of all instances
    std::vector<sim::EventRef> gathered{};  // one per bucket of the stage with most of them
    // Of the stage that is being written: parameters of each bucket, in the order in which forward passes need them.
    std::vector<std::int64_t> gathers{};
    std::size_t next_gather = 0;
  };
  // Where the backward pass of a chunk is in the buckets of a group.
  struct BucketCursor {
    const GradientGroup* group = nullptr;
    std::vector<std::int64_t> layers{};  // of each bucket
    std::size_t index = 0;
    std::int64_t left = 0;  // layers of the bucket at hand
  };
  struct LayerBlocks {
    sim::BlockId forward{};
    sim::BlockId backward{};
    // Where the inputs of groups of layers are kept (Recompute::every): a forward pass that keeps nothing, the one that
    // runs again, and the backward pass behind that.
    sim::BlockId forward_dropping{};
    sim::BlockId again{};
    sim::BlockId backward_only{};
    // Where schedules split the backward pass of a layer.
    sim::BlockId backward_input{};
    sim::BlockId backward_weight{};
  };
  bool first(std::int64_t stage, std::int64_t chunk) const { return placement_.first(stage, chunk); }
  bool last(std::int64_t stage, std::int64_t chunk) const { return placement_.last(stage, chunk); }
  bool has_first(const Stage& stage) const;  // among its chunks
  bool has_last(const Stage& stage) const;
  // Software with flash attention also has what came at about the same time (Megatron-LM 3.0 and later).
  bool recent_software() const { return job_.training.attention != workloads::AttentionKernel::unfused; }
  // Of the accelerators that Megatron runs on, those with 8-bit products are Hopper and later.
  bool hopper_or_later() const { return job_.accelerator.supports(workloads::Precision::fp8); }
  // fp16 stands for Megatron's own modules; others are Transformer Engine's.
  bool own_attention() const {
    return training_.precision == workloads::Precision::fp16 &&
           training_.attention == workloads::AttentionKernel::unfused;
  }
  bool fuses_accumulation() const { return options_.gradient_accumulation_fusion.value_or(recent_software()); }
  // Embedding and head have the matrix each, on ranks of their own. Where both lie on one rank they share it.
  bool embedding_is_shared() const {
    return job_.model.tied_embeddings && options_.pipeline > 1 && !placement_.has_way_back();
  }
  bool sequence_parallel() const { return options_.sequence_parallel && options_.tensor > 1; }
  bool exchanges_tokens() const { return job_.model.experts && options_.expert * options_.expert_tensor > 1; }
  // Forward and backward passes, for the sake of experts on other nodes.
  bool overlaps_passes() const;
  bool splits_backward() const { return strategies::splits_backward(options_.schedule_kind()); }
  // 1F1B and GPipe wait for every transfer; interleaved schedules overlap them (overlap_p2p_comm), and so does the
  // runtime of zero-bubble ones (sail-sg/zero-bubble megatron/core/pipeline_parallel/zerobubble).
  bool overlaps_transfers() const {
    return overlaps_passes() || options_.overlap_p2p_comm.value_or(chunks_ > 1 || splits_backward());
  }
  // Where stages of several chunks wait for transfers, as in releases before 2023, and there are as many micro-batches
  // as stages (megatron/core/pipeline_parallel/schedules.py, all_warmup_microbatches).
  bool makes_forward_passes_first() const {
    return chunks_ > 1 && !overlaps_transfers() && micro_batches_ == options_.pipeline;
  }
  // Every rank of a tensor group has the same activations to send; in releases until early 2023 each sends its part of
  // them, which the receivers gather (arXiv 2104.04473, section 4.1; megatron/p2p_communication.py).
  bool scatters_transfers() const {
    return options_.tensor > 1 && !sequence_parallel() &&
           options_.scatter_gather_tensors_in_pipeline.value_or(!recent_software());
  }

  // Ranks as coordinates on named axes, from the innermost outwards.
  struct NamedGrid {
    RankGrid grid;
    std::map<std::string, std::size_t> axis;
  };
  static NamedGrid grid_of(const std::vector<std::string>& order, std::map<std::string, std::int64_t> sizes,
                           std::int64_t instances);
  NamedGrid dense_grid() const;
  NamedGrid expert_grid() const;
  bool norm_is_of_all() const { return options_.distributed_optimizer || with_.expert; }
  std::int64_t world() const { return job_.cluster.devices(); }
  ExpertPlaces places_of_experts() const;
  workloads::Shard shard() const;
  workloads::KernelStyle kernel_style() const;
  void expand_model();
  void place_layers();
  void make_streams_and_slots();
  void make_transfers();
  void make_calls();
  void make_expert_communication();
  void make_gradient_groups();
  void wire_gradients(sim::CommunicatorTable& table) const;
  void make_layer_blocks();
  const LayerBlocks& layer_blocks(std::int64_t layer) const {
    return layers_[model_.kind_of[static_cast<std::size_t>(layer)]];
  }
  LayerBlocks make_layer_block(const workloads::Layer& layer, bool recomputed, bool loss);
  void make_split_blocks(const workloads::Layer& layer, const workloads::Recompute& recompute, LayerBlocks& blocks);
  void make_group_blocks(const workloads::Layer& layer, LayerBlocks& blocks);
  void accumulate_gradient(BlockWriter& block, const workloads::Operator& op);
  bool recomputes_groups() const { return training_.recompute.full() && training_.recompute.every > 1; }
  void write_program(const Stage& stage);
  void write_action(sim::Program& program, const Stage& stage, const PipelineAction& action);
  void write_forward_pass(sim::Program& program, const Stage& stage, const PipelineAction& pass);
  void write_input_pass(sim::Program& program, const Stage& stage, const PipelineAction& pass);
  void write_backward_pass(sim::Program& program, const Stage& stage, const PipelineAction& pass);
  void write_layer_backward(sim::Program& program, std::int64_t from, std::int64_t count, std::int64_t layer,
                            std::int32_t micro_batch);
  sim::BlockId drop_input_block(const workloads::Layer& layer);
  std::int64_t trained(const GradientGroup& group, std::int64_t from, std::int64_t count) const;
  std::int64_t trained(const GradientGroup& group, const Stage& stage) const;
  std::vector<std::int64_t> bucket_layers(const Stage& stage, std::size_t chunk, const GradientGroup& group) const;
  std::int64_t bucket_parameters(const Stage& stage, std::size_t chunk, const GradientGroup& group,
                                 std::size_t index) const;
  std::vector<std::int64_t> gathered_buckets(const Stage& stage, const GradientGroup& group) const;
  sim::Bytes gathered_bytes(std::int64_t parameters) const;
  void write_parameter_gather(BlockWriter& block, GradientGroup& group, std::size_t index);
  void write_awaited_parameters(sim::Program& program, const Stage& stage, std::size_t chunk, std::int64_t layer);
  void write_reduce(BlockWriter& block, const GradientGroup& group, std::int64_t parameters);
  std::vector<BucketCursor> bucket_cursors(const Stage& stage, std::size_t chunk) const;
  void write_bucket_reduce(sim::Program& program, const Stage& stage, std::size_t chunk, const BucketCursor& cursor);
  void write_step_start(sim::Program& program, const Stage& stage);
  void write_step_end(sim::Program& program, const Stage& stage);
  std::int64_t norm_parameters(const Stage& stage) const;
  sim::Bytes workspaces() const;
  sim::BlockId reduce_block(const GradientGroup& group, std::int64_t parameters);
  void wire_ranks();

  const MegatronOptions& options_;
  const Job& job_;
  workloads::Training training_;
  std::int64_t data_;
  std::int64_t micro_batch_;
  std::int64_t micro_batches_;
  std::int64_t chunks_;
  PipelinePlacement placement_;
  std::int64_t vocab_;  // padded
  HostProfile host_;
  workloads::KernelCosts costs_;
  workloads::Precision gradients_;
  workloads::Architecture architecture_;
  workloads::StateBytes state_;

  ExpertPlaces expert_places_;
  workloads::TokenDispatcher dispatcher_;
  PlanBuilder builder_;
  ActivationOffload offload_;
  PassOverlap overlap_;
  std::optional<PipelineTransfers> transfers_;
  workloads::Expansion model_;
  std::vector<Stage> stages_;

  sim::StreamId tensor_stream_{}, model_stream_{};
  sim::SlotId tensor_slot_{}, model_slot_{}, embedding_slot_{};
  LayerCommunication with_;          // of a layer's operators
  std::vector<LayerBlocks> layers_;  // by kind
  LayerBlocks embedding_, head_;
  std::vector<GradientGroup> gradient_groups_;
  std::map<std::pair<bool, std::int64_t>, sim::BlockId> reduce_blocks_;  // (of experts, parameters)
  std::map<sim::Bytes, sim::BlockId> drop_input_blocks_;
};

}  // namespace trainyard::strategies
