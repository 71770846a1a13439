// The program's commands, one file each.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>

#include "tools/internal/command.hpp"

namespace trainyard::tools {

// Add what the command takes to its parser. The options must outlive the command.
std::unique_ptr<Command> make_run_command(CLI::App& parser, const CommonOptions& common);
std::unique_ptr<Command> make_plan_command(CLI::App& parser, const CommonOptions& common);
std::unique_ptr<Command> make_sweep_command(CLI::App& parser, const CommonOptions& common);
std::unique_ptr<Command> make_compare_command(CLI::App& parser, const CommonOptions& common);
std::unique_ptr<Command> make_validate_command(CLI::App& parser, const CommonOptions& common);
std::unique_ptr<Command> make_collectives_command(CLI::App& parser, const CommonOptions& common);
std::unique_ptr<Command> make_show_command(CLI::App& parser, const CommonOptions& common);

}  // namespace trainyard::tools
