#include "sim/units.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <random>

#include "sim/table.hpp"

namespace trainyard::sim {
namespace {

constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max();
__extension__ using Wide = __int128;

template <class A, class B>
concept can_be_added = requires(A a, B b) {
  a + b;
};
template <class A, class B>
concept can_take_time = requires(A a, B b) {
  time_for(a, b);
};

TEST(UnitsTest, QuantitiesOfDifferentUnitsDoNotMix) {
  EXPECT_TRUE((can_be_added<Bytes, Bytes>));
  EXPECT_FALSE((can_be_added<Bytes, Flops>));
  EXPECT_FALSE((can_be_added<Bytes, BytesPerSecond>));
  EXPECT_FALSE((can_be_added<Bytes, std::int64_t>));
  EXPECT_TRUE((can_take_time<Bytes, BytesPerSecond>));
  EXPECT_FALSE((can_take_time<Bytes, FlopsPerSecond>));
  EXPECT_FALSE((can_take_time<Flops, BytesPerSecond>));
}

TEST(UnitsTest, QuantitiesAreAddedScaledAndCompared) {
  EXPECT_EQ(Bytes{3} + Bytes{4}, Bytes{7});
  EXPECT_EQ(Bytes{3} - Bytes{4}, Bytes{-1});
  EXPECT_EQ(Bytes{3} * 4, Bytes{12});
  EXPECT_EQ(-Bytes{3}, Bytes{-3});
  EXPECT_LT(Flops{3}, Flops{4});
  Bytes sum{1};
  sum += Bytes{2};
  EXPECT_EQ(sum, Bytes{3});
}

TEST(UnitsTest, AWholeAmountTakesExactlyItsTime) {
  EXPECT_EQ(time_for(Bytes{900'000'000'000}, BytesPerSecond{900'000'000'000}), std::chrono::seconds{1});
  EXPECT_EQ(time_for(Flops{989}, FlopsPerSecond{989'000'000'000'000}), Duration{1});
  EXPECT_EQ(time_for(Bytes{0}, BytesPerSecond{1}), Duration{0});
}

TEST(UnitsTest, TimeIsRoundedUp) {
  EXPECT_EQ(time_for(Bytes{1}, BytesPerSecond{900'000'000'000}), Duration{2});   // 1.11 ps
  EXPECT_EQ(time_for(Bytes{9}, BytesPerSecond{900'000'000'000}), Duration{10});  // exactly
  EXPECT_EQ(time_for(Bytes{1}, BytesPerSecond{largest}), Duration{1});
}

TEST(UnitsTest, ATransferNeverFinishesEarlyNorAPicosecondLate) {
  std::mt19937_64 random{7};
  for (int i = 0; i < 2000; ++i) {
    const auto bytes = static_cast<std::int64_t>(random() >> (random() % 40 + 14));
    const auto rate = static_cast<std::int64_t>(random() >> (random() % 20 + 20)) + 1'000'000'000;
    const Wide ticks = time_for(Bytes{bytes}, BytesPerSecond{rate}).count();
    const Wide moved = static_cast<Wide>(bytes) * 1'000'000'000'000;
    ASSERT_GE(ticks * rate, moved) << bytes << " B at " << rate << " B/s";
    ASSERT_LT((ticks - 1) * rate, moved) << bytes << " B at " << rate << " B/s";
  }
}

TEST(UnitsTest, AProductBeyond64BitsInBetweenIsNoProblem) {
  EXPECT_EQ(time_for(Bytes{9'000'000'000'000'000'000}, BytesPerSecond{9'000'000'000'000}),
            std::chrono::seconds{1'000'000});
  EXPECT_EQ(scaled(Bytes{largest}, largest, largest), Bytes{largest});
}

TEST(UnitsTest, AFractionOfAnAmountIsRoundedUp) {
  EXPECT_EQ(scaled(Bytes{100}, 14, 8), Bytes{175});
  EXPECT_EQ(scaled(Bytes{10}, 1, 3), Bytes{4});
  EXPECT_EQ(scaled(Bytes{0}, 1, 3), Bytes{0});
}

TEST(UnitsTest, AScaledRateIsRoundedToTheNearestAndStaysPositive) {
  EXPECT_EQ(scaled(BytesPerSecond{1000}, 0.5), BytesPerSecond{500});
  EXPECT_EQ(scaled(BytesPerSecond{3}, 0.5), BytesPerSecond{2});
  EXPECT_EQ(scaled(BytesPerSecond{10}, 0.14), BytesPerSecond{1});
  EXPECT_EQ(scaled(BytesPerSecond{10}, 1e-9), BytesPerSecond{1});
}

TEST(UnitsTest, SecondsAreReadToTheNearestPicosecond) {
  EXPECT_EQ(from_seconds(1.5), Duration{1'500'000'000'000});
  EXPECT_EQ(from_seconds(0.6e-12), Duration{1});
  EXPECT_EQ(from_seconds(0.4e-12), Duration{0});
  EXPECT_DOUBLE_EQ(to_seconds(Duration{2'500'000'000'000}), 2.5);
}

TEST(UnitsTest, TheClockHoldsAHundredDays) {
  const Duration days = std::chrono::hours{24 * 100};
  EXPECT_EQ(days.count(), 8'640'000'000'000'000'000);
  EXPECT_EQ(from_seconds(to_seconds(days)), days);
}

TEST(UnitsTest, WhatDoesNotFitIsTooLarge) {
  EXPECT_THROW(Bytes{largest} + Bytes{1}, TooLarge);
  EXPECT_THROW(Bytes{-largest} - Bytes{2}, TooLarge);
  EXPECT_THROW(Bytes{largest / 2} * 3, TooLarge);
  EXPECT_THROW(time_for(Bytes{largest}, BytesPerSecond{1}), TooLarge);
  EXPECT_THROW(scaled(Bytes{largest}, 2, 1), TooLarge);
  EXPECT_THROW(from_seconds(1e8), TooLarge);
}

TEST(UnitsDeathTest, NegativeAmountsAndRatesOfZeroStopTheRun) {
  EXPECT_DEATH(time_for(Bytes{-1}, BytesPerSecond{1}), "an amount is not negative");
  EXPECT_DEATH(time_for(Bytes{1}, BytesPerSecond{0}), "a rate is positive");
  EXPECT_DEATH(scaled(Bytes{-1}, 1, 2), "a fraction of an amount is not negative");
  EXPECT_DEATH(from_seconds(-1e-12), "a duration is not negative");
}

enum class SeatId : std::uint8_t {};

TEST(TableTest, IdsAreGivenInOrder) {
  Table<SeatId, int> table;
  EXPECT_TRUE(table.empty());
  const SeatId first = table.add(10);
  const SeatId second = table.add(20);
  EXPECT_EQ(table[first], 10);
  EXPECT_EQ(table.at(second), 20);
  EXPECT_EQ(table.id(1), second);
  EXPECT_EQ(table.size(), 2U);
}

TEST(TableDeathTest, AnIdOfAnotherTableStopsTheRun) {
  Table<SeatId, int> table(2, 5);
  EXPECT_DEATH(table.at(SeatId{2}), "an id is in its table");
}

}  // namespace
}  // namespace trainyard::sim
