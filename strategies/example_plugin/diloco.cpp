// DiLoCo as torchft has it: every device is a replica that trains on its own. Now and then replicas average by how much
// their parameters have changed, and an outer optimizer, SGD with Nesterov momentum, steps by that "pseudo-gradient"
// (Douillard et al., arXiv 2311.08105). Streaming DiLoCo (arXiv 2501.18512) synchronises one fragment of the model at a
// time, so that no step has to carry all of it.
//
// A simulated step is an average one: of `sync_every` fragments, one is synchronised in each step. With fewer fragments
// the bytes are the same; latencies are paid less often.
//
// Source: pytorch/torchft torchft/local_sgd.py, DiLoCo. The model's copy of the last synchronisation and the outer
// momentum stay on the device (`backup_device` there; its default is the host, which is not modelled here).
#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "strategies/checks.hpp"
#include "strategies/groups.hpp"
#include "strategies/host_profile.hpp"
#include "strategies/layer_ops.hpp"
#include "strategies/plan_builder.hpp"
#include "strategies/plugin.hpp"
#include "strategies/traffic.hpp"

namespace diloco {
namespace {

using namespace trainyard;
using sim::Bytes;
using sim::MemoryPurpose;
using strategies::BlockWriter;
using strategies::Job;
using strategies::Problem;

struct Options {
  std::int64_t sync_every = 500;  // arXiv 2311.08105, section 3; torchft has no default
  bool should_quantize = false;
  std::int64_t fragment_sync_delay = 0;
};

class Planner {
 public:
  Planner(const Options& options, const Job& job)
      : options_(options),
        job_(job),
        replicas_(job.cluster.devices()),
        micro_batch_(job.training.micro_batch.value_or(job.training.global_batch / replicas_)),
        micro_batches_(job.training.global_batch / (replicas_ * micro_batch_)),
        host_(strategies::host_profile(job.training, strategies::eager_host())),
        costs_(job.accelerator, replicas_),
        architecture_(workloads::describe(job.model, job.training.sequence, 0, job.training.documents)),
        state_(workloads::state_bytes(job.training, workloads::StateLayout::full_precision, workloads::Precision::fp32,
                                      workloads::factored_moments(architecture_))) {}

  strategies::PlannedStep plan();

 private:
  struct Part {  // a layer, the embedding or the head
    const workloads::Layer* layer = nullptr;
    std::int32_t index = -1;
    bool recomputed = false;
  };

  std::int64_t fragment() const { return (trained_ + options_.sync_every - 1) / options_.sync_every; }
  bool overlaps() const { return options_.fragment_sync_delay > 0; }
  std::vector<Part> parts() const;
  sim::BlockId forward_block(const Part& part);
  sim::BlockId backward_block(const Part& part);
  sim::BlockId inner_step();
  void start_synchronisation(BlockWriter& block);
  void outer_step(BlockWriter& block);
  sim::Program program();

  const Options& options_;
  const Job& job_;
  std::int64_t replicas_;
  std::int64_t micro_batch_;
  std::int64_t micro_batches_;
  strategies::HostProfile host_;
  workloads::KernelCosts costs_;
  workloads::Architecture architecture_;
  workloads::StateBytes state_;

