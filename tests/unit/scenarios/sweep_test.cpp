#include "scenarios/sweep.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/internal/scenario_hash.hpp"
#include "tests/support/sweeps.hpp"

namespace trainyard::scenarios {
namespace {

using tests::SweepFolder;

std::vector<std::string> parameters(const Sweep& sweep) {
  std::vector<std::string> all;
  for (const SweepPoint& point : sweep.points()) all.push_back(to_json(point.parameters));
  return all;
}

class SweepTest : public testing::Test {
 protected:
  Sweep load(const std::string& text) {
    return Sweep::load(folder_.write("sweep.yaml", "base: base.yaml\n" + text), catalog_);
  }
  std::string refusal(const std::string& text) {
    try {
      load(text);
    } catch (const ScenarioError& error) {
      std::string what = error.what();
      const std::string path = (folder_.path() / "").string();
      for (std::size_t at = what.find(path); at != std::string::npos; at = what.find(path)) what.erase(at, path.size());
      return what;
    }
    return "";
  }

  SweepFolder folder_;
  Catalog catalog_;
};

TEST_F(SweepTest, KeysAreCombinedWithEachOtherAndTheLastVariesFastest) {
  const Sweep sweep = load("vary: {cluster.nodes: [1, 2], training.micro_batch: [1, 2]}\n");
  EXPECT_EQ(parameters(sweep),
            (std::vector<std::string>{
                R"({"cluster.nodes":1,"training.micro_batch":1})", R"({"cluster.nodes":1,"training.micro_batch":2})",
                R"({"cluster.nodes":2,"training.micro_batch":1})", R"({"cluster.nodes":2,"training.micro_batch":2})"}));
  EXPECT_EQ(sweep.name(), "sweep");
  EXPECT_EQ(sweep.parameter_paths(), (std::vector<std::string>{"cluster.nodes", "training.micro_batch"}));
}

TEST_F(SweepTest, MapsAndListsOfEqualLengthVaryKeysTogether) {
  const std::vector<std::string> both{R"({"cluster.nodes":1,"training.global_batch":16})",
                                      R"({"cluster.nodes":2,"training.global_batch":32})"};
  EXPECT_EQ(parameters(load("vary: {scale: {cluster.nodes: [1, 2], training.global_batch: [16, 32]}}\n")), both);
  EXPECT_EQ(parameters(load("vary: {scale: [{cluster.nodes: 1, training.global_batch: 16}, "
                            "{cluster.nodes: 2, training.global_batch: 32}]}\n")),
            both);
  EXPECT_EQ(parameters(load("vary: [{cluster.nodes: 1, training.global_batch: 16}, "
                            "{cluster.nodes: 2, training.global_batch: 32}]\n")),
            both);
}

TEST_F(SweepTest, AListOfMapsWithListsIsOneProductForEach) {
  EXPECT_EQ(parameters(load("vary: [{cluster.nodes: [1, 2]}, {cluster.nodes: 4, training.micro_batch: [1, 2]}]\n")),
            (std::vector<std::string>{R"({"cluster.nodes":1})", R"({"cluster.nodes":2})",
                                      R"({"cluster.nodes":4,"training.micro_batch":1})",
                                      R"({"cluster.nodes":4,"training.micro_batch":2})"}));
}

TEST_F(SweepTest, AMapBelowAKeyGivesKeysBelowItAndItsNameIsThatOfTheSeries) {
  const Sweep sweep = load(
      "vary:\n  strategy: [{name: ZeRO-3, framework: deepspeed, zero_stage: 3, training.micro_batch: 2}]\n"
      "  cluster.nodes: [1, 2]\n");
  EXPECT_EQ(to_json(sweep.points().front().parameters),
            R"({"name":"ZeRO-3","strategy.framework":"deepspeed","strategy.zero_stage":3,"training.micro_batch":2,)"
            R"("cluster.nodes":1})");
  EXPECT_EQ(sweep.points().front().series, "ZeRO-3");
  EXPECT_EQ(sweep.points().back().series, "ZeRO-3");
}

TEST_F(SweepTest, PointsThatOnlyDifferInScaleAndWhatVariesWithItAreASeries) {
  const Sweep sweep = load(
      "vary:\n  scale: {cluster.nodes: [1, 2], training.global_batch: [16, 32]}\n  training.micro_batch: [1, 2]\n");
  std::vector<std::string> series;
  for (const SweepPoint& point : sweep.points()) series.push_back(point.series);
  EXPECT_EQ(series, (std::vector<std::string>{"micro_batch 1", "micro_batch 2", "micro_batch 1", "micro_batch 2"}));
}

TEST_F(SweepTest, ANameStandsForAllThatIsFixed) {
  const Sweep sweep = load(
      "vary: [{name: wide, training.sequence: 512, scale: {cluster.nodes: [1, 2]}, training.micro_batch: [1, 2]}]\n");
  EXPECT_EQ(sweep.points().front().series, "wide, micro_batch 1");
}

TEST_F(SweepTest, AModelMayBeGivenInPlace) {
  const Sweep sweep = load(
      "vary: {model: [{base: llama, name: tiny, layers: 1, hidden: 1024, ffn_hidden: 2048, heads: 8, "
      "vocab: 1024}, llama3.2-1b]}\n");
  ASSERT_EQ(sweep.points().size(), 2U);
  EXPECT_EQ(read_scenario(sweep.scenario_of(sweep.points()[0]), catalog_).model.layers, 1);
  EXPECT_EQ(sweep.points()[1].series, "llama3.2-1b");
}

TEST_F(SweepTest, AnotherFrameworkDoesNotGetTheOptionsOfTheBase) {
  const Sweep sweep =
      load("vary: {strategy.framework: [pytorch-ddp, pytorch-fsdp]}\n");  // the base has an option of FSDP
  for (const SweepPoint& point : sweep.points()) EXPECT_NO_THROW(read_scenario(sweep.scenario_of(point), catalog_));
}

TEST_F(SweepTest, ConditionsKeepCombinations) {
  EXPECT_EQ(parameters(load("vary: {cluster.nodes: [1, 2, 4], training.micro_batch: [1, 2]}\n"
                            "where: [devices > 8, 'training.micro_batch * cluster.nodes <= 4']\n")),
            (std::vector<std::string>{R"({"cluster.nodes":2,"training.micro_batch":1})",
                                      R"({"cluster.nodes":2,"training.micro_batch":2})",
                                      R"({"cluster.nodes":4,"training.micro_batch":1})"}));
}

TEST_F(SweepTest, AConditionDoesNotApplyToPointsWithoutItsKeys) {
  EXPECT_EQ(load("vary: [{cluster.nodes: 1}, {cluster.nodes: 2, strategy.shard: 4}]\nwhere: strategy.shard > 4\n")
                .points()
                .size(),
            1U);
}

TEST_F(SweepTest, MistakesAreReportedWhereTheyAre) {
  EXPECT_EQ(
      refusal("vary: {clutser.nodes: [1]}\n"),
      "sweep.yaml:2:8: vary: 'clutser.nodes' is no key of a scenario; these begin with 'name', 'seed', 'cluster', "
      "'model', 'training', 'strategy', 'workload', 'reliability', 'cost', 'run' or 'inference' (did you mean "
      "'cluster'?)");
  EXPECT_EQ(refusal("vary: {cluster.nodes: []}\n"), "sweep.yaml:2:23: vary.cluster.nodes: expected at least one value");
  EXPECT_EQ(
      refusal("vary: {s: {cluster.nodes: [1, 2], training.global_batch: [16]}}\n"),
      "sweep.yaml:2:58: vary.s: lists that vary together are equally long; this one has 1 values, the one before 2");
  EXPECT_EQ(refusal("vary: 3\n"), "sweep.yaml:2:7: vary: expected a map from keys to lists of values, got '3'");
  EXPECT_EQ(refusal("wary: {}\n"),
            "sweep.yaml:1:1: missing key 'vary'\nsweep.yaml:2:1: unknown key 'wary' (did you mean 'vary'?)");
  EXPECT_EQ(refusal("vary: {cluster.nodes: [1]}\nwhere: cluster.nodes >\n"),
            "sweep.yaml:3:23: where: expected a key, a number or a word at the end");
  EXPECT_EQ(refusal("vary: {cluster.nodes: [1]}\nwhere: cluster.nods > 1\n"),
            "sweep.yaml:3:8: where: no point gives 'cluster.nods' (did you mean 'cluster.nodes'?)");
  EXPECT_EQ(refusal("vary: {cluster.nodes: [1]}\nwhere: cluster.nodes > 1\n"),
            "sweep.yaml:3:8: where: no combination is left");
  EXPECT_EQ(refusal("vary: {cluster.nodes: [1]}\nbaseline: {cluster.nodes: 2}\n"),
            "sweep.yaml:3:27: baseline: no point has cluster.nodes = 2");
  EXPECT_EQ(refusal("vary: {cluster.nodes: [1]}\nbaseline: {cluster.node: 2}\n"),
            "sweep.yaml:3:12: baseline: 'cluster.node' does not vary (did you mean 'cluster.nodes'?)");
}

TEST_F(SweepTest, AMistakeInAllPointsIsOneOfTheFileAndInSomeAResult) {
  EXPECT_EQ(refusal("vary: {training.micro_bach: [1]}\n"),
            "sweep.yaml:2:30: unknown key 'micro_bach' in 'training' (did you mean 'micro_batch'?)");
  EXPECT_EQ(load("vary: {training.micro_batch: [5, 1]}\n").points().size(), 2U);
}

TEST_F(SweepTest, TooManyPointsAreRefused) {
  std::string values = "[1";
  for (int i = 2; i <= 101; ++i) values += ", " + std::to_string(i);
  values += "]";
  EXPECT_EQ(refusal("vary: {cluster.nodes: " + values + ", training.micro_batch: " + values +
                    ", training.global_batch: " + values + "}\n"),
            "sweep.yaml: more than 1000000 points");
}

std::string hash_with(const Catalog& catalog, const std::string& scenario, const std::string& program = "p") {
  return ScenarioHash(catalog, program).of(parse_yaml(scenario, "s.yaml"));
}

TEST(ScenarioHashTest, LayoutDoesNotMatterAndMeaningDoes) {
  const Catalog catalog;
  const std::string hash = hash_with(catalog, "cluster: {node: dgx-h100, nodes: 8}\nmodel: llama3-8b\n");
  EXPECT_EQ(hash_with(catalog, "# a comment\nmodel: llama3-8b\ncluster:\n  nodes: 8\n  node: dgx-h100\n"), hash);
  EXPECT_NE(hash_with(catalog, "cluster: {node: dgx-h100, nodes: 9}\nmodel: llama3-8b\n"), hash);
  EXPECT_NE(hash_with(catalog, "cluster: {node: dgx-h100, nodes: '8'}\nmodel: llama3-8b\n"), hash);
  EXPECT_NE(hash_with(catalog, "cluster: {node: dgx-h100, nodes: 8}\nmodel: llama3-8b\n", "q"), hash);
}

TEST(ScenarioHashTest, ACatalogueEntryCountsWhereItIsNamedAlsoThroughOthers) {
  const SweepFolder folder;
  std::filesystem::create_directories(folder.path() / "own" / "accelerators");
  const Catalog built_in;
  const std::string uses = "cluster: {node: dgx-h100, nodes: 8}\n";
  const std::string uses_not = "cluster: {node: dgx-a100-80gb, nodes: 8}\n";
  folder.write("own/accelerators/h100-sxm.yaml", "base: h100-sxm\nmemory: 79 GiB\nsources: {memory: a test}\n");
  const std::vector<std::filesystem::path> folders{folder.path() / "own"};
  const Catalog changed(folders);
  EXPECT_NE(hash_with(changed, uses), hash_with(built_in, uses));
  EXPECT_EQ(hash_with(changed, uses_not), hash_with(built_in, uses_not));
}

TEST(ScenarioHashTest, AHuggingFaceConfigCounts) {
  const SweepFolder folder;
  const std::string scenario = "model: {hf_config: config.json}\n";
  const auto hash = [&] {
    const std::filesystem::path file = folder.write("s.yaml", scenario);
    return ScenarioHash(Catalog{}, "p").of(read_document(file));
  };
  folder.write("config.json", "{}");
  const std::string before = hash();
  EXPECT_EQ(hash(), before);
  folder.write("config.json", "{ }");
  EXPECT_NE(hash(), before);
}

TEST(ScenarioHashTest, TheProgramHasABuild) {
  EXPECT_EQ(program_build().size(), 40U);  // SHA-1 in hexadecimal
}

}  // namespace
}  // namespace trainyard::scenarios
