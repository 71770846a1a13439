// Runs a plan: when everything happens.
//
// Nothing between ranks is first come, first served: a collective starts when its last member has arrived and ends for
// all members together. A rank runs ahead alone until it needs the end of a communication that others have yet to join
// or that shares links. A communication whose links nobody else uses ends at the last arrival plus a known duration and
// needs no event. Only what shares links, and kernels beside an own communication that slows them, stand in a queue of
// events; all events of an instant are applied before links are shared anew, so their order does not matter.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sim/critical_path.hpp"
#include "sim/plan.hpp"
#include "sim/record.hpp"

namespace trainyard::sim {

struct Population;

struct RunOptions {
  std::vector<RankId> record = {};  // ranks whose every operation is recorded, in the outcome
  RecordSink* sink = nullptr;       // takes what `sink_ranks` do while the plan runs; the outcome knows nothing of it
  std::vector<RankId> sink_ranks = {};
  bool fold = true;              // simulate ranks that cannot be told apart once: the same outcome, sooner
  int most_steps = 6;            // give up looking for a steady period after so many
  bool ideal_network = false;    // communications take no time
  bool healthy_devices = false;  // no device is slow
  bool per_operation = false;    // fill Outcome::operation_times
  bool critical_path = false;    // fill Outcome::critical_path
  std::uint64_t tie_seed = 0;    // not 0: what happens at the same time is taken in a random order, for tests
};

// A sum over all ranks: 10^6 ranks x 100 s do not fit 64 bits of picoseconds.
struct WideDuration {
  __extension__ using Wide = __int128;
  Wide ps = 0;
  void add(Duration duration, std::int64_t times = 1) { ps += static_cast<Wide>(duration.count()) * times; }
  // Seconds of the average over `count` ranks.
  double mean_seconds(std::size_t count) const { return static_cast<double>(ps) / static_cast<double>(count) * 1e-12; }
};

// Sums over all ranks of what the compute stream did in the measured step; they add up to ranks x step time.
struct ComputeStreamTime {
  std::array<WideDuration, kernel_classes> kernels{};
  std::array<WideDuration, purposes> exposed{};  // waiting for a transfer in progress, or queued behind one
  WideDuration bubble;                           // waiting for another rank to arrive
  WideDuration host;                             // waiting for the host to issue
  WideDuration idle;                             // with no kernel at all on the device; already counted above
};

struct CallTime {
  WideDuration busy;     // from the last arrival to the end, over all ranks
  WideDuration exposed;  // compute streams waited, over all ranks
};

// Of an operation of a block in all calls of the block for one layer: communications, and kernels that do not run on
// the compute stream. Waiting that no operation is to blame for, such as for another rank, is in none of them.
struct OperationTime {
  BlockId block{};
  std::uint32_t op = 0;  // within the block
  std::int32_t layer = -1;
  CallTime time;
};

struct Outcome {
  Duration step_time{};
  bool steady = true;         // the last two steps took every rank equally long
  TimePoint measured_from{};  // when the first rank entered the measured step
  ComputeStreamTime time;
  Table<CallId, CallTime> calls;
  std::vector<OperationTime> operation_times;  // where asked for; those that took or cost no time are left out
  // Where asked for, unless what it is found from would take more than 1 GiB: ranks that are too many and too unlike.
  std::optional<CriticalPath> critical_path;
  std::vector<OpRecord> records;  // of RunOptions::record; sorted by rank, then in issue order
  std::vector<MemoryRecord> memory;
  std::uint64_t operations = 0;  // executed in the measured step, all ranks
  std::uint64_t communications = 0;
  std::size_t rank_classes = 0;  // simulated; as many as ranks without folding
  std::uint64_t events = 0;      // taken from the queue, in all steps
  // Transfers on shared links that a rank issued only after it had waited for something else, so that they start later
  // than they could: 0 where strategies issue in a good order.
  std::uint64_t held_back = 0;
  std::string stall;  // empty, or which ranks wait for what for ever: an error in the plan
};

// The steady step: the program is repeated until two steps in a row take every rank equally long, so that what runs
// from one step into the next is accounted for and the one-time work of a first step is not.
Outcome run(const Plan& plan, const RunOptions& options = {});
// With the ranks to simulate at hand, from fold() or everyone(); `options.fold` has no say.
Outcome run(const Plan& plan, const Population& population, const RunOptions& options);

}  // namespace trainyard::sim
