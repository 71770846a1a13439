// What a Cluster is inside: groups of like nodes, the fabric that joins them, and exceptions.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "topology/cluster.hpp"
#include "topology/internal/clos.hpp"
#include "topology/internal/detours.hpp"
#include "topology/internal/dragonfly.hpp"
#include "topology/internal/link_name.hpp"
#include "topology/internal/mesh.hpp"
#include "topology/internal/wiring.hpp"

namespace trainyard::topology {

// Nodes of one type. Links are numbered group by group and node by node, then come those of NICs, then the fabric's;
// the last bit of those of ports, NICs and cables between switches is the direction.
struct NodeGroup {
  NodeType type;
  std::int64_t nodes = 0;
  std::int64_t nics = 0;  // of a node; bundles where there are more than devices
  sim::BytesPerSecond nic_rate{};
  std::int64_t switches = 0;  // PCIe switches of a node; 0: the devices are below the host alone
  std::int64_t links_of_node = 0;
  std::int64_t first_node = 0;
  std::int64_t first_slot = 0;  // of devices, whether a rank drives them or not
  std::int64_t first_nic = 0;
  std::int64_t first_domain = 0;
  std::int64_t first_link = 0;
  std::optional<Mesh> mesh;
  std::optional<Wiring> wiring;
  std::map<std::int64_t, Wiring> rewired;  // nodes with broken wires
  std::map<std::int64_t, Detours> around;  // slices with broken links
};

class Layout {
 public:
  explicit Layout(const Cluster::Request& request);

  struct Place {
    std::size_t group = 0;
    std::int64_t node = 0;  // within the group
    std::int64_t position = 0;
  };
  Place place(DeviceId device) const;
  std::int64_t slot(const Place& place) const {
    return groups_[place.group].first_slot + place.node * groups_[place.group].type.devices + place.position;
  }
  std::int64_t nic(const Place& place) const;  // within the node
  std::int64_t domain(const Place& place) const;
  double speed(const Place& place) const;

  const FabricType& fabric() const { return fabric_; }
  const std::vector<NodeGroup>& groups() const { return groups_; }
  std::int64_t nodes() const { return groups_.back().first_node + groups_.back().nodes; }
  std::int64_t devices() const { return devices_; }

  void route(DeviceId from, DeviceId to, std::uint64_t connection, Route& route) const;

  std::int64_t link_count() const { return first_fabric_link_ + fabric_links(); }
  std::int64_t nic_link(std::int64_t nic, Direction direction) const {
    return first_nic_link_ + 2 * nic + (direction == Direction::out ? 0 : 1);
  }
  Link link(std::int64_t link) const;
  double health(std::int64_t link) const;
  std::string name_of(std::int64_t link) const;
  std::vector<std::int64_t> named(std::string_view name) const;
  double part_named(std::string_view name) const;
  std::string nearest(std::string_view name) const;
  bool can_bind(std::int64_t link) const;
  const std::optional<Cluster::Cut>& cut() const { return cut_; }

  const std::variant<Clos, Dragonfly>& switches() const { return switches_; }
  std::int64_t first_fabric_link() const { return first_fabric_link_; }
  Link healthy(std::int64_t link) const;  // as it would be without faults
  std::optional<std::int64_t> opposite(std::int64_t link) const;

 private:
  // Devices that fill nodes with so many each.
  struct Run {
    std::int64_t first_device = 0;
    std::int64_t first_index = 0;  // in the order in which nodes are filled
    std::int64_t each = 0;
  };

  void add_groups(const Cluster::Request& request);
  void place_devices(const Cluster::Request& request);
  void build_fabric();
  void apply_faults(const Cluster::Request& request);
  void break_links(const std::vector<std::int64_t>& broken);
  void find_cut(const Cluster::Request& request);
  std::optional<std::string> victim_of(std::int64_t link) const;
  std::optional<std::string> fabric_victim() const;

  std::int64_t fabric_links() const;
  std::size_t group_of_node(std::int64_t node) const;
  std::size_t group_of_nic(std::int64_t nic) const;
  std::size_t group_of_link(std::int64_t link) const;
  Link healthy_inside(const NodeGroup& group, std::int64_t link) const;
  std::vector<std::int64_t> named_inside(const LinkName& name) const;
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> forms() const;
  void route_inside(const NodeGroup& group, std::int64_t node, std::int64_t from, std::int64_t to, Route& route) const;
  void route_on_mesh(const NodeGroup& group, const Place& from, const Place& to, Route& route) const;
  void route_between(const Place& from, const Place& to, std::uint64_t hash, Route& route) const;

  FabricType fabric_;
  std::vector<NodeGroup> groups_;
  std::int64_t devices_ = 0;
  std::vector<Run> runs_;
  std::vector<std::uint32_t> order_;  // of nodes; empty: as numbered
  std::uint64_t seed_ = 1;
  std::int64_t first_nic_link_ = 0;
  std::int64_t first_fabric_link_ = 0;
  std::int64_t domains_ = 0;
  std::variant<Clos, Dragonfly> switches_;
  std::optional<Detours> around_;                        // routers of a dragonfly with broken links
  std::vector<std::pair<std::int64_t, double>> health_;  // of links, sorted
  std::vector<std::pair<std::int64_t, double>> slow_slots_;
  std::vector<std::pair<std::int64_t, double>> slow_nodes_;
  std::optional<Cluster::Cut> cut_;
};

}  // namespace trainyard::topology
