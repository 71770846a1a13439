#include "topology/cluster.hpp"

#include <algorithm>
#include <array>
#include <numeric>

#include "topology/internal/layout.hpp"
#include "topology/internal/mixing.hpp"

namespace trainyard::topology {
namespace {

constexpr std::array<std::string_view, 8> kind_names{"nvlink", "pcie", "ici", "nic", "spine", "core", "global", "dcn"};

// The shape of so many chips whose axes, the shortest first, are no longer than the pod's, with the least sum.
void find_shape(std::int64_t chips, std::size_t axes, const std::vector<std::int64_t>& pod,
                std::vector<std::int64_t>& shape, std::vector<std::int64_t>& best) {
  const std::int64_t least = shape.empty() ? 1 : shape.back();
  if (axes == 1) {
    if (chips < least || chips > pod.back()) return;
    shape.push_back(chips);
    const auto sum = [](const auto& extents) {
      return std::accumulate(extents.begin(), extents.end(), std::int64_t{0});
    };
    if (best.empty() || sum(shape) < sum(best)) best = shape;
    shape.pop_back();
    return;
  }
  for (std::int64_t extent = least; extent <= pod[shape.size()]; ++extent) {
    if (chips % extent != 0) continue;
    shape.push_back(extent);
    find_shape(chips / extent, axes - 1, pod, shape, best);
    shape.pop_back();
  }
}

}  // namespace

std::string_view to_string(LinkKind kind) { return kind_names.at(static_cast<std::size_t>(kind)); }

bool wires_join_all(const NodeType& node) { return Wiring(node.devices, node.wiring).connected(); }

std::vector<std::int64_t> usual_shape(const NodeType& node, std::int64_t chips) {
  std::vector<std::int64_t> pod = node.pod;
  std::sort(pod.begin(), pod.end());
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> best;
  if (!pod.empty()) find_shape(chips, pod.size(), pod, shape, best);
  return best;
}

std::vector<bool> wrapped_axes(const NodeType& node, const FabricType& fabric, const std::vector<std::int64_t>& shape) {
  const bool cubes = std::all_of(shape.begin(), shape.end(), [](std::int64_t extent) { return extent % 4 == 0; });
  const std::int64_t full = node.pod.empty() ? 0 : *std::min_element(node.pod.begin(), node.pod.end());
  std::vector<bool> wraps;
  for (const std::int64_t extent : shape) {
    bool wrap = node.wraparound == Wraparound::cubes ? cubes : extent == full;
    if (fabric.wraparound != FabricType::Torus::usual) wrap = fabric.wraparound == FabricType::Torus::always;
    wraps.push_back(wrap && extent > 1);
  }
  return wraps;
}

std::vector<std::int64_t> shuffled_nodes(std::int64_t nodes, std::uint64_t seed) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(nodes));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::uint64_t state = mix(seed);
  for (std::int64_t i = nodes - 1; i > 0; --i) {  // Fisher and Yates
    state = mix(state);
    std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(pick(state, i + 1))]);
  }
  return order;
}

Cluster::Cluster(const Request& request) : layout_(std::make_unique<Layout>(request)) {}

Cluster::Cluster(const NodeType& node, std::int64_t nodes, std::int64_t devices, const FabricType& fabric) {
  sim::ensure(devices > 0, "a cluster has the devices that it uses");
  Request request;
  request.groups = {{.node = node, .nodes = nodes}};
  request.devices = devices;
  request.fabric = fabric;
  layout_ = std::make_unique<Layout>(request);
}

Cluster::~Cluster() = default;
Cluster::Cluster(Cluster&&) noexcept = default;
Cluster& Cluster::operator=(Cluster&&) noexcept = default;

const FabricType& Cluster::fabric() const { return layout_->fabric(); }
std::int64_t Cluster::nodes() const { return layout_->nodes(); }
std::int64_t Cluster::devices() const { return layout_->devices(); }

std::size_t Cluster::node_types() const { return layout_->groups().size(); }
const NodeType& Cluster::node_type(std::size_t type) const { return layout_->groups().at(type).type; }
std::int64_t Cluster::nodes_of_type(std::size_t type) const { return layout_->groups().at(type).nodes; }
std::size_t Cluster::node_type_of(DeviceId device) const { return layout_->place(device).group; }

