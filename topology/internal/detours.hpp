// Shortest paths where arithmetic has none: irregular wiring, and what broken cables leave.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace trainyard::topology {

class Detours {
 public:
  explicit Detours(std::size_t vertices);
  ~Detours();
  Detours(Detours&&) noexcept;
  Detours& operator=(Detours&&) noexcept;
  Detours(const Detours&) = delete;
  Detours& operator=(const Detours&) = delete;

  // One direction. Of equally short paths, the one over the links that were added first is taken.
  void add(std::int64_t from, std::int64_t to, std::int64_t link);
  // The links of a shortest path; nothing where there is no path. Safe to call from several threads.
  std::optional<std::vector<std::int64_t>> path(std::int64_t from, std::int64_t to) const;
  // A vertex that cannot be reached from `from`, if there is one.
  std::optional<std::int64_t> unreachable(std::int64_t from) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace trainyard::topology
