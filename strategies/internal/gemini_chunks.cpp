#include "strategies/internal/gemini_chunks.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace trainyard::strategies {
namespace {

using sim::Bytes;
using Kind = ChunkAction::Kind;

std::int64_t rounded_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Without those above the mean by more than three standard deviations (_filter_exlarge_params).
std::vector<std::int64_t> usual_sizes(std::span<const std::int64_t> tensors) {
  double mean = 0;
  for (const std::int64_t size : tensors) mean += static_cast<double>(size);
  mean /= static_cast<double>(tensors.size());
  double variance = 0;
  for (const std::int64_t size : tensors) variance += std::pow(static_cast<double>(size) - mean, 2);
  const double most = mean + 3 * std::sqrt(variance / static_cast<double>(tensors.size()));
  std::vector<std::int64_t> usual;
  for (const std::int64_t size : tensors)
    if (static_cast<double>(size) <= most) usual.push_back(size);
  return usual;
}

// Elements at the ends of chunks (_get_unused_byte).
std::int64_t unused(std::span<const std::int64_t> tensors, std::int64_t chunk) {
  std::int64_t sum = 0;
  std::int64_t left = 0;
  for (const std::int64_t size : tensors) {
    if (size > left) {
      sum += left;
      left = chunk;
    }
    left -= size;
  }
  return sum + left;
}

void search_size(ChunkLayout& layout, std::span<const std::int64_t> tensors, const ChunkSearch& search) {
  const std::vector<std::int64_t> usual = usual_sizes(tensors);
  const std::int64_t largest = std::max(search.smallest, *std::ranges::max_element(usual));
  const std::int64_t first = rounded_up(largest, search.interval);
  layout.size = first;
  layout.waste = unused(usual, first);
  for (std::int64_t size = first; size <= first + search.range; size += search.interval) {
    const std::int64_t waste = unused(usual, size);
    if (waste >= layout.waste) continue;
    layout.waste = waste;
    layout.size = size;
  }
  layout.size = rounded_up(layout.size, search.ranks);
}

// Each goes behind the one before if there is room (ChunkManager.register_tensor).
void pack(ChunkLayout& layout, std::span<const std::int64_t> tensors, std::int64_t ranks) {
  std::int64_t left = 0;
  for (const std::int64_t size : tensors) {
    if (layout.chunks.empty() || size > left) {
      left = size > layout.size ? rounded_up(size, ranks) : layout.size;
      layout.chunks.push_back(left);
    }
    left -= size;
    layout.chunk_of.push_back(static_cast<std::uint32_t>(layout.chunks.size() - 1));
  }
}

class Scheduler {
 public:
  Scheduler(const ChunkLayout& layout, std::span<const ChunkUse> uses, const ChunkPolicy& policy)
      : layout_(layout), uses_(uses), policy_(policy), chunks_(layout.chunks.size()) {
    for (std::size_t i = 0; i < chunks_.size(); ++i) chunks_[i].on_host = policy.on_host[i];
    for (std::size_t use = 0; use < uses.size(); ++use)
      for (const std::uint32_t chunk : uses[use].chunks) chunks_[chunk].used_by.push_back(use);
  }

  std::vector<std::vector<ChunkAction>> run() {
    for (std::size_t use = 0; use < uses_.size(); ++use) {
      actions_.emplace_back();
      await(use);
      if (!layout_.keep_gathered) fetch(use);
      finish(use);
    }
    return std::move(actions_);
  }

 private:
  struct Chunk {
    bool gathered = false;
    bool on_host = false;
    bool in_flight = false;
    bool held = false;  // by gradients
    std::vector<std::size_t> used_by = {};
  };

  Bytes whole(std::uint32_t chunk) const { return Bytes{layout_.chunks[chunk] * policy_.element}; }
  Bytes shard(std::uint32_t chunk) const { return Bytes{layout_.chunks[chunk] / policy_.ranks * policy_.element}; }
  bool uses(std::size_t use, std::uint32_t chunk) const {
    return std::ranges::find(uses_[use].chunks, chunk) != uses_[use].chunks.end();
  }
  void act(Kind kind, std::uint32_t chunk) { actions_.back().push_back({kind, chunk}); }

  void fetch(std::size_t use) {
    const Bytes spare = policy_.automatic ? make_room(use) : Bytes{};
    if (!policy_.automatic) release_unused(use);
    for (const std::uint32_t chunk : uses_[use].chunks)
      if (!chunks_[chunk].gathered) gather(chunk, Kind::gather);
    prefetch(use, spare);
  }

  void await(std::size_t use) {
    for (const std::uint32_t chunk : uses_[use].chunks) {
      if (chunks_[chunk].in_flight) act(Kind::arrive, chunk);
      chunks_[chunk].in_flight = false;
      if (!uses_[use].backward) continue;
      if (!chunks_[chunk].held && policy_.separate_gradients) act(Kind::accumulate, chunk);
      chunks_[chunk].held = true;
    }
  }

  std::vector<std::uint32_t> releasable(std::size_t use) const {
    std::vector<std::uint32_t> found;
    for (std::uint32_t i = 0; i < chunks_.size(); ++i)
      if (chunks_[i].gathered && !chunks_[i].in_flight && !chunks_[i].held && !uses(use, i)) found.push_back(i);
    return found;
  }

