// Folding is exact where links are shared too: on random plans of the executor's own level, simulating one rank of each
// kind, and taking what happens at the same time in any order, gives every time and every sum of simulating every rank.
//
// TRAINYARD_FOLD_CASES draws so many plans instead of a few hundred, TRAINYARD_FOLD_SEED begins elsewhere.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "sim/executor.hpp"
#include "tests/support/plan_sketch.hpp"
#include "tests/support/random_choices.hpp"

namespace trainyard::sim {
namespace {

using tests::communicate;
using tests::rank;
using tests::wait_for;

// Our own mapping to ranges: the same plans with every library.
class Random {
 public:
  explicit Random(std::uint64_t seed) : bits_(seed) {}
  std::uint32_t below(std::uint32_t limit) { return static_cast<std::uint32_t>(bits_() % limit); }
  bool one_in(std::uint32_t n) { return below(n) == 0; }
  template <class Value, std::size_t count>
  Value of(const std::array<Value, count>& values) {
    return values.at(below(count));
  }

 private:
  std::mt19937_64 bits_;
};

constexpr std::uint32_t most_ranks = 256;
constexpr std::size_t most_recorded = 249;
constexpr StreamId tensor_stream{1};
constexpr StreamId data_stream{2};
constexpr StreamId send_stream{3};
constexpr StreamId receive_stream{4};

// Where an algorithm's connections go.
enum class Shape : std::uint8_t { ring, hops, pairs, forth, back };

// A cluster of nodes in pods, every rank of tensor x data x pipeline groups somewhere in it, and a training step with
// everything that may meet on a link.
class ClusterWriter {
 public:
  explicit ClusterWriter(std::uint64_t seed) : random_(seed) {}

  Plan write() {
    draw_shape();
    for (const char* const name : {"compute", "tensor", "data", "send", "receive"}) plan_.streams.add(name);
    plan_.absolute_events = 2;
    plan_.relative_events = 2;
    place();
    add_links();
    add_devices();
    add_groups();
    add_calls();
    add_programs();
    add_costs();
    return std::move(plan_);
  }

 private:
  void draw_shape() {
    do {
      tensor_ = random_.of(std::array<std::uint32_t, 5>{1, 2, 4, 8, 3});
      data_ = random_.of(std::array<std::uint32_t, 7>{1, 2, 3, 4, 6, 8, 16});
      pipeline_ = random_.of(std::array<std::uint32_t, 4>{1, 2, 3, 4});
      ranks_ = tensor_ * data_ * pipeline_;
    } while (ranks_ > most_ranks || ranks_ < 2);
    round_ = !random_.one_in(3);
    interferes_ = random_.one_in(2);
    phases_ = random_.one_in(2);
    ports_ = random_.one_in(4);
    odd_limits_ = random_.one_in(6);
  }

