// Where the step goes, layer by layer and operator by operator.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/simulate.hpp"

namespace trainyard::scenarios {

// What the kernels or communications of one name did in one layer and block. Everything is per step and device,
// averaged over all ranks: of a layer that one of eight pipeline stages has, an eighth.
//
// compute_s + exposed_s of all rows add up to the step time; of the rows of a class, to its part of `breakdown_s`.
struct LayerRow {
  std::string block;        // "forward attention layer": pass and part of the model; empty for time that no block has
  std::int32_t layer = -1;  // of the whole model, from 0; -1: of no single layer
  std::string operation;    // a kernel, "all_reduce", or as `kind` where there is neither
  // A class of kernels or a purpose, as in `breakdown_s`; "bubble", "host" or "straggler" for what ranks wait for
  // without a communication to blame. Kernels beside the compute stream are "memory_bound", as they are there.
  std::string_view kind;
  double count = 0;
  double compute_s = 0;            // on the compute stream
  double flops = 0;                // really executed
  double bytes = 0;                // moved between the device and its memory
  double communication_bytes = 0;  // given to the operations
  double wire_bytes = 0;           // sent under the chosen algorithm
  double busy_s = 0;               // ran, on whichever stream; of a communication: from the last arrival on
  double exposed_s = 0;            // the compute stream waited for it
};

// Of a simulation with `per_operation`: layers in their order, what belongs to none after them, waiting last.
std::vector<LayerRow> layer_rows(const Simulation& simulation);
std::string layers_to_csv(std::span<const LayerRow> rows);

}  // namespace trainyard::scenarios
