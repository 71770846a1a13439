// Pipeline schedules of Megatron-LM in whole scenarios.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <ostream>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "scenarios/simulate.hpp"
#include "tests/support/schedule_clock.hpp"
#include "tests/support/simulated.hpp"

namespace trainyard {
namespace {

using scenarios::Result;
using scenarios::Simulation;
using sim::CollectiveKind;
using sim::MemoryPurpose;
using strategies::ScheduleKind;

// Four stages of one device each.
constexpr const char* four_stages = R"(name: Schedules
cluster: {node: dgx-h100, nodes: 1, devices: 4}
model: {base: gpt, layers: 24, hidden: 4096, heads: 32, vocab: 1024}
training: {global_batch: 16, micro_batch: 1, sequence: 2048, precision: bf16}
strategy: {framework: megatron-lm, pipeline: 4}
)";

Simulation simulated(const std::vector<std::string>& settings) {
  return scenarios::simulate(tests::scenario_of(four_stages, settings));
}

std::string problem(const std::vector<std::string>& settings) { return tests::refusal(four_stages, settings); }

// Kernel time of all blocks whose names begin so.
double block_seconds(const sim::Plan& plan, const std::string& name) {
  double seconds = 0;
  for (const sim::Block& block : plan.blocks) {
    if (!block.name.starts_with(name)) continue;
    for (const sim::Op& op : block.ops)
      if (const auto* compute = std::get_if<sim::Compute>(&op.work))
        seconds += sim::to_seconds(plan.kernels[compute->kernel].duration);
  }
  return seconds;
}

struct Scheduled {
  const char* name;
  tests::Pipeline pipeline;
  std::vector<std::string> settings;

