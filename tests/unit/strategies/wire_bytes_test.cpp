// What whole scenarios put on the wire, against the closed forms of the frameworks' rules.
#include <gtest/gtest.h>

#include <string>
#include <utility>
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
using tests::expect_bytes;
using tests::row;
using tests::simulated;
using tests::wire;

double data_wire(const Result& result, CollectiveKind kind) { return wire(result, Purpose::data, kind); }

constexpr double layers = 32;
constexpr double hidden = 4096;
const workloads::Model llama = tests::llama3_8b();
const auto all_parameters = static_cast<double>(workloads::parameters(llama));
const double layer_parameters =
    layers * static_cast<double>(workloads::parameters_of(workloads::describe(llama, 1).kinds.front()));

// GPT-2 XL, whose every bucket is large.
class PytorchDdp : public testing::Test {
 protected:
  static Result with(std::vector<std::string> settings) {
    settings.insert(settings.begin(), {"model=gpt2-xl", "strategy.framework=pytorch-ddp"});
    return simulated(settings);
  }
  static constexpr double parameters = 1'557'611'200;
};

TEST_F(PytorchDdp, ReducesEveryGradientIn32BitsOncePerStep) {
  for (const char* devices : {"cluster.devices=2", "cluster.devices=8"}) {
    const Result result = with({devices});
    const auto ranks = static_cast<double>(result.devices);
    const CommunicationSummary reduced = row(result, Purpose::data, CollectiveKind::all_reduce);
    EXPECT_EQ(reduced.bytes, 4 * parameters);
    expect_bytes(reduced.wire_bytes, 2 * (ranks - 1) / ranks * parameters * 4);
    EXPECT_EQ(result.communication.size(), 1U);
  }
}

TEST_F(PytorchDdp, AccumulatesGradientsWithoutCommunication) {
  const Result result = with({"training.micro_batch=1"});
  EXPECT_EQ(result.micro_batches, 2);
  EXPECT_EQ(row(result, Purpose::data, CollectiveKind::all_reduce).bytes, 4 * parameters);
}

TEST_F(PytorchDdp, ReducesInTheTypeThatIsAskedFor) {
  const Result result = with({"cluster.devices=2", "training.gradient_precision=bf16"});
  expect_bytes(data_wire(result, CollectiveKind::all_reduce), 2 * 1.0 / 2 * parameters * 2);
}

TEST_F(PytorchDdp, MarksUnusedParametersInABitmap) {
  const Result result = with({"strategy.find_unused_parameters=true"});
  constexpr double tensors = 2 + 48 * 12 + 2;
  EXPECT_EQ(row(result, Purpose::data, CollectiveKind::all_reduce).bytes, 4 * parameters + 4 * tensors);
}

TEST_F(PytorchDdp, AloneHasNobodyToTalkTo) { EXPECT_TRUE(with({"cluster.devices=1"}).communication.empty()); }

// Models without tokens.
Result with_samples(const std::string& model, std::vector<std::string> settings) {
  settings.insert(settings.begin(), {"model=" + model, "strategy.framework=pytorch-ddp",
                                     "training={global_batch: 4096, precision: fp32}"});
  return simulated(settings);
}

TEST_F(PytorchDdp, ReducesTheGradientsOfResNet50InFiveBuckets) {
  const Result result = with_samples("resnet50", {"training.global_batch=64"});
  const CommunicationSummary reduced = row(result, Purpose::data, CollectiveKind::all_reduce);
  EXPECT_EQ(reduced.count, 5);
  EXPECT_EQ(reduced.bytes, 4 * 25'557'032);
}

// Tables are divided over the ranks, perceptrons replicated.
class Dlrm : public testing::Test {
 protected:
  static constexpr double perceptrons = 2'368'897;
  static constexpr double vectors = 26 * 128;  // numbers that a sample has from all tables
};

TEST_F(Dlrm, ExchangesTheRowsOfItsSamplesForwardAndTheirGradientsBackward) {
  for (const char* devices : {"cluster.devices=2", "cluster.devices=8"})
    for (const auto& [precision, bytes] :
         {std::pair{"training.precision=bf16", 2.0}, {"training.precision=fp32", 4.0}}) {
      const Result result = with_samples("dlrm", {devices, precision});
      const auto ranks = static_cast<double>(result.devices);
      const CommunicationSummary exchanged = row(result, Purpose::tensor, CollectiveKind::all_to_all);
      const double local = 4096 / ranks;
      EXPECT_EQ(exchanged.count, 2);
      EXPECT_EQ(exchanged.bytes, 2 * local * vectors * bytes);
      expect_bytes(exchanged.wire_bytes, 2 * local * vectors * bytes * (ranks - 1) / ranks);
    }
}

