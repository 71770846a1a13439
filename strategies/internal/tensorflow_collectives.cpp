// Variables that every replica has: gradients meet in collectives, or on one of the devices.
#include <algorithm>

#include "strategies/groups.hpp"
#include "strategies/internal/tensorflow_planner.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::CollectiveKind;
using sim::Purpose;

// NcclAllReduce concatenates all gradients before it splits them into `num_packs` (cross_device_ops.py,
// _ConcatAndSplitPacker), so its packs are there when the backward pass is over; without packs, and with packs of some
// bytes across workers, each collective starts when its own gradients are ready.
bool TensorflowPlanner::packs_follow_backward() const {
  return mode_ == Mode::mirrored ? options_.num_packs > 0 : options_.bytes_per_pack == 0;
}

// In the order in which gradients come, which is the reverse of the variables' (cross_device_ops.py reverses them for
// that, CollectiveAllReduce._do_batch_all_reduce_dense). A pack is closed once it is larger than `bytes_per_pack`
// (cross_device_utils.py, group_by_size).
std::vector<TensorflowPlanner::Pack> TensorflowPlanner::packs() {
  std::vector<Pack> packs;
  const auto add = [&](std::int64_t parameters) {
    packs.push_back({.parameters = parameters, .reduced = builder_.event()});
  };
  if (packs_follow_backward()) {
    const std::int64_t count = mode_ == Mode::mirrored ? std::min(options_.num_packs, passes_.trained()) : 1;
    for (std::int64_t i = 0; i < count; ++i) add(passes_.trained() * (i + 1) / count - passes_.trained() * i / count);
    return packs;
  }
  std::vector<std::int64_t> tensors = passes_.gradient_tensors();
  std::ranges::reverse(tensors);
  const Bytes least{mode_ == Mode::mirrored ? 0 : options_.bytes_per_pack};
  for (const std::int64_t tensor : tensors) {
    if (packs.empty() || gradient_bytes(packs.back().parameters) > least || least.count == 0)
      add(tensor);
    else
      packs.back().parameters += tensor;
  }
  return packs;
}

void TensorflowPlanner::write_all_reduce(BlockWriter& block, const Pack& pack) {
  const Bytes bytes = gradient_bytes(pack.parameters);
  if (mode_ == Mode::mirrored && options_.cross_device_ops.value == "hierarchical-copy") {
    // Each device is the main one of its half for its share of the gradients: added up there, exchanged with the other
    // half, copied back (cross_device_utils.py, aggregate_gradients_using_hierarchical_copy).
    const Bytes share = sim::scaled(bytes, 2, passes_.replicas());
    block.communicate(collectives_, builder_.call(half_, CollectiveKind::reduce_scatter, bytes, Purpose::data));
    block.communicate(collectives_, builder_.call(pair_, CollectiveKind::all_reduce, share, Purpose::data), 0, {}, {});
    block.communicate(collectives_, builder_.call(half_, CollectiveKind::all_gather, bytes, Purpose::data), 0, {},
                      pack.reduced);
    return;
  }
  block.communicate(collectives_, builder_.call(replicas_, CollectiveKind::all_reduce, bytes, Purpose::data),
                    sim::set_of(sim::compute_stream), {}, pack.reduced);
}

void TensorflowPlanner::write_mirrored() {
  if (!several()) {
    sim::Program program = passes_.program("one replica");
    write_micro_batches(program, {});
    BlockWriter end = builder_.block("update variables", passes_.host().backward);
    passes_.write_update(end, passes_.trained());
    write_step_end(end);
    program.calls.push_back({.block = end.finish()});
    builder_.plan().programs.add(std::move(program));
    return;
  }
  collectives_ = builder_.stream("collectives");
  if (mode_ == Mode::mirrored && options_.cross_device_ops.value == "reduction-to-one-device")
    return write_star_programs();
  if (mode_ == Mode::mirrored && options_.cross_device_ops.value == "hierarchical-copy") {
    half_ = builder_.slot("half of the host");
    pair_ = builder_.slot("other half");
  }
  sim::Program program = passes_.program("all replicas");
  const std::vector<Pack> all = packs();
  const bool packed = mode_ != Mode::mirrored || options_.num_packs > 0;
  const auto copy = [&](BlockWriter& block, const char* name, std::int64_t parameters) {
    const sim::Kernel kernel = passes_.costs().memory_bound(name, Bytes{2 * gradient_bytes(parameters).count});
    if (packed) block.compute({&kernel, 1});
  };
  std::int64_t ready = 0;
  std::size_t next = 0;
  const auto launch_ready = [&](BlockWriter& block, std::int64_t parameters) {
    ready += parameters;
    for (; next < all.size() && ready >= all[next].parameters; ++next) {
      ready -= all[next].parameters;
      copy(block, "concatenate gradients", all[next].parameters);
      write_all_reduce(block, all[next]);
    }
  };
  write_micro_batches(program, packs_follow_backward() ? ReplicatedPasses::AfterGradient{} : launch_ready);

  BlockWriter end = builder_.block("update variables", passes_.host().backward);
  if (packed) end.memory(sim::MemoryPurpose::buffers, gradient_bytes(passes_.trained()));
  if (packs_follow_backward()) {
    copy(end, "concatenate gradients", passes_.trained());
    for (const Pack& pack : all) write_all_reduce(end, pack);
  }
  // Variables whose gradients have come are updated while later packs are on their way. One collective's pack is split
  // as a whole.
  if (mode_ == Mode::mirrored && packed) {
    for (const Pack& pack : all) end.wait_for(pack.reduced);
    copy(end, "split gradients", passes_.trained());
    passes_.write_update(end, passes_.trained());
  } else {
    for (const Pack& pack : all) {
      end.wait_for(pack.reduced);
      copy(end, "split gradients", pack.parameters);
      passes_.write_update(end, pack.parameters);
    }
  }
  if (packed) end.memory(sim::MemoryPurpose::buffers, -gradient_bytes(passes_.trained()));
  write_step_end(end);
  program.calls.push_back({.block = end.finish()});
  builder_.plan().programs.add(std::move(program));
}

