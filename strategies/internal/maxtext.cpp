#include "strategies/internal/maxtext.hpp"

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "strategies/checks.hpp"
#include "strategies/search_values.hpp"

namespace trainyard::strategies {
namespace {

using Problems = std::vector<Problem>;

void report(Problems& problems, std::string key, std::string message) {
  problems.push_back({.key = std::move(key), .message = std::move(message)});
}

void check_features(Problems& problems, const MeshSizes& sizes, const workloads::Model& model) {
  const std::int64_t tensor = sizes.tensor();
  require_divides(problems, "strategy.tensor", tensor, model.heads, "the attention heads");
  if (model.heads % tensor == 0 && !model.latent_attention)
    require_divides(problems, "strategy.tensor", tensor, model.kv_heads, "the key-value heads");
  require_divides(problems, "strategy.tensor", tensor, model.hidden, "the width of the layers");
  require_divides(problems, "strategy.tensor", tensor, model.ffn_hidden,
                  model.experts ? "the width of an expert" : "the feed-forward width");
  if (model.experts)
    require_divides(problems, "strategy.tensor", tensor, model.experts->shared_hidden, "the width of shared experts");
}

void check_experts(Problems& problems, const MeshSizes& sizes, const workloads::Model& model) {
  if (sizes.expert() == 1) return;
  if (!model.experts) return report(problems, "strategy.expert", model.name + " has no experts; use 1");
  require_divides(problems, "strategy.expert", sizes.expert(), model.experts->count, "the experts");
}

void check_context(Problems& problems, const MaxTextOptions& o, const MeshSizes& sizes, const Job& job) {
  if (sizes.context() == 1) return;
  if (job.training.attention == workloads::AttentionKernel::unfused)
    report(problems, "training.attention", "sequences that ranks share need a flash kernel; use 'flash'");
  require_divides(problems, "strategy.context", 2 * sizes.context(), job.training.sequence,
                  "the sequence, of which every rank has two chunks");
  const auto exchange = o.context_exchange(sizes);
  if (sizes.of(MeshAxis::sequence) > 1 && sizes.of(MeshAxis::context) > 1 &&
      exchange != workloads::ContextExchange::all_to_all_and_ring)
    report(problems, "strategy.context_parallel_strategy",
           "beside ici_sequence_parallelism, which exchanges heads, keys and values can only go round: use 'ring'");
  if (exchange == workloads::ContextExchange::ring || exchange == workloads::ContextExchange::gather) return;
  const std::int64_t heads =
      exchange == workloads::ContextExchange::all_to_all ? sizes.context() : sizes.of(MeshAxis::sequence);
  require_divides(problems, "strategy.context_parallel_strategy", sizes.tensor() * heads, job.model.kv_heads,
                  "the key-value heads, which are exchanged for tokens");
}

void check_pipeline(Problems& problems, const MaxTextOptions& o, const MeshSizes& sizes, const Job& job) {
  const std::int64_t layers = job.model.total_layers();
  if (sizes.pipeline() == 1) return;
  const std::int64_t of_a_repeat = sizes.pipeline() * o.num_layers_per_pipeline_stage;
  const std::int64_t repeats = o.num_pipeline_repeats == the_rest ? layers / of_a_repeat : o.num_pipeline_repeats;
  if (of_a_repeat * repeats != layers || repeats < 1)
    return report(problems, "strategy.pipeline",
                  std::to_string(sizes.pipeline()) + " stages x num_layers_per_pipeline_stage " +
                      std::to_string(o.num_layers_per_pipeline_stage) + " x num_pipeline_repeats " +
                      std::to_string(repeats) + " are not the " + std::to_string(layers) +
                      " layers; the nearest number of stages that can be is " +
                      std::to_string(nearest_divisor(layers / std::gcd(layers, o.num_layers_per_pipeline_stage),
                                                     sizes.pipeline())));
  const std::int64_t per_rank = job.training.global_batch / (sizes.batches() * o.micro_batch(job, sizes));
  const std::int64_t steps = o.gradient_accumulation_steps;
  if (per_rank % steps != 0)
    return require_divides(problems, "strategy.gradient_accumulation_steps", steps, per_rank,
                           "the micro-batches of a rank");
  const std::int64_t pipelined = o.pipelined(job, sizes);
  if (pipelined * steps != per_rank)
    return report(problems, "strategy.num_pipeline_microbatches",
                  std::to_string(pipelined) + " x gradient_accumulation_steps " + std::to_string(steps) +
                      " are not the " + std::to_string(per_rank) +
                      " micro-batches of a rank (training.micro_batch); use " + std::to_string(per_rank / steps));
  if (pipelined % sizes.pipeline() != 0)
    report(problems, "strategy.num_pipeline_microbatches",
           std::to_string(pipelined) + " micro-batches are not a multiple of the " + std::to_string(sizes.pipeline()) +
               " stages; the nearest is " +
               std::to_string(std::max<std::int64_t>(1, (pipelined + sizes.pipeline() / 2) / sizes.pipeline()) *
                              sizes.pipeline()));
}

void check_accumulation(Problems& problems, const MaxTextOptions& o, const MeshSizes& sizes, const Job& job) {
  const std::int64_t steps = o.gradient_accumulation_steps;
  if (steps == 1 || sizes.pipeline() > 1) return;
  const std::int64_t per_rank = job.training.global_batch / (sizes.batches() * o.micro_batch(job, sizes));
  if (per_rank != steps)
    report(problems, "strategy.gradient_accumulation_steps",
           std::to_string(steps) + " contradicts training.micro_batch, which makes it " + std::to_string(per_rank));
}

// The options that say what is kept are read under one policy only.
bool names_tensors(const RematOptions& remat) {
  return remat.decoder_layer_input.value != "device" ||
         std::ranges::any_of(remat.tensors, [](const sim::Choice& choice) { return choice.value != "remat"; });
}

void check_remat(Problems& problems, const MaxTextOptions& o, const Job& job) {
  const std::string& policy = o.remat.remat_policy.value;
  const workloads::Recompute& recompute = job.training.recompute;
  if (policy == "recompute" && recompute.kind == workloads::Recompute::Kind::modules &&
      !job.training.automatic_recompute)
    report(problems, "training.recompute",
           "modules are named by Megatron-LM's names; use strategy.remat_policy, or 'custom' with the tensors to keep");
  if (policy != "custom" && names_tensors(o.remat))
    report(problems, "strategy.remat_policy", "tensors are kept by name under 'custom' alone, got '" + policy + "'");
}

// jax does not pad arrays that a mesh does not divide.
std::vector<std::string> uneven_shards(const MeshSizes& sizes, const Job& job) {
  if (job.model.hidden % sizes.shards() == 0) return {};
  return {"strategy.shard: " + std::to_string(sizes.shards()) + " shards do not divide layers of width " +
          std::to_string(job.model.hidden) + ", which jax refuses; the nearest that do is " +
          std::to_string(nearest_divisor(job.model.hidden, sizes.shards()))};
}

}  // namespace

workloads::ContextExchange MaxTextOptions::context_exchange(const MeshSizes& sizes) const {
  using workloads::ContextExchange;
  const std::string& strategy = context_parallel_strategy.value;
  if (sizes.of(MeshAxis::sequence) > 1)
    return sizes.of(MeshAxis::context) > 1 && strategy == "ring" ? ContextExchange::all_to_all_and_ring
                                                                 : ContextExchange::all_to_all;
  if (strategy == "ring") return ContextExchange::ring;
  return strategy == "ulysses" ? ContextExchange::all_to_all : ContextExchange::gather;
}

std::int64_t MaxTextOptions::micro_batch(const Job& job, const MeshSizes& sizes) const {
  if (job.training.micro_batch) return *job.training.micro_batch;
  const std::int64_t of_a_rank = job.training.global_batch / sizes.batches();
  std::int64_t passes = gradient_accumulation_steps;
  if (sizes.pipeline() > 1)
    passes = num_pipeline_microbatches == the_rest ? of_a_rank : passes * num_pipeline_microbatches;
  return std::max<std::int64_t>(1, of_a_rank / std::max<std::int64_t>(1, passes));
}

std::int64_t MaxTextOptions::repeats(const Job& job, const MeshSizes& sizes) const {
  if (sizes.pipeline() == 1) return 1;
  return job.model.total_layers() / (sizes.pipeline() * num_layers_per_pipeline_stage);
}

std::int64_t MaxTextOptions::pipelined(const Job& job, const MeshSizes& sizes) const {
  if (sizes.pipeline() == 1) return 1;
  if (num_pipeline_microbatches != the_rest) return num_pipeline_microbatches;
  return job.training.global_batch / (sizes.batches() * micro_batch(job, sizes) * gradient_accumulation_steps);
}

std::vector<sim::Key> MaxText::keys() {
  MaxTextOptions& o = options_;
  std::vector<sim::Key> keys{
      {"tensor", &o.tensor, "ranks of the tensor axis, inside slices as far as they fit (ici_tensor_parallelism)",
       false, 1, most_ranks},
      {"pipeline", &o.pipeline, "stages, likewise (ici_pipeline_parallelism)", false, 1, most_ranks},
      {"context", &o.context, "ranks that share a sequence, likewise (ici_context_parallelism)", false, 1, most_ranks},
      {"expert", &o.expert, "ranks that share the experts, likewise (ici_expert_parallelism)", false, 1, most_ranks},
      {"shard", &o.shard,
       "ranks of the fsdp axis, likewise (ici_fsdp_parallelism); absent: all that is left of a slice; fewer: data "
       "parallelism inside slices takes the rest",
       false, 1, most_ranks},
      {"overlap_tensor", &o.overlap_tensor,
       "products and their tensor-parallel collectives go in pieces that overlap (collective matmul, XLA's windowed "
       "einsum); absent: on TPUs where the gathered operand has at least 256 MiB"},
  };
  constexpr PerAxis<std::string_view> meanings{
      "ranks with copies of all parameters, inside a slice; -1: what the other ici axes leave",
      "pipeline stages inside a slice",
      "ranks that parameters and batch are divided over, inside a slice; -1: what the other ici axes leave",
      "as ici_fsdp_parallelism, along the other dimension of matrices",
      "ranks that divide tokens, and heads for the time of the attention, inside a slice",
      "ranks that divide every sequence, inside a slice",
      "ranks that features are divided over, inside a slice",
      "as ici_tensor_parallelism, with tokens divided between the products",
      "ranks that experts are divided over, inside a slice; they are shards of everything else"};
  constexpr PerAxis<std::string_view> dcn_meanings{
      "slices with copies of all parameters; -1: what the other dcn axes leave",
      "pipeline stages across slices; multiplied with those inside",
      "slices that parameters and batch are divided over",
      "as dcn_fsdp_parallelism, along the other dimension of matrices",
      "slices that divide tokens; never recommended",
      "slices that divide every sequence",
      "slices that features are divided over; never recommended",
      "as dcn_tensor_parallelism, with tokens divided between the products; never recommended",
      "slices that experts are divided over"};
  for (std::size_t i = 0; i < mesh_axes; ++i)
    keys.push_back({ici_names.at(i), &o.ici.at(i), meanings.at(i), false, the_rest, most_ranks});
  for (std::size_t i = 0; i < mesh_axes; ++i)
    keys.push_back({dcn_names.at(i), &o.dcn.at(i), dcn_meanings.at(i), false, the_rest, most_ranks});
  const std::vector<sim::Key> more{
      {"allow_split_physical_axes", &o.allow_split_physical_axes,
       "jax may divide an axis of the torus among several of the mesh; it is done here anyway, with a warning"},
      {"context_parallel_strategy", &o.context_parallel_strategy,
       "how ranks of the context axis see all keys and values: gathered, passed round, or heads for tokens"},
      {"remat_policy", &o.remat.remat_policy,
       "what layers keep for backward; recompute: as training.recompute says (full: full, selective: minimal, none: "
       "everything is kept)"},
      {"decoder_layer_input", &o.remat.decoder_layer_input, "custom: where the inputs of layers are kept"},
      {"num_vocab_tiling", &o.num_vocab_tiling, "pieces in which logits and loss are computed, one in memory at a time",
       false, 1, most_ranks},
      {"gradient_accumulation_steps", &o.gradient_accumulation_steps,
       "passes whose gradients add up; given training.micro_batch, it follows from that unless there is a pipeline",
       false, 1, most_ranks},
      {"num_layers_per_pipeline_stage", &o.num_layers_per_pipeline_stage, "layers of a stage in each repeat", false, 1,
       most_ranks},
      {"num_pipeline_repeats", &o.num_pipeline_repeats,
       "how often a micro-batch goes round all stages; -1: as often as the layers need", false, the_rest, most_ranks},
      {"num_pipeline_microbatches", &o.num_pipeline_microbatches,
       "micro-batches in the pipeline, a multiple of the stages; -1: all of a rank's", false, the_rest, most_ranks},
      {"pipeline_fsdp_ag_once", &o.pipeline_fsdp_ag_once,
       "parameters of a stage are gathered once for all micro-batches, and gradients reduced once"},
  };
  keys.insert(keys.end(), more.begin(), more.end());
  for (std::size_t i = 0; i < named_tensors; ++i)
    keys.push_back({named_tensor_names.at(i), &o.remat.tensors.at(i),
                    "custom: this tensor is computed again, kept on the device, or moved to the host"});
  return keys;
}

std::vector<Problem> MaxText::check(const Job& job) const {
  const MaxTextOptions& o = options_;
  Problems problems;
  if (!job.model.has_tokens() || job.model.structure == workloads::Model::Structure::encoder_decoder) {
    report(problems, "model",
           "MaxText trains decoders of language models; " + job.model.name +
               " is none: use framework 'pytorch-ddp' or 'pytorch-fsdp'");
    return problems;
  }
  const MeshResolution mesh = resolve_mesh(o, job.cluster);
  if (!mesh.sizes) return mesh.problems;
  const MeshSizes& sizes = *mesh.sizes;
  const Problems groups = check_layer_groups(job, "maxtext");
  problems.insert(problems.end(), groups.begin(), groups.end());
  check_features(problems, sizes, job.model);
  check_experts(problems, sizes, job.model);
  check_context(problems, o, sizes, job);
  check_remat(problems, o, job);
  const Problems batch = check_batch(job, sizes.batches(), o.micro_batch(job, sizes));
  problems.insert(problems.end(), batch.begin(), batch.end());
  if (!batch.empty()) return problems;
  check_pipeline(problems, o, sizes, job);
  check_accumulation(problems, o, sizes, job);
  return problems;
}

std::vector<std::string> MaxText::warnings(const Job& job) const {
  const MaxTextOptions& o = options_;
  const MeshSizes sizes = *resolve_mesh(o, job.cluster).sizes;
  std::vector<std::string> warnings = uneven_shards(sizes, job);
  for (const MeshAxis axis : {MeshAxis::tensor, MeshAxis::tensor_sequence, MeshAxis::sequence})
    if (sizes.dcn.at(index_of(axis)) > 1)
      warnings.push_back("strategy." + std::string(dcn_names.at(index_of(axis))) +
                         " above 1 is never recommended: its collectives are in the way of every layer, and cross "
                         "the data centre network");
  if (!o.allow_split_physical_axes && DeviceMesh(job.cluster, sizes).splits_torus_axes())
    warnings.emplace_back(
        "strategy.allow_split_physical_axes: an axis of the torus is divided among several of the mesh, which jax "
        "refuses unless this is true");
  if (o.overlap_tensor && sizes.tensor() == 1)
    warnings.emplace_back("strategy.overlap_tensor has no effect without tensor parallelism");
  if (o.remat.remat_policy.value != "recompute" && !job.training.recompute.none())
    warnings.emplace_back("training.recompute has no effect beside strategy.remat_policy");
  if (job.training.backend == workloads::Backend::compiled || job.training.backend == workloads::Backend::cuda_graph)
    warnings.emplace_back("training.backend has no effect: MaxText is always one program of XLA");
  if (o.pipeline_fsdp_ag_once && sizes.pipeline() == 1)
    warnings.emplace_back("strategy.pipeline_fsdp_ag_once has no effect without a pipeline");
  return warnings;
}

PlannedStep MaxText::plan(const Job& job) const {
  return plan_maxtext(options_, *resolve_mesh(options_, job.cluster).sizes, job);
}

namespace {

// Layers of a stage in each round, of all under some number of stages.
Sizes stage_depths(std::int64_t layers, const Sizes& pipelines) {
  std::set<std::int64_t> result{1};
  for (const std::int64_t stages : pipelines)
    if (stages > 1 && layers % stages == 0)
      for (const std::int64_t depth : divisors(layers / stages, layers)) result.insert(depth);
  return {result.begin(), result.end()};
}

}  // namespace

// A pipeline goes round several times unless stages have more layers (circular pipelines, layers/pipeline.py).
std::vector<SearchKey> MaxText::search_keys(const Job& job) const {
  if (!job.model.has_tokens() || job.model.structure == workloads::Model::Structure::encoder_decoder) return {};
  const std::string pipeline = "strategy.pipeline";
  const Sizes tensors = tensor_sizes(job);
  const Sizes pipelines = pipeline_sizes(job);
  const Sizes contexts = context_sizes(job);
  const Sizes experts = expert_sizes(job);
  std::vector<SearchKey> keys{
      shard_key(job),
      sizes_key("strategy.tensor", tensors),
      sizes_key(pipeline, pipelines),
      sizes_key("strategy.num_layers_per_pipeline_stage", stage_depths(job.model.total_layers(), pipelines), pipeline),
      switch_key("strategy.pipeline_fsdp_ag_once", pipeline),
      sizes_key("strategy.context", contexts)};
  if (job.model.experts) keys.push_back(sizes_key("strategy.expert", experts));
  keys.insert(keys.end(), {micro_batch_key(job), recompute_key(job)});
  keys = with_effect(std::move(keys), SearchEffect::schedule,
                     {"strategy.pipeline", "strategy.num_layers_per_pipeline_stage", "strategy.pipeline_fsdp_ag_once"});
  return with_effect(std::move(keys), SearchEffect::state, {"strategy.shard"});
}

}  // namespace trainyard::strategies
