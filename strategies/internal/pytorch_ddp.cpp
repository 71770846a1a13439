#include "strategies/internal/pytorch_ddp.hpp"

#include <algorithm>
#include <map>

#include "strategies/checks.hpp"
#include "strategies/ddp_buckets.hpp"
#include "strategies/groups.hpp"
#include "strategies/host_profile.hpp"
#include "strategies/layer_ops.hpp"
#include "strategies/offload.hpp"
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
        data_(job.cluster.devices()),
        micro_batch_(job.training.micro_batch.value_or(job.training.global_batch / data_)),
        micro_batches_(job.training.global_batch / (data_ * micro_batch_)),
        host_(host_profile(job.training.backend, eager_host())),
        costs_(job.accelerator, job.cluster.devices()),
        reduced_(options.compresses() ? Precision::fp16 : gradient_precision(job.training, Precision::fp32)),
        architecture_(workloads::describe(job.model, job.training.sequence, 0, job.training.documents)),
        state_(workloads::state_bytes(job.training, workloads::StateLayout::full_precision, Precision::fp32,
                                      workloads::factored_moments(architecture_))),
        offload_(builder_, job.training, host_.forward, true) {}

  PlannedStep plan();

 private:
  struct Part {  // a layer, the embedding or the head
    const workloads::Layer* layer = nullptr;
    std::int32_t index = -1;
    bool recomputed = false;
  };

  bool mixed() const { return workloads::activation_bytes(job_.training.precision) == 2; }
  void write_program();
  std::vector<std::int64_t> gradient_tensors() const;
  std::vector<Bytes> form_buckets() const;
  Bytes buffers() const;
  std::int64_t cast_parameters(const Part& part) const;
  sim::BlockId forward_block(const Part& part);
  sim::BlockId broadcast_block();
  sim::BlockId backward_block(const Part& part, bool reduces);
  void reduce_ready(BlockWriter& block, std::int64_t parameters);
  sim::BlockId reduction_end();
  sim::BlockId step_end();

  const PytorchDdp::Options& options_;
  const Job& job_;
  std::int64_t data_;
  std::int64_t micro_batch_;
  std::int64_t micro_batches_;
  HostProfile host_;
  workloads::KernelCosts costs_;
  Precision reduced_;
  workloads::Architecture architecture_;
  workloads::StateBytes state_;

  PlanBuilder builder_;
  ActivationOffload offload_;
  workloads::Expansion model_;
  std::int64_t trained_ = 0;
  Bytes frozen_{};
  sim::StreamId stream_{};
  sim::SlotId slot_{};
  LayerCommunication with_;
  std::vector<Bytes> buckets_;  // in 32-bit gradient bytes, as DDP forms them
  std::size_t next_bucket_ = 0;
  Bytes ready_{};  // gradient bytes not yet in a launched bucket
};

// Of what is trained here, in the order in which parameters are registered.
std::vector<std::int64_t> Planner::gradient_tensors() const {
  std::vector<std::int64_t> sizes;
  const auto add = [&](const workloads::Layer& layer, const workloads::Block& block) {
    if (layer.trained == 0) return;
    if (layer.trained == workloads::parameters_of(block)) {
      for (const workloads::Tensor& tensor : workloads::tensors_of(block, job_.model.separate_projections))
        sizes.push_back(tensor.size());
      return;
    }
    for (const workloads::Operator& op : layer.operators)  // adapters
      if (op.trained > 0) sizes.push_back(op.trained);
  };
  add(model_.embedding, architecture_.embedding);
  for (const std::uint32_t kind : architecture_.layers) add(model_.kinds[kind], architecture_.kinds[kind]);
  add(model_.head, architecture_.head);
  return sizes;
}

// In the order of their reductions. In the first step DDP learns in which order gradients come, and forms the buckets
// by it; where some may be missing and the graph may change, it keeps those that it formed from the order of
// registration, of which the first, small one is the last to be reduced.
std::vector<Bytes> Planner::form_buckets() const {
  std::vector<Bytes> tensors;
  for (const std::int64_t tensor : gradient_tensors()) tensors.push_back(Bytes{tensor * 4});
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
  add(architecture_.embedding);
  for (const std::uint32_t kind : architecture_.layers) add(architecture_.kinds[kind]);
  add(architecture_.head);
  return sum;
}

// Everyone has rank 0's before the first forward pass behind a reduction.
sim::BlockId Planner::broadcast_block() {
  BlockWriter block = builder_.block("broadcast buffers", host_.forward);
  block.blocking(stream_, builder_.call(slot_, CollectiveKind::broadcast, buffers(), sim::Purpose::data));
  return block.finish();
}

std::int64_t Planner::cast_parameters(const Part& part) const {
  if (!mixed()) return 0;
  std::int64_t sum = 0;
  for (const workloads::Operator& op : part.layer->operators)
    if (op.role == workloads::Role::column_linear || op.role == workloads::Role::row_linear) sum += op.trained;
  // A tied head has no parameters of its own, but uses the embedding's matrix.
  if (part.layer == &model_.head && job_.model.tied_embeddings && !job_.training.adapters)
    sum += job_.model.vocab * job_.model.hidden;
  return sum;
}

