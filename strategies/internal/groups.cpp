#include "strategies/internal/groups.hpp"

#include <algorithm>

namespace trainyard::strategies {

std::int64_t RankGrid::ranks() const {
  std::int64_t product = 1;
  for (const std::int64_t size : sizes_) product *= size;
  return product;
}

std::int64_t RankGrid::stride(std::size_t axis) const {
  std::int64_t product = 1;
  for (std::size_t i = 0; i < axis; ++i) product *= sizes_[i];
  return product;
}

std::int64_t RankGrid::coordinate(sim::RankId rank, std::size_t axis) const {
  return static_cast<std::int64_t>(sim::index_of(rank)) / stride(axis) % sizes_[axis];
}

sim::RankId RankGrid::moved(sim::RankId rank, std::size_t axis, std::int64_t value) const {
  const auto from = static_cast<std::int64_t>(sim::index_of(rank));
  return sim::RankId{static_cast<std::uint32_t>(from + (value - coordinate(rank, axis)) * stride(axis))};
}

void add_groups(sim::CommunicatorTable& table, const RankGrid& grid, std::vector<std::size_t> axes, sim::SlotId slot) {
  std::ranges::sort(axes);  // inner axes first: members in rank order
  // What is added to a group's first rank to get the others.
  std::vector<std::int64_t> offsets{0};
  const sim::RankId origin{0};
  for (const std::size_t axis : axes) {
    const std::size_t before = offsets.size();
    for (std::int64_t value = 1; value < grid.size(axis); ++value)
      for (std::size_t i = 0; i < before; ++i)
        offsets.push_back(offsets[i] + static_cast<std::int64_t>(sim::index_of(grid.moved(origin, axis, value))));
  }
  if (offsets.size() == 1) return;
  std::vector<sim::RankId> members(offsets.size());
  const std::vector<sim::SlotId> slots(offsets.size(), slot);
  for (std::int64_t first = 0; first < grid.ranks(); ++first) {
    const sim::RankId rank{static_cast<std::uint32_t>(first)};
    if (std::ranges::any_of(axes, [&](std::size_t axis) { return grid.coordinate(rank, axis) != 0; })) continue;
    for (std::size_t i = 0; i < offsets.size(); ++i)
      members[i] = sim::RankId{static_cast<std::uint32_t>(first + offsets[i])};
    table.add(members, slots);
  }
}

}  // namespace trainyard::strategies
