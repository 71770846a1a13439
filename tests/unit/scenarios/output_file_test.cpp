#include "scenarios/output_file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

namespace trainyard::scenarios {
namespace {

namespace fs = std::filesystem;

class OutputFileTest : public testing::Test {
 protected:
  OutputFileTest() {
    std::string pattern = (fs::temp_directory_path() / "trainyard-output-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~OutputFileTest() override { fs::remove_all(folder_); }

  static std::string content(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  std::ptrdiff_t files() const { return std::distance(fs::directory_iterator(folder_), fs::directory_iterator()); }

  fs::path folder_;
};

TEST_F(OutputFileTest, AppearsOnlyWithTheCommit) {
  const fs::path path = folder_ / "result.json";
  OutputFile file(path);
  file.write("whole");
  EXPECT_FALSE(fs::exists(path));
  file.commit();
  EXPECT_EQ(content(path), "whole");
  EXPECT_EQ(files(), 1);
}

TEST_F(OutputFileTest, LeavesWhatWasThereWithoutACommit) {
  const fs::path path = folder_ / "result.json";
  write_file(path, "old");
  {
    OutputFile file(path);
    file.write("half");
  }
  EXPECT_EQ(content(path), "old");
  EXPECT_EQ(files(), 1);
  write_file(path, "new");
  EXPECT_EQ(content(path), "new");
}

TEST_F(OutputFileTest, HoldsMoreThanItsBuffer) {
  std::string expected;
  OutputFile file(folder_ / "long");
  for (int i = 0; i < 100'000; ++i) {
    const std::string line = std::to_string(i) + "\n";
    file.write(line);
    expected += line;
  }
  const std::string block(1'000'000, 'x');
  file.write(block);
  expected += block;
  file.write("end");
  file.commit();
  EXPECT_EQ(content(folder_ / "long"), expected + "end");
}

TEST_F(OutputFileTest, KeepsPermissionsAndLinks) {
  const fs::path path = folder_ / "result.json";
  const fs::path link = folder_ / "link.json";
  write_file(path, "old");
  fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
  fs::create_symlink("result.json", link);
  write_file(link, "new");
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_EQ(content(path), "new");
  EXPECT_EQ(fs::status(path).permissions(), fs::perms::owner_read | fs::perms::owner_write);
}

TEST_F(OutputFileTest, TakesTheLongestNameThereIs) {
  const fs::path path = folder_ / std::string(255, 'n');
  write_file(path, "text");
  EXPECT_EQ(content(path), "text");
}

std::string message_of(const fs::path& path) {
  try {
    write_file(path, "text");
  } catch (const OutputError& error) {
    EXPECT_EQ(error.path(), path);
    return error.what();
  }
  return "";
}

TEST_F(OutputFileTest, SaysWhatCannotBeWrittenAndWhy) {
  const fs::path nowhere = folder_ / "missing" / "result.json";
  EXPECT_EQ(message_of(nowhere), "cannot write '" + nowhere.string() + "': No such file or directory");
  EXPECT_EQ(message_of(folder_), "cannot write '" + folder_.string() + "': Is a directory");
  EXPECT_EQ(message_of(""), "cannot write '': No such file or directory");
  write_file(folder_ / "file", "");
  const fs::path below = folder_ / "file" / "result.json";
  EXPECT_EQ(message_of(below), "cannot write '" + below.string() + "': Not a directory");
  fs::create_symlink("loop", folder_ / "loop");
  EXPECT_NE(message_of(folder_ / "loop"), "");
}

TEST_F(OutputFileTest, RefusesWhatMayNotBeWritten) {
  if (geteuid() == 0) GTEST_SKIP() << "root may write everything";
  const fs::path path = folder_ / "result.json";
  write_file(path, "old");
  fs::permissions(path, fs::perms::owner_read);
  EXPECT_EQ(message_of(path), "cannot write '" + path.string() + "': Permission denied");
  EXPECT_EQ(content(path), "old");
}

TEST_F(OutputFileTest, ReportsAFullDisk) {
  EXPECT_EQ(message_of("/dev/full"), "cannot write '/dev/full': No space left on device");
}

TEST_F(OutputFileTest, WritesStraightThroughToWhatIsNoFile) {
  EXPECT_EQ(message_of("/dev/null"), "");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  const fs::path pipe = folder_ / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  std::string received;
  std::thread reader([&] { received = content(pipe); });
  write_file(pipe, "through");
  reader.join();
  EXPECT_EQ(received, "through");
  EXPECT_TRUE(fs::is_fifo(pipe));
}

TEST_F(OutputFileTest, WritesToAnOpenDescriptorWhereItStands) {
  const fs::path path = folder_ / "log";
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT, 0600);
  ASSERT_EQ(write(descriptor, "before ", 7), 7);
  write_file("/dev/fd/" + std::to_string(descriptor), "inside");
  ASSERT_EQ(write(descriptor, " after", 6), 6);
  close(descriptor);
  EXPECT_EQ(content(path), "before inside after");
}

TEST_F(OutputFileTest, CompressesWhatIsCalledGz) {
  std::string expected;
  for (int i = 0; i < 200'000; ++i) expected += std::to_string(i * 7) + ",";
  const fs::path path = folder_ / "trace.json.gz";
  {
    OutputFile file(path);
    file.write(std::string_view(expected).substr(0, 10));
    file.write(std::string_view(expected).substr(10));
    file.commit();
  }
  EXPECT_LT(fs::file_size(path), expected.size() / 2);
  gzFile in = gzopen(path.c_str(), "rb");
  ASSERT_NE(in, nullptr);
  EXPECT_EQ(gzdirect(in), 0);
  std::string received(expected.size() + 1, '\0');
  const int count = gzread(in, received.data(), static_cast<unsigned>(received.size()));
  EXPECT_EQ(gzclose(in), Z_OK);
  ASSERT_EQ(count, static_cast<int>(expected.size()));
  received.resize(expected.size());
  EXPECT_EQ(received, expected);
}

TEST_F(OutputFileTest, CompressesNothingToAnEmptyArchive) {
  const fs::path path = folder_ / "empty.gz";
  write_file(path, "");
  gzFile in = gzopen(path.c_str(), "rb");
  ASSERT_NE(in, nullptr);
  std::array<char, 8> buffer{};
  EXPECT_EQ(gzread(in, buffer.data(), buffer.size()), 0);
  EXPECT_EQ(gzdirect(in), 0);
  EXPECT_EQ(gzclose(in), Z_OK);
}

}  // namespace
}  // namespace trainyard::scenarios
