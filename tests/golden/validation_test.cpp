// The accuracy that a change must not lose: predictions of the measurements that ship with Trainyard.
#include "scenarios/validation.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace trainyard::scenarios {
namespace {

std::string setting(const Measurement& measurement, std::string_view path) {
  for (const auto& [name, value] : measurement.settings)
    if (name == path) return value;
  return "";
}

class Accuracy : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::vector<Measurement> measurements;
    for (Measurement& measurement : built_in_measurements()) {
      const std::string bytes = setting(measurement, "collective.bytes");
      if (!bytes.empty()) collectives[measurement.id] = std::stoll(bytes);
      const std::string hidden = setting(measurement, "model.hidden");
      if (!hidden.empty() && std::stoll(hidden) <= 1024) narrow.insert(measurement.id);
      // Two to eight devices, of which no node type here has more.
      if (measurement.quality == "strict" && measurement.kind == "dense" && bytes.empty() &&
          setting(measurement, "cluster.nodes") == "1")
        within_a_node.insert(measurement.id);
      // Runs that differ in nothing but the order of their passes.
      if (series_of(measurement.id) == "ZB" && setting(measurement, "model.hidden") != "2304")
        same_but_for_schedule[setting(measurement, "model.hidden") + " " +
                              setting(measurement, "training.global_batch")]
            .push_back(measurement.id);
      measurements.push_back(std::move(measurement));
    }
    validation = validate(measurements, Catalog(), {.jobs = 2});
  }

  // Of times and rates, or of memory, of one series or of all.
  static ErrorSummary summary(bool memory, const std::string& series = "") {
    std::vector<const ValidationRow*> rows;
    for (const ValidationRow& row : validation.rows)
      if (row.field.starts_with("memory.") == memory && (series.empty() || series_of(row.id) == series))
        rows.push_back(&row);
    return summarise(rows);
  }

  // Of times of the runs that it takes.
  template <class Takes>
  static ErrorSummary times_of(Takes takes) {
    std::vector<const ValidationRow*> rows;
    for (const ValidationRow& row : validation.rows)
      if (takes(row) && !row.field.starts_with("memory.")) rows.push_back(&row);
    return summarise(rows);
  }

  // Times of strict dense runs within a node: with layers at most 1024 wide, which hosts rule, or wider.
  static ErrorSummary of_a_node(bool small_layers) {
    return times_of([&](const ValidationRow& row) {
      return within_a_node.contains(row.id) && narrow.contains(row.id) == small_layers;
    });
  }

  // Of messages of 16 MiB and more, or of smaller ones.
  static ErrorSummary of_collectives(bool large) {
    std::vector<const ValidationRow*> rows;
    for (const ValidationRow& row : validation.rows)
      if (const auto bytes = collectives.find(row.id); bytes != collectives.end())
        if ((bytes->second >= (std::int64_t{16} << 20)) == large) rows.push_back(&row);
    return summarise(rows);
  }

  static inline Validation validation;
  static inline std::map<std::string, std::int64_t> collectives;  // bytes, by row
  static inline std::set<std::string> narrow;
  static inline std::map<std::string, std::vector<std::string>> same_but_for_schedule;  // ids
  static inline std::set<std::string> within_a_node;
};

