#include "strategies/internal/pytorch_ddp.hpp"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "strategies/checks.hpp"
#include "strategies/ddp_buckets.hpp"
#include "strategies/groups.hpp"
#include "strategies/host_profile.hpp"
#include "strategies/internal/replicated_passes.hpp"
#include "strategies/search_values.hpp"
#include "strategies/traffic.hpp"
#include "workloads/layers.hpp"

namespace trainyard::strategies {
namespace {

using sim::Bytes;
using sim::CollectiveKind;
using sim::MemoryPurpose;
using workloads::Precision;

class Planner {
 public:
  Planner(const PytorchDdp::Options& options, const Job& job)
      : options_(options),
        job_(job),
        passes_(builder_, job, job.training, host_profile(job.training, eager_host()),
                workloads::kernel_style(job.training, job.model)),
        reduced_(options.compresses() ? Precision::fp16 : gradient_precision(job.training, gradients())) {}

  PlannedStep plan();

 private:
  using Part = ReplicatedPasses::Part;

  bool several() const { return passes_.replicas() > 1; }
  std::int64_t gradient_bytes() const { return passes_.gradient_bytes(); }
  // They have the type of the parameters.
  Precision gradients() const {
    if (gradient_bytes() == 4) return Precision::fp32;
    return job_.training.precision == Precision::fp16 ? Precision::fp16 : Precision::bf16;
  }
  void write_program();
  std::vector<Bytes> form_buckets() const;
  Bytes buffers() const;
  sim::BlockId broadcast_block();
  sim::BlockId backward_block(const Part& part, bool reduces);
  void reduce_ready(BlockWriter& block, std::int64_t parameters);
  sim::BlockId reduction_end();
  sim::BlockId step_end();

