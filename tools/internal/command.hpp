// What the commands share: options, writing results, mistakes on the command line.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/catalog.hpp"

namespace trainyard::tools {

enum ExitStatus : int { done = 0, internal_failure = 1, wrong_input = 2, does_not_fit = 3, outside_failure = 4 };

// What every command takes.
struct CommonOptions {
  std::string log_level = "warning";
  std::vector<std::filesystem::path> catalogs;
  std::vector<std::filesystem::path> plugins;
};

scenarios::Catalog catalog_of(const CommonOptions& options);

// One of the program's commands. Its constructor adds its options to the parser, which fills them.
class Command {
 public:
  Command() = default;
  virtual ~Command() = default;
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;
  // Returns the exit status. Throws ScenarioError and OutsideFailure, which `main` reports.
  virtual int run() = 0;
};

// Results go to stdout whole, or the command fails.
void print(std::string_view text);
void write_or_print(const std::string& path, std::string_view text);

// A mistake on the command line, as one in a file.
[[noreturn]] void wrong_argument(const std::string& option, const std::string& message);

// Two outputs in one file: the later would replace the earlier; on stdout they would mix.
void require_different(const std::string& option, const std::string& file, const std::string& other_option,
                       const std::string& other);

// "--json FILE" and the like; not an empty name.
CLI::Option* add_file(CLI::App& command, const std::string& name, std::string& file, const std::string& help,
                      const std::string& type_name = "FILE");
void add_overrides(CLI::App& command, std::vector<std::string>& overrides);

}  // namespace trainyard::tools
