#include "scenarios/internal/reader.hpp"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <set>
#include <type_traits>
#include <utility>
#include <variant>

#include "scenarios/internal/text.hpp"
#include "scenarios/quantity.hpp"

namespace trainyard::scenarios {
namespace {

std::string out_of_bounds(double number, const sim::Key& key, const Value& value) {
  if (number < key.least) return "expected at least " + number_text(key.least) + ", got " + describe(value);
  if (number > key.most) return "expected at most " + number_text(key.most) + ", got " + describe(value);
  return {};
}

// `show` writes a bound in the unit of the value.
template <class Show>
std::string out_of_bounds(double count, const sim::Key& key, const Value& value, const Show& show) {
  if (count >= key.least && count <= key.most) return {};
  if (key.least == 1 && count < 1) return "expected more than zero, got " + describe(value);
  return "expected between " + show(static_cast<std::int64_t>(key.least)) + " and " +
         show(static_cast<std::int64_t>(key.most)) + ", got " + describe(value);
}

// Each `parse` puts the value into its target, or says what is wrong.
template <class T>
std::string take(Parsed<T> parsed, T& target) {
  if (parsed.value) target = *parsed.value;
  return std::move(parsed.error);
}

std::string parse(const Value& value, const sim::Key& /*key*/, bool& target) {
  const bool known = value.is_scalar() && !value.quoted && (value.scalar == "true" || value.scalar == "false");
  if (!known) return "expected true or false, got " + describe(value);
  target = value.scalar == "true";
  return {};
}

std::string parse(const Value& value, const sim::Key& key, std::int64_t& target) {
  if (!value.is_scalar() || value.quoted) return "expected a whole number, got " + describe(value);
  std::string error = take(parse_whole_number(value.scalar), target);
  return error.empty() ? out_of_bounds(static_cast<double>(target), key, value) : error;
}

std::string parse(const Value& value, const sim::Key& key, double& target) {
  if (!value.is_scalar() || value.quoted) return "expected a number, got " + describe(value);
  std::string error = take(parse_real_number(value.scalar), target);
  return error.empty() ? out_of_bounds(target, key, value) : error;
}

std::string parse(const Value& value, const sim::Key& /*key*/, std::string& target) {
  if (!value.is_scalar()) return "expected text, got " + describe(value);
  target = value.scalar;
  return {};
}

std::string parse(const Value& value, const sim::Key& /*key*/, sim::Choice& target) {
  const auto& choices = target.choices;
  std::string expected = "expected " + listed(choices) + ", got " + describe(value);
  if (!value.is_scalar()) return expected;
  if (std::find(choices.begin(), choices.end(), value.scalar) == choices.end())
    return expected + nearest(value.scalar, choices);
  target.value = value.scalar;
  return {};
}

std::string parse(const Value& value, const sim::Key& key, sim::Bytes& target) {
  std::string error = take(parse_bytes(value.scalar), target);
  const auto show = [](std::int64_t count) { return format_bytes({count}); };
  return error.empty() ? out_of_bounds(static_cast<double>(target.count), key, value, show) : error;
}
std::string parse(const Value& value, const sim::Key& key, sim::BytesPerSecond& target) {
  std::string error = take(parse_bytes_per_second(value.scalar), target);
  const auto show = [](std::int64_t count) { return format_rate(sim::BytesPerSecond{count}); };
  return error.empty() ? out_of_bounds(static_cast<double>(target.count), key, value, show) : error;
}
std::string parse(const Value& value, const sim::Key& key, sim::FlopsPerSecond& target) {
  std::string error = take(parse_flops_per_second(value.scalar), target);
  const auto show = [](std::int64_t count) { return format_rate(sim::FlopsPerSecond{count}); };
  return error.empty() ? out_of_bounds(static_cast<double>(target.count), key, value, show) : error;
}
std::string parse(const Value& value, const sim::Key& key, sim::Duration& target) {
  std::string error = take(parse_duration(value.scalar), target);
  const auto show = [](std::int64_t count) { return format_duration(sim::Duration{count}); };
  return error.empty() ? out_of_bounds(static_cast<double>(target.count()), key, value, show) : error;
}

std::string parse(const Value& value, const sim::Key& key, sim::LongDuration& target) {
  std::string error = take(parse_long_duration(value.scalar), target);
  const auto show = [](std::int64_t count) { return format_long_duration({count}); };
  return error.empty() ? out_of_bounds(static_cast<double>(target.count), key, value, show) : error;
}

template <class T>
std::string parse(const Value& value, const sim::Key& key, std::optional<T>& target) {
  T read{};
  std::string error = parse(value, key, read);
  if (error.empty()) target = std::move(read);
  return error;
}

std::string parse(const Value& value, const sim::Key& key, std::vector<std::int64_t>& target) {
  if (!value.is_sequence()) return "expected a list such as [1, 2], got " + describe(value);
  std::vector<std::int64_t> numbers(value.items.size());
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    std::string error = parse(value.items[i], key, numbers[i]);
    if (!error.empty()) return error;
  }
  target = std::move(numbers);
  return {};
}

template <class T>
constexpr bool is_quantity =
    std::is_same_v<T, sim::Bytes> || std::is_same_v<T, sim::BytesPerSecond> || std::is_same_v<T, sim::FlopsPerSecond> ||
    std::is_same_v<T, sim::Duration> || std::is_same_v<T, sim::LongDuration> ||
    std::is_same_v<T, std::optional<sim::LongDuration>>;

std::vector<std::string_view> names_of(const Fields& fields) {
  std::vector<std::string_view> names;
  for (const sim::Key& key : fields.keys) names.push_back(key.name);
  for (const Section& section : fields.sections) names.push_back(section.name);
  return names;
}

const Later* find_later(const Entry& entry, const Fields& fields) {
  const auto found = std::find_if(fields.later.begin(), fields.later.end(), [&](const Later& later) {
    if (later.name != entry.key.scalar) return false;
    return later.value.empty() || (entry.value.is_scalar() && entry.value.scalar == later.value);
  });
  return found == fields.later.end() ? nullptr : &*found;
}

const sim::Key* find_key(std::string_view name, const Fields& fields) {
  const auto key = std::find_if(fields.keys.begin(), fields.keys.end(), [&](const auto& k) { return k.name == name; });
  return key == fields.keys.end() ? nullptr : &*key;
}

}  // namespace

