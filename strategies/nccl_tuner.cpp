#include "strategies/nccl_tuner.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>

namespace trainyard::strategies {
namespace {

using sim::CollectiveKind;
using topology::Algorithm;
using topology::CollectiveLibrary;
using topology::NcclGeneration;
using topology::NcclLatency;
using topology::ProtocolKind;

// NCCL's order of its protocols.
constexpr std::size_t ll = 0;
constexpr std::size_t ll128 = 1;
constexpr std::size_t simple = 2;
constexpr std::array<ProtocolKind, topology::protocol_kinds> protocol_of{ProtocolKind::ll, ProtocolKind::ll128,
                                                                         ProtocolKind::simple};

// Of the columns for one, two and more nodes.
std::size_t column(std::int64_t nodes) { return static_cast<std::size_t>(std::min<std::int64_t>(nodes, 3) - 1); }

double log2_rounded_down(std::int64_t n) {
  return n <= 1 ? 0.0 : static_cast<double>(std::bit_width(static_cast<std::uint64_t>(n)) - 1);
}

bool is_all_reduce(CollectiveKind kind) {
  return kind == CollectiveKind::all_reduce || kind == CollectiveKind::barrier;
}
bool is_gather_or_scatter(CollectiveKind kind) {
  return kind == CollectiveKind::all_gather || kind == CollectiveKind::reduce_scatter;
}
bool is_rooted(CollectiveKind kind) { return kind == CollectiveKind::broadcast || kind == CollectiveKind::reduce; }

double port_of(const CollectiveLibrary& library, const NcclMachine& machine) {
  const NcclGeneration& generation = library.generations.at(static_cast<std::size_t>(library.generation));
  return library.nvlinks > 0 ? static_cast<double>(library.nvlinks) * generation.nvlink_gb_per_s
                             : machine.port_gb_per_s * library.pci_share;
}

// How many channels of this speed the machine has room for.
double channels_at(double speed, double port, const NcclMachine& machine) {
  if (machine.nodes == 1) return std::floor(port / speed);
  double channels = std::floor(machine.rail_gb_per_s / speed) * static_cast<double>(machine.rails);
  if (machine.most_per_node == 1) return channels;
  // A channel that leaves the node at a device does not take its port too.
  const auto members = static_cast<double>(machine.most_per_node);
  const double relief = machine.rails >= machine.most_per_node ? members / (members - 1) : 1.0;
  return std::min(channels, std::floor(port * relief / speed));
}

NcclGraph ring_graph(const CollectiveLibrary& library, const NcclMachine& machine) {
  const NcclGeneration& generation = library.generations.at(static_cast<std::size_t>(library.generation));
  const double port = port_of(library, machine);
  const std::vector<double>& speeds =
      machine.nodes == 1 ? generation.intra_speeds_gb_per_s : generation.inter_speeds_gb_per_s;
  double best_channels = 0;
  double best_speed = 0;
  for (const double speed : speeds) {  // falling
    if (best_channels > 0 && speed < library.least_speed * best_speed) break;
    double channels = std::min(channels_at(speed, port, machine), static_cast<double>(library.most_channels));
    if (machine.nvlink_rings > 0 && machine.nodes == 1)
      channels = speed <= generation.nvlink_gb_per_s ? static_cast<double>(machine.nvlink_rings) : 0.0;
    if (channels * speed <= best_channels * best_speed) continue;
    best_channels = channels;
    best_speed = speed;
  }
  if (best_channels == 0) {  // slower than any speed that is tried
    best_channels = 1;
    best_speed = machine.nodes == 1 ? port : machine.rail_gb_per_s;
  }
  if (best_speed >= library.doubled_from_gb_per_s) {
    best_channels *= 2;
    best_speed /= 2;
  }
  return {.channels = std::llround(best_channels), .intra_gb_per_s = best_speed, .inter_gb_per_s = best_speed};
}

// Each member is the head of one channel, and sends to all heads; its own share crosses its port once more.
NcclGraph nvls_graph(const CollectiveLibrary& library, const NcclMachine& machine) {
  const NcclGeneration& generation = library.generations.at(static_cast<std::size_t>(library.generation));
  if (generation.nvls_efficiency == 0 || library.nvlinks == 0 || machine.nvlink_rings > 0) return {};
  const auto fastest = [](const std::vector<double>& speeds, double most) {
    for (const double speed : speeds)
      if (speed <= most) return speed;
    return most;
  };
  const auto heads = static_cast<double>(machine.most_per_node);
  const double network = machine.rail_gb_per_s * static_cast<double>(machine.rails) / heads;
  return {.channels = machine.most_per_node,
          .intra_gb_per_s = fastest(generation.intra_speeds_gb_per_s, port_of(library, machine) / (heads + 1)),
          .inter_gb_per_s = machine.nodes == 1 ? 0.0 : fastest(generation.inter_speeds_gb_per_s, network)};
}

// One operation on one group, with what its formulas share.
class Model {
 public:
  Model(const CollectiveLibrary& library, const NcclGroup& group, CollectiveKind kind)
      : library_(library),
        generation_(library.generations.at(static_cast<std::size_t>(library.generation))),
        cpu_(library.cpus.at(static_cast<std::size_t>(library.cpu))),
        group_(group),
        kind_(kind),
        local_(static_cast<double>(group.members) / static_cast<double>(group.nodes)) {
    const auto members = static_cast<double>(group.members);
    steps_ = is_all_reduce(kind) ? 2 * (members - 1) : is_rooted(kind) ? members : members - 1;
  }

