#include "scenarios/sweep.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/internal/expression.hpp"
#include "scenarios/internal/reader.hpp"
#include "scenarios/internal/value_text.hpp"

namespace trainyard::scenarios {
namespace {

constexpr std::size_t most_points = 1'000'000;

constexpr std::array<std::string_view, 11> top_keys{
    "name", "seed", "cluster", "model", "training", "strategy", "workload", "reliability", "cost", "run", "inference"};
constexpr std::array<std::string_view, 2> scale_keys{"cluster.nodes", "cluster.devices"};

std::string_view first_name(std::string_view path) { return path.substr(0, path.find('.')); }

bool is_scenario_path(std::string_view path) { return std::ranges::find(top_keys, first_name(path)) != top_keys.end(); }

// Keys that are given together.
struct Setting {
  std::string path;
  const Value* value = nullptr;
  Location where;  // of the key
};
using Choice = std::vector<Setting>;

struct Axis {
  std::vector<Choice> choices;
  bool scales() const {
    return std::ranges::any_of(choices, [](const Choice& choice) {
      return std::ranges::any_of(choice, [](const Setting& setting) {
        return std::ranges::find(scale_keys, setting.path) != scale_keys.end();
      });
    });
  }
};
using Product = std::vector<Axis>;

bool has_list(const Value& value) {
  return value.is_sequence() ||
         std::ranges::any_of(value.entries, [](const Entry& entry) { return entry.value.is_sequence(); });
}

// A value as people call it: a map by its name, or by what it refines.
std::string text_of(const Parameter& parameter) {
  const nlohmann::ordered_json value = nlohmann::ordered_json::parse(parameter.value);
  if (value.is_object())
    for (const char* key : {"name", "base"})
      if (value.contains(key) && value[key].is_string()) return value[key].get<std::string>();
  return value.is_string() ? value.get<std::string>() : parameter.value;
}

// Of a key in a map that stands at `outer`: below it, unless it says otherwise. A strategy has no name of its own.
std::string path_below(std::string_view outer, const std::string& key) {
  const bool below = is_scenario_path(outer);
  const bool names_scenario = key == "name" && (first_name(outer) == "strategy" || first_name(outer) == "training");
  const bool section = key != "name" && key != "seed" && is_scenario_path(key);
  return below && !section && !names_scenario ? join(std::string{outer}, key) : key;
}

// How points of a choice are called: by its name, or by what it sets.
std::string label_of(std::span<const Parameter> parameters) {
  for (const Parameter& parameter : parameters)
    if (parameter.path == "name") return text_of(parameter);
  std::string label;
  for (const Parameter& parameter : parameters) {
    const std::string_view name = std::string_view{parameter.path}.substr(parameter.path.rfind('.') + 1);
    const bool speaks = name == "model" || name == "framework" || name == "node" || name == "fabric";
    label += (label.empty() ? "" : ", ") + (speaks ? text_of(parameter) : std::string{name} + " " + text_of(parameter));
  }
  return label;
}

}  // namespace

struct Sweep::Source {
  Value document;  // of the sweep file; choices point into it
  Value base;
  std::vector<std::vector<std::pair<std::string, const Value*>>> settings;  // of each point
};

Sweep::Sweep() : source_(std::make_unique<Source>()) {}
Sweep::~Sweep() = default;
Sweep::Sweep(Sweep&&) noexcept = default;
Sweep& Sweep::operator=(Sweep&&) noexcept = default;

std::string to_json(std::span<const Parameter> parameters) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const Parameter& parameter : parameters) json[parameter.path] = nlohmann::ordered_json::parse(parameter.value);
  return json.dump();
}

Value Sweep::scenario_of(const SweepPoint& point) const {
  Value root = source_->base;
  const auto& settings = source_->settings.at(point.position);
  // Options belong to their framework: those of the base mean nothing to another one.
  const auto chooses_framework = [](const auto& setting) { return setting.first == "strategy.framework"; };
  if (std::ranges::any_of(settings, chooses_framework)) remove(root, "strategy");
  for (const auto& [path, value] : settings) set_at(root, path, *value);
  return root;
}

std::vector<std::string> Sweep::parameter_paths() const {
  std::vector<std::string> paths;
  std::set<std::string_view> seen;
  for (const SweepPoint& point : points_)
    for (const Parameter& parameter : point.parameters)
      if (seen.insert(parameter.path).second) paths.push_back(parameter.path);
  return paths;
}

class SweepReader {
 public:
  SweepReader(const std::filesystem::path& path, const Catalog& catalog, const LoadOptions& options)
      : catalog_(catalog) {
    sweep_.file_ = path;
    sweep_.name_ = path.stem().string();
    sweep_.source_->document = read_document(path);
    read(options);
  }

