#include "strategies/internal/deepspeed_coordinator.hpp"

#include <algorithm>
#include <limits>
#include <optional>
#include <set>

namespace trainyard::strategies {
namespace {

// `__max_ongoing_fetch_events`: the host waits for the oldest before a fourth.
constexpr std::size_t most_fetch_events = 2;

class Coordinator {
 public:
  Coordinator(const std::vector<ParameterVisit>& trace, const std::vector<std::int64_t>& elements,
              const FetchRules& rules)
      : trace_(trace),
        elements_(elements),
        rules_(rules),
        here_(elements.size(), false),
        in_flight_(elements.size()),
        last_fetched_for_(elements.size(), std::numeric_limits<std::int64_t>::min()) {
    for (std::size_t step = 0; step < trace.size(); ++step)
      for (const std::uint32_t parameter : trace[step].parameters)
        queue_.push_back({.parameter = parameter, .step = static_cast<std::int64_t>(step)});
    for (std::size_t i = 0; i < elements.size(); ++i) here_[i] = persists(static_cast<std::uint32_t>(i));
  }

  FetchPlan run() {
    for (std::size_t step = 0; step < trace_.size(); ++step) {
      FetchStep& now = plan_.steps.emplace_back();
      fetch(trace_[step], now);
      await(trace_[step], now);
      prefetch(step, now);
      release(step, now);
    }
    return std::move(plan_);
  }

 private:
  struct Use {
    std::uint32_t parameter = 0;
    std::int64_t step = 0;
  };

  bool persists(std::uint32_t parameter) const { return elements_[parameter] <= rules_.persistence_threshold; }

  std::uint32_t gather(std::vector<std::uint32_t> parameters, bool forward) {
    const auto group = static_cast<std::uint32_t>(plan_.groups.size());
    for (const std::uint32_t parameter : parameters) {
      here_[parameter] = true;
      in_flight_[parameter] = group;
      live_ += elements_[parameter];
    }
    plan_.groups.push_back({.parameters = std::move(parameters), .forward = forward});
    waited_.push_back(false);
    return group;
  }

  void fetch(const ParameterVisit& visit, FetchStep& now) {
    std::vector<std::uint32_t> missing;
    for (const std::uint32_t parameter : visit.parameters)
      if (!here_[parameter]) missing.push_back(parameter);
    if (!missing.empty()) now.gathered.push_back(gather(std::move(missing), visit.forward));
  }

  void await(const ParameterVisit& visit, FetchStep& now) {
    for (const std::uint32_t parameter : visit.parameters) {
      if (!in_flight_[parameter]) continue;
      const std::uint32_t group = *in_flight_[parameter];
      in_flight_[parameter].reset();
      if (events_.size() > most_fetch_events) {
        const std::uint32_t oldest = events_[events_.size() - most_fetch_events - 1];
        // What the host has waited for once is done.
        if (!host_waited_ || oldest > *host_waited_) now.host_awaited.push_back(oldest);
        host_waited_ = std::max(host_waited_.value_or(oldest), oldest);
      }
      events_.push_back(group);
      if (!waited_[group]) now.awaited.push_back(group);
      waited_[group] = true;
    }
  }

  void prefetch(std::size_t step, FetchStep& now) {
    const ParameterVisit& visit = trace_[step];
    // What this submodule uses leaves the queue, unless earlier prefetches took it from there.
    const auto current = static_cast<std::int64_t>(step);
    std::set<std::uint32_t> not_taken;
    for (const std::uint32_t parameter : visit.parameters)
      if (last_fetched_for_[parameter] < current) not_taken.insert(parameter);
    std::set<std::uint32_t> discarded;
    while (head_ < queue_.size() && discarded.size() < not_taken.size()) {
      const Use& use = queue_[head_++];
      last_fetched_for_[use.parameter] = use.step;
      discarded.insert(use.parameter);
    }
    const std::int64_t most = std::min(rules_.max_live_parameters - live_, rules_.prefetch_bucket_size);
    std::vector<std::uint32_t> parameters;
    std::int64_t size = 0;
    while (head_ < queue_.size() && size < most) {
      const Use& use = queue_[head_++];
      last_fetched_for_[use.parameter] = std::max(last_fetched_for_[use.parameter], use.step);
      if (here_[use.parameter] || std::ranges::find(parameters, use.parameter) != parameters.end()) continue;
      parameters.push_back(use.parameter);
      size += elements_[use.parameter];
    }
    if (!parameters.empty()) now.prefetched.push_back(gather(std::move(parameters), visit.forward));
  }

  // Parameters that submodules within the reuse distance need stay.
  void release(std::size_t step, FetchStep& now) {
    std::set<std::uint32_t> leaving;
    for (const std::uint32_t parameter : trace_[step].parameters)
      if (!persists(parameter)) leaving.insert(parameter);
    std::int64_t traversed = 0;
    for (std::size_t next = step + 1; next < trace_.size() && !leaving.empty(); ++next) {
      if (traversed >= rules_.max_reuse_distance) break;
      for (const std::uint32_t parameter : trace_[next].parameters) {
        leaving.erase(parameter);
        traversed += elements_[parameter];
      }
    }
    for (const std::uint32_t parameter : leaving) {
      here_[parameter] = false;
      live_ -= elements_[parameter];
      now.released.push_back(parameter);
    }
  }

  const std::vector<ParameterVisit>& trace_;
  const std::vector<std::int64_t>& elements_;
  const FetchRules& rules_;
  std::vector<bool> here_;                               // gathered, or on the way
  std::vector<std::optional<std::uint32_t>> in_flight_;  // the group that nobody has waited for on its behalf
  std::vector<std::int64_t> last_fetched_for_;
  std::vector<Use> queue_;
  std::size_t head_ = 0;
  std::int64_t live_ = 0;
  std::vector<std::uint32_t> events_;  // groups, once for each parameter that was waited for
  std::optional<std::uint32_t> host_waited_;
  std::vector<bool> waited_;
  FetchPlan plan_;
};

}  // namespace

FetchPlan plan_fetches(const std::vector<ParameterVisit>& trace, const std::vector<std::int64_t>& elements,
                       const FetchRules& rules) {
  return Coordinator(trace, elements, rules).run();
}

}  // namespace trainyard::strategies
