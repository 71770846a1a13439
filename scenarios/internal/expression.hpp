// Expressions over named values, such as conditions of a sweep: "strategy.tensor * strategy.pipeline <= devices and
// model != gpt3-175b".
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "scenarios/diagnostics.hpp"

namespace trainyard::scenarios {

// What a name, or a part of an expression, stands for.
using ExpressionValue = std::variant<bool, double, std::string>;

// Comparisons (== != < <= > >=) of sums, products and single values, joined by `and`, `or`, `not` and parentheses.
// A word is a key path, a number, true, false, or else a text; quotes make it a text in any case. Minus and divided by
// need spaces around them, since names have dashes and slashes in them.
class Expression {
 public:
  // The value at a key path; nothing where the scenario does not have the key.
  using Lookup = std::function<std::optional<ExpressionValue>(std::string_view path)>;
  // Whether a word is a key path, rather than a text.
  using IsPath = std::function<bool(std::string_view word)>;

  // Throws ScenarioError, at the letter that is wrong, where `text` starts at `where`.
  Expression(std::string_view text, const Location& where, const IsPath& is_path);
  ~Expression();
  Expression(Expression&&) noexcept;
  Expression& operator=(Expression&&) noexcept;

  // Nothing where it compares what the scenario does not say: the condition does not apply to it. Throws ScenarioError
  // where values cannot be compared or counted with.
  std::optional<bool> holds(const Lookup& lookup) const;

  struct Node;

 private:
  std::unique_ptr<const Node> root_;
};

}  // namespace trainyard::scenarios
