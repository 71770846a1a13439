// A step on changed hardware is what one gets by changing the hardware.
#include "scenarios/what_if.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/simulated.hpp"

namespace trainyard::scenarios {
namespace {

using tests::scenario_of;

Result with_what_if(const std::string& base, const std::vector<std::string>& settings) {
  SimulateOptions options;
  options.ideal = false;
  options.what_if = true;
  return simulate(scenario_of(base, settings), options).result;
}

double step_time(const std::string& base, const std::vector<std::string>& settings) {
  return tests::simulated(base, settings).result.step_time_s;
}

double answer(const Result& result, const std::string& change) {
  for (const WhatIf& each : result.what_if)
    if (each.change == change) return each.step_time_s;
  ADD_FAILURE() << "no " << change;
  return 0;
}

double part(const Result& result, const std::string& name) {
  for (std::size_t i = 0; i < breakdown_names.size(); ++i)
    if (breakdown_names.at(i) == name) return result.breakdown_s.at(i);
  return 0;
}

// A device that memory never holds up.
const std::string one_device = R"(name: One device
cluster: {node: {base: h100, accelerator: {base: h100-sxm, memory_bandwidth: 1000 TB/s}}, nodes: 1}
model: llama3-8b
training: {global_batch: 2, sequence: 4096, precision: bf16, backend: cuda-graph}
strategy: {framework: pytorch-ddp}
)";

// Two nodes whose slow adapters are all that counts.
const std::string two_nodes = R"(name: Two nodes
cluster: {node: {base: dgx-h100, nic_rate: 2 Gbit/s}, nodes: 2, fabric: {base: fat-tree}}
model: llama3-8b
training: {global_batch: 16, sequence: 1024, precision: bf16}
strategy: {framework: pytorch-ddp}
)";

const std::string pipeline = R"(name: Pipeline
cluster: {node: dgx-a100-80gb, nodes: 4}
model: {base: gpt, layers: 16, hidden: 4096, heads: 32, vocab: 50257}
training: {global_batch: 64, sequence: 2048, precision: bf16}
strategy: {framework: megatron-lm, tensor: 4, pipeline: 4, distributed_optimizer: true}
)";

TEST(WhatIf, IsOnlyAskedForOnRequest) {
  const Result result = tests::simulated(pipeline, {}).result;
  EXPECT_TRUE(result.what_if.empty());
  EXPECT_FALSE(nlohmann::json::parse(to_json(result)).contains("what_if"));
  EXPECT_EQ(what_if_text(result), "");
}

TEST(WhatIf, EveryAnswerOfTheContractIsAField) {
  const auto json = nlohmann::json::parse(to_json(with_what_if(pipeline, {}))).at("what_if");
  for (const char* change :
       {"network_bandwidth_x2", "compute_x2", "memory_bandwidth_x2", "network_latency_zero", "no_stragglers"})
    EXPECT_GT(json.at(change).get<double>(), 0) << change;
}

TEST(WhatIf, TwiceTheComputeHalvesProductsAndAttention) {
  const Result result = with_what_if(one_device, {});
  const double products = part(result, "matmul") + part(result, "attention");
  EXPECT_GT(products, 0.9 * result.step_time_s);
  EXPECT_NEAR(answer(result, "compute_x2"), result.step_time_s - products / 2, 1e-3 * result.step_time_s);
}

TEST(WhatIf, TwiceTheNetworkHalvesAStepThatIsNothingElse) {
  const Result result = with_what_if(two_nodes, {});
  const double kernels =
      part(result, "matmul") + part(result, "attention") + part(result, "memory_bound") + part(result, "optimizer");
  EXPECT_LT(kernels, 0.02 * result.step_time_s);
  EXPECT_NEAR(answer(result, "network_bandwidth_x2"), result.step_time_s / 2, 0.02 * result.step_time_s);
  // All of it comes from between the nodes.
  EXPECT_NEAR(answer(result, "scale_out_bandwidth_x2"), result.step_time_s / 2, 0.02 * result.step_time_s);
  EXPECT_NEAR(answer(result, "scale_up_bandwidth_x2"), result.step_time_s, 0.02 * result.step_time_s);
}

