#include "scenarios/internal/trials.hpp"

#include <spdlog/spdlog.h>
#include <tbb/parallel_for.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "sim/broken_invariant.hpp"

namespace trainyard::scenarios {

Settings joined(const Settings& first, const Settings& second) {
  Settings result = second;
  for (const Setting& setting : first)
    if (std::ranges::find(second, setting.path, &Setting::path) == second.end()) result.push_back(setting);
  std::ranges::sort(result);
  return result;
}

bool shares_paths(const Settings& a, const Settings& b) {
  return std::ranges::any_of(
      a, [&](const Setting& setting) { return std::ranges::find(b, setting.path, &Setting::path) != b.end(); });
}

bool is_part(const Settings& part, const Settings& whole) {
  return part.size() < whole.size() && std::ranges::includes(whole, part);
}

std::vector<std::string> texts(const Settings& settings) {
  std::vector<std::string> result;
  for (const Setting& setting : settings) result.push_back(setting.path + "=" + setting.value);
  return result;
}

std::optional<Trial> Trials::simulated(const Settings& settings) const {
  const sim::ThrowBrokenInvariants instead_of_ending;  // one trial must not end the run
  try {
    Value root = root_;
    for (const std::string& text : texts(settings)) apply_override(root, text);
    const Scenario scenario = read_scenario(root, catalog_);
    for (const std::string& warning : scenario.warnings)
      if (std::ranges::find(warnings_, warning) == warnings_.end()) return std::nullopt;
    SimulateOptions options;
    options.ideal = false;
    options.critical_path = false;
    return Trial{.settings = settings, .result = simulate(scenario, options).result};
  } catch (const ScenarioError&) {  // what the framework does not run
    return std::nullopt;
  } catch (const std::exception& error) {
    spdlog::debug("a change was not tried: {}", error.what());
    return std::nullopt;
  }
}

void Trials::run(const std::vector<Settings>& changes, std::size_t most) {
  constexpr std::size_t batch = 16;
  const std::size_t end = done_.size() + most;
  std::vector<Settings> fresh;
  for (const Settings& change : changes)
    if (!known_.contains(change)) fresh.push_back(change);
  for (std::size_t from = 0; from < fresh.size() && done_.size() < end; from += batch) {
    std::vector<std::optional<Trial>> trials(std::min(batch, fresh.size() - from));
    for (std::size_t i = 0; i < trials.size(); ++i) known_.insert(fresh[from + i]);
    tbb::parallel_for(std::size_t{0}, trials.size(), [&](std::size_t i) { trials[i] = simulated(fresh[from + i]); });
    for (std::optional<Trial>& trial : trials)
      if (trial) done_.push_back(std::move(*trial));
  }
}

}  // namespace trainyard::scenarios
