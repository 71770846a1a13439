// Chrome trace events, in JSON: what chrome://tracing and Perfetto open. Times are exact, microseconds with six
// decimals.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/internal/trace_format.hpp"
#include "scenarios/output_file.hpp"

namespace trainyard::scenarios {

class ChromeTrace final : public TraceFormat {
 public:
  explicit ChromeTrace(OutputFile& file) : file_(file) {}

  void start(const TraceStep& step) override;
  void name_rank(sim::RankId rank, std::string_view name) override;
  void name_stream(sim::RankId rank, sim::StreamId stream, std::string_view name) override;
  void name_path(sim::RankId behind) override;
  void begin_phase(const TracePhase& phase) override;
  void end_phase(const TracePhase& /*phase*/) override {}
  void begin_slice(const TraceSlice& slice) override;
  void end_slice(const TraceSlice& /*slice*/) override {}
  void count_memory(sim::RankId rank, std::int64_t when,
                    const std::array<std::int64_t, sim::memory_purposes>& allocated) override;
  void count_traffic(sim::RankId rank, TrafficLinks links, std::int64_t when, std::int64_t bytes_per_second) override;
  void finish() override;

 private:
  // A label as text, before and after what differs between its slices.
  struct LabelText {
    std::uint32_t version = 0;
    std::string head;
    std::string tail;
  };
  const LabelText& text_of(const TraceLabel& label);
  void write_arrows(const TraceSlice& slice);
  void write_metadata(std::string_view what, sim::RankId rank, const sim::StreamId* stream, std::string_view value);
  void begin(char phase, sim::RankId rank);
  void append_thread(sim::RankId rank, sim::StreamId stream);
  void append_time(std::string_view key, std::int64_t ps);
  void append_field(std::string_view key, std::int64_t value);
  void end();

  OutputFile& file_;
  std::string out_;
  bool first_ = true;
  std::vector<LabelText> labels_;
};

}  // namespace trainyard::scenarios