  Sweep take() { return std::move(sweep_); }

 private:
  void read(const LoadOptions& options);
  void read_base(const Value& base, const LoadOptions& options);
  std::vector<Product> read_vary(const Value& vary);
  Product read_product(const Value& map);
  std::optional<Axis> read_axis(const Entry& entry);
  std::optional<Axis> read_zipped(const std::string& name, const Value& map);
  std::optional<Choice> read_choice(const std::string& name, const Value& map);
  std::optional<Setting> setting(const Value& key, const std::string& path, const Value& value);
  void expand(const Product& product);
  void add_point(const Product& product, std::span<const std::size_t> chosen);
  void read_baseline(const Value& baseline);
  std::vector<Expression> read_conditions(const Value& where);
  void keep_where(const Value& where);
  void require_one_scenario();

  const Catalog& catalog_;
  Sweep sweep_;
  Reader reader_;
  std::set<std::string> seen_;  // points
};

void SweepReader::read(const LoadOptions& options) {
  const Value* base = nullptr;
  const Value* vary = nullptr;
  const Value* where = nullptr;
  const Value* baseline = nullptr;
  const std::vector<sim::Key> keys{{.name = "name", .target = &sweep_.name_, .help = ""}};
  const std::array<Section, 4> sections{
      {{"base", &base, true}, {"vary", &vary, true}, {"where", &where}, {"baseline", &baseline}}};
  reader_.read(sweep_.source_->document, "", {.keys = keys, .sections = sections});
  if (base != nullptr) read_base(*base, options);
  std::vector<Product> products;
  if (vary != nullptr) products = read_vary(*vary);
  reader_.throw_mistakes();
  for (const Product& product : products) expand(product);
  if (where != nullptr) keep_where(*where);
  if (baseline != nullptr) read_baseline(*baseline);
  reader_.throw_mistakes();
  require_one_scenario();
}

void SweepReader::read_base(const Value& base, const LoadOptions& options) {
  if (base.is_map()) {
    sweep_.source_->base = base;
    apply_overrides(sweep_.source_->base, options.overrides);
    return;
  }
  if (!base.is_scalar())
    return reader_.report(base.where,
                          "base: expected a scenario file or the keys of a scenario, got " + describe(base));
  const std::filesystem::path path = sweep_.file_.parent_path() / base.scalar;
  std::error_code error;
  if (!std::filesystem::exists(path, error))
    return reader_.report(base.where, "base: no such file: '" + path.string() + "'");
  sweep_.source_->base = read_document(path, options.overrides);
}

std::optional<Setting> SweepReader::setting(const Value& key, const std::string& path, const Value& value) {
  if (!is_scenario_path(path)) {
    reader_.report(key.where, "vary: '" + path + "' is no key of a scenario; these begin with " + listed(top_keys) +
                                  nearest(first_name(path), top_keys));
    return std::nullopt;
  }
  return Setting{.path = path, .value = &value, .where = key.where};
}

std::vector<Product> SweepReader::read_vary(const Value& vary) {
  if (vary.is_map()) return {read_product(vary)};
  if (!vary.is_sequence() || vary.items.empty()) {
    reader_.report(vary.where, "vary: expected a map from keys to lists of values, got " + describe(vary));
    return {};
  }
  const bool single = std::ranges::none_of(vary.items, [](const Value& item) {
    return std::ranges::any_of(item.entries, [](const Entry& entry) { return has_list(entry.value); });
  });
  std::vector<Product> products;
  Axis together;
  for (const Value& item : vary.items) {
    if (!item.is_map()) {
      reader_.report(item.where, "vary: expected a map from keys to values, got " + describe(item));
    } else if (!single) {
      products.push_back(read_product(item));
    } else if (auto choice = read_choice("", item)) {
      together.choices.push_back(std::move(*choice));
    }
  }
  if (single) products.push_back({std::move(together)});
  return products;
}

Product SweepReader::read_product(const Value& map) {
  Product product;
  for (const Entry& entry : map.entries)
    if (auto axis = read_axis(entry)) product.push_back(std::move(*axis));
  return product;
}