TEST_F(Dlrm, ExchangesThemForEveryMicroBatch) {
  const CommunicationSummary exchanged =
      row(with_samples("dlrm", {"training.micro_batch=128"}), Purpose::tensor, CollectiveKind::all_to_all);
  EXPECT_EQ(exchanged.count, 2 * 4);
  expect_bytes(exchanged.wire_bytes, 2 * 512 * vectors * 4 * 7 / 8);
}

TEST_F(Dlrm, ReducesTheGradientsOfThePerceptronsOnly) {
  const Result result = with_samples("dlrm", {});
  EXPECT_EQ(row(result, Purpose::data, CollectiveKind::all_reduce).bytes, 4 * perceptrons);
  EXPECT_EQ(result.communication.size(), 2U);
}

TEST_F(Dlrm, AloneExchangesNothing) {
  const std::vector<std::string> fits{"cluster.devices=1", "model={base: dlrm, tables: [1000, 1000]}"};
  EXPECT_TRUE(with_samples("dlrm", fits).communication.empty());
}

class PytorchFsdp : public testing::Test {
 protected:
  static Result with(std::vector<std::string> settings) {
    settings.insert(settings.begin(), "strategy.framework=pytorch-fsdp");
    return simulated(settings);
  }
};

TEST_F(PytorchFsdp, GathersForwardAndBackwardAndReducesOnce) {
  const Result result = with({"training.micro_batch=2"});
  // The root (embedding, last norm, head) stays gathered from forward to backward.
  expect_bytes(data_wire(result, CollectiveKind::all_gather), 7.0 / 8 * 2 * (all_parameters + layer_parameters));
  expect_bytes(data_wire(result, CollectiveKind::reduce_scatter), 7.0 / 8 * 2 * all_parameters);
  expect_bytes(row(result, Purpose::data, CollectiveKind::all_reduce).bytes, 4);  // the norm of the gradients
}

TEST_F(PytorchFsdp, CommunicatesForEveryMicroBatch) {
  const Result result = with({"training.micro_batch=1"});
  EXPECT_EQ(result.micro_batches, 2);
  expect_bytes(data_wire(result, CollectiveKind::all_gather), 2 * 7.0 / 8 * 2 * (all_parameters + layer_parameters));
  expect_bytes(data_wire(result, CollectiveKind::reduce_scatter), 2 * 7.0 / 8 * 2 * all_parameters);
}

TEST_F(PytorchFsdp, ReducesInTheTypeThatIsAskedFor) {
  const Result result = with({"training.micro_batch=2", "training.gradient_precision=fp32"});
  expect_bytes(data_wire(result, CollectiveKind::reduce_scatter), 7.0 / 8 * 4 * all_parameters);
}

TEST_F(PytorchFsdp, KeepsParametersAfterForwardWhenToldNotToReshard) {
  const Result result = with({"training.micro_batch=2", "strategy.reshard_after_forward=false"});
  expect_bytes(data_wire(result, CollectiveKind::all_gather), 7.0 / 8 * 2 * all_parameters);
  expect_bytes(data_wire(result, CollectiveKind::reduce_scatter), 7.0 / 8 * 2 * all_parameters);
}

TEST_F(PytorchFsdp, GathersFromASmallerGroupAfterReshardingToIt) {
  const Result result = with({"training.micro_batch=2", "strategy.reshard_after_forward=4"});
  expect_bytes(data_wire(result, CollectiveKind::all_gather),
               7.0 / 8 * 2 * all_parameters + 3.0 / 4 * 2 * layer_parameters);
}

TEST_F(PytorchFsdp, HybridShardingReducesShardsOverTheirReplicas) {
  const Result result = with({"cluster.nodes=2", "training.micro_batch=1", "strategy.shard=8"});
  expect_bytes(data_wire(result, CollectiveKind::all_gather), 7.0 / 8 * 2 * (all_parameters + layer_parameters));
  expect_bytes(data_wire(result, CollectiveKind::reduce_scatter), 7.0 / 8 * 2 * all_parameters);
  expect_bytes(data_wire(result, CollectiveKind::all_reduce), 2 * 1.0 / 2 * 2 * all_parameters / 8);
}

