#include "scenarios/internal/expression.hpp"

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace trainyard::scenarios {
namespace {

const std::map<std::string, ExpressionValue, std::less<>> keys{{"cluster.nodes", 16.0},
                                                               {"strategy.tensor", 8.0},
                                                               {"strategy.framework", "megatron-lm"},
                                                               {"training.compile", true},
                                                               {"devices", 128.0}};

const Expression::Words words{
    .is_path = [](std::string_view word) { return word == "devices" || word.find('.') != std::string_view::npos; }};

std::optional<ExpressionValue> value_of(std::string_view path) {
  const auto found = keys.find(path);
  if (found == keys.end()) return std::nullopt;
  return found->second;
}

std::optional<bool> holds(const std::string& text) { return Expression(text, {}, words).holds({.value = value_of}); }

std::string refusal(const std::string& text) {
  try {
    holds(text);
  } catch (const ScenarioError& error) {
    return error.what();
  }
  return "";
}

TEST(ExpressionTest, NumbersAreComparedAndCountedWith) {
  EXPECT_EQ(holds("cluster.nodes == 16"), true);
  EXPECT_EQ(holds("cluster.nodes != 16"), false);
  EXPECT_EQ(holds("cluster.nodes < 17"), true);
  EXPECT_EQ(holds("cluster.nodes <= 15.5"), false);
  EXPECT_EQ(holds("cluster.nodes > 15"), true);
  EXPECT_EQ(holds("cluster.nodes >= 17"), false);
  EXPECT_EQ(holds("strategy.tensor * cluster.nodes = devices"), true);
  EXPECT_EQ(holds("devices / cluster.nodes - strategy.tensor + 1 == 1"), true);
  EXPECT_EQ(holds("devices > -1"), true);
}

TEST(ExpressionTest, ProductsBindBeforeSumsBeforeComparisonsBeforeNotBeforeAndBeforeOr) {
  EXPECT_EQ(holds("1 + 2 * 3 == 7"), true);
  EXPECT_EQ(holds("(1 + 2) * 3 == 9"), true);
  EXPECT_EQ(holds("8 - 4 - 2 == 2"), true);
  EXPECT_EQ(holds("1 == 1 or 1 == 2 and 1 == 3"), true);
  EXPECT_EQ(holds("(1 == 1 or 1 == 2) and 1 == 3"), false);
  EXPECT_EQ(holds("not 1 == 2 and 1 == 1"), true);
  EXPECT_EQ(holds("!(1 == 1) || 2 < 3 && 3 < 4"), true);
}

TEST(ExpressionTest, NamesMayHaveDashesAndAreTextWhereTheyAreNoPath) {
  EXPECT_EQ(holds("strategy.framework == megatron-lm"), true);
  EXPECT_EQ(holds("strategy.framework == 'megatron-lm'"), true);
  EXPECT_EQ(holds("strategy.framework != pytorch-ddp"), true);
  EXPECT_EQ(holds("training.compile == true"), true);
  EXPECT_EQ(holds("strategy.framework != h\u00e9t\u00e9rog\u00e8ne"), true);
  EXPECT_EQ(holds("training.compile"), true);
}

TEST(ExpressionTest, WhatTheScenarioDoesNotSayDoesNotDecide) {
  EXPECT_EQ(holds("strategy.pipeline > 4"), std::nullopt);
  EXPECT_EQ(holds("not strategy.pipeline > 4"), std::nullopt);
  EXPECT_EQ(holds("strategy.pipeline > 4 or cluster.nodes == 16"), true);
  EXPECT_EQ(holds("cluster.nodes == 1 and strategy.pipeline > 4"), false);
  EXPECT_EQ(holds("strategy.pipeline > 4 and cluster.nodes == 16"), std::nullopt);
}

TEST(ExpressionTest, MistakesAreReportedAtTheirLetter) {
  const auto at = [](const std::string& text) {
    try {
      Expression(text, {.file = "s.yaml", .line = 3, .column = 10}, words);
    } catch (const ScenarioError& error) {
      return std::string{error.what()};
    }
    return std::string{};
  };
  EXPECT_EQ(at("cluster.nodes == "), "s.yaml:3:27: where: expected a key, a number or a word at the end");
  EXPECT_EQ(at("(1 == 1"), "s.yaml:3:17: where: a parenthesis is not closed");
  EXPECT_EQ(at("1 == 1 1"), "s.yaml:3:17: where: expected 'and', 'or' or the end, got '1'");
  EXPECT_EQ(at("a == 'b"), "s.yaml:3:15: where: a quote is not closed");
  EXPECT_EQ(at("* 3"), "s.yaml:3:10: where: expected a key, a number or a word, got '*'");
  EXPECT_EQ(at("1 < mix(2, 3)"),
            "s.yaml:3:14: where: no function is called 'mix' (did you mean 'min'?); there are 'min', 'max', 'known', "
            "'first', 'least', 'most' and 'crossing'");
  EXPECT_EQ(at("known(1, 2)"), "s.yaml:3:10: where: expected known(a)");
  EXPECT_EQ(at("max()"), "s.yaml:3:14: where: expected a key, a number or a word, got ')'");
  EXPECT_EQ(at("least(devices, devices)"), "s.yaml:3:16: where: expected least(list, value), but 'devices' is no list");
  EXPECT_NE(at(std::string(200, '(')).find("nested too deeply"), std::string::npos);
  EXPECT_NE(at(std::string(200, '!')).find("nested too deeply"), std::string::npos);
}

TEST(ExpressionTest, OnlyNumbersAreOrderedAndOnlyTruthIsJoined) {
  EXPECT_NE(refusal("strategy.framework < 3").find("expected numbers on both sides"), std::string::npos);
  EXPECT_NE(refusal("cluster.nodes").find("expected a comparison"), std::string::npos);
  EXPECT_NE(refusal("cluster.nodes and 1 == 1").find("expected a comparison"), std::string::npos);
}

TEST(ExpressionTest, FunctionsTakeExpressions) {
  EXPECT_EQ(holds("min(strategy.tensor, 2 + 1, 5) == 3"), true);
  EXPECT_EQ(holds("max(strategy.tensor, 2 * 4.5) == 9"), true);
  EXPECT_EQ(holds("max(strategy.tensor, strategy.pipeline) == 9"), std::nullopt);
  EXPECT_EQ(holds("known(strategy.tensor) and not known(strategy.pipeline)"), true);
  EXPECT_NE(refusal("min(strategy.framework, 1) == 1").find("expected a number"), std::string::npos);
}

// A list of points with an x and a y, some without y.
class ListTest : public testing::Test {
 protected:
  std::optional<double> number(const std::string& text) const {
    const Expression::Words names{.is_path = [](std::string_view word) { return word.starts_with("curve."); },
                                  .is_list = [](std::string_view word) { return word == "curve"; }};
    return Expression(text, {}, names).number({.value = value_of, .points = [this](std::string_view) {
                                                 std::vector<Expression::Scope> scopes;
                                                 for (const auto& [x, y] : points_)
                                                   scopes.push_back({.value = [x = x, y = y](std::string_view path) {
                                                     return path == "curve.x" ? std::optional<ExpressionValue>{x} : y;
                                                   }});
                                                 return scopes;
                                               }});
  }

  std::vector<std::pair<double, std::optional<ExpressionValue>>> points_{{1, 0.8}, {2, 0.6},  {4, std::nullopt},
                                                                         {8, 0.2}, {16, 0.2}, {32, 0.4}};
};

TEST_F(ListTest, TheFirstPointThatMeetsACondition) {
  EXPECT_EQ(number("first(curve, curve.y < 0.7, curve.x)"), 2);
  EXPECT_EQ(number("first(curve, curve.x > 2, curve.x * 10)"), 40);
  EXPECT_EQ(number("first(curve, curve.y > 1, curve.x)"), std::nullopt);
}

TEST_F(ListTest, LeastAndMostLeaveOutWhatHasNoValue) {
  EXPECT_EQ(number("least(curve, curve.y)"), 0.2);
  EXPECT_EQ(number("most(curve, curve.y + 1)"), 1.8);
  points_ = {{1, std::nullopt}};
  EXPECT_EQ(number("most(curve, curve.y)"), std::nullopt);
}

TEST_F(ListTest, ACrossingLiesBetweenItsPointsOnALogarithmicScale) {
  EXPECT_DOUBLE_EQ(*number("crossing(curve, curve.x, curve.y, 0.4)"), 4);  // halfway from 2 to 8
  EXPECT_EQ(number("crossing(curve, curve.x, curve.y, 0.8)"), 1);
  EXPECT_EQ(number("crossing(curve, curve.x, curve.y, 0.9)"), std::nullopt);
  EXPECT_DOUBLE_EQ(*number("crossing(curve, curve.x - 2, curve.y, 0.4)"), 3);  // begins at -1: a straight line
}

TEST_F(ListTest, NamesAreKnownWithTheListsAroundThem) {
  const Expression::Words names{.is_path = [](std::string_view) { return true; },
                                .is_list = [](std::string_view word) { return word == "curve"; }};
  const Expression expression("a + first(curve, curve.y < b, c) / d", {.file = "s.yaml", .line = 3, .column = 10},
                              names);
  std::string text;
  for (const Expression::Name& name : expression.names())
    text += name.path + " " + std::to_string(name.where.column) + (name.lists.empty() ? "; " : " in a list; ");
  EXPECT_EQ(text, "a 10; curve.y 27 in a list; b 37 in a list; c 40 in a list; d 45; ");
}

}  // namespace
}  // namespace trainyard::scenarios
