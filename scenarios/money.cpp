#include "scenarios/money.hpp"

#include <algorithm>
#include <cmath>

#include "scenarios/internal/text.hpp"

namespace trainyard::scenarios {
namespace {

constexpr double most = 1e15;

std::string_view trimmed(std::string_view text) {
  const std::size_t from = text.find_first_not_of(' ');
  if (from == std::string_view::npos) return {};
  return text.substr(from, text.find_last_not_of(' ') - from + 1);
}

// The number before the first space or letter; what follows it stays in `text`.
std::optional<double> take_number(std::string_view& text) {
  text = trimmed(text);
  const std::size_t end = std::min(text.find(' '), text.size());
  const Parsed<double> number = parse_real_number(text.substr(0, end));
  text = trimmed(text.substr(end));
  if (!number.value || !std::isfinite(*number.value) || *number.value < 0 || *number.value > most) return std::nullopt;
  return number.value;
}

}  // namespace

bool is_currency(std::string_view text) {
  return text.size() == 3 && std::ranges::all_of(text, [](char letter) { return letter >= 'A' && letter <= 'Z'; });
}

Parsed<Money> parse_money(std::string_view text, std::string_view per) {
  const std::string unit = per.empty() ? "" : "/" + std::string{per};
  const std::string example = (per.empty() ? "40000 USD" : per == "kWh" ? "0.08 USD" : "2.50 USD") + unit;
  std::string error = "expected an amount such as '" + example + "', got '" + std::string{text} + "'";
  std::string_view rest = text;
  const std::optional<double> amount = take_number(rest);
  if (!amount || !rest.ends_with(unit)) return {.value = {}, .error = std::move(error)};
  rest = trimmed(rest.substr(0, rest.size() - unit.size()));
  if (!is_currency(rest)) return {.value = {}, .error = std::move(error)};
  return {.value = Money{.amount = *amount, .currency = std::string{rest}}, .error = {}};
}

Parsed<double> parse_with_unit(std::string_view text, std::string_view unit) {
  std::string_view rest = text;
  const std::optional<double> amount = take_number(rest);
  if (amount && rest == unit) return {.value = amount, .error = {}};
  return {.value = {}, .error = "expected a number of '" + std::string{unit} + "', got '" + std::string{text} + "'"};
}

std::string format_money(double amount, std::string_view currency) {
  // Enough decimals that an amount below one has three digits; of large ones, thousands and millions.
  const double size = std::abs(amount);
  std::string text;
  if (size >= 1000 || size == 0)
    text = format_count(amount);
  else if (size >= 1)
    text = fixed(amount, 2);
  else
    text = fixed(amount, std::min(12, 2 - static_cast<int>(std::floor(std::log10(size)))));
  return text + " " + std::string{currency};
}

}  // namespace trainyard::scenarios
