// Claim files, as claims.hpp describes them.
#include <algorithm>
#include <array>
#include <filesystem>
#include <set>
#include <utility>

#include "scenarios/internal/claim.hpp"
#include "scenarios/internal/reader.hpp"
#include "scenarios/internal/result_fields.hpp"
#include "scenarios/internal/value_text.hpp"
#include "scenarios/quantity.hpp"
#include "sim/plan.hpp"

namespace trainyard::scenarios {
namespace {

constexpr std::size_t most_points = 1'000;  // of a list
constexpr double usual_tolerance = 0.3;     // of an estimate
constexpr std::array<std::string_view, 5> communication_fields{"count", "bytes", "wire_bytes", "busy_s", "exposed_s"};
constexpr std::array<std::string_view, 3> verdicts{"confirmed", "depends", "refuted"};

// Expressions take names apart at dots, and know these words.
bool is_name(std::string_view text) {
  constexpr std::array<std::string_view, 5> words{"and", "or", "not", "true", "false"};
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
  return !text.empty() && (text.front() < '0' || text.front() > '9') && std::ranges::all_of(text, letter) &&
         std::ranges::find(words, text) == words.end();
}

std::pair<std::string_view, std::string_view> parted(std::string_view path) {
  const std::size_t dot = path.find('.');
  if (dot == std::string_view::npos) return {path, {}};
  return {path.substr(0, dot), path.substr(dot + 1)};
}

const std::vector<std::string>& known_fields() {
  static const std::vector<std::string> fields = [] {
    std::vector<std::string> all;
    for (const ResultField& field : result_fields()) all.push_back(field.path);
    for (std::size_t i = 0; i < sim::purposes; ++i)
      for (const std::string_view field : communication_fields)
        all.push_back("communication." + std::string{sim::to_string(static_cast<sim::Purpose>(i))} + "." +
                      std::string{field});
    return all;
  }();
  return fields;
}

class ClaimReader {
 public:
  ClaimReader(const Value& document, ReadScenarioFile read_file) : document_(document), read_file_(read_file) {}

  Claim read();

 private:
  void read_runs(const Value& runs);
  void read_run(const Entry& entry);
  Value read_base(const Value& base);
  std::vector<ClaimPoint> read_over(const Value& over, ClaimRun& run);
  void read_axis(const Entry& entry, std::vector<ClaimPoint>& points);
  Value substituted(const Value& value, const ClaimPoint& point);
  void read_numbers(const Value& numbers);
  void read_number(const Entry& entry);
  void read_expected(const Value& expected, ClaimNumber& number);
  void read_rules(const Value& rules);
  void read_rule(const Value& rule, bool last);
  std::optional<Expression> read_expression(const Value& value, const std::string& subject);
  void check(const Expression& expression, const std::string& subject);
  void check_field(const Expression::Name& name, const ClaimRun& run, const std::string& subject);
  void check_name(const Value& name, const std::string& what);
  void check_braces(const Value& text, const std::string& subject);

  const ClaimRun* find_run(std::string_view name) const {
    const auto found = std::ranges::find(claim_.runs, name, &ClaimRun::name);
    return found == claim_.runs.end() ? nullptr : &*found;
  }
  bool has_number(std::string_view name) const {
    return std::ranges::find(claim_.numbers, name, &ClaimNumber::name) != claim_.numbers.end();
  }
  std::string nearest_name(std::string_view name) const {
    std::vector<std::string_view> names;
    for (const ClaimRun& run : claim_.runs) names.push_back(run.name);
    for (const ClaimNumber& number : claim_.numbers) names.push_back(number.name);
    return nearest(name, names);
  }