  bool allows(Algorithm algorithm, std::size_t protocol) const;
  double latency_us(Algorithm algorithm, std::size_t protocol) const;
  double gb_per_s(Algorithm algorithm, std::size_t protocol) const;  // of the message
  double time_us(Algorithm algorithm, std::size_t protocol, double latency, double bandwidth, sim::Bytes bytes) const;

 private:
  const NcclLatency& latency_of(Algorithm algorithm) const {
    const auto& known = CollectiveLibrary::algorithms;
    return library_.latency.at(static_cast<std::size_t>(std::ranges::find(known, algorithm) - known.begin()));
  }
  double intra_hop(Algorithm algorithm, std::size_t protocol) const {
    const NcclLatency& latency = latency_of(algorithm);
    return library_.nvlinks > 0 ? latency.nvlink_us.at(protocol) : latency.pci_us.at(protocol);
  }
  double inter_hop(Algorithm algorithm, std::size_t protocol) const {
    const bool as_tree = algorithm == Algorithm::ring && local_ <= 1;
    return latency_of(as_tree ? Algorithm::tree : algorithm).network_us.at(protocol);
  }
  double ring_latency(std::size_t protocol) const;
  double ring_bandwidth(double all, std::size_t protocol) const;
  double tree_bandwidth(double all, std::size_t protocol) const;
  double nvls_bandwidth(Algorithm algorithm) const;
  double bus_bandwidth(Algorithm algorithm, std::size_t protocol) const;

