// From names, refinements and full descriptions of catalogue things to typed values.
#pragma once

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
  Value value;       // without `base`
  std::string name;  // of the entry that it is or refines
};

// A name, a map that refines its `base`, or a map that says everything. Nothing where that is wrong, and reported.
std::optional<Resolved> resolve(Reader& reader, const Catalog& catalog, EntryKind kind, const Value& value,
                                const std::string& path);

struct NodeReading {
  topology::NodeType node;
  workloads::Accelerator accelerator;
};

struct ModelReading {
  workloads::Model model;
  std::optional<std::int64_t> sliding_window;  // tokens that attention of the real model looks back, if it is limited
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
