#include <algorithm>

#include "strategies/internal/pytorch_fsdp_planner.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::CollectiveKind;
using sim::EventRef;
using sim::MemoryPurpose;
using sim::Purpose;
using workloads::Role;

FsdpPlanner::Unit FsdpPlanner::unit_of(const workloads::Layer& layer) const {
  Unit unit;
  for (const workloads::Operator& op : layer.operators) {
    Part& part = op.of_experts && experts_apart() ? unit.experts : unit.dense;
    part.trained += op.trained;
    part.frozen += op.frozen;
    if (op.role == Role::column_linear || op.role == Role::row_linear) part.linear += op.trained;
  }
  return unit;
}

FsdpPlanner::Unit FsdpPlanner::root_of(const Chunk& chunk) const {
  Unit unit;
  const auto add = [&](const workloads::Layer& part) {
    unit.dense.trained += part.trained;
    unit.dense.frozen += part.frozen;
  };
  if (chunk.has_embedding) add(model_.embedding);
  if (chunk.has_head) add(model_.head);
  return unit;
}

FsdpPlanner::Unit FsdpPlanner::unit_of(const Chunk& chunk, std::int64_t kind) const {
  return kind == root_kind ? root_of(chunk) : unit_of(model_.kinds[static_cast<std::size_t>(kind)]);
}

Bytes FsdpPlanner::gathered_bytes(const Part& part) const {
  const std::int64_t in_8_bits = options_.enable_fsdp_float8_all_gather ? part.linear : 0;
  return Bytes{(part.trained - in_8_bits) * gather_bytes_ + in_8_bits} + part.frozen;
}

// What a rank holds of it, with so many bytes per trained parameter.
Bytes FsdpPlanner::sharded(const Unit& unit, std::int64_t bytes, bool frozen) const {
  const auto of = [&](const Part& part, std::int64_t shards) {
    return sim::scaled(Bytes{part.trained * bytes} + (frozen ? part.frozen : Bytes{}), 1, shards);
  };
  return of(unit.dense, dense_.shards) + of(unit.experts, experts_.shards);
}

// Trained parameters of a rank.
std::int64_t FsdpPlanner::owned(const Unit& unit) const { return sharded(unit, 1, false).count; }

// Of the layer with the most.
Bytes FsdpPlanner::largest_gathered(const Chunk& chunk) const {
  Bytes largest{};
  for (std::int64_t i = 0; i < chunk.layers; ++i)
    largest = std::max(largest, gathered_bytes(unit_of(chunk, kind_of(chunk, i))));
  return largest;
}

// Two events of every unit in flight: its parameters are there; their room may be used again (FSDP2: copied out of the
// gather's output, FSDP1: freed).
EventRef FsdpPlanner::gathered(std::int64_t unit) const {
  const std::int64_t turn = (unit % units_in_flight_ + units_in_flight_) % units_in_flight_;
  return {.index = static_cast<std::uint16_t>(2 * turn), .relative = true};
}
EventRef FsdpPlanner::released(std::int64_t unit) const {
  EventRef event = gathered(unit);
  ++event.index;
  return event;
}
std::uint16_t FsdpPlanner::shift_of(std::int64_t unit) const { return gathered(unit).index; }

void FsdpPlanner::write_gathers(BlockWriter& block, const Chunk& chunk, const std::vector<Gather>& gathers) {
  for (const Gather& gather : gathers) write_gather(block, unit_of(chunk, gather.kind), gather);
}

