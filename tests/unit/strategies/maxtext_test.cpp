// MaxText: its mesh, what it puts on the wire against closed forms, what it keeps, and what it refuses.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strategies/internal/maxtext_mesh.hpp"
#include "tests/support/models.hpp"
#include "tests/support/simulated.hpp"
#include "workloads/architecture.hpp"

namespace trainyard {
namespace {

using scenarios::Result;
using sim::CollectiveKind;
using sim::Purpose;
using strategies::DeviceMesh;
using strategies::MeshAxis;
using strategies::MeshSizes;
using tests::expect_bytes;
using tests::row;
using tests::wire;

// A cube of 64 chips, every axis a ring of 4.
const std::string base = R"(name: MaxText
cluster: {node: tpu-v5p, nodes: 16}
model: llama3-8b
training: {global_batch: 64, micro_batch: 1, sequence: 4096, precision: bf16, recompute: full}
strategy: {framework: maxtext}
)";

Result with(const std::vector<std::string>& settings) { return tests::simulated(base, settings).result; }
std::string refused(const std::vector<std::string>& settings) { return tests::refusal(base, settings); }

constexpr double layers = 32;
constexpr double hidden = 4096;
const workloads::Model llama = tests::llama3_8b();
const auto all_parameters = static_cast<double>(workloads::parameters(llama));

double seconds_of(const Result& result, std::string_view part) {
  const auto found = std::ranges::find(scenarios::breakdown_names, part);
  return result.breakdown_s.at(static_cast<std::size_t>(found - scenarios::breakdown_names.begin()));
}

double data_wire(const Result& result, CollectiveKind kind) { return wire(result, Purpose::data, kind); }

TEST(MaxText, GathersWeightsForBothPassesAndScattersGradientsIn16Bits) {
  const Result result = with({});
  const double layer_parameters =
      layers * static_cast<double>(workloads::parameters_of(workloads::describe(llama, 1).kinds.front()));
  // Embedding and head are gathered once.
  expect_bytes(data_wire(result, CollectiveKind::all_gather), 63.0 / 64 * 2 * (all_parameters + layer_parameters));
  expect_bytes(data_wire(result, CollectiveKind::reduce_scatter), 63.0 / 64 * 2 * all_parameters);
  EXPECT_EQ(row(result, Purpose::data, CollectiveKind::all_reduce).bytes, 4);  // the norm of the gradients
  EXPECT_EQ(result.communication.size(), 3U);
}

TEST(MaxText, HidesThemBehindLayers) {
  const Result result = with({"training.global_batch=256", "training.micro_batch=4"});
  const double busy = row(result, Purpose::data, CollectiveKind::all_gather).busy_s +
                      row(result, Purpose::data, CollectiveKind::reduce_scatter).busy_s;
  EXPECT_LT(seconds_of(result, "exposed_data"), 0.1 * busy);
  EXPECT_LT(seconds_of(result, "host"), 1e-9);  // one program
}

TEST(MaxText, AccumulatesGradientsAsShards) {
  const Result once = with({"training.global_batch=64"});
  const Result twice = with({"training.global_batch=128"});
  EXPECT_EQ(twice.micro_batches, 2);
  expect_bytes(data_wire(twice, CollectiveKind::reduce_scatter), 2 * data_wire(once, CollectiveKind::reduce_scatter));
}

// Slices are copies: every chip sums up its own shard over the data centre network.
TEST(MaxText, SumsShardsUpOverSlices) {
  for (const auto& [slices, nodes] : {std::pair{2, 32}, {4, 64}}) {
    const Result result =
        with({"cluster.nodes=" + std::to_string(nodes), "cluster.fabric.slices=" + std::to_string(slices),
              "training.global_batch=" + std::to_string(nodes * 4)});
    expect_bytes(data_wire(result, CollectiveKind::all_reduce), 2.0 * (slices - 1) / slices * 2 * all_parameters / 64);
    expect_bytes(data_wire(result, CollectiveKind::reduce_scatter), 63.0 / 64 * 2 * all_parameters);
  }
}

// Without shards an all-reduce scatters inside the slice, sums up across, and gathers inside.
TEST(MaxText, ReducesCopiesHierarchically) {
  const Result result = with({"cluster.nodes=32", "cluster.fabric.slices=2", "training.global_batch=128",
                              "strategy.ici_fsdp_parallelism=1", "strategy.ici_data_parallelism=-1"});
  expect_bytes(data_wire(result, CollectiveKind::all_reduce), 2 * all_parameters * (2 * 63.0 / 64 + 2 * 1.0 / 2 / 64));
  EXPECT_EQ(data_wire(result, CollectiveKind::all_gather), 0);
}

// Gathered before and scattered behind attention and feed-forward block; again for the recomputed forward pass, whose
// last product does not run, and for the gradients.
TEST(MaxText, GathersBeforeAndScattersBehindBlocksOverTheTensorAxis) {
  const Result result = with({"strategy.tensor=4", "training.global_batch=16"});
  const double activations = 4096 * hidden * 2;
  const double each = 3.0 / 4 * activations;
  const double gathers = layers * (2 + 2 + 2) + 1 + 1;   // head forward, embedding backward
  const double scatters = layers * (2 + 1 + 2) + 1 + 1;  // embedding forward, head backward
  expect_bytes(wire(result, Purpose::tensor, CollectiveKind::all_gather), gathers * each);
  expect_bytes(wire(result, Purpose::tensor, CollectiveKind::reduce_scatter), scatters * each);
}

TEST(MaxText, GathersKeysAndValuesOverTheContextAxis) {
  const Result result = with({"strategy.context=4", "training.global_batch=16"});
  const double keys_and_values = 4096 * 2 * 1024 * 2;
  expect_bytes(wire(result, Purpose::context, CollectiveKind::all_gather), layers * 2 * 3.0 / 4 * keys_and_values);
  expect_bytes(wire(result, Purpose::context, CollectiveKind::reduce_scatter), layers * 3.0 / 4 * keys_and_values);
  // Weights are divided over the context axis too.
  expect_bytes(data_wire(result, CollectiveKind::reduce_scatter), 63.0 / 64 * 2 * all_parameters);
}

TEST(MaxText, ExchangesHeadsOverTheSequenceAxis) {
  const Result result = with({"strategy.ici_sequence_parallelism=4", "training.global_batch=16"});
  const double own = 4096.0 / 4 * (2 * hidden + 2 * 1024) * 2;  // queries, output, keys, values
  expect_bytes(wire(result, Purpose::context, CollectiveKind::all_to_all), layers * 3 * 3.0 / 4 * own);
}

TEST(MaxText, SendsTokensToExpertsAndBackThreeTimesWithFullRecomputation) {
  const std::vector<std::string> mixtral{"model=mixtral-8x7b", "training.global_batch=64", "strategy.expert=4"};
  const Result result = with(mixtral);
  const double sent = 4096 * 2 * hidden * 2;  // two experts
  expect_bytes(wire(result, Purpose::expert, CollectiveKind::all_to_all), 32 * 6 * 3.0 / 4 * sent);
  std::vector<std::string> kept = mixtral;
  kept.emplace_back("training.recompute=none");
  expect_bytes(wire(with(kept), Purpose::expert, CollectiveKind::all_to_all), 32 * 4 * 3.0 / 4 * sent);
}

// In pieces, a piece of the collective is left, and what it takes longer than the product.
TEST(MaxText, CollectiveMatmulLeavesOnePieceExposed) {
  const std::vector<std::string> tensor{"strategy.tensor=4", "training.global_batch=64", "training.micro_batch=4"};
  const auto exposed = [&](const char* overlap) {
    std::vector<std::string> settings = tensor;
    settings.emplace_back(std::string("strategy.overlap_tensor=") + overlap);
    return seconds_of(with(settings), "exposed_tensor");
  };
  EXPECT_LT(exposed("true"), 0.4 * exposed("false"));
  EXPECT_GT(exposed("true"), 0.2 * exposed("false"));
  // 4 x 4096 tokens of 8 KiB are 128 MiB: below what XLA takes apart by itself; twice that is not.
  EXPECT_EQ(seconds_of(with(tensor), "exposed_tensor"), exposed("false"));
  std::vector<std::string> larger = tensor;
  larger.insert(larger.end(), {"training.global_batch=128", "training.micro_batch=8"});
  EXPECT_LT(seconds_of(with(larger), "exposed_tensor"), exposed("false"));
}

// jax-ml/scaling-book, training.md: with fewer than C / (W axes) tokens a chip, 850 on the three axes of a v5p, fully
// sharded steps wait for their weights. Sequences of 512 tokens.
TEST(MaxText, IsBoundByItsWeightsBelowTheBreakEvenOfTokens) {
  const auto share_exposed = [](std::int64_t tokens) {
    const Result result = with({"training.sequence=512", "training.micro_batch=" + std::to_string(tokens / 512),
                                "training.global_batch=" + std::to_string(tokens / 512 * 64)});
    return seconds_of(result, "exposed_data") / result.step_time_s;
  };
  EXPECT_GT(share_exposed(512), 0.1);
  EXPECT_GT(share_exposed(512), share_exposed(1024));
  EXPECT_LT(share_exposed(4096), 0.02);
}

TEST(MaxText, PipelineBubbleShrinksWithRepeats) {
  // 4 stages, 8 micro-batches, 32 layers: (p - 1) / (R m + p - 1).
  const auto bubble = [](std::int64_t layers_per_stage) {
    const Result result = with({"strategy.pipeline=4", "training.global_batch=128",
                                "strategy.num_layers_per_pipeline_stage=" + std::to_string(layers_per_stage)});
    return seconds_of(result, "bubble") / result.step_time_s;
  };
  EXPECT_NEAR(bubble(8), 3.0 / 11, 0.06);
  EXPECT_NEAR(bubble(4), 3.0 / 19, 0.06);
  EXPECT_LT(bubble(4), bubble(8));
}

TEST(MaxText, GathersOncePerStepWhereAPipelineIsAskedTo) {
  const std::vector<std::string> pipeline{"strategy.pipeline=4", "training.global_batch=128",
                                          "strategy.num_layers_per_pipeline_stage=8"};
  std::vector<std::string> once = pipeline;
  once.emplace_back("strategy.pipeline_fsdp_ag_once=true");
  EXPECT_LT(data_wire(with(once), CollectiveKind::all_gather),
            0.25 * data_wire(with(pipeline), CollectiveKind::all_gather));
  EXPECT_GT(with(once).memory.peak, with(pipeline).memory.peak);
}

TEST(MaxText, PoliciesTradeMemoryForWork) {
  const auto of = [](const char* policy) {
    return with({"training.recompute=none", std::string("strategy.remat_policy=") + policy});
  };
  const std::vector<std::string> from_most_kept{"minimal_with_context", "minimal", "save_dot_except_mlp",
                                                "save_qkv_proj", "full"};
  for (std::size_t i = 1; i < from_most_kept.size(); ++i) {
    const Result more = of(from_most_kept[i - 1].c_str());
    const Result less = of(from_most_kept[i].c_str());
    EXPECT_GT(more.memory.peak, less.memory.peak) << from_most_kept[i];
    EXPECT_LT(more.step_time_s, less.step_time_s) << from_most_kept[i];
  }
  EXPECT_EQ(with({"training.recompute=selective"}).step_time_s, of("minimal").step_time_s);
  EXPECT_EQ(with({"training.recompute=full"}).step_time_s, of("full").step_time_s);
}

TEST(MaxText, MovesKeptTensorsToTheHost) {
  const Result offloaded = with({"training.recompute=none", "strategy.remat_policy=minimal_offloaded"});
  const Result kept = with({"training.recompute=none", "strategy.remat_policy=minimal"});
  EXPECT_LT(offloaded.memory.peak, kept.memory.peak);
  // Out and back: queries, keys, values, the projection behind attention, gate and up.
  const double tokens = 4096 * 2;
  const double own = tokens * (2 * hidden + 2 * 1024 + 2 * 14336);
  EXPECT_EQ(row(offloaded, Purpose::offload, CollectiveKind::broadcast).bytes, 2 * layers * own);
}

// What only makes a layer's output is not needed again.
TEST(MaxText, DoesNotRecomputeTheLastProduct) {
  const Result full = with({});
  const Result none = with({"training.recompute=none"});
  const double again =
      (full.hardware_tflops_per_device * full.step_time_s - none.hardware_tflops_per_device * none.step_time_s) * 1e12;
  const double attention = 4096.0 * 4096 * hidden * 2;  // causal
  const double products = 2 * 4096 * (2 * hidden * hidden + 2 * hidden * 1024 + 2 * hidden * 14336);
  EXPECT_NEAR(again / (layers * (products + attention)), 1, 0.01);
}

TEST(MaxText, LaysAxesOnTheTorus) {
  const auto cluster = scenarios::make_cluster(tests::scenario_of(base, {}));
  MeshSizes sizes;
  sizes.ici.at(strategies::index_of(MeshAxis::tensor)) = 4;
  sizes.ici.at(strategies::index_of(MeshAxis::fsdp)) = 16;
  const DeviceMesh mesh(cluster, sizes);
  EXPECT_FALSE(mesh.splits_torus_axes());
  // The tensor axis is the first of the torus, the other two are left for the shards.
  EXPECT_EQ(mesh.grid_axes({MeshAxis::tensor}).size(), 1U);
  EXPECT_EQ(mesh.grid_axes({MeshAxis::fsdp}).size(), 2U);
  EXPECT_EQ(mesh.next(sim::RankId{3}, MeshAxis::tensor), sim::RankId{0});
  EXPECT_EQ(mesh.coordinate(sim::RankId{21}, MeshAxis::tensor), 1);
  EXPECT_EQ(mesh.coordinate(sim::RankId{21}, MeshAxis::fsdp), 5);

  sizes.ici.at(strategies::index_of(MeshAxis::tensor)) = 2;
  sizes.ici.at(strategies::index_of(MeshAxis::fsdp)) = 32;
  EXPECT_TRUE(DeviceMesh(cluster, sizes).splits_torus_axes());
}

// Two rings of four chips in turns share an axis of eight: each has half of its links.
TEST(MaxText, GroupsWithGapsShareTheLinksBetween) {
  const std::vector<std::string> slice{"cluster.nodes=2", "cluster.fabric.shape=[8, 1, 1]", "training.global_batch=8",
                                       "cluster.fabric.wraparound=always"};
  std::vector<std::string> split = slice;
  split.insert(split.end(),
               {"strategy.tensor=2", "training.global_batch=4", "strategy.allow_split_physical_axes=true"});
  const auto seconds_per_byte = [](const Result& result) {
    const auto gathers = row(result, Purpose::data, CollectiveKind::all_gather);
    return gathers.busy_s / gathers.wire_bytes;
  };
  const double ratio = seconds_per_byte(with(split)) / seconds_per_byte(with(slice));
  EXPECT_GT(ratio, 1.9);
  EXPECT_LT(ratio, 3);  // what goes over the tensor axis has its share too
}

TEST(MaxText, RefusesMeshesThatDoNotFit) {
  const std::map<std::string, std::string> refusals{
      {"strategy.ici_tensor_parallelism=3",
       "3 does not divide the devices of a slice (64); the nearest that does is 2"},
      {"strategy.ici_fsdp_parallelism=16", "the axes multiply to 16, but must to the 64 devices of a slice"},
      {"strategy.dcn_fsdp_parallelism=2", "2 does not divide the slices (1)"},
      {"strategy.ici_data_parallelism=-1", "only one axis can take what the others leave"},
      {"strategy.tensor=7", "does not divide"},
      {"strategy.expert=2", "has no experts"},
      {"strategy.remat_policy=most", "expected"},
      {"strategy.mlpwi_0=device", "tensors are kept by name under 'custom' alone"},
      {"strategy.ici_fsdp_parallelism=0", "expected a number of ranks"},
      {"model=t5-base", "MaxText trains decoders"}};
  for (const auto& [setting, message] : refusals)
    EXPECT_NE(refused({setting}).find(message), std::string::npos) << setting << ": " << refused({setting});
  EXPECT_NE(refused({"strategy.tensor=4", "strategy.ici_tensor_parallelism=8"}).find("4 contradicts"),
            std::string::npos);
  EXPECT_NE(refused({"strategy.pipeline=4", "strategy.num_pipeline_microbatches=6", "training.global_batch=96"})
                .find("not a multiple of the 4 stages; the nearest is 8"),
            std::string::npos);
}

TEST(MaxText, WarnsOfWhatJaxRefusesAndOfSlowAxes) {
  const auto warns = [](const std::vector<std::string>& settings, const std::string& words) {
    const std::vector<std::string> warnings = with(settings).warnings;
    return std::ranges::any_of(warnings,
                               [&](const std::string& text) { return text.find(words) != std::string::npos; });
  };
  EXPECT_TRUE(warns({"strategy.tensor=2"}, "allow_split_physical_axes"));
  EXPECT_FALSE(warns({"strategy.tensor=4"}, "allow_split_physical_axes"));
  EXPECT_TRUE(warns({"cluster.nodes=32", "cluster.fabric.slices=2", "strategy.dcn_data_parallelism=1",
                     "strategy.dcn_tensor_parallelism=2"},
                    "never recommended"));
  EXPECT_FALSE(warns({}, "never recommended"));
}

// On GPUs a slice is what NVLink joins: degrees that do not fit go on across nodes.
TEST(MaxText, RunsOnGpus) {
  const std::vector<std::string> gpus{"cluster={node: dgx-h100, nodes: 2}", "training.global_batch=16"};
  const Result result = with(gpus);
  expect_bytes(data_wire(result, CollectiveKind::reduce_scatter), 7.0 / 8 * 2 * all_parameters);
  expect_bytes(row(result, Purpose::data, CollectiveKind::all_reduce).bytes, 2 * all_parameters / 8 + 4);
  std::vector<std::string> pipeline = gpus;
  pipeline.insert(pipeline.end(), {"strategy.tensor=8", "strategy.pipeline=2"});
  EXPECT_EQ(with(pipeline).parallelism.data, 1);
}

TEST(MaxText, FoldedRanksGiveWhatAllRanksGive) {
  const std::vector<std::vector<std::string>> meshes{
      {"strategy.tensor=2"},
      {"strategy.pipeline=4", "training.global_batch=64", "strategy.tensor=4"},
      {"strategy.context=4", "strategy.context_parallel_strategy=ring"},
      {"model=mixtral-8x7b", "strategy.expert=8", "strategy.tensor=4"},
      {"cluster.nodes=32", "cluster.fabric.slices=2", "training.global_batch=128", "strategy.dcn_fsdp_parallelism=2"},
      {"cluster={node: dgx-h100, nodes: 4}", "strategy.tensor=8", "strategy.pipeline=2"},
      {"strategy.shard=16", "cluster.faults=[{device: 5, speed: 0.9}]"}};
  for (const std::vector<std::string>& settings : meshes) {
    scenarios::SimulateOptions every_rank;
    every_rank.fold = every_rank.ideal = false;
    const double all = scenarios::simulate(tests::scenario_of(base, settings), every_rank).result.step_time_s;
    EXPECT_EQ(with(settings).step_time_s, all) << settings.front();
  }
}

}  // namespace
}  // namespace trainyard
