#include "strategies/internal/pytorch_fsdp.hpp"

#include <algorithm>
#include <charconv>
#include <map>

#include "strategies/internal/checks.hpp"
#include "strategies/internal/groups.hpp"
#include "strategies/internal/host_profile.hpp"
#include "strategies/internal/layer_ops.hpp"
#include "strategies/internal/offload.hpp"
#include "strategies/traffic.hpp"
#include "workloads/layers.hpp"

namespace trainyard::strategies {
namespace {

using sim::Bytes;
using sim::CollectiveKind;
using sim::EventRef;
using sim::MemoryPurpose;
using workloads::Precision;

// What happens to a layer's gathered parameters between forward and backward.
struct Reshard {
  bool frees = true;
  std::int64_t group = 0;  // > 0: they stay sharded over groups of so many ranks
};

std::optional<Reshard> parse_reshard(const std::string& text) {
  if (text == "true") return Reshard{};
  if (text == "false") return Reshard{.frees = false};
  std::int64_t group = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), group);
  if (error != std::errc{} || end != text.data() + text.size() || group < 1) return std::nullopt;
  if (group == 1) return Reshard{.frees = false};
  return Reshard{.frees = true, .group = group};
}

// Unit u has two events, "gathered" and "copied out", used in turns by even and odd units: at most two units are in
// flight. The root unit (embedding, final norm, head) counts as unit -1.
constexpr std::uint16_t events_in_turn = 4;
constexpr EventRef gathered{.index = 0, .relative = true};
constexpr EventRef copied{.index = 1, .relative = true};
constexpr EventRef neighbour_gathered{.index = 2, .relative = true};
constexpr EventRef neighbour_copied{.index = 3, .relative = true};
constexpr std::uint16_t shift_of(std::int64_t unit) { return static_cast<std::uint16_t>(2 * ((unit + 2) % 2)); }

class Planner {
 public:
  Planner(const PytorchFsdp::Options& options, const Job& job)
      : job_(job),
        ranks_(job.cluster.devices()),
        shards_(options.shard.value_or(ranks_)),
        reshard_(*parse_reshard(options.reshard_after_forward)),
        micro_batch_(job.training.micro_batch.value_or(job.training.global_batch / ranks_)),
        micro_batches_(job.training.global_batch / (ranks_ * micro_batch_)),
        host_(host_profile(job.training.backend, eager_host())),
        costs_(job.accelerator, job.cluster.devices()),
        gather_bytes_(workloads::activation_bytes(job.training.precision)),
        reduce_bytes_(workloads::element_bytes(
            gradient_precision(job.training, gather_bytes_ == 2 ? Precision::bf16 : Precision::fp32))),
        architecture_(workloads::describe(job.model, job.training.sequence, 0, job.training.documents)),
        state_(workloads::state_bytes(job.training, workloads::StateLayout::full_precision, Precision::fp32,
                                      workloads::factored_moments(architecture_))),
        offload_(builder_, job.training, host_.forward, true) {
    if (reshard_.group == shards_) reshard_.group = 0;  // resharding over all is what `true` does
  }

  PlannedStep plan();

 private:
  bool gathers() const { return shards_ > 1; }
  bool gathers_again() const { return gathers() && reshard_.frees; }
  sim::SlotId again_slot() const { return reshard_.group > 0 ? reshard_slot_ : shard_slot_; }
  // What is gathered, sharded and reduced at once: a layer, or the root (embedding, final norm, head).
  struct Unit {
    std::int64_t trained = 0;
    Bytes frozen{};
  };
  static Unit unit_of(const workloads::Layer& layer) { return {.trained = layer.trained, .frozen = layer.frozen}; }
  Unit root() const {
    return {.trained = model_.embedding.trained + model_.head.trained,
            .frozen = model_.embedding.frozen + model_.head.frozen};
  }
  std::int64_t trained_parameters() const { return root().trained + model_.trained(0, model_.layers()); }
  Bytes gathered_bytes(const Unit& unit) const { return Bytes{unit.trained * gather_bytes_} + unit.frozen; }
  // Of the layer with the most.
  Bytes largest_gathered() const {
    Bytes largest{};
    for (const workloads::Layer& layer : model_.kinds) largest = std::max(largest, gathered_bytes(unit_of(layer)));
    return largest;
  }
  sim::Kernel kernel(const std::string& name, std::int64_t bytes) const {
    return costs_.memory_bound(name, Bytes{bytes});
  }

