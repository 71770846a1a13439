#include "scenarios/internal/key_changes.hpp"

#include <string_view>
#include <utility>

#include "scenarios/internal/reader.hpp"
#include "scenarios/internal/value_text.hpp"

namespace trainyard::scenarios {
namespace {

// `node: dgx-h100` says as much as `node: {base: dgx-h100}`.
Value as_map(const Value& name) {
  Value map = make_map(name.where);
  set(map, "base", name);
  return map;
}

bool refines(const Value& value) { return value.is_map() && value.find("base") != nullptr; }

class Comparison {
 public:
  void compare(const Value* from, const Value* to, const std::string& path) {
    if (from != nullptr && to != nullptr && canonical_text(*from) == canonical_text(*to)) return;
    if (from != nullptr && to != nullptr) {
      if (from->is_scalar() && refines(*to)) return compare_maps(as_map(*from), *to, path);
      if (to->is_scalar() && refines(*from)) return compare_maps(*from, as_map(*to), path);
    }
    const bool maps = (from == nullptr || from->is_map()) && (to == nullptr || to->is_map());
    if (maps) return compare_maps(from == nullptr ? Value{} : *from, to == nullptr ? Value{} : *to, path);
    changes_.push_back({.path = path,
                        .from = from == nullptr ? std::nullopt : std::optional{*from},
                        .to = to == nullptr ? std::nullopt : std::optional{*to}});
  }
  std::vector<KeyChange> take() { return std::move(changes_); }

 private:
  void compare_maps(const Value& from, const Value& to, const std::string& path) {
    for (const Entry& entry : from.entries)
      if (to.find(entry.key.scalar) == nullptr) compare(&entry.value, nullptr, join(path, entry.key.scalar));
    for (const Entry& entry : to.entries)
      compare(from.find(entry.key.scalar), &entry.value, join(path, entry.key.scalar));
  }

  std::vector<KeyChange> changes_;
};

void remove_at(Value& root, std::string_view path) {
  Value* map = &root;
  for (std::size_t dot = path.find('.'); dot != std::string_view::npos; dot = path.find('.')) {
    map = map->find(path.substr(0, dot));
    if (map == nullptr) return;
    path.remove_prefix(dot + 1);
  }
  if (map->is_map()) remove(*map, path);
}

}  // namespace

std::vector<KeyChange> key_changes(const Value& from, const Value& to) {
  Comparison comparison;
  comparison.compare(&from, &to, "");
  return comparison.take();
}

void apply(Value& root, const KeyChange& change) {
  if (change.to)
    set_at(root, change.path, *change.to);
  else
    remove_at(root, change.path);
}

}  // namespace trainyard::scenarios
