// For whom each link carries what it carries.
#pragma once

#include <array>
#include <vector>

#include "sim/plan.hpp"
#include "topology/cluster.hpp"

namespace trainyard::strategies {

using LinkUses = std::array<sim::Bytes, sim::purposes>;  // of one link in a step, by sim::Purpose

// Of a plan that price_communications() has filled, in the cluster's numbering; a link's uses add up to its
// Plan::link_bytes. Follows every connection once more, so that plans need not hold this for clusters of any size.
std::vector<LinkUses> link_uses(const sim::Plan& plan, const topology::Cluster& cluster);

}  // namespace trainyard::strategies
