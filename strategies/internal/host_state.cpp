#include "strategies/internal/host_state.hpp"

#include <array>

namespace trainyard::strategies {
namespace {

// Of the nominal rate of its memory, what a vectorised optimizer on all cores reaches: 2.57 s for 10e9 parameters of 30
// bytes on the two sockets of a DGX-2 with 256 GB/s (ZeRO-Offload, arXiv 2101.06840, table 4).
constexpr double update_efficiency = 0.456;
// Copies through pageable memory are staged by the driver: half of the rate or less (an estimate).
constexpr double pageable_share = 0.5;
// Launch and completion, as of other copies (an estimate).
constexpr sim::Duration latency = std::chrono::microseconds{10};

sim::BytesPerSecond shared(sim::BytesPerSecond rate, std::int64_t devices) {
  return sim::scaled(rate, 1.0 / static_cast<double>(devices));
}

}  // namespace

sim::BytesPerSecond host_update_rate(const topology::NodeType& node) {
  return sim::scaled(node.host_memory_rate, update_efficiency);
}

HostState::HostState(PlanBuilder& builder, const topology::Cluster& cluster, bool pinned) : builder_(builder) {
  const topology::NodeType& node = cluster.node();
  const std::int64_t sharing = (cluster.devices() + cluster.nodes() - 1) / cluster.nodes();
  out_.rate = in_.rate = pinned ? node.host_rate : sim::scaled(node.host_rate, pageable_share);
  optimizer_.rate = shared(host_update_rate(node), sharing);
  read_.rate = shared(node.nvme_read_rate, sharing);
  write_.rate = shared(node.nvme_write_rate, sharing);
}

void HostState::open() {
  opened_ = true;
  const auto make = [&](Way& way, const char* name) {
    way.stream = builder_.stream(name);
    way.slot = builder_.slot(name);
  };
  make(out_, "device to host");
  make(in_, "host to device");
  make(optimizer_, "host optimizer");
  make(read_, "drive to host");
  make(write_, "host to drive");
}

void HostState::issue(BlockWriter& block, const Way& way, sim::Bytes bytes, sim::StreamSet after,
                      std::optional<sim::EventRef> records) {
  if (bytes.count == 0 && !records) return;
  block.communicate(way.stream, builder_.call(way.slot, sim::CollectiveKind::broadcast, bytes, sim::Purpose::offload),
                    after, {}, records);
}

void HostState::connect(sim::Plan& plan, std::int64_t ranks) const {
  if (!opened_) return;
  for (const Way* way : {&out_, &in_, &optimizer_, &read_, &write_})
    for (std::int64_t i = 0; i < ranks; ++i)
      plan.communicators.add({sim::RankId{static_cast<std::uint32_t>(i)}}, {way->slot});
}

void HostState::price(sim::Plan& plan) const {
  if (!opened_) return;
  for (std::size_t c = 0; c < plan.calls.size(); ++c) {
    const sim::Call& call = plan.calls[plan.calls.id(c)];
    for (const Way* way : {&out_, &in_, &optimizer_, &read_, &write_}) {
      if (call.slot != way->slot) continue;
      for (std::size_t row = 0; row < plan.costs.size(); ++row) {
        sim::CommunicationCost& cost = plan.costs[plan.costs.id(row)][c];
        cost.latency = latency;
        cost.duration = latency + sim::time_for(call.bytes, way->rate);
      }
    }
  }
}

}  // namespace trainyard::strategies