std::int64_t Cluster::node_of(DeviceId device) const {
  const Layout::Place place = layout_->place(device);
  return layout_->groups()[place.group].first_node + place.node;
}
std::int64_t Cluster::position_of(DeviceId device) const { return layout_->place(device).position; }
std::int64_t Cluster::domain_of(DeviceId device) const { return layout_->domain(layout_->place(device)); }
double Cluster::speed_of(DeviceId device) const { return layout_->speed(layout_->place(device)); }

std::int64_t Cluster::nic_of(DeviceId device) const { return layout_->nic(layout_->place(device)); }

LinkId Cluster::nic_link(DeviceId device, Direction direction) const {
  const Layout::Place place = layout_->place(device);
  const NodeGroup& group = layout_->groups()[place.group];
  const std::int64_t nic = group.first_nic + place.node * group.nics + layout_->nic(place);
  return LinkId{static_cast<std::uint32_t>(layout_->nic_link(nic, direction))};
}

std::int64_t Cluster::nics_per_node(std::size_t type) const { return layout_->groups().at(type).nics; }
sim::BytesPerSecond Cluster::nic_rate(std::size_t type) const { return layout_->groups().at(type).nic_rate; }

void Cluster::route(DeviceId from, DeviceId to, std::uint64_t connection, Route& route) const {
  layout_->route(from, to, connection, route);
}

Route Cluster::route(DeviceId from, DeviceId to, std::uint64_t connection) const {
  Route route;
  layout_->route(from, to, connection, route);
  return route;
}

std::size_t Cluster::link_count() const { return static_cast<std::size_t>(layout_->link_count()); }
Link Cluster::link(LinkId link) const { return layout_->link(static_cast<std::int64_t>(sim::index_of(link))); }
double Cluster::health_of(LinkId link) const { return layout_->health(static_cast<std::int64_t>(sim::index_of(link))); }
std::string Cluster::name_of(LinkId link) const {
  return layout_->name_of(static_cast<std::int64_t>(sim::index_of(link)));
}

std::optional<LinkId> Cluster::find_link(std::string_view name) const {
  const std::vector<std::int64_t> links = layout_->named(name);
  if (links.empty()) return std::nullopt;
  return LinkId{static_cast<std::uint32_t>(links.front())};
}

std::string Cluster::nearest_link(std::string_view name) const { return layout_->nearest(name); }

bool Cluster::can_bind(LinkId link) const { return layout_->can_bind(static_cast<std::int64_t>(sim::index_of(link))); }

std::optional<Cluster::Cut> Cluster::cut() const { return layout_->cut(); }

std::optional<Torus> Cluster::torus() const {
  for (const NodeGroup& group : layout_->groups())
    if (group.mesh) return group.mesh->torus();
  return std::nullopt;
}

std::vector<std::int64_t> Cluster::coordinates(DeviceId device) const {
  const Layout::Place place = layout_->place(device);
  const NodeGroup& group = layout_->groups()[place.group];
  std::vector<std::int64_t> result;
  for (std::size_t axis = 0; group.mesh && axis < group.mesh->axes(); ++axis)
    result.push_back(group.mesh->coordinate(layout_->slot(place) - group.first_slot, axis));
  return result;
}

std::optional<LinkId> Cluster::ici_link(DeviceId device, std::size_t axis, bool up) const {
  const Layout::Place place = layout_->place(device);
  const NodeGroup& group = layout_->groups()[place.group];
  if (!group.mesh || axis >= group.mesh->axes()) return std::nullopt;
  const std::int64_t link = group.mesh->link(layout_->slot(place) - group.first_slot, axis, up);
  if (!group.mesh->end_of(link)) return std::nullopt;
  return LinkId{static_cast<std::uint32_t>(group.first_link + link)};
}

std::int64_t Cluster::rings_among(std::span<const DeviceId> devices) const {
  if (devices.empty()) return 0;
  std::vector<std::int64_t> positions;
  const Layout::Place first = layout_->place(devices.front());
  for (const DeviceId device : devices) {
    const Layout::Place place = layout_->place(device);
    if (place.group != first.group || place.node != first.node) return 0;
    positions.push_back(place.position);
  }
  const NodeGroup& group = layout_->groups()[first.group];
  if (!group.wiring) return 0;
  const auto rewired = group.rewired.find(first.node);
  const Wiring& wiring = rewired == group.rewired.end() ? *group.wiring : rewired->second;
  return std::max<std::int64_t>(1, wiring.rings(positions));
}

}  // namespace trainyard::topology