TEST_F(PytorchFsdp, OfOneShardOnlyReducesGradients) {
  const Result result = with({"cluster.devices=2", "training.micro_batch=8", "strategy.shard=1"});
  EXPECT_EQ(data_wire(result, CollectiveKind::all_gather), 0);
  expect_bytes(data_wire(result, CollectiveKind::all_reduce), 2 * 1.0 / 2 * 2 * all_parameters);
}

// Llama 3 8B, 16 sequences of 1024 tokens; its vocabulary of 128256 is a multiple of 128 x 2.
class MegatronLm : public testing::Test {
 protected:
  static constexpr double activation = 1024 * hidden * 2;  // of one sequence
  static constexpr double row_numbers = 1024 * 4;          // one 32-bit number for each token
  static constexpr double scalar = 4;
};

TEST_F(MegatronLm, TensorParallelismReducesFourActivationsPerLayer) {
  const Result result = simulated({"cluster.devices=2", "strategy.tensor=2"});
  EXPECT_EQ(result.micro_batches, 16);
  const CommunicationSummary reduced = row(result, Purpose::tensor, CollectiveKind::all_reduce);
  // And one behind the embedding, one before the head in backward, three numbers per token for the loss.
  EXPECT_EQ(reduced.count, 16 * (4 * layers + 2 + 3) + 1);
  EXPECT_EQ(reduced.bytes, 16 * ((4 * layers + 2) * activation + 3 * row_numbers) + scalar);
  expect_bytes(reduced.wire_bytes, 2 * 1.0 / 2 * reduced.bytes);
  EXPECT_EQ(result.communication.size(), 1U);
}

TEST_F(MegatronLm, SequenceParallelismSplitsThemAndGathersTheInputsAgain) {
  const Result result =
      simulated({"strategy.tensor=8", "strategy.sequence_parallel=true", "strategy.overlap_tensor=false"});
  const CommunicationSummary gathered = row(result, Purpose::tensor, CollectiveKind::all_gather);
  const CommunicationSummary scattered = row(result, Purpose::tensor, CollectiveKind::reduce_scatter);
  // Two gathers forward and four backward, two reductions each way; embedding: a reduction forward, a gather backward;
  // head: a gather forward, a gather and a reduction backward.
  EXPECT_EQ(gathered.count, 16 * (6 * layers + 3));
  EXPECT_EQ(scattered.count, 16 * (4 * layers + 2));
  expect_bytes(gathered.wire_bytes, 7.0 / 8 * 16 * (6 * layers + 3) * activation);
  expect_bytes(scattered.wire_bytes, 7.0 / 8 * 16 * (4 * layers + 2) * activation);
}

TEST_F(MegatronLm, OverlappingThemWithProductsSendsTheSameBytesInMoreCalls) {
  const std::vector<std::string> exposed{"strategy.tensor=8", "strategy.sequence_parallel=true",
                                         "strategy.overlap_tensor=false"};
  std::vector<std::string> overlapped = exposed;
  overlapped.back() = "strategy.overlap_tensor=true";
  const Result without = simulated(exposed);
  const Result with = simulated(overlapped);
  for (const CollectiveKind kind : {CollectiveKind::all_gather, CollectiveKind::reduce_scatter}) {
    expect_bytes(wire(with, Purpose::tensor, kind), wire(without, Purpose::tensor, kind));
    EXPECT_GT(row(with, Purpose::tensor, kind).count, row(without, Purpose::tensor, kind).count);
  }
}

TEST_F(MegatronLm, SequenceParallelismReducesTheGradientsOfNormsAtTheEnd) {
  const Result result = simulated({"cluster.devices=2", "strategy.tensor=2", "strategy.sequence_parallel=true"});
  const CommunicationSummary reduced = row(result, Purpose::tensor, CollectiveKind::all_reduce);
  EXPECT_EQ(reduced.count, 16 * 3 + 2);
  // Two norms of one vector in each layer, and the last one.
  EXPECT_EQ(reduced.bytes, 16 * 3 * row_numbers + scalar + (layers * 2 + 1) * hidden * 4);
}

