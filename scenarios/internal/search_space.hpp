// What a search may try under one framework, and one way of it on trial.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "scenarios/internal/document.hpp"
#include "scenarios/scenario.hpp"
#include "scenarios/simulate.hpp"
#include "scenarios/sweep.hpp"
#include "strategies/strategy.hpp"

namespace trainyard::scenarios {

// One value of each key of a space, by its place in the key's list.
using Choices = std::vector<std::uint8_t>;
constexpr std::uint8_t left_out = 255;  // the key changes nothing, given the others

// The keys of a framework that a scenario leaves open, and the ways to set them, in an order in which those are
// neighbours that share what is computed, and among them those that share the schedule: see strategies::SearchEffect.
class SearchSpace {
 public:
  struct OpenKey {
    std::string path;
    std::vector<Value> values;
    strategies::SearchEffect effect{};
    std::optional<std::size_t> only_with;      // place of that key
    std::optional<std::uint8_t> only_value{};  // of that key; absent: any but its first
  };

  // `root` is a scenario with the framework; those of the keys that it does not give are open.
  SearchSpace(Value root, std::vector<strategies::SearchKey> keys);

  const Value& root() const { return root_; }
  std::span<const OpenKey> keys() const { return keys_; }
  // How many of the keys come first that have at most this effect.
  std::size_t count(strategies::SearchEffect effect) const;

  // All ways in order; those that take() refuses are counted and forgotten.
  void enumerate(const std::function<bool(const Choices&)>& take);
  std::size_t size() const { return ways_.size() / width(); }
  Choices way(std::size_t index) const;
  std::int64_t combinations() const { return combinations_; }
  // Of ways from `index` on that agree with it on the first `keys` keys: where they end.
  std::size_t end_of_group(std::size_t index, std::size_t keys) const;

  // Whether a key is given with these choices: it matters, and does not have its usual value.
  bool gives(std::size_t key, const Choices& choices) const {
    return choices[key] != left_out && !keys_[key].values[choices[key]].is_null();
  }
  // What is set, framework aside.
  std::vector<Parameter> parameters(const Choices& choices) const;
  // The scenario with it.
  Value scenario(const Choices& choices) const;
  // With keys left out that no longer matter, and others set to their first value that do now.
  Choices consistent(Choices choices) const;

 private:
  bool matters(const OpenKey& key, const Choices& choices) const;
  void enumerate_from(std::size_t key, Choices& choices, const std::function<bool(const Choices&)>& take);
  std::size_t width() const { return std::max<std::size_t>(1, keys_.size()); }

  Value root_;
  std::vector<OpenKey> keys_;
  std::vector<std::uint8_t> ways_;  // one behind the other
  std::int64_t combinations_ = 0;
};

// A scenario whose open keys are set again and again; one for each thread.
class SearchTrial {
 public:
  SearchTrial(const SearchSpace& space, const Catalog& catalog);

  const Scenario& scenario() const { return scenario_; }
  void set(const Choices& choices);
  // Why the framework does not run it; empty: it does.
  std::string refused() const;
  strategies::PlannedStep plan(bool for_memory_alone = false) const;
  Result simulate() const;
  // The passes alone of as many samples as every division of the devices can share, and how many that is.
  void take_divisible_batch();
  std::int64_t global_batch() const { return scenario_.training.global_batch; }

 private:
  const SearchSpace& space_;
  Scenario scenario_;
  topology::Cluster cluster_;
  std::unique_ptr<strategies::Strategy> pristine_;  // holds what open keys have where they are left out
  workloads::Training pristine_training_;
  struct Target {
    bool of_training = false;
    std::optional<sim::Key> key = {};
    std::optional<sim::Key> pristine = {};
  };
  std::vector<Target> targets_;
};

}  // namespace trainyard::scenarios
