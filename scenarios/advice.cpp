#include "scenarios/advice.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "scenarios/compare.hpp"
#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/advice_candidates.hpp"
#include "scenarios/internal/breakdown_words.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/internal/text.hpp"
#include "scenarios/internal/trials.hpp"
#include "scenarios/quantity.hpp"
#include "scenarios/what_if.hpp"

namespace trainyard::scenarios {
namespace {

constexpr double worth_saying = 0.005;  // of the step
constexpr std::size_t most_changes = 3;

std::string gibibytes(std::int64_t bytes) { return fixed(static_cast<double>(bytes) / (1LL << 30), 1) + " GiB"; }

// Planning a rank, and executing an operation of one of those that are simulated, take so long (measured, on one core
// of a server of 2023); all trials together take about the seconds of two cores below.
std::size_t most_trials(const Result& result) {
  constexpr double seconds_of_operation = 5e-8;
  constexpr double seconds_of_rank = 8e-6;
  constexpr double seconds = 20;
  const EngineSummary& engine = result.engine;
  const auto ranks = static_cast<double>(std::max<std::int64_t>(1, engine.ranks));
  const double operations = static_cast<double>(engine.operations) / ranks * static_cast<double>(engine.rank_classes);
  const double each = seconds_of_operation * operations + seconds_of_rank * ranks;
  return static_cast<std::size_t>(std::clamp(seconds / each, 24.0, 300.0));
}

// Looks for what helps.
class Adviser {
 public:
  Adviser(const Value& root, const Catalog& catalog, const Result& base)
      : scenario_(read_scenario(root, catalog)),
        base_(base),
        trials_(root, catalog, scenario_.warnings),
        most_(most_trials(base)) {}

  Advice advise();

 private:
  bool helps(const Trial& trial) const {
    return trial.result.memory.fits &&
           (!base_.memory.fits || trial.result.step_time_s < (1 - worth_saying) * base_.step_time_s);
  }
  void make_fit();
  std::vector<const Trial*> helping() const;
  std::vector<const Trial*> savers() const;
  const Trial* plainest(const Trial* trial, const std::vector<const Trial*>& among) const;
  std::vector<Settings> best_changes() const;
  std::vector<Settings> with_combination(std::vector<Settings> chosen);
  const Trial& trial_of(const Settings& settings) const {
    return *std::ranges::find(trials_.done(), settings, &Trial::settings);
  }

