// The command line: arguments in, exit status out.
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "scenarios/diagnostics.hpp"
#include "scenarios/outside_failure.hpp"
#include "tools/internal/commands.hpp"

namespace {

using namespace trainyard;
using namespace trainyard::tools;

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

void set_up_logging(const CommonOptions& options) {
  auto logger = std::make_shared<spdlog::logger>("trainyard", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("trainyard: %l: %v");
  logger->set_level(spdlog::level::from_str(options.log_level));
  spdlog::set_default_logger(std::move(logger));
}

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

struct CommandEntry {
  const char* name;
  const char* help;
  std::unique_ptr<Command> (*make)(CLI::App& parser, const CommonOptions& common);
};
constexpr std::array<CommandEntry, 7> commands{{
    {"run", "simulate a scenario and print a summary", make_run_command},
    {"plan", "search the best way to divide a job, under the memory limit", make_plan_command},
    {"sweep", "simulate every combination of a sweep, in parallel", make_sweep_command},
    {"compare", "scenarios side by side, and what explains the difference", make_compare_command},
    {"validate", "predict measurements and print the errors", make_validate_command},
    {"collectives", "what nccl-tests would print on the cluster of a scenario", make_collectives_command},
    {"show", "what the catalogue holds, with sources, and frameworks' options", make_show_command},
}};

// Reads the arguments and runs the command that was given.
class CommandLine {
 public:
  CommandLine() : app_("Simulates one training step of a model on a cluster.", "trainyard") {
    app_.set_version_flag("--version", TRAINYARD_VERSION);
    app_.require_subcommand(1);
    for (const CommandEntry& entry : commands) {
      CLI::App* parser = app_.add_subcommand(entry.name, entry.help);
      commands_.push_back(entry.make(*parser, common_));
      add_common(*parser, common_);
      parser->callback([this, command = commands_.back().get()] { chosen_ = command; });
    }
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
    return chosen_->run();
  }

 private:
  CLI::App app_;
  CommonOptions common_;
  std::vector<std::unique_ptr<Command>> commands_;
  Command* chosen_ = nullptr;
};

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error of its writer, as a full disk is
  try {
    return CommandLine()(argc, argv);
  } catch (const scenarios::ScenarioError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return wrong_input;
  } catch (const scenarios::OutsideFailure& error) {
    std::fprintf(stderr, "trainyard: %s\n", error.what());
    return outside_failure;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "trainyard: internal error: %s\n", error.what());
    return internal_failure;
  }
}
