#include "strategies/internal/colossal.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>
#include <utility>

#include "strategies/checks.hpp"
#include "strategies/search_values.hpp"

namespace trainyard::strategies {
namespace {

using Structure = workloads::Model::Structure;
using Problems = std::vector<Problem>;
using workloads::Precision;

void report(Problems& problems, std::string key, std::string message) {
  problems.push_back({.key = std::move(key), .message = std::move(message)});
}

// The number whose `power`th is `value`; 0 if there is none.
std::int64_t whole_root(std::int64_t value, int power) {
  const auto root = std::llround(std::pow(static_cast<double>(value), 1.0 / power));
  std::int64_t product = 1;
  for (int i = 0; i < power; ++i) product *= root;
  return product == value ? root : 0;
}

// Of sizes unit x q^power with q > 1 that divide the devices, the nearest; 0 if there is none.
std::int64_t nearest_power(std::int64_t wanted, std::int64_t devices, std::int64_t unit, int power) {
  std::int64_t best = 0;
  for (std::int64_t q = 2;; ++q) {
    std::int64_t size = unit;
    for (int i = 0; i < power; ++i) size *= q;
    if (size > devices) return best;
    if (devices % size == 0 && (best == 0 || std::llabs(size - wanted) < std::llabs(best - wanted))) best = size;
  }
}

std::string nearest_size(std::int64_t size) {
  return size > 0 ? "the nearest that is, and divides the devices, is " + std::to_string(size)
                  : "none divides the devices; use mode '1d'";
}

void check_size(Problems& problems, const ColossalOptions& o, const Job& job) {
  const std::int64_t devices = job.cluster.devices();
  const auto unlike = [&](const std::string& shape, std::int64_t unit, int power) {
    report(problems, "strategy.tensor",
           std::to_string(o.tensor) + " is not " + shape + ", as mode '" + o.mode.value + "' needs; " +
               nearest_size(nearest_power(o.tensor, devices, unit, power)));
  };
  switch (o.tensor_mode()) {
    case ColossalMode::one:
      break;
    case ColossalMode::two:
      if (o.side() == 0) return unlike("a square", 1, 2);
      break;
    case ColossalMode::two_and_a_half:
      if (!o.depth)
        return report(
            problems, "strategy.depth",
            "missing: how many layers of q x q ranks mode '2.5d' has; expected one with which tensor is depth "
            "x q x q, such as tensor / 4");
      if (o.side() == 0) return unlike("depth " + std::to_string(*o.depth) + " times a square", *o.depth, 2);
      break;
    case ColossalMode::three:
      if (o.side() == 0) return unlike("a cube", 1, 3);
      break;
  }
  require_divides(problems, "strategy.tensor", o.tensor, devices, "the devices");
  if (o.on_grid() && o.side() == 1)
    report(problems, "strategy.tensor",
           std::to_string(o.tensor) + " leaves one rank along a side, and mode '" + o.mode.value + "' needs several; " +
               nearest_size(nearest_power(o.tensor, devices, o.depth.value_or(1), o.mode.value == "3d" ? 3 : 2)));
}

void check_line(Problems& problems, const ColossalOptions& o, const Job& job) {
  const workloads::Model& model = job.model;
  if (o.tensor == 1) return;
  if (!model.has_tokens() || model.structure == Structure::encoder_decoder)
    return report(problems, "strategy.tensor",
                  "tensor parallelism divides one stack of layers over tokens; " + model.name + " has none: use 1");
  require_divides(problems, "strategy.tensor", o.tensor, model.heads, "the attention heads");
  if (model.heads % o.tensor == 0)
    require_divides(problems, "strategy.tensor", o.tensor, model.kv_heads, "the key-value heads");
  require_divides(problems, "strategy.tensor", o.tensor,
                  model.experts ? model.experts->dense_ffn_hidden : model.ffn_hidden, "the feed-forward width");
}

// The first size of the model that ranks along a side do not divide; nothing if they divide all. Biases of 2D and
// matrices of 3D are cut once more along one of their sides.
struct Size {
  std::string name;
  std::int64_t number = 0;
};
Size undivided(const ColossalOptions& o, const workloads::Model& model, std::int64_t side) {
  const std::int64_t parts = o.tensor_mode() == ColossalMode::two_and_a_half ? side : side * side;
  if (model.heads % side != 0) return {"the attention heads", model.heads};
  if (model.kv_heads % side != 0) return {"the key-value heads", model.kv_heads};
  if (model.ffn_hidden % parts != 0) return {"the feed-forward width", model.ffn_hidden};
  if (model.hidden % parts != 0) return {"the hidden size", model.hidden};
  return {};
}

std::int64_t nearest_fitting(const ColossalOptions& o, const Job& job) {
  const std::int64_t devices = job.cluster.devices();
  std::int64_t best = 0;
  for (std::int64_t side = 2; side <= devices; ++side) {
    const std::int64_t size =
        o.tensor_mode() == ColossalMode::three ? side * side * side : o.depth.value_or(1) * side * side;
    if (size > devices) break;
    if (devices % size != 0 || !undivided(o, job.model, side).name.empty()) continue;
    if (best == 0 || std::llabs(size - o.tensor) < std::llabs(best - o.tensor)) best = size;
  }
  return best;
}

void check_grid(Problems& problems, const ColossalOptions& o, const Job& job) {
  const workloads::Model& model = job.model;
  const std::int64_t side = o.side();
  const std::string mode = "mode '" + o.mode.value + "'";
  if (model.structure != Structure::decoder || model.experts || model.latent_attention || model.mtp_layers > 0)
    return report(problems, "strategy.mode",
                  o.mode.value + " is not supported yet for " + model.name +
                      ": it divides dense decoders, such as gpt or llama; use '1d'");
  if (job.training.adapters) report(problems, "training.finetune", mode + " does not support adapters yet; use full");
  if (job.training.precision == Precision::fp8)
    report(problems, "training.precision", mode + " has no 8-bit products; use bf16");
  if (const auto [name, number] = undivided(o, model, side); !name.empty())
    report(problems, "strategy.tensor",
           mode + " with " + std::to_string(side) + " ranks along a side does not divide " + name + " (" +
               std::to_string(number) + ") evenly, as it has to; " + nearest_size(nearest_fitting(o, job)));
  const std::int64_t samples = o.micro_batch(job);
  if (samples % o.sample_ranks() != 0)
    report(problems, job.training.micro_batch ? "training.micro_batch" : "training.global_batch",
           mode + " divides the samples of a micro-batch over " + std::to_string(o.sample_ranks()) +
               " ranks; a micro-batch of " + std::to_string(samples) + " is not a multiple, the nearest is " +
               std::to_string(std::max<std::int64_t>(1, samples / o.sample_ranks()) * o.sample_ranks()));
}

void check_plugin(Problems& problems, const ColossalOptions& o, const Job& job) {
  const std::string& plugin = o.plugin.value;
  if (plugin == "torch-ddp")
    return report(problems, "strategy.plugin",
                  "TorchDDPPlugin is PyTorch's DistributedDataParallel; use framework 'pytorch-ddp'");
  if (plugin == "low-level-zero" && o.tensor > 1)
    report(problems, "strategy.tensor",
           "LowLevelZero has no tensor parallelism; use 1, or strategy.plugin 'hybrid-parallel'");
  if (o.low_level_zero() && o.stage() != 1 && o.stage() != 2)
    report(problems, "strategy.zero_stage",
           std::to_string(o.stage()) + " is not supported yet with plugin '" + plugin +
               "'; use 1, where optimizer state is divided, or 2 for gradients as well");
  if (o.low_level_zero() && (job.training.precision == Precision::fp8 || job.training.adapters))
    report(problems, job.training.adapters ? "training.finetune" : "training.precision",
           "not supported yet with plugin '" + plugin + "'; use " + (job.training.adapters ? "full" : "bf16"));
  if (o.on_grid() && !o.engine())
    report(problems, "strategy.plugin",
           plugin + " has tensor parallelism in one dimension only; use 'engine', or mode '1d'");
  if (!o.gemini()) return;
  if (job.training.precision != Precision::fp16 && job.training.precision != Precision::bf16)
    report(problems, "training.precision", "Gemini trains in fp16 or bf16; use bf16, or strategy.plugin engine");
  if (job.training.adapters)
    report(problems, "training.finetune",
           "Gemini with adapters is not supported yet; use full, or framework 'pytorch-fsdp'");
}

void check_gemini(Problems& problems, const ColossalOptions& o, const Job& job) {
  if (!o.gemini()) return;
  const std::int64_t per_pass = o.data(job) * o.micro_batch(job);
  if (!o.enable_gradient_accumulation && per_pass > 0 && job.training.global_batch > per_pass)
    report(problems, "training.micro_batch",
           "gives " + std::to_string(job.training.global_batch / per_pass) +
               " micro-batches, whose gradients Gemini only adds up with strategy.enable_gradient_accumulation: true; "
               "set that, or use " +
               std::to_string(job.training.global_batch / o.data(job)));
}

}  // namespace

ColossalMode ColossalOptions::tensor_mode() const {
  if (mode.value == "2d") return ColossalMode::two;
  if (mode.value == "2.5d") return ColossalMode::two_and_a_half;
  return mode.value == "3d" ? ColossalMode::three : ColossalMode::one;
}

std::int64_t ColossalOptions::side() const {
  switch (tensor_mode()) {
    case ColossalMode::one:
      return tensor;
    case ColossalMode::two:
      return whole_root(tensor, 2);
    case ColossalMode::two_and_a_half:
      return tensor % depth.value_or(1) == 0 ? whole_root(tensor / depth.value_or(1), 2) : 0;
    case ColossalMode::three:
      return whole_root(tensor, 3);
  }
  return 0;
}

std::int64_t ColossalOptions::sample_ranks() const { return on_grid() ? tensor / side() : 1; }

std::int64_t ColossalOptions::micro_batch(const Job& job) const {
  return job.training.micro_batch.value_or(std::max<std::int64_t>(1, job.training.global_batch / data(job)));
}

std::vector<sim::Key> ColossalAi::keys() {
  ColossalOptions& o = options_;
  return {
      {"tensor", &o.tensor, "ranks that share every layer", false, 1, most_ranks},
      {"pipeline", &o.pipeline, "1: a pipeline is not supported yet", false, 1, most_ranks},
      {"context", &o.context, "1: sequences are not shared", false, 1, most_ranks},
      {"expert", &o.expert, "1: experts are not shared", false, 1, most_ranks},
      {"mode", &o.mode,
       "dimensions of tensor parallelism: 1d (as Megatron-LM), 2d (a square of ranks), 2.5d (`depth` squares), 3d (a "
       "cube)"},
      {"depth", &o.depth, "2.5d: squares of ranks, which have samples of their own", false, 1, most_ranks},
      {"plugin", &o.plugin,
       "engine: tensor parallelism and replicas; gemini: chunks of parameters, sharded; auto: engine for 2d to 3d, "
       "else "
       "gemini. The other plug-ins are not supported yet"},
      {"placement_policy", &o.placement_policy,
       "Gemini: static: what is sharded and offloaded are the shares below; auto: optimizer state is on the host, and "
       "chunks leave the device when memory is short"},
      {"shard_param_frac", &o.shard_param_frac,
       "Gemini, static: share of the parameters that go back to shards behind each use (1: as ZeRO-3, 0: as ZeRO-2)",
       false, 0, 1},
      {"offload_optim_frac", &o.offload_optim_frac,
       "Gemini, static: share of the optimizer state that is on the host, and updated there", false, 0, 1},
      {"offload_param_frac", &o.offload_param_frac,
       "Gemini, static: share of the parameters' shards that go to the host behind each use; without effect unless "
       "shard_param_frac and offload_optim_frac are 1",
       false, 0, 1},
      {"warmup_non_model_data_ratio", &o.warmup_non_model_data_ratio,
       "Gemini, auto: share of the memory that the first step leaves to activations; it is not simulated", false, 0, 1},
      {"steady_cuda_cap_ratio", &o.steady_cuda_cap_ratio,
       "Gemini, auto: share of the device's memory for all data, from the second step on", false, 0, 1},
      {"search_range_m", &o.search_range_m,
       "Gemini: sizes of chunks that are tried, above the smallest, in 2^20 elements", false, 0, 1 << 16},
      {"hidden_dim", &o.hidden_dim, "Gemini: elements between sizes that are tried (absent: 1024)", false, 1,
       most_ranks},
      {"min_chunk_size_m", &o.min_chunk_size_m,
       "Gemini: smallest chunk in 2^20 elements; fewer parameters are one chunk that is never sharded", false, 0,
       1 << 16},
      {"max_prefetch", &o.max_prefetch, "Gemini: chunks gathered ahead of their use, at most", false, 0, 1024},
      {"enable_gradient_accumulation", &o.enable_gradient_accumulation,
       "Gemini: gradients have chunks of their own, in which those of several micro-batches are added up"},
      {"enable_async_reduce", &o.enable_async_reduce,
       "Gemini: gradients are reduced on a stream of their own (false: on the one that computes)"},
      {"zero_stage", &o.zero_stage,
       "low-level-zero, hybrid-parallel: 1 divides optimizer state, 2 gradients as well (absent: 1, and 0, which is "
       "not "
       "supported yet, for hybrid-parallel)",
       false, 0, 2},
      {"reduce_bucket_size_in_m", &o.reduce_bucket_size_in_m,
       "low-level-zero, hybrid-parallel: gradients of a bucket in 2^20 elements (there: zero_bucket_size_in_m)", false,
       1, 1 << 16},
      {"overlap_communication", &o.overlap_communication,
       "low-level-zero, hybrid-parallel: buckets are reduced on a stream of their own (false: stage 1 reduces behind "
       "the backward pass)"},
      {"no_sync", &o.no_sync,
       "low-level-zero, hybrid-parallel, stage 1: gradients of several micro-batches are reduced once, with the last"},
      {"pin_memory", &o.pin_memory, "Gemini: shards on the host are in page-locked memory"},
  };
}

std::vector<Problem> ColossalAi::check(const Job& job) const {
  const ColossalOptions& o = options_;
  Problems problems;
  const auto only_one = [&](const std::string& key, std::int64_t value, const std::string& instead) {
    if (value != 1) report(problems, "strategy." + key, "not supported yet with colossal-ai; use 1, or " + instead);
  };
  only_one("pipeline", o.pipeline, "framework 'megatron-lm'");
  only_one("context", o.context, "framework 'megatron-lm'");
  only_one("expert", o.expert, "framework 'deepspeed'");
  if (job.model.structure == Structure::recommendation)
    report(problems, "model", "tables of a recommender are not divided by colossal-ai; use framework 'pytorch-ddp'");
  if (o.depth && o.tensor_mode() != ColossalMode::two_and_a_half)
    report(problems, "strategy.depth", "belongs to mode '2.5d'; leave it out");
  const Problems groups = check_layer_groups(job, "colossal-ai");
  problems.insert(problems.end(), groups.begin(), groups.end());
  check_size(problems, o, job);
  check_plugin(problems, o, job);
  if (!problems.empty()) return problems;
  if (o.on_grid())
    check_grid(problems, o, job);
  else
    check_line(problems, o, job);
  const Problems batch = check_batch(job, o.data(job), o.micro_batch(job));
  problems.insert(problems.end(), batch.begin(), batch.end());
  if (batch.empty()) check_gemini(problems, o, job);
  return problems;
}

std::vector<std::string> ColossalAi::warnings(const Job& job) const {
  const ColossalOptions& o = options_;
  const ColossalOptions usual;
  std::vector<std::string> warnings = warn_without_cuda(job, "colossal-ai");
  if (o.tensor > job.cluster.node().devices)
    warnings.emplace_back("strategy.tensor spans several nodes: its collectives cross the network");
  if (o.on_grid() && job.model.norm == workloads::Model::Norm::rmsnorm)
    warnings.emplace_back(
        "strategy.mode: colossal-ai has layer norms on grids of ranks only; RMS norms are simulated " +
        std::string("with the one sum that they need"));
  const auto idle = [&](bool given, const std::string& name, const std::string& without) {
    if (given) warnings.push_back("strategy." + name + " has no effect " + without);
  };
  const bool automatic = o.gemini() && o.placement_policy.value == "auto";
  const bool fixed = o.gemini() && !automatic;
  idle(!automatic && o.steady_cuda_cap_ratio != usual.steady_cuda_cap_ratio, "steady_cuda_cap_ratio",
       "without placement_policy 'auto'");
  idle(o.warmup_non_model_data_ratio != usual.warmup_non_model_data_ratio, "warmup_non_model_data_ratio",
       "after the first step, which is not simulated");
  idle(!fixed && o.shard_param_frac != 1, "shard_param_frac", "without Gemini's static placement");
  idle(!fixed && o.offload_optim_frac != 0, "offload_optim_frac", "without Gemini's static placement");
  idle(o.offload_param_frac != 0 && (!fixed || o.offloaded_parameters() == 0), "offload_param_frac",
       "unless shard_param_frac and offload_optim_frac are 1");
  idle(!o.low_level_zero() && o.zero_stage.has_value(), "zero_stage", "without low-level-zero or hybrid-parallel");
  idle(!o.gemini() && o.max_prefetch != 0, "max_prefetch", "without Gemini");
  idle(o.pin_memory && !automatic && (!fixed || o.offload_optim_frac == 0), "pin_memory", "without offload");
  return warnings;
}

PlannedStep ColossalAi::plan(const Job& job) const {
  if (options_.gemini()) return plan_gemini(options_, job);
  return options_.low_level_zero() ? plan_low_level_zero(options_, job) : plan_colossal_engine(options_, job);
}

namespace {

// Ranks of tensor parallelism on a line, and of squares, several squares and cubes, which cross nodes: that is what
// they are for.
Sizes grid_sizes(const Job& job, const Sizes& depths) {
  constexpr std::int64_t most_on_grid = 64;  // an estimate: none of the papers on them measures more
  std::set<std::int64_t> sizes;
  for (const std::int64_t size : tensor_sizes(job)) sizes.insert(size);
  for (std::int64_t side = 2; side * side <= most_on_grid; ++side) {
    sizes.insert({side * side, side * side * side});
    for (const std::int64_t depth : depths) sizes.insert(depth * side * side);
  }
  std::erase_if(sizes, [&](std::int64_t size) { return size > most_on_grid || job.cluster.devices() % size != 0; });
  return {sizes.begin(), sizes.end()};
}

}  // namespace

// hybrid-parallel without tensor parallelism is low-level-zero.
std::vector<SearchKey> ColossalAi::search_keys(const Job& job) const {
  if (job.model.structure == Structure::recommendation) return {};
  const std::string plugin = "strategy.plugin";
  const auto only = [](std::string path, std::vector<std::string> values, std::string with, std::string value) {
    return SearchKey{std::move(path), std::move(values), std::move(with), std::move(value)};
  };
  const bool on_grid = job.model.structure == Structure::decoder && !job.model.experts;
  const Sizes depths{2, 4};
  std::vector<SearchKey> keys{{.path = plugin, .values = {"engine", "hybrid-parallel", "gemini"}},
                              only("strategy.zero_stage", {"1", "2"}, plugin, "hybrid-parallel"),
                              only("strategy.shard_param_frac", {"0", "1"}, plugin, "gemini"),
                              only("strategy.enable_gradient_accumulation", {"false", "true"}, plugin, "gemini")};
  if (reaches_for_offload(job)) keys.push_back(only("strategy.offload_optim_frac", {"0", "1"}, plugin, "gemini"));
  if (on_grid) {
    keys.push_back(only("strategy.mode", {"1d", "2d", "2.5d", "3d"}, plugin, "engine"));
    keys.push_back(only("strategy.depth", texts(depths), "strategy.mode", "2.5d"));
  }
  keys.insert(keys.end(), {sizes_key("strategy.tensor", on_grid ? grid_sizes(job, depths) : tensor_sizes(job)),
                           micro_batch_key(job), recompute_key(job)});
  return keys;
}

}  // namespace trainyard::strategies
