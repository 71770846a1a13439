// `trainyard compare`: scenarios side by side, and what explains the difference.
#include <spdlog/spdlog.h>

#include <filesystem>
#include <string>
#include <vector>

#include "scenarios/comparison.hpp"
#include "scenarios/diagnostics.hpp"
#include "tools/internal/commands.hpp"

namespace trainyard::tools {
namespace {

struct CompareArguments {
  std::vector<std::filesystem::path> scenarios;
  std::string json;
  std::vector<std::string> overrides;         // of all
  std::vector<std::string> second_overrides;  // of all but the first
};

// One scenario alone is compared with itself, changed.
std::vector<scenarios::ComparedScenario> compared(const CompareArguments& arguments) {
  std::vector<std::filesystem::path> files = arguments.scenarios;
  if (files.size() == 1) {
    if (arguments.second_overrides.empty())
      throw scenarios::ScenarioError({"trainyard compare"},
                                     "expected two scenarios or more, or one and --set-b PATH=VALUE, which compares it "
                                     "with itself with that changed");
    files.push_back(files.front());
  }
  std::vector<scenarios::ComparedScenario> result;
  for (const std::filesystem::path& file : files) {
    scenarios::ComparedScenario each{.file = file, .overrides = arguments.overrides, .label = file.string()};
    if (!result.empty())
      for (const std::string& setting : arguments.second_overrides) {
        each.overrides.push_back(setting);
        each.label += (&setting == &arguments.second_overrides.front() ? " with " : ", ") + setting;
      }
    result.push_back(std::move(each));
  }
  return result;
}

class CompareCommand : public Command {
 public:
  CompareCommand(CLI::App& command, const CommonOptions& common) : common_(common) {
    command.add_option("scenarios", arguments_.scenarios, "scenario files; the others are compared with the first")
        ->required()
        ->type_name("A.yaml B.yaml ...");
    add_file(command, "--json", arguments_.json, "write results and differences; - is stdout");
    add_overrides(command, arguments_.overrides);
    command
        .add_option("--set-b", arguments_.second_overrides,
                    "override a key of all scenarios but the first; a single one is compared with itself so changed; "
                    "may be repeated")
        ->type_name("PATH=VALUE")
        ->expected(1)
        ->allow_extra_args(false)
        ->take_all();
  }

  int run() override {
    const scenarios::Catalog catalog = catalog_of(common_);
    const scenarios::Comparison comparison = scenarios::compare(compared(arguments_), catalog);
    for (std::size_t i = 0; i < comparison.results.size(); ++i)
      for (const std::string& warning : comparison.results[i].warnings)
        spdlog::warn("{}: {}", scenarios::printable(comparison.files[i]), scenarios::printable(warning));
    if (!arguments_.json.empty()) write_or_print(arguments_.json, scenarios::to_json(comparison));
    if (arguments_.json != "-") print(scenarios::to_summary(comparison));
    return done;
  }

 private:
  const CommonOptions& common_;
  CompareArguments arguments_;
};

}  // namespace

std::unique_ptr<Command> make_compare_command(CLI::App& parser, const CommonOptions& common) {
  return std::make_unique<CompareCommand>(parser, common);
}

}  // namespace trainyard::tools
