// Searches the way to divide a job that is best under the memory limit.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/catalog.hpp"
#include "scenarios/compare.hpp"
#include "scenarios/scenario.hpp"
#include "scenarios/simulate.hpp"
#include "scenarios/sweep.hpp"

namespace trainyard::scenarios {

enum class Objective : std::uint8_t { step_time, cost, energy };
constexpr std::array<std::string_view, 3> objective_names{"step_time", "cost", "energy"};

// A way to divide the job that was simulated, and fits.
struct Candidate {
  std::vector<Parameter> keys;  // what was searched and matters here, "strategy.framework" first
  double step_time_s = 0;
  std::optional<double> cost_per_step;        // where a price is known, in the currency of the scenario
  std::optional<double> energy_kwh_per_step;  // where the power is
  std::int64_t peak_bytes = 0;
};

// The best plan with one key changed; keys that then begin to matter have their first value. Of `strategy.framework`:
// the best plan of another framework.
struct Neighbour {
  Parameter change;
  std::string refused;  // why it cannot run, or cannot win; empty: it was simulated
  bool fits = false;
  std::int64_t peak_bytes = 0;
  double step_time_s = 0;  // also of one that does not fit
  Waterfall difference;    // from the best plan to it
};

struct SearchCounts {
  std::int64_t combinations = 0;  // of all values
  std::int64_t refused = 0;       // of these: the framework does not run them
  std::int64_t simulated = 0;
  std::int64_t too_large = 0;  // do not fit in memory, so that they were not simulated
  std::int64_t slower = 0;     // cut off, since a bound proves that they are worse than the best
  std::int64_t left = 0;       // not looked at, because the search was stopped
  std::int64_t pruned() const { return too_large + slower; }
  std::int64_t examined() const { return simulated + pruned(); }
};

// A plan in full.
struct ProposedPlan {
  std::vector<Parameter> keys;
  Result result;  // as `trainyard run` has it
  // All of `strategy` and `training` as JSON, which is YAML too and can be written into a scenario.
  std::string strategy;
  std::string training;
};

struct SearchedKey {
  std::string path;
  std::vector<std::string> values;
};

struct SearchResult {
  std::string scenario;  // its name
  Objective objective = Objective::step_time;
  std::string currency;
  std::int64_t capacity_bytes = 0;
  std::vector<std::string> frameworks;  // that were searched
  std::vector<std::string> left_out;    // others, and why: "keras: ..."
  std::vector<SearchedKey> searched;    // over all frameworks
  std::vector<Parameter> fixed;         // keys of `strategy`, and of those searched, that the scenario gives
  std::vector<ProposedPlan> plans;      // best first
  std::vector<Candidate> candidates;    // all that were simulated, best first
  std::vector<std::size_t> front;     // of the candidates: nothing beats them in time, memory, cost and energy at once
  std::vector<Neighbour> neighbours;  // of the best
  SearchCounts counts;
  double search_s = 0;   // until the best was known
  double wall_s = 0;     // in all
  bool stopped = false;  // before its end: the best so far
};

struct SearchProgress {
  SearchCounts counts;
  std::int64_t of = 0;                 // that can be examined
  std::optional<Candidate> best = {};  // so far
  double elapsed_s = 0;
};

struct SearchOptions {
  Objective objective = Objective::step_time;
  int top = 5;
  int jobs = 1;
  bool exhaustive = false;                                   // simulate everything that fits
  std::function<void(const SearchProgress&)> progress = {};  // called one at a time
  const std::atomic<bool>* stop = nullptr;
};

// Keys of `strategy`, micro batch and recomputation that the scenario does not give, or gives as `auto`, are searched.
// Throws ScenarioError where the scenario is wrong whatever these are, or where no plan fits.
SearchResult search_plans(const std::filesystem::path& scenario, const Catalog& catalog, const LoadOptions& load,
                          const SearchOptions& options);

SearchResult search_plans(const Value& scenario, const Catalog& catalog, const SearchOptions& options);

// As the contract of `plan --json` has it.
std::string to_json(const SearchResult& result);
// For people: the best plans, why the first wins, what was searched.
std::string to_summary(const SearchResult& result);
// A page with the Pareto front and the neighbours of the best.
std::string plan_report(const SearchResult& result);

}  // namespace trainyard::scenarios
