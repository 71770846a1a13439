// Scenarios side by side: their results, and what makes the others faster or cheaper than the first.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "scenarios/catalog.hpp"
#include "scenarios/compare.hpp"
#include "scenarios/scenario.hpp"
#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {

// A key that two scenarios do not give alike; nothing: it is not given.
struct DifferingKey {
  std::string path;
  std::optional<std::string> from;
  std::optional<std::string> to;
};

// What the step changes by where these keys take the second's values, and all before them have: simulated. Several
// keys stand together where only all of them make a scenario that runs.
struct KeyEffect {
  std::vector<std::string> paths;
  std::int64_t picoseconds = 0;
  double seconds = 0;
};

// Between the first scenario and another one.
struct Difference {
  std::size_t from = 0;  // into Comparison::results
  std::size_t to = 0;
  std::vector<DifferingKey> keys;
  Waterfall causes;
  std::vector<KeyEffect> by_key;  // adds up to the same difference, exactly; in the order in which the keys change
  std::optional<CostDifference> cost;
};

struct Comparison {
  std::vector<Result> results;
  std::vector<std::string> files;  // as they were given, with the settings that only they have
  std::vector<Difference> differences;
};

struct ComparedScenario {
  std::filesystem::path file;
  std::vector<std::string> overrides;  // "cluster.nodes=128"
  std::string label;
};

// Throws ScenarioError with what is wrong with any of them.
Comparison compare(const std::vector<ComparedScenario>& scenarios, const Catalog& catalog);

// As the contract of `compare --json` has it.
std::string to_json(const Comparison& comparison);
std::string to_summary(const Comparison& comparison);

}  // namespace trainyard::scenarios
