#include "topology/internal/wiring.hpp"

#include <algorithm>
#include <numeric>

#include "topology/internal/detours.hpp"

namespace trainyard::topology {
namespace {

using Ring = std::vector<std::size_t>;  // pairs of corners, as indices into the matrix of widths

// Packs as many rings as the widths allow. Small: eight devices have at most a few hundred rings.
class RingSearch {
 public:
  // Corner c is device of_corner[c]; two corners of one device share its cables.
  RingSearch(std::vector<std::int64_t> of_corner, std::int64_t devices, const std::vector<std::int64_t>& width)
      : of_corner_(std::move(of_corner)), devices_(devices), left_(width) {
    std::vector<std::size_t> order(of_corner_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    extend(order, 1);
  }

  std::int64_t most() {
    pack(0, 0);
    return best_;
  }

 private:
  std::size_t pair(std::size_t a, std::size_t b) const {
    const auto [low, high] = std::minmax(of_corner_[a], of_corner_[b]);
    return static_cast<std::size_t>(low * devices_ + high);
  }

  // All rings that begin with the first corner, each in one direction only.
  void extend(std::vector<std::size_t>& order, std::size_t fixed) {
    const std::size_t count = order.size();
    if (fixed == count) {
      if (count > 2 && order[1] > order[count - 1]) return;
      Ring ring;
      for (std::size_t i = 0; i < count; ++i) ring.push_back(pair(order[i], order[(i + 1) % count]));
      if (fits(ring)) rings_.push_back(std::move(ring));
      return;
    }
    for (std::size_t i = fixed; i < count; ++i) {
      std::swap(order[fixed], order[i]);
      if (left_[pair(order[fixed - 1], order[fixed])] > 0) extend(order, fixed + 1);
      std::swap(order[fixed], order[i]);
    }
  }

  bool fits(const Ring& ring) {
    const bool fitting = take(ring);
    give_back(ring);
    return fitting;
  }
  bool take(const Ring& ring) {
    bool fitting = true;
    for (const std::size_t pair : ring) fitting = --left_[pair] >= 0 && fitting;
    return fitting;
  }
  void give_back(const Ring& ring) {
    for (const std::size_t pair : ring) ++left_[pair];
  }

  void pack(std::size_t from, std::int64_t taken) {
    best_ = std::max(best_, taken);
    for (std::size_t i = from; i < rings_.size(); ++i) {
      if (taken + possible() <= best_) return;
      if (take(rings_[i])) pack(i, taken + 1);  // the same again where wires are wide
      give_back(rings_[i]);
    }
  }
  // A ring takes two cables at each device that it passes once.
  std::int64_t possible() const {
    std::int64_t least = 1 << 20;
    for (const std::int64_t device : of_corner_) {
      std::int64_t cables = 0;
      for (std::int64_t other = 0; other < devices_; ++other) {
        const auto [low, high] = std::minmax(device, other);
        if (std::find(of_corner_.begin(), of_corner_.end(), other) != of_corner_.end())
          cables += left_[static_cast<std::size_t>(low * devices_ + high)];
      }
      least = std::min(least, cables / 2);
    }
    return least;
  }

  std::vector<std::int64_t> of_corner_;
  std::int64_t devices_;
  std::vector<std::int64_t> left_;
  std::vector<Ring> rings_;
  std::int64_t best_ = 0;
};

}  // namespace

Wiring::Wiring(std::int64_t devices, const std::vector<Wire>& wires, const std::vector<std::int64_t>& broken)
    : devices_(devices),
      paths_(static_cast<std::size_t>(devices * devices)),
      width_(static_cast<std::size_t>(devices * devices)) {
  std::vector<std::size_t> order(wires.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return wires[a].width > wires[b].width; });
  Detours graph(static_cast<std::size_t>(devices));
  for (const std::size_t i : order) {
    const auto wire = static_cast<std::int64_t>(i);
    if (std::find(broken.begin(), broken.end(), wire) != broken.end()) continue;
    graph.add(wires[i].from, wires[i].to, 2 * wire);
    graph.add(wires[i].to, wires[i].from, 2 * wire + 1);
    const auto [low, high] = std::minmax(wires[i].from, wires[i].to);
    width_[static_cast<std::size_t>(low * devices + high)] += wires[i].width;
  }
  for (std::int64_t from = 0; from < devices; ++from)
    for (std::int64_t to = 0; to < devices; ++to)
      paths_[static_cast<std::size_t>(from * devices + to)] =
          graph.path(from, to).value_or(std::vector<std::int64_t>{});
}

bool Wiring::connected() const {
  for (std::int64_t to = 1; to < devices_; ++to)
    if (path(0, to).empty()) return false;
  return true;
}

std::int64_t Wiring::rings(std::span<const std::int64_t> devices) const {
  if (devices.size() == 2) {  // there and back over one cable
    const auto [low, high] = std::minmax(devices[0], devices[1]);
    return width_[static_cast<std::size_t>(low * devices_ + high)];
  }
  std::vector<std::int64_t> corners(devices.begin(), devices.end());
  constexpr std::size_t most_corners = 9;  // the search grows with the factorial
  if (corners.size() < 2 || corners.size() > most_corners) return 0;
  // A ring and its reverse use the two directions of the same cables.
  if (const std::int64_t once = RingSearch(corners, devices_, width_).most(); once > 0) return 2 * once;
  std::int64_t most = 0;
  for (const std::int64_t device : devices) {
    corners.push_back(device);
    most = std::max(most, RingSearch(corners, devices_, width_).most());
    corners.pop_back();
  }
  return 2 * most;
}

}  // namespace trainyard::topology
