#include "scenarios/internal/path_report.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/text.hpp"
#include "scenarios/quantity.hpp"

namespace trainyard::scenarios {
namespace {

using Json = nlohmann::ordered_json;

// One chain through the ranks: communication is on it while bytes are under way, and nobody waits for another rank.
constexpr std::array<std::string_view, breakdown_names.size()> words{"matrix products",
                                                                     "attention",
                                                                     "memory-bound kernels",
                                                                     "optimizer",
                                                                     "data communication",
                                                                     "tensor communication",
                                                                     "pipeline communication",
                                                                     "context communication",
                                                                     "expert communication",
                                                                     "offload communication",
                                                                     "pipeline bubble",
                                                                     "host",
                                                                     "slow devices"};

}  // namespace

Json path_json(const CriticalPath& path) {
  Json rows = Json::array();
  for (const CriticalPath::Operation& operation : path.operations)
    rows.push_back({{"operation", operation.name},
                    {"where", operation.where},
                    {"category", breakdown_names.at(operation.category)},
                    {"seconds", operation.seconds},
                    {"count", operation.count}});
  return rows;
}

std::string path_text(const Result& result) {
  if (!result.critical_path || result.step_time_s <= 0) return "";
  std::string text = "\nWhat decides the step: its critical path, each operation of which waits for the one before\n";
  const auto figures = [&](double seconds) {
    return padded_left(format_seconds(seconds), 9) + padded_left(percent(seconds / result.step_time_s), 9);
  };
  for (std::size_t i = 0; i < words.size(); ++i) {
    const double seconds = result.critical_path->breakdown_s.at(i);
    if (seconds <= 0) continue;
    text += "  " + padded_right(words.at(i), 22) + figures(seconds) + "  " + bar(seconds / result.step_time_s) + "\n";
  }
  std::size_t width = 22;
  for (const CriticalPath::Operation& operation : result.critical_path->operations)
    width = std::max(width, operation.name.size());
  text += "  of which most in\n";
  for (const CriticalPath::Operation& operation : result.critical_path->operations)
    text += "  " + padded_right(operation.name, width) + figures(operation.seconds) +
            padded_left(std::to_string(operation.count), 8) + " x  " + padded_right(words.at(operation.category), 24) +
            printable(operation.where) + "\n";
  return text;
}

}  // namespace trainyard::scenarios
