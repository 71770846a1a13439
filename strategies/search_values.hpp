// Values that are worth trying on a job, for the keys that several frameworks share: what Strategy::search_keys()
// lists. A list holds whatever could be best and has no say in what a framework refuses; it leaves out what is only
// ever worse.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "strategies/strategy.hpp"

namespace trainyard::strategies {

using Sizes = std::vector<std::int64_t>;  // in ascending order

// As a scenario has them.
std::vector<std::string> texts(std::span<const std::int64_t> numbers);

// Of `number`, up to `most`.
Sizes divisors(std::int64_t number, std::int64_t most);

// Ranks that share every layer: they divide devices, heads and key-value heads, and stay inside a scale-up domain,
// since a collective of every layer would cross the network.
Sizes tensor_sizes(const Job& job);

// Stages, which divide the devices: numbers that share the layers evenly, also where embedding and head count as
// layers, and those of 1 or 3 times a power of two that share them nearly so.
Sizes pipeline_sizes(const Job& job);
// Chunks per stage under these numbers of stages, likewise, or powers of two; from 2.
Sizes chunk_counts(const Job& job, const Sizes& pipelines);
// 1f1b, interleaved with all counts of chunks, and others, which have as many chunks as they need by themselves.
std::vector<SearchKey> schedule_keys(const Job& job, const Sizes& pipelines, std::span<const std::string_view> others);

// Ranks that share a sequence: powers of two.
Sizes context_sizes(const Job& job);

// Ranks that share the experts, and each of them; 1 for a model without.
Sizes expert_sizes(const Job& job);
Sizes expert_tensor_sizes(const Job& job);

// Ranks that hold one copy of sharded state: all there are for it, or as many as a scale-up domain has.
SearchKey shard_key(const Job& job);

SearchKey sizes_key(std::string path, const Sizes& sizes, std::string only_with = {});
SearchKey switch_key(std::string path, std::string only_with = {});

// The keys, of which those with these paths have this effect.
std::vector<SearchKey> with_effect(std::vector<SearchKey> keys, SearchEffect effect,
                                   std::initializer_list<std::string_view> paths);

// Sequences of a pass: divisors of the global batch.
SearchKey micro_batch_key(const Job& job);
// Selective where there is an attention whose scores can be dropped.
SearchKey recompute_key(const Job& job);

// Whether state outside the devices is worth its copies: shared evenly over all devices it would still take much of
// their memory.
bool reaches_for_offload(const Job& job);

}  // namespace trainyard::strategies
