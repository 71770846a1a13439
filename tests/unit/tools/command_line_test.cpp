// The program as its users start it: what it says and its exit status.
#include <gtest/gtest.h>

#include <string>

#include "tests/support/program.hpp"

namespace trainyard {
namespace {

TEST(CommandLine, AnUnknownCommandIsNamedWithTheNearestOne) {
  expect_refused("foo", "no command is called 'foo'; choose 'run', ");
  expect_refused("runn x.yaml", "no command is called 'runn' (did you mean 'run'?)");
}

TEST(CommandLine, AnUnknownOptionIsNamedWithTheNearestOne) {
  expect_refused("run --jsn x a.yaml", "trainyard run: unknown option '--jsn' (did you mean '--json'?)");
  expect_refused("--versoin", "trainyard: unknown option '--versoin' (did you mean '--version'?)");
  expect_refused("run a.yaml b.yaml", "trainyard run: unexpected argument 'b.yaml'");
}

TEST(CommandLine, AnOptionTakesOneArgumentAndLeavesTheScenario) {
  expect_refused("run --trace-ranks 0,1 none.yaml", "none.yaml: no such file");
  expect_refused("run --set seed=1 none.yaml --set seed=2", "none.yaml: no such file");
  expect_refused("run --catalog / none.yaml", "/: expected folders called");
}

TEST(CommandLine, RanksAreNumbersBetweenCommas) {
  for (const char* ranks : {"x", "0,", ",1", "0,,1", "1e3", "99999999999999999999"})
    expect_refused(std::string{"run a.yaml --trace-ranks "} + ranks, "--trace-ranks: expected ranks such as 0,8, got");
}

TEST(CommandLine, OutputsGoToDifferentFiles) {
  expect_refused("run a.yaml --json x.json --trace ./x.json", "--trace: expected another file than that of --json");
  expect_refused("run a.yaml --layers x.csv --report x.csv", "--report: expected another file than that of --layers");
  expect_refused("run a.yaml --layers - --links -", "--layers: expected another file than that of --links");
  expect_refused("validate --csv - --json -", "--csv: expected another file than that of --json");
}

TEST(CommandLine, WhatDoesNotFitEndsWithThreeAndAdvice) {
  const std::string scenario = TRAINYARD_SOURCE_DIR "/scenarios/library/gpt-1.3b-ddp-64-a100.yaml";
  const std::string command = "run '" + scenario + "' --set model=llama2-13b --require-fit";
  const Ended ended = program(command);
  EXPECT_EQ(ended.status, 3);
  for (const char* text : {"DOES NOT FIT", "What takes most of it", "It would fit with one of these (--set)",
                           "strategy.framework=pytorch-fsdp"})
    EXPECT_NE(ended.output.find(text), std::string::npos) << text << "\n" << ended.output;
  EXPECT_EQ(program(command + " --set strategy.framework=pytorch-fsdp --set training.recompute=full").status, 0);
}

TEST(CommandLine, WhatShowsAStepOfTrainingIsRefusedForInference) {
  const std::string scenario = "run '" TRAINYARD_SOURCE_DIR "/scenarios/library/llama2-7b-inference-rtx-4090.yaml' ";
  for (const char* option : {"--trace x.json", "--links -", "--memory -", "--layers -", "--report x.html"})
    expect_refused(scenario + option, "shows a step of training, and the workload is inference");
  EXPECT_EQ(program(scenario + "--json -").status, 0);
}

TEST(CommandLine, InferenceThatDoesNotFitEndsWithThree) {
  const std::string scenario = "run '" TRAINYARD_SOURCE_DIR "/scenarios/library/llama2-7b-inference-rtx-4090.yaml' ";
  EXPECT_EQ(program(scenario + "--require-fit").status, 0);
  const Ended ended = program(scenario + "--require-fit --set inference.batch=512");
  EXPECT_EQ(ended.status, 3);
  EXPECT_NE(ended.output.find("DOES NOT FIT; up to "), std::string::npos) << ended.output;
}

TEST(CommandLine, TheMemoryTimelineIsATable) {
  const Ended ended = program("run '" TRAINYARD_SOURCE_DIR "/scenarios/library/gpt-1.3b-ddp-64-a100.yaml' --memory -");
  EXPECT_EQ(ended.status, 0);
  EXPECT_EQ(ended.output.find("time_s,parameters,gradients,optimizer,activations,buffers,allocated\n0.000000000,"), 0U)
      << ended.output.substr(0, 200);
}

TEST(CommandLine, WhatIfIsAPartOfTheResultAndOfTheSummary) {
  const std::string scenario = "run '" TRAINYARD_SOURCE_DIR "/scenarios/library/gpt-1.3b-ddp-64-a100.yaml' --what-if ";
  EXPECT_NE(program(scenario + "--json -").output.find("\"network_bandwidth_x2\": "), std::string::npos);
  EXPECT_NE(program(scenario).output.find("What would make it faster"), std::string::npos);
  expect_refused("run '" TRAINYARD_SOURCE_DIR "/scenarios/library/llama2-7b-inference-rtx-4090.yaml' --what-if",
                 "--what-if: changes a step of training, and the workload is inference");
}

TEST(CommandLine, AdviceEndsTheSummary) {
  const std::string scenario = "run '" TRAINYARD_SOURCE_DIR "/scenarios/library/gpt-1.3b-ddp-64-a100.yaml' --advise";
  const Ended ended = program(scenario);
  EXPECT_EQ(ended.status, 0);
  EXPECT_NE(ended.output.find("What limits it"), std::string::npos) << ended.output;
  EXPECT_NE(program(scenario + " --json -").output.find("\"advice\": {"), std::string::npos);
  expect_refused("run '" TRAINYARD_SOURCE_DIR "/scenarios/library/llama2-7b-inference-rtx-4090.yaml' --advise",
                 "--advise: changes how a model is trained, and the workload is inference");
}

TEST(CommandLine, CompareTakesTwoScenariosOrOneThatIsChanged) {
  const std::string file = "'" TRAINYARD_SOURCE_DIR "/scenarios/library/gpt-1.3b-ddp-64-a100.yaml'";
  expect_refused("compare " + file, "expected two scenarios or more, or one and --set-b PATH=VALUE");
  expect_refused("compare none.yaml " + file, "none.yaml: no such file");
  expect_refused("compare " + file + " --set-b strategy.bucket_cap=1", "(did you mean 'bucket_cap_mb'?)");
  const Ended ended = program("compare " + file + " --set-b training.micro_batch=4");
  EXPECT_EQ(ended.status, 0);
  for (const char* text :
       {"B against A: ", "Keys that differ", "training.micro_batch  8 -> 4", "step of A", "step of B"})
    EXPECT_NE(ended.output.find(text), std::string::npos) << text << "\n" << ended.output;
  const Ended json = program("compare " + file + " " + file + " --json - --set cluster.nodes=2");
  EXPECT_EQ(json.status, 0);
  EXPECT_EQ(json.output.find("{\n  \"schema\": 1,"), 0U) << json.output.substr(0, 200);
}

TEST(CommandLine, AFileNeedsAName) {
  expect_refused("run a.yaml --json ''", "--json: expected the name of a file");
  expect_refused("run a.yaml --trace ''", "--trace: expected the name of a file");
  expect_refused("validate --csv ''", "--csv: expected the name of a file");
}

TEST(CommandLine, CollectivesTakeKnownOperationsAndSizes) {
  expect_refused("collectives a.yaml --operation scan", "--operation");
  expect_refused("collectives a.yaml --bytes 9:8", "--bytes: expected sizes above zero, the smaller first, got '9:8'");
  expect_refused("collectives a.yaml", "a.yaml: no such file");
}

TEST(CommandLine, ClaimsComeFromFilesOrShipWithIt) {
  expect_refused("validate --claims none.yaml", "none.yaml: no such file");
  expect_refused("validate --claims --csv -", "--csv: claims have no table");
  const std::string file = TRAINYARD_SOURCE_DIR "/scenarios/claims/g21-experts-for-little-memory.yaml";
  const Ended ended = program("validate --claims '" + file + "'");
  EXPECT_EQ(ended.status, 0);
  EXPECT_NE(ended.output.find("REFUTED: for as many FLOP a token"), std::string::npos) << ended.output;
}

TEST(CommandLine, ATopologyNeedsAScenarioAndOnlyItIsDrawn) {
  expect_refused("show topology", "trainyard show topology: expected the name of a scenario file");
  expect_refused("show topology none.yaml", "none.yaml: no such file");
  expect_refused("show nodes -o x.svg", "--output: only `trainyard show topology` writes a file");
  expect_refused("show models --set a=1", "--set: only `trainyard show topology` reads a scenario");
}

TEST(CommandLine, DrawingWithoutGraphvizIsAnOutsideFailure) {
  const std::string scenario = TRAINYARD_SOURCE_DIR "/scenarios/library/gpt-1.3b-ddp-64-a100.yaml";
  const std::string command = "show topology '" + scenario + "' -o /dev/null";
  EXPECT_EQ(program(command).status, 0);
  const Ended ended = program("--version >/dev/null; PATH=/nowhere '" TRAINYARD_BINARY "' " + command);
  EXPECT_EQ(ended.status, 4);
  EXPECT_NE(ended.output.find("'neato' is not installed (Debian package graphviz)"), std::string::npos) << ended.output;
}

TEST(CommandLine, HelpThatCannotBePrintedIsAnOutsideFailure) {
  EXPECT_EQ(program("--help").status, 0);
  EXPECT_NE(program("run --help").output.find("--trace-ranks"), std::string::npos);
  EXPECT_EQ(program("--help > /dev/full").status, 4);
  EXPECT_EQ(program("--version > /dev/full").status, 4);
}

}  // namespace
}  // namespace trainyard
