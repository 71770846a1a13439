#include "scenarios/internal/hf_config.hpp"

#include <algorithm>
#include <array>
#include <string_view>
#include <system_error>

#include "scenarios/internal/hf_fields.hpp"
#include "scenarios/internal/hf_types.hpp"

namespace trainyard::scenarios {
namespace {

const HfType* read_model_type(Reader& reader, const Value& config) {
  const Value* type = config.find("model_type");
  if (type == nullptr) {
    reader.report(config.where, "missing key 'model_type'");
    return nullptr;
  }
  std::vector<std::string_view> names;
  for (const HfType& known : hf_types()) {
    if (known.name == type->scalar) return &known;
    names.push_back(known.name);
  }
  reader.report(type->where,
                "model_type: expected " + listed(names) + ", got " + describe(*type) + nearest(type->scalar, names));
  return nullptr;
}

// "LlamaForCausalLM" is a class of Llama, "LlamaMoeForCausalLM" is not.
void check_architectures(Reader& reader, const Value& config, const HfType& type) {
  constexpr std::array<std::string_view, 5> endings{"For", "Model", "LMHead", "WithLMHead", "DoubleHeads"};
  const Value* classes = config.find("architectures");
  if (classes == nullptr || !classes->is_sequence()) return;
  for (const Value& item : classes->items) {
    const std::string_view name = item.scalar;
    const std::string_view rest = name.substr(std::min(type.class_name.size(), name.size()));
    const bool same =
        name.starts_with(type.class_name) &&
        std::any_of(endings.begin(), endings.end(), [&](auto ending) { return rest.starts_with(ending); });
    if (!same)
      reader.report(item.where,
                    "architectures: " + describe(item) + " contradicts model_type '" + std::string{type.name} + "'");
  }
}

void check_support(HfFile& file, const HfType& type) {
  const bool has_experts =
      std::any_of(type.fields.begin(), type.fields.end(), [](const HfField& field) { return field.key == "experts"; });
  for (const std::string_view field : {"num_experts", "num_local_experts", "n_routed_experts", "num_routed_experts"})
    if (!has_experts && file.find(field) != nullptr && file.whole(field).value_or(0) > 0)
      file.report(field, "experts are not supported in model_type '" + std::string{type.name} + "'");
  if (file.find("quantization_config") != nullptr)
    file.warn("quantization_config is left out: the precision of the scenario holds");
}

// A file is mostly called config.json; then the folder, which the path may leave out, has the model's name.
std::string name_of(HfFile& file, const std::filesystem::path& path) {
  std::string name = file.text("_name_or_path").value_or("");
  if (!name.empty()) return name;
  std::error_code error;
  const auto folder = std::filesystem::absolute(path, error).lexically_normal().parent_path().filename();
  return path.stem() == "config" && !folder.empty() ? folder.string() : path.stem().string();
}

}  // namespace

std::optional<HfModel> read_hf_config(Reader& reader, const std::filesystem::path& path) {
  const Value config = read_document(path);
  if (!config.is_map()) {
    reader.report(config.where, "expected the fields of a config.json, got " + describe(config));
    return std::nullopt;
  }
  const HfType* type = read_model_type(reader, config);
  if (type == nullptr) return std::nullopt;
  const std::size_t before = reader.mistakes();
  HfFile file(reader, config);
  file.set_text("base", type->family);
  file.set_text("name", name_of(file, path));
  file.copy(type->fields);
  type->complete(file);
  check_architectures(reader, config, *type);
  check_support(file, *type);
  if (reader.mistakes() > before) return std::nullopt;
  return HfModel{.value = file.take_model(), .warnings = file.take_warnings()};
}

}  // namespace trainyard::scenarios
