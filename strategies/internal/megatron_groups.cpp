#include <map>
#include <string>

#include "strategies/internal/megatron_planner.hpp"
#include "strategies/shared_ranks.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::CollectiveKind;
using sim::Purpose;

// `sizes` of the dimensions; two are cut in two, neighbours first: data-parallel ranks into those of an instance of the
// distributed optimizer and the instances, context-parallel ones into those of a collective and those of a ring.
MegatronPlanner::NamedGrid MegatronPlanner::grid_of(const std::vector<std::string>& order,
                                                    std::map<std::string, std::int64_t> sizes, std::int64_t instances) {
  std::vector<std::int64_t> lengths;
  std::map<std::string, std::size_t> axis;
  const auto add = [&](const std::string& name, std::int64_t size) {
    axis[name] = lengths.size();
    lengths.push_back(size);
  };
  for (const std::string& name : order) {
    add(name, name == "dp" ? sizes[name] / instances : sizes[name]);
    if (name == "dp") add("instances", instances);
    if (name == "cp") add("ring", sizes["ring"]);
  }
  return {RankGrid(lengths), axis};
}

void MegatronPlanner::make_streams_and_slots() {
  tensor_stream_ = builder_.stream("tensor parallel");
  tensor_slot_ = builder_.slot("tensor");
  model_slot_ = builder_.slot("model");
  embedding_slot_ = builder_.slot("embedding");
  make_transfers();
  // A plan has few streams. At the end of a step, when the model's is needed, the tensor group's has nothing else to
  // do.
  model_stream_ = placement_.has_way_back() ? tensor_stream_ : builder_.stream("model parallel");
}

void MegatronPlanner::make_transfers() {
  const Bytes boundary = model_.embedding.boundary;
  const bool divided = sequence_parallel() || scatters_transfers();
  PipelineMessage message{.bytes = Bytes{boundary.count / (divided ? options_.tensor : 1)}};
  if (scatters_transfers() && options_.pipeline > 1) {
    BlockWriter gather = builder_.block("gather parts", host_.forward);
    gather.blocking(tensor_stream_,
                    builder_.call(tensor_slot_, CollectiveKind::all_gather, boundary, Purpose::pipeline));
    message.arrival = gather.finish();
  }
  const bool in_pairs = chunks_ > 1 && !makes_forward_passes_first();
  const TransferOrder waiting = in_pairs ? TransferOrder::in_pairs : TransferOrder::at_once;
  // batch_p2p_sync: the host waits too, so kernels behind a transfer start with a launch.
  transfers_.emplace(builder_, placement_, PipelineMessages{.activations = message, .gradients = message},
                     PipelineTransfers::Manner{.order = overlaps_transfers() ? TransferOrder::ahead : waiting,
                                               .host_waits = true,
                                               .group = options_.micro_batch_group(),
                                               .launch = host_.forward});
}

void MegatronPlanner::make_calls() {
  if (options_.tensor > 1) {
    with_.tensor = TensorCommunication{.stream = tensor_stream_,
                                       .slot = tensor_slot_,
                                       .sequence_parallel = sequence_parallel(),
                                       .overlaps_weight_gradients = options_.async_tensor_model_parallel_allreduce,
                                       .loss = Bytes{micro_batch_ * job_.training.sequence / options_.context * 4},
                                       .gathers_in_8_bits = training_.precision == workloads::Precision::fp8,
                                       .pieces = options_.overlaps_tensor(job_) ? options_.tensor : 1};
  }
  if (options_.context > 1)
    with_.context =
        context_communication(builder_, options_.context_exchange(), options_.context / options_.context_ring());
  make_expert_communication();
  const HostProfile loop = host_profile(training_, eager_host());
  with_.loop_forward = loop.forward;
  with_.loop_backward = loop.backward;
  with_.host_reads_loads = job_.model.experts && !training_.routing.capacity_factor;
}

ExpertPlaces MegatronPlanner::places_of_experts() const {
  if (!job_.model.experts) return {};
  const NamedGrid experts = expert_grid();
  return expert_places(job_.cluster, experts.grid, experts.axis.at("ep"));
}

void MegatronPlanner::make_expert_communication() {
  if (!exchanges_tokens()) return;
  with_.expert = expert_communication(builder_,
                                      {.dispatcher = dispatcher_,
                                       .ranks = options_.expert,
                                       .tensor_ranks = options_.expert_tensor,
                                       .top_k = job_.model.experts->top_k,
                                       .most_nodes = options_.moe_router_group_topk},
                                      expert_places_);
  with_.expert->overlaps_shared_experts = options_.moe_shared_expert_overlap;
}

