// How a sweep scales: what each point loses against its baseline, why, and where adding devices stops paying.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/simulate.hpp"
#include "scenarios/sweep.hpp"

namespace trainyard::scenarios {

// What device time is lost to. `kernels`: the same work in smaller or more kernels; the rest as in Breakdown.
constexpr std::array<std::string_view, 10> loss_causes{"kernels", "data",    "tensor", "pipeline", "context",
                                                       "expert",  "offload", "bubble", "host",     "straggler"};
using LossByCause = std::array<double, loss_causes.size()>;

// Of a result, what the analysis needs.
struct ScalingSample {
  std::size_t position = 0;  // of the point
  double devices = 0;
  double step_time_s = 0;
  double samples_per_s = 0;
  double work_per_s = 0;  // tokens, or samples of models without tokens
  bool has_tokens = true;
  Breakdown breakdown_s{};
};

struct PointScaling {
  std::size_t position = 0;
  std::size_t baseline = 0;  // position of the point it is measured against
  double efficiency = 1;     // throughput per device over that of the baseline
  double loss = 0;           // 1 - efficiency
  // Adds up to the loss: of the device time that this point needs for a token beyond what the baseline needs, over all
  // that it needs. Negative where the point is better.
  LossByCause by_cause{};
};

enum class ScalingKind : std::uint8_t {
  single,  // one point
  strong,  // the same batch on more devices
  weak,    // the same batch per device
  mixed
};
constexpr std::array<std::string_view, 4> scaling_kinds{"single", "strong", "weak", "mixed"};

// Device time per token over the baseline's, minus one, as `slope` x: a least-squares line through the baseline, or,
// where that is of another series, through the fewest devices of this one. In
// strong scaling x is devices / baseline devices - 1, and the slope Amdahl's serial fraction (AFIPS 1967): step time =
// (1 - slope) / n + slope. Otherwise x is the number of doublings, log2(devices / baseline devices).
struct ScalingFit {
  double slope = 0;
  double communication_slope = 0;  // of this, by waiting for communication
  double r_squared = 0;            // of `slope`: 1 - residual / total sum of squares
};

struct SeriesScaling {
  std::string name;
  std::vector<Parameter> parameters;
  ScalingKind kind = ScalingKind::single;
  std::vector<PointScaling> points = {};  // of those that were simulated, from few to many devices
  // The most devices of which the last ones still brought half of what the baseline's bring: throughput gained per
  // device gained, over throughput per device of the baseline, is at least 1/2 up to here. Absent: it always is.
  std::optional<std::size_t> knee = std::nullopt;  // position
  std::optional<ScalingFit> fit = std::nullopt;    // from three sizes on
};

// Series in the order of their first points. Samples of points without a baseline that was simulated are left out.
std::vector<SeriesScaling> analyse_scaling(const Sweep& sweep, std::span<const ScalingSample> samples);

}  // namespace trainyard::scenarios
