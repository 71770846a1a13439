#include "strategies/internal/maxtext_mesh.hpp"

#include <algorithm>
#include <bit>
#include <functional>
#include <numeric>

namespace trainyard::strategies {
namespace {

// Axes of the torus that nobody has yet and whose lengths multiply to `wanted`, as a set of bits; 0: there are none.
unsigned whole_axes(const std::vector<std::int64_t>& left, const std::vector<std::int64_t>& shape,
                    std::int64_t wanted) {
  const unsigned sets = 1U << shape.size();
  for (int count = static_cast<int>(shape.size()); count > 0; --count) {
    for (unsigned set = 1; set < sets; ++set) {
      if (std::popcount(set) != count) continue;
      std::int64_t product = 1;
      bool whole = true;
      for (std::size_t i = 0; i < shape.size(); ++i) {
        if ((set >> i & 1U) == 0) continue;
        product *= shape[i];
        whole = whole && left[i] == shape[i] && shape[i] > 1;
      }
      if (whole && product == wanted) return set;
    }
  }
  return 0;
}

bool fills(const topology::Torus& torus, const topology::Cluster& cluster) {
  return std::accumulate(torus.shape.begin(), torus.shape.end(), torus.slices, std::multiplies<>{}) ==
         cluster.devices();
}

}  // namespace

std::int64_t MeshSizes::of(std::initializer_list<MeshAxis> axes) const {
  std::int64_t product = 1;
  for (const MeshAxis axis : axes) product *= of(axis);
  return product;
}

Slices slices_of(const topology::Cluster& cluster) {
  std::vector<std::int64_t> devices;
  for (std::int64_t i = 0; i < cluster.devices(); ++i) {
    const auto domain = static_cast<std::size_t>(cluster.domain_of(topology::DeviceId{static_cast<std::uint32_t>(i)}));
    if (domain >= devices.size()) devices.resize(domain + 1);
    ++devices[domain];
  }
  std::erase(devices, 0);
  return {.count = static_cast<std::int64_t>(devices.size()),
          .devices = devices.front(),
          .even = std::ranges::all_of(devices, [&](std::int64_t count) { return count == devices.front(); })};
}

std::vector<std::vector<DeviceMesh::Part>> DeviceMesh::lay_on_torus(const std::vector<std::int64_t>& shape,
                                                                    const PerAxis<std::int64_t>& ici) {
  std::vector<std::vector<Part>> parts(shape.size());
  std::vector<std::int64_t> left = shape;
  const auto take = [&](std::size_t torus_axis, MeshAxis axis, std::int64_t size) {
    parts[torus_axis].push_back({axis, size});
    left[torus_axis] /= size;
  };
  for (std::size_t i = mesh_axes; i-- > 0;) {
    std::int64_t wanted = ici.at(i);
    if (wanted == 1) continue;
    if (const unsigned set = whole_axes(left, shape, wanted); set != 0) {
      for (std::size_t axis = 0; axis < shape.size(); ++axis)
        if ((set >> axis & 1U) != 0) take(axis, all_mesh_axes.at(i), shape[axis]);
      continue;
    }
    splits_ = true;
    while (wanted > 1) {
      const auto common = [&](std::int64_t length) { return std::gcd(length, wanted); };
      const auto best = std::ranges::max_element(left, {}, common);
      const std::int64_t size = common(*best);
      sim::ensure(size > 1, "the axes multiply to the devices of a slice");
      take(static_cast<std::size_t>(best - left.begin()), all_mesh_axes.at(i), size);
      wanted /= size;
    }
  }
  return parts;
}

DeviceMesh::DeviceMesh(const topology::Cluster& cluster, const MeshSizes& sizes) : grid_({}) {
  std::vector<std::int64_t> lengths;
  const auto add = [&](const Part& part) {
    on_.at(index_of(part.axis)).push_back(lengths.size());
    lengths.push_back(part.size);
  };
  const auto add_from_innermost = [&](const PerAxis<std::int64_t>& of) {
    for (std::size_t i = mesh_axes; i-- > 0;)
      if (of.at(i) > 1) add({all_mesh_axes.at(i), of.at(i)});
  };
  const std::optional<topology::Torus> torus = cluster.torus();
  if (torus && fills(*torus, cluster)) {
    for (const std::vector<Part>& parts : lay_on_torus(torus->shape, sizes.ici)) std::ranges::for_each(parts, add);
  } else {
    add_from_innermost(sizes.ici);
  }
  add_from_innermost(sizes.dcn);
  if (lengths.empty()) lengths.push_back(1);
  grid_ = RankGrid(std::move(lengths));
  sim::ensure(grid_.ranks() == cluster.devices(), "a mesh has all devices");
}

std::vector<std::size_t> DeviceMesh::grid_axes(std::initializer_list<MeshAxis> axes) const {
  std::vector<std::size_t> all;
  for (const MeshAxis axis : axes) all.insert(all.end(), on_.at(index_of(axis)).begin(), on_.at(index_of(axis)).end());
  return all;
}

std::int64_t DeviceMesh::coordinate(sim::RankId rank, MeshAxis axis) const {
  std::int64_t value = 0;
  std::int64_t stride = 1;
  for (const std::size_t part : on_.at(index_of(axis))) {
    value += grid_.coordinate(rank, part) * stride;
    stride *= grid_.size(part);
  }
  return value;
}

sim::RankId DeviceMesh::next(sim::RankId rank, MeshAxis axis) const {
  for (const std::size_t part : on_.at(index_of(axis))) {
    const std::int64_t value = grid_.coordinate(rank, part) + 1;
    rank = grid_.moved(rank, part, value % grid_.size(part));
    if (value < grid_.size(part)) break;
  }
  return rank;
}

}  // namespace trainyard::strategies
