// A picture of a cluster: a part of it that stands for the rest, with what is like it counted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "topology/cluster.hpp"

namespace trainyard::topology {

// Boxes with their places, in inches from the lower left; later ones lie on top.
struct Diagram {
  enum class Shape : std::uint8_t { frame, text, box, device, nic, point };
  struct Box {
    Shape shape = Shape::box;
    double x = 0;  // of the middle
    double y = 0;
    double width = 1;
    double height = 1;
    std::string label;
    bool faulty = false;
  };
  // A cable, or a bundle of like ones; both directions.
  struct Line {
    std::size_t from = 0;
    std::size_t to = 0;
    LinkKind kind = LinkKind::nvlink;
    sim::BytesPerSecond capacity{};  // of one direction, healthy; 0: no link, only shows what belongs together
    std::int64_t cables = 1;
    bool faulty = false;
    bool leaves = false;  // for what is not drawn
  };
  std::vector<Box> boxes;
  std::vector<Line> lines;
};

Diagram draw(const Cluster& cluster);

}  // namespace trainyard::topology
