#include "strategies/internal/groups.hpp"

#include <map>

namespace trainyard::strategies {

std::int64_t RankGrid::ranks() const {
  std::int64_t product = 1;
  for (const std::int64_t size : sizes_) product *= size;
  return product;
}

std::int64_t RankGrid::coordinate(sim::RankId rank, std::size_t axis) const {
  auto rest = static_cast<std::int64_t>(sim::index_of(rank));
  for (std::size_t i = 0; i < axis; ++i) rest /= sizes_[i];
  return rest % sizes_[axis];
}

sim::RankId RankGrid::moved(sim::RankId rank, std::size_t axis, std::int64_t value) const {
  std::int64_t stride = 1;
  for (std::size_t i = 0; i < axis; ++i) stride *= sizes_[i];
  const auto from = static_cast<std::int64_t>(sim::index_of(rank));
  return sim::RankId{static_cast<std::uint32_t>(from + (value - coordinate(rank, axis)) * stride)};
}

std::vector<std::vector<sim::RankId>> RankGrid::groups_along(const std::vector<std::size_t>& axes) const {
  std::vector<std::vector<sim::RankId>> groups;
  std::map<std::uint32_t, std::size_t> group_of_root;
  for (std::int64_t i = 0; i < ranks(); ++i) {
    const sim::RankId rank{static_cast<std::uint32_t>(i)};
    sim::RankId root = rank;
    for (const std::size_t axis : axes) root = moved(root, axis, 0);
    const auto [entry, fresh] =
        group_of_root.try_emplace(static_cast<std::uint32_t>(sim::index_of(root)), groups.size());
    if (fresh) groups.emplace_back();
    groups[entry->second].push_back(rank);
  }
  return groups;
}

void add_groups(sim::CommunicatorTable& table, const std::vector<std::vector<sim::RankId>>& groups, sim::SlotId slot) {
  for (const auto& group : groups)
    if (group.size() > 1) table.add(group, std::vector<sim::SlotId>(group.size(), slot));
}

}  // namespace trainyard::strategies
