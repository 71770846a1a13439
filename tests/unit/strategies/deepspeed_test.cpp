// DeepSpeed: what ZeRO and ZeRO++ put on the wire, when, and what cannot be.
#include "tests/support/deepspeed.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace trainyard {
namespace {

using scenarios::Result;
using sim::CollectiveKind;
using sim::Purpose;
using tests::expect_bytes;
using tests::row;
using tests::deepspeed::all;
using tests::deepspeed::ring;
using tests::deepspeed::simulated;
using tests::deepspeed::wire;

const auto layers =
    32 * static_cast<double>(workloads::parameters_of(workloads::describe(tests::llama3_8b(), 1).kinds.front()));

TEST(DeepspeedWire, StageZeroReducesAllGradientsBehindTheLastBackwardPass) {
  for (const char* micro_batch : {"training.micro_batch=2", "training.micro_batch=1"}) {
    const Result result = simulated({micro_batch, "training.precision=fp16"}).result;
    expect_bytes(wire(result, CollectiveKind::all_reduce), 2 * ring * 2 * all);
    EXPECT_EQ(result.communication.size(), 1U);
  }
}

TEST(DeepspeedWire, Bf16WithoutZeroReducesAllAndGathersWhatWasUpdated) {
  const Result result = simulated({"strategy.zero_stage=0"}).result;
  expect_bytes(wire(result, CollectiveKind::all_reduce), 2 * ring * 2 * all);
  expect_bytes(wire(result, CollectiveKind::all_gather), ring * 2 * all);
  EXPECT_EQ(result.communication.size(), 2U);
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

TEST(DeepspeedSchedule, ListsOfSlicesCostTheHostEverySlice) {
  const auto simulated_with = [&](std::vector<std::string> more) {
    more.insert(more.end(), {"strategy.zero_stage=3", "strategy.stage3_prefetch_bucket_size=0"});
    return simulated(more).result;
  };
  const Result tensors = simulated_with({});
  const Result lists = simulated_with({"strategy.slice_lists=true"});
  EXPECT_EQ(wire(lists, CollectiveKind::all_gather), wire(tensors, CollectiveKind::all_gather));
  const auto ranks = static_cast<double>(lists.devices);
  const double gathered = ranks * row(lists, Purpose::data, CollectiveKind::all_gather).count;
  const double reduced = ranks * row(lists, Purpose::data, CollectiveKind::reduce_scatter).count;
  constexpr double python_s = 6e-6;
  constexpr double library_s = 5e-6;
  // The host waits for the kernels before it gathers, so that what it does then shows; the rest it may do beside them.
  const double longer = lists.step_time_s - tensors.step_time_s;
  EXPECT_GE(longer, 0.9 * gathered * python_s);
  EXPECT_LE(longer, 1.1 * (gathered * (python_s + library_s) + reduced * (2 * python_s + library_s)));
}

TEST(DeepspeedSchedule, OverlapHidesReductions) {
  for (const char* stage : {"strategy.zero_stage=1", "strategy.zero_stage=2", "strategy.zero_stage=3"}) {
    const double beside = simulated({stage, "strategy.overlap_comm=true"}).result.step_time_s;
    const double behind = simulated({stage, "strategy.overlap_comm=false"}).result.step_time_s;
    EXPECT_LT(beside, behind) << stage;
  }
}

std::string problems_of(const std::vector<std::string>& settings) {
  return tests::refusal(tests::deepspeed::one_node, settings);
}

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
