#include "scenarios/page.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "scenarios/internal/embedded.hpp"
#include "sim/ensure.hpp"

namespace trainyard::scenarios {
namespace {

std::optional<std::string_view> asset(const std::string& name) {
  const auto files = embedded_files();
  const auto file = std::ranges::find(files, "pages/" + name, &EmbeddedFile::path);
  if (file == files.end()) return std::nullopt;
  return file->text;
}

std::string_view required_asset(const std::string& name) {
  const std::optional<std::string_view> text = asset(name);
  sim::ensure(text.has_value(), "the scripts and styles of a page are built in");
  return *text;
}

std::string escaped(std::string_view text) {
  std::string result;
  for (const char letter : text) {
    switch (letter) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += letter;
    }
  }
  return result;
}

// Of a kind, in the order that they run.
std::vector<std::string_view> scripts_of(const std::string& kind) {
  std::vector<std::string_view> scripts;
  for (const EmbeddedFile& file : embedded_files())  // ordered by path
    if (file.path.starts_with("pages/" + kind + "-") && file.path.ends_with(".js")) scripts.push_back(file.text);
  scripts.push_back(required_asset(kind + ".js"));
  return scripts;
}

// Nothing may be fetched from anywhere, so that a page tells nobody that it was opened.
constexpr std::string_view policy =
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'";

}  // namespace

PageFrame page_frame(const Page& page) {
  std::string html =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"";
  html += policy;
  html += "\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>";
  html += escaped(page.title) + " – Trainyard</title>\n";
  const auto style = [&](std::string_view text) {
    html += "<style>\n";
    html += text;
    html += "</style>\n";
  };
  style(required_asset("common.css"));
  if (const auto own = asset(page.kind + ".css")) style(*own);
  html += "</head>\n<body>\n<header><h1>" + escaped(page.title) +
          "</h1><nav id=\"contents\"></nav></header>\n"
          "<main id=\"page\"><noscript>This page draws its tables and charts with JavaScript, which is switched off."
          "</noscript></main>\n<footer>Trainyard " TRAINYARD_VERSION ", from " +
          escaped(page.made_from) +
          ". Everything shown is in this file.</footer>\n"
          "<script id=\"data\" type=\"application/json\">";

  std::string after = "</script>\n<!--\n";
  after += required_asset("chart-licence.txt");
  after += "-->\n";
  const auto script = [&](std::string_view text) {
    after += "<script>\n";
    after += text;
    after += "</script>\n";
  };
  script(required_asset("chart.js"));
  script(required_asset("common.js"));
  for (const std::string_view text : scripts_of(page.kind)) script(text);
  after += "</body>\n</html>\n";
  return {.before_data = std::move(html), .after_data = std::move(after)};
}

// JSON has '<' only inside of strings. Without it, nothing there can end the element that the data is in.
std::string page_data(std::string_view json) {
  std::string result;
  result.reserve(json.size());
  for (const char letter : json) {
    if (letter == '<')
      result += "\\u003c";
    else
      result += letter;
  }
  return result;
}

std::string to_html(const Page& page) {
  const PageFrame frame = page_frame(page);
  return frame.before_data + page_data(page.data) + frame.after_data;
}

}  // namespace trainyard::scenarios
