#include "scenarios/reliability.hpp"

#include <algorithm>
#include <cmath>

namespace trainyard::scenarios {
namespace {

using sim::LongDuration;

LongDuration time_through_storage(const Reliability::Checkpoint& checkpoint, const StepFacts& step) {
  const double rate = std::min(static_cast<double>(checkpoint.node_rate.count) * static_cast<double>(step.nodes),
                               static_cast<double>(checkpoint.cluster_rate.count));
  return sim::long_duration(static_cast<double>(step.saved.count) / rate);
}

// All devices copy their part at the same time.
LongDuration copy_to_host(const StepFacts& step) {
  return sim::long_duration(static_cast<double>(step.saved.count) / static_cast<double>(step.devices) /
                            static_cast<double>(step.host_rate.count));
}

std::vector<sim::FailureProcess> failures_of(const Reliability& reliability, const StepFacts& step) {
  std::vector<sim::FailureProcess> failures;
  const auto add = [&](sim::StopKind kind, std::int64_t parts, LongDuration mtbf, double shape, double replaced) {
    failures.push_back({.kind = kind, .parts = parts, .mtbf = mtbf, .shape = shape, .replaced = replaced});
  };
  constexpr LongDuration usual = sim::hours(50'000);
  if (reliability.device_mtbf || !reliability.node_mtbf)
    add(sim::StopKind::device, step.devices, reliability.device_mtbf.value_or(usual), reliability.shape,
        reliability.replaced);
  if (reliability.node_mtbf)
    add(sim::StopKind::node, step.nodes, *reliability.node_mtbf, reliability.shape, reliability.replaced);
  if (reliability.link_mtbf) add(sim::StopKind::link, step.links, *reliability.link_mtbf, 1, 0);
  return failures;
}

sim::RestartTimes restart_of(const Reliability& reliability, const StepFacts& step) {
  const Reliability::Restart& restart = reliability.restart;
  const bool hot_spares = reliability.spares.value_or(0) > 0;
  const LongDuration usual = !restart.automatic ? sim::minutes(20) : sim::seconds(hot_spares ? 60 : 120);
  const LongDuration reschedule = restart.reschedule.value_or(usual);
  return {.detect = restart.detect,
          .reschedule = reschedule,
          .in_place = restart.automatic ? LongDuration{} : reschedule,  // people come for everything
          .reload = restart.reload.value_or(time_through_storage(reliability.checkpoint, step)),
          .warm_up = restart.warm_up};
}

// In whole steps, at least one. Without failures nothing needs to be saved before the end.
LongDuration interval_of(const Reliability& reliability, const sim::CampaignInputs& inputs, double step_s) {
  const Reliability::Checkpoint& checkpoint = reliability.checkpoint;
  LongDuration interval = checkpoint.interval;
  if (checkpoint.rule != Reliability::Interval::given) {
    const std::optional<LongDuration> mtbf = sim::job_mtbf(inputs);
    if (!mtbf) return inputs.duration;
    const bool young = checkpoint.rule == Reliability::Interval::young;
    interval = young ? sim::young_interval(inputs.checkpoint.exposed, *mtbf)
                     : sim::daly_interval(inputs.checkpoint.exposed, *mtbf);
  }
  interval = std::max(interval, inputs.checkpoint.background);
  const double steps = std::max(1.0, std::round(sim::to_seconds(interval) / step_s));
  return std::max(sim::long_duration(steps * step_s), LongDuration{1});
}

}  // namespace

sim::CampaignInputs campaign_of(const Reliability& reliability, const StepFacts& step) {
  const Reliability::Checkpoint& checkpoint = reliability.checkpoint;
  const LongDuration write = checkpoint.write.value_or(time_through_storage(checkpoint, step));
  sim::CampaignInputs inputs;
  inputs.duration = reliability.duration;
  inputs.nodes = step.nodes;
  inputs.failures = failures_of(reliability, step);
  inputs.restart = restart_of(reliability, step);
  inputs.spares = reliability.spares;
  inputs.repair = reliability.repair;
  inputs.spot = reliability.spot;
  if (reliability.stragglers && step.straggling_step_s > step.step_s)
    inputs.stragglers = sim::Stragglers{.share = reliability.stragglers->share,
                                        .slowdown = step.straggling_step_s / step.step_s,
                                        .found = reliability.stragglers->found};
  if (reliability.elastic)
    inputs.elastic = sim::Elastic{.replicas = step.replicas, .reshard = reliability.restart.reshard};
  inputs.checkpoint.exposed = checkpoint.asynchronous ? checkpoint.stall + copy_to_host(step) : write;
  if (checkpoint.asynchronous) inputs.checkpoint.background = write;
  inputs.checkpoint.interval = interval_of(reliability, inputs, step.step_s);
  return inputs;
}

GoodputSummary goodput_of(const Reliability& reliability, const StepFacts& step, std::uint64_t seed) {
  CampaignSummary campaign;
  campaign.inputs = campaign_of(reliability, step);
  campaign.estimate = sim::estimate(campaign.inputs, seed, reliability.seeds);
  campaign.seeds = reliability.seeds;
  campaign.mtbf = sim::job_mtbf(campaign.inputs);
  campaign.saved = step.saved;
  campaign.write = reliability.checkpoint.write.value_or(time_through_storage(reliability.checkpoint, step));
  if (campaign.inputs.stragglers) campaign.straggling_slowdown = campaign.inputs.stragglers->slowdown;
  campaign.steps = sim::step_times({.step_s = step.step_s,
                                    .kernels_s = step.kernels_s,
                                    .spread = reliability.kernel_spread,
                                    .ranks = step.devices,
                                    .slowdown = campaign.straggling_slowdown,
                                    .slow_share = campaign.estimate.straggling});
  campaign.undisturbed = reliability.kernel_spread == 0 ? 1 : step.step_s / campaign.steps.mean_s;
  if (const auto expected = sim::expected_goodput(campaign.inputs))
    campaign.expected = *expected * campaign.undisturbed;
  GoodputSummary summary;
  summary.fraction = campaign.estimate.goodput.mean * campaign.undisturbed;
  for (std::size_t kind = 0; kind < sim::stop_kinds; ++kind)
    if (!sim::is_planned(static_cast<sim::StopKind>(kind)))
      summary.interruptions_per_day += campaign.estimate.per_day.at(kind);
  summary.campaign = std::move(campaign);
  return summary;
}

}  // namespace trainyard::scenarios
