// The claims that ship with Trainyard: what it says of each today, and that a verdict follows its inputs.
#include "scenarios/claims.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <thread>

#include "scenarios/internal/document.hpp"
#include "tests/support/sweeps.hpp"

namespace trainyard::scenarios {
namespace {

const std::filesystem::path folder = std::filesystem::path{TRAINYARD_SOURCE_DIR} / "scenarios" / "claims";

ClaimResults tested(const Claims& claims) {
  static const Catalog catalog;
  return test_claims(claims, catalog, {.jobs = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()))});
}

const ClaimResults& built_in() {
  static const ClaimResults results = tested(Claims::built_in());
  return results;
}

TEST(ShippedClaims, AllAreDecidedAsTheReadmeSays) {
  const std::map<std::string, std::string> verdicts{
      {"G1", "depends"},   {"G2", "depends"},    {"G3", "depends"},  {"G4", "depends"},  {"G5", "depends"},
      {"G6", "confirmed"}, {"G7", "depends"},    {"G8", "depends"},  {"G9", "depends"},  {"G10", "depends"},
      {"G11", "depends"},  {"G12", "refuted"},   {"G13", "depends"}, {"G14", "depends"}, {"G15", "depends"},
      {"G16", "depends"},  {"G17", "confirmed"}, {"G18", "depends"}, {"G19", "depends"}, {"G20", "depends"},
      {"G21", "refuted"},  {"G22", "depends"},   {"G23", "depends"}};
  std::map<std::string, std::string> found;
  for (const ClaimResult& result : built_in().claims) {
    EXPECT_EQ(result.failed, "") << result.id;
    found[result.id] = result.verdict ? std::string{to_string(*result.verdict)} : "failed";
  }
  EXPECT_EQ(found, verdicts);
}

TEST(ShippedClaims, AnEstimateThatDiffersHasAReason) {
  for (const ClaimResult& result : built_in().claims)
    for (const ClaimNumberResult& number : result.numbers)
      EXPECT_TRUE(!number.estimate || !number.estimate->differs || !number.note.empty())
          << result.id << " " << number.name << ": " << figure_text(number.value, number.unit);
}

// A claim that ships, with other words in its text.
ClaimResult with(const std::string& file, const std::map<std::string, std::string>& changes) {
  std::string text = read_text(folder / file);
  for (const auto& [from, to] : changes) {
    EXPECT_NE(text.find(from), std::string::npos) << from;
    for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
      text.replace(at, from.size(), to);
  }
  const tests::SweepFolder files;
  const std::filesystem::path library = folder.parent_path() / "library";
  for (std::size_t at = text.find("../library"); at != std::string::npos; at = text.find("../library"))
    text.replace(at, std::string{"../library"}.size(), library.string());
  const std::vector<std::filesystem::path> paths{files.write(file, text)};
  return tested(Claims::load(paths)).claims.front();
}

TEST(ShippedClaims, OnAFasterNetworkCommunicationIsWhatTheClaimSays) {
  EXPECT_EQ(with("g01-communication-overhead.yaml", {}).verdict, Verdict::depends);
  const ClaimResult fast = with("g01-communication-overhead.yaml",
                                {{"nic_rate: 25 Gbit/s", "nic_rate: 400 Gbit/s"},
                                 {"[10, 25, 40, 60, 80, 100, 125, 150, 200, 300, 400, 600, 800]", "[200, 400, 800]"}});
  EXPECT_EQ(fast.verdict, Verdict::confirmed) << fast.because;
}

TEST(ShippedClaims, WhereGpusAreDearTpusAreCheaper) {
  EXPECT_EQ(with("g09-tpu-cheaper.yaml", {}).verdict, Verdict::depends);
  const ClaimResult dear = with("g09-tpu-cheaper.yaml", {{"3.00 USD/h", "5.00 USD/h"},
                                                         {"2.35 USD/h", "4.00 USD/h"},
                                                         {"cost.price: h100}", "cost.price: {on_demand: 6 USD/h}}"}});
  EXPECT_EQ(dear.verdict, Verdict::confirmed) << dear.because;
}

TEST(ShippedClaims, AModelWithoutIdleExpertsTakesNoMoreMemory) {
  EXPECT_EQ(with("g21-experts-for-little-memory.yaml", {}).verdict, Verdict::refuted);
  EXPECT_EQ(with("g21-experts-for-little-memory.yaml", {{"model: mixtral-8x7b", "model: llama2-7b"}}).verdict,
            Verdict::confirmed);
}

}  // namespace
}  // namespace trainyard::scenarios
