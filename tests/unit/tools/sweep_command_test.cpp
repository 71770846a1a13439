// Sweeps as their users run them: killed, stopped, on a full disk, and resumed.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/program.hpp"
#include "tests/support/sweeps.hpp"

namespace trainyard {
namespace {

using tests::SweepFolder;

// A sweep in a process of its own, which can be ended from outside.
class RunningSweep {
 public:
  explicit RunningSweep(const std::vector<std::string>& arguments, rlim_t largest_file = RLIM_INFINITY) {
    std::vector<char*> words{const_cast<char*>(TRAINYARD_BINARY)};
    for (const std::string& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
    words.push_back(nullptr);
    process_ = fork();
    if (process_ != 0) return;
    const rlimit limit{.rlim_cur = largest_file, .rlim_max = RLIM_INFINITY};
    if (largest_file != RLIM_INFINITY && setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(99);
    execv(words[0], words.data());
    _exit(99);
  }
  void send(int signal) const { kill(process_, signal); }
  int wait() const {
    int status = 0;
    waitpid(process_, &status, 0);
    return status;
  }

 private:
  pid_t process_;
};

class SweepCommand : public testing::Test {
 protected:
  std::string file(const std::string& name) const { return (folder_.path() / name).string(); }
  // So many points of a few milliseconds each.
  std::string write_sweep(int points) const {
    std::string text = "base: base.yaml\nvary:\n  scale:\n    cluster.nodes: [1";
    std::string batches = "64";
    for (int i = 1; i < points; ++i) {
      text += "," + std::to_string(1 + i % 7);
      batches += "," + std::to_string(64 * (1 + i % 7) * (1 + i / 7));
    }
    return folder_.write("sweep.yaml", text + "]\n    training.global_batch: [" + batches + "]\n").string();
  }
  std::vector<std::string> sweep_into(const std::string& store) const {
    return {"sweep", file("sweep.yaml"), "--store", file(store), "--jobs", "2", "--json", file(store + ".json")};
  }
  // All that a store has of each point, but what it took to simulate it.
  nlohmann::json points(const std::string& store) const {
    EXPECT_EQ(RunningSweep(sweep_into(store)).wait(), 0);
    nlohmann::json all = nlohmann::json::parse(std::ifstream(file(store + ".json")));
    for (nlohmann::json& point : all["points"]) {
      EXPECT_EQ(point["status"], "ok");
      for (const char* field : {"wall_s", "peak_rss_bytes"}) point["result"]["engine"].erase(field);
    }
    return all;
  }
  int to_do(const std::string& store) const {
    const Ended ended = program("sweep '" + file("sweep.yaml") + "' --status --store '" + file(store) + "'");
    EXPECT_EQ(ended.status, 0) << ended.output;
    const std::size_t end = ended.output.find(" to do");
    const std::size_t begin = ended.output.rfind(' ', end - 1);
    return std::stoi(ended.output.substr(begin, end - begin));
  }

  SweepFolder folder_;
};

TEST_F(SweepCommand, KilledAtAnyMomentAndResumedItEndsAsIfNothingHadHappened) {
  constexpr int all = 500;
  write_sweep(all);
  constexpr std::uint32_t seed = 20261128;
  std::mt19937 random(seed);
  const auto before = std::chrono::steady_clock::now();
  to_do("killed.db");
  const auto start_up = std::chrono::steady_clock::now() - before;
  int kills = 0;
  int left = all;
  for (int i = 0; i < 20 && left > 0; ++i, ++kills) {
    const RunningSweep sweep(sweep_into("killed.db"));
    std::this_thread::sleep_for(start_up / 2 + std::chrono::milliseconds(random() % 100));
    sweep.send(SIGKILL);
    sweep.wait();
    const int still = to_do("killed.db");
    EXPECT_LE(still, left) << "seed " << seed << ", kill " << i << ": a point that was stored is lost";
    left = still;
  }
  EXPECT_GE(kills, 5) << "the sweep is too short to be killed in its middle";
  EXPECT_LT(left, all) << "it was always killed before it had begun";
  EXPECT_EQ(points("killed.db"), points("whole.db"));
}

TEST_F(SweepCommand, OnAFullDiskItEndsWithFourAndAStoreThatResumes) {
  write_sweep(100);
  constexpr rlim_t largest_file = 300 * 1024;
  const RunningSweep sweep(sweep_into("full.db"), largest_file);
  const int status = sweep.wait();
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 4);
  EXPECT_FALSE(std::filesystem::exists(file("full.db.json")));
  const int left = to_do("full.db");
  EXPECT_GT(left, 0);
  EXPECT_LT(left, 100);
  EXPECT_EQ(points("full.db"), points("whole.db"));
}

TEST_F(SweepCommand, AStoreThatCannotGrowIsNamed) {
  write_sweep(100);
  const Ended ended = program("--version; ulimit -f 300; '" TRAINYARD_BINARY "' sweep '" + file("sweep.yaml") +
                              "' --store '" + file("full.db") + "'");
  EXPECT_EQ(ended.status, 4);
  EXPECT_NE(ended.output.find("trainyard: the results store '" + file("full.db") + "' cannot "), std::string::npos)
      << ended.output;
}

TEST_F(SweepCommand, StopsOnASignalAndSaysThatItGoesOn) {
  write_sweep(2000);
  const RunningSweep sweep(sweep_into("stopped.db"));
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  sweep.send(SIGINT);
  const int status = sweep.wait();
  ASSERT_TRUE(WIFSIGNALED(status)) << "the shell sees what ended it";
  EXPECT_EQ(WTERMSIG(status), SIGINT);
  EXPECT_FALSE(std::filesystem::exists(file("stopped.db-wal"))) << "the store is closed in order";
  EXPECT_GT(to_do("stopped.db"), 0);
}

TEST_F(SweepCommand, TheStoreLiesBesideTheSweepAndTheLastLineCounts) {
  folder_.write("sweep.yaml", "base: base.yaml\nvary: {cluster.nodes: [1, 2], training.micro_batch: [1, 5]}\n");
  const std::string command = "sweep '" + file("sweep.yaml") + "'";
  Ended ended = program(command);
  EXPECT_EQ(ended.status, 0) << ended.output;
  EXPECT_TRUE(std::filesystem::exists(file("sweep.db")));
  EXPECT_NE(ended.output.find("4 points: 2 simulated, 2 failed, 0 to do"), std::string::npos) << ended.output;
  EXPECT_NE(ended.output.find("training.global_batch"), std::string::npos) << ended.output;
  EXPECT_NE(ended.output.find("4 of them now"), std::string::npos) << ended.output;
  ended = program(command + " --csv -");
  EXPECT_EQ(ended.output.find("cluster.nodes,training.micro_batch,series,status,"), 0U) << ended.output;
  EXPECT_EQ(std::count(ended.output.begin(), ended.output.end(), '\n'), 5) << "diagnostics end with their lines";
}

TEST_F(SweepCommand, AReportOnStdoutIsThatInAFileAndNothingElse) {
  write_sweep(3);
  const std::string command = "sweep '" + file("sweep.yaml") + "' --report ";
  const Ended ended = program(command + "'" + file("report.html") + "'");
  EXPECT_EQ(ended.status, 0) << ended.output;
  EXPECT_NE(ended.output.find("3 points: 3 simulated"), std::string::npos) << ended.output;
  std::ifstream in(file("report.html"), std::ios::binary);
  const std::string page{std::istreambuf_iterator<char>{in}, {}};
  EXPECT_EQ(page.find("<!DOCTYPE html>"), 0U);
  EXPECT_EQ(program(command + "-").output, page);
}

TEST_F(SweepCommand, WrongInputIsRefusedBeforeAnythingIsWritten) {
  folder_.write("sweep.yaml", "base: none.yaml\nvary: {cluster.nodes: [1, 2]}\n");
  expect_refused("sweep '" + file("sweep.yaml") + "'",
                 "sweep.yaml:1:7: base: no such file: '" + file("none.yaml") + "'");
  EXPECT_FALSE(std::filesystem::exists(file("sweep.db")));
  expect_refused("sweep '" + file("sweep.yaml") + "' --csv x --json x",
                 "--csv: expected another file than that of --json");
  expect_refused("sweep '" + file("sweep.yaml") + "' --report x --csv x",
                 "--csv: expected another file than that of --report");
  expect_refused("sweep none.yaml", "none.yaml: no such file");
  folder_.write("text.db", std::string(4096, 'x'));
  write_sweep(2);
  expect_refused("sweep '" + file("sweep.yaml") + "' --store '" + file("text.db") + "'",
                 "expected a results store, and this is none");
}

}  // namespace
}  // namespace trainyard
