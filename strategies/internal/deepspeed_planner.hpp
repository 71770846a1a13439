// One step of DeepSpeed in the making. Its members are defined by what they are about: deepspeed_plan.cpp sets up the
// model and its stages, deepspeed_groups.cpp the ranks' groups, deepspeed_replicated.cpp writes passes whose parameters
// are on every rank (stages 0 to 2), deepspeed_partitioned.cpp those that gather them (stage 3), deepspeed_pipeline.cpp
// what pipeline stages hand on, deepspeed_reduction.cpp reduces gradients, deepspeed_step.cpp updates parameters, on
// the device or on the host.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "strategies/checks.hpp"
#include "strategies/groups.hpp"
#include "strategies/host_profile.hpp"
#include "strategies/internal/deepspeed.hpp"
#include "strategies/internal/deepspeed_buckets.hpp"
#include "strategies/internal/deepspeed_coordinator.hpp"
#include "strategies/internal/deepspeed_parameters.hpp"
#include "strategies/internal/host_state.hpp"
#include "strategies/internal/pipeline_transfers.hpp"
#include "strategies/layer_ops.hpp"
#include "strategies/offload.hpp"
#include "strategies/plan_builder.hpp"
#include "workloads/architecture.hpp"
#include "workloads/cost.hpp"
#include "workloads/layers.hpp"

namespace trainyard::strategies {

class DeepspeedPlanner {
 public:
  DeepspeedPlanner(const DeepspeedOptions& options, const Job& job);

  PlannedStep plan();

 private:
  // A layer, the embedding or the head, with the tensors of its operators.
  struct Part {
    const workloads::Layer* layer = nullptr;
    const std::vector<std::vector<ParameterTensor>>* tensors = nullptr;
    std::int32_t index = -1;         // of a layer
    std::uint32_t first_tensor = 0;  // number of its first tensor among those of the model
    bool recomputed() const { return index >= 0; }
  };
  // A pipeline stage; without a pipeline there is one.
  struct Stage {
    std::int64_t index = 0;
    std::int64_t first_layer = 0;
    std::int64_t layers = 0;
    bool has_embedding = true;
    bool has_head = true;
  };
  // Operators from one that owns parameters up to the next that does; the first may own none.
  struct Submodule {
    std::size_t first = 0;
    std::size_t end = 0;
    bool owns = false;
    OperatorRange range() const { return {first, end}; }
  };
  enum class Pass : std::uint8_t { forward, again, backward };
  // What runs between two hooks of ZeRO-3: a pass through a submodule.
  struct Visit {
    const Part* part = nullptr;
    Submodule submodule;
    Pass pass = Pass::forward;
    bool starts = false;  // the pass through the part: forward, or backward with what runs again before it
    bool ends = false;
    std::optional<std::size_t> fetch{};     // in the trace of fetches; none where it owns nothing
    std::vector<GradientBucket> reduced{};  // that leave when its gradients are there
  };

  // Ranks that have the same parameters.
  struct Replicas {
    sim::SlotId slot{};
    std::int64_t ranks = 1;
    std::int64_t trained = 0;  // of these parameters, on each rank
    std::int64_t share() const { return (trained + ranks - 1) / ranks; }
  };

  // deepspeed_plan.cpp
  bool several() const { return shards_ > 1; }
  std::int64_t partition(std::int64_t elements) const { return (elements + shards_ - 1) / shards_; }
  sim::Kernel pass_over(const std::string& name, std::int64_t bytes) const {
    return costs_.memory_bound(name, sim::Bytes{bytes});
  }
  workloads::Recompute recompute_of(const Part& part) const {
    return part.recomputed() ? job_.training.recompute : workloads::Recompute{};
  }
  sim::Bytes kept_bytes(const Part& part) const { return part.layer->saved_bytes(recompute_of(part), false); }
  sim::Bytes working_bytes(const Part& part) const;
  workloads::KernelStyle style() const;
  void expand_model();
  void list_tensors();
  void place_layers();
  void take_up(const Stage& stage);
  std::int64_t shared_matrix() const;
  void write_program(const Stage& stage);

  // deepspeed_groups.cpp
  // From neighbouring ranks outwards (deepspeed/runtime/pipe/topology.py, PipeModelDataParallelTopology).
  static constexpr std::size_t tensor_axis = 0;
  static constexpr std::size_t context_axis = 1;
  static constexpr std::size_t data_axis = 2;
  static constexpr std::size_t stage_axis = 3;
  RankGrid grid() const { return RankGrid({options_.tensor, options_.context, data_, options_.pipeline}); }
  RankGrid expert_grid() const;
  void make_streams();
  void make_communication();
  void make_expert_groups();
  void wire_ranks();
  sim::StreamSet all_streams() const;
  int communicator_groups() const;

