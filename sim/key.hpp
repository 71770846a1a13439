// A parameter described once: the reader fills it, `--help` and `show` print it, generators draw it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "sim/long_time.hpp"
#include "sim/units.hpp"

namespace trainyard::sim {

// A word out of a fixed list; `value` is one of `choices`.
struct Choice {
  std::string value;
  std::vector<std::string_view> choices;
};

struct Key {
  using Target = std::variant<bool*, std::int64_t*, double*, std::string*, Choice*, Bytes*, BytesPerSecond*,
                              FlopsPerSecond*, Duration*, std::optional<bool>*, std::optional<std::int64_t>*,
                              std::optional<double>*, std::optional<std::string>*, std::vector<std::int64_t>*,
                              LongDuration*, std::optional<LongDuration>*>;
  std::string_view name;
  Target target;  // holds the default until a scenario sets it
  std::string_view help;
  bool required = false;
  // Bounds of whole numbers and of ratios; a value outside is reported where it stands.
  double least = 0;
  double most = 1e15;
};

}  // namespace trainyard::sim
