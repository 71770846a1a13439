// Claims that were put to the test: JSON for programs, text for people.
#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "scenarios/claims.hpp"
#include "scenarios/internal/text.hpp"

namespace trainyard::scenarios {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t width = 120;

// Three significant digits; whole numbers from 1000 on, with their thousands apart.
std::string plain_figure(double value) {
  if (value == 0) return "0";
  const double magnitude = std::abs(value);
  if (magnitude < 1e-3 || magnitude >= 1e15) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%.3g", value);
    return buffer;
  }
  if (std::round(value) == value && magnitude < 1e3) return fixed(value, 0);
  if (magnitude < 999.5) {
    const double unit = std::pow(10, std::floor(std::log10(magnitude)) - 2);
    const double rounded = std::round(magnitude / unit) * unit;  // 99.96 has no decimals
    return fixed(value, std::clamp(2 - static_cast<int>(std::floor(std::log10(rounded) + 1e-9)), 0, 5));
  }
  std::string digits = fixed(value, 0);
  const std::size_t sign = value < 0 ? 1 : 0;
  for (std::size_t at = digits.size(); at > sign + 3; at -= 3) digits.insert(at - 3, ",");
  return digits;
}

std::string signed_percent(double share) {
  return (share < 0 ? "-" : "+") + fixed(100 * std::abs(share), std::abs(share) < 0.1 ? 1 : 0) + " %";
}

std::string capitals(std::string_view word) {
  std::string text{word};
  for (char& letter : text) letter = static_cast<char>(letter >= 'a' && letter <= 'z' ? letter - 'a' + 'A' : letter);
  return text;
}

// Lines of at most `width`, of which all begin with `indent` and the first with `label` in it.
std::string wrapped(std::string_view text, const std::string& label, std::size_t indent) {
  std::string result;
  std::string line = padded_right(label, indent);
  bool empty = true;
  std::size_t from = 0;
  while (from < text.size()) {
    const std::size_t end = std::min(text.find_first_of(" \n", from), text.size());
    const std::string_view word = text.substr(from, end - from);
    from = end + 1;
    if (word.empty()) continue;
    if (!empty && line.size() + 1 + word.size() > width) {
      result += line + "\n";
      line = std::string(indent, ' ');
      empty = true;
    }
    line += (empty ? "" : " ") + std::string{word};
    empty = false;
  }
  return result + line + "\n";
}

std::string range_text(const ClaimEstimate& estimate, const std::string& unit) {
  if (estimate.least == estimate.most) return figure_text(estimate.least, unit);
  return figure_text(estimate.least, unit) + " to " + figure_text(estimate.most, unit);
}

std::string number_line(const ClaimNumberResult& number) {
  constexpr std::size_t what_width = 66;
  std::string line =
      "    " + padded_right(number.what, what_width) + padded_left(figure_text(number.value, number.unit), 16);
  if (!number.estimate) return line + "\n";
  line += "   estimate " + range_text(*number.estimate, number.unit);
  if (number.estimate->differs && number.value) line += " (" + signed_percent(number.estimate->difference) + ")";
  return line + "\n";
}

std::string run_text(const ClaimRunResult& run) {
  if (run.points == 1) return run.what + (run.do_not_fit > 0 ? "; does not fit" : "");
  return std::to_string(run.points) + " runs, " + run.what +
         (run.do_not_fit > 0
              ? "; " + std::to_string(run.do_not_fit) + (run.do_not_fit == 1 ? " does not fit" : " do not fit")
              : "");
}

