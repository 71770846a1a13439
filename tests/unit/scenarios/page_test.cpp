#include "scenarios/page.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace trainyard::scenarios {
namespace {

constexpr std::string_view attack = "</script><script>alert(1)</script><!--";

std::string page_with(const std::string& title, const std::string& data) {
  return to_html({.title = title, .made_from = "scenario test.yaml", .kind = "run", .data = data});
}

std::size_t count_of(std::string_view part, std::string_view text) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

std::string data_of(const std::string& html) {
  const std::string start = "<script id=\"data\" type=\"application/json\">";
  const std::size_t from = html.find(start) + start.size();
  return html.substr(from, html.find("</script>", from) - from);
}

TEST(Page, HoldsItsScriptsAndFetchesNothing) {
  const std::string html = page_with("a run", "{}");
  EXPECT_NE(html.find("Chart.js v3"), std::string::npos);
  EXPECT_NE(html.find("Permission is hereby granted"), std::string::npos);
  EXPECT_NE(html.find("default-src 'none'"), std::string::npos);
  for (const char* fetches : {"src=\"", "<link", "@import", "url("}) EXPECT_EQ(count_of(fetches, html), 0) << fetches;
}

TEST(Page, SaysWhatItIsAndWhereItCameFrom) {
  const std::string html = page_with("GPT & <friends>", "{}");
  EXPECT_NE(html.find("<title>GPT &amp; &lt;friends&gt; "), std::string::npos);
  EXPECT_NE(html.find("<h1>GPT &amp; &lt;friends&gt;</h1>"), std::string::npos);
  EXPECT_NE(html.find(", from scenario test.yaml."), std::string::npos);
}

TEST(Page, NoTextEndsTheElementThatItIsIn) {
  const std::string plain = page_with("a run", R"({"name": "a name"})");
  const nlohmann::json data{{"name", std::string{attack}}};
  const std::string html = page_with(std::string{attack}, data.dump());
  for (const char* tag : {"<script", "</script", "<!--"}) EXPECT_EQ(count_of(tag, html), count_of(tag, plain)) << tag;
  EXPECT_EQ(nlohmann::json::parse(data_of(html)), data);
}

TEST(Page, IsTheSameEveryTime) { EXPECT_EQ(page_with("a run", "{}"), page_with("a run", "{}")); }

}  // namespace
}  // namespace trainyard::scenarios
