#include "topology/internal/layout.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <utility>

#include "topology/internal/mixing.hpp"
#include "topology/internal/path.hpp"

namespace trainyard::topology {
namespace {

std::int64_t quotient_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// The value at `key`, or 1.
double find_factor(const std::vector<std::pair<std::int64_t, double>>& factors, std::int64_t key) {
  if (factors.empty()) return 1;
  const auto found = std::lower_bound(factors.begin(), factors.end(), std::pair{key, 0.0});
  return found != factors.end() && found->first == key ? found->second : 1;
}

// Sorted; of several factors for one key, the least holds.
void tidy(std::vector<std::pair<std::int64_t, double>>& factors) {
  std::sort(factors.begin(), factors.end());
  const auto same_key = [](const auto& a, const auto& b) { return a.first == b.first; };
  factors.erase(std::unique(factors.begin(), factors.end(), same_key), factors.end());
}

Torus torus_of(const NodeType& node, std::int64_t nodes, const FabricType& fabric) {
  const bool slices = fabric.kind == FabricType::Kind::ici;
  Torus torus{.shape = slices ? fabric.shape : std::vector<std::int64_t>{}, .wraps = {}, .slices = nodes};
  if (slices) torus.slices = fabric.slices;
  const std::int64_t chips = nodes * node.devices / torus.slices;
  if (torus.shape.empty()) torus.shape = usual_shape(node, chips);
  const std::int64_t product =
      std::accumulate(torus.shape.begin(), torus.shape.end(), std::int64_t{1}, std::multiplies<>{});
  sim::ensure(!torus.shape.empty() && product * torus.slices == nodes * node.devices, "slices hold all devices");
  torus.wraps = wrapped_axes(node, fabric, torus.shape);
  return torus;
}

bool is_fabric_of_slices(const FabricType& fabric) {
  return fabric.kind == FabricType::Kind::ici || fabric.kind == FabricType::Kind::dcn;
}

}  // namespace

Layout::Layout(const Cluster::Request& request)
    : fabric_(request.fabric), seed_(request.seed), switches_(Clos({}, {{}}, {})) {
  add_groups(request);
  place_devices(request);
  build_fabric();
  apply_faults(request);
  find_cut(request);
}

void Layout::add_groups(const Cluster::Request& request) {
  sim::ensure(!request.groups.empty(), "a cluster has nodes");
  NodeGroup next;
  for (const Cluster::Group& asked : request.groups) {
    sim::ensure(asked.nodes > 0 && asked.node.devices > 0 && asked.node.nics > 0, "nodes have devices and NICs");
    NodeGroup group = std::move(next);
    group.type = asked.node;
    group.nodes = asked.nodes;
    const NodeType& type = group.type;
    group.nics = std::min(type.nics, type.devices);
    group.nic_rate = type.nic_rate;
    if (type.nics > type.devices) group.nic_rate = {type.nic_rate.count * type.nics / type.devices};
    std::int64_t domains = asked.nodes;
    switch (type.interconnect) {
      case Interconnect::nvswitch:
        group.links_of_node = 2 * type.devices;
        break;
      case Interconnect::pcie:
        if (type.per_switch > 0 && type.per_switch < type.devices)
          group.switches = quotient_up(type.devices, type.per_switch);
        group.links_of_node = 2 * (type.devices + group.switches);
        break;
      case Interconnect::cube_mesh:
        group.links_of_node = 2 * static_cast<std::int64_t>(type.wiring.size());
        group.wiring.emplace(type.devices, type.wiring);
        sim::ensure(group.wiring->connected(), "wires join all devices of a node");
        break;
      case Interconnect::ici:
        group.mesh.emplace(torus_of(type, asked.nodes, fabric_), group.first_domain);
        group.links_of_node = type.devices * group.mesh->links_of_chip();
        domains = group.mesh->torus().slices;
        break;
    }
    next = NodeGroup{};
    next.first_node = group.first_node + group.nodes;
    next.first_slot = group.first_slot + group.nodes * type.devices;
    next.first_nic = group.first_nic + group.nodes * group.nics;
    next.first_domain = group.first_domain + domains;
    next.first_link = group.first_link + group.nodes * group.links_of_node;
    groups_.push_back(std::move(group));
  }
  domains_ = next.first_domain;
  first_nic_link_ = next.first_link;
  first_fabric_link_ = first_nic_link_ + 2 * next.first_nic;
}

// As many on every node as it has, up to a level; where the level does not use up all devices, one more on the first
// nodes that have one.
void Layout::place_devices(const Cluster::Request& request) {
  for (const std::int64_t node : request.placement) {
    sim::ensure(node >= 0 && node < nodes(), "ranks are placed on nodes of the cluster");
    order_.push_back(static_cast<std::uint32_t>(node));
  }
  const std::int64_t used = order_.empty() ? nodes() : static_cast<std::int64_t>(order_.size());
  const auto capacity = [&](std::int64_t index) {
    const std::int64_t node = order_.empty() ? index : std::int64_t{order_[static_cast<std::size_t>(index)]};
    return groups_[group_of_node(node)].type.devices;
  };
  std::map<std::int64_t, std::int64_t> nodes_with;  // by number of devices
  if (order_.empty()) {
    for (const NodeGroup& group : groups_) nodes_with[group.type.devices] += group.nodes;
  } else {
    for (std::int64_t i = 0; i < used; ++i) ++nodes_with[capacity(i)];
  }
  std::int64_t all = 0;
  for (const auto& [devices, count] : nodes_with) all += devices * count;
  devices_ = request.devices == 0 ? all : request.devices;
  sim::ensure(devices_ > 0 && devices_ <= all, "a cluster has the devices that it uses");
  std::int64_t level = 0;
  std::int64_t left = devices_;
  std::int64_t larger = used;  // nodes with more devices than the level
  for (const auto& [devices, count] : nodes_with) {
    const std::int64_t rise = std::min(devices - level, left / larger);
    level += rise;
    left -= rise * larger;
    if (level < devices) break;
    larger -= count;
  }
  const auto add_run = [&](std::int64_t device, std::int64_t index, std::int64_t each) {
    if (runs_.empty() || runs_.back().each != each)
      runs_.push_back({.first_device = device, .first_index = index, .each = each});
  };
  std::int64_t device = 0;
  for (std::int64_t index = 0; index < used;) {
    std::int64_t count = 1;  // of nodes that are alike
    if (order_.empty()) {
      const NodeGroup& group = groups_[group_of_node(index)];
      count = group.first_node + group.nodes - index;
    }
    const bool more = capacity(index) > level && left > 0;
    if (more) count = std::min(count, left);
    const std::int64_t each = std::min(capacity(index), level) + (more ? 1 : 0);
    if (more) left -= count;
    if (each > 0) add_run(device, index, each);
    device += count * each;
    index += count;
  }
}

void Layout::build_fabric() {
  sim::BytesPerSecond fastest{};
  std::vector<Clos::Block> blocks;
  for (const NodeGroup& group : groups_) {
    fastest = std::max(fastest, group.nic_rate);
    blocks.push_back(
        {.nodes = group.nodes, .nics = group.nics, .first_node = group.first_node, .first_nic = group.first_nic});
  }
  const std::int64_t nics = groups_.back().first_nic + groups_.back().nodes * groups_.back().nics;
  if (fabric_.kind == FabricType::Kind::dragonfly) {
    switches_ = Dragonfly(fabric_, nics, fastest);
  } else {
    switches_ = Clos(fabric_, std::move(blocks), fastest);
  }
  sim::ensure(link_count() < std::int64_t{1} << 32U, "links can be numbered");
}

void Layout::apply_faults(const Cluster::Request& request) {
  std::vector<std::int64_t> broken;
  std::map<std::int64_t, std::map<std::string, double>> lost;  // of each bundle, by its cables
  const auto lose = [&](std::int64_t link, const Cluster::LinkFault& fault, double part) {
    LinkName cable = parse_link_name(fault.link);
    std::string key;
    for (const std::int64_t number : cable.numbers) key += std::to_string(number) + " ";
    double& loss = lost[link].try_emplace(key, 0.0).first->second;
    loss = std::max(loss, part * (1 - fault.capacity));
  };
  for (const Cluster::LinkFault& fault : request.link_faults) {
    if (fault.capacity == 1) continue;
    const std::vector<std::int64_t> links = named(fault.link);
    sim::ensure(!links.empty(), "a faulty link exists");
    const double part = part_named(fault.link);
    for (const std::int64_t link : links) {
      if (part < 1) {  // one cable of a bundle
        lose(link, fault, part);
        if (fault.capacity == 0)
          if (const auto back = opposite(link)) lose(*back, fault, part);
        continue;
      }
      health_.emplace_back(link, fault.capacity);
      if (fault.capacity > 0) continue;
      broken.push_back(link);
      if (const auto back = opposite(link)) {
        health_.emplace_back(*back, 0.0);
        broken.push_back(*back);
      }
    }
  }
  for (const auto& [link, cables] : lost) {
    double left = 1;
    for (const auto& [name, loss] : cables) left -= loss;
    if (left < 1e-9) broken.push_back(link);
    health_.emplace_back(link, left < 1e-9 ? 0.0 : left);
  }
  tidy(health_);
  std::sort(broken.begin(), broken.end());
  broken.erase(std::unique(broken.begin(), broken.end()), broken.end());
  if (!broken.empty()) break_links(broken);
  for (const Cluster::DeviceFault& fault : request.device_faults) slow_slots_.emplace_back(fault.device, fault.speed);
  for (const Cluster::NodeFault& fault : request.node_faults) slow_nodes_.emplace_back(fault.node, fault.speed);
  tidy(slow_slots_);
  tidy(slow_nodes_);
}

void Layout::break_links(const std::vector<std::int64_t>& broken) {
  std::vector<std::int64_t> of_fabric;
  std::map<std::size_t, std::vector<std::int64_t>> of_group;
  for (const std::int64_t link : broken) {
    if (link >= first_fabric_link_)
      of_fabric.push_back(link - first_fabric_link_);
    else if (link < first_nic_link_)
      of_group[group_of_link(link)].push_back(link);
  }
  if (auto* clos = std::get_if<Clos>(&switches_)) {
    std::erase_if(of_fabric, [](std::int64_t link) { return link % 2 != 0; });
    clos->set_broken(std::move(of_fabric));
  } else if (!of_fabric.empty()) {
    auto& dragonfly = std::get<Dragonfly>(switches_);
    around_.emplace(static_cast<std::size_t>(dragonfly.routers()));
    dragonfly.for_each_link([&](std::int64_t from, std::int64_t to, std::int64_t link) {
      if (!std::binary_search(of_fabric.begin(), of_fabric.end(), link)) around_->add(from, to, link);
    });
    dragonfly.set_broken(std::move(of_fabric));
  }
  for (auto& [index, links] : of_group) {
    NodeGroup& group = groups_[index];
    for (std::int64_t& link : links) link -= group.first_link;
    std::map<std::int64_t, std::vector<std::int64_t>> wires;  // by node
    std::map<std::int64_t, bool> slices;
    for (const std::int64_t link : links) {
      if (group.wiring) wires[link / group.links_of_node].push_back(link % group.links_of_node / 2);
      if (group.mesh) slices[link / group.mesh->links_of_chip() / group.mesh->chips()] = true;
    }
    for (const auto& [node, of_node] : wires)
      group.rewired.emplace(node, Wiring(group.type.devices, group.type.wiring, of_node));
    for (const auto& entry : slices) {
      const std::int64_t first = entry.first * group.mesh->chips() * group.mesh->links_of_chip();
      Detours graph(static_cast<std::size_t>(group.mesh->chips()));
      for (std::int64_t i = 0; i < group.mesh->chips() * group.mesh->links_of_chip(); ++i) {
        const auto end = group.mesh->end_of(first + i);
        if (end && !std::binary_search(links.begin(), links.end(), first + i))
          graph.add(i / group.mesh->links_of_chip(), *end % group.mesh->chips(), first + i);
      }
      group.around.emplace(entry.first, std::move(graph));
    }
    if (group.mesh) group.mesh->set_broken(std::move(links));
  }
}

// The share of a link's cables that a name means: adaptive routing follows the queues, so a bundle carries what its
// cables carry together, and one of them less is that much less.
double Layout::part_named(std::string_view name) const {
  const Clos* clos = std::get_if<Clos>(&switches_);
  return clos == nullptr ? 1.0 : clos->part_named(parse_link_name(name));
}

void Layout::find_cut(const Cluster::Request& request) {
  std::optional<std::size_t> last_of_fabric;
  for (std::size_t i = 0; i < request.link_faults.size() && !cut_; ++i) {
    if (request.link_faults[i].capacity > 0) continue;
    for (const std::int64_t link : named(request.link_faults[i].link)) {
      if (link >= first_fabric_link_) last_of_fabric = i;
      const std::optional<std::string> victim = victim_of(link);
      if (victim && !cut_) cut_ = Cluster::Cut{.fault = i, .victim = *victim};
    }
  }
  if (cut_ || !last_of_fabric) return;
  if (const std::optional<std::string> victim = fabric_victim())
    cut_ = Cluster::Cut{.fault = *last_of_fabric, .victim = *victim};
}

// What a broken link of a node cuts off.
std::optional<std::string> Layout::victim_of(std::int64_t link) const {
  if (link >= first_fabric_link_) return std::nullopt;
  if (link >= first_nic_link_) {
    if (domains_ == 1) return std::nullopt;
    const std::int64_t nic = (link - first_nic_link_) / 2;
    const NodeGroup& group = groups_[group_of_nic(nic)];
    return "the devices of node " + std::to_string(group.first_node + (nic - group.first_nic) / group.nics) +
           " that use this NIC";
  }
  const NodeGroup& group = groups_[group_of_link(link)];
  const std::int64_t index = link - group.first_link;
  const std::int64_t node = index / group.links_of_node;
  const std::string name = "node " + std::to_string(group.first_node + node);
  const std::int64_t of_node = index % group.links_of_node / 2;
  switch (group.type.interconnect) {
    case Interconnect::nvswitch:
    case Interconnect::pcie:
      if (group.type.devices == 1 && domains_ == 1) return std::nullopt;
      if (of_node < group.type.devices) return name + " device " + std::to_string(of_node);
      return "the devices below " + name + " switch " + std::to_string(of_node - group.type.devices);
    case Interconnect::cube_mesh:
      if (group.rewired.at(node).connected()) return std::nullopt;
      return "devices of " + name;
    case Interconnect::ici: {
      const std::int64_t slice = index / group.mesh->links_of_chip() / group.mesh->chips();
      const auto lost = group.around.at(slice).unreachable(0);
      if (!lost) return std::nullopt;
      return "slice " + std::to_string(group.mesh->first_slice() + slice) + " chip " + std::to_string(*lost);
    }
  }
  return std::nullopt;
}

std::optional<std::string> Layout::fabric_victim() const {
  if (std::holds_alternative<Dragonfly>(switches_)) {
    const auto lost = around_->unreachable(0);
    if (!lost) return std::nullopt;
    return "the nodes below router " + std::to_string(*lost);
  }
  const Clos& clos = std::get<Clos>(switches_);
  // Only what has lost something can have nothing left; one leaf stands for all that have not.
  std::vector<std::int64_t> leaves;
  for (const auto& [link, factor] : health_) {
    if (factor > 0 || link < first_fabric_link_) continue;
    const std::int64_t leaf = clos.leaf_above(link - first_fabric_link_);
    if (leaves.empty() || leaves.back() != leaf) leaves.push_back(leaf);
  }
  std::sort(leaves.begin(), leaves.end());
  leaves.erase(std::unique(leaves.begin(), leaves.end()), leaves.end());
  const std::size_t damaged = leaves.size();
  std::vector<std::int64_t> pods;
  for (const std::int64_t leaf : leaves) pods.push_back(clos.pod_of(leaf));
  // A healthy leaf, and one of a healthy pod.
  for (std::int64_t leaf = 0; leaf < clos.leaves(); ++leaf) {
    if (std::binary_search(leaves.begin(), leaves.begin() + static_cast<std::ptrdiff_t>(damaged), leaf)) continue;
    leaves.push_back(leaf);
    break;
  }
  for (std::int64_t pod = 0; pod < clos.pods(); ++pod) {
    if (std::find(pods.begin(), pods.end(), pod) != pods.end()) continue;
    leaves.push_back(clos.leaves_of(pod).front());
    break;
  }
  for (std::size_t i = 0; i < damaged; ++i)
    for (std::size_t j = 0; j < leaves.size(); ++j)
      if (!clos.joined(leaves[i], leaves[j])) return "the nodes below leaf " + std::to_string(leaves[i]);
  return std::nullopt;
}

std::size_t Layout::group_of_node(std::int64_t node) const {
  std::size_t i = groups_.size() - 1;
  while (node < groups_[i].first_node) --i;
  return i;
}

std::size_t Layout::group_of_nic(std::int64_t nic) const {
  std::size_t i = groups_.size() - 1;
  while (nic < groups_[i].first_nic) --i;
  return i;
}

std::size_t Layout::group_of_link(std::int64_t link) const {
  std::size_t i = groups_.size() - 1;
  while (link < groups_[i].first_link) --i;
  return i;
}

Layout::Place Layout::place(DeviceId id) const {
  const auto device = static_cast<std::int64_t>(sim::index_of(id));
  sim::ensure(device < devices_, "a device is one of the cluster");
  std::size_t i = runs_.size() - 1;
  if (runs_.size() > 4) {
    const auto after = std::upper_bound(runs_.begin(), runs_.end(), device,
                                        [](std::int64_t value, const Run& run) { return value < run.first_device; });
    i = static_cast<std::size_t>(after - runs_.begin()) - 1;
  } else {
    while (device < runs_[i].first_device) --i;
  }
  const Run& run = runs_[i];
  const auto offset = static_cast<std::uint32_t>(device - run.first_device);  // 32-bit divisions take half the time
  const auto each = static_cast<std::uint32_t>(run.each);
  const std::int64_t index = run.first_index + offset / each;
  const std::int64_t node = order_.empty() ? index : std::int64_t{order_[static_cast<std::size_t>(index)]};
  const std::size_t group = groups_.size() == 1 ? 0 : group_of_node(node);
  return {.group = group, .node = node - groups_[group].first_node, .position = offset % each};
}

std::int64_t Layout::nic(const Place& place) const {
  const NodeGroup& group = groups_[place.group];
  if (group.nics == group.type.devices) return place.position;
  return place.position * group.nics / group.type.devices;
}

std::int64_t Layout::domain(const Place& place) const {
  const NodeGroup& group = groups_[place.group];
  if (!group.mesh) return group.first_domain + place.node;
  return group.first_domain + (slot(place) - group.first_slot) / group.mesh->chips();
}

double Layout::speed(const Place& place) const {
  return std::min(find_factor(slow_slots_, slot(place)),
                  find_factor(slow_nodes_, groups_[place.group].first_node + place.node));
}

void Layout::route(DeviceId from, DeviceId to, std::uint64_t connection, Route& route) const {
  route.links.clear();
  route.switches = 0;
  route.latency = {};
  route.inside_domain = true;
  if (from == to) return;
  const Place start = place(from);
  const Place end = place(to);
  const NodeGroup& group = groups_[start.group];
  if (start.group == end.group && group.mesh && domain(start) == domain(end))
    return route_on_mesh(group, start, end, route);
  if (start.group == end.group && !group.mesh && start.node == end.node)
    return route_inside(group, start.node, start.position, end.position, route);
  route.inside_domain = false;
  const std::uint64_t hash = fabric_.routing == FabricType::Routing::adaptive
                                 ? 0
                                 : mix(mix(mix(mix(seed_) ^ sim::index_of(from)) ^ sim::index_of(to)) ^ connection);
  route_between(start, end, hash, route);
}

void Layout::route_inside(const NodeGroup& group, std::int64_t node, std::int64_t from, std::int64_t to,
                          Route& route) const {
  const std::size_t before = route.links.size();
  const auto base = static_cast<std::uint32_t>(group.first_link + node * group.links_of_node);
  if (group.wiring) {
    const auto rewired = group.rewired.empty() ? group.rewired.end() : group.rewired.find(node);
    const Wiring& wiring = rewired == group.rewired.end() ? *group.wiring : rewired->second;
    for (const std::int64_t link : wiring.path(from, to)) append(route, base, link);
  } else {
    append(route, base, 2 * from);
    const std::int64_t below = group.type.per_switch;
    if (group.switches > 0 && from / below != to / below) {
      append(route, base, 2 * (group.type.devices + from / below));
      append(route, base, 2 * (group.type.devices + to / below) + 1);
    }
    append(route, base, 2 * to + 1);
  }
  route.latency += group.type.link_latency * static_cast<std::int64_t>(route.links.size() - before);
}

void Layout::route_on_mesh(const NodeGroup& group, const Place& from, const Place& to, Route& route) const {
  const std::int64_t start = slot(from) - group.first_slot;
  const std::int64_t end = slot(to) - group.first_slot;
  const auto base = static_cast<std::uint32_t>(group.first_link);
  if (group.mesh->route(start, end, base, route)) {
    route.latency += group.type.link_latency * group.mesh->distance(start, end);
    return;
  }
  const std::int64_t chips = group.mesh->chips();
  const auto path = group.around.at(start / chips).path(start % chips, end % chips);
  sim::ensure(path.has_value(), "links of a slice lead from any chip to any other");
  for (const std::int64_t link : *path) append(route, base, link);
  route.latency += group.type.link_latency * static_cast<std::int64_t>(path->size());
}

void Layout::route_between(const Place& from, const Place& to, std::uint64_t hash, Route& route) const {
  const NodeGroup& start = groups_[from.group];
  const NodeGroup& end = groups_[to.group];
  std::int64_t nic_out = nic(from);
  const std::int64_t nic_in = nic(to);
  std::int64_t sender = from.position;
  if (!fabric_.spine && fabric_.kind == FabricType::Kind::rail_optimized && nic_out != nic_in) {
    // Another device of the node, the first on the rail of the destination, passes it on (NCCL's PXN).
    sender = quotient_up(nic_in * start.type.devices, start.nics);
    route_inside(start, from.node, from.position, sender, route);
    nic_out = nic_in;
  }
  if (start.type.interconnect == Interconnect::pcie) {
    append(route, static_cast<std::uint32_t>(start.first_link + from.node * start.links_of_node), 2 * sender);
    route.latency += start.type.link_latency;
  }
  const std::int64_t first = start.first_nic + from.node * start.nics + nic_out;
  const std::int64_t last = end.first_nic + to.node * end.nics + nic_in;
  append(route, 0, nic_link(first, Direction::out));
  const auto base = static_cast<std::uint32_t>(first_fabric_link_);
  if (const auto* clos = std::get_if<Clos>(&switches_)) {
    clos->route(first, last, hash, base, route);
  } else if (const auto& dragonfly = std::get<Dragonfly>(switches_); !dragonfly.route(first, last, hash, base, route)) {
    const auto path = around_->path(dragonfly.router_of(first), dragonfly.router_of(last));
    sim::ensure(path.has_value(), "links of a dragonfly lead from any router to any other");
    for (const std::int64_t link : *path) append(route, base, link);
    route.switches += static_cast<int>(path->size()) + 1;
  }
  append(route, 0, nic_link(last, Direction::in));
  // The adapters' own latency is counted half at each end.
  route.latency += start.type.nic_latency / 2 + end.type.nic_latency / 2 + fabric_.switch_latency * route.switches;
  if (end.type.interconnect == Interconnect::pcie) {
    append(route, static_cast<std::uint32_t>(end.first_link + to.node * end.links_of_node), 2 * to.position + 1);
    route.latency += end.type.link_latency;
  }
}

std::int64_t Layout::fabric_links() const {
  return std::visit([](const auto& switches) { return switches.link_count(); }, switches_);
}

Link Layout::healthy_inside(const NodeGroup& group, std::int64_t link) const {
  const NodeType& type = group.type;
  Link result{.kind = LinkKind::nvlink, .capacity = type.link_rate, .latency = type.link_latency};
  switch (type.interconnect) {
    case Interconnect::nvswitch:
      break;
    case Interconnect::pcie:
      result.kind = LinkKind::pcie;
      break;
    case Interconnect::cube_mesh:
      result.capacity = type.link_rate * type.wiring[static_cast<std::size_t>(link % group.links_of_node / 2)].width;
      break;
    case Interconnect::ici:
      result.kind = LinkKind::ici;
      if (!group.mesh->end_of(link)) result.capacity = {};
      break;
  }
  return result;
}

Link Layout::healthy(std::int64_t link) const {
  if (link < first_nic_link_) {
    const NodeGroup& group = groups_[group_of_link(link)];
    return healthy_inside(group, link - group.first_link);
  }
  if (link < first_fabric_link_) {
    const NodeGroup& group = groups_[group_of_nic((link - first_nic_link_) / 2)];
    return {.kind = group.mesh ? LinkKind::dcn : LinkKind::nic,
            .capacity = group.nic_rate,
            .latency = group.type.nic_latency / 2};
  }
  const std::int64_t index = link - first_fabric_link_;
  Link result{.kind = LinkKind::spine, .capacity = {}, .latency = {}};
  if (const auto* clos = std::get_if<Clos>(&switches_)) {
    result.capacity = clos->capacity(index);
    if (clos->is_core_link(index)) result.kind = LinkKind::core;
    if (is_fabric_of_slices(fabric_)) result.kind = LinkKind::dcn;
  } else {
    const auto& dragonfly = std::get<Dragonfly>(switches_);
    result.capacity = dragonfly.capacity(index);
    if (dragonfly.is_global(index)) result.kind = LinkKind::global;
  }
  return result;
}

double Layout::health(std::int64_t link) const { return find_factor(health_, link); }

Link Layout::link(std::int64_t link) const {
  sim::ensure(link < link_count(), "a link is one of the cluster");
  Link result = healthy(link);
  const double factor = health(link);
  if (factor == 0)
    result.capacity = {};
  else if (factor != 1 && result.capacity.count > 0)
    result.capacity = sim::scaled(result.capacity, factor);
  return result;
}

std::optional<std::int64_t> Layout::opposite(std::int64_t link) const {
  if (link < first_nic_link_) {
    const NodeGroup& group = groups_[group_of_link(link)];
    if (group.mesh) return group.first_link + group.mesh->opposite(link - group.first_link);
    return group.first_link + ((link - group.first_link) ^ 1);
  }
  if (link < first_fabric_link_) return first_nic_link_ + ((link - first_nic_link_) ^ 1);
  const std::int64_t index = link - first_fabric_link_;
  if (const auto* dragonfly = std::get_if<Dragonfly>(&switches_))
    return first_fabric_link_ + dragonfly->opposite(index);
  return first_fabric_link_ + (index ^ 1);
}

std::string Layout::name_of(std::int64_t link) const {
  if (link >= first_fabric_link_)
    return std::visit([&](const auto& switches) { return switches.name_of(link - first_fabric_link_); }, switches_);
  const std::string direction = link % 2 == 0 ? " out" : " in";  // NICs and ports begin with an even link
  if (link >= first_nic_link_) {
    const std::int64_t nic = (link - first_nic_link_) / 2;
    const NodeGroup& group = groups_[group_of_nic(nic)];
    return "node " + std::to_string(group.first_node + (nic - group.first_nic) / group.nics) + " nic " +
           std::to_string((nic - group.first_nic) % group.nics) + direction;
  }
  const NodeGroup& group = groups_[group_of_link(link)];
  const std::int64_t index = link - group.first_link;
  if (group.mesh) return group.mesh->name_of(index);
  const std::string node = "node " + std::to_string(group.first_node + index / group.links_of_node);
  const std::int64_t of_node = index % group.links_of_node / 2;
  if (group.wiring) {
    const Wire& wire = group.type.wiring[static_cast<std::size_t>(of_node)];
    const bool forward = index % 2 == 0;
    return node + " device " + std::to_string(forward ? wire.from : wire.to) + " to device " +
           std::to_string(forward ? wire.to : wire.from);
  }
  if (of_node < group.type.devices) return node + " device " + std::to_string(of_node) + direction;
  return node + " switch " + std::to_string(of_node - group.type.devices) + (index % 2 == 0 ? " up" : " down");
}

std::vector<std::int64_t> Layout::named_inside(const LinkName& name) const {
  const auto& n = name.numbers;
  const bool chip = name.form.starts_with("slice # chip # ");
  if (chip) {
    for (const NodeGroup& group : groups_) {
      const std::string_view direction = std::string_view{name.form}.substr(std::string_view{"slice # chip # "}.size());
      const auto link = group.mesh ? group.mesh->named(n[0], n[1], direction) : std::nullopt;
      if (link) return {group.first_link + *link};
    }
    return {};
  }
  if (!name.form.starts_with("node # ") || n[0] >= nodes() || n.size() < 2) return {};
  const NodeGroup& group = groups_[group_of_node(n[0])];
  const std::int64_t node = n[0] - group.first_node;
  std::int64_t first = group.first_link + node * group.links_of_node;
  const std::string_view form = std::string_view{name.form}.substr(std::string_view{"node # "}.size());
  if (group.wiring && form == "device # to device #") {
    for (std::size_t i = 0; i < group.type.wiring.size(); ++i) {
      const Wire& wire = group.type.wiring[i];
      if (wire.from == n[1] && wire.to == n[2]) return {first + 2 * static_cast<std::int64_t>(i)};
      if (wire.from == n[2] && wire.to == n[1]) return {first + 2 * static_cast<std::int64_t>(i) + 1};
    }
    return {};
  }
  const bool ports = !group.wiring && !group.mesh;
  std::string_view forward = " out";
  std::string_view backward = " in";
  if (ports && form.starts_with("device #") && n[1] < group.type.devices) {
    first += 2 * n[1];
  } else if (ports && form.starts_with("switch #") && n[1] < group.switches) {
    first += 2 * (group.type.devices + n[1]);
    forward = " up";
    backward = " down";
  } else if (form.starts_with("nic #") && n[1] < group.nics) {
    first = first_nic_link_ + 2 * (group.first_nic + node * group.nics + n[1]);
  } else {
    return {};
  }
  const std::string_view last = form.substr(form.find('#') + 1);
  if (last.empty()) return {first, first + 1};
  if (last == forward) return {first};
  if (last == backward) return {first + 1};
  return {};
}

std::vector<std::int64_t> Layout::named(std::string_view text) const {
  const LinkName name = parse_link_name(text);
  std::vector<std::int64_t> links = named_inside(name);
  if (!links.empty()) return links;
  links = std::visit([&](const auto& switches) { return switches.named(name); }, switches_);
  for (std::int64_t& link : links) link += first_fabric_link_;
  return links;
}

std::vector<std::pair<std::string, std::vector<std::int64_t>>> Layout::forms() const {
  auto result = std::visit([](const auto& switches) { return switches.forms(); }, switches_);
  for (const NodeGroup& group : groups_) {
    const std::int64_t end = group.first_node + group.nodes;
    for (const std::string direction : {" out", " in"}) {
      result.push_back({"node # nic #" + direction, {end, group.nics}});
      if (!group.wiring && !group.mesh) result.push_back({"node # device #" + direction, {end, group.type.devices}});
    }
    for (const std::string direction : {" up", " down"})
      if (group.switches > 0) result.push_back({"node # switch #" + direction, {end, group.switches}});
    if (group.wiring) result.push_back({"node # device # to device #", {end, group.type.devices, group.type.devices}});
    if (!group.mesh) continue;
    for (const std::string direction : {"x+", "x-", "y+", "y-", "z+", "z-"})
      result.push_back({"slice # chip # " + direction,
                        {group.mesh->first_slice() + group.mesh->torus().slices, group.mesh->chips()}});
  }
  return result;
}

std::string Layout::nearest(std::string_view text) const {
  const LinkName asked = parse_link_name(text);
  std::string best;
  std::size_t least = std::numeric_limits<std::size_t>::max();
  for (const auto& [form, counts] : forms()) {
    LinkName name{.form = form, .numbers = asked.numbers};
    name.numbers.resize(counts.size(), 0);
    for (std::size_t i = 0; i < counts.size(); ++i) name.numbers[i] = std::min(name.numbers[i], counts[i] - 1);
    const std::size_t distance = edit_distance(asked.form, form);
    const std::string candidate = to_string(name);
    if (distance >= least || named(candidate).empty()) continue;
    least = distance;
    best = candidate;
  }
  return best;
}

bool Layout::can_bind(std::int64_t index) const {
  if (link(index).capacity.count == 0) return false;
  if (index >= first_fabric_link_ && std::holds_alternative<Clos>(switches_)) {
    const std::int64_t of_fabric = index - first_fabric_link_;
    const Direction direction = of_fabric % 2 == 0 ? Direction::out : Direction::in;
    return std::get<Clos>(switches_).can_bind(
        of_fabric, [&](std::int64_t nic) { return link(nic_link(nic, direction)).capacity; },
        [&](std::int64_t own) { return link(first_fabric_link_ + own).capacity; });
  }
  if (index >= first_nic_link_) return true;
  const NodeGroup& group = groups_[group_of_link(index)];
  const std::int64_t of_node = (index - group.first_link) % group.links_of_node;
  if (group.switches == 0 || of_node < 2 * group.type.devices) return true;
  const std::int64_t first = (of_node / 2 - group.type.devices) * group.type.per_switch;
  const std::int64_t end = std::min(group.type.devices, first + group.type.per_switch);
  std::int64_t below = 0;
  for (std::int64_t device = first; device < end; ++device)
    below += link(index - of_node + 2 * device + of_node % 2).capacity.count;
  return below > link(index).capacity.count;
}

}  // namespace trainyard::topology
