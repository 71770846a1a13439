#include "strategies/internal/pytorch_fsdp.hpp"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "strategies/checks.hpp"
#include "strategies/search_values.hpp"

namespace trainyard::strategies {
namespace {

using Structure = workloads::Model::Structure;
using Problems = std::vector<Problem>;

void report(Problems& problems, std::string key, std::string message) {
  problems.push_back({.key = std::move(key), .message = std::move(message)});
}

std::optional<Reshard> parse_reshard(const std::string& text) {
  if (text == "true") return Reshard{};
  if (text == "false") return Reshard{.frees = false};
  std::int64_t group = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), group);
  if (error != std::errc{} || end != text.data() + text.size() || group < 1) return std::nullopt;
  if (group == 1) return Reshard{.frees = false};
  return Reshard{.frees = true, .group = group};
}

bool is_hybrid(const std::string& sharding) { return sharding == "HYBRID_SHARD" || sharding == "_HYBRID_SHARD_ZERO2"; }

// Which words belong to which version of FSDP.
void check_version(Problems& problems, const FsdpOptions& o, const Job& job) {
  const FsdpOptions usual;
  const auto only = [&](bool changed, const std::string& name, const std::string& instead) {
    if (changed) report(problems, "strategy." + name, instead);
  };
  const std::string& sharding = o.sharding_strategy.value;
  if (!o.first_version()) {
    const std::string second = "belongs to FSDP1; use fsdp_version: 1, or ";
    only(sharding != usual.sharding_strategy.value, "sharding_strategy", second + "reshard_after_forward and shard");
    only(o.backward_prefetch.value != usual.backward_prefetch.value, "backward_prefetch",
         second + "modules_to_backward_prefetch");
    only(o.forward_prefetch, "forward_prefetch", second + "modules_to_forward_prefetch");
    only(!o.limit_all_gathers, "limit_all_gathers", second + "leave it out: FSDP2 has no rate limiter");
    return;
  }
  const std::string first = "belongs to FSDP2; use fsdp_version: 2, or ";
  only(o.reshard_after_forward != usual.reshard_after_forward, "reshard_after_forward",
       first + "sharding_strategy: FULL_SHARD or SHARD_GRAD_OP");
  only(o.modules_to_forward_prefetch != usual.modules_to_forward_prefetch, "modules_to_forward_prefetch",
       first + "forward_prefetch");
  only(o.modules_to_backward_prefetch != usual.modules_to_backward_prefetch, "modules_to_backward_prefetch",
       first + "backward_prefetch");
  only(o.enable_fsdp_float8_all_gather, "enable_fsdp_float8_all_gather", first + "leave it out");
  if (o.shard && *o.shard != o.ranks(job) && !is_hybrid(sharding) && !(sharding == "NO_SHARD" && *o.shard == 1))
    report(problems, "strategy.shard",
           sharding + " has one shard group of all " + std::to_string(o.ranks(job)) +
               " ranks, or none; use sharding_strategy: HYBRID_SHARD");
}

void check_sharding(Problems& problems, const FsdpOptions& o, const Job& job) {
  const std::int64_t ranks = o.ranks(job);
  const std::int64_t shards = o.shards(job);
  require_divides(problems, "strategy.shard", shards, ranks,
                  o.tensor * o.pipeline > 1 ? "the devices of a tensor rank and stage" : "the devices");
  if (ranks % shards == 0)
    require_divides(problems, "strategy.shard", o.context, shards,
                    "the ranks of a shard group, which those that share a sequence (strategy.context) are part of");
  const auto reshard = o.reshard();
  if (!reshard)
    report(problems, "strategy.reshard_after_forward",
           "expected default, true, false or a number of ranks, got '" + o.reshard_after_forward + "'");
  else if (reshard->group > 0)
    require_divides(problems, "strategy.reshard_after_forward", reshard->group, shards, "the ranks of a shard group");
  if (reshard && reshard->group > 0 && (o.pipeline > 1 || o.expert > 1))
    report(problems, "strategy.reshard_after_forward",
           "with a pipeline or shared experts parameters go back to their shards or stay; use true or false");
  if (o.enable_fsdp_float8_all_gather && job.training.precision != workloads::Precision::fp8)
    report(problems, "strategy.enable_fsdp_float8_all_gather", "needs training.precision: fp8");
}