  void make_streams();
  void write_gather(BlockWriter& block, const Unit& unit, sim::SlotId slot, sim::StreamSet after,
                    std::vector<EventRef> waits, EventRef records);
  void write_arrival(BlockWriter& block, const Unit& unit);
  void write_reduce(BlockWriter& block, const Unit& unit);
  sim::BlockId root_forward();
  sim::BlockId layer_forward(const workloads::Layer& layer);
  sim::BlockId head_forward();
  sim::BlockId head_backward();
  sim::BlockId layer_backward(const workloads::Layer& layer, const workloads::Layer* next);
  sim::BlockId root_backward();
  sim::BlockId step_end();
  void write_program();
  void wire_ranks();

  const Job& job_;
  std::int64_t ranks_;
  std::int64_t shards_;
  Reshard reshard_;
  std::int64_t micro_batch_;
  std::int64_t micro_batches_;
  HostProfile host_;
  workloads::KernelCosts costs_;
  std::int64_t gather_bytes_;  // per element
  std::int64_t reduce_bytes_;
  workloads::Architecture architecture_;
  workloads::StateBytes state_;

  PlanBuilder builder_;
  ActivationOffload offload_;
  workloads::Expansion model_;
  sim::StreamId copy_in_{}, all_gather_{}, reduce_scatter_{}, all_reduce_{};
  sim::SlotId shard_slot_{}, replicate_slot_{}, reshard_slot_{};
};

void Planner::make_streams() {
  copy_in_ = builder_.stream("all-gather copy-in");
  all_gather_ = builder_.stream("all-gather");
  reduce_scatter_ = builder_.stream("reduce-scatter");
  all_reduce_ = builder_.stream("all-reduce");
  shard_slot_ = builder_.slot("shard");
  replicate_slot_ = builder_.slot("replicate");
  reshard_slot_ = builder_.slot("reshard");
  builder_.relative_events(events_in_turn);
}

// The shard is cast into the gather's input, then gathered.
void Planner::write_gather(BlockWriter& block, const Unit& unit, sim::SlotId slot, sim::StreamSet after,
                           std::vector<EventRef> waits, EventRef records) {
  const Bytes gathered_unit = gathered_bytes(unit);
  block.memory(MemoryPurpose::buffers, gathered_unit);
  const sim::CallId call = builder_.call(slot, CollectiveKind::all_gather, gathered_unit, sim::Purpose::data);
  // Trained parameters are read in 32 bits, frozen ones as they are kept.
  const std::int64_t read = unit.trained / shards_ * 4 + unit.frozen.count / shards_;
  block.side_kernel(
      copy_in_, kernel("copy in", read + unit.trained / shards_ * gather_bytes_ + unit.frozen.count / shards_), after);
  block.communicate(all_gather_, call, sim::set_of(copy_in_), std::move(waits), records);
}

// Compute waits for the gather and copies its output into the parameter tensors.
void Planner::write_arrival(BlockWriter& block, const Unit& unit) {
  block.wait_for(gathered);
  block.record(copied, kernel("copy out", 2 * gathered_bytes(unit).count));
}

// Compute first waits for the reduction of the unit before: at most one is in flight.
void Planner::write_reduce(BlockWriter& block, const Unit& unit) {
  if ((!gathers() && ranks_ == 1) || unit.trained == 0) return;
  if (gathers()) {
    block.wait_for(sim::set_of(reduce_scatter_));
    const sim::Kernel pack = kernel("pack gradients", unit.trained * (gather_bytes_ + reduce_bytes_));
    block.compute({&pack, 1});
    block.communicate(reduce_scatter_, builder_.call(shard_slot_, CollectiveKind::reduce_scatter,
                                                     Bytes{unit.trained * reduce_bytes_}, sim::Purpose::data));
  }
  if (ranks_ > shards_)
    block.communicate(all_reduce_,
                      builder_.call(replicate_slot_, CollectiveKind::all_reduce,
                                    Bytes{unit.trained * reduce_bytes_ / shards_}, sim::Purpose::data),
                      static_cast<sim::StreamSet>(sim::set_of(sim::compute_stream) | sim::set_of(reduce_scatter_)), {},
                      std::nullopt);
}

