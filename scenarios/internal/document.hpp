// YAML and JSON files as a tree of values, each of which knows where it was written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/diagnostics.hpp"

namespace trainyard::scenarios {

struct Entry;

struct Value {
  enum class Kind : std::uint8_t { null, scalar, map, sequence };
  Kind kind = Kind::null;
  std::string scalar;
  bool quoted = false;   // text even where it looks like a number
  bool partial = false;  // a map that refines what is unknown: keys it lacks are not missing
  std::vector<Entry> entries;
  std::vector<Value> items;
  Location where;

  bool is_null() const { return kind == Kind::null; }
  bool is_scalar() const { return kind == Kind::scalar; }
  bool is_map() const { return kind == Kind::map; }
  bool is_sequence() const { return kind == Kind::sequence; }

  // The value of the first such key of a map, or null.
  const Value* find(std::string_view key) const;
  Value* find(std::string_view key);
};

// A key given twice is kept twice: the reader reports it.
struct Entry {
  Value key;
  Value value;
};

Value make_scalar(std::string text, Location where);
Value make_map(Location where);
// Replaces the value of the key, or adds it.
void set(Value& map, std::string_view key, Value value);
void remove(Value& map, std::string_view key);

std::string describe(const Value& value);  // "'x'", "a map", "a list", "nothing"

// One document. Throws ScenarioError on anything else: no document or several, bad syntax, absurd depth or size.
Value parse_yaml(std::string_view text, const std::string& file);
Value read_document(const std::filesystem::path& path);
std::string read_text(const std::filesystem::path& path);  // of a file that is not absurdly large

// The value of a command-line argument or a table's cell, all of it at `where`.
Value parse_value(std::string_view text, const Location& where);

// The map and all maps in it are partial from now on.
void make_partial(Value& value);

// Maps merge key by key, at any depth; anything else is replaced.
Value merged(const Value& base, const Value& refinement);

// Puts `value` at a path such as "cluster.node.nics". Missing maps are made; a catalogue name on the way
// (`node: dgx-h100`) becomes the base of a map; a number leads into a list. Throws at the place of `value`.
void set_at(Value& root, std::string_view path, const Value& value);

// "cluster.node.nics=4", with a YAML value; mistakes are reported at "--set cluster.node.nics=4".
void apply_override(Value& root, std::string_view assignment);
// One after the other; mistakes of all of them are reported together.
void apply_overrides(Value& root, std::span<const std::string> assignments);

// A map of keys with what is overridden. Throws ScenarioError.
Value read_document(const std::filesystem::path& path, std::span<const std::string> overrides);

}  // namespace trainyard::scenarios
