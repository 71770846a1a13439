// Amounts of money and other figures that only prices have: "2.50 USD/h", "0.45 kg/kWh".
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "scenarios/quantity.hpp"

namespace trainyard::scenarios {

struct Money {
  double amount = 0;
  std::string currency = "USD";  // three capital letters, as in ISO 4217
};

// Units of a currency for one US dollar.
using ExchangeRates = std::map<std::string, double, std::less<>>;

// "40000 USD" where `per` is empty, else "2.50 USD/h". Not negative.
Parsed<Money> parse_money(std::string_view text, std::string_view per);
// A number with just this unit, such as "45 W". Not negative.
Parsed<double> parse_with_unit(std::string_view text, std::string_view unit);

// Three capital letters.
bool is_currency(std::string_view text);

// For summaries: "2.67 USD", "1.37 K USD", "36.1 M USD"; cents of small amounts down to three digits.
std::string format_money(double amount, std::string_view currency);

}  // namespace trainyard::scenarios