  // deepspeed_pipeline.cpp
  // Embedding and head have the matrix each, on ranks of their own.
  bool embedding_is_shared() const { return job_.model.tied_embeddings && options_.pipeline > 1; }
  void make_transfers();
  sim::BlockId arrival_block(const std::string& name, std::int64_t copies, int gathers);
  void write_tied_gradient(sim::Program& program);
  void write_loss_broadcast(BlockWriter& block);
  // activation_checkpoint_interval: of so many layers the first one's input stays, and all run again before the first
  // of their backward passes. Groups begin with the stage's first layer.
  bool recomputes_groups() const { return job_.training.recompute.full() && job_.training.recompute.every > 1; }
  bool in_group(const Part& part) const { return recomputes_groups() && part.recomputed(); }
  bool begins_group(const Part& part) const {
    return (part.index - stage_.first_layer) % job_.training.recompute.every == 0;
  }
  bool ends_group(const Part& part) const {
    return part.index + 1 == stage_.first_layer + stage_.layers ||
           (part.index + 1 - stage_.first_layer) % job_.training.recompute.every == 0;
  }
  sim::BlockId dropping_block(const Part& part);
  sim::BlockId again_block(const Part& part);
  void write_group_again(sim::Program& program, std::size_t last, std::int32_t micro_batch);

  // deepspeed_replicated.cpp
  void write_replicated(sim::Program& program);
  void write_forward_pass(sim::Program& program, std::int32_t micro_batch);
  void write_backward_pass(sim::Program& program, std::int32_t micro_batch);
  bool reduces_in_backward(std::int64_t micro_batch) const;
  bool divides_rows(const Part& part) const { return with_.tensor && part.layer == &model_.embedding; }
  void write_rows(BlockWriter& block, sim::CollectiveKind kind);
  void write_forward_of(BlockWriter& block, const Part& part, OperatorRange range);
  void write_backward_of(BlockWriter& block, const Part& part, OperatorRange range, const AfterOperator& after = {});
  ActivationOffload::Place place_of(const Part& part, std::int32_t micro_batch) const {
    return {model_, stage_.first_layer, stage_.layers, part.index - stage_.first_layer, micro_batch};
  }
  sim::BlockId forward_block(const Part& part);
  sim::BlockId backward_start();
  sim::BlockId backward_block(const Part& part, bool accumulates, GradientBuckets* buckets);
  sim::BlockId backward_end(std::int64_t micro_batch, GradientBuckets& buckets);
  std::vector<sim::BlockId> backward_blocks(std::int64_t micro_batch);
  void write_gradients(BlockWriter& block, const std::vector<ParameterTensor>& tensors, bool accumulates,
                       GradientBuckets* buckets);
  void write_whole_reduction(sim::Program& program);
  std::int64_t accumulated_bytes(bool accumulates) const;
  bool settles(const ParameterTensor& tensor) const;
  sim::Bytes waiting_bytes(const GradientBucket& bucket) const;
  sim::Bytes bucket_buffers() const;

  // deepspeed_partitioned.cpp
  void write_partitioned(sim::Program& program);
  std::vector<Visit> trace_visits();
  std::vector<std::uint32_t> parameters_of(const Part& part, const Submodule& submodule) const;
  void plan_parameters(std::vector<Visit>& visits);
  std::optional<GradientBucket> plan_gradients(std::vector<Visit>& visits) const;
  sim::BlockId visit_block(const Visit& visit, std::uint32_t issued, bool accumulates);
  std::vector<std::int64_t> key_of(const Visit& visit, std::uint32_t issued, bool accumulates) const;
  void write_forward_visit(BlockWriter& block, const Visit& visit, std::uint32_t issued);
  void write_backward_visit(BlockWriter& block, const Visit& visit, std::uint32_t issued, bool accumulates);
  void write_fetches(BlockWriter& block, const FetchStep& step, std::uint32_t issued);
  void write_gather(BlockWriter& block, std::uint32_t group, sim::EventRef records);
  void write_arrival(BlockWriter& block, std::uint32_t group, sim::EventRef gathered);
  void write_release(BlockWriter& block, const FetchStep& step);
  void write_partition_gradients(BlockWriter& block, const Visit& visit, bool accumulates);
  sim::BlockId partitioned_end(const std::optional<GradientBucket>& rest, bool accumulates);
  sim::Bytes gathered_bytes(std::uint32_t group) const;
  sim::Bytes wire_bytes(std::uint32_t group) const;
  bool from_secondary(std::uint32_t group) const;
  sim::EventRef event_of(std::uint32_t group, std::uint32_t issued) const;

