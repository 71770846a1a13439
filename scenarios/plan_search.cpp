#include "scenarios/plan_search.hpp"

#include <tbb/enumerable_thread_specific.h>
#include <tbb/global_control.h>
#include <tbb/parallel_for.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <tuple>
#include <utility>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/internal/memory.hpp"
#include "scenarios/internal/outcome_figures.hpp"
#include "scenarios/internal/search_space.hpp"
#include "scenarios/internal/value_text.hpp"
#include "sim/broken_invariant.hpp"
#include "sim/ensure.hpp"
#include "sim/lower_bound.hpp"

namespace trainyard::scenarios {
namespace {

using strategies::SearchEffect;

constexpr double no_limit = std::numeric_limits<double>::infinity();

// Nodes that are looked at side by side. However many threads there are, so that what is simulated and what is cut off
// does not depend on them.
constexpr std::size_t batch_size = 32;

// At least, or exactly, of a step.
struct Work {
  double seconds = 0;
  std::array<double, sim::kernel_classes> kernels{};  // of an average rank
};

std::optional<double> objective_of(Objective objective, const Candidate& candidate) {
  switch (objective) {
    case Objective::step_time:
      return candidate.step_time_s;
    case Objective::cost:
      return candidate.cost_per_step;
    case Objective::energy:
      return candidate.energy_kwh_per_step;
  }
  return std::nullopt;
}

// What a step costs at least that does so much work: outside its kernels a device draws what an idle one does, and in
// products no more than in kernels that memory bounds, which is the least that they can draw.
double least_objective(Objective objective, const Scenario& scenario, const Work& work) {
  if (objective == Objective::step_time || work.seconds == 0) return work.seconds;
  using workloads::Activity;
  PeriodWork period{.seconds = work.seconds, .intensity = 0};
  const auto of = [&](Activity activity) -> double& { return period.activity.at(static_cast<std::size_t>(activity)); };
  double in_kernels = 0;
  for (std::size_t i = 0; i < sim::kernel_classes; ++i) {
    const auto kind = static_cast<sim::KernelClass>(i);
    const bool product = kind == sim::KernelClass::matmul || kind == sim::KernelClass::attention;
    of(product ? Activity::compute : Activity::memory) += work.kernels.at(i);
    in_kernels += work.kernels.at(i);
  }
  of(Activity::idle) = std::max(0.0, work.seconds - in_kernels);
  const CostSummary cost = cost_of(scenario, period);
  if (objective == Objective::energy) return cost.energy ? cost.energy->kwh_per_step : 0;
  return cost.paid ? cost.paid->per_step : 0;
}

// A part of the space that is still open, with the least that its ways can reach.
struct Node {
  enum class Stage : std::uint8_t {
    same_kernels,   // ways that differ in schedule and state
    same_schedule,  // ways that differ in state
    way,            // one
    fitting_way     // one that fits in memory
  };
  double bound = 0;
  Stage stage = Stage::way;
  std::size_t space = 0;
  std::size_t begin = 0;  // ways
  std::size_t end = 0;
  bool too_large = false;  // what is known of all of its ways, but looked at one by one all the same
  auto order() const { return std::tuple{bound, static_cast<int>(stage), space, begin}; }
  bool operator<(const Node& other) const { return order() < other.order(); }
};

struct OpenNodes {
  std::set<Node> fitting;  // ways that can be simulated
  std::set<Node> others;
};

// What looking at a node has brought.
struct Finding {
  double bound = 0;
  bool fits = true;
  std::optional<Candidate> simulated = {};
};

struct Place {
  std::size_t space = 0;
  std::size_t way = 0;
};

class PlanSearch {
 public:
  PlanSearch(Value root, const Catalog& catalog, const SearchOptions& options);

  SearchResult run();

