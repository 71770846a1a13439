#include "workloads/routing.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace trainyard::workloads {
namespace {

// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
class RandomStream {
 public:
  explicit RandomStream(std::uint64_t seed) : state_(seed) {}
  // Uniform in (0, 1].
  double uniform() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    z ^= z >> 31;
    return static_cast<double>((z >> 11) + 1) * 0x1.0p-53;
  }
  double normal() {  // Box and Muller
    const double radius = std::sqrt(-2 * std::log(uniform()));
    return radius * std::cos(2 * 3.14159265358979323846 * uniform());
  }
  // The logarithm of a gamma variate of unit scale (Marsaglia and Tsang, ACM TOMS 26, 2000), since those of small
  // shapes underflow; shapes below one by Johnk's power of a uniform.
  double log_gamma(double shape) {
    if (shape < 1) return log_gamma(shape + 1) + std::log(uniform()) / shape;
    const double d = shape - 1.0 / 3;
    const double c = 1 / std::sqrt(9 * d);
    for (;;) {
      const double x = normal();
      const double v = std::pow(1 + c * x, 3);
      if (v <= 0) continue;
      if (std::log(uniform()) < x * x / 2 + d - d * v + d * std::log(v)) return std::log(d * v);
    }
  }

 private:
  std::uint64_t state_;
};

// Whole numbers in the proportion of `shares` that add up to `tokens`: rounded down, the remainder to the largest.
std::vector<std::int64_t> apportion(const std::vector<double>& shares, std::int64_t tokens) {
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  std::vector<std::int64_t> loads;
  std::int64_t left = tokens;
  for (const double share : shares) {
    const auto load = std::min(left, static_cast<std::int64_t>(static_cast<double>(tokens) * share / sum));
    loads.push_back(load);
    left -= load;
  }
  for (std::size_t i = 0; left > 0; i = (i + 1) % loads.size(), --left) ++loads[i];
  return loads;
}

// What is above `most` goes to the next experts that have room, which are the next most loaded.
void limit(std::vector<std::int64_t>& loads, std::int64_t most) {
  std::int64_t above = 0;
  for (std::int64_t& load : loads) {
    const std::int64_t wanted = load + above;
    load = std::min(wanted, most);
    above = wanted - load;
  }
}

}  // namespace

std::vector<std::int64_t> expert_loads(const ExpertRouting& routing, std::int64_t experts, std::int64_t top_k,
                                       std::int64_t tokens) {
  const auto count = static_cast<std::size_t>(experts);
  if (routing.capacity_factor) {
    const double mean = static_cast<double>(tokens) / static_cast<double>(experts);
    return std::vector<std::int64_t>(count, static_cast<std::int64_t>(std::ceil(*routing.capacity_factor * mean)));
  }
  if (routing.dirichlet) {
    RandomStream random(static_cast<std::uint64_t>(routing.seed));
    std::vector<double> shares(count);
    for (double& share : shares) share = random.log_gamma(*routing.dirichlet);
    std::ranges::sort(shares, std::greater{});
    const double most = shares.front();
    for (double& share : shares) share = std::exp(share - most);
    std::vector<std::int64_t> loads = apportion(shares, tokens);
    limit(loads, (tokens + top_k - 1) / top_k);
    return loads;
  }
  const double most = std::min(static_cast<double>(tokens) / static_cast<double>(top_k),
                               routing.imbalance * static_cast<double>(tokens) / static_cast<double>(experts));
  const std::int64_t even = (tokens + experts - 1) / experts;
  std::vector<std::int64_t> loads{std::max(even, static_cast<std::int64_t>(std::llround(most)))};
  const std::int64_t others = experts - 1;
  const std::int64_t left = tokens - loads.front();
  for (std::int64_t i = 0; i < others; ++i) loads.push_back(left / others + (i < left % others ? 1 : 0));
  return loads;
}

std::vector<std::int64_t> busiest_rank_loads(const ExpertRouting& routing, std::int64_t experts, std::int64_t top_k,
                                             std::int64_t tokens, std::int64_t ranks) {
  if (ranks == 1) return expert_loads(routing, experts, top_k, tokens);
  const auto own = static_cast<std::size_t>(experts / ranks);
  if (routing.capacity_factor) {
    std::vector<std::int64_t> loads = expert_loads(routing, experts, top_k, tokens);
    loads.resize(own);
    for (std::int64_t& load : loads) load *= ranks;
    return loads;
  }
  std::vector<std::int64_t> loads = expert_loads(routing, experts, top_k, tokens * ranks);
  // A stream of its own, so that the loads are those of a single rank.
  RandomStream random(static_cast<std::uint64_t>(routing.seed) + 1);
  for (std::size_t i = loads.size(); own > 1 && i-- > 1;)
    std::swap(loads[i], loads[std::min(i, static_cast<std::size_t>(random.uniform() * static_cast<double>(i + 1)))]);
  std::vector<std::int64_t> busiest;
  std::int64_t most = -1;
  for (std::size_t first = 0; first < loads.size(); first += own) {
    const auto begin = loads.begin() + static_cast<std::ptrdiff_t>(first);
    const std::int64_t sum = std::accumulate(begin, begin + static_cast<std::ptrdiff_t>(own), std::int64_t{0});
    if (sum <= most) continue;
    most = sum;
    busiest.assign(begin, begin + static_cast<std::ptrdiff_t>(own));
  }
  return busiest;
}

std::vector<std::int64_t> drawn_loads(std::int64_t experts, std::int64_t top_k, std::int64_t tokens) {
  const double missed = 1 - static_cast<double>(top_k) / static_cast<double>(experts);
  const double drawn = static_cast<double>(experts) * (1 - std::pow(missed, static_cast<double>(tokens)));
  const std::int64_t count = std::clamp(std::int64_t{std::llround(drawn)}, std::min(top_k, experts), experts);
  std::vector<std::int64_t> loads(static_cast<std::size_t>(experts), 0);
  const std::int64_t rows = tokens * top_k;
  for (std::int64_t i = 0; i < count; ++i)
    loads[static_cast<std::size_t>(i)] = rows / count + (i < rows % count ? 1 : 0);
  return loads;
}

}  // namespace trainyard::workloads
