#include <algorithm>
#include <array>
#include <cstdlib>
#include <numeric>
#include <string_view>
#include <utility>

#include "strategies/checks.hpp"
#include "strategies/internal/megatron.hpp"

namespace trainyard::strategies {
namespace {

struct NamedSchedule {
  std::string_view name;
  ScheduleKind kind;
  std::int64_t chunks;  // that it has by itself
};
constexpr std::array<NamedSchedule, 8> schedules{{{"gpipe", ScheduleKind::gpipe, 1},
                                                  {"1f1b", ScheduleKind::one_forward_one_backward, 1},
                                                  {"interleaved", ScheduleKind::interleaved, 2},
                                                  {"zb-h1", ScheduleKind::zb_h1, 1},
                                                  {"zb-h2", ScheduleKind::zb_h2, 1},
                                                  {"zb-v", ScheduleKind::zb_v, 2},
                                                  {"dualpipe", ScheduleKind::dualpipe, 2},
                                                  {"dualpipe-v", ScheduleKind::dualpipe_v, 2}}};

const NamedSchedule& named(const MegatronOptions& options) {
  return *std::ranges::find(schedules, std::string_view(options.schedule.value), &NamedSchedule::name);
}

bool overlaps_passes(ScheduleKind kind) { return kind == ScheduleKind::dualpipe || kind == ScheduleKind::dualpipe_v; }
bool in_v(ScheduleKind kind) { return kind == ScheduleKind::zb_v || kind == ScheduleKind::dualpipe_v; }
bool may_have_chunks(ScheduleKind kind) {
  return kind == ScheduleKind::one_forward_one_backward || kind == ScheduleKind::interleaved;
}

void check_schedule(std::vector<Problem>& problems, const MegatronOptions& options, const Job& job) {
  const auto report = [&](std::string key, std::string message) {
    problems.push_back({.key = std::move(key), .message = std::move(message)});
  };
  const auto& [name, kind, chunks] = named(options);
  const std::string schedule(name);
  if (splits_backward(options.schedule_kind()) && job.training.recompute.every > 1)
    report("training.recompute", "groups of layers cannot run again under schedule '" + schedule + "'");
  if (splits_backward(options.schedule_kind()) && job.training.activation_offload)
    report("training.activation_offload", "is not supported under schedule '" + schedule + "'");
  if (splits_backward(options.schedule_kind()) && !options.overlap_p2p_comm.value_or(true))
    report("strategy.overlap_p2p_comm",
           "schedule '" + schedule + "' is made of passes beside which stages send; use true, or leave it out");
  if (options.micro_batch_group() > options.pipeline && !options.overlap_p2p_comm.value_or(true))
    report("strategy.overlap_p2p_comm",
           "groups of more micro-batches than stages are sent while stages go on; use true, or leave it out");
  const std::int64_t wanted = options.virtual_pipeline.value_or(chunks);
  if (wanted > 1 && options.pipeline == 1 && options.virtual_pipeline)
    report("strategy.virtual_pipeline", "several chunks per stage need a pipeline of more than one stage");
  if (in_v(kind) && wanted != 2)
    report("strategy.virtual_pipeline", schedule + " has two chunks per stage by itself; use 2, or leave it out");
  else if (!may_have_chunks(kind) && !in_v(kind) && options.virtual_pipeline.value_or(1) > 1)
    report("strategy.virtual_pipeline", schedule + " has one chunk per stage; use schedule 'interleaved'");
  if (kind == ScheduleKind::dualpipe && options.pipeline % 2 != 0)
    report("strategy.pipeline", "dualpipe goes both ways through an even number of stages, not " +
                                    std::to_string(options.pipeline) + "; the nearest is " +
                                    std::to_string(options.pipeline + 1));
  if (options.microbatch_group_size_per_vp_stage && options.schedule_kind() != ScheduleKind::interleaved)
    report("strategy.microbatch_group_size_per_vp_stage",
           "is about model chunks of the interleaved schedule; use schedule 'interleaved', or leave it out");
}

void check_stage_layers(std::vector<Problem>& problems, const MegatronOptions& options, std::int64_t layers) {
  const std::int64_t positions = options.placement().positions();
  const std::int64_t sum = std::accumulate(options.stage_layers.begin(), options.stage_layers.end(), std::int64_t{0});
  if (static_cast<std::int64_t>(options.stage_layers.size()) == positions && sum == layers) return;
  problems.push_back({.key = "strategy.stage_layers",
                      .message = "expected " + std::to_string(positions) + " numbers that add up to " +
                                 std::to_string(layers) + " layers, got " +
                                 std::to_string(options.stage_layers.size()) + " that add up to " +
                                 std::to_string(sum)});
}

// Whether the stages between the ends can share what is left, chunk by chunk.
bool divides(const EndLayers& ends, std::int64_t layers, std::int64_t stages, std::int64_t chunks) {
  const std::int64_t middle = stages - ends.stages();
  const std::int64_t rest = layers - ends.sum();
  if (rest < 0 || ends.first.value_or(0) % chunks != 0 || ends.last.value_or(0) % chunks != 0) return false;
  return middle == 0 ? rest == 0 : rest % (middle * chunks) == 0;
}

void check_end_layers(std::vector<Problem>& problems, const MegatronOptions& options, std::int64_t layers) {
  EndLayers ends = options.end_layers();
  std::optional<std::int64_t>& changed = ends.first ? ends.first : ends.last;
  const std::string key =
      ends.first ? "strategy.num_layers_in_first_pipeline_stage" : "strategy.num_layers_in_last_pipeline_stage";
  const auto report = [&](const std::string& message) { problems.push_back({.key = key, .message = message}); };
  if (options.pipeline == 1) return report("the ends of a pipeline need more than one stage");
  if (in_v(options.schedule_kind()))
    return report("the first stage of a V also has its end; give stage_layers instead");
  if (options.counted_parts().count() > 0)
    return report(
        "account_for_embedding_in_pipeline_split and account_for_loss_in_pipeline_split spread layers evenly; use "
        "either");
  const std::int64_t chunks = options.placement().positions() / options.pipeline;
  if (divides(ends, layers, options.pipeline, chunks)) return;
  const std::int64_t wanted = *changed;
  std::optional<std::int64_t> nearest;
  for (std::int64_t count = 1; count <= layers; ++count) {
    changed = count;
    if (divides(ends, layers, options.pipeline, chunks) &&
        (!nearest || std::llabs(count - wanted) < std::llabs(*nearest - wanted)))
      nearest = count;
  }
  report("with " + std::to_string(wanted) + " the other stages' chunks cannot share the rest of the " +
         std::to_string(layers) + " layers evenly; " +
         (nearest ? "the nearest number that lets them is " + std::to_string(*nearest) : "give stage_layers instead"));
}

void check_layers(std::vector<Problem>& problems, const MegatronOptions& options, std::int64_t layers) {
  const std::int64_t positions = options.placement().positions();
  const std::int64_t counted = options.counted_parts().count();
  if (!options.stage_layers.empty()) {
    if (counted > 0 || options.end_layers().given())
      problems.push_back({.key = "strategy.stage_layers",
                          .message = "says how many layers every stage has; leave out the account_for_ and "
                                     "num_layers_in_ options, or this"});
    return check_stage_layers(problems, options, layers);
  }
  if (options.end_layers().given()) return check_end_layers(problems, options, layers);
  if (counted > 0 && positions > 1)
    return require_divides(problems, "strategy.pipeline", positions, layers + counted,
                           "the layers and the parts that count as one");
  // Embedding and head may fill a position of their own, as Llama 3 405B has it.
  if (layers + 2 < positions)
    problems.push_back({.key = "strategy.pipeline",
                        .message = "pipeline x virtual_pipeline = " + std::to_string(positions) + " is more than the " +
                                   std::to_string(layers) + " layers"});
}

// Groups as Megatron takes them: no smaller than the pipeline, no larger than all, and the last one not smaller than
// the pipeline either (forward_backward_pipelining_with_interleaving).
bool takes_group(std::int64_t group, std::int64_t stages, std::int64_t micro_batches) {
  const std::int64_t last = micro_batches % group;
  return group >= stages && group <= micro_batches && (last == 0 || last >= stages);
}

void check_groups(std::vector<Problem>& problems, const MegatronOptions& options, std::int64_t micro_batches) {
  const std::int64_t stages = options.pipeline;
  const std::int64_t wanted = options.micro_batch_group();
  if (takes_group(wanted, stages, micro_batches)) return;
  if (!options.microbatch_group_size_per_vp_stage)
    return require_divides(problems, "strategy.pipeline", stages, micro_batches,
                           "the micro-batches per rank, as the interleaved schedule needs unless "
                           "microbatch_group_size_per_vp_stage says otherwise");
  std::int64_t nearest = 0;
  for (std::int64_t group = stages; group <= micro_batches; ++group)
    if (takes_group(group, stages, micro_batches) &&
        (nearest == 0 || std::llabs(group - wanted) < std::llabs(nearest - wanted)))
      nearest = group;
  problems.push_back(
      {.key = "strategy.microbatch_group_size_per_vp_stage",
       .message = std::to_string(micro_batches) + " micro-batches cannot be taken in groups of " +
                  std::to_string(wanted) + " through " + std::to_string(stages) +
                  " stages: a group, and the rest behind the last whole one, must be as large as the pipeline; " +
                  (nearest > 0 ? "the nearest is " + std::to_string(nearest) : "use a larger training.global_batch")});
}

}  // namespace

std::int64_t MegatronOptions::chunks() const {
  if (pipeline == 1) return 1;
  const NamedSchedule& schedule_of = named(*this);
  return may_have_chunks(schedule_of.kind) ? virtual_pipeline.value_or(schedule_of.chunks) : schedule_of.chunks;
}

ScheduleKind MegatronOptions::schedule_kind() const {
  const ScheduleKind kind = named(*this).kind;
  if (pipeline == 1 && kind != ScheduleKind::gpipe) return ScheduleKind::one_forward_one_backward;
  if (!may_have_chunks(kind)) return kind;
  return chunks() > 1 ? ScheduleKind::interleaved : ScheduleKind::one_forward_one_backward;
}

// It belongs to the runtime of the zero-bubble schedules (sail-sg/zero-bubble); DualPipe leaves the optimizer alone.
bool MegatronOptions::validates_afterwards() const {
  return post_validation.value_or(splits_backward(schedule_kind()) && !overlaps_passes(schedule_kind()));
}

// Layers that predict tokens further on run behind the last stage's, and count as its.
std::vector<std::int64_t> MegatronOptions::position_layers(std::int64_t layers, std::int64_t further) const {
  if (!stage_layers.empty()) return stage_layers;
  const std::int64_t positions = placement().positions();
  if (end_layers().given()) return spread_between(end_layers(), layers, pipeline, positions / pipeline);
  if (positions == 1 || counted_parts().count() > 0 || further == 0)
    return spread_layers(layers, positions, positions > 1 ? counted_parts() : CountedParts{});
  std::vector<std::int64_t> spread = spread_layers(layers + further, positions);
  for (std::size_t i = spread.size(); further > 0;) {
    const std::int64_t taken = std::min(spread[--i], further);
    spread[i] -= taken;
    further -= taken;
  }
  return spread;
}

std::vector<sim::Key> pipeline_keys(MegatronOptions& options) {
  return {
      {"schedule", &options.schedule,
       "order of forward and backward passes in a stage. zb-h1, zb-h2, zb-v, dualpipe and dualpipe-v split backward "
       "passes; zb-v and dualpipe-v have two chunks per stage, whose second ones come back from the last stage to the "
       "first; dualpipe has two copies of the model per pipeline, for half of the micro-batches each (an even number "
       "of stages and of micro-batches); both DualPipes need at least 2 x pipeline micro-batches"},
      {"virtual_pipeline", &options.virtual_pipeline,
       "model chunks per stage; above 1 the schedule is interleaved (absent: 1; with interleaved, zb-v and dualpipe-v "
       "2)",
       false, 1, most_ranks},
      {"microbatch_group_size_per_vp_stage", &options.microbatch_group_size_per_vp_stage,
       "micro-batches that go through a chunk one after the other before the next chunk's turn, with the interleaved "
       "schedule; the last group may be smaller, but not than the pipeline (absent: pipeline)",
       false, 1},
      {"stage_layers", &options.stage_layers,
       "layers of each stage in the order of the forward pass: all first chunks, then all second chunks, ..., where "
       "those of zb-v and dualpipe-v begin with the last stage's; absent: spread evenly, first and last get fewer"},
      {"num_layers_in_first_pipeline_stage", &options.num_layers_in_first_pipeline_stage,
       "layers of the first stage, all its chunks together; the other stages share the rest evenly "
       "(decoder-first-pipeline-num-layers)",
       false, 1},
      {"num_layers_in_last_pipeline_stage", &options.num_layers_in_last_pipeline_stage,
       "layers of the last stage, likewise (decoder-last-pipeline-num-layers)", false, 1},
      {"account_for_embedding_in_pipeline_split", &options.account_for_embedding_in_pipeline_split,
       "the embedding counts as a layer when layers are spread, so the first stage has one less"},
      {"account_for_loss_in_pipeline_split", &options.account_for_loss_in_pipeline_split,
       "the head counts as a layer when layers are spread, so the last stage has one less"},
      {"post_validation", &options.post_validation,
       "the optimizer does not wait for the gradients' norm, which is checked afterwards; absent: true with zb-h1, "
       "zb-h2 and zb-v (enable-optimizer-post-validation of sail-sg/zero-bubble)"},
  };
}

void check_pipeline(std::vector<Problem>& problems, const MegatronOptions& options, const Job& job) {
  check_schedule(problems, options, job);
  check_layers(problems, options, job.model.total_layers());
}

void check_micro_batches(std::vector<Problem>& problems, const MegatronOptions& options, std::int64_t micro_batches,
                         std::int64_t batch_per_micro_batch) {
  const ScheduleKind kind = options.schedule_kind();
  if (kind == ScheduleKind::interleaved) check_groups(problems, options, micro_batches);
  if (!overlaps_passes(kind)) return;
  const bool both_ways = kind == ScheduleKind::dualpipe;
  const std::int64_t least = 2 * options.pipeline;
  if (micro_batches >= least && !(both_ways && micro_batches % 2 != 0)) return;
  const std::int64_t nearest = std::max(least, micro_batches + (both_ways ? micro_batches % 2 : 0));
  problems.push_back({.key = "training.global_batch",
                      .message = options.schedule.value + " needs " + (both_ways ? "an even number of " : "") +
                                 "micro-batches per rank, at least 2 x pipeline = " + std::to_string(least) + ", not " +
                                 std::to_string(micro_batches) + "; the nearest global batch is " +
                                 std::to_string(nearest * batch_per_micro_batch)});
}

std::vector<std::string> pipeline_warnings(const MegatronOptions& options, std::int64_t micro_batches) {
  std::vector<std::string> warnings;
  if (options.schedule_kind() == ScheduleKind::zb_v && micro_batches < 2 * options.pipeline - 1)
    warnings.push_back(
        "strategy.schedule: zb-v fills its V with 2 x pipeline - 1 = " + std::to_string(2 * options.pipeline - 1) +
        " micro-batches per rank; with " + std::to_string(micro_batches) + " stages wait for each other");
  return warnings;
}

}  // namespace trainyard::strategies
