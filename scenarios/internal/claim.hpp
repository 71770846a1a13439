// A claim as its file has it: scenarios to simulate, and expressions over their results.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/claims.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/internal/expression.hpp"

namespace trainyard::scenarios {

// One simulation.
struct ClaimPoint {
  std::map<std::string, ExpressionValue, std::less<>> variables;  // of `over`
  std::map<std::string, std::string, std::less<>> texts;          // the same as they are written
  Value scenario;
};

struct ClaimRun {
  std::string name;
  Location where;
  bool list = false;
  std::vector<std::string> variables;
  std::vector<ClaimPoint> points;  // one where it is no list
};

struct ClaimNumber {
  std::string name;
  std::string what;
  std::string unit;
  Expression value;
  std::optional<double> expected_least;
  std::optional<double> expected_most;
  double tolerance = 0;  // of `expected`, as a share
  std::string source;
  std::string note;
};

struct ClaimRule {
  std::optional<Expression> when;  // absent: always
  Verdict verdict = Verdict::depends;
  std::string because;  // with names of numbers in braces
};

struct Claim {
  std::string id;
  Location where;
  std::string title;
  std::string claim;
  std::string section;
  std::string decides;
  std::string note;
  std::vector<ClaimRun> runs;
  std::vector<ClaimNumber> numbers;
  std::vector<ClaimRule> rules;
};

// Reads a file that a claim names, by its path.
using ReadScenarioFile = Value (*)(const std::string& path);

// Throws ScenarioError with all that is wrong. Files that it names lie beside `document`'s own.
Claim read_claim(const Value& document, ReadScenarioFile read_file);

// Calls `text` with what stands between braces, and `name` with what is inside of them, in order. False where a brace
// has no other.
template <class Text, class Name>
bool split_braces(std::string_view whole, Text text, Name name) {
  while (true) {
    const std::size_t open = whole.find('{');
    text(whole.substr(0, open));
    if (open == std::string_view::npos) return true;
    const std::size_t close = whole.find('}', open);
    if (close == std::string_view::npos) return false;
    name(whole.substr(open + 1, close - open - 1));
    whole.remove_prefix(close + 1);
  }
}

}  // namespace trainyard::scenarios
