#include "scenarios/show.hpp"

#include <algorithm>
#include <vector>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/internal/model_figures.hpp"
#include "scenarios/internal/text.hpp"
#include "scenarios/quantity.hpp"

namespace trainyard::scenarios {
namespace {

std::string table(const std::vector<std::pair<std::string, std::string>>& rows) {
  std::size_t width = 0;
  for (const auto& [name, text] : rows) width = std::max(width, name.size());
  std::string result;
  for (const auto& [name, text] : rows) result += padded_right(name, width + 2) + text + "\n";
  return result;
}

struct Figure {
  std::string key;  // dotted
  std::string value;
};

std::string text_of(const Value& value) {
  std::string text = value.scalar;
  for (const Value& item : value.items) {
    const std::string of_item = text_of(item);
    text += (text.empty() ? "" : ", ") + (item.is_sequence() ? "[" + of_item + "]" : of_item);
  }
  return text;
}

void collect(const Value& value, const std::string& path, std::vector<Figure>& figures) {
  if (value.is_map()) {
    for (const Entry& entry : value.entries)
      collect(entry.value, path.empty() ? entry.key.scalar : path + "." + entry.key.scalar, figures);
    return;
  }
  figures.push_back({path, printable(text_of(value))});
}

// The source of a key is its own or that of what it lies in.
std::string source_of(const Value* sources, std::string key) {
  while (sources != nullptr) {
    if (const Value* source = sources->find(key)) return source->scalar;
    const std::size_t dot = key.rfind('.');
    if (dot == std::string::npos) break;
    key.resize(dot);
  }
  return "";
}

// A family may lack what a model needs; each structure has a key that only models have.
bool has_dimensions(const Value& model) {
  return model.find("layers") != nullptr || model.find("stage_blocks") != nullptr || model.find("tables") != nullptr;
}

}  // namespace

std::string show_entries(const Catalog& catalog, EntryKind kind) {
  std::vector<std::pair<std::string, std::string>> rows;
  for (const CatalogEntry* entry : catalog.entries(kind))
    rows.emplace_back(printable(entry->name), printable(catalog.description(*entry)));
  return table(rows);
}

std::string show_entry(const Catalog& catalog, EntryKind kind, std::string_view name) {
  catalog.check(kind, name);
  const Value value = catalog.resolved(kind, name);
  std::vector<Figure> figures;
  for (const Entry& entry : value.entries)
    if (entry.key.scalar != "sources") collect(entry.value, entry.key.scalar, figures);
  std::size_t keys = 0;
  std::size_t values = 0;
  for (const Figure& figure : figures) {
    keys = std::max(keys, figure.key.size());
    if (figure.key != "description") values = std::max(values, figure.value.size());
  }
  std::string text = printable(name) + "\n";
  for (const Figure& figure : figures) {
    const std::string source = printable(source_of(value.find("sources"), figure.key));
    text += "  " + padded_right(figure.key, keys + 2) + padded_right(figure.value, source.empty() ? 0 : values + 2) +
            source + "\n";
  }
  if (kind == EntryKind::model && has_dimensions(value)) text += model_figures(catalog.model(name));
  return text;
}

}  // namespace trainyard::scenarios
