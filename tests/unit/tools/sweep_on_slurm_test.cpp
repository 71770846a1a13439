// `trainyard sweep --slurm` with commands of Slurm that only pretend: what it asks of them, and what it does where they
// fail. The real ones are in tests/slurm.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/support/program.hpp"
#include "tests/support/sweeps.hpp"

namespace trainyard {
namespace {

namespace fs = std::filesystem;

// A folder with a sweep of four points, and one for commands, which is all of PATH but the system's.
class SweepOnSlurm : public testing::Test {
 protected:
  SweepOnSlurm() {
    fs::create_directories(folder_ / "bin");
    files_.write("sweep.yaml",
                 "name: four\nbase: base.yaml\nvary: {cluster.nodes: [1, 2], training.micro_batch: [1, 2]}\n");
    command("squeue", "true");
    command("scancel", "echo \"$@\" >> cancelled");
  }

  void command(const std::string& name, const std::string& body) const {
    const fs::path file = folder_ / "bin" / name;
    std::ofstream(file) << "#!/bin/sh\n" << body << "\n";
    fs::permissions(file, fs::perms::owner_all);
  }
  // Numbers jobs from 1, keeps what it was asked in `submitted`; `share` is done with the tasks' script in $script.
  void sbatch(const std::string& share) const {
    command(
        "sbatch",
        "echo \"$@\" >> submitted\nwc -l < submitted\nfor script; do :; done\ncase $script in */share.sh) exec >&2\n" +
            share + ";; esac");
  }

  Ended sweep(const std::string& arguments) const {
    return shell("cd '" + folder_.string() +
                 "' && PATH=\"$PWD/bin:/usr/bin:/bin\" && '" TRAINYARD_BINARY "' sweep sweep.yaml " + arguments);
  }
  std::string content(const std::string& name) const {
    std::ifstream stream(folder_ / name);
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  }
  bool nothing_is_left() const { return !fs::exists(folder_ / "sweep.db.slurm"); }
  static void expect_says(const Ended& ended, int status, const std::string& text) {
    EXPECT_EQ(ended.status, status) << ended.output;
    EXPECT_NE(ended.output.find(text), std::string::npos) << ended.output;
  }

