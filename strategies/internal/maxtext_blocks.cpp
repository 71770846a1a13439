#include <algorithm>
#include <string>

#include "strategies/checks.hpp"
#include "strategies/internal/maxtext_planner.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::CollectiveKind;
using sim::EventRef;
using sim::MemoryPurpose;
using sim::Purpose;
using workloads::Layer;
using workloads::Operator;

namespace {

// Of the pass at hand, and of the one behind it: passes take them in turns.
constexpr EventRef gathered{.index = 0, .relative = true};
constexpr EventRef next_gathered{.index = 1, .relative = true};

}  // namespace

const Layer& MaxTextPlanner::layer_of(std::int64_t part) const {
  if (part == embedding_part) return root_model_.embedding;
  if (part == head_part) return root_model_.head;
  return model_.kinds[static_cast<std::size_t>(part)];
}

const LayerRemat* MaxTextPlanner::remat_of(std::int64_t part) const {
  return part < 0 ? nullptr : &remat_[static_cast<std::size_t>(part)];
}

MaxTextPlanner::PartWeights MaxTextPlanner::weights_of(std::int64_t part) const {
  PartWeights all;
  for (const Operator& op : layer_of(part).operators) {
    Weights& weights = op.of_experts ? all.experts : all.dense;
    weights.trained += op.trained;
    weights.frozen += op.frozen;
  }
  return all;
}

// A head that uses the embedding's matrix gathers that.
MaxTextPlanner::PartWeights MaxTextPlanner::gathered_weights(std::int64_t part) const {
  PartWeights weights = weights_of(part);
  if (part != head_part || !job_.model.tied_embeddings) return weights;
  const PartWeights embedding = weights_of(embedding_part);
  weights.dense.trained += embedding.dense.trained;
  weights.dense.frozen += embedding.dense.frozen;
  return weights;
}

Bytes MaxTextPlanner::gathered_bytes(const Weights& weights) const {
  return Bytes{weights.trained * wire_bytes_} + weights.frozen;
}

// What a rank holds of it, with so many bytes per trained parameter.
Bytes MaxTextPlanner::sharded(const PartWeights& weights, std::int64_t bytes, bool frozen) const {
  const auto of = [&](const Weights& some, std::int64_t shards) {
    return sim::scaled(Bytes{some.trained * bytes} + (frozen ? some.frozen : Bytes{}), 1, shards);
  };
  return of(weights.dense, dense_.shards) + of(weights.experts, experts_.shards);
}

bool MaxTextPlanner::gathers(std::int64_t part) const {
  const PartWeights weights = gathered_weights(part);
  return (!weights.dense.empty() && dense_.shards > 1) || (!weights.experts.empty() && experts_.shards > 1);
}

sim::StreamSet MaxTextPlanner::reductions() const {
  return static_cast<sim::StreamSet>(sim::set_of(reduce_scatter_) | sim::set_of(all_reduce_));
}

sim::BlockId MaxTextPlanner::block_of(const Pass& pass) {
  const auto known = blocks_.find(pass);
  if (known != blocks_.end()) return known->second;
  return blocks_[pass] = write_block(pass);
}

sim::BlockId MaxTextPlanner::write_block(const Pass& pass) {
  const std::string name = layer_of(pass.part).name;
  BlockWriter block =
      builder_.block((pass.forward ? "forward " : "backward ") + name, pass.forward ? host_.forward : host_.backward);
  write_ahead(block, pass);
  if (pass.gathers) {
    block.wait_for(gathered);
    block.memory(MemoryPurpose::buffers, gathered_bytes(gathered_weights(pass.part)));
  }
  if (pass.forward)
    write_forward_pass(block, pass);
  else
    write_backward_pass(block, pass);
  if (pass.frees) block.memory(MemoryPurpose::buffers, -gathered_bytes(gathered_weights(pass.part)));
  return block.finish();
}

// Starts what is needed next. Gathered weights come and go one by one: the next layer's take the room of those that
// this one has used, and are counted from where it begins.
void MaxTextPlanner::write_ahead(BlockWriter& block, const Pass& pass) {
  const auto gather = [&](std::int64_t part, EventRef event) {
    const PartWeights weights = gathered_weights(part);
    const bool both = !weights.dense.empty() && !weights.experts.empty() && dense_.shards > 1 && experts_.shards > 1;
    const auto call = [&](const Weights& some, const ShardGroup& group, std::optional<EventRef> records) {
      if (some.empty() || group.shards == 1) return;
      block.communicate(all_gather_,
                        builder_.call(group.slot, CollectiveKind::all_gather, gathered_bytes(some), Purpose::data),
                        sim::set_of(sim::compute_stream), {}, records);
    };
    call(weights.dense, dense_, both ? std::nullopt : std::optional{event});
    call(weights.experts, experts_, event);
  };
  if (pass.gathers_now) gather(pass.part, gathered);
  // What this pass needs from the host has been asked for by the one before.
  const LayerRemat* own = remat_of(pass.part);
  if (!pass.forward && own != nullptr && own->offloaded.count > 0) block.wait_for(sim::set_of(from_host_));
  if (pass.gathers_next != no_part) gather(pass.gathers_next, next_gathered);
  if (pass.fetches_next == no_part) return;
  const Bytes fetched = remat_of(pass.fetches_next)->offloaded;
  block.memory(MemoryPurpose::activations, fetched);
  block.communicate(from_host_, builder_.call(host_slot_, CollectiveKind::broadcast, fetched, Purpose::offload));
}

