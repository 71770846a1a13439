#include "scenarios/internal/cluster_entries.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "scenarios/internal/document.hpp"
#include "scenarios/internal/entries.hpp"
#include "scenarios/quantity.hpp"

namespace trainyard::scenarios {
namespace {

using topology::Cluster;
using topology::FabricType;
using topology::Interconnect;
using topology::NodeType;

constexpr std::int64_t most_devices = std::int64_t{1} << 20U;  // what the simulator is built for

std::int64_t all_nodes(const Scenario& scenario) {
  return std::accumulate(scenario.other_nodes.begin(), scenario.other_nodes.end(), scenario.nodes,
                         [](std::int64_t sum, const Cluster::Group& group) { return sum + group.nodes; });
}

std::int64_t devices_of_node(const Scenario& scenario, std::int64_t node) {
  if (node < scenario.nodes) return scenario.node.devices;
  node -= scenario.nodes;
  for (const Cluster::Group& group : scenario.other_nodes) {
    if (node < group.nodes) return group.node.devices;
    node -= group.nodes;
  }
  return 0;
}

std::int64_t all_devices(const Scenario& scenario) {
  return std::accumulate(
      scenario.other_nodes.begin(), scenario.other_nodes.end(), scenario.nodes * scenario.node.devices,
      [](std::int64_t sum, const Cluster::Group& group) { return sum + group.nodes * group.node.devices; });
}

sim::Key nodes_key(std::int64_t& nodes) {
  return {.name = "nodes", .target = &nodes, .help = "", .required = true, .least = 1, .most = 1e6};
}

void read_groups(Reader& reader, const Catalog& catalog, const Value& groups, Scenario& scenario) {
  if (!groups.is_sequence() || groups.items.empty())
    return reader.report_at(
        "cluster.groups",
        "expected a list such as [{node: dgx-a100-80gb, nodes: 2}, {node: dgx-h100, nodes: 2}], got " +
            (groups.is_sequence() ? "an empty one" : describe(groups)));
  for (std::size_t i = 0; i < groups.items.size(); ++i) {
    const std::string path = join("cluster.groups", std::to_string(i));
    Cluster::Group group;
    const Value* node = nullptr;
    const std::vector<sim::Key> keys{nodes_key(group.nodes)};
    const std::array<Section, 1> sections{{{"node", &node, true}}};
    reader.note(path, groups.items[i], groups.items[i]);
    reader.read(groups.items[i], path, {.keys = keys, .sections = sections});
    if (node != nullptr) {
      NodeReading reading = read_node(reader, catalog, *node, join(path, "node"));
      group.node = std::move(reading.node);
      scenario.accelerators.push_back(std::move(reading.accelerator));
    }
    if (i > 0) {
      scenario.other_nodes.push_back(std::move(group));
      continue;
    }
    scenario.node = std::move(group.node);
    scenario.nodes = group.nodes;
  }
}

void read_placement(Reader& reader, const Value& placement, Scenario& scenario) {
  const std::string path = "cluster.placement";
  const std::int64_t nodes = all_nodes(scenario);
  if (placement.is_scalar() && placement.scalar == "packed") return;
  if (placement.is_scalar() && placement.scalar == "shuffled") {
    scenario.placement = topology::shuffled_nodes(nodes, static_cast<std::uint64_t>(scenario.seed));
    return;
  }
  if (!placement.is_sequence() || placement.items.empty())
    return reader.report_at(path, "expected 'packed', 'shuffled' or a list of nodes, got " +
                                      (placement.is_sequence() ? "an empty list" : describe(placement)));
  std::set<std::int64_t> seen;
  for (const Value& item : placement.items) {
    const auto node = parse_whole_number(item.is_scalar() ? item.scalar : "");
    if (!node.value || *node.value < 0 || *node.value >= nodes)
      return reader.report(
          item.where, path + ": expected nodes from 0 to " + std::to_string(nodes - 1) + ", got " + describe(item));
    if (!seen.insert(*node.value).second)
      return reader.report(item.where, path + ": node " + item.scalar + " is given twice");
    scenario.placement.push_back(*node.value);
  }
}

void read_fault(Reader& reader, const Value& fault, const std::string& path, Scenario& scenario) {
  std::optional<std::int64_t> device;
  std::optional<std::int64_t> node;
  std::optional<std::string> link;
  std::optional<double> speed;
  std::optional<double> capacity;
  constexpr double slowest = 1e-3;  // a device without speed is no slow one but a failed one
  const std::vector<sim::Key> keys{
      {.name = "device", .target = &device, .help = ""},
      {.name = "node", .target = &node, .help = ""},
      {.name = "link", .target = &link, .help = ""},
      {.name = "speed", .target = &speed, .help = "", .least = slowest, .most = 1},
      {.name = "capacity", .target = &capacity, .help = "", .least = 0, .most = 1},
  };
  const std::size_t before = reader.mistakes();
  reader.note(path, fault, fault);
  reader.read(fault, path, {.keys = keys});
  if (reader.mistakes() > before) return;
  const bool one = (device ? 1 : 0) + (node ? 1 : 0) + (link ? 1 : 0) == 1;
  if (!one || (link ? !capacity || speed : !speed || capacity))
    return reader.report(fault.where, path +
                                          ": expected {device: NUMBER, speed: FACTOR}, {node: NUMBER, speed: FACTOR} "
                                          "or {link: NAME, capacity: FACTOR}");
  const std::int64_t devices = all_devices(scenario);
  const std::int64_t nodes = all_nodes(scenario);
  if (device && *device >= devices)
    reader.report_at(join(path, "device"),
                     "expected devices from 0 to " + std::to_string(devices - 1) + ", got " + std::to_string(*device));
  else if (device)
    scenario.device_faults.push_back({.device = *device, .speed = *speed});
  if (node && *node >= nodes)
    reader.report_at(join(path, "node"),
                     "expected nodes from 0 to " + std::to_string(nodes - 1) + ", got " + std::to_string(*node));
  else if (node)
    scenario.node_faults.push_back({.node = *node, .speed = *speed});
  if (link) scenario.link_faults.push_back({.link = *link, .capacity = *capacity});
}

std::string link_path(const Value& faults, std::size_t fault) {
  for (std::size_t i = 0; i < faults.items.size(); ++i) {
    if (faults.items[i].find("link") == nullptr) continue;
    if (fault-- == 0) return "cluster.faults." + std::to_string(i) + ".link";
  }
  return "cluster.faults";
}

void read_faults(Reader& reader, const Value& faults, Scenario& scenario) {
  if (!faults.is_sequence()) return reader.report_at("cluster.faults", "expected a list, got " + describe(faults));
  const std::size_t before = reader.mistakes();
  for (std::size_t i = 0; i < faults.items.size(); ++i)
    read_fault(reader, faults.items[i], join("cluster.faults", std::to_string(i)), scenario);
  if (reader.mistakes() > before || scenario.link_faults.empty()) return;
  Cluster::Request request = cluster_request(scenario);
  request.link_faults.clear();
  const Cluster healthy(request);
  for (std::size_t i = 0; i < scenario.link_faults.size(); ++i) {
    const std::string& name = scenario.link_faults[i].link;
    if (healthy.find_link(name)) continue;
    const std::string near = healthy.nearest_link(name);
    reader.report_at(link_path(faults, i), "no link is called '" + name + "'" +
                                               (near.empty() ? "" : " (did you mean '" + near + "'?)") +
                                               "; `trainyard show topology` lists them");
  }
  if (reader.mistakes() > before) return;
  if (const auto cut = Cluster(cluster_request(scenario)).cut())
    reader.report_at(link_path(faults, cut->fault), "without this link nothing reaches " + cut->victim);
}

void check_slices(Reader& reader, const Scenario& scenario) {
  const FabricType& fabric = scenario.fabric;
  const NodeType& node = scenario.node;
  const std::int64_t devices = all_devices(scenario);
  if (node.interconnect != Interconnect::ici || !scenario.other_nodes.empty())
    return reader.report_at("cluster.fabric",
                            "a fabric of kind 'ici' joins nodes of one type, whose link is of kind "
                            "'ici' too; " +
                                node.name + " is not alone, or has other links");
  if (devices % fabric.slices != 0)
    return reader.report_at("cluster.fabric.slices", std::to_string(fabric.slices) + " slices do not divide " +
                                                         std::to_string(devices) + " devices");
  const std::int64_t chips = devices / fabric.slices;
  if (fabric.shape.empty() && topology::usual_shape(node, chips).empty())
    return reader.report_at(reader.given("cluster.fabric.slices") ? "cluster.fabric.slices" : "cluster.nodes",
                            "no slice of " + std::to_string(chips) + " devices fits the pod of " + node.name +
                                "; give more slices, or their 'shape'");
  if (fabric.shape.empty()) return;
  const std::int64_t product =
      std::accumulate(fabric.shape.begin(), fabric.shape.end(), std::int64_t{1},
                      [](std::int64_t a, std::int64_t b) { return a > most_devices ? a : a * b; });
  if (fabric.shape.size() > node.pod.size())
    reader.report_at("cluster.fabric.shape", "expected at most " + std::to_string(node.pod.size()) + " axes for " +
                                                 node.name + ", got " + std::to_string(fabric.shape.size()));
  else if (product != chips)
    reader.report_at("cluster.fabric.shape", "holds " + std::to_string(product) + " devices, but a slice has " +
                                                 std::to_string(chips) + " (" + std::to_string(devices) +
                                                 " devices in " + std::to_string(fabric.slices) + " slices)");
}

void check_fabric(Reader& reader, const Scenario& scenario) {
  const FabricType& fabric = scenario.fabric;
  if (fabric.kind == FabricType::Kind::ici) check_slices(reader, scenario);
  const auto nics_of = [](const NodeType& node) { return std::min(node.nics, node.devices); };
  std::int64_t nics = scenario.nodes * nics_of(scenario.node);
  for (const Cluster::Group& group : scenario.other_nodes) nics += group.nodes * nics_of(group.node);
  if (fabric.kind == FabricType::Kind::rail_optimized && !fabric.spine) {
    if (all_nodes(scenario) > fabric.radix)
      reader.report_at("cluster.fabric.spine", "rails of " + std::to_string(all_nodes(scenario)) +
                                                   " nodes need a spine: a switch has " + std::to_string(fabric.radix) +
                                                   " ports");
    for (const Cluster::Group& group : scenario.other_nodes)
      if (nics_of(group.node) != nics_of(scenario.node))
        return reader.report_at("cluster.fabric.spine", "nodes with different numbers of NICs need a spine");
  }
  if (fabric.kind == FabricType::Kind::dragonfly) {
    const std::int64_t hosts = fabric.hosts > 0 ? fabric.hosts : std::max<std::int64_t>(1, fabric.radix / 4);
    const std::int64_t routers =
        fabric.group_routers > 0 ? fabric.group_routers : std::max<std::int64_t>(1, fabric.radix / 2);
    constexpr std::int64_t most_groups = 4096;  // far beyond a machine that was built; links are numbered by pairs
    const std::int64_t groups = (nics + hosts * routers - 1) / (hosts * routers);
    if (groups > most_groups)
      reader.report_at("cluster.fabric", std::to_string(groups) + " groups of " + std::to_string(hosts * routers) +
                                             " NICs are more than the " + std::to_string(most_groups) +
                                             " that can be simulated; give larger ones");
    else if (groups * groups * std::min(routers, fabric.global_links) + groups * routers * routers > (1 << 30))
      reader.report_at("cluster.fabric", "the dragonfly has more than 2^30 links");
  }
}

}  // namespace

void read_cluster(Reader& reader, const Catalog& catalog, const Value& cluster, Scenario& scenario) {
  const Value* node = nullptr;
  const Value* groups = nullptr;
  const Value* fabric = nullptr;
  const Value* placement = nullptr;
  const Value* faults = nullptr;
  std::optional<std::int64_t> devices;
  std::optional<std::int64_t> nodes;
  const bool grouped = cluster.is_map() && cluster.find("groups") != nullptr;
  const std::vector<sim::Key> keys{
      {.name = "nodes", .target = &nodes, .help = "", .required = !grouped, .least = 1, .most = 1e6},
      {.name = "devices", .target = &devices, .help = "", .least = 1, .most = 1e9},
  };
  const std::array<Section, 5> sections{{{"node", &node, !grouped},
                                         {"groups", &groups},
                                         {"fabric", &fabric},
                                         {"placement", &placement},
                                         {"faults", &faults}}};
  const std::size_t before = reader.mistakes();
  reader.read(cluster, "cluster", {.keys = keys, .sections = sections});
  if (groups != nullptr && (node != nullptr || nodes))
    reader.report_at("cluster.groups", "a cluster has either 'groups', or 'node' and 'nodes'");
  if (groups != nullptr) {
    read_groups(reader, catalog, *groups, scenario);
  } else if (node != nullptr) {
    NodeReading reading = read_node(reader, catalog, *node, "cluster.node");
    scenario.node = std::move(reading.node);
    scenario.accelerators.push_back(std::move(reading.accelerator));
    scenario.nodes = nodes.value_or(0);
  }
  if (scenario.accelerators.empty()) return;
  scenario.accelerator = scenario.accelerators.front();
  if (fabric != nullptr || !scenario.node.fabric.empty())  // without either, the mistake is reported
    scenario.fabric = read_fabric(reader, catalog, fabric, scenario.node.fabric, "cluster.fabric");
  if (reader.mistakes() > before) return;

  if (all_devices(scenario) > most_devices)
    return reader.report_at(grouped ? "cluster.groups" : "cluster.nodes",
                            std::to_string(all_devices(scenario)) + " devices are more than the " +
                                std::to_string(most_devices) + " that can be simulated");
  if (placement != nullptr) read_placement(reader, *placement, scenario);
  check_fabric(reader, scenario);
  if (reader.mistakes() > before) return;

  std::int64_t all = all_devices(scenario);
  std::int64_t used = all_nodes(scenario);
  if (!scenario.placement.empty()) {
    all = 0;
    for (const std::int64_t each : scenario.placement) all += devices_of_node(scenario, each);
    used = static_cast<std::int64_t>(scenario.placement.size());
  }
  scenario.devices = devices.value_or(all);
  const std::string of_each =
      scenario.other_nodes.empty() ? " of " + std::to_string(scenario.node.devices) + " devices" : "";
  if (scenario.devices > all)
    return reader.report_at("cluster.devices", "expected at most " + std::to_string(all) + " (" + std::to_string(used) +
                                                   " nodes" + of_each + "), got " + std::to_string(scenario.devices));
  if (faults != nullptr) read_faults(reader, *faults, scenario);
}

topology::Cluster::Request cluster_request(const Scenario& scenario) {
  Cluster::Request request;
  request.groups.push_back({.node = scenario.node, .nodes = scenario.nodes});
  request.groups.insert(request.groups.end(), scenario.other_nodes.begin(), scenario.other_nodes.end());
  request.devices = scenario.devices;
  request.fabric = scenario.fabric;
  request.placement = scenario.placement;
  request.link_faults = scenario.link_faults;
  request.device_faults = scenario.device_faults;
  request.node_faults = scenario.node_faults;
  request.seed = static_cast<std::uint64_t>(scenario.seed);
  return request;
}

topology::Cluster make_cluster(const Scenario& scenario) { return Cluster(cluster_request(scenario)); }

topology::Cluster make_cluster(const Scenario& scenario, const topology::Cluster::NodeFault& fault) {
  Cluster::Request request = cluster_request(scenario);
  request.node_faults.push_back(fault);
  return Cluster(request);
}

}  // namespace trainyard::scenarios
