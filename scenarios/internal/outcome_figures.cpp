#include "scenarios/internal/outcome_figures.hpp"

#include <sys/resource.h>

#include <map>
#include <utility>

namespace trainyard::scenarios {

Breakdown breakdown_of(const sim::ComputeStreamTime& time, std::size_t ranks) {
  Breakdown breakdown{};
  std::size_t next = 0;
  for (const sim::WideDuration& kernels : time.kernels) breakdown.at(next++) = kernels.mean_seconds(ranks);
  for (const sim::WideDuration& exposed : time.exposed) breakdown.at(next++) = exposed.mean_seconds(ranks);
  breakdown.at(next++) = time.bubble.mean_seconds(ranks);
  breakdown.at(next++) = time.host.mean_seconds(ranks);
  return breakdown;
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

std::int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return std::int64_t{usage.ru_maxrss} * 1024;
}

}  // namespace trainyard::scenarios
