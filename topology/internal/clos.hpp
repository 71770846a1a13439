// Fat trees and rail-optimised fabrics, of one to three tiers, as arithmetic.
//
// A leaf has `half` NICs below and `spines` cables up, one to each spine; with three tiers the spines are those of its
// pod, and each of them has `cores` cables up. Where routing is adaptive, spines whose cables are alike are
// interchangeable: traffic is spread over them evenly, so one link stands for the cables of a leaf to all of them,
// which is exact. Adaptive routing follows the queues: where a cable is slow or broken, the others of the bundle carry
// more, and the bundle as much as its cables together. (Two leaves that lack different spines have fewer spines in
// common than cables each; that is not looked at.) ECMP needs every cable.
//
// Al-Fares, Loukissas, Vahdat, A Scalable, Commodity Data Center Network Architecture, SIGCOMM 2008.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "topology/cluster.hpp"
#include "topology/internal/link_name.hpp"

namespace trainyard::topology {

class Clos {
 public:
  // Like nodes, one after the other; NICs are numbered node by node.
  struct Block {
    std::int64_t nodes = 0;
    std::int64_t nics = 0;  // of a node
    std::int64_t first_node = 0;
    std::int64_t first_nic = 0;
  };
  struct Core {
    std::int64_t spine = 0;
    std::int64_t core = 0;
    auto operator<=>(const Core&) const = default;
  };

  // `cable` is the capacity of a NIC's cable, and of those between switches.
  Clos(const FabricType& fabric, std::vector<Block> blocks, sim::BytesPerSecond cable);

  // Links that are down, each with its opposite; sorted.
  void set_broken(std::vector<std::int64_t> broken);

  int tiers() const { return tiers_; }
  std::int64_t leaves() const { return leaves_; }
  std::int64_t pods() const { return pods_; }
  std::int64_t spines() const { return spines_; }
  std::int64_t cores() const { return cores_; }
  std::int64_t leaf_of(std::int64_t nic) const;
  std::int64_t pod_of(std::int64_t leaf) const;
  std::vector<std::int64_t> leaves_of(std::int64_t pod) const;
  void for_each_nic(std::int64_t leaf, const std::function<void(std::int64_t nic)>& visit) const;

  std::int64_t link_count() const { return leaf_links() + core_links(); }
  // The links carry a direction in their last bit: up is even.
  std::int64_t leaf_link(std::int64_t leaf, std::int64_t kind, bool up) const {
    return 2 * (leaf * spine_kinds() + kind) + (up ? 0 : 1);
  }
  std::int64_t core_link(std::int64_t pod, std::int64_t kind, bool up) const {
    return leaf_links() + 2 * (pod * core_kinds() + kind) + (up ? 0 : 1);
  }
  std::int64_t spine_kind_of(std::int64_t spine) const;
  std::int64_t first_core_kind(std::int64_t spine_kind) const {
    return first_core_kind_[static_cast<std::size_t>(spine_kind)];
  }
  std::int64_t core_kind_of(const Core& core) const;
  bool is_core_link(std::int64_t link) const { return link >= leaf_links(); }
  sim::BytesPerSecond capacity(std::int64_t link) const;
  std::string name_of(std::int64_t link) const;
  // The links of this name, which has words and numbers as they are here; without a last word, both directions.
  std::vector<std::int64_t> named(const LinkName& name) const;
  double part_named(const LinkName& name) const;  // of the cables of such a link
  // Forms of names, and how many of each number there are.
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> forms() const;

  // Between NICs of this fabric; adds links and switches.
  void route(std::int64_t from, std::int64_t to, std::uint64_t hash, std::uint32_t base, Route& route) const;
  std::int64_t leaf_above(std::int64_t link) const;          // the leaf of a link, or the first below it
  bool joined(std::int64_t leaf, std::int64_t other) const;  // there is a way between them

  using Capacity = std::function<sim::BytesPerSecond(std::int64_t)>;
  // Whether the NICs below a link, or the links of the leaves below a core link, can fill it. `nic` is the capacity of
  // a NIC in the direction of the link, `own` that of links of this fabric, faults included.
  bool can_bind(std::int64_t link, const Capacity& nic, const Capacity& own) const;

 private:
  struct Rails {  // of a block
    std::int64_t first_leaf = 0;
    std::int64_t first_pod = 0;
    std::int64_t units = 0;          // groups of `half` nodes
    std::int64_t pods_per_rail = 0;  // of `half` leaves each
  };
  struct CoreKind {
    std::int64_t spine_kind = 0;
    std::int64_t cores = 0;  // of each spine
    std::int64_t core = -1;  // the one that it is, if it is one
  };

  std::int64_t spine_kinds() const { return static_cast<std::int64_t>(spine_count_.size()); }
  std::int64_t core_kinds() const { return static_cast<std::int64_t>(core_kind_.size()); }
  std::int64_t leaf_links() const { return tiers_ > 1 ? 2 * leaves_ * spine_kinds() : 0; }
  std::int64_t core_links() const { return tiers_ > 2 ? 2 * pods_ * core_kinds() : 0; }
  std::int64_t width(const CoreKind& kind) const {
    return spine_count_[static_cast<std::size_t>(kind.spine_kind)] * kind.cores;
  }
  bool alive(std::int64_t link) const;
  void number_kinds();
  void route_over_spines(std::int64_t from, std::int64_t to, std::uint64_t hash, std::uint32_t base,
                         Route& route) const;
  void route_over_cores(std::int64_t from, std::int64_t to, std::uint64_t hash, std::uint32_t base, Route& route) const;
  std::int64_t spine_paths(std::int64_t from, std::int64_t to, std::int64_t kind) const;
  std::int64_t core_paths(std::int64_t from, std::int64_t to, std::int64_t kind) const;

  FabricType::Kind kind_;
  bool ecmp_ = false;
  bool has_spine_ = true;
  std::vector<Block> blocks_;
  std::vector<Rails> rails_;
  std::int64_t half_ = 1;
  std::int64_t spines_ = 1;
  std::int64_t cores_ = 1;
  std::int64_t leaves_ = 1;
  std::int64_t pods_ = 1;
  std::int64_t nics_ = 0;
  int tiers_ = 1;
  sim::BytesPerSecond above_leaf_{};
  sim::BytesPerSecond above_pod_{};
  std::vector<std::int64_t> spine_count_;      // per kind
  std::vector<CoreKind> core_kind_;            // by spine kind
  std::vector<std::int64_t> first_core_kind_;  // of each spine kind, and the end
  std::vector<std::int64_t> broken_;           // upward links of broken cables
  std::int64_t broken_paths_ = 0;
};

}  // namespace trainyard::topology
