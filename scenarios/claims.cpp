#include "scenarios/claims.hpp"

#include <tbb/blocked_range.h>
#include <tbb/global_control.h>
#include <tbb/parallel_for.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <new>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/claim.hpp"
#include "scenarios/internal/embedded.hpp"
#include "scenarios/internal/scenario_hash.hpp"
#include "scenarios/scenario.hpp"
#include "scenarios/simulate.hpp"
#include "sim/broken_invariant.hpp"

namespace trainyard::scenarios {
namespace {

// Shares that are closer than this do not differ, whatever their ratio.
constexpr double least_difference_of_shares = 0.02;

Value read_embedded(const std::string& path) {
  for (const EmbeddedFile& file : embedded_files())
    if (file.path == path) return parse_yaml(file.text, path);
  throw ScenarioError({.file = path}, "no such file among those that ship with Trainyard");
}
Value read_from_disk(const std::string& path) { return read_document(path); }

void require_different_ids(const std::vector<Claim>& claims) {
  std::map<std::string_view, const Claim*> seen;
  std::vector<Diagnostic> mistakes;
  for (const Claim& claim : claims) {
    const auto [first, is_new] = seen.emplace(claim.id, &claim);
    if (!is_new)
      mistakes.push_back({claim.where, "id: '" + claim.id + "' is that of " + first->second->where.file + " too"});
  }
  if (!mistakes.empty()) throw ScenarioError(std::move(mistakes));
}

// Reads each, and reports the mistakes of all of them together.
template <class Items, class Read>
std::vector<Claim> read_all(const Items& items, Read read) {
  std::vector<Claim> claims;
  std::vector<Diagnostic> mistakes;
  for (const auto& item : items) {
    try {
      claims.push_back(read(item));
    } catch (const ScenarioError& error) {
      mistakes.insert(mistakes.end(), error.diagnostics().begin(), error.diagnostics().end());
    }
  }
  if (!mistakes.empty()) throw ScenarioError(std::move(mistakes));
  require_different_ids(claims);
  return claims;
}

using FieldValues = std::map<std::string, ExpressionValue, std::less<>>;

struct SimulatedPoint {
  FieldValues fields;
  std::string model;
  std::string framework;
  std::string accelerator;
  double devices = 0;
  std::string failed;
  std::vector<Diagnostic> mistakes;
};

void add_fields(const nlohmann::json& json, const std::string& path, FieldValues& fields) {
  if (json.is_number()) fields[path] = json.get<double>();
  if (json.is_boolean()) fields[path] = json.get<bool>();
  if (json.is_string()) fields[path] = json.get<std::string>();
  if (!json.is_object()) return;
  for (const auto& [name, value] : json.items()) add_fields(value, path.empty() ? name : path + "." + name, fields);
}

void add_communication(const Result& result, FieldValues& fields) {
  std::map<sim::Purpose, CommunicationSummary> sums;
  for (std::size_t i = 0; i < sim::purposes; ++i) sums[static_cast<sim::Purpose>(i)] = {};
  for (const CommunicationSummary& row : result.communication) {
    CommunicationSummary& sum = sums[row.purpose];
    sum.count += row.count;
    sum.bytes += row.bytes;
    sum.wire_bytes += row.wire_bytes;
    sum.busy_s += row.busy_s;
    sum.exposed_s += row.exposed_s;
  }
  for (const auto& [purpose, sum] : sums) {
    const std::string path = "communication." + std::string{sim::to_string(purpose)} + ".";
    fields[path + "count"] = sum.count;
    fields[path + "bytes"] = sum.bytes;
    fields[path + "wire_bytes"] = sum.wire_bytes;
    fields[path + "busy_s"] = sum.busy_s;
    fields[path + "exposed_s"] = sum.exposed_s;
  }
}

SimulatedPoint simulated(const Value& root, const Catalog& catalog) {
  SimulatedPoint point;
  const sim::ThrowBrokenInvariants instead_of_ending;  // one claim must not end the others
  try {
    const Scenario scenario = read_scenario(root, catalog);
    point.model = scenario.model.name;
    point.framework = scenario.framework;
    point.accelerator = scenario.accelerator.name;
    point.devices = static_cast<double>(scenario.devices);
    const Result result = simulate(scenario).result;
    add_fields(nlohmann::json::parse(to_json(result)), "", point.fields);
    add_communication(result, point.fields);
  } catch (const ScenarioError& error) {
    point.mistakes = error.diagnostics();
  } catch (const std::bad_alloc&) {
    point.failed = "out of memory";
  } catch (const std::exception& error) {
    point.failed = std::string{"internal error: "} + error.what();
  }
  return point;
}

// All simulations that claims need, each once.
class Simulations {
 public:
  Simulations(const std::vector<Claim>& claims, const Catalog& catalog) : catalog_(catalog) {
    ScenarioHash hash(catalog, "");
    for (const Claim& claim : claims)
      for (const ClaimRun& run : claim.runs)
        for (const ClaimPoint& point : run.points) add(run, point, hash);
  }

