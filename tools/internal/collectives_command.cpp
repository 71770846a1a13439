// `trainyard collectives`: what nccl-tests would print.
#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/collectives.hpp"
#include "scenarios/scenario.hpp"
#include "tools/internal/commands.hpp"

namespace trainyard::tools {
namespace {

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

class CollectivesCommand : public Command {
 public:
  CollectivesCommand(CLI::App& command, const CommonOptions& common) : common_(common) {
    command.add_option("scenario", arguments_.scenario, "scenario file; of it only `cluster` matters")
        ->required()
        ->type_name("SCENARIO.yaml");
    command.add_option("--operation", arguments_.operation, "send_recv: every rank sends to the next")
        ->check(CLI::IsMember(
            std::vector<std::string>{scenarios::operation_names.begin(), scenarios::operation_names.end()}))
        ->capture_default_str();
    command.add_option("--bytes", arguments_.bytes, "a size, or the first and the last of doubling ones")
        ->type_name("SIZE[:SIZE]")
        ->capture_default_str();
    command.add_option("--devices", arguments_.devices, "use so many, spread evenly over the nodes")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{1'000'000'000}))
        ->type_name("N");
    std::vector<std::string> algorithms{"auto"};
    algorithms.insert(algorithms.end(), topology::algorithm_names.begin(), topology::algorithm_names.end());
    command.add_option("--algorithm", arguments_.algorithm, "instead of what the library would choose")
        ->check(CLI::IsMember(algorithms))
        ->capture_default_str();
    add_file(command, "--json", arguments_.json, "write the rows; - is stdout");
    add_overrides(command, arguments_.overrides);
  }
  int run() override { return collectives(arguments_, common_); }

 private:
  const CommonOptions& common_;
  CollectivesArguments arguments_;
};

}  // namespace

std::unique_ptr<Command> make_collectives_command(CLI::App& parser, const CommonOptions& common) {
  return std::make_unique<CollectivesCommand>(parser, common);
}

}  // namespace trainyard::tools
