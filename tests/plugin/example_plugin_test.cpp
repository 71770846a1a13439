// The example of strategies/example_plugin/, built against an installed Trainyard, in the installed program: that it
// runs, and that it says what its algorithm has in closed form.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/program.hpp"

namespace trainyard {
namespace {

using nlohmann::json;

const std::string scenario = "'" TRAINYARD_SOURCE_DIR "/strategies/example_plugin/diloco.yaml'";
const std::string library = TRAINYARD_EXAMPLE_PLUGIN;
const std::string plugin = " --plugin '" + library + "' ";

constexpr double parameters = 1'315'723'264;  // of GPT 1.3B
constexpr double replicas = 32;

json parsed(const std::string& arguments) {
  const Ended ended = program(arguments + " --json - 2>/dev/null");
  EXPECT_EQ(ended.status, 0) << arguments;
  return json::parse(ended.output, nullptr, false);
}

json simulated(const std::string& settings = "") { return parsed("run " + scenario + plugin + settings); }

json reduction(const json& result) {
  EXPECT_EQ(result.at("communication").size(), 1U);
  EXPECT_EQ(result.at("communication").at(0).at("operation"), "all_reduce");
  return result.at("communication").at(0);
}

TEST(ExamplePlugin, AStepReducesOneOfAsManyFragmentsAsThereAreStepsBetween) {
  for (const int every : {1, 10, 100}) {
    const json reduced = reduction(simulated("--set strategy.sync_every=" + std::to_string(every)));
    const double bytes = 4 * std::ceil(parameters / every);
    EXPECT_EQ(reduced.at("bytes"), bytes) << every;
    // Around a ring; smaller ones go over a tree.
    EXPECT_NEAR(reduced.at("wire_bytes"), 2 * (replicas - 1) / replicas * bytes, 1) << every;
  }
  const double quantized = reduction(simulated("--set strategy.should_quantize=true")).at("bytes");
  EXPECT_EQ(quantized, std::ceil(parameters / 100));
}

TEST(ExamplePlugin, AStepIsLongerThanOnAnIdealNetworkByThatReduction) {
  const json result = simulated();
  const json reduced = reduction(result);
  const double longer = result.at("step_time_s").get<double>() - result.at("ideal_step_time_s").get<double>();
  EXPECT_NEAR(longer, reduced.at("busy_s"), 1e-12);
  EXPECT_NEAR(longer, reduced.at("exposed_s"), 1e-12);
  const std::string bytes = std::to_string(reduced.at("bytes").get<std::int64_t>());
  const json alone = parsed("collectives " + scenario + " --bytes " + bytes).at("rows").at(0);
  EXPECT_NEAR(longer, alone.at("time_us").get<double>() * 1e-6, 1e-12);
}

TEST(ExamplePlugin, ADelayedReductionHidesBehindThePasses) {
  const json delayed = simulated("--set strategy.fragment_sync_delay=1");
  // What is left is what kernels lose to the reduction beside them.
  EXPECT_LT(reduction(delayed).at("exposed_s"), 0.2 * reduction(delayed).at("busy_s").get<double>());
  EXPECT_LT(delayed.at("step_time_s"), simulated().at("step_time_s"));
}

TEST(ExamplePlugin, TheCopyAndTheOuterMomentumTakeEightBytesForEachParameter) {
  const json replicated = parsed("run " + scenario + " --set 'strategy={framework: pytorch-ddp}'");
  const double more =
      simulated().at("memory").at("optimizer").get<double>() - replicated.at("memory").at("optimizer").get<double>();
  EXPECT_EQ(more, 8 * parameters);
}

TEST(ExamplePlugin, FoldedRanksTakeTheTimeOfAllOfThem) {
  json folded = simulated();
  json every_rank = simulated("--no-fold");
  EXPECT_EQ(folded.at("engine").at("rank_classes"), 1);
  EXPECT_EQ(every_rank.at("engine").at("rank_classes"), replicas);
  folded.erase("engine");
  every_rank.erase("engine");
  EXPECT_EQ(folded, every_rank);
}

TEST(ExamplePlugin, ItsOptionsAreShownAndChecked) {
  const Ended shown = program("show frameworks torchft-diloco" + plugin);
  EXPECT_EQ(shown.status, 0);
  EXPECT_NE(shown.output.find("sync_every           500      whole number, 1 to 1000000  inner steps between"),
            std::string::npos)
      << shown.output;
  expect_refused("run " + scenario + plugin + "--set strategy.sync_evry=2", "(did you mean 'sync_every'?)");
  expect_refused("run " + scenario + plugin + "--set strategy.sync_every=0",
                 "strategy.sync_every: expected at least 1");
  expect_refused("run " + scenario + plugin + "--set training.global_batch=255",
                 "a global batch of 255 is not a multiple of data 32 x micro batch 8 = 256");
  expect_refused("run " + scenario, "strategy.framework: expected 'pytorch-ddp'");
}

TEST(ExamplePlugin, ItsMeasurementsAreValidated) {
  const std::filesystem::path table = std::filesystem::path{library}.parent_path() / "measured.csv";
  std::ofstream(table) << "id,cluster.node,cluster.nodes,model,training.global_batch,training.sequence,"
                          "strategy.framework,strategy.sync_every,measured.step_time_s\n"
                          "MINE-1,dgx-a100-80gb,4,gpt2-xl,256,1024,torchft-diloco,20,1\n";
  const json row = parsed("validate '" + table.string() + "'" + plugin).at("rows").at(0);
  EXPECT_EQ(row.at("failed"), nullptr);
  EXPECT_GT(row.at("predicted"), 0.01);
}

}  // namespace
}  // namespace trainyard
