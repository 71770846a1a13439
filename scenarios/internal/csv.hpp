// Tables as text: RFC 4180.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace trainyard::scenarios {

struct CsvRow {
  int line = 0;  // of its first character, from 1
  std::vector<std::string> cells;
};

// Cells may be quoted, quotes doubled, and hold line ends. Throws ScenarioError on a quote that is never closed.
std::vector<CsvRow> parse_csv(std::string_view text, const std::string& file);
std::string csv_cell(std::string_view text);

}  // namespace trainyard::scenarios