std::string claim_text(const ClaimResult& result) {
  constexpr std::size_t indent = 14;
  std::string text = padded_right(result.id, 4) + " " + result.title + "\n";
  text += wrapped("\"" + result.claim + "\"" + (result.section.empty() ? "" : " (section " + result.section + ")"),
                  "  claim", indent);
  text += wrapped(result.decides, "  decides", indent);
  std::string label = "  simulated";
  for (const ClaimRunResult& run : result.runs) {
    text += wrapped(run.name + ": " + run_text(run), label, indent);
    label.clear();
  }
  if (!result.failed.empty()) return text + wrapped("not decided: " + result.failed, "  verdict", indent);
  text += "  numbers\n";
  for (const ClaimNumberResult& number : result.numbers) text += number_line(number);
  for (const ClaimNumberResult& number : result.numbers)
    if (!number.note.empty() && (!number.estimate || number.estimate->differs))
      text += wrapped(number.what + ": " + number.note, "  why", indent);
  text += wrapped(capitals(to_string(*result.verdict)) + ": " + result.because, "  verdict", indent);
  if (!result.note.empty()) text += wrapped(result.note, "  note", indent);
  return text;
}

std::string table_line(const ClaimResult& result) {
  const std::string verdict = result.verdict ? std::string{to_string(*result.verdict)} : "failed";
  return "  " + padded_right(result.id, 5) + padded_right(verdict, 11) + result.title + "\n";
}

std::string count_line(const ClaimResults& results) {
  std::array<std::size_t, 3> counts{};
  std::size_t failed = 0;
  for (const ClaimResult& result : results.claims) {
    if (result.verdict)
      ++counts.at(static_cast<std::size_t>(*result.verdict));
    else
      ++failed;
  }
  return std::to_string(results.claims.size()) + " claims, " + std::to_string(results.scenarios) +
         " simulations: " + std::to_string(counts[0]) + " confirmed, " + std::to_string(counts[1]) + " depend, " +
         std::to_string(counts[2]) + " refuted" + (failed == 0 ? "" : ", " + std::to_string(failed) + " failed") + "\n";
}

Json number_or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json estimates_json(const ClaimResult& result) {
  Json estimates = Json::object();
  for (const ClaimNumberResult& number : result.numbers) {
    if (!number.estimate) continue;
    estimates[number.name] = {{"least", number.estimate->least},
                              {"most", number.estimate->most},
                              {"difference", number.estimate->difference},
                              {"differs", number.estimate->differs},
                              {"source", number.estimate->source}};
  }
  return estimates;
}

Json claim_json(const ClaimResult& result) {
  Json runs = Json::array();
  for (const ClaimRunResult& run : result.runs)
    runs.push_back({{"name", run.name}, {"points", run.points}, {"what", run.what}, {"do_not_fit", run.do_not_fit}});
  Json numbers = Json::object();
  Json details = Json::array();
  for (const ClaimNumberResult& number : result.numbers) {
    numbers[number.name] = number_or_null(number.value);
    details.push_back({{"name", number.name},
                       {"what", number.what},
                       {"text", figure_text(number.value, number.unit)},
                       {"unit", number.unit},
                       {"note", number.note}});
  }
  return {{"id", result.id},
          {"title", result.title},
          {"claim", result.claim},
          {"section", result.section},
          {"decides", result.decides},
          {"simulated", runs},
          {"verdict", result.verdict ? Json(to_string(*result.verdict)) : Json(nullptr)},
          {"because", result.because},
          {"numbers", numbers},
          {"number_details", details},
          {"estimates", estimates_json(result)},
          {"note", result.note},
          {"failed", result.failed.empty() ? Json(nullptr) : Json(result.failed)}};
}

}  // namespace

std::string figure_text(const std::optional<double>& value, const std::string& unit) {
  if (!value) return "none";
  if (unit == "%") return fixed(100 * *value, std::abs(*value) >= 9.995 ? 0 : 1) + " %";
  return plain_figure(*value) + (unit.empty() ? "" : " " + unit);
}

std::string to_json(const ClaimResults& results) {
  Json claims = Json::array();
  for (const ClaimResult& result : results.claims) claims.push_back(claim_json(result));
  return Json{{"claims", claims}}.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string to_text(const ClaimResults& results) {
  std::string text;
  for (const ClaimResult& result : results.claims) text += claim_text(result) + "\n";
  for (const ClaimResult& result : results.claims) text += table_line(result);
  return text + "\n" + count_line(results);
}

}  // namespace trainyard::scenarios
