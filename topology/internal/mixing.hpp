// Random choices that are the same on every machine: integers only.
#pragma once

#include <cstdint>

namespace trainyard::topology {

// The finalizer of SplitMix64 (Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
constexpr std::uint64_t mix(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15U;
  value = (value ^ (value >> 30U)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27U)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31U);
}

// An even choice of 0 ... count-1.
constexpr std::int64_t pick(std::uint64_t hash, std::int64_t count) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::int64_t>((static_cast<Wide>(hash) * static_cast<Wide>(count)) >> 64U);
}

}  // namespace trainyard::topology
