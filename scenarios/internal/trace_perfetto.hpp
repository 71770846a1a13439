// Perfetto's own trace format, for https://ui.perfetto.dev and trace_processor.
//
// Times are rounded to the nearest nanosecond, Perfetto's unit: each time by itself and the same everywhere, so what is
// in order or inside something else stays so; no slice is off by more than a nanosecond. What repeats is written once
// per track and then referred to, times are differences on a track, and packets of events are compressed as Perfetto's
// service does it (TracePacket.compressed_packets), which every reader of the format undoes by itself.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "scenarios/internal/trace_format.hpp"
#include "scenarios/output_file.hpp"

namespace trainyard::scenarios {

class PerfettoTrace final : public TraceFormat {
 public:
  explicit PerfettoTrace(OutputFile& file);
  ~PerfettoTrace() override;
  PerfettoTrace(const PerfettoTrace&) = delete;
  PerfettoTrace& operator=(const PerfettoTrace&) = delete;

  void start(const TraceStep& step) override;
  void name_rank(sim::RankId rank, std::string_view name) override;
  void name_stream(sim::RankId rank, sim::StreamId stream, std::string_view name) override;
  void name_path(sim::RankId behind) override;
  void begin_phase(const TracePhase& phase) override;
  void end_phase(const TracePhase& phase) override;
  void begin_slice(const TraceSlice& slice) override;
  void end_slice(const TraceSlice& slice) override;
  void count_memory(sim::RankId rank, std::int64_t when,
                    const std::array<std::int64_t, sim::memory_purposes>& allocated) override;
  void count_traffic(sim::RankId rank, TrafficLinks links, std::int64_t when, std::int64_t bytes_per_second) override;
  void finish() override;

 private:
  class Packets;
  std::unique_ptr<Packets> packets_;  // so that only the source knows the Protobuf library
};

}  // namespace trainyard::scenarios
