#include "scenarios/simulate.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <optional>
#include <stdexcept>

#include "scenarios/diagnostics.hpp"
#include "scenarios/inference.hpp"
#include "scenarios/internal/memory.hpp"
#include "scenarios/internal/outcome_figures.hpp"
#include "scenarios/internal/path_figures.hpp"
#include "scenarios/internal/step_facts.hpp"
#include "scenarios/what_if.hpp"
#include "sim/broken_invariant.hpp"
#include "sim/fold.hpp"
#include "strategies/device_classes.hpp"
#include "workloads/architecture.hpp"

namespace trainyard::scenarios {
namespace {

// What ranks wait longer than they would if no device were slow is the stragglers' doing, whatever they wait for.
void blame_stragglers(Breakdown& breakdown, const Breakdown& healthy) {
  const std::size_t straggler = breakdown.size() - 1;
  for (std::size_t i = sim::kernel_classes; i < straggler; ++i) {
    const double longer = std::max(0.0, breakdown.at(i) - healthy.at(i));
    breakdown.at(i) -= longer;
    breakdown.at(straggler) += longer;
  }
}

bool has_slow_devices(const sim::Plan& plan) {
  return std::ranges::any_of(plan.device_classes, &sim::DeviceClass::slow);
}

double utilization(sim::Bytes bytes, sim::BytesPerSecond capacity, double step_s) {
  if (capacity.count == 0 || step_s == 0) return 0;
  return static_cast<double>(bytes.count) / (static_cast<double>(capacity.count) * step_s);
}

std::vector<LinkSummary> links_of(const sim::Plan& plan, const topology::Cluster& cluster, double step_s) {
  std::map<topology::LinkKind, LinkSummary> kinds;
  std::map<topology::LinkKind, topology::LinkId> busiest;
  for (std::size_t i = 0; i < plan.link_bytes.size(); ++i) {
    const topology::LinkId id{static_cast<std::uint32_t>(i)};
    const topology::Link link = cluster.link(id);
    LinkSummary& summary = kinds[link.kind];
    summary.kind = link.kind;
    ++summary.count;
    const double used = utilization(plan.link_bytes[i], link.capacity, step_s);
    summary.utilization_mean += used;
    if (used <= summary.utilization_peak) continue;
    summary.utilization_peak = used;
    busiest[link.kind] = id;
  }
  std::vector<LinkSummary> result;
  for (auto& [kind, summary] : kinds) {
    summary.utilization_mean /= static_cast<double>(summary.count);
    if (busiest.contains(kind)) summary.busiest = cluster.name_of(busiest.at(kind));
    result.push_back(std::move(summary));
  }
  return result;
}

// Peak of the average device in the precision of the training.
double mean_peak(const Scenario& scenario, const topology::Cluster& cluster) {
  const auto precision = static_cast<std::size_t>(scenario.training.precision);
  const auto peak_of = [&](std::size_t type) {
    return static_cast<double>(scenario.accelerators[type].peak.at(precision).count);
  };
  if (cluster.node_types() == 1) return peak_of(0);
  double sum = 0;
  for (std::int64_t i = 0; i < cluster.devices(); ++i)
    sum += peak_of(cluster.node_type_of(topology::DeviceId{static_cast<std::uint32_t>(i)}));
  return sum / static_cast<double>(cluster.devices());
}

void fill_rates(Result& result, const Scenario& scenario, double peak, double executed_flops) {
  const workloads::Training& training = scenario.training;
  const auto samples = static_cast<double>(training.global_batch);
  const auto devices = static_cast<double>(result.devices);
  result.samples_per_s = samples / result.step_time_s;
  result.tokens_per_s = result.samples_per_s * static_cast<double>(training.sequence);
  result.tokens_per_s_per_device = result.tokens_per_s / devices;
  const workloads::Architecture architecture =
      workloads::describe(scenario.model, training.sequence, 0, training.documents);
  const double per_device = result.samples_per_s / devices;
  const bool frozen = training.adapters.has_value();
  const double model = workloads::training_flops_per_sample(architecture, true, frozen) * per_device;
  const double full = workloads::training_flops_per_sample(architecture, false, frozen) * per_device;
  const double executed = executed_flops / devices / result.step_time_s;
  result.model_tflops_per_device = model * 1e-12;
  result.hardware_tflops_per_device = executed * 1e-12;
  result.mfu = model / peak;
  result.mfu_full_attention = full / peak;
  result.hfu = executed / peak;
}

// What an average device does in a step: kernels by what bounds them; waiting in a receive or a collective polls, for
// the host or for data from it nothing runs.
PeriodWork work_of(const Scenario& scenario, const Result& result, double peak) {
  using workloads::Activity;
  constexpr std::array<Activity, breakdown_names.size()> activity_of{
      Activity::compute, Activity::compute, Activity::memory,  Activity::memory,  Activity::waiting,
      Activity::waiting, Activity::waiting, Activity::waiting, Activity::waiting, Activity::idle,
      Activity::waiting, Activity::idle,    Activity::waiting};
  PeriodWork work{.seconds = result.step_time_s,
                  .tokens = static_cast<double>(scenario.training.global_batch * scenario.training.sequence),
                  .samples = static_cast<double>(scenario.training.global_batch),
                  .goodput = result.goodput.fraction};
  for (std::size_t i = 0; i < activity_of.size(); ++i)
    work.activity.at(static_cast<std::size_t>(activity_of.at(i))) += result.breakdown_s.at(i);
  const auto precision = static_cast<std::size_t>(scenario.training.precision);
  const double best = peak * scenario.accelerator.gemm_efficiency.at(precision) * scenario.accelerator.clock_share();
  const double in_products = work.activity.at(static_cast<std::size_t>(Activity::compute));
  if (in_products > 0)
    work.intensity = result.hardware_tflops_per_device * 1e12 * result.step_time_s / in_products / best;
  return work;
}

// However many programs there are.
constexpr std::size_t most_recorded = 240;

std::vector<sim::RankId> chosen_ranks(const sim::Plan& plan, const SimulateOptions& options) {
  std::vector<sim::RankId> ranks;
  if (options.ranks) {
    ranks.reserve(options.ranks->size());
    for (const std::int64_t rank : *options.ranks) ranks.push_back(sim::RankId{static_cast<std::uint32_t>(rank)});
    return ranks;
  }
  std::vector<bool> seen(plan.programs.size(), false);
  for (std::size_t r = 0; r < plan.program_of.size() && ranks.size() < most_recorded; ++r) {
    const std::size_t program = sim::index_of(plan.program_of[plan.program_of.id(r)]);
    if (seen[program]) continue;
    seen[program] = true;
    ranks.push_back(plan.program_of.id(r));
  }
  return ranks;
}

std::vector<sim::RankId> ranks_to_record(const sim::Plan& plan, const SimulateOptions& options, std::int64_t fullest) {
  std::vector<sim::RankId> ranks;
  if (options.record) ranks = chosen_ranks(plan, options);
  const sim::RankId rank{static_cast<std::uint32_t>(fullest)};
  if (options.memory_timeline && std::ranges::find(ranks, rank) == ranks.end()) ranks.push_back(rank);
  return ranks;
}

// Folded whether the step was or not: of paths that are equally long, it is the same one.
void find_critical_path(const sim::Population& folded, const SimulateOptions& options, Simulation& simulation,
                        const sim::Plan& plan) {
  sim::Outcome& outcome = simulation.outcome;
  if (!options.fold)
    outcome.critical_path = sim::run(plan, folded, {.critical_path = true, .tie_seed = options.tie_seed}).critical_path;
  if (outcome.critical_path)
    simulation.result.critical_path = critical_path_of(plan, *outcome.critical_path);
  else
    simulation.result.warnings.emplace_back(
        "the critical path is left out: so many ranks have timelines of their own that it would take more than 1 GiB");
}

Simulation plan_and_run(const Scenario& scenario, const SimulateOptions& options) {
  Stopwatch watch;
  PhaseTimes phases;
  const topology::Cluster cluster = make_cluster(scenario);
  phases.build = watch.lap();
  const workloads::Training training = with_recompute(scenario, cluster);
  const strategies::Job job{
      .model = scenario.model, .training = training, .accelerator = scenario.accelerators.front(), .cluster = cluster};
  strategies::PlannedStep step = strategies::plan_on_devices(*scenario.strategy, job, scenario.accelerators);
  phases.expand = watch.lap();

  // Whatever is compared with the step is folded, since that gives the same in less time.
  const sim::Population folded = options.fold || options.ideal || options.critical_path || has_slow_devices(step.plan)
                                     ? sim::fold(step.plan)
                                     : sim::Population{};
  const sim::Population all = options.fold ? sim::Population{} : sim::everyone(step.plan);
  phases.refine = watch.lap();

  Simulation simulation;
  Result& result = simulation.result;
  result.memory = memory_of(step, smallest_memory(scenario));
  if (options.advise && !result.memory.fits) {
    result.memory.largest = largest_parts(step, result.memory);
    result.memory.changes = what_would_fit(scenario, training);
  }
  simulation.outcome =
      sim::run(step.plan, options.fold ? folded : all,
               {.record = ranks_to_record(step.plan, options, result.memory.peak_rank),
                .sink = options.sink,
                .sink_ranks = options.sink != nullptr ? chosen_ranks(step.plan, options) : std::vector<sim::RankId>{},
                .per_operation = options.per_operation,
                .critical_path = options.critical_path && options.fold,
                .tie_seed = options.tie_seed});
  const sim::Outcome& outcome = simulation.outcome;
  if (!outcome.stall.empty()) throw std::logic_error("the simulated step stalls: " + outcome.stall);
  phases.simulate = watch.lap();

  const std::size_t ranks = step.plan.program_of.size();
  result.step_time_s = sim::to_seconds(outcome.step_time);
  result.breakdown_s = breakdown_of(outcome.time, ranks);
  if (options.ideal) {
    const sim::Outcome ideal = sim::run(step.plan, folded, {.ideal_network = true});
    result.ideal_step_time_s = sim::to_seconds(ideal.step_time);
    result.communication_overhead = 1 - result.ideal_step_time_s / result.step_time_s;
  }
  if (has_slow_devices(step.plan))
    blame_stragglers(result.breakdown_s,
                     breakdown_of(sim::run(step.plan, folded, {.healthy_devices = true}).time, ranks));
  if (options.critical_path) find_critical_path(folded, options, simulation, step.plan);
  phases.compare = watch.lap();

  result.scenario = scenario.name;
  result.seed = scenario.seed;
  result.devices = scenario.devices;
  result.parallelism = step.parallelism;
  result.micro_batch = step.micro_batch;
  result.micro_batches = step.micro_batches;
  result.recompute = workloads::to_string(training.recompute);
  result.device_busy = 1 - outcome.time.idle.mean_seconds(ranks) / result.step_time_s;
  const double peak = mean_peak(scenario, cluster);
  fill_rates(result, scenario, peak, hardware_flops(step.plan));
  if (scenario.reliability)
    result.goodput = goodput_of(*scenario.reliability, facts_of(scenario, training, result),
                                static_cast<std::uint64_t>(scenario.seed));
  const PeriodWork work = work_of(scenario, result, peak);
  result.cost = cost_of(scenario, work);
  if (scenario.run) result.run = run_of(*scenario.run, scenario, work, result.cost);
  result.communication = communication_of(step.plan, outcome);
  result.links = links_of(step.plan, cluster, result.step_time_s);
  for (const auto& fault : scenario.link_faults)
    if (fault.capacity != 1) result.faulty_links.push_back(fault.link);
  if (options.what_if) result.what_if = what_if(scenario, training, result);
  result.warnings.insert(result.warnings.begin(), scenario.warnings.begin(), scenario.warnings.end());
  if (!outcome.steady)
    result.warnings.emplace_back("the step time had not settled after several steps; the longest rank's is given");
  phases.report = watch.lap();
  result.engine = {.wall_s = watch.total(),
                   .peak_rss_bytes = peak_resident_bytes(),
                   .events = outcome.communications,
                   .operations = outcome.operations,
                   .ranks = static_cast<std::int64_t>(ranks),
                   .rank_classes = static_cast<std::int64_t>(outcome.rank_classes),
                   .phases = phases};
  spdlog::debug("seconds: build {:.3f}, expand {:.3f}, refine {:.3f}, simulate {:.3f}, compare {:.3f}, report {:.3f}",
                phases.build, phases.expand, phases.refine, phases.simulate, phases.compare, phases.report);
  spdlog::debug("network: {} links, {} flows, {} crossings; events {}, held back {}", step.plan.network.links().size(),
                step.plan.network.flow_count(), step.plan.network.crossing_count(), outcome.events, outcome.held_back);
  simulation.plan = std::move(step.plan);
  return simulation;
}

}  // namespace

Simulation simulate(const Scenario& scenario, const SimulateOptions& options) {
  const auto fault_of_plugin = [&](const std::string& what) {
    return ScenarioError({.file = scenario.made_by.plugin},
                         "the plug-in's framework '" + scenario.framework + "' " + what);
  };
  std::optional<sim::ThrowBrokenInvariants> of_the_plugin;
  if (!scenario.made_by.plugin.empty()) of_the_plugin.emplace();
  try {
    if (scenario.inference) return {.result = simulate_inference(scenario, options), .plan = {}, .outcome = {}};
    return plan_and_run(scenario, options);
  } catch (const sim::TooLarge& error) {
    throw ScenarioError({scenario.file.empty() ? scenario.name : scenario.file, 0, 0},
                        std::string("too large to simulate: ") + error.what());
  } catch (const sim::BrokenInvariant& error) {
    throw fault_of_plugin(std::string{"built an invalid plan: "} + error.what());
  } catch (const std::logic_error& error) {  // a stall, or plans for several devices that cannot be joined
    if (scenario.made_by.plugin.empty()) throw;
    throw fault_of_plugin(std::string{"wrote a plan that cannot run: "} + error.what());
  }
}

std::vector<LinkRow> link_rows(const Scenario& scenario, const Simulation& simulation) {
  const topology::Cluster cluster = make_cluster(scenario);
  const std::vector<strategies::LinkUses> uses = strategies::link_uses(simulation.plan, cluster);
  std::vector<LinkRow> rows;
  for (std::size_t i = 0; i < simulation.plan.link_bytes.size(); ++i) {
    const sim::Bytes bytes = simulation.plan.link_bytes[i];
    if (bytes.count == 0) continue;
    const topology::LinkId id{static_cast<std::uint32_t>(i)};
    const topology::Link link = cluster.link(id);
    rows.push_back({.kind = link.kind,
                    .name = cluster.name_of(id),
                    .bytes = bytes,
                    .capacity = link.capacity,
                    .utilization = utilization(bytes, link.capacity, simulation.result.step_time_s),
                    .uses = uses[i]});
  }
  return rows;
}

std::vector<MemoryRow> memory_rows(const Simulation& simulation) {
  std::vector<MemoryRow> rows;
  for (const sim::MemoryRecord& record : simulation.outcome.memory) {
    if (static_cast<std::int64_t>(sim::index_of(record.rank)) != simulation.result.memory.peak_rank) continue;
    MemoryRow row{.time_s = sim::to_seconds(record.when - simulation.outcome.measured_from), .allocated = {}};
    for (std::size_t i = 0; i < sim::memory_purposes; ++i) row.allocated.at(i) = record.allocated.at(i).count;
    rows.push_back(row);
  }
  return rows;
}

}  // namespace trainyard::scenarios
