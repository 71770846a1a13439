// Flows from their starts to their ends, by Fluid and the smallest event loop around it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <queue>
#include <utility>
#include <vector>

#include "sim/fluid.hpp"
#include "sim/network.hpp"

namespace trainyard::tests {

// Below what any link of a test has: the flow is limited by links alone.
constexpr std::uint64_t no_limit = std::numeric_limits<std::uint64_t>::max() >> 1;
constexpr std::int64_t giga = 1'000'000'000;

inline sim::LinkId add_link(sim::Network& network, std::int64_t bytes_per_second, std::uint32_t scale = 1) {
  return network.add_link({.capacity = sim::BytesPerSecond{bytes_per_second}, .scale = scale, .label = 0});
}
// A flow of its own traffic.
inline sim::FlowId add_flow(sim::Network& network, const std::vector<sim::Crossing>& crossings) {
  const sim::FlowId flow{static_cast<std::uint32_t>(network.flow_count())};
  network.begin_traffic({});
  network.begin_flow();
  for (const sim::Crossing& on : crossings) network.cross(on.link, on.weight);
  return flow;
}
inline sim::FlowId add_flow(sim::Network& network, std::initializer_list<sim::LinkId> links) {
  std::vector<sim::Crossing> crossings;
  for (const sim::LinkId link : links) crossings.push_back({.link = link, .weight = 1});
  return add_flow(network, crossings);
}

struct Transfer {
  sim::FlowId flow{};
  sim::Bytes bytes{};
  std::int64_t start = 0;
  std::uint64_t limit = no_limit;
};

// Every instant is applied as a whole before links are shared anew, as the executor does. The end of each transfer.
inline std::vector<std::int64_t> ends_of(const sim::Network& network, const std::vector<Transfer>& transfers) {
  using Event = std::pair<std::int64_t, std::size_t>;  // an end, or a start: transfers.size() + which
  std::priority_queue<Event, std::vector<Event>, std::greater<>> queue;
  std::vector<std::size_t> transfer_of(network.flow_count());
  for (std::size_t i = 0; i < transfers.size(); ++i) {
    transfer_of[sim::index_of(transfers[i].flow)] = i;
    queue.emplace(transfers[i].start, transfers.size() + i);
  }
  sim::Fluid fluid(network);
  std::vector<std::int64_t> ends(transfers.size(), -1);
  while (!queue.empty()) {
    const std::int64_t now = queue.top().first;
    while (!queue.empty() && queue.top().first == now) {
      const std::size_t index = queue.top().second;
      queue.pop();
      if (index >= transfers.size()) {
        const Transfer& transfer = transfers[index - transfers.size()];
        fluid.start(transfer.flow, sim::volume_of(transfer.bytes), transfer.limit);
      } else if (const sim::FlowId flow = transfers[index].flow; fluid.running(flow) && fluid.end_of(flow) == now) {
        fluid.finish(flow);
        ends[index] = now;
      }
    }
    for (const sim::FlowId flow : fluid.settle(now))
      queue.emplace(fluid.end_of(flow), transfer_of[sim::index_of(flow)]);
  }
  return ends;
}

}  // namespace trainyard::tests