void check_tensor(Problems& problems, const FsdpOptions& o, const Job& job) {
  if (o.tensor == 1) return;
  const workloads::Model& model = job.model;
  if (!model.has_tokens() || model.structure == Structure::encoder_decoder)
    return report(problems, "strategy.tensor",
                  "tensor parallelism divides the tokens of one stack of layers; " + model.name + " has none: use 1");
  require_divides(problems, "strategy.tensor", o.tensor, model.heads, "the attention heads");
  if (model.heads % o.tensor == 0)
    require_divides(problems, "strategy.tensor", o.tensor, model.kv_heads, "the key-value heads");
  require_divides(problems, "strategy.tensor", o.tensor,
                  model.experts ? model.experts->dense_ffn_hidden : model.ffn_hidden, "the feed-forward width");
  if (model.experts)
    require_divides(problems, "strategy.tensor", o.tensor, model.experts->shared_hidden,
                    "the width of the shared experts");
  if (job.training.sequence % o.context == 0)
    require_divides(problems, "strategy.tensor", o.tensor, job.training.sequence / o.context,
                    o.context > 1 ? "the tokens of a rank" : "the sequence");
}

void check_context(Problems& problems, const FsdpOptions& o, const Job& job) {
  if (o.context == 1) return;
  if (!job.model.has_tokens() || job.model.structure == Structure::encoder_decoder)
    return report(problems, "strategy.context",
                  "ranks share the sequence of one stack of layers; " + job.model.name + " has none: use 1");
  if (job.training.attention == workloads::AttentionKernel::unfused)
    report(problems, "training.attention",
           "sequences that ranks share need a flash kernel; use 'flash', or strategy.context 1");
  require_divides(problems, "strategy.context", 2 * o.context, job.training.sequence,
                  "the sequence, of which every rank has two chunks");
}

void check_experts(Problems& problems, const FsdpOptions& o, const Job& job) {
  if (!job.model.experts) {
    if (o.expert > 1) report(problems, "strategy.expert", job.model.name + " has no experts; use 1");
    if (o.expert_tensor > 1) report(problems, "strategy.expert_tensor", job.model.name + " has no experts; use 1");
    return;
  }
  require_divides(problems, "strategy.expert", o.expert, job.model.experts->count, "the experts");
  require_divides(problems, "strategy.expert_tensor", o.expert_tensor, job.model.ffn_hidden, "the width of an expert");
  require_divides(problems, "strategy.expert", o.expert * o.expert_tensor, o.shards(job) * o.tensor,
                  "the ranks of a shard group x tensor, which experts are dealt out to");
}

bool in_v(ScheduleKind kind) { return kind == ScheduleKind::zb_v || kind == ScheduleKind::dualpipe_v; }

void check_chunks(Problems& problems, const FsdpOptions& o) {
  if (o.virtual_pipeline.value_or(1) > 1 && o.pipeline == 1)
    report(problems, "strategy.virtual_pipeline", "several chunks per stage need a pipeline of more than one stage");
  if (o.virtual_pipeline && o.pipeline > 1 && in_v(o.schedule_kind()) && *o.virtual_pipeline != 2)
    report(problems, "strategy.virtual_pipeline",
           o.schedule.value + " has two chunks per stage, there and back; use 2, or leave it out");
  if (o.virtual_pipeline.value_or(1) > 1 && o.schedule.value == "zb-h2")
    report(problems, "strategy.virtual_pipeline", "zb-h2 has one chunk per stage; use schedule 'zb-h1'");
}

