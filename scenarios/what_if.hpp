// What a better machine would do for a step: the same training, planned anew and simulated on changed hardware.
//
// Each change is of the hardware alone. Model, training and the options of the strategy stay, recomputation as it was
// chosen; collectives are chosen and priced anew, as the library would on such a machine.
//
// network_bandwidth_x2   every link between devices: NVLink, PCIe between the devices of a node, ICI, adapters,
//                        switches, the data centre network; and the bandwidths that NCCL supposes of them, its
//                        channels' included, so that it may choose as if all messages were half as large
// scale_up_bandwidth_x2  of these the links inside nodes, or slices of TPUs
// scale_out_bandwidth_x2 and those between them
// network_latency_zero   links, adapters and switches, starting a collective, and each of its hops, also in what NCCL
//                        supposes; gRPC's between TensorFlow's hosts stays
// compute_x2             the peak rates of matrix products and attention
// memory_bandwidth_x2    of the devices' memory
// offload_bandwidth_x2   of devices to host memory, of host memory and of drives
// host_time_zero         everything that the host does: launching kernels and communications, and its own work, as if
//                        the whole step were one recorded graph
// no_stragglers          no device and no node is slow, and no link is degraded or broken
// equal_clocks           all parts of a type have its mean clock (workloads::Accelerator::clock_spread is 0)
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "scenarios/scenario.hpp"
#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {

// Of the step in `result`, which was simulated with `training`. Changes that concern nothing in the step (offloading,
// where nothing is offloaded) are left out.
std::vector<WhatIf> what_if(const Scenario& scenario, const workloads::Training& training, const Result& result);

// What a change is called among people: "network, twice the bandwidth".
std::string_view what_if_words(std::string_view change);

// For people, those that save most first; empty where nothing was asked.
std::string what_if_text(const Result& result);

}  // namespace trainyard::scenarios
