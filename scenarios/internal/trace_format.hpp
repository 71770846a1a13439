// What a timeline is made of, and who writes it down. trace_timeline.hpp says all of it, in this order: the start, then
// the critical path, where there is one, each rank with its threads, their slices thread by thread, and its counters,
// then the end.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "sim/plan.hpp"

namespace trainyard::scenarios {

// Viewers number threads across processes, and the thread 0 is the idle one to Perfetto.
inline std::uint64_t thread_of(sim::RankId rank, sim::StreamId stream) {
  return index_of(rank) * sim::most_streams + index_of(stream) + 1;
}

constexpr std::string_view path_name = "critical path";

// Times are picoseconds from the beginning of the trace on.
struct TraceStep {
  std::int64_t start = 0;
  std::int64_t duration = 0;
};

using TraceArgument = std::pair<std::string_view, std::variant<std::int64_t, std::string>>;

// What slices of an operation have in common.
struct TraceLabel {
  std::uint32_t number = 0;   // of all that the trace uses, from 0
  std::uint32_t version = 0;  // another when the rest has changed
  std::string name;
  std::string category;
  std::string block;
  std::vector<TraceArgument> arguments;
};

// Arrows from the member of a communication that the others have waited for, or that has sent, to each of them.
struct TraceArrows {
  std::uint64_t first = 0;  // the numbers of arrows follow each other
  std::uint32_t count = 0;
  bool leave = false;         // or arrive
  std::int64_t transfer = 0;  // from when on they are on their way; they are there before the slice ends
};

struct TraceSlice {
  sim::RankId rank{};
  sim::StreamId stream{};
  std::int64_t start = 0;
  std::int64_t end = 0;
  const TraceLabel* label = nullptr;
  std::int32_t layer = -1;
  std::int32_t micro_batch = -1;
  std::optional<std::int64_t> waited = std::nullopt;  // for the other members
  TraceArrows arrows = {};
  std::optional<sim::RankId> of_rank = std::nullopt;  // of the critical path: who does it
};

// The slice around the kernels of one pass of a micro-batch, or of two at once.
struct TracePhase {
  sim::RankId rank{};
  sim::StreamId stream{};
  std::int64_t start = 0;
  std::int64_t end = 0;
  std::string name;
  std::string phase;
  std::int32_t micro_batch = -1;
  std::int32_t backward_micro_batch = -1;  // of the second pass
};

// Links whose use is counted: inside the node, and from it.
enum class TrafficLinks : std::uint8_t { nvlink, nic };
inline std::string_view to_string(TrafficLinks links) { return links == TrafficLinks::nvlink ? "nvlink" : "nic"; }

class TraceFormat {
 public:
  virtual ~TraceFormat() = default;

  virtual void start(const TraceStep& step) = 0;
  virtual void name_rank(sim::RankId rank, std::string_view name) = 0;
  virtual void name_stream(sim::RankId rank, sim::StreamId stream, std::string_view name) = 0;
  // A thread of its own above the ranks; its slices have the number that is behind those of all ranks.
  virtual void name_path(sim::RankId behind) = 0;
  // Slices of a thread come in order; they lie inside what has begun and not ended.
  virtual void begin_phase(const TracePhase& phase) = 0;
  virtual void end_phase(const TracePhase& phase) = 0;
  virtual void begin_slice(const TraceSlice& slice) = 0;
  virtual void end_slice(const TraceSlice& slice) = 0;
  virtual void count_memory(sim::RankId rank, std::int64_t when,
                            const std::array<std::int64_t, sim::memory_purposes>& allocated) = 0;
  // What a rank sends over its links of a kind.
  virtual void count_traffic(sim::RankId rank, TrafficLinks links, std::int64_t when,
                             std::int64_t bytes_per_second) = 0;
  virtual void finish() = 0;
};

}  // namespace trainyard::scenarios