  void run(const TestClaimsOptions& options) {
    const tbb::global_control threads(tbb::global_control::max_allowed_parallelism,
                                      static_cast<std::size_t>(options.jobs));
    std::mutex progress_mutex;
    std::size_t finished = 0;
    results_.resize(scenarios_.size());
    tbb::parallel_for(
        tbb::blocked_range<std::size_t>(0, scenarios_.size(), 1),
        [&](const tbb::blocked_range<std::size_t>& range) {
          for (std::size_t i = range.begin(); i < range.end(); ++i) {
            results_[i] = simulated(scenarios_[i].point->scenario, catalog_);
            if (!options.progress) continue;
            const std::lock_guard lock(progress_mutex);
            options.progress(++finished, scenarios_.size());
          }
        },
        tbb::simple_partitioner{});
    throw_mistakes();
  }

  std::size_t size() const { return scenarios_.size(); }
  const SimulatedPoint& of(const ClaimPoint& point) const { return results_[places_.at(&point)]; }

 private:
  struct Needed {
    const ClaimRun* run;  // the first that needs it
    const ClaimPoint* point;
  };

  void add(const ClaimRun& run, const ClaimPoint& point, ScenarioHash& hash) {
    Value unnamed = point.scenario;
    remove(unnamed, "name");
    const auto [place, is_new] = by_hash_.emplace(hash.of(unnamed), scenarios_.size());
    if (is_new) scenarios_.push_back({.run = &run, .point = &point});
    places_[&point] = place->second;
  }
  void throw_mistakes() const {
    std::vector<Diagnostic> mistakes;
    for (std::size_t i = 0; i < results_.size(); ++i)
      for (const Diagnostic& mistake : results_[i].mistakes) mistakes.push_back(located(mistake, *scenarios_[i].run));
    if (!mistakes.empty()) throw ScenarioError(std::move(mistakes));
  }

  // A mistake in the base, which may be one only with what the run sets, is the run's.
  static Diagnostic located(const Diagnostic& mistake, const ClaimRun& run) {
    if (mistake.where.file == run.where.file) return mistake;
    return {.where = run.where, .message = "simulate." + run.name + ": " + to_string(mistake)};
  }

  const Catalog& catalog_;
  std::vector<Needed> scenarios_;
  std::vector<SimulatedPoint> results_;
  std::map<std::string, std::size_t> by_hash_;
  std::map<const ClaimPoint*, std::size_t> places_;
};

// One claim: what its names stand for, and what follows.
class Decision {
 public:
  Decision(const Claim& claim, const Simulations& simulations) : claim_(claim), simulations_(simulations) {}

  ClaimResult result() {
    ClaimResult result{.id = claim_.id,
                       .title = claim_.title,
                       .claim = claim_.claim,
                       .section = claim_.section,
                       .decides = claim_.decides,
                       .note = claim_.note,
                       .runs = {},
                       .numbers = {},
                       .verdict = {},
                       .because = {},
                       .failed = {}};
    for (const ClaimRun& run : claim_.runs) add_run(run, result);
    if (!result.failed.empty()) return result;
    try {
      for (const ClaimNumber& number : claim_.numbers) result.numbers.push_back(worked_out(number));
      decide(result);
    } catch (const ScenarioError& error) {
      result.failed = error.what();
    }
    return result;
  }

 private:
  using Chosen = std::map<std::string, const ClaimPoint*, std::less<>>;  // the point that a run's name stands for

  void add_run(const ClaimRun& run, ClaimResult& result) {
    std::set<std::string> kinds;
    std::size_t do_not_fit = 0;
    double least = simulations_.of(run.points.front()).devices;
    double most = least;
    for (const ClaimPoint& point : run.points) {
      const SimulatedPoint& simulated = simulations_.of(point);
      kinds.insert(simulated.model + ", " + (simulated.framework.empty() ? "" : simulated.framework + ", "));
      least = std::min(least, simulated.devices);
      most = std::max(most, simulated.devices);
      const auto fits = simulated.fields.find("memory.fits");
      if (fits != simulated.fields.end() && fits->second == ExpressionValue{false}) ++do_not_fit;
      if (!simulated.failed.empty() && result.failed.empty()) result.failed = run.name + ": " + simulated.failed;
    }
    const std::string devices = figure_text(least, "") + (least == most ? "" : " to " + figure_text(most, ""));
    result.runs.push_back({.name = run.name,
                           .points = run.points.size(),
                           .what = (kinds.size() == 1 ? *kinds.begin() : std::to_string(kinds.size()) + " kinds, ") +
                                   devices + " x " + simulations_.of(run.points.front()).accelerator,
                           .do_not_fit = do_not_fit});
    if (!run.list) chosen_[run.name] = &run.points.front();
  }

