// `trainyard validate`: predictions beside measurements.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "scenarios/validation.hpp"
#include "tools/internal/commands.hpp"

namespace trainyard::tools {
namespace {

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

class ValidateCommand : public Command {
 public:
  ValidateCommand(CLI::App& command, const CommonOptions& common) : common_(common) {
    command
        .add_option("data", arguments_.tables, "tables of measurements; without any, those that ship with Trainyard")
        ->type_name("DATA.csv");
    add_file(command, "--json", arguments_.json, "write rows and summaries; - is stdout");
    add_file(command, "--csv", arguments_.csv, "write the rows as a table; - is stdout");
    command.add_option("--jobs", arguments_.jobs, "rows simulated at a time; without it one per core")
        ->check(CLI::Range(1, 1024))
        ->type_name("N");
  }
  int run() override { return validate(arguments_, common_); }

 private:
  const CommonOptions& common_;
  ValidateArguments arguments_;
};

}  // namespace

std::unique_ptr<Command> make_validate_command(CLI::App& parser, const CommonOptions& common) {
  return std::make_unique<ValidateCommand>(parser, common);
}

}  // namespace trainyard::tools
