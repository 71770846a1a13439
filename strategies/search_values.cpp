#include "strategies/search_values.hpp"

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "workloads/architecture.hpp"

namespace trainyard::strategies {
namespace {

// An estimate: stages are in step with the largest, so a quarter more layers in it than on average costs as much time.
constexpr double most_imbalance = 1.25;

// With fewer, chunks of one layer are so many that nobody counts embedding and head as layers among them.
constexpr std::int64_t least_stages_beside_ends = 4;

// An estimate: shorter parts of a sequence, and narrower parts of an expert, leave matrix products that no longer fill
// a device.
constexpr std::int64_t least_tokens = 1024;
constexpr std::int64_t least_expert_width = 1024;

// No published measurement of a language model that ships with Trainyard has more tokens per rank and pass, but for one
// at 163,840.
constexpr std::int64_t most_tokens = 131'072;
constexpr std::int64_t least_limit = 8;  // sequences: those of long ones are shared by ranks

// Divisors that are not 1, 3 or 5 times a power of two.
constexpr std::int64_t most_odd_sequences = 16;

// An estimate: activations want as much memory as state, and gathered parameters are on top.
constexpr double most_state = 0.25;
// Mixed precision with Adam: 2 bytes of parameters, 2 of gradients, 12 of master weights and moments (ZeRO, arXiv
// 1910.02054, section 3.1); beside adapters the parameters alone.
constexpr double state_bytes_per_parameter = 16;
constexpr double frozen_bytes_per_parameter = 2;

std::int64_t odd_part(std::int64_t number) {
  while (number % 2 == 0) number /= 2;
  return number;
}
bool power_of_two(std::int64_t number) { return odd_part(number) == 1; }

// Devices of the first scale-up domain that take part.
std::int64_t domain_devices(const topology::Cluster& cluster) {
  const auto domain = [&](std::int64_t device) {
    return cluster.domain_of(topology::DeviceId{static_cast<std::uint32_t>(device)});
  };
  std::int64_t count = 1;
  while (count < cluster.devices() && domain(count) == domain(0)) ++count;
  return count;
}

// Whether so many positions of a pipeline have as many layers each, or nearly.
bool shares_evenly(std::int64_t layers, std::int64_t positions) {
  return positions <= layers && layers % positions == 0;
}
bool shares_nearly(std::int64_t layers, std::int64_t positions) {
  const std::int64_t largest = (layers + positions - 1) / positions;
  return static_cast<double>(largest * positions) <= most_imbalance * static_cast<double>(layers);
}

bool one_stack(const workloads::Model& model) {
  return model.has_tokens() && model.structure != workloads::Model::Structure::encoder_decoder;
}

Sizes sorted(const std::set<std::int64_t>& numbers) { return {numbers.begin(), numbers.end()}; }

}  // namespace

std::vector<std::string> texts(std::span<const std::int64_t> numbers) {
  std::vector<std::string> result;
  for (const std::int64_t number : numbers) result.push_back(std::to_string(number));
  return result;
}

Sizes divisors(std::int64_t number, std::int64_t most) {
  Sizes result;
  for (std::int64_t i = 1; i <= std::min(number, most); ++i)
    if (number % i == 0) result.push_back(i);
  return result;
}

Sizes tensor_sizes(const Job& job) {
  if (!job.model.has_tokens()) return {1};
  const std::int64_t of_cluster = std::gcd(job.cluster.devices(), domain_devices(job.cluster));
  const std::int64_t common = std::gcd(of_cluster, std::gcd(job.model.heads, job.model.kv_heads));
  return divisors(common, common);
}

Sizes pipeline_sizes(const Job& job) {
  if (!one_stack(job.model)) return {1};
  const std::int64_t layers = job.model.total_layers();
  Sizes result;
  // Embedding and head may fill a stage each.
  for (const std::int64_t stages : divisors(job.cluster.devices(), layers + 2))
    if (shares_evenly(layers, stages) || shares_evenly(layers + 1, stages) || shares_evenly(layers + 2, stages) ||
        (odd_part(stages) <= 3 && shares_nearly(layers, stages)))
      result.push_back(stages);
  return result;
}

Sizes chunk_counts(const Job& job, const Sizes& pipelines) {
  const std::int64_t layers = job.model.total_layers();
  std::set<std::int64_t> result;
  for (const std::int64_t stages : pipelines) {
    if (stages == 1) continue;
    for (std::int64_t chunks = 2; stages * chunks <= layers + 2; ++chunks)
      if (shares_evenly(layers, stages * chunks) ||
          (stages >= least_stages_beside_ends && shares_evenly(layers + 2, stages * chunks)) ||
          (power_of_two(chunks) && shares_nearly(layers, stages * chunks)))
        result.insert(chunks);
  }
  return sorted(result);
}

std::vector<SearchKey> schedule_keys(const Job& job, const Sizes& pipelines, std::span<const std::string_view> others) {
  const std::string path = "strategy.schedule";
  SearchKey schedule{.path = path, .values = {"1f1b"}, .only_with = "strategy.pipeline"};
  schedule.values.insert(schedule.values.end(), others.begin(), others.end());
  const Sizes chunks = chunk_counts(job, pipelines);
  if (chunks.empty()) return {std::move(schedule)};
  schedule.values.insert(schedule.values.begin() + 1, "interleaved");
  return {
      std::move(schedule),
      {.path = "strategy.virtual_pipeline", .values = texts(chunks), .only_with = path, .only_value = "interleaved"}};
}

Sizes context_sizes(const Job& job) {
  Sizes result{1};
  if (!one_stack(job.model)) return result;
  for (std::int64_t ranks = 2; job.cluster.devices() % ranks == 0 && job.training.sequence % ranks == 0 &&
                               job.training.sequence / ranks >= least_tokens;
       ranks *= 2)
    result.push_back(ranks);
  return result;
}

Sizes expert_sizes(const Job& job) {
  if (!job.model.experts) return {1};
  const std::int64_t count = job.model.experts->count;
  return divisors(std::gcd(count, job.cluster.devices()), count);
}

Sizes expert_tensor_sizes(const Job& job) {
  if (!job.model.experts) return {1};
  const std::int64_t width = job.model.ffn_hidden;
  return divisors(std::gcd(width, job.cluster.devices()),
                  std::clamp<std::int64_t>(width / least_expert_width, 1, domain_devices(job.cluster)));
}

SearchKey shard_key(const Job& job) {
  SearchKey key{.path = "strategy.shard", .values = {std::string{usual_value}}};
  const std::int64_t domain = domain_devices(job.cluster);
  if (domain < job.cluster.devices()) key.values.push_back(std::to_string(domain));
  return key;
}

SearchKey sizes_key(std::string path, const Sizes& sizes, std::string only_with) {
  return {.path = std::move(path), .values = texts(sizes), .only_with = std::move(only_with)};
}

SearchKey switch_key(std::string path, std::string only_with) {
  return {.path = std::move(path), .values = {"false", "true"}, .only_with = std::move(only_with)};
}

std::vector<SearchKey> with_effect(std::vector<SearchKey> keys, SearchEffect effect,
                                   std::initializer_list<std::string_view> paths) {
  for (SearchKey& key : keys)
    if (std::ranges::find(paths, key.path) != paths.end()) key.effect = effect;
  return keys;
}

SearchKey micro_batch_key(const Job& job) {
  const std::int64_t batch = job.training.global_batch;
  const std::int64_t sequence = job.training.sequence;
  const std::int64_t limit = sequence == 0 ? batch : std::max(least_limit, most_tokens / sequence);
  std::set<std::int64_t> sizes;
  for (const std::int64_t size : divisors(batch, limit))
    if (size <= most_odd_sequences || odd_part(size) <= 5) sizes.insert(size);
  // All at once, where every device has sequences of its own, or in two, four, ... passes.
  if (batch % job.cluster.devices() == 0) {
    std::int64_t size = batch / job.cluster.devices();
    for (; size % 2 == 0; size /= 2)
      if (size <= limit) sizes.insert(size);
    if (size <= limit) sizes.insert(size);
  }
  return {.path = "training.micro_batch", .values = texts(sorted(sizes))};
}

SearchKey recompute_key(const Job& job) {
  if (!job.model.transformer()) return {.path = "training.recompute", .values = {"none", "full"}};
  return {.path = "training.recompute", .values = {"none", "selective", "full"}};
}

bool reaches_for_offload(const Job& job) {
  const double bytes = job.training.adapters ? frozen_bytes_per_parameter : state_bytes_per_parameter;
  const double state = bytes * static_cast<double>(workloads::trained_parameters(job.model)) /
                       static_cast<double>(job.cluster.devices());
  return state > most_state * static_cast<double>(job.leading_accelerator().memory.count);
}

}  // namespace trainyard::strategies
