#include "scenarios/internal/result_fields.hpp"

#include <nlohmann/json.hpp>

#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {
namespace {

using Json = nlohmann::ordered_json;

void add_fields(const Json& json, const std::string& path, const std::string& pointer,
                std::vector<ResultField>& fields) {
  if (json.is_array()) return;
  if (json.is_object()) {
    for (const auto& [name, value] : json.items())
      add_fields(value, path.empty() ? name : path + "." + name, pointer + "/" + name, fields);
    return;
  }
  fields.push_back({.path = path,
                    .pointer = pointer,
                    .sql_type = json.is_string()         ? "TEXT"
                                : json.is_number_float() ? "REAL"
                                                         : "INTEGER"});
}

}  // namespace

const std::vector<ResultField>& result_fields() {
  static const std::vector<ResultField> fields = [] {
    std::vector<ResultField> all;
    Result everything;  // with every part that a scenario may have
    everything.critical_path.emplace();
    everything.cost.paid.emplace();
    everything.cost.paid->per_million_tokens = 0.0;
    everything.cost.energy.emplace();
    everything.run = RunSummary{.energy_kwh = 0.0, .energy_cost = 0.0, .carbon_kg = 0.0, .cost = 0.0};
    CampaignSummary& campaign = everything.goodput.campaign.emplace();
    campaign.expected.emplace();
    campaign.mtbf.emplace();
    add_fields(Json::parse(to_json(everything)), "", "", all);
    // Fields of inference stand beside these, some of which it does not have.
    everything.inference.emplace();
    add_fields(Json::parse(to_json(everything)).at("inference"), "inference", "/inference", all);
    return all;
  }();
  return fields;
}

}  // namespace trainyard::scenarios
