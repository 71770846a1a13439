#include "scenarios/quantity.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>

namespace trainyard::scenarios {
namespace {

using sim::Bytes;
using sim::BytesPerSecond;
using sim::Duration;
using sim::FlopsPerSecond;

TEST(Quantity, SizesAreReadExactly) {
  EXPECT_EQ(parse_bytes("80 GiB").value, Bytes{80LL << 30U});
  EXPECT_EQ(parse_bytes("50 MB").value, Bytes{50'000'000});
  EXPECT_EQ(parse_bytes("1e9 B").value, Bytes{1'000'000'000});
  EXPECT_EQ(parse_bytes("1.1MB").value, Bytes{1'100'000});
  EXPECT_EQ(parse_bytes("0 B").value, Bytes{0});
}

TEST(Quantity, WhatIsNoWholeNumberOfBytesIsRoundedOnce) {
  EXPECT_EQ(parse_bytes("79.15 GiB").value, Bytes{84'986'665'370});  // 84986665369.6
  EXPECT_EQ(parse_bytes("0.5 B").value, Bytes{1});
}

TEST(Quantity, RatesOfBitsAreDividedByEight) {
  EXPECT_EQ(parse_bytes_per_second("400 Gbit/s").value, BytesPerSecond{50'000'000'000});
  EXPECT_EQ(parse_bytes_per_second("400 Gb/s").value, BytesPerSecond{50'000'000'000});
  EXPECT_EQ(parse_bytes_per_second("3.35 TB/s").value, BytesPerSecond{3'350'000'000'000});
  EXPECT_EQ(parse_bytes_per_second("1 GiB/s").value, BytesPerSecond{1LL << 30U});
}

TEST(Quantity, RatesOfFlopAreRead) {
  EXPECT_EQ(parse_flops_per_second("989 TFLOP/s").value, FlopsPerSecond{989'000'000'000'000});
  EXPECT_EQ(parse_flops_per_second("494.5 TFLOPS").value, FlopsPerSecond{494'500'000'000'000});
}

TEST(Quantity, DurationsAreRead) {
  EXPECT_EQ(parse_duration("2 us").value, Duration{2'000'000});
  EXPECT_EQ(parse_duration("16.8 \xC2\xB5s").value, Duration{16'800'000});
  EXPECT_EQ(parse_duration("0.13 us").value, Duration{130'000});
  EXPECT_EQ(parse_duration("1.5 s").value, Duration{1'500'000'000'000});
}

TEST(Quantity, ABareNumberIsRefused) {
  EXPECT_EQ(parse_bytes_per_second("400").error, "expected a size per second such as '400 Gbit/s', got '400'");
  EXPECT_EQ(parse_bytes("80").error, "expected a size such as '80 GiB', got '80'");
}

TEST(Quantity, AnotherUnitIsRefused) {
  EXPECT_FALSE(parse_bytes("400 Gbit/s").value);
  EXPECT_FALSE(parse_bytes_per_second("400 GB").value);
  EXPECT_FALSE(parse_duration("2 usec").value);
  EXPECT_FALSE(parse_bytes("GiB").value);
  EXPECT_FALSE(parse_bytes("").value);
  EXPECT_FALSE(parse_bytes("1 2 GiB").value);
}

TEST(Quantity, NegativeAndEndlessAmountsAreRefused) {
  EXPECT_NE(parse_bytes("-1 GiB").error.find("negative"), std::string::npos);
  EXPECT_NE(parse_bytes("1e30 GiB").error.find("too large"), std::string::npos);
  EXPECT_NE(parse_bytes("9223372036854775808 B").error.find("too large"), std::string::npos);
  EXPECT_NE(parse_duration("1e-15 s").error.find("less than one picosecond"), std::string::npos);
  EXPECT_FALSE(parse_duration("1e999999999999 s").value);
  EXPECT_FALSE(parse_duration("inf s").value);
}

TEST(Quantity, WholeNumbersMayBeWrittenInAnyWholeForm) {
  EXPECT_EQ(parse_whole_number("1024").value, 1024);
  EXPECT_EQ(parse_whole_number("-3").value, -3);
  EXPECT_EQ(parse_whole_number("1e6").value, 1'000'000);
  EXPECT_EQ(parse_whole_number("1.5e3").value, 1'500);
  EXPECT_EQ(parse_whole_number("2_000").value, 2'000);
  EXPECT_EQ(parse_whole_number("100").value, 100);
  EXPECT_EQ(parse_whole_number("8.0").value, 8);
  EXPECT_EQ(parse_whole_number("0").value, 0);
  EXPECT_EQ(parse_whole_number("9223372036854775807").value, std::numeric_limits<std::int64_t>::max());
}

TEST(Quantity, WhatIsNotWholeIsRefused) {
  for (const char* text : {"1.5", "1e-1", "x", "", "8x", "0x10", "1__0", "_1", "1_", "1.", ".", "-", "1e", "nan"})
    EXPECT_FALSE(parse_whole_number(text).value) << text;
}

TEST(Quantity, RealNumbersAreRead) {
  EXPECT_EQ(parse_real_number("0.803").value, 0.803);
  EXPECT_EQ(parse_real_number("1").value, 1.0);
  EXPECT_EQ(parse_real_number("1e-3").value, 1e-3);
  for (const char* text : {"inf", "nan", "", "0.5x", "1e400"}) EXPECT_FALSE(parse_real_number(text).value) << text;
}

TEST(Quantity, SummariesHaveThreeDigits) {
  EXPECT_EQ(format_bytes(Bytes{67'860'000'000}), "63.2 GiB");
  EXPECT_EQ(format_bytes(Bytes{1'073'741'823}), "1 GiB");
  EXPECT_EQ(format_bytes(Bytes{1000}), "1000 B");
  EXPECT_EQ(format_bytes(Bytes{1500}), "1.46 KiB");
  EXPECT_EQ(format_bytes(Bytes{0}), "0 B");
  EXPECT_EQ(format_duration(Duration{31'900'000'000'000}), "31.9 s");
  EXPECT_EQ(format_duration(Duration{412'000'000'000}), "412 ms");
  EXPECT_EQ(format_duration(Duration{18'000'000}), "18 us");
  EXPECT_EQ(format_duration(Duration{999'600'000}), "1 ms");
  EXPECT_EQ(format_duration(Duration{0}), "0 s");
  EXPECT_EQ(format_duration(Duration{12'345'000'000'000'000}), "12345 s");
  EXPECT_EQ(format_rate(BytesPerSecond{50'000'000'000}), "50 GB/s");
  EXPECT_EQ(format_rate(FlopsPerSecond{494'500'000'000'000}), "494.5 TFLOP/s");
  EXPECT_EQ(format_count(175.181e9), "175.2 B");
  EXPECT_EQ(format_count(8.03e9), "8.03 B");
  EXPECT_EQ(format_count(124), "124");
}

}  // namespace
}  // namespace trainyard::scenarios
