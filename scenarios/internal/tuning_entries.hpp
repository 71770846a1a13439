// The `collectives` of a node: what they cost there, and the library that chooses.
#pragma once

#include <string>

#include "scenarios/catalog.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/internal/reader.hpp"
#include "topology/collective_tuning.hpp"

namespace trainyard::scenarios {

// They report what is wrong; the value is complete only if nothing was.
void read_collectives(Reader& reader, const Catalog& catalog, const Value& value, const std::string& path,
                      topology::CollectiveTuning& tuning);
// A name, or a map with the facts of the node: `{base: nccl-2.30, generation: hopper, cpu: intel, nvlinks: 18}`.
topology::CollectiveLibrary read_library(Reader& reader, const Catalog& catalog, const Value& value,
                                         const std::string& path);

}  // namespace trainyard::scenarios
