// Predictions beside measurements: how far off, row by row and in sum.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "scenarios/catalog.hpp"
#include "scenarios/diagnostics.hpp"

namespace trainyard::scenarios {

// One row of a table: a scenario by its key paths, and what was measured by result paths.
struct Measurement {
  std::string id;
  std::string source;
  std::string kind;
  std::string quality;
  Location where;
  std::vector<std::pair<std::string, std::string>> settings;
  std::vector<std::pair<std::string, double>> measured;
};

// CSV as in RFC 4180 with a header; throws ScenarioError. Columns: `id`, `source`, `kind`, `quality`, `basis`, `notes`,
// `measured.<result path>`, and scenario key paths; an empty cell leaves the default. Mistakes are
// located by line and, as column, by the number of the cell.
std::vector<Measurement> read_measurements(const std::filesystem::path& path);
std::vector<Measurement> built_in_measurements();
// The scenario that a row describes.
Value scenario_of(const Measurement& measurement);

struct ValidationRow {
  std::string id;
  std::string source;
  std::string kind;
  std::string quality;
  std::string field;
  std::optional<double> predicted;
  double measured = 0;
  std::optional<double> error;  // predicted / measured - 1
  std::string failed;           // why there is no prediction
  std::optional<bool> fits;     // whether the run is predicted to fit in memory; not of collectives
};

struct ErrorSummary {
  std::int64_t n = 0;
  std::int64_t failed = 0;
  double mean_error = 0;
  double mean_abs_error = 0;
  double median_abs_error = 0;
  double p90_abs_error = 0;
  double macro_mean_abs_error = 0;  // mean over series of their mean absolute errors
  std::string worst_id;
  double worst_error = 0;
};

// Of the runs that were simulated, each counted once however many of its results were measured.
struct FitSummary {
  std::int64_t runs = 0;
  std::int64_t fit = 0;
};

struct Validation {
  std::vector<ValidationRow> rows;
};

// The row's series: its id up to the last dash.
std::string series_of(const std::string& id);
ErrorSummary summarise(std::span<const ValidationRow* const> rows);
FitSummary fits_of(const Validation& validation);

struct ValidateOptions {
  int jobs = 1;
  std::function<void(std::size_t done, std::size_t of)> progress = {};  // called from any thread, one at a time
};

// A row that cannot be simulated has `failed`, and counts.
Validation validate(std::span<const Measurement> measurements, const Catalog& catalog,
                    const ValidateOptions& options = {});

std::string to_json(const Validation& validation);
std::string to_csv(const Validation& validation);
std::string to_text(const Validation& validation);

}  // namespace trainyard::scenarios
