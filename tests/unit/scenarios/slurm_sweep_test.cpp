#include "scenarios/slurm_sweep.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <set>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/shell_words.hpp"
#include "tests/support/sweeps.hpp"

namespace trainyard::scenarios {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

TEST(ShellWords, AreSplitAsAShellWould) {
  EXPECT_EQ(shell_words(""), Words{});
  EXPECT_EQ(shell_words(" \t "), Words{});
  EXPECT_EQ(shell_words("-p  long\t--time=1:00 "), (Words{"-p", "long", "--time=1:00"}));
  EXPECT_EQ(shell_words("--comment='a \"b\"' \"c 'd'\" e\\ f ''"), (Words{"--comment=a \"b\"", "c 'd'", "e f", ""}));
  EXPECT_EQ(shell_words(R"("\"\\\$\a")"), (Words{R"("\$\a)"}));
  EXPECT_EQ(shell_words("$HOME `x` *"), (Words{"$HOME", "`x`", "*"}));
}

TEST(ShellWords, AQuotationThatDoesNotEndIsNoWord) {
  for (const char* line : {"'", "a 'b", "\"a", "\"a\\\"", "a\\"}) EXPECT_EQ(shell_words(line), std::nullopt) << line;
}

// What /bin/sh makes of the words.
TEST(ShellWords, QuotedAreWhatTheyWere) {
  const Words words{"", "a b", "it's", "\"$HOME\" `date` \\", "100%a", "new\nline", "-n", "*"};
  const std::string command = "printf '%s|' " + shell_line(words);
  FILE* pipe = popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string printed;
  for (int letter = 0; (letter = std::fgetc(pipe)) != EOF;) printed += static_cast<char>(letter);
  EXPECT_EQ(pclose(pipe), 0);
  std::string expected;
  for (const std::string& word : words) expected += word + "|";
  EXPECT_EQ(printed, expected);
  EXPECT_EQ(shell_words(shell_line(words)), words);
}

TEST(SbatchOptions, ThatTakeTheJobsApartAreRefusedByAnyOfTheirNames) {
  for (const char* option : {"--array=1-3", "--arr=1", "-a1", "--dependency=singleton", "-d", "--wait", "-W",
                             "--wrap=x", "--clusters=x", "-Mx", "--test-only"})
    EXPECT_THROW(sbatch_options(option), ScenarioError) << option;
  const std::string passed = "--account=x -A x --wait-all-nodes=1 --deadline=now --cluster-constraint=x -p debug -c 8";
  EXPECT_EQ(sbatch_options(passed), shell_words(passed));
}

TEST(SlurmFolder, TellsSweepsOfOneStoreApart) {
  EXPECT_EQ(slurm_folder("/x/results.db", "scaling-1.2"), "/x/results.db.slurm/scaling-1.2");
  std::set<fs::path> folders;
  for (const char* name : {"a b", "a/b", "a-b", "..", ".", "", "ä"}) {
    const fs::path folder = slurm_folder("/x/results.db", name);
    EXPECT_EQ(folder.parent_path(), "/x/results.db.slurm") << name;
    EXPECT_TRUE(folders.insert(folder.lexically_normal()).second) << name;
  }
}

class SharedSweep : public testing::Test {
 protected:
  SharedSweep() {
    files_.write("sweep.yaml",
                 "name: s\nbase: base.yaml\nvary: {cluster.nodes: [1, 2], training.micro_batch: [1, 2, 4]}\n");
  }

  Sweep load(const Words& overrides = {}) const {
    return Sweep::load(folder_ / "sweep.yaml", catalog_, {.overrides = overrides});
  }
  void deal(const Sweep& sweep, std::size_t tasks) const {
    const auto shares = shares_of(sweep, all_of(sweep), tasks);
    for (std::size_t task = 0; task < shares.size(); ++task) {
      std::ofstream lines(folder_ / ("task-" + std::to_string(task) + ".points"));
      for (const std::size_t position : shares[task]) lines << to_json(sweep.points()[position].parameters) << "\n";
    }
  }
  static std::vector<std::size_t> all_of(const Sweep& sweep) {
    std::vector<std::size_t> points;
    for (const SweepPoint& point : sweep.points()) points.push_back(point.position);
    return points;
  }
  std::size_t simulate(const Sweep& sweep, std::size_t task) const {
    return run_share(sweep, catalog_, folder_, task, {.program = program_}).finished;
  }
  MergedParts merge(const Sweep& sweep, ResultsStore& store) const {
    return merge_parts(sweep, catalog_, store, program_, folder_);
  }
  fs::path part(std::size_t task) const { return folder_ / ("part-" + std::to_string(task) + ".db"); }

