#include "strategies/groups.hpp"

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

namespace {

// What is added to a group's first rank to get all of them.
std::vector<std::int64_t> member_offsets(const RankGrid& grid, std::vector<std::size_t> axes) {
  std::ranges::sort(axes);  // inner axes first: members in rank order
  std::vector<std::int64_t> offsets{0};
  const sim::RankId origin{0};
  for (const std::size_t axis : axes) {
    const std::size_t before = offsets.size();
    for (std::int64_t value = 1; value < grid.size(axis); ++value)
      for (std::size_t i = 0; i < before; ++i)
        offsets.push_back(offsets[i] + static_cast<std::int64_t>(sim::index_of(grid.moved(origin, axis, value))));
  }
  return offsets;
}

// Of every group of ranks that differ only on the given axes, the first rank.
std::vector<sim::RankId> first_ranks(const RankGrid& grid, const std::vector<std::size_t>& axes) {
  std::vector<sim::RankId> result;
  for (std::int64_t first = 0; first < grid.ranks(); ++first) {
    const sim::RankId rank{static_cast<std::uint32_t>(first)};
    if (std::ranges::all_of(axes, [&](std::size_t axis) { return grid.coordinate(rank, axis) == 0; }))
      result.push_back(rank);
  }
  return result;
}

sim::RankId moved_by(sim::RankId rank, std::int64_t offset) {
  return sim::RankId{static_cast<std::uint32_t>(static_cast<std::int64_t>(sim::index_of(rank)) + offset)};
}

}  // namespace

void add_groups(sim::CommunicatorTable& table, const RankGrid& grid, std::vector<std::size_t> axes, sim::SlotId slot) {
  const std::vector<std::int64_t> offsets = member_offsets(grid, axes);
  if (offsets.size() == 1) return;
  std::vector<sim::RankId> members(offsets.size());
  const std::vector<sim::SlotId> slots(offsets.size(), slot);
  for (const sim::RankId first : first_ranks(grid, axes)) {
    for (std::size_t i = 0; i < offsets.size(); ++i) members[i] = moved_by(first, offsets[i]);
    table.add(members, slots);
  }
}

void add_mirrored_groups(sim::CommunicatorTable& table, const RankGrid& grid, std::vector<std::size_t> axes,
                         std::size_t mirrored, sim::SlotId slot) {
  const std::vector<std::int64_t> offsets = member_offsets(grid, axes);
  const std::vector<sim::SlotId> slots(2 * offsets.size(), slot);
  for (const sim::RankId first : first_ranks(grid, axes)) {
    const std::int64_t mirror = grid.size(mirrored) - 1 - grid.coordinate(first, mirrored);
    if (grid.coordinate(first, mirrored) > mirror) continue;
    std::vector<sim::RankId> members;
    for (const sim::RankId half : {first, grid.moved(first, mirrored, mirror)})
      for (const std::int64_t offset : offsets) members.push_back(moved_by(half, offset));
    std::ranges::sort(members);
    table.add(members, slots);
  }
}

}  // namespace trainyard::strategies
