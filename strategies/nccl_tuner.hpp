// Which algorithm and protocol NCCL would choose.
//
// NCCL predicts a time for each and takes the least: latency + bytes / bandwidth, both from tables and from the graph
// of channels that it found in the machine. The formulas are those of NVIDIA/nccl src/graph/tuning.cc, the graphs
// follow src/graph/search.cc; the tables are data (topology::CollectiveLibrary). The times only choose: where latency
// counts they are several times too short.
#pragma once

#include <cstdint>
#include <vector>

#include "sim/plan.hpp"
#include "sim/units.hpp"
#include "topology/collective_tuning.hpp"

namespace trainyard::strategies {

// The channels of a communicator, each through every member once, and the GB/s of one of them.
struct NcclGraph {
  std::int64_t channels = 0;
  double intra_gb_per_s = 0;
  double inter_gb_per_s = 0;
};

// What NCCL sees of a communicator.
struct NcclGroup {
  std::int64_t members = 1;
  std::int64_t nodes = 1;
  NcclGraph ring;                // trees have as many channels, of the same speed
  NcclGraph nvls;                // one channel per member on a node; none where the switch does not reduce
  bool tree_by_one_gpu = false;  // a tree's channel enters and leaves a node through the same GPU
  bool sharp = false;            // the network's switches reduce
};

// What a graph is searched in.
struct NcclMachine {
  std::int64_t members = 1;
  std::int64_t nodes = 1;
  std::int64_t most_per_node = 1;
  std::int64_t rails = 1;         // adapters of a node
  double port_gb_per_s = 0;       // nominal, of a device inside its node
  double rail_gb_per_s = 0;       // nominal, of an adapter
  std::int64_t nvlink_rings = 0;  // GPUs joined without a switch: rings over different links; 0: a switch
  bool sharp = false;
};
NcclGroup nccl_group(const topology::CollectiveLibrary& library, const NcclMachine& machine);

struct NcclPrediction {
  topology::Algorithm algorithm = topology::Algorithm::ring;
  topology::ProtocolKind protocol = topology::ProtocolKind::simple;
  double latency_us = 0;
  double gb_per_s = 0;  // of the message
  double time_us = 0;
};

// Everything that NCCL allows for the operation, fastest first; empty for what its tuner does not decide (all-to-all,
// point to point). A barrier is an all-reduce.
std::vector<NcclPrediction> nccl_predictions(const topology::CollectiveLibrary& library, const NcclGroup& group,
                                             sim::CollectiveKind kind, sim::Bytes bytes);

}  // namespace trainyard::strategies
