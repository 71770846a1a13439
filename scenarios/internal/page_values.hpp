// How the data of pages stays small: figures without digits that nobody sees, and every text once.
#pragma once

#include <cmath>
#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace trainyard::scenarios {

// Six digits, which are more than a chart or a table shows.
inline double rounded(double value) {
  if (value == 0 || !std::isfinite(value)) return 0;
  const double scale = std::pow(10.0, 5 - std::floor(std::log10(std::abs(value))));
  return std::isfinite(scale) ? std::round(value * scale) / scale : 0;
}

// Texts that come again and again, by their places in the order in which they came first.
class Texts {
 public:
  std::size_t place_of(std::string_view text) {
    const auto [place, added] = places_.try_emplace(std::string{text}, texts_.size());
    if (added) texts_.emplace_back(text);
    return place->second;
  }
  const std::vector<std::string>& all() const { return texts_; }

 private:
  std::map<std::string, std::size_t> places_;
  std::vector<std::string> texts_;
};

}  // namespace trainyard::scenarios
