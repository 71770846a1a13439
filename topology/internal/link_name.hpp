// Names of links: words and numbers, e.g. "leaf 4 spine 2 up".
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace trainyard::topology {

// "leaf 4 spine 2 up" is the form "leaf # spine # up" with the numbers 4 and 2.
struct LinkName {
  std::string form;
  std::vector<std::int64_t> numbers;
};

LinkName parse_link_name(std::string_view name);
std::string to_string(const LinkName& name);  // missing numbers are 0

// Insertions, removals and replacements of letters that make one text the other (Levenshtein).
std::size_t edit_distance(std::string_view a, std::string_view b);

}  // namespace trainyard::topology
