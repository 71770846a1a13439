// Columns and figures for summaries.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace trainyard::scenarios {

// As wide as `width`, or wider rather than cut.
inline std::string padded_right(std::string_view text, std::size_t width) {
  std::string result(text);
  if (result.size() < width) result.append(width - result.size(), ' ');
  return result;
}

inline std::string padded_left(std::string_view text, std::size_t width) {
  std::string result(text);
  if (result.size() < width) result.insert(0, width - result.size(), ' ');
  return result;
}

inline std::string fixed(double value, int digits) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*f", digits, value);
  return buffer;
}

inline std::string percent(double share) { return fixed(100 * share, 1) + " %"; }

// Of a whole of 40 characters.
inline std::string bar(double share) {
  return std::string(static_cast<std::size_t>(std::lround(std::clamp(share, 0.0, 1.0) * 40)), '#');
}

// The shortest text that is this number and no other; whole ones without an exponent.
inline std::string number_text(double number) {
  std::array<char, 64> buffer{};
  constexpr double most_digits = 1e15;
  const bool whole = std::floor(number) == number && std::abs(number) <= most_digits;
  const auto [end, error] =
      whole ? std::to_chars(buffer.data(), buffer.data() + buffer.size(), static_cast<std::int64_t>(number))
            : std::to_chars(buffer.data(), buffer.data() + buffer.size(), number);
  return {buffer.data(), end};
}

}  // namespace trainyard::scenarios
