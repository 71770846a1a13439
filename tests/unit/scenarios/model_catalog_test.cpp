#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/catalog.hpp"
#include "scenarios/show.hpp"
#include "workloads/architecture.hpp"

namespace trainyard::scenarios {
namespace {

using workloads::Model;

// As published, to the last digit that is stated.
struct Published {
  double count = 0;
  double digit = 1;
};
constexpr Published in_billions(double count, double digit = 0.001) { return {count * 1e9, digit * 1e9}; }

void expect_published(std::int64_t count, const Published& published, std::string_view name) {
  EXPECT_LE(std::abs(static_cast<double>(count) - published.count), published.digit / 2) << name << " has " << count;
}

struct ModelCounts {
  std::string_view name;
  Published all;
  Published active = {};  // where there are experts
};

// The input embedding, which some publishers leave out of the active parameters, is added to those.
const std::vector<ModelCounts>& published_counts() {
  static const std::vector<ModelCounts> counts{
      {"bert-base", {109'482'240}},
      {"bert-large", {335'141'888}},
      {"deepseek-v2", {235'741'434'880}, in_billions(21.4, 0.1)},
      {"deepseek-v2-lite", {15'706'484'224}, in_billions(2.4 + 0.21, 0.15)},
      {"deepseek-v3", {671'026'419'200}, in_billions(37.552)},
      {"dlrm", in_billions(24.034 + 0.0024)},
      {"gpt-1.3b", {1'315'723'264}},
      {"gpt-13b", in_billions(12.853)},
      {"gpt-neox-20b", in_billions(20.5546, 1e-4)},
      {"gpt-oss-120b", in_billions(116.83, 0.01), in_billions(5.13 + 0.579, 0.01)},
      {"gpt-oss-20b", in_billions(20.91, 0.01), in_billions(3.61 + 0.579, 0.01)},
      {"gpt2", {124'439'808}},
      {"gpt2-large", {774'030'080}},
      {"gpt2-medium", {354'823'168}},
      {"gpt2-xl", {1'557'611'200}},
      {"gpt3-175b", in_billions(174.604)},
      {"llama-7b", {6'738'415'616}},
      {"llama2-13b", in_billions(13.016)},
      {"llama2-70b", in_billions(68.977)},
      {"llama2-7b", {6'738'415'616}},
      {"llama3-70b", in_billions(70.554)},
      {"llama3-8b", in_billions(8.030)},
      {"llama3.1-405b", in_billions(405.853)},
      {"llama3.1-70b", in_billions(70.554)},
      {"llama3.1-8b", in_billions(8.030)},
      {"llama3.2-1b", {1'235'814'400}},
      {"llama3.2-3b", {3'212'749'824}},
      {"megatron-1t", in_billions(1008.04, 0.01)},
      {"mistral-7b", {7'241'732'096}},
      {"mixtral-8x22b", in_billions(140.630), in_billions(39.161)},
      {"mixtral-8x7b", in_billions(46.703), in_billions(12.880)},
      {"nemotron-4-15b", in_billions(12.5 + 3.1, 0.1)},
      {"nemotron-4-340b", in_billions(341, 1)},
      {"qwen2-7b", {7'615'616'512}},
      {"qwen2.5-72b", in_billions(72.706)},
      {"qwen2.5-7b", {7'615'616'512}},
      {"qwen3-235b-a22b", in_billions(235.094), in_billions(22.191)},
      {"qwen3-30b-a3b", in_billions(30.532), in_billions(3.353)},
      {"qwen3-32b", in_billions(32.762)},
      {"qwen3-8b", {8'190'735'360}},
      {"resnet50", {25'557'032}},
      {"t5", {737'668'096}},  // a family with the dimensions of the large one
      {"t5-11b", in_billions(11.3073, 1e-4)},
      {"t5-3b", in_billions(2.8516, 1e-4)},
      {"t5-base", {222'903'552}},
      {"t5-large", {737'668'096}},
      {"t5-small", {60'506'624}},
      {"vit", {86'567'656}},  // a family with the dimensions of the base one
      {"vit-b16", {86'567'656}},
      {"vit-l16", {304'326'632}},
  };
  return counts;
}

const std::vector<std::string_view> families_without_dimensions{"bert",    "gpt",      "gpt-oss",   "llama",
                                                                "mixtral", "nemotron", "qwen3-moe", "resnet"};

TEST(ModelCatalog, EveryModelHasItsPublishedParameters) {
  const Catalog catalog;
  for (const ModelCounts& published : published_counts()) {
    const Model model = catalog.model(published.name);
    expect_published(workloads::parameters(model), published.all, published.name);
    ASSERT_EQ(model.experts.has_value(), published.active.count > 0) << published.name;
    if (model.experts) expect_published(workloads::active_parameters(model), published.active, published.name);
  }
}

TEST(ModelCatalog, NoModelIsWithoutAPublishedCount) {
  const Catalog catalog;
  std::vector<std::string> expected{families_without_dimensions.begin(), families_without_dimensions.end()};
  for (const ModelCounts& published : published_counts()) expected.emplace_back(published.name);
  std::sort(expected.begin(), expected.end());
  std::vector<std::string> names;
  for (const CatalogEntry* entry : catalog.entries(EntryKind::model)) names.push_back(entry->name);
  EXPECT_EQ(names, expected);
}

// 6 x parameters alone would be 40.4, 48.2, 423.3 and 2435e9.
TEST(ModelCatalog, TrainingFlopPerTokenCountAttention) {
  struct Flops {
    std::string_view name;
    std::int64_t sequence = 0;
    Published causal;
    Published full;
  };
  const Catalog catalog;
  for (const Flops& expected :
       std::vector<Flops>{{"llama2-7b", 4096, in_billions(42.86, 0.01), in_billions(46.1, 0.1)},
                          {"llama3-8b", 8192, in_billions(51.47, 0.01), in_billions(57.9, 0.1)},
                          {"llama3-70b", 8192, in_billions(449.2, 0.1), in_billions(481.4, 0.1)},
                          {"llama3.1-405b", 8192, in_billions(2524, 1), in_billions(2625, 1)}}) {
    const Model model = catalog.model(expected.name);
    const auto flops = [&](bool causal) {
      return std::llround(workloads::training_flops_per_token(model, expected.sequence, causal));
    };
    expect_published(flops(true), expected.causal, expected.name);
    expect_published(flops(false), expected.full, expected.name);
  }
}

// What stands in a row of a table behind its first column, the first such row in the text.
std::vector<std::string> row(const std::string& text, const std::string& name) {
  const std::size_t at = text.find("\n  " + name + "  ");
  if (at == std::string::npos) return {};
  const std::string line = text.substr(at + 1, text.find('\n', at + 1) - at - 1);
  std::vector<std::string> cells;
  for (std::size_t from = line.find_first_not_of(' ', 2 + name.size()); from != std::string::npos;) {
    const std::size_t end = line.find("  ", from);
    cells.push_back(line.substr(from, end - from));
    from = end == std::string::npos ? end : line.find_first_not_of(' ', end);
  }
  return cells;
}

using Row = std::vector<std::string>;

TEST(ModelCatalog, ShowingAModelGivesItsParametersByLayer) {
  const std::string llama = show_entry(Catalog{}, EntryKind::model, "llama3-8b");
  EXPECT_EQ(row(llama, "all"), (Row{"8030261248", "8.03 B"}));
  EXPECT_EQ(row(llama, "embedding"), (Row{"525336576", "525.3 M"}));
  EXPECT_EQ(row(llama, "each layer (32)").front(), "218112000");
  EXPECT_EQ(row(llama, "active for a token"), Row{});
  const std::string deepseek = show_entry(Catalog{}, EntryKind::model, "deepseek-v3");
  EXPECT_EQ(row(deepseek, "active for a token"), (Row{"37552297472", "37.55 B"}));
  EXPECT_FALSE(row(deepseek, "in training only").empty());  // the layer that predicts one token more
  EXPECT_FALSE(row(deepseek, "each dense layer (3)").empty());
  EXPECT_FALSE(row(deepseek, "each layer (58)").empty());
}

TEST(ModelCatalog, ShowingAModelGivesItsTrainingFlop) {
  const std::string llama = show_entry(Catalog{}, EntryKind::model, "llama3-8b");
  EXPECT_EQ(row(llama, "for a token"), (Row{"51.47 B", "57.91 B"}));
  EXPECT_EQ(row(llama, "for a sequence of 8192 tokens"), (Row{"421.6 T", "474.4 T"}));
  const std::string bert = show_entry(Catalog{}, EntryKind::model, "bert-base");
  EXPECT_EQ(row(bert, "for a token").size(), 1U);  // no mask
  const std::string resnet = show_entry(Catalog{}, EntryKind::model, "resnet50");
  EXPECT_EQ(row(resnet, "for an image").back(), "24.54 B");
  EXPECT_EQ(row(resnet, "for a token"), Row{});
  EXPECT_FALSE(row(show_entry(Catalog{}, EntryKind::model, "dlrm"), "for a sample").empty());
}

TEST(ModelCatalog, ShowingAModelGivesItsBytesOfStateAndActivations) {
  const std::string llama = show_entry(Catalog{}, EntryKind::model, "llama3-8b");
  EXPECT_EQ(row(llama, "bf16, adamw"), (Row{"2", "2", "4", "8", "16", "120 GiB"}));
  EXPECT_EQ(row(llama, "bf16 or fp8, fp32 gradients, adamw"), (Row{"2", "4", "4", "8", "18", "135 GiB"}));
  EXPECT_EQ(row(llama, "bf16, sgd"), (Row{"2", "2", "4", "0", "8", "59.8 GiB"}));
  const std::string activations = llama.substr(llama.find("activations kept"));
  EXPECT_EQ(row(activations, "each layer (32)"), (Row{"1.06 GiB", "1.06 GiB", "64 MiB"}));  // 139 KB a token
  EXPECT_EQ(row(activations, "all layers"), (Row{"34 GiB", "34 GiB", "2 GiB"}));
}

TEST(ModelCatalog, ShowingAFamilyWithoutDimensionsGivesNoFigures) {
  for (const std::string_view family : families_without_dimensions) {
    const std::string text = show_entry(Catalog{}, EntryKind::model, family);
    EXPECT_EQ(text.find("training FLOP"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace trainyard::scenarios
