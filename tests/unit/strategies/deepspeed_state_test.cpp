// DeepSpeed: where parameters, gradients and optimizer state are, what they take there, and what their ways cost.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "tests/support/deepspeed.hpp"

namespace trainyard {
namespace {

using scenarios::Result;
using scenarios::Simulation;
using sim::Purpose;
using tests::expect_bytes;
using tests::scenario_of;
using tests::deepspeed::all;
using tests::deepspeed::simulated;

constexpr std::size_t offload = sim::kernel_classes + static_cast<std::size_t>(Purpose::offload);  // of a breakdown

std::optional<sim::SlotId> slot_named(const sim::Plan& plan, const std::string& name) {
  for (std::size_t i = 0; i < plan.slots.size(); ++i)
    if (plan.slots[plan.slots.id(i)] == name) return plan.slots.id(i);
  return std::nullopt;
}

// What ranks put on one of their own ways in a step.
double on_way(const Simulation& simulation, const std::string& slot) {
  const sim::Plan& plan = simulation.plan;
  const std::vector<std::int64_t> counts = sim::call_counts(plan, plan.programs[sim::ProgramId{0}]);
  double sum = 0;
  for (std::size_t c = 0; c < plan.calls.size(); ++c) {
    const sim::Call& call = plan.calls[plan.calls.id(c)];
    if (plan.slots[call.slot] == slot) sum += static_cast<double>(counts[c] * call.bytes.count);
  }
  return sum;
}

TEST(DeepspeedOffload, GradientsGoToTheHostAndParametersComeBackOncePerRank) {
  for (const char* stage : {"strategy.zero_stage=1", "strategy.zero_stage=2", "strategy.zero_stage=3"})
    for (const char* spread : {"strategy.round_robin_gradients=true", "strategy.round_robin_gradients=false"}) {
      const Simulation simulation = simulated({stage, spread, "strategy.offload_optimizer_device=cpu"});
      expect_bytes(on_way(simulation, "device to host"), 2 * all / 8);
      expect_bytes(on_way(simulation, "host to device"), 2 * all / 8);
      expect_bytes(on_way(simulation, "host optimizer"), 30 * all / 8);
    }
}

TEST(DeepspeedOffload, AccumulatedGradientsComeToTheDeviceAndGoAgain) {
  const Simulation simulation =
      simulated({"strategy.zero_stage=2", "strategy.offload_optimizer_device=cpu", "training.micro_batch=1"});
  expect_bytes(on_way(simulation, "device to host"), 2 * 2 * all / 8);
  expect_bytes(on_way(simulation, "host to device"), (1 + 1) * 2 * all / 8);
}

TEST(DeepspeedOffload, ParametersOnTheHostAreFetchedSliceBySliceForwardAndBackward) {
  const Simulation simulation = simulated(
      {"strategy.zero_stage=3", "strategy.offload_optimizer_device=cpu", "strategy.offload_param_device=cpu"});
  expect_bytes(on_way(simulation, "host to device"), 2 * 2 * all / 8);
}

TEST(DeepspeedOffload, ARatioLeavesTheRestOfTheUpdateToTheDevice) {
  const Simulation simulation = simulated(
      {"strategy.zero_stage=3", "strategy.offload_optimizer_device=cpu", "strategy.offload_optimizer_ratio=0.25"});
  EXPECT_NEAR(on_way(simulation, "host optimizer"), 0.25 * 30 * all / 8, 100);
}

TEST(DeepspeedOffload, DrivesReadAndWriteTheStateOfEverySubGroup) {
  const std::vector<std::string> drives{"strategy.zero_stage=3", "strategy.offload_optimizer_device=nvme",
                                        "strategy.sub_group_size=1e8"};
  const Simulation simulation = simulated(drives);
  expect_bytes(on_way(simulation, "drive to host"), 12 * all / 8);
  expect_bytes(on_way(simulation, "host to drive"), 12 * all / 8);
  std::vector<std::string> pipelined = drives;
  pipelined.push_back("strategy.offload_optimizer_pipeline_read=true");
  const double read = simulated(pipelined).result.step_time_s;
  pipelined.push_back("strategy.offload_optimizer_pipeline_write=true");
  const double both = simulated(pipelined).result.step_time_s;
  EXPECT_LT(read, simulation.result.step_time_s);
  EXPECT_LT(both, read);
}

TEST(DeepspeedOffload, ADelayedUpdateHidesBehindTheNextStep) {
  const std::vector<std::string> now{"strategy.zero_stage=2", "strategy.offload_optimizer_device=cpu",
                                     "strategy.round_robin_gradients=true"};
  std::vector<std::string> later = now;
  later.push_back("strategy.delayed_param_update=true");
  const Simulation at_once = simulated(now);
  const Simulation delayed = simulated(later);
  EXPECT_EQ(on_way(delayed, "host optimizer"), on_way(at_once, "host optimizer"));
  EXPECT_LT(delayed.result.step_time_s, at_once.result.step_time_s);
}

TEST(DeepspeedOffload, PageableMemoryHalvesTheRateOfCopies) {
  const auto copy_time = [](const std::string& pinned) {
    const Simulation simulation = simulated({"strategy.zero_stage=2", "strategy.offload_optimizer_device=cpu",
                                             "strategy.offload_optimizer_pin_memory=" + pinned});
    const sim::Plan& plan = simulation.plan;
    const sim::CommunicatorId way = plan.communicators.of(sim::RankId{0}, *slot_named(plan, "host to device"));
    sim::Duration longest{};
    for (std::size_t c = 0; c < plan.calls.size(); ++c)
      if (plan.slots[plan.calls[plan.calls.id(c)].slot] == "host to device")
        longest = std::max(longest, plan.costs[plan.communicators[way].cost][c].duration);
    return sim::to_seconds(longest);
  };
  EXPECT_NEAR(copy_time("false") / copy_time("true"), 2, 0.01);
}

// deepspeed/runtime/zero/{stage_1_and_2,stage3}.py, estimate_zero{2,3}_model_states_mem_needs, which count the update:
// what a rank has at all times, and the copy of gradients in 32 bits.
double states(const std::vector<std::string>& settings) {
  const sim::Plan plan = simulated(settings).plan;
  const sim::Program& program = plan.programs[sim::ProgramId{0}];
  using sim::MemoryPurpose;
  std::int64_t sum = 0;
  for (const MemoryPurpose purpose : {MemoryPurpose::parameters, MemoryPurpose::gradients, MemoryPurpose::optimizer})
    sum += program.resident.at(static_cast<std::size_t>(purpose)).count;
  std::int64_t most = 0;
  for (const sim::Op& op : plan.blocks[program.calls.back().block].ops)
    if (const auto* memory = std::get_if<sim::Memory>(&op.work)) most = std::max(most, memory->change.count);
  return static_cast<double>(sum + most);
}

TEST(DeepspeedMemory, OfStageTwoIsWhatItsEstimatorSays) {
  EXPECT_NEAR(states({"strategy.zero_stage=2"}) / (2 * all + 18 * all / 8), 1, 1e-6);
}

TEST(DeepspeedMemory, OfStageTwoWithAnOffloadedOptimizerIsTheParameters) {
  EXPECT_NEAR(states({"strategy.zero_stage=2", "strategy.offload_optimizer_device=cpu"}) / (2 * all), 1, 1e-6);
}

TEST(DeepspeedMemory, OfStageThreeIsWhatItsEstimatorSaysAndTheSlicesOfParameters) {
  // The estimator's 4 x largest layer is for gathered parameters and gradients, whose peak is at another time.
  EXPECT_NEAR(states({"strategy.zero_stage=3", "strategy.sub_group_size=1e12"}) / (18 * all / 8 + 2 * all / 8), 1,
              1e-6);
}

TEST(DeepspeedMemory, GathersAndTheirGradientsTakeFourBytesOfTheLargestLayer) {
  const double largest = 128256.0 * 4096;
  const sim::Plan plan =
      simulated({"strategy.zero_stage=3", "strategy.offload_optimizer_device=cpu", "strategy.offload_param_device=cpu",
                 "training.sequence=16", "training.micro_batch=1", "training.global_batch=8",
                 "strategy.stage3_prefetch_bucket_size=0", "strategy.reduce_bucket_size=1000"})
          .plan;
  const sim::MemoryPeak peak = sim::memory_peak(plan, plan.programs[sim::ProgramId{0}]);
  EXPECT_NEAR(static_cast<double>(peak.total.count) / (4 * largest), 1, 0.05);
}

TEST(DeepspeedMemory, SubGroupsBoundTheWideCopyOfGradients) {
  EXPECT_NEAR(states({"strategy.zero_stage=3", "strategy.sub_group_size=1e8"}), 16 * all / 8 + 4 * 1e8, 1e6);
}

// BF16_Optimizer.
TEST(DeepspeedMemory, OfBf16WithoutZeroIsGradientsInBothTypesAndASliceOfTheState) {
  const sim::Plan plan = simulated({"strategy.zero_stage=0"}).plan;
  const auto& resident = plan.programs[sim::ProgramId{0}].resident;
  const auto bytes = [&](sim::MemoryPurpose purpose) {
    return static_cast<double>(resident.at(static_cast<std::size_t>(purpose)).count);
  };
  EXPECT_EQ(bytes(sim::MemoryPurpose::parameters), 2 * all);
  EXPECT_EQ(bytes(sim::MemoryPurpose::gradients), (4 + 2) * all);
  EXPECT_EQ(bytes(sim::MemoryPurpose::optimizer), 12 * all / 8);
}

// G4: of the states of a 7B model, more than nine tenths go from ten ranks on; not of all memory.
TEST(DeepspeedMemory, StageThreeDividesStatesByTheRanks) {
  EXPECT_NEAR(states({"strategy.zero_stage=3"}) / (20 * all), 1.0 / 8, 0.01);
  EXPECT_NEAR(states({"strategy.zero_stage=3", "cluster.nodes=2", "training.micro_batch=1"}) / (20 * all), 1.0 / 16,
              0.01);
}

// G6: "one GPU trains 13B": 8192 tokens a step through one V100 of 32 GB.
Simulation on_one_v100(const std::vector<std::string>& settings) {
  return scenarios::simulate(scenario_of(R"(name: 13B on one V100
cluster: {node: v100, nodes: 1}
model: gpt-13b
training: {global_batch: 8, micro_batch: 2, sequence: 1024, precision: fp16, recompute: full}
strategy: {framework: deepspeed, zero_stage: 2, offload_optimizer_device: cpu}
)",
                                         settings));
}

TEST(DeepspeedFeasibility, OffloadTrains13BOnOneV100) {
  const Simulation simulation = on_one_v100({});
  const Result& result = simulation.result;
  EXPECT_TRUE(result.memory.fits);
  // 19 s of kernels where these reach 45 TFLOP/s, 3.3 s of the optimizer on the host, 2.1 s of parameters coming back.
  EXPECT_GT(result.step_time_s, 12);
  EXPECT_LT(result.step_time_s, 29);
  EXPECT_NEAR(result.breakdown_s.at(offload), 3.3 + 2.1, 1.4);
  EXPECT_FALSE(on_one_v100({"strategy.offload_optimizer_device=none"}).result.memory.fits);
}

// G2 d: 175B at a fixed global batch of 1536 sequences of 2048 tokens.
TEST(DeepspeedScaling, StageThreeCollapsesWithDevicesAtAFixedGlobalBatch) {
  const auto flops = [](const std::string& nodes, const std::string& micro_batch) {
    return scenarios::simulate(scenario_of(R"(name: 175B
cluster: {node: dgx-a100-80gb, nodes: 48}
model: gpt3-175b
training: {global_batch: 1536, sequence: 2048, precision: fp16, recompute: full}
strategy: {framework: deepspeed, zero_stage: 3}
)",
                                           {"cluster.nodes=" + nodes, "training.micro_batch=" + micro_batch}))
        .result.model_tflops_per_device;
  };
  const double at_384 = flops("48", "4");
  const double at_768 = flops("96", "2");
  const double at_1536 = flops("192", "1");
  EXPECT_LT(at_768, 0.9 * at_384);
  EXPECT_LT(at_1536, 0.6 * at_384);
}

}  // namespace
}  // namespace trainyard
