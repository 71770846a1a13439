// An HTML page that opens anywhere: all that it needs is inside it, and it fetches nothing.
#pragma once

#include <string>
#include <string_view>

namespace trainyard::scenarios {

// The same page gives the same bytes, whenever and wherever it is written.
struct Page {
  std::string title;      // text, not HTML
  std::string made_from;  // "scenario gpt3.yaml", for the foot of the page
  // "run": scenarios/pages/run.js draws the page, with what run-*.js before it define; run.css is its own style if
  // there is one.
  std::string kind;
  std::string data;  // JSON, which the script finds in `trainyard.data`; it may hold any text
};

// With Chart.js and scenarios/pages/common.{js,css}, which are the same on every page.
std::string to_html(const Page& page);

// For data that is written bit by bit: what stands before and after it. Each bit goes through `page_data`.
struct PageFrame {
  std::string before_data;
  std::string after_data;
};
PageFrame page_frame(const Page& page);
std::string page_data(std::string_view json);

}  // namespace trainyard::scenarios
