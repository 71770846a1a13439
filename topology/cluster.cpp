#include "topology/cluster.hpp"

#include <algorithm>
#include <boost/graph/adjacency_list.hpp>
#include <boost/graph/breadth_first_search.hpp>

namespace trainyard::topology {
namespace {

struct Cable {
  LinkId link;
};
using Graph = boost::adjacency_list<boost::vecS, boost::vecS, boost::directedS, boost::no_property, Cable>;
using Vertex = boost::graph_traits<Graph>::vertex_descriptor;
using Edge = boost::graph_traits<Graph>::edge_descriptor;

// Remembers by which edge a switch was first reached, and how far from the root.
class TreeRecorder : public boost::default_bfs_visitor {
 public:
  TreeRecorder(std::vector<Edge>& reached_by, std::vector<int>& depth) : reached_by_(&reached_by), depth_(&depth) {}
  void tree_edge(const Edge& edge, const Graph& graph) const {
    (*reached_by_)[boost::target(edge, graph)] = edge;
    (*depth_)[boost::target(edge, graph)] = (*depth_)[boost::source(edge, graph)] + 1;
  }

 private:
  std::vector<Edge>* reached_by_;
  std::vector<int>* depth_;
};

}  // namespace

// Leaves come first, then spines. Spines whose cables are alike are interchangeable under even spraying: one vertex
// stands for all of them, and one link of n cables for the n cables of a leaf. That is exact, and makes every fabric a
// tree, in which the shortest path goes up to where both ends meet and down again.
struct Cluster::Switches {
  Graph graph;
  std::vector<Edge> reached_by;  // from the root
  std::vector<int> depth;

  void find_tree(Vertex root) {
    reached_by.resize(boost::num_vertices(graph));
    depth.resize(boost::num_vertices(graph), 0);
    boost::breadth_first_search(graph, root, boost::visitor(TreeRecorder(reached_by, depth)));
  }
  Vertex above(Vertex vertex) const { return boost::source(reached_by[vertex], graph); }
  LinkId down_to(Vertex vertex) const { return graph[reached_by[vertex]].link; }
  LinkId up_from(Vertex vertex) const { return graph[boost::edge(vertex, above(vertex), graph).first].link; }

