#include "scenarios/compare.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <string_view>
#include <vector>

#include "scenarios/internal/text.hpp"
#include "scenarios/quantity.hpp"

namespace trainyard::scenarios {
namespace {

constexpr std::size_t first_exposed = sim::kernel_classes;
constexpr std::size_t bubble = first_exposed + sim::purposes;

double tokens_of_step(const Result& result) { return std::round(result.tokens_per_s * result.step_time_s); }
double samples_of_step(const Result& result) { return std::round(result.samples_per_s * result.step_time_s); }

// In whole picoseconds that add up to `total`; what rounding leaves goes to the largest part.
std::array<std::int64_t, breakdown_names.size()> in_picoseconds(const Breakdown& breakdown, std::int64_t total) {
  std::array<std::int64_t, breakdown_names.size()> parts{};
  const double sum = std::accumulate(breakdown.begin(), breakdown.end(), 0.0);
  if (sum <= 0) return parts;
  const double factor = static_cast<double>(total) / sum;
  std::ranges::transform(breakdown, parts.begin(), [&](double seconds) { return std::llround(seconds * factor); });
  *std::ranges::max_element(parts) += total - std::accumulate(parts.begin(), parts.end(), std::int64_t{0});
  return parts;
}

void add_clause(std::string& text, const std::string& clause) {
  if (!clause.empty()) text += (text.empty() ? "" : "; ") + clause;
}

std::string changed(std::string_view what, std::int64_t now, std::int64_t before) {
  if (now == before) return "";
  return std::string{what} + " " + std::to_string(now) + ", was " + std::to_string(before);
}

// How the work is divided otherwise.
std::string layout_change(const Result& from, const Result& to) {
  std::string text;
  const strategies::Parallelism& before = from.parallelism;
  const strategies::Parallelism& now = to.parallelism;
  add_clause(text, changed("data", now.data, before.data));
  add_clause(text, changed("tensor", now.tensor, before.tensor));
  add_clause(text, changed("pipeline", now.pipeline, before.pipeline));
  add_clause(text, changed("context", now.context, before.context));
  add_clause(text, changed("expert", now.expert, before.expert));
  add_clause(text, changed("micro batch", to.micro_batch, from.micro_batch));
  if (to.recompute != from.recompute) add_clause(text, "recompute " + to.recompute + ", was " + from.recompute);
  return text;
}

// Executed by a device for the work of a step of the first.
double teraflops(const Result& result, double scale) {
  return result.hardware_tflops_per_device * result.step_time_s * scale;
}

std::string why_products(const Result& from, const Result& to, double scale) {
  constexpr double alike = 0.001;
  std::string text;
  const double before = teraflops(from, 1);
  const double now = teraflops(to, scale);
  if (std::abs(now - before) > alike * before)
    text = format_count(now * 1e12) + "FLOP a device, was " + format_count(before * 1e12);
  add_clause(text, layout_change(from, to));
  return text.empty() ? "the same work at another rate" : text;
}

std::string why_memory_bound(const Result& from, const Result& to) {
  const std::string text = layout_change(from, to);
  return text.empty() ? "other kernels, or at another rate" : text;
}

std::string why_optimizer(const Result& from, const Result& to) {
  constexpr auto optimizer = static_cast<std::size_t>(sim::MemoryPurpose::optimizer);
  const sim::Bytes before{from.memory.parts.at(optimizer)};
  const sim::Bytes now{to.memory.parts.at(optimizer)};
  const std::string text = "updates " + format_bytes(now) + " of state on the fullest device";
  return now == before ? text : text + ", was " + format_bytes(before);
}

// The operations that are waited for most, at most two of a purpose.
std::string waited_for(const Result& result, sim::Purpose purpose) {
  std::vector<const CommunicationSummary*> operations;
  for (const CommunicationSummary& row : result.communication)
    if (row.purpose == purpose) operations.push_back(&row);
  if (operations.empty()) return "none";
  std::ranges::stable_sort(operations, std::greater{}, &CommunicationSummary::exposed_s);
  constexpr double counts = 0.1;
  std::string text;
  for (std::size_t i = 0; i < operations.size() && i < 2; ++i) {
    const CommunicationSummary& row = *operations[i];
    if (i > 0 && row.exposed_s <= counts * operations.front()->exposed_s) break;
    text += (i > 0 ? ", " : "") + std::string{sim::to_string(row.operation)} + " of " +
            format_bytes({static_cast<std::int64_t>(row.bytes)}) + " (" + format_seconds(row.exposed_s) + " of " +
            format_seconds(row.busy_s) + " waited for)";
  }
  return text;
}

const LinkSummary* busiest_link(const Result& result) {
  const auto found = std::ranges::max_element(result.links, {}, &LinkSummary::utilization_peak);
  return found == result.links.end() ? nullptr : &*found;
}

std::string busiest_words(const Result& from, const Result& to) {
  constexpr double matters = 0.05;
  const LinkSummary* before = busiest_link(from);
  const LinkSummary* now = busiest_link(to);
  if (before == nullptr || now == nullptr) return "";
  const bool alike = before->kind == now->kind && std::abs(before->utilization_peak - now->utilization_peak) < matters;
  if (alike) return "";
  const auto full = [](const LinkSummary& link) {
    return std::string{topology::to_string(link.kind)} + " " + percent(link.utilization_peak);
  };
  return "busiest link " + full(*now) + " full, was " + full(*before);
}

std::string why_exposed(const Result& from, const Result& to, sim::Purpose purpose) {
  std::string text = waited_for(to, purpose) + "; was " + waited_for(from, purpose);
  add_clause(text, busiest_words(from, to));
  return text;
}

std::string why_share(const Result& from, const Result& to, std::size_t category) {
  const auto share = [&](const Result& result) {
    return percent(result.breakdown_s.at(category) / result.step_time_s);
  };
  std::string text = share(to) + " of the step, was " + share(from);
  add_clause(text, changed("micro-batches", to.micro_batches, from.micro_batches));
  if (category == bubble) add_clause(text, changed("pipeline", to.parallelism.pipeline, from.parallelism.pipeline));
  return text;
}

std::string why(const Result& from, const Result& to, double scale, std::size_t category) {
  if (category == static_cast<std::size_t>(sim::KernelClass::optimizer)) return why_optimizer(from, to);
  if (category == static_cast<std::size_t>(sim::KernelClass::memory_bound)) return why_memory_bound(from, to);
  if (category < first_exposed) return why_products(from, to, scale);
  if (category < bubble) return why_exposed(from, to, static_cast<sim::Purpose>(category - first_exposed));
  return why_share(from, to, category);
}

double seconds_of(std::int64_t picoseconds) { return static_cast<double>(picoseconds) * 1e-12; }

}  // namespace

double work_scale(const Result& from, const Result& result) {
  const double tokens = tokens_of_step(result);
  if (tokens > 0 && tokens_of_step(from) > 0) return tokens_of_step(from) / tokens;
  const double samples = samples_of_step(result);
  return samples > 0 ? samples_of_step(from) / samples : 1.0;
}

std::int64_t time_of_same_work(const Result& from, const Result& result) {
  return std::llround(result.step_time_s * work_scale(from, result) * 1e12);
}

Waterfall waterfall(const Result& from, const Result& to) {
  Waterfall result{.from_ps = time_of_same_work(from, from),
                   .to_ps = time_of_same_work(from, to),
                   .scale = work_scale(from, to),
                   .causes = {}};
  result.from_s = seconds_of(result.from_ps);
  result.to_s = seconds_of(result.to_ps);
  const auto before = in_picoseconds(from.breakdown_s, result.from_ps);
  const auto now = in_picoseconds(to.breakdown_s, result.to_ps);
  for (std::size_t i = 0; i < breakdown_names.size(); ++i) {
    const std::int64_t change = now.at(i) - before.at(i);
    if (change == 0) continue;
    result.causes.push_back(
        {.category = i, .picoseconds = change, .seconds = seconds_of(change), .why = why(from, to, result.scale, i)});
  }
  std::ranges::stable_sort(result.causes, std::greater{},
                           [](const Cause& cause) { return std::abs(cause.picoseconds); });
  return result;
}

std::optional<CostDifference> cost_difference(const Result& from, const Result& to) {
  if (!from.cost.paid || !to.cost.paid || from.cost.currency != to.cost.currency) return std::nullopt;
  CostDifference result{.currency = from.cost.currency};
  const CostSummary::Paid& before = *from.cost.paid;
  const CostSummary::Paid& now = *to.cost.paid;
  result.per_million_tokens = before.per_million_tokens && now.per_million_tokens;
  result.from = result.per_million_tokens ? *before.per_million_tokens : before.per_step;
  result.to = result.per_million_tokens ? *now.per_million_tokens : now.per_step * work_scale(from, to);
  const double device_hour = before.per_hour / static_cast<double>(from.devices);
  const double device_hour_now = now.per_hour / static_cast<double>(to.devices);
  if (device_hour <= 0 || device_hour_now <= 0) return std::nullopt;
  // As if the second had paid the first one's price for its hours.
  result.device_time = result.to / device_hour_now * device_hour - result.from;
  result.price = result.to - result.from - result.device_time;
  return result;
}

}  // namespace trainyard::scenarios
