// tools/calibrate without a GPU: from recorded times to an entry that the catalogue takes. The recorded example is
// synthesised from known constants, which are in the file itself, so the fits have something to recover.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

namespace {

namespace fs = std::filesystem;

struct Ended {
  int status = -1;
  std::string output;  // stdout and stderr
};

Ended shell(const std::string& command) {
  Ended ended;
  FILE* pipe = popen(("{ " + command + "; } 2>&1").c_str(), "r");
  if (pipe == nullptr) return ended;
  std::array<char, 4096> buffer{};
  for (std::size_t read = 0; (read = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;)
    ended.output.append(buffer.data(), read);
  const int status = pclose(pipe);
  if (WIFEXITED(status)) ended.status = WEXITSTATUS(status);
  return ended;
}

std::string read(const fs::path& path) {
  std::ifstream in{path, std::ios::binary};
  return {std::istreambuf_iterator<char>{in}, std::istreambuf_iterator<char>{}};
}

std::string replaced(std::string text, std::string_view old, std::string_view by) {
  const std::size_t at = text.find(old);
  EXPECT_NE(at, std::string::npos) << "the example has no " << old;
  return at == std::string::npos ? text : text.replace(at, old.size(), by);
}

// The number after a key: "half_k: 384".
double number_after(const std::string& text, const std::string& key) {
  const std::size_t at = text.find(key);
  EXPECT_NE(at, std::string::npos) << key << "\n" << text;
  return at == std::string::npos ? 0 : std::stod(text.substr(at + key.size()));
}

constexpr const char* given = "--peak bf16=500 --peak fp32=40 --peak fp8=1000 --memory-bandwidth '2 TB/s'";

class Calibrate : public testing::Test {
 public:
  Calibrate()
      : folder_(fs::temp_directory_path() /
                ("trainyard_calibrate_" + std::string{testing::UnitTest::GetInstance()->current_test_info()->name()})) {
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "accelerators");
  }
  ~Calibrate() override { fs::remove_all(folder_); }
  Calibrate(const Calibrate&) = delete;
  Calibrate& operator=(const Calibrate&) = delete;

 protected:
  void SetUp() override {
    if (shell("command -v python3").status != 0) GTEST_SKIP() << "Python is not installed (Debian package python3)";
  }

  fs::path entry() const { return folder_ / "accelerators" / "example.yaml"; }
  static std::string example() { return read(TRAINYARD_SOURCE_DIR "/tests/support/calibrate_example.json"); }
  fs::path write(const std::string& name, const std::string& text) const {
    std::ofstream{folder_ / name} << text;
    return folder_ / name;
  }

  Ended calibrate(const std::string& arguments) const {
    return shell("python3 '" TRAINYARD_SOURCE_DIR "/tools/calibrate' --output '" + entry().string() + "' " + arguments);
  }
  Ended from(const std::string& raw, const std::string& arguments) const {
    return calibrate("--from-raw '" + write("raw.json", raw).string() + "' " + arguments);
  }

  // One line, exit status 2, and no entry.
  void expect_refused(const Ended& ended, const std::string& message) const {
    EXPECT_EQ(ended.status, 2) << ended.output;
    EXPECT_NE(ended.output.find(message), std::string::npos) << message << "\n" << ended.output;
    EXPECT_EQ(std::ranges::count(ended.output, '\n'), 1) << ended.output;
    EXPECT_FALSE(fs::exists(entry()));
  }

  fs::path folder_;
};

TEST_F(Calibrate, FitsRecoverTheConstantsBehindTheExample) {
  const Ended ended = from(example(), given);
  ASSERT_EQ(ended.status, 0) << ended.output;
  const std::string text = read(entry());
  EXPECT_NE(text.find("tile: [256, 128]\n"), std::string::npos) << text;
  const std::string fitted = text.substr(text.find("  efficiency: {"));
  for (const auto& [key, constant, tolerance] : {
           std::tuple{"fp32: ", 0.85, 0.02},
           {"bf16: ", 0.72, 0.02},
           {"fp8: ", 0.66, 0.02},
           {"half_k: ", 384.0, 0.1},
           {"forward_efficiency: ", 0.55, 0.02},
           {"backward_efficiency: ", 0.42, 0.02},
           {"half_sequence: ", 500.0, 0.1},
           {"memory_efficiency: ", 0.81, 0.02},
           {"memory_half_size: ", 1.4, 0.25},  // small kernels alone show it, and noise is as large there
           {"kernel_latency: ", 2.4, 1e-9},
       })
    EXPECT_NEAR(number_after(fitted, key), constant, tolerance * constant) << key;
}

TEST_F(Calibrate, TheCatalogueTakesTheEntry) {
  ASSERT_EQ(from(example(), given).status, 0);
  const std::string catalog = " --catalog '" + folder_.string() + "' ";
  const Ended shown = shell("'" TRAINYARD_BINARY "' show" + catalog + "accelerators example");
  EXPECT_EQ(shown.status, 0) << shown.output;
  EXPECT_NE(shown.output.find("EXAMPLE, not measured: tools/calibrate on EXAMPLE accelerator, torch 0.0, 2000-01-01"),
            std::string::npos)
      << shown.output;
  const fs::path scenario = write("a.yaml",
                                  "cluster: {node: {base: h100, accelerator: example}, nodes: 1}\n"
                                  "model: gpt2\n"
                                  "training: {global_batch: 8, sequence: 1024, precision: bf16, optimizer: adamw}\n"
                                  "strategy: {framework: pytorch-ddp}\n");
  const Ended ran = shell("'" TRAINYARD_BINARY "' run" + catalog + "'" + scenario.string() + "'");
  EXPECT_EQ(ran.status, 0) << ran.output;
}

TEST_F(Calibrate, WhatWasNotMeasuredComesFromTheBaseWithItsSource) {
  std::string raw = example();
  const std::size_t attention = raw.find("\"attention\": [") + std::string_view{"\"attention\": ["}.size();
  raw.erase(attention, raw.rfind(']') - attention);
  expect_refused(from(raw, given), "attention: expected at least 4 causal times of each pass, and no --base says");
  const Ended ended = from(raw, "--base h100-sxm --peak bf16=500 --memory-bandwidth '2 TB/s'");
  ASSERT_EQ(ended.status, 0) << ended.output;
  const std::string text = read(entry());
  EXPECT_NE(text.find("half_sequence: 600 "), std::string::npos) << text;
  EXPECT_NE(text.find("16k"), std::string::npos) << text;
  EXPECT_NE(text.find("(from h100-sxm)"), std::string::npos) << text;
  EXPECT_NEAR(number_after(text, "tf32: "), 494.5, 1e-9);
}

TEST_F(Calibrate, ABaseMayBeAnOwnEntryThatHasABaseItself) {
  write("accelerators/mine.yaml",
        "base: a800-sxm-80gb  # of the catalogue\npeak: {fp32: 40 TFLOP/s, bf16: 500 TFLOP/s}\n");
  const Ended ended = from(example(), "--catalog '" + folder_.string() + "' --base mine");
  ASSERT_EQ(ended.status, 0) << ended.output;
  EXPECT_NE(read(entry()).find("memory_bandwidth: 2039 GB/s"), std::string::npos);
  write("accelerators/mine.yaml", "base: mine\n");
  fs::remove(entry());
  expect_refused(from(example(), "--catalog '" + folder_.string() + "' --base mine"),
                 "no accelerator is called 'mine'");
}

TEST_F(Calibrate, AWrongRawFileIsRefusedInOneLine) {
  const std::string raw = example();
  for (const auto& [text, message] : {
           std::pair{std::string{}, "raw.json:1:1: "},
           {std::string{"{\"schema\": 1,\n \"gemm\": ]}"}, "raw.json:2:"},
           {std::string{"[]"}, "expected a file that tools/calibrate wrote (--raw)"},
           {replaced(raw, "\"schema\": 1", "\"schema\": 2"), "schema: expected 1, got 2"},
           {replaced(raw, "\"sms\": 100", "\"sms\": 0"), "device.sms: expected a positive whole number, got 0"},
           {replaced(raw, "\"sms\": 100, ", ""), "device: missing key 'sms'"},
           {replaced(raw, "\"precision\": \"bf16\"", "\"precision\": \"b16\""),
            "gemm[0].precision: expected one of fp32, tf32, fp16, bf16, fp8, got \"b16\""},
           {replaced(raw, "\"m\": 2048", "\"m\": 2048.5"), "gemm[0].m: expected a positive whole number, got 2048.5"},
           {replaced(raw, "\"causal\": true", "\"causal\": 1"), "attention[0].causal: expected true or false, got 1"},
           {replaced(raw, "\"least_seconds\": 2.4e-06", "\"least_seconds\": NaN"),
            "kernel.least_seconds: expected a positive number, got NaN"},
           {replaced(raw, "\"memory\": [", "\"memory\": [4, "), "memory[0]: expected an object, got 4"},
       })
    expect_refused(from(text, given), message);
  expect_refused(calibrate(std::string{"--from-raw /nowhere.json "} + given), "/nowhere.json: cannot be read");
}

TEST_F(Calibrate, FiguresThatCannotBeAreRefused) {
  const std::string raw = example();
  expect_refused(from(raw, "--peak bf16=300 --memory-bandwidth '2 TB/s'"), "gemm.efficiency.bf16 would be 1.");
  expect_refused(from(raw, "--peak bf16=500 --memory-bandwidth '1 TB/s'"), "memory_efficiency would be 1.");
}

TEST_F(Calibrate, TheCommandLineIsChecked) {
  const std::string raw = example();
  expect_refused(from(raw, ""), "the peak of 16-bit products is not known: give --base ENTRY or --peak");
  expect_refused(from(raw, "--peak bf16=500"), "the memory bandwidth is not known");
  expect_refused(from(raw, "--peak bf17=500"), "--peak: expected a precision and its dense TFLOP/s");
  expect_refused(from(raw, "--peak bf16=500 --memory-bandwidth 2000"), "expected a quantity such as '3.35 TB/s'");
  expect_refused(from(raw, "--base h100"), "no accelerator is called 'h100'; the catalogue has a100-pcie-40gb, ");
  expect_refused(from(raw, std::string{given} + " --raw x.json"), "--raw: only a measurement writes this");
  expect_refused(from(raw, std::string{given} + " --quik"), "unrecognized arguments: --quik");
  EXPECT_EQ(calibrate("--help").status, 0);
}

TEST_F(Calibrate, AnOutputAppearsWholeOrNotAtAll) {
  std::ofstream{entry()} << "mine\n";
  EXPECT_EQ(from("{}", given).status, 2);
  EXPECT_EQ(read(entry()), "mine\n");
  EXPECT_EQ(from(example(), std::string{given} + " --output /nowhere/x.yaml").status, 4);
  EXPECT_EQ(from(example(), given).status, 0);
  EXPECT_NE(read(entry()), "mine\n");
  EXPECT_EQ(std::distance(fs::directory_iterator{folder_ / "accelerators"}, fs::directory_iterator{}), 1);
}

TEST_F(Calibrate, WithoutAGpuNothingIsMeasured) {
  write("torch.py", "class cuda:\n  is_available = staticmethod(lambda: False)\n");
  const Ended ended =
      shell("PYTHONDONTWRITEBYTECODE=1 PYTHONPATH='" + folder_.string() +
            "' python3 '" TRAINYARD_SOURCE_DIR "/tools/calibrate' --base h100-sxm --output '" + entry().string() + "'");
  EXPECT_EQ(ended.status, 4);
  EXPECT_NE(ended.output.find("PyTorch finds no GPU"), std::string::npos) << ended.output;
  EXPECT_FALSE(fs::exists(entry()));
}

}  // namespace
