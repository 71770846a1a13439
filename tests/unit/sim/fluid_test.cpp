#include "sim/fluid.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "tests/support/fluid_run.hpp"

namespace trainyard::sim {
namespace {

using tests::add_flow;
using tests::add_link;
using tests::ends_of;
using tests::giga;
using tests::no_limit;

constexpr std::int64_t one_byte_per_second = std::int64_t{1} << rate_fraction_bits;  // as a rate
constexpr Bytes gibibyte{std::int64_t{1} << 30};

// Starts them all at time zero.
std::vector<std::uint64_t> rates_of(const Network& network, const std::vector<FlowId>& flows,
                                    std::uint64_t limit = no_limit) {
  Fluid fluid(network);
  for (const FlowId flow : flows) fluid.start(flow, volume_of(Bytes{1}), limit);
  fluid.settle(0);
  std::vector<std::uint64_t> rates;
  for (const FlowId flow : flows) rates.push_back(fluid.rate_of_flow(flow));
  return rates;
}

TEST(FluidTest, AloneEndsToThePicosecondWhenTheClosedFormSays) {
  std::mt19937_64 bits(1);
  for (int i = 0; i < 2000; ++i) {
    const Bytes bytes{static_cast<std::int64_t>(1 + (bits() >> (24 + bits() % 36)))};
    const BytesPerSecond capacity{static_cast<std::int64_t>(1 + (bits() >> (24 + bits() % 16)))};
    if (static_cast<double>(bytes.count) > 1e6 * static_cast<double>(capacity.count)) continue;  // 11 days
    Network network;
    const FlowId flow = add_flow(network, {add_link(network, capacity.count), add_link(network, capacity.count * 2)});
    EXPECT_EQ(ends_of(network, {{.flow = flow, .bytes = bytes}}).front(), time_for(bytes, capacity).count());
  }
}

TEST(FluidTest, WholeAndHugeMessagesAloneAreNotAPicosecondLate) {
  for (const std::int64_t gibibytes : {1, 64}) {
    const Bytes bytes = gibibyte * gibibytes;
    Network network;
    const FlowId flow = add_flow(network, {add_link(network, 50 * giga)});
    const std::vector<std::int64_t> ends = ends_of(network, {{.flow = flow, .bytes = bytes, .start = 17}});
    EXPECT_EQ(ends.front(), 17 + gibibytes * 21'474'836'480);
  }
}

TEST(FluidTest, ReRatingAtTheSameRateKeepsTheEnd) {
  // The other flow starts and ends where nothing is scarce; what it shares a link with is not even said to have
  // changed.
  Network network;
  const LinkId link = add_link(network, 100 * giga);
  const FlowId first = add_flow(network, {link});
  const FlowId second = add_flow(network, {link});
  Fluid fluid(network);
  const std::uint64_t limit = rate_of(BytesPerSecond{7'777'777'777});
  fluid.start(first, volume_of(gibibyte), limit);
  fluid.settle(0);
  const std::int64_t end = fluid.end_of(first);
  for (std::int64_t now = 1000; now < 100'000; now += 1001) {
    fluid.start(second, volume_of(Bytes{1}), limit);
    EXPECT_EQ(fluid.settle(now).size(), 1U);
    fluid.finish(second);
    EXPECT_TRUE(fluid.settle(now + 500).empty());
    EXPECT_EQ(fluid.end_of(first), end);
  }
}

TEST(FluidTest, ThreeEqualFlowsOfALinkEndTogetherAPicosecondLate) {
  Network network;
  const LinkId link = add_link(network, 50 * giga);
  std::vector<tests::Transfer> transfers;
  for (int i = 0; i < 3; ++i) transfers.push_back({.flow = add_flow(network, {link}), .bytes = Bytes{giga}});
  // 3 x 1 GB / 50 GB/s is 60 ms; a third of the link in units of 2^-20 byte/s is rounded down.
  EXPECT_EQ(ends_of(network, transfers), std::vector<std::int64_t>(3, 60'000'000'001));
}

TEST(FluidTest, WhoStartsLaterGetsHalfFromThenOn) {
  Network network;
  const LinkId link = add_link(network, 10 * giga);
  const FlowId first = add_flow(network, {link});
  const FlowId second = add_flow(network, {link});
  // 1 s of its 2 s alone, then both at half speed for 2 s, then the second alone for 1 s.
  const std::vector<std::int64_t> ends =
      ends_of(network, {{.flow = first, .bytes = Bytes{20 * giga}},
                        {.flow = second, .bytes = Bytes{20 * giga}, .start = 1'000'000'000'000}});
  EXPECT_EQ(ends, (std::vector<std::int64_t>{3'000'000'000'000, 4'000'000'000'000}));
}

TEST(FluidTest, TiedBottlenecksAreFixedTogether) {
  // Links a and b share flow 0. Fixing a alone first would leave b's other two flows more than a's.
  Network network;
  const LinkId a = add_link(network, 11);
  const LinkId b = add_link(network, 11);
  const FlowId shared = add_flow(network, {a, b});
  std::vector<FlowId> flows{shared};
  for (const LinkId link : {a, a, b, b}) flows.push_back(add_flow(network, {link}));
  const std::uint64_t third = 11 * one_byte_per_second / 3;
  ASSERT_NE(third * 3, 11 * one_byte_per_second);
  EXPECT_EQ(rates_of(network, flows), std::vector<std::uint64_t>(5, third));
}

TEST(FluidTest, NobodyGetsTheRemainder) {
  for (std::uint32_t count = 1; count <= 40; ++count) {
    Network network;
    const LinkId link = add_link(network, 1);
    std::vector<FlowId> flows;
    for (std::uint32_t i = 0; i < count; ++i) flows.push_back(add_flow(network, {link}));
    EXPECT_EQ(rates_of(network, flows), std::vector<std::uint64_t>(count, one_byte_per_second / count));
  }
}

TEST(FluidTest, WeightsCountConnections) {
  // One flow of three connections and one of a single: four equal shares.
  Network network;
  const LinkId link = add_link(network, 40 * giga);
  const FlowId three = add_flow(network, {Crossing{.link = link, .weight = 3}});
  const FlowId one = add_flow(network, {link});
  EXPECT_EQ(rates_of(network, {three, one}), std::vector<std::uint64_t>(2, rate_of(BytesPerSecond{10 * giga})));
}

TEST(FluidTest, AWeightStandsForAsManyLikeFlows) {
  std::mt19937_64 bits(2);
  for (int i = 0; i < 200; ++i) {
    const std::int64_t capacity = static_cast<std::int64_t>(1 + bits() % 1000);
    const std::uint32_t copies = static_cast<std::uint32_t>(1 + bits() % 20);
    Network folded;
    const LinkId link = add_link(folded, capacity);
    const LinkId narrow = add_link(folded, capacity / 7 + 1);
    const std::vector<FlowId> two{add_flow(folded, {Crossing{.link = link, .weight = copies}}),
                                  add_flow(folded, {link, narrow})};
    Network unfolded;
    add_link(unfolded, capacity);
    add_link(unfolded, capacity / 7 + 1);
    std::vector<FlowId> all;
    for (std::uint32_t c = 0; c < copies; ++c) all.push_back(add_flow(unfolded, {link}));
    all.push_back(add_flow(unfolded, {link, narrow}));
    const std::vector<std::uint64_t> few = rates_of(folded, two);
    const std::vector<std::uint64_t> many = rates_of(unfolded, all);
    EXPECT_EQ(few[0], many.front());
    EXPECT_EQ(few[1], many.back());
  }
}

TEST(FluidTest, ScalesMakeFractionsOfConnectionsExact) {
  // Each of three flows is sprayed over three cables with a third of its bytes on each.
  Network network;
  std::vector<Crossing> sprayed;
  for (int i = 0; i < 3; ++i) sprayed.push_back({.link = add_link(network, giga, 3), .weight = 1});
  std::vector<FlowId> flows;
  for (int i = 0; i < 3; ++i) flows.push_back(add_flow(network, sprayed));
  EXPECT_EQ(rates_of(network, flows), std::vector<std::uint64_t>(3, rate_of(BytesPerSecond{giga})));
  EXPECT_EQ(rates_of(network, {flows[0]}).front(), rate_of(BytesPerSecond{3 * giga}));
}

TEST(FluidTest, WhatALimitedFlowLeavesGoesToTheOthers) {
  Network network;
  const LinkId link = add_link(network, 10 * giga);
  std::vector<FlowId> flows;
  for (int i = 0; i < 3; ++i) flows.push_back(add_flow(network, {link}));
  Fluid fluid(network);
  fluid.start(flows[0], volume_of(gibibyte), rate_of(BytesPerSecond{2 * giga}));
  fluid.start(flows[1], volume_of(gibibyte), no_limit);
  fluid.start(flows[2], volume_of(gibibyte), rate_of(BytesPerSecond{5 * giga}));
  fluid.settle(0);
  EXPECT_EQ(fluid.rate_of_flow(flows[0]), rate_of(BytesPerSecond{2 * giga}));
  EXPECT_EQ(fluid.rate_of_flow(flows[1]), rate_of(BytesPerSecond{4 * giga}));
  EXPECT_EQ(fluid.rate_of_flow(flows[2]), rate_of(BytesPerSecond{4 * giga}));
}

TEST(FluidTest, AFlowOfAnotherBottleneckLeavesTheRest) {
  Network network;
  const LinkId wide = add_link(network, 10 * giga);
  const LinkId narrow = add_link(network, 3 * giga);
  const FlowId through_both = add_flow(network, {wide, narrow});
  const FlowId other = add_flow(network, {narrow});
  const FlowId only_wide = add_flow(network, {wide});
  const std::vector<std::uint64_t> rates = rates_of(network, {through_both, other, only_wide});
  EXPECT_EQ(rates[0], rate_of(BytesPerSecond{3 * giga}) / 2);
  EXPECT_EQ(rates[1], rate_of(BytesPerSecond{3 * giga}) / 2);
  EXPECT_EQ(rates[2], rate_of(BytesPerSecond{10 * giga}) - rates[0]);
}

TEST(FluidTest, AFlowWithoutLinksMovesAtItsLimit) {
  Network network;
  const FlowId flow = add_flow(network, std::vector<Crossing>{});
  EXPECT_EQ(rates_of(network, {flow}, 12345), std::vector<std::uint64_t>{12345});
}

TEST(FluidTest, AStartOrAFinishSolvesItsComponentOnly) {
  Network network;
  const LinkId here = add_link(network, giga);
  const LinkId elsewhere = add_link(network, giga);
  const FlowId first = add_flow(network, {here});
  const FlowId second = add_flow(network, {here});
  std::vector<FlowId> others;
  for (int i = 0; i < 10; ++i) others.push_back(add_flow(network, {elsewhere}));
  Fluid fluid(network);
  for (const FlowId flow : others) fluid.start(flow, volume_of(gibibyte), no_limit);
  fluid.start(first, volume_of(gibibyte), no_limit);
  EXPECT_EQ(fluid.settle(0).size(), 11U);
  EXPECT_EQ(fluid.solved_components(), 2U);

  fluid.start(second, volume_of(gibibyte), no_limit);
  EXPECT_EQ(fluid.settle(10).size(), 2U);
  fluid.finish(second);
  const std::span<const FlowId> changed = fluid.settle(20);
  EXPECT_EQ(std::vector<FlowId>(changed.begin(), changed.end()), std::vector<FlowId>{first});
  EXPECT_EQ(fluid.solved_components(), 4U);
  EXPECT_EQ(fluid.solved_flows(), 11U + 2U + 1U);
}

TEST(FluidTest, AFlowThatStartsAgainHasNoEndUntilLinksAreShared) {
  // Whoever still holds its former end must not take it for the new one.
  Network network;
  const FlowId flow = add_flow(network, {add_link(network, giga)});
  Fluid fluid(network);
  fluid.start(flow, volume_of(Bytes{1}), no_limit);
  fluid.settle(0);
  const std::int64_t end = fluid.end_of(flow);
  EXPECT_EQ(end, 1000);
  fluid.finish(flow);
  fluid.start(flow, volume_of(Bytes{1}), no_limit);
  EXPECT_NE(fluid.end_of(flow), end);
  fluid.settle(end);
  EXPECT_EQ(fluid.end_of(flow), 2000);
}

TEST(FluidTest, SaysOnlyWhoseEndHasChanged) {
  // A unit of rate less does not move the end of a short flow.
  Network network;
  const LinkId link = add_link(network, 3 * giga);
  const FlowId watched = add_flow(network, {link});
  const FlowId slow = add_flow(network, {link});
  Fluid fluid(network);
  fluid.start(watched, volume_of(Bytes{1}), no_limit);
  fluid.settle(0);
  fluid.start(slow, Volume{1'000'000}, 1);
  const std::span<const FlowId> changed = fluid.settle(100);
  EXPECT_EQ(std::vector<FlowId>(changed.begin(), changed.end()), std::vector<FlowId>{slow});
  EXPECT_LT(fluid.rate_of_flow(watched), rate_of(BytesPerSecond{3 * giga}));
  EXPECT_EQ(fluid.end_of(watched), 334);
}

TEST(FluidTest, RefusesWhatItCannotCount) {
  EXPECT_THROW(volume_of(Bytes{std::int64_t{1} << 60}), TooLarge);
  EXPECT_THROW(rate_of(BytesPerSecond{std::int64_t{1} << 43}), TooLarge);
  EXPECT_THROW(time_through(volume_of(gibibyte), 1), TooLarge);
  EXPECT_EQ(time_through(volume_of(Bytes{8}), rate_of(BytesPerSecond{8'000'000'000'000})), 1);
}

// A random set of flows on a random network; round figures, so that levels tie often.
struct Case {
  Network network;
  std::vector<std::uint64_t> limits;  // per flow
};

Case random_case(std::uint64_t seed) {
  std::mt19937_64 bits(seed);
  const auto below = [&](std::uint64_t limit) { return static_cast<std::uint32_t>(bits() % limit); };
  const bool round = below(2) == 0;
  const std::uint32_t links = 1 + below(12);
  const std::uint32_t flows = 1 + below(40);
  Case result;
  for (std::uint32_t l = 0; l < links; ++l) {
    const std::int64_t capacity = round ? (1 + below(3)) * 25 : 1 + below(1000);
    add_link(result.network, below(2) == 0 ? capacity : capacity * 1'000'000'007, 1 + below(4));
  }
  for (std::uint32_t f = 0; f < flows; ++f) {
    std::map<LinkId, std::uint32_t> crossed;
    for (std::uint32_t i = below(5); i > 0; --i) crossed[LinkId{below(links)}] = round ? 1 + below(2) : 1 + below(1000);
    std::vector<Crossing> crossings;
    for (const auto& [link, weight] : crossed) crossings.push_back({.link = link, .weight = weight});
    add_flow(result.network, crossings);
    const std::uint64_t limit = round ? std::uint64_t{5} * (1 + below(10)) << rate_fraction_bits : 1 + (bits() >> 20);
    result.limits.push_back(below(3) == 0 ? limit : no_limit);
  }
  return result;
}

// What a max-min fair allocation in integers is: no link carries more than it can, and every flow is at its limit or
// crosses a full link on which nobody is faster. Full: less is left than one more unit for each of its connections.
void expect_max_min_fair(const Network& network, const Fluid& fluid, const std::vector<std::uint64_t>& limits) {
  std::vector<Volume> spare;
  std::vector<Volume> weight(network.links().size(), 0);
  std::vector<std::uint64_t> fastest(network.links().size(), 0);
  for (const SharedLink& link : network.links())
    spare.push_back((static_cast<Volume>(link.capacity.count) << rate_fraction_bits) * link.scale);
  const auto for_each_running = [&](auto visit) {
    for (std::uint32_t f = 0; f < network.flow_count(); ++f)
      if (fluid.running(FlowId{f})) visit(FlowId{f}, fluid.rate_of_flow(FlowId{f}));
  };
  for_each_running([&](FlowId flow, std::uint64_t rate) {
    for (const Crossing& on : network.crossings(flow)) {
      const Volume load = static_cast<Volume>(rate) * on.weight;
      ASSERT_LE(load, spare[index_of(on.link)]) << "link " << index_of(on.link) << " carries too much";
      spare[index_of(on.link)] -= load;
      weight[index_of(on.link)] += on.weight;
      fastest[index_of(on.link)] = std::max(fastest[index_of(on.link)], rate);
    }
  });
  for_each_running([&](FlowId flow, std::uint64_t rate) {
    ASSERT_GT(rate, 0U);
    ASSERT_LE(rate, limits[index_of(flow)]);
    if (rate == limits[index_of(flow)] || network.crossings(flow).empty()) return;
    ASSERT_TRUE(std::ranges::any_of(network.crossings(flow),
                                    [&](const Crossing& on) {
                                      return spare[index_of(on.link)] < weight[index_of(on.link)] &&
                                             fastest[index_of(on.link)] == rate;
                                    }))
        << "flow " << index_of(flow) << " could be faster";
  });
}

TEST(FluidTest, RatesOfRandomNetworksAreMaxMinFairWhateverStartsAndEnds) {
  for (std::uint64_t seed = 1; seed <= 4000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Case drawn = random_case(seed);
    std::mt19937_64 bits(seed);
    Fluid fluid(drawn.network);
    const std::size_t flows = drawn.network.flow_count();
    for (std::int64_t now = 0; now < 6; ++now) {
      for (std::uint32_t f = 0; f < flows; ++f) {
        if (bits() % 3 == 0) continue;
        if (fluid.running(FlowId{f}))
          fluid.finish(FlowId{f});
        else
          fluid.start(FlowId{f}, volume_of(Bytes{1}), drawn.limits[f]);
      }
      fluid.settle(now);
      expect_max_min_fair(drawn.network, fluid, drawn.limits);
    }
    if (HasFatalFailure()) return;
  }
}

TEST(FluidTest, RatesDependOnWhatRunsAndNotOnHowItCameAbout) {
  for (std::uint64_t seed = 1; seed <= 2000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Case drawn = random_case(seed);
    std::mt19937_64 bits(seed);
    const std::size_t flows = drawn.network.flow_count();
    std::vector<std::uint8_t> runs(flows);
    for (auto& run : runs) run = bits() % 4 != 0 ? 1 : 0;

    // All at once, in order.
    Fluid plain(drawn.network);
    for (std::uint32_t f = 0; f < flows; ++f)
      if (runs[f] != 0) plain.start(FlowId{f}, volume_of(Bytes{1}), drawn.limits[f]);
    plain.settle(0);

    // Everyone comes and some go, in random order, with or without sharing links in between.
    Fluid eventful(drawn.network);
    std::vector<std::uint32_t> order;
    for (std::uint32_t f = 0; f < flows; ++f) order.push_back(f);
    std::ranges::shuffle(order, bits);
    for (const std::uint32_t f : order) {
      eventful.start(FlowId{f}, volume_of(Bytes{1}), drawn.limits[f]);
      if (bits() % 2 == 0) eventful.settle(0);
    }
    std::ranges::shuffle(order, bits);
    for (const std::uint32_t f : order) {
      if (runs[f] != 0) continue;
      eventful.finish(FlowId{f});
      if (bits() % 2 == 0) eventful.settle(0);
    }
    eventful.settle(0);
    for (std::uint32_t f = 0; f < flows; ++f) {
      if (runs[f] == 0) continue;
      ASSERT_EQ(plain.rate_of_flow(FlowId{f}), eventful.rate_of_flow(FlowId{f})) << "flow " << f;
      ASSERT_EQ(plain.end_of(FlowId{f}), eventful.end_of(FlowId{f})) << "flow " << f;
    }
  }
}

TEST(FluidTest, EndsDoNotDependOnTheOrderOfStarts) {
  for (std::uint64_t seed = 1; seed <= 500; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Case drawn = random_case(seed);
    std::mt19937_64 bits(seed);
    std::vector<tests::Transfer> transfers;
    for (std::uint32_t f = 0; f < drawn.network.flow_count(); ++f) {
      if (drawn.network.crossings(FlowId{f}).empty() && drawn.limits[f] == no_limit) continue;
      transfers.push_back({.flow = FlowId{f},
                           .bytes = Bytes{static_cast<std::int64_t>(1 + bits() % 100)},
                           .start = static_cast<std::int64_t>(bits() % 3) * 1'000'000,
                           .limit = std::max<std::uint64_t>(one_byte_per_second, drawn.limits[f])});
    }
    std::vector<tests::Transfer> shuffled = transfers;
    std::ranges::shuffle(shuffled, bits);
    const std::vector<std::int64_t> ends = ends_of(drawn.network, transfers);
    const std::vector<std::int64_t> shuffled_ends = ends_of(drawn.network, shuffled);
    for (std::size_t i = 0; i < shuffled.size(); ++i) {
      const auto same = std::ranges::find(transfers, shuffled[i].flow, &tests::Transfer::flow);
      ASSERT_EQ(shuffled_ends[i], ends[static_cast<std::size_t>(same - transfers.begin())]);
    }
  }
}

}  // namespace
}  // namespace trainyard::sim
