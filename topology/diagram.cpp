#include "topology/diagram.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numbers>
#include <set>
#include <utility>
#include <variant>

#include "topology/internal/layout.hpp"

namespace trainyard::topology {
namespace {

using Shape = Diagram::Shape;

constexpr double step = 0.85;  // between devices; all lengths are inches
constexpr double device_width = 0.7;
constexpr double device_height = 0.36;
constexpr std::size_t most_in_row = 9;

std::string counted(std::int64_t count, const std::string& what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

// The first of so many, and the last; the gap between them counts those that are left out.
struct Shown {
  std::vector<std::int64_t> items;
  std::int64_t left_out = 0;  // before the last
};
Shown shown_of(std::int64_t count, std::int64_t most) {
  Shown shown;
  if (count <= most) {
    for (std::int64_t i = 0; i < count; ++i) shown.items.push_back(i);
    return shown;
  }
  for (std::int64_t i = 0; i + 2 < most; ++i) shown.items.push_back(i);
  shown.items.push_back(count - 1);
  shown.left_out = count - static_cast<std::int64_t>(shown.items.size());
  return shown;
}

// The picture is built from the bottom: nodes side by side, above them what joins them.
class Painter {
 public:
  explicit Painter(const Layout& layout) : layout_(layout) {}

  Diagram paint() {
    const NodeGroup& first = layout_.groups().front();
    if (first.mesh && layout_.fabric().kind == FabricType::Kind::ici) {
      paint_slices(first);
      return std::move(diagram_);
    }
    for (std::size_t i = 0; i < layout_.groups().size(); ++i) paint_group(i);
    if (const auto* clos = std::get_if<Clos>(&layout_.switches()))
      paint_clos(*clos);
    else
      paint_dragonfly(std::get<Dragonfly>(layout_.switches()));
    return std::move(diagram_);
  }

 private:
  std::size_t add(Shape shape, double x, double y, double width, double height, std::string label) {
    diagram_.boxes.push_back(
        {.shape = shape, .x = x, .y = y, .width = width, .height = height, .label = std::move(label)});
    return diagram_.boxes.size() - 1;
  }
  std::size_t add_text(double x, double y, std::string label) {
    const double width = 0.085 * static_cast<double>(label.size()) + 0.1;
    return add(Shape::text, x, y, width, 0.3, std::move(label));
  }
  std::size_t add_point(double x, double y) { return add(Shape::point, x, y, 0.02, 0.02, ""); }

  // Of the link, which is the whole of a line or one of its directions.
  void add_line(std::size_t from, std::size_t to, std::int64_t link, std::int64_t cables = 1, bool leaves = false) {
    const auto opposite = layout_.opposite(link);
    const bool faulty = layout_.health(link) != 1 || (opposite && layout_.health(*opposite) != 1);
    const Link healthy = layout_.healthy(link);
    diagram_.lines.push_back({.from = from,
                              .to = to,
                              .kind = healthy.kind,
                              .capacity = healthy.capacity,
                              .cables = cables,
                              .faulty = faulty,
                              .leaves = leaves});
  }

  // A device at its place; red where it is slow.
  std::size_t add_device(const NodeGroup& group, std::size_t index, std::int64_t node, std::int64_t position, double x,
                         double y) {
    const bool tpu = group.mesh.has_value();
    const std::size_t box =
        add(Shape::device, x, y, device_width, device_height, (tpu ? "chip " : "device ") + std::to_string(position));
    diagram_.boxes[box].faulty = layout_.speed({.group = index, .node = node, .position = position}) != 1;
    return box;
  }

  void paint_group(std::size_t index) {
    const NodeGroup& group = layout_.groups()[index];
    const std::int64_t most = layout_.groups().size() > 1 ? 1 : 2;
    const std::int64_t drawn = std::min(group.nodes, most);
    for (std::int64_t node = 0; node < drawn; ++node) paint_node(index, node);
    if (group.nodes > drawn) {
      const std::string more = "+ " + std::to_string(group.nodes - drawn) + " more";
      add_text(right_ + 0.5, 1.2, more);
      right_ += 1.4;
    }
  }

  // NICs above, devices below them, then what joins these.
  void paint_node(std::size_t index, std::int64_t node) {
    const NodeGroup& group = layout_.groups()[index];
    const NodeType& type = group.type;
    const Shown shown = shown_of(type.devices, most_in_row);
    const double columns = static_cast<double>(shown.items.size()) + (shown.left_out > 0 ? 0.5 : 0);
    const bool ring = group.wiring.has_value();
    const double width = std::max(ring ? 4.4 : 2.0, columns * step) + 0.3;
    const double left = right_ + 0.15;
    const std::string title = "node " + std::to_string(group.first_node + node) + ": " + type.name + ", " +
                              std::to_string(type.devices) + " x " + type.accelerator;
    const double bottom = ring ? -2.6 : group.switches > 0 ? -0.95 : -0.65;
    const double top = 2.75;
    add(Shape::frame, left + width / 2, (top + bottom) / 2, width, top - bottom, "");
    add_text(left + width / 2, bottom + 0.18, title);
    std::map<std::int64_t, std::size_t> devices;
    std::map<std::int64_t, double> column;
    double x = left + 0.15 + (width - 0.3 - columns * step) / 2 + step / 2;
    for (const std::int64_t position : shown.items) {
      if (shown.left_out > 0 && position == shown.items.back()) {
        add_text(x - step * 0.25, 1.2, "... " + std::to_string(shown.left_out));
        x += step * 0.5;
      }
      column[position] = x;
      if (!ring) devices[position] = add_device(group, index, node, position, x, 1.2);
      x += step;
    }
    const double middle = left + width / 2;
    const std::int64_t links = group.first_link + node * group.links_of_node;
    if (ring) {
      paint_ring(index, node, middle, devices);
    } else if (group.mesh) {
      for (std::int64_t position = 0; position + 1 < type.devices; ++position) {
        if (!devices.contains(position) || !devices.contains(position + 1)) continue;
        const std::int64_t chip = node * type.devices + position;
        if (group.mesh->end_of(group.mesh->link(chip, first_axis(*group.mesh), true)) == chip + 1)
          add_line(devices[position], devices[position + 1],
                   group.first_link + group.mesh->link(chip, first_axis(*group.mesh), true));
      }
    } else {
      paint_switches(group, links, middle, width, devices, column);
    }
    paint_nics(group, node, column, devices);
    right_ = left + width;
  }

  static std::size_t first_axis(const Mesh& mesh) {
    std::size_t axis = 0;
    while (axis + 1 < mesh.axes() && mesh.torus().shape[axis] == 1) ++axis;
    return axis;
  }

  void paint_switches(const NodeGroup& group, std::int64_t links, double middle, double width,
                      const std::map<std::int64_t, std::size_t>& devices,
                      const std::map<std::int64_t, double>& column) {
    const NodeType& type = group.type;
    const bool pcie = type.interconnect == Interconnect::pcie;
    const std::size_t root = add(Shape::box, middle, group.switches > 0 ? -0.25 : 0.1, std::min(width - 0.4, 3.0), 0.36,
                                 pcie ? "host" : "NVSwitch");
    std::map<std::int64_t, std::size_t> switches;
    for (const auto& [position, device] : devices) {
      if (group.switches == 0) {
        add_line(device, root, links + 2 * position);
        continue;
      }
      const std::int64_t number = position / type.per_switch;
      if (!switches.contains(number)) {
        const std::int64_t last = std::min(type.devices, (number + 1) * type.per_switch) - 1;
        const double right = column.contains(last) ? column.at(last) : column.at(position);
        switches[number] =
            add(Shape::box, (column.at(position) + right) / 2, 0.4, 1.1, 0.32, "switch " + std::to_string(number));
        add_line(switches[number], root, links + 2 * (type.devices + number));
      }
      add_line(device, switches[number], links + 2 * position);
    }
  }

  void paint_ring(std::size_t index, std::int64_t node, double middle, std::map<std::int64_t, std::size_t>& devices) {
    const NodeGroup& group = layout_.groups()[index];
    const double radius = 1.55;
    for (std::int64_t position = 0; position < group.type.devices; ++position) {
      const double angle = std::numbers::pi * (0.5 + 2.0 * (static_cast<double>(position) + 0.5) /
                                                         static_cast<double>(group.type.devices));
      devices[position] = add_device(group, index, node, position, middle - radius * 1.2 * std::cos(angle),
                                     -0.35 + radius * std::sin(angle));
    }
    for (std::size_t i = 0; i < group.type.wiring.size(); ++i) {
      const Wire& wire = group.type.wiring[i];
      add_line(devices[wire.from], devices[wire.to],
               group.first_link + node * group.links_of_node + 2 * static_cast<std::int64_t>(i), wire.width);
    }
  }

  // Above the devices that they serve.
  void paint_nics(const NodeGroup& group, std::int64_t node, const std::map<std::int64_t, double>& column,
                  const std::map<std::int64_t, std::size_t>& devices) {
    std::map<std::int64_t, std::pair<double, int>> places;
    for (const auto& [position, x] : column) {
      auto& [sum, count] = places[position * group.nics / group.type.devices];
      sum += x;
      ++count;
    }
    for (const auto& [nic, place] : places) {
      const double x = place.first / place.second;
      const std::int64_t number = group.first_nic + node * group.nics + nic;
      nics_[number] = add(Shape::nic, x, 2.45, 0.62, 0.3, "nic " + std::to_string(nic));
    }
    for (const auto& [position, device] : devices) {
      const std::int64_t nic = group.first_nic + node * group.nics + position * group.nics / group.type.devices;
      if (!group.wiring) diagram_.lines.push_back({.from = nics_.at(nic), .to = device, .kind = LinkKind::nic});
    }
  }

  void paint_clos(const Clos& clos) {
    const double middle = right_ / 2;
    std::map<std::int64_t, std::vector<std::int64_t>> nics_of;  // by leaf
    for (const auto& [nic, box] : nics_) nics_of[clos.leaf_of(nic)].push_back(nic);
    const auto count = static_cast<double>(nics_of.size());
    const double width = std::max(right_, count * 1.25);
    std::map<std::int64_t, std::size_t> leaves;
    double x = middle - width / 2 + width / count / 2;
    for (const auto& [leaf, nics] : nics_of) {
      const bool lone = clos.tiers() == 1 && clos.leaves() == 1;
      leaves[leaf] = add(Shape::box, x, 4.2, lone ? 2.2 : 0.95, 0.4, lone ? "switch" : "leaf " + std::to_string(leaf));
      for (const std::int64_t nic : nics) add_line(nics_.at(nic), leaves[leaf], layout_.nic_link(nic, Direction::out));
      x += width / count;
    }
    const auto left_out = clos.leaves() - static_cast<std::int64_t>(leaves.size());
    if (left_out > 0) add_text(middle + width / 2 + 0.7, 4.2, "+ " + std::to_string(left_out) + " more leaves");
    if (clos.tiers() == 1) return;
    std::map<std::int64_t, std::vector<std::int64_t>> pods;
    for (const auto& [leaf, box] : leaves) pods[clos.tiers() > 2 ? clos.pod_of(leaf) : 0].push_back(leaf);
    const auto pod_count = static_cast<double>(pods.size());
    x = middle - width / 2 + width / pod_count / 2;
    std::vector<std::pair<std::int64_t, std::size_t>> spines;  // of each pod, one box
    for (const auto& [pod, leaves_of_pod] : pods) {
      const std::string label =
          counted(clos.spines(), "spine") + (clos.tiers() > 2 ? " of pod " + std::to_string(pod) : "");
      spines.emplace_back(pod,
                          add(Shape::box, x, 5.9, std::max(0.9, 0.1 * static_cast<double>(label.size())), 0.4, label));
      for (const std::int64_t leaf : leaves_of_pod)
        add_line(leaves.at(leaf), spines.back().second, layout_.first_fabric_link() + clos.leaf_link(leaf, 0, true),
                 clos.spines());
      x += width / pod_count;
    }
    if (clos.tiers() > 2) paint_cores(clos, middle, width, spines);
  }

  void paint_cores(const Clos& clos, double middle, double width,
                   const std::vector<std::pair<std::int64_t, std::size_t>>& pods) {
    const std::int64_t cores = clos.spines() * clos.cores();
    const std::size_t box = add(Shape::box, middle, 7.4, 2.2, 0.4, counted(cores, "core") + " or ports of cores");
    diagram_.boxes[box].label = counted(cores, "core port") + " for each pod";
    for (const auto& [pod, spines] : pods)
      add_line(spines, box, layout_.first_fabric_link() + clos.core_link(pod, 0, true), clos.spines() * clos.cores());
    const auto left_out = clos.pods() - static_cast<std::int64_t>(pods.size());
    if (left_out > 0) add_text(middle + width / 2 + 0.7, 5.9, "+ " + counted(left_out, "more pod"));
  }

  void paint_dragonfly(const Dragonfly& dragonfly) {
    const double middle = right_ / 2;
    const std::int64_t in_group = dragonfly.routers() / dragonfly.groups();
    const Shown shown = shown_of(in_group, 8);
    std::map<std::int64_t, std::size_t> routers;
    const double radius = 1.9;
    const double y = 6.6;
    add(Shape::frame, middle, y, 6.2, 5.0, "");
    add_text(middle, y + 2.25, "group 0: " + counted(in_group, "router"));
    const auto places = static_cast<double>(shown.items.size() + (shown.left_out > 0 ? 1 : 0));
    double place = 0;
    const auto next = [&] {
      const double angle = std::numbers::pi * (1.5 + 2 * place++ / places);
      return std::pair{middle + 1.25 * radius * std::cos(angle), y - 0.15 + radius * std::sin(angle)};
    };
    for (const std::int64_t router : shown.items) {
      if (shown.left_out > 0 && router == shown.items.back()) {
        const auto [x, at] = next();
        add_text(x, at, "... " + std::to_string(shown.left_out));
      }
      const auto [x, at] = next();
      routers[router] = add(Shape::box, x, at, 0.9, 0.36, "router " + std::to_string(router));
    }
    const std::int64_t other_groups = dragonfly.groups() - 1;
    const Shown groups = shown_of(other_groups, 5);
    std::map<std::int64_t, std::size_t> other;
    double height = y + 2;
    for (const std::int64_t group : groups.items) {
      if (groups.left_out > 0 && group == groups.items.back()) {
        add_text(middle + 5.6, height, "... " + std::to_string(groups.left_out));
        height -= 0.7;
      }
      other[group + 1] = add(Shape::box, middle + 5.6, height, 1.2, 0.5, "group " + std::to_string(group + 1));
      height -= 0.9;
    }
    std::set<std::pair<std::int64_t, std::int64_t>> drawn;
    dragonfly.for_each_link([&](std::int64_t from, std::int64_t to, std::int64_t link) {
      const std::int64_t id = layout_.first_fabric_link() + link;
      const bool inside = from < in_group && to < in_group;
      if (inside && from < to && routers.contains(from) && routers.contains(to))
        add_line(routers[from], routers[to], id);
      const std::int64_t group = to / in_group;
      if (from < in_group && !inside && routers.contains(from) && other.contains(group) &&
          drawn.emplace(from, group).second)
        add_line(routers[from], other[group], id,
                 layout_.healthy(id).capacity.count / std::max<std::int64_t>(1, dragonfly.cable().count));
    });
    for (const auto& [nic, box] : nics_) {
      const std::int64_t router = dragonfly.router_of(nic);
      if (!routers.contains(router)) continue;
      add_line(box, routers[router], layout_.nic_link(nic, Direction::out));
    }
  }

  // A corner of the first slice, whole where it is small.
  void paint_slices(const NodeGroup& group) {
    const Mesh& mesh = *group.mesh;
    const Torus& torus = mesh.torus();
    std::vector<std::int64_t> axes;  // that are longer than one
    for (std::size_t axis = 0; axis < mesh.axes(); ++axis)
      if (torus.shape[axis] > 1) axes.push_back(static_cast<std::int64_t>(axis));
    const std::int64_t most = axes.size() > 2 ? 4 : 8;
    std::vector<std::int64_t> extent(mesh.axes(), 1);
    for (const std::int64_t axis : axes)
      extent[static_cast<std::size_t>(axis)] = std::min(torus.shape[static_cast<std::size_t>(axis)], most);
    const bool deep = axes.size() > 2;
    const double spacing = deep ? 2.2 : 1.1;
    const std::array<std::pair<double, double>, 3> direction{{{spacing, 0}, {0, deep ? 1.7 : 0.8}, {0.48, 0.34}}};
    const auto at = [&](const std::vector<std::int64_t>& place) {
      std::pair<double, double> point{1.2, 0.8};
      for (std::size_t i = 0; i < axes.size(); ++i) {
        const auto steps = static_cast<double>(place[static_cast<std::size_t>(axes[i])]);
        point.first += steps * direction.at(i).first;
        point.second += steps * direction.at(i).second;
      }
      return point;
    };
    std::map<std::int64_t, std::size_t> boxes;
    std::map<std::int64_t, std::vector<std::int64_t>> places;
    for (std::int64_t chip = mesh.chips(); chip-- > 0;) {  // from the back
      std::vector<std::int64_t> place(mesh.axes());
      bool shown = true;
      for (std::size_t axis = 0; axis < mesh.axes(); ++axis) {
        place[axis] = mesh.coordinate(chip, axis);
        shown = shown && place[axis] < extent[axis];
      }
      if (!shown) continue;
      const auto [x, y] = at(place);
      boxes[chip] = add(Shape::device, x, y, deep ? 0.44 : 0.62, 0.28, std::to_string(chip));
      diagram_.boxes[boxes[chip]].faulty =
          layout_.speed({.group = 0, .node = chip / group.type.devices, .position = chip % group.type.devices}) != 1;
      places[chip] = place;
      right_ = std::max(right_, x + 0.9);
      top_ = std::max(top_, y + 0.6);
    }
    for (const auto& [chip, box] : boxes) paint_chip_links(group, chip, boxes, at, places.at(chip));
    std::string title = "slice 0: ";
    for (std::size_t axis = 0; axis < mesh.axes(); ++axis)
      title += (axis > 0 ? " x " : "") + std::to_string(torus.shape[axis]);
    title += " chips of " + group.type.accelerator;
    std::string closed;
    for (std::size_t axis = 0; axis < mesh.axes(); ++axis)
      if (torus.wraps[axis]) closed += (closed.empty() ? "" : ", ") + std::string{"xyz"[axis]};
    title += closed.empty() ? ", open at the edges (a mesh)" : ", closed along " + closed;
    if (static_cast<std::int64_t>(boxes.size()) < mesh.chips())
      title += "; " + std::to_string(boxes.size()) + " of " + std::to_string(mesh.chips()) + " drawn";
    const double title_width = 0.08 * static_cast<double>(title.size());
    add_text(std::max(right_ / 2, title_width / 2), 0.1, title);
    if (torus.slices > 1) paint_data_centre(group);
  }

  template <class At>
  void paint_chip_links(const NodeGroup& group, std::int64_t chip, const std::map<std::int64_t, std::size_t>& boxes,
                        const At& at, const std::vector<std::int64_t>& place) {
    const Mesh& mesh = *group.mesh;
    for (std::size_t axis = 0; axis < mesh.axes(); ++axis) {
      for (const bool up : {true, false}) {
        const std::int64_t link = mesh.link(chip, axis, up);
        const auto end = mesh.end_of(link);
        if (!end) continue;
        const bool around = up ? *end < chip : *end > chip;
        if (!around && boxes.contains(*end)) {
          if (up) add_line(boxes.at(chip), boxes.at(*end), group.first_link + link);
          continue;
        }
        // Round to the other side, or on to what is not drawn.
        const auto [x, y] = at(place);
        std::vector<std::int64_t> beyond = place;
        beyond[axis] += up ? 1 : -1;
        const auto [there_x, there_y] = at(beyond);
        const std::size_t point = add_point(x + 0.45 * (there_x - x), y + 0.45 * (there_y - y));
        add_line(boxes.at(chip), point, group.first_link + link, 1, true);
      }
    }
  }

  void paint_data_centre(const NodeGroup& group) {
    const std::int64_t slices = group.mesh->torus().slices;
    const std::int64_t hosts = group.nodes / slices;
    const double x = right_ + 2.2;
    const std::size_t centre = add(Shape::box, x, top_ / 2, 2.0, 0.5, "data centre network");
    const Shown shown = shown_of(slices, 5);
    double y = top_ / 2 + 0.4 * static_cast<double>(shown.items.size());
    const auto* clos = std::get_if<Clos>(&layout_.switches());
    if (clos != nullptr && clos->tiers() > 1)
      diagram_.boxes[centre].label += ", " + counted(clos->leaves(), "leaf switch");
    for (const std::int64_t slice : shown.items) {
      if (shown.left_out > 0 && slice == shown.items.back()) {
        add_text(x + 3, y, "... " + std::to_string(shown.left_out));
        y -= 0.6;
      }
      const std::string name = "slice " + std::to_string(slice) + ", " + counted(hosts, "host");
      const std::size_t box = add(Shape::device, x + 3, y, 1.7, 0.4, name);
      add_line(box, centre, layout_.nic_link(slice * hosts * group.nics, Direction::out), hosts * group.nics);
      y -= 0.8;
    }
  }

  const Layout& layout_;
  Diagram diagram_;
  double right_ = 0;
  double top_ = 0;
  std::map<std::int64_t, std::size_t> nics_;  // that are drawn
};

}  // namespace

Diagram draw(const Cluster& cluster) { return Painter(cluster.layout()).paint(); }

}  // namespace trainyard::topology
