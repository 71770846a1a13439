// What people read of a simulated inference.
#include <array>
#include <string>

#include "scenarios/diagnostics.hpp"
#include "scenarios/inference.hpp"
#include "scenarios/internal/text.hpp"
#include "scenarios/quantity.hpp"
#include "workloads/architecture.hpp"

namespace trainyard::scenarios {
namespace {

using workloads::Inference;

std::string gibibytes(double bytes) { return fixed(bytes / (1LL << 30), 1) + " GiB"; }

std::string counted(std::int64_t count, const std::string& what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

std::string heading(const Scenario& scenario, const Result& result) {
  const Inference& inference = *scenario.inference;
  const std::int64_t copies = result.inference->replicas;
  std::string text = printable(result.scenario) + "\n";
  text += "  " + std::to_string(result.devices) + " x " + printable(scenario.accelerator.name) + " on " +
          std::to_string(scenario.nodes) + " x " + printable(scenario.node.name) + ", " + std::to_string(copies) +
          (copies == 1 ? " copy" : " copies") + " of the model on " + std::to_string(inference.tensor) +
          (inference.tensor == 1 ? " device each\n" : " devices each\n");
  text += "  " + printable(scenario.model.name) + ", " +
          format_count(static_cast<double>(workloads::parameters(scenario.model))) + " parameters in " +
          std::string{workloads::weight_format_names.at(static_cast<std::size_t>(inference.weights))} + ", " +
          std::string{workloads::backend_names.at(static_cast<std::size_t>(inference.backend))} + "\n";
  return text + "  " + counted(inference.batch, "sequence") + " at once, " + counted(inference.prompt, "token") +
         " of prompt, " + std::to_string(inference.generate) + " generated\n\n";
}

std::string times(const Result& result) {
  const InferenceSummary& summary = *result.inference;
  std::string text;
  text += "  first token    " + format_seconds(summary.prefill_s) + " (prefill), " +
          percent(summary.prefill_compute_utilization) + " of the peak rate\n";
  text += "  each further   " + format_seconds(summary.time_per_token_s) + ", " +
          percent(summary.decode_memory_utilization) + " of the memory's bandwidth\n";
  text += "  all tokens     " + format_seconds(summary.request_s) + "\n";
  text += "  throughput     " + format_count(summary.tokens_per_s) + " tokens/s while decoding, " +
          format_count(result.tokens_per_s) + " with the prompts, " + format_count(result.tokens_per_s_per_device) +
          " per device\n";
  if (result.parallelism.tensor > 1 && result.ideal_step_time_s > 0)
    text += "  communication  " + percent(result.communication_overhead) + " of the time; " +
            format_seconds(result.ideal_step_time_s) + " on an ideal network\n";
  return text;
}

std::string breakdown(const Result& result) {
  static constexpr std::array<std::string_view, breakdown_names.size()> words{
      "matrix products",     "attention",           "memory-bound kernels", "optimizer",
      "waiting for data",    "waiting for tensor",  "waiting for pipeline", "waiting for context",
      "waiting for experts", "waiting for offload", "waiting for others",   "waiting for host",
      "stragglers"};
  const InferenceSummary& summary = *result.inference;
  const double decoding = summary.request_s - summary.prefill_s;
  std::string text = "\nWhere the time goes, on an average device\n" + padded_left("prefill", 41) +
                     padded_left("further tokens", 18) + "\n";
  const auto cell = [](double seconds, double all) {
    return padded_left(all > 0 ? format_seconds(seconds) : "", 9) +
           padded_left(all > 0 ? percent(seconds / all) : "", 9);
  };
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (result.breakdown_s.at(i) <= 0) continue;
    text += "  " + padded_right(words.at(i), 22) + cell(summary.prefill_breakdown_s.at(i), summary.prefill_s) +
            cell(summary.decode_breakdown_s.at(i), decoding) + "\n";
  }
  return text;
}

std::string memory(const Result& result) {
  const MemorySummary& memory = result.memory;
  const InferenceSummary& summary = *result.inference;
  std::string text = "\nMemory of each device\n";
  const auto line = [&](std::string_view name, std::int64_t bytes) {
    text += "  " + padded_right(name, 22) + padded_left(gibibytes(static_cast<double>(bytes)), 11);
  };
  const auto part = [&](sim::MemoryPurpose purpose) { return memory.parts.at(static_cast<std::size_t>(purpose)); };
  line("weights", part(sim::MemoryPurpose::parameters)), text += "\n";
  line("keys and values", part(sim::MemoryPurpose::buffers));
  text += "   " + format_bytes({summary.kv_cache_bytes_per_token}) + " per token of a sequence\n";
  line("activations", part(sim::MemoryPurpose::activations)), text += "\n";
  line("overhead", memory.overhead), text += "\n";
  line("in all", memory.peak);
  text += " of " + gibibytes(static_cast<double>(memory.capacity)) + (memory.fits ? ": fits" : ": DOES NOT FIT") + "; ";
  return text + (summary.largest_batch == 0
                     ? "not even one sequence would fit\n"
                     : "up to " + counted(summary.largest_batch, "sequence") + " at once would fit\n");
}

}  // namespace

std::string inference_summary(const Scenario& scenario, const Result& result, const std::string& cost) {
  return heading(scenario, result) + times(result) + cost + breakdown(result) + memory(result) + "\nSimulated in " +
         format_seconds(result.engine.wall_s) + ": " + format_count(static_cast<double>(result.engine.operations)) +
         " operations on " + std::to_string(result.engine.ranks) + (result.engine.ranks == 1 ? " rank\n" : " ranks\n");
}

}  // namespace trainyard::scenarios