void check_stages(Problems& problems, const FsdpOptions& o, const Job& job) {
  const std::int64_t layers = job.model.total_layers();
  const std::int64_t positions = o.pipeline * o.chunks();
  if (!o.stage_layers.empty()) {
    const std::int64_t sum = std::accumulate(o.stage_layers.begin(), o.stage_layers.end(), std::int64_t{0});
    if (static_cast<std::int64_t>(o.stage_layers.size()) != positions || sum != layers)
      report(problems, "strategy.stage_layers",
             "expected " + std::to_string(positions) + " numbers that add up to " + std::to_string(layers) +
                 " layers, got " + std::to_string(o.stage_layers.size()) + " that add up to " + std::to_string(sum));
  } else if (layers < positions) {
    report(problems, "strategy.pipeline",
           "pipeline x chunks per stage = " + std::to_string(positions) + " is more than the " +
               std::to_string(layers) + " layers");
  }
}

void check_pipeline(Problems& problems, const FsdpOptions& o, const Job& job) {
  if (o.pipeline > 1 && job.model.structure == Structure::encoder_decoder)
    report(
        problems, "strategy.pipeline",
        "torchtitan's pipelines are of one stack of layers, and nothing hands the encoder's output on to every stage "
        "of the decoder; use 1, and shard the state over more ranks");
  check_chunks(problems, o);
  check_stages(problems, o, job);
  if (o.pipeline == 1) return;
  if (o.overlaps_passes() && !job.training.recompute.none())
    report(problems, "training.recompute",
           "passes that overlap cannot recompute, as in torchtitan; use none, or "
           "strategy.pipeline_parallel_expert_parallel_overlap: false");
  if (o.overlaps_passes() && o.reshard() && o.reshard()->frees)
    report(problems, "strategy.reshard_after_forward", "passes that overlap keep their parameters; use false");
  // A plan has 16 streams: both ways and FSDP need 12, at most.
  const bool exchanges = o.expert * o.expert_tensor > 1;
  if (in_v(o.schedule_kind()) && job.training.activation_offload && o.tensor > 1 && (o.context > 1 || exchanges))
    report(problems, "training.activation_offload",
           "too much goes on at once for a plan: both ways of " + o.schedule.value +
               ", tensor and context or expert parallelism; use false, or schedule 'zb-h1'");
}

// Rounds are alike; DualPipe is filled before its passes overlap (ScheduleDualPipeV).
void check_micro_batches(Problems& problems, const FsdpOptions& o, std::int64_t micro_batches) {
  const ScheduleKind kind = o.schedule_kind();
  const std::string had = std::to_string(micro_batches) + " micro-batches per rank";
  if (kind == ScheduleKind::dualpipe_v && micro_batches < 2 * o.pipeline)
    return report(problems, "training.global_batch",
                  "gives " + had + "; " + o.schedule.value + " needs twice as many as stages, " +
                      std::to_string(2 * o.pipeline) + ", or more; use that, or schedule 'zb-v'");
  const bool in_rounds = kind == ScheduleKind::interleaved || (kind == ScheduleKind::zb_h1 && o.chunks() > 1);
  if (!in_rounds) return;
  const std::int64_t rounds = o.rounds(micro_batches);
  if (micro_batches % rounds != 0)
    report(problems, "training.global_batch",
           "gives " + had + ", which make no " + std::to_string(rounds) + " equal rounds, as " + o.schedule.value +
               " needs; the nearest number that does is " + std::to_string(micro_batches - micro_batches % rounds));
}

}  // namespace

std::int64_t FsdpOptions::chunks() const {
  if (pipeline == 1) return 1;
  if (in_v(schedule_kind())) return 2;
  return virtual_pipeline.value_or(schedule.value == "interleaved" ? 2 : 1);
}

// torch.distributed.pipelining has DualPipe in its form of a V alone.
ScheduleKind FsdpOptions::schedule_kind() const {
  const std::string& name = schedule.value;
  if (pipeline == 1) return ScheduleKind::one_forward_one_backward;
  if (name == "gpipe") return ScheduleKind::gpipe;
  if (name == "zb-h1") return ScheduleKind::zb_h1;
  if (name == "zb-h2") return ScheduleKind::zb_h2;
  if (name == "zb-v") return ScheduleKind::zb_v;
  if (name == "dualpipe" || name == "dualpipe-v") return ScheduleKind::dualpipe_v;
  const bool several = virtual_pipeline.value_or(name == "interleaved" ? 2 : 1) > 1;
  return several ? ScheduleKind::interleaved : ScheduleKind::one_forward_one_backward;
}

