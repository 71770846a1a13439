// A cluster: where its devices are, which links join them, and the routes between them.
//
// Nothing here is stored per device or per link: numbers of links follow from numbers of nodes, and what differs from
// its like (a broken cable, a slow node) is kept in short sorted lists. A million devices take a few kilobytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sim/table.hpp"
#include "topology/hardware.hpp"

namespace trainyard::topology {

enum class DeviceId : std::uint32_t {};
enum class LinkId : std::uint32_t {};

enum class LinkKind : std::uint8_t {
  nvlink,
  pcie,
  ici,
  nic,
  spine,   // above a leaf; inside a group of a dragonfly
  core,    // above a pod of a fat tree of three tiers
  global,  // between groups of a dragonfly
  dcn      // the data centre network of TPU hosts
};
std::string_view to_string(LinkKind kind);

enum class Direction : std::uint8_t { out, in };  // seen from a device

// One direction of a cable, or of a bundle of like cables over which a flow is spread evenly.
struct Link {
  LinkKind kind = LinkKind::nvlink;
  sim::BytesPerSecond capacity{};  // 0: there is none, as at the edge of a mesh, or it is broken; no route takes it
  sim::Duration latency{};
  bool operator==(const Link&) const = default;
};

// The share of a connection's bytes that crosses a link.
struct RouteLink {
  LinkId link{};
  std::uint32_t numerator = 1;
  std::uint32_t denominator = 1;
  bool operator==(const RouteLink&) const = default;
};

struct Route {
  std::vector<RouteLink> links;  // in the direction of travel; where paths part, side by side
  int switches = 0;              // of the fabric, on the longest path
  sim::Duration latency{};       // of links and switches, on the longest path
  bool inside_domain = false;    // over the scale-up network alone
};

// How TPU slices are shaped: devices are numbered with the first axis fastest, slice by slice.
struct Torus {
  std::vector<std::int64_t> shape;
  std::vector<bool> wraps;  // per axis: closed to a ring
  std::int64_t slices = 1;
};

// Whether the wiring of a cube mesh leads from every device to every other.
bool wires_join_all(const NodeType& node);

// Axes of a slice of so many chips, as near a cube as the pod of the node's chip allows; empty where none fits.
std::vector<std::int64_t> usual_shape(const NodeType& node, std::int64_t chips);

// Which axes of a slice are closed.
std::vector<bool> wrapped_axes(const NodeType& node, const FabricType& fabric, const std::vector<std::int64_t>& shape);

// 0 ... nodes-1 in an order that follows from the seed.
std::vector<std::int64_t> shuffled_nodes(std::int64_t nodes, std::uint64_t seed);

class Layout;

class Cluster {
 public:
  struct Group {
    NodeType node;
    std::int64_t nodes = 0;
  };
  // By name, as `name_of` gives it, or without its last word for both directions of a cable. A single cable can be
  // named where a bundle is simulated ("leaf 4 spine 2"). Broken in one direction is broken in both.
  struct LinkFault {
    std::string link;
    double capacity = 1;  // factor; 0: broken
  };
  // Devices are counted node by node here, whether a rank drives them or not.
  struct DeviceFault {
    std::int64_t device = 0;
    double speed = 1;
  };
  struct NodeFault {
    std::int64_t node = 0;
    double speed = 1;
  };
  // What is asked of a cluster. Nodes are numbered group by group.
  struct Request {
    std::vector<Group> groups;
    std::int64_t devices = 0;  // that take part, spread evenly over the nodes, a remainder on the first; 0: all
    FabricType fabric;
    std::vector<std::int64_t> placement;  // nodes in the order in which ranks fill them; empty: all, as numbered
    std::vector<LinkFault> link_faults;
    std::vector<DeviceFault> device_faults;
    std::vector<NodeFault> node_faults;
    std::uint64_t seed = 1;  // of ECMP
  };

  explicit Cluster(const Request& request);
  Cluster(const NodeType& node, std::int64_t nodes, std::int64_t devices, const FabricType& fabric);
  ~Cluster();
  Cluster(Cluster&&) noexcept;
  Cluster& operator=(Cluster&&) noexcept;
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  const FabricType& fabric() const;
  std::int64_t nodes() const;
  std::int64_t devices() const;  // that take part; rank r drives device r

  // Types of nodes, one per group.
  std::size_t node_types() const;
  const NodeType& node_type(std::size_t type) const;
  const NodeType& node() const { return node_type(0); }
  std::int64_t nodes_of_type(std::size_t type) const;
  std::size_t node_type_of(DeviceId device) const;

  std::int64_t node_of(DeviceId device) const;
  std::int64_t position_of(DeviceId device) const;  // within its node
  // The scale-up domain: the node, or for TPUs the slice.
  std::int64_t domain_of(DeviceId device) const;
  double speed_of(DeviceId device) const;  // share of its healthy speed

  // The node's NIC, or bundle of NICs where it has more NICs than devices, that serves the device.
  std::int64_t nic_of(DeviceId device) const;
  LinkId nic_link(DeviceId device, Direction direction) const;
  std::int64_t nics_per_node(std::size_t type = 0) const;    // NICs or bundles
  sim::BytesPerSecond nic_rate(std::size_t type = 0) const;  // of one of them, healthy

  // Over all shortest paths evenly, or with ECMP over the one that the hash picks for this of the pair's connections.
  // `route` is overwritten and its memory reused. Inside a cube mesh, devices without a cable between them meet through
  // a neighbour, as NCCL's NVB paths do.
  void route(DeviceId from, DeviceId to, std::uint64_t connection, Route& route) const;
  Route route(DeviceId from, DeviceId to, std::uint64_t connection = 0) const;

  std::size_t link_count() const;
  Link link(LinkId link) const;
  double health_of(LinkId link) const;     // factor on its capacity
  std::string name_of(LinkId link) const;  // e.g. "node 3 nic 1 out", "leaf 4 spine 2 up", "slice 0 chip 5 x+"
  std::optional<LinkId> find_link(std::string_view name) const;  // the bundle, for a cable in one
  std::string nearest_link(std::string_view name) const;         // a name that exists; empty where there is none
  // False: the links that feed it, or those that drain it, can never fill it, so it limits nobody by itself (a non-
  // blocking tier under adaptive routing). True where that is not certain.
  bool can_bind(LinkId link) const;

  // What a broken link cuts off, if any does; such a cluster has no route between some of its devices.
  struct Cut {
    std::size_t fault = 0;  // in Request::link_faults
    std::string victim;     // "node 3", "node 3 device 1"
  };
  std::optional<Cut> cut() const;

  // TPUs. Nothing where the devices are not on a torus or mesh.
  std::optional<Torus> torus() const;
  std::vector<std::int64_t> coordinates(DeviceId device) const;
  // The link that leaves the device along an axis, up or down; nothing at an edge.
  std::optional<LinkId> ici_link(DeviceId device, std::size_t axis, bool up) const;

  // Cube mesh: how many rings of one NVLink each, without a link in common, lead through these devices of one node; at
  // least 1, over other devices where there is none. Eight GPUs of DGX-1 have 6. 0: behind a switch, or of several
  // nodes.
  std::int64_t rings_among(std::span<const DeviceId> devices) const;

  const Layout& layout() const { return *layout_; }  // for this folder

 private:
  std::unique_ptr<const Layout> layout_;
};

}  // namespace trainyard::topology
