// Which part of a model lies on which pipeline stage.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "strategies/pipeline_schedule.hpp"

namespace trainyard::strategies {

// The model is divided into positions, in the order of the forward pass; the chunks of a stage are some of them. Chunk
// by chunk each stage holds the next one, but where a schedule goes in a V the second chunks lie the other way round,
// and where it goes both ways they are those of a second copy of the model. Sources: see pipeline_schedule.hpp.
class PipelinePlacement {
 public:
  PipelinePlacement(ScheduleKind kind, std::int64_t stages, std::int64_t chunks);

  std::int64_t stages() const { return stages_; }
  std::int64_t positions() const { return copies() == 2 ? stages_ : stages_ * chunks_; }
  std::int64_t copies() const { return kind_ == ScheduleKind::dualpipe ? 2 : 1; }  // of the model
  std::int64_t position(std::int64_t stage, std::int64_t chunk) const;
  bool first(std::int64_t stage, std::int64_t chunk) const { return position(stage, chunk) == 0; }
  bool last(std::int64_t stage, std::int64_t chunk) const { return position(stage, chunk) + 1 == positions(); }

  // Forward passes of some chunks go from the last stage to the first.
  bool has_way_back() const { return in_v() || copies() == 2; }
  bool goes_back(std::int64_t chunk) const { return has_way_back() && chunk == 1; }
  // The last stage hands on to the first.
  bool wraps() const { return chunks_ > 1 && !has_way_back(); }
  // Whether the position before a chunk, and the one behind it, exists on another stage.
  bool input_arrives(std::int64_t stage, std::int64_t chunk) const {
    return !first(stage, chunk) && !(turns_at(stage) && chunk == 1);
  }
  bool output_departs(std::int64_t stage, std::int64_t chunk) const {
    return !last(stage, chunk) && !(turns_at(stage) && chunk == 0);
  }

  // The micro-batches, of `micro_batches` in all, that go through a chunk: the first of them, and how many follow it.
  std::int64_t first_micro_batch(std::int64_t chunk, std::int64_t micro_batches) const {
    return copies() == 2 && chunk == 1 ? micro_batches / 2 : 0;
  }
  std::int64_t last_micro_batch(std::int64_t chunk, std::int64_t micro_batches) const {
    return copies() == 2 && chunk == 0 ? micro_batches / 2 - 1 : micro_batches - 1;
  }
  // The chunks of a stage in the order in which its forward passes begin with them.
  std::vector<std::int64_t> chunk_order(std::int64_t stage) const;

 private:
  bool in_v() const { return kind_ == ScheduleKind::zb_v || kind_ == ScheduleKind::dualpipe_v; }
  bool turns_at(std::int64_t stage) const { return in_v() && stage + 1 == stages_; }

  ScheduleKind kind_;
  std::int64_t stages_;
  std::int64_t chunks_;
};

// Layers of each position, spread as evenly as they can be: positions in the middle get one more before the last does,
// and the first comes last, since they also hold the embedding and the head.
std::vector<std::int64_t> spread_layers(std::int64_t layers, std::int64_t positions);

// As spread_layers, but embedding and head each count as a layer, if at all; what counts is a multiple of `positions`.
struct CountedParts {
  bool embedding = false;
  bool head = false;
  std::int64_t count() const { return (embedding ? 1 : 0) + (head ? 1 : 0); }
};
std::vector<std::int64_t> spread_layers(std::int64_t layers, std::int64_t positions, const CountedParts& counted);

// Given what the first and the last stage have, the others share the rest evenly; chunk by chunk, as position() of a
// placement without a way back. Everything divides.
struct EndLayers {
  std::optional<std::int64_t> first;
  std::optional<std::int64_t> last;
  bool given() const { return first || last; }
  std::int64_t sum() const { return first.value_or(0) + last.value_or(0); }
  std::int64_t stages() const { return (first ? 1 : 0) + (last ? 1 : 0); }
};
std::vector<std::int64_t> spread_between(const EndLayers& ends, std::int64_t layers, std::int64_t stages,
                                         std::int64_t chunks);

}  // namespace trainyard::strategies
