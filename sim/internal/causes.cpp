#include "sim/internal/causes.hpp"

#include <algorithm>
#include <limits>

namespace trainyard::sim {
namespace {

// Of both training steps. Folded steps need some ten or hundred MB; where nearly every rank is unlike all others, the
// path is not worth more than what the rest of the simulation takes.
constexpr std::size_t most_bytes = std::size_t{1} << 30;

}  // namespace

bool Causes::fit(const Population& population, const std::vector<ProgramSteps>& programs) {
  std::size_t count = 0;
  for (const ProgramId program : population.program_of) count += std::size_t{programs[index_of(program)].positions} + 1;
  return count <= most_bytes / (2 * sizeof(Cause));
}

Causes::Causes(const Plan& plan, const Population& population, const StepList& list,
               const std::vector<ProgramSteps>& programs)
    : population_(population),
      streams_(plan.streams.size()),
      events_(plan.event_count()),
      width_(streams_ + events_ + plan.slots.size()),
      last_arrived_(population.communicators.size(), no_operation) {
  for (const Program& program : plan.programs) last_.push_back(last_positions(plan, list, program));
  std::uint32_t first = 0;
  for (const ProgramId program : population.program_of) {
    first_.push_back(first);
    // What is there when the first training step begins is what a training step leaves behind.
    for (const std::uint32_t position : last_[index_of(program)])
      latest_.push_back(position == no_operation ? no_operation : first + position);
    first += programs[index_of(program)].positions + 1;
    host_.push_back(first - 1);
  }
  first_.push_back(first);
  for (std::vector<Cause>& causes : causes_) causes.resize(first);
}

std::vector<std::uint32_t> Causes::last_positions(const Plan& plan, const StepList& list,
                                                  const Program& program) const {
  std::vector<std::uint32_t> last(width_, no_operation);
  std::uint32_t position = 0;
  for (const BlockCall& call : program.calls) {
    const StepList::Extent block = list.blocks[call.block];
    for (std::uint32_t s = block.first; s < block.first + block.count; ++s, ++position) {
      const Step& step = list.steps[s];
      if (step.kind != Step::Kind::kernels && step.kind != Step::Kind::communicate) continue;
      last[index_of(step.stream)] = position;
      if (step.record != 0) last[streams_ + event_index(plan, list.waits[step.record - 1], call)] = position;
      if (step.kind == Step::Kind::communicate) last[slot(plan.calls[step.call].slot)] = position;
    }
  }
  return last;
}

// Of members that arrive at the same time the first one in the order of ranks and programs counts as the last, so that
// it does not matter who was looked at first.
void Causes::arrive(std::uint32_t rank, std::size_t training, const Turn& turn, const Member& member) {
  std::uint32_t& here = latest(rank, slot(member.slot));
  Cause cause{.from = turn.device, .kind_and_call = kind_bits(Cause::Kind::device)};
  if (member.by == Arrival::communicator) cause.from = here;
  if (member.by == Arrival::host) cause = {.from = turn.host, .kind_and_call = kind_bits(Cause::Kind::host)};
  note(training, turn.operation, cause);
  issue(rank, member.stream, member.event, turn);
  here = turn.operation;
  std::uint32_t& last = last_arrived_[member.communicator];
  if (member.later)
    last = turn.operation;
  else if (member.equal)
    last = std::min(last, turn.operation);
}

void Causes::end_communication(std::uint32_t rank, std::size_t training, CommunicatorId communicator, SlotId in,
                               std::int64_t end) {
  const std::uint32_t operation = latest(rank, slot(in));
  const std::uint32_t last = last_arrived_[communicator];
  if (operation == last)
    causes_[training % 2][operation].end = end;
  else
    note(training, operation, {.end = end, .from = last, .kind_and_call = kind_bits(Cause::Kind::member)});
}

std::uint32_t Causes::rank_of(std::uint32_t operation) const {
  return static_cast<std::uint32_t>(std::ranges::upper_bound(first_, operation) - first_.begin() - 1);
}

std::uint32_t Causes::last_computation(std::uint32_t rank) const {
  const std::uint32_t position = last_[index_of(population_.program_of[RankId{rank}])][index_of(compute_stream)];
  return position == no_operation ? no_operation : first_[rank] + position;
}

}  // namespace trainyard::sim
