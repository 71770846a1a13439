// What Megatron-LM's ranks send each other where they share sequences or experts, against the closed forms.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/support/simulated.hpp"

namespace trainyard {
namespace {

using scenarios::CommunicationSummary;
using scenarios::Result;
using sim::CollectiveKind;
using sim::Purpose;
using tests::expect_bytes;
using tests::row;
using tests::simulated;
using tests::wire;

// Llama 3 8B: 32 layers, 32 heads of 128, 8 key-value heads; 16 sequences of 1024 tokens.
class SharedSequences : public testing::Test {
 protected:
  static constexpr double layers = 32;
  static constexpr double tokens = 1024;
  static constexpr double keys_values = tokens * 2 * 8 * 128 * 2;  // bytes of a whole sequence
  static constexpr double queries = tokens * 32 * 128 * 2;

  // On as many devices as ranks share a sequence.
  static Result with(int context, std::vector<std::string> settings = {}) {
    settings.insert(settings.begin(), {"cluster.devices=" + std::to_string(context),
                                       "strategy.context=" + std::to_string(context), "training.recompute=none"});
    return simulated(settings);
  }
};

TEST_F(SharedSequences, SendKeysAndValuesRoundARingAndTheirGradientsBack) {
  for (const int context : {2, 4, 8}) {
    const Result result = with(context);
    EXPECT_EQ(result.parallelism.context, context);
    EXPECT_EQ(result.parallelism.data, 1);
    const CommunicationSummary sent = row(result, Purpose::context, CollectiveKind::send);
    const double steps = context - 1;
    EXPECT_EQ(sent.count, 16 * layers * 2 * steps);
    // Forward the keys and values of a rank's tokens, backward twice as much.
    expect_bytes(sent.wire_bytes, 16 * layers * steps * 3 * keys_values / context);
    EXPECT_EQ(row(result, Purpose::context, CollectiveKind::receive).count, sent.count);
  }
}

TEST_F(SharedSequences, GatherKeysAndValuesAndScatterTheirGradients) {
  const Result result = with(4, {"strategy.cp_comm_type=all_gather"});
  expect_bytes(wire(result, Purpose::context, CollectiveKind::all_gather), 16 * layers * 3.0 / 4 * keys_values);
  expect_bytes(wire(result, Purpose::context, CollectiveKind::reduce_scatter), 16 * layers * 3.0 / 4 * keys_values);
}

TEST_F(SharedSequences, ExchangeHeadsFourTimesEachWay) {
  const Result result = with(4, {"strategy.cp_comm_type=a2a"});
  const CommunicationSummary exchanged = row(result, Purpose::context, CollectiveKind::all_to_all);
  EXPECT_EQ(exchanged.count, 16 * layers * 2 * 4);
  // Queries, keys, values and outputs, each forward and backward.
  expect_bytes(exchanged.wire_bytes, 16 * layers * 2 * 3.0 / 4 * (2 * queries + keys_values) / 4);
}

TEST_F(SharedSequences, ExchangeHeadsAmongNeighboursAndGoRoundRingsOfTheRest) {
  const Result result =
      with(8, {"strategy.cp_comm_type=a2a+p2p", "strategy.hierarchical_context_parallel_sizes=[2, 4]"});
  expect_bytes(wire(result, Purpose::context, CollectiveKind::all_to_all),
               16 * layers * 2 * 1.0 / 2 * (2 * queries + keys_values) / 8);
  expect_bytes(wire(result, Purpose::context, CollectiveKind::send), 16 * layers * 3 * 3 * keys_values / 8);
}

TEST_F(SharedSequences, ReduceGradientsOverDataAndContextRanks) {
  const Result alone = simulated({"cluster.devices=8"});
  const Result shared = simulated({"cluster.devices=8", "strategy.context=4"});
  EXPECT_EQ(shared.parallelism.data, 2);
  EXPECT_EQ(wire(shared, Purpose::data, CollectiveKind::all_reduce),
            wire(alone, Purpose::data, CollectiveKind::all_reduce));
}

TEST_F(SharedSequences, TakeAsManyFlopAsOneRankWouldEach) {
  const Result one = with(1);
  for (const char* kind : {"p2p", "all_gather", "a2a", "a2a+p2p"}) {
    const Result four =
        with(4, {std::string("strategy.cp_comm_type=") + kind, "strategy.hierarchical_context_parallel_sizes=[2, 2]"});
    EXPECT_NEAR(four.model_tflops_per_device * four.step_time_s * 4, one.model_tflops_per_device * one.step_time_s,
                1e-3 * one.model_tflops_per_device * one.step_time_s)
        << kind;
  }
}

// Mixtral 8x7B with few layers: 8 experts, of which a token passes 2; hidden 4096, experts 14336 wide.
class SharedExperts : public testing::Test {
 protected:
  static constexpr double layers = 4;
  static constexpr double hidden = 4096;
  static constexpr double tokens = 1024;
  static constexpr double rows = tokens * 2 * hidden * 2;  // bytes of a micro-batch's copies
  static constexpr double expert = 3 * hidden * 14336;     // parameters

