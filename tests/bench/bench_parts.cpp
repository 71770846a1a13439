// How fast the parts of the simulator are, beside a bare priority queue on the same machine: a figure that can be
// compared between machines is a ratio to that.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <functional>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include "sim/executor.hpp"
#include "sim/fluid.hpp"
#include "sim/fold.hpp"
#include "tests/support/fluid_run.hpp"
#include "tests/support/shared_plan_sketch.hpp"

namespace trainyard {
namespace {

using sim::Bytes;
using sim::Crossing;
using sim::FlowId;
using sim::LinkId;
using sim::Network;
using tests::add_flow;
using tests::add_link;
using tests::giga;
using tests::Transfer;

constexpr std::int64_t nic = 50 * giga;

// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
std::uint64_t mixed(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15U;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31);
}

void count_rate(benchmark::State& state, const std::string& name, double per_iteration) {
  state.counters[name] =
      benchmark::Counter(per_iteration, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

// The yardstick: take the earliest event, put back a later one ("hold", Jones, CACM 29(4), 1986).
void priority_queue_hold(benchmark::State& state) {
  using Event = std::pair<std::int64_t, std::uint32_t>;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> queue;
  std::uint64_t random = 1;
  const auto entries = static_cast<std::uint32_t>(state.range(0));
  for (std::uint32_t i = 0; i < entries; ++i) queue.emplace((random = mixed(random)) % 1'000'000, i);
  for (auto _ : state) {
    Event event = queue.top();
    queue.pop();
    event.first += static_cast<std::int64_t>((random = mixed(random)) % 1'000'000);
    queue.push(event);
  }
  count_rate(state, "events", 1);
}
BENCHMARK(priority_queue_hold)->Arg(16)->Arg(1000)->Arg(100'000)->Arg(1'000'000);

// A flow starts and ends beside others on its link, which are all rated anew each time.
void fluid_start_and_finish_beside(benchmark::State& state) {
  Network network;
  const LinkId link = add_link(network, nic);
  const auto others = static_cast<std::uint32_t>(state.range(0));
  for (std::uint32_t i = 0; i <= others; ++i) add_flow(network, {link});
  sim::Fluid fluid(network);
  const sim::Volume volume = sim::volume_of(Bytes{1000 * giga});
  for (std::uint32_t i = 0; i < others; ++i) fluid.start(FlowId{i}, volume, tests::no_limit);
  std::int64_t now = 0;
  fluid.settle(now);
  for (auto _ : state) {
    fluid.start(FlowId{others}, volume, tests::no_limit);
    benchmark::DoNotOptimize(fluid.settle(++now).size());
    fluid.finish(FlowId{others});
    benchmark::DoNotOptimize(fluid.settle(++now).size());
  }
  count_rate(state, "settlings", 2);
}
BENCHMARK(fluid_start_and_finish_beside)->Arg(0)->Arg(1)->Arg(10)->Arg(100)->Arg(10'000);

// Leaves of 32 hosts; up and down for each leaf and spine.
struct FatTree {
  static constexpr std::uint32_t leaf_hosts = 32;
  std::uint32_t hosts;
  Network network;
  std::vector<LinkId> out, in, up, down;  // up and down: (leaf, strand)

  // As many strands as there are spines, or one bundle for all.
  FatTree(std::uint32_t host_count, bool bundled) : hosts(host_count), strands_(bundled ? 1 : leaf_hosts) {
    for (std::uint32_t h = 0; h < hosts; ++h) {
      out.push_back(add_link(network, nic));
      in.push_back(add_link(network, nic));
    }
    for (std::uint32_t i = 0; i < hosts / leaf_hosts * strands_; ++i) {
      up.push_back(add_link(network, nic * leaf_hosts / strands_));
      down.push_back(add_link(network, nic * leaf_hosts / strands_));
    }
  }
  std::vector<Crossing> route(std::uint32_t from, std::uint32_t to) const {
    std::vector<Crossing> crossings{{.link = out[from], .weight = 1}, {.link = in[to], .weight = 1}};
    if (from / leaf_hosts == to / leaf_hosts) return crossings;
    const auto spine = static_cast<std::uint32_t>(mixed(std::uint64_t{from} << 32 | to) % strands_);
    crossings.push_back({.link = up[from / leaf_hosts * strands_ + spine], .weight = 1});
    crossings.push_back({.link = down[to / leaf_hosts * strands_ + spine], .weight = 1});
    return crossings;
  }
  std::vector<Transfer> all_to_all(Bytes each) {
    std::vector<Transfer> transfers;
    for (std::uint32_t from = 0; from < hosts; ++from)
      for (std::uint32_t to = 0; to < hosts; ++to)
        if (from != to) transfers.push_back({.flow = add_flow(network, route(from, to)), .bytes = each});
    return transfers;
  }

 private:
  std::uint32_t strands_;
};

// All flows of an all-to-all start together. Adaptive: in one component that is solved once. ECMP: a hash puts a flow
// on one spine, so that they end one by one, and each end shares the component anew.
void all_to_all_as_flows(benchmark::State& state) {
  const auto hosts = static_cast<std::uint32_t>(state.range(0));
  const bool adaptive = state.range(1) == 0;
  std::size_t flows = 0;
  std::size_t instants = 0;
  for (auto _ : state) {
    FatTree tree(hosts, adaptive);
    const std::vector<Transfer> transfers = tree.all_to_all(Bytes{1'000'000});
    std::vector<std::int64_t> ends = tests::ends_of(tree.network, transfers);
    flows = ends.size();
    std::ranges::sort(ends);
    instants = static_cast<std::size_t>(std::unique(ends.begin(), ends.end()) - ends.begin());
  }
  state.SetLabel(adaptive ? "adaptive" : "ecmp");
  state.counters["flows"] = static_cast<double>(flows);
  state.counters["instants"] = static_cast<double>(instants);
  count_rate(state, "flows/s", static_cast<double>(flows));
}
BENCHMARK(all_to_all_as_flows)
    ->ArgNames({"hosts", "ecmp"})
    ->Args({256, 0})
    ->Args({1024, 0})
    ->Args({64, 1})
    ->Args({128, 1})
    ->Args({256, 1})
    ->Unit(benchmark::kMillisecond)
    ->Iterations(1);

// The same as one communicator: one flow with a weight on every link.
void all_to_all_as_one_flow(benchmark::State& state) {
  const auto hosts = static_cast<std::uint32_t>(state.range(0));
  for (auto _ : state) {
    FatTree tree(hosts, true);
    std::vector<std::uint32_t> weight(tree.network.links().size(), 0);
    for (std::uint32_t from = 0; from < hosts; ++from)
      for (std::uint32_t to = 0; to < hosts; ++to)
        if (from != to)
          for (const Crossing& on : tree.route(from, to)) ++weight[sim::index_of(on.link)];
    std::vector<Crossing> crossings;
    for (std::uint32_t l = 0; l < weight.size(); ++l) crossings.push_back({.link = LinkId{l}, .weight = weight[l]});
    const FlowId flow = add_flow(tree.network, crossings);
    benchmark::DoNotOptimize(tests::ends_of(tree.network, {{.flow = flow, .bytes = Bytes{1'000'000}}}));
  }
}
BENCHMARK(all_to_all_as_one_flow)->Arg(1024)->Unit(benchmark::kMillisecond);

// Plans: rings of a rank of every node, one per local rank, over NICs that a send of each rank crosses too.
sim::Plan ring_plan(std::uint32_t nodes, std::uint32_t local_ranks, std::uint32_t rounds) {
  tests::SharedPlanSketch sketch(std::size_t{nodes} * local_ranks);
  std::vector<LinkId> nics;
  for (std::uint32_t i = 0; i < nodes * local_ranks; ++i) nics.push_back(sketch.link(nic));
  for (std::uint32_t local = 0; local < local_ranks; ++local) {
    std::vector<std::uint32_t> members;
    std::vector<std::vector<Crossing>> hops;
    for (std::uint32_t node = 0; node < nodes; ++node) {
      members.push_back(node * local_ranks + local);
      hops.push_back({{.link = nics[members.back()], .weight = 1}});
    }
    sketch.carries_flows(sketch.join(members), hops);
  }
  for (std::uint32_t i = 0; i < nodes * local_ranks; ++i)
    sketch.carries(sketch.connect(i, (i + local_ranks) % (nodes * local_ranks)), {nics[i]});
  const sim::CallId reduce =
      sketch.transfer({.bytes = 1 << 30, .rate = nic, .latency_ps = 1'000'000, .phase_bytes = 1 << 25});
  const sim::CallId send =
      sketch.transfer({.bytes = 1 << 20, .rate = nic, .latency_ps = 1'000'000}, tests::next, sim::CollectiveKind::send);
  const sim::CallId receive = sketch.transfer({.bytes = 1 << 20, .rate = nic, .latency_ps = 1'000'000}, tests::previous,
                                              sim::CollectiveKind::receive);
  std::vector<sim::Op> ops;
  for (std::uint32_t round = 0; round < rounds; ++round) {
    ops.push_back(sketch.kernel(5'000'000'000));
    ops.push_back(tests::communicate(reduce, tests::side, tests::after_compute));
    ops.push_back(sketch.kernel(5'000'000'000));
    ops.push_back(tests::communicate(send, tests::third, tests::after_compute));
    ops.push_back(tests::communicate(receive, sim::StreamId{3}));
    ops.push_back(tests::wait_for(sim::set_of(sim::StreamId{3})));
  }
  sketch.plan.streams.add("fourth");
  std::vector<std::uint32_t> all;
  for (std::uint32_t i = 0; i < nodes * local_ranks; ++i) all.push_back(i);
  sketch.runs(all, ops);
  return sketch.finished();
}

void folding(benchmark::State& state) {
  const sim::Plan plan = ring_plan(static_cast<std::uint32_t>(state.range(0)) / 8, 8, 1);
  std::size_t classes = 0;
  for (auto _ : state) classes = sim::fold(plan).program_of.size();
  state.counters["classes"] = static_cast<double>(classes);
  count_rate(state, "ranks/s", static_cast<double>(state.range(0)));
}
BENCHMARK(folding)->Arg(1024)->Arg(16'384)->Arg(131'072)->Arg(1'048'576)->Unit(benchmark::kMillisecond);

void ring_all_reduce_beside_sends(benchmark::State& state) {
  const sim::Plan plan = ring_plan(static_cast<std::uint32_t>(state.range(0)) / 8, 8, 4);
  const bool fold = state.range(1) != 0;
  sim::Outcome outcome;
  for (auto _ : state) outcome = sim::run(plan, {.fold = fold, .most_steps = 2});
  state.SetLabel(fold ? "folded" : "every rank");
  state.counters["classes"] = static_cast<double>(outcome.rank_classes);
  count_rate(state, "events", static_cast<double>(outcome.events));
  count_rate(state, "ops", 2 * static_cast<double>(outcome.operations));
}
BENCHMARK(ring_all_reduce_beside_sends)
    ->ArgNames({"ranks", "fold"})
    ->Args({8192, 1})
    ->Args({1024, 0})
    ->Args({8192, 0})
    ->Unit(benchmark::kMillisecond);

// One ring over 1,024 hosts and nothing beside it.
void ring_all_reduce_alone(benchmark::State& state) {
  const auto hosts = static_cast<std::uint32_t>(state.range(0));
  tests::SharedPlanSketch sketch(hosts);
  std::vector<std::uint32_t> members;
  std::vector<std::vector<Crossing>> hops;
  for (std::uint32_t h = 0; h < hosts; ++h) {
    members.push_back(h);
    hops.push_back({{.link = sketch.link(nic), .weight = 1}});
  }
  sketch.carries_flows(sketch.join(members), hops);
  const sim::CallId reduce = sketch.transfer({.bytes = 1 << 30, .rate = nic, .phase_bytes = 1 << 24});
  sketch.runs(members, {tests::communicate(reduce, sim::compute_stream)});
  const sim::Plan& plan = sketch.finished();
  const bool fold = state.range(1) != 0;
  for (auto _ : state) benchmark::DoNotOptimize(sim::run(plan, {.fold = fold, .most_steps = 1}).step_time);
  state.SetLabel(fold ? "folded" : "every rank");
}
BENCHMARK(ring_all_reduce_alone)
    ->ArgNames({"hosts", "fold"})
    ->Args({1024, 1})
    ->Args({1024, 0})
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace trainyard

BENCHMARK_MAIN();
