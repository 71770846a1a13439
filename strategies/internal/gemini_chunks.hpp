// Chunks of Gemini: parameters packed in the order of registration, the unit of gathering, reduction and offload; and
// where each of them is while a step goes on. Sources: hpcaitech/ColossalAI colossalai/zero/gemini/chunk/{search_utils,
// manager}.py, colossalai/zero/gemini/{placement_policy,gemini_hook,gemini_mgr}.py.
#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <vector>

#include "sim/units.hpp"

namespace trainyard::strategies {

struct ChunkSearch {
  std::int64_t range = 0;     // elements above the smallest size that are tried
  std::int64_t interval = 1;  // elements between sizes that are tried
  std::int64_t smallest = 0;  // elements of a chunk; fewer parameters make one that is never sharded
  std::int64_t ranks = 1;     // that share every chunk
};

struct ChunkLayout {
  std::int64_t size = 0;   // elements of a chunk; a tensor that is larger has one of its own
  std::int64_t waste = 0;  // elements that the search left unused, tensors beyond three standard deviations not counted
  bool keep_gathered = false;
  std::vector<std::int64_t> chunks;     // elements of each
  std::vector<std::uint32_t> chunk_of;  // of each tensor
  std::int64_t elements() const;        // of all chunks
};

// The size with the least waste, the smallest of those; `tensors` are numbers of elements.
ChunkLayout lay_out_chunks(std::span<const std::int64_t> tensors, const ChunkSearch& search);

// An operator's parameters in use, in one pass.
struct ChunkUse {
  std::vector<std::uint32_t> chunks = {};
  bool backward = false;                      // its chunks stay until their gradients are reduced
  std::vector<std::uint32_t> completes = {};  // chunks that have all gradients behind it
  sim::Bytes other_data{};                    // on the device at that time: activations and the like
};

struct ChunkAction {
  enum class Kind : std::uint8_t {
    arrive,      // what has been prefetched is awaited
    release,     // back to shards
    to_host,     // the shard leaves the device
    from_host,   // and comes back
    gather,      // awaited at once
    prefetch,    // gathered ahead of its use
    accumulate,  // room for gradients, where they are not put in their parameters' place
  };
  Kind kind = Kind::gather;
  std::uint32_t chunk = 0;
  auto operator<=>(const ChunkAction&) const = default;
};

struct ChunkPolicy {
  bool automatic = false;
  std::int64_t max_prefetch = 0;
  std::int64_t ranks = 1;
  std::int64_t element = 2;        // bytes
  std::vector<bool> on_host = {};  // where each chunk's gradients and optimizer state are, and its parameters at first
  bool separate_gradients = false;
  // Of all chunks, by bytes, what stays gathered and what stays on the device if it need not (static placement).
  double gathered_share = 0;
  double device_share = 1;
  sim::Bytes room{};  // for all data of the device (automatic placement)
};

// What happens before each use of a steady step. Under automatic placement, chunks whose next use is the furthest
// leave the device while the rest would not fit.
std::vector<std::vector<ChunkAction>> schedule_chunks(const ChunkLayout& layout, std::span<const ChunkUse> uses,
                                                      const ChunkPolicy& policy);

}  // namespace trainyard::strategies
