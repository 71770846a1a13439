#include "sim/fold.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace trainyard::sim {
namespace {

using Colour = std::uint32_t;

// Finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): equal in, equal out, and otherwise as good as random.
constexpr std::uint64_t mixed(std::uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31);
}

// Of a multiset of labelled neighbours: a sum, so that their order does not matter. In 128 bits two different multisets
// among 10^7 meet with a chance of 10^-24.
struct Key {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  bool operator==(const Key&) const = default;
  void add(std::uint64_t label, std::uint64_t colour) {
    const std::uint64_t word = mixed(label * 0x9e3779b97f4a7c15U + colour + 1);
    high += word;
    low += mixed(word ^ 0xd1342543de82ef95U);
  }
};

// The colours of one kind of vertex, and who has to be looked at again.
class Colouring {
 public:
  explicit Colouring(std::size_t vertices)
      : colours_(vertices, 0),
        dirty_mark_(vertices, 1),
        dirty_(vertices),
        keys_(1),
        sizes_(1, static_cast<std::uint32_t>(vertices)),
        leaving_(1, 0),
        largest_(1, none) {
    for (std::size_t i = 0; i < vertices; ++i) dirty_[i] = static_cast<std::uint32_t>(i);
  }

  Colour operator[](std::size_t vertex) const { return colours_[vertex]; }
  std::size_t size() const { return colours_.size(); }
  void look_again_at(std::size_t vertex) {
    if (dirty_mark_[vertex] != 0) return;
    dirty_mark_[vertex] = 1;
    dirty_.push_back(static_cast<std::uint32_t>(vertex));
  }
  bool settled() const { return dirty_.empty(); }

  // Splits the classes of the vertices to be looked at by their keys: `changed(vertex)` for each that gets a new
  // colour. Those of a class that need no look have kept their key, so they keep the colour; where all were looked at,
  // the largest part keeps it.
  template <class KeyOf, class Changed>
  void refine(KeyOf key_of, Changed changed) {
    std::vector<std::uint32_t> dirty;
    dirty.swap(dirty_);
    parts_.begin();
    std::vector<std::pair<std::uint32_t, std::uint32_t>> leaving;  // vertex and its part
    for (const std::uint32_t vertex : dirty) {
      dirty_mark_[vertex] = 0;
      const Colour old = colours_[vertex];
      const Key key = key_of(vertex);
      if (keys_[old] == key) continue;
      leaving.emplace_back(vertex, parts_.join(old, key));
    }
    std::vector<Colour> colour_of_part(parts_.size());
    for (const auto& part : parts_.list()) leaving_[part.old] += part.count;
    for (std::uint32_t p = 0; p < parts_.size(); ++p) {
      const auto& part = parts_.list()[p];
      if (leaving_[part.old] != sizes_[part.old]) continue;
      if (largest_[part.old] == none || parts_.list()[largest_[part.old]].count < part.count) largest_[part.old] = p;
    }
    for (std::uint32_t p = 0; p < parts_.size(); ++p) {
      const auto part = parts_.list()[p];
      if (largest_[part.old] == p) {
        colour_of_part[p] = part.old;
        keys_[part.old] = part.key;
        continue;
      }
      colour_of_part[p] = static_cast<Colour>(keys_.size());
      keys_.push_back(part.key);
      sizes_.push_back(part.count);
      leaving_.push_back(0);
      largest_.push_back(none);
      sizes_[part.old] -= part.count;
    }
    for (const auto& part : parts_.list()) {
      leaving_[part.old] = 0;
      largest_[part.old] = none;
    }
    for (auto& [vertex, part] : leaving) {
      const Colour fresh = colour_of_part[part];
      const bool moved = colours_[vertex] != fresh;
      colours_[vertex] = fresh;
      if (!moved) vertex = none;
    }
    for (const auto& [vertex, part] : leaving)
      if (vertex != none) changed(vertex);
  }

  // Colours counted from 0 in order of their first vertex, so that nothing depends on keys.
  std::vector<Colour> numbered() const {
    constexpr Colour unseen = std::numeric_limits<Colour>::max();
    std::vector<Colour> number(keys_.size(), unseen);
    std::vector<Colour> result(colours_.size());
    Colour next = 0;
    for (std::size_t i = 0; i < colours_.size(); ++i) {
      Colour& here = number[colours_[i]];
      if (here == unseen) here = next++;
      result[i] = here;
    }
    return result;
  }

 private:
  static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

