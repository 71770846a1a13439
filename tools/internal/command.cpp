#include "tools/internal/command.hpp"

#include <cerrno>
#include <cstdio>
#include <system_error>

#include "scenarios/diagnostics.hpp"
#include "scenarios/frameworks.hpp"
#include "scenarios/output_file.hpp"

namespace trainyard::tools {
namespace {

const CLI::Validator file_name{
    [](const std::string& name) { return name.empty() ? std::string{"expected the name of a file"} : std::string{}; },
    ""};

}  // namespace

scenarios::Catalog catalog_of(const CommonOptions& options) {
  return scenarios::Catalog(options.catalogs, scenarios::with_plugins(options.plugins));
}

void print(std::string_view text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (std::fflush(stdout) != 0 || !written) throw scenarios::OutputError("standard output", errno);
}

void write_or_print(const std::string& path, std::string_view text) {
  if (path == "-") return print(text);
  scenarios::write_file(path, text);
}

void wrong_argument(const std::string& option, const std::string& message) {
  throw scenarios::ScenarioError({option, 0, 0}, message);
}

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

CLI::Option* add_file(CLI::App& command, const std::string& name, std::string& file, const std::string& help,
                      const std::string& type_name) {
  return command.add_option(name, file, help)->type_name(type_name)->check(file_name);
}

void add_overrides(CLI::App& command, std::vector<std::string>& overrides) {
  command.add_option("--set", overrides, "override a key of the scenario; may be repeated")
      ->type_name("PATH=VALUE")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
}

}  // namespace trainyard::tools
