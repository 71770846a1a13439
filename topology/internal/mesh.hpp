// TPU chips on a mesh or torus, slice by slice.
//
// Routes go along one axis after the other, the shorter way around; where both ways are as long, half and half. Axes
// that are closed, and those that are not: Google Cloud TPU documentation, TPU configurations; jax-ml/scaling-book.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "topology/cluster.hpp"

namespace trainyard::topology {

class Mesh {
 public:
  explicit Mesh(Torus torus, std::int64_t first_slice = 0);

  const Torus& torus() const { return torus_; }
  std::int64_t chips() const { return chips_; }  // of a slice
  std::size_t axes() const { return torus_.shape.size(); }
  std::int64_t links_of_chip() const { return 2 * static_cast<std::int64_t>(axes()); }
  std::int64_t coordinate(std::int64_t chip, std::size_t axis) const {
    return chip / stride_[axis] % torus_.shape[axis];
  }

  std::int64_t first_slice() const { return first_slice_; }

  // A chip's links: x+, x-, y+ ... Chips are numbered through all slices.
  std::int64_t link(std::int64_t chip, std::size_t axis, bool up) const {
    return chip * links_of_chip() + 2 * static_cast<std::int64_t>(axis) + (up ? 0 : 1);
  }
  // Where a link leads; nothing at an edge.
  std::optional<std::int64_t> end_of(std::int64_t link) const;
  std::int64_t opposite(std::int64_t link) const;  // of a link that exists
  std::string name_of(std::int64_t link) const;
  std::optional<std::int64_t> named(std::int64_t slice, std::int64_t chip, std::string_view direction) const;

  void set_broken(std::vector<std::int64_t> broken) { broken_ = std::move(broken); }  // sorted, both directions
  // Between chips of one slice. False, and nothing added, where a broken link is in the way.
  bool route(std::int64_t from, std::int64_t to, std::uint32_t base, Route& route) const;
  std::int64_t distance(std::int64_t from, std::int64_t to) const;

 private:
  Torus torus_;
  std::array<std::int64_t, 3> stride_{1, 1, 1};
  std::int64_t chips_ = 1;
  std::int64_t first_slice_ = 0;
  std::vector<std::int64_t> broken_;
};

}  // namespace trainyard::topology
