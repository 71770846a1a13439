// What the catalogue says of nodes and fabrics.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sim/units.hpp"
#include "topology/collective_tuning.hpp"

namespace trainyard::topology {

// How the devices of a node reach each other.
enum class Interconnect : std::uint8_t {
  nvswitch,   // every device on one switch without limit
  pcie,       // devices below PCIe switches, those below the host
  cube_mesh,  // cables from device to device, as `wiring` says
  ici         // TPU: cables to the neighbours on a mesh or torus, on which hosts lie side by side
};

// Parallel cables between two devices of a node.
struct Wire {
  std::int64_t from = 0;
  std::int64_t to = 0;
  std::int64_t width = 1;
};

// Where an axis of a slice is closed to a ring.
enum class Wraparound : std::uint8_t {
  cubes,     // all axes, where every axis is a multiple of 4: slices of whole 4x4x4 cubes, joined by optical switches
  full_axis  // an axis as long as that of the pod
};

struct NodeType {
  std::string name;
  std::string description;
  std::string accelerator;
  std::int64_t devices = 0;
  Interconnect interconnect = Interconnect::nvswitch;
  sim::BytesPerSecond link_rate{};  // per direction: of a device to its switch; of one cable of a cube mesh or of ICI
  sim::Duration link_latency{};
  std::int64_t per_switch = 0;                    // PCIe: devices below a switch; 0: all of them
  std::vector<Wire> wiring;                       // cube mesh
  std::vector<std::int64_t> pod;                  // ICI: devices along each axis of the largest slice
  Wraparound wraparound = Wraparound::full_axis;  // ICI: the rule of the chip
  std::int64_t nics = 0;
  sim::BytesPerSecond nic_rate{};  // per direction
  sim::Duration nic_latency{};     // adapter to adapter, without switches
  // Of a device to host memory and back, each way. 16 lanes of PCIe 4, 25 of the 31.5 GB/s (an estimate; generation 3
  // reaches 12, NVIDIA/nccl src/graph/topo.h).
  sim::BytesPerSecond host_rate{25'000'000'000};
  // What the node's processors have, shared by its devices: DRAM, its nominal rate over all sockets, and drives for
  // what is moved out of memory. Absent: two sockets of 8 channels of DDR4-3200, and one drive of 3 to 7 GB/s.
  sim::Bytes host_memory{};  // 0: not known
  sim::BytesPerSecond host_memory_rate{409'600'000'000};
  sim::BytesPerSecond nvme_read_rate{5'000'000'000};
  sim::BytesPerSecond nvme_write_rate{3'000'000'000};
  std::string fabric;  // the usual one
  std::string price;   // the usual one of its devices; empty: none is known
  // What everything but the devices draws at full load. 0: not known.
  double host_power_w = 0;
  CollectiveTuning collectives;
};

struct FabricType {
  enum class Kind : std::uint8_t {
    single_switch,   // every NIC on one switch without limit
    fat_tree,        // leaves of radix/2 NICs, nodes in order, below spines and, with three tiers, cores
    rail_optimized,  // a fat tree where a leaf takes the NICs of the same position of radix/2 nodes
    dragonfly,       // groups of routers, all to all inside a group and between groups
    ici,             // slices of TPU chips; the hosts' NICs join them over the data centre network
    dcn              // the data centre network alone
  };
  enum class Routing : std::uint8_t {
    adaptive,  // evenly over all shortest paths
    ecmp       // a connection takes one of them, by a hash
  };
  std::string name;
  std::string description;
  Kind kind = Kind::single_switch;
  Routing routing = Routing::adaptive;
  std::int64_t radix = 64;  // ports of a switch
  // Fat trees: the least number that holds all NICs where it is 0; the top tier always has room for what is below. The
  // data centre network of `ici` and `dcn` has one tier, a single switch without limit, unless this says otherwise.
  std::int64_t tiers = 0;
  double oversubscription = 1.0;       // capacity below a leaf over capacity above it
  double core_oversubscription = 1.0;  // the same of the tier above
  bool spine = true;                   // rails: without, traffic between rails goes through another device of the node
  std::int64_t hosts = 0;              // dragonfly: NICs of a router; 0: radix / 4
  std::int64_t group_routers = 0;      // dragonfly: 0: radix / 2
  std::int64_t global_links = 0;       // dragonfly: cables between two groups; 0: as the ports that are left allow
  std::int64_t slices = 1;             // ICI
  std::vector<std::int64_t> shape;     // ICI: devices along each axis of a slice; empty: as near a cube as there is
  // ICI: closes or opens every axis, where the chip's rule is not to decide.
  enum class Torus : std::uint8_t { usual, always, never } wraparound = Torus::usual;
  bool sharp = false;  // switches reduce in the network
  sim::Duration switch_latency{};
};

}  // namespace trainyard::topology
