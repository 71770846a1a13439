// From names, refinements and full descriptions of catalogue things to typed values.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/catalog.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/internal/reader.hpp"

namespace trainyard::scenarios {

struct Resolved {
  Value value;                             // without `base`
  std::string name;                        // of the entry that it is or refines
  std::vector<std::string> warnings = {};  // of a config.json that it is read from
};

// A name, a map that refines its `base`, or a map that says everything. Nothing where that is wrong, and reported.
std::optional<Resolved> resolve(Reader& reader, const Catalog& catalog, EntryKind kind, const Value& value,
                                const std::string& path);

// One of the names of an enum; `usual` where none is given.
template <std::size_t count>
sim::Choice choice_of(const std::array<std::string_view, count>& names, std::string_view usual) {
  return {.value = std::string{usual}, .choices = {names.begin(), names.end()}};
}

// The member of an enum whose names the choices are, in order.
template <class Enum>
Enum chosen(const sim::Choice& choice) {
  const auto found = std::find(choice.choices.begin(), choice.choices.end(), choice.value);
  return static_cast<Enum>(found == choice.choices.end() ? 0 : found - choice.choices.begin());
}

struct NodeReading {
  topology::NodeType node;
  workloads::Accelerator accelerator;
};

struct ModelReading {
  workloads::Model model;
  std::vector<std::string> warnings;
};

// They report what is wrong; the value is complete only if nothing was.
workloads::Accelerator read_accelerator(Reader& reader, const Catalog& catalog, const Value& value,
                                        const std::string& path);
NodeReading read_node(Reader& reader, const Catalog& catalog, const Value& value, const std::string& path);
// `usual` is the fabric of the node: the one where `value` is null, and the one that a map without `kind` refines.
topology::FabricType read_fabric(Reader& reader, const Catalog& catalog, const Value* value, const std::string& usual,
                                 const std::string& path);
ModelReading read_model(Reader& reader, const Catalog& catalog, const Value& value, const std::string& path);

}  // namespace trainyard::scenarios