// Of a platform without a tuner's tables, a scenario can say all that a change touches.
TEST(WhatIf, TheStepIsThatOfTheScenarioWithSuchHardware) {
  const std::string platform = "cluster.node=mi300x";
  const Result result = with_what_if(pipeline, {platform});
  const Scenario scenario = scenario_of(pipeline, {platform});
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> settings{platform};
    settings.insert(settings.end(), more.begin(), more.end());
    return step_time(pipeline, settings);
  };
  const auto twice = [](const std::string& key, std::int64_t rate, const std::string& unit) {
    return key + "=" + std::to_string(2 * rate) + " " + unit;
  };
  const std::string inside = twice("cluster.node.link.rate", scenario.node.link_rate.count, "B/s");
  const std::string between = twice("cluster.node.nic_rate", scenario.node.nic_rate.count, "B/s");
  EXPECT_EQ(answer(result, "scale_up_bandwidth_x2"), with({inside}));
  EXPECT_EQ(answer(result, "scale_out_bandwidth_x2"), with({between}));
  EXPECT_EQ(answer(result, "network_bandwidth_x2"), with({inside, between}));
  const workloads::Accelerator& part = scenario.accelerator;
  EXPECT_EQ(answer(result, "memory_bandwidth_x2"),
            with({twice("cluster.node.accelerator.memory_bandwidth", part.memory_bandwidth.count, "B/s")}));
  const auto bf16 = static_cast<std::size_t>(workloads::Precision::bf16);
  EXPECT_EQ(answer(result, "compute_x2"),
            with({twice("cluster.node.accelerator.peak.bf16", part.peak.at(bf16).count, "FLOP/s")}));
}

TEST(WhatIf, WithoutStragglersIsTheScenarioWithoutItsFaults) {
  const double healthy = step_time(pipeline, {});
  for (const char* faults :
       {"[{device: 5, speed: 0.7}]", "[{node: 2, speed: 0.9}]", "[{link: node 1 nic 0 out, capacity: 0.2}]",
        "[{device: 0, speed: 0.9}, {node: 3, speed: 0.8}]"}) {
    const Result result = with_what_if(pipeline, {std::string{"cluster.faults="} + faults});
    EXPECT_GT(result.step_time_s, healthy) << faults;
    EXPECT_EQ(answer(result, "no_stragglers"), healthy) << faults;
  }
  EXPECT_EQ(answer(with_what_if(pipeline, {}), "no_stragglers"), healthy);
}

TEST(WhatIf, AHostThatTakesNoTimeIsNeverWaitedFor) {
  // Sequences so short that the host cannot keep up.
  const Result result = with_what_if(pipeline, {"training.sequence=128", "model.hidden=1024", "model.heads=16"});
  EXPECT_GT(part(result, "host"), 0.2 * result.step_time_s);
  EXPECT_LT(answer(result, "host_time_zero"), 0.8 * result.step_time_s);
}

TEST(WhatIf, WhatConcernsNothingIsLeftOut) {
  for (const WhatIf& each : with_what_if(one_device, {}).what_if) {
    EXPECT_NE(each.change, "scale_up_bandwidth_x2");
    EXPECT_NE(each.change, "offload_bandwidth_x2");
  }
}

TEST(WhatIf, BetterHardwareIsNeverSlower) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> scenarios{
      {one_device, {}},
      {two_nodes, {}},
      {two_nodes, {"cluster.node.nic_rate=400 Gbit/s", "strategy.framework=pytorch-fsdp"}},
      {pipeline, {}},
      {pipeline, {"strategy.virtual_pipeline=2", "training.micro_batch=2"}},
      {pipeline, {"strategy.tensor=8", "cluster.fabric={base: fat-tree, oversubscription: 4}"}},
      {pipeline, {"cluster.node=dgx-h100", "strategy.context=2", "strategy.tensor=2"}},
  };
  for (const auto& [base, settings] : scenarios) {
    const Result result = with_what_if(base, settings);
    for (const WhatIf& each : result.what_if)
      EXPECT_LE(each.step_time_s, result.step_time_s)
          << each.change << " of " << result.scenario << (settings.empty() ? "" : " with " + settings.front());
  }
}

TEST(WhatIf, WhatSavesMostStandsFirst) {
  const std::string text = what_if_text(with_what_if(two_nodes, {}));
  const std::size_t network = text.find("network, twice the bandwidth");
  const std::size_t compute = text.find("matrix products, twice as fast");
  ASSERT_NE(network, std::string::npos) << text;
  ASSERT_NE(compute, std::string::npos) << text;
  EXPECT_LT(network, compute) << text;
}

}  // namespace
}  // namespace trainyard::scenarios
