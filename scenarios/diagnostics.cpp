#include "scenarios/diagnostics.hpp"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>

namespace trainyard::scenarios {
namespace {

std::vector<Diagnostic> sorted(std::vector<Diagnostic> diagnostics) {
  std::sort(diagnostics.begin(), diagnostics.end(), [](const Diagnostic& a, const Diagnostic& b) {
    return std::tie(a.where.file, a.where.line, a.where.column, a.message) <
           std::tie(b.where.file, b.where.line, b.where.column, b.message);
  });
  diagnostics.erase(std::unique(diagnostics.begin(), diagnostics.end()), diagnostics.end());
  return diagnostics;
}

std::string lines(const std::vector<Diagnostic>& diagnostics) {
  std::string text;
  for (const Diagnostic& diagnostic : diagnostics) {
    if (!text.empty()) text += '\n';
    text += to_string(diagnostic);
  }
  return text;
}

std::string folded(std::string_view name) {
  std::string result{name};
  for (char& letter : result) {
    if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
    if (letter == '_') letter = '-';
  }
  return result;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row[b.size()];
}

// C0 and DEL are one byte, C1 two in UTF-8: C2 80 to C2 9F. 0 where none begins here.
std::size_t control_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  if (byte(0) < 0x20 || byte(0) == 0x7f) return 1;
  return text.size() > 1 && byte(0) == 0xc2 && byte(1) >= 0x80 && byte(1) < 0xa0 ? 2 : 0;
}

// At least so many letters of a name lie in the other, or there is nothing in common.
bool one_within_other(std::string_view a, std::string_view b) {
  constexpr std::size_t least_letters = 4;
  return std::min(a.size(), b.size()) >= least_letters &&
         (a.find(b) != std::string_view::npos || b.find(a) != std::string_view::npos);
}

}  // namespace

std::string printable(std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string result;
  while (!text.empty()) {
    const std::size_t control = control_length(text);
    for (const char letter : text.substr(0, control)) {
      const auto byte = static_cast<unsigned char>(letter);
      result += {'\\', 'x', digits[byte / 16U], digits[byte % 16U]};
    }
    if (control == 0) result += text.front();
    text.remove_prefix(std::max<std::size_t>(control, 1));
  }
  return result;
}

std::string to_string(const Diagnostic& diagnostic) {
  const Location& where = diagnostic.where;
  std::string text = where.file;
  if (where.line > 0) text += ":" + std::to_string(where.line) + ":" + std::to_string(where.column);
  return printable(text.empty() ? diagnostic.message : text + ": " + diagnostic.message);
}

ScenarioError::ScenarioError(std::vector<Diagnostic> diagnostics)
    : ScenarioError(Sorted{}, sorted(std::move(diagnostics))) {}

ScenarioError::ScenarioError(Location where, std::string message)
    : ScenarioError(Sorted{}, {{.where = std::move(where), .message = std::move(message)}}) {}

ScenarioError::ScenarioError(Sorted /*tag*/, std::vector<Diagnostic> diagnostics)
    : std::runtime_error(lines(diagnostics)), diagnostics_(std::move(diagnostics)) {}

std::string nearest(std::string_view name, std::span<const std::string_view> candidates) {
  constexpr std::size_t longest = 200;  // a whole file given as a name is compared with nothing
  if (name.size() > longest) return {};
  const std::string wanted = folded(name);
  const std::size_t few = std::max<std::size_t>(2, name.size() / 3);
  std::size_t best = few + 1;
  std::size_t best_within = longest;
  std::string_view found;
  std::string_view found_within;
  for (const std::string_view candidate : candidates) {
    const std::string known = folded(candidate);
    const std::size_t distance = edit_distance(wanted, known);
    if (distance < best && distance < std::max(name.size(), candidate.size())) {
      best = distance;
      found = candidate;
    }
    if (distance < best_within && one_within_other(wanted, known)) {
      best_within = distance;
      found_within = candidate;
    }
  }
  if (found.empty()) found = found_within;
  return found.empty() ? std::string{} : " (did you mean '" + std::string{found} + "'?)";
}

std::string listed(std::span<const std::string_view> names, std::string_view conjunction) {
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i > 0) text += i + 1 == names.size() ? " " + std::string{conjunction} + " " : ", ";
    text += "'" + std::string{names[i]} + "'";
  }
  return text;
}

}  // namespace trainyard::scenarios
