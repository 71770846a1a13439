// An HTML page that opens anywhere: all that it needs is inside it, and it fetches nothing.
#pragma once

#include <string>

namespace trainyard::scenarios {

// The same page gives the same bytes, whenever and wherever it is written.
struct Page {
  std::string title;      // text, not HTML
  std::string made_from;  // "scenario gpt3.yaml", for the foot of the page
  std::string kind;       // "run": scenarios/pages/run.js draws the page, run.css is its own style if there is one
  std::string data;       // JSON, which the script finds in `trainyard.data`; it may hold any text
};

// With Chart.js and scenarios/pages/common.{js,css}, which are the same on every page.
std::string to_html(const Page& page);

}  // namespace trainyard::scenarios