  void release(std::uint32_t chunk) {
    act(Kind::release, chunk);
    chunks_[chunk].gathered = false;
  }

  void to_host(std::uint32_t chunk) {
    act(Kind::to_host, chunk);
    chunks_[chunk].on_host = true;
  }

  Bytes sum_of(std::span<const std::uint32_t> chunks) const {
    Bytes sum{};
    for (const std::uint32_t chunk : chunks) sum += whole(chunk);
    return sum;
  }

  // StaticPlacementPolicy.evict_tensors, which counts whole chunks also where only shards leave.
  void release_unused(std::size_t use) {
    const std::vector<std::uint32_t> candidates = releasable(use);
    const auto all = static_cast<double>(layout_.elements() * policy_.element);
    const auto until = [&](double share, auto leave) {
      Bytes left = sum_of(candidates);
      for (const std::uint32_t chunk : candidates) {
        if (static_cast<double>(left.count) <= all * share) return;
        leave(chunk);
        left = left - whole(chunk);
      }
    };
    until(policy_.gathered_share, [&](std::uint32_t chunk) { release(chunk); });
    until(policy_.device_share, [&](std::uint32_t chunk) {
      if (!chunks_[chunk].gathered) to_host(chunk);
    });
  }

  Bytes on_device() const {
    Bytes sum{};
    for (std::uint32_t i = 0; i < chunks_.size(); ++i)
      if (!chunks_[i].on_host) sum += chunks_[i].gathered ? whole(i) : shard(i);
    return sum;
  }

  Bytes demand(std::size_t use) const {
    Bytes sum{};
    for (const std::uint32_t chunk : uses_[use].chunks)
      if (!chunks_[chunk].gathered) sum += chunks_[chunk].on_host ? whole(chunk) : whole(chunk) - shard(chunk);
    return sum;
  }

  std::size_t next_use(std::size_t use, std::uint32_t chunk) const {
    const std::vector<std::size_t>& used_by = chunks_[chunk].used_by;
    const auto next = std::ranges::upper_bound(used_by, use);
    return next == used_by.end() ? uses_.size() : *next;
  }

  // AutoPlacementPolicy.evict_tensors: the most of other data until the next use is reserved. What is left of the room.
  Bytes make_room(std::size_t use) {
    const Bytes other =
        use + 1 < uses_.size() ? std::max(uses_[use].other_data, uses_[use + 1].other_data) : uses_[use].other_data;
    const Bytes demanded = demand(use);
    Bytes available = policy_.room - other - on_device();
    if (available >= demanded) return available;
    std::vector<std::uint32_t> candidates = releasable(use);
    std::ranges::stable_sort(candidates, std::greater<>{}, [&](std::uint32_t chunk) { return next_use(use, chunk); });
    for (const std::uint32_t chunk : candidates) {
      if (available >= demanded) break;
      release(chunk);
      to_host(chunk);
      available += whole(chunk);
    }
    return available;
  }

  void gather(std::uint32_t chunk, Kind kind) {
    if (chunks_[chunk].on_host) act(Kind::from_host, chunk);
    act(kind, chunk);
    chunks_[chunk].gathered = true;
    chunks_[chunk].on_host = false;
    chunks_[chunk].in_flight = kind == Kind::prefetch;
  }

  // get_prefetch_chunks of both policies: the next that are used and not there.
  void prefetch(std::size_t use, Bytes spare) {
    std::int64_t more =
        policy_.max_prefetch - std::ranges::count_if(chunks_, [](const Chunk& chunk) { return chunk.in_flight; });
    Bytes taken{};
    for (std::size_t i = use + 1; i < uses_.size(); ++i)
      for (const std::uint32_t chunk : uses_[i].chunks) {
        if (more <= 0) return;
        if (policy_.automatic && taken + whole(chunk) > spare) return;
        if (chunks_[chunk].gathered) continue;
        gather(chunk, Kind::prefetch);
        taken += whole(chunk);
        --more;
      }
  }

  void finish(std::size_t use) {
    for (const std::uint32_t chunk : uses_[use].completes) {
      chunks_[chunk].gathered = chunks_[chunk].held = false;
      chunks_[chunk].on_host = policy_.on_host[chunk];
    }
  }

  const ChunkLayout& layout_;
  std::span<const ChunkUse> uses_;
  const ChunkPolicy& policy_;
  std::vector<Chunk> chunks_;
  std::vector<std::vector<ChunkAction>> actions_;
};

}  // namespace

std::int64_t ChunkLayout::elements() const { return std::accumulate(chunks.begin(), chunks.end(), std::int64_t{0}); }

ChunkLayout lay_out_chunks(std::span<const std::int64_t> tensors, const ChunkSearch& search) {
  ChunkLayout layout;
  const std::int64_t all = std::accumulate(tensors.begin(), tensors.end(), std::int64_t{0});
  layout.keep_gathered = all < search.smallest;
  if (layout.keep_gathered)
    layout.size = rounded_up(all, search.ranks);
  else
    search_size(layout, tensors, search);
  pack(layout, tensors, search.ranks);
  return layout;
}

std::vector<std::vector<ChunkAction>> schedule_chunks(const ChunkLayout& layout, std::span<const ChunkUse> uses,
                                                      const ChunkPolicy& policy) {
  return Scheduler(layout, uses, policy).run();
}

}  // namespace trainyard::strategies
