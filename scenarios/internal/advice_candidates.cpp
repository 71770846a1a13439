#include "scenarios/internal/advice_candidates.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

#include "strategies/strategy.hpp"

namespace trainyard::scenarios {
namespace {

using strategies::SearchKey;

// Options of the frameworks that say when, where from and in which pieces the same is done.
constexpr std::array<std::string_view, 26> switches{"async_tensor_model_parallel_allreduce",
                                                    "contiguous_gradients",
                                                    "enable_async_reduce",
                                                    "forward_prefetch",
                                                    "gradient_accumulation_fusion",
                                                    "gradient_as_bucket_view",
                                                    "limit_all_gathers",
                                                    "moe_grouped_gemm",
                                                    "moe_permute_fusion",
                                                    "moe_router_fusion",
                                                    "moe_shared_expert_overlap",
                                                    "no_sync",
                                                    "overlap_comm",
                                                    "overlap_communication",
                                                    "overlap_grad_reduce",
                                                    "overlap_moe_expert_parallel_comm",
                                                    "overlap_p2p_comm",
                                                    "overlap_param_gather",
                                                    "overlap_tensor",
                                                    "pin_memory",
                                                    "pipe_partitioned",
                                                    "pipeline_fsdp_ag_once",
                                                    "post_validation",
                                                    "reduce_scatter",
                                                    "requires_gradient_sync",
                                                    "scatter_gather_tensors_in_pipeline"};
constexpr std::array<std::string_view, 6> bucket_sizes{"allgather_bucket_size",   "bucket_cap_mb",
                                                       "ddp_bucket_size",         "reduce_bucket_size",
                                                       "reduce_bucket_size_in_m", "stage3_prefetch_bucket_size"};

bool contains(std::span<const std::string_view> names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

std::int64_t number_of(const std::string& text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size() ? number : 0;
}

// As a scenario has it; empty for what is absent, and for kinds of values that nothing here varies.
template <class Value>
std::string text_of(const Value& value) {
  if constexpr (std::is_same_v<Value, bool>)
    return value ? "true" : "false";
  else if constexpr (std::is_same_v<Value, std::int64_t>)
    return std::to_string(value);
  else if constexpr (std::is_same_v<Value, std::string>)
    return value;
  else if constexpr (std::is_same_v<Value, sim::Choice>)
    return value.value;
  else if constexpr (requires { value.has_value(); })
    return value ? text_of(*value) : "";
  else
    return "";
}

// What a scenario says now, and what could be said instead.
class Candidates {
 public:
  Candidates(const Scenario& scenario, const Result& result) : scenario_(scenario) {
    for (const sim::Key& key : scenario.strategy->keys())
      now_["strategy." + std::string{key.name}] =
          std::visit([](const auto* target) { return text_of(*target); }, key.target);
    now_["training.micro_batch"] = std::to_string(result.micro_batch);
    now_["training.recompute"] = result.recompute;
    // Where the framework counts them itself, as it found them.
    now_["strategy.tensor"] = std::to_string(result.parallelism.tensor);
    now_["strategy.pipeline"] = std::to_string(result.parallelism.pipeline);
    now_["strategy.context"] = std::to_string(result.parallelism.context);
    const topology::Cluster cluster = make_cluster(scenario);
    keys_ = scenario.strategy->search_keys({.model = scenario.model,
                                            .training = scenario.training,
                                            .accelerator = scenario.accelerators.front(),
                                            .cluster = cluster});
  }

  std::vector<Settings> singles();
  std::vector<Settings> trade_offs();

 private:
  const std::string& now(const std::string& path) { return now_[path]; }
  const SearchKey* find(const std::string& path) const {
    const auto found = std::ranges::find(keys_, path, &SearchKey::path);
    return found == keys_.end() ? nullptr : &*found;
  }
  std::vector<std::string> other_values(const SearchKey& key);
  std::vector<Settings> needed_for(const SearchKey& key);
  void add_options();
  void add_kernels();
  void add(const Settings& settings) { all_.push_back(joined(settings, {})); }

  const Scenario& scenario_;
  std::map<std::string, std::string> now_;
  std::vector<SearchKey> keys_;
  std::vector<Settings> all_;
};

std::vector<std::string> Candidates::other_values(const SearchKey& key) {
  // A micro batch far from the one that was chosen changes too much else at once.
  constexpr std::int64_t most_apart = 8;
  const std::string& current = now(key.path);
  const std::int64_t number = number_of(current);
  std::vector<std::string> values;
  for (const std::string& value : key.values) {
    const std::int64_t other = number_of(value);
    const bool far = number > 0 && (other > most_apart * number || number > most_apart * other);
    if (value != current && !(key.path == "training.micro_batch" && far)) values.push_back(value);
  }
  return values;
}

// What has to be set so that the key means something: nothing, or one of several.
std::vector<Settings> Candidates::needed_for(const SearchKey& key) {
  const SearchKey* other = key.only_with.empty() ? nullptr : find(key.only_with);
  if (other == nullptr || other->values.empty()) return {{}};
  std::vector<std::string> values;
  if (!key.only_value.empty()) {
    if (now(other->path) != key.only_value) values.push_back(key.only_value);
  } else if (now(other->path) == other->values.front() || now(other->path).empty()) {
    values.assign(other->values.begin() + 1, other->values.end());
  }
  std::vector<Settings> deeper = needed_for(*other);
  if (values.empty()) return deeper;
  std::vector<Settings> all;
  if (now(other->path).empty()) all = deeper;  // what is not given may well be on
  for (const Settings& settings : deeper)
    for (const std::string& value : values) all.push_back(joined(settings, {{.path = other->path, .value = value}}));
  return all;
}

void Candidates::add_options() {
  for (const sim::Key& key : scenario_.strategy->keys()) {
    const std::string path = "strategy." + std::string{key.name};
    const std::string& current = now(path);
    if (contains(switches, key.name)) {
      if (current != "true") add({{.path = path, .value = "true"}});
      if (current != "false") add({{.path = path, .value = "false"}});
    }
    const std::int64_t size = number_of(current);
    if (!contains(bucket_sizes, key.name) || size == 0) continue;
    constexpr std::int64_t factor = 4;
    add({{.path = path, .value = std::to_string(size * factor)}});
    if (size >= factor) add({{.path = path, .value = std::to_string(size / factor)}});
  }
}

void Candidates::add_kernels() {
  if (!workloads::fuses_kernels(scenario_.training)) add({{.path = "training.compile", .value = "true"}});
  if (scenario_.model.has_tokens())
    for (const char* kernel : {"flash2", "flash3", "cudnn"}) add({{.path = "training.attention", .value = kernel}});
  if (scenario_.framework == "pytorch-ddp") add({{.path = "strategy.framework", .value = "pytorch-fsdp"}});
}

std::vector<Settings> Candidates::singles() {
  add_options();
  add_kernels();
  for (const SearchKey& key : keys_)
    for (const Settings& needed : needed_for(key))
      for (const std::string& value : other_values(key)) add(joined(needed, {{.path = key.path, .value = value}}));
  // Where there is time for some alone, the simple ones.
  std::ranges::stable_sort(all_, {}, &Settings::size);
  return std::move(all_);
}

std::vector<Settings> Candidates::trade_offs() {
  constexpr std::array<const char*, 3> sizes{"strategy.tensor", "strategy.pipeline", "strategy.context"};
  for (const char* smaller : sizes) {
    const std::int64_t size = number_of(now(smaller));
    for (const char* larger : sizes) {
      if (larger == smaller || find(smaller) == nullptr || find(larger) == nullptr) continue;
      for (std::int64_t factor = 2; factor <= size; factor *= 2)
        if (size % factor == 0)
          add({{.path = smaller, .value = std::to_string(size / factor)},
               {.path = larger, .value = std::to_string(number_of(now(larger)) * factor)}});
    }
  }
  // Memory that one of these takes, another gives.
  const SearchKey* recompute = find("training.recompute");
  const SearchKey* batch = find("training.micro_batch");
  if (recompute == nullptr || batch == nullptr) return std::move(all_);
  for (const std::string& kind : other_values(*recompute)) {
    for (const std::string& size : other_values(*batch))
      add({{.path = batch->path, .value = size}, {.path = recompute->path, .value = kind}});
    for (const char* path : sizes)
      if (const SearchKey* key = find(path))
        for (const std::string& value : other_values(*key))
          add({{.path = key->path, .value = value}, {.path = recompute->path, .value = kind}});
  }
  return std::move(all_);
}

}  // namespace

std::vector<Settings> single_changes(const Scenario& scenario, const Result& result) {
  return Candidates(scenario, result).singles();
}

std::vector<Settings> trade_offs(const Scenario& scenario, const Result& result) {
  return Candidates(scenario, result).trade_offs();
}

}  // namespace trainyard::scenarios
