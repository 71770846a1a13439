#include "sim/fluid.hpp"

#include <algorithm>
#include <functional>
#include <limits>

namespace trainyard::sim {
namespace {

constexpr std::int64_t unsettled = std::numeric_limits<std::int64_t>::max();  // no time: the end of a flow without rate

}  // namespace

Volume volume_of(Bytes bytes) {
  ensure(bytes.count >= 0, "an amount is not negative");
  if (bytes.count >= (std::int64_t{1} << 60)) throw TooLarge("a message does not fit the network's arithmetic");
  return (static_cast<Volume>(bytes.count) * std::pico::den) << rate_fraction_bits;
}

std::uint64_t rate_of(BytesPerSecond rate) {
  ensure(rate.count > 0, "a rate is positive");
  if (rate.count >= (std::int64_t{1} << (63 - rate_fraction_bits)))
    throw TooLarge("a connection of more than 8.7 TB/s does not fit the network's arithmetic");
  return static_cast<std::uint64_t>(rate.count) << rate_fraction_bits;
}

std::int64_t time_through(Volume volume, std::uint64_t rate) {
  const Volume ticks = (volume + rate - 1) / rate;
  if (ticks > static_cast<Volume>(std::numeric_limits<std::int64_t>::max() / 4))
    throw TooLarge("a transfer takes longer than the 26 days of the simulated clock");
  return static_cast<std::int64_t>(ticks);
}

Fluid::Fluid(const Network& network)
    : network_(network),
      flows_(network.flow_count()),
      links_(network.links().size()),
      running_(network.links().size()),
      position_(network.crossing_count()) {}

Volume Fluid::capacity_of(LinkId link) const {
  const SharedLink& shared = network_.links()[link];
  return (static_cast<Volume>(shared.capacity.count) << rate_fraction_bits) * shared.scale;
}

void Fluid::start(FlowId id, Volume volume, std::uint64_t limit) {
  FlowState& flow = flows_[index_of(id)];
  ensure(!flow.running, "a flow that runs is not started again");
  flow.remaining = volume;
  flow.rate = 0;
  flow.limit = limit;
  flow.end = unsettled;
  flow.running = true;
  std::size_t crossing = network_.first_crossing(id);
  for (const Crossing& on : network_.crossings(id)) {
    auto& list = running_[index_of(on.link)];
    position_[crossing] = static_cast<std::uint32_t>(list.size());
    list.push_back({.flow = id, .weight = on.weight, .crossing = crossing++});
  }
  started_.push_back(id);
}

void Fluid::finish(FlowId id) {
  FlowState& flow = flows_[index_of(id)];
  ensure(flow.running, "only a flow that runs is finished");
  flow.running = false;
  std::size_t crossing = network_.first_crossing(id);
  for (const Crossing& on : network_.crossings(id)) {
    auto& list = running_[index_of(on.link)];
    const std::uint32_t at = position_[crossing++];
    list[at] = list.back();
    position_[list[at].crossing] = at;
    list.pop_back();
    if (!list.empty()) left_.push_back(on.link);
  }
}

void Fluid::collect(FlowId seed) {
  flows_here_.clear();
  links_here_.clear();
  flows_here_.push_back(seed);
  flows_[index_of(seed)].mark = mark_;
  for (std::size_t next = 0; next < flows_here_.size(); ++next) {
    for (const Crossing& on : network_.crossings(flows_here_[next])) {
      LinkState& link = links_[index_of(on.link)];
      if (link.mark == mark_) continue;
      link.mark = mark_;
      links_here_.push_back(on.link);
      for (const Running& running : running_[index_of(on.link)]) {
        FlowState& flow = flows_[index_of(running.flow)];
        if (flow.mark == mark_) continue;
        flow.mark = mark_;
        flows_here_.push_back(running.flow);
      }
    }
  }
}

void Fluid::rate(FlowId id, std::uint64_t rate) {
  FlowState& flow = flows_[index_of(id)];
  ensure(rate > 0, "a running flow has a share of every link");
  if (flow.rate == rate) return;
  if (flow.rate == 0)
    flow.updated = now_;
  else
    flow.remaining -=
        std::min(flow.remaining, static_cast<Volume>(flow.rate) * static_cast<Volume>(now_ - flow.updated));
  flow.updated = now_;
  flow.rate = rate;
  const std::int64_t end = now_ + time_through(flow.remaining, rate);
  if (end == flow.end) return;
  flow.end = end;
  changed_.push_back(id);
}

void Fluid::share() {
  ++solved_components_;
  solved_flows_ += flows_here_.size();
  if (flows_here_.size() > 1) return fill();
  const FlowId alone = flows_here_.front();
  std::uint64_t level = flows_[index_of(alone)].limit;
  for (const Crossing& on : network_.crossings(alone)) {
    const Volume capacity = capacity_of(on.link);
    level = static_cast<std::uint64_t>(std::min<Volume>(level, on.weight == 1 ? capacity : capacity / on.weight));
  }
  rate(alone, level);
}

void Fluid::open_flows_and_links() {
  limits_.clear();
  for (const FlowId id : flows_here_) {
    FlowState& flow = flows_[index_of(id)];
    flow.open = true;
    limits_.push_back({.level = flow.limit, .index = static_cast<std::uint32_t>(index_of(id))});
  }
  next_limit_ = 0;
  if (!std::ranges::is_sorted(limits_, std::less<>{})) std::ranges::sort(limits_, std::less<>{});  // often all alike
  link_levels_.clear();
  touched_.clear();
  for (const LinkId id : links_here_) {
    LinkState& link = links_[index_of(id)];
    link.residual = capacity_of(id);
    link.open_weight = 0;
    for (const Running& running : running_[index_of(id)]) link.open_weight += running.weight;
    touched_.push_back(id);
  }
}

void Fluid::find_levels() {
  for (const LinkId id : touched_) {
    LinkState& link = links_[index_of(id)];
    link.touched = false;
    if (link.open_weight == 0) continue;
    const Volume level = link.residual / link.open_weight;
    link.level = static_cast<std::uint64_t>(std::min<Volume>(level, std::numeric_limits<std::uint64_t>::max()));
    link_levels_.push_back({.level = link.level, .index = static_cast<std::uint32_t>(index_of(id))});
    std::ranges::push_heap(link_levels_, std::greater<>{});
  }
  touched_.clear();
}

std::uint64_t Fluid::take_lowest() {
  const auto outdated = [&](const Level& of) {
    return links_[of.index].level != of.level || links_[of.index].open_weight == 0;
  };
  const auto drop_top = [&] {
    std::ranges::pop_heap(link_levels_, std::greater<>{});
    link_levels_.pop_back();
  };
  const auto take = [&](FlowId id) {
    FlowState& flow = flows_[index_of(id)];
    if (!flow.open) return;
    flow.open = false;
    fixed_now_.push_back(id);
  };
  while (!link_levels_.empty() && outdated(link_levels_.front())) drop_top();
  while (!flows_[limits_[next_limit_].index].open) ++next_limit_;
  std::uint64_t lowest = limits_[next_limit_].level;
  if (!link_levels_.empty()) lowest = std::min(lowest, link_levels_.front().level);

  fixed_now_.clear();
  for (; next_limit_ < limits_.size() && limits_[next_limit_].level == lowest; ++next_limit_)
    take(FlowId{limits_[next_limit_].index});
  for (; !link_levels_.empty() && link_levels_.front().level == lowest; drop_top())
    if (!outdated(link_levels_.front()))
      for (const Running& running : running_[link_levels_.front().index]) take(running.flow);
  return lowest;
}

void Fluid::fix(FlowId id, std::uint64_t level) {
  for (const Crossing& on : network_.crossings(id)) {
    LinkState& link = links_[index_of(on.link)];
    link.residual -= static_cast<Volume>(level) * on.weight;
    link.open_weight -= on.weight;
    if (link.touched) continue;
    link.touched = true;
    touched_.push_back(on.link);
  }
  rate(id, level);
}

void Fluid::fill() {
  open_flows_and_links();
  for (std::size_t open = flows_here_.size(); open > 0; open -= fixed_now_.size()) {
    find_levels();
    // All that is at the lowest level is fixed together, before anything is subtracted: the order does not matter.
    const std::uint64_t lowest = take_lowest();
    for (const FlowId id : fixed_now_) fix(id, lowest);
  }
}

std::span<const FlowId> Fluid::settle(std::int64_t now) {
  ensure(now >= now_, "time does not go back");
  now_ = now;
  changed_.clear();
  ++mark_;
  const auto solve = [&](FlowId seed) {
    if (flows_[index_of(seed)].mark == mark_ || !flows_[index_of(seed)].running) return;
    collect(seed);
    share();
  };
  for (const FlowId id : started_) solve(id);
  for (const LinkId id : left_)
    for (const Running& running : running_[index_of(id)]) {
      solve(running.flow);
      break;  // the others on the link are in the same component
    }
  started_.clear();
  left_.clear();
  return changed_;
}

}  // namespace trainyard::sim
