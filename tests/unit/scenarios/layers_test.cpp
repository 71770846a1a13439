#include "scenarios/layers.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "scenarios/internal/csv.hpp"
#include "tests/support/simulated.hpp"

namespace trainyard::scenarios {
namespace {

Simulation in_detail(const Scenario& scenario) {
  return simulate(scenario, {.ideal = false, .ranks = {}, .per_operation = true});
}

Scenario library(const std::string& name) {
  static const Catalog catalog;
  return load_scenario(std::string{TRAINYARD_SOURCE_DIR "/scenarios/library/"} + name + ".yaml", catalog);
}

Simulation of_a_small_model(const std::vector<std::string>& settings) {
  return in_detail(tests::scenario_of(R"(name: Layers
cluster: {node: dgx-h100, nodes: 1}
model: {base: llama3-8b, layers: 4}
training: {global_batch: 16, sequence: 1024, precision: bf16}
strategy: {framework: megatron-lm}
)",
                                      settings));
}

void expect_close(double actual, double expected, const std::string& what) {
  EXPECT_NEAR(actual, expected, 1e-9 * std::abs(expected) + 1e-15) << what;
}

// A row of waiting has the word of its part of `breakdown_s`; a communication its purpose.
std::string part_of(const LayerRow& row) {
  const bool waited_for = row.kind == "data" || row.kind == "tensor" || row.kind == "pipeline" ||
                          row.kind == "context" || row.kind == "expert" || row.kind == "offload";
  return (waited_for ? "exposed_" : "") + std::string{row.kind};
}

void expect_to_add_up(const Simulation& simulation) {
  const std::vector<LayerRow> rows = layer_rows(simulation);
  const Result& result = simulation.result;
  double step = 0;
  double flops = 0;
  std::map<std::string, double> parts;
  for (const LayerRow& row : rows) {
    step += row.compute_s + row.exposed_s;
    flops += row.flops;
    parts[part_of(row)] += row.compute_s + row.exposed_s;
  }
  expect_close(step, result.step_time_s, "step time");
  expect_close(flops, result.hardware_tflops_per_device * 1e12 * result.step_time_s, "FLOP");
  for (std::size_t i = 0; i < breakdown_names.size(); ++i)
    expect_close(parts[std::string{breakdown_names.at(i)}], result.breakdown_s.at(i),
                 std::string{breakdown_names.at(i)});
  for (const CommunicationSummary& summary : result.communication) {
    LayerRow sum;
    for (const LayerRow& row : rows) {
      if (row.kind != sim::to_string(summary.purpose) || row.operation != sim::to_string(summary.operation)) continue;
      sum.count += row.count;
      sum.communication_bytes += row.communication_bytes;
      sum.wire_bytes += row.wire_bytes;
      sum.busy_s += row.busy_s;
      sum.exposed_s += row.exposed_s;
    }
    expect_close(sum.count, summary.count, "calls");
    expect_close(sum.communication_bytes, summary.bytes, "bytes");
    expect_close(sum.wire_bytes, summary.wire_bytes, "bytes on the wire");
    expect_close(sum.busy_s, summary.busy_s, "busy");
    if (result.breakdown_s.back() == 0) expect_close(sum.exposed_s, summary.exposed_s, "exposed");
  }
}

TEST(Layers, AddUpToTheStepItsBreakdownAndItsCommunication) {
  for (const char* name : {"resnet50-1-a100", "llama3-8b-fsdp-8-h100", "gpt-14.6b-zb-h2-16-a100",
                           "gpt-10b-gemini-8-a100-40gb", "llama2-7b-qlora-rtx-4090", "resnet50-tensorflow-16-v100",
                           "qwen3-30b-a3b-fsdp-64-h100", "llama2-70b-maxtext-256-v5p", "bloom-176b-384-a100"}) {
    SCOPED_TRACE(name);
    expect_to_add_up(in_detail(library(name)));
  }
}

TEST(Layers, AddUpWithAStragglerAndOnDevicesOfSeveralTypes) {
  const Simulation slow =
      of_a_small_model({"strategy.pipeline=2", "strategy.tensor=2", "cluster.faults=[{device: 3, speed: 0.5}]"});
  EXPECT_GT(slow.result.breakdown_s.back(), 0);
  expect_to_add_up(slow);
  expect_to_add_up(of_a_small_model(
      {"cluster={groups: [{node: dgx-h100, nodes: 1}, {node: dgx-a100-80gb, nodes: 1}]}", "strategy.tensor=8"}));
}

TEST(Layers, OfOneKindCostTheSameAndAStageHoldsItsShare) {
  const std::vector<LayerRow> whole = layer_rows(of_a_small_model({}));
  const std::vector<LayerRow> halves = layer_rows(of_a_small_model({"strategy.pipeline=2"}));
  const auto flops = [](const std::vector<LayerRow>& rows, std::int32_t layer) {
    double sum = 0;
    for (const LayerRow& row : rows) sum += row.layer == layer ? row.flops : 0;
    return sum;
  };
  EXPECT_GT(flops(whole, 1), 0);
  EXPECT_EQ(flops(whole, 1), flops(whole, 2));
  // Half of the ranks has the layer, for twice the samples.
  EXPECT_DOUBLE_EQ(flops(halves, 1), flops(whole, 1));
}

TEST(Layers, AreTheSameWhenEveryRankIsSimulated) {
  const Scenario scenario = tests::scenario_of(R"(name: Layers
cluster: {node: dgx-h100, nodes: 2}
model: {base: llama3-8b, layers: 4}
training: {global_batch: 32, sequence: 1024, precision: bf16}
strategy: {framework: megatron-lm, tensor: 2, pipeline: 2}
)",
                                               {});
  const auto table = [&](bool fold) {
    return layers_to_csv(
        layer_rows(simulate(scenario, {.fold = fold, .ideal = false, .ranks = {}, .per_operation = true})));
  };
  EXPECT_EQ(table(true), table(false));
}

