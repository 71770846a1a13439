#include "scenarios/trace.hpp"

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "scenarios/output_file.hpp"
#include "tests/support/trace_check.hpp"

namespace trainyard::scenarios {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;
using nlohmann::json;
using sim::Duration;
using sim::RankId;

constexpr sim::StreamId network{1};
constexpr sim::SlotId next{0};
constexpr sim::SlotId previous{1};
constexpr sim::SlotId group{2};

sim::Op kernel(sim::KernelId id, sim::StreamSet after = 0) {
  return {.stream = sim::compute_stream, .work = sim::Compute{id}, .after = after};
}
sim::Op communication(sim::CallId id, sim::StreamSet after = 0, sim::StreamId stream = network) {
  return {.stream = stream, .work = sim::Communicate{id}, .after = after};
}
sim::Op memory(std::int64_t change) {
  return {.work = sim::Memory{sim::MemoryPurpose::activations, sim::Bytes{change}}};
}

// Rank 0 computes and sends to rank 1, which computes longer; both reduce gradients, then step.
sim::Plan two_ranks() {
  sim::Plan plan;
  plan.streams.add("compute");
  plan.streams.add("network");
  for (const char* slot : {"next", "previous", "data"}) plan.slots.add(slot);
  plan.algorithms = {"direct", "ring"};
  const auto gemm = plan.kernels.add({.name = "gemm \"fc1\"\n",
                                      .kind = sim::KernelClass::matmul,
                                      .duration = 10us,
                                      .flops = {4'000},
                                      .model_flops = {3'000},
                                      .bytes = {200}});
  const auto slow = plan.kernels.add({.name = "attention", .kind = sim::KernelClass::attention, .duration = 25us});
  const auto adam =
      plan.kernels.add({.name = "adam", .kind = sim::KernelClass::optimizer, .duration = 3us + Duration{7}});
  constexpr sim::Bytes message{1'000'000};
  const auto send = plan.calls.add(
      {.slot = next, .kind = sim::CollectiveKind::send, .bytes = message, .purpose = sim::Purpose::pipeline});
  const auto receive = plan.calls.add(
      {.slot = previous, .kind = sim::CollectiveKind::receive, .bytes = message, .purpose = sim::Purpose::pipeline});
  const auto reduce = plan.calls.add(
      {.slot = group, .kind = sim::CollectiveKind::all_reduce, .bytes = {4'000'000}, .purpose = sim::Purpose::data});

  const sim::StreamSet on_compute = sim::set_of(sim::compute_stream);
  const sim::StreamSet on_network = sim::set_of(network);
  const auto first =
      plan.blocks.add({.name = "forward",
                       .launch = 1us,
                       .ops = {memory(500), kernel(gemm), communication(send, on_compute), memory(-500)}});
  const auto second = plan.blocks.add(
      {.name = "forward",
       .launch = 1us,
       .ops = {communication(receive, on_compute), memory(700), kernel(slow, on_network), memory(-700)}});
  const auto step = plan.blocks.add(
      {.name = "step", .launch = 1us, .ops = {communication(reduce, on_compute), kernel(adam, on_network)}});
  const auto stage0 = plan.programs.add({.name = "stage 0",
                                         .calls = {{.block = first, .layer = 0, .micro_batch = 0}, {.block = step}},
                                         .resident = {sim::Bytes{10'000}}});
  const auto stage1 = plan.programs.add(
      {.name = "stage 1", .calls = {{.block = second, .layer = 1, .micro_batch = 0}, {.block = step}}, .resident = {}});
  plan.program_of.add(stage0);
  plan.program_of.add(stage1);

  plan.communicators = sim::CommunicatorTable(2, 3);
  const auto pair = plan.communicators.add({RankId{0}, RankId{1}}, {next, previous});
  const auto both = plan.communicators.add({RankId{0}, RankId{1}}, {group, group});
  const sim::CommunicationCost transfer{
      .duration = 8us, .wire_bytes = message, .algorithm = 0, .nvlink_bytes = {}, .nic_bytes = message};
  const sim::CommunicationCost ring{
      .duration = 20us, .wire_bytes = {4'000'000}, .algorithm = 1, .nvlink_bytes = {4'000'000}, .nic_bytes = {}};
  plan.communicators[pair].cost = plan.costs.add({transfer, transfer, {}});
  plan.communicators[both].cost = plan.costs.add({{}, {}, ring});
  return plan;
}

class TraceTest : public testing::Test {
 protected:
  TraceTest() {
    std::string pattern = (fs::temp_directory_path() / "trainyard-trace-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~TraceTest() override { fs::remove_all(folder_); }

  std::string text(const sim::Plan& plan, const std::vector<RankId>& ranks, const std::string& name = "trace.json") {
    Trace trace(folder_ / name);
    trace.write(plan, sim::run(plan, {.sink = &trace, .sink_ranks = ranks}));
    std::ifstream in(folder_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  json trace(const sim::Plan& plan, const std::vector<RankId>& ranks) {
    json result = json::parse(text(plan, ranks));
    EXPECT_EQ(tests::trace_violations(result), std::vector<std::string>{});
    return result;
  }

  fs::path folder_;
};

const std::vector<RankId> both_ranks{RankId{0}, RankId{1}};

std::vector<json> select(const json& trace, const std::string& phase, std::int64_t process = -1) {
  std::vector<json> result;
  for (const json& event : trace["traceEvents"])
    if (event["ph"] == phase && (process < 0 || event["pid"] == process)) result.push_back(event);
  return result;
}

json slice(const json& trace, std::int64_t process, const std::string& name) {
  for (const json& event : select(trace, "X", process))
    if (event["name"] == name) return event;
  ADD_FAILURE() << "no slice '" << name << "' of rank " << process;
  return {};
}

TEST_F(TraceTest, NamesRanksAndStreams) {
  const json result = trace(two_ranks(), both_ranks);
  std::vector<std::string> names;
  for (const json& event : select(result, "M", 1))
    names.push_back(event["name"].get<std::string>() + " " + event["args"].begin()->dump());
  EXPECT_EQ(names, (std::vector<std::string>{"process_name \"rank 1 (stage 1)\"", "process_sort_index 1",
                                             "thread_name \"compute\"", "thread_sort_index 0",
                                             "thread_name \"network\"", "thread_sort_index 1"}));
}

TEST_F(TraceTest, DescribesKernels) {
  const json result = trace(two_ranks(), both_ranks);
  const json gemm = slice(result, 0, "gemm \"fc1\"\n");
  EXPECT_EQ(gemm["cat"], "matmul");
  EXPECT_EQ(gemm["dur"], 10.0);
  EXPECT_EQ(gemm["args"], json::parse(R"({"block": "forward", "layer": 0, "micro_batch": 0, "flops": 4000,
                                          "model_flops": 3000, "bytes": 200})"));
  EXPECT_FALSE(slice(result, 0, "adam")["args"].contains("layer"));
}

TEST_F(TraceTest, DescribesCommunications) {
  const json result = trace(two_ranks(), both_ranks);
  const json sent = slice(result, 0, "send next");
  EXPECT_EQ(sent["cat"], "pipeline");
  EXPECT_EQ(sent["args"]["waited_us"], 0.0);
  EXPECT_EQ(sent["dur"], 8.0);
  const json received = slice(result, 1, "receive previous");
  EXPECT_EQ(received["args"]["waited_us"].get<double>() + 8, received["dur"].get<double>());
  EXPECT_GT(received["args"]["waited_us"], 0.0);
  json reduced = slice(result, 0, "all_reduce data")["args"];
  EXPECT_GT(reduced["waited_us"], 0.0);
  reduced.erase("waited_us");
  EXPECT_EQ(reduced, json::parse(R"({"block": "step", "operation": "all_reduce", "purpose": "data", "bytes": 4000000,
                                     "wire_bytes": 4000000, "algorithm": "ring", "communicator": 1,
                                     "group_size": 2})"));
}

TEST_F(TraceTest, PutsTheCriticalPathAboveTheRanks) {
  const sim::Plan plan = two_ranks();
  {
    Trace trace(folder_ / "trace.json");
    trace.write(plan, sim::run(plan, {.sink = &trace, .sink_ranks = both_ranks, .critical_path = true}));
  }
  std::ifstream in(folder_ / "trace.json");
  const json result = json::parse(in);
  EXPECT_EQ(tests::trace_violations(result), std::vector<std::string>{});
  std::vector<std::string> names;
  std::vector<std::int64_t> ranks;
  double length = 0;
  for (const json& event : select(result, "X", 2)) {
    names.push_back(event["name"]);
    ranks.push_back(event["args"]["rank"]);
    length += event["dur"].get<double>();
    EXPECT_NEAR(event["ts"].get<double>(), slice(result, ranks.back(), names.back())["ts"].get<double>(), 1e-9)
        << "the path has the times of the operations on it";
  }
  EXPECT_EQ(names, (std::vector<std::string>{"gemm \"fc1\"\n", "send next", "attention", "all_reduce data", "adam"}));
  EXPECT_EQ(ranks, (std::vector<std::int64_t>{0, 0, 1, 1, 0}));
  EXPECT_NEAR(length, result["otherData"]["step_time_us"].get<double>(), 1e-9);
  const json sent = slice(result, 2, "send next");
  EXPECT_EQ(sent["cat"], "exposed_pipeline");
  EXPECT_EQ(sent["args"], json::parse(R"({"block": "forward", "layer": 0, "micro_batch": 0, "rank": 0})"));
}

TEST_F(TraceTest, KeepsEveryPicosecond) {
  const std::string all = text(two_ranks(), both_ranks);
  EXPECT_NE(all.find("\"dur\":3.000007,\"name\":\"adam\""), std::string::npos);
  EXPECT_NE(all.find("\"dur\":10.000000,"), std::string::npos);
}

TEST_F(TraceTest, PointsFromTheSenderAndFromTheLastToArrive) {
  const json result = trace(two_ranks(), both_ranks);
  const std::vector<json> starts = select(result, "s");
  const std::vector<json> ends = select(result, "f");
  ASSERT_EQ(starts.size(), 2U);
  ASSERT_EQ(ends.size(), 2U);
  const json sent = slice(result, 0, "send next");
  const json reduced = slice(result, 1, "all_reduce data");
  EXPECT_EQ(starts[0]["pid"], 0);
  EXPECT_EQ(starts[0]["ts"], sent["ts"]);
  EXPECT_EQ(starts[1]["pid"], 1);
  EXPECT_EQ(starts[1]["ts"], reduced["ts"]);
  EXPECT_EQ(starts[1]["tid"], reduced["tid"]);
}

TEST_F(TraceTest, LeavesOutArrowsToRanksThatAreNotRecorded) {
  const json result = trace(two_ranks(), {RankId{1}});
  EXPECT_TRUE(select(result, "s").empty());
  EXPECT_TRUE(select(result, "f").empty());
  EXPECT_TRUE(select(result, "X", 0).empty());
  EXPECT_EQ(select(result, "X", 1).size(), 6U);  // two kernels, two communications, two phases
}

TEST_F(TraceTest, PutsThePassesOfMicroBatchesAroundTheirKernels) {
  const json result = trace(two_ranks(), both_ranks);
  const json pass = slice(result, 0, "F0");
  const json kernel = slice(result, 0, "gemm \"fc1\"\n");
  EXPECT_EQ(pass["tid"], kernel["tid"]);
  EXPECT_EQ(pass["ts"], kernel["ts"]);
  EXPECT_EQ(pass["dur"], kernel["dur"]);
  EXPECT_EQ(pass["args"]["phase"], "forward");
  EXPECT_EQ(pass["args"]["micro_batch"], 0);
  EXPECT_EQ(slice(result, 0, "step")["cat"], "phase");
}

TEST_F(TraceTest, PutsOnePhaseAroundTwoPassesThatTakeTurns) {
  sim::Plan plan = two_ranks();
  const auto gemm = plan.kernels.add({.name = "gemm", .duration = 10us});
  const auto forward = plan.blocks.add({.name = "overlapped-forward layer", .ops = {kernel(gemm)}});
  const auto backward = plan.blocks.add({.name = "overlapped-backward layer", .ops = {kernel(gemm)}});
  std::vector<sim::BlockCall>& calls = plan.programs[sim::ProgramId{0}].calls;
  calls.insert(calls.begin(), {{.block = backward, .micro_batch = 4},
                               {.block = forward, .micro_batch = 7},
                               {.block = backward, .micro_batch = 4},
                               {.block = backward, .micro_batch = 5},
                               {.block = forward, .micro_batch = 8}});
  const json result = trace(plan, both_ranks);
  const json first = slice(result, 0, "F7&B4");
  EXPECT_EQ(first["dur"], 30);
  EXPECT_EQ(first["args"]["phase"], "forward&backward");
  EXPECT_EQ(first["args"]["micro_batch"], 7);
  EXPECT_EQ(first["args"]["backward_micro_batch"], 4);
  EXPECT_EQ(slice(result, 0, "F8&B5")["dur"], 20);
}

TEST_F(TraceTest, CountsMemoryByPurpose) {
  const json result = trace(two_ranks(), both_ranks);
  std::vector<std::int64_t> activations;
  for (const json& event : select(result, "C", 0)) {
    if (event["name"] != "memory") continue;
    EXPECT_EQ(event["args"]["parameters"], 10'000);
    activations.push_back(event["args"]["activations"]);
  }
  EXPECT_EQ(activations, (std::vector<std::int64_t>{0, 500, 0, 0}));
}

TEST_F(TraceTest, CountsWhatLinksCarryWhileTheyCarryIt) {
  const json result = trace(two_ranks(), both_ranks);
  std::vector<std::pair<double, double>> nic;
  for (const json& event : select(result, "C", 1))
    if (event["name"] == "nic") nic.emplace_back(event["ts"], event["args"]["GB/s"]);
  const double from = slice(result, 0, "send next")["ts"];
  EXPECT_EQ(nic, (std::vector<std::pair<double, double>>{{0, 0}, {from, 125}, {from + 8, 0}}));
}

TEST_F(TraceTest, TakesABlockingCommunicationOnTheComputeStream) {
  sim::Plan plan = two_ranks();
  for (sim::Block& block : plan.blocks)
    for (sim::Op& op : block.ops) op.stream = sim::compute_stream;
  const json result = trace(plan, both_ranks);
  EXPECT_EQ(slice(result, 0, "gemm \"fc1\"\n")["tid"], slice(result, 0, "all_reduce data")["tid"]);
}

TEST_F(TraceTest, TakesCommunicationsThatTakeNoTime) {
  sim::Plan plan = two_ranks();
  for (auto& row : plan.costs)
    for (sim::CommunicationCost& cost : row) cost.duration = {};
  const json result = trace(plan, both_ranks);
  EXPECT_EQ(slice(result, 0, "send next")["dur"], 0.0);
  EXPECT_TRUE(select(result, "s").empty());
}

TEST_F(TraceTest, StartsWhereARecordedStreamRunsAheadOfTheStep) {
  sim::Plan plan = two_ranks();
  // Nothing makes the network wait for compute, so the next step's communication begins before this step's end.
  for (sim::Block& block : plan.blocks)
    for (sim::Op& op : block.ops)
      if (op.stream == network) op.after = 0;
  const json result = trace(plan, both_ranks);
  EXPECT_GT(result["otherData"]["step_from_us"], 0.0);
}

TEST_F(TraceTest, GivesTheSameBytesAgainAndAnyOrderOfRanks) {
  const sim::Plan plan = two_ranks();
  const std::string once = text(plan, both_ranks);
  EXPECT_EQ(text(plan, both_ranks), once);
  EXPECT_EQ(text(plan, {RankId{1}, RankId{0}}), once);
  EXPECT_EQ(text(plan, both_ranks, "trace.json.gz"), text(plan, both_ranks, "again.json.gz"));
}

TEST_F(TraceTest, CompressesTheSameTrace) {
  const sim::Plan plan = two_ranks();
  const std::string plain = text(plan, both_ranks);
  text(plan, both_ranks, "trace.json.gz");
  gzFile in = gzopen((folder_ / "trace.json.gz").c_str(), "rb");
  ASSERT_NE(in, nullptr);
  std::string received(plain.size() + 1, '\0');
  const int count = gzread(in, received.data(), static_cast<unsigned>(received.size()));
  EXPECT_EQ(gzdirect(in), 0);
  EXPECT_EQ(gzclose(in), Z_OK);
  EXPECT_EQ(received.substr(0, static_cast<std::size_t>(std::max(0, count))), plain);
}

TEST_F(TraceTest, ReportsWhereItCannotBeWritten) {
  const sim::Plan plan = two_ranks();
  EXPECT_THROW(Trace(folder_ / "missing" / "trace.json"), OutputError);
  EXPECT_THROW(text(plan, both_ranks, "/dev/full"), OutputError);
}

TEST(TraceCheckTest, FindsWhatViewersStumbleOver) {
  const auto violations = [](const std::string& events) {
    return tests::trace_violations(
               json::parse(
                   R"({"displayTimeUnit": "ms", "traceEvents": [{"ph": "M", "pid": 0, "name": "process_name", "args": {}},
            {"ph": "M", "pid": 0, "tid": 1, "name": "thread_name", "args": {}},
            {"ph": "X", "pid": 0, "tid": 1, "ts": 1, "dur": 5, "name": "a", "cat": "c", "args": {}})" +
                   events + "]}"))
        .size();
  };
  EXPECT_EQ(violations(""), 0U);
  EXPECT_EQ(violations(R"(,{"ph": "X", "pid": 0, "tid": 1, "ts": 2, "dur": 4, "name": "in", "cat": "c", "args": {}})"),
            0U);
  EXPECT_EQ(violations(R"(,{"ph": "X", "pid": 0, "tid": 1, "ts": 2, "dur": 5, "name": "out", "cat": "c", "args": {}})"),
            1U);
  EXPECT_EQ(
      violations(R"(,{"ph": "X", "pid": 0, "tid": 1, "ts": 0, "dur": 0, "name": "early", "cat": "c", "args": {}})"),
      1U);
  EXPECT_EQ(
      violations(R"(,{"ph": "X", "pid": 0, "tid": 2, "ts": 2, "dur": 5, "name": "nameless", "cat": "c", "args": {}})"),
      1U);
  EXPECT_EQ(violations(R"(,{"ph": "s", "pid": 0, "tid": 1, "ts": 2, "id": 1, "name": "open", "cat": "c"})"), 1U);
  EXPECT_EQ(violations(R"(,{"ph": "C", "pid": 0, "ts": 2, "name": "nic", "args": {"GB/s": 1}})"), 1U);
  EXPECT_EQ(violations(R"(,{"ph": "C", "pid": 0, "ts": 2, "name": "memory", "args": {"parameters": -1}})"), 1U);
  EXPECT_EQ(violations(R"(,{"ph": "X", "pid": 0, "tid": 1, "ts": 7, "name": "endless", "cat": "c", "args": {}})"), 1U);
}

}  // namespace
}  // namespace trainyard::scenarios
