#include "scenarios/claims.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/claim.hpp"
#include "tests/support/sweeps.hpp"

namespace trainyard::scenarios {
namespace {

const std::string head =
    "id: T1\n"
    "title: A test\n"
    "claim: It is so.\n"
    "decides: What comes out.\n";
const std::string run =
    "simulate:\n"
    "  one: {base: base.yaml}\n";
const std::string number = "numbers: {gpus: {what: GPUs, value: one.devices, unit: GPUs}}\n";
const std::string always = "verdict: [{verdict: depends, because: on things}]\n";

class ClaimsTest : public testing::Test {
 protected:
  ClaimResults tested(const std::vector<std::string>& texts) const {
    std::vector<std::filesystem::path> files;
    for (const std::string& text : texts)
      files.push_back(folder_.write("claim" + std::to_string(files.size()) + ".yaml", text));
    return test_claims(Claims::load(files), catalog_, {.jobs = 2});
  }
  ClaimResult tested(const std::string& text) const { return tested(std::vector{text}).claims.front(); }

  // What is said of a file, without its path.
  std::string refusal(const std::string& text) const {
    try {
      tested(text);
    } catch (const ScenarioError& error) {
      std::string message = error.what();
      const std::string path = folder_.path().string() + "/";
      for (std::size_t at = message.find(path); at != std::string::npos; at = message.find(path))
        message.erase(at, path.size());
      return message;
    }
    return "";
  }

  std::optional<double> value(const std::string& expression, const std::string& runs = run) const {
    const ClaimResult result =
        tested(head + runs + "numbers: {n: {what: n, value: \"" + expression + "\"}}\n" + always);
    EXPECT_EQ(result.failed, "");
    return result.numbers.empty() ? std::nullopt : result.numbers.front().value;
  }

