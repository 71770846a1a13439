#include "scenarios/inference.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>
#include <utility>
#include <vector>

#include "scenarios/internal/inference_entries.hpp"
#include "scenarios/internal/memory.hpp"
#include "scenarios/internal/outcome_figures.hpp"
#include "strategies/inference_pass.hpp"
#include "workloads/inference.hpp"

namespace trainyard::scenarios {
namespace {

// Of passes, on the average device.
struct PassFigures {
  double seconds = 0;
  double ideal_s = 0;  // on an ideal network
  double idle_s = 0;
  double flops = 0;
  double bytes = 0;  // between device and memory
  double operations = 0;
  Breakdown breakdown_s{};
  std::vector<CommunicationSummary> communication;

  void add(const PassFigures& other, double times);
};

void PassFigures::add(const PassFigures& other, double times) {
  seconds += times * other.seconds;
  ideal_s += times * other.ideal_s;
  idle_s += times * other.idle_s;
  flops += times * other.flops;
  bytes += times * other.bytes;
  operations += times * other.operations;
  for (std::size_t i = 0; i < breakdown_s.size(); ++i) breakdown_s.at(i) += times * other.breakdown_s.at(i);
  for (const CommunicationSummary& row : other.communication) {
    auto sum = std::ranges::find_if(
        communication, [&](const auto& one) { return one.purpose == row.purpose && one.operation == row.operation; });
    if (sum == communication.end())
      sum = communication.insert(sum, {.purpose = row.purpose, .operation = row.operation});
    sum->count += times * row.count;
    sum->bytes += times * row.bytes;
    sum->wire_bytes += times * row.wire_bytes;
    sum->busy_s += times * row.busy_s;
    sum->exposed_s += times * row.exposed_s;
  }
}

double bytes_of(const sim::Plan& plan) {
  double sum = 0;
  const std::vector<std::int64_t> counts = sim::kernel_counts(plan, plan.programs[sim::ProgramId{0}]);
  for (std::size_t k = 0; k < counts.size(); ++k)
    sum += static_cast<double>(counts[k]) * static_cast<double>(plan.kernels[plan.kernels.id(k)].bytes.count);
  return sum;
}

class Server {
 public:
  Server(const Scenario& scenario, const SimulateOptions& options)
      : scenario_(scenario),
        options_(options),
        inference_(*scenario.inference),
        cluster_(make_cluster(scenario)),
        kernels_(scenario.accelerator, inference_.tensor),
        costs_{.kernels = kernels_, .sixteen_bits = sixteen_bits(inference_, scenario.accelerator)} {}

  PassFigures prefill();
  PassFigures decoding();
  MemorySummary memory(const workloads::Inference& inference) const;
  std::int64_t largest_batch() const;
  double peak() const;       // of the products in the layers
  double best_rate() const;  // that they reach
  std::size_t rank_classes() const { return rank_classes_; }
  std::uint64_t events() const { return events_; }

 private:
  strategies::PlannedStep planned(const workloads::Expansion& model, const workloads::Inference& inference,
                                  std::int64_t sequences) const;
  PassFigures run(const workloads::Expansion& model, std::int64_t sequences);
  const PassFigures& token(std::int64_t context);
  PassFigures tokens(std::int64_t first, std::int64_t last);

