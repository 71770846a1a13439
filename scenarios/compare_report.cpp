// The two forms of a comparison: JSON for programs, tables for people.
#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>

#include "scenarios/comparison.hpp"
#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/text.hpp"
#include "scenarios/money.hpp"
#include "scenarios/quantity.hpp"

namespace trainyard::scenarios {
namespace {

using Json = nlohmann::ordered_json;

Json text_or_null(const std::optional<std::string>& text) { return text ? Json(*text) : Json(nullptr); }

Json cost_json(const CostDifference& cost) {
  return {{"per", cost.per_million_tokens ? "million_tokens" : "step"},
          {"currency", cost.currency},
          {"from", cost.from},
          {"to", cost.to},
          {"device_time", cost.device_time},
          {"price", cost.price}};
}

Json difference_json(const Difference& difference) {
  Json json{{"from", difference.from},
            {"to", difference.to},
            {"from_s", difference.causes.from_s},
            {"to_s", difference.causes.to_s},
            {"time_scale", difference.causes.scale},
            {"keys", Json::array()},
            {"causes", Json::array()},
            {"by_key", Json::array()}};
  for (const DifferingKey& key : difference.keys)
    json["keys"].push_back({{"key", key.path}, {"from", text_or_null(key.from)}, {"to", text_or_null(key.to)}});
  for (const Cause& cause : difference.causes.causes)
    json["causes"].push_back({{"category", breakdown_names.at(cause.category)},
                              {"seconds", cause.seconds},
                              {"picoseconds", cause.picoseconds},
                              {"why", cause.why}});
  for (const KeyEffect& effect : difference.by_key)
    json["by_key"].push_back(
        {{"keys", effect.paths}, {"seconds", effect.seconds}, {"picoseconds", effect.picoseconds}});
  if (difference.cost) json["cost"] = cost_json(*difference.cost);
  return json;
}

std::string letter(std::size_t index) {
  constexpr std::size_t letters = 26;
  return index < letters ? std::string(1, static_cast<char>('A' + index)) : "#" + std::to_string(index + 1);
}

std::string parallelism_words(const strategies::Parallelism& p) {
  std::string text = "data " + std::to_string(p.data);
  const auto add = [&](const char* name, std::int64_t size) {
    if (size > 1) text += std::string{" "} + name + " " + std::to_string(size);
  };
  add("tensor", p.tensor);
  add("pipeline", p.pipeline);
  add("context", p.context);
  add("expert", p.expert);
  return text;
}

// The two largest parts.
std::string critical_words(const Result& result) {
  if (!result.critical_path) return "";
  const Breakdown& parts = result.critical_path->breakdown_s;
  std::vector<std::size_t> order(parts.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::stable_sort(order, std::greater{}, [&](std::size_t i) { return parts.at(i); });
  const auto part = [&](std::size_t i) {
    return std::string{breakdown_names.at(i)} + " " + percent(parts.at(i) / result.step_time_s);
  };
  return part(order[0]) + ", " + part(order[1]);
}

std::string gibibytes(std::int64_t bytes) { return fixed(static_cast<double>(bytes) / (1LL << 30), 1) + " GiB"; }

struct Row {
  const char* name;
  std::function<std::string(const Result&)> of;  // empty: does not apply
};

std::vector<Row> rows() {
  return {
      {"devices", [](const Result& r) { return std::to_string(r.devices); }},
      {"parallelism", [](const Result& r) { return parallelism_words(r.parallelism); }},
      {"micro-batches",
       [](const Result& r) {
         return r.inference ? "" : std::to_string(r.micro_batches) + " of " + std::to_string(r.micro_batch);
       }},
      {"recompute", [](const Result& r) { return r.inference ? "" : r.recompute; }},
      {"step time", [](const Result& r) { return format_seconds(r.step_time_s); }},
      {"samples a second", [](const Result& r) { return format_count(r.samples_per_s); }},
      {"tokens a second", [](const Result& r) { return r.tokens_per_s > 0 ? format_count(r.tokens_per_s) : ""; }},
      {"MFU", [](const Result& r) { return percent(r.mfu); }},
      {"memory peak",
       [](const Result& r) { return gibibytes(r.memory.peak) + (r.memory.fits ? "" : ", DOES NOT FIT"); }},
      {"cost per step",
       [](const Result& r) { return r.cost.paid ? format_money(r.cost.paid->per_step, r.cost.currency) : ""; }},
      {"cost per million tokens",
       [](const Result& r) {
         const bool known = r.cost.paid && r.cost.paid->per_million_tokens;
         return known ? format_money(*r.cost.paid->per_million_tokens, r.cost.currency) : "";
       }},
      {"energy per step",
       [](const Result& r) { return r.cost.energy ? format_energy(r.cost.energy->kwh_per_step) : ""; }},
      {"critical path", critical_words},
  };
}

std::string table(const std::vector<Result>& results) {
  constexpr std::size_t name_width = 25;
  std::vector<std::vector<std::string>> lines;
  std::vector<std::size_t> widths(results.size(), 10);
  lines.emplace_back(1, "");
  for (std::size_t i = 0; i < results.size(); ++i) lines.back().push_back(letter(i));
  for (const Row& row : rows()) {
    std::vector<std::string> line{row.name};
    for (const Result& result : results) line.push_back(row.of(result));
    const auto given = [](const std::string& cell) { return !cell.empty(); };
    if (std::any_of(line.begin() + 1, line.end(), given)) lines.push_back(std::move(line));
  }
  for (const std::vector<std::string>& line : lines)
    for (std::size_t i = 0; i < widths.size(); ++i) widths[i] = std::max(widths[i], line[i + 1].size());
  std::string text;
  for (const std::vector<std::string>& line : lines) {
    text += "  " + padded_right(line.front(), name_width);
    for (std::size_t i = 0; i < widths.size(); ++i) text += "  " + padded_left(line[i + 1], widths[i]);
    text += "\n";
  }
  return text;
}

std::string signed_seconds(double seconds) { return (seconds < 0 ? "-" : "+") + format_seconds(std::abs(seconds)); }

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " + ") + word;
  return text;
}

// What is less than a thousandth of the step, several of them together.
constexpr double negligible = 0.001;

std::string waterfall_text(const Difference& difference) {
  const Waterfall& causes = difference.causes;
  constexpr std::size_t width = 18;
  const auto line = [&](std::string_view name, const std::string& time, const std::string& why) {
    return "  " + padded_right(name, width) + padded_left(time, 10) + (why.empty() ? "" : "   " + why) + "\n";
  };
  std::string text = line("step of " + letter(difference.from), format_seconds(causes.from_s), "");
  std::int64_t rest = 0;
  for (const Cause& cause : causes.causes) {
    if (std::abs(cause.seconds) < negligible * causes.from_s)
      rest += cause.picoseconds;
    else
      text += line(breakdown_names.at(cause.category), signed_seconds(cause.seconds), cause.why);
  }
  if (rest != 0) text += line("others", signed_seconds(static_cast<double>(rest) * 1e-12), "");
  return text + line("step of " + letter(difference.to), format_seconds(causes.to_s), "");
}

std::string keys_text(const Difference& difference) {
  if (difference.keys.empty()) return "\nNo key differs\n";
  std::size_t width = 20;
  for (const DifferingKey& key : difference.keys) width = std::max(width, key.path.size());
  std::string text = "\nKeys that differ\n";
  for (const DifferingKey& key : difference.keys)
    text += "  " + padded_right(printable(key.path), width) + "  " + printable(key.from.value_or("(not given)")) +
            " -> " + printable(key.to.value_or("(not given)")) + "\n";
  if (difference.by_key.size() < 2) return text;
  text += "\nWhat each does to the step, one after the other\n";
  for (const KeyEffect& effect : difference.by_key)
    text += "  " + padded_left(signed_seconds(effect.seconds), 10) + "   " + printable(joined(effect.paths)) + "\n";
  return text;
}

std::string cost_text(const CostDifference& cost) {
  const auto money = [&](double amount) {
    return (amount < 0 ? "-" : "+") + format_money(std::abs(amount), cost.currency);
  };
  // What is left of sums that cancel is no price.
  constexpr double nothing = 1e-9;
  const std::string time =
      " because devices are busy for " + std::string{cost.device_time < 0 ? "less" : "more"} + " time";
  const std::string price = " because of the price of their time";
  std::string causes;
  if (std::abs(cost.device_time) > nothing * cost.from) causes += ", " + money(cost.device_time) + time;
  if (std::abs(cost.price) > nothing * cost.from) causes += ", " + money(cost.price) + price;
  return "\nCost per " + std::string{cost.per_million_tokens ? "million tokens" : "step"} + ": " +
         format_money(cost.from, cost.currency) + " -> " + format_money(cost.to, cost.currency) + causes + "\n";
}

std::string difference_text(const Comparison& comparison, const Difference& difference) {
  const Waterfall& causes = difference.causes;
  const std::string second = letter(difference.to);
  const double change = causes.to_s / causes.from_s - 1;
  std::string text = "\n" + second + " against " + letter(difference.from) + ": ";
  if (causes.to_ps == causes.from_ps)
    text += "as fast";
  else
    text += percent(std::abs(change)) + (change < 0 ? " less" : " more") + " time";
  const bool tokens = comparison.results[difference.from].tokens_per_s > 0;
  if (causes.scale != 1)
    text += " for as many " + std::string{tokens ? "tokens" : "samples"} + " as a step of " + letter(difference.from) +
            " has (times of " + second + " x " + number_text(causes.scale) + ")";
  text += "\n" + waterfall_text(difference) + keys_text(difference);
  if (difference.cost) text += cost_text(*difference.cost);
  return text;
}

}  // namespace

std::string to_json(const Comparison& comparison) {
  Json json{{"schema", 1}, {"files", comparison.files}, {"scenarios", Json::array()}, {"differences", Json::array()}};
  for (const Result& result : comparison.results) json["scenarios"].push_back(Json::parse(to_json(result)));
  for (const Difference& difference : comparison.differences)
    json["differences"].push_back(difference_json(difference));
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string to_summary(const Comparison& comparison) {
  std::string text;
  for (std::size_t i = 0; i < comparison.results.size(); ++i)
    text +=
        letter(i) + "  " + printable(comparison.results[i].scenario) + " (" + printable(comparison.files[i]) + ")\n";
  text += "\n" + table(comparison.results);
  for (const Difference& difference : comparison.differences) text += difference_text(comparison, difference);
  return text;
}

}  // namespace trainyard::scenarios
