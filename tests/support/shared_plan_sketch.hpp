// Plan sketches whose communicators share links.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

#include "sim/executor.hpp"
#include "tests/support/plan_sketch.hpp"

namespace trainyard::tests {

// What a call of SharedPlanSketch costs on every communicator: links decide the rest.
struct TransferCost {
  std::int64_t bytes = 0;
  std::int64_t rate = 1'000'000'000'000;  // bytes per second of a connection: a byte takes a picosecond
  std::int64_t latency_ps = 0;
  std::int64_t phase_bytes = 0;
  std::uint16_t interference = 0;
  std::uint8_t traffic = 0;
};

class SharedPlanSketch : public PlanSketch {
 public:
  using PlanSketch::PlanSketch;

  sim::LinkId link(std::int64_t bytes_per_second, std::uint32_t scale = 1) {
    return plan.network.add_link({.capacity = sim::BytesPerSecond{bytes_per_second}, .scale = scale, .label = 0});
  }
  // One more traffic of the communicator: flow by flow, the links that it crosses. A communicator's traffics are given
  // one after the other.
  void carries_flows(sim::CommunicatorId id, const std::vector<std::vector<sim::Crossing>>& flows,
                     std::int64_t limit = 0) {
    const sim::TrafficId traffic = plan.network.begin_traffic(sim::BytesPerSecond{limit});
    for (const auto& crossings : flows) {
      plan.network.begin_flow();
      for (const sim::Crossing& on : crossings) plan.network.cross(on.link, on.weight);
    }
    sim::Communicator& communicator = plan.communicators[id];
    if (communicator.traffic_count++ == 0) communicator.first_traffic = traffic;
  }
  void carries(sim::CommunicatorId id, std::initializer_list<sim::LinkId> links) {
    std::vector<sim::Crossing> crossings;
    for (const sim::LinkId on : links) crossings.push_back({.link = on, .weight = 1});
    carries_flows(id, {crossings});
  }

  sim::CallId transfer(const TransferCost& cost, sim::SlotId slot = group,
                       sim::CollectiveKind kind = sim::CollectiveKind::all_reduce,
                       sim::Purpose purpose = sim::Purpose::tensor) {
    costs_.push_back(cost);
    return plan.calls.add({.slot = slot, .kind = kind, .bytes = sim::Bytes{cost.bytes}, .purpose = purpose});
  }

  const sim::Plan& finished() {
    plan.costs = {};
    std::vector<sim::CommunicationCost> row;
    for (const TransferCost& cost : costs_) {
      const sim::Duration latency{cost.latency_ps};
      const sim::Bytes bytes{cost.bytes};
      const sim::BytesPerSecond rate{cost.rate};
      row.push_back({.duration = latency + sim::time_for(bytes, rate),
                     .latency = latency,
                     .flow_bytes = bytes,
                     .flow_rate = rate,
                     .phase_bytes = sim::Bytes{cost.phase_bytes},
                     .traffic = cost.traffic,
                     .interference = cost.interference});
    }
    plan.costs.add(row);
    return plan;
  }

 private:
  std::vector<TransferCost> costs_;
};

inline sim::Outcome first_step(SharedPlanSketch& sketch, sim::RunOptions options = {}) {
  const sim::Plan& plan = sketch.finished();
  options.record = all_ranks(plan);
  options.most_steps = 1;
  return sim::run(plan, options);
}

}  // namespace trainyard::tests
