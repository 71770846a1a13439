// The two forms of a search's result: JSON for programs, a summary for people.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/internal/text.hpp"
#include "scenarios/internal/value_text.hpp"
#include "scenarios/money.hpp"
#include "scenarios/plan_search.hpp"
#include "scenarios/quantity.hpp"

namespace trainyard::scenarios {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t most_causes = 2;  // of a neighbour's difference, in the summary
// Differences below this share of a step explain nothing.
constexpr double least_share = 0.001;

Json keys_json(const std::vector<Parameter>& keys) {
  Json json = Json::object();
  for (const Parameter& key : keys) json[key.path] = Json::parse(key.value);
  return json;
}

Json candidate_json(const Candidate& candidate) {
  Json json{{"keys", keys_json(candidate.keys)},
            {"step_time_s", candidate.step_time_s},
            {"peak_bytes", candidate.peak_bytes}};
  if (candidate.cost_per_step) json["cost_per_step"] = *candidate.cost_per_step;
  if (candidate.energy_kwh_per_step) json["energy_kwh_per_step"] = *candidate.energy_kwh_per_step;
  return json;
}

Json neighbour_json(const Neighbour& neighbour) {
  Json json{{"key", neighbour.change.path}, {"value", Json::parse(neighbour.change.value)}};
  if (!neighbour.refused.empty()) {
    json["refused"] = neighbour.refused;
    return json;
  }
  json["fits"] = neighbour.fits;
  json["peak_bytes"] = neighbour.peak_bytes;
  json["step_time_s"] = neighbour.step_time_s;
  Json causes = Json::array();
  for (const Cause& cause : neighbour.difference.causes)
    causes.push_back(
        {{"category", breakdown_names.at(cause.category)}, {"seconds", cause.seconds}, {"why", cause.why}});
  json["causes"] = causes;
  return json;
}

// "tensor 8" for "strategy.tensor" and "8".
std::string short_name(std::string_view path) { return std::string{path.substr(path.rfind('.') + 1)}; }

std::string short_value(const std::string& value) {
  const Json json = Json::parse(value);
  return json.is_string() ? json.get<std::string>() : json.dump();
}

std::string described(const std::vector<Parameter>& keys) {
  std::string text;
  for (const Parameter& key : keys) {
    const std::string value = short_value(key.value);
    if (value == "false") continue;
    text += text.empty() ? "" : ", ";
    if (key.path == "strategy.framework")
      text += value;
    else
      text += value == "true" ? short_name(key.path) : short_name(key.path) + " " + value;
  }
  return printable(text);
}

std::string memory_text(std::int64_t bytes) {
  return fixed(static_cast<double>(bytes) / static_cast<double>(1 << 30), 1) + " GiB";
}

std::string plans_text(const SearchResult& search) {
  std::string text = "  " + padded_left("step time", 14) + padded_left("MFU", 9) + padded_left("memory", 11) +
                     padded_left("cost/step", 14) + padded_left("energy/step", 13) + "\n";
  std::size_t number = 0;
  for (const ProposedPlan& plan : search.plans) {
    const Result& result = plan.result;
    text += padded_left(std::to_string(++number), 3) + ". " + padded_left(format_seconds(result.step_time_s), 11) +
            padded_left(percent(result.mfu), 9) + padded_left(memory_text(result.memory.peak), 11) +
            padded_left(result.cost.paid ? format_money(result.cost.paid->per_step, search.currency) : "-", 14) +
            padded_left(result.cost.energy ? format_energy(result.cost.energy->kwh_per_step) : "-", 13) + "\n     " +
            described(plan.keys) + "\n";
  }
  return text;
}

std::string indented(const std::string& yaml) {
  std::string text;
  for (std::size_t from = 0; from < yaml.size();) {
    const std::size_t end = std::min(yaml.find('\n', from), yaml.size());
    text += "    " + yaml.substr(from, end - from) + "\n";
    from = end + 1;
  }
  return text;
}

std::string best_text(const ProposedPlan& best) {
  const Location nowhere{};
  return "\nThe best, as a scenario has it\n  strategy:\n" + indented(yaml_of(parse_value(best.strategy, nowhere))) +
         "  training:\n" + indented(yaml_of(parse_value(best.training, nowhere)));
}

std::string difference_text(const SearchResult& search, const Neighbour& neighbour) {
  if (!neighbour.refused.empty()) return neighbour.refused;
  const double best = search.plans.front().result.step_time_s;
  const double longer = neighbour.step_time_s / best - 1;
  std::string text = neighbour.fits ? "" : "does not fit: " + memory_text(neighbour.peak_bytes) + "; ";
  text += std::abs(longer) < least_share ? "as fast" : percent(std::abs(longer)) + (longer > 0 ? " slower" : " faster");
  std::size_t causes = 0;
  for (const Cause& cause : neighbour.difference.causes) {
    if (causes == most_causes || std::abs(cause.seconds) < least_share * best) break;
    text += (causes++ == 0 ? ": " : ", ") + std::string{breakdown_names.at(cause.category)} +
            (cause.seconds > 0 ? " +" : " -") + format_seconds(std::abs(cause.seconds));
  }
  return text;
}

std::string neighbours_text(const SearchResult& search) {
  if (search.neighbours.empty()) return "";
  std::size_t width = 0;
  const auto name_of = [](const Neighbour& neighbour) {
    return short_name(neighbour.change.path) + " " + short_value(neighbour.change.value);
  };
  for (const Neighbour& neighbour : search.neighbours) width = std::max(width, name_of(neighbour).size());
  std::string text = "\nWhy it wins: with one key changed\n";
  for (const Neighbour& neighbour : search.neighbours)
    text += "  " + padded_right(printable(name_of(neighbour)), width + 2) +
            printable(difference_text(search, neighbour)) + "\n";
  return text;
}

std::string front_text(const SearchResult& search) {
  if (search.front.size() < 2) return "";
  constexpr std::size_t most_rows = 10;
  std::string text = "\nLess memory, or less money, for more time (the Pareto front of what was simulated)\n";
  const std::size_t rows = std::min(most_rows, search.front.size());
  for (std::size_t row = 0; row < rows; ++row) {
    // Evenly over the front, its ends included.
    const std::size_t at = rows == 1 ? 0 : row * (search.front.size() - 1) / (rows - 1);
    const Candidate& candidate = search.candidates[search.front[at]];
    text += "  " + padded_left(format_seconds(candidate.step_time_s), 14) +
            padded_left(memory_text(candidate.peak_bytes), 11) +
            padded_left(candidate.cost_per_step ? format_money(*candidate.cost_per_step, search.currency) : "-", 14) +
            "  " + described(candidate.keys) + "\n";
  }
  return text;
}

std::string counts_text(const SearchResult& search) {
  const SearchCounts& counts = search.counts;
  const auto number = [](std::int64_t count) { return std::to_string(count); };
  std::string frameworks;
  for (const std::string& framework : search.frameworks) frameworks += (frameworks.empty() ? "" : ", ") + framework;
  std::string text = "\nSearched " + frameworks + ": " + number(counts.combinations) + " combinations, of which " +
                     number(counts.refused) + " cannot run\n";
  text += "  " + number(counts.examined()) + " examined in " + fixed(search.search_s, 1) + " s, " +
          fixed(static_cast<double>(counts.examined()) / search.search_s, 0) +
          " a second: " + number(counts.simulated) + " simulated, " + number(counts.slower) +
          " cut off by a bound on their time, " + number(counts.too_large) + " that do not fit\n";
  if (search.stopped)
    text += "  STOPPED: " + number(counts.left) + " were not looked at, and a better one may be among them\n";
  for (const std::string& framework : search.left_out) text += "  without " + printable(framework) + "\n";
  return text;
}

}  // namespace

