#include "scenarios/validation.hpp"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cmath>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "scenarios/collectives.hpp"
#include "scenarios/internal/csv.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/internal/embedded.hpp"
#include "scenarios/internal/text.hpp"
#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {
namespace {

constexpr std::string_view measured_prefix = "measured.";

std::optional<double> to_number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Measurement read_row(const CsvRow& row, const std::vector<std::string>& header, const std::string& file) {
  Measurement measurement;
  measurement.where = {file, row.line, 1};
  if (row.cells.size() != header.size())
    throw ScenarioError(measurement.where, "expected " + std::to_string(header.size()) + " cells, got " +
                                               std::to_string(row.cells.size()));
  for (std::size_t i = 0; i < header.size(); ++i) {
    const std::string& name = header[i];
    const std::string& cell = row.cells[i];
    if (cell.empty()) continue;
    if (name == "id")
      measurement.id = cell;
    else if (name == "source")
      measurement.source = cell;
    else if (name == "kind")
      measurement.kind = cell;
    else if (name == "quality")
      measurement.quality = cell;
    else if (name == "basis" || name == "notes")
      continue;
    else if (name.starts_with(measured_prefix)) {
      const auto value = to_number(cell);
      if (!value || !(*value > 0) || !std::isfinite(*value))
        throw ScenarioError({file, row.line, static_cast<int>(i) + 1},
                            "expected a positive number for '" + name + "', got '" + cell + "'");
      measurement.measured.emplace_back(name.substr(measured_prefix.size()), *value);
    } else {
      measurement.settings.emplace_back(name, cell);
    }
  }
  return measurement;
}

std::vector<Measurement> read_table(std::string_view text, const std::string& file) {
  const std::vector<CsvRow> rows = parse_csv(text, file);
  if (rows.empty()) throw ScenarioError({file, 1, 1}, "expected a header and rows of measurements, got an empty file");
  const std::vector<std::string>& header = rows.front().cells;
  for (std::size_t i = 0; i < header.size(); ++i)
    if (std::find(header.begin(), header.begin() + static_cast<std::ptrdiff_t>(i), header[i]) !=
        header.begin() + static_cast<std::ptrdiff_t>(i))
      throw ScenarioError({file, 1, static_cast<int>(i) + 1}, "column '" + header[i] + "' is given twice");
  if (std::ranges::none_of(header, [](const std::string& name) { return name.starts_with(measured_prefix); }))
    throw ScenarioError({file, 1, 1}, "no column is called 'measured.' and a result, such as 'measured.step_time_s'");
  std::vector<Measurement> measurements;
  std::vector<Diagnostic> wrong;
  for (std::size_t i = 1; i < rows.size(); ++i) {
    try {
      measurements.push_back(read_row(rows[i], header, file));
    } catch (const ScenarioError& error) {
      wrong.insert(wrong.end(), error.diagnostics().begin(), error.diagnostics().end());
    }
  }
  if (!wrong.empty()) throw ScenarioError(std::move(wrong));
  return measurements;
}

constexpr std::string_view collective_prefix = "collective.";

bool is_collective(const Measurement& measurement) {
  return std::ranges::any_of(measurement.settings,
                             [](const auto& setting) { return setting.first.starts_with(collective_prefix); });
}

// The place of a column's word among the words it may have.
template <std::size_t size>
std::size_t index_of(const Measurement& measurement, const std::string& column, const std::string& word,
                     const std::array<std::string_view, size>& words) {
  const auto found = std::ranges::find(words, word);
  if (found == words.end())
    throw ScenarioError(measurement.where, column + ": expected " + listed(words) + ", got '" + word + "'");
  return static_cast<std::size_t>(found - words.begin());
}

nlohmann::json predict_collective(const Measurement& measurement, const Catalog& catalog) {
  CollectiveRequest request;
  for (const auto& [path, text] : measurement.settings) {
    if (path == "collective.operation") {
      request.operation = static_cast<CollectiveOperation>(index_of(measurement, path, text, operation_names));
    } else if (path == "collective.bytes") {
      const auto sizes = parse_sizes(text);
      if (!sizes.value) throw ScenarioError(measurement.where, path + ": " + sizes.error);
      request.sizes = *sizes.value;
    } else if (path == "collective.algorithm" && text != "auto") {
      request.algorithm =
          static_cast<topology::Algorithm>(index_of(measurement, path, text, topology::algorithm_names));
    } else if (path.starts_with(collective_prefix) && path != "collective.algorithm") {
      throw ScenarioError(measurement.where, "unknown column '" + path + "'");
    }
  }
  if (request.sizes.size() != 1) throw ScenarioError(measurement.where, "collective.bytes: expected one size");
  Scenario scenario = read_cluster(scenario_of(measurement), catalog);
  return nlohmann::json::parse(to_json(simulate_collectives(scenario, request))).at("rows").at(0);
}

nlohmann::json predict(const Measurement& measurement, const Catalog& catalog) {
  if (is_collective(measurement)) return predict_collective(measurement, catalog);
  return nlohmann::json::parse(to_json(simulate(read_scenario(scenario_of(measurement), catalog)).result));
}

std::vector<ValidationRow> validate_one(const Measurement& measurement, const Catalog& catalog) {
  std::vector<ValidationRow> rows;
  for (const auto& [field, value] : measurement.measured)
    rows.push_back({.id = measurement.id,
                    .source = measurement.source,
                    .kind = measurement.kind.empty() && is_collective(measurement) ? "collective" : measurement.kind,
                    .quality = measurement.quality,
                    .field = field,
                    .predicted = {},
                    .measured = value,
                    .error = {},
                    .failed = {},
                    .fits = {}});
  const auto fail = [&](const std::string& why) {
    for (ValidationRow& row : rows) row.failed = why;
  };
  try {
    const nlohmann::json result = predict(measurement, catalog);
    const nlohmann::json::json_pointer fits("/memory/fits");
    for (ValidationRow& row : rows) {
      if (result.contains(fits)) row.fits = result.at(fits).get<bool>();
      std::string pointer = "/" + row.field;
      std::ranges::replace(pointer, '.', '/');
      const nlohmann::json::json_pointer path(pointer);
      if (!result.contains(path) || !result.at(path).is_number()) {
        row.failed = "results have no number '" + row.field + "'";
        continue;
      }
      row.predicted = result.at(path).get<double>();
      row.error = *row.predicted / row.measured - 1;
    }
  } catch (const ScenarioError& error) {
    fail(error.what());
  } catch (const std::logic_error& error) {
    fail(error.what());
  }
  return rows;
}

bool is_memory(const ValidationRow& row) { return row.field.starts_with("memory."); }

}  // namespace