std::string set_key(const Value& value, const sim::Key& key) {
  return std::visit(
      [&](auto* target) -> std::string {
        using T = std::remove_pointer_t<decltype(target)>;
        if constexpr (is_quantity<T>)
          if (!value.is_scalar()) return "expected a quantity with its unit, got " + describe(value);
        return parse(value, key, *target);
      },
      key.target);
}

std::string join(const std::string& path, std::string_view name) {
  return path.empty() ? std::string{name} : path + "." + std::string{name};
}

void Reader::read(const Value& map, const std::string& path, const Fields& fields) {
  const std::string in = path.empty() ? "" : path + ": ";
  if (places_.empty()) places_[""] = map.where;
  if (!map.is_map()) return report(map.where, in + "expected a map of keys, got " + describe(map));
  std::set<std::string_view> seen;
  for (const Entry& entry : map.entries) {
    if (!seen.insert(entry.key.scalar).second) {
      report(entry.key.where, "key '" + join(path, entry.key.scalar) + "' is given twice");
    } else if (fields.foreign && entry.value.is_null()) {
      seen.erase(entry.key.scalar);
    } else {
      read_entry(entry, path, fields);
    }
  }
  const Location named = location_of(path);  // the line of the key, where the map itself begins one line below
  const Location& where = named.file == map.where.file ? named : map.where;
  const auto require = [&](std::string_view name, bool required) {
    if (required && !map.partial && !seen.contains(name)) report(where, "missing key '" + join(path, name) + "'");
  };
  for (const sim::Key& key : fields.keys) require(key.name, key.required);
  for (const Section& section : fields.sections) require(section.name, section.required);
}

void Reader::read_entry(const Entry& entry, const std::string& path, const Fields& fields) {
  const std::string& name = entry.key.scalar;
  const auto section =
      std::find_if(fields.sections.begin(), fields.sections.end(), [&](const auto& s) { return s.name == name; });
  const sim::Key* key = find_key(name, fields);
  const bool known = key != nullptr || section != fields.sections.end();
  if (known) note(join(path, name), entry.key, entry.value);
  if (report_later(entry, path, fields)) return;
  if (section != fields.sections.end()) {
    *section->target = &entry.value;
  } else if (key != nullptr) {
    std::string error = set_key(entry.value, *key);
    if (!error.empty() && entry.value.scalar == "auto") error += "; 'trainyard plan' searches what is 'auto'";
    const bool nothing = entry.value.is_null() && entry.value.where.line > 0;  // stands nowhere in the file
    if (!error.empty()) report(nothing ? entry.key.where : entry.value.where, join(path, name) + ": " + error);
  } else if (!fields.foreign) {
    const std::string in = path.empty() ? "" : " in '" + path + "'";
    report(entry.key.where, "unknown key '" + name + "'" + in + nearest(name, names_of(fields)));
  }
}

bool Reader::report_later(const Entry& entry, const std::string& path, const Fields& fields) {
  const Later* later = find_later(entry, fields);
  if (later == nullptr) return false;
  const std::string full = join(path, later->name);
  std::string message = later->value.empty() ? "'" + full + "' is not supported yet"
                                             : full + ": '" + std::string{later->value} + "' is not supported yet";
  const sim::Key* key = find_key(later->name, fields);
  if (!later->instead.empty()) {
    message += "; " + std::string{later->instead};
  } else if (key != nullptr && std::holds_alternative<sim::Choice*>(key->target)) {
    message += "; choose " + listed(std::get<sim::Choice*>(key->target)->choices);
  }
  report(later->value.empty() ? entry.key.where : entry.value.where, std::move(message));
  return true;
}

void Reader::report(Location where, std::string message) {
  diagnostics_.push_back({.where = std::move(where), .message = std::move(message)});
}

void Reader::report(const ScenarioError& error) {
  diagnostics_.insert(diagnostics_.end(), error.diagnostics().begin(), error.diagnostics().end());
}

void Reader::report_at(const std::string& path, const std::string& message) {
  report(location_of(path), path.empty() ? message : path + ": " + message);
}

void Reader::note(const std::string& path, const Value& key, const Value& value) {
  const Location& where = value.is_scalar() ? value.where : key.where;
  const std::string& file = where.file;
  if (file == location_of("").file || file.starts_with("--set ")) places_[path] = where;
}

Location Reader::location_of(std::string_view path) const {
  while (true) {
    const auto found = places_.find(path);
    if (found != places_.end()) return found->second;
    if (path.empty()) return {};
    const std::size_t dot = path.rfind('.');
    path = dot == std::string_view::npos ? std::string_view{} : path.substr(0, dot);
  }
}

void Reader::throw_mistakes() const {
  if (!diagnostics_.empty()) throw ScenarioError(diagnostics_);
}

}  // namespace trainyard::scenarios
