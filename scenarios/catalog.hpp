// What Trainyard knows by name: accelerators, nodes, fabrics, models, collective libraries and prices, each figure with
// its source, and frameworks.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/frameworks.hpp"
#include "topology/hardware.hpp"
#include "workloads/accelerator.hpp"
#include "workloads/model.hpp"

namespace trainyard::scenarios {

struct Value;

enum class EntryKind : std::uint8_t { accelerator, node, fabric, model, library, price };
constexpr std::array<std::string_view, 6> entry_kinds{"accelerator",        "node", "fabric", "model",
                                                      "collective library", "price"};
constexpr std::array<std::string_view, 6> entry_folders{"accelerators", "nodes",       "fabrics",
                                                        "models",       "collectives", "prices"};
constexpr std::string_view to_string(EntryKind kind) { return entry_kinds[static_cast<std::size_t>(kind)]; }

struct CatalogEntry {
  EntryKind kind = EntryKind::accelerator;
  std::string name;
  std::string file;
  std::string text;  // YAML, as written; read when it is asked for
  bool built_in = false;
};

class Catalog {
 public:
  // The built-in entries, after those of the folders (each with some of `entry_folders`).
  explicit Catalog(std::span<const std::filesystem::path> folders = {},
                   std::vector<Framework> frameworks = built_in_frameworks());
  ~Catalog();
  Catalog(const Catalog&) = delete;
  Catalog& operator=(const Catalog&) = delete;

  // The entries that names mean, sorted: one of a folder hides a built-in one of the same name.
  std::vector<const CatalogEntry*> entries(EntryKind kind) const;
  // Null where there is none. With `hidden_by`: the entry of this name that the given one hides.
  const CatalogEntry* find(EntryKind kind, std::string_view name, const CatalogEntry* hidden_by = nullptr) const;
  std::string description(const CatalogEntry& entry) const;
  // The text of one of the entries as a value, read when it is first asked for, by whichever thread. Throws
  // ScenarioError.
  const Value& parsed(const CatalogEntry& entry) const;

  // Throw ScenarioError where the name is unknown or the entry is wrong.
  Value resolved(EntryKind kind, std::string_view name) const;  // with what `base` names merged in
  workloads::Accelerator accelerator(std::string_view name) const;
  topology::NodeType node(std::string_view name) const;
  topology::FabricType fabric(std::string_view name) const;
  workloads::Model model(std::string_view name) const;
  void check(EntryKind kind, std::string_view name) const;  // a family of models may lack dimensions

  std::span<const Framework> frameworks() const { return frameworks_; }

 private:
  void add_folder(const std::filesystem::path& folder);
  void add_built_in();

  struct Cache;

  std::vector<CatalogEntry> entries_;  // in order of precedence
  std::vector<Framework> frameworks_;
  std::unique_ptr<Cache> cache_;
};

}  // namespace trainyard::scenarios