  const CollectiveLibrary& library_;
  const NcclGeneration& generation_;
  const topology::NcclCpu& cpu_;
  const NcclGroup& group_;
  CollectiveKind kind_;
  double local_;
  double steps_ = 0;
};

bool Model::allows(Algorithm algorithm, std::size_t protocol) const {
  if (latency_of(algorithm).simple_only && protocol != simple) return false;
  if (protocol == ll128 && library_.nvlinks == 0) return false;
  const bool over_nodes = group_.nodes > 1;
  const bool few = local_ <= static_cast<double>(library_.most_local_for_collnet);
  switch (algorithm) {
    case Algorithm::ring:
      return true;
    case Algorithm::tree:
      return is_all_reduce(kind_);
    case Algorithm::collnet_direct:
      return group_.sharp && over_nodes && few && !is_rooted(kind_);
    case Algorithm::collnet_chain:
      return group_.sharp && over_nodes && few && is_all_reduce(kind_);
    case Algorithm::nvls:
      return group_.nvls.channels > 1 && (!over_nodes || group_.sharp) &&
             (is_all_reduce(kind_) ||
              (is_gather_or_scatter(kind_) && local_ <= static_cast<double>(library_.most_local_for_nvls)));
    case Algorithm::nvls_tree:
      return group_.nvls.channels > 1 && over_nodes && is_all_reduce(kind_);
    case Algorithm::pat:
      return is_gather_or_scatter(kind_) && over_nodes && local_ <= 1;
    default:
      return false;
  }
}

double Model::ring_latency(std::size_t protocol) const {
  const double network = inter_hop(Algorithm::ring, protocol);
  const double inside = intra_hop(Algorithm::ring, protocol);
  if (group_.nodes == 1) return is_rooted(kind_) ? inside : steps_ * inside;
  if (is_rooted(kind_)) return network;
  const double overhead = cpu_.ring_overhead_us * (protocol == simple ? 3 : 1);
  const double crossings = (is_all_reduce(kind_) ? 2 : 1) * static_cast<double>(group_.nodes - 1);
  return (steps_ - crossings) * std::max(inside, overhead) + crossings * network;
}

double Model::latency_us(Algorithm algorithm, std::size_t protocol) const {
  const double base = latency_of(algorithm).base_us.at(protocol);
  const double inside = intra_hop(algorithm, protocol);
  const double network = inter_hop(algorithm, protocol);
  const double depth = log2_rounded_down(group_.nodes);
  switch (algorithm) {
    case Algorithm::ring:
      return base + ring_latency(protocol);
    case Algorithm::tree:
      return base + 2 * ((local_ - 1) * inside + depth * network);
    case Algorithm::nvls:
      return base + inside + (group_.nodes > 1 ? network : 0);
    case Algorithm::nvls_tree:
      return base + inside + 2 * depth * network;
    case Algorithm::collnet_direct:
      return base +
             2 * (std::min(1.0, local_ - 1) * inside + (local_ - 1) * library_.factors.collnet_direct_share * inside) +
             network;
    case Algorithm::collnet_chain:
      return base + 2 * (local_ - 1) * inside + network;
    default:  // PAT
      return base + depth * network / library_.factors.pat_hop_divisor +
             library_.factors.pat_member_us * static_cast<double>(group_.members);
  }
}

double Model::ring_bandwidth(double all, std::size_t protocol) const {
  if (protocol == ll) {
    // On one node the GPU limits LL, on several the processor does.
    const auto row = static_cast<std::size_t>(group_.nodes == 1 ? library_.generation : cpu_.ll_generation);
    return std::min(library_.generations.at(row).ll_gb_per_s.at(column(group_.nodes)), library_.factors.ring_ll * all);
  }
  if (protocol == simple) return all;
  return std::min(library_.factors.ring_ll128 * all,
                  static_cast<double>(group_.ring.channels) * generation_.ring_ll128_gb_per_s.at(column(group_.nodes)));
}

double Model::tree_bandwidth(double all, std::size_t protocol) const {
  const topology::NcclFactors& factors = library_.factors;
  const std::size_t nodes = column(group_.nodes);
  const auto channels = static_cast<double>(group_.ring.channels);
  double bandwidth = std::min(factors.tree * all, channels * generation_.tree_gb_per_s.at(nodes));
  if (protocol == ll) {
    const auto row = static_cast<std::size_t>(group_.nodes == 1 ? library_.generation : cpu_.ll_generation);
    bandwidth = std::min(bandwidth / factors.tree_ll, library_.generations.at(row).ll_gb_per_s.at(nodes));
  }
  if (protocol == ll128)
    bandwidth = std::min(bandwidth * (group_.nodes == 1 ? factors.tree_ll128_one_node : factors.tree_ll128),
                         channels * generation_.tree_ll128_gb_per_s.at(nodes));
  return group_.tree_by_one_gpu ? bandwidth * factors.one_gpu : bandwidth;
}

double Model::nvls_bandwidth(Algorithm algorithm) const {
  const auto heads = static_cast<double>(group_.nvls.channels);
  double channel = group_.nvls.intra_gb_per_s * generation_.nvls_efficiency * (heads - 1) / heads *
                   (is_all_reduce(kind_) ? 2 : (local_ - 1) / local_);
  if (group_.nodes > 1) {
    const bool doubled = algorithm == Algorithm::nvls_tree && group_.nodes == 2;
    channel = std::min(channel, group_.nvls.inter_gb_per_s * (doubled ? 2 : 1));
  }
  if (algorithm == Algorithm::nvls_tree)
    channel = std::min(channel, generation_.nvls_tree_gb_per_s.at(column(group_.nodes)));
  return heads * channel;
}

double Model::bus_bandwidth(Algorithm algorithm, std::size_t protocol) const {
  const NcclGraph& ring = group_.ring;
  const bool collnet = algorithm == Algorithm::collnet_direct || algorithm == Algorithm::collnet_chain;
  const auto channels = static_cast<double>(ring.channels);
  const double all = channels * (group_.nodes <= 2 || collnet ? ring.intra_gb_per_s : ring.inter_gb_per_s);
  switch (algorithm) {
    case Algorithm::ring:
      return ring_bandwidth(all, protocol);
    case Algorithm::tree:
      return tree_bandwidth(all, protocol);
    case Algorithm::nvls:
    case Algorithm::nvls_tree:
      return nvls_bandwidth(algorithm);
    case Algorithm::collnet_direct: {
      if (!is_all_reduce(kind_)) return local_ * std::min(ring.intra_gb_per_s, 0.9 * ring.inter_gb_per_s);
      const double devices_per_adapter = std::max(1.0, local_ / channels);
      const bool slower = generation_.nvls_efficiency > 0;
      return all / (devices_per_adapter - (devices_per_adapter - 1) / 2) *
             (slower ? library_.factors.collnet_direct : 1);
    }
    case Algorithm::collnet_chain:
      return all;
    default:
      return all * library_.factors.pat;
  }
}

double Model::gb_per_s(Algorithm algorithm, std::size_t protocol) const {
  const double bus = bus_bandwidth(algorithm, protocol);
  const bool ring = algorithm == Algorithm::ring;
  if (is_gather_or_scatter(kind_) && !ring) return bus;
  if (ring || algorithm == Algorithm::nvls || algorithm == Algorithm::nvls_tree)
    return bus * static_cast<double>(group_.members) / steps_;
  return bus / 2;
}

double Model::time_us(Algorithm algorithm, std::size_t protocol, double latency, double bandwidth,
                      sim::Bytes bytes) const {
  const auto size = static_cast<std::uint64_t>(bytes.count);
  if (is_all_reduce(kind_)) {
    const std::size_t doublings = size < 128 ? 0 : static_cast<std::size_t>(std::bit_width(size / 64) - 1);
    const bool blackwell = library_.generation == 3;
    const std::vector<double>& factors = library_.factors.tree_correction.at(protocol);
    // Of the table's last factor only the tree in the switches of Blackwell makes use.
    const bool tree = algorithm == Algorithm::tree && doublings + 1 < factors.size();
    const bool nvls_tree = algorithm == Algorithm::nvls_tree && blackwell && doublings < factors.size();
    if (tree || nvls_tree) bandwidth *= factors[doublings];
    const double per_member = static_cast<double>(bytes.count) /
                              (static_cast<double>(group_.ring.channels) * static_cast<double>(group_.members));
    if (algorithm == Algorithm::ring && protocol == simple && group_.nodes > 1 && per_member >= 64)
      latency *= generation_.ring_plateau;
  }
  return latency + static_cast<double>(bytes.count) / (1000 * bandwidth);
}

}  // namespace

NcclGroup nccl_group(const CollectiveLibrary& library, const NcclMachine& machine) {
  return {.members = machine.members,
          .nodes = machine.nodes,
          .ring = ring_graph(library, machine),
          .nvls = nvls_graph(library, machine),
          .tree_by_one_gpu = false,
          .sharp = machine.sharp};
}

std::vector<NcclPrediction> nccl_predictions(const CollectiveLibrary& library, const NcclGroup& group,
                                             CollectiveKind kind, sim::Bytes bytes) {
  std::vector<NcclPrediction> predictions;
  if (group.members < 2 || !(is_all_reduce(kind) || is_gather_or_scatter(kind) || is_rooted(kind))) return predictions;
  const Model model(library, group, kind);
  for (const Algorithm algorithm : CollectiveLibrary::algorithms) {
    for (std::size_t protocol = 0; protocol < topology::protocol_kinds; ++protocol) {
      if (!model.allows(algorithm, protocol)) continue;
      const double bandwidth = model.gb_per_s(algorithm, protocol);
      if (!(bandwidth > 0)) continue;
      const double latency = model.latency_us(algorithm, protocol);
      predictions.push_back({.algorithm = algorithm,
                             .protocol = protocol_of.at(protocol),
                             .latency_us = latency,
                             .gb_per_s = bandwidth,
                             .time_us = model.time_us(algorithm, protocol, latency, bandwidth, bytes)});
    }
  }
  std::ranges::stable_sort(predictions, {}, &NcclPrediction::time_us);
  return predictions;
}

}  // namespace trainyard::strategies