  tests::SweepFolder folder_;
  Catalog catalog_;
};

TEST_F(ClaimsTest, TheFirstRuleThatHoldsDecides) {
  const auto with_nodes = [&](const std::string& nodes) {
    return tested(head + "simulate: {one: {base: base.yaml, set: {cluster.nodes: " + nodes + "}}}\n" + number +
                  "verdict:\n"
                  "  - {when: gpus < 10, verdict: confirmed, because: \"{gpus} are few\"}\n"
                  "  - {when: gpus > 20, verdict: refuted, because: \"{gpus} are many\"}\n"
                  "  - {verdict: depends, because: \"between: {gpus}\"}\n");
  };
  const ClaimResult few = with_nodes("1");
  EXPECT_EQ(few.verdict, Verdict::confirmed);
  EXPECT_EQ(few.because, "8 GPUs are few");
  EXPECT_EQ(with_nodes("2").verdict, Verdict::depends);
  EXPECT_EQ(with_nodes("2").because, "between: 16 GPUs");
  EXPECT_EQ(with_nodes("4").verdict, Verdict::refuted);
}

TEST_F(ClaimsTest, FieldsOfResultsAndEarlierNumbersAreCountedWith) {
  const ClaimResult result = tested(head + run +
                                    "numbers:\n"
                                    "  tokens: {what: tokens, value: one.tokens_per_s * one.step_time_s}\n"
                                    "  half: {what: half, value: tokens / 2}\n" +
                                    always);
  EXPECT_NEAR(result.numbers.at(0).value.value(), 64 * 512, 1e-6);
  EXPECT_NEAR(result.numbers.at(1).value.value(), 32 * 512, 1e-6);
  EXPECT_GT(value("one.communication.data.wire_bytes"), 0);
  EXPECT_EQ(value("one.communication.tensor.wire_bytes"), 0);
}

TEST_F(ClaimsTest, ARunMayRefineAnEarlierOneAndListsGoTogether) {
  const std::string runs =
      "simulate:\n"
      "  one: {base: base.yaml}\n"
      "  other: {base: one, set: {strategy.framework: pytorch-ddp}}\n"
      "  list:\n"
      "    base: other\n"
      "    over: {nodes: [1, 2, 4], batch: [64, 128, 256]}\n"
      "    set: {cluster.nodes: \"{nodes}\", training.global_batch: \"{batch}\"}\n";
  EXPECT_EQ(value("first(list, list.nodes == 2, list.devices + list.batch)", runs), 16 + 128);
  EXPECT_EQ(value("most(list, list.devices)", runs), 32);
  EXPECT_EQ(value("first(list, list.devices > 32, list.nodes)", runs), std::nullopt);
  EXPECT_EQ(value("first(list, list.devices == one.devices, list.step_time_s) - other.step_time_s", runs), 0);
}

TEST_F(ClaimsTest, WhatClaimsHaveInCommonIsSimulatedOnce) {
  const std::string two =
      head + "simulate: {a: {base: base.yaml}, b: {base: base.yaml, set: {name: other, cluster.nodes: 1}}}\n" +
      "numbers: {n: {what: n, value: a.devices + b.devices}}\n" + always;
  std::string other = two;
  other.replace(other.find("T1"), 2, "T2");
  EXPECT_EQ(tested(std::vector{two, other}).scenarios, 1U);
}

TEST_F(ClaimsTest, EstimatesAreComparedWithATolerance) {
  const auto differs = [&](const std::string& keys) {
    const ClaimResult result = tested(head + run + "numbers: {n: {what: n, " + keys + "}}\n" + always);
    return result.numbers.front().estimate.value().differs;
  };
  EXPECT_FALSE(differs("value: 10, expected: 13, source: s"));
  EXPECT_TRUE(differs("value: 10, expected: 15, source: s"));
  EXPECT_FALSE(differs("value: 10, expected: 15, source: s, tolerance: 0.5"));
  EXPECT_FALSE(differs("value: 2, expected: [1, 3], source: s"));
  EXPECT_FALSE(differs("value: 3.5, expected: [1, 3], source: s"));
  EXPECT_TRUE(differs("value: 5, expected: [1, 3], source: s"));
  EXPECT_TRUE(differs("value: 0.04, expected: 0.02, source: s, unit: s"));
  EXPECT_FALSE(differs("value: 0.035, expected: 0.02, source: s, unit: '%'"));  // within two points
  EXPECT_TRUE(differs("value: 0.05, expected: 0, source: s, unit: '%'"));
  EXPECT_TRUE(differs("value: 1 / 0, expected: 1, source: s"));
}

TEST_F(ClaimsTest, WithoutAValueAConditionDoesNotHold) {
  const ClaimResult result = tested(head + run + "numbers: {n: {what: n, value: 0 / 0}}\n" +
                                    "verdict:\n"
                                    "  - {when: n < 1, verdict: confirmed, because: x}\n"
                                    "  - {when: n >= 1, verdict: refuted, because: x}\n"
                                    "  - {verdict: depends, because: \"{n}\"}\n");
  EXPECT_EQ(result.verdict, Verdict::depends);
  EXPECT_EQ(result.because, "none");
}

TEST_F(ClaimsTest, MistakesAreReportedWhereTheyAre) {
  EXPECT_EQ(refusal("id: T1\n"),
            "claim0.yaml:1:1: missing key 'claim'\n"
            "claim0.yaml:1:1: missing key 'decides'\n"
            "claim0.yaml:1:1: missing key 'numbers'\n"
            "claim0.yaml:1:1: missing key 'simulate'\n"
            "claim0.yaml:1:1: missing key 'title'\n"
            "claim0.yaml:1:1: missing key 'verdict'");
  EXPECT_EQ(refusal(head + run + "numbers: {n: {what: n, value: oen.devices}}\n" + always),
            "claim0.yaml:7:31: numbers.n.value: no run or earlier number is called 'oen' (did you mean 'one'?); a text "
            "needs quotes");
  EXPECT_EQ(refusal(head + run + "numbers: {n: {what: n, value: one.step_time}}\n" + always),
            "claim0.yaml:7:31: numbers.n.value: results have no 'step_time' (did you mean 'step_time_s'?)");
  EXPECT_EQ(refusal(head + run + number + "verdict: [{verdict: confirmd, because: x}]\n"),
            "claim0.yaml:8:21: verdict.verdict: expected 'confirmed', 'depends' or 'refuted', got 'confirmd' (did you "
            "mean 'confirmed'?)");
  EXPECT_EQ(refusal(head + run + number + "verdict: [{verdict: depends, because: \"{gpu}\"}]\n"),
            "claim0.yaml:8:39: verdict.because: no number is called 'gpu' (did you mean 'gpus'?)");
  EXPECT_EQ(refusal(head + run + number + "verdict: [{when: gpus > 1, verdict: depends, because: x}]\n"),
            "claim0.yaml:8:11: verdict: the last has no 'when', so that there always is one");
  EXPECT_EQ(refusal(head + "simulate: {one: {base: none.yaml}}\n" + number + always),
            "claim0.yaml:5:24: base: none.yaml: no such file\n"
            "claim0.yaml:6:37: numbers.gpus.value: no run or earlier number is called 'one'; a text needs quotes");
}

TEST_F(ClaimsTest, MistakesInListsAreReportedWhereTheyAre) {
  const auto list = [&](const std::string& keys, const std::string& expression = "1") {
    return refusal(head + "simulate: {one: {base: base.yaml, " + keys + "}}\nnumbers: {n: {what: n, value: \"" +
                   expression + "\"}}\n" + always);
  };
  EXPECT_EQ(list("over: {a: [1, 2], b: [1]}"), "claim0.yaml:5:56: over: lists go together; expected 2 values, got 1");
  EXPECT_EQ(list("over: {devices: [1]}"), "claim0.yaml:5:42: over: 'devices' is a field of results; take another name");
  EXPECT_EQ(list("over: {a: [1]}, set: {cluster.nodes: \"{b}\"}"), "claim0.yaml:5:72: set: 'over' has no 'b'");
  EXPECT_EQ(
      list("over: {a: [1, 2]}", "one.devices"),
      "claim0.yaml:6:32: numbers.n.value: 'one' is a list of 2 runs; it goes into first, least, most or crossing");
}

TEST_F(ClaimsTest, AWrongScenarioIsTheFilesMistake) {
  EXPECT_EQ(refusal(head + "simulate: {one: {base: base.yaml, set: {cluster.nods: 1}}}\n" + number + always),
            "claim0.yaml:5:55: unknown key 'nods' in 'cluster' (did you mean 'nodes'?)");
  // What two keys say together is located in the base, which the run names.
  EXPECT_EQ(refusal(head + "simulate: {one: {base: base.yaml, set: {training.global_batch: 3}}}\n" + number + always)
                .find("claim0.yaml:5:12: simulate.one: base.yaml:"),
            0U);
}

TEST_F(ClaimsTest, TwoClaimsWithOneIdAreRefused) {
  const std::string claim = head + run + number + always;
  EXPECT_THROW(tested(std::vector{claim, claim}), ScenarioError);
}

TEST_F(ClaimsTest, JsonHasWhatTheContractSaysAndTextTheSame) {
  const ClaimResults results = tested(std::vector{head + run +
                                                  "numbers: {share: {what: a share, value: 0.123, unit: '%', expected: "
                                                  "0.5, source: by hand, note: it differs}}\n"
                                                  "verdict: [{verdict: refuted, because: \"only {share}\"}]\n"});
  const nlohmann::json claim = nlohmann::json::parse(to_json(results)).at("claims").at(0);
  EXPECT_EQ(claim.at("id"), "T1");
  EXPECT_EQ(claim.at("claim"), "It is so.");
  EXPECT_EQ(claim.at("verdict"), "refuted");
  EXPECT_EQ(claim.at("numbers").at("share"), 0.123);
  EXPECT_EQ(claim.at("estimates").at("share").at("differs"), true);
  const std::string text = to_text(results);
  for (const char* part : {"\"It is so.\"", "one: small, pytorch-fsdp, 8 x h100-sxm",
                           "12.3 %   estimate 50.0 % (-75 %)", "a share: it differs", "REFUTED: only 12.3 %",
                           "T1   refuted    A test", "1 claims, 1 simulations: 0 confirmed, 0 depend, 1 refuted"})
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
}

TEST(ClaimFigures, HaveThreeDigitsAndTheirUnit) {
  EXPECT_EQ(figure_text(0.2134, "%"), "21.3 %");
  EXPECT_EQ(figure_text(-0.05, "%"), "-5.0 %");
  EXPECT_EQ(figure_text(12.0, "%"), "1200 %");
  EXPECT_EQ(figure_text(1234567.8, "tokens/s"), "1,234,568 tokens/s");
  EXPECT_EQ(figure_text(-1234.0, ""), "-1,234");
  EXPECT_EQ(figure_text(512.0, "GPUs"), "512 GPUs");
  EXPECT_EQ(figure_text(3.14159, "x"), "3.14 x");
  EXPECT_EQ(figure_text(0.0314159, "s"), "0.0314 s");
  EXPECT_EQ(figure_text(99.96, ""), "100");
  EXPECT_EQ(figure_text(0.00001, "s"), "1e-05 s");
  EXPECT_EQ(figure_text(std::nullopt, "s"), "none");
}

}  // namespace
}  // namespace trainyard::scenarios
