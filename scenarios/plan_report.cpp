// The page of `trainyard plan`: the best plan, why it wins, what it was chosen from.
#include <algorithm>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "scenarios/internal/page_values.hpp"
#include "scenarios/page.hpp"
#include "scenarios/plan_search.hpp"

namespace trainyard::scenarios {
namespace {

using Json = nlohmann::ordered_json;

// More than a chart can tell apart; together under a megabyte.
constexpr std::size_t most_candidates = 4'000;

Json value_json(const Parameter& parameter) {
  Json value = Json::parse(parameter.value, nullptr, false);
  return value.is_discarded() ? Json(parameter.value) : value;
}

Json keys_json(std::span<const Parameter> keys) {
  Json json = Json::object();
  for (const Parameter& key : keys) json[key.path] = value_json(key);
  return json;
}

Json plan_json(const ProposedPlan& plan) {
  Json result = Json::parse(to_json(plan.result));
  result["engine"].erase("wall_s");
  result["engine"].erase("peak_rss_bytes");
  return {{"keys", keys_json(plan.keys)},
          {"strategy", plan.strategy},
          {"training", plan.training},
          {"result", std::move(result)}};
}

// The best, and all of the front, in the order in which they are.
std::vector<std::size_t> shown_candidates(const SearchResult& result) {
  std::vector<std::size_t> places = result.front;
  for (std::size_t i = 0; i < std::min(result.candidates.size(), most_candidates); ++i) places.push_back(i);
  std::ranges::sort(places);
  places.erase(std::unique(places.begin(), places.end()), places.end());
  return places;
}

Json optional_json(const std::optional<double>& value) { return value ? Json(rounded(*value)) : Json(nullptr); }

// Of each one time, memory, cost, energy, whether it is in the front, and then its keys as pairs of places.
Json candidates_json(const SearchResult& result) {
  Texts paths;
  Texts values;
  Json rows = Json::array();
  for (const std::size_t place : shown_candidates(result)) {
    const Candidate& candidate = result.candidates[place];
    const bool in_front = std::ranges::find(result.front, place) != result.front.end();
    Json row{rounded(candidate.step_time_s), candidate.peak_bytes, optional_json(candidate.cost_per_step),
             optional_json(candidate.energy_kwh_per_step), in_front ? 1 : 0};
    for (const Parameter& key : candidate.keys) {
      row.push_back(paths.place_of(key.path));
      row.push_back(values.place_of(value_json(key).dump()));
    }
    rows.push_back(std::move(row));
  }
  return {{"all", result.candidates.size()}, {"paths", paths.all()}, {"values", values.all()}, {"rows", rows}};
}

Json causes_json(const Waterfall& waterfall) {
  Json causes = Json::array();
  for (const Cause& cause : waterfall.causes)
    causes.push_back(
        {{"category", breakdown_names.at(cause.category)}, {"seconds", cause.seconds}, {"why", cause.why}});
  return causes;
}

Json neighbour_json(const Neighbour& neighbour, const ProposedPlan& best) {
  const auto own = std::ranges::find(best.keys, neighbour.change.path, &Parameter::path);
  return {{"path", neighbour.change.path},
          {"from", own == best.keys.end() ? Json(nullptr) : value_json(*own)},
          {"to", value_json(neighbour.change)},
          {"refused", neighbour.refused},
          {"fits", neighbour.fits},
          {"peak_bytes", neighbour.peak_bytes},
          {"step_time_s", neighbour.step_time_s},
          {"from_s", neighbour.difference.from_s},
          {"to_s", neighbour.difference.to_s},
          {"causes", causes_json(neighbour.difference)}};
}

Json counts_json(const SearchCounts& counts) {
  return {{"combinations", counts.combinations}, {"refused", counts.refused},    {"simulated", counts.simulated},
          {"too_large", counts.too_large},       {"slower", counts.slower},      {"left", counts.left},
          {"pruned", counts.pruned()},           {"examined", counts.examined()}};
}

}  // namespace

std::string plan_report(const SearchResult& result) {
  Json data{{"objective", objective_names.at(static_cast<std::size_t>(result.objective))},
            {"currency", result.currency},
            {"capacity_bytes", result.capacity_bytes},
            {"frameworks", result.frameworks},
            {"left_out", result.left_out},
            {"fixed", keys_json(result.fixed)},
            {"counts", counts_json(result.counts)},
            {"stopped", result.stopped},
            {"searched", Json::array()},
            {"plans", Json::array()},
            {"candidates", candidates_json(result)},
            {"neighbours", Json::array()}};
  for (const SearchedKey& key : result.searched)
    data["searched"].push_back({{"path", key.path}, {"values", key.values}});
  for (const ProposedPlan& plan : result.plans) data["plans"].push_back(plan_json(plan));
  if (!result.plans.empty())
    for (const Neighbour& neighbour : result.neighbours)
      data["neighbours"].push_back(neighbour_json(neighbour, result.plans.front()));
  return to_html({.title = "Best plan for " + result.scenario,
                  .made_from = "a search of trainyard plan",
                  .kind = "plan",
                  .data = data.dump(-1, ' ', false, Json::error_handler_t::replace)});
}

}  // namespace trainyard::scenarios
