// The cluster as a graph of devices and switches, and the routes between devices.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sim/table.hpp"
#include "topology/hardware.hpp"

namespace trainyard::topology {

enum class DeviceId : std::uint32_t {};
enum class LinkId : std::uint32_t {};

enum class LinkKind : std::uint8_t { nvlink, nic, spine };

// One direction of a cable, or of a bundle of like cables over which a flow is spread evenly.
struct Link {
  LinkKind kind = LinkKind::nvlink;
  sim::BytesPerSecond capacity{};
  sim::Duration latency{};
};

struct Route {
  std::vector<LinkId> links;  // in the direction of travel
  int switches = 0;           // of the fabric
  bool inside_node = false;
};

class Cluster {
 public:
  // `devices` of nodes x node.devices take part, spread evenly over the nodes, a remainder on the first ones; they are
  // numbered node by node.
  Cluster(const NodeType& node, std::int64_t nodes, std::int64_t devices, const FabricType& fabric);
  ~Cluster();
  Cluster(Cluster&&) noexcept;
  Cluster& operator=(Cluster&&) noexcept;
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  const NodeType& node() const { return node_; }
  const FabricType& fabric() const { return fabric_; }
  std::int64_t nodes() const { return nodes_; }
  std::int64_t devices() const { return static_cast<std::int64_t>(places_.size()); }

  std::int64_t node_of(DeviceId device) const { return places_[device].node; }
  std::int64_t position_of(DeviceId device) const { return places_[device].position; }  // within its node
  std::int64_t nic_of(DeviceId device) const;  // the node's NIC, or bundle of NICs, that serves the device
  std::int64_t nics_per_node() const;          // NICs, or bundles where there are more NICs than devices
  sim::BytesPerSecond nic_rate() const;        // of one such NIC or bundle

  // Shortest path; between nodes through each end's own NIC. Uplinks are bundles, so there is only one.
  Route route(DeviceId from, DeviceId to) const;

  const sim::Table<LinkId, Link>& links() const { return links_; }
  std::string name_of(LinkId link) const;  // e.g. "node 3 nic 1 out"

 private:
  struct Place {
    std::int64_t node = 0;
    std::int64_t position = 0;
  };
  struct Switches;  // the graph of the fabric's switches

  std::int64_t leaf_of(std::int64_t node, std::int64_t nic) const;

  NodeType node_;
  FabricType fabric_;
  std::int64_t nodes_ = 0;
  sim::Table<DeviceId, Place> places_;
  sim::Table<LinkId, Link> links_;
  std::uint32_t first_nic_link_ = 0;
  std::uint32_t first_fabric_link_ = 0;
  std::unique_ptr<Switches> switches_;
};

}  // namespace trainyard::topology
