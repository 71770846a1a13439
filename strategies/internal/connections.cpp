#include "strategies/internal/connections.hpp"

#include <iterator>
#include <map>
#include <optional>
#include <set>

namespace trainyard::strategies {
namespace {

using sim::TrafficPattern;
using topology::DeviceId;

constexpr std::uint32_t none = 0xffffffff;

// The parent of a node in a balanced binary tree over 0..count-1 whose inner nodes are those with trailing zeros, and
// in the second tree, in which the leaves of the first are inner nodes (Sanders, Speck and Traff, ParCo 2009).
std::optional<std::uint32_t> first_tree_parent(std::uint32_t node, std::uint32_t count) {
  if (node == 0) return std::nullopt;
  const std::uint32_t bit = node & (~node + 1);
  const std::uint32_t up = (node ^ bit) | (bit << 1);
  return up < count ? up : node ^ bit;
}
std::optional<std::uint32_t> second_tree_parent(std::uint32_t node, std::uint32_t count) {
  if (count % 2 == 0) {
    const auto mirrored = first_tree_parent(count - 1 - node, count);
    return mirrored ? std::optional{count - 1 - *mirrored} : std::nullopt;
  }
  const auto shifted = first_tree_parent((node + count - 1) % count, count);
  return shifted ? std::optional{(*shifted + 1) % count} : std::nullopt;
}

}  // namespace

void Connections::connect(DeviceId from, DeviceId to, std::uint32_t connection, std::uint32_t hop,
                          std::uint32_t weight) {
  cluster_.route(from, to, connection, route_);
  append(route_, hop, weight, uses_);
}

// In and out of every member that has another in its domain.
void Connections::use_ports(std::uint32_t weight) {
  std::vector<std::size_t> first(placement().domains.size(), none);
  std::vector<std::size_t> last(placement().domains.size(), none);
  for (std::size_t i = 0; i < placement().devices.size(); ++i) {
    const std::uint32_t domain = placement().domain_of[i];
    if (first[domain] == none)
      first[domain] = i;
    else
      connect(placement().devices[last[domain]], placement().devices[i], 0, domain, weight);
    last[domain] = i;
  }
  for (std::size_t domain = 0; domain < first.size(); ++domain)
    if (first[domain] != last[domain])
      connect(placement().devices[last[domain]], placement().devices[first[domain]], 0,
              static_cast<std::uint32_t>(domain), weight);
}

void Connections::collect_ring() {
  const std::size_t count = placement().domains.size();
  if (count == 1) return use_ports(1);
  const std::uint32_t known = surveyor_.first_rail().empty() ? 0 : 1;
  if (known > 0) uses_ = surveyor_.first_rail();
  for (std::size_t i = 0; i < count; ++i)
    for (std::uint32_t rail = known; rail < placement().rails; ++rail)
      connect(placement().on_rail(i, rail), placement().on_rail((i + 1) % count, rail), rail,
              static_cast<std::uint32_t>(i));
  if (placement().most_per_domain > 1) use_ports(placement().rails);
}

void Connections::collect_tree() {
  const auto count = static_cast<std::uint32_t>(placement().domains.size());
  for (std::uint32_t node = 0; count > 1 && node < count; ++node) {
    for (const auto& parent : {first_tree_parent(node, count), second_tree_parent(node, count)}) {
      if (!parent) continue;
      for (std::uint32_t rail = 0; rail < placement().rails; ++rail) {
        connect(placement().on_rail(node, rail), placement().on_rail(*parent, rail), rail, 0);
        connect(placement().on_rail(*parent, rail), placement().on_rail(node, rail), rail, 0);
      }
    }
  }
  // Each of the two trees sends its half up and down the chain inside a domain.
  if (placement().most_per_domain > 1) use_ports(4 * placement().rails);
}

// A million connections cross a few thousand links: their shares are summed link by link at once.
void Connections::collect_pairs() {
  const std::size_t count = placement().devices.size();
  place_in_uses_.resize(cluster_.link_count(), none);
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t j = 0; j < count; ++j) {
      if (i == j) continue;
      cluster_.route(placement().devices[i], placement().devices[j], 0, route_);
      for (const topology::RouteLink& on : route_.links) {
        std::uint32_t& place = place_in_uses_[sim::index_of(on.link)];
        if (place == none || uses_[place].denominator != on.denominator) {
          place = static_cast<std::uint32_t>(uses_.size());
          uses_.push_back({.link = on.link, .numerator = 0, .denominator = on.denominator, .hop = 0});
        }
        uses_[place].numerator += on.numerator;
      }
    }
  }
  for (const LinkUse& use : uses_) place_in_uses_[sim::index_of(use.link)] = none;
}

