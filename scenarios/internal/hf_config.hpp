// Models described by a Hugging Face config.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "scenarios/internal/document.hpp"
#include "scenarios/internal/reader.hpp"

namespace trainyard::scenarios {

struct HfModel {
  Value
      value;  // a map with the keys of our own `model`, refining `gpt` or `llama`; values stand where the file has them
  std::optional<std::int64_t> sliding_window;
  std::vector<std::string> warnings;
};

// Reads model_type llama, mistral, qwen2 and gpt2 and reports what is wrong. Defaults are those of the transformers
// library. Throws ScenarioError where the file cannot be read.
std::optional<HfModel> read_hf_config(Reader& reader, const std::filesystem::path& path);

}  // namespace trainyard::scenarios
