// From a scenario to its result: plan, run, measure.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "scenarios/scenario.hpp"
#include "sim/executor.hpp"
#include "strategies/link_uses.hpp"
#include "strategies/strategy.hpp"

namespace trainyard::scenarios {

// Seconds of the compute stream by what it did or waited for, averaged over ranks; adds up to the step time.
constexpr std::array<std::string_view, 13> breakdown_names{
    "matmul",           "attention",       "memory_bound",   "optimizer",       "exposed_data", "exposed_tensor",
    "exposed_pipeline", "exposed_context", "exposed_expert", "exposed_offload", "bubble",       "host",
    "straggler"};
using Breakdown = std::array<double, breakdown_names.size()>;

// The chain of operations and waits that decides how long a step takes: each began when the one before had ended, on
// whatever rank. Adds up to the step time.
struct CriticalPath {
  Breakdown breakdown_s{};
  struct Operation {
    std::string name;          // of a kernel or communication, or of what else takes time
    std::string where;         // "stage 14 and 15 more": the program where it takes most, and how many others
    std::size_t category = 0;  // into breakdown_names
    double seconds = 0;
    std::int64_t count = 0;  // times that it stands on the path
  };
  std::vector<Operation> operations;  // those that take most of it, at most ten
};

// A step as it would be with something changed.
struct WhatIf {
  std::string change;  // "network_bandwidth_x2"
  double step_time_s = 0;
};

// Per rank and step, averaged over ranks.
struct CommunicationSummary {
  sim::Purpose purpose = sim::Purpose::data;
  sim::CollectiveKind operation = sim::CollectiveKind::all_reduce;
  double count = 0;
  double bytes = 0;       // given to the operations
  double wire_bytes = 0;  // sent under the chosen algorithm
  double busy_s = 0;
  double exposed_s = 0;
};

// A part of the peak, by what allocated it: "optimizer", "activations of layer".
struct MemoryPart {
  std::string what;
  std::int64_t bytes = 0;
};

// What the peak would be with something changed, as it is given to --set: "training.recompute=full".
struct MemoryChange {
  std::vector<std::string> settings;
  std::int64_t peak = 0;
  bool fits = false;
};

// In bytes; the parts add up to the peak.
struct MemorySummary {
  std::int64_t capacity = 0;
  std::int64_t peak = 0;       // what must fit, on the worst rank
  std::int64_t allocated = 0;  // the allocator's own peak on that rank
  std::int64_t last_rank_allocated = 0;
  std::array<std::int64_t, sim::memory_purposes> parts{};  // at the allocator's peak, by sim::MemoryPurpose
  std::int64_t overhead = 0;                               // device context, communication buffers, fragmentation
  bool fits = true;
  std::int64_t peak_rank = 0;
  // Where it does not fit, and advice was asked for: the largest parts, and changes with which it would, or the one
  // that comes closest.
  std::vector<MemoryPart> largest;
  std::vector<MemoryChange> changes;
};

// All links of a kind, in the measured step. Utilisation is bytes carried over what the capacity could carry.
struct LinkSummary {
  topology::LinkKind kind{};
  std::int64_t count = 0;
  double utilization_mean = 0;
  double utilization_peak = 0;
  std::string busiest;
};

// Seconds that each part of a simulation took, to steer by; not part of a result.
struct PhaseTimes {
  double build = 0;     // the cluster
  double expand = 0;    // model and strategy into a plan
  double refine = 0;    // ranks into classes
  double simulate = 0;  // the step
  double compare = 0;   // the same step on an ideal network, and without slow devices
  double report = 0;
};

// Of requests that are answered together: seconds until all have their first token, on average until each of the
// others, and until the last. Bytes and batches are those of a copy of the model, on all of its devices.
struct InferenceSummary {
  double prefill_s = 0;
  double time_per_token_s = 0;
  double request_s = 0;
  double tokens_per_s = 0;  // of all copies, while they decode
  std::int64_t replicas = 1;
  std::int64_t batch = 1;
  std::int64_t kv_cache_bytes = 0;  // of all sequences in the end
  std::int64_t kv_cache_bytes_per_token = 0;
  std::int64_t weights_bytes = 0;
  std::int64_t largest_batch = 0;  // that fits in memory
  // Of the peak rate of products, and of the nominal bandwidth of the memory.
  double prefill_compute_utilization = 0;
  double decode_memory_utilization = 0;
  Breakdown prefill_breakdown_s{};
  Breakdown decode_breakdown_s{};  // of all tokens behind the first
};

struct EngineSummary {
  double wall_s = 0;
  std::int64_t peak_rss_bytes = 0;
  std::uint64_t events = 0;      // communications of the measured step, and what stood in the queue of events in all
  std::uint64_t operations = 0;  // executed in it, over all ranks
  std::int64_t ranks = 0;
  std::int64_t rank_classes = 0;  // of ranks with the same timeline; one of each was simulated
  PhaseTimes phases;
};

struct Result {
  std::string scenario;
  std::int64_t seed = 1;
  std::int64_t devices = 0;
  strategies::Parallelism parallelism;
  std::int64_t micro_batch = 1;
  std::int64_t micro_batches = 1;
  std::string recompute;  // what backward computes again; chosen where the scenario says `auto`
  double step_time_s = 0;
  double samples_per_s = 0;
  double tokens_per_s = 0;
  double tokens_per_s_per_device = 0;
  double model_tflops_per_device = 0;
  double hardware_tflops_per_device = 0;
  double mfu = 0;
  double mfu_full_attention = 0;
  double hfu = 0;
  double device_busy = 0;
  Breakdown breakdown_s{};
  std::optional<CriticalPath> critical_path;
  std::vector<WhatIf> what_if;   // where asked for
  double ideal_step_time_s = 0;  // the same step on a network of infinite bandwidth and zero latency
  double communication_overhead = 0;
  MemorySummary memory;
  CostSummary cost;
  std::optional<RunSummary> run;  // where the scenario says how long it is, and it ends
  GoodputSummary goodput;
  std::optional<InferenceSummary> inference;  // then a step is a request: prefill and decoding of a whole batch
  std::vector<CommunicationSummary> communication;
  std::vector<LinkSummary> links;
  std::vector<std::string> faulty_links;
  EngineSummary engine;
  bool steady = true;
  std::vector<std::string> warnings;
};

struct SimulateOptions {
  bool record = false;                             // keep records of `ranks` in the outcome
  sim::RecordSink* sink = nullptr;                 // takes records of `ranks` while the step is simulated
  bool fold = true;                                // simulate ranks that nothing tells apart once
  bool ideal = true;                               // simulate the ideal network too; without: those fields are 0
  std::optional<std::vector<std::int64_t>> ranks;  // to record; absent: the first rank of each program
  bool critical_path = true;                       // find the critical path
  bool what_if = false;                            // simulate each change of `Result::what_if`; of training alone
  bool memory_timeline = false;                    // record the fullest rank too
  bool per_operation = false;                      // keep what layer_rows() needs
  bool advise = false;         // where memory does not fit, say what holds it and what would make it fit: more planning
  std::uint64_t tie_seed = 0;  // sim::RunOptions::tie_seed
};

// A link that carried anything in a step, and for whom.
struct LinkRow {
  topology::LinkKind kind{};
  std::string name;
  sim::Bytes bytes{};
  sim::BytesPerSecond capacity{};
  double utilization = 0;
  strategies::LinkUses uses{};  // of the bytes, by sim::Purpose
};

// Allocations of the fullest rank over the step, in bytes by sim::MemoryPurpose: one row for each change.
struct MemoryRow {
  double time_s = 0;
  std::array<std::int64_t, sim::memory_purposes> allocated{};
};

struct Simulation {
  Result result;
  sim::Plan plan;
  sim::Outcome outcome;
};

// A scenario that was read can be simulated, unless its times or sizes pass the simulator's range: ScenarioError. A
// stall is an error in a strategy and throws std::logic_error, or ScenarioError at the plug-in that it came from.
Simulation simulate(const Scenario& scenario, const SimulateOptions& options = {});

// What every link of the cluster carried, in the cluster's order; links without traffic are left out.
std::vector<LinkRow> link_rows(const Scenario& scenario, const Simulation& simulation);
std::string links_to_csv(std::span<const LinkRow> rows);

// Of a simulation with `memory_timeline`.
std::vector<MemoryRow> memory_rows(const Simulation& simulation);
std::string memory_to_csv(std::span<const MemoryRow> rows);

// As the contract of `--json` has it.
std::string to_json(const Result& result);
// For people: what the step takes, where it goes, whether it fits.
std::string to_summary(const Scenario& scenario, const Result& result);

}  // namespace trainyard::scenarios
