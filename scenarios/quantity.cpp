#include "scenarios/quantity.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <span>
#include <system_error>

namespace trainyard::scenarios {
namespace {

__extension__ using Wide = unsigned __int128;

constexpr Wide most_count = std::numeric_limits<std::int64_t>::max();

// mantissa x 10^exponent; at most 19 significant digits, so that a product with a unit fits 128 bits.
struct Decimal {
  std::uint64_t mantissa = 0;
  int exponent = 0;
  bool negative = false;
};

constexpr bool is_digit(char letter) { return letter >= '0' && letter <= '9'; }

// Moves the digits at the front of `text` to `digits`; '_' may stand between two of them.
bool take_digits(std::string_view& text, std::string& digits) {
  const std::size_t before = digits.size();
  while (!text.empty()) {
    if (text.front() == '_' && digits.size() > before && text.size() > 1) text.remove_prefix(1);
    if (!is_digit(text.front())) break;
    digits += text.front();
    text.remove_prefix(1);
  }
  return digits.size() > before;
}

bool take_exponent(std::string_view& text, Decimal& number) {
  if (text.empty() || (text.front() != 'e' && text.front() != 'E')) return true;
  std::size_t digits = 1;
  if (text.size() > 1 && (text[1] == '+' || text[1] == '-')) ++digits;
  std::size_t end = digits;
  while (end < text.size() && is_digit(text[end])) ++end;
  if (end == digits) return true;  // not an exponent; a unit that begins with this letter, perhaps
  if (end - digits > 4) return false;
  int exponent = 0;
  const std::size_t from = text[1] == '+' ? 2 : 1;
  std::from_chars(text.data() + from, text.data() + end, exponent);
  number.exponent += exponent;
  text.remove_prefix(end);
  return true;
}

// A number at the front of `text`, which is left with what follows it.
std::optional<Decimal> take_decimal(std::string_view& text) {
  constexpr std::size_t most_digits = 19;
  Decimal number;
  if (!text.empty() && (text.front() == '-' || text.front() == '+')) {
    number.negative = text.front() == '-';
    text.remove_prefix(1);
  }
  std::string digits;
  bool valid = take_digits(text, digits);
  const std::size_t whole = digits.size();
  if (!text.empty() && text.front() == '.') {
    text.remove_prefix(1);
    valid = take_digits(text, digits);
  }
  number.exponent = static_cast<int>(whole) - static_cast<int>(digits.size());
  if (!valid || !take_exponent(text, number)) return std::nullopt;
  const std::size_t significant = digits.find_last_not_of('0') + 1;  // 0 where all are zeros
  number.exponent += static_cast<int>(digits.size() - significant);
  digits.resize(significant);
  digits.erase(0, digits.find_first_not_of('0'));
  if (digits.size() > most_digits) return std::nullopt;
  std::from_chars(digits.data(), digits.data() + digits.size(), number.mantissa);
  return number;
}

struct Unit {
  std::string_view name;
  std::int64_t numerator;
  std::int64_t denominator = 1;
};

struct Dimension {
  std::string_view expected;  // "a size such as '80 GiB'"
  std::span<const Unit> units;
  std::string_view smallest;
};

constexpr std::int64_t kilo = 1'000;
constexpr std::int64_t mega = 1'000'000;
constexpr std::int64_t giga = 1'000'000'000;
constexpr std::int64_t tera = 1'000'000'000'000;
constexpr std::int64_t peta = 1'000'000'000'000'000;
constexpr std::int64_t exa = 1'000'000'000'000'000'000;
constexpr std::int64_t kibi = std::int64_t{1} << 10U;
constexpr std::int64_t mebi = std::int64_t{1} << 20U;
constexpr std::int64_t gibi = std::int64_t{1} << 30U;
constexpr std::int64_t tebi = std::int64_t{1} << 40U;

constexpr std::array<Unit, 12> size_units{{{"B", 1},
                                           {"kB", kilo},
                                           {"KB", kilo},
                                           {"MB", mega},
                                           {"GB", giga},
                                           {"TB", tera},
                                           {"PB", peta},
                                           {"KiB", kibi},
                                           {"MiB", mebi},
                                           {"GiB", gibi},
                                           {"TiB", tebi},
                                           {"PiB", tebi* kibi}}};
constexpr std::array<Unit, 20> byte_rate_units{
    {{"B/s", 1},          {"kB/s", kilo},    {"KB/s", kilo},      {"MB/s", mega},      {"GB/s", giga},
     {"TB/s", tera},      {"PB/s", peta},    {"KiB/s", kibi},     {"MiB/s", mebi},     {"GiB/s", gibi},
     {"TiB/s", tebi},     {"bit/s", 1, 8},   {"kbit/s", kilo, 8}, {"Mbit/s", mega, 8}, {"Gbit/s", giga, 8},
     {"Tbit/s", tera, 8}, {"kb/s", kilo, 8}, {"Mb/s", mega, 8},   {"Gb/s", giga, 8},   {"Tb/s", tera, 8}}};
constexpr std::array<Unit, 12> flop_rate_units{{{"FLOP/s", 1},
                                                {"MFLOP/s", mega},
                                                {"GFLOP/s", giga},
                                                {"TFLOP/s", tera},
                                                {"PFLOP/s", peta},
                                                {"EFLOP/s", exa},
                                                {"FLOPS", 1},
                                                {"MFLOPS", mega},
                                                {"GFLOPS", giga},
                                                {"TFLOPS", tera},
                                                {"PFLOPS", peta},
                                                {"EFLOPS", exa}}};
// The micro sign and the Greek letter mu look the same.
constexpr std::array<Unit, 7> duration_units{
    {{"ps", 1}, {"ns", kilo}, {"us", mega}, {"\xC2\xB5s", mega}, {"\xCE\xBCs", mega}, {"ms", giga}, {"s", tera}}};

constexpr std::int64_t minute = 60 * mega;  // in microseconds
constexpr std::int64_t hour = 60 * minute;
constexpr std::int64_t day = 24 * hour;
constexpr std::array<Unit, 14> long_duration_units{{{"us", 1},
                                                    {"ms", kilo},
                                                    {"s", mega},
                                                    {"min", minute},
                                                    {"h", hour},
                                                    {"hour", hour},
                                                    {"hours", hour},
                                                    {"d", day},
                                                    {"day", day},
                                                    {"days", day},
                                                    {"week", 7 * day},
                                                    {"weeks", 7 * day},
                                                    {"year", 365 * day},
                                                    {"years", 365 * day}}};

constexpr Dimension sizes{"a size such as '80 GiB'", size_units, "one byte"};
constexpr Dimension byte_rates{"a size per second such as '400 Gbit/s'", byte_rate_units, "one byte per second"};
constexpr Dimension flop_rates{"a rate such as '989 TFLOP/s'", flop_rate_units, "one FLOP per second"};
constexpr Dimension durations{"a duration such as '2 us'", duration_units, "one picosecond"};
constexpr Dimension long_durations{"a duration such as '10 min'", long_duration_units, "one microsecond"};

std::string_view trimmed(std::string_view text) {
  const std::size_t from = text.find_first_not_of(" \t");
  if (from == std::string_view::npos) return {};
  return text.substr(from, text.find_last_not_of(" \t") - from + 1);
}

std::string got(std::string_view text) {
  constexpr std::size_t longest = 60;
  const bool cut = text.size() > longest;
  return "got '" + std::string{text.substr(0, longest)} + (cut ? "..." : "") + "'";
}

enum class Fit : std::uint8_t { exact, rounded, too_small, too_large };

// mantissa x 10^exponent x unit, to the nearest whole number.
Fit count_of(const Decimal& number, const Unit& unit, std::int64_t& count) {
  count = 0;
  if (number.mantissa == 0) return Fit::exact;
  Wide numerator = static_cast<Wide>(number.mantissa) * static_cast<Wide>(unit.numerator);
  Wide denominator = static_cast<Wide>(unit.denominator);
  constexpr int most_exponent = 37;  // 8 x 10^37, doubled, still fits 128 bits
  if (number.exponent < -most_exponent) return Fit::too_small;
  for (int i = 0; i < number.exponent; ++i) {
    if (numerator > most_count * 8) return Fit::too_large;
    numerator *= 10;
  }
  for (int i = number.exponent; i < 0; ++i) denominator *= 10;
  const Wide result = (numerator / denominator) + (numerator % denominator * 2 >= denominator ? 1 : 0);
  if (result > most_count) return Fit::too_large;
  if (result == 0) return Fit::too_small;
  count = static_cast<std::int64_t>(result);
  return numerator % denominator == 0 ? Fit::exact : Fit::rounded;
}

Parsed<std::int64_t> parse_count(std::string_view text, const Dimension& dimension) {
  const std::string expected = "expected " + std::string{dimension.expected} + ", " + got(text);
  std::string_view rest = trimmed(text);
  const std::optional<Decimal> number = take_decimal(rest);
  rest = trimmed(rest);
  const auto unit =
      std::find_if(dimension.units.begin(), dimension.units.end(), [&](const Unit& u) { return u.name == rest; });
  if (!number || unit == dimension.units.end()) return {.value = {}, .error = expected};
  if (number->negative && number->mantissa != 0) return {.value = {}, .error = expected + ": it is negative"};
  std::int64_t count = 0;
  const Fit fit = count_of(*number, *unit, count);
  if (fit == Fit::too_large) return {.value = {}, .error = expected + ": it is too large"};
  if (fit == Fit::too_small)
    return {.value = {}, .error = expected + ": it is less than " + std::string{dimension.smallest}};
  return {.value = count, .error = {}};
}

template <class T>
Parsed<T> parse_quantity(std::string_view text, const Dimension& dimension) {
  Parsed<std::int64_t> count = parse_count(text, dimension);
  if (!count.value) return {.value = {}, .error = std::move(count.error)};
  return {.value = T{*count.value}, .error = {}};
}

std::string fixed(double value, int decimals) {
  std::array<char, 400> buffer{};
  const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed,
                                          std::max(decimals, 0));
  std::string text(buffer.data(), end);
  if (text.find('.') == std::string::npos) return text;
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

// So many significant digits, without trailing zeros; whole numbers keep all of theirs.
std::string significant(double value, int digits) {
  int whole = 1;
  for (double limit = 10.0 - 5 * std::pow(10.0, -digits); std::abs(value) >= limit && whole < digits; limit *= 10)
    ++whole;
  return fixed(value, digits - whole);
}

struct Scale {
  std::string_view unit;
  double size;
};

// With the largest unit in which the value, rounded, is at least 1. `scales` is sorted, smallest first.
std::string scaled_text(double value, std::span<const Scale> scales, int digits) {
  const double rounds_up = 1.0 - 0.5 * std::pow(10.0, -digits);
  std::size_t chosen = 0;
  while (chosen + 1 < scales.size() && std::abs(value) >= scales[chosen + 1].size * rounds_up) ++chosen;
  std::string text = significant(value / scales[chosen].size, digits);
  if (!scales[chosen].unit.empty()) text += " " + std::string{scales[chosen].unit};
  return text;
}

}  // namespace

Parsed<sim::Bytes> parse_bytes(std::string_view text) { return parse_quantity<sim::Bytes>(text, sizes); }
Parsed<sim::BytesPerSecond> parse_bytes_per_second(std::string_view text) {
  return parse_quantity<sim::BytesPerSecond>(text, byte_rates);
}
Parsed<sim::FlopsPerSecond> parse_flops_per_second(std::string_view text) {
  return parse_quantity<sim::FlopsPerSecond>(text, flop_rates);
}
Parsed<sim::Duration> parse_duration(std::string_view text) { return parse_quantity<sim::Duration>(text, durations); }
Parsed<sim::LongDuration> parse_long_duration(std::string_view text) {
  return parse_quantity<sim::LongDuration>(text, long_durations);
}

Parsed<std::int64_t> parse_whole_number(std::string_view text) {
  const std::string expected = "expected a whole number, " + got(text);
  std::string_view rest = text;
  const std::optional<Decimal> number = take_decimal(rest);
  if (!number || !rest.empty()) return {.value = {}, .error = expected};
  std::int64_t count = 0;
  const Fit fit = count_of(*number, {.name = "", .numerator = 1}, count);
  if (fit == Fit::too_large) return {.value = {}, .error = expected + ": it is too large"};
  if (fit != Fit::exact) return {.value = {}, .error = expected};
  return {.value = number->negative ? -count : count, .error = {}};
}

Parsed<double> parse_real_number(std::string_view text) {
  std::string_view rest = text;
  std::string digits;
  std::copy_if(text.begin(), text.end(), std::back_inserter(digits), [](char c) { return c != '_' && c != '+'; });
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  // The syntax of whole numbers with a fraction, not that of from_chars, which takes "inf" and "nan".
  const bool number = take_decimal(rest) && rest.empty();
  if (!number || error != std::errc{} || end != digits.data() + digits.size())
    return {.value = {}, .error = "expected a number, " + got(text)};
  return {.value = value, .error = {}};
}

std::string format_bytes(sim::Bytes bytes) {
  constexpr std::array<Scale, 6> scales{{{"B", 1},
                                         {"KiB", static_cast<double>(kibi)},
                                         {"MiB", static_cast<double>(mebi)},
                                         {"GiB", static_cast<double>(gibi)},
                                         {"TiB", static_cast<double>(tebi)},
                                         {"PiB", static_cast<double>(tebi) * 1024}}};
  return scaled_text(static_cast<double>(bytes.count), scales, 3);
}

std::string format_seconds(double seconds) {
  constexpr std::array<Scale, 5> scales{{{"ps", 1e-12}, {"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}}};
  return seconds == 0 ? "0 s" : scaled_text(seconds, scales, 3);
}

std::string format_duration(sim::Duration duration) { return format_seconds(sim::to_seconds(duration)); }

std::string format_long_seconds(double seconds) {
  constexpr std::array<Scale, 6> scales{
      {{"us", 1e-6}, {"ms", 1e-3}, {"s", 1}, {"min", 60}, {"h", 3600}, {"days", 86400}}};
  return seconds == 0 ? "0 s" : scaled_text(seconds, scales, 3);
}

std::string format_long_duration(sim::LongDuration duration) { return format_long_seconds(sim::to_seconds(duration)); }

std::string format_rate(sim::BytesPerSecond rate) {
  constexpr std::array<Scale, 5> scales{{{"B/s", 1}, {"kB/s", 1e3}, {"MB/s", 1e6}, {"GB/s", 1e9}, {"TB/s", 1e12}}};
  return scaled_text(static_cast<double>(rate.count), scales, 3);
}

std::string format_rate(sim::FlopsPerSecond rate) {
  constexpr std::array<Scale, 4> scales{{{"FLOP/s", 1}, {"GFLOP/s", 1e9}, {"TFLOP/s", 1e12}, {"PFLOP/s", 1e15}}};
  return scaled_text(static_cast<double>(rate.count), scales, 4);
}

std::string format_energy(double kwh) {
  constexpr std::array<Scale, 6> scales{
      {{"mWh", 1e-6}, {"Wh", 1e-3}, {"kWh", 1}, {"MWh", 1e3}, {"GWh", 1e6}, {"TWh", 1e9}}};
  return scaled_text(kwh, scales, 3);
}

std::string format_power(double watts) {
  constexpr std::array<Scale, 3> scales{{{"W", 1}, {"kW", 1e3}, {"MW", 1e6}}};
  return scaled_text(watts, scales, 3);
}

std::string format_count(double count) {
  constexpr std::array<Scale, 5> scales{{{"", 1}, {"K", 1e3}, {"M", 1e6}, {"B", 1e9}, {"T", 1e12}}};
  return scaled_text(count, scales, 4);
}

}  // namespace trainyard::scenarios
