// Where the members of a communicator are, and what of that matters to its library.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "sim/plan.hpp"
#include "strategies/collectives.hpp"
#include "topology/cluster.hpp"

namespace trainyard::strategies {

// The devices of a communicator by domain, in the order of its members.
struct Placement {
  std::vector<topology::DeviceId> devices;  // in member order
  std::vector<std::uint32_t> domain_of;     // of each, an index into the lists below
  std::vector<std::uint32_t> domains;       // in order of appearance
  std::vector<std::uint32_t> size;          // members in each
  // One device per NIC that the members in the domain use, `most_rails` places for each domain.
  std::vector<topology::DeviceId> by_rail;
  std::size_t most_rails = 0;
  std::vector<std::uint32_t> rails_of;
  std::uint32_t rails = 0;  // the least over domains
  std::uint32_t most_per_domain = 0;

  topology::DeviceId on_rail(std::size_t domain, std::size_t rail) const { return by_rail[domain * most_rails + rail]; }
};

// Which devices share a domain or a NIC is looked up for every member of every communicator: once for all.
class Placer {
 public:
  explicit Placer(const topology::Cluster& cluster);

  void place(const sim::CommunicatorTable& table, const sim::Communicator& communicator, Placement& out);

 private:
  struct Seen {
    std::uint32_t turn = 0;
    std::uint32_t index = 0;
  };

  std::uint32_t index_of(std::uint32_t domain, Placement& out);

  void find_rails(Placement& out);

  std::vector<std::uint32_t> domain_of_;  // of each device
  std::vector<std::uint32_t> nic_of_;
  std::vector<Seen> seen_domain_;  // in which turn, and its place in the list
  std::vector<Seen> seen_nic_;
  std::uint32_t turn_ = 0;
};

// A link as a communicator's connections cross it.
struct LinkUse {
  topology::LinkId link{};
  std::uint32_t numerator = 1;  // connections
  std::uint32_t denominator = 1;
  std::uint32_t hop = 0;  // of a ring
};

void append(const topology::Route& route, std::uint32_t hop, std::uint32_t weight, std::vector<LinkUse>& uses);

// A sender and a receiver, which see each other in different slots.
bool is_pair(const sim::CommunicatorTable& table, const sim::Communicator& communicator);

// Where a communicator's members are, and what of that matters to its library.
class Surveyor {
 public:
  explicit Surveyor(const topology::Cluster& cluster) : cluster_(cluster), torus_(cluster.torus()), placer_(cluster) {}

  void look_at(const sim::CommunicatorTable& table, const sim::Communicator& communicator) {
    placer_.place(table, communicator, placement_);
    first_rail_.clear();
  }
  const Placement& placement() const { return placement_; }
  const std::optional<topology::Torus>& torus() const { return torus_; }
  // Of the first member: the library is set up alike on all.
  std::size_t node_type_index() const { return cluster_.node_type_of(placement_.devices.front()); }
  const topology::NodeType& node_type() const { return cluster_.node_type(node_type_index()); }
  GroupShape shape_of(const sim::CommunicatorTable& table, const sim::Communicator& communicator);
  // The way of the pair, or of the ring's first rail, that the shape was taken from; empty where there was none.
  const std::vector<LinkUse>& first_rail() const { return first_rail_; }
  // Devices of one node without a switch: their library finds rings over different cables.
  bool has_own_rings() const {
    return placement_.domains.size() == 1 && placement_.devices.size() > 1 &&
           node_type().interconnect == topology::Interconnect::cube_mesh;
  }

 private:
  void span_torus(GroupShape& shape);

  const topology::Cluster& cluster_;
  std::optional<topology::Torus> torus_;
  Placer placer_;
  Placement placement_;
  topology::Route route_;
  std::vector<LinkUse> first_rail_;
};

}  // namespace trainyard::strategies
