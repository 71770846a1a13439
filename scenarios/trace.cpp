#include "scenarios/trace.hpp"

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>

#include "scenarios/internal/trace_chrome.hpp"
#include "scenarios/internal/trace_labels.hpp"
#include "scenarios/internal/trace_perfetto.hpp"
#include "scenarios/internal/trace_store.hpp"
#include "scenarios/internal/trace_timeline.hpp"
#include "scenarios/output_file.hpp"

namespace trainyard::scenarios {
namespace {

using sim::OpRecord;

std::int64_t ticks(sim::TimePoint when) { return when.time_since_epoch().count(); }

TraceOperation operation_of(const OpRecord& record) {
  return {.start = ticks(record.start),
          .end = ticks(record.end),
          .transfer = ticks(record.transfer),
          .block = record.block,
          .op = record.op,
          .layer = record.layer,
          .micro_batch = record.micro_batch,
          .communicator = record.communicator,
          .sequence = record.sequence};
}

bool is_perfetto(const std::filesystem::path& path) { return path.extension() == ".pftrace"; }

// The sender, or the member that the others have waited for: the first of these in the order of ranks.
const OpRecord& source_of(const sim::Plan& plan, std::span<const OpRecord> members) {
  const OpRecord* source = &members.front();
  for (const OpRecord& member : members) {
    const sim::CollectiveKind kind = call_of(plan, member.block, member.op)->kind;
    const bool pair = kind == sim::CollectiveKind::send || kind == sim::CollectiveKind::receive;
    if (pair ? kind == sim::CollectiveKind::send : member.start > source->start) source = &member;
  }
  return *source;
}

}  // namespace

bool Trace::has_known_ending(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  const auto ends = [&](std::string_view ending) { return name.size() > ending.size() && name.ends_with(ending); };
  return ends(".json") || ends(".json.gz") || ends(".pftrace");
}

Trace::Trace(std::filesystem::path path) : path_(std::move(path)), store_(std::make_unique<TraceStore>(path_)) {}

Trace::~Trace() = default;

void Trace::begin(const sim::Plan& plan) { plan_ = &plan; }

void Trace::drop(std::uint32_t repetition) { store_->drop(repetition); }

void Trace::take(std::uint32_t repetition, const sim::MemoryRecord& memory) {
  TraceMemory stored{.when = ticks(memory.when)};
  for (std::size_t i = 0; i < sim::memory_purposes; ++i) stored.allocated.at(i) = memory.allocated.at(i).count;
  store_->add(repetition, memory.rank, stored);
}

void Trace::take(std::uint32_t repetition, std::span<const OpRecord> operations) {
  if (call_of(*plan_, operations.front().block, operations.front().op) != nullptr)
    return take_communications(repetition, operations);
  for (const OpRecord& record : operations) store_->add(repetition, record.rank, record.stream, operation_of(record));
}

// Ranks that were simulated once may stand for members of several communications.
void Trace::take_communications(std::uint32_t repetition, std::span<const OpRecord> members) {
  members_.assign(members.begin(), members.end());
  std::ranges::sort(members_, {}, [](const OpRecord& member) { return std::tuple{member.communicator, member.rank}; });
  for (std::size_t from = 0, to = 0; from < members_.size(); from = to) {
    while (to < members_.size() && members_[to].communicator == members_[from].communicator) ++to;
    const std::span<const OpRecord> group = std::span(members_).subspan(from, to - from);
    const OpRecord& source = source_of(*plan_, group);
    std::uint16_t arrow = 0;
    for (const OpRecord& member : group) {
      TraceOperation operation = operation_of(member);
      if (group.size() > 1 && operation.transfer < operation.end) {  // no viewer finds a slice at an instant
        operation.arrows = static_cast<std::uint16_t>(group.size() - 1);
        operation.arrow = &member == &source ? std::uint16_t{0} : ++arrow;
      }
      store_->add(repetition, member.rank, member.stream, operation);
    }
  }
}

void Trace::write(const sim::Plan& plan, const sim::Outcome& outcome) {
  sim::ensure(outcome.stall.empty(), "only a step that ends has a timeline");
  OutputFile file(path_);
  if (is_perfetto(path_)) {
    PerfettoTrace format(file);
    write_timeline(plan, outcome, *store_, format);
  } else {
    ChromeTrace format(file);
    write_timeline(plan, outcome, *store_, format);
  }
  file.commit();
}

}  // namespace trainyard::scenarios