// The shards, from the host where they are kept there, are cast into the gather's input, then gathered.
void FsdpPlanner::write_gather(BlockWriter& block, const Unit& unit, const Gather& gather) {
  std::vector<EventRef> waits;
  if (gather.awaits) {
    // The rate limiter blocks the host (torch/distributed/fsdp/_limiter_utils.py).
    if (options_.first_version())
      block.host_wait(released(*gather.awaits));
    else
      waits.push_back(released(*gather.awaits));
  }
  const sim::StreamSet after = gather.after_compute ? sim::set_of(sim::compute_stream) : sim::StreamSet{0};
  block.memory(MemoryPurpose::buffers, gathered_bytes(unit));
  write_copy_in(block, unit, after);
  const auto after_copy = static_cast<sim::StreamSet>(sim::set_of(copy_in_) | after);
  // Waiting for the last gather on the stream waits for both.
  const bool both = !unit.dense.empty() && !unit.experts.empty() && dense_.shards > 1 && experts_.shards > 1;
  const auto gather_part = [&](const Part& part, const ShardGroup& group, std::optional<EventRef> records) {
    if (part.empty() || group.shards == 1) return;
    const sim::SlotId slot = gather.again ? group.after_forward : group.slot;
    block.communicate(all_gather_, builder_.call(slot, CollectiveKind::all_gather, gathered_bytes(part), Purpose::data),
                      after_copy, waits, records);
  };
  gather_part(unit.dense, dense_, both ? std::nullopt : std::optional{gathered(gather.unit)});
  gather_part(unit.experts, experts_, gathered(gather.unit));
}

// Trained parameters are kept in 32 bits, frozen ones as they are used.
void FsdpPlanner::write_copy_in(BlockWriter& block, const Unit& unit, sim::StreamSet after) {
  const Bytes shard = sharded(unit, 4, true);
  if (options_.cpu_offload) {
    block.communicate(copy_in_, builder_.call(from_host_, CollectiveKind::broadcast, shard, Purpose::offload), after,
                      {}, std::nullopt);
    if (!options_.pin_memory) block.host_wait(sim::set_of(copy_in_));
  }
  // A flat parameter that is not cast is gathered from where it is.
  if (options_.first_version() && gather_bytes_ == 4) return;
  const Bytes cast = sim::scaled(gathered_bytes(unit.dense), 1, dense_.shards) +
                     sim::scaled(gathered_bytes(unit.experts), 1, experts_.shards);
  block.side_kernel(copy_in_, kernel("copy in", (shard + cast).count), after);
}

// Compute waits for the gather. FSDP2 copies its output into the parameter tensors; those of FSDP1 are views of it.
// Parts of columns do not lie one behind the other: once copied out they are joined, and gradients are cut up before
// they are packed (foreach_all_gather_copy_out and foreach_reduce in
// torch/distributed/fsdp/_fully_shard/_fsdp_collectives.py).
void FsdpPlanner::write_arrival(BlockWriter& block, const Unit& unit) {
  block.wait_for(gathered(0));
  if (options_.first_version()) return;
  block.record(released(0), kernel("copy out", 2 * gathered_bytes(unit).count));
  if (!shards_columns_ || unit.experts.empty()) return;
  const sim::Kernel join = kernel("join columns", 2 * gathered_bytes(unit.experts).count);
  block.compute({&join, 1});
}

// What is resharded over a smaller group after forward stays until the end of backward.
void FsdpPlanner::free_unit(BlockWriter& block, const Unit& unit, bool forward) {
  const Bytes whole = gathered_bytes(unit);
  block.memory(MemoryPurpose::buffers, -whole);
  if (reshard_.group > 0) {
    const Bytes kept{whole.count / reshard_.group};
    block.memory(MemoryPurpose::buffers, forward ? kept : -kept);
  }
  if (options_.first_version()) block.record(released(0));
}

// Without synchronisation FSDP2 adds gradients up in the type in which they are reduced, FSDP1 in their own.
Bytes FsdpPlanner::kept_gradients(const Unit& unit) const {
  return Bytes{unit.trained() * (options_.first_version() ? gather_bytes_ : reduce_bytes_)};
}

sim::StreamSet FsdpPlanner::reductions() const {
  sim::StreamSet streams = 0;
  if (gathers()) streams = static_cast<sim::StreamSet>(streams | sim::set_of(reduce_scatter_));
  if (replicas_ > 1) streams = static_cast<sim::StreamSet>(streams | sim::set_of(all_reduce_));
  return streams;
}

