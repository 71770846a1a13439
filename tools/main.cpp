// The command line: arguments in, exit status out.
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "scenarios/catalog.hpp"
#include "scenarios/collectives.hpp"
#include "scenarios/diagnostics.hpp"
#include "scenarios/frameworks.hpp"
#include "scenarios/output_file.hpp"
#include "scenarios/scenario.hpp"
#include "scenarios/show.hpp"
#include "scenarios/show_frameworks.hpp"
#include "scenarios/show_topology.hpp"
#include "scenarios/simulate.hpp"
#include "scenarios/trace.hpp"
#include "scenarios/validation.hpp"

namespace {

using namespace trainyard;

enum ExitStatus : int { done = 0, internal_failure = 1, wrong_input = 2, does_not_fit = 3, outside_failure = 4 };

// What every command takes.
struct CommonOptions {
  std::string log_level = "warning";
  std::vector<std::filesystem::path> catalogs;
  std::vector<std::filesystem::path> plugins;
};

void add_common(CLI::App& command, CommonOptions& options) {
  command.add_option("--log-level", options.log_level, "what to tell on stderr")
      ->check(CLI::IsMember({"trace", "debug", "info", "warning", "error", "off"}))
      ->capture_default_str();
  command.add_option("--catalog", options.catalogs, "folder with own catalogue entries, before the built-in ones")
      ->type_name("DIR")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  command.add_option("--plugin", options.plugins, "library with frameworks of your own; may be repeated")
      ->type_name("FILE.so")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
}

scenarios::Catalog catalog_of(const CommonOptions& options) {
  return scenarios::Catalog(options.catalogs, scenarios::with_plugins(options.plugins));
}

void set_up_logging(const CommonOptions& options) {
  auto logger = std::make_shared<spdlog::logger>("trainyard", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("trainyard: %l: %v");
  logger->set_level(spdlog::level::from_str(options.log_level));
  spdlog::set_default_logger(std::move(logger));
}

// Results go to stdout whole, or the command fails.
void print(std::string_view text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (std::fflush(stdout) != 0 || !written) throw scenarios::OutputError("standard output", errno);
}

void write_or_print(const std::string& path, std::string_view text) {
  if (path == "-") return print(text);
  scenarios::write_file(path, text);
}

// A mistake on the command line, as one in a file.
[[noreturn]] void wrong_argument(const std::string& option, const std::string& message) {
  throw scenarios::ScenarioError({option, 0, 0}, message);
}

struct RunArguments {
  std::filesystem::path scenario;
  std::string json;
  std::filesystem::path trace;
  std::string trace_ranks;  // as given
  std::string links;
  std::string memory;
  std::vector<std::string> overrides;
  bool require_fit = false;
  bool no_fold = false;
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

// The later of two would replace the earlier; on stdout they would mix.
void require_different(const std::string& option, const std::string& file, const std::string& other_option,
                       const std::string& other) {
  if (file.empty() || other.empty()) return;
  const auto place = [](const std::string& name) {
    std::error_code error;
    return std::filesystem::weakly_canonical(std::filesystem::absolute(name, error), error);
  };
  if (file == other || (file != "-" && other != "-" && !place(file).empty() && place(file) == place(other)))
    wrong_argument(option, "expected another file than that of " + other_option + ", got '" + file + "'");
}

void check_trace_arguments(const RunArguments& arguments, std::span<const std::int64_t> ranks,
                           const scenarios::Scenario& scenario) {
  if (arguments.trace.empty()) {
    if (!ranks.empty()) wrong_argument("--trace-ranks", "chooses ranks for --trace FILE, which is missing");
    return;
  }
  const std::string name = arguments.trace.filename().string();
  if (!name.ends_with(".json") && !name.ends_with(".json.gz"))
    wrong_argument("--trace", "expected a file that ends in .json or .json.gz, got '" + name + "'");
  constexpr std::size_t most_ranks = 240;
  if (ranks.size() > most_ranks)
    wrong_argument("--trace-ranks", "expected at most " + std::to_string(most_ranks) + " ranks");
  for (const std::int64_t rank : ranks)
    if (rank < 0 || rank >= scenario.devices)
      wrong_argument("--trace-ranks", "expected ranks from 0 to " + std::to_string(scenario.devices - 1) + ", got " +
                                          std::to_string(rank));
}

int run(const RunArguments& arguments, const CommonOptions& common) {
  require_different("--trace", arguments.trace.string(), "--json", arguments.json);
  require_different("--links", arguments.links, "--json", arguments.json);
  require_different("--links", arguments.links, "--trace", arguments.trace.string());
  require_different("--memory", arguments.memory, "--json", arguments.json);
  require_different("--memory", arguments.memory, "--trace", arguments.trace.string());
  require_different("--memory", arguments.memory, "--links", arguments.links);
  const std::vector<std::int64_t> ranks = parse_ranks(arguments.trace_ranks);
  const scenarios::Catalog catalog = catalog_of(common);
  const scenarios::Scenario scenario =
      scenarios::load_scenario(arguments.scenario, catalog, {.overrides = arguments.overrides});
  check_trace_arguments(arguments, ranks, scenario);
  scenarios::SimulateOptions options{.record = !arguments.trace.empty(),
                                     .fold = !arguments.no_fold,
                                     .ranks = {},
                                     .memory_timeline = !arguments.memory.empty(),
                                     .advise = true};
  if (!ranks.empty()) options.ranks = ranks;
  const scenarios::Simulation simulation = scenarios::simulate(scenario, options);
  for (const std::string& warning : simulation.result.warnings) spdlog::warn("{}", scenarios::printable(warning));
  if (!arguments.trace.empty()) scenarios::write_chrome_trace(simulation.plan, simulation.outcome, arguments.trace);
  if (!arguments.links.empty())
    write_or_print(arguments.links, scenarios::links_to_csv(scenarios::link_rows(scenario, simulation)));
  if (!arguments.memory.empty())
    write_or_print(arguments.memory, scenarios::memory_to_csv(scenarios::memory_rows(simulation)));
  if (!arguments.json.empty()) write_or_print(arguments.json, scenarios::to_json(simulation.result));
  if (arguments.json != "-" && arguments.links != "-" && arguments.memory != "-")
    print(scenarios::to_summary(scenario, simulation.result));
  if (arguments.require_fit && !simulation.result.memory.fits) {
    std::fprintf(stderr, "trainyard: the scenario does not fit in memory\n");
    return does_not_fit;
  }
  return done;
}

struct ValidateArguments {
  std::vector<std::filesystem::path> tables;
  std::string json;
  std::string csv;
  int jobs = 0;
};

int validate(const ValidateArguments& arguments, const CommonOptions& common) {
  require_different("--csv", arguments.csv, "--json", arguments.json);
  const scenarios::Catalog catalog = catalog_of(common);
  std::vector<scenarios::Measurement> measurements;
  if (arguments.tables.empty()) measurements = scenarios::built_in_measurements();
  for (const std::filesystem::path& table : arguments.tables) {
    const std::vector<scenarios::Measurement> rows = scenarios::read_measurements(table);
    measurements.insert(measurements.end(), rows.begin(), rows.end());
  }
  scenarios::ValidateOptions options;
  options.jobs =
      arguments.jobs > 0 ? arguments.jobs : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  const bool terminal = isatty(STDERR_FILENO) != 0;
  if (terminal)
    options.progress = [](std::size_t finished, std::size_t of) {
      std::fprintf(stderr, "\r%zu of %zu rows", finished, of);
    };
  const scenarios::Validation validation = scenarios::validate(measurements, catalog, options);
  if (terminal) std::fprintf(stderr, "\r\033[K");
  if (!arguments.csv.empty()) write_or_print(arguments.csv, scenarios::to_csv(validation));
  if (!arguments.json.empty()) write_or_print(arguments.json, scenarios::to_json(validation));
  if (arguments.json != "-" && arguments.csv != "-") print(scenarios::to_text(validation));
  return done;
}

struct CollectivesArguments {
  std::filesystem::path scenario;
  std::string operation = "all_reduce";
  std::string bytes = "8:16GiB";
  std::optional<std::int64_t> devices;
  std::string algorithm = "auto";
  std::string json;
  std::vector<std::string> overrides;
};

template <std::size_t size>
std::size_t index_in(const std::array<std::string_view, size>& words, const std::string& word) {
  return static_cast<std::size_t>(std::ranges::find(words, word) - words.begin());
}

int collectives(const CollectivesArguments& arguments, const CommonOptions& common) {
  scenarios::CollectiveRequest request;
  request.operation =
      static_cast<scenarios::CollectiveOperation>(index_in(scenarios::operation_names, arguments.operation));
  if (arguments.algorithm != "auto")
    request.algorithm = static_cast<topology::Algorithm>(index_in(topology::algorithm_names, arguments.algorithm));
  const auto sizes = scenarios::parse_sizes(arguments.bytes);
  if (!sizes.value) wrong_argument("--bytes", sizes.error);
  request.sizes = *sizes.value;
  std::vector<std::string> overrides = arguments.overrides;
  if (arguments.devices) overrides.push_back("cluster.devices=" + std::to_string(*arguments.devices));
  const scenarios::Catalog catalog = catalog_of(common);
  scenarios::Scenario scenario = scenarios::load_cluster(arguments.scenario, catalog, {.overrides = overrides});
  const std::vector<scenarios::CollectiveRow> rows = scenarios::simulate_collectives(scenario, request);
  if (!arguments.json.empty()) write_or_print(arguments.json, scenarios::to_json(rows));
  if (arguments.json != "-") print(scenarios::to_text(scenario, rows));
  return done;
}

struct ShowArguments {
  std::string what;
  std::string name;
  std::string output;
  std::vector<std::string> overrides;
};

int show_topology(const ShowArguments& arguments, const CommonOptions& common) {
  if (arguments.name.empty()) wrong_argument("trainyard show topology", "expected the name of a scenario file");
  const scenarios::Catalog catalog = catalog_of(common);
  const scenarios::Scenario scenario =
      scenarios::load_cluster(arguments.name, catalog, {.overrides = arguments.overrides});
  if (arguments.output.empty())
    print(scenarios::list_links(scenario));
  else
    scenarios::draw_topology(scenario, arguments.output == "-" ? "/dev/stdout" : arguments.output);
  return done;
}

int show(const ShowArguments& arguments, const CommonOptions& common) {
  if (arguments.what == "topology") return show_topology(arguments, common);
  if (!arguments.output.empty()) wrong_argument("--output", "only `trainyard show topology` writes a file");
  if (!arguments.overrides.empty()) wrong_argument("--set", "only `trainyard show topology` reads a scenario");
  const scenarios::Catalog catalog = catalog_of(common);
  if (arguments.what == "frameworks") {
    print(arguments.name.empty() ? scenarios::show_frameworks(catalog)
                                 : scenarios::show_framework(catalog, arguments.name));
    return done;
  }
  for (std::size_t i = 0; i < scenarios::entry_folders.size(); ++i) {
    if (arguments.what != scenarios::entry_folders.at(i)) continue;
    const auto kind = static_cast<scenarios::EntryKind>(i);
    print(arguments.name.empty() ? scenarios::show_entries(catalog, kind)
                                 : scenarios::show_entry(catalog, kind, arguments.name));
  }
  return done;
}

const CLI::Validator file_name{
    [](const std::string& name) { return name.empty() ? std::string{"expected the name of a file"} : std::string{}; },
    ""};

// What is wrong where some arguments are not known to `app` or the command that was given; nothing where all are.
std::optional<scenarios::Diagnostic> unknown_argument(const CLI::App& app) {
  const std::vector<std::string> unknown = app.remaining(true);
  if (unknown.empty()) return std::nullopt;
  const std::vector<CLI::App*> given = app.get_subcommands();
  const bool option_first = unknown.front().starts_with('-');
  if (given.empty() && !option_first) {
    std::vector<std::string> commands;
    for (const CLI::App* command : app.get_subcommands({})) commands.push_back(command->get_name());
    const std::vector<std::string_view> names{commands.begin(), commands.end()};
    return {{{"trainyard"},
             "no command is called '" + unknown.front() + "'" + scenarios::nearest(unknown.front(), names) +
                 "; choose " + scenarios::listed(names)}};
  }
  const CLI::App& command = given.empty() ? app : *given.front();
  const std::string place = given.empty() ? "trainyard" : "trainyard " + command.get_name();
  const auto option =
      std::find_if(unknown.begin(), unknown.end(), [](const std::string& text) { return text.starts_with('-'); });
  if (option == unknown.end()) return {{{place}, "unexpected argument '" + unknown.front() + "'"}};
  const std::string name = option->substr(0, option->find('='));
  std::vector<std::string> options;
  for (const CLI::Option* known : command.get_options())
    for (const std::string& long_name : known->get_lnames()) options.push_back("--" + long_name);
  const std::vector<std::string_view> names{options.begin(), options.end()};
  return {{{place}, "unknown option '" + name + "'" + scenarios::nearest(name, names)}};
}

// Adds the commands; the one that was given leaves what to do in `chosen`.
class CommandLine {
 public:
  CommandLine() : app_("Simulates one training step of a model on a cluster.", "trainyard") {
    app_.set_version_flag("--version", TRAINYARD_VERSION);
    app_.require_subcommand(1);
    add_run();
    add_validate();
    add_collectives();
    add_show();
  }

  int operator()(int argc, char** argv) {
    try {
      app_.parse(argc, argv);
    } catch (const CLI::Success& success) {  // --help and --version
      std::ostringstream text;
      const int status = app_.exit(success, text, text);
      print(text.str());
      return status;
    } catch (const CLI::ParseError& error) {
      if (const auto unknown = unknown_argument(app_)) throw scenarios::ScenarioError({*unknown});
      app_.exit(error, std::cerr, std::cerr);
      return wrong_input;
    }
    set_up_logging(common_);
    return chosen_();
  }

 private:
  void add_run() {
    CLI::App* command = app_.add_subcommand("run", "simulate a scenario and print a summary");
    command->add_option("scenario", run_.scenario, "scenario file")->required()->type_name("SCENARIO.yaml");
    command->add_option("--json", run_.json, "write the whole result; - is stdout")
        ->type_name("FILE")
        ->check(file_name);
    command->add_option("--trace", run_.trace, "write a timeline as Chrome trace events (.json or .json.gz)")
        ->type_name("FILE")
        ->check(file_name);
    command->add_option("--trace-ranks", run_.trace_ranks, "ranks in the trace; without it the first of each program")
        ->type_name("RANK,...");
    command->add_option("--links", run_.links, "write what each link carried and how full it was; - is stdout")
        ->type_name("FILE.csv")
        ->check(file_name);
    command->add_option("--memory", run_.memory, "write what the fullest rank has allocated over the step; - is stdout")
        ->type_name("FILE.csv")
        ->check(file_name);
    command->add_option("--set", run_.overrides, "override a key of the scenario; may be repeated")
        ->type_name("PATH=VALUE")
        ->expected(1)
        ->allow_extra_args(false)
        ->take_all();
    command->add_flag("--no-fold", run_.no_fold, "simulate every rank on its own, instead of one of each kind");
    command->add_flag("--require-fit", run_.require_fit, "exit with 3 when memory does not fit");
    add_common(*command, common_);
    command->callback([this] { chosen_ = [this] { return run(run_, common_); }; });
  }

  void add_validate() {
    CLI::App* command = app_.add_subcommand("validate", "predict measurements and print the errors");
    command->add_option("data", validate_.tables, "tables of measurements; without any, those that ship with Trainyard")
        ->type_name("DATA.csv");
    command->add_option("--json", validate_.json, "write rows and summaries; - is stdout")
        ->type_name("FILE")
        ->check(file_name);
    command->add_option("--csv", validate_.csv, "write the rows as a table; - is stdout")
        ->type_name("FILE")
        ->check(file_name);
    command->add_option("--jobs", validate_.jobs, "rows simulated at a time; without it one per core")
        ->check(CLI::Range(1, 1024))
        ->type_name("N");
    add_common(*command, common_);
    command->callback([this] { chosen_ = [this] { return validate(validate_, common_); }; });
  }

  void add_collectives() {
    CLI::App* command = app_.add_subcommand("collectives", "what nccl-tests would print on the cluster of a scenario");
    command->add_option("scenario", collectives_.scenario, "scenario file; of it only `cluster` matters")
        ->required()
        ->type_name("SCENARIO.yaml");
    command->add_option("--operation", collectives_.operation, "send_recv: every rank sends to the next")
        ->check(CLI::IsMember(
            std::vector<std::string>{scenarios::operation_names.begin(), scenarios::operation_names.end()}))
        ->capture_default_str();
    command->add_option("--bytes", collectives_.bytes, "a size, or the first and the last of doubling ones")
        ->type_name("SIZE[:SIZE]")
        ->capture_default_str();
    command->add_option("--devices", collectives_.devices, "use so many, spread evenly over the nodes")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{1'000'000'000}))
        ->type_name("N");
    std::vector<std::string> algorithms{"auto"};
    algorithms.insert(algorithms.end(), topology::algorithm_names.begin(), topology::algorithm_names.end());
    command->add_option("--algorithm", collectives_.algorithm, "instead of what the library would choose")
        ->check(CLI::IsMember(algorithms))
        ->capture_default_str();
    command->add_option("--json", collectives_.json, "write the rows; - is stdout")
        ->type_name("FILE")
        ->check(file_name);
    command->add_option("--set", collectives_.overrides, "override a key of the scenario; may be repeated")
        ->type_name("PATH=VALUE")
        ->expected(1)
        ->allow_extra_args(false)
        ->take_all();
    add_common(*command, common_);
    command->callback([this] { chosen_ = [this] { return collectives(collectives_, common_); }; });
  }

  void add_show() {
    CLI::App* command = app_.add_subcommand("show", "what the catalogue holds, with sources, and frameworks' options");
    command->add_option("what", show_.what, "accelerators, nodes, fabrics, models, collectives, frameworks or topology")
        ->required()
        ->check(CLI::IsMember({"accelerators", "nodes", "fabrics", "models", "collectives", "frameworks", "topology"}));
    command
        ->add_option("name", show_.name, "one of them, in full; for topology a scenario file, whose links are listed")
        ->type_name("NAME");
    command->add_option("-o,--output", show_.output, "draw the topology, as SVG; - is stdout")
        ->type_name("FILE.svg")
        ->check(file_name);
    command->add_option("--set", show_.overrides, "override a key of the scenario; may be repeated")
        ->type_name("PATH=VALUE")
        ->expected(1)
        ->allow_extra_args(false)
        ->take_all();
    add_common(*command, common_);
    command->callback([this] { chosen_ = [this] { return show(show_, common_); }; });
  }

  CLI::App app_;
  CommonOptions common_;
  RunArguments run_;
  ValidateArguments validate_;
  CollectivesArguments collectives_;
  ShowArguments show_;
  std::function<int()> chosen_;
};

}  // namespace

int main(int argc, char** argv) {
  try {
    return CommandLine()(argc, argv);
  } catch (const scenarios::ScenarioError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return wrong_input;
  } catch (const scenarios::OutputError& error) {
    std::fprintf(stderr, "trainyard: %s\n", error.what());
    return outside_failure;
  } catch (const scenarios::ProgramError& error) {
    std::fprintf(stderr, "trainyard: %s\n", error.what());
    return outside_failure;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "trainyard: internal error: %s\n", error.what());
    return internal_failure;
  }
}
