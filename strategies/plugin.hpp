// How a library from outside this tree offers strategies, for `--plugin FILE.so`.
//
//     namespace mine {
//     class Gossip final : public trainyard::strategies::Strategy { ... };
//     }
//     TRAINYARD_PLUGIN({"gossip", "every rank averages with two others", &trainyard::strategies::make<mine::Gossip>})
//
// The library is linked against nothing of Trainyard's: it calls the functions of the program that loads it, so that
// there is one copy of everything. Strategies are used by several threads at a time, each of them by one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>

#include "sim/key.hpp"
#include "sim/plan.hpp"
#include "strategies/groups.hpp"
#include "strategies/host_profile.hpp"
#include "strategies/layer_ops.hpp"
#include "strategies/offload.hpp"
#include "strategies/plan_builder.hpp"
#include "strategies/strategy.hpp"
#include "topology/cluster.hpp"
#include "workloads/accelerator.hpp"
#include "workloads/layers.hpp"
#include "workloads/model.hpp"
#include "workloads/training.hpp"

namespace trainyard::strategies {

// Of what plug-ins and the program must agree on: the public headers of `strategies` and of the folders that it uses.
// Raised by every change of them after which a plug-in has to be built again, or changed.
constexpr std::uint32_t interface_version = 4;

// Differs where types that cross the border have another size: headers that changed without a new version, or another
// standard library. Two headers of one version must not be told apart by anything else.
constexpr std::uint64_t interface_layout() {
  constexpr std::size_t sizes[]{sizeof(Strategy),
                                sizeof(StrategyEntry),
                                sizeof(Job),
                                sizeof(PlannedStep),
                                sizeof(Problem),
                                sizeof(sim::Key),
                                sizeof(sim::Choice),
                                sizeof(sim::Plan),
                                sizeof(sim::Kernel),
                                sizeof(sim::Call),
                                sizeof(sim::Op),
                                sizeof(sim::Block),
                                sizeof(sim::BlockCall),
                                sizeof(sim::Program),
                                sizeof(sim::Communicator),
                                sizeof(sim::DeviceClass),
                                sizeof(topology::Cluster),
                                sizeof(topology::NodeType),
                                sizeof(workloads::Model),
                                sizeof(workloads::Training),
                                sizeof(workloads::Accelerator),
                                sizeof(workloads::Layer),
                                sizeof(workloads::Operator),
                                sizeof(workloads::Expansion),
                                sizeof(workloads::Shard),
                                sizeof(workloads::KernelStyle),
                                sizeof(workloads::KernelCosts),
                                sizeof(workloads::StateBytes),
                                sizeof(PlanBuilder),
                                sizeof(BlockWriter),
                                sizeof(RankGrid),
                                sizeof(HostProfile),
                                sizeof(LayerCommunication),
                                sizeof(ActivationOffload)};
  // FNV-1a over the sizes.
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const std::size_t size : sizes) hash = (hash ^ size) * 0x100000001b3;
  return hash;
}

// What a plug-in library hands over. The version stays the first member: nothing else is read where it differs.
struct Plugin {
  std::uint32_t version = interface_version;
  std::uint64_t layout = interface_layout();
  const StrategyEntry* entries = nullptr;
  std::size_t entry_count = 0;
};

// The one C function that a plug-in library exports.
using PluginFunction = const Plugin* (*)();
constexpr const char* plugin_function_name = "trainyard_plugin";

template <class Kind>
std::unique_ptr<Strategy> make() {
  return std::make_unique<Kind>();
}

}  // namespace trainyard::strategies

// Defines it; the arguments are StrategyEntry values. Once in a library, outside of any namespace.
#define TRAINYARD_PLUGIN(...)                                                                                       \
  extern "C" __attribute__((visibility("default"))) const ::trainyard::strategies::Plugin* trainyard_plugin() {     \
    static constexpr ::trainyard::strategies::StrategyEntry entries[]{__VA_ARGS__};                                 \
    static constexpr ::trainyard::strategies::Plugin plugin{.entries = entries, .entry_count = std::size(entries)}; \
    return &plugin;                                                                                                 \
  }
