// What communicators cost on the cluster that they run on, and which links they put it on.
//
// Every communicator is compiled once: what matters of its group (GroupShape) gives the library's choice of algorithm
// and the time alone; the routes of the algorithm's connections give the links. Most links need no simulation. A link
// that only one communicator uses limits that communicator and nobody else; a link whose feeders together carry no more
// than it does (topology::Cluster::can_bind) never limits anyone. What remains becomes sim::Plan::network.
#pragma once

#include "sim/plan.hpp"
#include "strategies/collectives.hpp"
#include "strategies/strategy.hpp"
#include "topology/cluster.hpp"

namespace trainyard::strategies {

// Fills plan.algorithms, plan.costs, plan.network, plan.link_bytes and the communicators' cost classes and traffic:
// rank r drives device r.
//
// A ring is one flow as long as its hops cross like links. Where they do not, its hops meet different contention at
// different times, and the ring advances in phases of its protocol's buffer, hop by hop
// (CommunicationCost::phase_bytes). Links carry the share of their nominal capacity that the best protocol reaches
// (CollectiveTuning's efficiencies).
void price_communications(sim::Plan& plan, const topology::Cluster& cluster);
// On the cluster of a job, unless that looks at its memory alone.
void price_communications(sim::Plan& plan, const Job& job);

// What the library takes for one call of a communicator, and what it would have taken instead.
CollectiveChoice choice_of(const sim::Plan& plan, const topology::Cluster& cluster, sim::CommunicatorId communicator,
                           sim::CallId call);

}  // namespace trainyard::strategies
