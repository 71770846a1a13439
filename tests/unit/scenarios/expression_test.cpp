#include "scenarios/internal/expression.hpp"

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>

namespace trainyard::scenarios {
namespace {

const std::map<std::string, ExpressionValue, std::less<>> keys{{"cluster.nodes", 16.0},
                                                               {"strategy.tensor", 8.0},
                                                               {"strategy.framework", "megatron-lm"},
                                                               {"training.compile", true},
                                                               {"devices", 128.0}};

bool is_path(std::string_view word) { return word == "devices" || word.find('.') != std::string_view::npos; }

std::optional<bool> holds(const std::string& text) {
  return Expression(text, {}, is_path).holds([](std::string_view path) -> std::optional<ExpressionValue> {
    const auto found = keys.find(path);
    if (found == keys.end()) return std::nullopt;
    return found->second;
  });
}

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
      Expression(text, {.file = "s.yaml", .line = 3, .column = 10}, is_path);
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
  EXPECT_NE(at(std::string(200, '(')).find("nested too deeply"), std::string::npos);
  EXPECT_NE(at(std::string(200, '!')).find("nested too deeply"), std::string::npos);
}

TEST(ExpressionTest, OnlyNumbersAreOrderedAndOnlyTruthIsJoined) {
  EXPECT_NE(refusal("strategy.framework < 3").find("expected numbers on both sides"), std::string::npos);
  EXPECT_NE(refusal("cluster.nodes").find("expected a comparison"), std::string::npos);
  EXPECT_NE(refusal("cluster.nodes and 1 == 1").find("expected a comparison"), std::string::npos);
}

}  // namespace
}  // namespace trainyard::scenarios
