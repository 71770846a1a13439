// The critical path of a step as people read it.
#pragma once

#include <string>

#include "scenarios/simulate.hpp"
#include "sim/critical_path.hpp"
#include "sim/plan.hpp"

namespace trainyard::scenarios {

// "qkv projection", "all_reduce tensor", "kernels beside all_gather data", "launching kernels".
std::string name_of(const sim::Plan& plan, const sim::PathSegment& segment);

CriticalPath critical_path_of(const sim::Plan& plan, const sim::CriticalPath& path);

}  // namespace trainyard::scenarios
