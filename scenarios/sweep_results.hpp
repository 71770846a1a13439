// What a sweep has found, in the forms that it is given out: text, JSON and CSV.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "scenarios/results_store.hpp"
#include "scenarios/run_sweep.hpp"
#include "scenarios/scaling.hpp"
#include "scenarios/sweep.hpp"

namespace trainyard::scenarios {

// The points of a sweep as its store has them now, and what they say of scaling. Holds single numbers of points, not
// their results: those are read one by one when they are written.
struct SweepResults {
  const Sweep* sweep = nullptr;
  const ResultsStore* store = nullptr;
  SweepState state;
  std::vector<ScalingSample> samples;  // of points that were simulated, by position
  std::vector<SeriesScaling> series;
  std::map<std::size_t, const PointScaling*> scaling;  // by position
  std::map<std::string, std::size_t> failures;         // points by why they failed

  SweepResults() = default;
  SweepResults(SweepResults&&) = default;  // a copy would look into the series of the first
};

// `state` as it is now: what is outdated counts as missing. Sweep and store must outlive the results.
SweepResults results_of(const Sweep& sweep, const ResultsStore& store, SweepState state);
// What the store has of a point; nothing where that is missing or outdated.
std::optional<StoredPoint> stored_point(const SweepResults& results, const SweepPoint& point);
// As the store keeps it.
std::vector<StoredScaling> stored_scaling(const SweepResults& results);

// `{"points": [{"parameters": {}, "status": "ok", "result": {}}], "series": [...]}`; "-" is stdout. A point that failed
// has `diagnostics` instead of `result`, one that is missing has the status "missing". Throw OutputError.
void write_json(const SweepResults& results, const std::filesystem::path& file);
// One row per point: its parameters, its status, and every single value of its result.
void write_csv(const SweepResults& results, const std::filesystem::path& file);
// Every series by its points, or, where there are many, one line for each series; and what failed.
std::string to_text(const SweepResults& results);

}  // namespace trainyard::scenarios