sim::BlockId Planner::root_forward() {
  BlockWriter block = builder_.block("forward embedding", host_.forward);
  if (gathers()) {
    write_gather(block, root(), shard_slot_, sim::set_of(sim::compute_stream), {}, gathered);
    write_arrival(block, root());
    // While a layer computes with its parameters, those of the next arrive: forward holds two gathered layers.
    block.memory(MemoryPurpose::buffers, largest_gathered());
  }
  block.memory(MemoryPurpose::activations, model_.embedding.saved_bytes({}, true));
  write_forward(block, model_.embedding);
  return block.finish();
}

// The next gather is issued as soon as the host reaches the next unit, and runs beside this unit's compute.
sim::BlockId Planner::layer_forward(const workloads::Layer& layer) {
  BlockWriter block = builder_.block("forward " + layer.name, host_.forward);
  const Unit unit = unit_of(layer);
  const Bytes size = gathered_bytes(unit);
  if (gathers()) {
    write_gather(block, unit, shard_slot_, 0, {neighbour_copied}, gathered);
    write_arrival(block, unit);
  }
  block.memory(MemoryPurpose::activations, layer.saved_bytes(job_.training.recompute, true));
  write_forward(block, layer);
  if (gathers_again()) {
    block.memory(MemoryPurpose::buffers, -size);
    if (reshard_.group > 0) block.memory(MemoryPurpose::buffers, Bytes{size.count / reshard_.group});
  }
  return block.finish();
}

sim::BlockId Planner::head_forward() {
  BlockWriter block = builder_.block("forward head", host_.forward);
  if (gathers()) block.memory(MemoryPurpose::buffers, -largest_gathered());
  block.memory(MemoryPurpose::activations, model_.head.saved_bytes({}, true));
  write_forward(block, model_.head);
  return block.finish();
}

// Before the root's backward the last layer is fetched again, once its forward pass has let go of it.
sim::BlockId Planner::head_backward() {
  BlockWriter block = builder_.block("backward head", host_.backward);
  if (gathers_again())
    write_gather(block, unit_of(model_.layer(model_.layers() - 1)), again_slot(), sim::set_of(sim::compute_stream), {},
                 gathered);
  const Bytes workspace = backward_workspace(model_.head);
  block.memory(MemoryPurpose::activations, workspace);
  // Gradients of the root unit stay whole until all of them are there.
  block.memory(MemoryPurpose::gradients, Bytes{model_.head.trained * gather_bytes_});
  write_backward(block, model_.head, {});
  block.memory(MemoryPurpose::activations, -(model_.head.saved_bytes({}, true) + workspace));
  return block.finish();
}

// `next`: the layer whose backward pass follows, fetched meanwhile.
sim::BlockId Planner::layer_backward(const workloads::Layer& layer, const workloads::Layer* next) {
  BlockWriter block =
      builder_.block("backward " + std::string{next != nullptr ? "" : "first "} + layer.name, host_.backward);
  const Unit unit = unit_of(layer);
  const Bytes size = gathered_bytes(unit);
  if (gathers_again()) {
    write_arrival(block, unit);
    if (next != nullptr) write_gather(block, unit_of(*next), again_slot(), 0, {copied}, neighbour_gathered);
  }
  const Bytes kept = layer.saved_bytes(job_.training.recompute, true);
  const Bytes everything = layer.saved_bytes({}, true);
  const Bytes working = std::max(everything - kept, Bytes{}) + backward_workspace(layer);
  block.memory(MemoryPurpose::activations, working);
  block.memory(MemoryPurpose::gradients, Bytes{unit.trained * gather_bytes_});
  write_recompute(block, layer, job_.training.recompute, true, {});
  write_backward(block, layer, {});
  block.memory(MemoryPurpose::activations, -(working + kept));
  write_reduce(block, unit);
  block.memory(MemoryPurpose::gradients, Bytes{-unit.trained * gather_bytes_});
  if (gathers()) block.memory(MemoryPurpose::buffers, -size);
  if (gathers_again() && reshard_.group > 0)
    block.memory(MemoryPurpose::buffers, Bytes{-(size.count / reshard_.group)});
  return block.finish();
}

sim::BlockId Planner::root_backward() {
  BlockWriter block = builder_.block("backward embedding", host_.backward);
  block.memory(MemoryPurpose::gradients, Bytes{model_.embedding.trained * gather_bytes_});
  write_backward(block, model_.embedding, {});
  block.memory(MemoryPurpose::activations, -model_.embedding.saved_bytes({}, true));
  write_reduce(block, root());
  block.memory(MemoryPurpose::gradients, Bytes{-root().trained * gather_bytes_});
  if (gathers()) block.memory(MemoryPurpose::buffers, -gathered_bytes(root()));
  return block.finish();
}