std::optional<Axis> SweepReader::read_axis(const Entry& entry) {
  const std::string& name = entry.key.scalar;
  if (entry.value.is_map() && has_list(entry.value)) return read_zipped(name, entry.value);
  Axis axis;
  if (entry.value.is_map() && !is_scenario_path(name)) {
    if (auto choice = read_choice("", entry.value)) axis.choices.push_back(std::move(*choice));
    return axis;
  }
  if (!entry.value.is_sequence()) {
    const auto only = setting(entry.key, name, entry.value);
    if (only) axis.choices.push_back({*only});
    return axis;
  }
  if (entry.value.items.empty()) reader_.report(entry.value.where, "vary." + name + ": expected at least one value");
  for (const Value& value : entry.value.items) {
    if (value.is_map()) {
      if (auto choice = read_choice(name, value)) axis.choices.push_back(std::move(*choice));
    } else if (const auto one = setting(entry.key, name, value)) {
      axis.choices.push_back({*one});
    } else {
      break;
    }
  }
  return axis;
}

// Lists of equal length, whose values are taken together.
std::optional<Axis> SweepReader::read_zipped(const std::string& name, const Value& map) {
  Axis axis;
  for (const Entry& entry : map.entries) {
    if (!entry.value.is_sequence()) {
      reader_.report(entry.value.where, "vary." + name + "." + entry.key.scalar + ": expected a list of values, got " +
                                            describe(entry.value));
      return std::nullopt;
    }
    if (&entry != &map.entries.front() && entry.value.items.size() != axis.choices.size()) {
      reader_.report(entry.value.where, "vary." + name + ": lists that vary together are equally long; this one has " +
                                            std::to_string(entry.value.items.size()) + " values, the one before " +
                                            std::to_string(axis.choices.size()));
      return std::nullopt;
    }
    axis.choices.resize(entry.value.items.size());
    const std::string path = path_below(name, entry.key.scalar);
    for (std::size_t i = 0; i < axis.choices.size(); ++i) {
      const auto one = setting(entry.key, path, entry.value.items[i]);
      if (!one) return std::nullopt;
      axis.choices[i].push_back(*one);
    }
  }
  return axis;
}

std::optional<Choice> SweepReader::read_choice(const std::string& name, const Value& map) {
  Choice choice;
  for (const Entry& entry : map.entries) {
    const auto one = setting(entry.key, path_below(name, entry.key.scalar), entry.value);
    if (!one) return std::nullopt;
    choice.push_back(*one);
  }
  return choice;
}

// Every combination; the last axis varies fastest.
void SweepReader::expand(const Product& product) {
  double size = 1;
  for (const Axis& axis : product) size *= static_cast<double>(axis.choices.size());
  if (size + static_cast<double>(sweep_.points_.size()) > static_cast<double>(most_points))
    throw ScenarioError({sweep_.file_.string(), 0, 0}, "more than " + std::to_string(most_points) + " points");
  if (size == 0) return;
  std::vector<std::size_t> chosen(product.size(), 0);
  while (true) {
    add_point(product, chosen);
    std::size_t i = product.size();
    while (i > 0 && ++chosen[i - 1] == product[i - 1].choices.size()) chosen[--i] = 0;
    if (i == 0) return;
  }
}

void SweepReader::add_point(const Product& product, std::span<const std::size_t> chosen) {
  SweepPoint point;
  std::vector<std::pair<std::string, const Value*>> settings;
  std::vector<Parameter> fixed;  // in the whole product
  std::string label;
  for (std::size_t i = 0; i < product.size(); ++i) {
    std::vector<Parameter> parameters;
    for (const Setting& setting : product[i].choices[chosen[i]]) {
      parameters.push_back({.path = setting.path, .value = json_of(*setting.value).dump()});
      settings.emplace_back(setting.path, setting.value);
    }
    point.parameters.insert(point.parameters.end(), parameters.begin(), parameters.end());
    if (product[i].scales()) continue;
    point.series_parameters.insert(point.series_parameters.end(), parameters.begin(), parameters.end());
    if (product[i].choices.size() == 1)
      fixed.insert(fixed.end(), parameters.begin(), parameters.end());
    else
      label += ", " + label_of(parameters);
  }
  label = label_of(fixed) + label;
  point.series = label.starts_with(", ") ? label.substr(2) : label;
  if (!seen_.insert(to_json(point.parameters)).second) return;
  point.position = sweep_.points_.size();
  sweep_.points_.push_back(std::move(point));
  sweep_.source_->settings.push_back(std::move(settings));
}

