// Named streams of random numbers: what one part of a simulation draws does not depend on what others draw, so that a
// change of one of them is seen against the same luck of the others.
//
// xoshiro256++ (Blackman and Vigna, ACM TOMS 47, 2021), its state filled by SplitMix64 from the seed and the name. No
// std::*_distribution: those differ between libraries.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace trainyard::sim {

class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::string_view name);

  std::uint64_t next();
  double uniform();                        // above 0, at most 1: has a logarithm
  std::int64_t below(std::int64_t limit);  // 0 ... limit - 1, each as likely
  bool chance(double probability);         // draws nothing where it is 0 or 1
  double exponential(double mean);
  // Lomax (Pareto II) of shape 3: a heavy tail that still has a variance. Half of all draws are below 0.52 of the mean,
  // one in a hundred above 7.3 times it.
  double heavy_tailed(double mean);

 private:
  std::array<std::uint64_t, 4> state_{};
};

// A seed for one of many repetitions.
std::uint64_t repetition_seed(std::uint64_t seed, std::uint64_t repetition);

}  // namespace trainyard::sim
