// `trainyard sweep`: many scenarios, in parallel, into a results store.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "scenarios/results_store.hpp"
#include "scenarios/run_sweep.hpp"
#include "scenarios/sweep.hpp"
#include "scenarios/sweep_report.hpp"
#include "scenarios/sweep_results.hpp"
#include "tools/internal/commands.hpp"
#include "tools/internal/stop_on_signal.hpp"
#include "tools/internal/sweep_on_slurm.hpp"

namespace trainyard::tools {
namespace {

struct SweepArguments {
  std::filesystem::path sweep;
  std::string store;
  int jobs = 0;
  std::string json;
  std::string csv;
  std::string report;
  bool status = false;
  std::vector<std::string> overrides;
  SlurmArguments slurm;
};

std::string duration_text(double seconds) {
  const auto whole = static_cast<long>(std::lround(seconds));
  char text[32];
  if (whole >= 3600)
    std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", whole / 3600, whole / 60 % 60, whole % 60);
  else
    std::snprintf(text, sizeof text, "%ld:%02ld", whole / 60, whole % 60);
  return text;
}

void show_progress(const scenarios::SweepProgress& progress) {
  if (progress.finished == 0) return;
  constexpr std::size_t width = 30;
  const std::size_t filled = width * progress.finished / progress.of;
  const double rate = static_cast<double>(progress.finished) / progress.elapsed_s;
  const std::string failed = progress.failed == 0 ? "" : ", " + std::to_string(progress.failed) + " not possible";
  std::fprintf(stderr, "\r\033[K[%s%s] %zu of %zu points%s, %.1f points/s, %s left%s", std::string(filled, '#').c_str(),
               std::string(width - filled, ' ').c_str(), progress.finished, progress.of, failed.c_str(), rate,
               duration_text(static_cast<double>(progress.of - progress.finished) / rate).c_str(),
               StopOnSignal::asked() ? " (stopping)" : "");
}

std::string count_line(const scenarios::Sweep& sweep, const scenarios::SweepState& state,
                       const scenarios::ResultsStore& store) {
  return std::to_string(sweep.points().size()) + " points: " + std::to_string(state.done) + " simulated, " +
         std::to_string(state.failed) + " failed, " + std::to_string(state.to_do.size()) + " to do; in " +
         store.path().string() + "\n";
}

std::filesystem::path store_of(const SweepArguments& arguments) {
  if (!arguments.store.empty()) return arguments.store;
  return std::filesystem::path{arguments.sweep}.replace_extension(".db");
}

bool prints_an_output(const SweepArguments& arguments) {
  return arguments.json == "-" || arguments.csv == "-" || arguments.report == "-";
}

void write_results(const SweepArguments& arguments, const scenarios::SweepResults& results) {
  if (!arguments.csv.empty()) scenarios::write_csv(results, arguments.csv);
  if (!arguments.json.empty()) scenarios::write_json(results, arguments.json);
  if (!arguments.report.empty()) scenarios::write_report(results, arguments.report);
  if (!prints_an_output(arguments)) print(scenarios::to_text(results));
}

using Output = std::pair<std::string, std::string>;  // option and file
std::vector<Output> outputs_of(const SweepArguments& arguments) {
  return {{"--csv", arguments.csv}, {"--json", arguments.json}, {"--report", arguments.report}};
}

void check(const SweepArguments& arguments) {
  const std::vector<Output> outputs = outputs_of(arguments);
  for (auto output = outputs.begin(); output != outputs.end(); ++output) {
    const auto& [option, file] = *output;
    require_different(option, file, "--store", store_of(arguments).string());
    for (auto other = output + 1; other != outputs.end(); ++other)
      require_different(option, file, other->first, other->second);
    if (arguments.slurm.submit && file == "-")
      wrong_argument(option, "expected the name of a file: what jobs of Slurm print goes to their logs");
  }
  scenarios::sbatch_options(arguments.slurm.options);
}

scenarios::RunSweepOptions run_options(const SweepArguments& arguments, const std::string& program) {
  scenarios::RunSweepOptions options{.program = program, .stop = &StopOnSignal::asked()};
  options.jobs =
      arguments.jobs > 0 ? arguments.jobs : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  if (isatty(STDERR_FILENO) != 0) options.progress = show_progress;
  return options;
}

std::string rate_line(const scenarios::SweepProgress& progress) {
  if (progress.finished == 0) return {};
  char rate[96];
  std::snprintf(rate, sizeof rate, "%zu of them now, in %s, %.1f points/s\n", progress.finished,
                duration_text(progress.elapsed_s).c_str(), static_cast<double>(progress.finished) / progress.elapsed_s);
  return rate;
}

std::string absolute(const std::string& file) { return std::filesystem::absolute(file).string(); }

// The command once more, for jobs; they start in the current folder.
std::vector<std::string> arguments_again(const SweepArguments& arguments, const CommonOptions& common) {
  std::vector<std::string> again{arguments.sweep.string(), "--store=" + absolute(store_of(arguments).string()),
                                 "--log-level=" + common.log_level};
  if (arguments.jobs > 0) again.push_back("--jobs=" + std::to_string(arguments.jobs));
  for (const std::string& override : arguments.overrides) again.push_back("--set=" + override);
  for (const auto& catalog : common.catalogs) again.push_back("--catalog=" + catalog.string());
  for (const auto& plugin : common.plugins) again.push_back("--plugin=" + plugin.string());
  return again;
}

std::vector<std::string> outputs_again(const SweepArguments& arguments) {
  std::vector<std::string> outputs;
  for (const auto& [option, file] : outputs_of(arguments))
    if (!file.empty()) outputs.push_back(option + "=" + absolute(file));
  return outputs;
}

int simulate_share(const SweepArguments& arguments, const scenarios::Sweep& sweep, const scenarios::Catalog& catalog,
                   const std::string& program) {
  const StopOnSignal signals;
  const scenarios::SweepProgress progress =
      run_share_of_task(sweep, catalog, arguments.slurm, run_options(arguments, program), arguments.jobs > 0);
  print(std::to_string(progress.of) + " points to do; " + rate_line(progress));
  return done;
}

// Simulates what is to do, and gives out what the store then has of the sweep.
int simulate_and_write(const SweepArguments& arguments, const scenarios::Sweep& sweep,
                       const scenarios::Catalog& catalog, const std::string& program, scenarios::ResultsStore& store,
                       scenarios::SweepState state) {
  const StopOnSignal signals;
  const scenarios::RunSweepOptions options = run_options(arguments, program);
  // A merge gives out what there is; what its tasks have not done is for the next submission.
  const bool merge_only = !arguments.slurm.merge.empty();
  const scenarios::SweepProgress progress =
      scenarios::run_sweep(sweep, merge_only ? std::vector<std::size_t>{} : state.to_do, catalog, store, options);
  if (options.progress) std::fprintf(stderr, "\r\033[K");
  if (progress.finished > 0) state = scenarios::state_of(sweep, catalog, store, program);
  if (StopOnSignal::asked()) {
    std::fprintf(stderr, "trainyard: stopped; the same command goes on. %s", count_line(sweep, state, store).c_str());
    return done;
  }
  const scenarios::SweepResults results = scenarios::results_of(sweep, store, state);
  store.put_scaling(sweep.name(), scenarios::stored_scaling(results));
  write_results(arguments, results);
  if (!prints_an_output(arguments)) print("\n" + count_line(sweep, state, store) + rate_line(progress));
  return done;
}

// Where jobs may use the store from other nodes, over a network file system.
scenarios::ResultsStore::Access access_to_store(const SweepArguments& arguments,
                                                const std::optional<scenarios::SlurmState>& earlier) {
  const bool jobs = arguments.slurm.submit || !arguments.slurm.merge.empty() || (earlier && earlier->live());
  return jobs ? scenarios::ResultsStore::Access::alone : scenarios::ResultsStore::Access::shared;
}

int sweep(const SweepArguments& arguments, const CommonOptions& common) {
  check(arguments);
  const scenarios::Catalog catalog = catalog_of(common);
  const scenarios::Sweep sweep = scenarios::Sweep::load(arguments.sweep, catalog, {.overrides = arguments.overrides});
  const std::string program = scenarios::program_name(TRAINYARD_VERSION);
  const SlurmArguments& slurm = arguments.slurm;
  if (!slurm.share.empty()) return simulate_share(arguments, sweep, catalog, program);

  const std::filesystem::path folder =
      slurm.merge.empty() ? scenarios::slurm_folder(store_of(arguments), sweep.name()) : slurm.merge;
  const auto earlier = earlier_submission(folder, slurm, arguments.status);
  scenarios::ResultsStore store(store_of(arguments), access_to_store(arguments, earlier));
  if (arguments.status || (earlier && earlier->live())) {
    print(count_line(sweep, scenarios::state_of(sweep, catalog, store, program), store) +
          (earlier ? scenarios::to_text(*earlier, folder) : ""));
    return done;
  }
  merge_left_parts(sweep, catalog, store, program, folder);
  scenarios::SweepState state = scenarios::state_of(sweep, catalog, store, program);
  if (slurm.submit && !state.to_do.empty()) {
    print(submit(sweep, state, folder, slurm, arguments_again(arguments, common), outputs_again(arguments)));
    return done;
  }
  // Not from within a merge, whose log lies there, nor where jobs may still run.
  if (slurm.merge.empty() && (!earlier || earlier->silence.empty())) scenarios::remove_slurm_folder(folder);
  return simulate_and_write(arguments, sweep, catalog, program, store, std::move(state));
}

class SweepCommand : public Command {
 public:
  SweepCommand(CLI::App& command, const CommonOptions& common) : common_(common) {
    command.add_option("sweep", arguments_.sweep, "sweep file")->required()->type_name("SWEEP.yaml");
    add_file(command, "--store", arguments_.store, "results store (SQLite); without it beside the sweep file",
             "FILE.db");
    command.add_option("--jobs", arguments_.jobs, "points simulated at a time; without it one per core")
        ->check(CLI::Range(1, 1024))
        ->type_name("N");
    add_file(command, "--csv", arguments_.csv, "write one row per point; - is stdout");
    add_file(command, "--json", arguments_.json, "write every point with its whole result; - is stdout");
    add_file(command, "--report", arguments_.report,
             "write a page that opens offline: curves, scaling, every point with its scenario; - is stdout",
             "FILE.html");
    command.add_flag("--status", arguments_.status, "say how far the sweep is, and do nothing");
    add_overrides(command, arguments_.overrides);
    add_slurm_options(command, arguments_.slurm);
  }
  int run() override {
    const int status = sweep(arguments_, common_);
    if (StopOnSignal::asked()) StopOnSignal::end_as_asked();
    return status;
  }

 private:
  const CommonOptions& common_;
  SweepArguments arguments_;
};

}  // namespace

std::unique_ptr<Command> make_sweep_command(CLI::App& parser, const CommonOptions& common) {
  return std::make_unique<SweepCommand>(parser, common);
}

}  // namespace trainyard::tools
