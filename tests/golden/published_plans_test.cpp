// The plan that is found for a published run is at least as good as the layout that its authors chose, with what their
// software had: table 1 of Narayanan et al. (arXiv 2104.04473), models of 1.7 to 1,008 billion parameters.
//
// TRAINYARD_PLAN_ROWS sets how many of the table's ten rows are searched (`ctest` takes the first few).
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "scenarios/internal/document.hpp"
#include "scenarios/plan_search.hpp"
#include "scenarios/validation.hpp"

namespace trainyard::scenarios {
namespace {

Value with(Value root, const std::vector<std::string>& settings) {
  apply_overrides(root, settings);
  return root;
}

TEST(PublishedPlans, AreMatchedOrBeaten) {
  const char* text = std::getenv("TRAINYARD_PLAN_ROWS");
  std::size_t rows = text == nullptr ? 4 : static_cast<std::size_t>(std::atoi(text));
  const Catalog catalog;
  SearchOptions options;
  options.top = 1;
  options.jobs = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  for (const Measurement& measurement : built_in_measurements()) {
    if (!measurement.id.starts_with("SC21T1-") || rows == 0) continue;
    --rows;
    SCOPED_TRACE(measurement.id);
    const Value published = scenario_of(measurement);
    const Result theirs = simulate(read_scenario(published, catalog)).result;
    const Value open =
        with(published, {"strategy.tensor=auto", "strategy.pipeline=auto", "strategy.virtual_pipeline=auto",
                         "training.micro_batch=auto", "strategy.context=1", "strategy.overlap_param_gather=false"});
    double best = theirs.step_time_s * 2;
    for (const char* const schedule : {"1f1b", "interleaved"})
      best = std::min(best, search_plans(with(open, {std::string{"strategy.schedule="} + schedule}), catalog, options)
                                .plans.front()
                                .result.step_time_s);
    EXPECT_LE(best, theirs.step_time_s);
  }
  EXPECT_EQ(rows, 0U);
}

}  // namespace
}  // namespace trainyard::scenarios
