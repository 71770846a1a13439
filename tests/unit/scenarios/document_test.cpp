#include "scenarios/internal/document.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <random>
#include <string>
#include <vector>

namespace trainyard::scenarios {
namespace {

std::string error_of(const std::string& text) {
  try {
    parse_yaml(text, "a.yaml");
    return "";
  } catch (const ScenarioError& error) {
    return error.what();
  }
}

std::string error_of_override(const std::string& text, const std::string& assignment) {
  Value root = parse_yaml(text, "a.yaml");
  try {
    apply_override(root, assignment);
    return "";
  } catch (const ScenarioError& error) {
    return error.what();
  }
}

// Flow style, for comparisons.
std::string printed(const Value& value) {
  std::string text;
  switch (value.kind) {
    case Value::Kind::null:
      return "~";
    case Value::Kind::scalar:
      return value.scalar;
    case Value::Kind::map:
      for (const Entry& entry : value.entries)
        text += (text.empty() ? "" : ", ") + entry.key.scalar + ": " + printed(entry.value);
      return "{" + text + "}";
    case Value::Kind::sequence:
      for (const Value& item : value.items) text += (text.empty() ? "" : ", ") + printed(item);
      return "[" + text + "]";
  }
  return text;
}

std::string overridden(const std::string& text, const std::string& assignment) {
  Value root = parse_yaml(text, "a.yaml");
  apply_override(root, assignment);
  return printed(root);
}

TEST(Document, ValuesKnowWhereTheyWereWritten) {
  const Value root = parse_yaml("name: x\ncluster:\n  nodes: 8\n", "a.yaml");
  EXPECT_EQ(root.find("cluster")->find("nodes")->where, (Location{"a.yaml", 3, 10}));
  EXPECT_EQ(root.entries[1].key.where, (Location{"a.yaml", 2, 1}));
}

TEST(Document, QuotesMakeText) {
  const Value root = parse_yaml("{a: '8', b: 8, c: !!str 8}", "a.yaml");
  EXPECT_TRUE(root.find("a")->quoted);
  EXPECT_FALSE(root.find("b")->quoted);
  EXPECT_TRUE(root.find("c")->quoted);
}

TEST(Document, JsonIsReadTheSameWay) {
  const Value root =
      parse_yaml("{\n\t\"hidden_size\": 8192,\n  \"rope_scaling\": null, \"a\": [true, \"x/\"]}", "c.json");
  EXPECT_EQ(root.find("hidden_size")->scalar, "8192");
  EXPECT_EQ(root.find("hidden_size")->where.line, 2);
  EXPECT_TRUE(root.find("rope_scaling")->is_null());
  EXPECT_EQ(root.find("a")->items.size(), 2U);
}

TEST(Document, AliasesAreCopies) {
  EXPECT_EQ(printed(parse_yaml("a: &x {n: 1}\nb: *x\n", "a.yaml")), "{a: {n: 1}, b: {n: 1}}");
}

TEST(Document, WhatIsNoSingleDocumentIsRefused) {
  EXPECT_EQ(error_of(""), "a.yaml: the file is empty");
  EXPECT_EQ(error_of("# nothing\n"), "a.yaml: the file is empty");
  EXPECT_EQ(error_of("a: 1\n---\nb: 1\n"), "a.yaml: expected one document, found several");
  EXPECT_EQ(error_of(std::string("a: \0", 4)), "a.yaml:1:1: not a text file");
}

TEST(Document, BadSyntaxIsReportedWhereItStands) {
  EXPECT_EQ(error_of("a: [1, 2\nb: 3\n").substr(0, 9), "a.yaml:2:");
  EXPECT_FALSE(error_of("a: b: c").empty());
  EXPECT_FALSE(error_of("*unknown").empty());
  EXPECT_FALSE(error_of("[1, 2]: 3").empty());
}

TEST(Document, AbsurdDepthAndSizeAreReportedNotSuffered) {
  EXPECT_FALSE(error_of(std::string(200'000, '[')).empty());
  EXPECT_FALSE(error_of(std::string(100'000, '{')).empty());
  EXPECT_NE(error_of(std::string(150, '[') + std::string(150, ']')).find("too deeply"), std::string::npos);
  EXPECT_NE(error_of(std::string(5U << 20U, 'a')).find("larger than"), std::string::npos);
  std::string laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string last = "*a" + std::to_string(i - 1);
    laughs += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + last;
    for (int j = 0; j < 9; ++j) laughs += ", " + last;
    laughs += "]\n";
  }
  EXPECT_NE(error_of(laughs).find("too many values"), std::string::npos);
  EXPECT_NE(error_of("a: &x [*x]").find("contains it"), std::string::npos);
}

TEST(Document, FilesThatCannotBeReadAreReported) {
  EXPECT_THROW(read_document("no/such/file.yaml"), ScenarioError);
  EXPECT_THROW(read_document(std::filesystem::temp_directory_path()), ScenarioError);
}

TEST(Document, MapsMergeAndAllElseIsReplaced) {
  const Value base = parse_yaml("{a: {x: 1, y: 2}, b: [1, 2], c: 3}", "a.yaml");
  const Value refinement = parse_yaml("{a: {y: 3, z: 4}, b: [5], d: 6}", "b.yaml");
  EXPECT_EQ(printed(merged(base, refinement)), "{a: {x: 1, y: 3, z: 4}, b: [5], c: 3, d: 6}");
}

TEST(Document, AKeyGivenTwiceSurvivesAMerge) {
  const Value base = parse_yaml("{a: 1}", "a.yaml");
  EXPECT_EQ(printed(merged(base, parse_yaml("{a: 2, a: 3}", "b.yaml"))), "{a: 2, a: 3}");
}

TEST(Document, AnOverrideReplacesAndAddsValues) {
  EXPECT_EQ(overridden("{cluster: {nodes: 8}}", "cluster.nodes=128"), "{cluster: {nodes: 128}}");
  EXPECT_EQ(overridden("{a: 1}", "strategy.tensor=8"), "{a: 1, strategy: {tensor: 8}}");
  EXPECT_EQ(overridden("{a: 1}", "a={b: [1, 2]}"), "{a: {b: [1, 2]}}");
  EXPECT_EQ(overridden("{a: 1}", "a=200 Gbit/s"), "{a: 200 Gbit/s}");
  EXPECT_EQ(overridden("{a: 1}", "a=x=y"), "{a: x=y}");
}

TEST(Document, AnOverrideInsideANameMakesItTheBase) {
  EXPECT_EQ(overridden("{cluster: {node: dgx-h100}}", "cluster.node.nics=4"),
            "{cluster: {node: {base: dgx-h100, nics: 4}}}");
  EXPECT_EQ(overridden("{cluster: {node: dgx-h100}}", "cluster.node.base=dgx-a100-80gb"),
            "{cluster: {node: {base: dgx-a100-80gb}}}");
}

TEST(Document, AnOverrideReachesIntoLists) {
  EXPECT_EQ(overridden("{a: [{b: 1}, {b: 2}]}", "a.1.b=3"), "{a: [{b: 1}, {b: 3}]}");
  EXPECT_EQ(error_of_override("{a: [1]}", "a.1=3"), "--set a.1=3: '1' in 'a.1' is no place in a list of 1");
}

TEST(Document, AMalformedOverrideIsReportedAtTheOption) {
  EXPECT_EQ(error_of_override("{a: 1}", "a"), "--set a: expected PATH=VALUE, such as cluster.nodes=128");
  EXPECT_EQ(error_of_override("{a: 1}", "=1"), "--set =1: expected PATH=VALUE, such as cluster.nodes=128");
  EXPECT_EQ(error_of_override("{a: 1}", "a..b=1"), "--set a..b=1: 'a..b' is no path of keys");
  EXPECT_EQ(error_of_override("{a: 1}", "a="), "--set a=: expected a value");
  EXPECT_EQ(error_of_override("{a: 1}", "a=[1").substr(0, 12), "--set a=[1: ");
}

// Any input is a tree or a ScenarioError.
TEST(Document, MutilatedFilesNeverCrash) {
  const std::string original =
      "name: &n \"x\"\ncluster: {node: dgx-h100, nodes: 8}\nlist:\n  - *n\n  - |\n    text\n? k\n: v\n";
  const std::string letters = "{}[]:,-&*!|>'\"%@`#?~ \n\tab1\xC3";
  for (unsigned seed = 0; seed < 3000; ++seed) {
    std::mt19937 random{seed};
    std::string text = original;
    for (int i = 0; i < 6; ++i) text[random() % text.size()] = letters[random() % letters.size()];
    SCOPED_TRACE("seed " + std::to_string(seed));
    error_of(text.substr(0, random() % (text.size() + 1)));
  }
}

}  // namespace
}  // namespace trainyard::scenarios