  std::vector<LinkId> path(Vertex from, Vertex to) const {
    std::vector<LinkId> up;
    std::vector<LinkId> down;
    while (from != to) {
      if (depth[from] >= depth[to]) {
        up.push_back(up_from(from));
        from = above(from);
      } else {
        down.push_back(down_to(to));
        to = above(to);
      }
    }
    up.insert(up.end(), down.rbegin(), down.rend());
    return up;
  }
};

Cluster::~Cluster() = default;
Cluster::Cluster(Cluster&&) noexcept = default;
Cluster& Cluster::operator=(Cluster&&) noexcept = default;

Cluster::Cluster(const NodeType& node, std::int64_t nodes, std::int64_t devices, const FabricType& fabric)
    : node_(node), fabric_(fabric), nodes_(nodes), switches_(std::make_unique<Switches>()) {
  sim::ensure(nodes > 0 && devices > 0 && devices <= nodes * node.devices, "a cluster has the devices that it uses");
  for (std::int64_t n = 0; n < nodes; ++n) {
    const std::int64_t here = devices / nodes + (n < devices % nodes ? 1 : 0);
    for (std::int64_t position = 0; position < here; ++position) places_.add({.node = n, .position = position});
  }
  // Two links per device slot, two per NIC, two per leaf: to the switch and from it.
  for (std::int64_t i = 0; i < 2 * nodes * node.devices; ++i)
    links_.add({.kind = LinkKind::nvlink, .capacity = node.link_rate, .latency = node.link_latency});
  first_nic_link_ = static_cast<std::uint32_t>(links_.size());
  const sim::Duration half_nic_latency = node.nic_latency / 2;
  for (std::int64_t i = 0; i < 2 * nodes * nics_per_node(); ++i)
    links_.add({.kind = LinkKind::nic, .capacity = nic_rate(), .latency = half_nic_latency});
  first_fabric_link_ = static_cast<std::uint32_t>(links_.size());

  std::vector<std::int64_t> nics_below;  // of each leaf
  for (std::int64_t n = 0; n < nodes; ++n) {
    for (std::int64_t nic = 0; nic < nics_per_node(); ++nic) {
      const auto leaf = static_cast<std::size_t>(leaf_of(n, nic));
      if (leaf >= nics_below.size()) nics_below.resize(leaf + 1, 0);
      ++nics_below[leaf];
    }
  }
  for (std::size_t i = 0; i < nics_below.size(); ++i) boost::add_vertex(switches_->graph);
  const Vertex spine = boost::add_vertex(switches_->graph);
  for (std::size_t leaf = 0; leaf < nics_below.size(); ++leaf) {
    // A leaf is built for a full set of NICs, whether or not all are there: its uplinks are those of the full leaf.
    const std::int64_t ports = std::max(nics_below[leaf], fabric.radix / 2);
    const sim::BytesPerSecond below{sim::checked_multiply(nic_rate().count, ports)};
    const Link uplink{
        .kind = LinkKind::spine, .capacity = sim::scaled(below, 1 / fabric.oversubscription), .latency = {}};
    boost::add_edge(leaf, spine, Cable{links_.add(uplink)}, switches_->graph);
    boost::add_edge(spine, leaf, Cable{links_.add(uplink)}, switches_->graph);
  }
  switches_->find_tree(spine);
}

std::int64_t Cluster::nics_per_node() const { return std::min(node_.nics, node_.devices); }

sim::BytesPerSecond Cluster::nic_rate() const {
  if (node_.nics <= node_.devices) return node_.nic_rate;
  return {node_.nic_rate.count * node_.nics / node_.devices};
}

std::int64_t Cluster::nic_of(DeviceId device) const {
  return places_[device].position * nics_per_node() / node_.devices;
}

std::int64_t Cluster::leaf_of(std::int64_t node, std::int64_t nic) const {
  const std::int64_t half = std::max<std::int64_t>(1, fabric_.radix / 2);
  switch (fabric_.kind) {
    case FabricType::Kind::single_switch:
      return 0;
    case FabricType::Kind::rail_optimized:
      return node / half * nics_per_node() + nic;
    case FabricType::Kind::fat_tree:
      return (node * nics_per_node() + nic) / half;
  }
  return 0;
}

Route Cluster::route(DeviceId from, DeviceId to) const {
  Route route;
  if (from == to) {
    route.inside_node = true;
    return route;
  }
  const Place& a = places_.at(from);
  const Place& b = places_.at(to);
  const auto device_link = [&](const Place& place, bool out) {
    return LinkId{static_cast<std::uint32_t>(2 * (place.node * node_.devices + place.position) + (out ? 0 : 1))};
  };
  if (a.node == b.node) {
    route.inside_node = true;
    route.links = {device_link(a, true), device_link(b, false)};
    return route;
  }
  const auto nic_link = [&](std::int64_t node, std::int64_t nic, bool out) {
    return LinkId{first_nic_link_ + static_cast<std::uint32_t>(2 * (node * nics_per_node() + nic) + (out ? 0 : 1))};
  };
  const std::int64_t nic_a = nic_of(from);
  const std::int64_t nic_b = nic_of(to);
  route.links.push_back(nic_link(a.node, nic_a, true));
  const auto leaf_a = static_cast<Vertex>(leaf_of(a.node, nic_a));
  const auto leaf_b = static_cast<Vertex>(leaf_of(b.node, nic_b));
  const std::vector<LinkId> between = switches_->path(leaf_a, leaf_b);
  route.switches = 1 + static_cast<int>(between.size());
  route.links.insert(route.links.end(), between.begin(), between.end());
  route.links.push_back(nic_link(b.node, nic_b, false));
  return route;
}

std::string Cluster::name_of(LinkId link) const {
  const auto index = static_cast<std::uint32_t>(sim::index_of(link));
  const std::string direction = index % 2 == 0 ? " out" : " in";
  if (index < first_nic_link_) {
    const std::int64_t device = index / 2;
    return "node " + std::to_string(device / node_.devices) + " device " + std::to_string(device % node_.devices) +
           direction;
  }
  if (index < first_fabric_link_) {
    const std::int64_t nic = (index - first_nic_link_) / 2;
    return "node " + std::to_string(nic / nics_per_node()) + " nic " + std::to_string(nic % nics_per_node()) +
           direction;
  }
  return "leaf " + std::to_string((index - first_fabric_link_) / 2) + (index % 2 == 0 ? " up" : " down");
}

}  // namespace trainyard::topology
