#include "scenarios/internal/document.hpp"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <system_error>
#include <utility>

namespace trainyard::scenarios {
namespace {

// Far beyond any real scenario; an input beyond them is a mistake or an attack (aliases of aliases).
constexpr std::size_t most_bytes = std::size_t{4} << 20U;
constexpr std::size_t most_values = 200'000;
constexpr std::size_t most_depth = 100;

Value make_value(Value::Kind kind, Location where) {
  Value value;
  value.kind = kind;
  value.where = std::move(where);
  return value;
}

std::size_t count_values(const Value& value) {
  std::size_t count = 1;
  for (const Entry& entry : value.entries) count += count_values(entry.key) + count_values(entry.value);
  for (const Value& item : value.items) count += count_values(item);
  return count;
}

// Builds the tree from the parser's events. The nodes of yaml-cpp would share what aliases name, and lose key order.
class Builder : public YAML::EventHandler {
 public:
  explicit Builder(std::string file) : file_(std::move(file)) {}

  void OnDocumentStart(const YAML::Mark& /*mark*/) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(1, mark);
    complete(make_value(Value::Kind::null, location(mark)), anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) throw ScenarioError(location(mark), "an alias refers to a value that contains it");
    add(count_values(found->second), mark);
    complete(found->second, 0);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    add(1, mark);
    Value value = make_scalar(text, location(mark));
    value.quoted = tag != "?";  // "!" for quotes; an explicit tag such as !!str counts as quotes
    complete(std::move(value), anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& /*tag*/, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value /*style*/) override {
    open(Value::Kind::sequence, mark, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& /*tag*/, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value /*style*/) override {
    open(Value::Kind::map, mark, anchor);
  }
  void OnMapEnd() override { close(); }

  Value take() { return std::move(root_); }

 private:
  struct Frame {
    Value value;
    std::optional<Value> key;  // of the entry whose value comes next
    YAML::anchor_t anchor = 0;
  };

  Location location(const YAML::Mark& mark) const {
    return {.file = file_, .line = mark.line + 1, .column = mark.column + 1};
  }
  void add(std::size_t values, const YAML::Mark& mark) {
    values_ += values;
    if (values_ > most_values) throw ScenarioError(location(mark), "the file holds too many values");
  }
  void open(Value::Kind kind, const YAML::Mark& mark, YAML::anchor_t anchor) {
    add(1, mark);
    if (frames_.size() >= most_depth) throw ScenarioError(location(mark), "the file is nested too deeply");
    frames_.push_back({.value = make_value(kind, location(mark)), .key = {}, .anchor = anchor});
  }
  void close() {
    Frame frame = std::move(frames_.back());
    frames_.pop_back();
    complete(std::move(frame.value), frame.anchor);
  }
  void complete(Value value, YAML::anchor_t anchor) {
    if (anchor != 0) anchors_[anchor] = value;
    if (frames_.empty()) {
      root_ = std::move(value);
      return;
    }
    Frame& frame = frames_.back();
    if (frame.value.is_sequence()) {
      frame.value.items.push_back(std::move(value));
    } else if (!frame.key) {
      if (!value.is_scalar()) throw ScenarioError(value.where, "expected the name of a key");
      frame.key = std::move(value);
    } else {
      frame.value.entries.push_back({.key = std::move(*frame.key), .value = std::move(value)});
      frame.key.reset();
    }
  }

  std::string file_;
  Value root_;
  std::vector<Frame> frames_;
  std::map<YAML::anchor_t, Value> anchors_;
  std::size_t values_ = 0;
};

// The parser would take some control characters for the end of the file.
void require_text(std::string_view text, const std::string& file) {
  if (text.size() > most_bytes) throw ScenarioError({.file = file}, "the file is larger than 4 MiB");
  int line = 1;
  for (const char letter : text) {
    if (letter == '\n') ++line;
    const auto byte = static_cast<unsigned char>(letter);
    if (byte < ' ' && letter != '\n' && letter != '\r' && letter != '\t')
      throw ScenarioError({.file = file, .line = line, .column = 1}, "not a text file");
  }
}

void relocate(Value& value, const Location& where) {
  value.where = where;
  for (Entry& entry : value.entries) {
    relocate(entry.key, where);
    relocate(entry.value, where);
  }
  for (Value& item : value.items) relocate(item, where);
}

Value& item_at(Value& list, const std::string& name, std::string_view path, const Location& where) {
  std::size_t index = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
  if (error != std::errc{} || end != name.data() + name.size() || index >= list.items.size())
    throw ScenarioError(where, "'" + name + "' in '" + std::string{path} + "' is no place in a list of " +
                                   std::to_string(list.items.size()));
  return list.items[index];
}

// The value under one name of a path, made where it is missing.
Value& step_into(Value& value, const std::string& name, std::string_view path, const Location& where) {
  if (value.is_sequence()) return item_at(value, name, path, where);
  if (!value.is_map()) {
    Value map = make_map(where);
    if (value.is_scalar()) set(map, "base", std::move(value));
    value = std::move(map);
  }
  if (Value* found = value.find(name)) return *found;
  value.entries.push_back({.key = make_scalar(name, where), .value = make_value(Value::Kind::null, where)});
  return value.entries.back().value;
}

}  // namespace

const Value* Value::find(std::string_view key) const {
  const auto found = std::find_if(entries.begin(), entries.end(), [&](const Entry& e) { return e.key.scalar == key; });
  return found == entries.end() ? nullptr : &found->value;
}

Value* Value::find(std::string_view key) { return const_cast<Value*>(std::as_const(*this).find(key)); }

Value make_scalar(std::string text, Location where) {
  Value value = make_value(Value::Kind::scalar, std::move(where));
  value.scalar = std::move(text);
  return value;
}

Value make_map(Location where) { return make_value(Value::Kind::map, std::move(where)); }

void set(Value& map, std::string_view key, Value value) {
  if (Value* found = map.find(key)) {
    *found = std::move(value);
    return;
  }
  Value name = make_scalar(std::string{key}, value.where);
  map.entries.push_back({.key = std::move(name), .value = std::move(value)});
}

void remove(Value& map, std::string_view key) {
  std::erase_if(map.entries, [&](const Entry& entry) { return entry.key.scalar == key; });
}

std::string describe(const Value& value) {
  constexpr std::size_t longest = 60;
  switch (value.kind) {
    case Value::Kind::null:
      return "nothing";
    case Value::Kind::map:
      return "a map";
    case Value::Kind::sequence:
      return "a list";
    case Value::Kind::scalar:
      break;
  }
  const bool cut = value.scalar.size() > longest;
  return (value.quoted ? "the text '" : "'") + value.scalar.substr(0, longest) + (cut ? "...'" : "'");
}

Value parse_yaml(std::string_view text, const std::string& file) {
  require_text(text, file);
  try {
    std::istringstream stream{std::string{text}};
    YAML::Parser parser{stream};
    Builder builder{file};
    if (!parser.HandleNextDocument(builder)) throw ScenarioError({.file = file}, "the file is empty");
    Builder rest{file};
    if (parser.HandleNextDocument(rest)) throw ScenarioError({.file = file}, "expected one document, found several");
    return builder.take();
  } catch (const YAML::Exception& error) {
    throw ScenarioError({.file = file, .line = error.mark.line + 1, .column = error.mark.column + 1}, error.msg);
  }
}

std::string read_text(const std::filesystem::path& path) {
  const Location where{.file = path.string()};
  std::error_code error;
  if (!std::filesystem::exists(path, error)) throw ScenarioError(where, "no such file");
  if (std::filesystem::is_directory(path, error)) throw ScenarioError(where, "expected a file, got a folder");
  std::ifstream stream{path, std::ios::binary};
  if (!stream) throw ScenarioError(where, "the file cannot be read");
  std::string text(most_bytes + 1, '\0');  // one more, so that a file too large shows
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (stream.bad()) throw ScenarioError(where, "the file cannot be read");
  text.resize(static_cast<std::size_t>(stream.gcount()));
  return text;
}

Value read_document(const std::filesystem::path& path) { return parse_yaml(read_text(path), path.string()); }

Value parse_value(std::string_view text, const Location& where) {
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) throw ScenarioError(where, "expected a value");
  try {
    Value value = parse_yaml(text, where.file);
    relocate(value, where);
    return value;
  } catch (const ScenarioError& error) {
    throw ScenarioError(where, "'" + std::string{text} + "' is no value: " + error.diagnostics().front().message);
  }
}

void make_partial(Value& value) {
  value.partial = true;
  for (Entry& entry : value.entries) make_partial(entry.value);
  for (Value& item : value.items) make_partial(item);
}

Value merged(const Value& base, const Value& refinement) {
  if (!base.is_map() || !refinement.is_map()) return refinement;
  Value result = make_map(refinement.where);
  result.partial = base.partial || refinement.partial;
  result.entries = base.entries;
  std::vector<std::string_view> seen;
  for (const Entry& entry : refinement.entries) {
    const std::string_view name = entry.key.scalar;
    const bool again = std::find(seen.begin(), seen.end(), name) != seen.end();
    seen.push_back(name);
    const auto found = std::find_if(result.entries.begin(), result.entries.end(),
                                    [&](const Entry& other) { return other.key.scalar == name; });
    if (again || found == result.entries.end()) {
      result.entries.push_back(entry);  // a key given twice stays given twice
    } else {
      *found = {.key = entry.key, .value = merged(found->value, entry.value)};
    }
  }
  return result;
}

void set_at(Value& root, std::string_view path, const Value& value) {
  Value* place = &root;
  std::size_t from = 0;
  while (from <= path.size()) {
    const std::size_t dot = std::min(path.find('.', from), path.size());
    const std::string name{path.substr(from, dot - from)};
    if (name.empty()) throw ScenarioError(value.where, "'" + std::string{path} + "' is no path of keys");
    place = &step_into(*place, name, path, value.where);
    from = dot + 1;
  }
  *place = value;
}

void apply_override(Value& root, std::string_view assignment) {
  const Location where{.file = "--set " + std::string{assignment}};
  const std::size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0)
    throw ScenarioError(where, "expected PATH=VALUE, such as cluster.nodes=128");
  set_at(root, assignment.substr(0, equals), parse_value(assignment.substr(equals + 1), where));
}

void apply_overrides(Value& root, std::span<const std::string> assignments) {
  std::vector<Diagnostic> mistakes;
  for (const std::string& assignment : assignments) {
    try {
      apply_override(root, assignment);
    } catch (const ScenarioError& error) {
      mistakes.insert(mistakes.end(), error.diagnostics().begin(), error.diagnostics().end());
    }
  }
  if (!mistakes.empty()) throw ScenarioError(std::move(mistakes));
}

Value read_document(const std::filesystem::path& path, std::span<const std::string> overrides) {
  Value root = read_document(path);
  if (!root.is_map()) throw ScenarioError(root.where, "expected a map of keys, got " + describe(root));
  apply_overrides(root, overrides);
  return root;
}

}  // namespace trainyard::scenarios