  strategies::PlanBuilder builder_;
  workloads::Expansion model_;
  std::int64_t trained_ = 0;
  sim::StreamId stream_{};
  sim::SlotId slot_{};
};

std::vector<Planner::Part> Planner::parts() const {
  std::vector<Part> parts{{.layer = &model_.embedding}};
  for (std::int64_t i = 0; i < model_.layers(); ++i)
    parts.push_back({.layer = &model_.layer(i), .index = static_cast<std::int32_t>(i), .recomputed = true});
  parts.push_back({.layer = &model_.head});
  return parts;
}

sim::BlockId Planner::forward_block(const Part& part) {
  BlockWriter block = builder_.block("forward " + part.layer->name, host_.forward);
  const auto recompute = part.recomputed ? job_.training.recompute : workloads::Recompute{};
  block.memory(MemoryPurpose::activations, part.layer->saved_bytes(recompute, true));
  strategies::write_forward(block, *part.layer);
  return block.finish();
}

sim::BlockId Planner::backward_block(const Part& part) {
  BlockWriter block = builder_.block("backward " + part.layer->name, host_.backward);
  const auto recompute = part.recomputed ? job_.training.recompute : workloads::Recompute{};
  const Bytes kept = part.layer->saved_bytes(recompute, true);
  const Bytes everything = std::max(part.layer->saved_bytes({}, true), kept);
  const Bytes workspace = strategies::backward_workspace(*part.layer);
  block.memory(MemoryPurpose::activations, everything - kept + workspace);
  strategies::write_recompute(block, *part.layer, recompute, true, {});
  strategies::write_backward(block, *part.layer, {});
  block.memory(MemoryPurpose::activations, -(everything + workspace));
  return block.finish();
}

// The pseudo-gradient: reads parameters and their copy, writes the difference.
void Planner::start_synchronisation(BlockWriter& block) {
  const sim::Kernel difference = costs_.memory_bound("pseudo-gradient", Bytes{fragment() * 12});
  block.compute({&difference, 1});
  const Bytes reduced{fragment() * (options_.should_quantize ? 1 : 4)};
  block.communicate(stream_, builder_.call(slot_, sim::CollectiveKind::all_reduce, reduced, sim::Purpose::data));
}

// Reads pseudo-gradient, momentum and copy, writes momentum, copy and parameters.
void Planner::outer_step(BlockWriter& block) {
  block.wait_for(sim::set_of(stream_));
  const sim::Kernel step = costs_.memory_bound("outer optimizer", Bytes{fragment() * 24}, sim::KernelClass::optimizer);
  block.compute({&step, 1});
}

sim::BlockId Planner::inner_step() {
  BlockWriter block = builder_.block("inner and outer step", host_.backward);
  block.compute(workloads::optimizer_kernels(job_.training, state_, trained_, costs_));
  if (!overlaps()) start_synchronisation(block);
  outer_step(block);
  block.host_wait(sim::set_of(sim::compute_stream)).host_work(host_.step);
  return block.finish();
}

sim::Program Planner::program() {
  sim::Program program;
  program.name = "all replicas";
  const auto resident = [&](MemoryPurpose purpose) -> Bytes& {
    return program.resident[static_cast<std::size_t>(purpose)];
  };
  const Bytes frozen = model_.embedding.frozen + model_.frozen(0, model_.layers()) + model_.head.frozen;
  resident(MemoryPurpose::parameters) = Bytes{trained_ * state_.parameter} + frozen;
  resident(MemoryPurpose::gradients) = Bytes{trained_ * state_.gradient};
  resident(MemoryPurpose::optimizer) = state_.optimizer(trained_) + Bytes{trained_ * 8};  // copy and outer momentum
  resident(MemoryPurpose::buffers) = Bytes{fragment() * 4};

  const std::vector<Part> order = parts();
  std::map<const workloads::Layer*, sim::BlockId> forward;
  std::map<const workloads::Layer*, sim::BlockId> backward;
  for (const Part& part : order) {
    if (forward.contains(part.layer)) continue;
    forward[part.layer] = forward_block(part);
    backward[part.layer] = backward_block(part);
  }
  if (overlaps()) {  // the all-reduce goes on beside the passes, until the outer step needs it
    BlockWriter start = builder_.block("start of a synchronisation", host_.backward);
    start_synchronisation(start);
    program.calls.push_back({.block = start.finish()});
  }
  for (std::int32_t m = 0; m < micro_batches_; ++m) {
    for (const Part& part : order)
      program.calls.push_back({.block = forward.at(part.layer), .layer = part.index, .micro_batch = m});
    for (std::size_t i = order.size(); i-- > 0;)
      program.calls.push_back({.block = backward.at(order[i].layer), .layer = order[i].index, .micro_batch = m});
  }
  program.calls.push_back({.block = inner_step()});
  return program;
}

strategies::PlannedStep Planner::plan() {
  const workloads::KernelStyle style = workloads::kernel_style(job_.training, job_.model);
  model_ = workloads::expand(architecture_, job_.training, {.micro_batch = micro_batch_}, style, costs_);
  trained_ = model_.embedding.trained + model_.trained(0, model_.layers()) + model_.head.trained;
  stream_ = builder_.stream("all-reduce");
  slot_ = builder_.slot("replicas");
  builder_.plan().programs.add(program());

  sim::Plan& plan = builder_.plan();
  const auto ranks = static_cast<std::size_t>(replicas_);
  plan.program_of = sim::Table<sim::RankId, sim::ProgramId>(ranks);
  plan.communicators = sim::CommunicatorTable(ranks, plan.slots.size());
  strategies::add_groups(plan.communicators, strategies::RankGrid({replicas_}), {0}, slot_);
  strategies::price_communications(plan, job_);

  strategies::PlannedStep step;
  step.parallelism.data = replicas_;
  step.micro_batch = micro_batch_;
  step.micro_batches = micro_batches_;
  step.plan = builder_.take();
  return step;
}

class Diloco final : public strategies::Strategy {
 public:
  std::vector<sim::Key> keys() override {
    Options& o = options_;
    return {
        {.name = "sync_every",
         .target = &o.sync_every,
         .help = "inner steps between two synchronisations of the same parameters",
         .least = 1,
         .most = 1e6},
        {.name = "should_quantize", .target = &o.should_quantize, .help = "reduce pseudo-gradients in 8 bits, not 32"},
        {.name = "fragment_sync_delay",
         .target = &o.fragment_sync_delay,
         .help = "inner steps that go on beside an all-reduce before its result is used",
         .most = 1},
    };
  }

  std::vector<Problem> check(const Job& job) const override {
    std::vector<Problem> problems = strategies::check_layer_groups(job, "torchft-diloco");
    const std::int64_t replicas = job.cluster.devices();
    if (replicas == 1)
      problems.push_back({.key = "cluster", .message = "one device has no replica to synchronise with; give 2"});
    if (job.model.structure == workloads::Model::Structure::recommendation)
      problems.push_back(
          {.key = "model", .message = "tables of a recommender are not replicated; choose another model"});
    if (job.training.activation_offload)
      problems.push_back(
          {.key = "training.activation_offload", .message = "torchft-diloco does not offload; use false"});
    const auto batch = strategies::check_batch(job, replicas, job.training.micro_batch.value_or(1));
    problems.insert(problems.end(), batch.begin(), batch.end());
    return problems;
  }

  std::vector<std::string> warnings(const Job& /*job*/) const override {
    if (options_.sync_every > 1) return {};
    return {"strategy.sync_every: 1 synchronises everything in every step, which is data parallelism"};
  }

  strategies::PlannedStep plan(const Job& job) const override { return Planner(options_, job).plan(); }

 private:
  Options options_;
};

}  // namespace
}  // namespace diloco

TRAINYARD_PLUGIN({"torchft-diloco", "replicas on their own, a fragment of the model averaged after each step",
                  &trainyard::strategies::make<diloco::Diloco>})
