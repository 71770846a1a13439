#include "strategies/internal/deepspeed_partition.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <regex>
#include <string_view>

namespace trainyard::strategies {
namespace {

constexpr std::string_view by_type = "type:";

bool is_by_type(const std::string& method) { return method.starts_with(by_type); }

std::regex expression_of(const std::string& method) {
  return std::regex(method.substr(by_type.size()), std::regex::ECMAScript | std::regex::icase);
}

// One for each item that the method counts.
std::vector<std::int64_t> counted(const std::string& method, const std::vector<PipelineItem>& items) {
  const std::regex expression = expression_of(method);
  std::vector<std::int64_t> weights;
  for (const PipelineItem& item : items) weights.push_back(std::regex_search(item.type, expression) ? 1 : 0);
  return weights;
}

// The best runs of the first so many items, as the table of partition_balanced has them.
struct Runs {
  double largest = std::numeric_limits<double>::infinity();
  double smallest = std::numeric_limits<double>::infinity();
  double difference = std::numeric_limits<double>::infinity();
  std::size_t last_begins = 0;
};

}  // namespace

std::vector<std::int64_t> partition_uniform(std::int64_t items, std::int64_t parts) {
  std::vector<std::int64_t> bounds;
  for (std::int64_t part = 0; part <= parts; ++part)
    bounds.push_back(items <= parts ? std::min(part, items) : part * (items / parts) + std::min(part, items % parts));
  return bounds;
}

std::vector<std::int64_t> partition_balanced(const std::vector<std::int64_t>& weights, std::int64_t parts) {
  const std::size_t items = weights.size();
  const auto most = static_cast<std::size_t>(parts);
  if (items <= most) return partition_uniform(static_cast<std::int64_t>(items), parts);
  std::vector<double> before(items + 1, 0);
  for (std::size_t i = 0; i < items; ++i) before[i + 1] = before[i] + static_cast<double>(weights[i]);
  std::vector<std::vector<Runs>> best(items + 1, std::vector<Runs>(most + 1));
  best[0][0].largest = 0;
  best[0][0].difference = 0;
  for (std::size_t end = 1; end <= items; ++end)
    for (std::size_t count = 1; count <= std::min(end, most); ++count)
      for (std::size_t begin = count - 1; begin < end; ++begin) {
        const Runs& rest = best[begin][count - 1];
        const double sum = before[end] - before[begin];
        Runs runs{.largest = std::max(rest.largest, sum), .smallest = std::min(rest.smallest, sum)};
        runs.difference = runs.largest - runs.smallest;
        runs.last_begins = begin;
        // Of equals the last one.
        if (runs.difference <= best[end][count].difference) best[end][count] = runs;
      }
  std::vector<std::int64_t> bounds{static_cast<std::int64_t>(items)};
  for (std::size_t count = most; count > 0; --count)
    bounds.push_back(static_cast<std::int64_t>(best[static_cast<std::size_t>(bounds.back())][count].last_begins));
  std::ranges::reverse(bounds);
  return bounds;
}

std::vector<PipelineItem> pipeline_items(std::int64_t layers, bool tied_head) {
  std::vector<PipelineItem> items(static_cast<std::size_t>(layers) + 2, {.type = "ParallelTransformerLayerPipe"});
  items.front().type = "EmbeddingPipe";
  items.back().type = tied_head ? items.front().type : "LMHeadPipe";
  return items;
}

std::optional<std::string> problem_of_method(const std::string& method, const std::vector<PipelineItem>& items) {
  if (method == "uniform" || method == "parameters") return std::nullopt;
  if (!is_by_type(method))
    return "expected 'parameters', 'uniform' or 'type:' and a regular expression, such as 'type:transformer', got '" +
           method + "'";
  try {
    const std::vector<std::int64_t> weights = counted(method, items);
    if (std::accumulate(weights.begin(), weights.end(), std::int64_t{0}) > 0) return std::nullopt;
  } catch (const std::regex_error&) {
    return "'" + method.substr(by_type.size()) + "' is not a regular expression; use 'type:transformer'";
  }
  return "no layer is of a type with '" + method.substr(by_type.size()) + "' in it: there are " + items.front().type +
         ", " + items[1].type + (items.back().type == items.front().type ? "" : " and " + items.back().type) +
         "; use 'type:transformer'";
}

std::vector<std::int64_t> partition_items(const std::string& method, const std::vector<PipelineItem>& items,
                                          std::int64_t stages) {
  if (method == "uniform") return partition_uniform(static_cast<std::int64_t>(items.size()), stages);
  if (is_by_type(method)) return partition_balanced(counted(method, items), stages);
  std::vector<std::int64_t> weights;
  for (const PipelineItem& item : items) weights.push_back(item.trained);
  return partition_balanced(weights, stages);
}

}  // namespace trainyard::strategies