// FSDP1 shards within a node by default where it is hybrid.
std::int64_t FsdpOptions::shards(const Job& job) const {
  const std::string& sharding = sharding_strategy.value;
  if (first_version() && sharding == "NO_SHARD") return 1;
  if (shard) return *shard;
  if (!first_version() || !is_hybrid(sharding)) return ranks(job);
  return std::max<std::int64_t>(1, std::min(ranks(job), job.cluster.node().devices / tensor));
}

std::int64_t FsdpOptions::micro_batch(const Job& job) const {
  if (job.training.micro_batch) return *job.training.micro_batch;
  return pipeline > 1 ? 1 : std::max<std::int64_t>(1, job.training.global_batch / data(job));
}

// FSDP2 reshards unless there is a pipeline (torchtitan/distributed/fsdp.py, get_fsdp_reshard_after_forward_policy).
std::optional<Reshard> FsdpOptions::reshard() const {
  const std::string& sharding = sharding_strategy.value;
  if (first_version()) return Reshard{.frees = sharding == "FULL_SHARD" || sharding == "HYBRID_SHARD"};
  if (reshard_after_forward == "default") return Reshard{.frees = pipeline == 1};
  return parse_reshard(reshard_after_forward);
}

std::vector<sim::Key> PytorchFsdp::keys() {
  FsdpOptions& o = options_;
  return {
      {"tensor", &o.tensor, "ranks that share every layer, and the sequence between layers (TP with SequenceParallel)",
       false, 1, most_ranks},
      {"pipeline", &o.pipeline, "stages that the layers are divided over", false, 1, most_ranks},
      {"context", &o.context, "ranks that share a sequence; they are part of a shard group", false, 1, most_ranks},
      {"expert", &o.expert, "ranks that share the experts: out of the shard group and the tensor ranks", false, 1,
       most_ranks},
      {"expert_tensor", &o.expert_tensor, "ranks that share every expert", false, 1, most_ranks},
      {"overlap_tensor", &o.overlap_tensor,
       "cut products and their tensor-parallel collectives into pieces that overlap (async TP)"},
      {"context_parallel_rotate_method", &o.context_parallel_rotate_method,
       "how ranks that share a sequence see its keys and values: all gathered, or passed round"},
      {"schedule", &o.schedule,
       "order of forward and backward passes in a stage; torchtitan's pipeline_parallel_schedule: gpipe (several "
       "chunks: LoopedBFS), 1f1b, interleaved (Interleaved1F1B), zb-h1 (InterleavedZeroBubble), zb-v (ZBVZeroBubble), "
       "dualpipe-v (DualPipeV, for which dualpipe stands too); zb-h2 it does not have"},
      {"virtual_pipeline", &o.virtual_pipeline,
       "model chunks per stage; above 1 1f1b is interleaved (absent: 1, with `interleaved`, zb-v and dualpipe-v 2)",
       false, 1, most_ranks},
      {"pipeline_parallel_expert_parallel_overlap", &o.pipeline_parallel_expert_parallel_overlap,
       "dualpipe-v with shared experts: tokens of one pass are exchanged while another computes"},
      {"stage_layers", &o.stage_layers,
       "layers of each stage, chunk by chunk; absent: spread evenly, first and last stage get fewer"},
      {"fsdp_version", &o.fsdp_version, "2: fully_shard; 1: FullyShardedDataParallel, with flat parameters", false, 1,
       2},
      {"shard", &o.shard, "ranks that hold one copy of the sharded state; absent: all (fewer is hybrid sharding, HSDP)",
       false, 1, most_ranks},
      {"requires_gradient_sync", &o.requires_gradient_sync,
       "reduce the gradients of every micro-batch; false: of the last, whole ones are kept until then "
       "(set_requires_gradient_sync, no_sync); a pipeline always does that"},
      {"checkpoint_early_stop", &o.checkpoint_early_stop,
       "recomputation of a layer ends with the last value that its backward pass needs (set_checkpoint_early_stop, "
       "early_stop); PyTorch before 2.1: false"},
      {"cpu_offload", &o.cpu_offload, "shards, their gradients and the optimizer are on the host (CPUOffloadPolicy)"},
      {"pin_memory", &o.pin_memory, "cpu_offload: host memory is pinned, so that the host need not wait for copies"},
      {"reshard_after_forward", &o.reshard_after_forward,
       "FSDP2: free gathered parameters after forward: true, false, or a number of ranks to reshard over; default: "
       "true, but false with a pipeline"},
      {"modules_to_forward_prefetch", &o.modules_to_forward_prefetch,
       "FSDP2: layers gathered ahead in forward (set_modules_to_forward_prefetch); 0: the next, as soon as the host "
       "gets there",
       false, 0, 64},
      {"modules_to_backward_prefetch", &o.modules_to_backward_prefetch,
       "FSDP2: layers gathered ahead in backward (set_modules_to_backward_prefetch)", false, 1, 64},
      {"enable_fsdp_float8_all_gather", &o.enable_fsdp_float8_all_gather,
       "FSDP2: gather the matrices of layers in 8 bits (torchao's float8)"},
      {"sharding_strategy", &o.sharding_strategy,
       "FSDP1: what is sharded; hybrid: over `shard` ranks (absent: a node)"},
      {"backward_prefetch", &o.backward_prefetch,
       "FSDP1: gather the next layer of backward before this one's pass, behind it, or when it is needed"},
      {"forward_prefetch", &o.forward_prefetch, "FSDP1: gather the next layer of forward before this one's pass"},
      {"limit_all_gathers", &o.limit_all_gathers,
       "FSDP1: the host waits until at most two layers are gathered at once"},
  };
}

