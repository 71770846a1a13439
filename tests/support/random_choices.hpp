// Random input for property tests: what is drawn, and how many cases of it.
#pragma once

#include <array>
#include <cstdint>
#include <cstdlib>
#include <random>

namespace trainyard::tests {

class RandomChoices {
 public:
  explicit RandomChoices(std::uint64_t seed) : bits_(seed) {}
  template <class Value, std::size_t count>
  Value of(const std::array<Value, count>& values) {
    return values.at(static_cast<std::size_t>(bits_() % count));
  }
  bool one_in(std::uint64_t n) { return bits_() % n == 0; }
  std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>(bits_() % static_cast<std::uint64_t>(n)); }

 private:
  std::mt19937_64 bits_;
};

inline std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

}  // namespace trainyard::tests
