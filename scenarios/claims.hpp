// Claims put to the test: what is said of frameworks and hardware, the scenarios that decide it, and what they say.
//
//     id: G1
//     title: Communication overhead
//     claim: "Communication takes up to 30 % of a step."     # as it is said, and where
//     section: 2b
//     decides: The share of a step that waits for gradients, over the speed of the network.
//     simulate:                                 # what is run, by name
//       ddp:
//         base: ../library/gpt-1.3b-ddp-64-a100.yaml         # a file, the keys of a scenario, or an earlier name
//         set: {cluster.node.nics: 1}
//       curve:                                  # a list: one run for each; lists go together
//         base: ddp
//         over: {gbit: [25, 100, 400]}
//         set: {cluster.node.nic_rate: "{gbit} Gbit/s"}
//     numbers:                                  # of what the runs result in, in order
//       waiting: {what: share of waiting, value: ddp.breakdown_s.exposed_data / ddp.step_time_s, unit: "%",
//                 expected: 0.21, source: "estimate: …", note: "why it differs"}
//       enough: {what: where 30 % is left, value: "crossing(curve, curve.gbit, curve.communication_overhead, 0.3)",
//                unit: Gbit/s}
//     verdict:                                  # the first that holds; the last always does
//       - {when: waiting > 0.3, verdict: refuted, because: "{waiting} of the step, at any speed below {enough}"}
//       - {verdict: confirmed, because: "{waiting}"}
//
// Fields are those of a result, and `communication.PURPOSE.FIELD` for the sum over operations. A share has the unit
// `%`, and is shown as such; any other number is in its unit as it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/catalog.hpp"

namespace trainyard::scenarios {

enum class Verdict : std::uint8_t { confirmed, depends, refuted };
std::string_view to_string(Verdict verdict);

struct Claim;  // internal/claim.hpp

// Claims, read and checked.
class Claims {
 public:
  // Both throw ScenarioError with all that is wrong. Files may be given in any order; no two have the same id.
  static Claims built_in();
  static Claims load(std::span<const std::filesystem::path> files);
  explicit Claims(std::vector<Claim> claims);
  ~Claims();
  Claims(Claims&&) noexcept;
  Claims& operator=(Claims&&) noexcept;

  const std::vector<Claim>& all() const { return claims_; }

 private:
  std::vector<Claim> claims_;
};

// What somebody else has for a number.
struct ClaimEstimate {
  double least = 0;  // a range, or twice the same
  double most = 0;
  double difference = 0;  // of the number from the nearer end, as a share of it
  bool differs = false;   // by more than the tolerance; shares in %, by two points too
  std::string source;
};

struct ClaimNumberResult {
  std::string name;
  std::string what;
  std::string unit;
  std::optional<double> value;  // nothing where there is none, such as a crossing that does not happen
  std::optional<ClaimEstimate> estimate;
  std::string note;
};

struct ClaimRunResult {
  std::string name;
  std::size_t points = 1;
  std::string what;            // "GPT 1.3B, pytorch-ddp, 64 x a100-sxm-80gb"
  std::size_t do_not_fit = 0;  // of the points: what they take is still worked out
};

struct ClaimResult {
  std::string id;
  std::string title;
  std::string claim;
  std::string section;
  std::string decides;
  std::string note;
  std::vector<ClaimRunResult> runs;
  std::vector<ClaimNumberResult> numbers;
  std::optional<Verdict> verdict;
  std::string because;
  std::string failed;  // why there is no verdict
};

struct TestClaimsOptions {
  int jobs = 1;                                                             // scenarios simulated at a time
  std::function<void(std::size_t finished, std::size_t of)> progress = {};  // called one at a time
};

struct ClaimResults {
  std::vector<ClaimResult> claims;
  std::size_t scenarios = 0;  // that were simulated: what several claims have in common once
};

// Simulates what the claims need, each scenario once, and decides. Throws ScenarioError where a scenario is wrong.
ClaimResults test_claims(const Claims& claims, const Catalog& catalog, const TestClaimsOptions& options);

// "21.3 %", "1,024 devices"; "none" where there is no value.
std::string figure_text(const std::optional<double>& value, const std::string& unit);

// As the contract of `--claims --json` has it.
std::string to_json(const ClaimResults& results);
std::string to_text(const ClaimResults& results);

}  // namespace trainyard::scenarios
