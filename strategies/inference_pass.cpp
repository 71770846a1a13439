#include "strategies/inference_pass.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "strategies/groups.hpp"
#include "strategies/plan_builder.hpp"
#include "strategies/traffic.hpp"

namespace trainyard::strategies {
namespace {

using sim::CollectiveKind;
using sim::MemoryPurpose;
using workloads::Layer;
using workloads::Operator;
using workloads::Role;

class Planner {
 public:
  Planner(const workloads::Expansion& model, const InferencePass& pass)
      : model_(model), pass_(pass), stream_(builder_.stream("tensor")), slot_(builder_.slot("tensor")) {}

  sim::Plan plan(std::int64_t devices);

 private:
  void write_program();
  sim::BlockId layer_block(const Layer& layer);
  sim::BlockId embedding_block();
  sim::BlockId head_block();
  void communicate(BlockWriter& block, CollectiveKind kind, sim::Bytes bytes);
  sim::Bytes weights() const;

  const workloads::Expansion& model_;
  const InferencePass& pass_;
  PlanBuilder builder_;
  sim::StreamId stream_;
  sim::SlotId slot_;
};

// What two neighbouring operators have made, and the residual stream beside it.
sim::Bytes live_activations(const Layer& layer) {
  sim::Bytes most{};
  for (std::size_t i = 0; i < layer.operators.size(); ++i) {
    const sim::Bytes before = i == 0 ? sim::Bytes{} : layer.operators[i - 1].output;
    most = std::max(most, before + layer.operators[i].output);
  }
  return most + layer.boundary;
}

// Partial sums of the routed experts are not summed up alone where shared experts' follow.
bool leaves_partial_sums(const Layer& layer, const Operator& op) {
  if (op.role == Role::row_linear) return true;
  return op.role == Role::combine && std::ranges::none_of(layer.operators, &Operator::of_shared_experts);
}

void Planner::communicate(BlockWriter& block, CollectiveKind kind, sim::Bytes bytes) {
  if (pass_.tensor > 1) block.blocking(stream_, builder_.call(slot_, kind, bytes, sim::Purpose::tensor));
}

sim::BlockId Planner::layer_block(const Layer& layer) {
  BlockWriter block = builder_.block(layer.name, pass_.host.forward);
  const sim::Bytes live = live_activations(layer);
  block.memory(MemoryPurpose::activations, live);
  for (const Operator& op : layer.operators) {
    block.compute(op.forward);
    if (leaves_partial_sums(layer, op)) communicate(block, CollectiveKind::all_reduce, layer.boundary);
  }
  block.memory(MemoryPurpose::activations, -live);
  return block.finish();
}

sim::BlockId Planner::embedding_block() {
  BlockWriter block = builder_.block("embedding", pass_.host.forward);
  for (const Operator& op : model_.embedding.operators) block.compute(op.forward);
  communicate(block, CollectiveKind::all_reduce, model_.embedding.boundary);
  return block.finish();
}

sim::BlockId Planner::head_block() {
  BlockWriter block = builder_.block("head", pass_.host.forward);
  // The logits, and their copy in 32 bits.
  const sim::Bytes live = model_.head.boundary + pass_.logits * 3;
  block.memory(MemoryPurpose::activations, live);
  for (const Operator& op : model_.head.operators) {
    block.compute(op.forward);
    if (op.role == Role::column_linear) communicate(block, CollectiveKind::all_gather, pass_.logits);
  }
  block.memory(MemoryPurpose::activations, -live);
  block.host_wait(sim::set_of(sim::compute_stream)).host_work(pass_.host.step);
  return block.finish();
}

sim::Bytes Planner::weights() const {
  return model_.embedding.frozen + model_.frozen(0, model_.layers()) + model_.head.frozen;
}

void Planner::write_program() {
  sim::Program program;
  program.name = "all ranks";
  program.resident[static_cast<std::size_t>(MemoryPurpose::parameters)] = weights();
  program.resident[static_cast<std::size_t>(MemoryPurpose::buffers)] = pass_.cache;
  program.calls.push_back({.block = embedding_block()});
  std::vector<sim::BlockId> blocks;
  for (const Layer& layer : model_.kinds) blocks.push_back(layer_block(layer));
  for (std::int64_t i = 0; i < model_.layers(); ++i)
    program.calls.push_back(
        {.block = blocks[model_.kind_of[static_cast<std::size_t>(i)]], .layer = static_cast<std::int32_t>(i)});
  program.calls.push_back({.block = head_block()});
  builder_.plan().programs.add(std::move(program));
}

sim::Plan Planner::plan(std::int64_t devices) {
  write_program();
  sim::Plan& plan = builder_.plan();
  const auto ranks = static_cast<std::size_t>(devices);
  plan.program_of = sim::Table<sim::RankId, sim::ProgramId>(ranks);
  plan.communicators = sim::CommunicatorTable(ranks, plan.slots.size());
  if (pass_.tensor > 1) add_groups(plan.communicators, RankGrid({pass_.tensor, devices / pass_.tensor}), {0}, slot_);
  return builder_.take();
}

}  // namespace

HostProfile inference_host(workloads::Backend backend, bool on_tpu) {
  using std::chrono::microseconds;
  HostProfile host = on_tpu ? HostProfile{} : host_profile(backend, eager_host());
  host.step = backend == workloads::Backend::eager ? microseconds{1000} : microseconds{200};
  return host;
}

PlannedStep plan_inference(const workloads::Expansion& model, const InferencePass& pass,
                           const topology::Cluster& cluster) {
  PlannedStep step;
  step.plan = Planner(model, pass).plan(cluster.devices());
  price_communications(step.plan, cluster);
  step.parallelism = {.data = cluster.devices() / pass.tensor, .tensor = pass.tensor};
  step.communicator_groups = pass.tensor > 1 ? 1 : 0;
  step.static_buffers = cluster.torus().has_value();
  return step;
}

}  // namespace trainyard::strategies
