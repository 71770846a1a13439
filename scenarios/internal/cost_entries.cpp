#include "scenarios/internal/cost_entries.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <utility>
#include <vector>

#include "scenarios/internal/document.hpp"
#include "scenarios/internal/entries.hpp"

namespace trainyard::scenarios {
namespace {

// A value that has a unit of its own kind, read where it was given.
template <class T, class Parse>
void read_amount(Reader& reader, const Value* value, const std::string& path, const Parse& parse, T& target) {
  if (value == nullptr) return;
  if (!value->is_scalar()) {
    reader.report(value->where, path + ": " + parse("").error.substr(0, parse("").error.rfind(", got")) + ", got " +
                                    describe(*value));
    return;
  }
  auto parsed = parse(value->scalar);
  if (parsed.value)
    target = std::move(*parsed.value);
  else
    reader.report(value->where, path + ": " + parsed.error);
}

template <class T>
void read_money(Reader& reader, const Value* value, const std::string& path, std::string_view per, T& target) {
  read_amount(
      reader, value, path, [&](std::string_view text) { return parse_money(text, per); }, target);
}

template <class T>
void read_with_unit(Reader& reader, const Value* value, const std::string& path, std::string_view unit, T& target) {
  read_amount(
      reader, value, path, [&](std::string_view text) { return parse_with_unit(text, unit); }, target);
}

Money read_ownership(Reader& reader, const Value& value, const std::string& path) {
  Ownership owned;
  const Value* purchase = nullptr;
  const std::vector<sim::Key> keys{
      {.name = "years", .target = &owned.years, .help = "", .least = 0.1, .most = 50},
      {.name = "operations", .target = &owned.operations, .help = "", .most = 10},
      {.name = "used", .target = &owned.used, .help = "", .least = 0.01, .most = 1},
  };
  const std::array<Section, 1> sections{{{"purchase", &purchase, true}}};
  reader.read(value, path, {.keys = keys, .sections = sections});
  read_money(reader, purchase, join(path, "purchase"), "", owned.purchase);
  return owned.per_hour();
}

// {CNY: 7.2}: units for one dollar.
void read_exchange(Reader& reader, const Value& value, ExchangeRates& rates) {
  const std::string path = "cost.exchange";
  const std::string expected = path + ": expected currencies with their units per US dollar, such as {EUR: 0.9}, got ";
  if (!value.is_map()) return reader.report(value.where, expected + describe(value));
  for (const Entry& entry : value.entries) {
    const Parsed<double> rate = parse_real_number(entry.value.scalar);
    if (!is_currency(entry.key.scalar))
      reader.report(entry.key.where, expected + describe(entry.key));
    else if (!entry.value.is_scalar() || !rate.value || *rate.value <= 0 || *rate.value > 1e9)
      reader.report(entry.value.where, expected + describe(entry.value));
    else
      rates[entry.key.scalar] = *rate.value;
  }
}

void check_currency(Reader& reader, const ExchangeRates& rates, const std::string& path, std::string_view currency) {
  if (rates.contains(currency)) return;
  std::vector<std::string_view> names;
  for (const auto& [name, rate] : rates) names.push_back(name);
  reader.report_at(path, "no rate of exchange is known for '" + std::string{currency} + "'" + nearest(currency, names) +
                             "; give cost.exchange: {" + std::string{currency} + ": units per US dollar}, or choose " +
                             listed(names));
}

void check_currencies(Reader& reader, const CostOptions& cost) {
  check_currency(reader, cost.exchange, "cost.currency", cost.currency);
  check_currency(reader, cost.exchange, "cost.energy_price", cost.energy_price.currency);
  check_currency(reader, cost.exchange, "cost.staff", cost.salary.currency);
  for (const std::optional<Price>& price : cost.prices)
    if (price)
      for (const std::optional<Money>& money : price->per_hour)
        if (money) check_currency(reader, cost.exchange, "cost.price", money->currency);
}

// The market that the scenario asks for must have a price.
void check_market(Reader& reader, const Scenario& scenario) {
  if (scenario.accelerators.size() != scenario.cost.prices.size()) return;  // the cluster is wrong, and reported
  for (std::size_t type = 0; type < scenario.cost.prices.size(); ++type) {
    const std::optional<Price>& price = scenario.cost.prices[type];
    const Market market = scenario.cost.market;
    if (!price && (reader.given("cost.market") || reader.given("cost.currency"))) {
      reader.report_at("cost", "no price is known for " + scenario.accelerators[type].name +
                                   "; give cost.price: {on_demand: 2.50 USD/h} or the name of one (`trainyard show "
                                   "prices`)");
    } else if (price && !price->per_hour.at(static_cast<std::size_t>(market))) {
      if (reader.given("cost"))
        reader.report_at("cost.market", "the price " + price->name + " has none for '" +
                                            std::string{to_string(market)} + "'; it has " +
                                            listed(price->known(), "and"));
    }
  }
}

// Prices of each type of nodes: the scenario's, or the usual ones.
void read_prices(Reader& reader, const Catalog& catalog, const Value* price, Scenario& scenario) {
  scenario.cost.prices.assign(1 + scenario.other_nodes.size(), std::nullopt);
  if (price != nullptr) {
    const Price given = read_price(reader, catalog, *price, "cost.price");
    std::ranges::fill(scenario.cost.prices, given);
    return;
  }
  for (std::size_t type = 0; type < scenario.cost.prices.size(); ++type) {
    const std::string& usual = (type == 0 ? scenario.node : scenario.other_nodes[type - 1].node).price;
    if (!usual.empty())
      scenario.cost.prices[type] =
          read_price(reader, catalog, make_scalar(usual, reader.location_of("cluster.node")), "cluster.node.price");
  }
}

void read_staff(Reader& reader, const Value& staff, CostOptions& cost) {
  const Value* salary = nullptr;
  const std::vector<sim::Key> keys{
      {.name = "engineers", .target = &cost.engineers, .help = "", .required = true, .most = 1e6}};
  const std::array<Section, 1> sections{{{"salary", &salary}}};
  reader.read(staff, "cost.staff", {.keys = keys, .sections = sections});
  read_money(reader, salary, "cost.staff.salary", "year", cost.salary);
}

void read_options(Reader& reader, const Catalog& catalog, const Value& value, Scenario& scenario) {
  CostOptions& cost = scenario.cost;
  sim::Choice market{.value = "on_demand", .choices = {market_names.begin(), market_names.end()}};
  sim::Choice energy{.value = "", .choices = {"included", "extra"}};
  const Value* price = nullptr;
  const Value* exchange = nullptr;
  const Value* energy_price = nullptr;
  const Value* carbon = nullptr;
  const Value* network = nullptr;
  const Value* staff = nullptr;
  const std::vector<sim::Key> keys{
      {.name = "market", .target = &market, .help = ""},
      {.name = "currency", .target = &cost.currency, .help = ""},
      {.name = "energy", .target = &energy, .help = ""},
      {.name = "pue", .target = &cost.pue, .help = "", .least = 1, .most = 10},
      {.name = "host_load", .target = &cost.host_load, .help = "", .most = 1},
      {.name = "storage", .target = &cost.storage, .help = "", .most = 100},
      {.name = "support", .target = &cost.support, .help = "", .most = 100},
  };
  const std::array<Section, 6> sections{{{"price", &price},
                                         {"exchange", &exchange},
                                         {"energy_price", &energy_price},
                                         {"carbon", &carbon},
                                         {"network_power", &network},
                                         {"staff", &staff}}};
  reader.read(value, "cost", {.keys = keys, .sections = sections});
  if (exchange != nullptr) read_exchange(reader, *exchange, cost.exchange);
  read_money(reader, energy_price, "cost.energy_price", "kWh", cost.energy_price);
  read_with_unit(reader, carbon, "cost.carbon", "kg/kWh", cost.carbon_kg_per_kwh);
  read_with_unit(reader, network, "cost.network_power", "W", cost.network_power_w);
  if (staff != nullptr) read_staff(reader, *staff, cost);
  cost.market = chosen<Market>(market);
  if (!energy.value.empty()) cost.energy_extra = energy.value == "extra";
  read_prices(reader, catalog, price, scenario);
}

}  // namespace

Price read_price(Reader& reader, const Catalog& catalog, const Value& value, const std::string& path) {
  Price price;
  const std::optional<Resolved> resolved = resolve(reader, catalog, EntryKind::price, value, path);
  if (!resolved) return price;
  price.name = resolved->name;
  std::string description;
  std::array<const Value*, markets> given{};
  const Value* sources = nullptr;
  const std::vector<sim::Key> keys{{.name = "name", .target = &price.name, .help = ""},
                                   {.name = "description", .target = &description, .help = ""},
                                   {.name = "date", .target = &price.date, .help = ""}};
  std::vector<Section> sections{{"sources", &sources}};
  for (std::size_t i = 0; i < markets; ++i) sections.push_back({market_names.at(i), &given.at(i)});
  const std::size_t before = reader.mistakes();
  reader.read(resolved->value, path, {.keys = keys, .sections = sections});
  constexpr auto owned = static_cast<std::size_t>(Market::owned);
  for (std::size_t i = 0; i < markets; ++i) {
    if (given.at(i) == nullptr) continue;
    const std::string key = join(path, market_names.at(i));
    if (i == owned && given.at(i)->is_map())
      price.per_hour.at(i) = read_ownership(reader, *given.at(i), key);
    else
      read_money(reader, given.at(i), key, "h", price.per_hour.at(i));
  }
  if (reader.mistakes() == before && price.known().empty() && !resolved->value.partial)
    reader.report(value.where, (path.empty() ? "" : path + ": ") +
                                   "expected the price of an hour for one at least of " + listed(market_names) +
                                   ", such as {on_demand: 2.50 USD/h}");
  return price;
}

void read_cost(Reader& reader, const Catalog& catalog, const Value* cost, Scenario& scenario) {
  const std::size_t before = reader.mistakes();
  if (cost == nullptr)
    read_prices(reader, catalog, nullptr, scenario);
  else
    read_options(reader, catalog, *cost, scenario);
  if (reader.mistakes() > before) return;
  check_currencies(reader, scenario.cost);
  check_market(reader, scenario);
}

RunTarget read_run(Reader& reader, const Value& run) {
  RunTarget target;
  const auto key = [](std::string_view name, std::optional<double>& unit) {
    return sim::Key{.name = name, .target = &unit, .help = "", .least = 1, .most = 1e18};
  };
  const std::vector<sim::Key> keys{key("tokens", target.tokens), key("samples", target.samples),
                                   key("steps", target.steps)};
  const std::size_t before = reader.mistakes();
  reader.read(run, "run", {.keys = keys});
  const int given = int{target.tokens.has_value()} + int{target.samples.has_value()} + int{target.steps.has_value()};
  if (reader.mistakes() == before && given != 1)
    reader.report_at("run", "expected one of 'tokens', 'samples' and 'steps', such as {tokens: 15e12}");
  return target;
}

void check_run(Reader& reader, const Scenario& scenario) {
  if (scenario.run && scenario.run->tokens && !scenario.model.has_tokens())
    reader.report_at("run.tokens", scenario.model.name + " has no tokens; give run.samples or run.steps");
}

}  // namespace trainyard::scenarios
