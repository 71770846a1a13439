// Invariants that hold unless Trainyard itself is wrong.
#pragma once

namespace trainyard::sim {

// Prints what was violated and where, then aborts. Never for wrong input: that is an exception with a location.
[[noreturn]] void fail_invariant(const char* rule, const char* file, int line);

// Always on, in every build: a wrong number is worse than a stopped run.
constexpr void ensure(bool holds, const char* rule, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (!holds) fail_invariant(rule, file, line);
}

}  // namespace trainyard::sim
