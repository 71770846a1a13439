#include "scenarios/simulate.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <stdexcept>

#include "scenarios/diagnostics.hpp"

namespace trainyard::scenarios {
namespace {

// A device context and torch.distributed take 1.5 GiB (0.5 to 0.9 and about 1 GiB, stas00/ml-engineering
// training/performance/README.md); each further communicator about 0.3 GiB of buffers (4 MiB per channel and direction,
// NVIDIA/nccl). Estimates within the published ranges.
constexpr std::int64_t context_bytes = 3LL << 29;
constexpr std::int64_t group_bytes = 3LL * (1LL << 30) / 10;
// Reserved over allocated: 1.03 to 1.08 with expandable segments, more without; an estimate.
constexpr double fragmentation = 1.05;
// Allocators fail before the last byte: driver and library allocations outside them.
constexpr double usable_share = 0.98;

Breakdown breakdown_of(const sim::ComputeStreamTime& time, std::size_t ranks) {
  Breakdown breakdown{};
  std::size_t next = 0;
  for (const sim::WideDuration& kernels : time.kernels) breakdown.at(next++) = kernels.mean_seconds(ranks);
  for (const sim::WideDuration& exposed : time.exposed) breakdown.at(next++) = exposed.mean_seconds(ranks);
  breakdown.at(next++) = time.bubble.mean_seconds(ranks);
  breakdown.at(next++) = time.host.mean_seconds(ranks);
  return breakdown;  // all devices are alike and healthy: nothing is lost to stragglers
}

MemorySummary memory_of(const sim::Plan& plan, int groups, sim::Bytes capacity) {
  std::vector<sim::MemoryPeak> peaks;
  for (const sim::Program& program : plan.programs) peaks.push_back(sim::memory_peak(plan, program));
  std::size_t worst_rank = 0;
  const auto peak_of = [&](std::size_t rank) -> const sim::MemoryPeak& {
    return peaks[sim::index_of(plan.program_of[plan.program_of.id(rank)])];
  };
  for (std::size_t rank = 1; rank < plan.program_of.size(); ++rank)
    if (peak_of(rank).total > peak_of(worst_rank).total) worst_rank = rank;

  const sim::MemoryPeak& worst = peak_of(worst_rank);
  MemorySummary memory;
  memory.capacity = capacity.count;
  memory.allocated = worst.total.count;
  memory.last_rank_allocated = peak_of(plan.program_of.size() - 1).total.count;
  for (std::size_t i = 0; i < sim::memory_purposes; ++i) memory.parts.at(i) = worst.at_peak.at(i).count;
  const auto reserved = static_cast<std::int64_t>(static_cast<double>(worst.total.count) * fragmentation);
  memory.overhead = reserved - worst.total.count + context_bytes + groups * group_bytes;
  memory.peak = memory.allocated + memory.overhead;
  memory.fits = static_cast<double>(memory.peak) <= usable_share * static_cast<double>(capacity.count);
  memory.peak_rank = static_cast<std::int64_t>(worst_rank);
  return memory;
}

std::vector<CommunicationSummary> communication_of(const sim::Plan& plan, const sim::Outcome& outcome) {
  std::map<std::pair<sim::Purpose, sim::CollectiveKind>, CommunicationSummary> sums;
  std::vector<std::vector<std::int64_t>> counts;
  for (const sim::Program& program : plan.programs) counts.push_back(sim::call_counts(plan, program));
  const auto ranks = static_cast<double>(plan.program_of.size());
  for (std::size_t c = 0; c < plan.calls.size(); ++c) {
    const sim::CallId id = plan.calls.id(c);
    const sim::Call& call = plan.calls[id];
    std::int64_t count = 0;
    double wire = 0;
    for (std::size_t r = 0; r < plan.program_of.size(); ++r) {
      const sim::RankId rank = plan.program_of.id(r);
      const std::int64_t here = counts[sim::index_of(plan.program_of[rank])][c];
      if (here == 0) continue;
      const sim::Communicator& communicator = plan.communicators[plan.communicators.of(rank, call.slot)];
      count += here;
      wire += static_cast<double>(here) * static_cast<double>(plan.costs[communicator.cost][c].wire_bytes.count);
    }
    if (count == 0) continue;
    CommunicationSummary& sum = sums[{call.purpose, call.kind}];
    sum.purpose = call.purpose;
    sum.operation = call.kind;
    sum.count += static_cast<double>(count) / ranks;
    sum.bytes += static_cast<double>(count) * static_cast<double>(call.bytes.count) / ranks;
    sum.wire_bytes += wire / ranks;
    sum.busy_s += outcome.calls[id].busy.mean_seconds(plan.program_of.size());
    sum.exposed_s += outcome.calls[id].exposed.mean_seconds(plan.program_of.size());
  }
  std::vector<CommunicationSummary> result;
  result.reserve(sums.size());
  for (const auto& [key, sum] : sums) result.push_back(sum);
  return result;
}

double hardware_flops(const sim::Plan& plan) {
  std::vector<double> of_program;
  for (const sim::Program& program : plan.programs) {
    const std::vector<std::int64_t> counts = sim::kernel_counts(plan, program);
    double sum = 0;
    for (std::size_t k = 0; k < counts.size(); ++k)
      sum += static_cast<double>(counts[k]) * static_cast<double>(plan.kernels[plan.kernels.id(k)].flops.count);
    of_program.push_back(sum);
  }
  double total = 0;
  for (const sim::ProgramId program : plan.program_of) total += of_program[sim::index_of(program)];
  return total;
}

void fill_rates(Result& result, const Scenario& scenario, double executed_flops) {
  const workloads::Training& training = scenario.training;
  const auto samples = static_cast<double>(training.global_batch);
  const auto tokens = samples * static_cast<double>(training.sequence);
  const auto devices = static_cast<double>(result.devices);
  result.samples_per_s = samples / result.step_time_s;
  result.tokens_per_s = tokens / result.step_time_s;
  result.tokens_per_s_per_device = result.tokens_per_s / devices;
  const double per_device = result.tokens_per_s_per_device;
  const double model = workloads::training_flops_per_token(scenario.model, training.sequence, true) * per_device;
  const double full = workloads::training_flops_per_token(scenario.model, training.sequence, false) * per_device;
  const double executed = executed_flops / devices / result.step_time_s;
  const auto peak =
      static_cast<double>(scenario.accelerator.peak.at(static_cast<std::size_t>(training.precision)).count);
  result.model_tflops_per_device = model * 1e-12;
  result.hardware_tflops_per_device = executed * 1e-12;
  result.mfu = model / peak;
  result.mfu_full_attention = full / peak;
  result.hfu = executed / peak;
}

std::vector<sim::RankId> ranks_to_record(const sim::Plan& plan, const SimulateOptions& options) {
  std::vector<sim::RankId> ranks;
  if (!options.record) return ranks;
  if (options.ranks) {
    ranks.reserve(options.ranks->size());
    for (const std::int64_t rank : *options.ranks) ranks.push_back(sim::RankId{static_cast<std::uint32_t>(rank)});
    return ranks;
  }
  std::vector<bool> seen(plan.programs.size(), false);
  for (std::size_t r = 0; r < plan.program_of.size(); ++r) {
    const std::size_t program = sim::index_of(plan.program_of[plan.program_of.id(r)]);
    if (seen[program]) continue;
    seen[program] = true;
    ranks.push_back(plan.program_of.id(r));
  }
  return ranks;
}

std::int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return std::int64_t{usage.ru_maxrss} * 1024;
}

}  // namespace

