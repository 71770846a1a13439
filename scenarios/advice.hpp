// What limits a run, and which changes of keys would help most.
//
// Every change that is advised was simulated: other values of what Strategy::search_keys() lists, alone and with the
// keys that they need; another size of one parallel dimension against one of another; switches and bucket sizes of the
// framework that only say when things are done; compiled kernels, newer attention kernels, and sharding instead of
// DDP. Global batch, sequence, precision, optimizer and whatever else decides what is learnt stay. What the framework
// refuses, or would be warned of, is not advised, and where the run fits in memory neither is what does not.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "scenarios/catalog.hpp"
#include "scenarios/scenario.hpp"
#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {

struct Advice {
  struct Change {
    std::vector<std::string> settings;  // as they are given to --set: "strategy.pipeline=8"
    double step_time_s = 0;             // simulated with them
    std::int64_t peak_bytes = 0;        // of memory
    std::string why;                    // in a few words: "pipeline bubble 2.9 s -> 1.3 s"
  };
  std::string limit;            // a sentence or two
  std::vector<Change> changes;  // that help most, best first; the first may be some of the others together
  std::int64_t tried = 0;       // that were simulated
};

// `result` is that of the scenario, of training. Takes at most 300 simulations, fewer of large ones, on all cores: some
// ten seconds on two.
Advice advise(const std::filesystem::path& scenario, const Catalog& catalog, const LoadOptions& load,
              const Result& result);
Advice advise(const Value& root, const Catalog& catalog, const Result& result);

// The result as JSON, with a field `advice`.
std::string to_json(const Result& result, const Advice& advice);
// What ends the summary of the result.
std::string to_text(const Advice& advice, const Result& result);

}  // namespace trainyard::scenarios
