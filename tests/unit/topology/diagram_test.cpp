// Pictures: small whatever the cluster's size, and every line ends at a box.
#include "topology/diagram.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

#include "tests/support/clusters.hpp"

namespace trainyard::topology {
namespace {

bool shows(const Diagram& diagram, const std::string& label) {
  return std::any_of(diagram.boxes.begin(), diagram.boxes.end(),
                     [&](const Diagram::Box& box) { return box.label == label; });
}

TEST(DiagramTest, StaysReadableHoweverLargeTheClusterIs) {
  for (const Kind kind : {Kind::single_switch, Kind::fat_tree, Kind::rail_optimized, Kind::dragonfly}) {
    for (const std::int64_t nodes : {1, 3, 100, 131072}) {
      const Diagram diagram = draw(Cluster(node_type(), nodes, 8 * nodes, fabric_type(kind)));
      EXPECT_LT(diagram.boxes.size(), 80U);
      EXPECT_LT(diagram.lines.size(), 200U);
      for (const Diagram::Line& line : diagram.lines) {
        EXPECT_LT(line.from, diagram.boxes.size());
        EXPECT_LT(line.to, diagram.boxes.size());
      }
    }
  }
}

TEST(DiagramTest, CountsWhatItLeavesOut) {
  const Diagram diagram = draw(Cluster(node_type(72, 72), 64, 4608, fabric_type(Kind::fat_tree)));
  EXPECT_TRUE(shows(diagram, "+ 62 more"));
  EXPECT_TRUE(shows(diagram, "... 64"));
  EXPECT_TRUE(shows(diagram, "device 71"));
}

TEST(DiagramTest, MarksFaults) {
  Cluster::Request request = request_of(node_type(), 8, fabric_type(Kind::fat_tree, 16));
  request.link_faults = {{.link = "leaf 0 spine 3 up", .capacity = 0}};
  request.device_faults = {{.device = 2, .speed = 0.5}};
  const Diagram diagram = draw(Cluster(request));
  EXPECT_TRUE(shows(diagram, "8 spines"));
  EXPECT_EQ(std::count_if(diagram.lines.begin(), diagram.lines.end(), [](const auto& line) { return line.faulty; }), 1);
  EXPECT_EQ(std::count_if(diagram.boxes.begin(), diagram.boxes.end(), [](const auto& box) { return box.faulty; }), 1);
}

}  // namespace
}  // namespace trainyard::topology
