// A scenario with some keys changed, simulated: many such changes at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/catalog.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/scenario.hpp"
#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {

struct Setting {
  std::string path;
  std::string value;
  auto operator<=>(const Setting&) const = default;
};
using Settings = std::vector<Setting>;  // sorted, each path once

// Of both; those of the second where they differ.
Settings joined(const Settings& first, const Settings& second);
bool shares_paths(const Settings& a, const Settings& b);
// All of `part` stands in `whole`, which has more.
bool is_part(const Settings& part, const Settings& whole);
std::vector<std::string> texts(const Settings& settings);  // "strategy.tensor=8"

struct Trial {
  Settings settings;
  Result result;
};

class Trials {
 public:
  // `warnings` are the scenario's own: a change that brings others is refused.
  Trials(Value root, const Catalog& catalog, std::vector<std::string> warnings)
      : root_(std::move(root)), catalog_(catalog), warnings_(std::move(warnings)) {}

  // Those that were not tried before, on all cores, until `most` could be simulated, or a few more. What cannot run is
  // left out.
  void run(const std::vector<Settings>& changes, std::size_t most);
  const std::vector<Trial>& done() const { return done_; }

 private:
  std::optional<Trial> simulated(const Settings& settings) const;

  Value root_;
  const Catalog& catalog_;
  std::vector<std::string> warnings_;
  std::set<Settings> known_;
  std::vector<Trial> done_;
};

}  // namespace trainyard::scenarios
