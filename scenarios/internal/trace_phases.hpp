// Phases of a schedule, found in the kernels of a compute stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/internal/trace_format.hpp"
#include "scenarios/internal/trace_store.hpp"

namespace trainyard::scenarios {

// Reads ahead of whoever writes the slices: a phase is known only when it is over.
class PhaseReader {
 public:
  PhaseReader(const sim::Plan& plan, TraceStore::Operations operations);

  struct Phase {
    std::int64_t start = 0;
    std::int64_t end = 0;
    std::size_t operations = 0;
    std::string name;  // F3 and B3 are the passes of micro-batch 3, I3 and W3 the parts of B3, F3&B1 two passes at once
    std::string phase;
    std::int32_t micro_batch = -1;
    std::int32_t backward_micro_batch = -1;
  };
  // While there is another operation.
  Phase next();

 private:
  struct Pass {
    std::string_view phase;
    std::int32_t micro_batch = -1;
  };
  Pass pass_of(const TraceOperation& operation) const;
  static bool belongs(std::vector<Pass>& passes, const Pass& pass);
  void read();

  const sim::Plan& plan_;
  TraceStore::Operations operations_;
  std::optional<TraceOperation> following_;  // the first of the next phase
};

}  // namespace trainyard::scenarios
