// What frameworks offer to a search: values that can be read, in spaces that hold what was published and stay small.
#include <gtest/gtest.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "strategies/search_values.hpp"
#include "tests/support/simulated.hpp"

namespace trainyard {
namespace {

using strategies::SearchKey;

std::vector<SearchKey> keys_of(const scenarios::Scenario& scenario) {
  const topology::Cluster cluster = scenarios::make_cluster(scenario);
  return scenario.strategy->search_keys({scenario.model, scenario.training, scenario.accelerator, cluster});
}

scenarios::Scenario job(const std::string& cluster, const std::string& model, const std::string& training,
                        const std::string& framework) {
  return tests::scenario_of("name: Search\ncluster: {" + cluster + "}\nmodel: " + model + "\ntraining: {" + training +
                                "}\nstrategy: {framework: " + framework + "}\n",
                            {});
}

const SearchKey* find(const std::vector<SearchKey>& keys, const std::string& path) {
  const auto found = std::ranges::find(keys, path, &SearchKey::path);
  return found == keys.end() ? nullptr : &*found;
}

bool offers(const std::vector<SearchKey>& keys, const std::string& path, const std::string& value) {
  const SearchKey* key = find(keys, path);
  return key != nullptr && std::ranges::find(key->values, value) != key->values.end();
}

// Whether a scenario may have the value there.
struct Reads {
  const std::string& text;
  const sim::Key& key;

