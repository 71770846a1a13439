// The `cluster` of a scenario: which nodes, how they are joined, which ranks are where, and what is broken.
#pragma once

#include "scenarios/catalog.hpp"
#include "scenarios/internal/reader.hpp"
#include "scenarios/scenario.hpp"

namespace trainyard::scenarios {

// Stands at the path "cluster". What it reads is complete only if it reported nothing.
void read_cluster(Reader& reader, const Catalog& catalog, const Value& cluster, Scenario& scenario);

// What make_cluster() builds.
topology::Cluster::Request cluster_request(const Scenario& scenario);

}  // namespace trainyard::scenarios
