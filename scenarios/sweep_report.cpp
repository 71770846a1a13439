#include "scenarios/sweep_report.hpp"

#include <algorithm>
#include <cstddef>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "scenarios/internal/page_values.hpp"
#include "scenarios/output_file.hpp"
#include "scenarios/page.hpp"

namespace trainyard::scenarios {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

// What says nothing of the step, or how long it took to simulate.
bool is_left_out(const std::string& path) {
  return path == "schema" || path == "scenario" || path == "seed" || path == "engine.wall_s" ||
         path == "engine.peak_rss_bytes";
}

class ReportWriter {
 public:
  explicit ReportWriter(const SweepResults& results) : results_(results) {}

  // The data of the page, piece by piece.
  template <class Write>
  void write(const Write& piece) {
    const Sweep& sweep = *results_.sweep;
    piece("{\"parameter_paths\": " + dump(sweep.parameter_paths()) + ", \"points\": [");
    for (const SweepPoint& point : sweep.points()) piece((point.position == 0 ? "\n" : ",\n") + dump(row_of(point)));
    piece("\n], \"series\": " + dump(series_json()) + ",\n\"fields\": " + dump(fields_.all()) +
          ",\n\"texts\": " + dump(texts_.all()) + ",\n\"programs\": " + dump(programs_.all()) +
          ",\n\"store\": " + dump(results_.store->path().filename().string()) + "}");
  }

 private:
  Json row_of(const SweepPoint& point) {
    Json row{{"series", place_of_series(point)}, {"parameters", parameter_values(point)}};
    const std::optional<StoredPoint> stored = stored_point(results_, point);
    row["status"] = !stored ? "missing" : stored->ok() ? "ok" : "failed";
    if (!stored) return row;
    row["scenario"] = lines_of(stored->scenario_yaml);
    programs_.place_of(stored->program);
    if (!stored->ok()) {
      row["diagnostics"] = lines_of(stored->diagnostics);
      return row;
    }
    const Json result = Json::parse(stored->result_json);
    add_values(result, "");
    add_scaling(point);
    row["values"] = take_values();
    row["warnings"] = warnings_of(result);
    row["communication"] = communication_of(result);
    return row;
  }

  std::size_t place_of_series(const SweepPoint& point) {
    const std::size_t place = series_.place_of(to_json(point.series_parameters));
    if (place == names_.size()) names_.push_back(point.series);
    return place;
  }

  Json parameter_values(const SweepPoint& point) const {
    Json values = Json::array();
    for (const std::string& path : results_.sweep->parameter_paths()) {
      const auto own = std::ranges::find(point.parameters, path, &Parameter::path);
      values.push_back(own == point.parameters.end() ? Json(nullptr) : Json::parse(own->value));
    }
    return values;
  }

  Json lines_of(std::string_view text) {
    Json places = Json::array();
    while (!text.empty()) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      places.push_back(texts_.place_of(text.substr(0, end)));
      text.remove_prefix(std::min(end + 1, text.size()));
    }
    return places;
  }

  void add_value(const std::string& path, Json value) {
    const std::size_t place = fields_.place_of(path);
    if (values_.size() <= place) values_.resize(place + 1);
    values_[place] = std::move(value);
  }

  void add_values(const Json& part, const std::string& path) {
    if (part.is_array() || is_left_out(path)) return;
    if (part.is_object()) {
      for (const auto& [name, value] : part.items()) add_values(value, path.empty() ? name : path + "." + name);
      return;
    }
    add_value(path, part.is_number_float() ? Json(rounded(part.get<double>())) : part);
  }

  void add_scaling(const SweepPoint& point) {
    const auto scaling = results_.scaling.find(point.position);
    if (scaling == results_.scaling.end()) return;
    add_value("scaling_efficiency", rounded(scaling->second->efficiency));
    add_value("scaling_loss", rounded(scaling->second->loss));
    for (std::size_t i = 0; i < loss_causes.size(); ++i)
      add_value("scaling_loss_by." + std::string{loss_causes.at(i)}, rounded(scaling->second->by_cause.at(i)));
  }

  Json take_values() {
    Json values = Json::array();
    for (Json& value : values_) values.push_back(std::exchange(value, nullptr));
    return values;
  }

  Json warnings_of(const Json& result) {
    Json places = Json::array();
    for (const Json& warning : result.at("warnings"))
      places.push_back(texts_.place_of(warning.is_string() ? warning.get<std::string>() : dump(warning)));
    return places;
  }

  Json communication_of(const Json& result) {
    Json rows = Json::array();
    for (const Json& operation : result.at("communication")) {
      Json row{texts_.place_of(operation.at("purpose").get<std::string>()),
               texts_.place_of(operation.at("operation").get<std::string>())};
      for (const char* field : {"count", "bytes", "wire_bytes", "busy_s", "exposed_s"})
        row.push_back(rounded(operation.at(field).get<double>()));
      rows.push_back(std::move(row));
    }
    return rows;
  }

  // Every series that has points, with what the analysis says of it.
  Json series_json() {
    Json all = Json::array();
    for (const std::string& name : names_) all.push_back({{"name", name}});
    for (const SeriesScaling& series : results_.series) {
      Json& json = all.at(series_.place_of(to_json(series.parameters)));
      json["kind"] = scaling_kinds.at(static_cast<std::size_t>(series.kind));
      json["baseline"] = series.points.front().baseline;
      if (series.knee) json["knee"] = *series.knee;
      if (series.fit)
        json["fit"] = {{"slope", rounded(series.fit->slope)},
                       {"communication_slope", rounded(series.fit->communication_slope)},
                       {"r_squared", rounded(series.fit->r_squared)}};
    }
    return all;
  }

  const SweepResults& results_;
  Texts fields_;
  Texts texts_;
  Texts programs_;
  Texts series_;  // by their parameters
  std::vector<std::string> names_;
  std::vector<Json> values_;  // of the point that is being read, by field
};

}  // namespace

void write_report(const SweepResults& results, const std::filesystem::path& file) {
  const Page page{.title = results.sweep->name(),
                  .made_from = "sweep " + results.sweep->file().filename().string(),
                  .kind = "sweep",
                  .data = ""};
  const PageFrame frame = page_frame(page);
  OutputFile out(file == "-" ? std::filesystem::path{"/dev/stdout"} : file);
  out.write(frame.before_data);
  ReportWriter(results).write([&](const std::string& piece) { out.write(page_data(piece)); });
  out.write(frame.after_data);
  out.commit();
}

}  // namespace trainyard::scenarios
