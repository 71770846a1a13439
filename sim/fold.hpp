// Ranks that nothing can tell apart, found and simulated once.
//
// Two ranks have the same timeline when they run the same program on the same kind of device and, slot by slot, their
// communicators take equally long, have members whose timelines are the same, and share links with others in the same
// way. The partition is found by colour refinement over ranks, communicators, flows and links: what a vertex is and the
// multiset of its neighbours' colours give its next colour, until nothing splits. Such a partition is equitable, and
// max-min fair rates are unique, so the folded run is exact: every time of it equals the unfolded run's. When a
// communication starts depends on who arrives last, not on where in a ring it stands, so members are no sequence. One
// member of each class stands for all; sums over ranks count it as often as its class has members, and a link carries
// each class of flows as often as it really crosses the representative.
#pragma once

#include <cstdint>
#include <optional>

#include "sim/plan.hpp"

namespace trainyard::sim {

// The ranks that are simulated, numbered anew, and how many of the plan's each stands for.
struct Population {
  Table<RankId, ProgramId> program_of;
  Table<RankId, std::int64_t> weight;
  Table<RankId, RankId> representative;  // the first rank of the plan that it stands for
  Table<RankId, DeviceClassId> device_class_of;
  CommunicatorTable communicators;
  Table<CommunicatorId, std::int64_t> communicator_weight;
  std::optional<Network> network;  // of representatives; absent: the plan's own
  Table<RankId, RankId> class_of;  // who stands for each rank of the plan
};

Population fold(const Plan& plan);
Population everyone(const Plan& plan);

}  // namespace trainyard::sim
