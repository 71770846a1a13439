// What FSDP puts on the wire, holds in memory and does in which order, in either version and beside other parallelism.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "tests/support/models.hpp"
#include "tests/support/simulated.hpp"
#include "workloads/architecture.hpp"

namespace trainyard {
namespace {

using scenarios::CommunicationSummary;
using scenarios::Result;
using sim::CollectiveKind;
using sim::Purpose;

// One node of H100, whose collectives are rings.
constexpr const char* one_node = R"(name: FSDP
cluster: {node: {base: dgx-h100, collectives: {algorithm: ring}}, nodes: 1}
model: llama3-8b
training: {global_batch: 16, sequence: 1024, precision: bf16}
strategy: {framework: pytorch-fsdp}
)";

const std::string two_passes = "training.micro_batch=1";
const std::string first_version = "strategy.fsdp_version=1";
const std::string last_reduces = "strategy.requires_gradient_sync=false";

Result fsdp(const std::vector<std::string>& settings) { return tests::simulated(one_node, settings).result; }
std::string refused(const std::vector<std::string>& settings) { return tests::refusal(one_node, settings); }

double wire(const Result& result, CollectiveKind kind, Purpose purpose = Purpose::data) {
  return tests::row(result, purpose, kind).wire_bytes;
}
double count(const Result& result, CollectiveKind kind, Purpose purpose) {
  return tests::row(result, purpose, kind).count;
}

// Parts of a vector are rounded up to bytes, and some scalars are reduced beside it.
void expect_bytes(double actual, double expected) { EXPECT_NEAR(actual, expected, 1e-6 * expected + 100); }

constexpr double layers = 32;
constexpr double hidden = 4096;
const workloads::Model llama = tests::llama3_8b();
const auto all = static_cast<double>(workloads::parameters(llama));
const double in_layers =
    layers * static_cast<double>(workloads::parameters_of(workloads::describe(llama, 1).kinds.front()));
const double in_root = all - in_layers;
// Of bf16 numbers over all eight ranks, gathered or scattered.
double sharded(double parameters) { return 7.0 / 8 * 2 * parameters; }

// The root stays gathered from forward to backward.
TEST(FsdpWire, OfEveryShardingStrategyIsItsClosedForm) {
  struct Expected {
    const char* strategy;
    double gathered, scattered, reduced;
  };
  for (const Expected& expected :
       {Expected{"FULL_SHARD", sharded(all + in_layers), sharded(all), 0},
        Expected{"SHARD_GRAD_OP", sharded(all), sharded(all), 0}, Expected{"NO_SHARD", 0, 0, 2 * sharded(all)}}) {
    const Result result =
        fsdp({"training.micro_batch=2", first_version, std::string{"strategy.sharding_strategy="} + expected.strategy});
    expect_bytes(wire(result, CollectiveKind::all_gather), expected.gathered);
    expect_bytes(wire(result, CollectiveKind::reduce_scatter), expected.scattered);
    expect_bytes(wire(result, CollectiveKind::all_reduce), expected.reduced);
  }
}

TEST(FsdpWire, OfHybridShardingStaysInTheNodeButForShardsOfGradients) {
  for (const auto& [strategy, gathered] :
       {std::pair{"HYBRID_SHARD", sharded(all + in_layers)}, {"_HYBRID_SHARD_ZERO2", sharded(all)}}) {
    const Result result =
        fsdp({"cluster.nodes=2", two_passes, first_version, std::string{"strategy.sharding_strategy="} + strategy});
    expect_bytes(wire(result, CollectiveKind::all_gather), gathered);
    expect_bytes(wire(result, CollectiveKind::reduce_scatter), sharded(all));
    expect_bytes(wire(result, CollectiveKind::all_reduce), 2 * 1.0 / 2 * 2 * all / 8);
  }
}

// Six bytes for every parameter of a layer, against four of a 16-bit and eight of a 32-bit all-reduce.
TEST(FsdpWire, IsOneAndAHalfTimesThatOf16BitDdpAndThreeQuartersOf32Bit) {
  const Result sharded_step = fsdp({"training.micro_batch=2"});
  const double bytes =
      wire(sharded_step, CollectiveKind::all_gather) + wire(sharded_step, CollectiveKind::reduce_scatter);
  const std::string ddp = "strategy.framework=pytorch-ddp";
  const double in_16_bits =
      wire(fsdp({ddp, "training.micro_batch=2", "training.gradient_precision=bf16"}), CollectiveKind::all_reduce);
  const double in_32_bits = wire(fsdp({ddp, "training.micro_batch=2"}), CollectiveKind::all_reduce);
  const double root_again = sharded(in_root);
  EXPECT_NEAR((bytes + root_again) / in_16_bits, 1.5, 1e-6);
  EXPECT_NEAR((bytes + root_again) / in_32_bits, 0.75, 1e-6);
}

TEST(FsdpWire, WithoutSynchronisationHasGradientsOfTheLastMicroBatchOnly) {
  for (const std::string& version : {first_version, std::string{"strategy.fsdp_version=2"}}) {
    const Result result = fsdp({two_passes, version, last_reduces});
    EXPECT_EQ(result.micro_batches, 2);
    expect_bytes(wire(result, CollectiveKind::all_gather), 2 * sharded(all + in_layers));
    expect_bytes(wire(result, CollectiveKind::reduce_scatter), sharded(all));
  }
}

TEST(FsdpWire, WithoutSynchronisationOfUnreshardedParametersIsGatheredOnceByTheFirstVersion) {
  const Result first = fsdp({two_passes, last_reduces, first_version, "strategy.sharding_strategy=SHARD_GRAD_OP"});
  expect_bytes(wire(first, CollectiveKind::all_gather), sharded(all));
  const Result second = fsdp({two_passes, last_reduces, "strategy.reshard_after_forward=false"});
  expect_bytes(wire(second, CollectiveKind::all_gather), 2 * sharded(all));
}

TEST(FsdpWire, OfReshardingToSomeRanksIsTheirsInEveryMicroBatch) {
  for (const double group : {2.0, 4.0}) {
    const Result result =
        fsdp({two_passes, "strategy.reshard_after_forward=" + std::to_string(static_cast<int>(group))});
    expect_bytes(wire(result, CollectiveKind::all_gather), 2 * (sharded(all) + (group - 1) / group * 2 * in_layers));
  }
}

TEST(FsdpWire, OfMatricesGatheredIn8BitsIsHalf) {
  const std::vector<std::string> settings{"training.micro_batch=2", "training.precision=fp8"};
  std::vector<std::string> in_8_bits = settings;
  in_8_bits.emplace_back("strategy.enable_fsdp_float8_all_gather=true");
  const double norms = layers * 2 * hidden;
  const double saved =
      wire(fsdp(settings), CollectiveKind::all_gather) - wire(fsdp(in_8_bits), CollectiveKind::all_gather);
  expect_bytes(saved, 7.0 / 8 * 2 * (in_layers - norms));
}

// Two tensor ranks, norms on both.
class FsdpTensor : public testing::Test {
 protected:
  static constexpr double activation = 4 * 1024 * hidden * 2;  // of a micro-batch of 4
  static Result with(std::vector<std::string> settings) {
    settings.insert(settings.begin(), {"strategy.tensor=2", "training.micro_batch=4"});
    return fsdp(settings);
  }
  static double local(double parameters, double norms) { return (parameters - norms) / 2 + norms; }
};

TEST_F(FsdpTensor, ShardsThePartOfATensorRank) {
  const Result result = with({});
  const double gathered = local(all, (2 * layers + 1) * hidden) + local(in_layers, 2 * layers * hidden);
  expect_bytes(wire(result, CollectiveKind::all_gather), 3.0 / 4 * 2 * gathered);
  expect_bytes(wire(result, CollectiveKind::reduce_scatter), 3.0 / 4 * 2 * local(all, (2 * layers + 1) * hidden));
}

// Two gathers and two reductions in each layer and direction; beside them, embedding (reduction, gather) and head
// (gather, reduction). Recomputation gathers again, but ends before the last product; the selective one keeps what was
// reduced.
TEST_F(FsdpTensor, GathersAndReducesTheSequenceAroundEveryBlock) {
  struct Expected {
    const char* recompute;
    double gathers, reductions;
  };
  for (const Expected& expected :
       {Expected{"none", 4 * layers + 2, 4 * layers + 2}, Expected{"selective", 6 * layers + 2, 4 * layers + 2},
        Expected{"full", 6 * layers + 2, 5 * layers + 2}}) {
    const Result result = with({std::string{"training.recompute="} + expected.recompute});
    EXPECT_EQ(count(result, CollectiveKind::all_gather, Purpose::tensor), expected.gathers);
    EXPECT_EQ(count(result, CollectiveKind::reduce_scatter, Purpose::tensor), expected.reductions);
    expect_bytes(wire(result, CollectiveKind::all_gather, Purpose::tensor), 1.0 / 2 * expected.gathers * activation);
    expect_bytes(wire(result, CollectiveKind::reduce_scatter, Purpose::tensor),
                 1.0 / 2 * expected.reductions * activation);
  }
}

TEST_F(FsdpTensor, ReducesTheLossAndTheGradientsOfNorms) {
  const CommunicationSummary reduced = tests::row(with({}), Purpose::tensor, CollectiveKind::all_reduce);
  constexpr double rows = 4 * 1024 * 4;
  EXPECT_EQ(reduced.count, 3 + 2 * layers + 1 + 1);
  EXPECT_EQ(reduced.bytes, 3 * rows + (2 * layers + 1) * hidden * 2 + 4);
}

TEST_F(FsdpTensor, GathersLayersIn8BitsWhereTensorsHaveOneScale) {
  const double in_16_bits = wire(with({}), CollectiveKind::all_gather, Purpose::tensor);
  const double tensorwise = wire(with({"training.precision=fp8"}), CollectiveKind::all_gather, Purpose::tensor);
  const double rowwise = wire(with({"training.precision=fp8", "training.fp8_recipe=rowwise"}),
                              CollectiveKind::all_gather, Purpose::tensor);
  expect_bytes(in_16_bits - tensorwise, 1.0 / 2 * 4 * layers * activation / 2);
  EXPECT_EQ(rowwise, in_16_bits);
}

TEST_F(FsdpTensor, OverlapsInPiecesWithoutMovingMore) {
  const Result whole = with({"training.compile=true"});
  const Result pieces = with({"training.compile=true", "strategy.overlap_tensor=true"});
  for (const CollectiveKind kind : {CollectiveKind::all_gather, CollectiveKind::reduce_scatter}) {
    expect_bytes(wire(pieces, kind, Purpose::tensor), wire(whole, kind, Purpose::tensor));
    EXPECT_EQ(count(pieces, kind, Purpose::tensor), 2 * 4 * layers + 2);
  }
  EXPECT_LT(pieces.step_time_s, whole.step_time_s);
}

// Four stages of two ranks.
class FsdpPipeline : public testing::Test {
 protected:
  static Result with(std::vector<std::string> settings) {
    settings.insert(settings.begin(), "strategy.pipeline=4");
    return fsdp(settings);
  }
  static double bubble(const Result& result) {
    const auto found = std::ranges::find(scenarios::breakdown_names, "bubble");
    return result.breakdown_s.at(static_cast<std::size_t>(found - scenarios::breakdown_names.begin()));
  }
};

TEST_F(FsdpPipeline, GathersAndReducesOncePerStep) {
  for (const char* schedule : {"1f1b", "gpipe", "interleaved", "zb-h1", "zb-h2", "zb-v", "dualpipe", "dualpipe-v"}) {
    const Result result = with({std::string{"strategy.schedule="} + schedule});
    EXPECT_EQ(result.micro_batch, 1);
    EXPECT_EQ(result.micro_batches, 8);
    // On average over the stages.
    expect_bytes(wire(result, CollectiveKind::all_gather), 1.0 / 2 * 2 * all / 4);
    expect_bytes(wire(result, CollectiveKind::reduce_scatter), 1.0 / 2 * 2 * all / 4);
  }
}

TEST_F(FsdpPipeline, ThatReshardsGathersForEveryMicroBatch) {
  const Result result = with({"strategy.reshard_after_forward=true"});
  // Of the root never again; of layers for every forward or backward pass that does not follow another backward pass
  // whose parameters are still there: the last stage, where passes alternate, gathers for every backward one only.
  const double kept = wire(with({}), CollectiveKind::all_gather);
  EXPECT_GT(wire(result, CollectiveKind::all_gather), 8 * (kept - 1.0 / 2 * 2 * in_root / 4));
  expect_bytes(wire(result, CollectiveKind::reduce_scatter), 1.0 / 2 * 2 * all / 4);
}

TEST_F(FsdpPipeline, SendsActivationsAndGradients) {
  constexpr double activation = 1024 * hidden * 2;
  EXPECT_EQ(wire(with({}), CollectiveKind::send, Purpose::pipeline), 2 * 8 * 3.0 / 4 * activation);
  EXPECT_EQ(wire(with({"strategy.schedule=interleaved"}), CollectiveKind::send, Purpose::pipeline),
            2 * 8 * 7.0 / 4 * activation);
  EXPECT_EQ(
      wire(with({"strategy.schedule=gpipe", "strategy.virtual_pipeline=2"}), CollectiveKind::send, Purpose::pipeline),
      2 * 8 * 7.0 / 4 * activation);
  EXPECT_EQ(wire(with({"strategy.schedule=zb-h1"}), CollectiveKind::send, Purpose::pipeline),
            2 * 8 * 3.0 / 4 * activation);
  // There and back between neighbours; the last stage's two chunks hand on to each other.
  for (const char* schedule : {"strategy.schedule=zb-v", "strategy.schedule=dualpipe-v"})
    EXPECT_EQ(wire(with({schedule}), CollectiveKind::send, Purpose::pipeline), 2 * 8 * 6.0 / 4 * activation);
  EXPECT_EQ(wire(with({"strategy.tensor=2", "training.micro_batch=2"}), CollectiveKind::send, Purpose::pipeline),
            2 * 8 * 3.0 / 4 * activation);  // two sequences, of which a tensor rank has half
}

// As much work, but less waiting.
TEST_F(FsdpPipeline, WithSplitPassesHasASmallerBubble) {
  const std::string many = "training.global_batch=64";
  const auto idle = [&](const std::string& schedule) { return bubble(with({many, "strategy.schedule=" + schedule})); };
  const double usual = idle("1f1b");
  EXPECT_LT(idle("zb-h1"), usual);
  EXPECT_LT(idle("zb-v"), usual);
  EXPECT_LT(idle("dualpipe-v"), usual);
}

TEST_F(FsdpPipeline, ExecutesTheSameFlopInEverySchedule) {
  const double usual = with({}).hardware_tflops_per_device * with({}).step_time_s;
  for (const char* schedule : {"gpipe", "interleaved", "zb-h1", "zb-h2", "zb-v", "dualpipe-v"}) {
    const Result result = with({std::string{"strategy.schedule="} + schedule});
    EXPECT_NEAR(result.hardware_tflops_per_device * result.step_time_s, usual, 1e-6 * usual) << schedule;
  }
}

TEST_F(FsdpPipeline, InterleavedDealsMicroBatchesOutToEqualRounds) {
  EXPECT_EQ(refused({"strategy.pipeline=4", "strategy.schedule=interleaved", "training.global_batch=20"}), "");
  for (const char* schedule : {"interleaved", "zb-h1"}) {
    const std::string message = refused({"strategy.pipeline=4", std::string{"strategy.schedule="} + schedule,
                                         "strategy.virtual_pipeline=2", "training.global_batch=18"});
    EXPECT_NE(message.find("the nearest number that does is 8"), std::string::npos) << message;
  }
  const Result result = with({"strategy.schedule=interleaved", "training.global_batch=20"});
  EXPECT_EQ(result.micro_batches, 10);
}

TEST_F(FsdpPipeline, TakesOneSequenceAtATimeUnlessTold) {
  EXPECT_EQ(with({"training.global_batch=32"}).micro_batches, 16);
  EXPECT_EQ(with({"training.global_batch=32", "training.micro_batch=4"}).micro_batches, 4);
}

TEST_F(FsdpPipeline, KeepsWholeGradientsAndParametersUntilTheEnd) {
  const Result kept = with({"training.recompute=full"});
  const Result narrow = with({"training.recompute=full", "training.gradient_precision=fp32"});
  using sim::MemoryPurpose;
  const auto gradients = [](const Result& result) {
    return static_cast<double>(result.memory.parts.at(static_cast<std::size_t>(MemoryPurpose::gradients)));
  };
  // Of the stage with the most: 8 layers and the embedding or the head.
  const double local = in_layers / 4 + in_root / 2;
  EXPECT_NEAR(gradients(narrow) - gradients(kept), 2 * local, 0.02 * 2 * local);
}

TEST(FsdpContext, ShardsOverTheRanksThatShareASequenceToo) {
  const Result alone = fsdp({"training.micro_batch=2"});
  const Result shared = fsdp({"training.micro_batch=4", "strategy.context=2"});
  EXPECT_EQ(shared.parallelism.data, 4);
  for (const CollectiveKind kind : {CollectiveKind::all_gather, CollectiveKind::reduce_scatter})
    expect_bytes(wire(shared, kind), wire(alone, kind));
}

// Of c ranks each has 1/c of the keys and values. Forward they come once from every other rank, either way, and
// backward again; their gradients, in 32 bits, go all the way round.
TEST(FsdpContext, GathersKeysAndValuesTwiceOrPassesThemRoundTwice) {
  for (const double ranks : {2.0, 4.0}) {
    const double keys_and_values = ranks * 2 * 2 * 1024 * 8 * 128 * 2 / ranks;  // of a rank
    const double once = layers * (ranks - 1) * keys_and_values;
    const double gradients = layers * ranks * 2 * keys_and_values;
    std::vector<std::string> settings{"training.micro_batch=" + std::to_string(static_cast<int>(2 * ranks)),
                                      "strategy.context=" + std::to_string(static_cast<int>(ranks))};
    const Result gathered = fsdp(settings);
    const CommunicationSummary gathers = tests::row(gathered, Purpose::context, CollectiveKind::all_gather);
    EXPECT_EQ(gathers.count, 2 * layers);
    expect_bytes(gathers.wire_bytes, 2 * once);
    expect_bytes(wire(gathered, CollectiveKind::send, Purpose::context), gradients);
    EXPECT_EQ(count(gathered, CollectiveKind::send, Purpose::context), ranks * layers);
    EXPECT_EQ(wire(gathered, CollectiveKind::reduce_scatter, Purpose::context), 0);
    settings.emplace_back("strategy.context_parallel_rotate_method=alltoall");
    const Result passed = fsdp(settings);
    expect_bytes(wire(passed, CollectiveKind::send, Purpose::context), 2 * once + gradients);
    EXPECT_EQ(wire(passed, CollectiveKind::all_gather, Purpose::context), 0);
  }
}

TEST(FsdpContext, RecomputationGathersKeysAndValuesOnceMore) {
  const auto gathers = [](const std::string& recompute) {
    return count(fsdp({"training.micro_batch=4", "strategy.context=2", recompute}), CollectiveKind::all_gather,
                 Purpose::context);
  };
  EXPECT_EQ(gathers("training.recompute=full"), 3 * layers);
  EXPECT_EQ(gathers("training.recompute=none"), 2 * layers);
}

// Two layers with eight experts, on eight ranks.
class FsdpExperts : public testing::Test {
 protected:
  static Result with(std::vector<std::string> settings) {
    settings.insert(settings.begin(), {"model=mixtral-8x7b", "model.layers=2", "training.micro_batch=2"});
    return fsdp(settings);
  }
  static constexpr double experts = 2.0 * 8 * 3 * 4096 * 14336;
  static constexpr double root = 2.0 * 32000 * 4096 + 4096;
  static constexpr double dense_layers = 2.0 * (4096 * (4096 + 2 * 1024) + 4096 * 4096 + 4096 * 8 + 2 * 4096);
};

TEST_F(FsdpExperts, AreShardedOverTheRanksThatHaveTheSameOnes) {
  for (const double ranks : {1.0, 2.0, 8.0}) {
    const Result result = with({"strategy.expert=" + std::to_string(static_cast<int>(ranks))});
    const double shards = 8 / ranks;
    const double own = (shards - 1) / shards * 2 * experts / ranks;
    expect_bytes(wire(result, CollectiveKind::all_gather), sharded(root + 2 * dense_layers) + 2 * own);
    expect_bytes(wire(result, CollectiveKind::reduce_scatter), sharded(root + dense_layers) + own);
  }
}

// Experts divided over two ranks: on two nodes eight ranks share the four of each, so that they are cut on their
// columns.
TEST(FsdpColumns, OfExpertsAreJoinedAndCutUpWhereRanksAreMoreThanExperts) {
  const auto kernels = [](const char* nodes) {
    const auto simulation = tests::simulated(one_node, {"model=mixtral-8x7b", "model.layers=2", two_passes,
                                                        "strategy.expert=2", std::string{"cluster.nodes="} + nodes});
    std::map<std::string, std::pair<std::int64_t, double>> found;  // how often, and bytes of each
    const sim::Program& program = simulation.plan.programs[sim::ProgramId{}];
    const std::vector<std::int64_t> counts = sim::kernel_counts(simulation.plan, program);
    for (std::size_t i = 0; i < counts.size(); ++i) {
      const sim::Kernel& kernel = simulation.plan.kernels[simulation.plan.kernels.id(i)];
      found[kernel.name] = {counts[i], static_cast<double>(kernel.bytes.count)};
    }
    return found;
  };
  const auto cut = kernels("2");
  constexpr double experts_of_rank = 8.0 / 2 * 3 * 4096 * 14336;
  // In forward and again in backward; bf16 read and written.
  EXPECT_EQ(cut.at("join columns"), std::pair(std::int64_t{2 * 2}, 2 * 2 * experts_of_rank));
  EXPECT_EQ(cut.at("cut up columns"), std::pair(std::int64_t{2}, 2 * 2 * experts_of_rank));
  EXPECT_FALSE(kernels("1").contains("join columns"));
}

TEST_F(FsdpExperts, SendTokensThereAndBackForwardAndBackward) {
  const CommunicationSummary sent =
      tests::row(with({"strategy.expert=8"}), Purpose::expert, CollectiveKind::all_to_all);
  constexpr double tokens = 2 * 1024 * 2 * 4096 * 2;  // two sequences, two experts each
  EXPECT_EQ(sent.count, 2 * 4);
  expect_bytes(sent.wire_bytes, 2 * 4 * 7.0 / 8 * tokens);
}

// Memory.
std::int64_t part(const Result& result, sim::MemoryPurpose purpose) {
  return result.memory.parts.at(static_cast<std::size_t>(purpose));
}

TEST(FsdpMemory, HoldsSixteenBytesOfEveryParameterInShards) {
  const Result result = fsdp({"training.micro_batch=2", "training.recompute=full"});
  EXPECT_NEAR(static_cast<double>(part(result, sim::MemoryPurpose::parameters)), 4 * all / 8, 100);
  EXPECT_NEAR(static_cast<double>(part(result, sim::MemoryPurpose::optimizer)), 8 * all / 8, 100);
  const Result hybrid = fsdp({"cluster.nodes=2", two_passes, "training.recompute=full", "strategy.shard=8"});
  EXPECT_EQ(part(hybrid, sim::MemoryPurpose::optimizer), part(result, sim::MemoryPurpose::optimizer));
}

TEST(FsdpMemory, OfWholeGradientsComesWithAccumulationWithoutSynchronisation) {
  const std::vector<std::string> settings{two_passes, "training.recompute=full"};
  std::vector<std::string> accumulating = settings;
  accumulating.push_back(last_reduces);
  const auto more = static_cast<double>(fsdp(accumulating).memory.allocated - fsdp(settings).memory.allocated);
  EXPECT_NEAR(more, 2 * all, 0.02 * 2 * all);
}

TEST(FsdpOffload, KeepsNothingOfTheStateOnTheDevice) {
  const std::vector<std::string> settings{"training.micro_batch=2", "training.recompute=full"};
  std::vector<std::string> offloaded = settings;
  offloaded.emplace_back("strategy.cpu_offload=true");
  const Result on_device = fsdp(settings);
  const Result on_host = fsdp(offloaded);
  EXPECT_EQ(part(on_host, sim::MemoryPurpose::parameters), 0);
  EXPECT_EQ(part(on_host, sim::MemoryPurpose::optimizer), 0);
  EXPECT_NEAR(static_cast<double>(on_device.memory.allocated - on_host.memory.allocated), 16 * all / 8, 0.01 * all);
  const CommunicationSummary moved = tests::row(on_host, Purpose::offload, CollectiveKind::broadcast);
  // Shards before each gather, their gradients behind each reduction, all in 32 bits.
  expect_bytes(moved.bytes, 4.0 / 8 * (all + in_layers + all));
  // 40 bytes of a parameter go through the memory of the host, which eight devices share: 614.4 GB/s, of which an
  // optimizer reaches 45.6 %.
  const double optimizer = (28 + 12) * all / (0.456 * 614.4e9);
  EXPECT_GT(on_host.step_time_s, on_device.step_time_s + optimizer - 0.02);
}

// Times of a recorded rank.
class FsdpOrder : public testing::Test {
 protected:
  struct Pass {
    sim::TimePoint gather_arrival{};  // when the rank issued it
    sim::TimePoint reduction_end{};
    sim::TimePoint pack{};
    sim::TimePoint first_kernel = sim::TimePoint::max();
    sim::TimePoint last_kernel{};
  };
  // Of each layer, forward or backward. A gather stands at the layer whose pass issues it.
  static std::map<int, Pass> passes(const std::vector<std::string>& settings, const std::string& direction) {
    const scenarios::Simulation simulation = tests::simulated(one_node, settings, true);
    std::map<int, Pass> passes;
    for (const sim::OpRecord& record : simulation.outcome.records) {
      const sim::Block& block = simulation.plan.blocks[record.block];
      if (record.layer < 0 || !block.name.starts_with(direction)) continue;
      Pass& pass = passes[record.layer];
      const sim::Op& op = block.ops[record.op];
      if (const auto* communicate = std::get_if<sim::Communicate>(&op.work)) {
        const CollectiveKind kind = simulation.plan.calls[communicate->call].kind;
        if (kind == CollectiveKind::all_gather) pass.gather_arrival = record.start;
        if (kind == CollectiveKind::reduce_scatter) pass.reduction_end = record.end;
      } else if (const auto* compute = std::get_if<sim::Compute>(&op.work);
                 compute != nullptr && record.stream == sim::compute_stream) {
        const std::string& name = simulation.plan.kernels[compute->kernel].name;
        if (name == "pack gradients" || name == "join gradients") pass.pack = record.start;
        pass.first_kernel = std::min(pass.first_kernel, record.start);
        pass.last_kernel = std::max(pass.last_kernel, record.end);
      }
    }
    EXPECT_EQ(passes.size(), layers);
    return passes;
  }
};

TEST_F(FsdpOrder, ForwardGathersTheNextLayerWhileOneIsComputed) {
  const auto forward = passes({"training.micro_batch=2"}, "forward");
  for (int layer = 2; layer < 32; ++layer)
    EXPECT_LT(forward.at(layer).gather_arrival, forward.at(layer - 1).last_kernel) << layer;
}

TEST_F(FsdpOrder, BackwardGathersTheNextLayerBeforeItComputesOne) {
  const auto backward = passes({"training.micro_batch=2"}, "backward");
  for (int layer = 1; layer < 32; ++layer)
    EXPECT_LT(backward.at(layer).gather_arrival, backward.at(layer).last_kernel) << layer;
}

TEST_F(FsdpOrder, AtMostOneReductionIsInFlight) {
  // A slow network: reductions take longer than backward passes.
  const std::vector<std::string> settings{"training.micro_batch=2",
                                          "cluster.node.link={kind: nvswitch, rate: 20 GB/s, latency: 1 us}"};
  const auto second = passes(settings, "backward");
  std::vector<std::string> of_first = settings;
  of_first.push_back(first_version);
  const auto first = passes(of_first, "backward");
  bool overtakes = false;
  for (int layer = 0; layer < 31; ++layer) {
    EXPECT_GE(second.at(layer).pack, second.at(layer + 1).reduction_end) << layer;
    overtakes = overtakes || first.at(layer).pack < first.at(layer + 1).reduction_end;
  }
  EXPECT_TRUE(overtakes) << "the first version lets reductions queue";
}

// Small layers on a fast host and a slow network would let gathers run far ahead.
TEST_F(FsdpOrder, TheRateLimiterLetsTwoGathersBeInFlight) {
  const std::vector<std::string> limited{"training.micro_batch=2", first_version};
  std::vector<std::string> free = limited;
  free.emplace_back("strategy.limit_all_gathers=false");
  const auto with_limit = passes(limited, "forward");
  const auto without = passes(free, "forward");
  int ahead = 0;
  for (int layer = 2; layer < 32; ++layer) {
    EXPECT_GE(with_limit.at(layer).gather_arrival, with_limit.at(layer - 2).last_kernel) << layer;
    ahead += without.at(layer).gather_arrival < without.at(layer - 2).last_kernel ? 1 : 0;
  }
  EXPECT_GT(ahead, 20);
}

TEST_F(FsdpOrder, BackwardPrefetchSaysWhereTheNextGatherIsIssued) {
  const auto step_time = [](const std::string& prefetch) {
    return fsdp({"training.micro_batch=2", first_version,
                 "cluster.node.link={kind: nvswitch, rate: 60 GB/s, latency: 1 us}",
                 "strategy.backward_prefetch=" + prefetch})
        .step_time_s;
  };
  const double before = step_time("BACKWARD_PRE");
  EXPECT_LE(before, step_time("BACKWARD_POST"));
  EXPECT_LT(before, step_time("none"));
}

TEST_F(FsdpOrder, DeeperPrefetchHoldsMoreAndMovesTheSame) {
  const Result usual = fsdp({"training.micro_batch=2", "training.recompute=full"});
  const Result deep = fsdp({"training.micro_batch=2", "training.recompute=full",
                            "strategy.modules_to_forward_prefetch=2", "strategy.modules_to_backward_prefetch=3"});
  EXPECT_EQ(wire(usual, CollectiveKind::all_gather), wire(deep, CollectiveKind::all_gather));
  EXPECT_EQ(wire(usual, CollectiveKind::reduce_scatter), wire(deep, CollectiveKind::reduce_scatter));
  EXPECT_GT(deep.memory.allocated, usual.memory.allocated);
}

// The last product of a layer is not needed for its backward pass: w2 of the feed-forward network.
TEST(FsdpRecompute, EndsWithTheLastValueThatIsNeeded) {
  const auto flop = [](const std::vector<std::string>& settings) {
    std::vector<std::string> all_settings{"training.micro_batch=2", "training.recompute=full"};
    all_settings.insert(all_settings.end(), settings.begin(), settings.end());
    const Result result = fsdp(all_settings);
    return result.hardware_tflops_per_device * result.step_time_s * 1e12;
  };
  const double saved = flop({"strategy.checkpoint_early_stop=false"}) - flop({});
  const double product = 2.0 * 2 * 1024 * 14336 * hidden * layers;
  EXPECT_NEAR(saved, product, 1e-6 * product);
}

// With a tensor group neither is what follows that product.
TEST(FsdpRecompute, ThatEndsEarlyReducesNothingBehind) {
  const auto reductions = [](const std::string& stops) {
    return count(fsdp({"training.micro_batch=2", "training.recompute=full", "strategy.tensor=2",
                       "strategy.checkpoint_early_stop=" + stops}),
                 CollectiveKind::reduce_scatter, Purpose::tensor);
  };
  EXPECT_EQ(reductions("false") - reductions("true"), 2 * layers);  // of two micro-batches
}

TEST(FsdpChecks, NameTheKeyAndWhatWouldDo) {
  const auto expect_refusal = [](const std::vector<std::string>& settings, const std::string& key,
                                 const std::string& advice) {
    const std::string message = refused(settings);
    EXPECT_NE(message.find(key), std::string::npos) << key << ": " << message;
    EXPECT_NE(message.find(advice), std::string::npos) << advice << ": " << message;
  };
  expect_refusal({"strategy.sharding_strategy=NO_SHARD"}, "strategy.sharding_strategy", "fsdp_version: 1");
  expect_refusal({first_version, "strategy.reshard_after_forward=false"}, "strategy.reshard_after_forward",
                 "SHARD_GRAD_OP");
  expect_refusal({first_version, "strategy.shard=4"}, "strategy.shard", "HYBRID_SHARD");
  expect_refusal({"strategy.tensor=3"}, "strategy.tensor", "the nearest");
  expect_refusal({"strategy.context=8", "strategy.shard=4", "training.global_batch=8"}, "strategy.shard",
                 "share a sequence");
  expect_refusal({"strategy.expert=2"}, "strategy.expert", "no experts");
  expect_refusal({"strategy.pipeline=2", "strategy.reshard_after_forward=2"}, "strategy.reshard_after_forward",
                 "true or false");
  expect_refusal({"strategy.reshard_after_forward=often"}, "strategy.reshard_after_forward", "number of ranks");
  expect_refusal({"strategy.enable_fsdp_float8_all_gather=true"}, "strategy.enable_fsdp_float8_all_gather", "fp8");
  expect_refusal({"strategy.pipeline=2", "strategy.schedule=zb-v", "strategy.virtual_pipeline=3"},
                 "strategy.virtual_pipeline", "use 2");
  expect_refusal({"strategy.pipeline=8", "strategy.schedule=dualpipe-v", "training.global_batch=8"},
                 "training.global_batch", "16, or more");
  expect_refusal({"model=t5-11b", "strategy.pipeline=2"}, "strategy.pipeline", "use 1");
  EXPECT_EQ(refused({"strategy.tensor=2", "strategy.context=2", "strategy.pipeline=2"}), "");
}

}  // namespace
}  // namespace trainyard
