#include "topology/internal/dragonfly.hpp"

#include <algorithm>

#include "topology/internal/mixing.hpp"
#include "topology/internal/path.hpp"

namespace trainyard::topology {

Dragonfly::Dragonfly(const FabricType& fabric, std::int64_t nics, sim::BytesPerSecond cable)
    : ecmp_(fabric.routing == FabricType::Routing::ecmp),
      hosts_(fabric.hosts > 0 ? fabric.hosts : std::max<std::int64_t>(1, fabric.radix / 4)),
      group_routers_(fabric.group_routers > 0 ? fabric.group_routers : std::max<std::int64_t>(1, fabric.radix / 2)),
      cable_(cable) {
  const std::int64_t in_group = hosts_ * group_routers_;
  groups_ = (nics + in_group - 1) / in_group;
  // Balanced: a router has as many cables to other groups as it has NICs (Kim et al., section 3).
  global_links_ = fabric.global_links > 0
                      ? fabric.global_links
                      : std::max<std::int64_t>(1, in_group / std::max<std::int64_t>(1, groups_ - 1));
  width_ = std::min(global_links_, group_routers_);
  sim::ensure(groups_ <= 16384 && link_count() < std::int64_t{1} << 31U, "a dragonfly's links can be numbered");
}

std::int64_t Dragonfly::cables(std::int64_t bundle) const {
  return global_links_ / group_routers_ + (bundle < global_links_ % group_routers_ ? 1 : 0);
}

// The cables of a group end at its routers in turn.
std::int64_t Dragonfly::gateway(std::int64_t group, std::int64_t other, std::int64_t bundle) const {
  const std::int64_t neighbour = other < group ? other : other - 1;
  return group * group_routers_ + (neighbour * global_links_ + bundle) % group_routers_;
}

sim::BytesPerSecond Dragonfly::capacity(std::int64_t link) const {
  if (!is_global(link)) {
    const std::int64_t from = link / group_routers_ % group_routers_;
    return from == link % group_routers_ ? sim::BytesPerSecond{} : cable_;
  }
  const std::int64_t pair = (link - local_links()) / width_;
  if (pair / groups_ == pair % groups_) return {};
  return cable_ * cables((link - local_links()) % width_);
}

std::int64_t Dragonfly::opposite(std::int64_t link) const {
  if (!is_global(link)) {
    const std::int64_t from = link / group_routers_;
    const std::int64_t to = from / group_routers_ * group_routers_ + link % group_routers_;
    return local_link(to, from);
  }
  const std::int64_t pair = (link - local_links()) / width_;
  return global_link(pair % groups_, pair / groups_, (link - local_links()) % width_);
}

std::string Dragonfly::name_of(std::int64_t link) const {
  if (!is_global(link)) {
    const std::int64_t from = link / group_routers_;
    const std::int64_t to = from / group_routers_ * group_routers_ + link % group_routers_;
    return "router " + std::to_string(from) + " to router " + std::to_string(to);
  }
  const std::int64_t pair = (link - local_links()) / width_;
  return "group " + std::to_string(pair / groups_) + " to group " + std::to_string(pair % groups_) + " cable " +
         std::to_string((link - local_links()) % width_);
}

std::vector<std::int64_t> Dragonfly::named(const LinkName& name) const {
  const auto& n = name.numbers;
  if (name.form == "router # to router #" && n[0] != n[1] && n[0] < routers() && n[1] < routers() &&
      n[0] / group_routers_ == n[1] / group_routers_)
    return {local_link(n[0], n[1])};
  if (name.form == "group # to group # cable #" && n[0] != n[1] && n[0] < groups_ && n[1] < groups_ && n[2] < width_)
    return {global_link(n[0], n[1], n[2])};
  return {};
}

std::vector<std::pair<std::string, std::vector<std::int64_t>>> Dragonfly::forms() const {
  return {{"router # to router #", {routers(), routers()}}, {"group # to group # cable #", {groups_, groups_, width_}}};
}

void Dragonfly::for_each_link(
    const std::function<void(std::int64_t from, std::int64_t to, std::int64_t link)>& visit) const {
  for (std::int64_t from = 0; from < routers(); ++from) {
    for (std::int64_t i = 0; i < group_routers_; ++i) {
      const std::int64_t to = from / group_routers_ * group_routers_ + i;
      if (to != from) visit(from, to, local_link(from, to));
    }
  }
  for (std::int64_t from = 0; from < groups_; ++from)
    for (std::int64_t to = 0; to < groups_; ++to)
      for (std::int64_t bundle = 0; from != to && bundle < width_; ++bundle)
        visit(gateway(from, to, bundle), gateway(to, from, bundle), global_link(from, to, bundle));
}

bool Dragonfly::alive(std::int64_t link) const {
  return broken_.empty() || !std::binary_search(broken_.begin(), broken_.end(), link);
}

bool Dragonfly::route(std::int64_t from, std::int64_t to, std::uint64_t hash, std::uint32_t base, Route& route) const {
  const std::int64_t start = router_of(from);
  const std::int64_t end = router_of(to);
  const std::int64_t group = start / group_routers_;
  const std::int64_t other = end / group_routers_;
  if (group == other) {
    if (start != end && !alive(local_link(start, end))) return false;
    if (start != end) append(route, base, local_link(start, end));
    route.switches += start == end ? 1 : 2;
    return true;
  }
  const auto paths_of = [&](std::int64_t bundle) {
    const std::int64_t near = gateway(group, other, bundle);
    const std::int64_t far = gateway(other, group, bundle);
    const bool open = (start == near || alive(local_link(start, near))) && alive(global_link(group, other, bundle)) &&
                      (far == end || alive(local_link(far, end)));
    return open ? cables(bundle) : 0;
  };
  std::int64_t paths = 0;
  for (std::int64_t bundle = 0; bundle < width_; ++bundle) paths += paths_of(bundle);
  if (paths == 0) return false;
  std::int64_t chosen = ecmp_ ? pick(hash, paths) : 0;
  int most_switches = 0;
  for (std::int64_t bundle = 0; bundle < width_; ++bundle) {
    const std::int64_t here = paths_of(bundle);
    if (here == 0) continue;
    if (ecmp_ && chosen >= here) {
      chosen -= here;
      continue;
    }
    const std::int64_t part = ecmp_ ? 1 : here;
    const std::int64_t whole = ecmp_ ? 1 : paths;
    const std::int64_t near = gateway(group, other, bundle);
    const std::int64_t far = gateway(other, group, bundle);
    if (start != near) append(route, base, local_link(start, near), part, whole);
    append(route, base, global_link(group, other, bundle), part, whole);
    if (far != end) append(route, base, local_link(far, end), part, whole);
    most_switches = std::max(most_switches, 2 + (start != near ? 1 : 0) + (far != end ? 1 : 0));
    if (ecmp_) break;
  }
  route.switches += most_switches;
  return true;
}

}  // namespace trainyard::topology