  const Scenario& scenario_;
  const SimulateOptions& options_;
  const workloads::Inference& inference_;
  topology::Cluster cluster_;
  workloads::KernelCosts kernels_;
  workloads::InferenceCosts costs_;
  std::map<std::int64_t, PassFigures> tokens_;  // by context
  std::size_t rank_classes_ = 0;
  std::uint64_t events_ = 0;
};

strategies::PlannedStep Server::planned(const workloads::Expansion& model, const workloads::Inference& inference,
                                        std::int64_t sequences) const {
  const sim::Bytes cache = workloads::cache_bytes(scenario_.model, inference, inference.batch, inference.tokens());
  strategies::HostProfile host = strategies::inference_host(inference.backend, cluster_.torus().has_value());
  return strategies::plan_inference(model,
                                    {.tensor = inference.tensor,
                                     .cache = cache,
                                     .logits = sim::Bytes{2 * sequences * scenario_.model.vocab},
                                     .host = host},
                                    cluster_);
}

PassFigures Server::run(const workloads::Expansion& model, std::int64_t sequences) {
  const sim::Plan plan = planned(model, inference_, sequences).plan;
  const sim::Outcome outcome = sim::run(plan, {.fold = options_.fold, .tie_seed = options_.tie_seed});
  if (!outcome.stall.empty()) throw std::logic_error("a simulated pass of inference stalls: " + outcome.stall);
  const std::size_t ranks = plan.program_of.size();
  rank_classes_ = std::max(rank_classes_, outcome.rank_classes);
  events_ += outcome.communications;
  PassFigures figures{.seconds = sim::to_seconds(outcome.step_time),
                      .idle_s = outcome.time.idle.mean_seconds(ranks),
                      .flops = hardware_flops(plan) / static_cast<double>(ranks),
                      .bytes = bytes_of(plan),
                      .operations = static_cast<double>(outcome.operations),
                      .breakdown_s = breakdown_of(outcome.time, ranks),
                      .communication = communication_of(plan, outcome)};
  figures.ideal_s = figures.seconds;
  if (options_.ideal && inference_.tensor > 1)
    figures.ideal_s = sim::to_seconds(sim::run(plan, {.ideal_network = true}).step_time);
  return figures;
}

// As many prompts at a time as a pass takes; the last one takes what is left.
PassFigures Server::prefill() {
  const std::int64_t at_once = inference_.prompts_at_once();
  const std::int64_t left = inference_.batch % at_once;
  PassFigures sum;
  const auto pass = [&](std::int64_t prompts) {
    return run(workloads::expand_prefill(scenario_.model, inference_, prompts, costs_), prompts);
  };
  sum.add(pass(at_once), static_cast<double>(inference_.batch / at_once));
  if (left > 0) sum.add(pass(left), 1);
  return sum;
}

const PassFigures& Server::token(std::int64_t context) {
  const auto known = tokens_.find(context);
  if (known != tokens_.end()) return known->second;
  const workloads::Expansion model = workloads::expand_decoding(scenario_.model, inference_, context, costs_);
  return tokens_[context] = run(model, inference_.batch);
}

// The sum over all contexts from `first` to `last`. Times are straight lines but where a kernel begins to be bound by
// what it reads, or a window is full: where the middle lies on the line between the ends, so does all between them.
PassFigures Server::tokens(std::int64_t first, std::int64_t last) {
  constexpr double straight = 1e-6;
  const std::int64_t middle = first + (last - first) / 2;
  const double share = last > first ? static_cast<double>(middle - first) / static_cast<double>(last - first) : 0;
  const double line = (1 - share) * token(first).seconds + share * token(last).seconds;
  PassFigures sum;
  if (last - first <= 1 || std::abs(token(middle).seconds - line) <= straight * line) {
    const double half = static_cast<double>(last - first + 1) / 2;
    sum.add(token(first), half);
    sum.add(token(last), half);
    return sum;
  }
  sum.add(tokens(first, middle), 1);
  sum.add(tokens(middle, last), 1);
  sum.add(token(middle), -1);
  return sum;
}

// The first token comes out of the prefill. The n-th further one is made of a sequence of prompt + n tokens; of a
// single token it is what one more would take.
PassFigures Server::decoding() {
  const std::int64_t first = inference_.prompt + 1;
  return tokens(first, std::max(first, inference_.prompt + inference_.generate - 1));
}

// Whichever pass needs more.
MemorySummary Server::memory(const workloads::Inference& inference) const {
  const std::int64_t prompts = inference.prompts_at_once();
  const workloads::Expansion prefill = workloads::expand_prefill(scenario_.model, inference, prompts, costs_);
  const workloads::Expansion decoding =
      workloads::expand_decoding(scenario_.model, inference, inference.tokens(), costs_);
  const sim::Bytes capacity = smallest_memory(scenario_);
  const MemorySummary first = memory_of(planned(prefill, inference, prompts), capacity);
  const MemorySummary then = memory_of(planned(decoding, inference, inference.batch), capacity);
  return first.peak > then.peak ? first : then;
}

std::int64_t Server::largest_batch() const {
  constexpr std::int64_t most = std::int64_t{1} << 20U;
  const auto fits = [&](std::int64_t batch) {
    workloads::Inference with = inference_;
    with.batch = batch;
    return memory(with).fits;
  };
  if (!fits(1)) return 0;
  std::int64_t fitting = 1;
  std::int64_t too_many = 2;
  while (too_many <= most && fits(too_many)) fitting = std::exchange(too_many, 2 * too_many);
  while (too_many - fitting > 1) {
    const std::int64_t middle = fitting + (too_many - fitting) / 2;
    (fits(middle) ? fitting : too_many) = middle;
  }
  return fitting;
}

double Server::peak() const {
  const auto precision = static_cast<std::size_t>(workloads::arithmetic(inference_.weights, costs_.sixteen_bits));
  return static_cast<double>(scenario_.accelerator.peak.at(precision).count);
}

double Server::best_rate() const {
  const auto precision = static_cast<std::size_t>(workloads::arithmetic(inference_.weights, costs_.sixteen_bits));
  return peak() * scenario_.accelerator.gemm_efficiency.at(precision) * scenario_.accelerator.clock_share();
}

// What an average device does, as cost and energy have it. Products of prompts are bound by arithmetic, and those of
// single tokens by reading weights, as attention to the cache is by reading that.
PeriodWork work_of(const Result& result, const PassFigures& prefill, double best_rate) {
  using workloads::Activity;
  PeriodWork work{
      .seconds = result.step_time_s,
      .tokens = result.tokens_per_s * result.step_time_s,
      .samples = result.samples_per_s * result.step_time_s,
  };
  const auto add = [&](Activity activity, double seconds) {
    work.activity.at(static_cast<std::size_t>(activity)) += seconds;
  };
  const auto kernels = [](const Breakdown& breakdown, sim::KernelClass kind) {
    return breakdown.at(static_cast<std::size_t>(kind));
  };
  using sim::KernelClass;
  const double products =
      kernels(prefill.breakdown_s, KernelClass::matmul) + kernels(prefill.breakdown_s, KernelClass::attention);
  double of_kernels = 0;
  for (std::size_t i = 0; i < sim::kernel_classes; ++i) of_kernels += result.breakdown_s.at(i);
  add(Activity::compute, products);
  add(Activity::memory, of_kernels - products);
  const double host = result.breakdown_s.at(breakdown_names.size() - 2);
  add(Activity::idle, host);
  add(Activity::waiting, result.step_time_s - of_kernels - host);
  if (products > 0) work.intensity = std::min(1.0, prefill.flops / products / best_rate);
  return work;
}

}  // namespace

Result simulate_inference(const Scenario& scenario, const SimulateOptions& options) {
  const Stopwatch watch;
  const workloads::Inference& inference = *scenario.inference;
  Server server(scenario, options);
  const PassFigures prefill = server.prefill();
  const PassFigures decoding = server.decoding();
  const auto steps = static_cast<double>(inference.generate - 1);
  PassFigures all = prefill;
  if (steps > 0) all.add(decoding, 1);

  Result result;
  InferenceSummary& summary = result.inference.emplace();
  summary.prefill_s = prefill.seconds;
  summary.time_per_token_s = decoding.seconds / std::max(1.0, steps);
  summary.request_s = all.seconds;
  summary.replicas = scenario.devices / inference.tensor;
  summary.batch = inference.batch;
  const auto sequences = static_cast<double>(summary.replicas * inference.batch);
  summary.tokens_per_s = sequences / summary.time_per_token_s;
  const auto cached = [&](std::int64_t batch, std::int64_t tokens) {
    return workloads::cache_bytes(scenario.model, inference, batch, tokens).count * inference.tensor;
  };
  summary.kv_cache_bytes = cached(inference.batch, inference.tokens());
  summary.kv_cache_bytes_per_token = cached(1, 1);
  summary.prefill_compute_utilization = prefill.flops / prefill.seconds / server.peak();
  summary.decode_memory_utilization =
      decoding.bytes / decoding.seconds / static_cast<double>(scenario.accelerator.memory_bandwidth.count);
  summary.prefill_breakdown_s = prefill.breakdown_s;
  if (steps > 0) summary.decode_breakdown_s = decoding.breakdown_s;
  result.memory = server.memory(inference);
  summary.weights_bytes =
      result.memory.parts.at(static_cast<std::size_t>(sim::MemoryPurpose::parameters)) * inference.tensor;
  summary.largest_batch = server.largest_batch();

  result.scenario = scenario.name;
  result.seed = scenario.seed;
  result.devices = scenario.devices;
  result.parallelism = {.data = summary.replicas, .tensor = inference.tensor};
  result.step_time_s = all.seconds;
  result.samples_per_s = sequences / all.seconds;
  result.tokens_per_s = result.samples_per_s * static_cast<double>(inference.generate);
  result.tokens_per_s_per_device = result.tokens_per_s / static_cast<double>(scenario.devices);
  result.hardware_tflops_per_device = result.model_tflops_per_device = all.flops / all.seconds * 1e-12;
  result.hfu = result.mfu = result.mfu_full_attention = all.flops / all.seconds / server.peak();
  result.device_busy = 1 - all.idle_s / all.seconds;
  result.breakdown_s = all.breakdown_s;
  if (options.ideal) {
    result.ideal_step_time_s = all.ideal_s;
    result.communication_overhead = 1 - all.ideal_s / all.seconds;
  }
  const PeriodWork work = work_of(result, prefill, server.best_rate());
  result.cost = cost_of(scenario, work);
  if (scenario.run) result.run = run_of(*scenario.run, scenario, work, result.cost);
  result.communication = all.communication;
  result.warnings = scenario.warnings;
  result.engine = {.wall_s = watch.total(),
                   .peak_rss_bytes = peak_resident_bytes(),
                   .events = server.events(),
                   .operations = static_cast<std::uint64_t>(std::llround(all.operations)),
                   .ranks = scenario.devices,
                   .rank_classes = static_cast<std::int64_t>(server.rank_classes()),
                   .phases = {}};
  return result;
}

}  // namespace trainyard::scenarios