  // The vertices of one class that got the same key. Open addressing, emptied for every round.
  class Parts {
   public:
    struct Part {
      Key key;
      Colour old = 0;
      std::uint32_t count = 0;
    };
    void begin() {
      parts_.clear();
      slots_.assign(64, none);
    }
    std::uint32_t join(Colour old, const Key& key) {
      if (parts_.size() * 2 > slots_.size()) grow();
      std::uint32_t& slot = slots_[place(old, key)];
      if (slot == none) {
        slot = static_cast<std::uint32_t>(parts_.size());
        parts_.push_back({.key = key, .old = old, .count = 0});
      }
      ++parts_[slot].count;
      return slot;
    }
    std::uint32_t size() const { return static_cast<std::uint32_t>(parts_.size()); }
    const std::vector<Part>& list() const { return parts_; }

   private:
    std::size_t place(Colour old, const Key& key) const {
      std::size_t at = (key.low + mixed(old)) & (slots_.size() - 1);
      while (slots_[at] != none && !(parts_[slots_[at]].old == old && parts_[slots_[at]].key == key))
        at = (at + 1) & (slots_.size() - 1);
      return at;
    }
    void grow() {
      slots_.assign(slots_.size() * 4, none);
      for (std::uint32_t i = 0; i < parts_.size(); ++i) slots_[place(parts_[i].old, parts_[i].key)] = i;
    }
    std::vector<Part> parts_;
    std::vector<std::uint32_t> slots_;
  };

  std::vector<Colour> colours_;
  std::vector<std::uint8_t> dirty_mark_;
  std::vector<std::uint32_t> dirty_;
  // Of each colour:
  std::vector<Key> keys_;
  std::vector<std::uint32_t> sizes_;
  std::vector<std::uint32_t> leaving_;  // only within a round
  std::vector<std::uint32_t> largest_;  // likewise
  Parts parts_;
};

// Of each link, the flows that cross it.
class FlowsOfLinks {
 public:
  struct Entry {
    FlowId flow{};
    std::uint32_t weight = 0;
  };
  explicit FlowsOfLinks(const Network& network) : first_(network.links().size() + 1, 0) {
    for (std::size_t f = 0; f < network.flow_count(); ++f)
      for (const Crossing& on : network.crossings(FlowId{static_cast<std::uint32_t>(f)}))
        ++first_[index_of(on.link) + 1];
    for (std::size_t i = 1; i < first_.size(); ++i) first_[i] += first_[i - 1];
    entries_.resize(first_.back());
    std::vector<std::size_t> next(first_.begin(), first_.end() - 1);
    for (std::size_t f = 0; f < network.flow_count(); ++f) {
      const FlowId flow{static_cast<std::uint32_t>(f)};
      for (const Crossing& on : network.crossings(flow)) entries_[next[index_of(on.link)]++] = {flow, on.weight};
    }
  }
  std::span<const Entry> operator[](LinkId link) const {
    return {entries_.data() + first_[index_of(link)], first_[index_of(link) + 1] - first_[index_of(link)]};
  }

 private:
  std::vector<std::size_t> first_;
  std::vector<Entry> entries_;
};

class Refinement {
 public:
  explicit Refinement(const Plan& plan)
      : plan_(plan),
        table_(plan.communicators),
        flows_of_(plan.network),
        communicator_of_(plan.network.flow_count()),
        traffic_of_(plan.network.flow_count()),
        ranks_(plan.program_of.size()),
        communicators_(plan.communicators.size()),
        flows_(plan.network.flow_count()),
        links_(plan.network.links().size()) {
    for (std::size_t i = 0; i < table_.size(); ++i) {
      const CommunicatorId id{static_cast<std::uint32_t>(i)};
      for_each_flow(id, [&](std::uint32_t traffic, FlowId flow) {
        communicator_of_[index_of(flow)] = static_cast<std::uint32_t>(i);
        traffic_of_[index_of(flow)] = traffic;
      });
    }
  }

  void run() {
    do {
      refine_communicators();
      refine_flows();
      refine_links();
      refine_flows();
      refine_communicators();
      refine_ranks();
    } while (!(ranks_.settled() && communicators_.settled() && flows_.settled() && links_.settled()));
  }

  Population population() const;

 private:
  // visit(which of the communicator's traffics, flow)
  template <class Visit>
  void for_each_flow(CommunicatorId id, Visit visit) const {
    const Communicator& communicator = table_[id];
    for (std::uint32_t t = 0; t < communicator.traffic_count; ++t) {
      const Traffic& traffic = plan_.network.traffic()[communicator.traffic_at(t)];
      for (std::uint32_t f = 0; f < traffic.flow_count; ++f) visit(t, FlowId{traffic.first_flow + f});
    }
  }

