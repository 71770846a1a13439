#include "scenarios/comparison.hpp"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/internal/key_changes.hpp"
#include "scenarios/internal/value_text.hpp"

namespace trainyard::scenarios {
namespace {

// Keys that have no say in how long a step takes.
bool beside_the_step(std::string_view path) {
  constexpr std::array<std::string_view, 4> sections{"name", "cost", "run", "reliability"};
  return std::ranges::find(sections, path.substr(0, path.find('.'))) != sections.end();
}

// As one would write it in one line.
std::string written(const Value& value) {
  const nlohmann::ordered_json json = json_of(value);
  return json.is_string() ? json.get<std::string>()
                          : json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::optional<std::string> written(const std::optional<Value>& value) {
  if (!value) return std::nullopt;
  return written(*value);
}

// The step alone.
Result simulated_step(const Value& root, const Catalog& catalog) {
  SimulateOptions options;
  options.ideal = false;
  options.critical_path = false;
  return simulate(read_scenario(root, catalog), options).result;
}

// From the first scenario to the second, key by key.
class Way {
 public:
  Way(Value root, const Result& from, const Result& to, const Catalog& catalog)
      : root_(std::move(root)), from_(from), to_(to), catalog_(catalog), now_ps_(time_of_same_work(from, from)) {
    for (const std::string_view section : {"cost", "run", "reliability"}) remove(root_, section);
  }

  std::vector<KeyEffect> go(const std::vector<KeyChange>& changes) {
    std::vector<const KeyChange*> of_step;
    for (const KeyChange& change : changes)
      if (!beside_the_step(change.path)) of_step.push_back(&change);
    for (const KeyChange* change : of_step) {
      apply(root_, *change);
      waiting_.push_back(change->path);
      if (change == of_step.back())
        arrive(time_of_same_work(from_, to_));
      else
        try_here();
    }
    return std::move(effects_);
  }

 private:
  // What cannot run waits for the next key.
  void try_here() {
    try {
      arrive(time_of_same_work(from_, simulated_step(root_, catalog_)));
    } catch (const ScenarioError&) {
      return;
    }
  }

  void arrive(std::int64_t then_ps) {
    const std::int64_t change = then_ps - now_ps_;
    effects_.push_back(
        {.paths = std::exchange(waiting_, {}), .picoseconds = change, .seconds = static_cast<double>(change) * 1e-12});
    now_ps_ = then_ps;
  }

  Value root_;
  const Result& from_;
  const Result& to_;
  const Catalog& catalog_;
  std::int64_t now_ps_;
  std::vector<std::string> waiting_;
  std::vector<KeyEffect> effects_;
};

}  // namespace

Comparison compare(const std::vector<ComparedScenario>& scenarios, const Catalog& catalog) {
  std::vector<Value> roots;
  std::vector<Scenario> read;
  for (const ComparedScenario& each : scenarios) {
    roots.push_back(read_document(each.file, each.overrides));
    read.push_back(read_scenario(roots.back(), catalog));
  }
  Comparison comparison;
  for (std::size_t i = 0; i < read.size(); ++i) {
    comparison.results.push_back(simulate(read[i]).result);
    comparison.files.push_back(scenarios[i].label);
  }
  const Result& first = comparison.results.front();
  for (std::size_t i = 1; i < read.size(); ++i) {
    const Result& other = comparison.results[i];
    const std::vector<KeyChange> changes = key_changes(roots.front(), roots[i]);
    Difference difference{.from = 0,
                          .to = i,
                          .keys = {},
                          .causes = waterfall(first, other),
                          .by_key = Way(roots.front(), first, other, catalog).go(changes),
                          .cost = cost_difference(first, other)};
    for (const KeyChange& change : changes)
      if (change.path != "name")
        difference.keys.push_back({.path = change.path, .from = written(change.from), .to = written(change.to)});
    comparison.differences.push_back(std::move(difference));
  }
  return comparison;
}

}  // namespace trainyard::scenarios
