#include "scenarios/scenario.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {
namespace {

// A framework with one option, which refuses what does not divide.
class Fake : public strategies::Strategy {
 public:
  std::vector<sim::Key> keys() override {
    return {{.name = "tensor", .target = &tensor_, .help = "", .least = 1},
            {.name = "bucket", .target = &bucket_, .help = ""}};
  }
  std::vector<strategies::Problem> check(const strategies::Job& job) const override {
    std::vector<strategies::Problem> problems;
    if (job.model.heads % tensor_ != 0) problems.push_back({"strategy.tensor", "does not divide the heads"});
    if (job.training.global_batch % job.cluster.devices() != 0)
      problems.push_back({"training.micro_batch", "does not divide"});
    return problems;
  }
  std::vector<std::string> warnings(const strategies::Job& /*job*/) const override {
    return tensor_ > 8 ? std::vector<std::string>{"beyond a node"} : std::vector<std::string>{};
  }
  strategies::PlannedStep plan(const strategies::Job& /*job*/) const override { return {}; }

 private:
  std::int64_t tensor_ = 1;
  sim::Bytes bucket_{25 << 20U};
};

std::unique_ptr<strategies::Strategy> make_fake() { return std::make_unique<Fake>(); }
const Catalog& catalog_of_fakes() {
  static const Catalog catalog({}, {{.entry = {"megatron-lm", "for tests", make_fake}}});
  return catalog;
}

constexpr const char* example = R"(name: Example
cluster:
  node: dgx-h100
  nodes: 4
model: llama3-8b
training:
  global_batch: 64
  sequence: 8192
strategy:
  framework: megatron-lm
  tensor: 8
)";

Scenario read(const std::string& text, const std::vector<std::string>& overrides = {}) {
  Value root = parse_yaml(text, "a.yaml");
  for (const std::string& assignment : overrides) apply_override(root, assignment);
  return read_scenario(root, catalog_of_fakes());
}

std::string error_of(const std::vector<std::string>& overrides, const std::string& text = example) {
  try {
    read(text, overrides);
    return "";
  } catch (const ScenarioError& error) {
    return error.what();
  }
}

bool reports(const std::vector<std::string>& overrides, const std::string& message) {
  const std::string error = error_of(overrides);
  if (error.find(message) != std::string::npos) return true;
  ADD_FAILURE() << "expected: " << message << "\ngot: " << error;
  return false;
}

TEST(Scenario, TakesWhatIsUsualForWhatItDoesNotSay) {
  const Scenario scenario = read(example);
  EXPECT_EQ(scenario.name, "Example");
  EXPECT_EQ(scenario.seed, 1);
  EXPECT_EQ(scenario.accelerator.name, "h100-sxm");
  EXPECT_EQ(scenario.fabric.name, "rail-optimized");
  EXPECT_EQ(scenario.devices, 32);
  EXPECT_EQ(scenario.training.precision, workloads::Precision::bf16);
  EXPECT_EQ(scenario.training.optimizer, workloads::Optimizer::adamw);
  EXPECT_EQ(scenario.training.gradient_precision, std::nullopt);
  EXPECT_EQ(scenario.framework, "megatron-lm");
  EXPECT_NE(scenario.strategy, nullptr);
  EXPECT_EQ(make_cluster(scenario).devices(), 32);
}

