// DeepSpeed: what ZeRO and ZeRO++ put on the wire and over PCIe, what they hold, and what that costs.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/simulate.hpp"
#include "strategies/internal/deepspeed_buckets.hpp"
#include "strategies/internal/deepspeed_coordinator.hpp"
#include "tests/support/models.hpp"
#include "tests/support/simulated.hpp"
#include "workloads/architecture.hpp"

namespace trainyard {
namespace {

using scenarios::Result;
using scenarios::Simulation;
using sim::CollectiveKind;
using sim::Purpose;
using tests::expect_bytes;
using tests::row;
using tests::scenario_of;

constexpr std::size_t offload = sim::kernel_classes + static_cast<std::size_t>(Purpose::offload);  // of a breakdown

// Llama 3 8B on one node of H100, whose collectives are rings, with parameters that go as soon as they were used.
constexpr const char* one_node = R"(name: DeepSpeed
cluster: {node: {base: dgx-h100, collectives: {algorithm: ring}}, nodes: 1}
model: llama3-8b
training: {global_batch: 16, micro_batch: 2, sequence: 1024, precision: bf16}
strategy:
  {framework: deepspeed, stage3_max_reuse_distance: 0, stage3_param_persistence_threshold: 0}
)";

Simulation simulated(const std::vector<std::string>& settings) {
  return scenarios::simulate(scenario_of(one_node, settings));
}

double wire(const Result& result, CollectiveKind kind) { return tests::wire(result, Purpose::data, kind); }

constexpr double ring = 7.0 / 8;
const auto all = static_cast<double>(workloads::parameters(tests::llama3_8b()));
const auto layers =
    32 * static_cast<double>(workloads::parameters_of(workloads::describe(tests::llama3_8b(), 1).kinds.front()));

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

TEST(DeepspeedWire, StageZeroReducesAllGradientsBehindTheLastBackwardPass) {
  for (const char* micro_batch : {"training.micro_batch=2", "training.micro_batch=1"}) {
    const Result result = simulated({micro_batch}).result;
    expect_bytes(wire(result, CollectiveKind::all_reduce), 2 * ring * 2 * all);
    EXPECT_EQ(result.communication.size(), 1U);
  }
}

TEST(DeepspeedWire, GradientsAreReducedInTheTypeThatIsAskedFor) {
  for (const char* stage : {"strategy.zero_stage=0", "strategy.zero_stage=1", "strategy.zero_stage=2"}) {
    const Result result = simulated({stage, "training.gradient_precision=fp32"}).result;
    expect_bytes(wire(result, CollectiveKind::all_reduce), 2 * ring * 4 * all);
  }
}

TEST(DeepspeedWire, StageOneReducesWholeBucketsOnceAndGathersWhatWasUpdated) {
  for (const char* micro_batch : {"training.micro_batch=2", "training.micro_batch=1"})
    for (const char* overlap : {"strategy.overlap_comm=false", "strategy.overlap_comm=true"}) {
      const Result result = simulated({"strategy.zero_stage=1", micro_batch, overlap}).result;
      expect_bytes(wire(result, CollectiveKind::all_reduce), 2 * ring * 2 * all);
      expect_bytes(wire(result, CollectiveKind::all_gather), ring * 2 * all);
    }
}

TEST(DeepspeedWire, StageTwoReducesForEveryMicroBatch) {
  for (const double m : {1.0, 2.0})
    for (const char* overlap : {"strategy.overlap_comm=false", "strategy.overlap_comm=true"}) {
      const Result result =
          simulated({"strategy.zero_stage=2", overlap, m == 1 ? "training.micro_batch=2" : "training.micro_batch=1"})
              .result;
      EXPECT_EQ(result.micro_batches, m);
      expect_bytes(wire(result, CollectiveKind::all_reduce), m * 2 * ring * 2 * all);
      expect_bytes(wire(result, CollectiveKind::all_gather), ring * 2 * all);
    }
}

TEST(DeepspeedWire, SlicesCanGoToTheirOwnersInstead) {
  for (const char* stage : {"strategy.zero_stage=1", "strategy.zero_stage=2"}) {
    const Result rooted = simulated({stage, "strategy.use_multi_rank_bucket_allreduce=false"}).result;
    const Result named = simulated({stage, "strategy.zero12_wire_op=reduce"}).result;
    EXPECT_EQ(row(rooted, Purpose::data, CollectiveKind::reduce).bytes, 2 * all);
    EXPECT_EQ(row(named, Purpose::data, CollectiveKind::reduce).bytes, 2 * all);
    // Nothing but the norm is summed up for everybody.
    EXPECT_EQ(row(rooted, Purpose::data, CollectiveKind::all_reduce).bytes, 4);
    const Result scattered = simulated({stage, "strategy.zero12_wire_op=reduce_scatter"}).result;
    expect_bytes(wire(scattered, CollectiveKind::reduce_scatter), ring * 2 * all);
  }
}

TEST(DeepspeedWire, WithoutReduceScatterEveryoneGetsEverything) {
  const Result result = simulated({"strategy.zero_stage=2", "strategy.reduce_scatter=false",
                                   "strategy.use_multi_rank_bucket_allreduce=false"})
                            .result;
  expect_bytes(wire(result, CollectiveKind::all_reduce), 2 * ring * 2 * all);
  EXPECT_EQ(wire(result, CollectiveKind::reduce), 0);
}

TEST(DeepspeedWire, StageThreeGathersForwardAndBackwardAndScattersForEveryMicroBatch) {
  for (const double m : {1.0, 2.0})
    for (const char* overlap : {"strategy.overlap_comm=false", "strategy.overlap_comm=true"}) {
      const Result result =
          simulated({"strategy.zero_stage=3", overlap, m == 1 ? "training.micro_batch=2" : "training.micro_batch=1"})
              .result;
      expect_bytes(wire(result, CollectiveKind::all_gather), m * 2 * ring * 2 * all);
      expect_bytes(wire(result, CollectiveKind::reduce_scatter), m * ring * 2 * all);
    }
}

TEST(DeepspeedWire, StageThreeGathersAgainWhatRunsAgain) {
  const Result result = simulated({"strategy.zero_stage=3", "training.recompute=full"}).result;
  expect_bytes(wire(result, CollectiveKind::all_gather), ring * 2 * (2 * all + layers));
}

TEST(DeepspeedWire, WhatIsUsedAgainSoonIsNotGatheredAgain) {
  const Result result = simulated({"strategy.zero_stage=3", "strategy.stage3_max_reuse_distance=1e9"}).result;
  const double gathered = wire(result, CollectiveKind::all_gather) / (ring * 2);
  EXPECT_LT(gathered, 2 * all - 0.5e9);  // half the distance forward, half backward
  EXPECT_GT(gathered, 2 * all - 1.2e9);
  const Result everything = simulated({"strategy.zero_stage=3", "strategy.stage3_max_reuse_distance=1e11"}).result;
  expect_bytes(wire(everything, CollectiveKind::all_gather), ring * 2 * all);
}

TEST(DeepspeedWire, SmallParametersStayAndAreGatheredOnceAfterTheStep) {
  const Result result =
      simulated({"strategy.zero_stage=3", "strategy.stage3_param_persistence_threshold=100000"}).result;
  constexpr double norms = 65 * 4096;
  expect_bytes(wire(result, CollectiveKind::all_gather), ring * 2 * (2 * (all - norms) + norms));
}

TEST(DeepspeedWire, StageThreeCanReduceWholeBuckets) {
  const Result result = simulated({"strategy.zero_stage=3", "strategy.reduce_scatter=false"}).result;
  // The embedding and the head are larger than a bucket, and are scattered.
  const double large = 2 * 128256.0 * 4096;
  expect_bytes(wire(result, CollectiveKind::reduce_scatter), ring * 2 * large);
  expect_bytes(wire(result, CollectiveKind::all_reduce), 2 * ring * 2 * (all - large));
}

TEST(DeepspeedWire, QuantizedWeightsHalveTheGathers) {
  const Result result = simulated({"strategy.zero_stage=3", "strategy.zero_quantized_weights=true"}).result;
  expect_bytes(wire(result, CollectiveKind::all_gather), 2 * ring * all);
  expect_bytes(wire(result, CollectiveKind::reduce_scatter), ring * 2 * all);
}

// Two nodes: 15/16 of a gathered vector comes from others, 7/8 of one gathered inside a node. The last forward passes
// would fetch ahead for backward, from all ranks still.
TEST(DeepspeedWire, ASecondPartitionServesBackwardPassesInsideTheNode) {
  const Result result = simulated({"strategy.zero_stage=3", "cluster.nodes=2", "training.micro_batch=1",
                                   "strategy.zero_hpz_partition_size=8", "strategy.stage3_prefetch_bucket_size=0"})
                            .result;
  expect_bytes(wire(result, CollectiveKind::all_gather), (15.0 / 16 + ring) * 2 * all);
  const Result both = simulated({"strategy.zero_stage=3", "cluster.nodes=2", "training.micro_batch=1",
                                 "strategy.zero_hpz_partition_size=8", "strategy.zero_quantized_weights=true",
                                 "strategy.stage3_prefetch_bucket_size=0"})
                          .result;
  expect_bytes(wire(both, CollectiveKind::all_gather), (15.0 / 16 + ring) * all);
}

TEST(DeepspeedWire, QuantizedGradientsTakeTwoHopsOfFourBits) {
  const Result result = simulated({"strategy.zero_stage=3", "cluster.nodes=2", "training.micro_batch=1",
                                   "strategy.zero_quantized_gradients=true"})
                            .result;
  constexpr double norms = 65 * 4096;
  const double matrices = all - norms;
  // Inside the node, then an eighth of it to the other node: with eight ranks a quarter of the 16 bits crosses.
  expect_bytes(wire(result, CollectiveKind::all_to_all), 0.5 * matrices * (ring + 1.0 / 8 / 2));
  expect_bytes(wire(result, CollectiveKind::reduce_scatter), 15.0 / 16 * 2 * norms);
}

TEST(DeepspeedWire, AdaptersReduceTheirGradientsOnlyButStageThreeGathersFrozenWeights) {
  const std::string lora = "training.finetune={lora: {rank: 16, targets: [query, value]}}";
  const double trained = 32 * 16 * (4096 + 4096 + 4096 + 1024);
  for (const char* stage : {"strategy.zero_stage=1", "strategy.zero_stage=2"}) {
    const Result result = simulated({stage, lora}).result;
    expect_bytes(wire(result, CollectiveKind::all_reduce), 2 * ring * 2 * trained);
    expect_bytes(wire(result, CollectiveKind::all_gather), ring * 2 * trained);
  }
  const Result third = simulated({"strategy.zero_stage=3", lora}).result;
  expect_bytes(wire(third, CollectiveKind::reduce_scatter), ring * 2 * trained);
  expect_bytes(wire(third, CollectiveKind::all_gather), 2 * ring * 2 * (all + trained));
}

// Eight experts over four ranks, twice: two ranks each have the same two.
TEST(DeepspeedWire, ExpertsAreReducedAmongTheRanksThatHaveThem) {
  const workloads::Model mixtral = tests::mixtral_8x7b();
  const auto parameters = static_cast<double>(workloads::parameters(mixtral));
  constexpr double of_experts = 32 * 8 * 3 * 4096.0 * 14336;
  for (const char* stage : {"strategy.zero_stage=1", "strategy.zero_stage=2"}) {
    const Result result = simulated({stage, "model=mixtral-8x7b", "strategy.expert=4"}).result;
    EXPECT_EQ(result.parallelism.expert, 4);
    expect_bytes(wire(result, CollectiveKind::all_reduce),
                 2 * 2 * (ring * (parameters - of_experts) + 1.0 / 2 * of_experts / 4));
    expect_bytes(wire(result, CollectiveKind::all_gather),
                 2 * (ring * (parameters - of_experts) + 1.0 / 2 * of_experts / 4));
    // Dispatch and combine, forward and backward.
    const auto exchanged = row(result, Purpose::expert, CollectiveKind::all_to_all);
    EXPECT_EQ(exchanged.count, 4 * 32);
    expect_bytes(exchanged.wire_bytes, 4 * 32 * 3.0 / 4 * 2 * 2 * 1024 * 4096 * 2);
  }
}

TEST(DeepspeedWire, ExpertsWithAsManyPartsAsRanksAreNotReduced) {
  const Result result = simulated({"strategy.zero_stage=2", "model=mixtral-8x7b", "strategy.expert=8"}).result;
  constexpr double of_experts = 32 * 8 * 3 * 4096.0 * 14336;
  const auto parameters = static_cast<double>(workloads::parameters(tests::mixtral_8x7b()));
  expect_bytes(wire(result, CollectiveKind::all_reduce), 2 * 2 * ring * (parameters - of_experts));
}

TEST(DeepspeedWire, AloneHasNobodyToTalkTo) {
  for (const char* stage :
       {"strategy.zero_stage=0", "strategy.zero_stage=1", "strategy.zero_stage=2", "strategy.zero_stage=3"})
    EXPECT_TRUE(simulated({stage, "cluster.devices=1", "model=gpt2"}).result.communication.empty()) << stage;
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

// What is fetched one by one for lack of room takes the latency of a gather each.
TEST(DeepspeedSchedule, FetchingAheadSavesGathersOfSmallParameters) {
  const std::vector<std::string> ahead{"strategy.zero_stage=3", "cluster.nodes=2", "training.micro_batch=1"};
  std::vector<std::string> none = ahead;
  none.push_back("strategy.stage3_max_live_parameters=0");
  const Result with = simulated(ahead).result;
  const Result without = simulated(none).result;
  EXPECT_LT(row(with, Purpose::data, CollectiveKind::all_gather).count,
            row(without, Purpose::data, CollectiveKind::all_gather).count);
  EXPECT_LT(with.step_time_s, without.step_time_s);
}

TEST(DeepspeedSchedule, StageThreeTakesAsLongAsKernelsAndGathersTogether) {
  const Result result = simulated({"strategy.zero_stage=3", "training.micro_batch=1"}).result;
  EXPECT_GT(row(result, Purpose::data, CollectiveKind::all_gather).exposed_s,
            0.95 * row(result, Purpose::data, CollectiveKind::all_gather).busy_s);
}

TEST(DeepspeedSchedule, OverlapHidesReductions) {
  for (const char* stage : {"strategy.zero_stage=1", "strategy.zero_stage=2", "strategy.zero_stage=3"}) {
    const double beside = simulated({stage, "strategy.overlap_comm=true"}).result.step_time_s;
    const double behind = simulated({stage, "strategy.overlap_comm=false"}).result.step_time_s;
    EXPECT_LT(beside, behind) << stage;
  }
}

using strategies::FetchPlan;
using strategies::FetchRules;
using strategies::ParameterVisit;
using Numbers = std::vector<std::uint32_t>;

// Three matrices, used forward and then backward.
const std::vector<ParameterVisit> there_and_back{{.parameters = {0}},
                                                 {.parameters = {1}},
                                                 {.parameters = {2}},
                                                 {.parameters = {2}, .forward = false},
                                                 {.parameters = {1}, .forward = false},
                                                 {.parameters = {0}, .forward = false}};

TEST(FetchPlanner, FetchesOneAheadAndLetsGoOfWhatWasUsed) {
  const FetchPlan plan = strategies::plan_fetches(there_and_back, {100, 100, 100},
                                                  {.prefetch_bucket_size = 50, .max_live_parameters = 1000});
  EXPECT_EQ(plan.steps[0].gathered, Numbers{0});
  EXPECT_EQ(plan.steps[0].prefetched, Numbers{1});
  EXPECT_EQ(plan.steps[0].released, Numbers{0});
  EXPECT_TRUE(plan.steps[1].gathered.empty());
  EXPECT_EQ(plan.steps[1].awaited, Numbers{1});
  // The third is gathered while the second runs, then for backward again, and there is nothing left behind the last.
  EXPECT_EQ(plan.groups.size(), 6U);
  EXPECT_TRUE(plan.steps[5].prefetched.empty());
  EXPECT_FALSE(plan.groups.back().forward);
}

TEST(FetchPlanner, KeepsWhatIsNeededWithinTheReuseDistance) {
  const FetchPlan plan =
      strategies::plan_fetches(there_and_back, {100, 100, 100},
                               {.prefetch_bucket_size = 0, .max_live_parameters = 1000, .max_reuse_distance = 100});
  EXPECT_TRUE(plan.steps[2].released.empty());
  EXPECT_TRUE(plan.steps[3].gathered.empty());
  EXPECT_EQ(plan.steps[1].released, Numbers{1});
}

TEST(FetchPlanner, FetchesNothingAheadBeyondTheLiveParameters) {
  const FetchPlan plan = strategies::plan_fetches(there_and_back, {100, 100, 100},
                                                  {.prefetch_bucket_size = 50, .max_live_parameters = 100});
  for (const strategies::FetchStep& step : plan.steps) EXPECT_TRUE(step.prefetched.empty());
}

TEST(FetchPlanner, CoalescesSmallParametersUntilTheBucketIsFull) {
  const FetchPlan plan = strategies::plan_fetches(there_and_back, {100, 30, 30},
                                                  {.prefetch_bucket_size = 50, .max_live_parameters = 1000});
  EXPECT_EQ(plan.groups[1].parameters, (Numbers{1, 2}));
}

TEST(FetchPlanner, NeverGathersPersistentParameters) {
  const FetchPlan plan =
      strategies::plan_fetches(there_and_back, {100, 10, 100},
                               {.prefetch_bucket_size = 50, .max_live_parameters = 1000, .persistence_threshold = 10});
  for (const strategies::FetchedGroup& group : plan.groups)
    EXPECT_EQ(std::count(group.parameters.begin(), group.parameters.end(), 1U), 0);
}

TEST(FetchPlanner, TheHostWaitsForTheOldestOfThreeGathers) {
  const FetchPlan plan = strategies::plan_fetches(there_and_back, {100, 100, 100},
                                                  {.prefetch_bucket_size = 0, .max_live_parameters = 1000});
  EXPECT_TRUE(plan.steps[2].host_awaited.empty());
  EXPECT_EQ(plan.steps[3].host_awaited, Numbers{0});
  EXPECT_EQ(plan.steps[4].host_awaited, Numbers{1});
}

TEST(GradientBuckets, LeaveBeforeTheGradientThatWouldOverflowThem) {
  strategies::GradientBuckets buckets(100);
  const auto tensor = [](std::int64_t elements) { return strategies::ParameterTensor{.elements = elements}; };
  EXPECT_FALSE(buckets.add(tensor(60)).has_value());
  EXPECT_FALSE(buckets.add(tensor(40)).has_value());
  const auto full = buckets.add(tensor(500));
  ASSERT_TRUE(full.has_value());
  EXPECT_EQ(full->elements(), 100);
  const auto large = buckets.add(tensor(1));
  ASSERT_TRUE(large.has_value());
  EXPECT_EQ(large->elements(), 500);
  EXPECT_EQ(large->runs[0].first, 100);
  EXPECT_EQ(buckets.finish()->elements(), 1);
  EXPECT_FALSE(buckets.finish().has_value());
}

std::string problems_of(const std::vector<std::string>& settings) { return tests::refusal(one_node, settings); }

TEST(DeepspeedChecks, NameWhatIsMissing) {
  const auto expect = [](const std::vector<std::string>& settings, const std::string& part) {
    EXPECT_NE(problems_of(settings).find(part), std::string::npos) << problems_of(settings);
  };
  expect({"strategy.offload_optimizer_device=cpu"},
         "strategy.offload_optimizer_device: an optimizer on the host needs");
  expect({"strategy.zero_stage=2", "strategy.offload_param_device=cpu"}, "strategy.offload_param_device");
  expect({"strategy.zero_stage=2", "strategy.offload_optimizer_device=nvme"}, "needs zero_stage 3");
  expect({"strategy.zero_stage=3", "strategy.zero_hpz_partition_size=3"}, "the nearest that does is 2");
  expect({"strategy.zero_stage=1", "strategy.zero_quantized_weights=true"}, "strategy.zero_quantized_weights");
  expect({"strategy.zero_stage=3", "model=mixtral-8x7b", "strategy.expert=8"}, "beside zero_stage 3");
  expect({"strategy.zero_stage=2", "strategy.expert=2"}, "has no experts");
  expect({"strategy.zero_stage=2", "strategy.delayed_param_update=true"}, "strategy.delayed_param_update");
  expect({"strategy.zero_stage=3", "strategy.offload_optimizer_device=cpu", "training.optimizer=lamb"},
         "DeepSpeedCPUAdam");
}

TEST(DeepspeedChecks, WarnOfOptionsWithoutEffect) {
  const auto warned = [](const std::vector<std::string>& settings, const std::string& part) {
    for (const std::string& warning : simulated(settings).result.warnings)
      if (warning.find(part) != std::string::npos) return true;
    return false;
  };
  EXPECT_TRUE(warned({"strategy.zero_stage=1", "strategy.allgather_bucket_size=2e8"}, "allgather_bucket_size"));
  EXPECT_TRUE(warned({"strategy.overlap_comm=true"}, "overlap_comm"));
  EXPECT_TRUE(warned({"strategy.zero_stage=3", "strategy.zero_quantized_gradients=true"}, "zero_quantized_gradients"));
  EXPECT_FALSE(warned({"strategy.zero_stage=2", "strategy.overlap_comm=true"}, "overlap_comm"));
}

}  // namespace
}  // namespace trainyard
