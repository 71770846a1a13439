#include "strategies/groups.hpp"
#include "strategies/internal/deepspeed_planner.hpp"
#include "strategies/shared_ranks.hpp"
#include "strategies/traffic.hpp"

namespace trainyard::strategies {

using sim::Bytes;

void DeepspeedPlanner::make_streams() {
  gather_ = builder_.stream("all-gather");
  reduce_ = builder_.stream("reduce");
  data_slot_ = replicas_[0].slot = builder_.slot("data");
  replicas_[0].ranks = shards_;
  replicas_[1].ranks = shards_ / options_.expert;
  // A plan has few streams: those of stage 3 are where there is no pipeline.
  if (options_.zero_stage == 3) {
    arrive_ = builder_.stream("gathered parameters");
    fetch_events_ = builder_.stream("fetch events");
  }
  if (options_.offloads_optimizer() || options_.offloads_parameters()) host_state_.open();
}

void DeepspeedPlanner::make_communication() {
  make_expert_groups();
  secondary_slot_ = builder_.slot("secondary partition");
  node_slot_ = builder_.slot("node");
  across_slot_ = builder_.slot("across nodes");
  if (options_.of_megatron()) model_slot_ = builder_.slot("model");
  if (options_.tensor > 1) {
    tensor_ = builder_.stream("tensor parallel");
    tensor_slot_ = builder_.slot("tensor");
    with_.tensor = TensorCommunication{.stream = tensor_,
                                       .slot = tensor_slot_,
                                       .sequence_parallel = options_.divides_sequence(),
                                       .overlaps_weight_gradients = options_.async_tensor_model_parallel_allreduce,
                                       .loss = Bytes{micro_batch_ * job_.training.sequence * 4}};
  }
  if (options_.context > 1)
    with_.context = context_communication(builder_, workloads::ContextExchange::all_to_all, options_.context);
}

// Neighbours share the experts, ranks of the same place reduce them (deepspeed/utils/groups.py), in each stage.
RankGrid DeepspeedPlanner::expert_grid() const {
  return RankGrid({1, options_.expert, shards_ / options_.expert, options_.pipeline});
}

void DeepspeedPlanner::make_expert_groups() {
  if (!job_.model.experts) return;
  with_.host_reads_loads = !job_.training.routing.capacity_factor;
  if (options_.expert == 1) return;
  replicas_[1].slot = builder_.slot("expert data");
  with_.expert = expert_communication(builder_, {.ranks = options_.expert, .top_k = job_.model.experts->top_k},
                                      expert_places(job_.cluster, expert_grid(), 1));
}

sim::StreamSet DeepspeedPlanner::all_streams() const {
  return static_cast<sim::StreamSet>(sim::set_of(sim::compute_stream) | sim::set_of(gather_) | sim::set_of(arrive_) |
                                     sim::set_of(reduce_));
}

void DeepspeedPlanner::wire_ranks() {
  sim::Plan& plan = builder_.plan();
  const RankGrid all = grid();
  const auto ranks = static_cast<std::size_t>(all.ranks());
  plan.program_of = sim::Table<sim::RankId, sim::ProgramId>(ranks);
  plan.communicators = sim::CommunicatorTable(ranks, plan.slots.size());
  sim::CommunicatorTable& table = plan.communicators;
  for (std::size_t i = 0; i < ranks; ++i) {
    const sim::RankId rank = plan.program_of.id(i);
    const auto stage = static_cast<std::size_t>(all.coordinate(rank, stage_axis));
    plan.program_of[rank] = plan.programs.id(stage);
    if (embedding_is_shared() && stage == 0)
      table.add({rank, all.moved(rank, stage_axis, options_.pipeline - 1)}, {embedding_slot_, embedding_slot_});
  }
  add_groups(table, all, {context_axis, data_axis}, data_slot_);
  if (options_.tensor > 1) add_groups(table, all, {tensor_axis}, tensor_slot_);
  if (options_.of_megatron()) add_groups(table, all, {tensor_axis, stage_axis}, model_slot_);
  if (options_.pipeline > 1) add_groups(table, all, {stage_axis}, pipeline_slot_);
  if (with_.context) connect_context(table, all, context_axis, *with_.context);
  if (options_.zero_stage == 3 && options_.zero_hpz_partition_size > 1)
    add_groups(table, RankGrid({options_.zero_hpz_partition_size, shards_ / options_.zero_hpz_partition_size}), {0},
               secondary_slot_);
  if (with_.expert) {
    connect_experts(table, job_.cluster, expert_grid(), 1, 0, *with_.expert);
    add_groups(table, expert_grid(), {2}, replicas_[1].slot);
  }
  if (quantizes_gradients()) {
    const RankGrid nodes({shards_ / job_.cluster.nodes(), job_.cluster.nodes()});
    add_groups(table, nodes, {0}, node_slot_);
    add_groups(table, nodes, {1}, across_slot_);
  }
  transfers_->connect(plan, all, stage_axis);
  offload_.connect(plan, all.ranks());
  host_state_.connect(plan, all.ranks());
  price_communications(plan, job_);
  host_state_.price(plan);
}

// Beyond the world's: those of data and model parallelism only where they are not the world.
int DeepspeedPlanner::communicator_groups() const {
  int groups = options_.expert > 1 ? 2 : 0;
  if (options_.model_parallel() > 1 && several()) ++groups;
  for (const std::int64_t ranks : {options_.tensor, options_.pipeline, options_.context}) groups += ranks > 1 ? 1 : 0;
  if (options_.of_megatron()) ++groups;
  return groups;
}

}  // namespace trainyard::strategies
