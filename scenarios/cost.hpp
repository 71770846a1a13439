// What a step, a million tokens and a whole run cost: money, energy and carbon.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/money.hpp"
#include "workloads/power.hpp"

namespace trainyard::scenarios {

struct Scenario;

// How an accelerator is paid for.
enum class Market : std::uint8_t { on_demand, reserved_1y, reserved_3y, spot, owned };
constexpr std::size_t markets = 5;
constexpr std::array<std::string_view, markets> market_names{"on_demand", "reserved_1y", "reserved_3y", "spot",
                                                             "owned"};
constexpr std::string_view to_string(Market market) { return market_names[static_cast<std::size_t>(market)]; }

// Bought, with its share of server and network, and written off evenly over its years.
struct Ownership {
  Money purchase;
  double years = 4;
  double operations = 0.1;  // of the purchase, per year: space, spare parts, hands
  double used = 1;          // share of the hours in which it does paid-for work

  Money per_hour() const;
};

// An entry of the catalogue: what an hour of one accelerator costs, with its share of the host.
struct Price {
  std::string name;
  std::string date;  // of the figures, "2025-06"
  std::array<std::optional<Money>, markets> per_hour{};

  std::vector<std::string_view> known() const;  // names of the markets it has
};

// What `cost` of a scenario says, with its defaults.
struct CostOptions {
  std::vector<std::optional<Price>> prices;  // of each type of nodes; nothing where none is known
  Market market = Market::on_demand;
  std::string currency = "USD";
  // Units per US dollar. That of the yuan is the round figure of 2024 and 2025 (an assumption).
  ExchangeRates exchange{{"USD", 1.0}, {"CNY", 7.2}};
  Money energy_price{.amount = 0.08, .currency = "USD"};  // per kWh; industry pays 0.05 to 0.10 (an estimate)
  std::optional<bool> energy_extra;  // whether the energy is paid beside the price; absent: where owned
  // Power at the meter over power of the machines: 1.1 to 1.2 of the largest operators, 1.3 to 1.5 elsewhere (an
  // estimate).
  double pue = 1.2;
  double carbon_kg_per_kwh = 0.45;  // 0.4 to 0.6 for grids with much coal and gas (an estimate)
  // Of switches and cables per device, where nodes are joined: 30 to 60 W (an estimate). Absent: 45 W; none for one
  // node and for devices that are joined without switches.
  std::optional<double> network_power_w;
  // Processors, memory, fans and adapters draw this share of what they are built for. With it nodes of A100 and H100
  // take the 0.65 to 0.8 and 1.0 to 1.3 kW per device that operators plan with (an estimate).
  double host_load = 0.8;
  double storage = 0;    // and traffic, as a share of the price of the devices
  double support = 0;    // paid support of software, as a share of the price of the devices
  double engineers = 0;  // who keep the system running
  Money salary{.amount = 200'000, .currency = "USD"};  // of one, a year: 0.1 to 0.3 M USD (an estimate)
};

// The whole run, in one of three units.
struct RunTarget {
  std::optional<double> tokens;
  std::optional<double> samples;
  std::optional<double> steps;
};

struct CostSummary {
  std::string currency;
  // Of all devices, hosts and the network. Absent where no price is known for one of the types of nodes.
  struct Paid {
    std::string price;  // names of catalogue entries
    std::string date;
    Market market = Market::on_demand;
    double per_device_hour = 0;  // the price alone, of an average device
    double per_hour = 0;         // everything; the parts add up to it
    double hardware_per_hour = 0;
    double storage_per_hour = 0;
    double energy_per_hour = 0;
    double support_per_hour = 0;
    double staff_per_hour = 0;
    double per_step = 0;
    std::optional<double> per_million_tokens;  // of progress: what failures cost is in it; absent where there is none
  };
  std::optional<Paid> paid;
  // At the meter, host, network and cooling included. Absent where the catalogue does not know the part's power.
  struct Energy {
    double device_w = 0;  // of the device alone, on average over the step
    double all_w = 0;     // per device
    double kwh_per_step = 0;
    double carbon_kg_per_step = 0;
  };
  std::optional<Energy> energy;
};

struct RunSummary {
  double steps = 0;
  double days = 0;
  double device_hours = 0;
  std::optional<double> energy_kwh;
  std::optional<double> energy_cost;
  std::optional<double> carbon_kg;
  std::optional<double> cost;
};

// What is repeated: a step, or a batch of requests.
struct PeriodWork {
  double seconds = 0;
  workloads::ActivityTimes activity{};  // of an average device; adds up to the seconds
  double intensity = 1;                 // of its products: achieved rate over the best rate
  double tokens = 0;                    // 0: the model has none
  double samples = 0;
  double goodput = 1;  // share of the time that is progress
};

CostSummary cost_of(const Scenario& scenario, const PeriodWork& work);
// Nothing where no progress is made, so that the run never ends.
std::optional<RunSummary> run_of(const RunTarget& target, const Scenario& scenario, const PeriodWork& work,
                                 const CostSummary& cost);

}  // namespace trainyard::scenarios
