#include "scenarios/show_frameworks.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/text.hpp"
#include "scenarios/quantity.hpp"

namespace trainyard::scenarios {
namespace {

constexpr const char* absent = "absent";

std::string list_text(const std::vector<std::int64_t>& numbers) {
  std::string text;
  for (const std::int64_t number : numbers) text += (text.empty() ? "[" : ", ") + std::to_string(number);
  return text.empty() ? absent : text + "]";
}

// What an option is where the scenario does not say.
struct DefaultText {
  std::string operator()(const bool* value) const { return *value ? "true" : "false"; }
  std::string operator()(const std::int64_t* value) const { return std::to_string(*value); }
  std::string operator()(const double* value) const { return number_text(*value); }
  std::string operator()(const std::string* value) const { return value->empty() ? "''" : printable(*value); }
  std::string operator()(const sim::Choice* value) const { return value->value; }
  std::string operator()(const sim::Bytes* value) const { return format_bytes(*value); }
  std::string operator()(const sim::BytesPerSecond* value) const { return format_rate(*value); }
  std::string operator()(const sim::FlopsPerSecond* value) const { return format_rate(*value); }
  std::string operator()(const sim::Duration* value) const { return format_duration(*value); }
  std::string operator()(const sim::LongDuration* value) const { return format_long_duration(*value); }
  std::string operator()(const std::vector<std::int64_t>* value) const { return list_text(*value); }
  template <class Value>
  std::string operator()(const std::optional<Value>* value) const {
    return value->has_value() ? DefaultText{}(&**value) : absent;
  }
};

std::string number_kind(std::string_view kind, const sim::Key& key) {
  const sim::Key unbounded{};
  std::string text{kind};
  if (key.most != unbounded.most) return text + ", " + number_text(key.least) + " to " + number_text(key.most);
  return key.least == unbounded.least ? text : text + " from " + number_text(key.least);
}

// What a scenario can write for an option.
struct KindText {
  const sim::Key& key;

  std::string operator()(const bool*) const { return "true or false"; }
  std::string operator()(const std::int64_t*) const { return number_kind("whole number", key); }
  std::string operator()(const double*) const { return number_kind("number", key); }
  std::string operator()(const std::string*) const { return "text"; }
  std::string operator()(const sim::Choice*) const { return "one of these"; }
  std::string operator()(const sim::Bytes*) const { return "size, such as 25 MiB"; }
  std::string operator()(const sim::BytesPerSecond*) const { return "rate, such as 25 GB/s"; }
  std::string operator()(const sim::FlopsPerSecond*) const { return "rate, such as 10 TFLOP/s"; }
  std::string operator()(const sim::Duration*) const { return "time, such as 2 us"; }
  std::string operator()(const sim::LongDuration*) const { return "time, such as 10 min"; }
  std::string operator()(const std::vector<std::int64_t>*) const { return "list, such as [1, 2]"; }
  template <class Value>
  std::string operator()(const std::optional<Value>*) const {
    return (*this)(static_cast<const Value*>(nullptr));
  }
};

struct OptionRow {
  std::string name;
  std::string otherwise;
  std::string kind;
  std::string meaning;
};

OptionRow row_of(const sim::Key& key) {
  OptionRow row{.name = std::string{key.name},
                .otherwise = key.required ? "required" : std::visit(DefaultText{}, key.target),
                .kind = std::visit(KindText{key}, key.target),
                .meaning = std::string{key.help}};
  if (const auto* choice = std::get_if<sim::Choice*>(&key.target)) row.meaning += ": " + listed((*choice)->choices);
  return row;
}

std::string table(const std::vector<OptionRow>& rows) {
  const auto width = [&](std::string OptionRow::*column) {
    std::size_t most = 0;
    for (const OptionRow& row : rows) most = std::max(most, (row.*column).size());
    return most + 2;
  };
  const std::size_t names = width(&OptionRow::name);
  const std::size_t defaults = width(&OptionRow::otherwise);
  const std::size_t kinds = width(&OptionRow::kind);
  std::string text;
  for (const OptionRow& row : rows)
    text += padded_right(row.name, names) + padded_right(row.otherwise, defaults) + padded_right(row.kind, kinds) +
            row.meaning + "\n";
  return text;
}

std::string summary_of(const Framework& framework) {
  const std::string summary{framework.entry.summary};
  return printable(framework.plugin.empty() ? summary : summary + " (" + framework.plugin + ")");
}

}  // namespace

std::string show_frameworks(const Catalog& catalog) {
  std::size_t width = 0;
  for (const Framework& framework : catalog.frameworks()) width = std::max(width, framework.entry.name.size() + 2);
  std::string text;
  for (const Framework& framework : catalog.frameworks())
    text += padded_right(printable(framework.entry.name), width) + summary_of(framework) + "\n";
  return text;
}

std::string show_framework(const Catalog& catalog, std::string_view name) {
  std::vector<std::string_view> names;
  for (const Framework& framework : catalog.frameworks()) {
    names.push_back(framework.entry.name);
    if (framework.entry.name != name) continue;
    const std::unique_ptr<strategies::Strategy> strategy = framework.make();
    std::vector<OptionRow> rows{{.name = "option", .otherwise = "default", .kind = "takes", .meaning = "meaning"}};
    for (const sim::Key& key : strategy->keys()) rows.push_back(row_of(key));
    return printable(name) + ": " + summary_of(framework) + "\n\n" + table(rows);
  }
  throw ScenarioError({"show frameworks", 0, 0}, "no framework is called '" + std::string(name) + "'" +
                                                     nearest(name, names) + "; there are " + listed(names, "and"));
}

}  // namespace trainyard::scenarios
