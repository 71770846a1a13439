#include "scenarios/show_topology.hpp"

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/process.hpp"
#include "scenarios/internal/text.hpp"
#include "scenarios/output_file.hpp"
#include "scenarios/outside_failure.hpp"
#include "scenarios/quantity.hpp"
#include "topology/diagram.hpp"

namespace trainyard::scenarios {
namespace {

using topology::Cluster;
using topology::Diagram;
using topology::LinkKind;

std::string heading(const Scenario& scenario, const Cluster& cluster) {
  std::string nodes;
  for (std::size_t type = 0; type < cluster.node_types(); ++type)
    nodes += (type > 0 ? ", " : "") + std::to_string(cluster.nodes_of_type(type)) + " x " +
             printable(cluster.node_type(type).name);
  return printable(scenario.name) + ": " + nodes + "; " + std::to_string(cluster.devices()) + " devices take part; " +
         printable(scenario.fabric.name);
}

std::string describe_health(double health) { return health == 0 ? "broken" : "at " + fixed(100 * health, 1) + " %"; }

std::vector<std::string> describe_slow(const Scenario& scenario) {
  std::vector<std::string> lines;
  for (const auto& fault : scenario.device_faults)
    lines.push_back("device " + std::to_string(fault.device) + ": at " + fixed(100 * fault.speed, 1) +
                    " % of its speed");
  for (const auto& fault : scenario.node_faults)
    lines.push_back("node " + std::to_string(fault.node) + ": at " + fixed(100 * fault.speed, 1) + " % of its speed");
  return lines;
}

std::vector<std::string> describe_faulty_links(const Cluster& cluster) {
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < cluster.link_count(); ++i) {
    const topology::LinkId id{static_cast<std::uint32_t>(i)};
    const double health = cluster.health_of(id);
    if (health != 1) lines.push_back(cluster.name_of(id) + ": " + describe_health(health));
  }
  return lines;
}

struct Alike {
  std::int64_t count = 0;
  topology::LinkId first{};
  topology::LinkId last{};
};

std::string colour_of(LinkKind kind) {
  switch (kind) {
    case LinkKind::nvlink:
      return "#4a7d1f";
    case LinkKind::pcie:
      return "#8a6d1d";
    case LinkKind::ici:
      return "#1f6f7d";
    case LinkKind::nic:
      return "#2b59a8";
    case LinkKind::spine:
      return "#7a3fa0";
    case LinkKind::core:
      return "#a03f6b";
    case LinkKind::global:
      return "#c0651a";
    case LinkKind::dcn:
      return "#5a5a5a";
  }
  return "black";
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char letter : printable(text)) {
    if (letter == '"' || letter == '\\') result += '\\';
    result += letter;
  }
  return result + "\"";
}

std::string style_of(const Diagram::Box& box) {
  constexpr auto fill = [](std::string_view colour) {
    return "shape=box, style=filled, fillcolor=\"" + std::string{colour} + "\"";
  };
  const std::string faulty = box.faulty ? ", color=\"#c00000\", penwidth=2.5" : "";
  switch (box.shape) {
    case Diagram::Shape::frame:
      return "shape=box, style=rounded, color=\"#999999\"";
    case Diagram::Shape::text:
      return "shape=plaintext";
    case Diagram::Shape::box:
      return fill("#e3e0f0") + faulty;
    case Diagram::Shape::device:
      return fill("#dff0d0") + faulty;
    case Diagram::Shape::nic:
      return fill("#d8e6f8") + faulty;
    case Diagram::Shape::point:
      return "shape=point, style=invis";
  }
  return "";
}

std::string number(double value) { return fixed(value, 3); }

// A line for each kind and capacity that is drawn, and what is not well, below the picture.
std::vector<std::pair<std::string, std::string>> legend_of(const Scenario& scenario, const Cluster& cluster,
                                                           const Diagram& diagram) {
  std::vector<std::pair<std::string, std::string>> lines{{heading(scenario, cluster), "black"}};
  std::map<std::tuple<LinkKind, std::int64_t, std::int64_t>, int> kinds;
  for (const Diagram::Line& line : diagram.lines)
    if (line.capacity.count > 0) ++kinds[{line.kind, line.capacity.count, line.cables}];
  for (const auto& [kind, count] : kinds) {
    const auto& [link, capacity, cables] = kind;
    lines.emplace_back(std::string{to_string(link)} + ": " + format_rate(sim::BytesPerSecond{capacity}) +
                           " in each direction" + (cables > 1 ? ", " + std::to_string(cables) + " cables" : ""),
                       colour_of(link));
  }
  std::vector<std::string> faults = describe_faulty_links(cluster);
  const std::vector<std::string> slow = describe_slow(scenario);
  faults.insert(faults.end(), slow.begin(), slow.end());
  constexpr std::size_t most = 12;
  for (std::size_t i = 0; i < std::min(faults.size(), most); ++i) lines.emplace_back(faults[i], "#c00000");
  if (faults.size() > most)
    lines.emplace_back("and " + std::to_string(faults.size() - most) + " more faults", "#c00000");
  return lines;
}

}  // namespace

