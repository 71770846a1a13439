// What fits on 80 GB devices and what does not, by strategy and model size: 16 bytes of state per parameter divided by
// the ranks that shard it, beside activations with full recomputation, gathered parameters and the device's own.
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "scenarios/internal/document.hpp"
#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {
namespace {

struct Case {
  const char* name;
  int devices;
  std::vector<std::string> settings;
  bool fits;
};
void PrintTo(const Case& one, std::ostream* out) { *out << one.name; }

MemorySummary memory_of(const Case& one) {
  static const Catalog catalog;
  Value root = parse_yaml(R"(name: Feasibility
cluster: {node: dgx-a100-80gb, nodes: 1}
model: llama2-7b
training: {global_batch: 1, micro_batch: 1, sequence: 2048, precision: bf16, recompute: full}
strategy: {framework: pytorch-fsdp}
)",
                          "feasibility.yaml");
  const int nodes = (one.devices + 7) / 8;
  apply_override(root, "cluster.nodes=" + std::to_string(nodes));
  apply_override(root, "cluster.devices=" + std::to_string(one.devices));
  apply_override(root, "training.global_batch=" + std::to_string(one.devices));
  for (const std::string& setting : one.settings) apply_override(root, setting);
  return simulate(read_scenario(root, catalog), {.ideal = false, .ranks = {}}).result.memory;
}

class Feasibility : public testing::TestWithParam<Case> {};

TEST_P(Feasibility, IsAsTheArithmeticHasIt) { EXPECT_EQ(memory_of(GetParam()).fits, GetParam().fits); }

const std::string ddp = "strategy.framework=pytorch-ddp";
const std::string megatron = "strategy.framework=megatron-lm";
const std::string sharded_optimizer = "strategy.distributed_optimizer=true";

// "DDP supports only data parallelism": how many devices each strategy needs.
INSTANTIATE_TEST_SUITE_P(
    DevicesNeeded, Feasibility,
    testing::Values(
        Case{"ddp_1b_1", 1, {ddp, "model=gpt-1.3b"}, true}, Case{"ddp_7b_1", 1, {ddp}, false},  //
        Case{"ddp_7b_8", 8, {ddp}, false},        // 108 GB of state on each, however many there are
        Case{"ddp_7b_1024", 1024, {ddp}, false},  //
        Case{"zero1_7b_1", 1, {megatron, sharded_optimizer}, false},
        Case{"zero1_7b_4", 4, {megatron, sharded_optimizer}, true}, Case{"fsdp_7b_1", 1, {}, false},  //
        Case{"fsdp_7b_2", 2, {}, true},                                                               //
        Case{"fsdp_70b_8", 8, {"model=llama2-70b"}, false}, Case{"fsdp_70b_16", 16, {"model=llama2-70b"}, false},
        Case{"fsdp_70b_24", 24, {"model=llama2-70b"}, true}, Case{"fsdp_405b_64", 64, {"model=llama3.1-405b"}, false},
        Case{"fsdp_405b_96", 96, {"model=llama3.1-405b"}, false},
        Case{"fsdp_405b_256", 256, {"model=llama3.1-405b"}, true},
        Case{"tensor_1t_8", 8, {megatron, "model=megatron-1t", "strategy.tensor=8"}, false},
        Case{"tensor_pipeline_1t_512",
             512,
             {megatron, "model=megatron-1t", "strategy.tensor=8", "strategy.pipeline=64", "training.global_batch=64"},
             true}),
    [](const auto& of) { return std::string{of.param.name}; });

// "Single card below 10 B": full training with Adam up to 4 B, fine-tuning beyond.
INSTANTIATE_TEST_SUITE_P(
    SingleCard, Feasibility,
    testing::Values(
        Case{"full_7b", 1, {ddp}, false},  //
        Case{"full_13b", 1, {ddp, "model=llama2-13b"}, false}, Case{"full_8b", 1, {ddp, "model=llama3-8b"}, false},
        Case{"full_3b",
             1,
             {ddp, "model={base: llama, layers: 28, hidden: 3072, ffn_hidden: 8192, heads: 24, vocab: 32000}"},
             true},
        Case{"pure_bf16_7b", 1, {ddp, "training.master_weights=false"}, true},
        Case{"adam8bit_7b", 1, {ddp, "training.optimizer=adam8bit", "training.master_weights=false"}, true},
        Case{"lora_7b", 1, {ddp, "training.finetune=lora"}, true},
        Case{"lora_13b", 1, {ddp, "training.finetune=lora", "model=llama2-13b"}, true},
        Case{"lora_70b", 1, {ddp, "training.finetune=lora", "model=llama2-70b"}, false},
        Case{"qlora_70b", 1, {ddp, "training.finetune=qlora", "model=llama2-70b"}, true},
        Case{"qlora_7b_24gb",
             1,
             {ddp, "training.finetune=qlora", "cluster.node=rtx-4090", "training.recompute=full"},
             true},
        Case{"full_1b_48gb", 1, {ddp, "model=gpt-1.3b", "cluster.node=a6000"}, true}),
    [](const auto& of) { return std::string{of.param.name}; });

}  // namespace
}  // namespace trainyard::scenarios
