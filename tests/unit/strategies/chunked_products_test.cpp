// Products and collectives in pieces, against the closed form of their pipeline.
#include "strategies/internal/chunked_products.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "sim/executor.hpp"

namespace trainyard::strategies {
namespace {

constexpr std::int64_t pieces = 4;
constexpr double split_efficiency = 0.95;  // as the code estimates it

// Of two ranks, in picoseconds.
std::int64_t time_of(bool gathers, std::int64_t product_ps, std::int64_t collective_ps) {
  PlanBuilder builder;
  const sim::StreamId stream = builder.stream("tensor parallel");
  const sim::SlotId slot = builder.slot("tensor");
  const sim::Kernel product{.name = "product", .kind = sim::KernelClass::matmul, .duration = sim::Duration{product_ps}};
  BlockWriter block = builder.block("block", {});
  const PiecewiseCollective collective{.stream = stream, .slot = slot, .bytes = sim::Bytes{4000}, .pieces = pieces};
  if (gathers)
    write_gathered_product(block, collective, {product});
  else
    write_reduced_product(block, collective, {product});
  sim::Program program{.name = "all ranks", .calls = {{.block = block.finish()}}, .resident = {}};
  sim::Plan& plan = builder.plan();
  plan.programs.add(program);
  plan.program_of = sim::Table<sim::RankId, sim::ProgramId>(2);
  plan.communicators = sim::CommunicatorTable(2, plan.slots.size());
  plan.communicators.add({sim::RankId{0}, sim::RankId{1}}, {slot, slot});
  std::vector<sim::CommunicationCost> costs;
  for (const sim::Call& call : plan.calls)
    costs.push_back({.duration = sim::Duration{collective_ps * call.bytes.count / 4000}, .traffic = sim::no_traffic});
  plan.costs.add(costs);
  const sim::Outcome outcome = sim::run(plan);
  EXPECT_EQ(outcome.stall, "");
  return outcome.step_time.count();
}

// The slower of the two goes through; of the other, one piece is left.
std::int64_t expected(std::int64_t product_ps, std::int64_t collective_ps) {
  const auto split = static_cast<std::int64_t>(static_cast<double>(product_ps) / split_efficiency);
  return std::max(split + collective_ps / pieces, collective_ps + split / pieces);
}

TEST(ChunkedProducts, TakeTheLongerOfProductAndCollectiveAndAPieceOfTheOther) {
  for (const bool gathers : {true, false})
    for (const std::int64_t collective : {100'000, 400'000, 4'000'000})
      EXPECT_NEAR(static_cast<double>(time_of(gathers, 950'000, collective)),
                  static_cast<double>(expected(950'000, collective)), pieces)
          << gathers << ' ' << collective;
}

}  // namespace
}  // namespace trainyard::strategies
