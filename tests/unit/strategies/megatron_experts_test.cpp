// What Megatron-LM's options about experts change: kernels and launches of a layer, the order around exchanges of
// tokens, and what goes on the wire.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/simulated.hpp"

namespace trainyard {
namespace {

using scenarios::Result;
using sim::CollectiveKind;
using sim::Purpose;
using std::chrono::microseconds;
using tests::expect_bytes;
using tests::refusal;
using tests::simulated;
using tests::wire;

const std::string node_of_h100 = R"(name: Experts
cluster: {node: {base: dgx-h100, collectives: {algorithm: ring}}, nodes: 1}
model: {base: mixtral-8x7b, layers: 4}
training: {global_batch: 16, sequence: 1024, precision: bf16, recompute: none}
strategy: {framework: megatron-lm, expert: 8}
)";

sim::Plan plan_of(const std::vector<std::string>& settings) { return simulated(node_of_h100, settings).plan; }
Result result_of(const std::vector<std::string>& settings) { return simulated(node_of_h100, settings).result; }

const sim::Block& block_of(const sim::Plan& plan, std::string_view name) {
  const auto found = std::ranges::find(plan.blocks, name, &sim::Block::name);
  EXPECT_NE(found, plan.blocks.end()) << name;
  return *found;
}

std::int64_t kernels_of(const sim::Plan& plan, std::string_view block) {
  return std::ranges::count_if(block_of(plan, block).ops,
                               [](const sim::Op& op) { return std::holds_alternative<sim::Compute>(op.work); });
}

// Beyond launches of kernels.
sim::Duration host_work(const sim::Plan& plan, std::string_view block) {
  sim::Duration sum{};
  for (const sim::Op& op : block_of(plan, block).ops)
    if (const auto* work = std::get_if<sim::HostWork>(&op.work)) sum += work->duration;
  return sum;
}

std::int64_t bytes_of(const sim::Plan& plan, std::string_view block, std::string_view kernel) {
  std::int64_t sum = 0;
  for (const sim::Op& op : block_of(plan, block).ops)
    if (const auto* compute = std::get_if<sim::Compute>(&op.work))
      if (plan.kernels[compute->kernel].name == kernel) sum += plan.kernels[compute->kernel].bytes.count;
  return sum;
}

// What lies between sending tokens and waiting for them, one entry per exchange.
std::vector<std::vector<std::string>> beside_exchanges(const sim::Plan& plan, std::string_view block) {
  std::vector<std::vector<std::string>> beside;
  bool on_the_way = false;
  for (const sim::Op& op : block_of(plan, block).ops) {
    if (const auto* sent = std::get_if<sim::Communicate>(&op.work)) {
      if (plan.calls[sent->call].purpose != Purpose::expert) continue;
      on_the_way = true;
      beside.emplace_back();
    } else if (std::holds_alternative<sim::Wait>(op.work)) {
      on_the_way = false;
    } else if (const auto* compute = std::get_if<sim::Compute>(&op.work); compute != nullptr && on_the_way) {
      beside.back().push_back(plan.kernels[compute->kernel].name);
    }
  }
  return beside;
}

constexpr double layers = 4;
constexpr double hidden = 4096;
constexpr double rows = 1024 * 2 * hidden;  // elements of a micro-batch's copies

// Two micro-batches: forward to the experts and back, backward the same.
TEST(EightBitDispatch, SendsAByteAndItsShareOfAScaleTowardsExperts) {
  const std::vector<std::string> wide{"training.precision=fp8", "strategy.moe_token_dispatcher_type=flex"};
  std::vector<std::string> narrow = wide;
  narrow.emplace_back("strategy.use_fp8_dispatch=true");
  const double places = 8 * (1 - std::pow(7.0 / 8, 2));
  const double copies = 2 * layers * rows * places / 2 * 7.0 / 8;
  expect_bytes(wire(result_of(wide), Purpose::expert, CollectiveKind::all_to_all), copies * 4 * 2);
  expect_bytes(wire(result_of(narrow), Purpose::expert, CollectiveKind::all_to_all),
               copies * (2 * 2 + 2 * (1 + 4.0 / 128)));
}

TEST(EightBitDispatch, NeedsEightBitProductsAndFusedKernels) {
  EXPECT_NE(refusal(node_of_h100, {"strategy.use_fp8_dispatch=true"}).find("needs training.precision: fp8"),
            std::string::npos);
  EXPECT_NE(refusal(node_of_h100, {"strategy.use_fp8_dispatch=true", "training.precision=fp8",
                                   "strategy.moe_token_dispatcher_type=alltoall"})
                .find("use moe_token_dispatcher_type 'flex'"),
            std::string::npos);
  // Left to itself, the dispatcher is the one that can.
  expect_bytes(wire(result_of({"strategy.use_fp8_dispatch=true", "training.precision=fp8"}), Purpose::expert,
                    CollectiveKind::all_to_all),
               wire(result_of({"strategy.use_fp8_dispatch=true", "training.precision=fp8",
                               "strategy.moe_token_dispatcher_type=flex"}),
                    Purpose::expert, CollectiveKind::all_to_all));
}

// All eight experts on every rank. Per further expert forward two products, backward four and two gradients handed on;
// an operator takes the host 6 us forward and 5 us backward.
TEST(GroupedProducts, AreLaunchedExpertByExpert) {
  const sim::Plan plan = plan_of({"strategy.expert=1"});
  EXPECT_EQ(host_work(plan, "forward layer"), microseconds{7 * 2 * 6});
  EXPECT_EQ(host_work(plan, "backward layer"), microseconds{7 * (4 + 2) * 5});
  const sim::Plan alone = plan_of({});
  EXPECT_EQ(host_work(alone, "forward layer"), microseconds{0});
  EXPECT_EQ(host_work(alone, "backward layer"), microseconds{0});
}

// And the casts of every expert's rows: three operators where a scale is that of the tensor at hand, none where all
// scales are known before; and the matrix, cast before.
TEST(GroupedProducts, CastTheRowsOfEveryExpertByThemselves) {
  const std::vector<std::string> settings{"strategy.expert=1", "training.precision=fp8"};
  const auto with = [&](const char* recipe) {
    std::vector<std::string> all = settings;
    all.push_back(std::string{"training.fp8_recipe="} + recipe);
    return plan_of(all);
  };
  for (const auto& [recipe, casts] : std::vector<std::pair<const char*, std::int64_t>>{
           {"tensorwise", 3}, {"mxfp8", 1}, {"blockwise", 1}, {"delayed", 0}}) {
    const sim::Plan plan = with(recipe);
    EXPECT_EQ(host_work(plan, "forward layer"), microseconds{7 * 2 * (1 + casts + 1) * 6}) << recipe;
    EXPECT_EQ(host_work(plan, "backward layer"), microseconds{7 * 2 * (1 + casts + 2) * 5}) << recipe;
  }
}

// Products and activation of every expert become kernels of their own, and what they made is joined.
TEST(SequentialExperts, HaveKernelsOfTheirOwn) {
  const sim::Plan grouped = plan_of({"strategy.expert=1"});
  const sim::Plan sequential = plan_of({"strategy.expert=1", "strategy.moe_grouped_gemm=false"});
  EXPECT_EQ(kernels_of(sequential, "forward layer"), kernels_of(grouped, "forward layer") + 7 * 3 + 1);
  EXPECT_EQ(kernels_of(sequential, "backward layer"), kernels_of(grouped, "backward layer") + 7 * 5 + 1);
  EXPECT_EQ(host_work(sequential, "forward layer"), microseconds{0});
  EXPECT_GT(result_of({"strategy.expert=1", "strategy.moe_grouped_gemm=false"}).step_time_s,
            result_of({"strategy.expert=1"}).step_time_s);
}

TEST(UnfusedPermutation, SelectsRowsByMasksAndReadsThemForEachCopy) {
  const std::vector<std::string> settings{"strategy.moe_token_dispatcher_type=alltoall"};
  std::vector<std::string> unfused = settings;
  unfused.emplace_back("strategy.moe_permute_fusion=false");
  const sim::Plan with = plan_of(settings);
  const sim::Plan without = plan_of(unfused);
  EXPECT_EQ(kernels_of(without, "forward layer"), kernels_of(with, "forward layer") + 6);
  EXPECT_EQ(kernels_of(without, "backward layer"), kernels_of(with, "backward layer"));
  constexpr std::int64_t copies = 1024 * 2 * 4096 * 2;  // bytes
  EXPECT_EQ(bytes_of(with, "forward layer", "permute tokens"), copies / 2 + copies);
  EXPECT_EQ(bytes_of(without, "forward layer", "permute tokens"), 2 * copies);
  EXPECT_EQ(bytes_of(without, "forward layer", "combine tokens"), copies / 2 + 3 * copies);
  EXPECT_EQ(bytes_of(without, "backward layer", "permute tokens gradient"), copies / 2 + 3 * copies);
}

TEST(UnfusedRouter, TakesMoreKernels) {
  const sim::Plan with = plan_of({});
  const sim::Plan without = plan_of({"strategy.moe_router_fusion=false"});
  EXPECT_EQ(kernels_of(without, "forward layer"), kernels_of(with, "forward layer") + 11);
  EXPECT_EQ(kernels_of(without, "backward layer"), kernels_of(with, "backward layer") + 6);
}

// gpt-oss 20B: of 32 experts four on each rank, each token passes four.
TEST(BiasesOfExperts, AreWeightedAndAddedInPassesOfTheirOwn) {
  const sim::Plan plan = plan_of({"model={base: gpt-oss-20b, layers: 2}"});
  constexpr std::int64_t outputs = 1024 * 4 * 2880;
  for (const auto& layer : plan.blocks)
    if (layer.name.starts_with("forward layer")) {
      EXPECT_EQ(bytes_of(plan, layer.name, "weighted bias"), outputs * 28);
      EXPECT_EQ(host_work(plan, layer.name), microseconds{3 * (2 + 2) * 6});
    }
  EXPECT_EQ(bytes_of(plan, "backward layer", "weighted bias gradient"), outputs * 36);
  EXPECT_EQ(host_work(plan, "backward layer"), microseconds{3 * (4 + 2 + 6) * 5});
  EXPECT_EQ(bytes_of(plan_of({}), "forward layer", "weighted bias"), 0);
}

class OverlappedSharedExperts : public testing::Test {
 protected:
  const std::vector<std::string> apart{"model={base: deepseek-v2-lite, layers: 3}",
                                       "strategy.moe_token_dispatcher_type=alltoall",
                                       "training.backend=cuda-graph"};  // the host is never late
  std::vector<std::string> together() const {
    std::vector<std::string> settings = apart;
    settings.emplace_back("strategy.moe_shared_expert_overlap=true");
    return settings;
  }
  using Names = std::vector<std::vector<std::string>>;
};

TEST_F(OverlappedSharedExperts, RunBesideTheExchanges) {
  const sim::Plan plan = plan_of(together());
  EXPECT_EQ(beside_exchanges(plan, "forward layer"), (Names{{"gate up", "swiglu"}, {"down"}}));
  EXPECT_EQ(beside_exchanges(plan, "backward layer"),
            (Names{{"down input gradient", "down weight gradient"},
                   {"swiglu gradient", "gate up input gradient", "gate up weight gradient"}}));
  EXPECT_EQ(beside_exchanges(plan_of(apart), "forward layer"), (Names{{}, {}}));
  EXPECT_EQ(kernels_of(plan, "backward layer"), kernels_of(plan_of(apart), "backward layer"));
}

TEST_F(OverlappedSharedExperts, HideExchangesAndChangeNothingElse) {
  const Result one_by_one = result_of(apart);
  const Result at_once = result_of(together());
  constexpr std::size_t matmul = 0;
  constexpr std::size_t exposed = sim::kernel_classes + static_cast<std::size_t>(Purpose::expert);
  EXPECT_EQ(wire(one_by_one, Purpose::expert, CollectiveKind::all_to_all),
            wire(at_once, Purpose::expert, CollectiveKind::all_to_all));
  EXPECT_EQ(at_once.breakdown_s.at(matmul), one_by_one.breakdown_s.at(matmul));
  EXPECT_LT(at_once.breakdown_s.at(exposed), one_by_one.breakdown_s.at(exposed));
  EXPECT_LT(at_once.step_time_s, one_by_one.step_time_s);
}

TEST_F(OverlappedSharedExperts, RunAgainBesideExchangesThatDo) {
  std::vector<std::string> settings = together();
  settings.emplace_back("training.recompute=full");
  const Names beside = beside_exchanges(plan_of(settings), "backward layer");
  ASSERT_EQ(beside.size(), 4U);
  EXPECT_EQ(beside[0], (std::vector<std::string>{"gate up (recomputed)", "swiglu (recomputed)"}));
  EXPECT_EQ(beside[1], std::vector<std::string>{"down (recomputed)"});
}

// Beside tensor parallelism their own collectives go on meanwhile, as often as otherwise.
TEST_F(OverlappedSharedExperts, ShareTheirWidthOverTensorRanks) {
  for (const char* schedule : {"1f1b", "zb-h1"}) {
    std::vector<std::string> settings = together();
    std::vector<std::string> usual = apart;
    for (std::vector<std::string>* of : {&settings, &usual})
      of->insert(of->end(), {"strategy.tensor=2", "strategy.sequence_parallel=true", "strategy.overlap_tensor=false",
                             "strategy.pipeline=2", "strategy.expert=4", std::string{"strategy.schedule="} + schedule,
                             "model={base: deepseek-v2-lite, layers: 4}"});
    EXPECT_EQ(wire(result_of(settings), Purpose::tensor, CollectiveKind::all_gather),
              wire(result_of(usual), Purpose::tensor, CollectiveKind::all_gather))
        << schedule;
    EXPECT_LT(result_of(settings).step_time_s, result_of(usual).step_time_s) << schedule;
  }
}

TEST_F(OverlappedSharedExperts, NeedAllToAllsAndExpertsThatAllTokensPass) {
  std::vector<std::string> settings = together();
  settings.emplace_back("strategy.moe_token_dispatcher_type=flex");
  EXPECT_NE(refusal(node_of_h100, settings).find("use 'alltoall'"), std::string::npos);
  EXPECT_NE(refusal(node_of_h100, {"strategy.moe_shared_expert_overlap=true"}).find("has no shared experts"),
            std::string::npos);
  settings = together();
  settings.emplace_back("strategy.overlap_moe_expert_parallel_comm=true");
  EXPECT_NE(refusal(node_of_h100, settings).find("use one of the two"), std::string::npos);
}

// What the dispatcher is where nothing says so.
TEST(UsualDispatcher, IsFusedInsideRacksAndBetweenNodesAndAllToAllInsideANode) {
  const auto sent = [](std::vector<std::string> settings, const char* type) {
    settings.push_back(std::string{"strategy.moe_token_dispatcher_type="} + type);
    return wire(result_of(settings), Purpose::expert, CollectiveKind::all_to_all);
  };
  const std::vector<std::string> node;
  const std::vector<std::string> nodes{"cluster.nodes=2", "cluster.devices=8"};
  const std::vector<std::string> rack{"cluster.node=gb200-nvl72", "cluster.devices=8"};
  EXPECT_EQ(sent(node, "auto"), sent(node, "alltoall"));
  EXPECT_EQ(sent(nodes, "auto"), sent(nodes, "flex"));
  EXPECT_EQ(sent(rack, "auto"), sent(rack, "flex"));
  EXPECT_NE(sent(node, "alltoall"), sent(node, "flex"));
  EXPECT_NE(sent(nodes, "alltoall"), sent(nodes, "flex"));
}

}  // namespace
}  // namespace trainyard
