// Small clusters for tests of topologies.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "topology/cluster.hpp"

namespace trainyard::topology {

constexpr std::int64_t giga = 1'000'000'000;

inline NodeType node_type(std::int64_t devices = 8, std::int64_t nics = 8) {
  NodeType node;
  node.devices = devices;
  node.link_rate = {450 * giga};
  node.link_latency = sim::Duration{500'000};
  node.nics = nics;
  node.nic_rate = {50 * giga};
  node.nic_latency = sim::Duration{3'000'000};
  return node;
}

inline FabricType fabric_type(FabricType::Kind kind, std::int64_t radix = 64, double oversubscription = 1.0) {
  FabricType fabric;
  fabric.kind = kind;
  fabric.radix = radix;
  fabric.oversubscription = oversubscription;
  fabric.switch_latency = sim::Duration{250'000};
  return fabric;
}

using Kind = FabricType::Kind;
inline const FabricType one_switch = fabric_type(Kind::single_switch);

inline DeviceId device(std::int64_t index) { return DeviceId{static_cast<std::uint32_t>(index)}; }

inline std::vector<std::string> names(const Cluster& cluster, const Route& route) {
  std::vector<std::string> result;
  for (const RouteLink& on : route.links) result.push_back(cluster.name_of(on.link));
  return result;
}
inline std::vector<std::string> way(const Cluster& cluster, std::int64_t from, std::int64_t to) {
  return names(cluster, cluster.route(device(from), device(to)));
}
using Names = std::vector<std::string>;

// Of one type of node, with everything else still to be said.
inline Cluster::Request request_of(const NodeType& node, std::int64_t nodes, const FabricType& fabric) {
  Cluster::Request request;
  request.groups = {{.node = node, .nodes = nodes}};
  request.fabric = fabric;
  return request;
}

// The share of a route that crosses the link of this name.
inline double share_on(const Cluster& cluster, const Route& route, const std::string& name) {
  double share = 0;
  for (const RouteLink& on : route.links)
    if (cluster.name_of(on.link) == name) share += static_cast<double>(on.numerator) / on.denominator;
  return share;
}

}  // namespace trainyard::topology
