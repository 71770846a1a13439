// Simulates the points of a sweep, on all cores, into a results store.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "scenarios/catalog.hpp"
#include "scenarios/results_store.hpp"
#include "scenarios/sweep.hpp"

namespace trainyard::scenarios {

// How far a sweep is in its store. A point is outdated when its scenario, a catalogue entry, a plug-in or the program
// has changed since.
struct SweepState {
  std::size_t done = 0;            // simulated and up to date
  std::size_t failed = 0;          // tried, and not possible
  std::vector<std::size_t> to_do;  // positions of points that are missing or outdated
};

SweepState state_of(const Sweep& sweep, const Catalog& catalog, const ResultsStore& store, const std::string& program);

// In an order that mixes large and small ones, the same every time.
std::vector<std::size_t> mixed(const Sweep& sweep, const std::vector<std::size_t>& points);

struct SweepProgress {
  std::size_t finished = 0;  // in this call, and on the disk
  std::size_t failed = 0;    // of these
  std::size_t of = 0;
  double elapsed_s = 0;
};

struct RunSweepOptions {
  std::string program;                                      // version and build, see program_build()
  int jobs = 1;                                             // points simulated at a time
  std::function<void(const SweepProgress&)> progress = {};  // called one at a time, once results are on the disk
  const std::atomic<bool>* stop = nullptr;                  // begin no further point once it is true
};

// Simulates these points, in an order that mixes large and small ones, so that what is done says how long the rest will
// take. A point that cannot be simulated is stored with its diagnostics. Throws OutsideFailure; what was reported
// before stays in the store.
SweepProgress run_sweep(const Sweep& sweep, const std::vector<std::size_t>& points, const Catalog& catalog,
                        ResultsStore& store, const RunSweepOptions& options);

// "0.1.0 (build 1a2b…)": which results are up to date.
std::string program_name(const std::string& version);

}  // namespace trainyard::scenarios
