// The model types of Hugging Face's transformers that can be read.
#pragma once

#include <span>
#include <string_view>

#include "scenarios/internal/hf_fields.hpp"

namespace trainyard::scenarios {

struct HfType {
  std::string_view name;        // model_type
  std::string_view class_name;  // with which the names of its classes begin
  std::string_view family;      // in the catalogue
  std::span<const HfField> fields;
  void (*complete)(HfFile&);  // adds what is no number of its own, and checks
};
std::span<const HfType> hf_types();

}  // namespace trainyard::scenarios