  bool whole() const {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    return error == std::errc{} && end == text.data() + text.size() && static_cast<double>(number) >= key.least &&
           static_cast<double>(number) <= key.most;
  }
  bool operator()(const bool*) const { return text == "true" || text == "false"; }
  bool operator()(const std::optional<bool>*) const { return text == "true" || text == "false"; }
  bool operator()(const std::int64_t*) const { return whole(); }
  bool operator()(const std::optional<std::int64_t>*) const { return whole(); }
  bool operator()(const double*) const { return whole(); }
  bool operator()(const std::string*) const { return !text.empty(); }
  bool operator()(const sim::Choice* choice) const {
    return std::ranges::find(choice->choices, text) != choice->choices.end();
  }
  bool operator()(const auto*) const { return false; }
};

void expect_readable(scenarios::Scenario& scenario) {
  const std::vector<SearchKey> keys = keys_of(scenario);
  const std::vector<sim::Key> of_strategy = scenario.strategy->keys();
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const SearchKey& key = keys[i];
    SCOPED_TRACE(scenario.framework + " " + key.path);
    ASSERT_FALSE(key.values.empty());
    std::vector<std::string> once = key.values;
    std::ranges::sort(once);
    EXPECT_EQ(std::ranges::unique(once).size(), 0U) << "a value is there twice";
    if (!key.only_with.empty()) {
      const auto earlier = std::ranges::find(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(i), key.only_with,
                                             &SearchKey::path);
      ASSERT_NE(earlier, keys.begin() + static_cast<std::ptrdiff_t>(i)) << key.only_with;
      EXPECT_TRUE(key.only_value.empty() || offers(keys, key.only_with, key.only_value)) << key.only_value;
    }
    const std::string strategy = "strategy.";
    if (!key.path.starts_with(strategy)) {
      EXPECT_TRUE(key.path == "training.micro_batch" || key.path == "training.recompute");
      continue;
    }
    const auto described = std::ranges::find(of_strategy, key.path.substr(strategy.size()), &sim::Key::name);
    ASSERT_NE(described, of_strategy.end());
    for (const std::string& value : key.values)
      EXPECT_TRUE(value == strategies::usual_value || std::visit(Reads{value, *described}, described->target)) << value;
  }
}

// Of all values, each left out where another makes it of no use.
double combinations(const std::vector<SearchKey>& keys) {
  std::map<std::string, std::size_t> chosen;
  const auto count = [&](auto&& self, std::size_t from) -> double {
    if (from == keys.size()) return 1;
    const SearchKey& key = keys[from];
    const auto with = chosen.find(key.only_with);
    bool idle = false;
    if (!key.only_with.empty()) {
      const SearchKey& other = *find(keys, key.only_with);
      idle = with == chosen.end() ||
             (key.only_value.empty() ? with->second == 0 : other.values[with->second] != key.only_value);
    }
    if (idle) return self(self, from + 1);
    double sum = 0;
    const bool matters = std::ranges::any_of(keys, [&](const SearchKey& later) { return later.only_with == key.path; });
    if (!matters) return static_cast<double>(key.values.size()) * self(self, from + 1);
    for (std::size_t i = 0; i < key.values.size(); ++i) {
      chosen[key.path] = i;
      sum += self(self, from + 1);
    }
    chosen.erase(key.path);
    return sum;
  };
  return count(count, 0);
}

// None of them matters to what is offered, but a scenario has to be one.
const std::string llama = "global_batch: 1024, micro_batch: 1, sequence: 8192, precision: bf16";
const std::string gpt = "global_batch: 1536, micro_batch: 1, sequence: 2048, precision: fp16";

// With options of a scenario that runs, whatever the micro batch.
std::string runnable(std::string_view framework) {
  return std::string(framework) + (framework == "colossal-ai" ? ", plugin: engine" : "");
}

scenarios::Scenario llama_on_512(const std::string& framework) {
  return job("node: dgx-h100, nodes: 64", "llama3-70b", llama, framework);
}
scenarios::Scenario gpt3_on_1024(const std::string& framework) {
  return job("node: dgx-a100-80gb, nodes: 128", "gpt3-175b", gpt, framework);
}

TEST(SearchKeys, CanBeReadUnderEveryFramework) {
  for (const strategies::StrategyEntry& framework : strategies::catalog()) {
    const std::string name = runnable(framework.name);
    for (const char* cluster : {"node: dgx-h100, nodes: 64", "node: dgx-h100, nodes: 1", "node: tpu-v5p, nodes: 16"}) {
      for (const char* model : {"llama3-70b", "mixtral-8x7b"}) {
        scenarios::Scenario scenario = job(cluster, model, llama, name);
        ASSERT_FALSE(keys_of(scenario).empty()) << name;
        expect_readable(scenario);
      }
    }
  }
}

TEST(SearchKeys, BeginWithAPlanThatDividesNothing) {
  for (const strategies::StrategyEntry& framework : strategies::catalog()) {
    std::vector<std::string> settings;
    const scenarios::Scenario scenario = llama_on_512(runnable(framework.name));
    for (const SearchKey& key : keys_of(scenario)) {
      if (key.only_with.empty() && key.values.front() != strategies::usual_value)
        settings.push_back(key.path + "=" + key.values.front());
      for (const char* path : {"strategy.tensor", "strategy.pipeline", "strategy.context", "training.micro_batch"})
        EXPECT_TRUE(key.path != path || key.values.front() == "1") << path;
      EXPECT_TRUE(key.path != "training.recompute" || key.values.front() == "none");
    }
    EXPECT_EQ(tests::refusal("name: Plain\ncluster: {node: dgx-h100, nodes: 64}\nmodel: llama3-70b\ntraining: {" +
                                 llama + "}\nstrategy: {framework: " + std::string(framework.name) + "}\n",
                             settings),
              "")
        << framework.name;
  }
}

// Table 1 of "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM" (arXiv 2104.04473), with
// the chunks per stage that the repository's scripts have (examples/academic_paper_scripts/sc21/run_table_1.sh).
struct Published {
  int nodes, layers, hidden, heads, global_batch, micro_batch, tensor, pipeline, chunks;
};

TEST(SearchKeys, HoldWhatMegatronsAuthorsChose) {
  const std::vector<Published> table{
      {4, 24, 2304, 24, 512, 16, 1, 1, 1},       {8, 30, 3072, 32, 512, 16, 2, 1, 1},
      {16, 36, 4096, 32, 512, 16, 4, 1, 1},      {32, 40, 6144, 48, 1024, 8, 8, 1, 1},
      {64, 48, 8192, 64, 1536, 4, 8, 2, 1},      {128, 60, 10240, 80, 1792, 2, 8, 4, 3},
      {192, 80, 12288, 96, 2304, 2, 8, 8, 2},    {240, 96, 16384, 128, 2160, 1, 8, 16, 2},
      {315, 105, 20480, 128, 2520, 1, 8, 35, 3}, {384, 128, 25600, 160, 3072, 1, 8, 64, 1}};
  for (const Published& row : table) {
    SCOPED_TRACE(row.nodes);
    const auto text = [](int number) { return std::to_string(number); };
    const std::string model = "{base: gpt, layers: " + text(row.layers) + ", hidden: " + text(row.hidden) +
                              ", heads: " + text(row.heads) + ", vocab: 51200}";
    const std::string layout = ", tensor: " + text(row.tensor) + ", pipeline: " + text(row.pipeline);
    const std::vector<SearchKey> keys =
        keys_of(job("node: dgx-a100-80gb, nodes: " + text(row.nodes), model,
                    "global_batch: " + text(row.global_batch) + ", micro_batch: 1, sequence: 2048, precision: fp16",
                    "megatron-lm" + layout));
    EXPECT_TRUE(offers(keys, "strategy.tensor", text(row.tensor)));
    EXPECT_TRUE(offers(keys, "strategy.pipeline", text(row.pipeline)));
    EXPECT_TRUE(row.chunks == 1 || offers(keys, "strategy.virtual_pipeline", text(row.chunks)));
    EXPECT_TRUE(offers(keys, "training.micro_batch", text(row.micro_batch)));
    EXPECT_TRUE(offers(keys, "training.recompute", "full"));
    EXPECT_LT(combinations(keys), 1e6);
  }
}

// What is known of their runs: Llama 3 405B with a stage for embedding and head (arXiv 2407.21783, section 3.3.2).
TEST(SearchKeys, HoldThePublishedLayoutOfLlama3) {
  const std::vector<SearchKey> keys =
      keys_of(job("node: dgx-h100, nodes: 2048", "llama3.1-405b",
                  "global_batch: 2048, micro_batch: 1, sequence: 131072, precision: bf16", "megatron-lm, tensor: 8"));
  for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{
           {"tensor", "8"}, {"pipeline", "16"}, {"virtual_pipeline", "8"}, {"context", "16"}})
    EXPECT_TRUE(offers(keys, "strategy." + key, value)) << key;
}

