// The general clock: actions at times, in an order that is written down. For what has few events, such as a campaign of
// months; the executor of a step has a queue of its own.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>

#include "sim/long_time.hpp"

namespace trainyard::sim {

class Engine {
 public:
  using Action = std::function<void()>;  // `this` and one id fit in place; capture no more
  struct Event {                         // a handle, and its own place in the order
    LongTime when;
    std::uint64_t order = 0;     // among events of the same time, given by the caller
    std::uint64_t sequence = 0;  // only tells equal orders apart: first come, first served
    auto operator<=>(const Event&) const = default;
  };

  LongTime now() const { return now_; }
  Event at(LongTime when, std::uint64_t order, Action action);
  Event after(LongDuration delay, std::uint64_t order, Action action);
  void cancel(const Event& event) { pending_.erase(event); }  // no effect once it has run
  // Everything that comes before `limit`, at which the clock then stands.
  void run(LongTime limit);

 private:
  std::map<Event, Action> pending_;
  LongTime now_{};
  std::uint64_t next_sequence_ = 0;
};

}  // namespace trainyard::sim
