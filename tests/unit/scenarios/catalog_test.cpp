#include "scenarios/catalog.hpp"

#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "scenarios/internal/document.hpp"
#include "scenarios/internal/entries.hpp"
#include "scenarios/show.hpp"

namespace trainyard::scenarios {
namespace {

constexpr std::array<EntryKind, 4> all_kinds{EntryKind::accelerator, EntryKind::node, EntryKind::fabric,
                                             EntryKind::model};

// A folder of one's own catalogue entries, gone with the test.
class Folder {
 public:
  Folder()
      : path_(std::filesystem::temp_directory_path() /
              ("trainyard_catalog_" + std::string{testing::UnitTest::GetInstance()->current_test_info()->name()})) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream{path_ / name} << text;
  }
  const std::filesystem::path& path() const { return path_; }
  Catalog catalog() const { return Catalog{std::span{&path_, 1}}; }

 private:
  std::filesystem::path path_;
};

template <class Action>
std::string error_of(const Action& action) {
  try {
    action();
    return "";
  } catch (const ScenarioError& error) {
    return error.what();
  }
}

ModelReading read_model_text(const Catalog& catalog, const std::string& text, const std::string& file = "a.yaml") {
  Reader reader;
  const Value value = parse_yaml(text, file);
  ModelReading reading = read_model(reader, catalog, value, "model");
  reader.throw_mistakes();
  return reading;
}

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
  for (const auto* entry : catalog.entries(EntryKind::model)) {
    if (entry->name == "gpt" || entry->name == "llama") continue;  // families have no dimensions
    EXPECT_EQ(error_of([&] { catalog.model(entry->name); }), "");
  }
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

TEST(Catalog, ModelsHaveTheParametersOfTheirPublications) {
  const Catalog catalog;
  EXPECT_EQ(workloads::parameters(catalog.model("gpt2")), 124'439'808);
  EXPECT_EQ(workloads::parameters(catalog.model("gpt2-xl")), 1'557'611'200);
  EXPECT_EQ(workloads::parameters(catalog.model("llama2-7b")), 6'738'415'616);
  EXPECT_EQ(workloads::parameters(catalog.model("llama3-8b")), 8'030'261'248);
}

TEST(Catalog, AnUnknownNameGivesTheNearestOne) {
  const Catalog catalog;
  const std::string error = error_of([&] { catalog.node("dgx-h10"); });
  EXPECT_NE(error.find("no node is called 'dgx-h10' (did you mean 'dgx-h100'?)"), std::string::npos) << error;
  EXPECT_NE(error.find("the catalogue has 'a100-80gb', "), std::string::npos) << error;
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

TEST(Catalog, ExpertsAreNotSupportedYet) {
  const Catalog catalog;
  EXPECT_NE(error_of([&] {
              read_model_text(catalog, "{base: llama3-8b, experts: 8, top_k: 2}");
            }).find("mixture-of-experts models are not supported yet"),
            std::string::npos);
  EXPECT_EQ(error_of([&] { read_model_text(catalog, "{base: llama3-8b, experts: 0}"); }), "");
}

constexpr const char* llama_config =
    R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8192, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672, "vocab_size": 128256,
        "max_position_embeddings": 8192, "rope_scaling": null, "torch_dtype": "bfloat16"})";

TEST(HuggingFace, ALlamaConfigIsTheModelOfTheCatalogue) {
  const Folder folder;
  folder.write("llama/config.json", llama_config);
  const Catalog catalog;
  const ModelReading reading =
      read_model_text(catalog, "{hf_config: llama/config.json}", (folder.path() / "a.yaml").string());
  EXPECT_EQ(workloads::parameters(reading.model), workloads::parameters(catalog.model("llama3-70b")));
  EXPECT_EQ(reading.model.name, "llama");
  EXPECT_FALSE(reading.model.tied_embeddings);
  EXPECT_TRUE(reading.warnings.empty());
}

TEST(HuggingFace, KeysBesideTheFileOverrideIt) {
  const Folder folder;
  folder.write("config.json", llama_config);
  const ModelReading reading = read_model_text(Catalog{}, "{hf_config: config.json, layers: 4, name: small}",
                                               (folder.path() / "a.yaml").string());
  EXPECT_EQ(reading.model.layers, 4);
  EXPECT_EQ(reading.model.name, "small");
}

TEST(HuggingFace, Gpt2HasItsOwnNamesAndDefaults) {
  const Folder folder;
  folder.write("config.json", R"({"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": null,
                                  "n_positions": 1024, "n_ctx": 1024, "vocab_size": 50257})");
  const ModelReading reading =
      read_model_text(Catalog{}, "{hf_config: config.json}", (folder.path() / "a.yaml").string());
  EXPECT_EQ(workloads::parameters(reading.model), 124'439'808);
  EXPECT_TRUE(reading.model.tied_embeddings);
  EXPECT_NEAR(reading.model.dropout, 0.1, 1e-9);
}

TEST(HuggingFace, Gpt2IsAlsoKnownByTheNamesOfTransformers) {
  const Folder folder;
  const std::string scenario = (folder.path() / "a.yaml").string();
  folder.write("config.json", R"({"model_type": "gpt2", "hidden_size": 768, "num_hidden_layers": 12,
                                  "num_attention_heads": 12, "max_position_embeddings": 1024, "vocab_size": 50257})");
  EXPECT_EQ(workloads::parameters(read_model_text(Catalog{}, "{hf_config: config.json}", scenario).model), 124'439'808);
  folder.write("config.json", R"({"model_type": "gpt2", "hidden_size": 0})");
  const std::string error = error_of([&] { read_model_text(Catalog{}, "{hf_config: config.json}", scenario); });
  EXPECT_NE(error.find("config.json:1:39: hidden_size: expected at least 1"), std::string::npos) << error;
  EXPECT_NE(error.find("missing key 'n_layer'"), std::string::npos) << error;
}

TEST(HuggingFace, AFileThatCannotBeReadHidesNoOtherMistake) {
  const Folder folder;
  folder.write("config.json", "{\"model_type\": ");
  const std::string scenario = (folder.path() / "a.yaml").string();
  const std::string error =
      error_of([&] { read_model_text(Catalog{}, "{hf_config: config.json, layrs: 1}", scenario); });
  EXPECT_NE(error.find("config.json:1:"), std::string::npos) << error;
  EXPECT_NE(error.find("unknown key 'layrs' in 'model' (did you mean 'layers'?)"), std::string::npos) << error;
  const std::string missing = error_of([&] { read_model_text(Catalog{}, "{hf_config: no.json, layrs: 1}", scenario); });
  EXPECT_NE(missing.find("no such file"), std::string::npos) << missing;
  EXPECT_NE(missing.find("unknown key 'layrs'"), std::string::npos) << missing;
  EXPECT_EQ(missing.find("missing key"), std::string::npos) << missing;
}

TEST(HuggingFace, Qwen2HasBiasesInItsProjectionsOnly) {
  const Folder folder;
  folder.write("config.json", R"({"model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24,
      "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151936,
      "max_position_embeddings": 32768, "tie_word_embeddings": true, "use_sliding_window": false,
      "sliding_window": 4096})");
  const ModelReading reading =
      read_model_text(Catalog{}, "{hf_config: config.json}", (folder.path() / "a.yaml").string());
  EXPECT_EQ(workloads::parameters(reading.model), 494'032'768);  // Qwen2-0.5B
  EXPECT_FALSE(reading.sliding_window);
}

