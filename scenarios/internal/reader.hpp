// From values to typed members, with every mistake reported where it was written.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/document.hpp"
#include "sim/key.hpp"

namespace trainyard::scenarios {

// A key whose value is read by other code; the target stays null where the key is absent.
struct Section {
  std::string_view name;
  const Value** target;
  bool required = false;
};

// A key, or one value of a key, that Trainyard knows but cannot simulate yet.
struct Later {
  std::string_view name;
  std::string_view value = {};
  std::string_view instead = {};  // what to write today, where that is not plain
};

struct Fields {
  std::span<const sim::Key> keys = {};
  std::span<const Section> sections = {};
  std::span<const Later> later = {};
  bool foreign = false;  // another tool's file: keys that are not listed do not matter, and null is absence
};

class Reader {
 public:
  // Reads a map that stands at `path` ("cluster.node"; empty at the top) into the targets of its keys.
  void read(const Value& map, const std::string& path, const Fields& fields);
  void read(const Value& map, std::span<const sim::Key> keys) { read(map, "", {.keys = keys}); }

  void report(Location where, std::string message);
  void report(const ScenarioError& error);  // all that it holds
  // At the key, or the nearest key around it that was given: "strategy.tensor: message".
  void report_at(const std::string& path, const std::string& message);

  // Remembers where a key was given; `read` does so by itself. Not what a catalogue entry gave: mistakes that only
  // show later belong to the line of the scenario that named the entry.
  void note(const std::string& path, const Value& key, const Value& value);
  bool given(const std::string& path) const { return places_.contains(path); }
  Location location_of(std::string_view path) const;

  std::size_t mistakes() const { return diagnostics_.size(); }
  void throw_mistakes() const;  // if there are any

 private:
  void read_entry(const Entry& entry, const std::string& path, const Fields& fields);
  bool report_later(const Entry& entry, const std::string& path, const Fields& fields);

  std::vector<Diagnostic> diagnostics_;
  std::map<std::string, Location, std::less<>> places_;
};

// Puts a value into the target of a key. What is wrong with it; empty: nothing.
std::string set_key(const Value& value, const sim::Key& key);

std::string join(const std::string& path, std::string_view name);  // "cluster" and "node": "cluster.node"

}  // namespace trainyard::scenarios
