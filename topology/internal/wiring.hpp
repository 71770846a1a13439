// Devices of a node joined by cables of their own, such as the hybrid cube mesh of DGX-1.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "topology/hardware.hpp"

namespace trainyard::topology {

class Wiring {
 public:
  // Without the wires in `broken`.
  Wiring(std::int64_t devices, const std::vector<Wire>& wires, const std::vector<std::int64_t>& broken = {});

  // Link 2w is wire w from its first end to its second, 2w + 1 the way back. The shortest path, over wide wires where
  // there are several; empty where the devices are not joined.
  const std::vector<std::int64_t>& path(std::int64_t from, std::int64_t to) const {
    return paths_[static_cast<std::size_t>(from * devices_ + to)];
  }
  bool connected() const;
  // Rings in one direction that lead through all these devices, over cables of their own: the most that there are.
  // Where no ring passes each device once, one device may be passed twice.
  std::int64_t rings(std::span<const std::int64_t> devices) const;

 private:
  std::int64_t devices_;
  std::vector<std::vector<std::int64_t>> paths_;
  std::vector<std::int64_t> width_;  // between two devices
};

}  // namespace trainyard::topology