  // Round figures tie often, odd ones hardly ever: both have to hold.
  std::int64_t duration() {
    if (round_) return random_.of(std::array<std::int64_t, 6>{0, 1'000, 5'000, 20'000, 40'000, 100'000});
    return random_.below(100'000);
  }
  std::int64_t bytes() {
    if (round_) return random_.of(std::array<std::int64_t, 5>{0, 1'000, 2'000, 6'000, 10'000});
    return random_.below(10'000);
  }
  BytesPerSecond capacity() {
    if (round_) return {random_.of(std::array<std::int64_t, 4>{25, 50, 50, 100}) * 1'000'000'000};
    return {1'000'000'000 + random_.below(1'000'000'000) * std::int64_t{100}};
  }

  std::uint32_t rank_at(std::uint32_t t, std::uint32_t d, std::uint32_t p) const {
    return (p * data_ + d) * tensor_ + t;
  }

  void place() {
    node_size_ = random_.of(std::array<std::uint32_t, 4>{1, 2, 4, 8});
    nic_share_ = random_.of(std::array<std::uint32_t, 3>{1, 1, 2});
    pod_nodes_ = random_.of(std::array<std::uint32_t, 4>{1, 2, 3, 4});
    position_.resize(ranks_);
    const bool pipeline_inside = random_.one_in(4);
    for (std::uint32_t p = 0; p < pipeline_; ++p)
      for (std::uint32_t d = 0; d < data_; ++d)
        for (std::uint32_t t = 0; t < tensor_; ++t)
          position_[rank_at(t, d, p)] = pipeline_inside ? (d * pipeline_ + p) * tensor_ + t : rank_at(t, d, p);
    if (!random_.one_in(8)) return;
    for (std::uint32_t i = ranks_; i > 1; --i) std::swap(position_[i - 1], position_[random_.below(i)]);
  }

  struct Cable {
    std::vector<LinkId> up;
    std::vector<LinkId> down;
  };
  Cable cable(BytesPerSecond each_way, std::uint32_t strands, bool may_be_broken) {
    Cable result;
    for (std::vector<LinkId>* const side : {&result.up, &result.down})
      for (std::uint32_t s = 0; s < strands; ++s) {
        SharedLink link{.capacity = each_way, .scale = strands, .label = 0};
        if (may_be_broken && random_.one_in(20)) link.capacity.count /= 2;
        side->push_back(plan_.network.add_link(link));
      }
    return result;
  }

  void add_links() {
    const bool broken = random_.one_in(5);
    const std::uint32_t strands = random_.of(std::array<std::uint32_t, 4>{1, 1, 2, 3});
    const BytesPerSecond nic = capacity();
    const BytesPerSecond port = capacity();
    BytesPerSecond uplink = nic;
    uplink.count *= random_.of(std::array<std::int64_t, 3>{1, 2, 4});
    if (!round_) uplink = capacity();
    const std::uint32_t nodes = (ranks_ + node_size_ - 1) / node_size_;
    for (std::uint32_t i = 0; i < nodes * node_size_; i += nic_share_) nics_.push_back(cable(nic, 1, broken));
    for (std::uint32_t i = 0; i < nodes; i += pod_nodes_) uplinks_.push_back(cable(uplink, strands, broken));
    for (std::uint32_t i = 0; ports_ && i < nodes * node_size_; ++i) ports_of_.push_back(cable(port, 1, false));
  }

  void add_devices() {
    const bool stragglers = random_.one_in(5);
    for (std::uint32_t k = 0; k < 6; ++k)
      plan_.kernels.add({.name = "kernel " + std::to_string(k),
                         .kind = static_cast<KernelClass>(k % kernel_classes),
                         .duration = Duration{duration()}});
    if (!stragglers) return;
    for (const bool slow : {false, true}) {
      DeviceClass device;
      device.name = slow ? "slow" : "healthy";
      device.slow = slow;
      for (const Kernel& kernel : plan_.kernels) device.kernels.push_back(kernel.duration * (slow ? 3 : 2) / 2);
      plan_.device_classes.add(device);
    }
    for (std::uint32_t i = 0; i < ranks_; ++i)
      plan_.device_class_of.add(DeviceClassId{static_cast<std::uint16_t>(random_.one_in(30) ? 1 : 0)});
  }

  // What a group is called in a program: its slot, and for a pair the slot of its other end.
  struct GroupKind {
    std::string name;
    SlotId slot{};
    std::vector<Shape> shapes;
    std::int64_t limit = 0;
  };

  using Weights = std::map<LinkId, std::uint32_t>;
  void connect(std::uint32_t from, std::uint32_t to, Weights& weights) const {
    const auto cross = [&](const std::vector<LinkId>& strands) {
      // A connection is sprayed over all strands: a weight of one is 1 / strands, the scale of each.
      for (const LinkId strand : strands) ++weights[strand];
    };
    const std::uint32_t a = position_[from];
    const std::uint32_t b = position_[to];
    if (a / node_size_ == b / node_size_) {
      if (!ports_) return;
      cross(ports_of_[a].up);
      cross(ports_of_[b].down);
      return;
    }
    cross(nics_[a / nic_share_].up);
    cross(nics_[b / nic_share_].down);
    if (a / node_size_ / pod_nodes_ == b / node_size_ / pod_nodes_) return;
    cross(uplinks_[a / node_size_ / pod_nodes_].up);
    cross(uplinks_[b / node_size_ / pod_nodes_].down);
  }

  void carry(CommunicatorId id, const std::vector<std::uint32_t>& members, const GroupKind& kind) {
    for (const Shape shape : kind.shapes) {
      const bool exception = odd_limits_ && random_.one_in(10);
      const TrafficId traffic = plan_.network.begin_traffic(exception ? capacity() : BytesPerSecond{kind.limit});
      if (plan_.communicators[id].traffic_count++ == 0) plan_.communicators[id].first_traffic = traffic;
      Weights weights;
      const auto add_flow = [&] {
        if (weights.empty()) return;
        plan_.network.begin_flow();
        for (const auto& [link, weight] : weights) plan_.network.cross(link, weight);
        weights.clear();
      };
      for (std::size_t i = 0; i < members.size(); ++i) {
        const std::uint32_t following = members[(i + 1) % members.size()];
        if (shape == Shape::pairs)
          for (const std::uint32_t other : members)
            if (other != members[i]) connect(members[i], other, weights);
        if (shape == Shape::ring || shape == Shape::hops) connect(members[i], following, weights);
        if (shape == Shape::hops) add_flow();
      }
      if (shape == Shape::forth) connect(members[0], members[1], weights);
      if (shape == Shape::back) connect(members[1], members[0], weights);
      add_flow();
    }
  }

  void add_group(const std::vector<std::uint32_t>& members, const GroupKind& kind) {
    if (members.size() < 2) return;
    std::vector<RankId> ids;
    for (const std::uint32_t member : members) ids.push_back(rank(member));
    const CommunicatorId id = plan_.communicators.add(ids, std::vector<SlotId>(ids.size(), kind.slot));
    carry(id, members, kind);
  }
  void add_pair(std::uint32_t from, std::uint32_t to, const GroupKind& kind) {
    const SlotId other{static_cast<std::uint8_t>(index_of(kind.slot) + 1)};
    const CommunicatorId id = plan_.communicators.add({rank(from), rank(to)}, {kind.slot, other});
    carry(id, {from, to}, kind);
  }

  SlotId add_slot(const std::string& name) { return plan_.slots.add(name); }
  Shape collective_shape() {
    return random_.of(std::array<Shape, 4>{Shape::ring, Shape::hops, Shape::hops, Shape::pairs});
  }
  std::int64_t limit() { return random_.one_in(4) ? capacity().count : 0; }

  void add_groups() {
    const GroupKind tensor{"tensor", add_slot("tensor"), {collective_shape()}, limit()};
    const GroupKind data{"data", add_slot("data"), {collective_shape(), collective_shape()}, limit()};
    const GroupKind stage{"next", add_slot("next"), {Shape::forth, Shape::back}, limit()};
    add_slot("previous");
    const GroupKind exchange{"ring next", add_slot("ring next"), {Shape::forth}, limit()};
    add_slot("ring previous");
    const GroupKind odd{"odd", add_slot("odd"), {collective_shape()}, limit()};
    slots_ = {tensor.slot, data.slot, stage.slot, exchange.slot, odd.slot};
    plan_.communicators = CommunicatorTable(ranks_, plan_.slots.size());
    for (std::uint32_t p = 0; p < pipeline_; ++p)
      for (std::uint32_t d = 0; d < data_; ++d) {
        std::vector<std::uint32_t> members;
        for (std::uint32_t t = 0; t < tensor_; ++t) members.push_back(rank_at(t, d, p));
        add_group(members, tensor);
        for (std::uint32_t t = 0; t < tensor_ && p + 1 < pipeline_; ++t)
          add_pair(rank_at(t, d, p), rank_at(t, d, p + 1), stage);
      }
    for (std::uint32_t p = 0; p < pipeline_; ++p)
      for (std::uint32_t t = 0; t < tensor_; ++t) {
        std::vector<std::uint32_t> members;
        for (std::uint32_t d = 0; d < data_; ++d) members.push_back(rank_at(t, d, p));
        add_group(members, data);
        for (std::uint32_t d = 0; d < data_ && data_ > 1; ++d)
          add_pair(rank_at(t, d, p), rank_at(t, (d + 1) % data_, p), exchange);
      }
    add_odd_groups(odd);
  }

  // Everybody, or a random partition into groups of any size.
  void add_odd_groups(const GroupKind& kind) {
    odd_groups_ = random_.one_in(4);
    if (!odd_groups_) return;
    std::vector<std::uint32_t> left(ranks_);
    std::iota(left.begin(), left.end(), 0U);
    if (random_.one_in(2)) return add_group(left, kind);
    for (std::uint32_t i = ranks_; i > 1; --i) std::swap(left[i - 1], left[random_.below(i)]);
    for (std::uint32_t from = 0; from < ranks_;) {
      const std::uint32_t to = std::min(ranks_, from + 2 + random_.below(6));
      if (to - from < 2 || ranks_ - to == 1) {
        add_group({left.begin() + from, left.end()}, kind);
        break;
      }
      add_group({left.begin() + from, left.begin() + to}, kind);
      from = to;
    }
  }

  CallId add_call(SlotId slot, CollectiveKind kind, Purpose purpose, const CommunicationCost& cost) {
    costs_.push_back(cost);
    return plan_.calls.add({.slot = slot, .kind = kind, .bytes = cost.flow_bytes, .purpose = purpose});
  }
  CommunicationCost cost(std::uint8_t traffic = 0) {
    CommunicationCost result;
    result.latency = Duration{duration() / 2};
    result.flow_bytes = Bytes{bytes()};
    result.flow_rate = random_.one_in(2) ? BytesPerSecond{1'000'000'000'000} : capacity();
    result.duration = result.latency + time_for(result.flow_bytes, result.flow_rate);
    if (phases_ && random_.one_in(2)) result.phase_bytes = Bytes{1 + result.flow_bytes.count / (1 + random_.below(5))};
    if (interferes_ && random_.one_in(2))
      result.interference = random_.of(std::array<std::uint16_t, 4>{128, 256, 333, 600});
    result.traffic = traffic;
    return result;
  }
  std::pair<CallId, CallId> add_exchange(SlotId sender, SlotId receiver, std::uint8_t traffic, Purpose purpose) {
    const CommunicationCost alike = cost(traffic);
    return {add_call(sender, CollectiveKind::send, purpose, alike),
            add_call(receiver, CollectiveKind::receive, purpose, alike)};
  }

  void add_calls() {
    const auto beside = [](SlotId slot) { return SlotId{static_cast<std::uint8_t>(index_of(slot) + 1)}; };
    const auto [tensor, data, stage, exchange, odd] = slots_;
    reduce_tensor_ = add_call(tensor, CollectiveKind::all_reduce, Purpose::tensor, cost());
    gather_tensor_ = add_call(tensor, CollectiveKind::all_gather, Purpose::tensor, cost());
    gather_data_ = add_call(data, CollectiveKind::all_gather, Purpose::data, cost());
    reduce_data_ = add_call(data, CollectiveKind::reduce_scatter, Purpose::data, cost(1));
    forth_ = add_exchange(stage, beside(stage), 0, Purpose::pipeline);
    back_ = add_exchange(beside(stage), stage, 1, Purpose::pipeline);
    around_ = add_exchange(exchange, beside(exchange), 0, Purpose::context);
    odd_ = add_call(odd, CollectiveKind::all_reduce, Purpose::expert, cost());
  }

  // Some communicators take longer to begin.
  void add_costs() {
    plan_.costs.add(costs_);
    if (!random_.one_in(6)) return;
    const Duration longer{duration()};
    for (CommunicationCost& cost : costs_) {
      cost.latency += longer;
      cost.duration = cost.latency + time_for(cost.flow_bytes, cost.flow_rate);
    }
    const CostClassId slower = plan_.costs.add(costs_);
    for (std::uint32_t i = 0; i < plan_.communicators.size(); ++i)
      if (random_.one_in(10)) plan_.communicators[CommunicatorId{i}].cost = slower;
  }

  Op kernel(StreamSet after = 0, StreamId stream = compute_stream) {
    return {.stream = stream, .work = Compute{KernelId{random_.below(6)}}, .after = after};
  }
  Op memory(std::int64_t change) { return {.work = Memory{MemoryPurpose::activations, Bytes{change}}}; }

  void use_tensor(std::vector<Op>& ops) {
    if (tensor_ == 1) return;
    if (random_.one_in(2)) return ops.push_back(communicate(reduce_tensor_, compute_stream));
    ops.push_back(communicate(gather_tensor_, tensor_stream, set_of(compute_stream)));
    if (!random_.one_in(3)) ops.push_back(kernel());
    if (!random_.one_in(3)) ops.push_back(kernel(set_of(tensor_stream)));
  }
  // Everyone passes something on to the next replica.
  void use_exchange(std::vector<Op>& ops) {
    if (data_ == 1 || !random_.one_in(2)) return;
    ops.push_back(communicate(around_.first, send_stream, set_of(compute_stream)));
    ops.push_back(communicate(around_.second, receive_stream));
    ops.push_back(kernel());
    if (random_.one_in(2)) ops.push_back(kernel(static_cast<StreamSet>(set_of(send_stream) | set_of(receive_stream))));
  }
  void use_data(std::vector<Op>& ops, CallId call) {
    if (data_ == 1) return;
    ops.push_back(communicate(call, data_stream, random_.one_in(4) ? StreamSet{0} : set_of(compute_stream)));
  }

  Block forward(std::uint32_t stage) {
    std::vector<Op> ops;
    if (stage > 0) {
      ops.push_back(communicate(forth_.second, receive_stream));
      ops.push_back(wait_for(set_of(receive_stream)));
    }
    ops.push_back(memory(10));
    ops.push_back(kernel());
    use_tensor(ops);
    use_exchange(ops);
    ops.push_back(kernel());
    if (stage + 1 < pipeline_) ops.push_back(communicate(forth_.first, send_stream, set_of(compute_stream)));
    if (random_.one_in(3)) ops.push_back(kernel());
    return {.name = "forward", .launch = launch_, .ops = ops};
  }
  Block backward(std::uint32_t stage) {
    std::vector<Op> ops;
    if (stage + 1 < pipeline_) {
      ops.push_back(communicate(back_.second, receive_stream));
      ops.push_back(wait_for(set_of(receive_stream)));
    }
    ops.push_back(kernel());
    use_tensor(ops);
    if (random_.one_in(3)) use_data(ops, reduce_data_);
    ops.push_back(kernel());
    ops.push_back(memory(-10));
    if (stage > 0) ops.push_back(communicate(back_.first, send_stream, set_of(compute_stream)));
    if (random_.one_in(4)) ops.push_back(kernel(0, data_stream));
    return {.name = "backward", .launch = launch_, .ops = ops};
  }
  Block finish(bool host_waits) {
    std::vector<Op> ops;
    use_data(ops, reduce_data_);
    ops.push_back(kernel());
    if (odd_groups_) ops.push_back(communicate(odd_, random_.one_in(2) ? compute_stream : tensor_stream));
    if (random_.one_in(2)) ops.push_back(wait_for(set_of(data_stream)));
    ops.push_back(kernel());
    use_data(ops, gather_data_);
    if (random_.one_in(2)) ops.push_back(kernel());
    if (random_.one_in(2)) ops.push_back(wait_for(set_of(data_stream)));
    if (host_waits) ops.push_back({.work = HostWait{}, .after = set_of(compute_stream)});
    return {.name = "finish", .launch = launch_, .ops = ops};
  }

  void add_programs() {
    launch_ = Duration{random_.one_in(2) ? 0 : duration() / 4};
    const std::uint32_t micro_batches = 1 + random_.below(4);
    const bool host_waits = random_.one_in(2);
    // Where all ranks take part in a group, all must issue the same calls.
    const bool two_kinds = !odd_groups_ && tensor_ == 1 && data_ % 2 == 0 && random_.one_in(10);
    plan_.program_of = Table<RankId, ProgramId>(ranks_);
    for (std::uint32_t stage = 0; stage < pipeline_; ++stage) {
      const BlockId go = plan_.blocks.add(forward(stage));
      const BlockId come = plan_.blocks.add(backward(stage));
      const BlockId end = plan_.blocks.add(finish(host_waits));
      Program program{.name = "stage " + std::to_string(stage), .calls = {}, .resident = {}};
      for (std::uint32_t m = 0; m < micro_batches; ++m)
        program.calls.push_back({.block = go, .layer = 0, .micro_batch = static_cast<std::int32_t>(m)});
      for (std::uint32_t m = 0; m < micro_batches; ++m)
        program.calls.push_back({.block = come, .layer = 0, .micro_batch = static_cast<std::int32_t>(m)});
      program.calls.push_back({.block = end});
      const ProgramId id = plan_.programs.add(program);
      // Alike in all but name: folding must not take it for more than a colour.
      program.name += ", again";
      const ProgramId twin = two_kinds ? plan_.programs.add(program) : id;
      for (std::uint32_t d = 0; d < data_; ++d)
        for (std::uint32_t t = 0; t < tensor_; ++t)
          plan_.program_of[rank(rank_at(t, d, stage))] = d % 2 == 0 ? id : twin;
    }
  }

  Random random_;
  Plan plan_;
  std::uint32_t tensor_ = 1;
  std::uint32_t data_ = 1;
  std::uint32_t pipeline_ = 1;
  std::uint32_t ranks_ = 1;
  bool round_ = true;
  bool interferes_ = false;
  bool phases_ = false;
  bool ports_ = false;
  bool odd_limits_ = false;
  bool odd_groups_ = false;
  std::uint32_t node_size_ = 1;
  std::uint32_t nic_share_ = 1;
  std::uint32_t pod_nodes_ = 1;
  std::vector<std::uint32_t> position_;  // of each rank
  std::vector<Cable> nics_;
  std::vector<Cable> uplinks_;
  std::vector<Cable> ports_of_;
  std::array<SlotId, 5> slots_{};
  Duration launch_{};
  CallId reduce_tensor_{}, gather_tensor_{}, gather_data_{}, reduce_data_{}, odd_{};
  std::pair<CallId, CallId> forth_{}, back_{}, around_{};
  std::vector<CommunicationCost> costs_;
};

std::string text(WideDuration duration) { return std::to_string(static_cast<std::int64_t>(duration.ps)) + " ps"; }
std::string text(TimePoint time) { return std::to_string(time.time_since_epoch().count()); }

// The first thing in which two outcomes differ, leaving out how much work it was to find them; empty: none.
std::string difference(const Outcome& a, const Outcome& b) {
  std::string found;
  const auto compare = [&](const std::string& what, const auto& left, const auto& right, auto print) {
    if (found.empty() && !(left == right)) found = what + ": " + print(left) + " and " + print(right);
  };
  const auto compare_count = [&](const std::string& what, auto left, auto right) {
    compare(what, left, right, [](auto value) { return std::to_string(value); });
  };
  const auto compare_wide = [&](const std::string& what, WideDuration left, WideDuration right) {
    if (found.empty() && left.ps != right.ps) found = what + ": " + text(left) + " and " + text(right);
  };
  compare("stall", a.stall, b.stall, [](const std::string& value) { return value; });
  compare_count("number of records", a.records.size(), b.records.size());
  for (std::size_t i = 0; found.empty() && i < a.records.size(); ++i) {
    const OpRecord& x = a.records[i];
    const OpRecord& y = b.records[i];
    const std::string where = "record " + std::to_string(i) + " (rank " + std::to_string(index_of(y.rank)) +
                              ", block " + std::to_string(index_of(y.block)) + ", op " + std::to_string(y.op) +
                              ", micro-batch " + std::to_string(y.micro_batch) + ") ";
    compare_count(where + "rank", index_of(x.rank), index_of(y.rank));
    compare_count(where + "stream", index_of(x.stream), index_of(y.stream));
    compare_count(where + "block", index_of(x.block), index_of(y.block));
    compare_count(where + "op", x.op, y.op);
    compare_count(where + "layer", x.layer, y.layer);
    compare_count(where + "micro-batch", x.micro_batch, y.micro_batch);
    compare(where + "start", x.start, y.start, [](TimePoint time) { return text(time); });
    compare(where + "transfer", x.transfer, y.transfer, [](TimePoint time) { return text(time); });
    compare(where + "end", x.end, y.end, [](TimePoint time) { return text(time); });
    compare_count(where + "communicator", index_of(x.communicator), index_of(y.communicator));
    compare_count(where + "sequence", x.sequence, y.sequence);
  }
  compare("step time", a.step_time, b.step_time, [](Duration value) { return std::to_string(value.count()); });
  compare_count("steady", a.steady ? 1 : 0, b.steady ? 1 : 0);
  compare("measured from", a.measured_from, b.measured_from, [](TimePoint time) { return text(time); });
  for (std::size_t k = 0; k < kernel_classes; ++k)
    compare_wide("kernels " + std::to_string(k), a.time.kernels.at(k), b.time.kernels.at(k));
  for (std::size_t p = 0; p < purposes; ++p)
    compare_wide("exposed " + std::to_string(p), a.time.exposed.at(p), b.time.exposed.at(p));
  compare_wide("bubble", a.time.bubble, b.time.bubble);
  compare_wide("host", a.time.host, b.time.host);
  compare_wide("idle", a.time.idle, b.time.idle);
  compare_count("number of calls", a.calls.size(), b.calls.size());
  for (std::size_t c = 0; found.empty() && c < a.calls.size(); ++c) {
    compare_wide("busy " + std::to_string(c), a.calls[a.calls.id(c)].busy, b.calls[b.calls.id(c)].busy);
    compare_wide("exposed " + std::to_string(c), a.calls[a.calls.id(c)].exposed, b.calls[b.calls.id(c)].exposed);
  }
  compare_count("number of memory records", a.memory.size(), b.memory.size());
  for (std::size_t i = 0; found.empty() && i < a.memory.size(); ++i) {
    const std::string where = "memory record " + std::to_string(i) + " ";
    compare_count(where + "rank", index_of(a.memory[i].rank), index_of(b.memory[i].rank));
    compare(where + "when", a.memory[i].when, b.memory[i].when, [](TimePoint time) { return text(time); });
    compare(where + "allocated", a.memory[i].allocated, b.memory[i].allocated, [](const auto&) { return ""; });
  }
  compare_count("operations", a.operations, b.operations);
  compare_count("communications", a.communications, b.communications);
  compare_count("held back", a.held_back, b.held_back);
  return found;
}

TEST(SharedNetworkFoldTest, GivesEveryTimestampAndEverySumOfTheUnfoldedRunInAnyOrder) {
  const std::uint64_t cases = tests::from_environment("TRAINYARD_FOLD_CASES", 400);
  const std::uint64_t first = tests::from_environment("TRAINYARD_FOLD_SEED", 1);
  std::uint64_t folded_cases = 0;
  std::uint64_t halved_cases = 0;
  std::uint64_t contended_cases = 0;
  for (std::uint64_t seed = first; seed < first + cases; ++seed) {
    SCOPED_TRACE("TRAINYARD_FOLD_SEED=" + std::to_string(seed));
    const Plan plan = ClusterWriter(seed).write();
    RunOptions options{.most_steps = static_cast<int>(1 + seed % 4)};
    options.record = tests::all_ranks(plan);
    options.record.resize(std::min(options.record.size(), most_recorded));
    const Outcome folded = run(plan, options);
    EXPECT_EQ(folded.stall, "");
    options.tie_seed = seed;
    EXPECT_EQ(difference(run(plan, options), folded), "") << "folded, in random order and in order";
    options.fold = false;
    const Outcome shuffled = run(plan, options);
    options.tie_seed = 0;
    const Outcome unfolded = run(plan, options);
    EXPECT_EQ(difference(shuffled, unfolded), "") << "unfolded, in random order and in order";
    EXPECT_EQ(difference(folded, unfolded), "") << "folded and unfolded";
    EXPECT_EQ(unfolded.rank_classes, plan.program_of.size());
    folded_cases += folded.rank_classes < unfolded.rank_classes ? 1 : 0;
    halved_cases += folded.rank_classes * 2 <= unfolded.rank_classes ? 1 : 0;
    contended_cases += unfolded.events > 0 ? 1 : 0;
    if (HasFailure()) return;
  }
  RecordProperty("folded", static_cast<int>(folded_cases));
  // The draw means something only if many plans fold and most have links to share.
  EXPECT_GT(folded_cases, cases / 3);
  EXPECT_GT(halved_cases, cases / 4);
  EXPECT_GT(contended_cases, cases * 3 / 4);
}

}  // namespace
}  // namespace trainyard::sim
