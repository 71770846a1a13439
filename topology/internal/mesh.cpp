#include "topology/internal/mesh.hpp"

#include <algorithm>

#include "topology/internal/path.hpp"

namespace trainyard::topology {
namespace {

constexpr std::string_view axis_names = "xyz";

}  // namespace

Mesh::Mesh(Torus torus, std::int64_t first_slice) : torus_(std::move(torus)), first_slice_(first_slice) {
  sim::ensure(!torus_.shape.empty() && torus_.shape.size() <= stride_.size(), "a mesh has one to three axes");
  for (std::size_t axis = 0; axis < axes(); ++axis) {
    stride_[axis] = chips_;
    chips_ *= torus_.shape[axis];
  }
}

std::optional<std::int64_t> Mesh::end_of(std::int64_t link) const {
  const std::int64_t chip = link / links_of_chip();
  const auto axis = static_cast<std::size_t>(link % links_of_chip() / 2);
  const std::int64_t extent = torus_.shape[axis];
  const std::int64_t here = coordinate(chip, axis);
  std::int64_t there = here + (link % 2 == 0 ? 1 : -1);
  if (extent == 1) return std::nullopt;
  if (there < 0 || there >= extent) {
    if (!torus_.wraps[axis]) return std::nullopt;
    there = (there + extent) % extent;
  }
  return chip + (there - here) * stride_[axis];
}

std::int64_t Mesh::opposite(std::int64_t link) const {
  const std::int64_t in_chip = link % links_of_chip();
  return *end_of(link) * links_of_chip() + (in_chip ^ 1);
}

std::string Mesh::name_of(std::int64_t link) const {
  const std::int64_t chip = link / links_of_chip();
  const std::int64_t in_chip = link % links_of_chip();
  return "slice " + std::to_string(first_slice_ + chip / chips_) + " chip " + std::to_string(chip % chips_) + " " +
         axis_names[static_cast<std::size_t>(in_chip / 2)] + (in_chip % 2 == 0 ? '+' : '-');
}

std::optional<std::int64_t> Mesh::named(std::int64_t slice, std::int64_t chip, std::string_view direction) const {
  const std::size_t axis = direction.size() == 2 ? axis_names.find(direction[0]) : axes();
  if (slice < first_slice_ || slice - first_slice_ >= torus_.slices || chip >= chips_ || axis >= axes() ||
      (direction[1] != '+' && direction[1] != '-'))
    return std::nullopt;
  const std::int64_t result = link((slice - first_slice_) * chips_ + chip, axis, direction[1] == '+');
  if (!end_of(result)) return std::nullopt;
  return result;
}

bool Mesh::route(std::int64_t from, std::int64_t to, std::uint32_t base, Route& route) const {
  const std::size_t before = route.links.size();
  std::int64_t at = from;
  for (std::size_t axis = 0; axis < axes(); ++axis) {
    const std::int64_t extent = torus_.shape[axis];
    const std::int64_t here = coordinate(at, axis);
    const std::int64_t there = coordinate(to, axis);
    if (here == there) continue;
    std::int64_t up = there > here ? there - here : 0;
    std::int64_t down = there > here ? 0 : here - there;
    if (torus_.wraps[axis]) {
      up = (there - here + extent) % extent;
      down = extent - up;
      if (up < down) down = 0;
      if (down > 0 && down < up) up = 0;
    }
    const std::int64_t ways = up > 0 && down > 0 ? 2 : 1;
    const std::int64_t line = at - here * stride_[axis];
    for (std::int64_t hop = 0; hop < up; ++hop)
      append(route, base, link(line + (here + hop) % extent * stride_[axis], axis, true), 1, ways);
    for (std::int64_t hop = 0; hop < down; ++hop)
      append(route, base, link(line + (here - hop + extent) % extent * stride_[axis], axis, false), 1, ways);
    at = line + there * stride_[axis];
  }
  if (broken_.empty()) return true;
  for (std::size_t i = before; i < route.links.size(); ++i) {
    const auto link = static_cast<std::int64_t>(sim::index_of(route.links[i].link)) - base;
    if (!std::binary_search(broken_.begin(), broken_.end(), link)) continue;
    route.links.resize(before);
    return false;
  }
  return true;
}

std::int64_t Mesh::distance(std::int64_t from, std::int64_t to) const {
  std::int64_t hops = 0;
  for (std::size_t axis = 0; axis < axes(); ++axis) {
    const std::int64_t apart = std::abs(coordinate(from, axis) - coordinate(to, axis));
    hops += torus_.wraps[axis] ? std::min(apart, torus_.shape[axis] - apart) : apart;
  }
  return hops;
}

}  // namespace trainyard::topology
