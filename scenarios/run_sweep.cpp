#include "scenarios/run_sweep.hpp"

#include <tbb/global_control.h>
#include <tbb/parallel_pipeline.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/internal/scenario_hash.hpp"
#include "scenarios/internal/value_text.hpp"
#include "scenarios/simulate.hpp"
#include "sim/broken_invariant.hpp"

namespace trainyard::scenarios {
namespace {

using Clock = std::chrono::steady_clock;

// Every commit waits for the disk; points that take less than this share one.
constexpr std::chrono::milliseconds commit_interval{50};

std::string compact(const std::string& json) { return nlohmann::ordered_json::parse(json).dump(); }

StoredPoint simulated(const Sweep& sweep, const SweepPoint& point, const Catalog& catalog, ScenarioHash& hash,
                      const std::string& program) {
  const Value root = sweep.scenario_of(point);
  StoredPoint stored{.position = point.position,
                     .parameters = to_json(point.parameters),
                     .hash = hash.of(root),
                     .program = program,
                     .diagnostics = {},
                     .scenario_yaml = yaml_of(root),
                     .result_json = {}};
  const sim::ThrowBrokenInvariants instead_of_ending;  // one point must not end the others
  try {
    stored.result_json = compact(to_json(simulate(read_scenario(root, catalog)).result));
  } catch (const std::bad_alloc&) {
    stored.hash.clear();  // there may be more memory next time
    stored.diagnostics = "out of memory";
  } catch (const sim::BrokenInvariant& error) {
    stored.diagnostics = std::string{"internal error: "} + error.what();
  } catch (const std::exception& error) {
    stored.diagnostics = error.what();
  }
  return stored;
}

// Takes results as they come; commits, and then reports.
class Writer {
 public:
  Writer(const Sweep& sweep, std::size_t of, ResultsStore& store, const RunSweepOptions& options)
      : name_(sweep.name()), store_(store), options_(options) {
    progress_.of = of;
  }

  void take(const StoredPoint& point) {
    store_.put(name_, point);
    ++progress_.finished;
    if (!point.ok()) ++progress_.failed;
    if (Clock::now() - committed_ >= commit_interval) commit();
  }
  void commit() {
    store_.commit();
    committed_ = Clock::now();
    progress_.elapsed_s = std::chrono::duration<double>(committed_ - started_).count();
    if (options_.progress) options_.progress(progress_);
  }
  const SweepProgress& progress() const { return progress_; }

 private:
  const std::string& name_;
  ResultsStore& store_;
  const RunSweepOptions& options_;
  SweepProgress progress_;
  Clock::time_point started_ = Clock::now();
  Clock::time_point committed_ = started_;
};

}  // namespace

std::string program_name(const std::string& version) { return version + " (build " + program_build() + ")"; }

SweepState state_of(const Sweep& sweep, const Catalog& catalog, const ResultsStore& store, const std::string& program) {
  SweepState state;
  const auto stored = store.states(sweep.name());
  ScenarioHash hash(catalog, program);
  for (const SweepPoint& point : sweep.points()) {
    const auto found = stored.find(to_json(point.parameters));
    if (found == stored.end() || found->second.hash != hash.of(sweep.scenario_of(point)))
      state.to_do.push_back(point.position);
    else
      ++(found->second.ok ? state.done : state.failed);
  }
  return state;
}

std::vector<std::size_t> mixed(const Sweep& sweep, const std::vector<std::size_t>& points) {
  std::vector<std::pair<std::string, std::size_t>> order;
  order.reserve(points.size());
  for (const std::size_t position : points)
    order.emplace_back(hash_of(to_json(sweep.points()[position].parameters)), position);
  std::ranges::sort(order);
  std::vector<std::size_t> positions;
  positions.reserve(order.size());
  for (const auto& [hash, position] : order) positions.push_back(position);
  return positions;
}

SweepProgress run_sweep(const Sweep& sweep, const std::vector<std::size_t>& points, const Catalog& catalog,
                        ResultsStore& store, const RunSweepOptions& options) {
  const std::vector<std::size_t> order = mixed(sweep, points);
  Writer writer(sweep, points.size(), store, options);
  ScenarioHash hash(catalog, options.program);
  const tbb::global_control threads(tbb::global_control::max_allowed_parallelism,
                                    static_cast<std::size_t>(options.jobs));
  std::size_t next = 0;
  const auto next_point = [&](tbb::flow_control& flow) -> std::size_t {
    const bool stop = options.stop != nullptr && options.stop->load();
    if (!stop && next < order.size()) return order[next++];
    flow.stop();
    return 0;
  };
  const auto simulate_point = [&](std::size_t position) {
    return simulated(sweep, sweep.points()[position], catalog, hash, options.program);
  };
  const auto write_point = [&](const StoredPoint& point) { writer.take(point); };
  tbb::parallel_pipeline(static_cast<std::size_t>(options.jobs) + 1,
                         tbb::make_filter<void, std::size_t>(tbb::filter_mode::serial_in_order, next_point) &
                             tbb::make_filter<std::size_t, StoredPoint>(tbb::filter_mode::parallel, simulate_point) &
                             tbb::make_filter<StoredPoint, void>(tbb::filter_mode::serial_out_of_order, write_point));
  writer.commit();
  return writer.progress();
}

}  // namespace trainyard::scenarios
