#include "scenarios/cost.hpp"

#include <algorithm>

#include "scenarios/scenario.hpp"
#include "sim/ensure.hpp"

namespace trainyard::scenarios {
namespace {

constexpr double hours_of_year = 365.25 * 24;
constexpr double seconds_of_hour = 3600;
constexpr double joules_of_kwh = 3.6e6;
constexpr double usual_network_w = 45;
// Of hosts whose power no data sheet gives, over that of their devices: DGX A100, H100 and B200 have 1.03, 0.82 and
// 0.79.
constexpr double usual_host_share = 0.8;

double in(const CostOptions& options, const Money& money) {
  return money.amount / options.exchange.at(money.currency) * options.exchange.at(options.currency);
}

// Devices of each type that take part: all, or a share of all that is even over the types.
std::vector<double> devices_by_type(const Scenario& scenario) {
  std::vector<double> devices{static_cast<double>(scenario.nodes * scenario.node.devices)};
  for (const topology::Cluster::Group& group : scenario.other_nodes)
    devices.push_back(static_cast<double>(group.nodes * group.node.devices));
  double all = 0;
  for (const double each : devices) all += each;
  for (double& each : devices) each *= static_cast<double>(scenario.devices) / all;
  return devices;
}

const topology::NodeType& node_type(const Scenario& scenario, std::size_t type) {
  return type == 0 ? scenario.node : scenario.other_nodes[type - 1].node;
}

double host_w_per_device(const topology::NodeType& node, const workloads::Accelerator& device, double load) {
  const auto devices = static_cast<double>(node.devices);
  const double built_for = node.host_power_w > 0 ? node.host_power_w / devices : usual_host_share * device.power_w;
  return built_for * load;
}

double network_w(const Scenario& scenario) {
  if (scenario.cost.network_power_w) return *scenario.cost.network_power_w;
  const bool one_node = scenario.nodes == 1 && scenario.other_nodes.empty();
  return one_node || scenario.fabric.kind == topology::FabricType::Kind::ici ? 0 : usual_network_w;
}

std::optional<CostSummary::Energy> energy_of(const Scenario& scenario, const PeriodWork& work) {
  const std::vector<double> devices = devices_by_type(scenario);
  double device_j = 0;
  double host_w = 0;
  for (std::size_t type = 0; type < devices.size(); ++type) {
    const workloads::Accelerator& device = scenario.accelerators[type];
    if (device.power_w == 0) return std::nullopt;
    device_j += devices[type] * workloads::device_energy_j(device, work.activity, work.intensity);
    host_w += devices[type] * host_w_per_device(node_type(scenario, type), device, scenario.cost.host_load);
  }
  const auto all = static_cast<double>(scenario.devices);
  CostSummary::Energy energy;
  energy.device_w = device_j / all / work.seconds;
  energy.all_w = (energy.device_w + host_w / all + network_w(scenario)) * scenario.cost.pue;
  energy.kwh_per_step = energy.all_w * all * work.seconds / joules_of_kwh;
  energy.carbon_kg_per_step = energy.kwh_per_step * scenario.cost.carbon_kg_per_kwh;
  return energy;
}

bool pays_energy(const CostOptions& options) { return options.energy_extra.value_or(options.market == Market::owned); }

// A name of several types once.
void add_word(std::string& words, const std::string& word) {
  if (words.find(word) == std::string::npos) words += (words.empty() ? "" : ", ") + word;
}

std::optional<CostSummary::Paid> paid_for(const Scenario& scenario, const PeriodWork& work,
                                          const std::optional<CostSummary::Energy>& energy) {
  const CostOptions& options = scenario.cost;
  const std::vector<double> devices = devices_by_type(scenario);
  CostSummary::Paid paid;
  paid.market = options.market;
  if (options.prices.empty() || (pays_energy(options) && !energy)) return std::nullopt;
  for (std::size_t type = 0; type < devices.size(); ++type) {
    const std::optional<Price>& price = options.prices[type];
    if (!price || !price->per_hour.at(static_cast<std::size_t>(options.market))) return std::nullopt;
    paid.hardware_per_hour +=
        devices[type] * in(options, *price->per_hour.at(static_cast<std::size_t>(options.market)));
    add_word(paid.price, price->name);
    add_word(paid.date, price->date);
  }
  const auto all = static_cast<double>(scenario.devices);
  paid.per_device_hour = paid.hardware_per_hour / all;
  paid.storage_per_hour = paid.hardware_per_hour * options.storage;
  paid.support_per_hour = paid.hardware_per_hour * options.support;
  paid.staff_per_hour = options.engineers * in(options, options.salary) / hours_of_year;
  if (pays_energy(options)) paid.energy_per_hour = energy->all_w * 1e-3 * all * in(options, options.energy_price);
  paid.per_hour = paid.hardware_per_hour + paid.storage_per_hour + paid.energy_per_hour + paid.support_per_hour +
                  paid.staff_per_hour;
  paid.per_step = paid.per_hour * work.seconds / seconds_of_hour;
  if (work.tokens > 0 && work.goodput > 0) paid.per_million_tokens = paid.per_step / work.goodput / work.tokens * 1e6;
  return paid;
}

double steps_of(const RunTarget& target, const PeriodWork& work) {
  if (target.steps) return *target.steps;
  if (target.samples) return *target.samples / work.samples;
  sim::ensure(target.tokens.has_value() && work.tokens > 0, "a run is given in a unit that its model has");
  return *target.tokens / work.tokens;
}

}  // namespace

Money Ownership::per_hour() const {
  return {.amount = purchase.amount * (1 / years + operations) / hours_of_year / used, .currency = purchase.currency};
}

std::vector<std::string_view> Price::known() const {
  std::vector<std::string_view> names;
  for (std::size_t i = 0; i < markets; ++i)
    if (per_hour.at(i)) names.push_back(market_names.at(i));
  return names;
}

CostSummary cost_of(const Scenario& scenario, const PeriodWork& work) {
  CostSummary cost{.currency = scenario.cost.currency, .paid = {}, .energy = energy_of(scenario, work)};
  cost.paid = paid_for(scenario, work, cost.energy);
  return cost;
}

std::optional<RunSummary> run_of(const RunTarget& target, const Scenario& scenario, const PeriodWork& work,
                                 const CostSummary& cost) {
  if (work.goodput <= 0) return std::nullopt;
  RunSummary run;
  run.steps = steps_of(target, work);
  const double hours = run.steps * work.seconds / work.goodput / seconds_of_hour;
  run.days = hours / 24;
  run.device_hours = hours * static_cast<double>(scenario.devices);
  if (cost.energy) {
    // As if lost time drew what a step draws: most of it is work that is done again.
    run.energy_kwh = cost.energy->all_w * 1e-3 * run.device_hours;
    run.energy_cost = *run.energy_kwh * in(scenario.cost, scenario.cost.energy_price);
    run.carbon_kg = *run.energy_kwh * scenario.cost.carbon_kg_per_kwh;
  }
  if (cost.paid) run.cost = cost.paid->per_hour * hours;
  return run;
}

}  // namespace trainyard::scenarios