sim::BlockId Planner::forward_block(const Part& part) {
  BlockWriter block = builder_.block("forward " + part.layer->name, host_.forward);
  const auto recompute = part.recomputed ? job_.training.recompute : workloads::Recompute{};
  block.memory(MemoryPurpose::activations, part.layer->saved_bytes(recompute, true));
  // Autocast casts the 32-bit weights of linear layers to 16 bits once per forward pass and keeps them for backward.
  if (const std::int64_t cast = cast_parameters(part); cast > 0) {
    const sim::Kernel kernel = costs_.memory_bound("cast weights", Bytes{cast * 6});
    block.compute({&kernel, 1});
    block.memory(MemoryPurpose::buffers, Bytes{cast * 2});
  }
  write_forward(block, *part.layer, with_);
  return block.finish();
}

// Buckets launch strictly in order, each when its last gradient is ready.
void Planner::reduce_ready(BlockWriter& block, std::int64_t parameters) {
  ready_ += Bytes{parameters * 4};
  while (next_bucket_ < buckets_.size() && ready_ >= buckets_[next_bucket_]) {
    const Bytes bucket = buckets_[next_bucket_++];
    ready_ = ready_ - bucket;
    const Bytes wire{bucket.count / 4 * workloads::element_bytes(reduced_)};
    // A hook compresses the bucket before, and writes it back in 32 bits behind its reduction.
    const sim::Kernel cast = costs_.memory_bound("compress gradients", bucket + wire);
    if (options_.compresses()) block.compute({&cast, 1});
    block.communicate(stream_, builder_.call(slot_, CollectiveKind::all_reduce, wire, sim::Purpose::data));
    if (options_.compresses())
      block.side_kernel(stream_, costs_.memory_bound("decompress gradients", bucket + wire), 0);
  }
}

sim::BlockId Planner::backward_block(const Part& part, bool reduces) {
  BlockWriter block = builder_.block("backward " + part.layer->name + (reduces ? " and reduce" : ""), host_.backward);
  const auto recompute = part.recomputed ? job_.training.recompute : workloads::Recompute{};
  const Bytes kept = part.layer->saved_bytes(recompute, true);
  const Bytes everything = part.layer->saved_bytes({}, true);
  const Bytes workspace = backward_workspace(*part.layer);
  block.memory(MemoryPurpose::activations, std::max(everything - kept, Bytes{}) + workspace);
  write_recompute(block, *part.layer, recompute, true, with_);
  const auto after = [&](BlockWriter& writer, std::size_t index) {
    const std::int64_t parameters = part.layer->operators[index].trained;
    if (parameters == 0) return;
    // 16-bit weight gradients are cast to 32 bits and accumulated; without views they are also copied into the bucket.
    std::int64_t traffic = mixed() ? 6 : 0;
    if (micro_batches_ > 1) traffic += 12;  // read the fresh and the accumulated one, write
    if (reduces && data_ > 1 && !options_.gradient_as_bucket_view) traffic += 8;
    if (traffic > 0) {
      const sim::Kernel copy = costs_.memory_bound("accumulate gradients", Bytes{parameters * traffic});
      writer.compute({&copy, 1});
    }
    if (reduces) reduce_ready(writer, parameters);
  };
  write_backward(block, *part.layer, with_, after);
  block.memory(MemoryPurpose::activations, -(std::max(everything, kept) + workspace));
  block.memory(MemoryPurpose::buffers, Bytes{-cast_parameters(part) * 2});
  return block.finish();
}

// The end of a backward pass that reduces waits for every bucket.
sim::BlockId Planner::reduction_end() {
  BlockWriter block = builder_.block("end of reduction", host_.backward);
  if (options_.find_unused_parameters && data_ > 1) {
    const auto tensors = static_cast<std::int64_t>(gradient_tensors().size());
    block.communicate(stream_,
                      builder_.call(slot_, CollectiveKind::all_reduce, Bytes{4 * tensors}, sim::Purpose::data));
  }
  block.wait_for(sim::set_of(stream_));
  return block.finish();
}

sim::BlockId Planner::step_end() {
  BlockWriter block = builder_.block("optimizer step", host_.backward);
  const std::vector<sim::Kernel> kernels = workloads::optimizer_kernels(job_.training, state_, trained_, costs_);
  block.compute(kernels);
  block.host_wait(sim::set_of(sim::compute_stream)).host_work(host_.step);
  return block.finish();
}