std::string to_json(const SearchResult& search) {
  Json plans = Json::array();
  for (const ProposedPlan& plan : search.plans)
    plans.push_back({{"strategy", Json::parse(plan.strategy)},
                     {"training", Json::parse(plan.training)},
                     {"result", Json::parse(to_json(plan.result))}});
  Json searched = Json::object();
  for (const SearchedKey& key : search.searched) searched[key.path] = key.values;
  Json candidates = Json::array();
  for (const Candidate& candidate : search.candidates) candidates.push_back(candidate_json(candidate));
  Json neighbours = Json::array();
  for (const Neighbour& neighbour : search.neighbours) neighbours.push_back(neighbour_json(neighbour));
  const SearchCounts& counts = search.counts;
  const Json json{{"schema", 1},
                  {"scenario", search.scenario},
                  {"objective", objective_names.at(static_cast<std::size_t>(search.objective))},
                  {"plans", plans},
                  {"examined", counts.examined()},
                  {"pruned", counts.pruned()},
                  {"simulated", counts.simulated},
                  {"slower", counts.slower},
                  {"too_large", counts.too_large},
                  {"combinations", counts.combinations},
                  {"refused", counts.refused},
                  {"left", counts.left},
                  {"stopped", search.stopped},
                  {"frameworks", search.frameworks},
                  {"left_out", search.left_out},
                  {"searched", searched},
                  {"fixed", keys_json(search.fixed)},
                  {"candidates", candidates},
                  {"pareto_front", search.front},
                  {"neighbours", neighbours},
                  {"engine", {{"search_s", search.search_s}, {"wall_s", search.wall_s}}}};
  return json.dump(2) + "\n";
}

std::string to_summary(const SearchResult& search) {
  std::string text =
      printable(search.scenario) + ": plans by " +
      (search.objective == Objective::step_time
           ? "step time"
           : std::string{objective_names.at(static_cast<std::size_t>(search.objective))} + " of a step") +
      ", in " + memory_text(search.capacity_bytes) + " per device\n\n";
  text += plans_text(search);
  if (!search.plans.empty()) text += best_text(search.plans.front());
  return text + neighbours_text(search) + front_text(search) + counts_text(search);
}

}  // namespace trainyard::scenarios
