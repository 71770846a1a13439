// Gemini: parameters in chunks that are gathered for the operators that use them and released behind them, whose
// gradients take their place and are reduce-scattered chunk by chunk, and whose optimizer state and shards may be on
// the host. Sources: hpcaitech/ColossalAI colossalai/zero/gemini/{gemini_ddp,gemini_hook,gemini_optimizer}.py and
// chunk/chunk.py; PatrickStar (arXiv 2108.05818).
#include <array>
#include <cmath>

#include "strategies/internal/colossal_planner.hpp"
#include "strategies/internal/deepspeed_parameters.hpp"
#include "strategies/internal/gemini_chunks.hpp"
#include "strategies/internal/host_state.hpp"

namespace trainyard::strategies {
namespace {

using sim::Bytes;
using sim::CollectiveKind;
using sim::MemoryPurpose;
using sim::Purpose;
using workloads::Operator;

class GeminiPlanner {
 public:
  GeminiPlanner(const ColossalOptions& options, const Job& job)
      : model_(options, job),
        parts_(model_.parts()),
        offload_(model_.builder, job.training, model_.host.forward, true),
        host_(model_.builder, job.cluster, options.pin_memory),
        element_(workloads::activation_bytes(job.training.precision)) {}

  PlannedStep plan();

 private:
  // An operator whose parameters are used: forward, again for recomputation, or backward.
  struct Visit {
    std::size_t use = 0;  // among all
    std::size_t op = 0;   // of the part
  };
  struct Passes {
    std::vector<Visit> forward, again, backward;  // of one part, in the order in which they happen
  };

  void number_tensors();
  void place_chunks();
  void list_uses();
  Visit use(std::size_t part, std::size_t op, bool backward, Bytes other_data);
  void find_completions();
  bool gathers() const { return model_.data > 1 && !layout_.keep_gathered; }
  Bytes whole(std::uint32_t chunk) const { return Bytes{layout_.chunks[chunk] * element_}; }
  Bytes shard(std::uint32_t chunk) const {
    return layout_.keep_gathered ? whole(chunk) : Bytes{whole(chunk).count / model_.data};
  }
  // Elements of this rank's shards, of chunks that are or are not on the host.
  std::int64_t owned(bool on_host) const;

  void write_action(BlockWriter& block, const ChunkAction& action);
  void write_actions(BlockWriter& block, std::size_t use);
  void write_gather(BlockWriter& block, std::uint32_t chunk, bool ahead);
  void write_gradients(BlockWriter& block, const Operator& op, std::size_t use, bool adds);
  void write_reduction(BlockWriter& block, std::uint32_t chunk, bool adds);
  sim::BlockId forward_block(std::size_t part);
  sim::BlockId backward_block(std::size_t part, bool adds);
  sim::BlockId step_end();
  void write_program();
  void write_resident(sim::Program& program) const;