std::vector<Problem> PytorchFsdp::check(const Job& job) const {
  const FsdpOptions& o = options_;
  Problems problems;
  if (job.model.structure == Structure::recommendation)
    report(problems, "model",
           "tables of a recommender are divided whole, not sharded by pytorch-fsdp; use framework 'pytorch-ddp'");
  const Problems groups = check_layer_groups(job, "pytorch-fsdp");
  problems.insert(problems.end(), groups.begin(), groups.end());
  check_tensor(problems, o, job);
  check_context(problems, o, job);
  check_pipeline(problems, o, job);
  const std::int64_t model_parallel = o.tensor * o.pipeline * o.context;
  if (job.cluster.devices() % model_parallel != 0) {
    report(problems, "strategy.tensor",
           "tensor x pipeline x context = " + std::to_string(model_parallel) + " does not divide the " +
               std::to_string(job.cluster.devices()) + " devices; the nearest product that does is " +
               std::to_string(nearest_divisor(job.cluster.devices(), model_parallel)));
    return problems;
  }
  check_version(problems, o, job);
  check_sharding(problems, o, job);
  check_experts(problems, o, job);
  const std::int64_t micro_batch = job.training.micro_batch.value_or(1);
  const Problems batch = check_batch(job, o.data(job), micro_batch);
  problems.insert(problems.end(), batch.begin(), batch.end());
  if (batch.empty() && o.pipeline > 1)
    check_micro_batches(problems, o, job.training.global_batch / (o.data(job) * micro_batch));
  return problems;
}

