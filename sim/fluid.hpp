// Max-min fair sharing of links among the flows that run at the same time.
//
// Rates are a function of the set of running flows and of nothing else: no history, no order, no floating point. A rate
// is an integer in units of 2^-20 byte/s, progress is an exact product of integers, and a division's remainder goes to
// nobody, so that flows which nothing tells apart get the same rate to the last bit, and one representative of each
// kind, with weights counted for all of them, gets it too. A start or a finish solves the connected component of links
// that it touches anew; everything else keeps its rate, which is what solving it again would give.
//
// Progressive filling (Bertsekas and Gallager, Data Networks, section 6.5.2): the links with the lowest level, residual
// capacity over open weight, fix the rates of all their flows together; a flow's own limit is a link of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "sim/network.hpp"

namespace trainyard::sim {

// Bytes left, in units of 2^-20 byte/s x 1 ps.
__extension__ using Volume = unsigned __int128;
constexpr int rate_fraction_bits = 20;

Volume volume_of(Bytes bytes);
// In units of 2^-20 byte/s; rates beyond 8.7 TB/s are TooLarge.
std::uint64_t rate_of(BytesPerSecond rate);
// When `volume` is through at `rate`, rounded up to a picosecond.
std::int64_t time_through(Volume volume, std::uint64_t rate);

class Fluid {
 public:
  explicit Fluid(const Network& network);

  // The flow runs from the next settling on; `limit` in units of 2^-20 byte/s.
  void start(FlowId flow, Volume volume, std::uint64_t limit);
  // The flow is through and leaves its links.
  void finish(FlowId flow);

  // Shares links anew at `now`, which never goes back, and says whose end has changed.
  std::span<const FlowId> settle(std::int64_t now);
  std::int64_t end_of(FlowId flow) const { return flows_[index_of(flow)].end; }
  std::uint64_t rate_of_flow(FlowId flow) const { return flows_[index_of(flow)].rate; }
  bool running(FlowId flow) const { return flows_[index_of(flow)].running; }

  std::uint64_t solved_components() const { return solved_components_; }
  std::uint64_t solved_flows() const { return solved_flows_; }

 private:
  struct FlowState {
    Volume remaining = 0;
    std::uint64_t rate = 0;
    std::uint64_t limit = 0;
    std::int64_t updated = 0;
    std::int64_t end = 0;
    std::uint32_t mark = 0;  // of the component that it was last seen in
    bool running = false;
    bool open = false;  // its rate is not fixed yet
  };
  struct LinkState {
    Volume residual = 0;
    std::uint64_t open_weight = 0;
    std::uint64_t level = 0;
    std::uint32_t mark = 0;
    bool touched = false;
  };
  struct Running {
    FlowId flow{};
    std::uint32_t weight = 0;
    std::size_t crossing = 0;
  };
  struct Level {  // of a link, or the limit of a flow
    std::uint64_t level = 0;
    std::uint32_t index = 0;
    bool operator<(const Level& other) const { return level < other.level; }
    bool operator>(const Level& other) const { return level > other.level; }
  };

  void collect(FlowId seed);  // its component, into flows_here_ and links_here_
  void share();
  void fill();
  void open_flows_and_links();
  void find_levels();  // of the links that were touched
  // Flows that the lowest level fixes, into fixed_now_.
  std::uint64_t take_lowest();
  void fix(FlowId flow, std::uint64_t level);
  void rate(FlowId flow, std::uint64_t rate);
  Volume capacity_of(LinkId link) const;

  const Network& network_;
  std::vector<FlowState> flows_;
  std::vector<LinkState> links_;
  std::vector<std::vector<Running>> running_;  // per link
  std::vector<std::uint32_t> position_;        // of a crossing in its link's list
  std::vector<FlowId> started_;                // since the last settling
  std::vector<LinkId> left_;                   // links that a flow left since then
  std::vector<FlowId> flows_here_;
  std::vector<LinkId> links_here_;
  std::vector<Level> limits_;       // of the component's flows, sorted; those before next_limit_ are fixed
  std::vector<Level> link_levels_;  // a heap with the lowest on top; outdated where the link has another by now
  std::size_t next_limit_ = 0;
  std::vector<FlowId> fixed_now_;
  std::vector<LinkId> touched_;
  std::vector<FlowId> changed_;
  std::int64_t now_ = 0;
  std::uint32_t mark_ = 0;
  std::uint64_t solved_components_ = 0;
  std::uint64_t solved_flows_ = 0;
};

}  // namespace trainyard::sim