  ColossalModel model_;
  std::vector<ColossalPart> parts_;
  ActivationOffload offload_;
  HostState host_;
  std::int64_t element_;
  ChunkLayout layout_;
  std::vector<std::int64_t> tensors_;
  // Of each part and operator, its first tensor and the one behind its last.
  std::vector<std::vector<std::pair<std::size_t, std::size_t>>> tensors_in_;
  std::vector<bool> on_host_;
  std::vector<ChunkUse> uses_;
  std::vector<Passes> passes_;
  std::vector<std::vector<ChunkAction>> actions_;
  std::vector<sim::EventRef> gathered_;  // of each chunk
  sim::StreamId stream_{};
  sim::SlotId slot_{};
};

// Parameters in the order in which they are registered. A tied head multiplies with the table that the embedding looks
// up.
void GeminiPlanner::number_tensors() {
  for (const ColossalPart& part : parts_) {
    auto& in_part = tensors_in_.emplace_back();
    for (const std::vector<ParameterTensor>& owned :
         owned_tensors(*part.layer, *part.block, model_.job.training, model_.job.model.separate_projections,
                       model_.options.tensor)) {
      const std::size_t first = tensors_.size();
      for (const ParameterTensor& tensor : owned) tensors_.push_back(tensor.elements);
      in_part.emplace_back(first, tensors_.size());
    }
  }
  if (!model_.job.model.tied_embeddings) return;
  const auto& operators = parts_.back().layer->operators;
  for (std::size_t i = 0; i < operators.size(); ++i)
    if (operators[i].role == workloads::Role::column_linear && operators[i].trained == 0)
      tensors_in_.back()[i] = tensors_in_.front().front();
}

// Static placement puts the optimizer state of the first chunks on the host, until they are the share that is asked
// for; automatic placement that of all (setup_grads_device in colossalai/zero/gemini/placement_policy.py).
void GeminiPlanner::place_chunks() {
  const ColossalOptions& o = model_.options;
  constexpr std::int64_t million = 1 << 20;
  layout_ = lay_out_chunks(tensors_, {.range = o.search_range_m * million,
                                      .interval = o.hidden_dim.value_or(1024),
                                      .smallest = std::llround(o.min_chunk_size_m * static_cast<double>(million)),
                                      .ranks = model_.data});
  const bool automatic = o.placement_policy.value == "auto";
  const double wanted = automatic ? 1 : o.offload_optim_frac;
  const auto all = static_cast<double>(layout_.elements());
  std::int64_t offloaded = 0;
  for (const std::int64_t chunk : layout_.chunks) {
    const bool leaves = !layout_.keep_gathered && static_cast<double>(offloaded) < all * wanted;
    on_host_.push_back(leaves);
    if (leaves) offloaded += chunk;
  }
  for (std::size_t i = 0; i < layout_.chunks.size(); ++i) gathered_.push_back(model_.builder.event());
  if (offloaded > 0) host_.open();
}

GeminiPlanner::Visit GeminiPlanner::use(std::size_t part, std::size_t op, bool backward, Bytes other_data) {
  ChunkUse use{.backward = backward, .other_data = other_data};
  const auto [first, end] = tensors_in_[part][op];
  for (std::size_t tensor = first; tensor < end; ++tensor)
    if (use.chunks.empty() || use.chunks.back() != layout_.chunk_of[tensor])
      use.chunks.push_back(layout_.chunk_of[tensor]);
  uses_.push_back(std::move(use));
  return {.use = uses_.size() - 1, .op = op};
}

void GeminiPlanner::list_uses() {
  passes_.resize(parts_.size());
  const auto has_parameters = [&](std::size_t part, std::size_t op) {
    return tensors_in_[part][op].first < tensors_in_[part][op].second;
  };
  Bytes activations{};
  for (std::size_t part = 0; part < parts_.size(); ++part) {
    activations += model_.saved(parts_[part]);
    for (std::size_t op = 0; op < parts_[part].layer->operators.size(); ++op)
      if (has_parameters(part, op)) passes_[part].forward.push_back(use(part, op, false, activations));
  }
  for (std::size_t part = parts_.size(); part-- > 0;) {
    const workloads::Layer& layer = *parts_[part].layer;
    const Bytes other = activations + model_.backward_extra(parts_[part]);
    const workloads::Recompute recompute = model_.recompute(parts_[part]);
    for (std::size_t op = 0; op < layer.operators.size(); ++op)
      if (has_parameters(part, op) && layer.runs_again(layer.operators[op], recompute, true))
        passes_[part].again.push_back(use(part, op, true, other));
    for (std::size_t op = layer.operators.size(); op-- > 0;)
      if (has_parameters(part, op)) passes_[part].backward.push_back(use(part, op, true, other));
    activations += -model_.saved(parts_[part]);
  }
  find_completions();
}

// A chunk is reduced when all its gradients are there: behind its last use.
void GeminiPlanner::find_completions() {
  std::vector<bool> complete(layout_.chunks.size(), false);
  for (std::size_t i = uses_.size(); i-- > 0;)
    for (const std::uint32_t chunk : uses_[i].chunks) {
      if (!complete[chunk]) uses_[i].completes.push_back(chunk);
      complete[chunk] = true;
    }
}

std::int64_t GeminiPlanner::owned(bool on_host) const {
  std::int64_t sum = 0;
  for (std::uint32_t i = 0; i < layout_.chunks.size(); ++i)
    if (on_host_[i] == on_host) sum += shard(i).count / element_;
  return sum;
}

// The shard's room becomes part of the chunk's. Kernels of the copy, and of the gather unless it is ahead of its use,
// are on the stream that computes.
void GeminiPlanner::write_gather(BlockWriter& block, std::uint32_t chunk, bool ahead) {
  block.memory(MemoryPurpose::buffers, whole(chunk) - shard(chunk));
  if (!gathers()) return;
  const sim::CallId call = block.call(slot_, CollectiveKind::all_gather, whole(chunk), Purpose::data);
  if (!ahead)
    block.blocking(stream_, call);
  else
    block.communicate(stream_, call, sim::set_of(sim::compute_stream), {}, gathered_[chunk]);
}

void GeminiPlanner::write_action(BlockWriter& block, const ChunkAction& action) {
  const std::uint32_t chunk = action.chunk;
  switch (action.kind) {
    case ChunkAction::Kind::arrive:
      if (gathers()) block.wait_for(gathered_[chunk]);
      return;
    case ChunkAction::Kind::release:
      block.memory(MemoryPurpose::buffers, shard(chunk) - whole(chunk));
      return;
    case ChunkAction::Kind::to_host:
      host_.copy_out(block, shard(chunk), sim::set_of(sim::compute_stream));
      // A copy into pageable memory is awaited (Chunk.shard_move).
      if (!model_.options.pin_memory) block.host_wait(sim::set_of(host_.out()));
      block.memory(MemoryPurpose::parameters, -shard(chunk));
      return;
    case ChunkAction::Kind::from_host:
      block.memory(MemoryPurpose::parameters, shard(chunk));
      host_.copy_in(block, shard(chunk), sim::set_of(sim::compute_stream));
      block.wait_for(sim::set_of(host_.in()));
      return;
    case ChunkAction::Kind::gather:
    case ChunkAction::Kind::prefetch:
      return write_gather(block, chunk, action.kind == ChunkAction::Kind::prefetch);
    case ChunkAction::Kind::accumulate:
      block.memory(MemoryPurpose::buffers, whole(chunk));
  }
}

void GeminiPlanner::write_actions(BlockWriter& block, std::size_t use) {
  for (const ChunkAction& action : actions_[use]) write_action(block, action);
}

// Behind an operator's backward pass its gradients are copied into their chunk, or added to what is there.
void GeminiPlanner::write_gradients(BlockWriter& block, const Operator& op, std::size_t use, bool adds) {
  if (op.trained > 0) {
    const sim::Kernel copy = model_.pass("copy gradients into chunk", op.trained * element_ * (adds ? 3 : 2));
    block.compute({&copy, 1});
    block.memory(MemoryPurpose::gradients, Bytes{-op.trained * element_});
  }
  for (const std::uint32_t chunk : uses_[use].completes) write_reduction(block, chunk, adds);
}

// On a stream of its own, or on the one that computes; then the shard is divided by the ranks and checked for overflow.
void GeminiPlanner::write_reduction(BlockWriter& block, std::uint32_t chunk, bool adds) {
  const ColossalOptions& o = model_.options;
  // What earlier micro-batches have left in the shard is put back into a chunk of zeros.
  if (adds) {
    const sim::Kernel put_back = model_.pass("put back gradients", whole(chunk).count + 5 * shard(chunk).count);
    block.compute({&put_back, 1});
  }
  if (model_.data > 1) {
    const CollectiveKind kind = layout_.keep_gathered ? CollectiveKind::all_reduce : CollectiveKind::reduce_scatter;
    block.communicate(stream_, block.call(slot_, kind, whole(chunk), Purpose::data));
    const sim::Kernel scale = model_.pass("scale gradients", 3 * shard(chunk).count);
    if (o.enable_async_reduce)
      block.side_kernel(stream_, scale, 0);
    else
      block.wait_for(sim::set_of(stream_)).compute({&scale, 1});
  }
  if (o.enable_gradient_accumulation) block.memory(MemoryPurpose::buffers, -whole(chunk));
  block.memory(MemoryPurpose::buffers, shard(chunk) - whole(chunk));
  if (!on_host_[chunk]) return;
  const auto ready = static_cast<sim::StreamSet>(sim::set_of(stream_) | sim::set_of(sim::compute_stream));
  host_.copy_out(block, shard(chunk), ready);
  if (!o.pin_memory && !o.enable_async_reduce) block.host_wait(sim::set_of(host_.out()));
  block.memory(MemoryPurpose::parameters, -shard(chunk));
}

sim::BlockId GeminiPlanner::forward_block(std::size_t part) {
  const workloads::Layer& layer = *parts_[part].layer;
  BlockWriter block = model_.builder.block("forward " + layer.name, model_.host.forward);
  block.memory(MemoryPurpose::activations, model_.saved(parts_[part]));
  auto visit = passes_[part].forward.begin();
  for (std::size_t op = 0; op < layer.operators.size(); ++op) {
    if (visit != passes_[part].forward.end() && visit->op == op) write_actions(block, (visit++)->use);
    write_forward(block, layer, {op, op + 1}, model_.tensor.line());
  }
  if (model_.is_embedding(parts_[part])) model_.tensor.write_embedding_end(block, layer);
  if (model_.is_head(parts_[part])) model_.tensor.write_loss(block);
  return block.finish();
}

sim::BlockId GeminiPlanner::backward_block(std::size_t part, bool adds) {
  const workloads::Layer& layer = *parts_[part].layer;
  const Passes& passes = passes_[part];
  BlockWriter block = model_.builder.block("backward " + layer.name + (adds ? " and add" : ""), model_.host.backward);
  const Bytes extra = model_.backward_extra(parts_[part]);
  block.memory(MemoryPurpose::activations, extra);
  auto again = passes.again.begin();
  for (std::size_t op = 0; op < layer.operators.size(); ++op) {
    if (again != passes.again.end() && again->op == op) write_actions(block, (again++)->use);
    write_recompute(block, layer, {op, op + 1}, model_.recompute(parts_[part]), true, model_.tensor.line());
  }
  auto visit = passes.backward.begin();
  for (std::size_t op = layer.operators.size(); op-- > 0;) {
    const bool visited = visit != passes.backward.end() && visit->op == op;
    if (visited) write_actions(block, visit->use);
    block.memory(MemoryPurpose::gradients, Bytes{layer.operators[op].trained * element_});
    write_backward(block, layer, {op, op + 1}, model_.tensor.line());
    if (visited) write_gradients(block, layer.operators[op], (visit++)->use, adds);
  }
  block.memory(MemoryPurpose::activations, -(extra + model_.saved(parts_[part])));
  return block.finish();
}

// Shards on the device are updated there, those on the host by its processors (HybridAdam).
sim::BlockId GeminiPlanner::step_end() {
  BlockWriter block = model_.builder.block("optimizer step", model_.host.backward);
  block.wait_for(sim::set_of(stream_));
  const std::vector<sim::Kernel> kernels =
      workloads::optimizer_kernels(model_.job.training, model_.state, owned(false), model_.costs);
  if (owned(false) > 0) block.compute({kernels.data(), 1});
  if (model_.data > 1) block.blocking(stream_, block.call(slot_, CollectiveKind::all_reduce, Bytes{4}, Purpose::data));
  model_.tensor.write_scalar(block);
  if (owned(false) > 0) block.compute({kernels.data() + 1, kernels.size() - 1});
  if (const std::int64_t there = owned(true); there > 0) {
    block.host_wait(sim::set_of(host_.out()));
    const double traffic = static_cast<double>(there) * workloads::optimizer_traffic(model_.state);
    host_.update(block, Bytes{std::llround(traffic)}, sim::set_of(host_.out()));
    block.wait_for(sim::set_of(host_.optimizer()));
  }
  block.host_wait(sim::set_of(sim::compute_stream)).host_work(model_.host.step);
  return block.finish();
}

// Gradients take the place of parameters unless they are added up.
void GeminiPlanner::write_resident(sim::Program& program) const {
  const auto resident = [&](MemoryPurpose purpose, Bytes bytes) {
    program.resident[static_cast<std::size_t>(purpose)] = bytes;
  };
  const std::int64_t here = owned(false);
  resident(MemoryPurpose::parameters, Bytes{here * element_});
  if (model_.options.enable_gradient_accumulation) resident(MemoryPurpose::gradients, Bytes{here * element_});
  resident(MemoryPurpose::optimizer, model_.state.optimizer(here));
}

void GeminiPlanner::write_program() {
  sim::Program program;
  program.name = "all ranks";
  write_resident(program);
  std::vector<sim::BlockId> forward;
  std::array<std::vector<sim::BlockId>, 2> backward;
  for (std::size_t part = 0; part < parts_.size(); ++part) {
    forward.push_back(forward_block(part));
    backward[0].push_back(backward_block(part, false));
    if (model_.micro_batches > 1) backward[1].push_back(backward_block(part, true));
  }
  for (std::int64_t m = 0; m < model_.micro_batches; ++m) {
    const auto micro_batch = static_cast<std::int32_t>(m);
    const auto call = [&](sim::BlockId block, std::size_t part) {
      program.calls.push_back({.block = block, .layer = parts_[part].index, .micro_batch = micro_batch});
    };
    const auto place = [&](std::size_t part) {
      return ActivationOffload::Place{model_.expansion, 0, model_.expansion.layers(), parts_[part].index, micro_batch};
    };
    for (std::size_t part = 0; part < parts_.size(); ++part) {
      call(forward[part], part);
      if (parts_[part].index >= 0) offload_.after_forward(program, place(part));
    }
    for (std::size_t part = parts_.size(); part-- > 0;) {
      if (parts_[part].index >= 0) offload_.before_backward(program, place(part));
      call(backward.at(m > 0 ? 1 : 0)[part], part);
    }
  }
  program.calls.push_back({.block = step_end()});
  model_.builder.plan().programs.add(std::move(program));
}

PlannedStep GeminiPlanner::plan() {
  const ColossalOptions& o = model_.options;
  stream_ = model_.builder.stream("chunks");
  slot_ = model_.builder.slot("data");
  number_tensors();
  place_chunks();
  list_uses();
  const bool automatic = o.placement_policy.value == "auto";
  const auto capacity = static_cast<double>(model_.job.accelerator.memory.count);
  actions_ = schedule_chunks(layout_, uses_,
                             {.automatic = automatic,
                              .max_prefetch = o.max_prefetch,
                              .ranks = model_.data,
                              .element = element_,
                              .on_host = on_host_,
                              .separate_gradients = o.enable_gradient_accumulation,
                              .gathered_share = 1 - o.shard_param_frac,
                              .device_share = 1 - o.offloaded_parameters(),
                              .room = Bytes{static_cast<std::int64_t>(capacity * o.steady_cuda_cap_ratio)}});
  write_program();
  model_.connect(slot_, offload_);
  host_.connect(model_.builder.plan(), model_.job.cluster.devices());
  PlannedStep step = model_.finish();
  host_.price(step.plan);
  return step;
}

}  // namespace

PlannedStep plan_gemini(const ColossalOptions& options, const Job& job) { return GeminiPlanner(options, job).plan(); }

}  // namespace trainyard::strategies
