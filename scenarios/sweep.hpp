// A sweep file, read and checked: many scenarios that differ from a base in a few keys.
//
//     base: llama3-405b-16384-h100.yaml       # or the keys of a scenario, in place
//     vary:
//       cluster.nodes: [128, 256, 512]        # every key with every other
//       layout: [{strategy.tensor: 8, strategy.pipeline: 16}, {strategy.tensor: 4, strategy.pipeline: 32}]  # together
//       scale: {cluster.nodes: [1, 2], training.global_batch: [64, 128]}                                    # together
//     where: [strategy.tensor * strategy.pipeline <= devices]   # combinations that are kept
//     baseline: {cluster.nodes: 128}          # what scaling loss is measured against
//
// `vary` may also be a list of maps: one point each, or, where a value is a list, one product each. A map below a key
// of the scenario (`strategy: [{framework: deepspeed, zero_stage: 3}]`) gives keys below it; `name` in a map that
// varies several keys is what its series is called.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/catalog.hpp"
#include "scenarios/scenario.hpp"

namespace trainyard::scenarios {

struct Parameter {
  std::string path;   // of the scenario
  std::string value;  // as JSON
  bool operator==(const Parameter&) const = default;
};

struct SweepPoint {
  std::size_t position = 0;           // in the sweep, from 0
  std::vector<Parameter> parameters;  // in the order of the file
  std::string series;                 // what is the same in all points that only differ in scale; empty: all are one
  std::vector<Parameter> series_parameters;
};

// As a JSON object, which identifies a point in its sweep.
std::string to_json(std::span<const Parameter> parameters);

class Sweep {
 public:
  // Throws ScenarioError with all that is wrong with the file, and where no point of it is a scenario.
  static Sweep load(const std::filesystem::path& path, const Catalog& catalog, const LoadOptions& options = {});
  ~Sweep();
  Sweep(Sweep&&) noexcept;
  Sweep& operator=(Sweep&&) noexcept;

  const std::filesystem::path& file() const { return file_; }
  const std::string& name() const { return name_; }
  std::span<const SweepPoint> points() const { return points_; }
  // What the file says of it; empty: the fewest devices of each series.
  std::span<const Parameter> baseline() const { return baseline_; }
  // The base with the point's parameters.
  Value scenario_of(const SweepPoint& point) const;
  std::vector<std::string> parameter_paths() const;  // of all points, in the order of the file

 private:
  struct Source;
  friend class SweepReader;
  Sweep();

  std::filesystem::path file_;
  std::string name_;
  std::vector<SweepPoint> points_;
  std::vector<Parameter> baseline_;
  std::unique_ptr<Source> source_;
};

}  // namespace trainyard::scenarios