  void refine_ranks() {
    const std::size_t slots = table_.slots();
    ranks_.refine(
        [&](std::uint32_t vertex) {
          const RankId rank{vertex};
          Key key;
          key.add(1000, index_of(plan_.program_of[rank]));
          key.add(1001, index_of(plan_.device_class(rank)));
          for (std::size_t s = 0; s < slots; ++s) {
            const SlotId slot{static_cast<std::uint8_t>(s)};
            if (table_.has(rank, slot)) key.add(s, communicators_[index_of(table_.of(rank, slot))]);
          }
          return key;
        },
        [&](std::uint32_t vertex) {
          const RankId rank{vertex};
          for (std::size_t s = 0; s < slots; ++s) {
            const SlotId slot{static_cast<std::uint8_t>(s)};
            if (table_.has(rank, slot)) communicators_.look_again_at(index_of(table_.of(rank, slot)));
          }
        });
  }

  void refine_communicators() {
    communicators_.refine(
        [&](std::uint32_t vertex) {
          const CommunicatorId id{vertex};
          const Communicator& communicator = table_[id];
          Key key;
          key.add(1000, index_of(communicator.cost));
          for (std::uint32_t m = 0; m < communicator.member_count; ++m)
            key.add(index_of(table_.member_slot(communicator, m)), ranks_[index_of(table_.member(communicator, m))]);
          for_each_flow(id,
                        [&](std::uint32_t traffic, FlowId flow) { key.add(2000 + traffic, flows_[index_of(flow)]); });
          for (std::uint32_t t = 0; t < communicator.traffic_count; ++t)
            key.add(3000 + t, static_cast<std::uint64_t>(traffic_limit(communicator, t)));
          return key;
        },
        [&](std::uint32_t vertex) {
          const CommunicatorId id{vertex};
          const Communicator& communicator = table_[id];
          for (std::uint32_t m = 0; m < communicator.member_count; ++m)
            ranks_.look_again_at(index_of(table_.member(communicator, m)));
          for_each_flow(id, [&](std::uint32_t, FlowId flow) { flows_.look_again_at(index_of(flow)); });
        });
  }

  std::int64_t traffic_limit(const Communicator& communicator, std::uint32_t t) const {
    return plan_.network.traffic()[communicator.traffic_at(t)].limit.count;
  }

  void refine_flows() {
    flows_.refine(
        [&](std::uint32_t vertex) {
          Key key;
          key.add(1000 + traffic_of_[vertex], communicators_[communicator_of_[vertex]]);
          for (const Crossing& on : plan_.network.crossings(FlowId{vertex}))
            key.add(2000 + std::uint64_t{on.weight}, links_[index_of(on.link)]);
          return key;
        },
        [&](std::uint32_t vertex) {
          communicators_.look_again_at(communicator_of_[vertex]);
          for (const Crossing& on : plan_.network.crossings(FlowId{vertex})) links_.look_again_at(index_of(on.link));
        });
  }

  void refine_links() {
    links_.refine(
        [&](std::uint32_t vertex) {
          const SharedLink& link = plan_.network.links()[LinkId{vertex}];
          Key key;
          key.add(1000, static_cast<std::uint64_t>(link.capacity.count));
          key.add(1001, link.scale);
          for (const FlowsOfLinks::Entry& on : flows_of_[LinkId{vertex}])
            key.add(2000 + std::uint64_t{on.weight}, flows_[index_of(on.flow)]);
          return key;
        },
        [&](std::uint32_t vertex) {
          for (const FlowsOfLinks::Entry& on : flows_of_[LinkId{vertex}]) flows_.look_again_at(index_of(on.flow));
        });
  }

  Network quotient(const Population& population, const std::vector<Colour>& communicator_colours,
                   std::vector<TrafficId>& first_traffic) const;

  const Plan& plan_;
  const CommunicatorTable& table_;
  FlowsOfLinks flows_of_;
  std::vector<std::uint32_t> communicator_of_;  // per flow
  std::vector<std::uint32_t> traffic_of_;       // which of its communicator's
  Colouring ranks_;
  Colouring communicators_;
  Colouring flows_;
  Colouring links_;
};

Population Refinement::population() const {
  Population population;
  const std::vector<Colour> ranks = ranks_.numbered();
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    const RankId stands_for{ranks[i]};
    const RankId rank = plan_.program_of.id(i);
    if (index_of(stands_for) == population.weight.size()) {
      population.program_of.add(plan_.program_of[rank]);
      population.device_class_of.add(plan_.device_class(rank));
      population.weight.add(0);
      population.representative.add(rank);
    }
    ++population.weight[stands_for];
    population.class_of.add(stands_for);
  }

  population.communicators = CommunicatorTable(population.program_of.size(), table_.slots());
  const std::vector<Colour> communicators = communicators_.numbered();
  std::vector<std::pair<RankId, SlotId>> members;
  for (std::size_t i = 0; i < communicators.size(); ++i) {
    const CommunicatorId stands_for{communicators[i]};
    if (index_of(stands_for) == population.communicator_weight.size()) {
      const Communicator& communicator = table_[CommunicatorId{static_cast<std::uint32_t>(i)}];
      members.clear();
      for (std::uint32_t m = 0; m < communicator.member_count; ++m)
        members.emplace_back(population.class_of[table_.member(communicator, m)], table_.member_slot(communicator, m));
      std::ranges::sort(members);
      members.erase(std::unique(members.begin(), members.end()), members.end());
      std::vector<RankId> member_ranks;
      std::vector<SlotId> member_slots;
      for (const auto& [rank, slot] : members) {
        member_ranks.push_back(rank);
        member_slots.push_back(slot);
      }
      Communicator& added = population.communicators[population.communicators.add(member_ranks, member_slots)];
      added.cost = communicator.cost;
      added.traffic_count = communicator.traffic_count;
      population.communicator_weight.add(0);
    }
    ++population.communicator_weight[stands_for];
  }
  std::vector<TrafficId> first_traffic(population.communicators.size());
  population.network = quotient(population, communicators, first_traffic);
  for (std::size_t i = 0; i < first_traffic.size(); ++i)
    population.communicators[CommunicatorId{static_cast<std::uint32_t>(i)}].first_traffic = first_traffic[i];
  return population;
}