namespace {

void add_pipeline_warnings(std::vector<std::string>& warnings, const FsdpOptions& o, const Job& job) {
  if (!o.pipeline_parallel_expert_parallel_overlap &&
      !(o.pipeline > 1 && o.schedule_kind() == ScheduleKind::dualpipe_v && o.expert > 1))
    warnings.emplace_back(
        "strategy.pipeline_parallel_expert_parallel_overlap has no effect without schedule 'dualpipe-v' and shared "
        "experts");
  if (o.pipeline == 1) return;
  if (o.schedule.value == "zb-h2")
    warnings.emplace_back(
        "strategy.schedule: torch.distributed.pipelining has no zb-h2; its zero-bubble schedules are zb-h1 and zb-v");
  if (o.schedule.value == "dualpipe")
    warnings.emplace_back(
        "strategy.schedule: torch.distributed.pipelining has DualPipe in a V only, which is simulated: 'dualpipe-v'");
  if (splits_backward(o.schedule_kind()) && !job.training.recompute.none())
    warnings.emplace_back(
        "training.recompute: PyTorch recomputes a layer anew for the gradients of each of its weights where backward "
        "passes are split (pytorch issue 136766); simulated is one recomputation, whose results stay until then");
}

}  // namespace

std::vector<std::string> PytorchFsdp::warnings(const Job& job) const {
  const FsdpOptions& o = options_;
  std::vector<std::string> warnings = warn_without_tensorflow(job, "pytorch-fsdp");
  if (o.first_version() && o.tensor * o.pipeline * o.context * o.expert > 1)
    warnings.emplace_back(
        "strategy.fsdp_version: torchtitan composes tensor, pipeline, context and expert parallelism "
        "with FSDP2 only");
  if (o.overlap_tensor && o.tensor == 1)
    warnings.emplace_back("strategy.overlap_tensor has no effect without tensor parallelism");
  if (o.overlap_tensor && o.tensor > 1 && !workloads::fuses_kernels(job.training))
    warnings.emplace_back(
        "strategy.overlap_tensor: asynchronous tensor parallelism needs a compiled model "
        "(training.compile: true)");
  if (o.tensor > job.cluster.node().devices)
    warnings.emplace_back("strategy.tensor spans several nodes: its collectives cross the network");
  add_pipeline_warnings(warnings, o, job);
  if (!o.pin_memory && !o.cpu_offload) warnings.emplace_back("strategy.pin_memory has no effect without cpu_offload");
  return warnings;
}

PlannedStep PytorchFsdp::plan(const Job& job) const { return plan_fsdp(options_, job); }

// Not gpipe: 1f1b has the same bubble and keeps fewer micro-batches. dualpipe-v hides exchanges of tokens.
std::vector<SearchKey> PytorchFsdp::search_keys(const Job& job) const {
  if (job.model.structure == Structure::recommendation) return {};
  const bool experts = job.model.experts.has_value();
  const Sizes tensors = tensor_sizes(job);
  const Sizes pipelines = pipeline_sizes(job);
  std::vector<std::string_view> schedules{"zb-h1", "zb-v"};
  if (experts) schedules.emplace_back("dualpipe-v");
  std::vector<SearchKey> keys{shard_key(job), switch_key("strategy.reshard_after_forward"),
                              sizes_key("strategy.tensor", tensors), sizes_key("strategy.pipeline", pipelines),
                              sizes_key("strategy.context", context_sizes(job))};
  const std::vector<SearchKey> of_schedule = schedule_keys(job, pipelines, schedules);
  keys.insert(keys.end(), of_schedule.begin(), of_schedule.end());
  // Only a compiled model can overlap them.
  if (workloads::fuses_kernels(job.training)) keys.push_back(switch_key("strategy.overlap_tensor", "strategy.tensor"));
  if (experts) keys.push_back(sizes_key("strategy.expert", expert_sizes(job)));
  keys.insert(keys.end(), {micro_batch_key(job), recompute_key(job)});
  if (reaches_for_offload(job)) keys.push_back(switch_key("strategy.cpu_offload"));
  keys = with_effect(std::move(keys), SearchEffect::schedule,
                     {"strategy.pipeline", "strategy.schedule", "strategy.virtual_pipeline"});
  return with_effect(std::move(keys), SearchEffect::state,
                     {"strategy.shard", "strategy.reshard_after_forward", "strategy.cpu_offload"});
}

}  // namespace trainyard::strategies