namespace {

Simulation plan_and_run(const Scenario& scenario, const SimulateOptions& options) {
  const auto started = std::chrono::steady_clock::now();
  const topology::Cluster cluster = make_cluster(scenario);
  const strategies::Job job{
      .model = scenario.model, .training = scenario.training, .accelerator = scenario.accelerator, .cluster = cluster};
  strategies::PlannedStep step = scenario.strategy->plan(job);

  Simulation simulation;
  simulation.outcome = sim::run(step.plan, {.record = ranks_to_record(step.plan, options), .fold = options.fold});
  const sim::Outcome& outcome = simulation.outcome;
  if (!outcome.stall.empty()) throw std::logic_error("the simulated step stalls: " + outcome.stall);

  Result& result = simulation.result;
  result.scenario = scenario.name;
  result.seed = scenario.seed;
  result.devices = scenario.devices;
  result.parallelism = step.parallelism;
  result.micro_batch = step.micro_batch;
  result.micro_batches = step.micro_batches;
  result.step_time_s = sim::to_seconds(outcome.step_time);
  result.steady = outcome.steady;
  const std::size_t ranks = step.plan.program_of.size();
  result.breakdown_s = breakdown_of(outcome.time, ranks);
  result.device_busy = 1 - outcome.time.idle.mean_seconds(ranks) / result.step_time_s;
  fill_rates(result, scenario, hardware_flops(step.plan));
  result.memory = memory_of(step.plan, step.communicator_groups, scenario.accelerator.memory);
  result.communication = communication_of(step.plan, outcome);
  result.warnings = scenario.warnings;
  if (!outcome.steady)
    result.warnings.emplace_back("the step time had not settled after several steps; the longest rank's is given");
  result.engine = {.wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count(),
                   .peak_rss_bytes = peak_resident_bytes(),
                   .events = outcome.communications,
                   .operations = outcome.operations,
                   .ranks = static_cast<std::int64_t>(ranks),
                   .rank_classes = static_cast<std::int64_t>(outcome.rank_classes)};
  simulation.plan = std::move(step.plan);
  return simulation;
}

}  // namespace

Simulation simulate(const Scenario& scenario, const SimulateOptions& options) {
  try {
    return plan_and_run(scenario, options);
  } catch (const sim::TooLarge& error) {
    throw ScenarioError({scenario.file.empty() ? scenario.name : scenario.file, 0, 0},
                        std::string("too large to simulate: ") + error.what());
  }
}

}  // namespace trainyard::scenarios
