#include "scenarios/catalog.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <set>
#include <system_error>
#include <utility>

#include "scenarios/internal/cost_entries.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/internal/embedded.hpp"
#include "scenarios/internal/entries.hpp"
#include "scenarios/internal/reader.hpp"
#include "scenarios/internal/tuning_entries.hpp"

namespace trainyard::scenarios {
namespace {

constexpr std::string_view extension = ".yaml";

// One folder of entries, in the order of their names.
std::vector<std::filesystem::path> files_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (std::filesystem::directory_iterator it{folder, error}, end; !error && it != end; it.increment(error))
    if (it->path().extension() == extension) files.push_back(it->path());
  if (error) throw ScenarioError({.file = folder.string()}, "the folder cannot be read: " + error.message());
  std::sort(files.begin(), files.end());
  return files;
}

// What `read` makes of the entry of this name; throws what it reports.
template <class Read>
auto read_entry(std::string_view name, const Read& read) {
  Reader reader;
  auto result = read(reader, make_scalar(std::string{name}, {}));
  reader.throw_mistakes();
  return result;
}

}  // namespace

struct Catalog::Cache {
  std::mutex mutex;
  std::map<const CatalogEntry*, Value> values;
};

Catalog::~Catalog() = default;

Catalog::Catalog(std::span<const std::filesystem::path> folders, std::vector<Framework> frameworks)
    : frameworks_(std::move(frameworks)), cache_(std::make_unique<Cache>()) {
  for (const std::filesystem::path& folder : folders) add_folder(folder);
  add_built_in();
}

void Catalog::add_folder(const std::filesystem::path& folder) {
  bool any = false;
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error))
    throw ScenarioError({.file = folder.string()}, "expected a folder of catalogue entries");
  for (std::size_t kind = 0; kind < entry_folders.size(); ++kind) {
    const std::filesystem::path place = folder / entry_folders[kind];
    if (!std::filesystem::is_directory(place, error)) continue;
    any = true;
    for (const std::filesystem::path& file : files_in(place))
      entries_.push_back({.kind = static_cast<EntryKind>(kind),
                          .name = file.stem().string(),
                          .file = file.string(),
                          .text = read_text(file),
                          .built_in = false});
  }
  if (!any) throw ScenarioError({.file = folder.string()}, "expected folders called " + listed(entry_folders));
}

void Catalog::add_built_in() {
  for (const EmbeddedFile& file : embedded_files()) {
    for (std::size_t kind = 0; kind < entry_folders.size(); ++kind) {
      const std::string prefix = "catalog/" + std::string{entry_folders[kind]} + "/";
      if (!file.path.starts_with(prefix) || !file.path.ends_with(extension)) continue;
      std::string_view name = file.path.substr(prefix.size());
      name.remove_suffix(extension.size());
      entries_.push_back({.kind = static_cast<EntryKind>(kind),
                          .name = std::string{name},
                          .file = std::string{file.path},
                          .text = std::string{file.text},
                          .built_in = true});
    }
  }
}

std::vector<const CatalogEntry*> Catalog::entries(EntryKind kind) const {
  std::vector<const CatalogEntry*> found;
  std::set<std::string_view> names;
  for (const CatalogEntry& entry : entries_)
    if (entry.kind == kind && names.insert(entry.name).second) found.push_back(&entry);
  std::sort(found.begin(), found.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
  return found;
}

const CatalogEntry* Catalog::find(EntryKind kind, std::string_view name, const CatalogEntry* hidden_by) const {
  const auto from = hidden_by == nullptr ? entries_.begin() : entries_.begin() + (hidden_by - entries_.data()) + 1;
  const auto found =
      std::find_if(from, entries_.end(), [&](const CatalogEntry& e) { return e.kind == kind && e.name == name; });
  return found == entries_.end() ? nullptr : &*found;
}

const Value& Catalog::parsed(const CatalogEntry& entry) const {
  const std::lock_guard lock(cache_->mutex);
  const auto known = cache_->values.find(&entry);
  if (known != cache_->values.end()) return known->second;
  return cache_->values.emplace(&entry, parse_yaml(entry.text, entry.file)).first->second;
}

std::string Catalog::description(const CatalogEntry& entry) const {
  const Value* text = parsed(entry).find("description");
  return text == nullptr ? std::string{} : text->scalar;
}

Value Catalog::resolved(EntryKind kind, std::string_view name) const {
  return read_entry(name, [&](Reader& reader, const Value& value) { return resolve(reader, *this, kind, value, ""); })
      ->value;
}

workloads::Accelerator Catalog::accelerator(std::string_view name) const {
  return read_entry(name,
                    [&](Reader& reader, const Value& value) { return read_accelerator(reader, *this, value, ""); });
}

topology::NodeType Catalog::node(std::string_view name) const {
  return read_entry(name, [&](Reader& reader, const Value& value) { return read_node(reader, *this, value, "").node; });
}

topology::FabricType Catalog::fabric(std::string_view name) const {
  return read_entry(name,
                    [&](Reader& reader, const Value& value) { return read_fabric(reader, *this, &value, "", ""); });
}

workloads::Model Catalog::model(std::string_view name) const {
  return read_entry(name,
                    [&](Reader& reader, const Value& value) { return read_model(reader, *this, value, "").model; });
}

void Catalog::check(EntryKind kind, std::string_view name) const {
  if (kind == EntryKind::accelerator) accelerator(name);
  if (kind == EntryKind::node) node(name);
  if (kind == EntryKind::fabric) fabric(name);
  if (kind == EntryKind::price)
    read_entry(name, [&](Reader& reader, const Value& value) { return read_price(reader, *this, value, ""); });
  if (kind != EntryKind::model && kind != EntryKind::library) return;
  Value value = resolved(kind, name);
  if (kind == EntryKind::model && value.find("layers") != nullptr) {
    model(name);
    return;
  }
  make_partial(value);  // a family of models lacks dimensions, a library the facts of a node
  Reader reader;
  if (kind == EntryKind::model)
    read_model(reader, *this, value, "");
  else
    read_library(reader, *this, value, "");
  reader.throw_mistakes();
}

}  // namespace trainyard::scenarios
