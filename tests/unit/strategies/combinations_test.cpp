// Combinations of frameworks and hardware that do not exist run with a warning.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/support/simulated.hpp"

namespace trainyard {
namespace {

std::ptrdiff_t warnings_with(const std::string& words, const std::vector<std::string>& settings) {
  const std::vector<std::string> warnings = tests::simulated(settings).warnings;
  return std::ranges::count_if(warnings,
                               [&](const std::string& text) { return text.find(words) != std::string::npos; });
}

TEST(Combinations, OfCudaFrameworksAndTpusRunWithAWarning) {
  for (const char* framework : {"megatron-lm", "deepspeed", "pytorch-fsdp"}) {
    const std::string chosen = std::string("strategy.framework=") + framework;
    const std::vector<std::string> tpus{"cluster={node: tpu-v5p, nodes: 4}", chosen};
    const bool exists = std::string(framework) == "pytorch-fsdp";  // with PyTorch/XLA
    EXPECT_EQ(warnings_with("does not run on TPUs", tpus), exists ? 0 : 1) << framework;
    EXPECT_EQ(warnings_with("has no XLA programs", {chosen, "training.backend=xla"}), exists ? 0 : 1) << framework;
    EXPECT_EQ(warnings_with("does not run on TPUs", {chosen}), 0) << framework;
  }
}

}  // namespace
}  // namespace trainyard
