// A scenario file, read and checked: what is trained, how, and on what.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "scenarios/catalog.hpp"
#include "scenarios/cost.hpp"
#include "scenarios/frameworks.hpp"
#include "scenarios/reliability.hpp"
#include "strategies/strategy.hpp"
#include "topology/cluster.hpp"
#include "topology/hardware.hpp"
#include "workloads/accelerator.hpp"
#include "workloads/inference.hpp"
#include "workloads/model.hpp"
#include "workloads/training.hpp"

namespace trainyard::scenarios {

struct Scenario {
  std::string file;  // where it was read
  std::string name;
  std::int64_t seed = 1;
  std::vector<workloads::Accelerator> accelerators;   // of each type of nodes
  workloads::Accelerator accelerator;                 // the first of them
  topology::NodeType node;                            // the first type
  std::int64_t nodes = 0;                             // of that type
  std::vector<topology::Cluster::Group> other_nodes;  // of other types, after those
  topology::FabricType fabric;
  std::int64_t devices = 0;             // that take part: all of them, unless the scenario says fewer
  std::vector<std::int64_t> placement;  // nodes in the order in which ranks fill them; empty: as they are numbered
  std::vector<topology::Cluster::LinkFault> link_faults;
  std::vector<topology::Cluster::DeviceFault> device_faults;
  std::vector<topology::Cluster::NodeFault> node_faults;
  workloads::Model model;
  workloads::Training training;
  std::optional<workloads::Inference> inference;  // then there is neither training nor framework
  std::string framework;
  Framework made_by;                               // what has made the strategy, and makes others like it
  std::unique_ptr<strategies::Strategy> strategy;  // holds its options
  CostOptions cost;
  std::optional<RunTarget> run;
  std::optional<Reliability> reliability;
  std::vector<std::string> warnings;
};

topology::Cluster make_cluster(const Scenario& scenario);
topology::Cluster make_cluster(const Scenario& scenario, const topology::Cluster::NodeFault& fault);  // one more

struct LoadOptions {
  std::vector<std::string> overrides;  // "cluster.nodes=128", as given to --set
};

// Both throw ScenarioError with everything that is wrong. What they return can be planned.
Scenario load_scenario(const std::filesystem::path& path, const Catalog& catalog, const LoadOptions& options = {});
Scenario read_scenario(const Value& root, const Catalog& catalog);

// A scenario whose keys have all been read, without asking the framework whether it runs the whole: for searches, which
// set some of them afterwards. Throws ScenarioError with what is wrong with each.
Scenario read_job(const Value& root, const Catalog& catalog);

// What the file says with the overrides in it, as YAML.
std::string scenario_text(const std::filesystem::path& path, const LoadOptions& options = {});

// Of a scenario only its `cluster`, and its name: nothing is trained. Other keys may be there, and are not looked at.
Scenario load_cluster(const std::filesystem::path& path, const Catalog& catalog, const LoadOptions& options = {});
Scenario read_cluster(const Value& root, const Catalog& catalog);

}  // namespace trainyard::scenarios