TEST_F(MegatronLm, FullRecomputationRepeatsTheReductionsOfForward) {
  const Result result = simulated({"cluster.devices=2", "strategy.tensor=2", "training.recompute=full"});
  EXPECT_EQ(row(result, Purpose::tensor, CollectiveKind::all_reduce).count, 16 * (6 * layers + 2 + 3) + 1);
}

TEST_F(MegatronLm, FullRecomputationOfGroupsRepeatsThemAsOften) {
  const Result result = simulated({"cluster.devices=2", "strategy.tensor=2", "training.recompute={every: 4}"});
  EXPECT_EQ(row(result, Purpose::tensor, CollectiveKind::all_reduce).count, 16 * (6 * layers + 2 + 3) + 1);
}

TEST_F(MegatronLm, SelectiveRecomputationRepeatsNone) {
  const Result result = simulated(
      {"cluster.devices=2", "strategy.tensor=2", "training.attention=unfused", "training.recompute=selective"});
  EXPECT_EQ(row(result, Purpose::tensor, CollectiveKind::all_reduce).count, 16 * (4 * layers + 2 + 3) + 1);
}

TEST_F(MegatronLm, DataParallelismReducesGradientsIn32BitsOncePerStep) {
  const Result result = simulated({"training.micro_batch=1"});
  EXPECT_EQ(result.micro_batches, 2);
  const CommunicationSummary reduced = row(result, Purpose::data, CollectiveKind::all_reduce);
  EXPECT_EQ(reduced.count, 1);
  EXPECT_EQ(reduced.bytes, 4 * all_parameters);
  expect_bytes(reduced.wire_bytes, 2 * 7.0 / 8 * 4 * all_parameters);
  EXPECT_EQ(result.communication.size(), 1U);
}

TEST_F(MegatronLm, DataParallelRanksOfATensorGroupReduceTheirPart) {
  const Result result = simulated({"strategy.tensor=2"});
  // Norms are on both ranks of the tensor group.
  const double norms = (2 * layers + 1) * hidden;
  const double local = (all_parameters - norms) / 2 + norms;
  expect_bytes(data_wire(result, CollectiveKind::all_reduce), 2 * 3.0 / 4 * 4 * local);
}

TEST_F(MegatronLm, BucketsOfAnOverlappedReductionHoldEveryGradient) {
  for (const char* bucket : {"strategy.ddp_bucket_size=0", "strategy.ddp_bucket_size=1000000000"}) {
    const Result result = simulated({"strategy.overlap_grad_reduce=true", bucket});
    EXPECT_EQ(row(result, Purpose::data, CollectiveKind::all_reduce).bytes, 4 * all_parameters) << bucket;
    EXPECT_GT(row(result, Purpose::data, CollectiveKind::all_reduce).count, 5) << bucket;
  }
}

TEST_F(MegatronLm, TheDistributedOptimizerScattersGradientsAndGathersParameters) {
  for (const char* overlap : {"strategy.overlap_param_gather=false", "strategy.overlap_param_gather=true"}) {
    const Result result =
        simulated({"strategy.distributed_optimizer=true", "strategy.overlap_grad_reduce=true", overlap});
    expect_bytes(data_wire(result, CollectiveKind::reduce_scatter), 7.0 / 8 * 4 * all_parameters);
    expect_bytes(data_wire(result, CollectiveKind::all_gather), 7.0 / 8 * 2 * all_parameters);
    EXPECT_EQ(data_wire(result, CollectiveKind::all_reduce), 0) << overlap;
  }
}

TEST_F(MegatronLm, PipelineStagesSendActivationsForwardAndGradientsBackward) {
  for (const char* schedule : {"strategy.schedule=1f1b", "strategy.schedule=gpipe"}) {
    const Result result = simulated({"cluster.devices=4", "strategy.pipeline=4", "training.micro_batch=2", schedule});
    EXPECT_EQ(result.micro_batches, 8);
    const CommunicationSummary sent = row(result, Purpose::pipeline, CollectiveKind::send);
    EXPECT_EQ(sent.count, 2 * 8 * 3.0 / 4);  // three of four stages each way
    EXPECT_EQ(sent.wire_bytes, sent.count * 2 * activation);
    const CommunicationSummary received = row(result, Purpose::pipeline, CollectiveKind::receive);
    EXPECT_EQ(received.count, sent.count);
    EXPECT_EQ(received.wire_bytes, 0);  // what a rank sends
    EXPECT_EQ(row(result, Purpose::pipeline, CollectiveKind::all_reduce).bytes, scalar);
  }
}

