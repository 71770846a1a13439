#include "scenarios/internal/path_figures.hpp"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

namespace trainyard::scenarios {
namespace {

constexpr std::size_t most_operations = 10;

std::string name_of_call(const sim::Plan& plan, sim::CallId id) {
  const sim::Call& call = plan.calls[id];
  const std::string& slot = plan.slots[call.slot];
  return std::string(to_string(call.kind)) + " " + (slot.empty() ? std::string(to_string(call.purpose)) : slot);
}

// Pieces of the same operation of a block, wherever the block is called.
struct Sum {
  sim::PathSegment piece;
  sim::Duration time{};
  std::int64_t count = 0;
};

std::vector<Sum> sums_of(const sim::Plan& plan, const sim::CriticalPath& path) {
  using Key = std::tuple<sim::ProgramId, sim::BlockId, std::uint32_t, sim::PathTime, std::optional<sim::CallId>>;
  std::map<Key, Sum> sums;
  for (const sim::PathSegment& piece : path.segments) {
    Sum& sum = sums[{plan.program_of[piece.rank], piece.block, piece.op, piece.time, piece.slowed_by}];
    if (sum.count++ == 0) sum.piece = piece;
    sum.time += piece.length;
  }
  std::vector<Sum> result;
  for (auto& [key, sum] : sums) result.push_back(std::move(sum));
  return result;
}

// Operations of several blocks may be one to the reader.
std::vector<CriticalPath::Operation> operations_of(const sim::Plan& plan, const sim::CriticalPath& path) {
  std::map<std::tuple<std::string, std::string, sim::PathTime>, std::pair<sim::Duration, std::int64_t>> named;
  for (const Sum& sum : sums_of(plan, path)) {
    const std::string& where = plan.programs[plan.program_of[sum.piece.rank]].name;
    auto& [time, count] = named[{name_of(plan, sum.piece), where, sum.piece.time}];
    time += sum.time;
    count += sum.count;
  }
  std::vector<CriticalPath::Operation> operations;
  for (const auto& [key, sum] : named)
    operations.push_back({.name = std::get<0>(key),
                          .where = std::get<1>(key),
                          .category = static_cast<std::size_t>(std::get<2>(key)),
                          .seconds = sim::to_seconds(sum.first) / static_cast<double>(path.steps),
                          .count = sum.second / path.steps});
  std::ranges::stable_sort(operations, std::greater<>{}, &CriticalPath::Operation::seconds);
  if (operations.size() > most_operations) operations.resize(most_operations);
  return operations;
}

}  // namespace

std::string name_of(const sim::Plan& plan, const sim::PathSegment& segment) {
  const sim::Op& op = plan.blocks[segment.block].ops[segment.op];
  if (segment.slowed_by) return "kernels beside " + name_of_call(plan, *segment.slowed_by);
  if (segment.time == sim::PathTime::host)
    return std::holds_alternative<sim::HostWork>(op.work) ? "work on the host" : "launching kernels";
  if (const auto* communicate = std::get_if<sim::Communicate>(&op.work)) return name_of_call(plan, communicate->call);
  const auto* compute = std::get_if<sim::Compute>(&op.work);
  sim::ensure(compute != nullptr, "only kernels, communications and hosts take time");
  return plan.kernels[compute->kernel].name;
}

CriticalPath critical_path_of(const sim::Plan& plan, const sim::CriticalPath& path) {
  static_assert(sim::path_times == breakdown_names.size());
  CriticalPath result;
  const auto times = path.times();
  for (std::size_t i = 0; i < times.size(); ++i)
    result.breakdown_s.at(i) = sim::to_seconds(times.at(i)) / static_cast<double>(path.steps);
  result.operations = operations_of(plan, path);
  return result;
}

}  // namespace trainyard::scenarios
