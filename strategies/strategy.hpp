// A strategy turns a job into the plan of one training step, the way a framework schedules it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sim/key.hpp"
#include "sim/plan.hpp"
#include "topology/cluster.hpp"
#include "workloads/accelerator.hpp"
#include "workloads/model.hpp"
#include "workloads/training.hpp"

namespace trainyard::strategies {

// What is trained, how, and on what. All of it has been checked key by key; relations between keys have not.
struct Job {
  const workloads::Model& model;
  const workloads::Training& training;
  const workloads::Accelerator& accelerator;
  const topology::Cluster& cluster;
  // Where devices differ, `accelerator` is in turn each of their types, and defaults that depend on a type are those of
  // this one, so that all run the same schedule; null: of `accelerator`.
  const workloads::Accelerator* leading = nullptr;
  // Only the memory of the plan is looked at: what communications cost may be left out of it.
  bool for_memory_alone = false;
  const workloads::Accelerator& leading_accelerator() const { return leading != nullptr ? *leading : accelerator; }
};

struct Parallelism {
  std::int64_t data = 1;
  std::int64_t tensor = 1;
  std::int64_t pipeline = 1;
  std::int64_t context = 1;
  std::int64_t expert = 1;
};

// A step ready to be simulated, and what a report says of it.
struct PlannedStep {
  sim::Plan plan;
  Parallelism parallelism;
  std::int64_t micro_batch = 1;    // sequences
  std::int64_t micro_batches = 1;  // per data-parallel rank and step
  int communicator_groups = 0;     // process groups a rank belongs to, beyond the world; each costs memory
  bool static_buffers = false;     // a compiler gave every buffer its place: no allocator, no context of CUDA
};

// Something that cannot run, at the key that would have to change: "strategy.tensor", "training.micro_batch".
struct Problem {
  std::string key;
  std::string message;  // what is wrong, what was expected, and the nearest possible choice
};

// What a key of a search changes of a step. A search relies on it to leave out what cannot win: all passes together run
// no fewer kernels, over all ranks, with keys of later effects than with these at their first values; and with the keys
// of the last they take no less time, and keep as much for backward, as with these at theirs.
enum class SearchEffect : std::uint8_t {
  kernels,   // which kernels a pass runs, on how much
  schedule,  // on which rank and when passes run
  state      // where parameters, gradients and optimizer state are, and when they move
};

// Among the values of a search key: the key is not given, and has the default of its framework.
constexpr std::string_view usual_value;

// A key that decides how a job is divided, and what a search tries for it, as a scenario has it: "8", "true",
// "interleaved". The first value is the plainest: nothing divided, nothing recomputed, off.
struct SearchKey {
  std::string path;  // "strategy.tensor", "training.micro_batch"
  std::vector<std::string> values;
  // An earlier key without which this one changes nothing, so that it is left out where that one has its first value:
  // "strategy.pipeline" for a schedule. It is left out with whatever leaves that one out, too.
  std::string only_with = {};
  // The value of that one with which alone this one is an option: "2.5d" for a depth; empty: any but the first.
  std::string only_value = {};
  SearchEffect effect = SearchEffect::kernels;
};

class Strategy {
 public:
  virtual ~Strategy() = default;

  // The options of the framework under `strategy`, with its own names and defaults (`framework` aside).
  virtual std::vector<sim::Key> keys() = 0;
  // Impossible combinations; a job without problems can be planned.
  virtual std::vector<Problem> check(const Job& job) const = 0;
  // Combinations that run here but not in the real framework, and options without effect.
  virtual std::vector<std::string> warnings(const Job& job) const = 0;
  virtual PlannedStep plan(const Job& job) const = 0;

  // What a search for the best plan of the job varies; its options, micro batch and recomputation do not matter.
  // check() may refuse combinations of the values. A framework without any is never proposed.
  virtual std::vector<SearchKey> search_keys(const Job& /*job*/) const { return {}; }
};

struct StrategyEntry {
  std::string_view name;
  std::string_view summary;
  std::unique_ptr<Strategy> (*make)() = nullptr;
};

// All frameworks, one line each in catalog.cpp.
std::span<const StrategyEntry> catalog();

}  // namespace trainyard::strategies
