// `trainyard show`: what the catalogue holds, and pictures of clusters.
#include <cstdint>
#include <string>
#include <vector>

#include "scenarios/catalog.hpp"
#include "scenarios/scenario.hpp"
#include "scenarios/show.hpp"
#include "scenarios/show_frameworks.hpp"
#include "scenarios/show_topology.hpp"
#include "tools/internal/commands.hpp"

namespace trainyard::tools {
namespace {

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

class ShowCommand : public Command {
 public:
  ShowCommand(CLI::App& command, const CommonOptions& common) : common_(common) {
    command
        .add_option("what", arguments_.what,
                    "accelerators, nodes, fabrics, models, collectives, prices, frameworks or topology")
        ->required()
        ->check(CLI::IsMember(
            {"accelerators", "nodes", "fabrics", "models", "collectives", "prices", "frameworks", "topology"}));
    command
        .add_option("name", arguments_.name,
                    "one of them, in full; for topology a scenario file, whose links are listed")
        ->type_name("NAME");
    add_file(command, "-o,--output", arguments_.output, "draw the topology, as SVG; - is stdout", "FILE.svg");
    add_overrides(command, arguments_.overrides);
  }
  int run() override { return show(arguments_, common_); }

 private:
  const CommonOptions& common_;
  ShowArguments arguments_;
};

}  // namespace

std::unique_ptr<Command> make_show_command(CLI::App& parser, const CommonOptions& common) {
  return std::make_unique<ShowCommand>(parser, common);
}

}  // namespace trainyard::tools