TEST(SearchKeys, StayFewEnoughToBeSearched) {
  for (const strategies::StrategyEntry& framework : strategies::catalog()) {
    const std::string name(framework.name);
    EXPECT_LT(combinations(keys_of(llama_on_512(runnable(name)))), 300'000) << name;
    const bool divides = name == "megatron-lm" || name == "pytorch-fsdp" || name == "deepspeed" || name == "maxtext";
    if (divides) {
      EXPECT_LT(combinations(keys_of(gpt3_on_1024(name + ", tensor: 8"))), 400'000) << name;
    }
  }
}

TEST(SearchKeys, OfferExpertsToModelsThatHaveThem) {
  const std::vector<SearchKey> dense = keys_of(llama_on_512("megatron-lm"));
  EXPECT_EQ(find(dense, "strategy.expert"), nullptr);
  EXPECT_FALSE(offers(dense, "strategy.schedule", "dualpipe-v"));
  const std::vector<SearchKey> keys = keys_of(job("node: dgx-h100, nodes: 4", "mixtral-8x7b", llama, "megatron-lm"));
  EXPECT_EQ(find(keys, "strategy.expert")->values, (std::vector<std::string>{"1", "2", "4", "8"}));
  EXPECT_EQ(find(keys, "strategy.sequence_parallel")->values, std::vector<std::string>{"true"});
  EXPECT_TRUE(offers(keys, "strategy.schedule", "dualpipe-v"));
}

// In 16 bits with Adam a model of 70 billion parameters takes 1.1 TB: 2 GB on each of 512 devices, 141 GB on one of 8.
TEST(SearchKeys, ReachForTheHostWhereStateIsLarge) {
  EXPECT_EQ(find(keys_of(llama_on_512("deepspeed")), "strategy.offload_optimizer_device"), nullptr);
  const std::vector<SearchKey> keys = keys_of(job("node: dgx-h100, nodes: 1", "llama3-70b", llama, "deepspeed"));
  EXPECT_TRUE(offers(keys, "strategy.offload_optimizer_device", "cpu"));
}

TEST(SearchKeys, DivideGlobalBatchesThatAreNoPowersOfTwo) {
  const auto micro_batches = [](const std::string& batch) {
    const scenarios::Scenario scenario =
        job("node: dgx-a100-80gb, nodes: 1", "gpt3-175b", "global_batch: " + batch + ", micro_batch: 1, sequence: 2048",
            "megatron-lm");
    return find(keys_of(scenario), "training.micro_batch")->values;
  };
  EXPECT_EQ(micro_batches("2520"), (std::vector<std::string>{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "12",
                                                             "14", "15", "20", "24", "40"}));
  EXPECT_EQ(micro_batches("1536"),
            (std::vector<std::string>{"1", "2", "3", "4", "6", "8", "12", "16", "24", "32", "48", "64"}));
}

TEST(SearchKeys, DivideLayersEvenlyOrNearlySo) {
  const scenarios::Scenario scenario = job("node: dgx-a100-80gb, nodes: 315", "{base: gpt3-175b, layers: 105}",
                                           "global_batch: 2520, micro_batch: 1, sequence: 2048", "megatron-lm");
  const topology::Cluster cluster = scenarios::make_cluster(scenario);
  const strategies::Job of{scenario.model, scenario.training, scenario.accelerator, cluster};
  EXPECT_EQ(strategies::pipeline_sizes(of), (strategies::Sizes{1, 2, 3, 4, 5, 6, 7, 8, 12, 15, 21, 24, 35, 105}));
  EXPECT_EQ(strategies::chunk_counts(of, {1, 35}), strategies::Sizes{3});
  EXPECT_EQ(strategies::chunk_counts(of, {4}), (strategies::Sizes{2, 4, 8, 16}));
  EXPECT_EQ(strategies::context_sizes(of), (strategies::Sizes{1, 2}));
  EXPECT_EQ(strategies::tensor_sizes(of), (strategies::Sizes{1, 2, 4, 8}));
}

TEST(SearchKeys, ShardOverAllThatIsLeftOrOverDomains) {
  const scenarios::Scenario scenario =
      job("node: dgx-h100, nodes: 3", "llama3-8b", "global_batch: 24, micro_batch: 1, sequence: 2048", "pytorch-fsdp");
  const topology::Cluster cluster = scenarios::make_cluster(scenario);
  const strategies::Job of{scenario.model, scenario.training, scenario.accelerator, cluster};
  EXPECT_EQ(strategies::shard_key(of).values, (std::vector<std::string>{"", "8"}));
}

}  // namespace
}  // namespace trainyard
