// What the catalogue says of nodes and fabrics.
#pragma once

#include <cstdint>
#include <string>

#include "sim/units.hpp"

namespace trainyard::topology {

// One way in which the collective library moves data: what a hop costs and which share of the nominal rate it reaches.
struct Protocol {
  sim::Duration hop{};
  double efficiency = 1.0;
};

// NCCL's protocols, from most bandwidth to least latency.
struct Protocols {
  Protocol simple;
  Protocol ll128;
  Protocol ll;
};

struct CollectiveTuning {
  sim::Duration base{};  // once per operation: launch and start-up
  Protocols intra;       // inside a node
  Protocols inter;       // between nodes
  sim::Duration point_to_point_latency{};
  double point_to_point_intra_efficiency = 1.0;
  double point_to_point_inter_efficiency = 1.0;
};

struct NodeType {
  std::string name;
  std::string description;
  std::string accelerator;
  std::int64_t devices = 0;
  sim::BytesPerSecond link_rate{};  // of a device to the switch inside the node, per direction
  sim::Duration link_latency{};
  std::int64_t nics = 0;
  sim::BytesPerSecond nic_rate{};  // per direction
  sim::Duration nic_latency{};     // adapter to adapter, without switches
  std::string fabric;              // the usual one
  CollectiveTuning collectives;
};

struct FabricType {
  enum class Kind : std::uint8_t {
    single_switch,  // every NIC on one switch without limit
    fat_tree,       // leaves of radix/2 NICs, nodes in order, below one tier of spines
    rail_optimized  // a leaf takes the NICs of the same position of radix/2 nodes
  };
  std::string name;
  std::string description;
  Kind kind = Kind::single_switch;
  std::int64_t radix = 64;
  double oversubscription = 1.0;  // capacity below a leaf over capacity above it
  sim::Duration switch_latency{};
};

}  // namespace trainyard::topology
