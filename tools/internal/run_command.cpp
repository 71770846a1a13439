// `trainyard run`: one scenario, and its result in every form.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "scenarios/advice.hpp"
#include "scenarios/diagnostics.hpp"
#include "scenarios/layers.hpp"
#include "scenarios/run_report.hpp"
#include "scenarios/scenario.hpp"
#include "scenarios/simulate.hpp"
#include "scenarios/trace.hpp"
#include "tools/internal/commands.hpp"

namespace trainyard::tools {
namespace {

struct RunArguments {
  std::filesystem::path scenario;
  std::string json;
  std::string trace;
  std::string trace_ranks;  // as given
  std::string links;
  std::string memory;
  std::string layers;
  std::string report;
  std::vector<std::string> overrides;
  bool require_fit = false;
  bool no_fold = false;
  bool what_if = false;
  bool advise = false;
};

// "0,8": in one argument, so that a scenario after it stays a scenario.
std::vector<std::int64_t> parse_ranks(const std::string& text) {
  std::vector<std::int64_t> ranks;
  std::size_t from = 0;
  while (!text.empty() && from <= text.size()) {
    const std::size_t comma = std::min(text.find(',', from), text.size());
    const char* end_of_item = text.data() + comma;
    std::int64_t rank = 0;
    const auto [end, error] = std::from_chars(text.data() + from, end_of_item, rank);
    if (error != std::errc{} || end != end_of_item)
      wrong_argument("--trace-ranks", "expected ranks such as 0,8, got '" + text + "'");
    ranks.push_back(rank);
    from = comma + 1;
  }
  return ranks;
}

void check_trace_arguments(const RunArguments& arguments, std::span<const std::int64_t> ranks,
                           const scenarios::Scenario& scenario) {
  if (arguments.trace.empty()) {
    if (!ranks.empty()) wrong_argument("--trace-ranks", "chooses ranks for --trace FILE, which is missing");
    return;
  }
  if (!scenarios::Trace::has_known_ending(arguments.trace))
    wrong_argument("--trace", "expected a file that ends in " + std::string(scenarios::Trace::endings) + ", got '" +
                                  std::filesystem::path{arguments.trace}.filename().string() + "'");
  constexpr std::size_t most_ranks = 240;
  if (ranks.size() > most_ranks)
    wrong_argument("--trace-ranks", "expected at most " + std::to_string(most_ranks) + " ranks");
  for (const std::int64_t rank : ranks)
    if (rank < 0 || rank >= scenario.devices)
      wrong_argument("--trace-ranks", "expected ranks from 0 to " + std::to_string(scenario.devices - 1) + ", got " +
                                          std::to_string(rank));
}

void require_different_outputs(const RunArguments& arguments) {
  const std::array<std::pair<const char*, const std::string*>, 6> outputs{{{"--json", &arguments.json},
                                                                           {"--trace", &arguments.trace},
                                                                           {"--links", &arguments.links},
                                                                           {"--memory", &arguments.memory},
                                                                           {"--layers", &arguments.layers},
                                                                           {"--report", &arguments.report}}};
  for (std::size_t i = 0; i < outputs.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      require_different(outputs.at(i).first, *outputs.at(i).second, outputs.at(j).first, *outputs.at(j).second);
}

// Passes of inference are too many, and too alike, to be shown one by one.
void check_inference_arguments(const RunArguments& arguments) {
  const std::array<std::pair<const char*, const std::string*>, 5> of_training{{{"--trace", &arguments.trace},
                                                                               {"--links", &arguments.links},
                                                                               {"--memory", &arguments.memory},
                                                                               {"--layers", &arguments.layers},
                                                                               {"--report", &arguments.report}}};
  for (const auto& [option, file] : of_training)
    if (!file->empty())
      wrong_argument(option, "shows a step of training, and the workload is inference; --json FILE has its result");
  if (arguments.what_if) wrong_argument("--what-if", "changes a step of training, and the workload is inference");
  if (arguments.advise) wrong_argument("--advise", "changes how a model is trained, and the workload is inference");
}

// The trace as the page has to name it, wherever both are moved together.
std::string trace_beside(const std::string& report, const std::string& trace) {
  if (trace.empty() || report == "-") return trace;
  const std::filesystem::path folder = std::filesystem::absolute(report).parent_path();
  return std::filesystem::absolute(trace).lexically_relative(folder).generic_string();
}

void write_report(const RunArguments& arguments, const scenarios::Scenario& scenario,
                  const scenarios::Simulation& simulation) {
  const scenarios::RunReport report{
      .scenario_text = scenarios::scenario_text(arguments.scenario, {.overrides = arguments.overrides}),
      .overrides = arguments.overrides,
      .trace = trace_beside(arguments.report, arguments.trace)};
  write_or_print(arguments.report, scenarios::run_report(scenario, simulation, report));
}

bool prints_an_output(const RunArguments& arguments) {
  return arguments.json == "-" || arguments.links == "-" || arguments.memory == "-" || arguments.layers == "-" ||
         arguments.report == "-";
}

void write_result(const RunArguments& arguments, const scenarios::Scenario& scenario, const scenarios::Catalog& catalog,
                  const scenarios::Result& result) {
  std::string json = scenarios::to_json(result);
  std::string summary = scenarios::to_summary(scenario, result);
  if (arguments.advise) {
    const scenarios::Advice advice =
        scenarios::advise(arguments.scenario, catalog, {.overrides = arguments.overrides}, result);
    json = scenarios::to_json(result, advice);
    summary += scenarios::to_text(advice, result);
  }
  if (!arguments.json.empty()) write_or_print(arguments.json, json);
  if (!prints_an_output(arguments)) print(summary);
}

int run_scenario(const RunArguments& arguments, const CommonOptions& common) {
  require_different_outputs(arguments);
  const std::vector<std::int64_t> ranks = parse_ranks(arguments.trace_ranks);
  const scenarios::Catalog catalog = catalog_of(common);
  const scenarios::Scenario scenario =
      scenarios::load_scenario(arguments.scenario, catalog, {.overrides = arguments.overrides});
  if (scenario.inference) check_inference_arguments(arguments);
  check_trace_arguments(arguments, ranks, scenario);
  const bool reports = !arguments.report.empty();
  std::optional<scenarios::Trace> trace;
  if (!arguments.trace.empty()) trace.emplace(arguments.trace);
  scenarios::SimulateOptions options{.record = reports,
                                     .sink = trace ? &*trace : nullptr,
                                     .fold = !arguments.no_fold,
                                     .ranks = {},
                                     .what_if = arguments.what_if,
                                     .memory_timeline = reports || !arguments.memory.empty(),
                                     .per_operation = reports || !arguments.layers.empty(),
                                     .advise = true};
  if (!ranks.empty()) options.ranks = ranks;
  const scenarios::Simulation simulation = scenarios::simulate(scenario, options);
  for (const std::string& warning : simulation.result.warnings) spdlog::warn("{}", scenarios::printable(warning));
  if (trace) trace->write(simulation.plan, simulation.outcome);
  trace.reset();
  if (!arguments.links.empty())
    write_or_print(arguments.links, scenarios::links_to_csv(scenarios::link_rows(scenario, simulation)));
  if (!arguments.memory.empty())
    write_or_print(arguments.memory, scenarios::memory_to_csv(scenarios::memory_rows(simulation)));
  if (!arguments.layers.empty())
    write_or_print(arguments.layers, scenarios::layers_to_csv(scenarios::layer_rows(simulation)));
  if (reports) write_report(arguments, scenario, simulation);
  write_result(arguments, scenario, catalog, simulation.result);
  if (arguments.require_fit && !simulation.result.memory.fits) {
    std::fprintf(stderr, "trainyard: the scenario does not fit in memory\n");
    return does_not_fit;
  }
  return done;
}

class RunCommand : public Command {
 public:
  RunCommand(CLI::App& command, const CommonOptions& common) : common_(common) {
    command.add_option("scenario", arguments_.scenario, "scenario file")->required()->type_name("SCENARIO.yaml");
    add_file(command, "--json", arguments_.json, "write the whole result; - is stdout");
    add_file(command, "--trace", arguments_.trace,
             "write a timeline: Chrome trace events (.json or .json.gz) or Perfetto's format (.pftrace)");
    command
        .add_option("--trace-ranks", arguments_.trace_ranks, "ranks in the trace; without it the first of each program")
        ->type_name("RANK,...");
    add_file(command, "--links", arguments_.links, "write what each link carried and how full it was; - is stdout",
             "FILE.csv");
    add_file(command, "--memory", arguments_.memory,
             "write what the fullest rank has allocated over the step; - is stdout", "FILE.csv");
    add_file(command, "--layers", arguments_.layers,
             "write where the step goes by layer and operator, per device; - is stdout", "FILE.csv");
    add_file(command, "--report", arguments_.report, "write a page with everything about the step; - is stdout",
             "FILE.html");
    add_overrides(command, arguments_.overrides);
    command.add_flag("--what-if", arguments_.what_if,
                     "simulate the step also with twice the bandwidth, twice the compute, no latency and the like");
    command.add_flag("--advise", arguments_.advise,
                     "end with what limits the run and the changes of keys that would help most, each simulated");
    command.add_flag("--no-fold", arguments_.no_fold, "simulate every rank on its own, instead of one of each kind");
    command.add_flag("--require-fit", arguments_.require_fit, "exit with 3 when memory does not fit");
  }
  int run() override { return run_scenario(arguments_, common_); }

 private:
  const CommonOptions& common_;
  RunArguments arguments_;
};

}  // namespace

std::unique_ptr<Command> make_run_command(CLI::App& parser, const CommonOptions& common) {
  return std::make_unique<RunCommand>(parser, common);
}

}  // namespace trainyard::tools