// All gradients are copied to the first device, added up there, and copied back (ReductionToOneDevice).
void TensorflowPlanner::write_star(BlockWriter& block, bool centre) const {
  const Bytes bytes = gradient_bytes(passes_.trained());
  const auto call = [&](sim::SlotId slot, CollectiveKind kind) { return block.call(slot, kind, bytes, Purpose::data); };
  if (!centre) {
    block.blocking(collectives_, call(to_first_, CollectiveKind::send));
    block.blocking(collectives_, call(from_first_, CollectiveKind::receive));
    return;
  }
  const sim::Kernel add = passes_.costs().memory_bound("add gradients", Bytes{3 * bytes.count});
  for (const sim::SlotId from : from_devices_) {
    block.blocking(collectives_, call(from, CollectiveKind::receive));
    block.compute({&add, 1});
  }
  for (const sim::SlotId to : to_devices_) block.communicate(collectives_, call(to, CollectiveKind::send));
  block.wait_for(sim::set_of(collectives_));
}

void TensorflowPlanner::write_star_programs() {
  to_first_ = builder_.slot("first device");
  from_first_ = builder_.slot("from first device");
  for (std::int64_t i = 1; i < passes_.replicas(); ++i) {
    to_devices_.push_back(builder_.slot("device " + std::to_string(i)));
    from_devices_.push_back(builder_.slot("from device " + std::to_string(i)));
  }
  sim::Program program = passes_.program("first device");
  write_micro_batches(program, {});
  for (const bool centre : {true, false}) {
    program.name = centre ? "first device" : "other devices";
    BlockWriter end = builder_.block("update variables", passes_.host().backward);
    write_star(end, centre);
    passes_.write_update(end, passes_.trained());
    write_step_end(end);
    sim::Program whole = program;
    whole.calls.push_back({.block = end.finish()});
    builder_.plan().programs.add(std::move(whole));
  }
  auto& program_of = builder_.plan().program_of;
  program_of = sim::Table<sim::RankId, sim::ProgramId>(static_cast<std::size_t>(passes_.replicas()));
  for (std::uint32_t i = 1; i < program_of.size(); ++i) program_of[sim::RankId{i}] = sim::ProgramId{1};
}

void TensorflowPlanner::connect_collectives(sim::Plan& plan) const {
  const std::int64_t ranks = passes_.replicas();
  if (half_ != sim::SlotId{}) {
    const RankGrid halves({ranks / 2, 2});
    add_groups(plan.communicators, halves, {0}, half_);
    add_groups(plan.communicators, halves, {1}, pair_);
  }
  for (std::size_t i = 0; i < to_devices_.size(); ++i) {
    const sim::RankId first{0};
    const sim::RankId other{static_cast<std::uint32_t>(i + 1)};
    plan.communicators.add({other, first}, {to_first_, from_devices_[i]});
    plan.communicators.add({first, other}, {to_devices_[i], from_first_});
  }
}

// Each hop between workers is a remote procedure call over TCP, from one network adapter to the next; a ring crosses
// every host once. Inside a host its hops are copies between devices, as the network model has them.
void TensorflowPlanner::price_ring_over_grpc(sim::Plan& plan) const {
  if (!options_.over_grpc() || job_.cluster.nodes() == 1 || !several()) return;
  const topology::NodeType& node = job_.cluster.node();
  const sim::BytesPerSecond rate = sim::scaled(node.nic_rate, options_.grpc_efficiency);
  const std::int64_t ranks = passes_.replicas();
  for (std::size_t c = 0; c < plan.calls.size(); ++c) {
    const sim::Call& call = plan.calls[plan.calls.id(c)];
    if (call.slot != replicas_ || call.kind != CollectiveKind::all_reduce) continue;
    const Bytes crossing = sim::scaled(call.bytes, 2 * (ranks - 1), ranks);
    for (std::size_t row = 0; row < plan.costs.size(); ++row) {
      sim::CommunicationCost& cost = plan.costs[plan.costs.id(row)][c];
      cost.latency = 2 * (job_.cluster.nodes() - 1) * grpc_latency;  // two passes round the ring
      cost.duration = cost.latency + sim::time_for(crossing, rate);
      cost.wire_bytes = crossing;
    }
  }
}

}  // namespace trainyard::strategies
