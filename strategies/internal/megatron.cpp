#include "strategies/internal/megatron.hpp"

#include <algorithm>
#include <array>

#include "strategies/checks.hpp"
#include "strategies/internal/megatron_style.hpp"
#include "strategies/search_values.hpp"

namespace trainyard::strategies {
namespace {

constexpr std::array<std::string_view, 5> axis_names{"tp", "cp", "ep", "dp", "pp"};

void check_context(std::vector<Problem>& problems, const MegatronOptions& o, const Job& job) {
  if (o.context == 1) return;
  const auto report = [&](std::string key, std::string message) {
    problems.push_back({.key = std::move(key), .message = std::move(message)});
  };
  if (job.model.structure == workloads::Model::Structure::encoder_decoder)
    report("strategy.context", "encoder and decoder cannot share their sequences over ranks; use 1");
  if (job.training.attention == workloads::AttentionKernel::unfused)
    report("training.attention", "sequences that ranks share need a flash kernel; use 'flash', or strategy.context 1");
  // Two chunks of the sequence per rank, an early and a late one.
  require_divides(problems, "strategy.context", 2 * o.context, job.training.sequence,
                  "the sequence, of which every rank has two chunks");
  const std::vector<std::int64_t>& levels = o.hierarchical_context_parallel_sizes;
  if (o.cp_comm_type.value == "a2a+p2p" && (levels.size() != 2 || levels[0] < 1 || levels[0] * levels[1] != o.context))
    return report("strategy.hierarchical_context_parallel_sizes",
                  "cp_comm_type a2a+p2p needs two numbers whose product is context = " + std::to_string(o.context) +
                      ", such as [2, " + std::to_string(o.context / 2) + "]");
  if (job.model.heads % o.tensor != 0 || job.model.kv_heads % o.tensor != 0) return;
  require_divides(problems, "strategy.context", o.context_heads(), job.model.heads / o.tensor,
                  "the attention heads of a tensor rank, as an all-to-all needs");
  if (job.model.heads / o.tensor % o.context_heads() == 0)
    require_divides(problems, "strategy.context", o.context_heads(), job.model.kv_heads / o.tensor,
                    "the key-value heads of a tensor rank, as an all-to-all needs");
}

// What Megatron-LM refuses (megatron/core/transformer/transformer_config.py __post_init__).
void check_expert_options(std::vector<Problem>& problems, const MegatronOptions& o, const Job& job) {
  const auto report = [&](std::string key, std::string message) {
    problems.push_back({.key = std::move(key), .message = std::move(message)});
  };
  const std::string& dispatcher = o.moe_token_dispatcher_type.value;
  if (o.moe_shared_expert_overlap) {
    if (job.model.experts->shared_hidden == 0)
      report("strategy.moe_shared_expert_overlap", job.model.name + " has no shared experts; use false");
    if (dispatcher != "auto" && dispatcher != "alltoall")
      report("strategy.moe_token_dispatcher_type",
             "moe_shared_expert_overlap works with the alltoall dispatcher alone; use 'alltoall', got '" + dispatcher +
                 "'");
    if (o.overlap_moe_expert_parallel_comm.value_or(false))
      report("strategy.overlap_moe_expert_parallel_comm",
             "cannot go with moe_shared_expert_overlap, which hides the same exchanges; use one of the two");
  }
  if (!o.use_fp8_dispatch) return;
  if (dispatcher == "alltoall" || dispatcher == "allgather" || o.moe_shared_expert_overlap)
    report("strategy.use_fp8_dispatch", "only fused kernels send 8 bits; use moe_token_dispatcher_type 'flex'");
  if (job.training.precision != workloads::Precision::fp8)
    report("strategy.use_fp8_dispatch", "needs training.precision: fp8, whose products take what arrives");
}

void check_experts(std::vector<Problem>& problems, const MegatronOptions& o, const Job& job) {
  const auto report = [&](std::string key, std::string message) {
    problems.push_back({.key = std::move(key), .message = std::move(message)});
  };
  const workloads::Model& model = job.model;
  if (!model.experts) {
    if (o.expert > 1) report("strategy.expert", model.name + " has no experts; use 1");
    if (o.expert_tensor > 1) report("strategy.expert_tensor", model.name + " has no experts; use 1");
    return;
  }
  require_divides(problems, "strategy.expert", o.expert, model.experts->count, "the experts");
  require_divides(problems, "strategy.expert_tensor", o.expert_tensor, model.ffn_hidden, "the width of an expert");
  require_divides(problems, "strategy.tensor", o.tensor, model.experts->dense_ffn_hidden,
                  "the width of the dense feed-forward blocks");
  require_divides(problems, "strategy.tensor", o.tensor, model.experts->shared_hidden,
                  "the width of the shared experts");
  if (o.overlap_moe_expert_parallel_comm.value_or(false)) {
    if (o.expert == 1) report("strategy.overlap_moe_expert_parallel_comm", "needs expert parallelism; use false");
    if (o.pipeline > 1 && o.schedule_kind() != ScheduleKind::interleaved)
      report("strategy.overlap_moe_expert_parallel_comm",
             "needs schedule 'interleaved' in a pipeline, as in Megatron-LM");
    if (job.training.recompute.full())
      report("strategy.overlap_moe_expert_parallel_comm",
             "cannot go with full recomputation; recompute modules instead");
  }
  check_expert_options(problems, o, job);
  if (o.tensor > 1 && !o.sequence_parallel)
    report("strategy.sequence_parallel",
           "experts beside tensor parallelism need sequence_parallel: true, as in Megatron-LM");
}

// What the order of ranks and the numbers of devices allow. Tensor x pipeline x context divides the devices.
void check_ranks(std::vector<Problem>& problems, const MegatronOptions& o, const Job& job) {
  const auto report = [&](std::string key, std::string message) {
    problems.push_back({.key = std::move(key), .message = std::move(message)});
  };
  if (o.num_distributed_optimizer_instances > 1 && !o.distributed_optimizer)
    report("strategy.num_distributed_optimizer_instances", "needs distributed_optimizer: true");
  require_divides(problems, "strategy.num_distributed_optimizer_instances", o.num_distributed_optimizer_instances,
                  o.data(job), "the data-parallel ranks");
  if (o.fp8_param_gather && !(o.distributed_optimizer && job.training.precision == workloads::Precision::fp8))
    report("strategy.fp8_param_gather", "needs distributed_optimizer: true and training.precision: fp8");
  if (!job.model.experts) return;
  const std::int64_t of_experts = o.expert_tensor * o.expert * o.pipeline;
  if (job.cluster.devices() % of_experts != 0) {
    report("strategy.expert", "expert x expert_tensor x pipeline = " + std::to_string(of_experts) +
                                  " does not divide the " + std::to_string(job.cluster.devices()) +
                                  " devices; the nearest product that does is " +
                                  std::to_string(nearest_divisor(job.cluster.devices(), of_experts)));
    return;
  }
  require_divides(problems, "strategy.num_distributed_optimizer_instances", o.num_distributed_optimizer_instances,
                  o.expert_data(job), "the ranks that have the same experts");
  const std::optional<std::vector<std::string>> order = parse_rank_order(o.order);
  if (!order) return;
  std::int64_t dense = 1;
  std::int64_t expert = 1;
  for (const std::string& axis : *order) {
    if (axis == "pp") break;
    dense *= axis == "tp" ? o.tensor : axis == "cp" ? o.context : axis == "dp" ? o.data(job) : 1;
    expert *= axis == "tp" ? o.expert_tensor : axis == "ep" ? o.expert : axis == "dp" ? o.expert_data(job) : 1;
  }
  if (dense != expert)
    report("strategy.order", "the stages of '" + o.order +
                                 "' would be other ranks for experts than for the rest; put pp last, as in "
                                 "'tp-cp-ep-dp-pp'");
}

}  // namespace

std::optional<std::vector<std::string>> parse_rank_order(const std::string& text) {
  std::vector<std::string> axes;
  for (std::size_t from = 0; from <= text.size();) {
    const std::size_t dash = std::min(text.find('-', from), text.size());
    axes.push_back(text.substr(from, dash - from));
    from = dash + 1;
  }
  std::vector<std::string> sorted = axes;
  std::vector<std::string> expected(axis_names.begin(), axis_names.end());
  std::ranges::sort(sorted);
  std::ranges::sort(expected);
  if (sorted != expected) return std::nullopt;
  return axes;
}

std::int64_t MegatronOptions::data(const Job& job) const {
  return job.cluster.devices() / (tensor * pipeline * context);
}

workloads::ContextExchange MegatronOptions::context_exchange() const {
  if (cp_comm_type.value == "all_gather") return workloads::ContextExchange::gather;
  if (cp_comm_type.value == "a2a+p2p") return workloads::ContextExchange::all_to_all_and_ring;
  return cp_comm_type.value == "a2a" ? workloads::ContextExchange::all_to_all : workloads::ContextExchange::ring;
}

std::int64_t MegatronOptions::context_heads() const {
  if (context == 1) return 1;
  if (cp_comm_type.value == "a2a") return context;
  return cp_comm_type.value == "a2a+p2p" ? hierarchical_context_parallel_sizes.front() : 1;
}

// As most of Megatron-Bridge's performance recipes have it (scripts/performance/configs, moe_flex_dispatcher_backend):
// fused kernels, which are written for Hopper and later, inside NVL72 racks (DeepSeek-V3, Qwen3) and where tokens cross
// nodes (DeepSeek-V3 on H100 and B200); all-to-all inside nodes of eight (Qwen3 on H100 to B300, gpt-oss). Exceptions:
// gpt-oss has all-to-alls everywhere, and recent recipes of DeepSeek-V3 and of the smallest Qwen3 have fused kernels
// inside nodes too. Megatron-LM's own default, allgather, sends every token to every rank.
workloads::TokenDispatcher MegatronOptions::dispatcher(const Job& job, const ExpertPlaces& places) const {
  const std::string& type = moe_token_dispatcher_type.value;
  if (type == "allgather") return workloads::TokenDispatcher::all_gather;
  if (type == "alltoall" || (type == "auto" && moe_shared_expert_overlap))
    return workloads::TokenDispatcher::all_to_all;
  constexpr std::int64_t usual_node = 8;
  const bool usual = job.leading_accelerator().supports(workloads::Precision::fp8) &&
                     (places.domains > 1 || job.cluster.node().devices > usual_node);
  const bool fused = type == "flex" || use_fp8_dispatch || usual;
  return fused ? workloads::TokenDispatcher::fused : workloads::TokenDispatcher::all_to_all;
}

std::vector<sim::Key> MegatronLm::keys() {
  MegatronOptions& o = options_;
  std::vector<sim::Key> keys = {
      {"tensor", &o.tensor, "ranks that share every layer (tensor-model-parallel-size)", false, 1, most_ranks},
      {"pipeline", &o.pipeline, "stages that the layers are divided over (pipeline-model-parallel-size)", false, 1,
       most_ranks},
      {"context", &o.context, "ranks that share a sequence (context-parallel-size)", false, 1, most_ranks},
      {"expert", &o.expert, "ranks that share the experts (expert-model-parallel-size)", false, 1, most_ranks},
      {"expert_tensor", &o.expert_tensor,
       "ranks that share every expert (expert-tensor-parallel-size); experts have an order of ranks of their own",
       false, 1, most_ranks},
      {"cp_comm_type", &o.cp_comm_type,
       "how ranks that share a sequence exchange keys and values: round a ring beside attention, gathered before it, "
       "all-to-all, which divides heads instead, or all-to-all among neighbours and rings through the rest "
       "(cp-comm-type)"},
      {"hierarchical_context_parallel_sizes", &o.hierarchical_context_parallel_sizes,
       "with cp_comm_type a2a+p2p: ranks of an all-to-all, ranks of a ring; their product is `context`"},
      {"moe_token_dispatcher_type", &o.moe_token_dispatcher_type,
       "how tokens reach experts on other ranks (moe-token-dispatcher-type); auto: flex, fused kernels such as "
       "DeepEP's, on Hopper and later inside NVL72 racks and where tokens cross nodes, else alltoall"},
      {"moe_grouped_gemm", &o.moe_grouped_gemm,
       "multiply the tokens of all experts of a rank at once, which the host still launches expert by expert; false: "
       "every expert is a module of its own (moe-grouped-gemm); absent: true, as NVIDIA's recipes have it"},
      {"moe_permute_fusion", &o.moe_permute_fusion,
       "sort tokens by expert in one kernel, and sum up the results in one (moe-permute-fusion); absent: true"},
      {"moe_router_fusion", &o.moe_router_fusion,
       "choose experts, and compute the auxiliary loss, in few kernels (moe-router-fusion); absent: true"},
      {"moe_shared_expert_overlap", &o.moe_shared_expert_overlap,
       "run the shared experts while tokens are on their way; with the alltoall dispatcher alone, which `auto` then is "
       "(moe-shared-expert-overlap)"},
      {"use_fp8_dispatch", &o.use_fp8_dispatch,
       "send tokens to their experts, and gradients of what comes back, in 8 bits with a 32-bit scale per 128 values "
       "(DeepEP's option, which Megatron-LM does not pass on); needs training.precision fp8 and the flex dispatcher"},
      {"moe_router_group_topk", &o.moe_router_group_topk,
       "nodes that the experts of a token may be on (moe-router-group-topk with one group per node); 0: any", false, 0},
      {"overlap_moe_expert_parallel_comm", &o.overlap_moe_expert_parallel_comm,
       "run a forward and a backward pass at once, so that one computes while the other exchanges tokens; takes one "
       "more "
       "micro-batch in flight (overlap-moe-expert-parallel-comm); absent: true with the interleaved schedule where the "
       "ranks that share the experts span several nodes, unless all is recomputed"},
      {"overlap_p2p_comm", &o.overlap_p2p_comm,
       "stages go on while activations and gradients are sent (overlap-p2p-comm); absent: true with several chunks per "
       "stage (which releases before 2023 wait for) and with split backward passes. With schedule 1f1b it stands for "
       "MegaScale's decoupled sends (arXiv "
       "2402.15627), which Megatron-LM does not have"},
      {"scatter_gather_tensors_in_pipeline", &o.scatter_gather_tensors_in_pipeline,
       "each rank of a tensor group sends the next stage its part of the activations, which are gathered there "
       "(releases until early 2023; with sequence_parallel they are divided anyway); absent: true with unfused "
       "attention, which stands for those releases"},
      {"num_distributed_optimizer_instances", &o.num_distributed_optimizer_instances,
       "copies of the optimizer state: each is sharded over data x context / instances ranks, gradients are "
       "all-reduced "
       "among them",
       false, 1, most_ranks},
      {"fp8_param_gather", &o.fp8_param_gather,
       "gather parameters of the distributed optimizer in 8 bits; needs training.precision fp8 (fp8-param-gather)"},
      {"sequence_parallel", &o.sequence_parallel, "divide norms, dropout and residuals over the tensor group"},
      {"overlap_tensor", &o.overlap_tensor,
       "cut exposed tensor-parallel collectives up together with their products; absent: true with sequence_parallel "
       "on "
       "Hopper and later (tp-comm-overlap)"},
      {"distributed_optimizer", &o.distributed_optimizer,
       "shard optimizer state over data-parallel ranks (use-distributed-optimizer)"},
      {"overlap_grad_reduce", &o.overlap_grad_reduce, "reduce gradients while the last backward pass goes on"},
      {"overlap_param_gather", &o.overlap_param_gather,
       "gather updated parameters during the next forward pass; needs distributed_optimizer and overlap_grad_reduce"},
      {"ddp_bucket_size", &o.ddp_bucket_size,
       "parameters in a gradient bucket when overlapping; 0: max(40e6, 1e6 x data)", false, 0},
      {"gradient_accumulation_fusion", &o.gradient_accumulation_fusion,
       "weight gradients accumulate inside their matrix products; absent: true, but false with unfused attention, "
       "which "
       "stands for releases before both"},
      {"async_tensor_model_parallel_allreduce", &o.async_tensor_model_parallel_allreduce,
       "overlap the all-reduce of input gradients with weight gradients, as releases since the end of 2021 do (with "
       "sequence_parallel always)"},
      {"order", &o.order, "parallel dimensions from neighbouring ranks outwards"},
  };
  const std::vector<sim::Key> pipeline = pipeline_keys(o);
  keys.insert(keys.begin() + 2, pipeline.begin(), pipeline.end());  // behind `pipeline`
  return keys;
}

std::vector<Problem> MegatronLm::check(const Job& job) const {
  const MegatronOptions& o = options_;
  std::vector<Problem> problems;
  const auto report = [&](std::string key, std::string message) {
    problems.push_back({.key = std::move(key), .message = std::move(message)});
  };
  using Structure = workloads::Model::Structure;
  const workloads::Model& model = job.model;
  if (!model.has_tokens()) {
    report("model", "megatron-lm trains models of tokens; " + model.name + " is none: use framework 'pytorch-ddp'");
    return problems;
  }
  if (model.structure == Structure::encoder_decoder && o.pipeline > 1)
    report("strategy.pipeline",
           "Megatron-LM gave encoder and decoder stages of their own (pipeline-model-parallel-split-rank, later "
           "encoder-pipeline-model-parallel-size), but no longer does; use 1");
  if (job.training.recompute.every > 1 && job.training.recompute.every > model.total_layers())
    report("training.recompute", "groups of " + std::to_string(job.training.recompute.every) +
                                     " layers are more than the model's " + std::to_string(model.total_layers()));
  if (job.training.activation_offload && job.training.recompute.every > 1)
    report("training.activation_offload", "offloads what layers keep one by one; it cannot go with groups of layers");
  check_context(problems, o, job);
  check_experts(problems, o, job);
  check_pipeline(problems, o, job);
  if (!parse_rank_order(o.order))
    report(
        "strategy.order",
        "expected the dimensions tp, cp, ep, dp and pp in some order, such as 'tp-cp-ep-dp-pp', got '" + o.order + "'");
  if (o.overlap_tensor.value_or(false) && !(o.sequence_parallel && o.tensor > 1))
    report("strategy.overlap_tensor", "needs sequence_parallel: true and tensor parallelism, as in Megatron-LM");
  if (o.overlap_param_gather && !(o.distributed_optimizer && o.overlap_grad_reduce))
    report("strategy.overlap_param_gather", "needs distributed_optimizer: true and overlap_grad_reduce: true");

  const std::int64_t model_parallel = o.tensor * o.pipeline * o.context;
  check_tensor_parallel(problems, job, o.tensor);
  if (o.sequence_parallel && job.training.sequence % o.context == 0)
    require_divides(problems, "strategy.tensor", o.tensor, job.training.sequence / o.context,
                    o.context > 1 ? "the tokens of a rank" : "the sequence");
  check_model_parallel(problems, job, model_parallel);
  if (job.cluster.devices() % model_parallel != 0) return problems;
  const std::int64_t data = o.data(job);
  check_ranks(problems, o, job);
  const std::int64_t micro_batch = job.training.micro_batch.value_or(1);
  const std::vector<Problem> batch = check_batch(job, data, micro_batch);
  problems.insert(problems.end(), batch.begin(), batch.end());
  if (batch.empty())
    check_micro_batches(problems, o, job.training.global_batch / (data * micro_batch), data * micro_batch);
  return problems;
}

std::vector<std::string> MegatronLm::warnings(const Job& job) const {
  std::vector<std::string> warnings = pipeline_warnings(
      options_, job.training.global_batch / (options_.data(job) * job.training.micro_batch.value_or(1)));
  for (std::string& warning : warn_without_cuda(job, "megatron-lm")) warnings.push_back(std::move(warning));
  if (options_.sequence_parallel && options_.tensor == 1)
    warnings.emplace_back("strategy.sequence_parallel has no effect without tensor parallelism");
  if (workloads::fuses_kernels(job.training))
    warnings.emplace_back(
        "training.backend: Megatron-LM has fused kernels of its own and no compiled whole; only what "
        "launches cost changes");
  if (options_.tensor > job.cluster.node().devices)
    warnings.emplace_back("strategy.tensor spans several nodes: its collectives cross the network");
  return warnings;
}

PlannedStep MegatronLm::plan(const Job& job) const { return plan_megatron(options_, job); }

// Not gpipe: 1f1b has the same bubble and keeps fewer micro-batches. DualPipe is for tokens on their way to experts
// (DeepSeek-V3, arXiv 2412.19437, section 3.2.1).
std::vector<SearchKey> MegatronLm::search_keys(const Job& job) const {
  if (!job.model.has_tokens()) return {};
  const bool experts = job.model.experts.has_value();
  const Sizes pipelines = pipeline_sizes(job);
  std::vector<std::string_view> schedules{"zb-h1", "zb-h2", "zb-v"};
  if (experts) schedules.insert(schedules.end(), {"dualpipe", "dualpipe-v"});
  std::vector<SearchKey> keys{
      sizes_key("strategy.tensor", tensor_sizes(job)),
      {.path = "strategy.sequence_parallel", .values = {"false", "true"}, .only_with = "strategy.tensor"},
      sizes_key("strategy.pipeline", pipelines),
      sizes_key("strategy.context", context_sizes(job))};
  const std::vector<SearchKey> of_schedule = schedule_keys(job, pipelines, schedules);
  keys.insert(keys.end(), of_schedule.begin(), of_schedule.end());
  if (experts) {
    keys[1].values = {"true"};  // which experts beside tensor parallelism need
    keys.push_back(sizes_key("strategy.expert", expert_sizes(job)));
    keys.push_back(sizes_key("strategy.expert_tensor", expert_tensor_sizes(job)));
  }
  keys.insert(keys.end(), {micro_batch_key(job), recompute_key(job), switch_key("strategy.distributed_optimizer"),
                           switch_key("strategy.overlap_grad_reduce"),
                           switch_key("strategy.overlap_param_gather", "strategy.distributed_optimizer")});
  keys = with_effect(std::move(keys), SearchEffect::schedule,
                     {"strategy.pipeline", "strategy.schedule", "strategy.virtual_pipeline"});
  return with_effect(
      std::move(keys), SearchEffect::state,
      {"strategy.distributed_optimizer", "strategy.overlap_grad_reduce", "strategy.overlap_param_gather"});
}

}  // namespace trainyard::strategies
