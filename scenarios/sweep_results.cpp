#include "scenarios/sweep_results.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/csv.hpp"
#include "scenarios/internal/result_fields.hpp"
#include "scenarios/internal/text.hpp"
#include "scenarios/output_file.hpp"
#include "scenarios/quantity.hpp"

namespace trainyard::scenarios {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

ScalingSample sample_of(std::size_t position, const Json& result) {
  ScalingSample sample{.position = position,
                       .devices = result.at("devices").get<double>(),
                       .step_time_s = result.at("step_time_s").get<double>(),
                       .samples_per_s = result.at("samples_per_s").get<double>(),
                       .work_per_s = result.at("tokens_per_s").get<double>()};
  sample.has_tokens = sample.work_per_s > 0;
  if (!sample.has_tokens) sample.work_per_s = sample.samples_per_s;
  for (std::size_t i = 0; i < breakdown_names.size(); ++i)
    sample.breakdown_s.at(i) = result.at("breakdown_s").at(std::string(breakdown_names.at(i))).get<double>();
  return sample;
}

const ScalingSample& sample_at(const SweepResults& results, std::size_t position) {
  return *std::ranges::lower_bound(results.samples, position, {}, &ScalingSample::position);
}

Json causes_json(const LossByCause& by_cause) {
  Json json;
  for (std::size_t i = 0; i < loss_causes.size(); ++i) json[std::string(loss_causes.at(i))] = by_cause.at(i);
  return json;
}

Json point_json(const SweepResults& results, const SweepPoint& point) {
  Json json{{"parameters", Json::parse(to_json(point.parameters))}, {"series", point.series}};
  const std::optional<StoredPoint> row = stored_point(results, point);
  json["status"] = !row ? "missing" : row->ok() ? "ok" : "failed";
  if (!row) return json;
  json["hash"] = row->hash;
  json["program"] = row->program;
  json["scenario_yaml"] = row->scenario_yaml;
  if (!row->ok()) {
    json["diagnostics"] = row->diagnostics;
    return json;
  }
  Json result = Json::parse(row->result_json);
  if (const auto scaling = results.scaling.find(point.position); scaling != results.scaling.end()) {
    result["scaling_efficiency"] = scaling->second->efficiency;
    result["scaling_loss"] = scaling->second->loss;
    result["scaling_loss_by"] = causes_json(scaling->second->by_cause);
  }
  json["result"] = std::move(result);
  return json;
}

Json series_json(const SweepResults& results, const SeriesScaling& series) {
  const auto parameters = [&](std::size_t position) {
    return Json::parse(to_json(results.sweep->points()[position].parameters));
  };
  Json positions = Json::array();
  for (const PointScaling& point : series.points) positions.push_back(point.position);
  Json json{{"name", series.name},
            {"parameters", Json::parse(to_json(series.parameters))},
            {"kind", scaling_kinds.at(static_cast<std::size_t>(series.kind))},
            {"baseline", parameters(series.points.front().baseline)},
            {"points", positions}};
  json["knee"] = series.knee ? parameters(*series.knee) : Json(nullptr);
  json["fit"] = nullptr;
  if (series.fit)
    json["fit"] = {{"form", series.kind == ScalingKind::strong ? "amdahl" : "per_doubling"},
                   {"slope", series.fit->slope},
                   {"communication_slope", series.fit->communication_slope},
                   {"r_squared", series.fit->r_squared}};
  return json;
}

const std::filesystem::path& or_stdout(const std::filesystem::path& file) {
  static const std::filesystem::path standard_output = "/dev/stdout";
  return file == "-" ? standard_output : file;
}

}  // namespace

std::optional<StoredPoint> stored_point(const SweepResults& results, const SweepPoint& point) {
  if (std::ranges::binary_search(results.state.to_do, point.position)) return std::nullopt;
  return results.store->find(results.sweep->name(), to_json(point.parameters));
}

