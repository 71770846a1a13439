#include "sim/random.hpp"

#include "sim/ensure.hpp"
#include "sim/portable_math.hpp"

namespace trainyard::sim {
namespace {

// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): one step of its sequence.
std::uint64_t split_mix(std::uint64_t& state) {
  state += 0x9e3779b97f4a7c15U;
  std::uint64_t mixed = state;
  mixed = (mixed ^ (mixed >> 30U)) * 0xbf58476d1ce4e5b9U;
  mixed = (mixed ^ (mixed >> 27U)) * 0x94d049bb133111ebU;
  return mixed ^ (mixed >> 31U);
}

// FNV-1a.
std::uint64_t hash_of(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const char letter : name) hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3U;
  return hash;
}

constexpr std::uint64_t rotated(std::uint64_t bits, unsigned by) { return (bits << by) | (bits >> (64U - by)); }

}  // namespace

RandomStream::RandomStream(std::uint64_t seed, std::string_view name) {
  std::uint64_t mixer = seed ^ hash_of(name);
  for (std::uint64_t& word : state_) word = split_mix(mixer);
}

std::uint64_t RandomStream::next() {
  const std::uint64_t result = rotated(state_[0] + state_[3], 23) + state_[0];
  const std::uint64_t shifted = state_[1] << 17U;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = rotated(state_[3], 45);
  return result;
}

double RandomStream::uniform() { return static_cast<double>((next() >> 11U) + 1) * 0x1p-53; }

std::int64_t RandomStream::below(std::int64_t limit) {
  ensure(limit > 0, "something is drawn out of something");
  const auto range = static_cast<std::uint64_t>(limit);
  const std::uint64_t uneven = (0 - range) % range;  // so many draws would favour small numbers
  std::uint64_t drawn = next();
  while (drawn < uneven) drawn = next();
  return static_cast<std::int64_t>(drawn % range);
}

bool RandomStream::chance(double probability) {
  if (probability <= 0) return false;
  return probability >= 1 || uniform() <= probability;
}

double RandomStream::exponential(double mean) { return -mean * portable_log(uniform()); }

double RandomStream::heavy_tailed(double mean) {
  constexpr double shape = 3;
  return mean * (shape - 1) * (portable_power(uniform(), -1 / shape) - 1);
}

std::uint64_t repetition_seed(std::uint64_t seed, std::uint64_t repetition) {
  std::uint64_t mixer = seed;
  std::uint64_t mixed = split_mix(mixer) ^ repetition;
  return split_mix(mixed);
}

}  // namespace trainyard::sim
