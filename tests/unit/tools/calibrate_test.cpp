// tools/calibrate without a GPU: from recorded times to an entry that the catalogue takes. The recorded example holds
// what workloads/cost.cpp predicts for known constants, which are named in the file, so a fit has them to recover.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

#include "tests/support/program.hpp"
#include "workloads/cost.hpp"

namespace trainyard {
namespace {

namespace fs = std::filesystem;

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

constexpr const char* known = "--peak bf16=500TFLOP/s --memory-bandwidth '2 TB/s'";

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
    ASSERT_EQ(shell("command -v python3").status, 0) << "tools/calibrate needs Python (Debian package python3)";
  }

  fs::path entry() const { return folder_ / "accelerators" / "example.yaml"; }
  std::string catalog() const { return " --catalog '" + folder_.string() + "' "; }
  static std::string example() { return read(TRAINYARD_SOURCE_DIR "/tests/support/calibrate_example.json"); }
  fs::path write(const std::string& name, const std::string& text) const {
    std::ofstream{folder_ / name} << text;
    return folder_ / name;
  }

  Ended calibrate(const std::string& arguments) const {
    return shell("python3 '" TRAINYARD_SOURCE_DIR "/tools/calibrate' example" + catalog() + arguments);
  }
  Ended from(const std::string& times, const std::string& arguments = "") const {
    return calibrate("--from '" + write("times.json", times).string() + "' " + arguments);
  }
  // Where `torch` is this Python text.
  Ended calibrate_with_torch(const std::string& torch) const {
    write("torch.py", torch);
    return shell("PYTHONDONTWRITEBYTECODE=1 PYTHONPATH='" + folder_.string() +
                 "' python3 '" TRAINYARD_SOURCE_DIR "/tools/calibrate' example --base h100-sxm" + catalog());
  }

  // One line, and no entry.
  void expect_refused(const Ended& ended, const std::string& message, int status = 2) const {
    EXPECT_EQ(ended.status, status) << ended.output;
    EXPECT_NE(ended.output.find(message), std::string::npos) << message << "\n" << ended.output;
    EXPECT_EQ(std::ranges::count(ended.output, '\n'), 1) << ended.output;
    EXPECT_FALSE(fs::exists(entry()));
  }

  // Where a ramp reaches one half shows less exactly than what it leads to.
  void expect_constants_of_the_example(double tolerance, double tolerance_of_halves) const {
    const std::string text = read(entry());
    EXPECT_NE(text.find("tile: [256, 128] "), std::string::npos) << text;
    const std::string fitted = text.substr(text.find("  efficiency:"));
    for (const auto& [key, constant] : {std::pair{"fp32: ", 0.85},
                                        {"bf16: ", 0.72},
                                        {"fp8: ", 0.66},
                                        {"forward_efficiency: ", 0.55},
                                        {"backward_efficiency: ", 0.42},
                                        {"memory_efficiency: ", 0.81},
                                        {"kernel_latency: ", 2.4}})
      EXPECT_NEAR(number_after(fitted, key), constant, tolerance * constant) << key;
    for (const auto& [key, constant] :
         {std::pair{"half_k: ", 384.0}, {"half_sequence: ", 500.0}, {"memory_half_size: ", 1.4}})
      EXPECT_NEAR(number_after(fitted, key), constant, tolerance_of_halves * constant) << key;
  }

  fs::path folder_;
};

TEST_F(Calibrate, TheFitRecoversTheConstantsBehindTheTimes) {
  const Ended ended = from(example());
  ASSERT_EQ(ended.status, 0) << ended.output;
  expect_constants_of_the_example(0.02, 0.02);
  // With the same constants, its formulas predict what those of the cost model do.
  for (const char* what : {"memory ", "fp32 ", "bf16 ", "fp8 ", "attention "}) {
    const std::size_t at = ended.output.find(what);
    ASSERT_NE(at, std::string::npos) << what << "\n" << ended.output;
    EXPECT_EQ(number_after(ended.output.substr(at), "mean error "), 0) << what << "\n" << ended.output;
  }
}