sim::BlockId Planner::step_end() {
  BlockWriter block = builder_.block("optimizer step", host_.backward);
  block.wait_for(static_cast<sim::StreamSet>(sim::set_of(reduce_scatter_) | sim::set_of(all_reduce_)));
  const std::int64_t owned = (trained_parameters() + shards_ - 1) / shards_;
  const std::vector<sim::Kernel> kernels = workloads::optimizer_kernels(job_.training, state_, owned, costs_);
  block.compute({kernels.data(), 1});
  if (gathers())
    block.blocking(reduce_scatter_,
                   builder_.call(shard_slot_, CollectiveKind::all_reduce, Bytes{4}, sim::Purpose::data));
  block.compute({kernels.data() + 1, kernels.size() - 1});
  block.host_wait(sim::set_of(sim::compute_stream)).host_work(host_.step);
  return block.finish();
}

void Planner::write_program() {
  sim::Program program;
  program.name = "all ranks";
  const std::int64_t trained = trained_parameters();
  const auto resident = [&](MemoryPurpose purpose, Bytes bytes) {
    program.resident[static_cast<std::size_t>(purpose)] = sim::scaled(bytes, 1, shards_);
  };
  resident(MemoryPurpose::parameters,
           Bytes{trained * state_.parameter} + root().frozen + model_.frozen(0, model_.layers()));
  resident(MemoryPurpose::gradients, Bytes{trained * state_.gradient});
  resident(MemoryPurpose::optimizer, state_.optimizer(trained));

  const std::int64_t layers = model_.layers();
  const auto kind = [&](std::int64_t layer) { return model_.kind_of[static_cast<std::size_t>(layer)]; };
  const sim::BlockId embedding = root_forward();
  std::vector<sim::BlockId> forward;
  for (const workloads::Layer& layer : model_.kinds) forward.push_back(layer_forward(layer));
  const sim::BlockId head = head_forward();
  const sim::BlockId head_back = head_backward();
  // By the kind of a layer and of the one before it.
  std::map<std::pair<std::uint32_t, std::uint32_t>, sim::BlockId> backward;
  for (std::int64_t u = layers; u-- > 1;) {
    const std::pair key{kind(u), kind(u - 1)};
    if (!backward.contains(key)) backward[key] = layer_backward(model_.layer(u), &model_.layer(u - 1));
  }
  const sim::BlockId backward_first = layer_backward(model_.layer(0), nullptr);
  const sim::BlockId embedding_back = root_backward();
  // The packed gradients of a unit are being reduced while the next one is computed.
  std::int64_t most_trained = 0;
  for (const workloads::Layer& layer : model_.kinds) most_trained = std::max(most_trained, layer.trained);
  if (gathers())
    program.resident[static_cast<std::size_t>(MemoryPurpose::buffers)] = Bytes{most_trained * reduce_bytes_};
  for (std::int64_t m = 0; m < micro_batches_; ++m) {
    const auto call = [&](sim::BlockId block, std::int64_t layer, std::int64_t unit) {
      program.calls.push_back({.block = block,
                               .layer = static_cast<std::int32_t>(layer),
                               .micro_batch = static_cast<std::int32_t>(m),
                               .event_shift = shift_of(unit)});
    };
    call(embedding, -1, -1);
    const auto place = [&](std::int64_t unit) {
      return ActivationOffload::Place{model_, 0, layers, unit, static_cast<std::int32_t>(m)};
    };
    for (std::int64_t u = 0; u < layers; ++u) {
      call(forward[kind(u)], u, u);
      offload_.after_forward(program, place(u));
    }
    call(head, -1, -1);
    call(head_back, -1, layers - 1);
    for (std::int64_t u = layers; u-- > 0;) {
      offload_.before_backward(program, place(u));
      call(u > 0 ? backward.at({kind(u), kind(u - 1)}) : backward_first, u, u);
    }
    call(embedding_back, -1, -1);
  }
  program.calls.push_back({.block = step_end()});
  builder_.plan().programs.add(std::move(program));
}

