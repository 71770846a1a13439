#include "scenarios/internal/search_space.hpp"

#include <algorithm>
#include <charconv>
#include <utility>
#include <variant>

#include "scenarios/internal/memory.hpp"
#include "scenarios/internal/reader.hpp"
#include "scenarios/internal/training_entries.hpp"
#include "scenarios/internal/value_text.hpp"
#include "sim/ensure.hpp"
#include "strategies/device_classes.hpp"

namespace trainyard::scenarios {
namespace {

using strategies::SearchEffect;
using strategies::SearchKey;

constexpr std::string_view of_strategy = "strategy.";

std::size_t place_of(const std::vector<SearchKey>& keys, const std::string& path) {
  const auto found = std::ranges::find(keys, path, &SearchKey::path);
  return static_cast<std::size_t>(found - keys.begin());
}

// What a scenario gives at a path such as "strategy.tensor".
const Value* given_at(const Value& root, const std::string& path) {
  const std::size_t dot = path.find('.');
  const Value* section = root.find(path.substr(0, dot));
  return section == nullptr ? nullptr : section->find(path.substr(dot + 1));
}

// Those that the scenario leaves open, and that matter with what it gives.
std::vector<SearchKey> open_keys(const Value& root, const std::vector<SearchKey>& keys) {
  std::vector<SearchKey> open;
  for (const SearchKey& key : keys) {
    if (given_at(root, key.path) != nullptr) continue;
    open.push_back(key);
    const std::size_t on = place_of(keys, key.only_with);
    if (key.only_with.empty() || place_of(open, key.only_with) < open.size()) continue;
    const Value* given = on < keys.size() ? given_at(root, key.only_with) : nullptr;
    const bool matters = given != nullptr && (key.only_value.empty() ? given->scalar != keys[on].values.front()
                                                                     : given->scalar == key.only_value);
    if (!matters)
      open.pop_back();
    else
      open.back().only_with.clear();
  }
  return open;
}

// A key has at least the effect of the one that it depends on, so that it never comes before it.
void raise_effects(std::vector<SearchKey>& keys) {
  for (SearchKey& key : keys) {
    const std::size_t on = place_of(keys, key.only_with);
    if (!key.only_with.empty() && on < keys.size()) key.effect = std::max(key.effect, keys[on].effect);
  }
}

}  // namespace

SearchSpace::SearchSpace(Value root, std::vector<SearchKey> keys) : root_(std::move(root)) {
  keys = open_keys(root_, keys);
  raise_effects(keys);
  std::ranges::stable_sort(keys, {}, &SearchKey::effect);
  const Location nowhere{};
  for (const SearchKey& key : keys) {
    sim::ensure(!key.values.empty() && key.values.size() < left_out, "a search key has between 1 and 254 values");
    OpenKey& open = keys_.emplace_back();
    open.path = key.path;
    open.effect = key.effect;
    for (const std::string& value : key.values)
      open.values.push_back(value == strategies::usual_value ? Value{} : parse_value(value, nowhere));
    const std::size_t on = place_of(keys, key.only_with);
    if (key.only_with.empty() || on >= keys_.size()) continue;
    open.only_with = on;
    if (key.only_value.empty()) continue;
    const auto& values = keys[on].values;
    open.only_value = static_cast<std::uint8_t>(std::ranges::find(values, key.only_value) - values.begin());
  }
}

std::size_t SearchSpace::count(SearchEffect effect) const {
  return static_cast<std::size_t>(
      std::ranges::count_if(keys_, [&](const OpenKey& key) { return key.effect <= effect; }));
}

bool SearchSpace::matters(const OpenKey& key, const Choices& choices) const {
  if (!key.only_with) return true;
  const std::uint8_t choice = choices[*key.only_with];
  if (choice == left_out) return false;
  return key.only_value ? choice == *key.only_value : choice != 0;
}

void SearchSpace::enumerate(const std::function<bool(const Choices&)>& take) {
  Choices choices(width(), left_out);
  enumerate_from(0, choices, take);
}

void SearchSpace::enumerate_from(std::size_t key, Choices& choices, const std::function<bool(const Choices&)>& take) {
  if (key == keys_.size()) {
    ++combinations_;
    if (take(choices)) ways_.insert(ways_.end(), choices.begin(), choices.end());
    return;
  }
  const std::size_t values = matters(keys_[key], choices) ? keys_[key].values.size() : 1;
  for (std::size_t value = 0; value < values; ++value) {
    choices[key] = matters(keys_[key], choices) ? static_cast<std::uint8_t>(value) : left_out;
    enumerate_from(key + 1, choices, take);
  }
  choices[key] = left_out;
}

Choices SearchSpace::way(std::size_t index) const {
  const auto first = ways_.begin() + static_cast<std::ptrdiff_t>(index * width());
  return {first, first + static_cast<std::ptrdiff_t>(width())};
}

std::size_t SearchSpace::end_of_group(std::size_t index, std::size_t keys) const {
  std::size_t end = index + 1;
  const std::uint8_t* first = ways_.data() + index * width();
  while (end < size() && std::equal(first, first + keys, ways_.data() + end * width())) ++end;
  return end;
}

std::vector<Parameter> SearchSpace::parameters(const Choices& choices) const {
  std::vector<Parameter> result;
  for (std::size_t i = 0; i < keys_.size(); ++i)
    if (gives(i, choices)) result.push_back({keys_[i].path, json_of(keys_[i].values[choices[i]]).dump()});
  return result;
}

Value SearchSpace::scenario(const Choices& choices) const {
  Value scenario = root_;
  for (std::size_t i = 0; i < keys_.size(); ++i)
    if (gives(i, choices)) set_at(scenario, keys_[i].path, keys_[i].values[choices[i]]);
  return scenario;
}

Choices SearchSpace::consistent(Choices choices) const {
  for (std::size_t i = 0; i < keys_.size(); ++i) {
    if (!matters(keys_[i], choices))
      choices[i] = left_out;
    else if (choices[i] == left_out)
      choices[i] = 0;
  }
  return choices;
}

SearchTrial::SearchTrial(const SearchSpace& space, const Catalog& catalog)
    : space_(space),
      scenario_(read_job(space.root(), catalog)),
      cluster_(make_cluster(scenario_)),
      pristine_(read_job(space.root(), catalog).strategy),
      pristine_training_(scenario_.training) {
  const std::vector<sim::Key> keys = scenario_.strategy->keys();
  const std::vector<sim::Key> pristine = pristine_->keys();
  for (const SearchSpace::OpenKey& open : space.keys()) {
    Target& target = targets_.emplace_back();
    target.of_training = !open.path.starts_with(of_strategy);
    if (target.of_training) continue;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (keys[i].name != std::string_view{open.path}.substr(of_strategy.size())) continue;
      target.key = keys[i];
      target.pristine = pristine[i];
    }
    sim::ensure(target.key.has_value(), "a search key of a strategy is one of its options");
  }
}