TEST_F(MegatronLm, ChunksMultiplyWhatPipelineStagesSend) {
  const Result result = simulated({"cluster.devices=4", "strategy.pipeline=4", "strategy.virtual_pipeline=2"});
  EXPECT_EQ(row(result, Purpose::pipeline, CollectiveKind::send).count, 2 * 16 * 7.0 / 4);
}

TEST_F(MegatronLm, SequenceParallelStagesSendTheirPartOfTheSequence) {
  const std::vector<std::string> settings{"strategy.tensor=2", "strategy.pipeline=4"};
  std::vector<std::string> with_sequence_parallelism = settings;
  with_sequence_parallelism.emplace_back("strategy.sequence_parallel=true");
  const double whole = wire(simulated(settings), Purpose::pipeline, CollectiveKind::send);
  EXPECT_EQ(whole, 2 * 16 * 3.0 / 4 * activation);
  EXPECT_EQ(wire(simulated(with_sequence_parallelism), Purpose::pipeline, CollectiveKind::send), whole / 2);
}

// Releases until early 2023, which unfused attention stands for (arXiv 2104.04473, section 4.1).
TEST_F(MegatronLm, OlderReleasesSendEachRanksPartOfTheActivationsAndGatherThem) {
  const std::vector<std::string> settings{"strategy.tensor=2", "strategy.pipeline=4", "training.attention=unfused"};
  std::vector<std::string> without = settings;
  without.emplace_back("strategy.scatter_gather_tensors_in_pipeline=false");
  for (const char* schedule : {"strategy.schedule=1f1b", "strategy.schedule=interleaved"}) {
    const auto with_schedule = [&](std::vector<std::string> all) {
      all.emplace_back(schedule);
      return simulated(all);
    };
    const Result whole = with_schedule(without);
    const Result parts = with_schedule(settings);
    const CommunicationSummary sent = row(whole, Purpose::pipeline, CollectiveKind::send);
    EXPECT_EQ(wire(parts, Purpose::pipeline, CollectiveKind::send), sent.wire_bytes / 2) << schedule;
    const CommunicationSummary gathered = row(parts, Purpose::pipeline, CollectiveKind::all_gather);
    EXPECT_EQ(gathered.count, sent.count) << schedule;
    EXPECT_EQ(gathered.wire_bytes, sent.wire_bytes / 2) << schedule;
    EXPECT_EQ(wire(whole, Purpose::pipeline, CollectiveKind::all_gather), 0) << schedule;
  }
}

TEST_F(MegatronLm, TiedEmbeddingsAreReducedBetweenTheFirstAndTheLastStage) {
  const Result result =
      simulated({"model=gpt2-xl", "training.sequence=512", "cluster.devices=4", "strategy.pipeline=4"});
  const CommunicationSummary reduced = row(result, Purpose::pipeline, CollectiveKind::all_reduce);
  constexpr double padded_vocabulary = 50304;
  EXPECT_EQ(reduced.bytes, 2.0 / 4 * padded_vocabulary * 1600 * 4 + scalar);
  expect_bytes(reduced.wire_bytes, reduced.bytes);
}

constexpr std::size_t exposed_data = sim::kernel_classes + static_cast<std::size_t>(Purpose::data);

TEST_F(MegatronLm, OverlappedParameterGathersHideBehindTheForwardPass) {
  const std::vector<std::string> sharded{"strategy.distributed_optimizer=true", "strategy.overlap_grad_reduce=true"};
  std::vector<std::string> overlapped = sharded;
  overlapped.emplace_back("strategy.overlap_param_gather=true");
  const Result exposed = simulated(sharded);
  const Result behind = simulated(overlapped);
  // The same bytes; of the time, only the first bucket's stays.
  EXPECT_EQ(data_wire(exposed, CollectiveKind::all_gather), data_wire(behind, CollectiveKind::all_gather));
  const double gathers = row(exposed, Purpose::data, CollectiveKind::all_gather).exposed_s;
  EXPECT_LT(behind.breakdown_s.at(exposed_data), exposed.breakdown_s.at(exposed_data) - 0.5 * gathers);
  EXPECT_LT(behind.step_time_s, exposed.step_time_s);
}

}  // namespace
}  // namespace trainyard
