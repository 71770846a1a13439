// What TensorFlow's strategies send, and how long a step takes, against closed forms.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/simulated.hpp"

namespace trainyard {
namespace {

using scenarios::Result;
using sim::CollectiveKind;
using sim::Purpose;
using tests::expect_bytes;
using tests::row;
using tests::wire;

constexpr double parameters = 1'557'611'200;  // of GPT-2 XL
constexpr double gradients = 4 * parameters;

std::string scenario(const std::string& framework, int nodes) {
  return "name: TensorFlow\ncluster: {node: {base: dgx-h100, collectives: {algorithm: ring}}, nodes: " +
         std::to_string(nodes) +
         "}\nmodel: gpt2-xl\ntraining: {global_batch: 64, micro_batch: 2, sequence: 1024, precision: bf16}\nstrategy: "
         "{framework: " +
         framework + "}\n";
}
Result on_one_node(const std::vector<std::string>& settings) {
  return tests::simulated(scenario("tensorflow", 1), settings).result;
}
Result on_four_nodes(const std::vector<std::string>& settings) {
  return tests::simulated(scenario("tensorflow", 4), settings).result;
}
double exposed(const Result& result) { return result.breakdown_s.at(4); }

TEST(TensorflowMirrored, ReducesAllGradientsInOnePackBehindBackward) {
  const Result result = on_one_node({});
  const auto reduced = row(result, Purpose::data, CollectiveKind::all_reduce);
  EXPECT_EQ(reduced.count, 1);
  EXPECT_EQ(reduced.bytes, gradients);
  expect_bytes(reduced.wire_bytes, 2 * 7.0 / 8 * gradients);
  EXPECT_EQ(reduced.exposed_s, reduced.busy_s);
}

TEST(TensorflowMirrored, PacksAreEqualPartsOfTheConcatenatedGradients) {
  const auto reduced = row(on_one_node({"strategy.num_packs=7"}), Purpose::data, CollectiveKind::all_reduce);
  EXPECT_EQ(reduced.count, 7);
  EXPECT_EQ(reduced.bytes, gradients);
  EXPECT_EQ(reduced.exposed_s, reduced.busy_s);
}

TEST(TensorflowMirrored, WithoutPacksEveryGradientIsReducedBesideBackward) {
  const auto reduced = row(on_one_node({"strategy.num_packs=0"}), Purpose::data, CollectiveKind::all_reduce);
  constexpr double tensors = 2 + 48 * 12 + 2;
  EXPECT_EQ(reduced.count, tensors);
  EXPECT_EQ(reduced.bytes, gradients);
  EXPECT_LT(reduced.exposed_s, 0.5 * reduced.busy_s);
}

// Read and written twice each: to one tensor, and back.
TEST(TensorflowMirrored, PacksCostCopies) {
  const std::string fast = "cluster.node.link={kind: nvswitch, rate: 20 TB/s, latency: 1 us}";
  const double copied =
      on_one_node({fast}).breakdown_s.at(2) - on_one_node({fast, "strategy.num_packs=0"}).breakdown_s.at(2);
  EXPECT_GT(copied, 4 * gradients / 3.35e12);
  EXPECT_LT(copied, 1.5 * 4 * gradients / 3.35e12);  // memory reaches no more than a share of its rate
}

TEST(TensorflowMirrored, HalvesOfTheHostReduceByCopies) {
  const Result result = on_one_node({"strategy.cross_device_ops=hierarchical-copy"});
  expect_bytes(wire(result, Purpose::data, CollectiveKind::reduce_scatter), 3.0 / 4 * gradients);
  expect_bytes(wire(result, Purpose::data, CollectiveKind::all_reduce), 2 * 1.0 / 2 * gradients / 4);
  expect_bytes(wire(result, Purpose::data, CollectiveKind::all_gather), 3.0 / 4 * gradients);
}

// The first device gets those of seven others, and sends them the sum.
TEST(TensorflowMirrored, OneDeviceMayAddUpTheGradientsOfAll) {
  const Result result = on_one_node({"strategy.cross_device_ops=reduction-to-one-device"});
  expect_bytes(wire(result, Purpose::data, CollectiveKind::send), 2 * 7 * gradients / 8);
  const Result ring = on_one_node({});
  const double more = result.step_time_s - (ring.step_time_s - exposed(ring));
  EXPECT_GT(more, 2 * 7 * gradients / 450e9);
  EXPECT_LT(more, 2 * 2 * 7 * gradients / 450e9);
}

TEST(TensorflowMultiWorker, PacksOfSomeBytesAreReducedAsGradientsCome) {
  const auto one = row(on_four_nodes({}), Purpose::data, CollectiveKind::all_reduce);
  EXPECT_EQ(one.count, 1);
  EXPECT_EQ(one.exposed_s, one.busy_s);
  const auto packs =
      row(on_four_nodes({"strategy.bytes_per_pack=52428800"}), Purpose::data, CollectiveKind::all_reduce);
  EXPECT_GT(packs.count, 20);
  EXPECT_LT(packs.count, gradients / 52428800);  // a pack is larger than that before it is closed
  EXPECT_EQ(packs.bytes, gradients);
  expect_bytes(packs.wire_bytes, 2 * 31.0 / 32 * gradients);
  EXPECT_LT(packs.exposed_s, one.exposed_s);
}

TEST(TensorflowMultiWorker, ARingOfRemoteCallsIsAsFastAsTcpOnOneAdapter) {
  const auto reduced = row(on_four_nodes({"strategy.communication=ring"}), Purpose::data, CollectiveKind::all_reduce);
  const double crossing = 2 * 31.0 / 32 * gradients;
  expect_bytes(reduced.wire_bytes, crossing);
  EXPECT_NEAR(reduced.busy_s, crossing / (0.4 * 50e9) + 2 * 3 * 50e-6, 1e-6);
}

TEST(TensorflowCentralStorage, EveryDeviceReadsVariablesAndSendsGradientsOverItsOwnWayToTheHost) {
  const Result result = on_one_node({"strategy.mode=central-storage"});
  const auto copied = row(result, Purpose::offload, CollectiveKind::broadcast);
  constexpr double adam = 28;  // bytes that an update moves per parameter
  const double on_host = parameters * (7 * 12 + adam) / 8;
  expect_bytes(copied.bytes, 2 * gradients + on_host);
  EXPECT_EQ(result.memory.parts.at(2), 0);  // the optimizer's state is on the host
}

// One worker after the other; each waits for itself, or all for the servers.
class TensorflowParameterServer : public testing::Test {
 protected:
  static Result of(const std::vector<std::string>& settings) {
    std::vector<std::string> all{"strategy.mode=parameter-server"};
    all.insert(all.end(), settings.begin(), settings.end());
    return on_four_nodes(all);
  }
  // Of what does not depend on servers: with servers that take no time.
  static double alone(const Result& result) { return result.step_time_s - exposed(result); }
  static constexpr double worker_rate = 0.4 * 50e9;  // eight adapters, eight devices
  static constexpr double latency = 50e-6;
};

TEST_F(TensorflowParameterServer, AsynchronousWorkersAreLimitedByThemselvesOrByTheServers) {
  for (const int servers : {1, 2, 4, 16, 64}) {
    const Result result = of({"strategy.parameter_servers=" + std::to_string(servers)});
    const double at_servers = servers * worker_rate;
    const double transfer = gradients / std::min(worker_rate, at_servers) + latency;
    const double own = alone(result) + 2 * transfer;
    const double turn = 32 * 2 * gradients / at_servers;
    EXPECT_NEAR(result.step_time_s, std::max(own, turn), 1e-4 * result.step_time_s) << servers;
  }
}

TEST_F(TensorflowParameterServer, SynchronousStepsGrowWithTheWorkers) {
  for (const int servers : {1, 4, 64}) {
    const Result result = of({"strategy.synchronous=true", "strategy.parameter_servers=" + std::to_string(servers)});
    const double at_servers = servers * worker_rate;
    const double transfer = std::max(gradients / worker_rate, 32 * gradients / at_servers) + latency;
    constexpr double adam = 28;  // bytes that an update moves per parameter, at 0.456 of the host's memory rate
    const double apply = adam * parameters / (servers * 0.456 * 614.4e9);
    const double barrier = row(result, Purpose::data, CollectiveKind::barrier).busy_s;
    EXPECT_NEAR(exposed(result), 2 * transfer + barrier + apply, 1e-4 * exposed(result)) << servers;
  }
}

TEST_F(TensorflowParameterServer, WorkersPushWhatTheyPull) {
  const Result result = of({});
  EXPECT_EQ(row(result, Purpose::data, CollectiveKind::all_gather).bytes, gradients);  // as many variables
  EXPECT_EQ(row(result, Purpose::data, CollectiveKind::reduce_scatter).wire_bytes, gradients);
}

TEST(Keras, GoesBackToPythonOncePerExecution) {
  const std::string base = scenario("keras", 1);
  const double every = tests::simulated(base, {}).result.step_time_s;
  const double tenth = tests::simulated(base, {"strategy.steps_per_execution=10"}).result.step_time_s;
  EXPECT_NEAR(every - tenth, 0.9 * 3.5e-3, 1e-6);
}

// The batch axis shards weights too: gathered forward and backward in 16 bits, their gradients scattered, as MaxText's
// fsdp axis beside its tensor axis.
TEST(Keras, ModelParallelismIsTheProgramThatMaxTextHasForTheSameMesh) {
  const std::string model = "model=llama3-8b";
  const Result keras = tests::simulated(scenario("keras", 4), {model, "strategy.tensor=4"}).result;
  const Result maxtext = tests::simulated(scenario("maxtext", 4), {model, "strategy.tensor=4"}).result;
  ASSERT_EQ(keras.communication.size(), maxtext.communication.size());
  for (std::size_t i = 0; i < keras.communication.size(); ++i)
    EXPECT_EQ(keras.communication[i].wire_bytes, maxtext.communication[i].wire_bytes);
  const std::string base = scenario("keras", 4);
  const Result data = tests::simulated(base, {model, "strategy.mode=data-parallel"}).result;
  EXPECT_EQ(wire(data, Purpose::data, CollectiveKind::all_gather), 0);
  EXPECT_GT(wire(data, Purpose::data, CollectiveKind::all_reduce), 0);
}

TEST(Tensorflow, OnTpusIsOneProgramWithDataParallelism) {
  const std::string tpus = "cluster={node: tpu-v4, nodes: 8}";
  const Result result = tests::simulated(scenario("tensorflow", 1), {tpus, "model=llama3-8b"}).result;
  EXPECT_EQ(result.parallelism.data, 32);
  EXPECT_GT(wire(result, Purpose::data, CollectiveKind::all_reduce), 0);
  const std::string message =
      tests::refusal(scenario("tensorflow", 1), {tpus, "model=llama3-8b", "strategy.mode=mirrored"});
  EXPECT_NE(message.find("use 'tpu'"), std::string::npos) << message;
}

TEST(Tensorflow, GraphsCostTheHostLessThanOperatorsAndProgramsTheLeast) {
  const auto step = [&](const std::string& backend) {
    return tests::simulated(scenario("tensorflow", 1),
                            {"model={base: gpt, layers: 12, hidden: 512, heads: 8, vocab: 1024}",
                             "training.sequence=128", "training.backend=" + backend})
        .result.step_time_s;
  };
  EXPECT_LT(step("graph"), step("eager"));
  EXPECT_LT(step("xla"), step("graph"));
}

TEST(Tensorflow, SaysWhichModeOrOptionWouldDo) {
  const auto refuses = [](int nodes, const std::vector<std::string>& settings, const std::string& reason) {
    const std::string message = tests::refusal(scenario("tensorflow", nodes), settings);
    EXPECT_NE(message.find(reason), std::string::npos) << message;
  };
  refuses(4, {"strategy.mode=mirrored"}, "use 'multi-worker-mirrored'");
  refuses(4, {"strategy.mode=central-storage"}, "use 'multi-worker-mirrored'");
  refuses(4, {"strategy.num_packs=2"}, "use bytes_per_pack");
  refuses(1, {"strategy.tensor=2"}, "framework 'keras' with mode 'model-parallel'");
  refuses(1, {"strategy.synchronous=true"}, "is an option of mode 'parameter-server'");
  refuses(1, {"strategy.cross_device_ops=hierarchical-copy", "cluster.devices=3", "training.global_batch=66"},
          "use 'nccl'");
}

TEST(Tensorflow, DoesNotExistWithFrameworksOfPytorch) {
  for (const char* framework : {"deepspeed", "megatron-lm", "pytorch-ddp", "pytorch-fsdp"}) {
    const std::string base = scenario(framework, 1);
    const auto graph = tests::simulated(base, {"training.backend=graph"});
    const auto& warnings = graph.result.warnings;
    EXPECT_TRUE(std::ranges::any_of(warnings, [](const std::string& warning) {
      return warning.find("'graph' is TensorFlow's executor") != std::string::npos;
    })) << framework;
  }
}

}  // namespace
}  // namespace trainyard