SweepResults results_of(const Sweep& sweep, const ResultsStore& store, SweepState state) {
  SweepResults results;
  results.state = std::move(state);
  results.sweep = &sweep;
  results.store = &store;
  for (const SweepPoint& point : sweep.points()) {
    const std::optional<StoredPoint> row = stored_point(results, point);
    if (!row) continue;
    if (!row->ok())
      ++results.failures[row->diagnostics];
    else
      results.samples.push_back(sample_of(point.position, Json::parse(row->result_json)));
  }
  results.series = analyse_scaling(sweep, results.samples);
  for (const SeriesScaling& series : results.series)
    for (const PointScaling& point : series.points) results.scaling[point.position] = &point;
  return results;
}

std::vector<StoredScaling> stored_scaling(const SweepResults& results) {
  std::vector<StoredScaling> scaling;
  for (const auto& [position, point] : results.scaling)
    scaling.push_back({.parameters = to_json(results.sweep->points()[position].parameters),
                       .efficiency = point->efficiency,
                       .loss = point->loss});
  return scaling;
}

void write_json(const SweepResults& results, const std::filesystem::path& file) {
  OutputFile out(or_stdout(file));
  out.write("{\"schema\": 1, \"sweep\": " + dump(results.sweep->name()) + ", \"points\": [");
  for (const SweepPoint& point : results.sweep->points())
    out.write((point.position == 0 ? "\n" : ",\n") + dump(point_json(results, point)));
  out.write("\n], \"series\": [");
  for (const SeriesScaling& series : results.series)
    out.write((&series == results.series.data() ? "\n" : ",\n") + dump(series_json(results, series)));
  out.write("\n]}\n");
  out.commit();
}

void write_csv(const SweepResults& results, const std::filesystem::path& file) {
  const std::vector<std::string> paths = results.sweep->parameter_paths();
  OutputFile out(or_stdout(file));
  std::string header;
  for (const std::string& path : paths) header += csv_cell(path) + ",";
  header += "series,status";
  // A parameter and a result of one name would be one column to most readers.
  std::vector<const ResultField*> fields;
  for (const ResultField& field : result_fields())
    if (std::ranges::find(paths, field.path) == paths.end()) fields.push_back(&field);
  for (const ResultField* field : fields) header += "," + field->path;
  out.write(header + ",scaling_efficiency,scaling_loss,diagnostics\n");
  for (const SweepPoint& point : results.sweep->points()) {
    std::string line;
    for (const std::string& path : paths) {
      const auto own = std::ranges::find(point.parameters, path, &Parameter::path);
      if (own != point.parameters.end()) {
        const Json value = Json::parse(own->value);
        line += csv_cell(value.is_string() ? value.get<std::string>() : own->value);
      }
      line += ",";
    }
    const std::optional<StoredPoint> row = stored_point(results, point);
    line += csv_cell(point.series) + "," + (!row ? "missing" : row->ok() ? "ok" : "failed");
    const Json result = row && row->ok() ? Json::parse(row->result_json) : Json::object();
    for (const ResultField* field : fields) {
      const Json::json_pointer pointer(field->pointer);
      line += ",";
      if (!result.contains(pointer)) continue;
      const Json& value = result.at(pointer);
      line += value.is_string() ? csv_cell(value.get<std::string>()) : value.dump();
    }
    const auto scaling = results.scaling.find(point.position);
    line += scaling == results.scaling.end()
                ? ",,"
                : "," + number_text(scaling->second->efficiency) + "," + number_text(scaling->second->loss);
    out.write(line + "," + (row ? csv_cell(row->diagnostics) : "") + "\n");
  }
  out.commit();
}