Value scenario_of(const Measurement& measurement) {
  Value root = make_map(measurement.where);
  set_at(root, "name", make_scalar(measurement.id, measurement.where));
  // A base comes first: what else is said of a node or a model refines it.
  for (const bool bases : {true, false})
    for (const auto& [path, text] : measurement.settings)
      if (path.ends_with(".base") == bases && !path.starts_with(collective_prefix))
        set_at(root, path,
               text.starts_with('[') ? parse_value(text, measurement.where) : make_scalar(text, measurement.where));
  return root;
}

std::string series_of(const std::string& id) {
  const std::size_t dash = id.rfind('-');
  return dash == std::string::npos ? id : id.substr(0, dash);
}

FitSummary fits_of(const Validation& validation) {
  FitSummary summary;
  const ValidationRow* previous = nullptr;  // rows of one run follow each other
  for (const ValidationRow& row : validation.rows) {
    const bool same = previous != nullptr && previous->id == row.id;
    previous = &row;
    if (same || !row.fits) continue;
    ++summary.runs;
    if (*row.fits) ++summary.fit;
  }
  return summary;
}

std::vector<Measurement> read_measurements(const std::filesystem::path& path) {
  return read_table(read_text(path), path.string());
}

std::vector<Measurement> built_in_measurements() {
  std::vector<Measurement> measurements;
  for (const EmbeddedFile& file : embedded_files()) {
    if (!file.path.starts_with("measurements/")) continue;
    const std::vector<Measurement> table = read_table(file.text, std::string(file.path));
    measurements.insert(measurements.end(), table.begin(), table.end());
  }
  return measurements;
}

