// Which experts tokens go to: how many each of them gets.
#pragma once

#include <cstdint>
#include <vector>

#include "workloads/training.hpp"

namespace trainyard::workloads {

// Tokens of each of `experts` experts when `tokens` (top k counted) are spread over them.
//   capacity: ceil(factor x tokens / experts) each, whatever the real load: what is above is dropped, the rest padded;
//   dirichlet: shares drawn from a symmetric Dirichlet distribution, sorted, the most loaded first;
//   else: the first expert has `imbalance` times the mean, the others share the rest alike.
// A token passes `top_k` different experts, so none gets more than `tokens` / `top_k`.
// Dropless loads add up to `tokens`. Throws nothing; the same seed gives the same loads.
std::vector<std::int64_t> expert_loads(const ExpertRouting& routing, std::int64_t experts, std::int64_t top_k,
                                       std::int64_t tokens);

// Rows of each expert on the most loaded of `ranks` that share the experts, when each of them routes `tokens` (top k
// counted). Where ranks have several experts, which ones share a rank follows from the seed. A capacity holds for the
// tokens of each rank: an expert's buffer has it once per rank.
std::vector<std::int64_t> busiest_rank_loads(const ExpertRouting& routing, std::int64_t experts, std::int64_t top_k,
                                             std::int64_t tokens, std::int64_t ranks);

// Rows of each expert when tokens draw their `top_k` at random, all alike: as many experts as are drawn on average,
// experts x (1 - (1 - top_k / experts)^tokens), share the rows evenly, the others have none.
std::vector<std::int64_t> drawn_loads(std::int64_t experts, std::int64_t top_k, std::int64_t tokens);

}  // namespace trainyard::workloads
