// Columns and figures for summaries.
#pragma once

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

}  // namespace trainyard::scenarios
