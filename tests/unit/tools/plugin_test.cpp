// Strategies from outside: what the program says to libraries that it cannot use, and to strategies that fail.
#include "strategies/plugin.hpp"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/program.hpp"

namespace trainyard {
namespace {

const std::string scenario = "'" TRAINYARD_SOURCE_DIR "/scenarios/library/gpt-1.3b-ddp-64-a100.yaml'";

std::string library(const std::string& name) { return TRAINYARD_PLUGIN_FOLDER "/" + name + ".so"; }
std::string plugin(const std::string& name) { return " --plugin '" + library(name) + "'"; }

std::string run_with(const std::string& framework) {
  return "run " + scenario + plugin("faulty") + " --set 'strategy={framework: " + framework + "}'";
}

TEST(Plugin, AFileThatIsNoSharedLibraryIsRefused) {
  expect_refused("show frameworks --plugin none.so", "none.so: no such file");
  expect_refused("show frameworks --plugin /", "/: expected a shared library, got a folder");
  expect_refused("show frameworks --plugin " + scenario,
                 ".yaml: expected a shared library with strategies (strategies/plugin.hpp), got another kind of file");
}

TEST(Plugin, ALibraryWithoutTheFunctionIsRefused) {
  expect_refused("show frameworks" + plugin("no_function"),
                 "no_function.so: exports no function 'trainyard_plugin': expected a library of strategies");
}

TEST(Plugin, AnotherVersionOfTheInterfaceIsRefusedByName) {
  expect_refused("show frameworks" + plugin("another_version"),
                 "another_version.so: was built for version " + std::to_string(strategies::interface_version + 2) +
                     " of the strategy interface, this trainyard has version " +
                     std::to_string(strategies::interface_version) + ": rebuild it");
}

TEST(Plugin, OtherHeadersOfTheSameVersionAreRefused) {
  expect_refused("show frameworks" + plugin("another_layout"),
                 "another_layout.so: was built with other headers or another standard library than this trainyard");
}

TEST(Plugin, AMissingFunctionIsNamedWhenTheLibraryIsLoaded) {
  expect_refused("show frameworks" + plugin("needs_more"),
                 "needs_more.so: needs a function that this trainyard does not have, rebuild it: undefined symbol: ");
}

TEST(Plugin, EveryCommandTakesLibrariesAndReportsAllMistakesInAnyOrder) {
  const std::string libraries = plugin("no_function") + plugin("another_version") + " ";
  const std::string reversed = plugin("another_version") + plugin("no_function") + " ";
  for (const std::string command : {"run ", "collectives ", "show topology "}) {
    const Ended ended = program(command + scenario + libraries);
    EXPECT_EQ(ended.status, 2) << command << "\n" << ended.output;
    EXPECT_NE(ended.output.find("another_version.so: was built"), std::string::npos) << ended.output;
    EXPECT_NE(ended.output.find("no_function.so: exports no"), std::string::npos) << ended.output;
    EXPECT_EQ(program(command + scenario + reversed).output, ended.output);
  }
  expect_refused("validate" + libraries, "another_version.so: was built");
}

TEST(Plugin, AFrameworkThatExistsIsRefused) {
  expect_refused("show frameworks" + plugin("taken_name"),
                 "taken_name.so: there is a framework 'pytorch-ddp' already, built in");
  expect_refused("show frameworks" + plugin("faulty") + plugin("faulty"),
                 "faulty.so: there is a framework 'stalls' already, from " + library("faulty"));
}

TEST(Plugin, FrameworksAreListedAndSuggested) {
  const Ended shown = program("show frameworks" + plugin("faulty"));
  EXPECT_EQ(shown.status, 0);
  EXPECT_NE(shown.output.find("fails-in-check"), std::string::npos) << shown.output;
  EXPECT_NE(shown.output.find("throws when a job is checked (" + library("faulty") + ")"), std::string::npos)
      << shown.output;
  EXPECT_EQ(program("show frameworks").output.find("fails-in-check"), std::string::npos);
  expect_refused(run_with("fails-in-chekc"), "got 'fails-in-chekc' (did you mean 'fails-in-check'?)");
  expect_refused("show frameworks fails-in-chekc" + plugin("faulty"), "(did you mean 'fails-in-check'?)");
}

TEST(Plugin, AFailureInsideIsReportedAtTheLibrary) {
  const std::string at = library("faulty") + ": the plug-in's framework '";
  expect_refused(run_with("fails-in-keys"), at + "fails-in-keys' failed in keys(): no keys today");
  expect_refused("show frameworks fails-in-keys" + plugin("faulty"), at + "fails-in-keys' failed in keys(): no keys");
  expect_refused(run_with("fails-in-check"), at + "fails-in-check' failed in check(): the third layer is missing");
  expect_refused(run_with("fails-in-plan"), at + "fails-in-plan' failed in plan(): it threw something that is no");
  expect_refused(run_with("makes-nothing"), at + "makes-nothing' makes no strategy");
}

TEST(Plugin, APlanThatCannotRunIsReportedAtTheLibrary) {
  expect_refused(run_with("stalls"),
                 library("faulty") + ": the plug-in's framework 'stalls' wrote a plan that cannot run: the simulated");
}

TEST(Plugin, APlanThatBreaksARuleOfPlansIsReportedAtTheLibrary) {
  const std::string at = library("faulty") + ": the plug-in's framework '";
  expect_refused(run_with("breaks-a-rule"),
                 at + "breaks-a-rule' built an invalid plan: not true that a plan has between");
  expect_refused(
      run_with("breaks-a-rule-early"),
      at + "breaks-a-rule-early' failed in plan(): it breaks a rule: not true that a rank communicates only");
}

TEST(Plugin, WhatIsTooLargeIsTheScenariosFault) {
  expect_refused(run_with("too-large"), "gpt-1.3b-ddp-64-a100.yaml: too large to simulate: ");
}

}  // namespace
}  // namespace trainyard