  static Result with(std::vector<std::string> settings) {
    settings.insert(settings.begin(),
                    {"model={base: mixtral-8x7b, layers: 4}", "training.recompute=none",
                     "strategy.moe_token_dispatcher_type=alltoall", "cluster.node.collectives.algorithm=ring"});
    return simulated(settings);
  }
};

TEST_F(SharedExperts, ExchangeTheCopiesOfTokensFourTimesPerLayer) {
  for (const int ranks : {2, 4, 8}) {
    const Result result = with({"strategy.expert=" + std::to_string(ranks)});
    const CommunicationSummary exchanged = row(result, Purpose::expert, CollectiveKind::all_to_all);
    EXPECT_EQ(exchanged.count, 2 * layers * 4);
    EXPECT_EQ(exchanged.bytes, 2 * layers * 4 * rows);
    expect_bytes(exchanged.wire_bytes, 2 * layers * 4 * rows * (ranks - 1) / ranks);
  }
}

TEST_F(SharedExperts, FullRecomputationMakesItSix) {
  const Result result = with({"strategy.expert=8", "training.recompute=full"});
  EXPECT_EQ(row(result, Purpose::expert, CollectiveKind::all_to_all).count, 2 * layers * 6);
}

TEST_F(SharedExperts, GatherAllTokensInsteadWithThatDispatcher) {
  const Result result = with({"strategy.expert=4", "strategy.moe_token_dispatcher_type=allgather"});
  const double gathered = 4 * tokens * hidden * 2;
  const CommunicationSummary there = row(result, Purpose::expert, CollectiveKind::all_gather);
  const CommunicationSummary back = row(result, Purpose::expert, CollectiveKind::reduce_scatter);
  EXPECT_EQ(there.count, 2 * layers * 2);
  EXPECT_EQ(back.count, 2 * layers * 2);
  expect_bytes(there.wire_bytes, 2 * layers * 2 * 3.0 / 4 * gathered);
  expect_bytes(back.wire_bytes, 2 * layers * 2 * 3.0 / 4 * gathered);
}

// With fused kernels a token goes once to each rank, and once to each node, that has one of its experts.
TEST_F(SharedExperts, SendATokenOncePerPlaceWithFusedKernels) {
  const std::vector<std::string> fused{"strategy.moe_token_dispatcher_type=flex"};
  std::vector<std::string> settings = fused;
  settings.emplace_back("strategy.expert=8");
  const double places = 8 * (1 - std::pow(7.0 / 8, 2));
  expect_bytes(wire(with(settings), Purpose::expert, CollectiveKind::all_to_all),
               2 * layers * 4 * 7.0 / 8 * rows / 2 * places);
  // Two experts on each of two nodes of two devices.
  settings = fused;
  for (const char* setting : {"cluster.nodes=2", "cluster.devices=4", "strategy.expert=4", "training.micro_batch=1"})
    settings.emplace_back(setting);
  const double ranks = 4 * (1 - std::pow(3.0 / 4, 2));
  const double nodes = 2 * (1 - std::pow(1.0 / 2, 2));
  expect_bytes(wire(with(settings), Purpose::expert, CollectiveKind::all_to_all),
               4 * layers * 4 * rows / 2 * (ranks / 2 + nodes / 2));
  // A limit on the nodes that a token goes to.
  settings.emplace_back("strategy.moe_router_group_topk=1");
  expect_bytes(wire(with(settings), Purpose::expert, CollectiveKind::all_to_all),
               4 * layers * 4 * rows / 2 * (ranks / 2 + 1.0 / 2));
}

TEST_F(SharedExperts, ReduceTheirGradientsOverTheRanksThatHaveTheSameExperts) {
  const Result alone = with({});
  const double all = row(alone, Purpose::data, CollectiveKind::all_reduce).bytes / 4;
  const double dense = all - layers * 8 * expert;
  const Result shared = with({"strategy.expert=4"});
  const double of_experts = layers * 2 * expert;
  expect_bytes(row(shared, Purpose::data, CollectiveKind::all_reduce).bytes, 4 * (dense + of_experts));
  expect_bytes(wire(shared, Purpose::data, CollectiveKind::all_reduce),
               2 * 4 * (7.0 / 8 * dense + 1.0 / 2 * of_experts));
  // Each expert on one rank only.
  const Result spread = with({"strategy.expert=8", "strategy.distributed_optimizer=true"});
  expect_bytes(wire(spread, Purpose::data, CollectiveKind::reduce_scatter), 7.0 / 8 * 4 * dense);
}

// Parallel folding: ranks that share layers share experts in another order, and may share each expert too.
TEST_F(SharedExperts, FoldOverTheRanksOfATensorGroup) {
  const std::vector<std::string> folded{"strategy.tensor=4", "strategy.sequence_parallel=true", "strategy.expert=8"};
  const Result result = with(folded);
  EXPECT_EQ(result.parallelism.data, 2);
  EXPECT_EQ(result.micro_batches, 8);
  // A quarter of the tokens each.
  expect_bytes(row(result, Purpose::expert, CollectiveKind::all_to_all).bytes, 8 * layers * 4 * rows / 4);
  std::vector<std::string> divided = folded;
  divided.back() = "strategy.expert=4";
  divided.emplace_back("strategy.expert_tensor=2");
  const Result both = with(divided);
  expect_bytes(wire(both, Purpose::expert, CollectiveKind::all_to_all), 8 * layers * 4 * rows / 4 * 3 / 4);
  const CommunicationSummary gathered = row(both, Purpose::expert, CollectiveKind::all_gather);
  EXPECT_EQ(gathered.count, 8 * layers * 2);
  expect_bytes(gathered.wire_bytes, 8 * layers * 2 * rows / 4 * 2 * 1.0 / 2);
  expect_bytes(row(both, Purpose::expert, CollectiveKind::reduce_scatter).wire_bytes, gathered.wire_bytes);
}

TEST_F(SharedExperts, WaitForTheMostLoadedOfThem) {
  const double even = with({"strategy.expert=8"}).step_time_s;
  const double uneven = with({"strategy.expert=8", "training.expert_imbalance=2"}).step_time_s;
  EXPECT_GT(uneven, 1.2 * even);
  // Where every rank has all experts, the sum of their loads is the same.
  EXPECT_LT(with({"training.expert_imbalance=2"}).step_time_s, 1.1 * with({}).step_time_s);
}

// On two nodes of four devices, where tokens cross the network.
class OverlappedPasses : public testing::Test {
 protected:
  static Result with(std::vector<std::string> settings) {
    settings.insert(settings.begin(), {"model={base: mixtral-8x7b, layers: 8}", "cluster.nodes=2", "cluster.devices=8",
                                       "training.sequence=4096", "training.global_batch=32", "strategy.pipeline=2",
                                       "strategy.virtual_pipeline=2", "strategy.order=tp-cp-pp-ep-dp",
                                       "strategy.expert=4", "strategy.distributed_optimizer=true"});
    return simulated(settings);
  }
  static constexpr std::size_t exposed = sim::kernel_classes + static_cast<std::size_t>(Purpose::expert);
};

TEST_F(OverlappedPasses, HideTheExchangeOfTokensBehindOneAnother) {
  const Result apart = with({"strategy.overlap_moe_expert_parallel_comm=false"});
  const Result together = with({"strategy.overlap_moe_expert_parallel_comm=true"});
  EXPECT_EQ(wire(apart, Purpose::expert, CollectiveKind::all_to_all),
            wire(together, Purpose::expert, CollectiveKind::all_to_all));
  EXPECT_LT(together.breakdown_s.at(exposed), 0.5 * apart.breakdown_s.at(exposed));
  EXPECT_LT(together.step_time_s, apart.step_time_s);
  // One more micro-batch in flight.
  EXPECT_GT(together.memory.allocated, apart.memory.allocated);
}

// Whose activations the first stage fetches from the last long before it needs them.
TEST_F(OverlappedPasses, TakeGroupsOfMoreMicroBatchesThanStages) {
  const auto sent = [](const Result& result) { return wire(result, Purpose::pipeline, CollectiveKind::send); };
  EXPECT_EQ(sent(with({"strategy.microbatch_group_size_per_vp_stage=4"})), sent(with({})));
}

TEST_F(OverlappedPasses, AreTheDefaultWhereExpertsSpanNodes) {
  EXPECT_EQ(with({}).step_time_s, with({"strategy.overlap_moe_expert_parallel_comm=true"}).step_time_s);
  EXPECT_EQ(with({"training.recompute=full"}).step_time_s,
            with({"training.recompute=full", "strategy.overlap_moe_expert_parallel_comm=false"}).step_time_s);
}

TEST(OptimizerInstances, ScatterInsideAndReduceShardsBetweenThem) {
  const Result one = simulated({"strategy.distributed_optimizer=true"});
  const double all = row(one, Purpose::data, CollectiveKind::reduce_scatter).bytes / 4;
  const Result two =
      simulated({"strategy.distributed_optimizer=true", "strategy.num_distributed_optimizer_instances=2"});
  expect_bytes(wire(two, Purpose::data, CollectiveKind::reduce_scatter), 3.0 / 4 * 4 * all);
  expect_bytes(wire(two, Purpose::data, CollectiveKind::all_reduce), 2 * 1.0 / 2 * 4 * all / 4);
  expect_bytes(wire(two, Purpose::data, CollectiveKind::all_gather), 3.0 / 4 * 2 * all);
}

TEST(EightBitParameters, AreGatheredInHalfTheBytes) {
  const std::vector<std::string> settings{"strategy.distributed_optimizer=true", "training.precision=fp8"};
  std::vector<std::string> narrow = settings;
  narrow.emplace_back("strategy.fp8_param_gather=true");
  expect_bytes(wire(simulated(narrow), Purpose::data, CollectiveKind::all_gather),
               wire(simulated(settings), Purpose::data, CollectiveKind::all_gather) / 2);
}

}  // namespace
}  // namespace trainyard
