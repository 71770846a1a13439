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

}  // namespace

std::string to_string(const Diagnostic& diagnostic) {
  const Location& where = diagnostic.where;
  std::string text = where.file;
  if (where.line > 0) text += ":" + std::to_string(where.line) + ":" + std::to_string(where.column);
  return text.empty() ? diagnostic.message : text + ": " + diagnostic.message;
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
  std::size_t best = std::max<std::size_t>(2, name.size() / 3) + 1;
  std::string_view found;
  for (const std::string_view candidate : candidates) {
    const std::size_t distance = edit_distance(wanted, folded(candidate));
    if (distance >= best || distance >= std::max(name.size(), candidate.size())) continue;
    best = distance;
    found = candidate;
  }
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
