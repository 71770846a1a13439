// How a platform's collective library chooses, and what its collectives cost there.
//
// The two are apart: NCCL's own figures choose an algorithm and a protocol (CollectiveLibrary), and are 1.3 to 5 times
// too fast as times wherever latency counts; what the platform was measured to reach (CollectiveTuning) times them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sim/units.hpp"

namespace trainyard::topology {

enum class Algorithm : std::uint8_t {
  ring,
  tree,              // double binary tree over nodes, chains inside them
  direct,            // every member with every other, all at once
  hierarchical,      // inside the nodes, across with the like positions of other nodes, inside again
  halving_doubling,  // recursive halving, then doubling
  nvls,              // the switch inside the node reduces and multiplies
  nvls_tree,         // that, and a tree over nodes
  collnet_direct,    // the network's switches reduce; direct exchange inside the nodes
  collnet_chain,     // the network's switches reduce; chains inside the nodes
  pat,               // parallel aggregated trees
  torus,             // rings along all axes of a torus at once
  bruck,             // all-to-all in a logarithm of steps, for small messages
  pairwise           // all-to-all, one partner after the other
};
constexpr std::size_t algorithms = 13;
constexpr std::array<std::string_view, algorithms> algorithm_names{
    "ring",          "tree", "direct", "hierarchical", "halving_doubling", "nvls", "nvls_tree", "collnet_direct",
    "collnet_chain", "pat",  "torus",  "bruck",        "pairwise"};

enum class ProtocolKind : std::uint8_t { simple, ll128, ll };
constexpr std::size_t protocol_kinds = 3;
constexpr std::array<std::string_view, protocol_kinds> protocol_names{"simple", "ll128", "ll"};

// One way in which the collective library moves data: what a hop costs and which share of the nominal rate it reaches.
struct Protocol {
  sim::Duration hop{};
  double efficiency = 1.0;
};

// NCCL's protocols, from most bandwidth to least latency; a platform may lack all but the first.
struct Protocols {
  Protocol simple;
  std::optional<Protocol> ll128;
  std::optional<Protocol> ll;
};

// The columns of NCCL's tables are its protocols in its own order: LL, LL128, Simple.
using PerProtocol = std::array<double, protocol_kinds>;
using PerNodes = std::array<double, 3>;  // on one node, on two, on more

// What NCCL supposes of one algorithm, in us; `simple_only` where it has no other protocol.
struct NcclLatency {
  PerProtocol base_us{};
  PerProtocol nvlink_us{};  // per hop
  PerProtocol pci_us{};
  PerProtocol network_us{};
  bool simple_only = false;
};

// What NCCL supposes of one generation of GPUs, in GB/s; per channel where nothing else is said.
struct NcclGeneration {
  PerNodes ll_gb_per_s{};  // of all channels together
  PerNodes ring_ll128_gb_per_s{};
  PerNodes tree_ll128_gb_per_s{};
  PerNodes tree_gb_per_s{};
  PerNodes nvls_tree_gb_per_s{};
  double nvls_efficiency = 0;                 // 0: has no NVLink SHARP
  double nvlink_gb_per_s = 0;                 // of one link
  double ring_plateau = 1;                    // factor on the latency of large all-reduces over nodes in rings
  std::vector<double> intra_speeds_gb_per_s;  // of channels, that the search of a graph tries, falling
  std::vector<double> inter_speeds_gb_per_s;
};

// Factors of the formulas of NCCL's model.
struct NcclFactors {
  double ring_ll = 0;
  double ring_ll128 = 0;
  double tree = 0;
  double tree_ll = 0;  // divides
  double tree_ll128_one_node = 0;
  double tree_ll128 = 0;
  double pat = 0;
  double one_gpu = 0;                                               // all traffic of a node's adapters through one GPU
  double collnet_direct = 0;                                        // where the GPUs have NVLink SHARP
  double pat_hop_divisor = 0;                                       // of the network hop
  double pat_member_us = 0;                                         // for each member
  double collnet_direct_share = 0;                                  // of a hop for each further GPU of a node
  std::array<std::vector<double>, protocol_kinds> tree_correction;  // by floor(log2(bytes / 64))
};

struct NcclCpu {
  std::int64_t ll_generation = 0;  // the row of `ll_gb_per_s` on several nodes
  double ring_overhead_us = 0;     // least hop inside a node of a ring over nodes; three times that with Simple
};

// NCCL's cost model as data (NVIDIA/nccl src/graph/tuning.cc and topo.h), and the facts of a node that it asks for.
// A default one has no generations: the library then takes whatever is fastest by the platform's constants.
struct CollectiveLibrary {
  static constexpr std::array<std::string_view, 4> generation_names{"volta", "ampere", "hopper", "blackwell"};
  static constexpr std::array<std::string_view, 2> cpu_names{"intel", "amd"};
  // In the order of NCCL, which decides between equals.
  static constexpr std::array<Algorithm, 7> algorithms{
      Algorithm::tree,      Algorithm::ring, Algorithm::collnet_direct, Algorithm::collnet_chain, Algorithm::nvls,
      Algorithm::nvls_tree, Algorithm::pat};

  std::string name;  // empty: the fastest algorithm is taken
  std::array<NcclLatency, algorithms.size()> latency;
  std::array<NcclGeneration, generation_names.size()> generations;
  std::array<NcclCpu, cpu_names.size()> cpus;
  NcclFactors factors;
  double pci_share = 0;                     // of the nominal rate of a PCIe link that NCCL counts on
  double least_speed = 0;                   // of the best graph so far, that the search for channels still tries
  std::int64_t most_channels = 0;           // of a ring graph, before it is doubled
  double doubled_from_gb_per_s = 0;         // a graph of such channels or faster has twice as many of half the speed
  std::int64_t most_local_for_collnet = 0;  // members on a node
  std::int64_t most_local_for_nvls = 0;     // likewise, for all-gather and reduce-scatter
  std::array<sim::Bytes, protocol_kinds> buffer{};  // data of a channel in flight, by ProtocolKind

  // Of the node.
  std::int64_t generation = 0;
  std::int64_t cpu = 0;
  std::int64_t nvlinks = 0;  // of a device; 0: its devices talk over PCIe
};

// What the collectives of a platform cost: once per operation, for each hop, and which share of the nominal rate a
// library reaches. Every constant is measured, published or estimated in the catalogue, which says which.
struct CollectiveTuning {
  sim::Duration base{};          // once per operation: launch and start-up
  sim::Duration network_base{};  // likewise, where it leaves the node
  Protocols intra;               // rings, and what has nothing of its own, inside a node
  Protocols inter;               // and between nodes
  std::optional<Protocols> tree_intra;
  std::optional<Protocols> tree_inter;
  std::vector<Protocol> nvls;       // regimes, of which the fastest counts; none: the node's switch does not reduce
  std::vector<Protocol> nvls_tree;  // between nodes; none: as trees
  sim::Duration point_to_point_latency{};
  double point_to_point_intra_efficiency = 1.0;
  double point_to_point_inter_efficiency = 1.0;
  // Of a device's kernels beside one of its collectives: the SMs and the memory bandwidth that this takes from them.
  double compute_share = 0;
  std::int64_t parallel_peers = 8;     // of a direct exchange, that are served at once
  std::optional<Algorithm> algorithm;  // taken wherever it applies, as NCCL_ALGO does
  CollectiveLibrary library;
};

}  // namespace trainyard::topology