std::string list_links(const Scenario& scenario) {
  const Cluster cluster = make_cluster(scenario);
  std::map<std::tuple<LinkKind, std::int64_t, std::int64_t>, Alike> alike;
  for (std::size_t i = 0; i < cluster.link_count(); ++i) {
    const topology::LinkId id{static_cast<std::uint32_t>(i)};
    if (cluster.health_of(id) != 1) continue;
    const topology::Link link = cluster.link(id);
    if (link.capacity.count == 0) continue;  // the edge of a mesh
    Alike& group = alike[{link.kind, link.capacity.count, link.latency.count()}];
    if (group.count++ == 0) group.first = id;
    group.last = id;
  }
  std::string text = heading(scenario, cluster) + "\n";
  if (const auto torus = cluster.torus(); torus && torus->slices > 0) {
    text += std::to_string(torus->slices) + (torus->slices == 1 ? " slice of " : " slices of ");
    for (std::size_t axis = 0; axis < torus->shape.size(); ++axis)
      text += (axis > 0 ? " x " : "") + std::to_string(torus->shape[axis]) + (torus->wraps[axis] ? " (closed)" : "");
    text += " chips\n";
  }
  text += "\n" + padded_right("kind", 8) + padded_left("links", 10) + padded_left("capacity", 12) +
          padded_left("latency", 10) + "  names; each is one direction of a cable or bundle\n";
  for (const auto& [what, group] : alike) {
    const auto& [kind, capacity, latency] = what;
    text += padded_right(to_string(kind), 8) + padded_left(std::to_string(group.count), 10) +
            padded_left(format_rate(sim::BytesPerSecond{capacity}), 12) +
            padded_left(format_duration(sim::Duration{latency}), 10) + "  " + cluster.name_of(group.first) +
            (group.count > 1 ? (group.count > 2 ? " ... " : ", ") + cluster.name_of(group.last) : "") + "\n";
  }
  std::vector<std::string> faults = describe_faulty_links(cluster);
  const std::vector<std::string> slow = describe_slow(scenario);
  faults.insert(faults.end(), slow.begin(), slow.end());
  if (!faults.empty()) text += "\nfaults\n";
  for (const std::string& fault : faults) text += "  " + fault + "\n";
  return text;
}

std::string to_graphviz(const Scenario& scenario) {
  const Cluster cluster = make_cluster(scenario);
  const Diagram diagram = topology::draw(cluster);
  std::string text =
      "graph cluster {\n  graph [outputorder=edgesfirst, splines=line, bgcolor=white, pad=0.2];\n"
      "  node [fontname=\"Helvetica\", fontsize=10, fixedsize=true];\n  edge [fontname=\"Helvetica\", fontsize=9];\n";
  constexpr double points = 72;
  double left = 1e9;
  double bottom = 1e9;
  for (std::size_t i = 0; i < diagram.boxes.size(); ++i) {
    const Diagram::Box& box = diagram.boxes[i];
    left = std::min(left, box.x - box.width / 2);
    bottom = std::min(bottom, box.y - box.height / 2);
    text += "  b" + std::to_string(i) + " [pos=\"" + number(points * box.x) + "," + number(points * box.y) +
            "!\", width=" + number(box.width) + ", height=" + number(box.height) + ", label=" + quoted(box.label) +
            ", " + style_of(box) + "];\n";
  }
  for (const Diagram::Line& line : diagram.lines) {
    std::string style = "color=\"" + (line.faulty ? "#c00000" : colour_of(line.kind)) + "\", penwidth=" +
                        (line.faulty       ? "2.5"
                         : line.cables > 1 ? "2"
                                           : "1") +
                        (line.leaves ? ", style=dashed" : "");
    if (line.capacity.count == 0) style = "color=\"#aaaaaa\", style=dotted";
    text += "  b" + std::to_string(line.from) + " -- b" + std::to_string(line.to) + " [" + style + "];\n";
  }
  const auto legend = legend_of(scenario, cluster, diagram);
  double y = bottom - 0.35;
  for (std::size_t i = 0; i < legend.size(); ++i) {
    const double width = 0.1 * static_cast<double>(legend[i].first.size()) + 0.2;
    std::string label = quoted(legend[i].first);
    label.insert(label.size() - 1, "\\l");  // to the left
    text += "  t" + std::to_string(i) + " [shape=plaintext, pos=\"" + number(points * (left + width / 2)) + "," +
            number(points * y) + "!\", width=" + number(width) + ", height=0.22, label=" + label + ", fontcolor=\"" +
            legend[i].second + "\"];\n";
    y -= 0.24;
  }
  return text + "}\n";
}

void draw_topology(const Scenario& scenario, const std::filesystem::path& file) {
  const EndedProgram drawn =
      run_program({"neato", "-n2", "-Tsvg"}, "cannot draw: 'neato' is not installed (Debian package graphviz)",
                  {.input = to_graphviz(scenario)});
  if (drawn.status != 0) throw OutsideFailure("'neato' of Graphviz failed, and drew nothing: " + drawn.errors);
  write_file(file, drawn.output);
}

}  // namespace trainyard::scenarios
