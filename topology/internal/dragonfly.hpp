// A dragonfly: groups of routers, all to all inside a group, and cables between every two groups.
//
// Kim, Dally, Scott, Abts, Technology-Driven, Highly-Scalable Dragonfly Topology, ISCA 2008, with minimal routing: a
// path has one cable between groups, and at most one hop inside the group on each side. Adaptive routing spreads over
// all cables between the two groups.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "topology/cluster.hpp"
#include "topology/internal/link_name.hpp"

namespace trainyard::topology {

class Dragonfly {
 public:
  Dragonfly(const FabricType& fabric, std::int64_t nics, sim::BytesPerSecond cable);

  std::int64_t groups() const { return groups_; }
  std::int64_t routers() const { return groups_ * group_routers_; }
  sim::BytesPerSecond cable() const { return cable_; }
  std::int64_t router_of(std::int64_t nic) const { return nic / hosts_; }

  std::int64_t link_count() const { return local_links() + groups_ * groups_ * width_; }
  bool is_global(std::int64_t link) const { return link >= local_links(); }
  sim::BytesPerSecond capacity(std::int64_t link) const;
  std::int64_t opposite(std::int64_t link) const;
  std::string name_of(std::int64_t link) const;
  std::vector<std::int64_t> named(const LinkName& name) const;
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> forms() const;
  void for_each_link(const std::function<void(std::int64_t from, std::int64_t to, std::int64_t link)>& visit) const;

  void set_broken(std::vector<std::int64_t> broken) { broken_ = std::move(broken); }  // sorted, both directions
  // Adds links and switches. False, and nothing added, where broken cables leave no minimal path.
  bool route(std::int64_t from, std::int64_t to, std::uint64_t hash, std::uint32_t base, Route& route) const;

 private:
  std::int64_t local_links() const { return routers() * group_routers_; }
  std::int64_t local_link(std::int64_t from, std::int64_t to) const {
    return from * group_routers_ + to % group_routers_;
  }
  std::int64_t global_link(std::int64_t from, std::int64_t to, std::int64_t bundle) const {
    return local_links() + (from * groups_ + to) * width_ + bundle;
  }
  std::int64_t gateway(std::int64_t group, std::int64_t other, std::int64_t bundle) const;
  std::int64_t cables(std::int64_t bundle) const;
  bool alive(std::int64_t link) const;

  bool ecmp_ = false;
  std::int64_t hosts_ = 1;
  std::int64_t group_routers_ = 1;
  std::int64_t groups_ = 1;
  std::int64_t global_links_ = 1;
  std::int64_t width_ = 1;  // bundles between two groups: cables that end at the same routers are one
  sim::BytesPerSecond cable_{};
  std::vector<std::int64_t> broken_;
};

}  // namespace trainyard::topology
