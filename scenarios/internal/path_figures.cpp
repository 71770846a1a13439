#include "scenarios/internal/path_figures.hpp"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
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

// Stages share an operation, and so do blocks: to the reader it is one.
struct Named {
  sim::Duration time{};
  std::int64_t count = 0;
  std::map<sim::ProgramId, sim::Duration> programs;
};

// The one that it takes most time in, and how many others there are.
std::string where_of(const sim::Plan& plan, const Named& named) {
  const auto most = std::ranges::max_element(named.programs, {}, [](const auto& program) { return program.second; });
  const std::string& name = plan.programs[most->first].name;
  const std::size_t others = named.programs.size() - 1;
  return others == 0 || name.empty() ? name : name + " and " + std::to_string(others) + " more";
}

std::vector<CriticalPath::Operation> operations_of(const sim::Plan& plan, const sim::CriticalPath& path) {
  std::map<std::pair<std::string, sim::PathTime>, Named> all;
  for (const Sum& sum : sums_of(plan, path)) {
    Named& named = all[{name_of(plan, sum.piece), sum.piece.time}];
    named.time += sum.time;
    named.count += sum.count;
    named.programs[plan.program_of[sum.piece.rank]] += sum.time;
  }
  std::vector<CriticalPath::Operation> operations;
  for (const auto& [key, named] : all)
    operations.push_back({.name = key.first,
                          .where = where_of(plan, named),
                          .category = static_cast<std::size_t>(key.second),
                          .seconds = sim::to_seconds(named.time) / static_cast<double>(path.steps),
                          .count = named.count / path.steps});
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