  const tests::SweepFolder files_;
  const fs::path folder_ = files_.path();
};

constexpr const char* all_tasks = "for SLURM_ARRAY_TASK_ID in 0 1; do export SLURM_ARRAY_TASK_ID; sh \"$script\"; done";
constexpr const char* first_task = "SLURM_ARRAY_TASK_ID=0 sh \"$script\"";

TEST_F(SweepOnSlurm, SubmitsAnArrayAndAMergeAfterIt) {
  sbatch("true");
  expect_says(sweep("--slurm --slurm-tasks 2 --slurm-args '--partition=long -c 4' --csv out.csv"), 0,
              "submitted array job 1 of 2 tasks for 4 points, and merge job 2 after it");
  const std::string submitted = content("submitted");
  for (const char* option : {"--partition=long -c 4 --parsable --array=0-1 ", "--dependency=afterany:1 "})
    EXPECT_NE(submitted.find(option), std::string::npos) << submitted;
  EXPECT_NE(content("sweep.db.slurm/four/merge.sh").find("'--csv=" + (folder_ / "out.csv").string() + "'"),
            std::string::npos);
}

TEST_F(SweepOnSlurm, WithoutSlurmItIsAnOutsideFailureAndNothingIsLeft) {
  const Ended ended =
      shell("cd '" + folder_.string() + "' && PATH=/nowhere '" TRAINYARD_BINARY "' sweep sweep.yaml --slurm");
  expect_says(ended, 4, "Slurm is not here: 'sbatch' is not installed, or not in PATH");
  EXPECT_TRUE(nothing_is_left());
}

TEST_F(SweepOnSlurm, WhatSlurmRefusesIsSaidInItsOwnWords) {
  command("sbatch", "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1");
  expect_says(sweep("--slurm"), 4, "Slurm's sbatch failed: sbatch: error: invalid partition specified: x");
  EXPECT_TRUE(nothing_is_left());
  EXPECT_EQ(content("cancelled"), "");
}

TEST_F(SweepOnSlurm, AnArrayWhoseMergeIsRefusedIsCancelled) {
  command("sbatch", "case $* in *--array=*) echo '7;here';; *) echo 'sbatch: error: too many jobs' >&2; exit 1;; esac");
  expect_says(sweep("--slurm"), 4, "sbatch: error: too many jobs");
  EXPECT_EQ(content("cancelled"), "7\n");
  EXPECT_TRUE(nothing_is_left());
}

TEST_F(SweepOnSlurm, AskedToEndWhileSubmittingItLeavesNoJob) {
  sbatch("kill -TERM $PPID");
  const Ended ended = sweep("--slurm; echo \"ended with $?\"");
  expect_says(ended, 0, "ended with 143");
  EXPECT_EQ(content("cancelled"), "1\n");
  EXPECT_TRUE(nothing_is_left());
}

TEST_F(SweepOnSlurm, WhatIsQueuedIsNotSubmittedTwice) {
  sbatch("true");
  sweep("--slurm --slurm-tasks 2");
  command("squeue", "printf '1 PENDING\\n1 RUNNING\\n2 PENDING\\n'");
  const std::string state = "of 2 tasks 1 pending, 1 running, 0 ended";
  expect_says(sweep("--slurm"), 0, state);
  expect_says(sweep("--status"), 0, state);
  expect_says(sweep(""), 4, "jobs of this sweep are queued or running");
  EXPECT_EQ(content("submitted").find("--array"), content("submitted").rfind("--array"));
}

TEST_F(SweepOnSlurm, StatusWorksWhereSlurmDoesNotAnswer) {
  sbatch(first_task);
  sweep("--slurm --slurm-tasks 2");
  command("squeue", "echo 'squeue: error: no controller' >&2; exit 1");
  const Ended status = sweep("--status");
  expect_says(status, 0, "it does not answer (Slurm's squeue failed: squeue: error: no controller)");
  expect_says(status, 0, "in parts that are not merged yet, 2 points simulated, 0 failed");
  expect_says(sweep("--slurm"), 4, "squeue: error: no controller");
}

TEST_F(SweepOnSlurm, ARerunMergesWhatTasksHaveLeftAndSubmitsWhatIsMissing) {
  sbatch(first_task);
  sweep("--slurm --slurm-tasks 2");
  expect_says(sweep("--status"), 0, "4 points: 0 simulated, 0 failed, 4 to do");
  sbatch(all_tasks);
  expect_says(sweep("--slurm --slurm-tasks 2"), 0, "of 2 tasks for 2 points");
  expect_says(sweep("--status"), 0, "4 points: 2 simulated, 0 failed, 2 to do");
  expect_says(sweep("--slurm"), 0, "4 points: 4 simulated, 0 failed, 0 to do");
  EXPECT_TRUE(nothing_is_left());
}

TEST_F(SweepOnSlurm, ALocalRunTakesOverWhatTasksHaveLeft) {
  sbatch(first_task);
  sweep("--slurm --slurm-tasks 2");
  expect_says(sweep(""), 0, "2 of them now");
  EXPECT_TRUE(nothing_is_left());
}

TEST_F(SweepOnSlurm, OptionsThatWouldTakeTheJobsApartAreRefused) {
  const std::string sweep_file = "sweep '" + (folder_ / "sweep.yaml").string() + "' ";
  expect_refused(sweep_file + "--slurm --slurm-args --array=1-3",
                 "--slurm-args: '--array=1-3' cannot be passed through");
  expect_refused(sweep_file + "--slurm --slurm-args '--comment \"a b'", "a quotation that does not end");
  expect_refused(sweep_file + "--slurm --json -", "--json: expected the name of a file");
  expect_refused(sweep_file + "--slurm-args --time=1", "--slurm-args requires --slurm");
  expect_refused(sweep_file + "--slurm-share x", "--slurm-share: expected to be in a task of an array");
}

}  // namespace
}  // namespace trainyard
