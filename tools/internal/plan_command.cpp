// `trainyard plan`: the best way to divide a job.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "scenarios/plan_search.hpp"
#include "scenarios/quantity.hpp"
#include "tools/internal/commands.hpp"
#include "tools/internal/stop_on_signal.hpp"

namespace trainyard::tools {
namespace {

struct PlanArguments {
  std::filesystem::path scenario;
  std::string objective = "step_time";
  int top = 5;
  int jobs = 0;
  bool exhaustive = false;
  std::string json;
  std::string report;
  std::vector<std::string> overrides;
};

std::string best_so_far(const scenarios::SearchProgress& progress, scenarios::Objective objective) {
  if (!progress.best) return "";
  const scenarios::Candidate& best = *progress.best;
  switch (objective) {
    case scenarios::Objective::cost:
      if (best.cost_per_step) return ", best so far " + std::to_string(*best.cost_per_step) + " a step";
      return "";
    case scenarios::Objective::energy:
      if (best.energy_kwh_per_step) return ", best so far " + std::to_string(*best.energy_kwh_per_step) + " kWh a step";
      return "";
    case scenarios::Objective::step_time:
      break;
  }
  return ", best so far " + scenarios::format_seconds(best.step_time_s);
}

void show_progress(const scenarios::SearchProgress& progress, scenarios::Objective objective) {
  constexpr std::int64_t width = 30;
  const std::int64_t examined = progress.counts.examined();
  const auto filled = static_cast<std::size_t>(progress.of == 0 ? 0 : width * examined / progress.of);
  std::fprintf(stderr, "\r\033[K[%s%s] %lld of %lld plans, %lld simulated, %.0f s%s%s",
               std::string(filled, '#').c_str(), std::string(static_cast<std::size_t>(width) - filled, ' ').c_str(),
               static_cast<long long>(examined), static_cast<long long>(progress.of),
               static_cast<long long>(progress.counts.simulated), progress.elapsed_s,
               best_so_far(progress, objective).c_str(), StopOnSignal::asked() ? " (stopping)" : "");
}

scenarios::SearchOptions options_of(const PlanArguments& arguments) {
  const auto* const name = std::ranges::find(scenarios::objective_names, arguments.objective);
  scenarios::SearchOptions options;
  options.objective = static_cast<scenarios::Objective>(name - scenarios::objective_names.begin());
  options.top = arguments.top;
  options.jobs =
      arguments.jobs > 0 ? arguments.jobs : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  options.exhaustive = arguments.exhaustive;
  options.stop = &StopOnSignal::asked();
  if (isatty(STDERR_FILENO) != 0)
    options.progress = [objective = options.objective](const scenarios::SearchProgress& progress) {
      show_progress(progress, objective);
    };
  return options;
}

int search(const PlanArguments& arguments, const CommonOptions& common) {
  require_different("--report", arguments.report, "--json", arguments.json);
  const scenarios::Catalog catalog = catalog_of(common);
  const StopOnSignal signals;
  const scenarios::SearchOptions options = options_of(arguments);
  const scenarios::SearchResult result =
      scenarios::search_plans(arguments.scenario, catalog, {.overrides = arguments.overrides}, options);
  if (options.progress) std::fprintf(stderr, "\r\033[K");
  if (!arguments.json.empty()) write_or_print(arguments.json, scenarios::to_json(result));
  if (!arguments.report.empty()) write_or_print(arguments.report, scenarios::plan_report(result));
  if (arguments.json != "-" && arguments.report != "-") print(scenarios::to_summary(result));
  return done;
}

class PlanCommand : public Command {
 public:
  PlanCommand(CLI::App& command, const CommonOptions& common) : common_(common) {
    command
        .add_option("scenario", arguments_.scenario,
                    "scenario file; what it leaves open, or has as 'auto', is searched")
        ->required()
        ->type_name("SCENARIO.yaml");
    command.add_option("--objective", arguments_.objective, "what the best plan has least of")
        ->check(CLI::IsMember({"step_time", "cost", "energy"}))
        ->capture_default_str();
    command.add_option("--top", arguments_.top, "how many of the best plans to give")
        ->check(CLI::Range(1, 1000))
        ->type_name("K")
        ->capture_default_str();
    command.add_option("--jobs", arguments_.jobs, "plans simulated at a time; without it one per core")
        ->check(CLI::Range(1, 1024))
        ->type_name("N");
    command.add_flag("--exhaustive", arguments_.exhaustive, "simulate every plan that fits, and cut nothing off");
    add_file(command, "--json", arguments_.json, "write the best plans with their whole results; - is stdout");
    add_file(command, "--report", arguments_.report,
             "write a page that opens offline: Pareto front, neighbours of the best; - is stdout", "FILE.html");
    add_overrides(command, arguments_.overrides);
  }
  int run() override {
    const int status = search(arguments_, common_);
    if (StopOnSignal::asked()) StopOnSignal::end_as_asked();
    return status;
  }

 private:
  const CommonOptions& common_;
  PlanArguments arguments_;
};

}  // namespace

std::unique_ptr<Command> make_plan_command(CLI::App& parser, const CommonOptions& common) {
  return std::make_unique<PlanCommand>(parser, common);
}

}  // namespace trainyard::tools