  Expression::Scope scope_of(const Chosen& chosen) const {
    return {.value = [this, chosen](std::string_view path) { return value_at(path, chosen); },
            .points = [this, chosen](std::string_view list) { return points_of(list, chosen); }};
  }
  std::vector<Expression::Scope> points_of(std::string_view list, const Chosen& chosen) const {
    const auto run = std::ranges::find(claim_.runs, list, &ClaimRun::name);
    std::vector<Expression::Scope> scopes;
    for (const ClaimPoint& point : run->points) {
      Chosen with_point = chosen;
      with_point[run->name] = &point;
      scopes.push_back(scope_of(with_point));
    }
    return scopes;
  }
  std::optional<ExpressionValue> value_at(std::string_view path, const Chosen& chosen) const {
    if (const auto number = numbers_.find(path); number != numbers_.end()) {
      if (!number->second) return std::nullopt;
      return *number->second;
    }
    const std::size_t dot = path.find('.');
    const auto run = chosen.find(path.substr(0, dot));
    if (run == chosen.end() || dot == std::string_view::npos) return std::nullopt;
    const ClaimPoint& point = *run->second;
    const std::string_view field = path.substr(dot + 1);
    if (const auto variable = point.variables.find(field); variable != point.variables.end()) return variable->second;
    const FieldValues& fields = simulations_.of(point).fields;
    const auto found = fields.find(field);
    return found == fields.end() ? std::nullopt : std::optional{found->second};
  }

  ClaimNumberResult worked_out(const ClaimNumber& number) {
    std::optional<double> value = number.value.number(scope_of(chosen_));
    if (value && !std::isfinite(*value)) value.reset();
    numbers_[number.name] = value;
    ClaimNumberResult result{.name = number.name,
                             .what = number.what,
                             .unit = number.unit,
                             .value = value,
                             .estimate = {},
                             .note = number.note};
    if (number.expected_least) result.estimate = compared(number, value);
    return result;
  }
  static ClaimEstimate compared(const ClaimNumber& number, const std::optional<double>& value) {
    ClaimEstimate estimate{.least = *number.expected_least,
                           .most = *number.expected_most,
                           .difference = 0,
                           .differs = !value,
                           .source = number.source};
    if (!value || (*value >= estimate.least && *value <= estimate.most)) return estimate;
    const double nearer = *value < estimate.least ? estimate.least : estimate.most;
    estimate.difference = nearer == 0 ? std::copysign(1.0, *value) : (*value - nearer) / std::abs(nearer);
    const bool close_shares = number.unit == "%" && std::abs(*value - nearer) < least_difference_of_shares;
    estimate.differs = std::abs(estimate.difference) > number.tolerance && !close_shares;
    return estimate;
  }

  void decide(ClaimResult& result) const {
    for (const ClaimRule& rule : claim_.rules) {
      if (rule.when && !rule.when->holds(scope_of(chosen_)).value_or(false)) continue;
      result.verdict = rule.verdict;
      split_braces(
          rule.because, [&](std::string_view text) { result.because += text; },
          [&](std::string_view name) {
            const auto number = std::ranges::find(result.numbers, name, &ClaimNumberResult::name);
            result.because += figure_text(number->value, number->unit);
          });
      return;
    }
  }

  const Claim& claim_;
  const Simulations& simulations_;
  Chosen chosen_;
  std::map<std::string, std::optional<double>, std::less<>> numbers_;
};

}  // namespace

Claims::Claims(std::vector<Claim> claims) : claims_(std::move(claims)) {}
Claims::~Claims() = default;
Claims::Claims(Claims&&) noexcept = default;
Claims& Claims::operator=(Claims&&) noexcept = default;

Claims Claims::built_in() {
  std::vector<const EmbeddedFile*> files;
  constexpr std::string_view folder = "claims/";
  for (const EmbeddedFile& file : embedded_files())
    if (file.path.starts_with(folder) && file.path.find('/', folder.size()) == std::string_view::npos)
      files.push_back(&file);
  return Claims(read_all(files, [](const EmbeddedFile* file) {
    return read_claim(parse_yaml(file->text, std::string{file->path}), read_embedded);
  }));
}

Claims Claims::load(std::span<const std::filesystem::path> files) {
  return Claims(read_all(
      files, [](const std::filesystem::path& file) { return read_claim(read_document(file), read_from_disk); }));
}

ClaimResults test_claims(const Claims& claims, const Catalog& catalog, const TestClaimsOptions& options) {
  Simulations simulations(claims.all(), catalog);
  simulations.run(options);
  ClaimResults results{.claims = {}, .scenarios = simulations.size()};
  for (const Claim& claim : claims.all()) results.claims.push_back(Decision(claim, simulations).result());
  return results;
}

}  // namespace trainyard::scenarios
