#include "topology/internal/link_name.hpp"

#include <algorithm>
#include <charconv>
#include <numeric>

namespace trainyard::topology {

LinkName parse_link_name(std::string_view name) {
  LinkName result;
  while (!name.empty()) {
    const std::size_t end = std::min(name.find(' '), name.size());
    const std::string_view word = name.substr(0, end);
    name.remove_prefix(std::min(end + 1, name.size()));
    if (word.empty()) continue;
    std::int64_t number = 0;
    const auto [last, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    const bool numeric = error == std::errc{} && last == word.data() + word.size() && number >= 0;
    if (!result.form.empty()) result.form += ' ';
    result.form += numeric ? std::string_view{"#"} : word;
    if (numeric) result.numbers.push_back(number);
  }
  return result;
}

std::string to_string(const LinkName& name) {
  std::string result;
  std::size_t next = 0;
  for (const char letter : name.form) {
    if (letter != '#') {
      result += letter;
      continue;
    }
    result += std::to_string(next < name.numbers.size() ? name.numbers[next] : 0);
    ++next;
  }
  return result;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

}  // namespace trainyard::topology
