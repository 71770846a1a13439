#include <map>
#include <string>

#include "strategies/internal/maxtext_planner.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::MemoryPurpose;

namespace {

bool is_layer(std::int64_t part) { return part >= 0; }

}  // namespace

// A circular pipeline: all micro-batches go through a stage's first chunk of layers, then through its second, and so
// on; backward the same in reverse, as jax differentiates the loop. Each step of accumulation embeds its whole batch
// before, and has its loss behind.
void MaxTextPlanner::add_accumulation(std::vector<Passes>& all, std::int64_t stage, std::int64_t step) const {
  const std::int64_t chunks = options_.repeats(job_, sizes_);
  const std::int64_t layers = model_.layers() / (sizes_.pipeline() * chunks);
  const auto visit = [&](std::int64_t part, bool forward, std::int64_t layer, std::int64_t micro_batch) {
    return Visit{.pass = {.part = part, .forward = forward},
                 .layer = static_cast<std::int32_t>(layer),
                 .micro_batch = static_cast<std::int32_t>(step * pipelined_ + micro_batch)};
  };
  const auto add_layers = [&](std::int64_t chunk, std::int64_t micro_batch, bool forward) {
    Passes& passes = all.emplace_back();
    for (std::int64_t i = 0; i < layers; ++i) {
      const std::int64_t layer = (chunk * sizes_.pipeline() + stage) * layers + (forward ? i : layers - 1 - i);
      passes.push_back(visit(model_.kind_of[static_cast<std::size_t>(layer)], forward, layer, micro_batch));
    }
  };
  all.push_back({visit(embedding_part, true, -1, 0)});
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk)
    for (std::int64_t m = 0; m < pipelined_; ++m) add_layers(chunk, m, true);
  all.push_back({visit(head_part, true, -1, 0), visit(head_part, false, -1, 0)});
  for (std::int64_t chunk = chunks; chunk-- > 0;)
    for (std::int64_t m = pipelined_; m-- > 0;) add_layers(chunk, m, false);
  all.push_back({visit(embedding_part, false, -1, 0)});
}

std::vector<MaxTextPlanner::Passes> MaxTextPlanner::passes_of(std::int64_t stage) const {
  std::vector<Passes> all;
  for (std::int64_t step = 0; step < accumulated_; ++step) add_accumulation(all, stage, step);
  settle(all);
  return all;
}

// Weights are gathered for every pass of a layer, or from its first to its last one. Those of the head stay between its
// two passes, which follow on each other; backward the embedding needs none.
void MaxTextPlanner::settle_gathers(std::vector<Visit*>& visits) const {
  std::map<std::int32_t, Visit*> first;
  std::map<std::int32_t, Visit*> last;
  for (Visit* visit : visits) {
    first.try_emplace(visit->layer, visit);
    last[visit->layer] = visit;
  }
  const bool once = options_.pipeline_fsdp_ag_once && sizes_.pipeline() > 1;
  for (Visit* visit : visits) {
    Pass& pass = visit->pass;
    if (!gathers(pass.part)) continue;
    pass.gathers = is_layer(pass.part) ? !once || first[visit->layer] == visit : pass.forward;
    pass.frees =
        is_layer(pass.part) ? !once || last[visit->layer] == visit : pass.forward == (pass.part == embedding_part);
  }
}

void MaxTextPlanner::settle_gradients(std::vector<Visit*>& visits) const {
  using Key = std::pair<std::int64_t, std::int32_t>;
  std::map<Key, std::int64_t> left;
  std::map<Key, std::int64_t> done;
  const auto key_of = [](const Visit& visit) {
    return Key{is_layer(visit.pass.part) ? 0 : visit.pass.part, visit.layer};
  };
  for (const Visit* visit : visits)
    if (!visit->pass.forward) ++left[key_of(*visit)];
  const bool once = options_.pipeline_fsdp_ag_once && sizes_.pipeline() > 1;
  for (Visit* visit : visits) {
    if (visit->pass.forward) continue;
    const bool is_first = done[key_of(*visit)]++ == 0;
    const bool is_last = --left[key_of(*visit)] == 0;
    if (!once || !is_layer(visit->pass.part) || (is_first && is_last))
      visit->pass.gradients = is_first ? Gradients::reduce : Gradients::reduce_and_add;
    else
      visit->pass.gradients = is_last ? Gradients::add_and_reduce : is_first ? Gradients::keep : Gradients::add;
  }
}