  const std::string program_ = "tests";
  const Catalog catalog_;
  const tests::SweepFolder files_;
  const fs::path folder_ = files_.path();
};

TEST_F(SharedSweep, EveryPointIsInOneShareAndSharesAreEqual) {
  const Sweep sweep = load();
  const std::vector<std::size_t> points{0, 1, 3, 4, 5};
  const auto shares = shares_of(sweep, points, 2);
  ASSERT_EQ(shares.size(), 2U);
  EXPECT_EQ(shares[0].size(), 3U);
  std::multiset<std::size_t> dealt{shares[0].begin(), shares[0].end()};
  dealt.insert(shares[1].begin(), shares[1].end());
  EXPECT_EQ(dealt, (std::multiset<std::size_t>{points.begin(), points.end()}));
  EXPECT_EQ(shares_of(sweep, points, 9).size(), 5U);
  EXPECT_EQ(shares_of(sweep, points, 0).size(), 1U);
}

TEST_F(SharedSweep, PartsMakeUpTheStoreAndGo) {
  const Sweep sweep = load();
  deal(sweep, 2);
  EXPECT_EQ(simulate(sweep, 0) + simulate(sweep, 1), 6U);
  ResultsStore store(folder_ / "store.db");
  EXPECT_EQ(merge(sweep, store).parts, 2U);
  EXPECT_TRUE(state_of(sweep, catalog_, store, program_).to_do.empty());
  EXPECT_FALSE(fs::exists(part(0)) || fs::exists(part(1)));
  EXPECT_EQ(merge(sweep, store).parts, 0U);
}

TEST_F(SharedSweep, ATaskThatIsStartedAgainDoesWhatItsPartLacks) {
  const Sweep sweep = load();
  deal(sweep, 2);
  EXPECT_EQ(simulate(sweep, 0), 3U);
  EXPECT_EQ(simulate(sweep, 0), 0U);
  EXPECT_EQ(fs::file_size(folder_ / "task-0.progress"), 3U);
}

TEST_F(SharedSweep, APartThatIsStillWrittenIsLeft) {
  const Sweep sweep = load();
  deal(sweep, 2);
  simulate(sweep, 0);
  simulate(sweep, 1);
  ResultsStore store(folder_ / "store.db");
  {
    const ResultsStore writing(part(1), ResultsStore::Access::alone);
    const MergedParts merged = merge(sweep, store);
    EXPECT_EQ(merged.parts, 1U);
    EXPECT_EQ(merged.busy, 1U);
    EXPECT_EQ(state_of(sweep, catalog_, store, program_).to_do.size(), 3U);
  }
  EXPECT_EQ(merge(sweep, store).parts, 1U);
  EXPECT_TRUE(state_of(sweep, catalog_, store, program_).to_do.empty());
}

TEST_F(SharedSweep, APartWithoutRowsIsMergedToo) {
  const Sweep sweep = load();
  std::ofstream(part(3)).flush();  // its task was killed before it had written anything
  ResultsStore store(folder_ / "store.db");
  EXPECT_EQ(merge(sweep, store).parts, 1U);
  EXPECT_EQ(state_of(sweep, catalog_, store, program_).to_do.size(), 6U);
  EXPECT_FALSE(fs::exists(part(3)));
}

TEST_F(SharedSweep, AnOutdatedRowReplacesNoNewerOne) {
  const Sweep before = load({"training.sequence=256"});
  deal(before, 1);
  simulate(before, 0);
  const Sweep now = load();
  ResultsStore store(folder_ / "store.db");
  run_sweep(now, {0, 1}, catalog_, store, {.program = program_});
  merge(now, store);
  EXPECT_EQ(store.states("s").size(), 6U);  // an outdated result is better than none
  EXPECT_EQ(state_of(now, catalog_, store, program_).to_do, (std::vector<std::size_t>{2, 3, 4, 5}));
}

}  // namespace
}  // namespace trainyard::scenarios