// One test, so that CTest predicts every row once.
TEST_F(Accuracy, StaysWithinItsBounds) {
  for (const ValidationRow& row : validation.rows) EXPECT_EQ(row.failed, "") << row.id << ' ' << row.field;

  const ErrorSummary times = summary(false);
  EXPECT_GE(times.n, 1437);
  EXPECT_LT(times.median_abs_error, 0.065);

  struct Bound {
    std::int64_t least_rows;
    double mean_abs_error;
  };
  // MCI: times of tiny models that a checking mode of the software holds up, kept for their memory; BERTPT: half of its
  // rows were measured on sequences shorter than stated.
  const std::map<std::string, Bound> bounds{
      {"BLOOMT", {55, 0.145}},  {"KORT", {10, 0.038}},    {"MLMR", {1, 0.02}},    {"MPT", {102, 0.055}},
      {"SC21T1", {10, 0.037}},  {"TTAN", {13, 0.125}},    {"VTRM", {48, 0.078}},  {"VTRS", {750, 0.079}},
      {"ZB", {31, 0.051}},      {"DSAZ", {28, 0.135}},    {"RN50", {4, 0.045}},   {"BERTPT", {10, 0.42}},
      {"BERTTF", {16, 0.12}},   {"MCI", {52, 0.65}},      {"MH100W", {9, 0.105}}, {"MH100S", {3, 0.085}},
      {"MEGAW", {2, 0.19}},     {"NBR", {43, 0.165}},     {"NEMOCP", {4, 0.22}},  {"MISC", {1, 0.21}},
      {"MTV5E", {8, 0.045}},    {"MTV5P", {7, 0.061}},    {"TPU7X", {8, 0.21}},   {"NC-A100", {86, 0.068}},
      {"NC-V100", {44, 0.043}}, {"NC-H100", {43, 0.065}}, {"NC-H200", {4, 0.01}}, {"NC-B200", {45, 0.046}}};
  std::int64_t rows = 0;
  for (const auto& [series, bound] : bounds) {
    const ErrorSummary errors = summary(false, series);
    EXPECT_GE(errors.n, bound.least_rows) << series;
    EXPECT_LT(errors.mean_abs_error, bound.mean_abs_error) << series;
    rows += errors.n;
  }
  EXPECT_EQ(rows, times.n) << "a series has no bound";

  const ErrorSummary small_layers = of_a_node(true);
  EXPECT_GE(small_layers.n, 370);
  EXPECT_LT(small_layers.mean_abs_error, 0.078);
  const ErrorSummary large_layers = of_a_node(false);
  EXPECT_GE(large_layers.n, 450);
  EXPECT_LT(large_layers.mean_abs_error, 0.08);
  EXPECT_LT(std::abs(large_layers.mean_error), 0.03);

  // Of series with rows that do not state all that matters, those that do.
  const std::map<std::string, Bound> strict_bounds{
      {"BLOOMT", {53, 0.142}}, {"MPT", {100, 0.05}}, {"TTAN", {7, 0.05}}, {"VTRM", {44, 0.057}}, {"ZB", {22, 0.038}}};
  for (const auto& [series, bound] : strict_bounds) {
    const ErrorSummary errors = times_of(
        [name = series](const ValidationRow& row) { return row.quality == "strict" && series_of(row.id) == name; });
    EXPECT_GE(errors.n, bound.least_rows) << series;
    EXPECT_LT(errors.mean_abs_error, bound.mean_abs_error) << series;
  }

  const ErrorSummary experts =
      times_of([](const ValidationRow& row) { return row.kind == "moe" && series_of(row.id) != "TPU7X"; });
  EXPECT_GE(experts.n, 27);
  EXPECT_LT(experts.mean_abs_error, 0.2);
  EXPECT_LT(experts.median_abs_error, 0.18);

  const ErrorSummary tpus =
      times_of([](const ValidationRow& row) { return row.kind == "tpu" && row.quality == "strict"; });
  EXPECT_EQ(tpus.n, 15);
  EXPECT_LT(tpus.mean_abs_error, 0.052);

  // Slices cost throughput, more of them more: at most so much away from what was measured.
  for (const auto& [first, last] : {std::pair{"MTV5E-002", "MTV5E-010"},
                                    {"MTV5E-010", "MTV5E-018"},
                                    {"MTV5E-002", "MTV5E-018"},
                                    {"MTV5E-004", "MTV5E-020"},
                                    {"MTV5E-005", "MTV5E-021"}}) {
    const auto row_of = [&](std::string_view id) {
      return *std::ranges::find(validation.rows, id, &ValidationRow::id);
    };
    const ValidationRow few = row_of(first);
    const ValidationRow many = row_of(last);
    EXPECT_LT(few.predicted.value_or(0), many.predicted.value_or(0)) << last;
    EXPECT_NEAR(few.predicted.value_or(0) / many.predicted.value_or(1), few.measured / many.measured, 0.04) << last;
  }

  // 1F1B, interleaved, ZB-H1 and ZB-H2 are as fast as measured in comparison; not so at hidden 2304, where the stage of
  // the head, whose vocabulary is not stated, decides.
  std::size_t comparisons = 0;
  for (const auto& [configuration, ids] : same_but_for_schedule) {
    std::map<double, double> predicted;  // by measured time
    for (const ValidationRow& row : validation.rows)
      if (std::ranges::find(ids, row.id) != ids.end() && row.field == "step_time_s")
        predicted[row.measured] = row.predicted.value_or(0);
    for (auto next = predicted.begin(); next != predicted.end(); ++next) {
      if (next == predicted.begin()) continue;
      EXPECT_LT(std::prev(next)->second, next->second) << "hidden and batch " << configuration;
      ++comparisons;
    }
  }
  EXPECT_GE(comparisons, 11U);

  // Collectives, by size: latency decides below 16 MiB, bandwidth above.
  const ErrorSummary small = of_collectives(false);
  EXPECT_GE(small.n, 71);
  EXPECT_LT(small.mean_abs_error, 0.085);
  const ErrorSummary large = of_collectives(true);
  EXPECT_GE(large.n, 151);
  EXPECT_LT(large.mean_abs_error, 0.045);

  const ErrorSummary memory = summary(true);
  EXPECT_GE(memory.n, 105);
  EXPECT_LT(memory.mean_abs_error, 0.067);

  // All of them ran. One is too close to the edge of its devices; three of a trillion parameters and long batches must
  // have kept less than whole inputs of layers (DSAZ).
  const FitSummary fits = fits_of(validation);
  EXPECT_GE(fits.runs, 1215);
  EXPECT_LE(fits.runs - fits.fit, 5);
}

}  // namespace
}  // namespace trainyard::scenarios
