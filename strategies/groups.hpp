// Which ranks form a group: ranks as coordinates on the axes of a parallelisation.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "sim/plan.hpp"

namespace trainyard::strategies {

// The axes from the innermost (neighbouring ranks) to the outermost; sizes multiply to the number of ranks.
class RankGrid {
 public:
  explicit RankGrid(std::vector<std::int64_t> sizes) : sizes_(std::move(sizes)) {}

  std::int64_t ranks() const;
  std::int64_t size(std::size_t axis) const { return sizes_[axis]; }
  std::int64_t coordinate(sim::RankId rank, std::size_t axis) const;
  // The rank whose coordinate on `axis` is `value` and otherwise as `rank`'s.
  sim::RankId moved(sim::RankId rank, std::size_t axis, std::int64_t value) const;

 private:
  std::int64_t stride(std::size_t axis) const;
  std::vector<std::int64_t> sizes_;
};

// Adds to the table, under `slot`, all groups of ranks that differ only on the given axes, each in rank order, in order
// of their first rank. Groups of one are left out.
void add_groups(sim::CommunicatorTable& table, const RankGrid& grid, std::vector<std::size_t> axes, sim::SlotId slot);

// The same, but each group is joined with the one at the other end of the axis `mirrored`, whose size is even.
void add_mirrored_groups(sim::CommunicatorTable& table, const RankGrid& grid, std::vector<std::size_t> axes,
                         std::size_t mirrored, sim::SlotId slot);

}  // namespace trainyard::strategies
