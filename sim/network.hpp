// The links that communications have to share, and what crosses them.
//
// A communicator's algorithm opens connections. One *flow* stands for connections that advance together: all of a ring,
// or a single hop of it where hops meet different contention. A flow crosses a link with a weight, the number of its
// connections there; it moves at a rate r per connection, loads the link with weight x r, and rates are the max-min
// fair ones under every link's capacity and every flow's own limit. Links that only one communicator uses, and links
// that can never fill before another one does, are not here: the first limit that communicator, the others nobody.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "sim/table.hpp"
#include "sim/units.hpp"

namespace trainyard::sim {

enum class LinkId : std::uint32_t {};
enum class FlowId : std::uint32_t {};
enum class TrafficId : std::uint32_t {};

// Weights on a link are multiples of 1 / scale, so that shares of sprayed connections are integers too.
struct SharedLink {
  BytesPerSecond capacity{};
  std::uint32_t scale = 1;
  std::uint32_t label = 0;  // whoever made the plan knows which cable this is; nothing else depends on it
  auto operator<=>(const SharedLink&) const = default;
};

struct Crossing {
  LinkId link{};
  std::uint32_t weight = 0;  // connections x scale of the link
  auto operator<=>(const Crossing&) const = default;
};

// What one algorithm of one communicator sends at the same time.
struct Traffic {
  std::uint32_t first_flow = 0;
  std::uint32_t flow_count = 0;  // 0: it shares no link with anyone
  BytesPerSecond limit{};        // of a connection, by links that only this communicator uses; 0: none
  std::uint32_t hops = 0;        // flows of the plan: as many as flow_count until folding leaves one of each kind
};

class Network {
 public:
  LinkId add_link(const SharedLink& link) { return links_.add(link); }
  // Flows of a traffic are added one after the other, the crossings of a flow likewise; a link at most once per flow.
  TrafficId begin_traffic(BytesPerSecond limit) {
    return traffic_.add(
        {.first_flow = static_cast<std::uint32_t>(flow_count()), .flow_count = 0, .limit = limit, .hops = 0});
  }
  // As `original` but with the flows that follow, which stand for its own.
  TrafficId begin_quotient_of(const Traffic& original) {
    const TrafficId id = begin_traffic(original.limit);
    traffic_[id].hops = original.hops;
    return id;
  }
  void begin_flow() {
    first_crossing_.push_back(crossings_.size());
    Traffic& traffic = traffic_[traffic_.id(traffic_.size() - 1)];
    ++traffic.flow_count;
    traffic.hops = std::max(traffic.hops, traffic.flow_count);
  }
  void cross(LinkId link, std::uint32_t weight) {
    crossings_.push_back({.link = link, .weight = weight});
    first_crossing_.back() = crossings_.size();
  }

  const Table<LinkId, SharedLink>& links() const { return links_; }
  const Table<TrafficId, Traffic>& traffic() const { return traffic_; }
  std::size_t flow_count() const { return first_crossing_.size() - 1; }
  std::size_t crossing_count() const { return crossings_.size(); }
  std::span<const Crossing> crossings(FlowId flow) const {
    const std::size_t from = first_crossing_[index_of(flow)];
    return {crossings_.data() + from, first_crossing_[index_of(flow) + 1] - from};
  }
  std::size_t first_crossing(FlowId flow) const { return first_crossing_[index_of(flow)]; }

 private:
  Table<LinkId, SharedLink> links_;
  Table<TrafficId, Traffic> traffic_;
  std::vector<std::size_t> first_crossing_{0};  // per flow, and the end
  std::vector<Crossing> crossings_;
};

}  // namespace trainyard::sim