 private:
  void find_given(const Value& root);
  void open_framework(const Framework& framework, const Value& root);
  void enumerate();
  void look();
  std::vector<Node> next_batch();
  Finding look_at(const Node& node);
  Finding look_at_kernels(const Node& node, SearchTrial& trial) const;
  Finding look_at_schedule(const Node& node, SearchTrial& trial) const;
  Finding look_at_way(const Node& node, SearchTrial& trial) const;
  void take(const Node& node, Finding finding);
  void add(const Node& node) {
    (node.stage == Node::Stage::fitting_way ? open_[node.space].fitting : open_[node.space].others).insert(node);
  }
  double limit() const;
  void finish();
  void propose();
  void find_front();
  void visit_neighbours();
  Neighbour neighbour_of(const Result& best, const Choices& choices, Parameter change);
  Neighbour framework_neighbour(const Result& best, std::size_t space);
  SearchTrial& trial(std::size_t space);
  bool stopped() const { return options_.stop != nullptr && options_.stop->load(); }
  void report();
  Result in_full(const Place& place) const;
  [[noreturn]] void nothing_fits() const;

  const Catalog& catalog_;
  const SearchOptions& options_;
  Value root_;
  std::optional<Scenario> base_;  // the first framework's
  std::vector<SearchSpace> spaces_;
  std::vector<std::string> frameworks_;
  tbb::enumerable_thread_specific<std::vector<std::unique_ptr<SearchTrial>>> trials_;
  std::vector<OpenNodes> open_;  // of each space
  std::vector<Place> places_;    // of the candidates
  std::vector<double> best_;     // objectives of the best, in order
  std::optional<std::size_t> first_;
  SearchResult result_;
  Stopwatch watch_;
};

// As JSON.
std::string text_of(const Value& value) { return value.is_null() ? "\"default\"" : json_of(value).dump(); }

// A key that is there and says something.
bool given(const Value& section, std::string_view key) {
  const Value* value = section.find(key);
  return value != nullptr && !value->is_null() && !(value->is_scalar() && !value->quoted && value->scalar == "auto");
}

PlanSearch::PlanSearch(Value root, const Catalog& catalog, const SearchOptions& options)
    : catalog_(catalog), options_(options), root_(std::move(root)) {
  sim::ensure(options.top > 0 && options.jobs > 0, "a search gives one plan at least, on one thread at least");
  result_.objective = options.objective;
  const Value* workload = root_.find("workload");
  if (workload != nullptr && workload->scalar == "inference")
    throw ScenarioError(workload->where, "workload: a plan is searched for training; expected 'training'");
  if (Value* training = root_.find("training"); training != nullptr && training->is_map())
    for (const char* key : {"micro_batch", "recompute"})
      if (!given(*training, key)) remove(*training, key);
  const Value* strategy = root_.find("strategy");
  if (strategy == nullptr || strategy->is_null()) set(root_, "strategy", make_map(root_.where));
  find_given(root_);
  const Value& open = *root_.find("strategy");
  std::vector<Diagnostic> mistakes;
  const bool one = open.is_map() && given(open, "framework");
  for (const Framework& framework : catalog.frameworks()) {
    if (one && open.find("framework")->scalar != framework.entry.name) continue;
    try {
      open_framework(framework, root_);
    } catch (const ScenarioError& error) {
      if (one) throw;
      if (mistakes.empty()) mistakes = error.diagnostics();
      result_.left_out.push_back(std::string{framework.entry.name} + ": " + error.diagnostics().front().message);
    }
  }
  // A name that is none, or a section that is no map, is reported as anywhere else.
  if (spaces_.empty() && mistakes.empty()) read_job(root_, catalog);
  if (spaces_.empty()) throw ScenarioError(mistakes);
}

void PlanSearch::find_given(const Value& root) {
  Value strategy = *root.find("strategy");
  for (const Entry& entry : strategy.entries)
    if (given(strategy, entry.key.scalar))
      result_.fixed.push_back({"strategy." + entry.key.scalar, json_of(entry.value).dump()});
  if (const Value* training = root.find("training"); training != nullptr && training->is_map())
    for (const char* key : {"micro_batch", "recompute"})
      if (given(*training, key))
        result_.fixed.push_back({std::string{"training."} + key, json_of(*training->find(key)).dump()});
}

void PlanSearch::open_framework(const Framework& framework, const Value& root) {
  Value scenario = root;
  Value& strategy = *scenario.find("strategy");
  if (strategy.is_map()) {
    Value kept = make_map(strategy.where);
    set(kept, "framework", make_scalar(std::string{framework.entry.name}, strategy.where));
    for (const Entry& entry : strategy.entries)
      if (entry.key.scalar != "framework" && given(strategy, entry.key.scalar)) kept.entries.push_back(entry);
    strategy = std::move(kept);
  }
  Scenario base = read_job(scenario, catalog_);
  const topology::Cluster cluster = make_cluster(base);
  const strategies::Job job{
      .model = base.model, .training = base.training, .accelerator = base.accelerator, .cluster = cluster};
  const std::vector<strategies::SearchKey> keys = base.strategy->search_keys(job);
  if (keys.empty())
    throw ScenarioError(root.where, "has no plans to search for " + base.model.name + " on this cluster");
  spaces_.emplace_back(std::move(scenario), keys);
  frameworks_.emplace_back(framework.entry.name);
  if (!base_) base_ = std::move(base);
}

// Looked for again by every thread: a strategy is set up anew, and not shared.
SearchTrial& PlanSearch::trial(std::size_t space) {
  auto& trials = trials_.local();
  trials.resize(spaces_.size());
  if (!trials[space]) trials[space] = std::make_unique<SearchTrial>(spaces_[space], catalog_);
  return *trials[space];
}

void PlanSearch::enumerate() {
  tbb::parallel_for(std::size_t{0}, spaces_.size(), [&](std::size_t space) {
    SearchTrial& trial = this->trial(space);
    spaces_[space].enumerate([&](const Choices& choices) {
      trial.set(choices);
      return trial.refused().empty();
    });
  });
  open_.resize(spaces_.size());
  for (std::size_t space = 0; space < spaces_.size(); ++space) {
    const auto size = static_cast<std::int64_t>(spaces_[space].size());
    result_.counts.combinations += spaces_[space].combinations();
    result_.counts.refused += spaces_[space].combinations() - size;
    const std::size_t kernels = spaces_[space].count(SearchEffect::kernels);
    for (std::size_t begin = 0; begin < spaces_[space].size();) {
      const std::size_t end = spaces_[space].end_of_group(begin, kernels);
      add({.stage = Node::Stage::same_kernels, .space = space, .begin = begin, .end = end});
      begin = end;
    }
  }
}

double PlanSearch::limit() const {
  const auto top = static_cast<std::size_t>(options_.top);
  return options_.exhaustive || best_.size() < top ? no_limit : best_[top - 1];
}

// Of each framework the lowest bound, so that there soon is something to beat, whichever wins; then the lowest of all.
std::vector<Node> PlanSearch::next_batch() {
  std::vector<Node> batch;
  const double limit = this->limit();
  const auto take_first = [&](std::set<Node>& nodes) {
    if (nodes.empty() || nodes.begin()->bound > limit) return false;
    batch.push_back(*nodes.begin());
    nodes.erase(nodes.begin());
    return true;
  };
  for (OpenNodes& nodes : open_) {
    take_first(nodes.fitting);
    take_first(nodes.others);
  }
  while (batch.size() < batch_size) {
    std::set<Node>* lowest = nullptr;
    for (OpenNodes& nodes : open_)
      for (std::set<Node>* of : {&nodes.fitting, &nodes.others})
        if (!of->empty() && (lowest == nullptr || *of->begin() < *lowest->begin())) lowest = of;
    if (lowest == nullptr || !take_first(*lowest)) break;
  }
  return batch;
}

void PlanSearch::look() {
  while (!stopped()) {
    const std::vector<Node> batch = next_batch();
    if (batch.empty()) return;
    std::vector<std::optional<Finding>> findings(batch.size());
    tbb::parallel_for(
        std::size_t{0}, batch.size(),
        [&](std::size_t i) {
          if (!stopped()) findings[i] = look_at(batch[i]);
        },
        tbb::simple_partitioner{});
    for (std::size_t i = 0; i < batch.size(); ++i) {
      if (findings[i])
        take(batch[i], *std::move(findings[i]));
      else
        add(batch[i]);
    }
    report();
  }
}

Finding PlanSearch::look_at(const Node& node) {
  const sim::ThrowBrokenInvariants instead_of_ending;
  SearchTrial& trial = this->trial(node.space);
  switch (node.stage) {
    case Node::Stage::same_kernels:
      return look_at_kernels(node, trial);
    case Node::Stage::same_schedule:
      return look_at_schedule(node, trial);
    case Node::Stage::way:
      return look_at_way(node, trial);
    case Node::Stage::fitting_way:
      break;
  }
  trial.set(spaces_[node.space].way(node.begin));
  const Result result = trial.simulate();
  Candidate candidate{.keys = {{"strategy.framework", '"' + frameworks_[node.space] + '"'}},
                      .step_time_s = result.step_time_s,
                      .cost_per_step = {},
                      .energy_kwh_per_step = {},
                      .peak_bytes = result.memory.peak};
  for (Parameter& parameter : spaces_[node.space].parameters(spaces_[node.space].way(node.begin)))
    candidate.keys.push_back(std::move(parameter));
  if (result.cost.paid) candidate.cost_per_step = result.cost.paid->per_step;
  if (result.cost.energy) candidate.energy_kwh_per_step = result.cost.energy->kwh_per_step;
  return {.bound = node.bound, .simulated = std::move(candidate)};
}

// The kernels of all passes, divided evenly over the devices: as they are without a schedule, on a batch that every
// division of the devices can share, and scaled.
Finding PlanSearch::look_at_kernels(const Node& node, SearchTrial& trial) const {
  const SearchSpace& space = spaces_[node.space];
  Choices choices = space.way(node.begin);
  std::fill(choices.begin() + static_cast<std::ptrdiff_t>(space.count(SearchEffect::kernels)), choices.end(), 0);
  trial.set(space.consistent(std::move(choices)));
  const auto batch = static_cast<double>(trial.global_batch());
  trial.take_divisible_batch();
  if (node.end == node.begin + 1 || !trial.refused().empty()) return {.bound = node.bound};
  Work work{.kernels = sim::mean_kernel_time(trial.plan().plan, sim::StepPart::passes)};
  for (double& each : work.kernels) each *= batch / static_cast<double>(trial.global_batch());
  for (const double each : work.kernels) work.seconds += each;
  return {.bound = least_objective(options_.objective, trial.scenario(), work)};
}

Finding PlanSearch::look_at_schedule(const Node& node, SearchTrial& trial) const {
  const SearchSpace& space = spaces_[node.space];
  Choices choices = space.way(node.begin);
  std::fill(choices.begin() + static_cast<std::ptrdiff_t>(space.count(SearchEffect::schedule)), choices.end(), 0);
  trial.set(space.consistent(std::move(choices)));
  if (node.end == node.begin + 1 || !trial.refused().empty()) return {.bound = node.bound};
  if (!activations_fit(trial.plan(true), smallest_memory(trial.scenario())))
    return {.bound = node.bound, .fits = false};
  const strategies::PlannedStep step = trial.plan();
  const Work work{.seconds = sim::to_seconds(sim::least_step_time(step.plan, sim::StepPart::passes)),
                  .kernels = sim::mean_kernel_time(step.plan, sim::StepPart::passes)};
  return {.bound = least_objective(options_.objective, trial.scenario(), work)};
}

Finding PlanSearch::look_at_way(const Node& node, SearchTrial& trial) const {
  trial.set(spaces_[node.space].way(node.begin));
  if (!memory_of(trial.plan(true), smallest_memory(trial.scenario())).fits) return {.fits = false};
  const strategies::PlannedStep step = trial.plan();
  const Work work{.seconds = sim::to_seconds(sim::least_step_time(step.plan)),
                  .kernels = sim::mean_kernel_time(step.plan)};
  return {.bound = least_objective(options_.objective, trial.scenario(), work)};
}

void PlanSearch::take(const Node& node, Finding finding) {
  const SearchSpace& space = spaces_[node.space];
  const double bound = std::max(node.bound, finding.bound);
  const bool too_large = node.too_large || !finding.fits;
  const auto divide = [&](std::size_t keys, Node::Stage stage) {
    for (std::size_t begin = node.begin; begin < node.end;) {
      const std::size_t end = std::min(node.end, space.end_of_group(begin, keys));
      add({.bound = bound, .stage = stage, .space = node.space, .begin = begin, .end = end, .too_large = too_large});
      begin = end;
    }
  };
  switch (node.stage) {
    case Node::Stage::same_kernels:
      return divide(space.count(SearchEffect::schedule), Node::Stage::same_schedule);
    case Node::Stage::same_schedule:
      if (too_large && !options_.exhaustive) {
        result_.counts.too_large += static_cast<std::int64_t>(node.end - node.begin);
        return;
      }
      return divide(space.keys().size(), Node::Stage::way);
    case Node::Stage::way:
      sim::ensure(!(finding.fits && node.too_large), "a plan needs as much for backward passes as those beside it");
      if (finding.fits)
        add({.bound = bound,
             .stage = Node::Stage::fitting_way,
             .space = node.space,
             .begin = node.begin,
             .end = node.end});
      else
        ++result_.counts.too_large;
      return;
    case Node::Stage::fitting_way:
      break;
  }
  ++result_.counts.simulated;
  const std::optional<double> reached = objective_of(options_.objective, *finding.simulated);
  if (!reached)
    throw ScenarioError(root_.where, options_.objective == Objective::cost
                                         ? "no price is known for " + base_->node.name + ": give 'cost: {price: {...}}'"
                                         : "the power of " + base_->accelerator.name +
                                               " is not known: search for the step time or cost");
  sim::ensure(*reached >= bound * (1 - 1e-9), "a bound of a search is no higher than what it bounds");
  best_.insert(std::ranges::upper_bound(best_, *reached), *reached);
  if (best_.front() == *reached &&
      (!first_ || *objective_of(options_.objective, result_.candidates[*first_]) > *reached))
    first_ = result_.candidates.size();
  result_.candidates.push_back(*std::move(finding.simulated));
  places_.push_back({node.space, node.begin});
}

void PlanSearch::report() {
  if (!options_.progress) return;
  SearchProgress progress{.counts = result_.counts,
                          .of = result_.counts.combinations - result_.counts.refused,
                          .elapsed_s = watch_.total()};
  const double limit = this->limit();
  for (const OpenNodes& open : open_)
    for (const std::set<Node>* nodes : {&open.fitting, &open.others})
      for (auto node = nodes->upper_bound({.bound = limit, .stage = Node::Stage::fitting_way, .space = spaces_.size()});
           node != nodes->end(); ++node)
        progress.counts.slower += static_cast<std::int64_t>(node->end - node->begin);
  if (first_) progress.best = result_.candidates[*first_];
  options_.progress(progress);
}

// What is still open cannot win, unless the search was stopped.
void PlanSearch::finish() {
  const double limit = this->limit();
  for (const OpenNodes& open : open_)
    for (const std::set<Node>* nodes : {&open.fitting, &open.others})
      for (const Node& node : *nodes)
        (node.bound > limit ? result_.counts.slower : result_.counts.left) +=
            static_cast<std::int64_t>(node.end - node.begin);
  result_.stopped = result_.counts.left > 0;
  std::vector<std::size_t> order(result_.candidates.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::sort(order, {}, [&](std::size_t i) {
    return std::tuple{*objective_of(options_.objective, result_.candidates[i]), places_[i].space, places_[i].way};
  });
  std::vector<Candidate> candidates;
  std::vector<Place> places;
  for (const std::size_t i : order) {
    candidates.push_back(std::move(result_.candidates[i]));
    places.push_back(places_[i]);
  }
  result_.candidates = std::move(candidates);
  places_ = std::move(places);
}

Result PlanSearch::in_full(const Place& place) const {
  const SearchSpace& space = spaces_[place.space];
  return simulate(read_scenario(space.scenario(space.way(place.way)), catalog_)).result;
}

void PlanSearch::propose() {
  result_.plans.resize(std::min(result_.candidates.size(), static_cast<std::size_t>(options_.top)));
  tbb::parallel_for(std::size_t{0}, result_.plans.size(), [&](std::size_t i) {
    const SearchSpace& space = spaces_[places_[i].space];
    const Value scenario = space.scenario(space.way(places_[i].way));
    result_.plans[i] = {.keys = result_.candidates[i].keys,
                        .result = in_full(places_[i]),
                        .strategy = json_of(*scenario.find("strategy")).dump(),
                        .training = json_of(*scenario.find("training")).dump()};
    sim::ensure(result_.plans[i].result.step_time_s == result_.candidates[i].step_time_s,
                "a plan takes as long when it is run as when it was found");
  });
}

// Nothing else is as good in all of time, memory, cost and energy, and better in one.
void PlanSearch::find_front() {
  const auto figures = [](const Candidate& candidate) {
    return std::array<double, 4>{candidate.step_time_s, static_cast<double>(candidate.peak_bytes),
                                 candidate.cost_per_step.value_or(0), candidate.energy_kwh_per_step.value_or(0)};
  };
  const auto beats = [&](const Candidate& one, const Candidate& other) {
    const auto a = figures(one);
    const auto b = figures(other);
    bool better = false;
    for (std::size_t i = 0; i < a.size(); ++i) {
      if (a.at(i) > b.at(i)) return false;
      better = better || a.at(i) < b.at(i);
    }
    return better;
  };
  for (std::size_t i = 0; i < result_.candidates.size(); ++i)
    if (std::ranges::none_of(result_.candidates,
                             [&](const Candidate& other) { return beats(other, result_.candidates[i]); }))
      result_.front.push_back(i);
}

Neighbour PlanSearch::neighbour_of(const Result& best, const Choices& choices, Parameter change) {
  Neighbour neighbour;
  neighbour.change = std::move(change);
  SearchTrial& trial = this->trial(places_.front().space);
  trial.set(choices);
  neighbour.refused = trial.refused();
  if (!neighbour.refused.empty()) return neighbour;
  const Result result = trial.simulate();
  neighbour.fits = result.memory.fits;
  neighbour.peak_bytes = result.memory.peak;
  neighbour.step_time_s = result.step_time_s;
  neighbour.difference = waterfall(best, result);
  return neighbour;
}

// Of another framework, the best that was simulated; where all of its plans were cut off, how good they can be at best.
Neighbour PlanSearch::framework_neighbour(const Result& best, std::size_t space) {
  Neighbour neighbour;
  neighbour.change = {"strategy.framework", '"' + frameworks_[space] + '"'};
  for (std::size_t i = 0; i < places_.size(); ++i) {
    if (places_[i].space != space) continue;
    const Result result = in_full(places_[i]);
    neighbour.fits = true;
    neighbour.peak_bytes = result.memory.peak;
    neighbour.step_time_s = result.step_time_s;
    neighbour.difference = waterfall(best, result);
    return neighbour;
  }
  double bound = no_limit;
  for (const std::set<Node>* nodes : {&open_[space].fitting, &open_[space].others})
    if (!nodes->empty()) bound = std::min(bound, nodes->begin()->bound);
  const double reached = *objective_of(options_.objective, result_.candidates.front());
  if (bound == no_limit) {
    neighbour.refused = spaces_[space].size() == 0 ? "runs none of the combinations" : "no plan fits in memory";
  } else {
    char text[96];
    std::snprintf(text, sizeof text, "no plan that could fit is less than %.1f %% above the best",
                  100 * (bound / reached - 1));
    neighbour.refused = text;
  }
  return neighbour;
}

void PlanSearch::visit_neighbours() {
  const Place& place = places_.front();
  const SearchSpace& space = spaces_[place.space];
  const Choices best = space.way(place.way);
  std::vector<std::pair<Choices, Parameter>> changes;
  for (std::size_t key = 0; key < space.keys().size(); ++key) {
    if (best[key] == left_out) continue;
    for (std::uint8_t value = 0; value < space.keys()[key].values.size(); ++value) {
      if (value == best[key]) continue;
      Choices choices = best;
      choices[key] = value;
      changes.emplace_back(space.consistent(std::move(choices)),
                           Parameter{space.keys()[key].path, text_of(space.keys()[key].values[value])});
    }
  }
  std::vector<std::size_t> others;
  for (std::size_t other = 0; other < spaces_.size(); ++other)
    if (other != place.space) others.push_back(other);
  result_.neighbours.resize(others.size() + changes.size());
  const Result& reference = result_.plans.front().result;
  tbb::parallel_for(
      std::size_t{0}, result_.neighbours.size(),
      [&](std::size_t i) {
        if (stopped()) return;
        result_.neighbours[i] = i < others.size() ? framework_neighbour(reference, others[i])
                                                  : neighbour_of(reference, changes[i - others.size()].first,
                                                                 changes[i - others.size()].second);
      },
      tbb::simple_partitioner{});
  std::erase_if(result_.neighbours, [](const Neighbour& neighbour) { return neighbour.change.path.empty(); });
}

void PlanSearch::nothing_fits() const {
  if (result_.stopped) throw ScenarioError({.file = root_.where.file}, "stopped before any plan was simulated");
  if (result_.counts.combinations == result_.counts.refused) {
    SearchTrial trial(spaces_.front(), catalog_);
    trial.set(spaces_.front().consistent(Choices(std::max<std::size_t>(1, spaces_.front().keys().size()), 0)));
    const std::string why = trial.refused();
    throw ScenarioError({.file = root_.where.file}, "none of " + std::to_string(result_.counts.combinations) +
                                                        " combinations can run under " + frameworks_.front() +
                                                        (why.empty() ? "" : "; the plainest: " + why));
  }
  throw ScenarioError({.file = root_.where.file},
                      "none of " + std::to_string(result_.counts.too_large) +
                          " plans fits in memory; give more devices, a smaller sequence, or open more keys ('auto')");
}

SearchResult PlanSearch::run() {
  const tbb::global_control threads(tbb::global_control::max_allowed_parallelism,
                                    static_cast<std::size_t>(options_.jobs));
  result_.scenario = base_->name;
  result_.currency = base_->cost.currency;
  result_.capacity_bytes = smallest_memory(*base_).count;
  result_.frameworks = frameworks_;
  for (const SearchSpace& space : spaces_)
    for (const SearchSpace::OpenKey& key : space.keys()) {
      auto known = std::ranges::find(result_.searched, key.path, &SearchedKey::path);
      if (known == result_.searched.end())
        known = result_.searched.insert(result_.searched.end(), {.path = key.path, .values = {}});
      for (const Value& value : key.values)
        if (const std::string text = value.is_null() ? "default" : value.scalar;
            std::ranges::find(known->values, text) == known->values.end())
          known->values.push_back(text);
    }
  enumerate();
  look();
  finish();
  if (result_.candidates.empty()) nothing_fits();
  result_.search_s = watch_.total();
  propose();
  find_front();
  visit_neighbours();
  result_.wall_s = watch_.total();
  return std::move(result_);
}

}  // namespace

SearchResult search_plans(const std::filesystem::path& scenario, const Catalog& catalog, const LoadOptions& load,
                          const SearchOptions& options) {
  return search_plans(read_document(scenario, load.overrides), catalog, options);
}

SearchResult search_plans(const Value& scenario, const Catalog& catalog, const SearchOptions& options) {
  return PlanSearch(scenario, catalog, options).run();
}

}  // namespace trainyard::scenarios