namespace {

// What took most of the loss: "bubble 8.1 %, data 2.0 %".
std::string main_causes(const LossByCause& by_cause) {
  constexpr double least = 0.005;
  std::vector<std::pair<double, std::string_view>> causes;
  for (std::size_t i = 0; i < loss_causes.size(); ++i)
    if (by_cause.at(i) >= least) causes.emplace_back(by_cause.at(i), loss_causes.at(i));
  std::ranges::sort(causes, std::ranges::greater{});
  std::string text;
  for (std::size_t i = 0; i < causes.size() && i < 3; ++i)
    text += (i == 0 ? "" : ", ") + std::string{causes[i].second} + " " + percent(causes[i].first);
  return text;
}

std::string fit_text(const SeriesScaling& series) {
  if (!series.fit) return "";
  const std::string what = series.kind == ScalingKind::strong
                               ? "Amdahl's serial fraction " + percent(series.fit->slope)
                               : percent(series.fit->slope) + " more device time per doubling";
  return what + ", of which waiting for communication " + percent(series.fit->communication_slope) + " (R2 " +
         fixed(series.fit->r_squared, 2) + ")";
}

std::string sentence_on(const SweepResults& results, const SeriesScaling& series) {
  std::string text;
  if (series.knee)
    text =
        "beyond " + fixed(sample_at(results, *series.knee).devices, 0) + " devices a further one brings less than half";
  const std::string fit = fit_text(series);
  if (!fit.empty()) text += (text.empty() ? "" : "; ") + fit;
  return text.empty() ? "" : "  " + text + "\n";
}

std::string table_of(const SweepResults& results, const SeriesScaling& series) {
  std::string text = "\n" + printable(series.name.empty() ? results.sweep->name() : series.name);
  if (series.kind != ScalingKind::single)
    text += " (" + std::string{scaling_kinds.at(static_cast<std::size_t>(series.kind))} + " scaling)";
  const bool has_tokens = sample_at(results, series.points.front().position).has_tokens;
  text += "\n" + padded_left("devices", 10) + padded_left("step time", 12) +
          padded_left(has_tokens ? "tokens/s" : "samples/s", 12) + padded_left("efficiency", 12) +
          padded_left("loss", 9) + "  lost to\n";
  for (const PointScaling& point : series.points) {
    const ScalingSample& sample = sample_at(results, point.position);
    text += padded_left(fixed(sample.devices, 0), 10) + padded_left(format_seconds(sample.step_time_s), 12) +
            padded_left(format_count(sample.work_per_s), 12) + padded_left(percent(point.efficiency), 12) +
            padded_left(percent(point.loss), 9) + "  " + main_causes(point.by_cause) + "\n";
  }
  return text + sentence_on(results, series);
}

std::string lines_of(const SweepResults& results) {
  std::size_t width = 8;
  for (const SeriesScaling& series : results.series) width = std::max(width, series.name.size());
  std::string text = "\n" + padded_right("series", width) + padded_left("points", 8) + padded_left("devices", 16) +
                     padded_left("kind", 8) + padded_left("loss", 9) + "  at the end lost to\n";
  for (const SeriesScaling& series : results.series) {
    const auto devices = [&](const PointScaling& point) {
      return fixed(sample_at(results, point.position).devices, 0);
    };
    const PointScaling& last = series.points.back();
    text += padded_right(printable(series.name), width) + padded_left(std::to_string(series.points.size()), 8) +
            padded_left(devices(series.points.front()) + "-" + devices(last), 16) +
            padded_left(scaling_kinds.at(static_cast<std::size_t>(series.kind)), 8) +
            padded_left(percent(last.loss), 9) + "  " + main_causes(last.by_cause) + "\n";
  }
  return text;
}

std::string failures_text(const SweepResults& results) {
  constexpr std::size_t most = 10;
  std::vector<std::pair<std::size_t, std::string>> failures;
  for (const auto& [why, points] : results.failures) failures.emplace_back(points, why.substr(0, why.find('\n')));
  std::ranges::sort(failures, std::ranges::greater{});
  std::string text = failures.empty() ? "" : "\nNot possible\n";
  for (std::size_t i = 0; i < failures.size() && i < most; ++i)
    text += padded_left(std::to_string(failures[i].first), 8) + "  " + printable(failures[i].second) + "\n";
  if (failures.size() > most)
    text += "          and for " + std::to_string(failures.size() - most) + " other reasons\n";
  return text;
}

}  // namespace

std::string to_text(const SweepResults& results) {
  constexpr std::size_t most_tabled = 60;
  std::string text = printable(results.sweep->name()) + "\n";
  if (results.samples.size() <= most_tabled)
    for (const SeriesScaling& series : results.series) text += table_of(results, series);
  else
    text += lines_of(results);
  return text + failures_text(results);
}

}  // namespace trainyard::scenarios