TEST(Scenario, ReadsWhatItSays) {
  const Scenario scenario =
      read(example, {"cluster.devices=16", "cluster.node.nics=4", "cluster.node.nic_rate=200 Gbit/s", "seed=7",
                     "cluster.fabric.oversubscription=2", "training.precision=fp8", "training.recompute=selective",
                     "training.gradient_precision=bf16", "training.optimizer=sgd", "training.attention=unfused",
                     "training.compile=true", "training.micro_batch=2", "model.layers=4"});
  EXPECT_EQ(scenario.devices, 16);
  EXPECT_EQ(scenario.node.nics, 4);
  EXPECT_EQ(scenario.node.nic_rate.count, 25'000'000'000);
  EXPECT_EQ(scenario.seed, 7);
  EXPECT_EQ(scenario.fabric.oversubscription, 2);
  EXPECT_EQ(scenario.fabric.kind, topology::FabricType::Kind::rail_optimized);
  EXPECT_EQ(scenario.training.precision, workloads::Precision::fp8);
  EXPECT_EQ(scenario.training.recompute.kind, workloads::Recompute::Kind::selective);
  EXPECT_EQ(scenario.training.gradient_precision, workloads::Precision::bf16);
  EXPECT_EQ(scenario.training.optimizer, workloads::Optimizer::sgd);
  EXPECT_EQ(scenario.training.attention, workloads::AttentionKernel::unfused);
  EXPECT_EQ(scenario.training.backend, workloads::Backend::compiled);
  EXPECT_EQ(scenario.training.micro_batch, 2);
  EXPECT_EQ(scenario.model.layers, 4);
}

TEST(Scenario, WhatTheModelDoesNotHaveIsReported) {
  reports(
      {"model=gpt2", "training.sequence=128", "training.finetune={lora: {targets: [gate_proj]}}"},
      "training.finetune: GPT-2 has none of these targets; its linear layers are 'query', 'key', 'value', 'output', "
      "'up' or 'down'");
  reports({"training.expert_imbalance=2"}, "training.expert_imbalance: Llama 3 8B has no experts");
  reports({"model=mixtral-8x7b", "training.expert_imbalance=5"},
          "training.expert_imbalance: a token passes an expert once: the fullest has at most 8/2 times the mean");
  reports({"model=t5-base", "training.documents=[256, 256]", "training.sequence=512"},
          "training.documents: packed sequences of an encoder and a decoder are not supported");
  EXPECT_EQ(error_of({"training.finetune={lora: {targets: [all-linear]}}"}), "");
}

TEST(Scenario, ListsAndMapsOfTrainingAreReportedOnce) {
  reports({"training.recompute={modules: []}"}, "training.recompute.modules: expected one at least of 'core_attn'");
  for (const char* wrong : {"training.recompute={every: 0}", "training.recompute={module: [mlp]}",
                            "training.finetune={lora: {rank: 0}}", "training.finetune={full: {}}"}) {
    const std::string error = error_of({wrong});
    EXPECT_NE(error, "") << wrong;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
  }
  reports({"training.recompute={every: 2, modules: [mlp]}"}, "either {every: layers} or {modules: [core_attn, mlp]}");
}

TEST(Scenario, CompilingIsAShortWordForABackend) {
  EXPECT_EQ(read(example).training.backend, std::nullopt);
  EXPECT_EQ(read(example, {"training.backend=cuda-graph"}).training.backend, workloads::Backend::cuda_graph);
  EXPECT_EQ(read(example, {"training.backend=xla", "training.compile=true"}).training.backend, workloads::Backend::xla);
  reports({"training.backend=eager", "training.compile=true"}, "training.compile: contradicts training.backend: eager");
  reports({"training.backend=graphs"},
          "training.backend: expected 'eager', 'compiled', 'cuda-graph', 'graph' or 'xla', got 'graphs'");
}

TEST(Scenario, MistakesOfAllPartsComeAtOnce) {
  const std::string text =
      "cluster:\n  node: dgx-h10\n  nodes: 0\nmodel: lama3-8b\ntraining: {global_batch: x}\n"
      "strategy:\n  framework: megatron\n  tensr: 1\nreliabilty: 1\n";
  const std::string error = error_of({}, text);
  for (const char* message :
       {"a.yaml:2:9: cluster.node: no node is called 'dgx-h10' (did you mean 'dgx-h100'?)",
        "a.yaml:3:10: cluster.nodes: expected at least 1, got '0'",
        "a.yaml:4:8: model: no model is called 'lama3-8b' (did you mean 'llama3-8b'?)",
        "a.yaml:5:26: training.global_batch: expected a whole number, got 'x'",
        "a.yaml:7:14: strategy.framework: expected 'megatron-lm', got", "a.yaml:9:1: unknown key 'reliabilty'"})
    EXPECT_NE(error.find(message), std::string::npos) << message << "\nin\n" << error;
}

TEST(Scenario, AMistypedBaseHidesNoOtherMistake) {
  const std::string text =
      "cluster:\n  node: {base: dgx-a1000, nics: 0, accelerator: {memry: 1}}\n  nodes: 2\n"
      "  fabric: {oversubscription: 0}\nmodel: {base: gtp, layrs: 12}\n"
      "training: {global_batch: 8, sequence: 128}\nstrategy: {framework: megatron-lm}\n";
  const std::string error = error_of({}, text);
  for (const char* message : {"a.yaml:2:16: cluster.node: no node is called 'dgx-a1000'",
                              "a.yaml:2:33: cluster.node.nics: expected at least 1",
                              "a.yaml:2:50: unknown key 'memry' in 'cluster.node.accelerator' (did you mean 'memory'?)",
                              "a.yaml:4:30: cluster.fabric.oversubscription: expected at least 1, got '0'",
                              "a.yaml:5:15: model: no model is called 'gtp'",
                              "a.yaml:5:20: unknown key 'layrs' in 'model' (did you mean 'layers'?)"})
    EXPECT_NE(error.find(message), std::string::npos) << message << "\nin\n" << error;
  EXPECT_EQ(std::count(error.begin(), error.end(), '\n'), 5) << error;
}

TEST(Scenario, AbsurdFiguresAreRefusedWhereTheyStand) {
  reports({"cluster.node.nic_rate=1 B/s"},
          "--set cluster.node.nic_rate=1 B/s: cluster.node.nic_rate: expected between 1 MB/s and 1000 TB/s, got");
  reports({"cluster.node.link.rate=2 PB/s"}, "cluster.node.link.rate: expected between 1 MB/s and 1000 TB/s");
  reports({"cluster.node.link.latency=2 s"}, "cluster.node.link.latency: expected between 0 s and 1 s");
  reports({"cluster.node.accelerator.memory_bandwidth=1 kB/s"}, "memory_bandwidth: expected between 1 MB/s and");
  reports({"cluster.node.accelerator.peak.bf16=1 FLOP/s"}, "peak.bf16: expected between 1 GFLOP/s and 9000 PFLOP/s");
  reports({"cluster.node.devices=1025"}, "cluster.node.devices: expected at most 1024");
  reports({"cluster.node.nics=1025"}, "cluster.node.nics: expected at most 1024");
  reports({"cluster.fabric.radix=1000000"}, "cluster.fabric.radix: expected at most 65536");
  reports({"cluster.fabric.oversubscription=0.5"}, "cluster.fabric.oversubscription: expected at least 1");
}

TEST(Scenario, WhatIsTooLargeIsRefusedWithItsFile) {
  const Catalog catalog;
  Value root = parse_yaml(example, "a.yaml");
  apply_override(root, "strategy.tensor=1");
  Value widest = root;
  for (const char* option : {"strategy.pipeline=4294967296", "strategy.context=4294967296"})
    apply_override(widest, option);
  EXPECT_THROW(read_scenario(widest, catalog), ScenarioError);
  for (const char* option : {"cluster.nodes=1", "model=llama3.1-405b", "strategy.tensor=8",
                             "training={global_batch: 131072, micro_batch: 16, sequence: 131072, recompute: full}"})
    apply_override(root, option);
  try {
    simulate(read_scenario(root, catalog));
    FAIL();
  } catch (const ScenarioError& error) {
    EXPECT_TRUE(std::string{error.what()}.starts_with("a.yaml: too large to simulate: ")) << error.what();
  }
}

TEST(Scenario, MissingPartsAreReported) {
  const std::string error = error_of({}, "name: x\n");
  for (const char* part : {"cluster", "model", "training", "strategy"})
    EXPECT_NE(error.find("a.yaml:1:1: missing key '" + std::string{part} + "'"), std::string::npos) << error;
  EXPECT_EQ(error_of({}, "[1]"), "a.yaml:1:1: expected a map of keys, got a list");
}

TEST(Scenario, WhatComesLaterIsNamedWithItsAlternatives) {
  reports({"strategy.framework=deepspeed"},
          "strategy.framework: 'deepspeed' is not supported yet; choose 'megatron-lm'");
  EXPECT_EQ(error_of({"cluster.faults=[]", "cluster.placement=packed", "training.finetune=full"}), "");
}

TEST(Scenario, AMistakeInAnOverrideIsReportedAtTheOption) {
  reports({"cluster.nodes=x"}, "--set cluster.nodes=x: cluster.nodes: expected a whole number, got 'x'");
  reports({"strategy.tensor=3"}, "--set strategy.tensor=3: strategy.tensor: does not divide the heads");
}

TEST(Scenario, NothingInAnOverrideIsReportedAtTheOption) {
  reports({"training.global_batch=~"},
          "--set training.global_batch=~: training.global_batch: expected a whole number, got nothing");
}

TEST(Scenario, WhatTheFrameworkRefusesIsReportedAtTheKey) {
  reports({"training.global_batch=63"}, "a.yaml:6:1: training.micro_batch: does not divide");
}

TEST(Scenario, WhatTheFrameworkWarnsOfIsKept) {
  EXPECT_EQ(read(example, {"strategy.tensor=16"}).warnings, std::vector<std::string>{"beyond a node"});
}

TEST(Scenario, APrecisionTheAcceleratorLacksIsReported) {
  reports({"cluster.node=dgx-a100-80gb", "training.precision=fp8"},
          "training.precision: a100-sxm-80gb has no fp8; choose 'fp32', 'tf32', 'fp16' or 'bf16'");
}

TEST(Scenario, MoreDevicesThanThereAreAreReported) {
  reports({"cluster.devices=33"}, "cluster.devices: expected at most 32 (4 nodes of 8 devices), got 33");
  reports({"cluster.nodes=1000000"}, "devices are more than the");
}

TEST(Scenario, PositionsFollowTheSequence) {
  EXPECT_EQ(read(example, {"model={base: gpt, layers: 2, hidden: 64, heads: 8, vocab: 100}"}).model.positions, 8192);
  reports({"model=gpt2", "strategy.tensor=4"},
          "training.sequence: 8192 tokens are more than the 1024 learned positions of GPT-2");
  const Scenario longer = read(example, {"training.sequence=16384"});
  ASSERT_EQ(longer.warnings.size(), 1U);
  EXPECT_NE(longer.warnings[0].find("16384 tokens are more than the 8192"), std::string::npos);
}

TEST(Scenario, AStepBeyondCountingIsReported) { reports({"training.micro_batch=1000000000"}, "more than 10^17 FLOP"); }

TEST(Scenario, EveryFileOfTheLibraryButItsFrameworkOptionsCanBeRead) {
  const std::filesystem::path library = std::filesystem::path{TRAINYARD_SOURCE_DIR} / "scenarios" / "library";
  int count = 0;
  for (const auto& file : std::filesystem::directory_iterator{library}) {
    if (file.path().extension() != ".yaml") continue;
    ++count;
    LoadOptions options;
    const bool trains = scenario_text(file.path()).find("workload: inference") == std::string::npos;
    if (trains) options.overrides = {"strategy={framework: megatron-lm}"};
    try {
      EXPECT_GT(load_scenario(file.path(), catalog_of_fakes(), options).devices, 0);
    } catch (const ScenarioError& error) {
      // The stand-in refuses some batches, as the real frameworks would not.
      const std::string text = error.what();
      EXPECT_NE(text.find("training.micro_batch: does not divide"), std::string::npos) << text;
      EXPECT_EQ(error.diagnostics().size(), 1U) << text;
    }
  }
  EXPECT_GT(count, 5);
}

}  // namespace
}  // namespace trainyard::scenarios