ErrorSummary summarise(std::span<const ValidationRow* const> rows) {
  ErrorSummary summary;
  std::vector<double> errors;
  std::map<std::string, std::pair<double, int>> by_series;
  for (const ValidationRow* row : rows) {
    ++summary.n;
    if (!row->error) {
      ++summary.failed;
      continue;
    }
    const double magnitude = std::abs(*row->error);
    errors.push_back(magnitude);
    summary.mean_error += *row->error;
    summary.mean_abs_error += magnitude;
    auto& [sum, count] = by_series[series_of(row->id)];
    sum += magnitude;
    ++count;
    if (magnitude > std::abs(summary.worst_error)) {
      summary.worst_error = *row->error;
      summary.worst_id = row->id;
    }
  }
  if (errors.empty()) return summary;
  const auto count = static_cast<double>(errors.size());
  summary.mean_error /= count;
  summary.mean_abs_error /= count;
  std::ranges::sort(errors);
  const std::size_t middle = errors.size() / 2;
  summary.median_abs_error = errors.size() % 2 == 1 ? errors[middle] : (errors[middle - 1] + errors[middle]) / 2;
  // Nearest rank: the least error that 90 % of the rows do not exceed.
  summary.p90_abs_error = errors[(errors.size() * 9 + 9) / 10 - 1];
  for (const auto& [series, entry] : by_series) summary.macro_mean_abs_error += entry.first / entry.second;
  summary.macro_mean_abs_error /= static_cast<double>(by_series.size());
  return summary;
}

Validation validate(std::span<const Measurement> measurements, const Catalog& catalog, const ValidateOptions& options) {
  std::vector<std::vector<ValidationRow>> results(measurements.size());
  std::atomic<std::size_t> next{0};
  std::mutex progress_mutex;
  std::size_t done = 0;
  const auto work = [&] {
    for (std::size_t i = next++; i < measurements.size(); i = next++) {
      results[i] = validate_one(measurements[i], catalog);
      if (!options.progress) continue;
      const std::lock_guard lock(progress_mutex);
      options.progress(++done, measurements.size());
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int i = 1; i < options.jobs; ++i) threads.emplace_back(work);
    work();
  }
  Validation validation;
  for (std::vector<ValidationRow>& rows : results)
    for (ValidationRow& row : rows) validation.rows.push_back(std::move(row));
  return validation;
}

namespace {

using Selection = std::vector<const ValidationRow*>;

// Rows of times and rates by what `key` says of them, in order of the key.
template <class KeyOf>
std::map<std::string, Selection> grouped(const Validation& validation, KeyOf key) {
  std::map<std::string, Selection> groups;
  for (const ValidationRow& row : validation.rows)
    if (!is_memory(row)) groups[key(row)].push_back(&row);
  return groups;
}

std::string kind_of(const ValidationRow& row) { return row.kind + "/" + row.quality; }

Selection select(const Validation& validation, bool memory) {
  Selection selection;
  for (const ValidationRow& row : validation.rows)
    if (is_memory(row) == memory) selection.push_back(&row);
  return selection;
}

nlohmann::ordered_json summary_json(const ErrorSummary& summary) {
  return {{"n", summary.n},
          {"failed", summary.failed},
          {"mean_error", summary.mean_error},
          {"mean_abs_error", summary.mean_abs_error},
          {"median_abs_error", summary.median_abs_error},
          {"p90_abs_error", summary.p90_abs_error},
          {"macro_mean_abs_error", summary.macro_mean_abs_error},
          {"worst", {{"id", summary.worst_id}, {"error", summary.worst_error}}}};
}

std::string summary_line(const std::string& name, const ErrorSummary& summary) {
  return "  " + padded_right(name, 18) + padded_left(std::to_string(summary.n), 6) +
         padded_left(std::to_string(summary.failed), 8) + padded_left(percent(summary.mean_error), 10) +
         padded_left(percent(summary.mean_abs_error), 10) + padded_left(percent(summary.median_abs_error), 10) +
         padded_left(percent(summary.p90_abs_error), 10) + "  " +
         (summary.worst_id.empty() ? "" : percent(summary.worst_error) + " " + summary.worst_id) + "\n";
}

}  // namespace

