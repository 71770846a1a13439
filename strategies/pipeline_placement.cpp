#include "strategies/pipeline_placement.hpp"

#include "sim/ensure.hpp"

namespace trainyard::strategies {

PipelinePlacement::PipelinePlacement(ScheduleKind kind, std::int64_t stages, std::int64_t chunks)
    : kind_(kind), stages_(stages), chunks_(chunks) {
  sim::ensure(!has_way_back() || chunks == 2, "one chunk goes there, one comes back");
}

std::int64_t PipelinePlacement::position(std::int64_t stage, std::int64_t chunk) const {
  if (goes_back(chunk)) return positions() - 1 - stage;
  return chunk * stages_ + stage;
}

std::vector<std::int64_t> PipelinePlacement::chunk_order(std::int64_t stage) const {
  std::vector<std::int64_t> order;
  for (std::int64_t chunk = 0; chunk < chunks_; ++chunk) order.push_back(chunk);
  if (copies() == 2 && stage >= stages_ / 2) return {1, 0};
  return order;
}

std::vector<std::int64_t> spread_layers(std::int64_t layers, std::int64_t positions) {
  std::vector<std::int64_t> result(static_cast<std::size_t>(positions), layers / positions);
  std::int64_t rest = layers % positions;
  for (std::size_t i = 1; i + 1 < result.size() && rest > 0; ++i, --rest) ++result[i];
  if (rest > 0 && result.size() > 1) {
    ++result.back();
    --rest;
  }
  if (rest > 0) ++result.front();
  return result;
}

std::vector<std::int64_t> spread_layers(std::int64_t layers, std::int64_t positions, const CountedParts& counted) {
  if (counted.count() == 0) return spread_layers(layers, positions);
  const std::int64_t total = layers + counted.count();
  sim::ensure(total % positions == 0, "what counts as a layer divides evenly");
  std::vector<std::int64_t> result(static_cast<std::size_t>(positions), total / positions);
  result.front() -= counted.embedding ? 1 : 0;
  result.back() -= counted.head ? 1 : 0;
  return result;
}

std::vector<std::int64_t> spread_between(const EndLayers& ends, std::int64_t layers, std::int64_t stages,
                                         std::int64_t chunks) {
  const std::int64_t middle = stages - ends.stages();
  const std::int64_t each = middle == 0 ? 0 : (layers - ends.sum()) / middle;
  sim::ensure(ends.sum() + middle * each == layers, "the stages between the ends share what is left evenly");
  std::vector<std::int64_t> result;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    for (std::int64_t stage = 0; stage < stages; ++stage) {
      const std::int64_t of_stage = stage == 0            ? ends.first.value_or(each)
                                    : stage + 1 == stages ? ends.last.value_or(each)
                                                          : each;
      sim::ensure(of_stage % chunks == 0, "the chunks of a stage are alike");
      result.push_back(of_stage / chunks);
    }
  }
  return result;
}

}  // namespace trainyard::strategies
