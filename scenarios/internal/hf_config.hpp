// Models described by a Hugging Face config.json.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "scenarios/internal/document.hpp"
#include "scenarios/internal/reader.hpp"

namespace trainyard::scenarios {

struct HfModel {
  Value value;  // a map with the keys of our own `model`, refining a family of the catalogue; values stand where the
                // file has them
  std::vector<std::string> warnings;
};

// Reads the model types listed in the source and reports what is wrong. Fields that are absent have the defaults of the
// transformers library, but for the sizes that every file states: hidden, layers, heads, widths, vocabulary. Throws
// ScenarioError where the file cannot be read.
std::optional<HfModel> read_hf_config(Reader& reader, const std::filesystem::path& path);

}  // namespace trainyard::scenarios