  const Value& document_;
  ReadScenarioFile read_file_;
  Claim claim_;
  Reader reader_;
};

Claim ClaimReader::read() {
  const Value* runs = nullptr;
  const Value* numbers = nullptr;
  const Value* rules = nullptr;
  const std::vector<sim::Key> keys{{.name = "id", .target = &claim_.id, .help = "", .required = true},
                                   {.name = "title", .target = &claim_.title, .help = "", .required = true},
                                   {.name = "claim", .target = &claim_.claim, .help = "", .required = true},
                                   {.name = "section", .target = &claim_.section, .help = ""},
                                   {.name = "decides", .target = &claim_.decides, .help = "", .required = true},
                                   {.name = "note", .target = &claim_.note, .help = ""}};
  const std::array<Section, 3> sections{
      {{"simulate", &runs, true}, {"numbers", &numbers, true}, {"verdict", &rules, true}}};
  reader_.read(document_, "", {.keys = keys, .sections = sections});
  claim_.where = reader_.location_of("id");
  if (runs != nullptr) read_runs(*runs);
  if (numbers != nullptr) read_numbers(*numbers);
  if (rules != nullptr) read_rules(*rules);
  reader_.throw_mistakes();
  return std::move(claim_);
}

void ClaimReader::check_name(const Value& name, const std::string& what) {
  if (!is_name(name.scalar))
    reader_.report(name.where, what + ": expected a name of small letters, digits and '_', got " + describe(name));
  else if (find_run(name.scalar) != nullptr || has_number(name.scalar))
    reader_.report(name.where, what + ": '" + name.scalar + "' is given twice");
}

void ClaimReader::read_runs(const Value& runs) {
  if (!runs.is_map() || runs.entries.empty())
    return reader_.report(runs.where, "simulate: expected names with what is run, got " + describe(runs));
  for (const Entry& entry : runs.entries) {
    check_name(entry.key, "simulate");
    try {
      read_run(entry);
    } catch (const ScenarioError& error) {
      reader_.report(error);
    }
  }
}

void ClaimReader::read_run(const Entry& entry) {
  const Value* base = nullptr;
  const Value* over = nullptr;
  const Value* set = nullptr;
  const std::array<Section, 3> sections{{{"base", &base, true}, {"over", &over}, {"set", &set}}};
  reader_.read(entry.value, join("simulate", entry.key.scalar), {.sections = sections});
  if (base == nullptr) return;
  const Value root = read_base(*base);
  ClaimRun run{
      .name = entry.key.scalar, .where = entry.key.where, .list = over != nullptr, .variables = {}, .points = {}};
  run.points = over == nullptr ? std::vector<ClaimPoint>(1) : read_over(*over, run);
  if (set != nullptr && !set->is_map())
    throw ScenarioError(set->where, "set: expected keys of a scenario with values, got " + describe(*set));
  for (ClaimPoint& point : run.points) {
    point.scenario = root;
    // Options belong to their framework: those of the base mean nothing to another one.
    if (set != nullptr && set->find("strategy.framework") != nullptr) remove(point.scenario, "strategy");
    if (set == nullptr) continue;
    for (const Entry& setting : set->entries)
      set_at(point.scenario, setting.key.scalar, substituted(setting.value, point));
  }
  claim_.runs.push_back(std::move(run));
}

Value ClaimReader::read_base(const Value& base) {
  if (base.is_map()) return base;
  if (!base.is_scalar())
    throw ScenarioError(
        base.where,
        "base: expected a file, the keys of a scenario or the name of an earlier run, got " + describe(base));
  if (const ClaimRun* run = find_run(base.scalar)) {
    if (run->list) throw ScenarioError(base.where, "base: '" + run->name + "' is a list of runs");
    return run->points.front().scenario;
  }
  if (base.scalar.find('.') == std::string::npos) {
    std::vector<std::string_view> names;
    for (const ClaimRun& run : claim_.runs) names.push_back(run.name);
    throw ScenarioError(base.where, "base: no earlier run is called '" + base.scalar + "'" +
                                        nearest(base.scalar, names) + "; files end in .yaml");
  }
  const std::filesystem::path file = std::filesystem::path{document_.where.file}.parent_path() / base.scalar;
  try {
    return read_file_(file.lexically_normal().string());
  } catch (const ScenarioError& error) {
    if (error.diagnostics().front().where.line > 0) throw;
    throw ScenarioError(base.where,
                        "base: " + error.diagnostics().front().where.file + ": " + error.diagnostics().front().message);
  }
}

std::vector<ClaimPoint> ClaimReader::read_over(const Value& over, ClaimRun& run) {
  if (!over.is_map() || over.entries.empty())
    throw ScenarioError(over.where, "over: expected names with lists of values, got " + describe(over));
  std::vector<ClaimPoint> points;
  for (const Entry& entry : over.entries) {
    const std::string& name = entry.key.scalar;
    if (!is_name(name))
      throw ScenarioError(entry.key.where,
                          "over: expected a name of small letters, digits and '_', got " + describe(entry.key));
    if (std::ranges::any_of(known_fields(), [&](const std::string& field) { return parted(field).first == name; }))
      throw ScenarioError(entry.key.where, "over: '" + name + "' is a field of results; take another name");
    read_axis(entry, points);
    run.variables.push_back(name);
  }
  return points;
}

// Puts the values of one list into the points.
void ClaimReader::read_axis(const Entry& entry, std::vector<ClaimPoint>& points) {
  const std::vector<Value>& items = entry.value.items;
  if (items.empty() || items.size() > most_points)
    throw ScenarioError(entry.value.where, "over: expected a list of up to " + std::to_string(most_points) +
                                               " values, got " + describe(entry.value));
  if (!points.empty() && points.size() != items.size())
    throw ScenarioError(entry.value.where, "over: lists go together; expected " + std::to_string(points.size()) +
                                               " values, got " + std::to_string(items.size()));
  points.resize(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    const Value& item = items[i];
    if (!item.is_scalar()) throw ScenarioError(item.where, "over: expected a number or a word, got " + describe(item));
    const nlohmann::ordered_json json = json_of(item);
    points[i].variables[entry.key.scalar] =
        json.is_number() ? ExpressionValue{json.get<double>()} : ExpressionValue{item.scalar};
    points[i].texts[entry.key.scalar] = item.scalar;
  }
}

// What is put in is what the list says, not what it means: "1e3" stays that.
Value ClaimReader::substituted(const Value& value, const ClaimPoint& point) {
  Value result = value;
  for (Entry& entry : result.entries) entry.value = substituted(entry.value, point);
  for (Value& item : result.items) item = substituted(item, point);
  if (!value.is_scalar() || value.scalar.find('{') == std::string::npos) return result;
  result.scalar.clear();
  result.quoted = false;
  const bool closed = split_braces(
      value.scalar, [&](std::string_view text) { result.scalar += text; },
      [&](std::string_view name) {
        const auto found = point.texts.find(name);
        if (found == point.texts.end()) {
          std::vector<std::string_view> names;
          for (const auto& [known, text] : point.texts) names.push_back(known);
          throw ScenarioError(value.where, "set: 'over' has no '" + std::string{name} + "'" + nearest(name, names));
        }
        result.scalar += found->second;
      });
  if (!closed) throw ScenarioError(value.where, "set: a brace is not closed in " + describe(value));
  return result;
}

std::optional<Expression> ClaimReader::read_expression(const Value& value, const std::string& subject) {
  if (!value.is_scalar()) {
    reader_.report(value.where, subject + ": expected an expression over runs and numbers, got " + describe(value));
    return std::nullopt;
  }
  Location first_letter = value.where;
  if (value.quoted) ++first_letter.column;
  const Expression::Words words{.is_path = [](std::string_view) { return true; },
                                .is_list =
                                    [this](std::string_view word) {
                                      const ClaimRun* run = find_run(word);
                                      return run != nullptr && run->list;
                                    },
                                .subject = subject};
  try {
    Expression expression(value.scalar, first_letter, words);
    check(expression, subject);
    return expression;
  } catch (const ScenarioError& error) {
    reader_.report(error);
    return std::nullopt;
  }
}

void ClaimReader::check(const Expression& expression, const std::string& subject) {
  for (const Expression::Name& name : expression.names()) {
    const auto [first, rest] = parted(name.path);
    if (const ClaimRun* run = find_run(first))
      check_field(name, *run, subject);
    else if (!has_number(name.path))
      reader_.report(name.where, subject + ": no run or earlier number is called '" + std::string{first} + "'" +
                                     nearest_name(first) + "; a text needs quotes");
  }
}

void ClaimReader::check_field(const Expression::Name& name, const ClaimRun& run, const std::string& subject) {
  const std::string field{parted(name.path).second};
  if (run.list && std::ranges::find(name.lists, run.name) == name.lists.end())
    return reader_.report(name.where, subject + ": '" + run.name + "' is a list of " +
                                          std::to_string(run.points.size()) +
                                          " runs; it goes into first, least, most or crossing");
  if (std::ranges::find(run.variables, field) != run.variables.end()) return;
  const std::vector<std::string>& fields = known_fields();
  if (std::ranges::find(fields, field) != fields.end()) return;
  std::vector<std::string_view> names{fields.begin(), fields.end()};
  names.insert(names.end(), run.variables.begin(), run.variables.end());
  reader_.report(name.where, subject + ": results have no '" + field + "'" + nearest(field, names));
}

void ClaimReader::read_numbers(const Value& numbers) {
  if (!numbers.is_map() || numbers.entries.empty())
    return reader_.report(numbers.where, "numbers: expected names with what they are, got " + describe(numbers));
  for (const Entry& entry : numbers.entries) {
    check_name(entry.key, "numbers");
    read_number(entry);
  }
}

void ClaimReader::read_number(const Entry& entry) {
  const Value* value = nullptr;
  const Value* expected = nullptr;
  std::string what;
  std::string unit;
  std::string source;
  std::string note;
  double tolerance = usual_tolerance;
  const std::vector<sim::Key> keys{{.name = "what", .target = &what, .help = "", .required = true},
                                   {.name = "unit", .target = &unit, .help = ""},
                                   {.name = "source", .target = &source, .help = ""},
                                   {.name = "note", .target = &note, .help = ""},
                                   {.name = "tolerance", .target = &tolerance, .help = "", .least = 0, .most = 100}};
  const std::array<Section, 2> sections{{{"value", &value, true}, {"expected", &expected}}};
  const std::string path = join("numbers", entry.key.scalar);
  reader_.read(entry.value, path, {.keys = keys, .sections = sections});
  if (value == nullptr) return;
  std::optional<Expression> expression = read_expression(*value, path + ".value");
  if (!expression) return;
  ClaimNumber number{.name = entry.key.scalar,
                     .what = std::move(what),
                     .unit = std::move(unit),
                     .value = std::move(*expression),
                     .expected_least = {},
                     .expected_most = {},
                     .tolerance = tolerance,
                     .source = std::move(source),
                     .note = std::move(note)};
  if (expected != nullptr) read_expected(*expected, number);
  if (expected != nullptr && number.source.empty())
    reader_.report(expected->where, path + ": 'expected' needs a 'source'");
  claim_.numbers.push_back(std::move(number));
}

void ClaimReader::read_expected(const Value& expected, ClaimNumber& number) {
  std::vector<double> ends;
  const auto add = [&](const Value& end) {
    const auto parsed = end.is_scalar() ? parse_real_number(end.scalar) : Parsed<double>{};
    if (parsed.value) ends.push_back(*parsed.value);
  };
  if (expected.is_sequence())
    for (const Value& item : expected.items) add(item);
  else
    add(expected);
  const bool range = expected.is_sequence() && expected.items.size() == 2 && ends.size() == 2 && ends[0] <= ends[1];
  if (!range && (expected.is_sequence() || ends.size() != 1))
    return reader_.report(expected.where,
                          "numbers." + number.name +
                              ".expected: expected a number, or the ends of a range such as [1.5, 3]; got " +
                              describe(expected));
  number.expected_least = ends.front();
  number.expected_most = ends.back();
}

void ClaimReader::read_rules(const Value& rules) {
  if (!rules.is_sequence() || rules.items.empty())
    return reader_.report(rules.where, "verdict: expected a list of verdicts with conditions, got " + describe(rules));
  for (std::size_t i = 0; i < rules.items.size(); ++i) read_rule(rules.items[i], i + 1 == rules.items.size());
}

void ClaimReader::read_rule(const Value& rule, bool last) {
  const Value* when = nullptr;
  const Value* because = nullptr;
  sim::Choice verdict{.value = "", .choices = {verdicts.begin(), verdicts.end()}};
  const std::vector<sim::Key> keys{{.name = "verdict", .target = &verdict, .help = "", .required = true}};
  const std::array<Section, 2> sections{{{"when", &when}, {"because", &because, true}}};
  const std::size_t mistakes = reader_.mistakes();
  reader_.read(rule, "verdict", {.keys = keys, .sections = sections});
  if (reader_.mistakes() > mistakes) return;
  if (last != (when == nullptr))
    reader_.report(rule.where, last ? "verdict: the last has no 'when', so that there always is one"
                                    : "verdict: only the last goes without 'when'");
  if (!because->is_scalar())
    return reader_.report(because->where, "verdict.because: expected text, got " + describe(*because));
  check_braces(*because, "verdict.because");
  ClaimRule result{.when = {}, .verdict = {}, .because = because->scalar};
  result.verdict = static_cast<Verdict>(std::ranges::find(verdicts, verdict.value) - verdicts.begin());
  if (when != nullptr) result.when = read_expression(*when, "verdict.when");
  claim_.rules.push_back(std::move(result));
}

void ClaimReader::check_braces(const Value& text, const std::string& subject) {
  const bool closed = split_braces(
      text.scalar, [](std::string_view) {},
      [&](std::string_view name) {
        if (!has_number(name))
          reader_.report(text.where,
                         subject + ": no number is called '" + std::string{name} + "'" + nearest_name(name));
      });
  if (!closed) reader_.report(text.where, subject + ": a brace is not closed");
}

}  // namespace

Claim read_claim(const Value& document, ReadScenarioFile read_file) { return ClaimReader(document, read_file).read(); }

std::string_view to_string(Verdict verdict) { return verdicts.at(static_cast<std::size_t>(verdict)); }

}  // namespace trainyard::scenarios
