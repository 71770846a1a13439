// Quantities as people write them: "400 Gbit/s", "80 GiB", "2 us".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "sim/long_time.hpp"
#include "sim/units.hpp"

namespace trainyard::scenarios {

// The value, or what is wrong: "expected a size such as '80 GiB', got '80'".
template <class T>
struct Parsed {
  std::optional<T> value;
  std::string error;
};

// Exact decimal arithmetic, rounded once, to the nearest byte, byte per second, FLOP per second or picosecond. Not
// negative. Rates of bits ("400 Gbit/s", "400 Gb/s") are divided by eight.
Parsed<sim::Bytes> parse_bytes(std::string_view text);
Parsed<sim::BytesPerSecond> parse_bytes_per_second(std::string_view text);
Parsed<sim::FlopsPerSecond> parse_flops_per_second(std::string_view text);
Parsed<sim::Duration> parse_duration(std::string_view text);
// To the nearest microsecond; a year has 365 days.
Parsed<sim::LongDuration> parse_long_duration(std::string_view text);

// "1024", "2_000", "15e12": whole however it is written, with a sign if need be.
Parsed<std::int64_t> parse_whole_number(std::string_view text);
Parsed<double> parse_real_number(std::string_view text);

// For summaries, three digits: "63.2 GiB", "412 ms", "50 GB/s", "989 TFLOP/s"; counts have four: "175.2 B".
std::string format_bytes(sim::Bytes bytes);
std::string format_duration(sim::Duration duration);
std::string format_seconds(double seconds);
std::string format_long_seconds(double seconds);  // up to days: "13.6 min", "54 days"
std::string format_long_duration(sim::LongDuration duration);
std::string format_rate(sim::BytesPerSecond rate);
std::string format_rate(sim::FlopsPerSecond rate);
std::string format_count(double count);
std::string format_energy(double kwh);   // "5.2 Wh", "34.1 kWh", "1.98 GWh"
std::string format_power(double watts);  // "514 W", "1.22 kW"

}  // namespace trainyard::scenarios