void Planner::wire_ranks() {
  sim::Plan& plan = builder_.plan();
  plan.program_of = sim::Table<sim::RankId, sim::ProgramId>(static_cast<std::size_t>(ranks_));
  plan.communicators = sim::CommunicatorTable(static_cast<std::size_t>(ranks_), plan.slots.size());
  const std::int64_t inner = reshard_.group > 0 ? reshard_.group : 1;
  const RankGrid grid({inner, shards_ / inner, ranks_ / shards_});
  add_groups(plan.communicators, grid, {0, 1}, shard_slot_);
  add_groups(plan.communicators, grid, {2}, replicate_slot_);
  if (reshard_.group > 0) add_groups(plan.communicators, grid, {0}, reshard_slot_);
  offload_.connect(plan, ranks_);
  price_communications(plan, job_.cluster);
}

PlannedStep Planner::plan() {
  const workloads::Shard shard{.micro_batch = micro_batch_};
  workloads::KernelStyle style =
      workloads::fuses_kernels(job_.training.backend) ? workloads::fused_style() : workloads::eager_style(job_.model);
  style.split_projections = job_.model.separate_projections;
  // torchtitan compiles blocks, not the loss (pytorch/torchtitan train.py, 2024); GPT-like models stand for
  // llm-foundry's, whose loss is flash-attn's fused cross entropy: 16-bit logits and their gradient
  // (mosaicml/llm-foundry `loss_fn`).
  style.logits_bytes = job_.model.gated() ? workloads::eager_style(job_.model).logits_bytes : 4;
  model_ = workloads::expand(architecture_, job_.training, shard, style, costs_);
  make_streams();
  write_program();
  wire_ranks();
  PlannedStep step;
  step.parallelism.data = ranks_;
  step.micro_batch = micro_batch_;
  step.micro_batches = micro_batches_;
  step.communicator_groups = ranks_ > shards_ ? 1 : 0;
  step.plan = builder_.take();
  return step;
}

}  // namespace

std::vector<sim::Key> PytorchFsdp::keys() {
  Options& o = options_;
  return {
      {"tensor", &o.tensor, "tensor parallelism beside FSDP", false, 1, most_ranks},
      {"pipeline", &o.pipeline, "pipeline parallelism beside FSDP", false, 1, most_ranks},
      {"context", &o.context, "context parallelism beside FSDP", false, 1, most_ranks},
      {"expert", &o.expert, "expert parallelism beside FSDP", false, 1, most_ranks},
      {"shard", &o.shard, "ranks that hold one copy of the sharded state; absent: all (fewer is hybrid sharding, HSDP)",
       false, 1, most_ranks},
      {"reshard_after_forward", &o.reshard_after_forward,
       "free gathered parameters after forward: true, false, or a number of ranks to reshard over"},
  };
}

std::vector<Problem> PytorchFsdp::check(const Job& job) const {
  std::vector<Problem> problems;
  const auto only_one = [&](const std::string& key, std::int64_t value) {
    if (value != 1)
      problems.push_back({.key = "strategy." + key,
                          .message = "pytorch-fsdp with " + key + " parallelism is not supported yet; use 1"});
  };
  only_one("tensor", options_.tensor);
  only_one("pipeline", options_.pipeline);
  only_one("context", options_.context);
  only_one("expert", options_.expert);
  if (job.model.structure == workloads::Model::Structure::recommendation)
    problems.push_back({.key = "model",
                        .message = "tables of a recommender are divided whole, not sharded by pytorch-fsdp; use "
                                   "framework 'pytorch-ddp'"});
  const std::vector<Problem> groups = check_layer_groups(job, "pytorch-fsdp");
  problems.insert(problems.end(), groups.begin(), groups.end());
  const std::int64_t ranks = job.cluster.devices();
  const std::int64_t shards = options_.shard.value_or(ranks);
  require_divides(problems, "strategy.shard", shards, ranks, "the devices");
  const auto reshard = parse_reshard(options_.reshard_after_forward);
  if (!reshard)
    problems.push_back(
        {.key = "strategy.reshard_after_forward",
         .message = "expected true, false or a number of ranks, got '" + options_.reshard_after_forward + "'"});
  else if (reshard->group > 0)
    require_divides(problems, "strategy.reshard_after_forward", reshard->group, shards, "the ranks of a shard group");
  const std::vector<Problem> batch = check_batch(job, ranks, job.training.micro_batch.value_or(1));
  problems.insert(problems.end(), batch.begin(), batch.end());
  return problems;
}

std::vector<std::string> PytorchFsdp::warnings(const Job&) const { return {}; }

PlannedStep PytorchFsdp::plan(const Job& job) const { return Planner(options_, job).plan(); }

}  // namespace trainyard::strategies
