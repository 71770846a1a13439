// Ranks that nothing can tell apart, found and simulated once.
//
// Two ranks have the same timeline when they run the same program and, slot by slot, their communicators take equally
// long and have members whose timelines are the same: when a communication starts depends on who arrives last, not on
// how many arrive or where in a ring they stand. The partition is found by refinement (colours of ranks give colours of
// communicators give colours of ranks, until nothing splits), so it is exact: every time of a folded run equals the
// unfolded run's. One member of each class stands for all; sums over ranks count it as often as its class has members.
#pragma once

#include <cstdint>

#include "sim/plan.hpp"

namespace trainyard::sim {

// The ranks that are simulated, numbered anew, and how many of the plan's each stands for.
struct Population {
  Table<RankId, ProgramId> program_of;
  Table<RankId, std::int64_t> weight;
  Table<RankId, RankId> representative;  // the first rank of the plan that it stands for
  CommunicatorTable communicators;
  Table<CommunicatorId, std::int64_t> communicator_weight;
  Table<RankId, RankId> class_of;  // who stands for each rank of the plan
};

Population fold(const Plan& plan);
Population everyone(const Plan& plan);

}  // namespace trainyard::sim
