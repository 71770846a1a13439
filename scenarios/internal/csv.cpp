#include "scenarios/internal/csv.hpp"

#include <utility>

#include "scenarios/diagnostics.hpp"

namespace trainyard::scenarios {

std::vector<CsvRow> parse_csv(std::string_view text, const std::string& file) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // the mark that spreadsheets put in front
  std::vector<CsvRow> rows;
  CsvRow row{.line = 1, .cells = {}};
  std::string cell;
  int line = 1;
  int quoted_from = 0;  // 0: not inside quotes
  const auto end_cell = [&] { row.cells.push_back(std::exchange(cell, {})); };
  const auto end_row = [&] {
    const bool blank = row.cells.empty() && cell.empty();
    end_cell();
    if (!blank) rows.push_back(std::move(row));
    row = {.line = line, .cells = {}};
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n') ++line;
    if (quoted_from > 0) {
      if (c != '"') {
        cell += c;
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        cell += c;
        ++i;
      } else {
        quoted_from = 0;
      }
    } else if (c == '"') {
      quoted_from = line;
    } else if (c == ',') {
      end_cell();
    } else if (c == '\n') {
      end_row();
    } else if (c != '\r') {
      cell += c;
    }
  }
  if (quoted_from > 0) throw ScenarioError({file, quoted_from, 1}, "a quote is opened and never closed");
  if (!row.cells.empty() || !cell.empty()) end_row();
  return rows;
}

std::string csv_cell(std::string_view text) {
  if (text.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += c;
    quoted += c;
  }
  return quoted + "\"";
}

}  // namespace trainyard::scenarios