namespace {

std::optional<ExpressionValue> condition_value(const Value& root, std::string_view path) {
  const Value* value = &root;
  for (std::size_t from = 0; from <= path.size() && value != nullptr;) {
    const std::size_t dot = std::min(path.find('.', from), path.size());
    value = value->find(path.substr(from, dot - from));
    from = dot + 1;
  }
  if (value != nullptr && value->is_map()) value = value->find("base");
  if (value == nullptr || !value->is_scalar()) return std::nullopt;
  const nlohmann::ordered_json json = json_of(*value);
  if (json.is_number()) return json.get<double>();
  if (json.is_boolean()) return json.get<bool>();
  return value->scalar;
}

// Nothing where the cluster is wrong: the point will say so.
std::optional<ExpressionValue> devices_of(const Value& root, const Catalog& catalog) {
  try {
    return static_cast<double>(read_cluster(root, catalog).devices);
  } catch (const ScenarioError&) {
    return std::nullopt;
  }
}

}  // namespace

std::vector<Expression> SweepReader::read_conditions(const Value& where) {
  std::vector<Expression> conditions;
  const Expression::Words words{
      .is_path = [](std::string_view word) { return word == "devices" || is_scenario_path(word); }};
  const auto add = [&](const Value& text) {
    if (!text.is_scalar())
      return reader_.report(text.where,
                            "where: expected a condition such as 'cluster.nodes >= 8', got " + describe(text));
    try {
      Location first_letter = text.where;
      if (text.quoted) ++first_letter.column;
      conditions.emplace_back(text.scalar, first_letter, words);
    } catch (const ScenarioError& error) {
      reader_.report(error);
    }
  };
  if (where.is_sequence())
    for (const Value& item : where.items) add(item);
  else
    add(where);
  return conditions;
}

void SweepReader::keep_where(const Value& where) {
  const std::vector<Expression> conditions = read_conditions(where);
  reader_.throw_mistakes();
  const std::vector<std::string> paths = sweep_.parameter_paths();
  const std::vector<std::string_view> names{paths.begin(), paths.end()};
  std::map<std::string, bool> found;  // whether any point has the key
  std::vector<SweepPoint> kept;
  std::vector<std::vector<std::pair<std::string, const Value*>>> settings;
  for (SweepPoint& point : sweep_.points_) {
    const Value root = sweep_.scenario_of(point);
    const Expression::Scope scope{.value = [&](std::string_view path) -> std::optional<ExpressionValue> {
      const std::optional<ExpressionValue> value =
          path == "devices" ? devices_of(root, catalog_) : condition_value(root, path);
      found[std::string{path}] |= value.has_value();
      return value;
    }};
    const bool keep = std::ranges::all_of(
        conditions, [&](const Expression& condition) { return condition.holds(scope).value_or(true); });
    if (!keep) continue;
    settings.push_back(std::move(sweep_.source_->settings[point.position]));
    point.position = kept.size();
    kept.push_back(std::move(point));
  }
  for (const auto& [path, any] : found)
    if (!any) reader_.report(where.where, "where: no point gives '" + path + "'" + nearest(path, names));
  if (kept.empty() && !sweep_.points_.empty()) reader_.report(where.where, "where: no combination is left");
  sweep_.points_ = std::move(kept);
  sweep_.source_->settings = std::move(settings);
}

void SweepReader::read_baseline(const Value& baseline) {
  if (!baseline.is_map())
    return reader_.report(baseline.where, "baseline: expected keys and values of a point, got " + describe(baseline));
  const std::vector<std::string> paths = sweep_.parameter_paths();
  const std::vector<std::string_view> names{paths.begin(), paths.end()};
  for (const Entry& entry : baseline.entries) {
    const std::string& path = entry.key.scalar;
    if (std::ranges::find(paths, path) == paths.end()) {
      reader_.report(entry.key.where, "baseline: '" + path + "' does not vary" + nearest(path, names));
      continue;
    }
    Parameter parameter{.path = path, .value = json_of(entry.value).dump()};
    const bool any = std::ranges::any_of(sweep_.points_, [&](const SweepPoint& point) {
      return std::ranges::find(point.parameters, parameter) != point.parameters.end();
    });
    if (!any) reader_.report(entry.value.where, "baseline: no point has " + path + " = " + parameter.value);
    sweep_.baseline_.push_back(std::move(parameter));
  }
}

// A mistake in one combination is a result; where all are wrong, the file is.
void SweepReader::require_one_scenario() {
  std::optional<ScenarioError> first;
  for (const SweepPoint& point : sweep_.points_) {
    try {
      read_scenario(sweep_.scenario_of(point), catalog_);
      return;
    } catch (const ScenarioError& error) {
      if (!first) first = error;
    }
  }
  if (first) throw ScenarioError(*first);
  throw ScenarioError({sweep_.file_.string(), 0, 0}, "expected at least one point");
}

Sweep Sweep::load(const std::filesystem::path& path, const Catalog& catalog, const LoadOptions& options) {
  return SweepReader(path, catalog, options).take();
}

}  // namespace trainyard::scenarios