Network Refinement::quotient(const Population& population, const std::vector<Colour>& communicator_colours,
                             std::vector<TrafficId>& first_traffic) const {
  const Network& network = plan_.network;
  const std::vector<Colour> flow_colours = flows_.numbered();
  const std::vector<Colour> link_colours = links_.numbered();

  // What crosses the first link of each class, class of flows by class of flows.
  struct Load {
    Colour flow = 0;
    LinkId link{};
    std::uint64_t weight = 0;
  };
  std::vector<Load> loads;
  Network result;
  for (std::size_t l = 0; l < link_colours.size(); ++l) {
    if (link_colours[l] != result.links().size()) continue;
    const LinkId representative{static_cast<std::uint32_t>(l)};
    const LinkId id = result.add_link(network.links()[representative]);
    const std::size_t from = loads.size();
    for (const FlowsOfLinks::Entry& on : flows_of_[representative])
      loads.push_back({.flow = flow_colours[index_of(on.flow)], .link = id, .weight = on.weight});
    const auto here = loads.begin() + static_cast<std::ptrdiff_t>(from);
    std::ranges::sort(here, loads.end(), {}, &Load::flow);
    auto last = here;
    for (auto next = here; next != loads.end(); ++next) {
      if (next == last) continue;
      if (next->flow == last->flow)
        last->weight += next->weight;
      else
        *++last = *next;
    }
    if (here != loads.end()) loads.erase(last + 1, loads.end());
  }
  std::ranges::stable_sort(loads, {}, &Load::flow);

  std::size_t next_communicator = 0;
  for (std::size_t i = 0; i < communicator_colours.size(); ++i) {
    if (communicator_colours[i] != next_communicator) continue;
    ++next_communicator;
    const CommunicatorId id{static_cast<std::uint32_t>(i)};
    const Communicator& communicator = table_[id];
    for (std::uint32_t t = 0; t < communicator.traffic_count; ++t) {
      const Traffic& traffic = network.traffic()[communicator.traffic_at(t)];
      const TrafficId own = result.begin_quotient_of(traffic);
      if (t == 0) first_traffic[next_communicator - 1] = own;
      std::vector<Colour> classes;
      for (std::uint32_t f = 0; f < traffic.flow_count; ++f) classes.push_back(flow_colours[traffic.first_flow + f]);
      std::ranges::sort(classes);
      classes.erase(std::unique(classes.begin(), classes.end()), classes.end());
      for (const Colour flow : classes) {
        result.begin_flow();
        for (auto load = std::ranges::lower_bound(loads, flow, {}, &Load::flow);
             load != loads.end() && load->flow == flow; ++load) {
          if (load->weight > std::numeric_limits<std::uint32_t>::max())
            throw TooLarge("more connections cross a link than the network's arithmetic holds");
          result.cross(load->link, static_cast<std::uint32_t>(load->weight));
        }
      }
    }
  }
  ensure(next_communicator == population.communicators.size(), "every class of communicators has a representative");
  return result;
}

}  // namespace

Population fold(const Plan& plan) {
  Refinement refinement(plan);
  refinement.run();
  return refinement.population();
}

Population everyone(const Plan& plan) {
  Population population;
  population.program_of = plan.program_of;
  population.weight = Table<RankId, std::int64_t>(plan.program_of.size(), 1);
  for (std::size_t i = 0; i < plan.program_of.size(); ++i) {
    population.representative.add(plan.program_of.id(i));
    population.class_of.add(plan.program_of.id(i));
    population.device_class_of.add(plan.device_class(plan.program_of.id(i)));
  }
  population.communicators = plan.communicators;
  population.communicator_weight = Table<CommunicatorId, std::int64_t>(plan.communicators.size(), 1);
  return population;
}

}  // namespace trainyard::sim
