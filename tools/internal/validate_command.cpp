// `trainyard validate`: predictions beside measurements, and claims beside simulations.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "scenarios/claims.hpp"
#include "scenarios/validation.hpp"
#include "tools/internal/commands.hpp"

namespace trainyard::tools {
namespace {

struct ValidateArguments {
  std::vector<std::filesystem::path> files;
  bool claims = false;
  std::string json;
  std::string csv;
  int jobs = 0;
};

int jobs_of(const ValidateArguments& arguments) {
  return arguments.jobs > 0 ? arguments.jobs : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

void clear_progress() {
  if (isatty(STDERR_FILENO) != 0) std::fprintf(stderr, "\r\033[K");
}

void show_simulations(std::size_t finished, std::size_t of) {
  constexpr std::size_t width = 30;
  const std::size_t filled = width * finished / of;
  std::fprintf(stderr, "\r\033[K[%s%s] %zu of %zu simulations", std::string(filled, '#').c_str(),
               std::string(width - filled, ' ').c_str(), finished, of);
}

int test_claims(const ValidateArguments& arguments, const CommonOptions& common) {
  if (!arguments.csv.empty()) wrong_argument("--csv", "claims have no table; --json has all of their numbers");
  const scenarios::Catalog catalog = catalog_of(common);
  const scenarios::Claims claims =
      arguments.files.empty() ? scenarios::Claims::built_in() : scenarios::Claims::load(arguments.files);
  scenarios::TestClaimsOptions options{.jobs = jobs_of(arguments)};
  if (isatty(STDERR_FILENO) != 0) options.progress = show_simulations;
  const scenarios::ClaimResults results = scenarios::test_claims(claims, catalog, options);
  clear_progress();
  if (!arguments.json.empty()) write_or_print(arguments.json, scenarios::to_json(results));
  if (arguments.json != "-") print(scenarios::to_text(results));
  return done;
}

int validate(const ValidateArguments& arguments, const CommonOptions& common) {
  require_different("--csv", arguments.csv, "--json", arguments.json);
  const scenarios::Catalog catalog = catalog_of(common);
  std::vector<scenarios::Measurement> measurements;
  if (arguments.files.empty()) measurements = scenarios::built_in_measurements();
  for (const std::filesystem::path& table : arguments.files) {
    const std::vector<scenarios::Measurement> rows = scenarios::read_measurements(table);
    measurements.insert(measurements.end(), rows.begin(), rows.end());
  }
  scenarios::ValidateOptions options;
  options.jobs = jobs_of(arguments);
  if (isatty(STDERR_FILENO) != 0)
    options.progress = [](std::size_t finished, std::size_t of) {
      std::fprintf(stderr, "\r%zu of %zu rows", finished, of);
    };
  const scenarios::Validation validation = scenarios::validate(measurements, catalog, options);
  clear_progress();
  if (!arguments.csv.empty()) write_or_print(arguments.csv, scenarios::to_csv(validation));
  if (!arguments.json.empty()) write_or_print(arguments.json, scenarios::to_json(validation));
  if (arguments.json != "-" && arguments.csv != "-") print(scenarios::to_text(validation));
  return done;
}

class ValidateCommand : public Command {
 public:
  ValidateCommand(CLI::App& command, const CommonOptions& common) : common_(common) {
    command
        .add_option("data", arguments_.files,
                    "tables of measurements, or with --claims files of claims; without any, those that ship with "
                    "Trainyard")
        ->type_name("DATA.csv");
    command.add_flag("--claims", arguments_.claims,
                     "put claims on frameworks and hardware to the test instead, and say which hold");
    add_file(command, "--json", arguments_.json, "write rows and summaries, or claims and their numbers; - is stdout");
    add_file(command, "--csv", arguments_.csv, "write the rows as a table; - is stdout");
    command.add_option("--jobs", arguments_.jobs, "rows or scenarios simulated at a time; without it one per core")
        ->check(CLI::Range(1, 1024))
        ->type_name("N");
  }
  int run() override { return arguments_.claims ? test_claims(arguments_, common_) : validate(arguments_, common_); }

 private:
  const CommonOptions& common_;
  ValidateArguments arguments_;
};

}  // namespace

std::unique_ptr<Command> make_validate_command(CLI::App& parser, const CommonOptions& common) {
  return std::make_unique<ValidateCommand>(parser, common);
}

}  // namespace trainyard::tools
