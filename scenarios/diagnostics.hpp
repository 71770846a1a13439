// What is wrong with an input, and where.
#pragma once

#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace trainyard::scenarios {

// A place in a file. Line 0: the whole of it, or what is no file, e.g. "--set cluster.nodes=x".
struct Location {
  std::string file;
  int line = 0;
  int column = 0;
  bool operator==(const Location&) const = default;
};

struct Diagnostic {
  Location where;
  std::string message;
  bool operator==(const Diagnostic&) const = default;
};

// "file:line:column: message"
std::string to_string(const Diagnostic& diagnostic);

// Wrong input. Holds everything that was found, sorted by place, each once; what() has one line for each.
class ScenarioError : public std::runtime_error {
 public:
  explicit ScenarioError(std::vector<Diagnostic> diagnostics);
  ScenarioError(Location where, std::string message);
  const std::vector<Diagnostic>& diagnostics() const { return diagnostics_; }

 private:
  struct Sorted {};
  ScenarioError(Sorted, std::vector<Diagnostic> diagnostics);

  std::vector<Diagnostic> diagnostics_;
};

// The text with its control characters written out ("\x1b"), so that none reaches a terminal.
std::string printable(std::string_view text);

// " (did you mean 'tensor'?)", or nothing where no candidate is close: few letters apart, or one name within the other.
// Case, '-' and '_' make no difference.
std::string nearest(std::string_view name, std::span<const std::string_view> candidates);

// "'a', 'b' or 'c'"
std::string listed(std::span<const std::string_view> names, std::string_view conjunction = "or");

}  // namespace trainyard::scenarios
