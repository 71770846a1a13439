// A batch of requests answered by a model: passes over the prompts, then one pass for every further token, each of them
// simulated like a step of training.
#pragma once

#include <string>

#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {

// Of a scenario with an `inference` section. In the result a step is the whole batch from its prompts to its last
// tokens, `breakdown_s` and the rates are those of that time, and tokens are the generated ones.
Result simulate_inference(const Scenario& scenario, const SimulateOptions& options);

// `cost`: lines on what it costs, to stand among the figures.
std::string inference_summary(const Scenario& scenario, const Result& result, const std::string& cost);

}  // namespace trainyard::scenarios
