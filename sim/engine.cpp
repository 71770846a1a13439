#include "sim/engine.hpp"

#include <utility>

#include "sim/ensure.hpp"

namespace trainyard::sim {

Engine::Event Engine::at(LongTime when, std::uint64_t order, Action action) {
  ensure(when >= now_, "nothing happens in the past");
  const Event event{.when = when, .order = order, .sequence = next_sequence_++};
  pending_.emplace(event, std::move(action));
  return event;
}

Engine::Event Engine::after(LongDuration delay, std::uint64_t order, Action action) {
  return at(now_ + delay, order, std::move(action));
}

void Engine::run(LongTime limit) {
  ensure(limit >= now_, "time does not run backwards");
  while (!pending_.empty() && pending_.begin()->first.when < limit) {
    const auto first = pending_.extract(pending_.begin());
    now_ = first.key().when;
    first.mapped()();
  }
  now_ = limit;
}

}  // namespace trainyard::sim
