// What DDP's options change of its reductions.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/support/simulated.hpp"

namespace trainyard {
namespace {

using scenarios::CommunicationSummary;
using scenarios::Result;
using sim::CollectiveKind;
using sim::Purpose;

constexpr const char* one_node = R"(name: DDP
cluster: {node: {base: dgx-h100, collectives: {algorithm: ring}}, nodes: 1}
model: gpt2-xl
training: {global_batch: 16, sequence: 1024, precision: bf16}
strategy: {framework: pytorch-ddp}
)";
constexpr double parameters = 1'557'611'200;

Result ddp(const std::vector<std::string>& settings) { return tests::simulated(one_node, settings).result; }
CommunicationSummary reduced(const Result& result) {
  return tests::row(result, Purpose::data, CollectiveKind::all_reduce);
}

TEST(DdpOptions, AHookReducesIn16Bits) {
  for (const char* hook : {"strategy.comm_hook=fp16_compress", "strategy.comm_hook=bf16_compress"}) {
    const CommunicationSummary with_hook = reduced(ddp({hook}));
    EXPECT_EQ(with_hook.bytes, 2 * parameters);
    EXPECT_NEAR(with_hook.wire_bytes, 2 * 7.0 / 8 * 2 * parameters, 1000);
  }
}

// Casts there and back are kernels of their own.
TEST(DdpOptions, AHookCostsTimeWhereNothingIsSaved) {
  const std::string fast = "cluster.node.link={kind: nvswitch, rate: 20 TB/s, latency: 1 us}";
  EXPECT_GT(ddp({fast, "strategy.comm_hook=fp16_compress"}).breakdown_s.at(2), ddp({fast}).breakdown_s.at(2));
}

TEST(DdpOptions, WithoutNoSyncReducesEveryMicroBatch) {
  const std::string two_passes = "training.micro_batch=1";
  EXPECT_EQ(reduced(ddp({two_passes})).bytes, 4 * parameters);
  EXPECT_EQ(reduced(ddp({two_passes, "strategy.no_sync=false"})).bytes, 2 * 4 * parameters);
}

// Where parameters may be missing the small bucket is the one of the first parameters, which are ready last: the
// embedding alone.
TEST(DdpOptions, BucketsOfAChangingGraphFollowTheOrderOfRegistration) {
  const double usual = reduced(ddp({})).count;
  const Result changing = ddp({"strategy.find_unused_parameters=true"});
  const Result fixed = ddp({"strategy.find_unused_parameters=true", "strategy.static_graph=true"});
  EXPECT_EQ(reduced(fixed).count, usual + 1);
  EXPECT_NE(reduced(changing).count, reduced(fixed).count);
  EXPECT_EQ(reduced(changing).bytes, reduced(fixed).bytes);
}

TEST(DdpOptions, ACapOfOnesOwnAlsoHoldsForTheFirstBucket) {
  const double small = reduced(ddp({"strategy.bucket_cap_mb=1"})).count;
  const double large = reduced(ddp({"strategy.bucket_cap_mb=10000"})).count;
  EXPECT_GT(small, 100);
  EXPECT_EQ(large, 1);
}

// ResNet-50 has 26,560 channels behind batch norms, each with a mean and a variance.
TEST(DdpOptions, BroadcastsBatchNormStatisticsBeforeTheForwardPassBehindAReduction) {
  const std::vector<std::string> images{"model=resnet50", "training={global_batch: 64, precision: fp32}"};
  const auto broadcast = [&](std::vector<std::string> settings) {
    settings.insert(settings.begin(), images.begin(), images.end());
    return tests::row(ddp(settings), Purpose::data, CollectiveKind::broadcast);
  };
  EXPECT_EQ(broadcast({}).count, 1);
  EXPECT_EQ(broadcast({}).bytes, 8 * 26'560);
  EXPECT_EQ(broadcast({"training.micro_batch=2"}).count, 1);
  EXPECT_EQ(broadcast({"training.micro_batch=2", "strategy.no_sync=false"}).count, 4);
  EXPECT_EQ(broadcast({"strategy.broadcast_buffers=false"}).count, 0);
  EXPECT_EQ(broadcast({"cluster.devices=1"}).count, 0);
}

// Rank 16 beside the seven matrices of 32 layers.
TEST(DdpOptions, ReducesTheGradientsOfAdaptersOnly) {
  const Result result = ddp({"model=llama2-7b", "training.finetune=lora"});
  EXPECT_EQ(reduced(result).bytes, 4 * 39'976'960.0);
}

TEST(DdpOptions, Parameters16BitsWideAreNotCast) {
  const auto buffers = [](const std::vector<std::string>& settings) {
    std::vector<std::string> one{"cluster.devices=1"};
    one.insert(one.end(), settings.begin(), settings.end());
    return ddp(one).memory.parts.at(static_cast<std::size_t>(sim::MemoryPurpose::buffers));
  };
  EXPECT_GT(buffers({}), 1.9 * parameters);  // what linear layers have cast to 16 bits, kept for backward
  EXPECT_EQ(buffers({"training.master_weights=false"}), 0);
}

TEST(DdpOptions, GradientsHaveTheTypeOfTheParameters) {
  const std::string pure = "training.master_weights=false";
  EXPECT_EQ(reduced(ddp({pure})).bytes, 2 * parameters);
  EXPECT_EQ(reduced(ddp({pure, "training.gradient_precision=fp32"})).bytes, 4 * parameters);
  EXPECT_LT(reduced(ddp({pure})).count, reduced(ddp({})).count);  // half the bytes fill half the buckets
}

TEST(DdpOptions, SaysOneTypeOfReductionOnly) {
  const std::string message =
      tests::refusal(one_node, {"strategy.comm_hook=fp16_compress", "training.gradient_precision=bf16"});
  EXPECT_NE(message.find("strategy.comm_hook"), std::string::npos) << message;
}

}  // namespace
}  // namespace trainyard
