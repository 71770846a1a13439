#include "strategies/checks.hpp"
#include "strategies/groups.hpp"
#include "strategies/internal/tensorflow_planner.hpp"
#include "strategies/traffic.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using workloads::Backend;

namespace {

// TensorFlow has no flash attention of its own.
workloads::Training with_defaults(workloads::Training training) {
  if (!training.attention) training.attention = workloads::AttentionKernel::unfused;
  if (!training.backend) training.backend = Backend::graph;
  // What torch.compile is to PyTorch, jit_compile is to TensorFlow.
  if (training.backend == Backend::compiled) training.backend = Backend::xla;
  return training;
}

// Without XLA, what PyTorch has a kernel for is composed of operators. Passes of their reads and writes:
// layer norm is tf.nn.moments and tf.nn.batch_normalization (tensorflow/python/ops/nn_impl.py), mean 1, squared
// difference 2, mean 1, scale 2, shift 2; GELU is a power, three products with
// constants, two sums, tanh and a product (google-research/bert modeling.py): 18 where a fused one has 2. Gradients of
// them: 14, and 28 where a fused one has 3.
workloads::KernelStyle style_of(const workloads::Training& training, const workloads::Model& model) {
  workloads::KernelStyle style = workloads::kernel_style(training, model);
  if (workloads::fuses_kernels(training)) return style;
  if (model.norm == workloads::Model::Norm::layernorm) {
    style.norm_forward_passes = 8;
    style.norm_backward_passes = 14;
  }
  if (model.activation == workloads::Model::Activation::gelu) {
    style.activation_forward_scale = 18.0 / 2;
    style.activation_backward_scale = 28.0 / 3;
  }
  return style;
}

}  // namespace

TensorflowPlanner::TensorflowPlanner(const TensorflowOptions& options, const Job& job)
    : options_(options),
      job_(job),
      mode_(options.mode_on(job)),
      training_(with_defaults(job.training)),
      passes_(builder_, job, training_, host_profile(training_, tensorflow_host()), style_of(training_, job.model)),
      host_(builder_, job.cluster, true) {}

Bytes TensorflowPlanner::gradient_bytes(std::int64_t parameters) const {
  return Bytes{parameters * workloads::element_bytes(gradient_precision(training_, workloads::Precision::fp32))};
}

sim::BlockId TensorflowPlanner::backward_block(const Part& part, const ReplicatedPasses::AfterGradient& after) {
  return passes_.backward_block(
      part, "backward " + part.layer->name, [&](BlockWriter& writer, std::int64_t parameters) {
        if (const std::int64_t traffic = passes_.accumulation_traffic(); traffic > 0) {
          const sim::Kernel add = passes_.costs().memory_bound("accumulate gradients", Bytes{parameters * traffic});
          writer.compute({&add, 1});
        }
        if (after) after(writer, parameters);
      });
}

// Gradients of several micro-batches are added up on the replica; the last ones go on.
void TensorflowPlanner::write_micro_batches(sim::Program& program,
                                            const ReplicatedPasses::AfterGradient& last_gradients) {
  std::map<const workloads::Layer*, sim::BlockId> backward;
  for (std::int64_t m = 0; m < passes_.micro_batches(); ++m) {
    passes_.write_forward(program, m);
    const bool last = m + 1 == passes_.micro_batches();
    passes_.write_backward(program, m, [&](const Part& part) {
      // Which gradients complete a pack differs from layer to layer.
      if (last && last_gradients) return backward_block(part, last_gradients);
      if (!backward.contains(part.layer)) backward[part.layer] = backward_block(part, {});
      return backward.at(part.layer);
    });
  }
}

void TensorflowPlanner::write_step_end(BlockWriter& block) const {
  block.host_wait(sim::set_of(sim::compute_stream));
  block.host_work(passes_.host().step);
  if (options_.of_keras()) block.host_work(keras_round_trip / options_.steps_per_execution);
}

PlannedStep TensorflowPlanner::plan() {
  replicas_ = builder_.slot("replicas");
  passes_.exchange_tables(replicas_);
  switch (mode_) {
    case Mode::mirrored:
    case Mode::multi_worker_mirrored:
      write_mirrored();
      break;
    case Mode::central_storage:
      write_central_storage();
      break;
    case Mode::parameter_server:
      write_parameter_server();
      break;
    case Mode::tpu:
    case Mode::data_parallel:
    case Mode::model_parallel:
      sim::ensure(false, "programs of GSPMD are planned elsewhere");
  }
  sim::Plan& plan = builder_.plan();
  const std::int64_t ranks = passes_.replicas();
  if (plan.program_of.empty())
    plan.program_of = sim::Table<sim::RankId, sim::ProgramId>(static_cast<std::size_t>(ranks));
  plan.communicators = sim::CommunicatorTable(static_cast<std::size_t>(ranks), plan.slots.size());
  add_groups(plan.communicators, RankGrid({ranks}), {0}, replicas_);
  connect_collectives(plan);
  host_.connect(plan, ranks);
  connect_servers(plan);
  passes_.connect(plan);
  price_communications(plan, job_);
  price_ring_over_grpc(plan);
  host_.price(plan);
  price_servers(plan);

  PlannedStep step;
  step.parallelism.data = ranks;
  step.micro_batch = passes_.micro_batch();
  step.micro_batches = passes_.micro_batches();
  step.plan = builder_.take();
  return step;
}

PlannedStep plan_tensorflow(const TensorflowOptions& options, const Job& job) {
  return TensorflowPlanner(options, job).plan();
}

}  // namespace trainyard::strategies
