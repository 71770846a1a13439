#include "strategies/traffic.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <utility>

#include "strategies/collectives.hpp"
#include "strategies/internal/connections.hpp"
#include "strategies/internal/group_survey.hpp"

namespace trainyard::strategies {
namespace {

using sim::TrafficPattern;
using topology::Cluster;

double best_efficiency(const topology::Protocols& protocols, double so_far) {
  double best = std::max(so_far, protocols.simple.efficiency);
  if (protocols.ll128) best = std::max(best, protocols.ll128->efficiency);
  return best;
}

// The bytes of a message that takes next to no time of the links are not worth sharing them fairly: the grid of events
// would be finer than anything measured, and the tree of a norm over all ranks would tell like ranks apart. Where that
// begins is an estimate; beside other traffic the error can be larger than a sixteenth.
bool is_latency_bound(const sim::CommunicationCost& cost) {
  constexpr int negligible = 16;
  return (cost.duration - cost.latency) * negligible <= cost.latency;
}

// Over the device's own way to its host, which nobody else uses. Copy engines take no SMs, and the memory traffic is
// small beside what the device's memory does. Launch and completion take some 10 us (an estimate).
sim::CommunicationCost host_copy(const topology::NodeType& node, sim::Bytes bytes) {
  sim::CommunicationCost cost;
  cost.latency = std::chrono::microseconds{10};
  cost.duration = cost.latency + sim::time_for(bytes, node.host_rate);
  cost.traffic = sim::no_traffic;
  cost.algorithm = 255;  // none
  return cost;
}

class TrafficCompiler {
 public:
  TrafficCompiler(sim::Plan& plan, const Cluster& cluster)
      : plan_(plan),
        cluster_(cluster),
        table_(plan.communicators),
        surveyor_(cluster),
        connections_(cluster, surveyor_) {
    const std::size_t links = cluster.link_count();
    user_.assign(links, nobody);
    crossings_.assign(links, 0);
    shares_.assign(table_.size(), false);
    binding_.assign(links, Binding::unknown);
    shared_id_.assign(links, none);
    plan.link_bytes.assign(links, sim::Bytes{});
    const topology::CollectiveTuning& tuning = cluster.node().collectives;
    inside_efficiency_ = best_efficiency(tuning.intra, tuning.point_to_point_intra_efficiency);
    outside_efficiency_ = best_efficiency(tuning.inter, tuning.point_to_point_inter_efficiency);
    if (tuning.tree_inter) outside_efficiency_ = best_efficiency(*tuning.tree_inter, outside_efficiency_);
    for (const topology::Protocol& regime : tuning.nvls)
      inside_efficiency_ = std::max(inside_efficiency_, regime.efficiency);
    for (const topology::Protocol& regime : tuning.nvls_tree)
      outside_efficiency_ = std::max(outside_efficiency_, regime.efficiency);
  }

  void compile() {
    for (const std::string_view algorithm : algorithm_names)
      for (const std::string_view protocol : protocol_names)
        plan_.algorithms.push_back(std::string(algorithm) + " " + std::string(protocol));
    for (const sim::Program& program : plan_.programs) counts_.push_back(sim::call_counts(plan_, program));
    patterns_of_class_.clear();
    for (std::size_t i = 0; i < table_.size(); ++i) survey(sim::CommunicatorId{static_cast<std::uint32_t>(i)});
    for (std::size_t i = 0; i < table_.size(); ++i) emit(sim::CommunicatorId{static_cast<std::uint32_t>(i)});
  }

 private:
  enum class Binding : std::uint8_t { unknown, possible, impossible };
  static constexpr std::uint32_t nobody = 0xffffffff;
  static constexpr std::uint32_t several = 0xfffffffe;
  static constexpr std::uint32_t none = 0xffffffff;
  static constexpr std::uint32_t most_scale = 1U << 12;

  struct ShapeKey {
    std::size_t node_type = 0;
    sim::SlotId first_slot{};
    sim::SlotId last_slot{};
    GroupShape shape;
    auto operator<=>(const ShapeKey&) const = default;
  };

  sim::CostClassId class_of(const sim::Communicator& communicator);
  void add_class(const ShapeKey& key);
  void survey(sim::CommunicatorId id);
  void emit(sim::CommunicatorId id);
  sim::TrafficId emit_shared(sim::CommunicatorId id, TrafficPattern pattern);
  void note_use(sim::CommunicatorId id, const LinkUse& use, sim::Bytes bytes);
  sim::BytesPerSecond limit_alone(std::vector<LinkUse>& uses);
  void merge_like_hops(std::vector<LinkUse>& uses);
  std::uint32_t scaled_weight(const LinkUse& use) const;
  sim::BytesPerSecond usable(topology::LinkId link) const;

