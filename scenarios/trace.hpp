// The timeline of recorded ranks, for https://ui.perfetto.dev or chrome://tracing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "sim/executor.hpp"
#include "sim/record.hpp"

namespace trainyard::scenarios {

class TraceStore;

// One process per recorded rank, one thread per stream of it, a slice per kernel and communication, arrows between the
// recorded members of a communication, counters of memory and link use; above all ranks the critical path, a slice for
// each operation on it with the rank that it is of. Time 0 is the start of the measured step, or
// what a recorded rank did of it before that. The end of the name says the format: ".json" and ".json.gz" are Chrome
// trace events, whose times are exact (microseconds with six decimals); ".pftrace" is Perfetto's own format, with whole
// nanoseconds.
//
// Collects records while a plan runs, in a file without a name beside `path`, and writes the trace from there: memory
// does not grow with the trace. What is collected is gone with the object, or with the program. Throws OutputError.
class Trace final : public sim::RecordSink {
 public:
  static constexpr std::string_view endings = ".json, .json.gz or .pftrace";
  static bool has_known_ending(const std::filesystem::path& path);

  // Of a name with one of the endings.
  explicit Trace(std::filesystem::path path);
  ~Trace() override;
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  void begin(const sim::Plan& plan) override;
  void take(std::uint32_t repetition, std::span<const sim::OpRecord> operations) override;
  void take(std::uint32_t repetition, const sim::MemoryRecord& memory) override;
  void drop(std::uint32_t repetition) override;

  // `outcome` is what the run of `plan` gave from which the records came, without a stall.
  void write(const sim::Plan& plan, const sim::Outcome& outcome);

 private:
  void take_communications(std::uint32_t repetition, std::span<const sim::OpRecord> members);

  std::filesystem::path path_;
  std::unique_ptr<TraceStore> store_;
  const sim::Plan* plan_ = nullptr;  // while it runs
  std::vector<sim::OpRecord> members_;
};

}  // namespace trainyard::scenarios
