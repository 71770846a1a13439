// What communicators on the same cluster do to each other.
#include "strategies/traffic.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "sim/executor.hpp"

namespace trainyard::strategies {
namespace {

using sim::Bytes;
using sim::CollectiveKind;
using sim::Duration;
using topology::Cluster;
using topology::FabricType;

constexpr std::int64_t giga = 1'000'000'000;

// `parts` / `whole` of the vector over a link of `rate`, rounded up once.
std::int64_t wire_ps(std::int64_t bytes, std::int64_t parts, std::int64_t whole, std::int64_t rate) {
  __extension__ using Wide = __int128;
  const Wide ticks = static_cast<Wide>(bytes) * parts * 1'000'000'000'000;
  const Wide divisor = static_cast<Wide>(whole) * rate;
  return static_cast<std::int64_t>((ticks + divisor - 1) / divisor);
}

// What groups do to each other. No latency and nothing lost, so that rates show.

topology::NodeType node_type(std::int64_t nics) {
  topology::NodeType node;
  node.devices = 8;
  node.link_rate = {450 * giga};
  node.nics = nics;
  node.nic_rate = {50 * giga};
  return node;
}

FabricType fabric_type(FabricType::Kind kind, std::int64_t radix = 64, double oversubscription = 1.0) {
  FabricType fabric;
  fabric.kind = kind;
  fabric.radix = radix;
  fabric.oversubscription = oversubscription;
  return fabric;
}
const FabricType one_switch = fabric_type(FabricType::Kind::single_switch);

constexpr sim::SlotId slot{0};
constexpr sim::SlotId peer{1};
constexpr std::int64_t payload = 7680 * 100'003;

sim::Plan plan_for(std::size_t ranks) {
  sim::Plan plan;
  plan.slots.add("group");
  plan.slots.add("peer");
  plan.program_of = sim::Table<sim::RankId, sim::ProgramId>(ranks);
  plan.communicators = sim::CommunicatorTable(ranks, 2);
  return plan;
}

// Every rank makes the calls of its slots once.
void let_all_call(sim::Plan& plan) {
  plan.streams.add("first");
  plan.streams.add("second");
  std::map<std::vector<bool>, sim::ProgramId> programs;
  for (std::size_t r = 0; r < plan.program_of.size(); ++r) {
    const sim::RankId rank = plan.program_of.id(r);
    std::vector<bool> has;
    sim::Block block;
    for (std::size_t c = 0; c < plan.calls.size(); ++c) {
      const sim::CallId call = plan.calls.id(c);
      has.push_back(plan.communicators.has(rank, plan.calls[call].slot));
      if (has.back())
        block.ops.push_back({.stream = sim::StreamId{static_cast<std::uint8_t>(c)}, .work = sim::Communicate{call}});
    }
    auto known = programs.find(has);
    if (known == programs.end()) {
      sim::Program program;
      program.calls.push_back({.block = plan.blocks.add(std::move(block))});
      known = programs.emplace(has, plan.programs.add(std::move(program))).first;
    }
    plan.program_of[rank] = known->second;
  }
}

// How long the slowest takes, when all call at once.
std::int64_t step_ps(sim::Plan& plan, const Cluster& cluster) {
  let_all_call(plan);
  price_communications(plan, cluster);
  return sim::run(plan).step_time.count();
}

// Links share in whole bytes per second.
void expect_time(std::int64_t actual, std::int64_t expected) {
  EXPECT_NEAR(static_cast<double>(actual), static_cast<double>(expected), 1e-6 * static_cast<double>(expected) + 10);
}

void add_group(sim::Plan& plan, const std::vector<std::uint32_t>& members) {
  std::vector<sim::RankId> ranks;
  for (const std::uint32_t member : members) ranks.push_back(sim::RankId{member});
  plan.communicators.add(ranks, std::vector<sim::SlotId>(ranks.size(), slot));
}

// Rings of the devices at the same position of every node, for the first `positions` positions.
sim::Plan data_parallel(std::uint32_t nodes, std::uint32_t positions) {
  sim::Plan plan = plan_for(std::size_t{nodes} * 8);
  for (std::uint32_t position = 0; position < positions; ++position) {
    std::vector<std::uint32_t> ring;
    for (std::uint32_t node = 0; node < nodes; ++node) ring.push_back(node * 8 + position);
    add_group(plan, ring);
  }
  plan.calls.add({.slot = slot, .kind = CollectiveKind::all_reduce, .bytes = Bytes{payload}});
  return plan;
}

// Alone in the network.
std::int64_t priced(const sim::Plan& plan, std::size_t communicator, std::size_t call = 0) {
  const auto& one = plan.communicators[sim::CommunicatorId{static_cast<std::uint32_t>(communicator)}];
  return plan.costs[one.cost].at(call).duration.count();
}

// Stages on neighbouring nodes: rank i of a node sends to rank i of the next.
sim::Plan pipeline(std::uint32_t nodes) {
  sim::Plan plan = plan_for(std::size_t{nodes} * 8);
  for (std::uint32_t i = 0; i + 8 < nodes * 8; ++i)
    plan.communicators.add({sim::RankId{i}, sim::RankId{i + 8}}, {slot, peer});
  plan.calls.add({.slot = slot, .kind = CollectiveKind::send, .bytes = Bytes{payload}});
  plan.calls.add({.slot = peer, .kind = CollectiveKind::receive, .bytes = Bytes{payload}});
  return plan;
}

TEST(TrafficTest, RingsShareTheNicsThatTheyHaveInCommon) {
  for (const auto& [nics, rate] : std::vector<std::pair<std::int64_t, std::int64_t>>{{8, 50}, {4, 25}, {16, 100}}) {
    sim::Plan plan = data_parallel(4, 8);
    expect_time(step_ps(plan, Cluster(node_type(nics), 4, 32, one_switch)), wire_ps(payload, 6, 4, rate * giga));
  }
}

TEST(TrafficTest, ARingAloneOnASharedNicHasAllOfIt) {
  sim::Plan one = data_parallel(4, 1);
  expect_time(step_ps(one, Cluster(node_type(4), 4, 32, one_switch)), wire_ps(payload, 6, 4, 50 * giga));
  sim::Plan two = data_parallel(4, 2);
  expect_time(step_ps(two, Cluster(node_type(4), 4, 32, one_switch)), wire_ps(payload, 6, 4, 25 * giga));
}

TEST(TrafficTest, AGroupOfWholeNodesUsesAllTheirNics) {
  for (const std::int64_t nics : {4, 8}) {
    sim::Plan plan = plan_for(32);
    std::vector<std::uint32_t> everyone(32);
    for (std::uint32_t i = 0; i < 32; ++i) everyone[i] = i;
    add_group(plan, everyone);
    plan.calls.add({.slot = slot, .kind = CollectiveKind::all_reduce, .bytes = Bytes{payload}});
    expect_time(step_ps(plan, Cluster(node_type(nics), 4, 32, one_switch)), wire_ps(payload, 62, 32 * nics, 50 * giga));
  }
}

TEST(TrafficTest, WhatMovesInsideNodesFirstDoesNotLimitWhatMovesAcross) {
  sim::Plan plan = plan_for(32);
  std::vector<std::uint32_t> everyone(32);
  for (std::uint32_t i = 0; i < 32; ++i) everyone[i] = i;
  add_group(plan, everyone);
  plan.calls.add({.slot = slot, .kind = CollectiveKind::all_reduce, .bytes = Bytes{payload}});
  topology::NodeType node = node_type(8);
  node.link_rate = {100 * giga};  // less than eight adapters together
  node.collectives.algorithm = topology::Algorithm::hierarchical;
  expect_time(step_ps(plan, Cluster(node, 4, 32, one_switch)),
              wire_ps(payload, 14, 8, 100 * giga) + wire_ps(payload, 6, 4 * 8, 50 * giga));
}

TEST(TrafficTest, GroupsInsideNodesDoNotShareAnything) {
  sim::Plan plan = plan_for(16);
  for (const std::uint32_t first : {0U, 4U, 8U, 12U}) add_group(plan, {first, first + 1, first + 2, first + 3});
  plan.calls.add({.slot = slot, .kind = CollectiveKind::all_reduce, .bytes = Bytes{payload}});
  expect_time(step_ps(plan, Cluster(node_type(8), 2, 16, one_switch)), wire_ps(payload, 6, 4, 450 * giga));
}

TEST(TrafficTest, ACrowdedUplinkSlowsAFatTreeAndNotARail) {
  // Eight NICs below a leaf: a node of the fat tree, a rail of all eight nodes otherwise.
  sim::Plan tree = data_parallel(8, 8);
  expect_time(step_ps(tree, Cluster(node_type(8), 8, 64, fabric_type(FabricType::Kind::fat_tree, 16, 2.0))),
              wire_ps(payload, 14, 8, 25 * giga));
  sim::Plan rails = data_parallel(8, 8);
  expect_time(step_ps(rails, Cluster(node_type(8), 8, 64, fabric_type(FabricType::Kind::rail_optimized, 16, 2.0))),
              wire_ps(payload, 14, 8, 50 * giga));
  sim::Plan wide = data_parallel(8, 8);
  expect_time(step_ps(wide, Cluster(node_type(8), 8, 64, fabric_type(FabricType::Kind::fat_tree, 16, 1.0))),
              wire_ps(payload, 14, 8, 50 * giga));
}

TEST(TrafficTest, TransfersOfDevicesThatShareANicShareItsRate) {
  sim::Plan plan = pipeline(2);
  expect_time(step_ps(plan, Cluster(node_type(4), 2, 16, one_switch)), wire_ps(payload, 1, 1, 25 * giga));
}

TEST(TrafficTest, AStageSendsAndReceivesAtFullRateAtOnce) {
  sim::Plan plan = pipeline(3);  // the middle node's NICs receive from one and send to the other
  expect_time(step_ps(plan, Cluster(node_type(8), 3, 24, one_switch)), wire_ps(payload, 1, 1, 50 * giga));
}

TEST(TrafficTest, HopsPayForTheSwitchesOfTheLongestWay) {
  FabricType fabric = fabric_type(FabricType::Kind::fat_tree, 16);
  fabric.switch_latency = Duration{1000};
  sim::Plan across = data_parallel(4, 1);
  let_all_call(across);
  price_communications(across, Cluster(node_type(8), 4, 32, fabric));
  // The tree has four hops between nodes and the ring six; here bandwidth decides for the ring.
  EXPECT_EQ(priced(across, 0), 6 * 3 * 1000 + wire_ps(payload, 6, 4, 50 * giga));
  sim::Plan below = data_parallel(4, 1);
  fabric.radix = 64;
  let_all_call(below);
  price_communications(below, Cluster(node_type(8), 4, 32, fabric));
  EXPECT_EQ(priced(below, 0), 6 * 1000 + wire_ps(payload, 6, 4, 50 * giga));
}

TEST(TrafficTest, BothEndsOfATransferPayTheSameAndOnlyTheSenderSends) {
  sim::Plan plan = pipeline(2);
  let_all_call(plan);
  price_communications(plan, Cluster(node_type(8), 2, 16, one_switch));
  for (std::size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(priced(plan, i, 0), wire_ps(payload, 1, 1, 50 * giga));
    EXPECT_EQ(priced(plan, i, 1), priced(plan, i, 0));
  }
  const auto& row = plan.costs[plan.communicators[sim::CommunicatorId{0}].cost];
  EXPECT_EQ(row[0].wire_bytes, Bytes{payload});
  EXPECT_EQ(row[1].wire_bytes, Bytes{0});
}

TEST(TrafficTest, SlotsArePricedByThemselves) {
  sim::Plan plan = plan_for(16);
  add_group(plan, {0, 8});
  plan.communicators.add({sim::RankId{0}, sim::RankId{8}}, {peer, peer});
  plan.calls.add({.slot = slot, .kind = CollectiveKind::all_reduce, .bytes = Bytes{payload}});
  plan.calls.add({.slot = peer, .kind = CollectiveKind::all_gather, .bytes = Bytes{payload}});
  let_all_call(plan);
  price_communications(plan, Cluster(node_type(8), 2, 16, one_switch));
  EXPECT_EQ(priced(plan, 0, 0), wire_ps(payload, 2, 2, 50 * giga));
  EXPECT_EQ(priced(plan, 1, 1), wire_ps(payload, 1, 2, 50 * giga));
}

TEST(TrafficTest, CommunicatorsThatAreAlikeShareACostClass) {
  sim::Plan plan = data_parallel(4, 8);
  let_all_call(plan);
  price_communications(plan, Cluster(node_type(8), 4, 32, one_switch));
  EXPECT_EQ(plan.costs.size(), 1U);
}

TEST(TrafficTest, TheAlgorithmOfACostHasItsName) {
  sim::Plan plan = data_parallel(4, 8);
  let_all_call(plan);
  price_communications(plan, Cluster(node_type(8), 4, 32, one_switch));
  const auto& cost = plan.costs[sim::CostClassId{0}].front();
  EXPECT_EQ(plan.algorithms.at(cost.algorithm), "ring simple");
}

}  // namespace
}  // namespace trainyard::strategies