std::string to_json(const Validation& validation) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const ValidationRow& row : validation.rows) {
    nlohmann::ordered_json entry{
        {"id", row.id}, {"source", row.source}, {"kind", row.kind}, {"quality", row.quality}, {"field", row.field}};
    entry["predicted"] = row.predicted ? nlohmann::ordered_json(*row.predicted) : nlohmann::ordered_json(nullptr);
    entry["measured"] = row.measured;
    entry["error"] = row.error ? nlohmann::ordered_json(*row.error) : nlohmann::ordered_json(nullptr);
    entry["failed"] = row.failed.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(row.failed);
    entry["fits"] = row.fits ? nlohmann::ordered_json(*row.fits) : nlohmann::ordered_json(nullptr);
    rows.push_back(std::move(entry));
  }
  nlohmann::ordered_json by_kind = nlohmann::ordered_json::object();
  for (const auto& [kind, group] : grouped(validation, kind_of)) by_kind[kind] = summary_json(summarise(group));
  nlohmann::ordered_json by_series = nlohmann::ordered_json::object();
  for (const auto& [series, group] : grouped(validation, [](const auto& row) { return series_of(row.id); }))
    by_series[series] = summary_json(summarise(group));
  const nlohmann::ordered_json json{{"rows", rows},
                                    {"summary", summary_json(summarise(select(validation, false)))},
                                    {"by_kind", by_kind},
                                    {"by_series", by_series},
                                    {"memory", summary_json(summarise(select(validation, true)))}};
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::string to_csv(const Validation& validation) {
  std::string text = "id,source,kind,quality,field,predicted,measured,error,failed\n";
  for (const ValidationRow& row : validation.rows) {
    for (const std::string* cell : {&row.id, &row.source, &row.kind, &row.quality, &row.field})
      text += csv_cell(*cell) + ",";
    text += (row.predicted ? nlohmann::json(*row.predicted).dump() : "") + "," + nlohmann::json(row.measured).dump() +
            "," + (row.error ? nlohmann::json(*row.error).dump() : "") + "," + csv_cell(row.failed) + "\n";
  }
  return text;
}

std::string to_text(const Validation& validation) {
  std::string text = padded_right("row", 14) + padded_right("field", 28) + padded_left("predicted", 14) +
                     padded_left("measured", 14) + padded_left("error", 10) + "\n";
  for (const ValidationRow& row : validation.rows) {
    text += padded_right(row.id, 14) + padded_right(row.field, 28);
    if (!row.error) {
      text += "  failed: " + row.failed.substr(0, row.failed.find('\n')) + "\n";
      continue;
    }
    const int digits = row.measured < 1000 ? 4 : 0;
    text += padded_left(fixed(*row.predicted, digits), 14) + padded_left(fixed(row.measured, digits), 14) +
            padded_left(percent(*row.error), 10) + "\n";
  }
  text += "\n  " + padded_right("times and rates", 18) + padded_left("rows", 6) + padded_left("failed", 8) +
          padded_left("mean", 10) + padded_left("mean abs", 10) + padded_left("median", 10) + padded_left("p90", 10) +
          "  worst\n";
  for (const auto& [kind, group] : grouped(validation, kind_of)) text += summary_line(kind, summarise(group));
  for (const auto& [series, group] : grouped(validation, [](const auto& row) { return series_of(row.id); }))
    text += summary_line(series, summarise(group));
  const ErrorSummary all = summarise(select(validation, false));
  text += summary_line("all", all);
  const Selection memory = select(validation, true);
  if (!memory.empty()) text += summary_line("memory", summarise(memory));
  text += "\n" + std::to_string(all.n) + " rows of times and rates, " + std::to_string(all.failed) +
          " failed; mean absolute error " + percent(all.mean_abs_error) + ", median " + percent(all.median_abs_error) +
          ", mean over series " + percent(all.macro_mean_abs_error) + "\n";
  const FitSummary fits = fits_of(validation);
  if (fits.runs > 0)
    text += std::to_string(fits.fit) + " of " + std::to_string(fits.runs) + " simulated runs fit in memory\n";
  return text;
}

}  // namespace trainyard::scenarios