void SearchTrial::set(const Choices& choices) {
  scenario_.training = pristine_training_;
  for (std::size_t i = 0; i < targets_.size(); ++i) {
    const Target& target = targets_[i];
    if (target.of_training) {
      if (space_.gives(i, choices))
        set_training(scenario_.training, space_.keys()[i].path, space_.keys()[i].values[choices[i]]);
      continue;
    }
    std::visit(
        [&](auto* option) {
          if (auto* const* usual = std::get_if<decltype(option)>(&target.pristine->target)) *option = **usual;
        },
        target.key->target);
    if (!space_.gives(i, choices)) continue;
    const std::string mistake = set_key(space_.keys()[i].values[choices[i]], *target.key);
    sim::ensure(mistake.empty(), "the values of a search key are values of the option");
  }
}

std::string SearchTrial::refused() const {
  const strategies::Job job{.model = scenario_.model,
                            .training = scenario_.training,
                            .accelerator = scenario_.accelerator,
                            .cluster = cluster_};
  const std::vector<strategies::Problem> problems = scenario_.strategy->check(job);
  return problems.empty() ? "" : problems.front().key + ": " + problems.front().message;
}

strategies::PlannedStep SearchTrial::plan(bool for_memory_alone) const {
  const strategies::Job job{.model = scenario_.model,
                            .training = scenario_.training,
                            .accelerator = scenario_.accelerators.front(),
                            .cluster = cluster_,
                            .for_memory_alone = for_memory_alone};
  return strategies::plan_on_devices(*scenario_.strategy, job, scenario_.accelerators);
}

Result SearchTrial::simulate() const {
  return scenarios::simulate(scenario_, {.ideal = false, .ranks = {}, .critical_path = false}).result;
}

void SearchTrial::take_divisible_batch() {
  scenario_.training.global_batch = scenario_.training.micro_batch.value_or(1) * scenario_.devices;
}

}  // namespace trainyard::scenarios