  // deepspeed_reduction.cpp
  void write_reduction(BlockWriter& block, const GradientBucket& bucket, bool accumulates);
  void write_replicated_reduction(BlockWriter& block, const GradientBucket& bucket);
  void write_run_reduction(BlockWriter& block, const GradientBucket::Run& run, const Replicas& among);
  void write_partitioned_reduction(BlockWriter& block, const GradientBucket& bucket);
  void write_listed_reduction(BlockWriter& block, const GradientBucket& bucket);
  void write_quantized_reduction(BlockWriter& block, const ParameterTensor& tensor);
  void write_reduce(BlockWriter& block, sim::SlotId slot, sim::CollectiveKind kind, sim::Bytes bytes);
  void write_average(BlockWriter& block, std::int64_t elements);
  void write_settled(BlockWriter& block, const GradientBucket& bucket, bool accumulates);
  sim::CollectiveKind wire_operation() const;
  bool quantizes_gradients() const;

  // deepspeed_step.cpp
  void write_resident(sim::Program& program);
  sim::BlockId step_block();
  bool partitions_state() const { return options_.zero_stage >= 1 || wide_gradients_; }
  std::int64_t owned() const { return partitions_state() ? replicas_[0].share() + replicas_[1].share() : trained_; }
  std::int64_t owned_on_host() const;
  bool has_wide_copy() const { return state_.master > 0; }
  void write_norm(BlockWriter& block);
  void write_device_update(BlockWriter& block, std::int64_t elements);
  void write_host_update(BlockWriter& block);
  void write_delayed_update(BlockWriter& block);
  void write_parameter_gather(BlockWriter& block);
  workloads::StateBytes state_at_step() const;
  sim::Bytes persistent_bytes() const;

  const DeepspeedOptions& options_;
  const Job& job_;
  std::int64_t data_;
  std::int64_t shards_;  // ranks that have the same parameters: over them state is partitioned
  std::int64_t micro_batch_;
  std::int64_t micro_batches_;
  HostProfile host_;
  workloads::KernelCosts costs_;
  std::int64_t element_;        // bytes of a parameter in the model
  std::int64_t reduced_bytes_;  // of a gradient in its reduction
  // BF16_Optimizer, which trains in bf16 without ZeRO: it adds up gradients in 32 bits, and partitions its state as
  // stage 1 does (deepspeed/runtime/engine.py, _do_optimizer_sanity_check; deepspeed/runtime/bf16_optimizer.py).
  bool wide_gradients_;
  workloads::Architecture architecture_;
  workloads::StateBytes state_;

  PlanBuilder builder_;
  ActivationOffload offload_;
  HostState host_state_;
  workloads::Expansion model_;
  std::vector<Stage> stages_;
  std::vector<std::vector<std::vector<ParameterTensor>>> kind_tensors_;  // by kind of layer, then embedding and head
  // Of the stage that is being written.
  Stage stage_;
  std::vector<Part> parts_;
  std::vector<ParameterTensor> tensors_;  // as registered
  std::map<const workloads::Layer*, sim::BlockId> forward_blocks_;
  // Of the parts from the last to the first, and what comes behind them: of the first micro-batch, of later ones and of
  // the last.
  std::map<std::pair<bool, bool>, std::vector<sim::BlockId>> backward_blocks_;
  std::optional<sim::BlockId> backward_start_;
  // Where layers run again in groups: forward passes that keep nothing, those that run again, by whether they take up
  // the input that was kept.
  std::map<const workloads::Layer*, sim::BlockId> dropping_blocks_;
  std::map<std::pair<const workloads::Layer*, bool>, sim::BlockId> again_blocks_;
  std::int64_t trained_ = 0;
  sim::Bytes frozen_{};
  std::array<Replicas, 2> replicas_;  // of what all ranks have, and of experts
  LayerCommunication with_;

  std::optional<PipelineTransfers> transfers_;

  sim::StreamId gather_{}, arrive_{}, reduce_{}, fetch_events_{}, tensor_{};
  sim::SlotId data_slot_{}, secondary_slot_{}, node_slot_{}, across_slot_{};
  sim::SlotId tensor_slot_{}, model_slot_{}, pipeline_slot_{}, embedding_slot_{};
  std::string tied_;  // the operator of the head that uses the embedding's matrix
  FetchPlan fetches_;
  std::uint32_t event_turns_ = 1;  // gathers between which events are not used again
  std::map<std::vector<std::int64_t>, sim::BlockId> visit_blocks_;
  std::array<sim::BlockId, 2> ends_{};  // of the first micro-batch, and of those that accumulate
};

}  // namespace trainyard::strategies
