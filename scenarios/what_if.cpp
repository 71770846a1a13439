#include "scenarios/what_if.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>

#include "scenarios/internal/cluster_entries.hpp"
#include "scenarios/internal/text.hpp"
#include "scenarios/quantity.hpp"
#include "sim/executor.hpp"
#include "sim/fold.hpp"
#include "strategies/device_classes.hpp"

namespace trainyard::scenarios {
namespace {

using sim::Duration;
using topology::CollectiveLibrary;
using topology::CollectiveTuning;
using topology::NodeType;

// What a change may touch.
struct Machine {
  topology::Cluster::Request cluster;
  std::vector<workloads::Accelerator> accelerators;  // of each type of nodes
  bool host_takes_time = true;
};

template <class Unit>
void double_rate(sim::Quantity<sim::PerSecond<Unit>>& rate) {
  rate = rate * 2;
}

// Columns are for one node, two nodes and more.
void double_columns(topology::PerNodes& bandwidths, bool inside, bool between) {
  if (inside) bandwidths[0] *= 2;
  if (between) bandwidths[1] *= 2, bandwidths[2] *= 2;
}

void double_all(std::vector<double>& bandwidths) {
  for (double& bandwidth : bandwidths) bandwidth *= 2;
}

void double_bandwidths(CollectiveLibrary& library, bool inside, bool between) {
  for (topology::NcclGeneration& generation : library.generations) {
    for (topology::PerNodes* columns :
         {&generation.ll_gb_per_s, &generation.ring_ll128_gb_per_s, &generation.tree_ll128_gb_per_s,
          &generation.tree_gb_per_s, &generation.nvls_tree_gb_per_s})
      double_columns(*columns, inside, between);
    if (inside) generation.nvlink_gb_per_s *= 2;
    if (inside) double_all(generation.intra_speeds_gb_per_s);
    if (between) double_all(generation.inter_speeds_gb_per_s);
  }
  // From which speed on channels are split is one figure for both.
  if (inside && between) library.doubled_from_gb_per_s *= 2;
}

template <class Edit>
void edit_nodes(Machine& machine, const Edit& edit) {
  for (topology::Cluster::Group& group : machine.cluster.groups) edit(group.node);
}

// The fabric's links are as fast as the adapters.
void double_links(Machine& machine, bool inside, bool between) {
  edit_nodes(machine, [&](NodeType& node) {
    if (inside) double_rate(node.link_rate);
    if (between) double_rate(node.nic_rate);
    double_bandwidths(node.collectives.library, inside, between);
  });
}

void remove_hop(topology::Protocol& protocol) { protocol.hop = Duration{}; }

void remove_hops(topology::Protocols& protocols) {
  remove_hop(protocols.simple);
  if (protocols.ll128) remove_hop(*protocols.ll128);
  if (protocols.ll) remove_hop(*protocols.ll);
}

void remove_latency(CollectiveLibrary& library) {
  for (topology::NcclLatency& latency : library.latency) {
    for (topology::PerProtocol* of : {&latency.base_us, &latency.nvlink_us, &latency.pci_us, &latency.network_us})
      of->fill(0);
  }
  for (topology::NcclCpu& cpu : library.cpus) cpu.ring_overhead_us = 0;
  library.factors.pat_member_us = 0;
}

void remove_latency(CollectiveTuning& tuning) {
  tuning.base = tuning.network_base = tuning.point_to_point_latency = Duration{};
  remove_hops(tuning.intra);
  remove_hops(tuning.inter);
  if (tuning.tree_intra) remove_hops(*tuning.tree_intra);
  if (tuning.tree_inter) remove_hops(*tuning.tree_inter);
  std::ranges::for_each(tuning.nvls, remove_hop);
  std::ranges::for_each(tuning.nvls_tree, remove_hop);
  remove_latency(tuning.library);
}

void remove_network_latency(Machine& machine) {
  machine.cluster.fabric.switch_latency = Duration{};
  edit_nodes(machine, [](NodeType& node) {
    node.link_latency = node.nic_latency = Duration{};
    remove_latency(node.collectives);
  });
}

void double_compute(Machine& machine) {
  for (workloads::Accelerator& accelerator : machine.accelerators)
    std::ranges::for_each(accelerator.peak, double_rate<sim::FlopUnit>);
}

void double_memory_bandwidth(Machine& machine) {
  for (workloads::Accelerator& accelerator : machine.accelerators) double_rate(accelerator.memory_bandwidth);
}

void double_offload_bandwidth(Machine& machine) {
  edit_nodes(machine, [](NodeType& node) {
    for (sim::BytesPerSecond* rate :
         {&node.host_rate, &node.host_memory_rate, &node.nvme_read_rate, &node.nvme_write_rate})
      double_rate(*rate);
  });
}

void remove_stragglers(Machine& machine) {
  machine.cluster.device_faults.clear();
  machine.cluster.node_faults.clear();
  machine.cluster.link_faults.clear();
}

void equalise_clocks(Machine& machine) {
  for (workloads::Accelerator& accelerator : machine.accelerators) accelerator.clock_spread = 0;
}

// What a step tells of itself, to leave out what concerns nothing in it.
bool always(const Scenario& /*scenario*/, const Result& /*result*/) { return true; }

// Rings over cables without a switch are not booked on single links: what is there counts, not what is used.
bool has_links(const Result& result, bool inside) {
  using topology::LinkKind;
  return std::ranges::any_of(result.links, [&](const LinkSummary& link) {
    return inside == (link.kind == LinkKind::nvlink || link.kind == LinkKind::pcie || link.kind == LinkKind::ici);
  });
}
bool has_both_networks(const Scenario& scenario, const Result& result) {
  const bool one_node = scenario.nodes == 1 && scenario.other_nodes.empty();
  return !one_node && has_links(result, true) && has_links(result, false);
}

bool offloads(const Scenario& /*scenario*/, const Result& result) {
  return std::ranges::find(result.communication, sim::Purpose::offload, &CommunicationSummary::purpose) !=
         result.communication.end();
}

bool has_unequal_clocks(const Scenario& scenario, const Result& /*result*/) {
  return std::ranges::any_of(scenario.accelerators, [](const auto& part) { return part.clock_spread > 0; });
}

struct Change {
  std::string_view name;
  std::string_view words;
  void (*apply)(Machine& machine) = nullptr;
  bool (*matters)(const Scenario& scenario, const Result& result) = always;
};
constexpr std::array<Change, 10> changes{{
    {"network_bandwidth_x2", "network, twice the bandwidth", [](Machine& m) { double_links(m, true, true); }},
    {"scale_up_bandwidth_x2", "links inside nodes, twice as fast", [](Machine& m) { double_links(m, true, false); },
     has_both_networks},
    {"scale_out_bandwidth_x2", "links between nodes, twice as fast", [](Machine& m) { double_links(m, false, true); },
     has_both_networks},
    {"network_latency_zero", "network without latency", remove_network_latency},
    {"compute_x2", "matrix products, twice as fast", double_compute},
    {"memory_bandwidth_x2", "memory, twice the bandwidth", double_memory_bandwidth},
    {"offload_bandwidth_x2", "offloading, twice the bandwidth", double_offload_bandwidth, offloads},
    {"host_time_zero", "host that takes no time", [](Machine& m) { m.host_takes_time = false; }},
    {"no_stragglers", "no slow device, no broken link", remove_stragglers},
    {"equal_clocks", "all parts at the mean clock", equalise_clocks, has_unequal_clocks},
}};

void remove_host_time(sim::Plan& plan) {
  for (std::size_t i = 0; i < plan.blocks.size(); ++i) {
    sim::Block& block = plan.blocks[plan.blocks.id(i)];
    block.launch = Duration{};
    for (sim::Op& op : block.ops)
      if (auto* work = std::get_if<sim::HostWork>(&op.work)) work->duration = Duration{};
  }
}

double step_time_on(const Machine& machine, const Scenario& scenario, const workloads::Training& training) {
  const topology::Cluster cluster(machine.cluster);
  const strategies::Job job{
      .model = scenario.model, .training = training, .accelerator = machine.accelerators.front(), .cluster = cluster};
  strategies::PlannedStep step = strategies::plan_on_devices(*scenario.strategy, job, machine.accelerators);
  if (!machine.host_takes_time) remove_host_time(step.plan);
  return sim::to_seconds(sim::run(step.plan, sim::fold(step.plan), {}).step_time);
}

}  // namespace

std::vector<WhatIf> what_if(const Scenario& scenario, const workloads::Training& training, const Result& result) {
  std::vector<WhatIf> answers;
  for (const Change& change : changes) {
    if (!change.matters(scenario, result)) continue;
    Machine machine{.cluster = cluster_request(scenario), .accelerators = scenario.accelerators};
    change.apply(machine);
    answers.push_back({.change = std::string{change.name}, .step_time_s = step_time_on(machine, scenario, training)});
  }
  return answers;
}

std::string_view what_if_words(std::string_view change) {
  const auto* known = std::ranges::find(changes, change, &Change::name);
  return known == changes.end() ? change : known->words;
}

std::string what_if_text(const Result& result) {
  if (result.what_if.empty()) return "";
  std::vector<WhatIf> sorted = result.what_if;
  std::ranges::stable_sort(sorted, {}, &WhatIf::step_time_s);
  constexpr std::size_t width = 34;
  std::string text = "\nWhat would make it faster, each simulated\n";
  for (const WhatIf& answer : sorted) {
    const double saved = 1 - answer.step_time_s / result.step_time_s;
    constexpr double least = 0.0005;  // what rounds to 0.0 %
    text += "  " + padded_right(what_if_words(answer.change), width) +
            padded_left(format_seconds(answer.step_time_s), 9) +
            (std::abs(saved) < least ? "      as it is"
                                     : padded_left(percent(std::abs(saved)), 9) + (saved < 0 ? " more" : " less")) +
            "\n";
  }
  return text;
}

}  // namespace trainyard::scenarios
