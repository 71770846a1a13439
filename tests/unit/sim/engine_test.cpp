#include "sim/engine.hpp"

#include <gtest/gtest.h>

#include <string>

namespace trainyard::sim {
namespace {

template <class A, class B>
concept can_be_added = requires(A a, B b) {
  a + b;
};

constexpr LongTime at(std::int64_t second) { return {seconds(second)}; }

TEST(LongTime, DoesNotMixWithTheTimeOfAStep) {
  EXPECT_TRUE((can_be_added<LongDuration, LongDuration>));
  EXPECT_TRUE((can_be_added<LongTime, LongDuration>));
  EXPECT_FALSE((can_be_added<LongDuration, Duration>));
  EXPECT_FALSE((can_be_added<LongTime, Duration>));
  EXPECT_FALSE((std::is_convertible_v<LongDuration, Duration>));
}

TEST(LongTime, PassesTheRangeOfAStepAndSaysWhereItEnds) {
  EXPECT_EQ(to_seconds(days(365) * 1000), 365.0 * 1000 * 86400);
  EXPECT_EQ(long_duration(1.5e-6).count, 2);
  EXPECT_THROW(days(365) * 1'000'000, TooLarge);
  EXPECT_THROW(long_duration(1e13), TooLarge);
}

TEST(LongTime, AShareIsRoundedDown) {
  EXPECT_EQ(share_of({10}, 2, 3).count, 6);
  EXPECT_EQ(share_of({9'000'000'000'000'000'000}, 7, 9).count, 7'000'000'000'000'000'000);
}

TEST(Engine, RunsByTimeThenOrderThenWhoCameFirst) {
  Engine engine;
  std::string seen;
  engine.at(at(2), 0, [&] { seen += "d"; });
  engine.at(at(1), 5, [&] { seen += "b"; });
  engine.at(at(1), 5, [&] { seen += "c"; });
  engine.at(at(1), 1, [&] { seen += "a"; });
  engine.run(at(10));
  EXPECT_EQ(seen, "abcd");
  EXPECT_EQ(engine.now(), at(10));
}

TEST(Engine, WhatAnActionAddsRunsInItsTurn) {
  Engine engine;
  std::string seen;
  engine.at(at(1), 0, [&] {
    seen += "a";
    engine.after({}, 0, [&] { seen += "b"; });
    engine.after(seconds(2), 0, [&] { seen += "d"; });
  });
  engine.at(at(2), 0, [&] { seen += "c"; });
  engine.run(at(10));
  EXPECT_EQ(seen, "abcd");
}

TEST(Engine, WhatIsCancelledOrComesAtTheLimitDoesNotHappen) {
  Engine engine;
  std::string seen;
  const Engine::Event event = engine.at(at(1), 0, [&] { seen += "a"; });
  engine.at(at(2), 0, [&] { seen += "b"; });
  engine.at(at(3), 0, [&] { seen += "c"; });
  engine.cancel(event);
  engine.run(at(3));
  EXPECT_EQ(seen, "b");
  engine.cancel(event);
  engine.run(at(4));
  EXPECT_EQ(seen, "bc");
}

TEST(Engine, TwoOfThemKnowNothingOfEachOther) {
  Engine one;
  Engine other;
  int count = 0;
  one.at(at(1), 0, [&] { count += 1; });
  other.at(at(1), 0, [&] { count += 10; });
  one.run(at(5));
  EXPECT_EQ(count, 1);
  EXPECT_EQ(other.now(), at(0));
}

}  // namespace
}  // namespace trainyard::sim