// From every member to its neighbours among the members; on an axis that the group goes around, also from the last to
// the first. Where other chips lie between them, over the links of those.
void Connections::collect_torus() {
  if (!torus()) return use_ports(1);
  const std::size_t axes = torus()->shape.size();
  std::vector<std::set<std::int64_t>> places(axes);
  std::map<std::vector<std::int64_t>, DeviceId> members;
  for (const DeviceId device : placement().devices) {
    const std::vector<std::int64_t> at = cluster_.coordinates(device);
    for (std::size_t axis = 0; axis < axes; ++axis) places[axis].insert(at[axis]);
    members[place_of(device)] = device;
  }
  for (const DeviceId device : placement().devices) {
    const std::vector<std::int64_t> at = cluster_.coordinates(device);
    for (std::size_t axis = 0; axis < axes; ++axis) {
      const std::set<std::int64_t>& on = places[axis];
      if (on.size() == 1) continue;
      const std::int64_t span = *on.rbegin() - *on.begin() + 1;
      if (span != static_cast<std::int64_t>(on.size())) {
        connect_across_gaps(device, axis, on, members);
        continue;
      }
      const bool around = torus()->wraps[axis] && span == torus()->shape[axis];
      for (const bool up : {true, false}) {
        if (!around && at[axis] == (up ? *on.rbegin() : *on.begin())) continue;
        if (const auto link = cluster_.ici_link(device, axis, up)) uses_.push_back({.link = *link});
      }
    }
  }
  collect_rails();
}

// A device's coordinates and its slice.
std::vector<std::int64_t> Connections::place_of(DeviceId device) const {
  std::vector<std::int64_t> place = cluster_.coordinates(device);
  place.push_back(cluster_.domain_of(device));
  return place;
}

// To the next member up and the next one down the axis; around where it is closed.
void Connections::connect_across_gaps(DeviceId device, std::size_t axis, const std::set<std::int64_t>& places,
                                      const std::map<std::vector<std::int64_t>, DeviceId>& members) {
  std::vector<std::int64_t> at = place_of(device);
  const auto here = places.find(at[axis]);
  const bool around = torus()->wraps[axis];
  const auto reach = [&](bool exists, std::int64_t inside, std::int64_t at_other_end) {
    if (!exists && !around) return;
    at[axis] = exists ? inside : at_other_end;
    if (const auto there = members.find(at); there != members.end()) connect(device, there->second, 0, 0);
  };
  const auto above = std::next(here);
  reach(above != places.end(), above != places.end() ? *above : 0, *places.begin());
  const bool is_first = here == places.begin();
  reach(!is_first, is_first ? 0 : *std::prev(here), *places.rbegin());
}

void Connections::collect_rails() {
  const std::size_t count = placement().domains.size();
  for (std::size_t i = 0; count > 1 && i < count; ++i)
    for (std::uint32_t rail = 0; rail < placement().rails; ++rail)
      connect(placement().on_rail(i, rail), placement().on_rail((i + 1) % count, rail), rail, 0);
}

std::vector<LinkUse>& Connections::collect(const sim::Communicator& communicator, TrafficPattern pattern) {
  uses_.clear();
  add(communicator, pattern);
  return uses_;
}

void Connections::add(const sim::Communicator& communicator, TrafficPattern pattern) {
  switch (pattern) {
    case TrafficPattern::ring:
      // Rings over the links of devices without a switch are found, not routed: they have these links to themselves.
      if (surveyor_.has_own_rings()) return;
      return collect_ring();
    case TrafficPattern::tree:
      return collect_tree();
    case TrafficPattern::pairs:
      return collect_pairs();
    case TrafficPattern::pair:
      uses_ = surveyor_.first_rail();
      if (!uses_.empty()) return;
      return connect(placement().devices[0], placement().devices[communicator.member_count - 1], 0, 0);
    case TrafficPattern::ports:
      use_ports(1);
      return collect_rails();
    case TrafficPattern::torus:
      return collect_torus();
    case TrafficPattern::rails:
      return collect_rails();
  }
}

}  // namespace trainyard::strategies