TEST(Layers, AsATableHaveOneRowEachAndTheirUnitsInTheHead) {
  const std::vector<LayerRow> rows = layer_rows(of_a_small_model({"strategy.tensor=8"}));
  const std::vector<CsvRow> table = parse_csv(layers_to_csv(rows), "layers.csv");
  ASSERT_EQ(table.size(), rows.size() + 1);
  EXPECT_EQ(table[0].cells,
            (std::vector<std::string>{"layer", "block", "operation", "class", "count", "compute_s", "flops", "bytes",
                                      "communication_bytes", "wire_bytes", "busy_s", "exposed_s"}));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    ASSERT_EQ(table[i + 1].cells.size(), table[0].cells.size());
    EXPECT_EQ(std::stod(table[i + 1].cells[5]), rows[i].compute_s);
  }
  std::vector<std::vector<std::string>> keys;
  for (const CsvRow& row : table) keys.emplace_back(row.cells.begin(), row.cells.begin() + 4);
  std::ranges::sort(keys);
  EXPECT_EQ(std::ranges::adjacent_find(keys), keys.end());
}

TEST(Links, CarryForEveryPurposeWhatTheyCarryInAll) {
  for (const char* name : {"llama3-8b-fsdp-128-h100", "gpt-14.6b-zb-h2-16-a100", "qwen3-30b-a3b-fsdp-64-h100",
                           "llama2-70b-maxtext-256-v5p", "mpt-7b-fsdp-8-a100", "bloom-176b-384-a100"}) {
    SCOPED_TRACE(name);
    const Scenario scenario = library(name);
    const Simulation simulation = in_detail(scenario);
    std::array<std::int64_t, sim::purposes> by_purpose{};
    for (const LinkRow& row : link_rows(scenario, simulation)) {
      std::int64_t sum = 0;
      for (std::size_t p = 0; p < sim::purposes; ++p) {
        EXPECT_GE(row.uses.at(p).count, 0) << row.name;
        sum += row.uses.at(p).count;
        by_purpose.at(p) += row.uses.at(p).count;
      }
      EXPECT_EQ(sum, row.bytes.count) << row.name;
    }
    // Only those whose ranks communicate use links.
    for (std::size_t p = 0; p < sim::purposes; ++p) {
      const bool used = std::ranges::any_of(simulation.result.communication, [&](const CommunicationSummary& summary) {
        return static_cast<std::size_t>(summary.purpose) == p;
      });
      EXPECT_TRUE(used || by_purpose.at(p) == 0);
    }
  }
}

TEST(Links, OfTensorParallelRanksCarryNothingElse) {
  const Scenario scenario = tests::scenario_of(R"(name: Links
cluster: {node: dgx-h100, nodes: 2}
model: {base: llama3-8b, layers: 4}
training: {global_batch: 16, sequence: 1024, precision: bf16}
strategy: {framework: megatron-lm, tensor: 8}
)",
                                               {});
  const auto tensor = static_cast<std::size_t>(sim::Purpose::tensor);
  const auto data = static_cast<std::size_t>(sim::Purpose::data);
  std::int64_t nvlinks = 0;
  std::int64_t nics = 0;
  for (const LinkRow& row : link_rows(scenario, in_detail(scenario))) {
    if (row.kind == topology::LinkKind::nvlink) {
      ++nvlinks;
      EXPECT_EQ(row.uses.at(tensor), row.bytes) << row.name;
    } else if (row.kind == topology::LinkKind::nic) {
      ++nics;
      EXPECT_EQ(row.uses.at(data), row.bytes) << row.name;
    }
  }
  EXPECT_GT(nvlinks, 0);
  EXPECT_GT(nics, 0);
}

}  // namespace
}  // namespace trainyard::scenarios
