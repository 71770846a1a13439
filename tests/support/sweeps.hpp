// A folder with a small scenario to sweep, which goes with the test.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace trainyard::tests {

class SweepFolder {
 public:
  SweepFolder() {
    const testing::TestInfo& test = *testing::UnitTest::GetInstance()->current_test_info();
    path_ = std::filesystem::temp_directory_path() /
            (std::string{test.test_suite_name()} + "." + test.name() + "." + std::to_string(getpid()));
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
    write("base.yaml",
          "name: small\n"
          "cluster: {node: dgx-h100, nodes: 1}\n"
          "model: {base: llama, name: small, layers: 2, hidden: 1024, ffn_hidden: 2048, heads: 8, vocab: 1024}\n"
          "training: {global_batch: 64, micro_batch: 1, sequence: 512, precision: bf16, optimizer: adamw}\n"
          "strategy: {framework: pytorch-fsdp, reshard_after_forward: true}\n");
  }
  ~SweepFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  SweepFolder(const SweepFolder&) = delete;
  SweepFolder& operator=(const SweepFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace trainyard::tests
