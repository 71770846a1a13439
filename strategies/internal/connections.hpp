// Which links a communicator's connections cross.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "sim/plan.hpp"
#include "strategies/internal/group_survey.hpp"
#include "topology/cluster.hpp"

namespace trainyard::strategies {

class Connections {
 public:
  Connections(const topology::Cluster& cluster, const Surveyor& surveyor) : cluster_(cluster), surveyor_(surveyor) {}

  // Of the communicator that the surveyor looks at, under a pattern; good until the next call.
  std::vector<LinkUse>& collect(const sim::Communicator& communicator, sim::TrafficPattern pattern);

 private:
  void add(const sim::Communicator& communicator, sim::TrafficPattern pattern);
  void connect(topology::DeviceId from, topology::DeviceId to, std::uint32_t connection, std::uint32_t hop,
               std::uint32_t weight = 1);
  void use_ports(std::uint32_t weight);
  void collect_ring();
  void collect_tree();
  void collect_pairs();
  void collect_torus();
  std::vector<std::int64_t> place_of(topology::DeviceId device) const;
  void connect_across_gaps(topology::DeviceId device, std::size_t axis, const std::set<std::int64_t>& places,
                           const std::map<std::vector<std::int64_t>, topology::DeviceId>& members);
  void collect_rails();

  const Placement& placement() const { return surveyor_.placement(); }
  const std::optional<topology::Torus>& torus() const { return surveyor_.torus(); }

  const topology::Cluster& cluster_;
  const Surveyor& surveyor_;
  topology::Route route_;
  std::vector<LinkUse> uses_;
  std::vector<std::uint32_t> place_in_uses_;  // of each link, while pairs are collected
};

}  // namespace trainyard::strategies
