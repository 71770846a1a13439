// A route in the making.
#pragma once

#include <cstdint>
#include <numeric>

#include "topology/cluster.hpp"

namespace trainyard::topology {

// Links of a part of the cluster are numbered from 0 there; `base` is where they begin among all.
inline void append(Route& route, std::uint32_t base, std::int64_t link, std::int64_t part = 1, std::int64_t whole = 1) {
  const std::int64_t divisor = whole == 1 ? 1 : std::gcd(part, whole);
  route.links.push_back({.link = LinkId{base + static_cast<std::uint32_t>(link)},
                         .numerator = static_cast<std::uint32_t>(part / divisor),
                         .denominator = static_cast<std::uint32_t>(whole / divisor)});
}

}  // namespace trainyard::topology