// Inputs of the pipeline come from all stages, and its outputs go to all: MaxText's buffer of both is divided over them
// and moves on by one stage in every iteration (layers/pipeline.py, state_io). The same bytes go at once here.
void MaxTextPlanner::exchange_with_stages(BlockWriter& block, std::int64_t part, std::int64_t at) {
  if (part != at || sizes_.pipeline() == 1) return;
  const Bytes held{root_model_.embedding.boundary.count / sizes_.tensor()};
  block.blocking(stage_, builder_.call(stage_slot_, CollectiveKind::all_to_all, held, Purpose::pipeline));
}

void MaxTextPlanner::write_forward_pass(BlockWriter& block, const Pass& pass) {
  const Layer& layer = layer_of(pass.part);
  const LayerCommunication& with = communication_of(pass.part);
  const LayerRemat* remat = remat_of(pass.part);
  const Bytes offloaded = remat != nullptr ? remat->offloaded : Bytes{};
  exchange_with_stages(block, pass.part, head_part);
  block.memory(MemoryPurpose::activations, remat != nullptr ? remat->kept + offloaded : layer.saved_bytes({}, false));
  write_forward(block, layer, with);
  if (pass.part == head_part) write_loss_reductions(block, with);
  // Rows that other ranks hold are summed up, and the features divided.
  if (pass.part == embedding_part && with.tensor)
    block.blocking(tensor_,
                   builder_.call(tensor_slot_, CollectiveKind::reduce_scatter, layer.boundary, Purpose::tensor));
  exchange_with_stages(block, pass.part, embedding_part);
  if (pass.copied_before != no_part)
    block.wait_for(sim::set_of(to_host_)).memory(MemoryPurpose::activations, -remat_of(pass.copied_before)->offloaded);
  if (offloaded.count > 0)
    block.communicate(to_host_, builder_.call(host_slot_, CollectiveKind::broadcast, offloaded, Purpose::offload));
}

void MaxTextPlanner::write_backward_pass(BlockWriter& block, const Pass& pass) {
  const Layer& layer = layer_of(pass.part);
  const LayerCommunication& with = communication_of(pass.part);
  const LayerRemat* remat = remat_of(pass.part);
  const Bytes everything = layer.saved_bytes({}, false);
  const Bytes held = remat != nullptr ? remat->kept + remat->offloaded : everything;
  const Bytes working = std::max(everything - held, Bytes{}) + backward_workspace(layer);
  exchange_with_stages(block, pass.part, embedding_part);
  block.memory(MemoryPurpose::activations, working);
  block.memory(MemoryPurpose::gradients, whole_gradients(pass));
  if (remat != nullptr) write_recompute(block, layer, remat->runs_again, with);
  if (pass.part == embedding_part && with.tensor)
    block.blocking(tensor_, builder_.call(tensor_slot_, CollectiveKind::all_gather, layer.boundary, Purpose::tensor));
  write_sections(block, pass);
  block.memory(MemoryPurpose::activations, -(working + held));
  write_reduction(block, pass);
  if (pass.gradients != Gradients::keep) block.memory(MemoryPurpose::gradients, -whole_gradients(pass));
  if (pass.gradients == Gradients::add_and_reduce)
    block.memory(MemoryPurpose::gradients, Bytes{-weights_of(pass.part).trained() * reduce_bytes_});
  exchange_with_stages(block, pass.part, head_part);
}

// Gradients that are not reduced yet: of the two largest tensors, one being made and one being reduced, or of all.
Bytes MaxTextPlanner::whole_gradients(const Pass& pass) const {
  if (pass.gradients != Gradients::reduce && pass.gradients != Gradients::reduce_and_add)
    return Bytes{weights_of(pass.part).trained() * reduce_bytes_};
  std::int64_t largest = 0;
  for (const Operator& op : layer_of(pass.part).operators) largest = std::max(largest, op.trained);
  return Bytes{2 * largest * reduce_bytes_};
}