void MaxTextPlanner::look_ahead(std::vector<Visit*>& visits, const std::vector<bool>& offloads) {
  const auto offloaded = [&](const Pass& pass) {
    return is_layer(pass.part) && offloads[static_cast<std::size_t>(pass.part)];
  };
  for (std::size_t i = 0; i < visits.size(); ++i) {
    Pass& pass = visits[i]->pass;
    if (i == 0) {
      pass.gathers_now = pass.gathers;
    } else if (const Pass& before = visits[i - 1]->pass; before.forward && offloaded(before)) {
      pass.copied_before = before.part;
    }
    if (i + 1 == visits.size()) continue;
    const Pass& next = visits[i + 1]->pass;
    if (next.gathers) pass.gathers_next = next.part;
    if (!next.forward && offloaded(next)) pass.fetches_next = next.part;
  }
}

void MaxTextPlanner::settle(std::vector<Passes>& all) const {
  std::vector<Visit*> visits;
  for (Passes& passes : all)
    for (Visit& visit : passes) visits.push_back(&visit);
  settle_gathers(visits);
  settle_gradients(visits);
  std::vector<bool> offloads;
  for (const LayerRemat& remat : remat_) offloads.push_back(remat.offloaded.count > 0);
  look_ahead(visits, offloads);
}

void MaxTextPlanner::write_program(std::int64_t stage) {
  sim::Program program;
  program.name = sizes_.pipeline() > 1 ? "stage " + std::to_string(stage) : "all ranks";
  const std::vector<Passes> all = passes_of(stage);
  const auto resident = [&](MemoryPurpose purpose) -> Bytes& {
    return program.resident[static_cast<std::size_t>(purpose)];
  };
  const auto hold = [&](const PartWeights& weights) {
    resident(MemoryPurpose::parameters) += sharded(weights, state_.parameter, true);
    resident(MemoryPurpose::gradients) += sharded(weights, state_.gradient, false);
    resident(MemoryPurpose::optimizer) += state_.optimizer(sharded(weights, 1, false).count);
  };
  hold(weights_of(embedding_part));
  hold(weights_of(head_part));
  const std::int64_t layers = model_.layers() / sizes_.pipeline();
  const std::int64_t in_chunk = layers / options_.repeats(job_, sizes_);
  for (std::int64_t i = 0; i < layers; ++i) {
    const std::int64_t layer = (i / in_chunk * sizes_.pipeline() + stage) * in_chunk + i % in_chunk;
    hold(weights_of(model_.kind_of[static_cast<std::size_t>(layer)]));
  }

  std::uint16_t turn = 0;
  const auto write = [&](const Passes& passes) {
    for (const Visit& visit : passes) {
      program.calls.push_back(
          {.block = block_of(visit.pass), .layer = visit.layer, .micro_batch = visit.micro_batch, .event_shift = turn});
      turn ^= 1U;
    }
  };
  StageRing::Loop loop{.micro_batches = pipelined_, .chunks = options_.repeats(job_, sizes_)};
  for (std::size_t i = 0; i < all.size();) {
    if (!is_layer(all[i].front().pass.part)) {
      write(all[i++]);
      continue;
    }
    loop.forward = all[i].front().pass.forward;
    ring_->write(program, stage, loop, [&](std::int64_t) { write(all[i++]); });
  }
  program.calls.push_back({.block = step_end()});
  builder_.plan().programs.add(std::move(program));
}

}  // namespace trainyard::strategies
