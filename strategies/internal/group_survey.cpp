#include "strategies/internal/group_survey.hpp"

#include <algorithm>

namespace trainyard::strategies {

using topology::Cluster;
using topology::DeviceId;

Placer::Placer(const Cluster& cluster) {
  const auto devices = static_cast<std::size_t>(cluster.devices());
  domain_of_.reserve(devices);
  nic_of_.reserve(devices);
  std::uint32_t most_nics = 1;
  for (std::size_t type = 0; type < cluster.node_types(); ++type)
    most_nics = std::max(most_nics, static_cast<std::uint32_t>(cluster.nics_per_node(type)));
  std::uint32_t domains = 0;
  std::uint32_t nics = 0;
  for (std::size_t i = 0; i < devices; ++i) {
    const DeviceId device{static_cast<std::uint32_t>(i)};
    domain_of_.push_back(static_cast<std::uint32_t>(cluster.domain_of(device)));
    nic_of_.push_back(static_cast<std::uint32_t>(cluster.node_of(device)) * most_nics +
                      static_cast<std::uint32_t>(cluster.nic_of(device)));
    domains = std::max(domains, domain_of_.back() + 1);
    nics = std::max(nics, nic_of_.back() + 1);
  }
  seen_domain_.resize(domains);
  seen_nic_.resize(nics);
}

void Placer::place(const sim::CommunicatorTable& table, const sim::Communicator& communicator, Placement& out) {
  ++turn_;
  out.devices.clear();
  out.domain_of.clear();
  out.domains.clear();
  out.size.clear();
  for (std::uint32_t i = 0; i < communicator.member_count; ++i) {
    const DeviceId device{static_cast<std::uint32_t>(sim::index_of(table.member(communicator, i)))};
    const std::uint32_t index = index_of(domain_of_[sim::index_of(device)], out);
    out.devices.push_back(device);
    out.domain_of.push_back(index);
    ++out.size[index];
  }
  out.most_per_domain = *std::ranges::max_element(out.size);
  find_rails(out);
}

std::uint32_t Placer::index_of(std::uint32_t domain, Placement& out) {
  Seen& seen = seen_domain_[domain];
  if (seen.turn == turn_) return seen.index;
  seen = {.turn = turn_, .index = static_cast<std::uint32_t>(out.domains.size())};
  out.domains.push_back(domain);
  out.size.push_back(0);
  return seen.index;
}

void Placer::find_rails(Placement& out) {
  const std::size_t domains = out.domains.size();
  out.most_rails = out.most_per_domain;
  out.by_rail.assign(domains * out.most_rails, DeviceId{});
  out.rails_of.assign(domains, 0);
  for (std::size_t i = 0; i < out.devices.size(); ++i) {
    Seen& seen = seen_nic_[nic_of_[sim::index_of(out.devices[i])]];
    if (seen.turn == turn_) continue;
    seen.turn = turn_;
    const std::uint32_t domain = out.domain_of[i];
    out.by_rail[domain * out.most_rails + out.rails_of[domain]++] = out.devices[i];
  }
  out.rails = *std::ranges::min_element(out.rails_of);
}

void append(const topology::Route& route, std::uint32_t hop, std::uint32_t weight, std::vector<LinkUse>& uses) {
  for (const topology::RouteLink& on : route.links)
    uses.push_back({.link = on.link, .numerator = on.numerator * weight, .denominator = on.denominator, .hop = hop});
}

bool is_pair(const sim::CommunicatorTable& table, const sim::Communicator& communicator) {
  return communicator.member_count == 2 && table.member_slot(communicator, 0) != table.member_slot(communicator, 1);
}

GroupShape Surveyor::shape_of(const sim::CommunicatorTable& table, const sim::Communicator& communicator) {
  const topology::NodeType& node = node_type();
  GroupShape shape{.members = communicator.member_count,
                   .nodes = static_cast<std::int64_t>(placement_.domains.size()),
                   .rails = placement_.rails,
                   .most_per_node = placement_.most_per_domain,
                   .link_rate = node.link_rate,
                   .rail_rate = cluster_.nic_rate(cluster_.node_type_of(placement_.devices.front()))};
  const sim::Duration per_switch = cluster_.fabric().switch_latency;
  if (is_pair(table, communicator)) {
    cluster_.route(placement_.devices.front(), placement_.devices.back(), 0, route_);
    append(route_, 0, 1, first_rail_);
    shape.switch_latency = per_switch * route_.switches;
    shape.link_latency = route_.latency - shape.switch_latency;
  } else if (placement_.domains.size() > 1) {
    int switches = 0;
    const std::size_t count = placement_.domains.size();
    for (std::size_t i = 0; i < count; ++i) {
      cluster_.route(placement_.on_rail(i, 0), placement_.on_rail((i + 1) % count, 0), 0, route_);
      append(route_, static_cast<std::uint32_t>(i), 1, first_rail_);
      switches = std::max(switches, route_.switches);
    }
    shape.switch_latency = per_switch * switches;
  }
  if (has_own_rings()) shape.rings = cluster_.rings_among(placement_.devices);
  if (torus_ && shape.members > 1) span_torus(shape);
  shape.sharp = cluster_.fabric().sharp;
  return shape;
}

namespace {

// Members lie as far apart all the way round: next to each other, or every so many chips.
bool goes_around(const std::vector<bool>& seen) {
  const auto members = static_cast<std::size_t>(std::ranges::count(seen, true));
  if (seen.size() % members != 0) return false;
  const std::size_t apart = seen.size() / members;
  const auto first = static_cast<std::size_t>(std::ranges::find(seen, true) - seen.begin());
  for (std::size_t at = first; at < seen.size(); at += apart)
    if (!seen[at]) return false;
  return true;
}

}  // namespace

// The box of chips that the members fill in each slice, if they do.
void Surveyor::span_torus(GroupShape& shape) {
  const std::size_t axes = torus_->shape.size();
  std::vector<std::vector<bool>> seen(axes);
  for (std::size_t axis = 0; axis < axes; ++axis) seen[axis].resize(static_cast<std::size_t>(torus_->shape[axis]));
  for (const DeviceId device : placement_.devices) {
    const std::vector<std::int64_t> at = cluster_.coordinates(device);
    for (std::size_t axis = 0; axis < axes; ++axis) seen[axis][static_cast<std::size_t>(at[axis])] = true;
  }
  std::int64_t filled = shape.nodes;
  for (std::size_t axis = 0; axis < axes; ++axis) {
    shape.torus.at(axis) = std::ranges::count(seen[axis], true);
    shape.wraps.at(axis) = torus_->wraps[axis] && goes_around(seen[axis]);
    filled *= shape.torus.at(axis);
  }
  if (filled == shape.members) return;
  shape.torus = {};
  shape.wraps = {};
}

}  // namespace trainyard::strategies