// Operators that are alike in whether they gather their inputs again.
void MaxTextPlanner::write_sections(BlockWriter& block, const Pass& pass) {
  const Layer& layer = layer_of(pass.part);
  const LayerRemat* remat = remat_of(pass.part);
  LayerCommunication with = communication_of(pass.part);
  const bool scatters = pass.gradients != Gradients::keep && pass.gradients != Gradients::add;
  const auto gathers_again = [&](std::size_t i) { return remat != nullptr && remat->gathers_again[i]; };
  const auto is_column = [&](std::size_t i) { return layer.operators[i].role == workloads::Role::column_linear; };
  for (std::size_t end = layer.operators.size(); end > 0;) {
    std::optional<bool> again;  // as its column-parallel products have it
    std::size_t begin = end;
    while (begin > 0 &&
           (!is_column(begin - 1) || gathers_again(begin - 1) == again.value_or(gathers_again(begin - 1)))) {
      --begin;
      if (is_column(begin)) again = gathers_again(begin);
    }
    if (with.tensor) with.tensor->gathers_inputs_again = again.value_or(false);
    write_backward(block, layer, {begin, end}, with, [&](BlockWriter& writer, std::size_t i) {
      const Operator& op = layer.operators[i];
      if (scatters) scatter(writer, pass.part, op.trained, op.of_experts);
    });
    end = begin;
  }
}

// The gradient of one tensor, or of what else an operator has.
void MaxTextPlanner::scatter(BlockWriter& block, std::int64_t part, std::int64_t trained, bool of_experts) {
  const ShardGroup& group = of_experts ? experts_ : dense_group(part);
  if (trained == 0 || group.shards == 1) return;
  block.communicate(reduce_scatter_, builder_.call(group.slot, CollectiveKind::reduce_scatter,
                                                   Bytes{trained * reduce_bytes_}, Purpose::data));
}

// What is left when shards are there: copies sum them up. In a pipeline that gathers once, whole gradients add up
// first.
void MaxTextPlanner::write_reduction(BlockWriter& block, const Pass& pass) {
  const PartWeights weights = weights_of(pass.part);
  if (weights.trained() == 0) return;
  const auto pass_over = [&](const char* name, Bytes bytes) { return costs_.memory_bound(name, bytes); };
  if (pass.gradients == Gradients::add || pass.gradients == Gradients::add_and_reduce) {
    const sim::Kernel add = pass_over("accumulate gradients", Bytes{3 * weights.trained() * reduce_bytes_});
    block.compute({&add, 1});
  }
  if (pass.gradients == Gradients::keep || pass.gradients == Gradients::add) return;
  const auto sum_up = [&](const Weights& some, const ShardGroup& group) {
    if (some.trained == 0 || group.copies == 1) return;
    const Bytes shard = sim::scaled(Bytes{some.trained * reduce_bytes_}, 1, group.shards);
    block.communicate(all_reduce_, builder_.call(group.copies_slot, CollectiveKind::all_reduce, shard, Purpose::data),
                      static_cast<sim::StreamSet>(sim::set_of(sim::compute_stream) | reductions()), {}, std::nullopt);
  };
  sum_up(weights.dense, dense_group(pass.part));
  sum_up(weights.experts, experts_);
  if (pass.gradients != Gradients::reduce_and_add) return;
  block.side_kernel(all_reduce_, pass_over("accumulate shard", sharded(weights, 8 + reduce_bytes_, false)),
                    static_cast<sim::StreamSet>(sim::set_of(sim::compute_stream) | reductions()));
}

// XLA makes clipping part of the update.
sim::BlockId MaxTextPlanner::step_end() {
  BlockWriter block = builder_.block("optimizer step", host_.backward);
  block.wait_for(reductions());
  PartWeights total = weights_of(embedding_part);
  const auto add = [&](const PartWeights& more) {
    total.dense.trained += more.dense.trained;
    total.experts.trained += more.experts.trained;
  };
  add(weights_of(head_part));
  for (std::size_t i = 0; i < model_.kinds.size(); ++i) {
    const auto layers = std::ranges::count(model_.kind_of, static_cast<std::uint32_t>(i));
    PartWeights kind = weights_of(static_cast<std::int64_t>(i));
    // Stages have as many of each.
    kind.dense.trained = kind.dense.trained * layers / sizes_.pipeline();
    kind.experts.trained = kind.experts.trained * layers / sizes_.pipeline();
    add(kind);
  }
  const std::vector<sim::Kernel> kernels =
      workloads::optimizer_kernels(job_.training, state_, sharded(total, 1, false).count, costs_);
  block.compute({kernels.data(), 1});
  if (job_.cluster.devices() > 1)
    block.blocking(all_reduce_, builder_.call(all_slot_, CollectiveKind::all_reduce, Bytes{4}, Purpose::data));
  block.compute({kernels.data() + 2, kernels.size() - 2});
  return block.finish();
}

}  // namespace trainyard::strategies