  const PytorchDdp::Options& options_;
  const Job& job_;
  PlanBuilder builder_;
  ReplicatedPasses passes_;
  Precision reduced_;
  sim::StreamId stream_{};
  sim::SlotId slot_{};
  std::vector<Bytes> buckets_;  // in bytes of gradients, as DDP forms them
  std::size_t next_bucket_ = 0;
  Bytes ready_{};  // gradient bytes not yet in a launched bucket
};

// In the order of their reductions. In the first step DDP learns in which order gradients come, and forms the buckets
// by it; where some may be missing and the graph may change, it keeps those that it formed from the order of
// registration, of which the first, small one is the last to be reduced.
std::vector<Bytes> Planner::form_buckets() const {
  std::vector<Bytes> tensors;
  for (const std::int64_t tensor : passes_.gradient_tensors()) tensors.push_back(Bytes{tensor * gradient_bytes()});
  const bool as_registered = options_.find_unused_parameters && !options_.static_graph;
  if (!as_registered) std::ranges::reverse(tensors);
  // A cap of one's own also replaces the small first limit.
  const Bytes cap{options_.bucket_cap_mb << 20};
  std::vector<Bytes> buckets = ddp_buckets(tensors, options_.bucket_cap_mb == 25 ? Bytes{1 << 20} : cap, cap);
  if (as_registered) std::ranges::reverse(buckets);
  return buckets;
}

// Means and variances of batch norms, in 32 bits.
Bytes Planner::buffers() const {
  Bytes sum{};
  const auto add = [&](const workloads::Block& block) {
    for (const workloads::Operation& operation : block.operations)
      if (const auto* norm = std::get_if<workloads::BatchNormWork>(&operation.work)) sum += Bytes{8 * norm->channels};
  };
  add(passes_.architecture().embedding);
  for (const std::uint32_t kind : passes_.architecture().layers) add(passes_.architecture().kinds[kind]);
  add(passes_.architecture().head);
  return sum;
}

// Everyone has rank 0's before the first forward pass behind a reduction.
sim::BlockId Planner::broadcast_block() {
  BlockWriter block = builder_.block("broadcast buffers", passes_.host().forward);
  block.blocking(stream_, builder_.call(slot_, CollectiveKind::broadcast, buffers(), sim::Purpose::data));
  return block.finish();
}

// Buckets launch strictly in order, each when its last gradient is ready.
void Planner::reduce_ready(BlockWriter& block, std::int64_t parameters) {
  ready_ += Bytes{parameters * gradient_bytes()};
  while (next_bucket_ < buckets_.size() && ready_ >= buckets_[next_bucket_]) {
    const Bytes bucket = buckets_[next_bucket_++];
    ready_ = ready_ - bucket;
    const Bytes wire{bucket.count / gradient_bytes() * workloads::element_bytes(reduced_)};
    // A hook compresses the bucket before, and writes it back behind its reduction.
    const sim::Kernel cast = passes_.costs().memory_bound("compress gradients", bucket + wire);
    if (options_.compresses()) block.compute({&cast, 1});
    block.communicate(stream_, builder_.call(slot_, CollectiveKind::all_reduce, wire, sim::Purpose::data));
    if (options_.compresses())
      block.side_kernel(stream_, passes_.costs().memory_bound("decompress gradients", bucket + wire), 0);
  }
}

sim::BlockId Planner::backward_block(const Part& part, bool reduces) {
  const std::string name = "backward " + part.layer->name + (reduces ? " and reduce" : "");
  return passes_.backward_block(part, name, [&](BlockWriter& writer, std::int64_t parameters) {
    // Without views gradients are also copied into the bucket.
    std::int64_t traffic = passes_.accumulation_traffic();
    if (reduces && several() && !options_.gradient_as_bucket_view) traffic += 2 * gradient_bytes();
    if (traffic > 0) {
      const sim::Kernel copy = passes_.costs().memory_bound("accumulate gradients", Bytes{parameters * traffic});
      writer.compute({&copy, 1});
    }
    if (reduces) reduce_ready(writer, parameters);
  });
}

// The end of a backward pass that reduces waits for every bucket.
sim::BlockId Planner::reduction_end() {
  BlockWriter block = builder_.block("end of reduction", passes_.host().backward);
  if (options_.find_unused_parameters && several()) {
    const auto tensors = static_cast<std::int64_t>(passes_.gradient_tensors().size());
    block.communicate(stream_,
                      builder_.call(slot_, CollectiveKind::all_reduce, Bytes{4 * tensors}, sim::Purpose::data));
  }
  block.wait_for(sim::set_of(stream_));
  return block.finish();
}

sim::BlockId Planner::step_end() {
  BlockWriter block = builder_.block("optimizer step", passes_.host().backward);
  passes_.write_update(block, passes_.trained());
  block.host_wait(sim::set_of(sim::compute_stream)).host_work(passes_.host().step);
  return block.finish();
}

void Planner::write_program() {
  sim::Program program = passes_.program("all ranks");
  if (!options_.gradient_as_bucket_view && several())
    program.resident[static_cast<std::size_t>(MemoryPurpose::buffers)] = Bytes{passes_.trained() * gradient_bytes()};
  const std::int64_t micro_batches = passes_.micro_batches();
  std::map<const workloads::Layer*, sim::BlockId> backward;
  std::map<std::pair<const workloads::Layer*, std::int32_t>, sim::BlockId> reducing;
  const bool broadcasts = options_.broadcast_buffers && several() && buffers().count > 0;
  const sim::BlockId broadcast = broadcasts ? broadcast_block() : sim::BlockId{};
  const sim::BlockId end = reduction_end();
  for (std::int64_t m = 0; m < micro_batches; ++m) {
    passes_.write_forward(program, m);
    // no_sync(): only the last micro-batch reduces.
    const bool reduces = !options_.no_sync || m + 1 == micro_batches;
    const bool after_reduction = !options_.no_sync || m == 0;
    if (broadcasts && after_reduction)
      program.calls.push_back({.block = broadcast, .micro_batch = static_cast<std::int32_t>(m)});
    next_bucket_ = 0;
    passes_.write_backward(program, m, [&](const Part& part) {
      if (!reduces) {
        if (!backward.contains(part.layer)) backward[part.layer] = backward_block(part, false);
        return backward.at(part.layer);
      }
      // Each layer's has its own buckets, alike in every micro-batch.
      const std::pair key{part.layer, part.index};
      if (!reducing.contains(key)) reducing[key] = backward_block(part, several());
      return reducing.at(key);
    });
    if (reduces) program.calls.push_back({.block = end, .micro_batch = static_cast<std::int32_t>(m)});
  }
  program.calls.push_back({.block = step_end()});
  builder_.plan().programs.add(std::move(program));
}

PlannedStep Planner::plan() {
  stream_ = builder_.stream("all-reduce");
  slot_ = builder_.slot("data");
  passes_.exchange_tables(slot_);
  buckets_ = form_buckets();

  write_program();
  sim::Plan& plan = builder_.plan();
  const auto ranks = static_cast<std::size_t>(passes_.replicas());
  plan.program_of = sim::Table<sim::RankId, sim::ProgramId>(ranks);
  plan.communicators = sim::CommunicatorTable(ranks, plan.slots.size());
  add_groups(plan.communicators, RankGrid({passes_.replicas()}), {0}, slot_);
  passes_.connect(plan);
  price_communications(plan, job_);

  PlannedStep step;
  step.parallelism.data = passes_.replicas();
  step.micro_batch = passes_.micro_batch();
  step.micro_batches = passes_.micro_batches();
  step.plan = builder_.take();
  return step;
}

}  // namespace

std::vector<sim::Key> PytorchDdp::keys() {
  Options& o = options_;
  return {
      {"tensor", &o.tensor, "1: DDP only replicates", false, 1, most_ranks},
      {"pipeline", &o.pipeline, "1: DDP only replicates", false, 1, most_ranks},
      {"context", &o.context, "1: DDP only replicates", false, 1, most_ranks},
      {"expert", &o.expert, "1: DDP only replicates", false, 1, most_ranks},
      {"bucket_cap_mb", &o.bucket_cap_mb, "MiB of gradients in a bucket; the first closes at 1 MiB", false, 1,
       most_ranks},
      {"gradient_as_bucket_view", &o.gradient_as_bucket_view, "gradients live in the buckets: no copies, less memory"},
      {"find_unused_parameters", &o.find_unused_parameters,
       "one more all-reduce of a bitmap of used parameters, and buckets in the order of registration"},
      {"static_graph", &o.static_graph,
       "the same parameters are used in every step: buckets in the order of gradients also with "
       "find_unused_parameters"},
      {"broadcast_buffers", &o.broadcast_buffers, "every forward pass begins with rank 0's batch-norm statistics"},
      {"no_sync", &o.no_sync, "gradients of several micro-batches are reduced once, with the last (false: with each)"},
      {"comm_hook", &o.comm_hook, "buckets are cast to 16 bits for their reduction, and back"},
  };
}

std::vector<Problem> PytorchDdp::check(const Job& job) const {
  std::vector<Problem> problems;
  const auto only_one = [&](const std::string& key, std::int64_t value) {
    if (value != 1)
      problems.push_back(
          {.key = "strategy." + key,
           .message = "pytorch-ddp replicates the whole model on every rank; use 1, or framework 'megatron-lm'"});
  };
  only_one("tensor", options_.tensor);
  only_one("pipeline", options_.pipeline);
  only_one("context", options_.context);
  only_one("expert", options_.expert);
  if (options_.compresses() && job.training.gradient_precision)
    problems.push_back({.key = "strategy.comm_hook",
                        .message = "says in which type gradients are reduced, as training.gradient_precision does; "
                                   "give one of them"});
  const std::vector<Problem> groups = check_layer_groups(job, "pytorch-ddp");
  problems.insert(problems.end(), groups.begin(), groups.end());
  const std::int64_t data = job.cluster.devices();
  const std::vector<Problem> batch = check_batch(job, data, job.training.micro_batch.value_or(1));
  problems.insert(problems.end(), batch.begin(), batch.end());
  return problems;
}

std::vector<std::string> PytorchDdp::warnings(const Job& job) const {
  std::vector<std::string> warnings = warn_without_tensorflow(job, "pytorch-ddp");
  if (options_.comm_hook.value == "bf16_compress" && !job.accelerator.supports(Precision::bf16))
    warnings.emplace_back("strategy.comm_hook: bf16_compress needs an accelerator with bf16");
  return warnings;
}

PlannedStep PytorchDdp::plan(const Job& job) const { return Planner(options_, job).plan(); }

std::vector<SearchKey> PytorchDdp::search_keys(const Job& job) const {
  return {micro_batch_key(job), recompute_key(job), switch_key("strategy.gradient_as_bucket_view")};
}

}  // namespace trainyard::strategies
