#include "scenarios/scaling.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

namespace trainyard::scenarios {
namespace {

constexpr std::size_t first_exposed = sim::kernel_classes;  // in a breakdown
constexpr std::size_t first_communication = 1;              // in loss_causes
constexpr std::size_t communications = sim::purposes;

// Device seconds per token, by cause.
LossByCause device_time(const ScalingSample& sample) {
  LossByCause time{};
  for (std::size_t i = 0; i < sample.breakdown_s.size(); ++i) {
    const std::size_t cause = i < first_exposed ? 0 : i - first_exposed + first_communication;
    time.at(cause) += sample.breakdown_s.at(i);
  }
  const double work_per_device = sample.work_per_s * sample.step_time_s / sample.devices;
  for (double& seconds : time) seconds /= work_per_device;
  return time;
}

double sum(const LossByCause& parts) {
  double total = 0;
  for (const double part : parts) total += part;
  return total;
}

double throughput_per_device(const ScalingSample& sample) { return sample.work_per_s / sample.devices; }

PointScaling against(const ScalingSample& baseline, const ScalingSample& sample) {
  PointScaling point{.position = sample.position, .baseline = baseline.position};
  point.efficiency = throughput_per_device(sample) / throughput_per_device(baseline);
  point.loss = 1 - point.efficiency;
  const LossByCause before = device_time(baseline);
  const LossByCause now = device_time(sample);
  const double all = sum(now);
  for (std::size_t i = 0; i < now.size(); ++i) point.by_cause.at(i) = (now.at(i) - before.at(i)) / all;
  return point;
}

bool equal(double a, double b) { return std::abs(a - b) <= 1e-9 * std::max(std::abs(a), std::abs(b)); }

ScalingKind kind_of(std::span<const ScalingSample* const> samples) {
  if (samples.size() < 2) return ScalingKind::single;
  const auto batch = [](const ScalingSample* sample) { return sample->samples_per_s * sample->step_time_s; };
  const auto same = [&](auto of) {
    return std::ranges::all_of(samples, [&](const ScalingSample* sample) { return equal(of(sample), of(samples[0])); });
  };
  if (same(batch)) return ScalingKind::strong;
  return same([&](const ScalingSample* sample) { return batch(sample) / sample->devices; }) ? ScalingKind::weak
                                                                                            : ScalingKind::mixed;
}

std::optional<std::size_t> knee_of(std::span<const ScalingSample* const> samples, const ScalingSample& baseline) {
  constexpr double worth_it = 0.5;
  for (std::size_t i = 1; i < samples.size(); ++i) {
    const double more_devices = samples[i]->devices - samples[i - 1]->devices;
    if (samples[i - 1]->devices < baseline.devices || more_devices <= 0) continue;
    const double gained = (samples[i]->work_per_s - samples[i - 1]->work_per_s) / more_devices;
    if (gained < worth_it * throughput_per_device(baseline)) return samples[i - 1]->position;
  }
  return std::nullopt;
}

std::optional<ScalingFit> fit_of(std::span<const ScalingSample* const> samples, const ScalingSample& baseline,
                                 ScalingKind kind) {
  if (samples.size() < 3) return std::nullopt;
  const LossByCause before = device_time(baseline);
  const double all_before = sum(before);
  double xx = 0;
  double xy = 0;
  double x_communication = 0;
  double yy = 0;
  for (const ScalingSample* sample : samples) {
    const double n = sample->devices / baseline.devices;
    const double x = kind == ScalingKind::strong ? n - 1 : std::log2(n);
    const LossByCause now = device_time(*sample);
    const double y = sum(now) / all_before - 1;
    double communication = 0;
    for (std::size_t i = 0; i < communications; ++i)
      communication += now.at(first_communication + i) - before.at(first_communication + i);
    xx += x * x;
    xy += x * y;
    x_communication += x * communication / all_before;
    yy += y * y;
  }
  if (xx == 0) return std::nullopt;
  ScalingFit fit{.slope = xy / xx, .communication_slope = x_communication / xx, .r_squared = 1};
  if (yy > 0) fit.r_squared = 1 - (yy - xy * xy / xx) / yy;
  return fit;
}

// The parameters by which the baseline of a series is found: its own, but those that the sweep's baseline names.
std::string key_of(std::span<const Parameter> series, std::span<const Parameter> replaced_by) {
  std::vector<Parameter> key(series.begin(), series.end());
  for (Parameter& parameter : key)
    for (const Parameter& other : replaced_by)
      if (other.path == parameter.path) parameter.value = other.value;
  return to_json(key);
}

class Analysis {
 public:
  Analysis(const Sweep& sweep, std::span<const ScalingSample> samples) : sweep_(sweep) {
    for (const ScalingSample& sample : samples) {
      const std::string key = key_of(sweep.points()[sample.position].series_parameters, {});
      const auto [place, added] = by_key_.try_emplace(key, series_.size());
      if (added) series_.emplace_back();
      series_[place->second].push_back(&sample);
    }
    for (auto& series : series_) std::ranges::stable_sort(series, {}, &ScalingSample::devices);
  }

  std::vector<SeriesScaling> all() const {
    std::vector<SeriesScaling> result;
    for (const auto& samples : series_)
      if (const ScalingSample* baseline = baseline_of(samples)) result.push_back(analysed(samples, *baseline));
    return result;
  }

 private:
  using Samples = std::vector<const ScalingSample*>;

  const SweepPoint& point_of(const ScalingSample* sample) const { return sweep_.points()[sample->position]; }

  const ScalingSample* baseline_of(const Samples& samples) const {
    const std::string key = key_of(point_of(samples.front()).series_parameters, sweep_.baseline());
    const auto series = by_key_.find(key);
    if (series == by_key_.end()) return nullptr;
    const auto matches = [&](const ScalingSample* sample) {
      return std::ranges::all_of(sweep_.baseline(), [&](const Parameter& wanted) {
        const std::vector<Parameter>& own = point_of(sample).parameters;
        return std::ranges::find(own, wanted) != own.end();
      });
    };
    const Samples& candidates = series_[series->second];
    const auto found = std::ranges::find_if(candidates, matches);
    return found == candidates.end() ? nullptr : *found;
  }

  SeriesScaling analysed(const Samples& samples, const ScalingSample& baseline) const {
    const SweepPoint& any = point_of(samples.front());
    SeriesScaling series{.name = any.series, .parameters = any.series_parameters, .kind = kind_of(samples)};
    for (const ScalingSample* sample : samples) series.points.push_back(against(baseline, *sample));
    series.knee = knee_of(samples, baseline);
    // A line through the baseline is one through a point of the series.
    const bool own = std::ranges::find(samples, &baseline) != samples.end();
    series.fit = fit_of(samples, own ? baseline : *samples.front(), series.kind);
    return series;
  }

  const Sweep& sweep_;
  std::map<std::string, std::size_t> by_key_;
  std::vector<Samples> series_;
};

}  // namespace

std::vector<SeriesScaling> analyse_scaling(const Sweep& sweep, std::span<const ScalingSample> samples) {
  return Analysis(sweep, samples).all();
}

}  // namespace trainyard::scenarios