  // Asked for every crossing, and not cheap: a leaf's links are compared with all below it.
  bool can_bind(topology::LinkId link) {
    Binding& known = binding_[sim::index_of(link)];
    if (known == Binding::unknown) known = cluster_.can_bind(link) ? Binding::possible : Binding::impossible;
    return known == Binding::possible;
  }

  const Placement& placement() const { return surveyor_.placement(); }

  sim::Plan& plan_;
  const Cluster& cluster_;
  sim::CommunicatorTable& table_;
  Surveyor surveyor_;
  Connections connections_;

  std::map<ShapeKey, sim::CostClassId> classes_;
  std::optional<std::pair<ShapeKey, sim::CostClassId>> latest_class_;
  std::vector<std::vector<TrafficPattern>> patterns_of_class_;  // a traffic each
  std::vector<std::vector<std::int64_t>> counts_;               // calls per program and step
  std::map<std::pair<std::size_t, std::size_t>, std::vector<std::int64_t>>
      flow_bytes_;  // (class, program): per traffic

  double inside_efficiency_ = 1;
  double outside_efficiency_ = 1;
  std::vector<std::uint32_t> user_;          // of each link: the communicator, or `several`
  std::vector<std::uint32_t> crossings_;     // connections on it
  std::vector<bool> shares_;                 // of each communicator: whether it shares any link
  std::vector<sim::BytesPerSecond> limits_;  // of each traffic in turn, where it shares none
  std::size_t next_limit_ = 0;
  std::vector<Binding> binding_;
  std::vector<std::uint32_t> shared_id_;              // in the network
  std::map<topology::LinkId, std::uint32_t> scales_;  // where shares are not whole
};

void TrafficCompiler::add_class(const ShapeKey& key) {
  std::vector<sim::CommunicationCost> row(plan_.calls.size());
  std::vector<TrafficPattern> patterns;
  for (std::size_t c = 0; c < plan_.calls.size(); ++c) {
    const sim::Call& call = plan_.calls[plan_.calls.id(c)];
    if (call.slot != key.first_slot && call.slot != key.last_slot) continue;
    const topology::CollectiveTuning& tuning = cluster_.node_type(key.node_type).collectives;
    if (call.purpose == sim::Purpose::offload) {
      row[c] = host_copy(cluster_.node_type(key.node_type), call.bytes);
      continue;
    }
    row[c] = choose(tuning, key.shape, call.kind, call.bytes).cost;
    // A transfer from point to point has a channel or two: next to nothing.
    if (call.kind != sim::CollectiveKind::send && call.kind != sim::CollectiveKind::receive)
      row[c].interference = static_cast<std::uint16_t>(std::lround(tuning.compute_share * sim::whole_speed));
    if (is_latency_bound(row[c])) {
      row[c].traffic = sim::no_traffic;
      continue;
    }
    const auto known = std::ranges::find(patterns, row[c].pattern);
    row[c].traffic = static_cast<std::uint8_t>(known - patterns.begin());
    if (known == patterns.end()) patterns.push_back(row[c].pattern);
  }
  classes_.emplace(key, plan_.costs.add(std::move(row)));
  patterns_of_class_.push_back(std::move(patterns));
}

sim::CostClassId TrafficCompiler::class_of(const sim::Communicator& communicator) {
  const std::size_t type = surveyor_.node_type_index();
  ShapeKey key{.node_type = type,
               .first_slot = table_.member_slot(communicator, 0),
               .last_slot = table_.member_slot(communicator, communicator.member_count - 1),
               .shape = surveyor_.shape_of(table_, communicator)};
  if (latest_class_ && latest_class_->first == key) return latest_class_->second;
  if (!classes_.contains(key)) add_class(key);
  latest_class_.emplace(key, classes_.at(key));
  return latest_class_->second;
}

// Who uses which link, and what it carries in a step.
void TrafficCompiler::survey(sim::CommunicatorId id) {
  sim::Communicator& communicator = table_[id];
  surveyor_.look_at(table_, communicator);
  communicator.cost = class_of(communicator);
  const std::size_t cost_class = sim::index_of(communicator.cost);
  const auto& patterns = patterns_of_class_[cost_class];
  const std::size_t program = sim::index_of(plan_.program_of[table_.member(communicator, 0)]);
  auto bytes = flow_bytes_.find({cost_class, program});
  if (bytes == flow_bytes_.end()) {
    std::vector<std::int64_t> sums(patterns.size(), 0);
    const auto& row = plan_.costs[communicator.cost];
    const sim::SlotId slot = table_.member_slot(communicator, 0);
    for (std::size_t c = 0; c < row.size(); ++c)
      if (plan_.calls[plan_.calls.id(c)].slot == slot && row[c].traffic != sim::no_traffic)
        sums[row[c].traffic] =
            sim::checked_add(sums[row[c].traffic], sim::checked_multiply(counts_[program][c], row[c].flow_bytes.count));
    bytes = flow_bytes_.emplace(std::pair{cost_class, program}, std::move(sums)).first;
  }
  for (std::size_t t = 0; t < patterns.size(); ++t) {
    std::vector<LinkUse>& uses = connections_.collect(communicator, patterns[t]);
    for (const LinkUse& use : uses) note_use(id, use, sim::Bytes{bytes->second[t]});
    limits_.push_back(shares_[sim::index_of(id)] ? sim::BytesPerSecond{} : limit_alone(uses));
  }
}

void TrafficCompiler::note_use(sim::CommunicatorId id, const LinkUse& use, sim::Bytes bytes) {
  const std::size_t link = sim::index_of(use.link);
  const auto own = static_cast<std::uint32_t>(sim::index_of(id));
  std::uint32_t& user = user_[link];
  if (user == nobody) {
    user = own;
  } else if (user != own) {
    if (user != several) shares_[user] = true;
    user = several;
    shares_[own] = true;
  }
  crossings_[link] += use.numerator;
  plan_.link_bytes[link] +=
      use.numerator == use.denominator ? bytes : sim::scaled(bytes, use.numerator, use.denominator);
  if (use.denominator == 1) return;
  shares_[own] = true;  // or as good as: its weights depend on who else crosses the link
  std::uint32_t& scale = scales_.try_emplace(use.link, 1).first->second;
  const std::uint64_t common = std::lcm(std::uint64_t{scale}, std::uint64_t{use.denominator});
  scale = common > most_scale ? most_scale : static_cast<std::uint32_t>(common);
}

// What the links in `uses`, all whole, allow a connection as long as nobody else uses them.
sim::BytesPerSecond TrafficCompiler::limit_alone(std::vector<LinkUse>& uses) {
  std::ranges::sort(uses, {}, &LinkUse::link);
  std::int64_t limit = std::numeric_limits<std::int64_t>::max();
  for (std::size_t i = 0; i < uses.size();) {
    const topology::LinkId link = uses[i].link;
    std::int64_t weight = 0;
    for (; i < uses.size() && uses[i].link == link; ++i) weight += uses[i].numerator;
    limit = std::min(limit, usable(link).count / weight);
  }
  return uses.empty() ? sim::BytesPerSecond{} : sim::BytesPerSecond{std::max<std::int64_t>(1, limit)};
}

// Rounded once for each communicator and link, where no scale makes it whole.
std::uint32_t TrafficCompiler::scaled_weight(const LinkUse& use) const {
  const auto scale = scales_.find(use.link);
  const std::uint64_t whole = std::uint64_t{use.numerator} * (scale == scales_.end() ? 1 : scale->second);
  const std::uint64_t weight = (whole + use.denominator / 2) / use.denominator;
  return static_cast<std::uint32_t>(std::max<std::uint64_t>(1, weight));
}

// What all connections on a link reach together: as much of its capacity as the best protocol alone.
sim::BytesPerSecond TrafficCompiler::usable(topology::LinkId link) const {
  const topology::Link what = cluster_.link(link);
  const bool inside = what.kind == topology::LinkKind::nvlink || what.kind == topology::LinkKind::pcie ||
                      what.kind == topology::LinkKind::ici;
  return sim::scaled(what.capacity, inside ? inside_efficiency_ : outside_efficiency_);
}

// Hops whose shared links are alike, in capacity and in how many connections cross them, meet like contention and
// advance together: they become one hop. Numbered in the order of the ring.
void TrafficCompiler::merge_like_hops(std::vector<LinkUse>& uses) {
  std::vector<std::uint64_t> signatures(placement().domains.size(), 0);
  for (const LinkUse& use : uses) {
    if (user_[sim::index_of(use.link)] != several || !can_bind(use.link)) continue;
    const auto capacity = static_cast<std::uint64_t>(cluster_.link(use.link).capacity.count);
    // A sum, since the order of links does not matter; multiplied by odd numbers (Knuth) so that sums tell apart.
    const std::uint64_t word = capacity * 0x9e3779b97f4a7c15U + crossings_[sim::index_of(use.link)] + 1;
    signatures[use.hop] += (word ^ (word >> 29)) * 0xbf58476d1ce4e5b9U;
  }
  std::map<std::uint64_t, std::uint32_t> known;
  std::vector<std::uint32_t> merged;
  merged.reserve(signatures.size());
  for (const std::uint64_t signature : signatures)
    merged.push_back(known.try_emplace(signature, static_cast<std::uint32_t>(known.size())).first->second);
  for (LinkUse& use : uses) use.hop = merged[use.hop];
}

sim::TrafficId TrafficCompiler::emit_shared(sim::CommunicatorId id, TrafficPattern pattern) {
  const sim::Communicator& communicator = table_[id];
  std::vector<LinkUse>& uses = connections_.collect(communicator, pattern);
  if (pattern == TrafficPattern::ring && placement().domains.size() > 2)
    merge_like_hops(uses);
  else
    for (LinkUse& use : uses) use.hop = 0;
  std::ranges::sort(uses, {}, [](const LinkUse& use) { return std::pair{use.hop, use.link}; });

  // Links of its own: the flow that loads them most must not exceed them.
  std::int64_t limit = std::numeric_limits<std::int64_t>::max();
  std::vector<std::pair<std::uint32_t, sim::Crossing>> shared;  // hop by hop
  for (std::size_t i = 0; i < uses.size();) {
    const topology::LinkId link = uses[i].link;
    const std::uint32_t hop = uses[i].hop;
    std::uint64_t weight = 0;
    for (; i < uses.size() && uses[i].link == link && uses[i].hop == hop; ++i) weight += scaled_weight(uses[i]);
    const auto scale = scales_.find(link);
    const std::uint32_t scale_here = scale == scales_.end() ? 1 : scale->second;
    if (user_[sim::index_of(link)] != several) {
      __extension__ using Wide = unsigned __int128;
      const Wide most = static_cast<Wide>(usable(link).count) * scale_here / weight;
      limit = static_cast<std::int64_t>(std::min<Wide>(static_cast<Wide>(limit), most));
      continue;
    }
    if (!can_bind(link)) continue;
    if (weight > std::numeric_limits<std::uint32_t>::max())
      throw sim::TooLarge("more connections cross a link than the network's arithmetic holds");
    std::uint32_t& shared_id = shared_id_[sim::index_of(link)];
    if (shared_id == none)
      shared_id = static_cast<std::uint32_t>(sim::index_of(plan_.network.add_link(
          {.capacity = usable(link), .scale = scale_here, .label = static_cast<std::uint32_t>(sim::index_of(link))})));
    shared.push_back({hop, {.link = sim::LinkId{shared_id}, .weight = static_cast<std::uint32_t>(weight)}});
  }
  const bool limited = limit != std::numeric_limits<std::int64_t>::max();
  const sim::TrafficId traffic = plan_.network.begin_traffic(
      limited ? sim::BytesPerSecond{std::max<std::int64_t>(1, limit)} : sim::BytesPerSecond{});
  for (std::size_t i = 0; i < shared.size(); ++i) {
    if (i == 0 || shared[i].first != shared[i - 1].first) plan_.network.begin_flow();
    plan_.network.cross(shared[i].second.link, shared[i].second.weight);
  }
  return traffic;
}

void TrafficCompiler::emit(sim::CommunicatorId id) {
  sim::Communicator& communicator = table_[id];
  const auto& patterns = patterns_of_class_[sim::index_of(communicator.cost)];
  if (shares_[sim::index_of(id)]) surveyor_.look_at(table_, communicator);
  for (std::size_t t = 0; t < patterns.size(); ++t) {
    const sim::TrafficId traffic = shares_[sim::index_of(id)] ? emit_shared(id, patterns[t])
                                                              : plan_.network.begin_traffic(limits_[next_limit_ + t]);
    if (t == 0) communicator.first_traffic = traffic;
  }
  communicator.traffic_count = static_cast<std::uint8_t>(patterns.size());
  next_limit_ += patterns.size();
}

}  // namespace

void price_communications(sim::Plan& plan, const Cluster& cluster) { TrafficCompiler(plan, cluster).compile(); }

void price_communications(sim::Plan& plan, const Job& job) {
  if (!job.for_memory_alone) price_communications(plan, job.cluster);
}

CollectiveChoice choice_of(const sim::Plan& plan, const Cluster& cluster, sim::CommunicatorId communicator,
                           sim::CallId call) {
  Surveyor surveyor(cluster);
  const sim::Communicator& group = plan.communicators[communicator];
  surveyor.look_at(plan.communicators, group);
  return choose(surveyor.node_type().collectives, surveyor.shape_of(plan.communicators, group), plan.calls[call].kind,
                plan.calls[call].bytes);
}

}  // namespace trainyard::strategies