// What the cost model says of a line of the example.
double predicted_seconds(const std::string& line) {
  using namespace workloads;
  Accelerator device;
  const auto set = [&](Precision precision, std::int64_t peak, double efficiency) {
    device.peak[static_cast<std::size_t>(precision)] = {peak};
    device.gemm_efficiency[static_cast<std::size_t>(precision)] = efficiency;
  };
  set(Precision::fp32, 40'000'000'000'000, 0.85);
  set(Precision::bf16, 500'000'000'000'000, 0.72);
  set(Precision::fp8, 1'000'000'000'000'000, 0.66);
  device.memory_bandwidth = {2'000'000'000'000};
  device.sms = 100;
  device.tile_rows = 256;
  device.tile_columns = 128;
  device.half_k = 384;
  device.attention_forward_efficiency = 0.55;
  device.attention_backward_efficiency = 0.42;
  device.attention_half_sequence = 500;
  device.memory_efficiency = 0.81;
  device.memory_half_size = {1'400'000};
  device.kernel_latency = sim::from_seconds(2.4e-6);
  const KernelCosts costs{device};
  const auto number = [&](const std::string& key) {
    return static_cast<std::int64_t>(number_after(line, "\"" + key + "\": "));
  };
  sim::Kernel kernel;
  if (line.find("\"bytes\"") != std::string::npos) {
    kernel = costs.memory_bound("", {number("bytes")});
  } else if (line.find("\"precision\"") != std::string::npos) {
    const auto named = [&](std::string_view name) { return line.find(name) != std::string::npos; };
    const auto precision = std::ranges::find_if(precision_names, named) - precision_names.begin();
    kernel = costs.gemm("", {.m = number("m"), .n = number("n"), .k = number("k")}, static_cast<Precision>(precision));
  } else {
    const std::int64_t sequence = number("sequence");
    const std::int64_t heads = number("heads");
    const std::int64_t dim = number("head_dim");
    const auto length = static_cast<double>(sequence);
    const AttentionShape shape{.batch = number("batch"),
                               .queries = sequence,
                               .keys = sequence,
                               .heads = heads,
                               .kv_heads = heads,
                               .qk_dim = dim,
                               .v_dim = dim,
                               .span = sequence,
                               .pairs = length * length / 2};
    kernel = line.find("forward") != std::string::npos ? costs.flash_forward("", shape, Precision::bf16)
                                                       : costs.flash_backward("", shape, Precision::bf16);
  }
  return static_cast<double>(kernel.duration.count()) * 1e-12;
}

// So that the formulas of tools/calibrate, which recover the constants from these times, cannot fall behind it.
// UPDATE_GOLDEN=1 writes the times anew.
TEST_F(Calibrate, TheTimesOfTheExampleAreWhatTheCostModelSays) {
  const std::string key = "\"seconds\": ";
  std::istringstream lines{example()};
  std::ostringstream updated;
  for (std::string line; std::getline(lines, line); updated << line << "\n") {
    const std::size_t at = line.find(key);
    if (at == std::string::npos || line.find("\"kernel_latency\"") != std::string::npos) continue;
    const double seconds = predicted_seconds(line);
    EXPECT_NEAR(number_after(line, key), seconds, 1e-5 * seconds) << line;
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.6g", seconds);
    line.replace(at + key.size(), line.find('}') - at - key.size(), text.data());
  }
  if (std::getenv("UPDATE_GOLDEN") != nullptr)
    std::ofstream{TRAINYARD_SOURCE_DIR "/tests/support/calibrate_example.json"} << updated.str();
}

// Where 3 % of noise lie on every time, and every 17th is 60 % too long.
TEST_F(Calibrate, TheFitBearsNoiseAndOutliers) {
  const std::string key = "\"seconds\": ";
  std::string times;
  std::size_t done = 0;
  int count = 0;
  const std::string exact = example();
  for (std::size_t at = 0; (at = exact.find(key, done)) != std::string::npos; ++count) {
    const double factor = count % 17 == 16 ? 1.6 : 1 + 0.03 * (count * 7 % 11 - 5) / 5.0;
    times +=
        exact.substr(done, at + key.size() - done) + std::to_string(1e9 * factor * number_after(exact.substr(at), key));
    times += "e-9";
    done = exact.find('}', at);
  }
  const Ended ended = from(times + exact.substr(done));
  ASSERT_EQ(ended.status, 0) << ended.output;
  expect_constants_of_the_example(0.03, 0.2);
}

TEST_F(Calibrate, TheCatalogueTakesTheEntryAndKnowsWhereEachFigureIsFrom) {
  ASSERT_EQ(from(example()).status, 0);
  const Ended shown = shell("'" TRAINYARD_BINARY "' show accelerators example" + catalog());
  EXPECT_EQ(shown.status, 0) << shown.output;
  std::istringstream lines{shown.output};
  std::string line;
  std::getline(lines, line);  // the name
  int figures = 0;
  for (; std::getline(lines, line); ++figures) EXPECT_NE(line.find("EXAMPLE"), std::string::npos) << line;
  EXPECT_GT(figures, 15) << shown.output;
  const fs::path scenario = write("a.yaml",
                                  "cluster: {node: h100, nodes: 1}\n"
                                  "model: gpt2\n"
                                  "training: {global_batch: 8, sequence: 1024, precision: bf16, optimizer: adamw}\n"
                                  "strategy: {framework: pytorch-ddp}\n");
  const Ended ran = shell("'" TRAINYARD_BINARY "' run '" + scenario.string() + "'" + catalog() +
                          "--set cluster.node.accelerator=example");
  EXPECT_EQ(ran.status, 0) << ran.output;
  EXPECT_NE(ran.output.find("1 x example on"), std::string::npos) << ran.output;
}

TEST_F(Calibrate, WhatIsNotMeasuredComesFromTheBaseWithItsSource) {
  std::string times = example();
  const std::size_t attention = times.find("\"attention\": [") + std::string_view{"\"attention\": ["}.size();
  times.erase(attention, times.rfind(']') - attention);
  expect_refused(from(times), "attention: expected at least 4 times of each pass that memory does not bound, and no");
  const Ended ended = from(times, std::string{"--base h100-sxm "} + known);
  ASSERT_EQ(ended.status, 0) << ended.output;
  const std::string text = read(entry());
  for (const char* part : {
           "  half_sequence: 600 ",
           "attention.half_sequence: \"as h100-sxm: estimate: ",
           "clock_spread: 0.015 ",
           "clock_spread: \"as h100-sxm: estimate from a paper: ",
           "  tf32: 494.5 TFLOP/s\n",
           "gemm.efficiency.tf32: \"as h100-sxm: ",
           "peak.bf16: \"given to tools/calibrate as --peak\"",
       })
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
}

// How much parts differ does not show on one of them.
TEST_F(Calibrate, WithoutABaseTheEntryHasNoSpread) {
  ASSERT_EQ(from(example()).status, 0);
  EXPECT_EQ(read(entry()).find("\nclock_spread: "), std::string::npos);
}

TEST_F(Calibrate, ABaseMayBeAnOwnEntryThatHasABaseItself) {
  write("accelerators/mine.yaml",
        "base: a800-sxm-80gb  # of the catalogue\npeak: {fp32: 40 TFLOP/s, bf16: 500 TFLOP/s, fp8: 1 PFLOP/s}\n");
  const Ended ended = from(example(), "--base mine");
  ASSERT_EQ(ended.status, 0) << ended.output;
  const std::string text = read(entry());
  EXPECT_NE(text.find("memory_bandwidth: 2039 GB/s"), std::string::npos) << text;
  EXPECT_NE(text.find("  fp8: 1 PFLOP/s\n"), std::string::npos) << text;
  EXPECT_NE(text.find("  peak.bf16: \"as mine\"\n"), std::string::npos) << text;  // not the source of the figure below
  ASSERT_EQ(from(example(), "--base example").status, 0) << "what it wrote itself is a base too";
  EXPECT_NE(read(entry()).find("  fp8: 1 PFLOP/s\n"), std::string::npos);
  fs::remove(entry());
  write("accelerators/mine.yaml", "base: mine\n");
  expect_refused(from(example(), "--base mine"), "no accelerator is called 'mine'");
  write("accelerators/mine.yaml", "base: yours\n");
  write("accelerators/yours.yaml", "base: mine\n");
  expect_refused(from(example(), "--base mine"), "'mine' is based on itself");
  write("accelerators/mine.yaml", "peak: {bf16: 1 TFLOP/s}\n- x\n");
  expect_refused(from(example(), "--base mine"), "mine.yaml:2: expected 'key: value'");
}

TEST_F(Calibrate, AWrongFileOfTimesIsRefusedInOneLine) {
  const std::string times = example();
  for (const auto& [text, message] : {
           std::pair{std::string{}, "times.json:1:1: "},
           {std::string{"{\"schema\": 1,\n \"gemm\": ]}"}, "times.json:2:"},
           {std::string{"[]"}, "expected a file of times that tools/calibrate wrote"},
           {replaced(times, "\"schema\": 1", "\"schema\": 2"), "wrote, with \"schema\": 1"},
           {replaced(times, "\"sms\": 100", "\"sms\": 0"), "device.sms: expected a positive number, got 0"},
           {replaced(times, "\"sms\": 100, ", ""), "device.sms: expected a positive number, got null"},
           {replaced(times, "\"precision\": \"bf16\"", "\"precision\": \"b16\""),
            "gemm[0].precision: expected one of fp32, tf32, fp16, bf16, fp8, got \"b16\""},
           {replaced(times, "\"seconds\": 2.4e-06", "\"seconds\": NaN"),
            "kernel_latency.seconds: expected a positive number, got NaN"},
           {replaced(times, "\"memory\": [", "\"memory\": [4, "), "memory[0].kernel: expected a text, got null"},
           {replaced(times, "\"value\": \"40 TFLOP/s\"", "\"value\": \"40\""),
            "peak.fp32: expected a quantity such as '3.35 TFLOP/s', got '40'"},
       })
    expect_refused(from(text), message);
  expect_refused(calibrate("--from /nowhere.json"), "/nowhere.json: cannot be read");
}

TEST_F(Calibrate, FiguresThatCannotBeAreRefused) {
  expect_refused(from(example(), "--peak bf16=300TFLOP/s"), "gemm.efficiency.bf16 would be 1.200 of 300 TFLOP/s: ");
  expect_refused(from(example(), "--memory-bandwidth 1TB/s"), "memory_efficiency would be 1.620 of 1000 GB/s: ");
}

TEST_F(Calibrate, TheCommandLineIsChecked) {
  expect_refused(calibrate(""), "the peak of 16-bit products is not known: give --base ENTRY or --peak");
  expect_refused(calibrate("--peak bf16=500TFLOP/s"), "the memory bandwidth is not known");
  expect_refused(calibrate("--peak bf17=500TFLOP/s"), "--peak: expected a precision and its peak such as bf16=");
  expect_refused(calibrate("--peak bf16=500"), "--peak: expected a quantity such as '3.35 TFLOP/s', got '500'");
  expect_refused(calibrate("--memory-bandwidth 2000"), "expected a quantity such as '3.35 TB/s', got '2000'");
  expect_refused(calibrate("--base h100"), "no accelerator is called 'h100'; there are a100-pcie-40gb, ");
  expect_refused(calibrate("--quik"), "unrecognized arguments: --quik");
  expect_refused(calibrate("--device x"), "argument --device: invalid int value: 'x'");
  expect_refused(shell("python3 '" TRAINYARD_SOURCE_DIR "/tools/calibrate' ../x" + catalog()), "NAME: expected a name");
  EXPECT_EQ(calibrate("--help").status, 0);
}

TEST_F(Calibrate, AnEntryAppearsWholeOrNotAtAll) {
  write("accelerators/example.yaml", "mine\n");
  EXPECT_EQ(from("{}").status, 2);
  EXPECT_EQ(read(entry()), "mine\n");
  const Ended nowhere = from(example(), "--catalog /dev/null");
  EXPECT_EQ(nowhere.status, 4) << nowhere.output;
  EXPECT_EQ(from(example()).status, 0);
  EXPECT_NE(read(entry()), "mine\n");
  EXPECT_EQ(std::distance(fs::directory_iterator{folder_ / "accelerators"}, fs::directory_iterator{}), 1);
}

TEST_F(Calibrate, WithoutAGpuOrPyTorchNothingIsMeasured) {
  expect_refused(calibrate_with_torch("class cuda:\n  is_available = staticmethod(lambda: False)\n"),
                 "PyTorch finds no GPU; --from FILE", 4);
  expect_refused(calibrate_with_torch("raise ImportError('No module')\n"), "PyTorch cannot be imported (No module)", 4);
}

}  // namespace
}  // namespace trainyard