  Scenario scenario_;
  const Result& base_;
  Trials trials_;
  std::size_t most_;
};

// The fastest first.
std::vector<const Trial*> sorted(std::vector<const Trial*> trials) {
  std::ranges::stable_sort(trials, {}, [](const Trial* trial) {
    return std::pair{trial->result.step_time_s, trial->settings.size()};
  });
  return trials;
}

std::vector<const Trial*> Adviser::helping() const {
  std::vector<const Trial*> found;
  for (const Trial& trial : trials_.done())
    if (helps(trial)) found.push_back(&trial);
  return sorted(std::move(found));
}

// Changes of one key that free memory, those that free most first.
std::vector<const Trial*> Adviser::savers() const {
  std::vector<const Trial*> found;
  for (const Trial& trial : trials_.done())
    if (trial.settings.size() == 1 && trial.result.memory.peak < base_.memory.peak) found.push_back(&trial);
  std::ranges::stable_sort(found, {}, [](const Trial* trial) { return trial->result.memory.peak; });
  return found;
}

// What is fast, or at least smaller, and does not fit yet, together with what frees memory.
void Adviser::make_fit() {
  constexpr std::size_t most_savers = 8;
  constexpr std::size_t most_wishes = 6;
  std::vector<const Trial*> freeing = savers();
  if (freeing.size() > most_savers) freeing.resize(most_savers);
  std::vector<const Trial*> wishes;
  for (const Trial& trial : trials_.done())
    if (!trial.result.memory.fits && trial.result.step_time_s < (1 - worth_saying) * base_.step_time_s)
      wishes.push_back(&trial);
  wishes = sorted(std::move(wishes));
  if (wishes.size() > most_wishes) wishes.resize(most_wishes);
  if (!base_.memory.fits) wishes.insert(wishes.end(), freeing.begin(), freeing.end());
  std::vector<Settings> pairs;
  for (const Trial* wish : wishes)
    for (const Trial* saver : freeing)
      if (!shares_paths(wish->settings, saver->settings)) pairs.push_back(joined(wish->settings, saver->settings));
  trials_.run(pairs, most_ / 4);
}

// Of the changes that are a part of this one and do as much, the fewest keys.
const Trial* Adviser::plainest(const Trial* trial, const std::vector<const Trial*>& among) const {
  const Trial* best = trial;
  for (const Trial* other : among) {
    const bool as_good = other->result.step_time_s <= trial->result.step_time_s + worth_saying * base_.step_time_s;
    if (as_good && is_part(other->settings, trial->settings) && other->settings.size() < best->settings.size())
      best = other;
  }
  return best;
}

// Each of other keys than those before.
std::vector<Settings> Adviser::best_changes() const {
  const std::vector<const Trial*> candidates = helping();
  std::vector<Settings> chosen;
  for (const Trial* candidate : candidates) {
    const Settings settings = plainest(candidate, candidates)->settings;
    if (std::ranges::any_of(chosen, [&](const Settings& other) { return shares_paths(settings, other); })) continue;
    chosen.push_back(settings);
    if (chosen.size() == most_changes) break;
  }
  return chosen;
}

// And before them the best of them together, where that is better still.
std::vector<Settings> Adviser::with_combination(std::vector<Settings> chosen) {
  std::vector<Settings> together;
  for (std::size_t i = 0; i < chosen.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) together.push_back(joined(chosen[j], chosen[i]));
  if (chosen.size() == most_changes) together.push_back(joined(together.front(), chosen.back()));
  trials_.run(together, together.size());
  if (chosen.empty()) return chosen;
  const double alone = trial_of(chosen.front()).result.step_time_s;
  const std::vector<const Trial*> candidates = helping();
  for (const Trial* candidate : candidates) {
    if (candidate->result.step_time_s >= alone - worth_saying * base_.step_time_s) break;
    const Settings settings = plainest(candidate, candidates)->settings;
    if (std::ranges::find(together, settings) == together.end()) continue;
    chosen.insert(chosen.begin(), settings);
    break;
  }
  return chosen;
}

std::string share_words(const Result& result, std::size_t category) {
  return percent(result.breakdown_s.at(category) / result.step_time_s);
}

// What shrinks most, on an average device.
std::string why(const Result& base, const Result& result) {
  const Waterfall causes = waterfall(base, result);
  const auto gain = std::ranges::min_element(causes.causes, {}, &Cause::picoseconds);
  if (gain == causes.causes.end() || gain->picoseconds >= 0) return "less memory";
  return std::string{breakdown_words.at(gain->category)} + " " + format_seconds(base.breakdown_s.at(gain->category)) +
         " -> " + format_seconds(result.breakdown_s.at(gain->category));
}

std::string most_waited_for(const Result& result, std::size_t first, std::size_t last, std::size_t most) {
  constexpr double counts = 0.01;
  std::vector<std::size_t> order(last - first);
  std::iota(order.begin(), order.end(), first);
  std::ranges::stable_sort(order, std::greater{}, [&](std::size_t i) { return result.breakdown_s.at(i); });
  std::string text;
  for (std::size_t i = 0; i < std::min(most, order.size()); ++i)
    if (result.breakdown_s.at(order[i]) >= counts * result.step_time_s)
      text +=
          (text.empty() ? "" : ", ") + std::string{breakdown_words.at(order[i])} + " " + share_words(result, order[i]);
  return text;
}

std::string limit_by_time(const Result& result) {
  const std::size_t kernels = sim::kernel_classes;
  const double computing = std::accumulate(result.breakdown_s.begin(), result.breakdown_s.begin() + kernels, 0.0);
  const double waiting = 1 - computing / result.step_time_s;
  constexpr double little = 0.1;
  std::string text = percent(1 - waiting) + " of the step is kernels (" + most_waited_for(result, 0, kernels, 2) + ")";
  const std::string parts = most_waited_for(result, kernels, breakdown_names.size(), 3);
  if (waiting < little) return text + ": hardly anything is waited for";
  return percent(waiting) + " of the step is waiting" + (parts.empty() ? "" : ": " + parts) + "; " + text;
}

// The one thing more that says most.
std::string limit_by_machine(const Result& result) {
  constexpr double full = 0.8;
  const auto link = std::ranges::max_element(result.links, {}, &LinkSummary::utilization_peak);
  if (link != result.links.end() && link->utilization_peak >= full)
    return ". The busiest " + std::string{topology::to_string(link->kind)} + " link is " +
           percent(link->utilization_peak) + " full (" + link->busiest + ")";
  if (!result.what_if.empty()) {
    const WhatIf& best = *std::ranges::min_element(result.what_if, {}, &WhatIf::step_time_s);
    return ". Of other hardware, most would be saved by " + std::string{what_if_words(best.change)} + ": " +
           percent(1 - best.step_time_s / result.step_time_s);
  }
  if (result.critical_path && !result.critical_path->operations.empty()) {
    const CriticalPath::Operation& first = result.critical_path->operations.front();
    return ". " + percent(first.seconds / result.step_time_s) + " of the critical path is " + first.name +
           (first.where.empty() ? "" : " on " + first.where);
  }
  return "";
}

std::string limit_of(const Result& result) {
  const MemorySummary& memory = result.memory;
  if (memory.fits) return limit_by_time(result) + limit_by_machine(result);
  const auto part = static_cast<std::size_t>(std::ranges::max_element(memory.parts) - memory.parts.begin());
  return "It does not fit: " + gibibytes(memory.peak) + " of " + gibibytes(memory.capacity) + ", most of it " +
         std::string{sim::to_string(static_cast<sim::MemoryPurpose>(part))} + " (" + gibibytes(memory.parts.at(part)) +
         "). " + limit_by_time(result);
}

Advice Adviser::advise() {
  trials_.run(single_changes(scenario_, base_), most_ / 2);
  trials_.run(trade_offs(scenario_, base_), most_ / 4);
  make_fit();
  Advice advice{.limit = limit_of(base_), .changes = {}};
  for (const Settings& settings : with_combination(best_changes())) {
    const Result& result = trial_of(settings).result;
    advice.changes.push_back({.settings = texts(settings),
                              .step_time_s = result.step_time_s,
                              .peak_bytes = result.memory.peak,
                              .why = why(base_, result)});
  }
  advice.tried = static_cast<std::int64_t>(trials_.done().size());
  return advice;
}

std::string words(const std::vector<std::string>& settings) {
  std::string text;
  for (const std::string& setting : settings) text += (text.empty() ? "" : " ") + setting;
  return text;
}

}  // namespace

Advice advise(const Value& root, const Catalog& catalog, const Result& result) {
  return Adviser(root, catalog, result).advise();
}

Advice advise(const std::filesystem::path& scenario, const Catalog& catalog, const LoadOptions& load,
              const Result& result) {
  return advise(read_document(scenario, load.overrides), catalog, result);
}

std::string to_json(const Result& result, const Advice& advice) {
  using Json = nlohmann::ordered_json;
  Json changes = Json::array();
  for (const Advice::Change& change : advice.changes)
    changes.push_back({{"set", change.settings},
                       {"step_time_s", change.step_time_s},
                       {"peak_bytes", change.peak_bytes},
                       {"why", change.why}});
  Json json = Json::parse(to_json(result));
  json["advice"] = {{"limit", advice.limit}, {"changes", changes}, {"tried", advice.tried}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string to_text(const Advice& advice, const Result& result) {
  std::string text = "\nWhat limits it\n  " + printable(advice.limit) + "\n";
  const std::string tried = " (" + std::to_string(advice.tried) + " changes of keys were simulated)\n";
  if (advice.changes.empty())
    return text + "\nNothing that was tried " + (result.memory.fits ? "makes it faster" : "makes it fit") + tried;
  text += std::string{"\nWhat would help most"} + (result.memory.fits ? "" : ", so that it fits") + tried;
  for (const Advice::Change& change : advice.changes) {
    const double saved = 1 - change.step_time_s / result.step_time_s;
    text += "  " + padded_left(format_seconds(change.step_time_s), 9) + padded_left(percent(std::abs(saved)), 9) +
            (saved < 0 ? " more" : " less") + padded_left(gibibytes(change.peak_bytes), 11) + "  " +
            printable(words(change.settings)) + " (" + change.why + ")\n";
  }
  return text;
}

}  // namespace trainyard::scenarios