void FsdpPlanner::write_gradients(BlockWriter& block, const Unit& unit, Gradients gradients) {
  if (unit.trained() == 0) return;
  switch (gradients) {
    case Gradients::keep:
      block.memory(MemoryPurpose::gradients, kept_gradients(unit));
      return write_accumulation(block, unit, true);
    case Gradients::add:
      return write_accumulation(block, unit, false);
    case Gradients::reduce:
      return write_reduction(block, unit, false, false);
    case Gradients::reduce_and_add:
      return write_reduction(block, unit, false, true);
    case Gradients::add_and_reduce:
      write_accumulation(block, unit, false);
      write_reduction(block, unit, true, false);
      block.memory(MemoryPurpose::gradients, -kept_gradients(unit));
      return;
  }
}

// The first gradients stay as they are, or in their wider type.
void FsdpPlanner::write_accumulation(BlockWriter& block, const Unit& unit, bool first) {
  const std::int64_t kept = kept_gradients(unit).count;
  const std::int64_t fresh = unit.trained() * gather_bytes_;
  if (first && kept == fresh) return;
  const sim::Kernel add = kernel("accumulate gradients", fresh + (first ? 1 : 2) * kept);
  block.compute({&add, 1});
}

// FSDP2 copies gradients into the input of the reduction. In FSDP1 autograd joins those of a flat parameter's views,
// and the sum is scaled, and cast where types differ, on the way to the reduction (_reduce_grad).
void FsdpPlanner::write_pack(BlockWriter& block, const Unit& unit, bool from_kept) {
  const std::int64_t fresh = unit.trained() * gather_bytes_;
  const std::int64_t reduced = unit.trained() * reduce_bytes_;
  if (!options_.first_version()) {
    if (shards_columns_ && unit.experts.trained > 0) {
      const std::int64_t element = from_kept ? reduce_bytes_ : gather_bytes_;
      const sim::Kernel cut = kernel("cut up columns", 2 * unit.experts.trained * element);
      block.compute({&cut, 1});
    }
    const sim::Kernel pack = kernel("pack gradients", (from_kept ? kept_gradients(unit).count : fresh) + reduced);
    block.compute({&pack, 1});
    return;
  }
  const sim::Kernel join = kernel("join gradients", 2 * fresh);
  block.compute({&join, 1});
  block.side_kernel(gathers() ? reduce_scatter_ : all_reduce_, kernel("scale gradients", fresh + reduced),
                    sim::set_of(sim::compute_stream));
}

// In FSDP2 compute first waits for the reduction of the unit before: at most one is in flight.
void FsdpPlanner::write_reduction(BlockWriter& block, const Unit& unit, bool from_kept, bool adds) {
  if (reductions() == 0) return;
  if (gathers() && !options_.first_version()) block.wait_for(sim::set_of(reduce_scatter_));
  // What is only replicated is reduced where it is.
  if (gathers() || options_.first_version()) write_pack(block, unit, from_kept);
  write_reduction(block, unit.dense, dense_);
  write_reduction(block, unit.experts, experts_);
  if (adds) block.side_kernel(last_reduction(), kernel("accumulate shard", owned(unit) * (reduce_bytes_ + 8)), 0);
  if (!options_.cpu_offload) return;
  block.communicate(last_reduction(),
                    builder_.call(to_host_, CollectiveKind::broadcast, sharded(unit, 4, false), Purpose::offload), 0,
                    {}, std::nullopt);
  if (!options_.pin_memory) block.host_wait(sim::set_of(last_reduction()));
}

void FsdpPlanner::write_reduction(BlockWriter& block, const Part& part, const ShardGroup& group) {
  if (part.trained == 0) return;
  const Bytes whole{part.trained * reduce_bytes_};
  if (group.shards > 1)
    block.communicate(reduce_scatter_, builder_.call(group.slot, CollectiveKind::reduce_scatter, whole, Purpose::data));
  if (replicas_ > 1)
    block.communicate(
        all_reduce_,
        builder_.call(group.replicas, CollectiveKind::all_reduce, Bytes{whole.count / group.shards}, Purpose::data),
        static_cast<sim::StreamSet>(sim::set_of(sim::compute_stream) | reductions()), {}, std::nullopt);
}

}  // namespace trainyard::strategies
