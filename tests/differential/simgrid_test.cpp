// Shares of links against SimGrid and against closed forms.
//
// SimGrid (Casanova et al., JPDC 74(10), 2014) shares links max-min fairly too, with its model CM02 where TCP's window
// and the traffic of acknowledgements are switched off. It weighs shares by round-trip time, so every route gets the
// same latency, and it compares in floating point, so its precision is tightened.
#include <gtest/gtest.h>
#ifdef TRAINYARD_SIMGRID
#include <simgrid/s4u.hpp>
#endif

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "sim/fluid.hpp"
#include "tests/support/fluid_run.hpp"

namespace trainyard::sim {
namespace {

using tests::add_flow;
using tests::add_link;
using tests::ends_of;
using tests::giga;
using tests::Transfer;

#ifdef TRAINYARD_SIMGRID

// Before bytes flow, on every route.
constexpr double route_latency_s = 0.001;
constexpr std::int64_t route_latency_ps = 1'000'000'000;

struct Case {
  Network network;
  std::vector<Transfer> transfers;  // one per flow, in the order of flows
};

// Flows over up to five of a few links, some with a limit, that come and go; round figures tie, odd ones do not.
Case random_case(std::uint64_t seed) {
  std::mt19937_64 bits(seed);
  const auto below = [&](std::uint64_t limit) { return static_cast<std::uint32_t>(bits() % limit); };
  const bool round = below(2) == 0;
  Case drawn;
  const std::uint32_t links = 1 + below(10);
  for (std::uint32_t l = 0; l < links; ++l)
    add_link(drawn.network, round ? (1 + below(4)) * 25 * giga : giga + below(1'000'000'000) * std::int64_t{100});
  const std::uint32_t flows = 1 + below(25);
  for (std::uint32_t f = 0; f < flows; ++f) {
    std::vector<LinkId> crossed;
    for (std::uint32_t i = 1 + below(5); i > 0; --i) crossed.push_back(LinkId{below(links)});
    std::ranges::sort(crossed);
    crossed.erase(std::unique(crossed.begin(), crossed.end()), crossed.end());
    std::vector<Crossing> crossings;
    for (const LinkId link : crossed) crossings.push_back({.link = link, .weight = 1});
    Transfer transfer{.flow = add_flow(drawn.network, crossings)};
    transfer.bytes =
        Bytes{round ? (1 + below(10)) * 100 * giga : giga + static_cast<std::int64_t>(bits() % (1000 * giga))};
    transfer.start = static_cast<std::int64_t>(below(20)) * 1'000'000'000'000;
    if (below(4) == 0) transfer.limit = rate_of(BytesPerSecond{(1 + below(20)) * giga});
    drawn.transfers.push_back(transfer);
  }
  return drawn;
}

// SimGrid's clock at the end of every flow of every case. All cases run in one simulation, which knows one clock only,
// and each on links of its own.
std::vector<std::vector<double>> simgrid_ends(const std::vector<Case>& cases) {
  namespace sg = simgrid::s4u;
  std::array<std::string, 2> words{"simgrid_test", "--log=xbt_cfg.threshold:warning"};  // says what it is set to
  std::array<char*, 3> arguments{words[0].data(), words[1].data(), nullptr};
  int count = 2;
  sg::Engine engine(&count, arguments.data());
  for (const char* const setting :
       {"network/model:CM02", "network/TCP-gamma:0", "network/crosstraffic:0", "network/weight-S:0",
        "network/latency-factor:1", "network/bandwidth-factor:1", "maxmin/precision:1e-9", "surf/precision:1e-12"})
    sg::Engine::set_config(setting);

  sg::NetZone* const world = sg::create_full_zone("world");
  std::vector<std::vector<double>> ends(cases.size());
  for (std::size_t c = 0; c < cases.size(); ++c) {
    const Network& network = cases[c].network;
    const std::string prefix = "case " + std::to_string(c) + " ";
    sg::NetZone* const zone = sg::create_full_zone(prefix)->set_parent(world);
    std::vector<const sg::Link*> links;
    for (std::size_t l = 0; l < network.links().size(); ++l) {
      const auto capacity = static_cast<double>(network.links()[network.links().id(l)].capacity.count);
      links.push_back(zone->create_link(prefix + "link " + std::to_string(l), capacity)->set_latency(0)->seal());
    }
    ends[c].resize(cases[c].transfers.size());
    for (std::size_t f = 0; f < cases[c].transfers.size(); ++f) {
      const Transfer& transfer = cases[c].transfers[f];
      const std::string name = prefix + "flow " + std::to_string(f);
      sg::Host* const from = zone->create_host(name + " from", 1e9)->seal();
      sg::Host* const to = zone->create_host(name + " to", 1e9)->seal();
      // A link of the flow's own brings its latency, and its limit where it has one.
      const double limit =
          transfer.limit == tests::no_limit ? 1e18 : static_cast<double>(transfer.limit >> rate_fraction_bits);
      std::vector<sg::LinkInRoute> route{
          sg::LinkInRoute(zone->create_link(name + " own", limit)->set_latency(route_latency_s)->seal())};
      for (const Crossing& on : network.crossings(transfer.flow)) route.emplace_back(links[index_of(on.link)]);
      zone->add_route(from->get_netpoint(), to->get_netpoint(), nullptr, nullptr, route, false);
      sg::Actor::create(name, from, [from, to, transfer, end = &ends[c][f]] {
        sg::this_actor::sleep_for(static_cast<double>(transfer.start) * 1e-12);
        sg::Comm::sendto(from, to, static_cast<std::uint64_t>(transfer.bytes.count));
        *end = sg::Engine::get_clock();
      });
    }
    zone->seal();
  }
  world->seal();
  engine.run();
  return ends;
}

TEST(SimGridTest, FinishesRandomFlowsOnRandomNetworksWithinAMillionth) {
  std::vector<Case> cases;
  for (std::uint64_t seed = 1; seed <= 300; ++seed) cases.push_back(random_case(seed));
  const std::vector<std::vector<double>> expected = simgrid_ends(cases);
  double worst = 0;
  std::size_t flows = 0;
  for (std::size_t c = 0; c < cases.size(); ++c) {
    SCOPED_TRACE("seed " + std::to_string(c + 1));
    std::vector<Transfer> delayed = cases[c].transfers;
    for (Transfer& transfer : delayed) transfer.start += route_latency_ps;
    const std::vector<std::int64_t> ends = ends_of(cases[c].network, delayed);
    for (std::size_t f = 0; f < ends.size(); ++f) {
      const double seconds = static_cast<double>(ends[f]) * 1e-12;
      EXPECT_NEAR(seconds, expected[c][f], 1e-6 * seconds) << "flow " << f;
      worst = std::max(worst, std::abs(seconds - expected[c][f]) / seconds);
      ++flows;
    }
    if (HasFailure()) return;
  }
  EXPECT_GT(flows, 3000U);
  RecordProperty("worst_relative_difference_1e12", std::to_string(worst * 1e12));
}

#endif

// Closed forms

TEST(ClosedFormTest, IncastOfSixtyThreeIsBoundByTheReceiver) {
  // Hosts of 50 GB/s under one switch.
  Network network;
  const LinkId receiver = add_link(network, 50 * giga);
  std::vector<Transfer> transfers;
  for (int i = 0; i < 63; ++i)
    transfers.push_back({.flow = add_flow(network, {add_link(network, 50 * giga), receiver}), .bytes = Bytes{giga}});
  const std::int64_t bound = time_for(Bytes{63 * giga}, BytesPerSecond{50 * giga}).count();
  for (const std::int64_t end : ends_of(network, transfers)) {
    EXPECT_GE(end, bound);
    EXPECT_LE(end, bound + bound / 1000);
    EXPECT_LE(end, bound + 1);  // in fact: to the picosecond that the remainder of the division costs
  }
}

// A fat tree of two tiers (Al-Fares et al., SIGCOMM 2008, for what non-blocking means) with a spine cable for each host
// of a leaf. Adaptive routing spreads a connection over all spines, so that a leaf's cables are one bundle.
struct FatTree {
  static constexpr std::uint32_t leaf_hosts = 16;
  Network network;
  std::vector<LinkId> out, in, up, down;
  FatTree(std::uint32_t hosts, std::int64_t nic) {
    for (std::uint32_t h = 0; h < hosts; ++h) {
      out.push_back(add_link(network, nic));
      in.push_back(add_link(network, nic));
    }
    for (std::uint32_t l = 0; l < hosts / leaf_hosts; ++l) {
      up.push_back(add_link(network, nic * leaf_hosts));
      down.push_back(add_link(network, nic * leaf_hosts));
    }
  }
  std::vector<LinkId> route(std::uint32_t from, std::uint32_t to) const {
    if (from / leaf_hosts == to / leaf_hosts) return {out[from], in[to]};
    return {out[from], up[from / leaf_hosts], down[to / leaf_hosts], in[to]};
  }
};

TEST(ClosedFormTest, AllToAllOf256HostsOnANonBlockingFatTreeIsOneDivision) {
  constexpr std::uint32_t hosts = 256;
  constexpr std::int64_t nic = 255 * std::int64_t{196'078'431};  // about 50 GB/s, and the share of a flow is whole
  const Bytes each{1'000'000};
  FatTree tree(hosts, nic);
  std::vector<Transfer> transfers;
  for (std::uint32_t from = 0; from < hosts; ++from)
    for (std::uint32_t to = 0; to < hosts; ++to) {
      if (from == to) continue;
      std::vector<Crossing> crossings;
      for (const LinkId link : tree.route(from, to)) crossings.push_back({.link = link, .weight = 1});
      transfers.push_back({.flow = add_flow(tree.network, crossings), .bytes = each});
    }
  ASSERT_EQ(transfers.size(), 65'280U);
  const std::int64_t expected = time_for(each * (hosts - 1), BytesPerSecond{nic}).count();
  EXPECT_EQ(ends_of(tree.network, transfers), std::vector<std::int64_t>(transfers.size(), expected));
}

TEST(ClosedFormTest, AllToAllAsOneFlowIsTheSameDivision) {
  constexpr std::uint32_t hosts = 256;
  constexpr std::int64_t nic = 50 * giga;
  FatTree tree(hosts, nic);
  std::vector<std::uint32_t> weight(tree.network.links().size(), 0);
  for (std::uint32_t from = 0; from < hosts; ++from)
    for (std::uint32_t to = 0; to < hosts; ++to)
      if (from != to)
        for (const LinkId link : tree.route(from, to)) ++weight[index_of(link)];
  std::vector<Crossing> crossings;
  for (std::uint32_t l = 0; l < weight.size(); ++l) crossings.push_back({.link = LinkId{l}, .weight = weight[l]});
  const FlowId flow = add_flow(tree.network, crossings);
  // A share of 2^-20 byte/s rounded down costs less than a picosecond here.
  const std::int64_t expected = time_for(Bytes{1'000'000 * 255}, BytesPerSecond{nic}).count();
  const std::int64_t end = ends_of(tree.network, {{.flow = flow, .bytes = Bytes{1'000'000}}}).front();
  EXPECT_GE(end, expected);
  EXPECT_LE(end, expected + 1);
}

TEST(ClosedFormTest, AnOversubscribedTreeIsBoundByItsUplinks) {
  // Every host of a leaf sends to its like of the next leaf, with a quarter of the cables.
  constexpr std::uint32_t hosts = 64;
  constexpr std::int64_t nic = 40 * giga;
  FatTree tree(hosts, nic);
  Network network;
  for (const SharedLink& link : tree.network.links()) {
    const bool uplink = link.capacity.count > nic;
    add_link(network, uplink ? link.capacity.count / 4 : nic);
  }
  std::vector<Transfer> transfers;
  for (std::uint32_t from = 0; from < hosts; ++from) {
    std::vector<Crossing> crossings;
    for (const LinkId link : tree.route(from, (from + FatTree::leaf_hosts) % hosts))
      crossings.push_back({.link = link, .weight = 1});
    transfers.push_back({.flow = add_flow(network, crossings), .bytes = Bytes{giga}});
  }
  EXPECT_EQ(ends_of(network, transfers), std::vector<std::int64_t>(hosts, 100'000'000'000));
}

}  // namespace
}  // namespace trainyard::sim