  friend void PrintTo(const Scheduled& scheduled, std::ostream* out) { *out << scheduled.name; }
};

class MegatronSchedule : public testing::TestWithParam<Scheduled> {};

// On a network that takes no time, a step takes what the schedule alone does with the passes of this model, and the
// optimizer behind the barrier. Embedding and head are small; layers of a chunk are alike.
TEST_P(MegatronSchedule, TakesWhatTheScheduleAloneDoes) {
  const tests::Pipeline& pipeline = GetParam().pipeline;
  std::vector<std::string> settings = GetParam().settings;
  settings.emplace_back("strategy.post_validation=false");
  const Simulation simulation = simulated(settings);
  const strategies::PipelinePlacement placement(pipeline.kind, pipeline.stages, pipeline.chunks);
  const double layers = 24.0 / static_cast<double>(placement.positions());
  const double forward = layers * block_seconds(simulation.plan, "forward layer");
  const double backward = layers * block_seconds(simulation.plan, "backward layer");
  const double weights = layers * block_seconds(simulation.plan, "weight-gradients layer");
  const tests::PassDurations passes{
      .forward = forward, .backward_input = backward - weights, .backward_weight = weights};
  const double makespan = tests::ScheduleClock(pipeline, passes).makespan();
  const double ends =
      static_cast<double>(pipeline.micro_batches) *
      (block_seconds(simulation.plan, "forward head") + block_seconds(simulation.plan, "backward head") +
       block_seconds(simulation.plan, "backward embedding"));
  const auto step = std::ranges::find(scenarios::breakdown_names, "optimizer");
  const double optimizer =
      simulation.result.breakdown_s.at(static_cast<std::size_t>(step - scenarios::breakdown_names.begin()));
  EXPECT_GT(forward, 0);
  EXPECT_LT(ends, 0.03 * makespan);
  EXPECT_NEAR(simulation.result.ideal_step_time_s, makespan + optimizer, 0.03 * makespan);
  EXPECT_TRUE(simulation.result.steady);
}

INSTANTIATE_TEST_SUITE_P(
    Every, MegatronSchedule,
    testing::Values(Scheduled{"GPipe", {ScheduleKind::gpipe, 4, 16, 1}, {"strategy.schedule=gpipe"}},
                    Scheduled{"OneFOneB", {ScheduleKind::one_forward_one_backward, 4, 16, 1}, {}},
                    Scheduled{
                        "Interleaved", {ScheduleKind::interleaved, 4, 16, 2, 4}, {"strategy.schedule=interleaved"}},
                    Scheduled{"InterleavedInGroups",
                              {ScheduleKind::interleaved, 4, 16, 3, 6},
                              {"strategy.virtual_pipeline=3", "strategy.microbatch_group_size_per_vp_stage=6"}},
                    Scheduled{"ZbH1", {ScheduleKind::zb_h1, 4, 16, 1}, {"strategy.schedule=zb-h1"}},
                    Scheduled{"ZbH2", {ScheduleKind::zb_h2, 4, 16, 1}, {"strategy.schedule=zb-h2"}},
                    Scheduled{"ZbV", {ScheduleKind::zb_v, 4, 16, 2}, {"strategy.schedule=zb-v"}},
                    Scheduled{"DualPipe", {ScheduleKind::dualpipe, 4, 16, 2}, {"strategy.schedule=dualpipe"}},
                    Scheduled{"DualPipeV", {ScheduleKind::dualpipe_v, 4, 16, 2}, {"strategy.schedule=dualpipe-v"}}),
    [](const auto& test) { return std::string(test.param.name); });

std::int64_t sends(const Result& result) {
  for (const scenarios::CommunicationSummary& row : result.communication)
    if (row.operation == CollectiveKind::send) return static_cast<std::int64_t>(row.count);
  return 0;
}

TEST(MegatronPipeline, TurnsInAVWithoutATransferAndGoesBothWaysOncePerMicroBatch) {
  // Per device: 16 micro-batches cross the boundaries between four stages forward and backward.
  EXPECT_EQ(sends(simulated({}).result), 16 * 3 * 2 / 4);
  EXPECT_EQ(sends(simulated({"strategy.schedule=dualpipe"}).result), 16 * 3 * 2 / 4);
  EXPECT_EQ(sends(simulated({"strategy.schedule=zb-v"}).result), 16 * 6 * 2 / 4);
  EXPECT_EQ(sends(simulated({"strategy.schedule=dualpipe-v"}).result), 16 * 6 * 2 / 4);
  EXPECT_EQ(sends(simulated({"strategy.schedule=interleaved"}).result), 16 * 7 * 2 / 4);
}

std::int64_t parameter_bytes(const sim::Plan& plan, std::size_t stage) {
  return plan.programs[plan.programs.id(stage)].resident.at(static_cast<std::size_t>(MemoryPurpose::parameters)).count;
}

TEST(MegatronPipeline, HoldsTwoCopiesOfTheModelUnderDualPipe) {
  const std::string untied = "model.tied_embeddings=false";
  const sim::Plan one = simulated({untied}).plan;
  const sim::Plan two = simulated({untied, "strategy.schedule=dualpipe"}).plan;
  for (std::size_t stage = 0; stage < 4; ++stage)
    EXPECT_EQ(parameter_bytes(two, stage), parameter_bytes(one, stage) + parameter_bytes(one, 3 - stage));
}

TEST(MegatronPipeline, HasEmbeddingAndHeadOnTheFirstStageUnderZeroBubbleV) {
  const sim::Plan plan = simulated({"strategy.schedule=zb-v", "model.tied_embeddings=false"}).plan;
  for (const std::size_t stage : {1U, 2U}) EXPECT_EQ(parameter_bytes(plan, stage), parameter_bytes(plan, 3));
  EXPECT_GT(parameter_bytes(plan, 0), parameter_bytes(plan, 3) + 2 * 2 * 1024 * 4096);
  // Tied, they are one matrix.
  const sim::Plan tied = simulated({"strategy.schedule=zb-v", "model.tied_embeddings=true"}).plan;
  EXPECT_EQ(parameter_bytes(plan, 0) - parameter_bytes(tied, 0), 2 * 1024 * 4096);
}

// Over the ranks of both copies: 2 (4 - 1) / 4 of what a rank holds, with two data-parallel ranks.
TEST(MegatronPipeline, ReducesGradientsOverBothCopiesOfAStage) {
  for (const char* overlap : {"strategy.overlap_grad_reduce=false", "strategy.overlap_grad_reduce=true"}) {
    const Simulation simulation = simulated({"strategy.schedule=dualpipe", "cluster.devices=8",
                                             "training.global_batch=32", "model.tied_embeddings=false", overlap,
                                             "cluster.node={base: dgx-h100, collectives: {algorithm: ring}}"});
    double gradients = 0;
    for (const sim::Program& program : simulation.plan.programs)
      gradients +=
          static_cast<double>(program.resident.at(static_cast<std::size_t>(MemoryPurpose::gradients)).count) / 4;
    double wire = 0;
    for (const scenarios::CommunicationSummary& row : simulation.result.communication)
      if (row.purpose == sim::Purpose::data) wire += row.wire_bytes;
    EXPECT_NEAR(wire, 2.0 * 3 / 4 * gradients, 1e-6 * gradients);
  }
}

// All of it but what warm-up and drain leave without a partner.
TEST(MegatronPipeline, HidesTensorParallelCommunicationBehindTheOtherPass) {
  const auto exposed = [](const std::string& schedule) {
    const Result result = simulated({"strategy.schedule=" + schedule, "strategy.tensor=2", "cluster.devices=8",
                                     "training.global_batch=64"})
                              .result;
    const auto tensor = std::ranges::find(scenarios::breakdown_names, "exposed_tensor");
    return result.breakdown_s.at(static_cast<std::size_t>(tensor - scenarios::breakdown_names.begin()));
  };
  EXPECT_LT(exposed("dualpipe"), 0.4 * exposed("1f1b"));
  EXPECT_LT(exposed("dualpipe-v"), 0.4 * exposed("1f1b"));
}

// The most streams that a step can have: transfers both ways, tensor parallelism, a ring of ranks that share sequences,
// experts on several nodes with fused dispatch, gradients of experts and of everything else.
TEST(MegatronPipeline, GoesBothWaysBesideEveryOtherParallelism) {
  for (const char* schedule : {"zb-v", "dualpipe", "dualpipe-v"}) {
    const Result result =
        simulated({std::string("strategy.schedule=") + schedule, "cluster.nodes=4", "cluster.devices=32",
                   "model.experts=16", "model.top_k=2", "model.layers=8", "strategy.pipeline=2", "strategy.tensor=2",
                   "strategy.sequence_parallel=true", "strategy.context=2", "strategy.expert=16",
                   "strategy.distributed_optimizer=true", "training.global_batch=16"})
            .result;
    EXPECT_TRUE(result.steady);
  }
}

std::int64_t most_activations(const Simulation& simulation, std::size_t stage) {
  const sim::Program& program = simulation.plan.programs[simulation.plan.programs.id(stage)];
  return sim::memory_peak(simulation.plan, program)
      .at_peak.at(static_cast<std::size_t>(MemoryPurpose::activations))
      .count;
}

// As much as `pipeline` micro-batches on every stage, of half stages each under a V. Where two passes overlap, one
// takes layer by layer what the other gives back; the first pair where both directions meet does not overlap, so there
// one more is held. A backward pass needs some room of its own.
TEST(MegatronPipeline, KeepsActivationsUntilTheirWeightGradients) {
  const auto stage = static_cast<double>(most_activations(simulated({}), 3));  // one micro-batch in flight
  for (std::size_t i = 0; i < 4; ++i) {
    const auto held = [&](const char* schedule) {
      return static_cast<double>(most_activations(simulated({std::string("strategy.schedule=") + schedule}), i)) /
             stage;
    };
    EXPECT_NEAR(held("zb-v"), 4, 0.3);
    EXPECT_NEAR(held("dualpipe"), i == 1 || i == 2 ? 5 : 4, 0.3);
    EXPECT_NEAR(held("dualpipe-v"), i == 3 ? 4.5 : 4, 0.3);
  }
}

// Layers of each stage, and of its chunks in the order in which it begins them, from what its forward passes run.
std::vector<std::vector<std::int64_t>> layers_of_stages(const std::vector<std::string>& settings) {
  const sim::Plan plan = simulated(settings).plan;
  std::vector<std::vector<std::int64_t>> result;
  for (const sim::Program& program : plan.programs) {
    std::set<std::int64_t> layers;
    for (const sim::BlockCall& call : program.calls)
      if (call.layer >= 0 && plan.blocks[call.block].name.find("forward ") != std::string::npos)
        layers.insert(call.layer);
    result.emplace_back(layers.begin(), layers.end());
  }
  return result;
}

TEST(MegatronPipeline, PlacesLayersInAVOrBothWays) {
  using Layers = std::vector<std::vector<std::int64_t>>;
  const std::string eight = "model.layers=8";
  EXPECT_EQ(layers_of_stages({eight, "strategy.schedule=zb-v"}), (Layers{{0, 7}, {1, 6}, {2, 5}, {3, 4}}));
  EXPECT_EQ(layers_of_stages({eight, "strategy.schedule=dualpipe"}),
            (Layers{{0, 1, 6, 7}, {2, 3, 4, 5}, {2, 3, 4, 5}, {0, 1, 6, 7}}));
  EXPECT_EQ(layers_of_stages({eight, "strategy.schedule=zb-v", "strategy.stage_layers=[0, 1, 1, 2, 2, 1, 1, 0]"}),
            (Layers{{}, {0, 7}, {1, 6}, {2, 3, 4, 5}}));
  EXPECT_EQ(layers_of_stages({eight, "strategy.schedule=dualpipe", "strategy.stage_layers=[1, 3, 3, 1]"}),
            (Layers{{0, 7}, {1, 2, 3, 4, 5, 6}, {1, 2, 3, 4, 5, 6}, {0, 7}}));
}

std::vector<std::size_t> layer_counts(const std::vector<std::string>& settings) {
  std::vector<std::size_t> counts;
  for (const auto& layers : layers_of_stages(settings)) counts.push_back(layers.size());
  return counts;
}

TEST(MegatronPipeline, SpreadsLayersAsMegatronDoes) {
  using Counts = std::vector<std::size_t>;
  EXPECT_EQ(layer_counts({"model.layers=22", "strategy.account_for_embedding_in_pipeline_split=true",
                          "strategy.account_for_loss_in_pipeline_split=true"}),
            (Counts{5, 6, 6, 5}));
  EXPECT_EQ(layer_counts({"model.layers=23", "strategy.account_for_embedding_in_pipeline_split=true"}),
            (Counts{5, 6, 6, 6}));
  EXPECT_EQ(
      layer_counts({"strategy.num_layers_in_first_pipeline_stage=2", "strategy.num_layers_in_last_pipeline_stage=4"}),
      (Counts{2, 9, 9, 4}));
  EXPECT_EQ(layer_counts({"strategy.num_layers_in_last_pipeline_stage=3"}), (Counts{7, 7, 7, 3}));
  EXPECT_EQ(layer_counts({"strategy.num_layers_in_first_pipeline_stage=6", "strategy.virtual_pipeline=2"}),
            (Counts{6, 6, 6, 6}));
}

// Behind the last stage's layers comes one that predicts a token further on.
TEST(MegatronPipeline, CountsLayersForFurtherTokensAsTheLastStages) {
  const std::string model = "model={base: deepseek-v3, layers: 22, hidden: 1024, heads: 8, experts: 8, top_k: 2}";
  EXPECT_EQ(layer_counts({model}), (std::vector<std::size_t>{5, 6, 6, 5}));
  EXPECT_EQ(layer_counts({model, "model.layers=21"}), (std::vector<std::size_t>{5, 6, 6, 4}));
  EXPECT_EQ(layer_counts({model, "strategy.stage_layers=[6, 6, 5, 5]"}), (std::vector<std::size_t>{6, 6, 5, 5}));
}

TEST(MegatronPipeline, OverlapsTransfersOfOneChunkOnRequest) {
  const double waiting = simulated({}).result.step_time_s;
  EXPECT_LT(simulated({"strategy.overlap_p2p_comm=true"}).result.step_time_s, waiting);
  EXPECT_EQ(simulated({"strategy.overlap_p2p_comm=false"}).result.step_time_s, waiting);
}

// A stage hands on what a forward and a backward pass made after both: without that, neighbours wait for each other.
TEST(MegatronPipeline, InterleavedStagesMayWaitForTheirTransfers) {
  const std::string interleaved = "strategy.virtual_pipeline=2";
  const double overlapped = simulated({interleaved}).result.step_time_s;
  EXPECT_GT(simulated({interleaved, "strategy.overlap_p2p_comm=false"}).result.step_time_s, overlapped);
  EXPECT_EQ(simulated({interleaved, "strategy.overlap_p2p_comm=true"}).result.step_time_s, overlapped);
  for (const char* batch : {"training.global_batch=4", "training.global_batch=8", "training.global_batch=12"})
    for (const char* chunks : {"strategy.virtual_pipeline=2", "strategy.virtual_pipeline=3"})
      EXPECT_GT(simulated({chunks, batch, "strategy.overlap_p2p_comm=false"}).result.step_time_s, 0) << batch << chunks;
  const auto refuses = [](const std::vector<std::string>& settings, const std::string& reason) {
    const std::string message = problem(settings);
    EXPECT_NE(message.find(reason), std::string::npos) << message;
  };
  refuses({"strategy.schedule=zb-v", "strategy.overlap_p2p_comm=false"},
          "schedule 'zb-v' is made of passes beside which stages send");
  refuses({interleaved, "strategy.microbatch_group_size_per_vp_stage=8", "strategy.overlap_p2p_comm=false"},
          "groups of more micro-batches than stages are sent while stages go on");
}

TEST(MegatronPipeline, SaysWhatASchedulesNeedsAndWhatIsNearest) {
  const auto says = [](const std::vector<std::string>& settings, const std::string& text) {
    const std::string message = problem(settings);
    EXPECT_NE(message.find(text), std::string::npos) << message;
  };
  const std::string dualpipe = "strategy.schedule=dualpipe";
  says({dualpipe, "training.global_batch=6"}, "at least 2 x pipeline = 8, not 6; the nearest global batch is 8");
  says({dualpipe, "training.global_batch=9"}, "an even number of micro-batches per rank");
  says({dualpipe, "strategy.pipeline=3", "cluster.devices=3"}, "even number of stages, not 3; the nearest is 4");
  says({dualpipe, "strategy.virtual_pipeline=2"}, "one chunk per stage");
  says({"strategy.schedule=dualpipe-v", "training.global_batch=7"}, "the nearest global batch is 8");
  says({"strategy.schedule=zb-v", "strategy.virtual_pipeline=3"}, "has two chunks per stage by itself");
  says({"strategy.schedule=zb-v", "training.recompute={every: 2}"}, "cannot run again");
  says({"strategy.schedule=interleaved", "training.global_batch=18"},
       "the micro-batches per rank, as the interleaved schedule needs");
  says({"strategy.schedule=interleaved", "training.global_batch=18", "strategy.microbatch_group_size_per_vp_stage=5"},
       "groups of 5 through 4 stages");
  says({"strategy.schedule=zb-v", "strategy.microbatch_group_size_per_vp_stage=5"}, "use schedule 'interleaved'");
  says({"strategy.account_for_loss_in_pipeline_split=true"},
       "4 does not divide the layers and the parts that count as one (25); the nearest that does is 5");
  says({"strategy.num_layers_in_first_pipeline_stage=4"}, "the nearest number that lets them is 3");
  says({"strategy.num_layers_in_first_pipeline_stage=3", "strategy.account_for_loss_in_pipeline_split=true"},
       "use either");
  says({"strategy.num_layers_in_first_pipeline_stage=3", "strategy.schedule=zb-v"}, "give stage_layers instead");
  says({"strategy.num_layers_in_first_pipeline_stage=3", "strategy.stage_layers=[3, 7, 7, 7]"},
       "says how many layers every stage has");
}

TEST(MegatronPipeline, WarnsOfAVThatIsNotFilled) {
  EXPECT_TRUE(simulated({"strategy.schedule=zb-v", "training.global_batch=7"}).result.warnings.empty());
  const std::vector<std::string> warnings =
      simulated({"strategy.schedule=zb-v", "training.global_batch=6"}).result.warnings;
  ASSERT_EQ(warnings.size(), 1U);
  EXPECT_NE(warnings.front().find("2 x pipeline - 1 = 7 micro-batches"), std::string::npos);
}

}  // namespace
}  // namespace trainyard