void Planner::write_program() {
  std::vector<Part> parts{{.layer = &model_.embedding}};
  for (std::int64_t i = 0; i < model_.layers(); ++i)
    parts.push_back({.layer = &model_.layer(i), .index = static_cast<std::int32_t>(i), .recomputed = true});
  parts.push_back({.layer = &model_.head});

  sim::Program program;
  program.name = "all ranks";
  program.resident[static_cast<std::size_t>(MemoryPurpose::parameters)] = Bytes{trained_ * state_.parameter} + frozen_;
  program.resident[static_cast<std::size_t>(MemoryPurpose::gradients)] = Bytes{trained_ * state_.gradient};
  program.resident[static_cast<std::size_t>(MemoryPurpose::optimizer)] = state_.optimizer(trained_);
  if (!options_.gradient_as_bucket_view && data_ > 1)
    program.resident[static_cast<std::size_t>(MemoryPurpose::buffers)] = Bytes{trained_ * 4};

  std::map<const workloads::Layer*, sim::BlockId> forward;
  std::map<const workloads::Layer*, sim::BlockId> backward;
  for (const Part& part : parts) {
    if (forward.contains(part.layer)) continue;
    forward[part.layer] = forward_block(part);
    if (micro_batches_ > 1) backward[part.layer] = backward_block(part, false);
  }
  std::map<std::pair<const workloads::Layer*, std::int32_t>, sim::BlockId> reducing;
  const bool broadcasts = options_.broadcast_buffers && data_ > 1 && buffers().count > 0;
  const sim::BlockId broadcast = broadcasts ? broadcast_block() : sim::BlockId{};
  const sim::BlockId end = reduction_end();
  for (std::int64_t m = 0; m < micro_batches_; ++m) {
    const auto call = [&](sim::BlockId block, const Part& part) {
      program.calls.push_back({.block = block, .layer = part.index, .micro_batch = static_cast<std::int32_t>(m)});
    };
    const auto place = [&](const Part& part) {
      return ActivationOffload::Place{model_, 0, model_.layers(), part.index, static_cast<std::int32_t>(m)};
    };
    for (const Part& part : parts) {
      call(forward.at(part.layer), part);
      if (part.index >= 0) offload_.after_forward(program, place(part));
    }
    // no_sync(): only the last micro-batch reduces.
    const bool reduces = !options_.no_sync || m + 1 == micro_batches_;
    const bool after_reduction = !options_.no_sync || m == 0;
    if (broadcasts && after_reduction)
      program.calls.push_back({.block = broadcast, .micro_batch = static_cast<std::int32_t>(m)});
    next_bucket_ = 0;
    for (std::size_t i = parts.size(); i-- > 0;) {
      if (parts[i].index >= 0) offload_.before_backward(program, place(parts[i]));
      if (!reduces) {
        call(backward.at(parts[i].layer), parts[i]);
        continue;
      }
      // Each layer's has its own buckets, alike in every micro-batch.
      const std::pair key{parts[i].layer, parts[i].index};
      if (!reducing.contains(key)) reducing[key] = backward_block(parts[i], data_ > 1);
      call(reducing.at(key), parts[i]);
    }
    if (reduces) program.calls.push_back({.block = end, .micro_batch = static_cast<std::int32_t>(m)});
  }
  program.calls.push_back({.block = step_end()});
  builder_.plan().programs.add(std::move(program));
}

PlannedStep Planner::plan() {
  // Tables of a recommender are divided over the ranks, everything else is replicated.
  const workloads::Shard shard{.micro_batch = micro_batch_, .table_ranks = data_};
  workloads::KernelStyle style =
      workloads::fuses_kernels(job_.training.backend) ? workloads::fused_style() : workloads::eager_style(job_.model);
  style.split_projections = job_.model.separate_projections;
  model_ = workloads::expand(architecture_, job_.training, shard, style, costs_);
  trained_ = model_.embedding.trained + model_.trained(0, model_.layers()) + model_.head.trained;
  frozen_ = model_.embedding.frozen + model_.frozen(0, model_.layers()) + model_.head.frozen;
  stream_ = builder_.stream("all-reduce");
  slot_ = builder_.slot("data");
  if (job_.model.structure == workloads::Model::Structure::recommendation && data_ > 1)
    with_.exchange = ExchangeCommunication{.stream = builder_.stream("table exchange"), .slot = slot_};

  buckets_ = form_buckets();

  write_program();
  sim::Plan& plan = builder_.plan();
  const RankGrid grid({data_});
  plan.program_of = sim::Table<sim::RankId, sim::ProgramId>(static_cast<std::size_t>(data_));
  plan.communicators = sim::CommunicatorTable(static_cast<std::size_t>(data_), plan.slots.size());
  add_groups(plan.communicators, grid, {0}, slot_);
  offload_.connect(plan, data_);
  price_communications(plan, job_.cluster);

  PlannedStep step;
  step.parallelism.data = data_;
  step.micro_batch = micro_batch_;
  step.micro_batches = micro_batches_;
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
  std::vector<std::string> warnings;
  if (options_.comm_hook.value == "bf16_compress" && !job.accelerator.supports(Precision::bf16))
    warnings.emplace_back("strategy.comm_hook: bf16_compress needs an accelerator with bf16");
  return warnings;
}

PlannedStep PytorchDdp::plan(const Job& job) const { return Planner(options_, job).plan(); }

}  // namespace trainyard::strategies
