// `trainyard run --trace`: which files it takes, what it needs, and what is left when it cannot write.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "tests/support/program.hpp"

namespace trainyard {
namespace {

namespace fs = std::filesystem;

const std::string library = TRAINYARD_SOURCE_DIR "/scenarios/library/";

class TraceCommand : public testing::Test {
 protected:
  TraceCommand() {
    std::string pattern = (fs::temp_directory_path() / "trainyard-command-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~TraceCommand() override { fs::remove_all(folder_); }

  fs::path folder_;
};

TEST_F(TraceCommand, TakesFilesOfItsFormats) {
  const std::string scenario = "'" + library + "gpt-1.3b-ddp-64-a100.yaml'";
  for (const char* name : {"trace", "trace.perfetto", "trace.pftrace.gz", "trace.gz"})
    expect_refused(
        "run " + scenario + " --trace " + name,
        std::string("--trace: expected a file that ends in .json, .json.gz or .pftrace, got '") + name + "'");
  for (const char* name : {"trace.json", "trace.json.gz", "trace.pftrace"}) {
    EXPECT_EQ(program("run " + scenario + " --trace '" + (folder_ / name).string() + "'").status, 0);
    EXPECT_GT(fs::file_size(folder_ / name), 1000U) << name;
  }
}

TEST_F(TraceCommand, AFullDiskLeavesNothingBehind) {
  const std::string scenario = "'" + library + "gpt-1.3b-ddp-64-a100.yaml'";
  for (const char* name : {"trace.json", "trace.json.gz", "trace.pftrace"}) {
    const Ended ended = shell("cd '" + folder_.string() + "'; ulimit -f 8; '" TRAINYARD_BINARY "' run " + scenario +
                              " --trace " + name);
    EXPECT_EQ(ended.status, 4) << ended.output;
    EXPECT_NE(ended.output.find("cannot write '" + std::string(name) + "': File too large"), std::string::npos)
        << ended.output;
    EXPECT_TRUE(fs::is_empty(folder_)) << name;
  }
}

TEST_F(TraceCommand, AFullDiskIsNoticedWhileTheTraceIsWrittenToo) {
  fs::create_symlink("/dev/full", folder_ / "trace.pftrace");
  const Ended ended =
      program("run '" + library + "gpt-1.3b-ddp-64-a100.yaml' --trace '" + (folder_ / "trace.pftrace").string() + "'");
  EXPECT_EQ(ended.status, 4);
  EXPECT_NE(ended.output.find("No space left on device"), std::string::npos) << ended.output;
}

#ifndef __SANITIZE_ADDRESS__  // which keeps freed memory for a while
TEST_F(TraceCommand, ATraceDoesNotLiveInMemory) {
  const auto peak_of_programs = [] {
    rusage usage{};
    getrusage(RUSAGE_CHILDREN, &usage);
    return static_cast<double>(usage.ru_maxrss);
  };
  const std::string command = "run '" + library + "mt-nlg-530b-2240-a100.yaml' --set training.global_batch=560";
  EXPECT_EQ(program(command).status, 0);
  const double without = peak_of_programs();
  for (const char* name : {"trace.json", "trace.pftrace"})
    EXPECT_EQ(program(command + " --trace '" + (folder_ / name).string() + "'").status, 0);
  EXPECT_GT(fs::file_size(folder_ / "trace.json"), 100'000'000U);
  EXPECT_LT(peak_of_programs(), 1.3 * without);
  EXPECT_LT(fs::file_size(folder_ / "trace.pftrace"), fs::file_size(folder_ / "trace.json") / 10);
}
#endif

}  // namespace
}  // namespace trainyard
