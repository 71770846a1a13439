// What launches cost, and which kernels are fused, by training.backend.
#include <gtest/gtest.h>

#include <string>

#include "scenarios/internal/document.hpp"
#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {
namespace {

Result simulated(const std::string& framework, const std::string& backend) {
  static const Catalog catalog;
  const std::string text =
      "name: Backend\ncluster: {node: h100, nodes: 1}\nmodel: {base: llama, layers: 12, hidden: 768, ffn_hidden: 2048, "
      "heads: 12, vocab: 32000}\ntraining: {global_batch: 4, micro_batch: 1, sequence: 256, precision: bf16, "
      "backend: " +
      backend + "}\nstrategy: {framework: " + framework + "}\n";
  return simulate(read_scenario(parse_yaml(text, "backend.yaml"), catalog)).result;
}

double host_s(const Result& result) { return result.breakdown_s[11]; }
double memory_bound_s(const Result& result) { return result.breakdown_s[2]; }

TEST(Backend, AGraphReplaysTheSameKernelsWithoutTheirLaunches) {
  ASSERT_EQ(breakdown_names[11], "host");
  ASSERT_EQ(breakdown_names[2], "memory_bound");
  for (const char* framework : {"megatron-lm", "pytorch-ddp"}) {
    const Result eager = simulated(framework, "eager");
    const Result graph = simulated(framework, "cuda-graph");
    EXPECT_LT(graph.step_time_s, eager.step_time_s);
    EXPECT_LT(host_s(graph), host_s(eager));
    EXPECT_DOUBLE_EQ(memory_bound_s(graph), memory_bound_s(eager));
  }
  // Small layers of Megatron wait for their host most of the time.
  EXPECT_GT(host_s(simulated("megatron-lm", "eager")), 0.7 * simulated("megatron-lm", "eager").step_time_s);
}

TEST(Backend, CompilingFusesKernels) {
  const Result eager = simulated("pytorch-ddp", "eager");
  for (const char* backend : {"compiled", "xla"}) {
    const Result fused = simulated("pytorch-ddp", backend);
    EXPECT_LT(memory_bound_s(fused), memory_bound_s(eager));
    EXPECT_LT(host_s(fused), host_s(eager));
  }
}

}  // namespace
}  // namespace trainyard::scenarios