TEST(HuggingFace, MistralLooksBackThroughAWindow) {
  const Folder folder;
  folder.write("config.json", R"({"model_type": "mistral", "hidden_size": 4096, "num_hidden_layers": 32,
      "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 32000,
      "max_position_embeddings": 32768, "sliding_window": 4096})");
  const ModelReading reading =
      read_model_text(Catalog{}, "{hf_config: config.json}", (folder.path() / "a.yaml").string());
  EXPECT_EQ(workloads::parameters(reading.model), 7'241'732'096);
  EXPECT_EQ(reading.sliding_window, 4096);
}

TEST(HuggingFace, WhatCannotBeReadIsReportedInTheFile) {
  const Folder folder;
  const std::string scenario = (folder.path() / "a.yaml").string();
  const auto error_for = [&](const std::string& config) {
    folder.write("config.json", config);
    return error_of([&] { read_model_text(Catalog{}, "{hf_config: config.json}", scenario); });
  };
  EXPECT_NE(error_for(R"({"model_type": "mixtral"})")
                .find("config.json:1:16: model_type: expected 'llama', 'mistral', 'qwen2' or 'gpt2', got"),
            std::string::npos);
  EXPECT_NE(error_for("{}").find("missing key 'model_type'"), std::string::npos);
  EXPECT_NE(error_for("[1]").find("expected the fields of a config.json"), std::string::npos);
  const std::string missing = error_for(R"({"model_type": "llama", "hidden_size": "x"})");
  EXPECT_NE(missing.find("config.json:1:40: hidden_size: expected a whole number"), std::string::npos) << missing;
  EXPECT_NE(missing.find("missing key 'num_hidden_layers'"), std::string::npos) << missing;
  const std::string contradiction = error_for(
      R"({"model_type": "gpt2", "architectures": ["LlamaForCausalLM"], "n_embd": 8, "hidden_size": 9, "n_layer": 1,
          "n_head": 1, "n_positions": 8, "vocab_size": 8})");
  EXPECT_NE(contradiction.find("'LlamaForCausalLM' contradicts model_type 'gpt2'"), std::string::npos) << contradiction;
  EXPECT_NE(contradiction.find("hidden_size: '9' contradicts n_embd, which is '8'"), std::string::npos)
      << contradiction;
  EXPECT_NE(error_of([&] {
              read_model_text(Catalog{}, "{hf_config: none.json}", scenario);
            }).find("a.yaml:1:13: model.hf_config: no such file"),
            std::string::npos);
}

}  // namespace
}  // namespace trainyard::scenarios
