// The results of sweeps, in a file of SQLite.
//
// One table, `points`, one row per point of a sweep, and one sweep beside others:
//   sweep          name of the sweep                     position      of the point in it, from 0
//   parameters     JSON, from key path to value          status        'ok' or 'failed'
//   hash           of all that the result follows from   program       that has simulated it: version and build
//   diagnostics    why the point failed                  scenario_yaml the whole scenario
//   result_json    the result as `run --json` has it
// and one column for each number, text and truth value of a result, named by its path: "step_time_s",
// "memory.peak_bytes", "breakdown_s.matmul" (truth values are 0 and 1), and "scaling_efficiency" and "scaling_loss",
// which are filled when a sweep has ended. Columns of later versions are added when a store is opened.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "scenarios/outside_failure.hpp"

namespace trainyard::scenarios {

struct StoredPoint {
  std::size_t position = 0;
  std::string parameters;
  std::string hash;
  std::string program;
  std::string diagnostics;  // empty: the point was simulated
  std::string scenario_yaml;
  std::string result_json;
  bool ok() const { return diagnostics.empty(); }
};

struct StoredScaling {
  std::string parameters;
  double efficiency = 0;
  double loss = 0;
};

class StoreLocked : public OutsideFailure {
 public:
  using OutsideFailure::OutsideFailure;
};

// All members throw OutsideFailure where the disk is full, the file cannot be written or another program has locked it
// (StoreLocked).
class ResultsStore {
 public:
  enum class Access : std::uint8_t {
    shared,  // with other programs at the same time
    alone    // works on network file systems too, where programs share no memory
  };

  // Makes the file where there is none. Throws ScenarioError where it is something else than a store.
  explicit ResultsStore(const std::filesystem::path& path, Access access = Access::shared);
  ~ResultsStore();
  ResultsStore(const ResultsStore&) = delete;
  ResultsStore& operator=(const ResultsStore&) = delete;

  const std::filesystem::path& path() const { return path_; }

  // Of each point of a sweep, by its parameters.
  struct State {
    std::string hash;
    bool ok = false;
  };
  std::map<std::string, State> states(const std::string& sweep) const;

  // Replaces an earlier row of the point. Lasts from the next commit on.
  void put(const std::string& sweep, const StoredPoint& point);
  // On the disk when it returns.
  void commit();

  // Replaces what was there of the sweep.
  void put_scaling(const std::string& sweep, const std::vector<StoredScaling>& scaling);

  std::optional<StoredPoint> find(const std::string& sweep, const std::string& parameters) const;

 private:
  class Connection;

  void prepare_tables();
  void begin();

  std::filesystem::path path_;
  std::unique_ptr<Connection> connection_;
  bool in_transaction_ = false;
};

}  // namespace trainyard::scenarios
