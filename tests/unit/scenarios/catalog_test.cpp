#include "scenarios/catalog.hpp"

#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "scenarios/internal/document.hpp"
#include "scenarios/internal/entries.hpp"
#include "scenarios/show.hpp"
#include "tests/support/model_files.hpp"
#include "workloads/architecture.hpp"

namespace trainyard::scenarios {
namespace {

constexpr std::array<EntryKind, 5> all_kinds{EntryKind::accelerator, EntryKind::node, EntryKind::fabric,
                                             EntryKind::model, EntryKind::price};

// "gemm.tile" and "gemm" give the source of gemm.tile.
void expect_sources(const Value& map, const std::string& path, const Value& sources, const std::string& file) {
  for (const Entry& entry : map.entries) {
    const std::string full = join(path, entry.key.scalar);
    if (full == "description" || full == "sources" || sources.find(full) != nullptr) continue;
    if (entry.value.is_map())
      expect_sources(entry.value, full, sources, file);
    else
      ADD_FAILURE() << file << ": " << full << " has no source";
  }
}

TEST(Catalog, EveryBuiltInEntryCanBeRead) {
  const Catalog catalog;
  for (const auto* entry : catalog.entries(EntryKind::accelerator))
    EXPECT_EQ(error_of([&] { catalog.accelerator(entry->name); }), "");
  for (const auto* entry : catalog.entries(EntryKind::node))
    EXPECT_EQ(error_of([&] { catalog.node(entry->name); }), "");
  for (const auto* entry : catalog.entries(EntryKind::fabric))
    EXPECT_EQ(error_of([&] { catalog.fabric(entry->name); }), "");
  for (const EntryKind kind : {EntryKind::model, EntryKind::price})
    for (const auto* entry : catalog.entries(kind)) EXPECT_EQ(error_of([&] { catalog.check(kind, entry->name); }), "");
}

TEST(Catalog, EveryUsualPriceIsAnEntry) {
  const Catalog catalog;
  int priced = 0;
  for (const auto* entry : catalog.entries(EntryKind::node)) {
    const std::string price = catalog.node(entry->name).price;
    if (price.empty()) continue;
    ++priced;
    EXPECT_EQ(error_of([&] { catalog.check(EntryKind::price, price); }), "") << entry->name;
  }
  EXPECT_GT(priced, 15);
}

TEST(Catalog, OnlyFamiliesOfModelsLackDimensions) {
  const Catalog catalog;
  std::vector<std::string> lacking;
  for (const auto* entry : catalog.entries(EntryKind::model))
    if (!error_of([&] { catalog.model(entry->name); }).empty()) lacking.push_back(entry->name);
  EXPECT_EQ(lacking, (std::vector<std::string>{"bert", "gpt", "gpt-oss", "llama", "mixtral", "nemotron", "qwen3-moe",
                                               "resnet"}));
  EXPECT_EQ(error_of([&] { catalog.model("resnet"); }), "catalog/models/resnet.yaml:1:1: missing key 'stage_blocks'");
}

TEST(Catalog, EveryKeyOfEveryBuiltInEntryHasASource) {
  const Catalog catalog;
  for (const EntryKind kind : all_kinds) {
    EXPECT_FALSE(catalog.entries(kind).empty());
    for (const CatalogEntry* entry : catalog.entries(kind)) {
      const Value value = parse_yaml(entry->text, entry->file);
      const Value* sources = value.find("sources");
      ASSERT_NE(sources, nullptr) << entry->file;
      EXPECT_FALSE(catalog.description(*entry).empty()) << entry->file;
      expect_sources(value, "", *sources, entry->file);
      for (const Entry& source : sources->entries) EXPECT_FALSE(source.value.scalar.empty()) << entry->file;
    }
  }
}

TEST(Catalog, FiguresArriveInTheirUnits) {
  const Catalog catalog;
  const workloads::Accelerator accelerator = catalog.accelerator("h100-sxm");
  EXPECT_EQ(accelerator.name, "h100-sxm");
  EXPECT_EQ(accelerator.memory_bandwidth.count, 3'350'000'000'000);
  EXPECT_TRUE(accelerator.supports(workloads::Precision::fp8));
  EXPECT_FALSE(catalog.accelerator("a100-sxm-80gb").supports(workloads::Precision::fp8));
  EXPECT_EQ(accelerator.tile_rows, 256);
  const topology::NodeType node = catalog.node("dgx-h100");
  EXPECT_EQ(node.accelerator, "h100-sxm");
  EXPECT_EQ(node.nic_rate.count, 50'000'000'000);
  ASSERT_TRUE(node.collectives.intra.ll128.has_value());
  EXPECT_EQ(node.collectives.intra.ll128->hop, sim::Duration{1'900'000});
  EXPECT_EQ(catalog.fabric("fat-tree").kind, topology::FabricType::Kind::fat_tree);
}

TEST(Catalog, AnUnknownNameGivesTheNearestOne) {
  const Catalog catalog;
  const std::string error = error_of([&] { catalog.node("dgx-h10"); });
  EXPECT_NE(error.find("no node is called 'dgx-h10' (did you mean 'dgx-h100'?)"), std::string::npos) << error;
  EXPECT_NE(error.find("the catalogue has 'a100-40gb', 'a100-80gb', "), std::string::npos) << error;
}

TEST(Catalog, OwnEntriesComeFirstAndMayRefineWhatTheyHide) {
  const Folder folder;
  folder.write("nodes/dgx-h100.yaml", "base: dgx-h100\nnics: 4\n");
  folder.write("nodes/mine.yaml", "base: dgx-h100\naccelerator: {memory: 96 GiB}\n");
  const Catalog catalog = folder.catalog();
  EXPECT_EQ(catalog.node("dgx-h100").nics, 4);
  EXPECT_EQ(catalog.node("mine").nics, 4);
  EXPECT_EQ(catalog.node("mine").name, "mine");
  EXPECT_EQ(catalog.node("mine").accelerator, "h100-sxm");
  EXPECT_EQ(catalog.node("dgx-h200").nics, 8);
  EXPECT_FALSE(catalog.find(EntryKind::node, "mine")->built_in);
}

TEST(Catalog, EntriesBasedOnEachOtherAreReported) {
  const Folder folder;
  folder.write("nodes/a.yaml", "base: b\n");
  folder.write("nodes/b.yaml", "base: a\n");
  const Catalog catalog = folder.catalog();
  EXPECT_NE(error_of([&] { catalog.node("a"); }).find("'a' is based on itself"), std::string::npos);
}

TEST(Catalog, AnEntryBasedOnItsOwnNameNeedsAnotherOfThatName) {
  const Folder folder;
  folder.write("nodes/self.yaml", "base: self\n");
  const Catalog catalog = folder.catalog();
  const std::string error = error_of([&] { catalog.node("self"); });
  EXPECT_NE(error.find("self.yaml:1:7: 'self' is based on itself"), std::string::npos) << error;
}

TEST(Catalog, AnEntryIsCheckedBeforeItIsShown) {
  const Folder folder;
  folder.write("nodes/mine.yaml", "base: dgx-h100\nnicss: 2\nlink: {rate: 1 B/s}\n");
  folder.write("models/small.yaml", "base: gpt\nlayrs: 2\n");
  const Catalog catalog = folder.catalog();
  const std::string error = error_of([&] { show_entry(catalog, EntryKind::node, "mine"); });
  EXPECT_NE(error.find("mine.yaml:2:1: unknown key 'nicss' (did you mean 'nics'?)"), std::string::npos) << error;
  EXPECT_NE(error.find("mine.yaml:3:14: link.rate: expected between"), std::string::npos) << error;
  EXPECT_NE(error_of([&] { show_entry(catalog, EntryKind::model, "small"); }).find("unknown key 'layrs'"),
            std::string::npos);
  const Catalog built_in;
  for (const EntryKind kind : all_kinds)
    for (const CatalogEntry* entry : built_in.entries(kind))
      EXPECT_EQ(error_of([&] { show_entry(built_in, kind, entry->name); }), "");
}

TEST(Catalog, AnEntryThatIsNoYamlIsReportedWithTheOtherMistakes) {
  const Folder folder;
  folder.write("nodes/mine.yaml", "nics: [\n");
  const Catalog catalog = folder.catalog();
  Reader reader;
  read_node(reader, catalog, parse_yaml("{base: mine, nics: 0}", "a.yaml"), "cluster.node");
  const std::string error = error_of([&] { reader.throw_mistakes(); });
  EXPECT_NE(error.find("mine.yaml:2:1: "), std::string::npos) << error;
  EXPECT_NE(error.find("a.yaml:1:20: cluster.node.nics: expected at least 1"), std::string::npos) << error;
}

TEST(Catalog, AFolderThatIsNoCatalogueIsReported) {
  const Folder folder;
  EXPECT_NE(error_of([&] { folder.catalog(); }).find("expected folders called 'accelerators'"), std::string::npos);
  const std::vector<std::filesystem::path> missing{folder.path() / "missing"};
  EXPECT_NE(error_of([&] { Catalog{missing}; }).find("expected a folder"), std::string::npos);
}

TEST(Catalog, AMistakeInAnOwnEntryIsReportedInItsFile) {
  const Folder folder;
  folder.write("fabrics/mine.yaml", "kind: fat-tre\nswitch_latency: 2\n");
  const Catalog catalog = folder.catalog();
  const std::string error = error_of([&] { catalog.fabric("mine"); });
  EXPECT_NE(error.find("mine.yaml:1:7: kind: expected"), std::string::npos) << error;
  EXPECT_NE(error.find("mine.yaml:2:17: switch_latency: expected a duration"), std::string::npos) << error;
}

TEST(Catalog, AFabricWithoutKindOrBaseRefinesTheUsualOne) {
  const Catalog catalog;
  Reader reader;
  const Value value = parse_yaml("{oversubscription: 2}", "a.yaml");
  const topology::FabricType fabric = read_fabric(reader, catalog, &value, "fat-tree", "cluster.fabric");
  reader.throw_mistakes();
  EXPECT_EQ(fabric.kind, topology::FabricType::Kind::fat_tree);
  EXPECT_EQ(fabric.oversubscription, 2);
  EXPECT_EQ(fabric.name, "fat-tree");
}

TEST(Catalog, ADescribedModelTakesWhatIsUsual) {
  const Catalog catalog;
  const workloads::Model model =
      read_model_text(catalog, "{base: gpt, layers: 2, hidden: 64, heads: 4, vocab: 100}").model;
  EXPECT_EQ(model.ffn_hidden, 256);
  EXPECT_EQ(model.kv_heads, 4);
  EXPECT_EQ(model.head_dim, 16);
  EXPECT_EQ(model.positions, 0);  // the scenario's sequence
  EXPECT_TRUE(model.qkv_bias);
  EXPECT_EQ(read_model_text(catalog, "{family: gpt, layers: 2, hidden: 64, heads: 4, vocab: 100}").model.ffn_hidden,
            256);
}

TEST(Catalog, BiasGivenAloneHoldsForTheProjectionsToo) {
  const Catalog catalog;
  EXPECT_FALSE(read_model_text(catalog, "{base: gpt2, bias: false}").model.qkv_bias);
  EXPECT_TRUE(read_model_text(catalog, "{base: gpt2, bias: false, qkv_bias: true}").model.qkv_bias);
}

TEST(Catalog, AWrongBiasIsReportedOnce) {
  const Catalog catalog;
  EXPECT_EQ(error_of([&] { read_model_text(catalog, "{base: gpt2, bias: 'true'}"); }),
            "a.yaml:1:20: model.bias: expected true or false, got the text 'true'");
}

TEST(Catalog, AllMissingDimensionsAreReportedAtOnce) {
  const Catalog catalog;
  const std::string error = error_of([&] { read_model_text(catalog, "{base: llama}"); });
  for (const char* name : {"layers", "hidden", "heads", "vocab"})
    EXPECT_NE(error.find("missing key 'model." + std::string{name} + "'"), std::string::npos) << error;
  EXPECT_NE(error_of([&] {
              read_model_text(catalog, "{base: llama, layers: 2, hidden: 64, heads: 4, vocab: 100}");
            }).find("missing key 'model.ffn_hidden'"),
            std::string::npos);
}

TEST(Catalog, ContradictingDimensionsAreReported) {
  const Catalog catalog;
  const std::string dimensions = "layers: 2, hidden: 64, vocab: 100, ";
  EXPECT_NE(error_of([&] { read_model_text(catalog, "{base: gpt, " + dimensions + "heads: 5}"); }).find("no multiple"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              read_model_text(catalog, "{base: gpt, " + dimensions + "heads: 4, kv_heads: 3}");
            }).find("model.kv_heads: expected a divisor of 4 heads, got 3"),
            std::string::npos);
  EXPECT_EQ(error_of([&] { read_model_text(catalog, "{base: gpt, " + dimensions + "heads: 5, head_dim: 16}"); }), "");
}

struct Contradiction {
  const char* model;
  const char* error;
};

void expect_errors(const std::vector<Contradiction>& contradictions) {
  for (const Contradiction& contradiction : contradictions)
    EXPECT_EQ(error_of([&] { read_model_text(Catalog{}, contradiction.model); }), contradiction.error)
        << contradiction.model;
}

TEST(Catalog, AnyDecoderMayHaveExpertsOrNone) {
  const Catalog catalog;
  const workloads::Model model = read_model_text(catalog, "{base: llama3-8b, experts: 8, top_k: 2}").model;
  ASSERT_TRUE(model.experts.has_value());
  EXPECT_EQ(model.experts->dense_ffn_hidden, 14336);
  EXPECT_FALSE(read_model_text(catalog, "{base: llama3-8b, experts: 0}").model.experts.has_value());
  const workloads::Model dense = read_model_text(catalog, "{base: mixtral-8x7b, experts: 0}").model;
  EXPECT_EQ(workloads::parameters(dense), 7'241'732'096);  // what is left is a Mistral 7B
  EXPECT_EQ(error_of([&] { read_model_text(catalog, "{base: deepseek-v3, experts: 0}"); }), "");
}

TEST(Catalog, ContradictingExpertsAreReported) {
  expect_errors({
      {"{base: llama3-8b, experts: 8, top_k: 9}", "a.yaml:1:38: model.top_k: expected at most 8 experts, got 9"},
      {"{base: llama3-8b, experts: 8}", "a.yaml:1:1: missing key 'model.top_k', which experts need"},
      {"{base: llama3-8b, top_k: 2}", "a.yaml:1:26: model.top_k: a model without 'experts' has nothing to choose from"},
      {"{base: llama3-8b, shared_ffn_hidden: 64}",
       "a.yaml:1:1: model.experts: a model without 'experts' has nothing to choose from"},
      {"{base: mixtral-8x7b, shared_gate: true}",
       "a.yaml:1:35: model.shared_gate: a gate needs shared experts ('shared_ffn_hidden')"},
      {"{base: mixtral-8x7b, first_dense: 33}", "a.yaml:1:35: model.first_dense: expected at most 32 layers, got 33"},
      {"{base: mixtral-8x7b, moe_every: 33}", "a.yaml:1:33: model.moe_every: expected at most 32 layers, got 33"},
      {"{base: mixtral-8x7b, dense_layers: [3, 32]}",
       "a.yaml:1:22: model.dense_layers: there is no layer 32 among 32, counted from 0"},
      {"{base: mixtral-8x7b, experts: 1000000, ffn_hidden: 10000000}",
       "a.yaml:1:1: model: the model has more than 10^15 parameters"},
  });
}

TEST(Catalog, LatentAttentionNeedsItsDimensionsAndHasNoOthers) {
  expect_errors({
      {"{base: llama2-7b, q_rank: 8}", "a.yaml:1:1: missing key 'model.kv_rank', which latent attention needs"},
      {"{base: llama2-7b, head_dim: 12, kv_rank: 8, nope_head_dim: 8, rope_head_dim: 4}",
       "a.yaml:1:1: missing key 'model.v_head_dim', which latent attention (kv_rank) needs"},
      {"{base: deepseek-v3, head_dim: 128}",
       "a.yaml:1:31: model.head_dim: expected nope_head_dim + rope_head_dim, 192, got 128"},
      {"{base: deepseek-v3, kv_heads: 8}",
       "a.yaml:1:31: model.kv_heads: latent attention has keys and values for each of 128 heads, got 8"},
      {"{base: deepseek-v3, sliding_window: 8}",
       "a.yaml:1:37: model.sliding_window: latent attention with a window is not supported"},
      {"{base: deepseek-v3, qk_norm: true}", "a.yaml:1:30: model.qk_norm: latent attention has norms of its own"},
  });
}

TEST(Catalog, KeysOfAnotherStructureAreReported) {
  expect_errors({
      {"{base: llama3-8b, segments: 2}",
       "a.yaml:1:19: model.segments: only structure 'encoder' has this, not 'decoder'"},
      {"{base: bert-base, experts: 8}", "a.yaml:1:19: model.experts: only structure 'decoder' has this, not 'encoder'"},
      {"{base: t5-small, sliding_window: 8}",
       "a.yaml:1:18: model.sliding_window: only structure 'decoder' has this, not 'encoder-decoder'"},
      {"{base: vit-b16, vocab: 8}",
       "a.yaml:1:17: model.vocab: only structure 'decoder', 'encoder' or 'encoder-decoder' has this, not 'vision'"},
      {"{base: resnet50, top_mlp: [1]}",
       "a.yaml:1:18: model.top_mlp: only structure 'recommendation' has this, not 'convolution'"},
      {"{base: dlrm, stage_blocks: [1]}",
       "a.yaml:1:14: model.stage_blocks: only structure 'convolution' has this, not 'recommendation'"},
      {"{base: llama3-8b, structure: graph}",
       "a.yaml:1:30: model.structure: expected 'decoder', 'encoder', 'encoder-decoder', 'vision', 'convolution' or "
       "'recommendation', got 'graph'"},
  });
}

TEST(Catalog, WhatAStructureCannotBeIsReported) {
  expect_errors({
      {"{base: llama3-8b, position_embedding: relative}",
       "a.yaml:1:39: model.position_embedding: 'relative' is not supported in structure 'decoder'"},
      {"{base: t5-small, relative_buckets: 0}",
       "a.yaml:1:1: missing key 'model.relative_buckets', which relative positions need"},
      {"{base: t5-small, kv_heads: 2}",
       "a.yaml:1:28: model.kv_heads: fewer heads of keys and values than of queries are not supported in structure "
       "'encoder-decoder'"},
      {"{base: vit-b16, patch_size: 15}",
       "a.yaml:1:29: model.patch_size: expected a divisor of image_size 224, got 15"},
      {"{base: resnet50, stage_blocks: []}", "a.yaml:1:18: model.stage_blocks: expected one to 8 stages, got 0"},
      {"{base: resnet50, image_size: 16}",
       "a.yaml:1:30: model.image_size: expected at least 32 for 4 stages that halve it, got 16"},
      {"{base: dlrm, top_mlp: [8]}", "a.yaml:1:14: model.top_mlp: expected the last width to be 1, the logit, got 8"},
      {"{base: dlrm, bottom_mlp: []}", "a.yaml:1:14: model.bottom_mlp: expected one width at least"},
      {"{base: dlrm, tables: []}", "a.yaml:1:14: model.tables: expected one table at least"},
  });
}

}  // namespace
}  // namespace trainyard::scenarios