// Megatron-Bridge's performance recipes have moe_a2a_overlap on for DeepSeek-V3 and Qwen3-235B on H100 and B200, where
// tokens cross nodes, and mostly off inside NVL72 racks (scripts/performance/configs).
bool MegatronPlanner::overlaps_passes() const {
  if (!exchanges_tokens()) return false;
  const bool usual = options_.schedule_kind() == ScheduleKind::interleaved && expert_places_.domains > 1 &&
                     !training_.recompute.full() && !options_.moe_shared_expert_overlap;
  return options_.overlap_moe_expert_parallel_comm.value_or(usual);
}

// Dense parameters have a copy on all data- and context-parallel ranks, experts on those that are left when experts and
// their parts are dealt out (parallel folding; megatron/core/parallel_state.py). Where two copies of the model go
// through the pipeline, each stage is on two of its ranks.
void MegatronPlanner::make_gradient_groups() {
  const auto add = [&](bool experts, std::int64_t ranks) {
    const std::string name = experts ? "expert data" : "data";
    GradientGroup group{.experts = experts, .ranks = ranks * placement_.copies()};
    group.shards = options_.distributed_optimizer ? group.ranks / options_.num_distributed_optimizer_instances : 1;
    group.stream = builder_.stream(name + " parallel");
    group.slot = builder_.slot(name);
    if (options_.num_distributed_optimizer_instances > 1) group.instances = builder_.slot(name + " instances");
    gradient_groups_.push_back(group);
  };
  add(false, data_ * options_.context);
  if (job_.model.experts) add(true, options_.expert_data(job_));
}

MegatronPlanner::NamedGrid MegatronPlanner::dense_grid() const {
  return grid_of(*parse_rank_order(options_.order),
                 {{"tp", options_.tensor},
                  {"cp", options_.context / options_.context_ring()},
                  {"ring", options_.context_ring()},
                  {"ep", 1},
                  {"dp", data_},
                  {"pp", options_.pipeline}},
                 options_.num_distributed_optimizer_instances);
}

// Experts have an order of their own over the same ranks.
MegatronPlanner::NamedGrid MegatronPlanner::expert_grid() const {
  return grid_of(*parse_rank_order(options_.order),
                 {{"tp", options_.expert_tensor},
                  {"cp", 1},
                  {"ring", 1},
                  {"ep", options_.expert},
                  {"dp", options_.expert_data(job_)},
                  {"pp", options_.pipeline}},
                 options_.num_distributed_optimizer_instances);
}

void MegatronPlanner::wire_gradients(sim::CommunicatorTable& table) const {
  for (const GradientGroup& group : gradient_groups_) {
    const NamedGrid named = group.experts ? expert_grid() : dense_grid();
    const std::vector<std::size_t> axes{named.axis.at("dp"), named.axis.at("cp"), named.axis.at("ring")};
    if (placement_.copies() == 2)
      add_mirrored_groups(table, named.grid, axes, named.axis.at("pp"), group.slot);
    else
      add_groups(table, named.grid, axes, group.slot);
    if (options_.num_distributed_optimizer_instances > 1)
      add_groups(table, named.grid, {named.axis.at("instances")}, group.instances);
  }
}

void MegatronPlanner::wire_ranks() {
  const NamedGrid named = dense_grid();
  const RankGrid& grid = named.grid;
  const std::size_t stages = named.axis.at("pp");
  sim::Plan& plan = builder_.plan();
  const auto ranks = static_cast<std::size_t>(grid.ranks());
  plan.program_of = sim::Table<sim::RankId, sim::ProgramId>(ranks);
  plan.communicators = sim::CommunicatorTable(ranks, plan.slots.size());
  for (std::size_t i = 0; i < ranks; ++i) {
    const sim::RankId rank = plan.program_of.id(i);
    const std::int64_t stage = grid.coordinate(rank, stages);
    plan.program_of[rank] = sim::ProgramId{static_cast<std::uint32_t>(stage)};
    if (embedding_is_shared() && stage == 0)
      plan.communicators.add({rank, grid.moved(rank, stages, options_.pipeline - 1)},
                             {embedding_slot_, embedding_slot_});
  }
  offload_.connect(plan, grid.ranks());
  add_groups(plan.communicators, grid, {named.axis.at("tp")}, tensor_slot_);
  wire_gradients(plan.communicators);
  if (with_.context)
    connect_context(plan.communicators, grid, named.axis.at("cp"), named.axis.at("ring"), *with_.context);
  if (with_.expert) {
    const NamedGrid experts = expert_grid();
    connect_experts(plan.communicators, job_.cluster, experts.grid, experts.axis.at("ep"), experts.axis.at("tp"),
                    *with_.expert);
  }
  // With a distributed optimizer, or experts, every data-parallel rank knows only its part of the gradient.
  std::vector<std::size_t> norm_axes{named.axis.at("tp"), stages};
  if (norm_is_of_all())
    for (const char* axis : {"cp", "ring", "dp", "instances"}) norm_axes.push_back(named.axis.at(axis));
  add_groups(plan.communicators, grid, norm_axes, model_slot_);
  transfers_->connect(plan, grid, stages);
}

}  // namespace trainyard::strategies
