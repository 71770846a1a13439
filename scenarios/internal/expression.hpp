// Expressions over named values, such as conditions of a sweep: "strategy.tensor * strategy.pipeline <= devices and
// model != gpt3-175b".
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "scenarios/diagnostics.hpp"

namespace trainyard::scenarios {

// What a name, or a part of an expression, stands for.
using ExpressionValue = std::variant<bool, double, std::string>;

// Comparisons (== != < <= > >=) of sums, products and single values, joined by `and`, `or`, `not` and parentheses.
// A word is a path, a number, true, false, or else a text; quotes make it a text in any case. Minus and divided by
// need spaces around them, since names have dashes and slashes in them.
//
//     min(a, b, …), max(a, b, …)      of numbers
//     known(a)                        whether a has a value
// and of a list, whose name stands for one of its points in what follows:
//     first(list, condition, value)   value at the first point for which the condition holds
//     least(list, value), most(list, value)
//     crossing(list, x, y, level)     the first x at which y reaches the level from either side; between two points y
//                                     is a straight line over x, or over its logarithm where x is above zero
class Expression {
 public:
  // The value at a path; nothing where there is none.
  using Lookup = std::function<std::optional<ExpressionValue>(std::string_view path)>;
  // What words stand for where an expression is worked out.
  struct Scope {
    Lookup value;
    // Each of a list, with its name for the point.
    std::function<std::vector<Scope>(std::string_view list)> points = {};
  };
  // How words are told apart, and what a message begins with.
  struct Words {
    std::function<bool(std::string_view word)> is_path;  // rather than a text
    std::function<bool(std::string_view word)> is_list = {};
    std::string subject = "where";
  };
  // A path in an expression, and the lists whose functions it stands in.
  struct Name {
    std::string path;
    Location where;
    std::vector<std::string> lists;
  };

  // Throws ScenarioError, at the letter that is wrong, where `text` starts at `where`.
  Expression(std::string_view text, const Location& where, const Words& words);
  ~Expression();
  Expression(Expression&&) noexcept;
  Expression& operator=(Expression&&) noexcept;

  // Nothing where it needs what has no value: a condition that compares what a scenario does not say does not apply to
  // it. These throw ScenarioError where values cannot be compared or counted with.
  std::optional<ExpressionValue> value(const Scope& scope) const;
  std::optional<double> number(const Scope& scope) const;
  std::optional<bool> holds(const Scope& scope) const;

  const std::vector<Name>& names() const { return names_; }

  struct Node;

 private:
  std::unique_ptr<const Node> root_;
  std::string subject_;
  std::vector<Name> names_;
};

}  // namespace trainyard::scenarios
