// The fields of a Hugging Face config.json, and the `model` that they become.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "scenarios/internal/document.hpp"
#include "scenarios/internal/reader.hpp"

namespace trainyard::scenarios {

// A whole number of the file and the key of `model` that means the same.
struct HfField {
  std::string_view name;
  std::string_view key;
  std::optional<std::int64_t> usual = {};  // what transformers takes where the file says nothing
  bool required = false;
  bool null_is_none = false;  // null is a statement of its own, not what is usual
  std::int64_t least = 1;
  std::array<std::string_view, 3> synonyms = {};  // other names that files have for it
};

// Reads fields when they are asked for, reports what is wrong where it stands, and collects the keys of the model.
// Null is absence, as it is to transformers.
class HfFile {
 public:
  HfFile(Reader& reader, const Value& config) : reader_(reader), config_(config), model_(make_map(config.where)) {}

  // Nothing where the field is absent, null, or wrong and reported.
  const Value* find(std::string_view field) const;
  std::optional<std::int64_t> whole(std::string_view field, std::int64_t least = 0);
  std::optional<double> share(std::string_view field);  // that is dropped: some must be left
  std::optional<bool> flag(std::string_view field);
  std::optional<std::string> text(std::string_view field);
  std::optional<std::vector<std::int64_t>> wholes(std::string_view field);
  const std::vector<Value>* list(std::string_view field);
  std::int64_t size_of_map(std::string_view field);      // 0 where there is none
  bool is_null(std::string_view field) const;            // stands in the file, as null
  std::string_view name_of(const HfField& field) const;  // as the file has it

  // A number under any of its names, or what is usual. Missing ones that are required and names that disagree are
  // reported.
  std::optional<std::int64_t> number(const HfField& field);
  void copy(std::span<const HfField> fields);  // to the model
  // `field`: what it follows from, so that mistakes that show later are reported there.
  void set_number(std::string_view key, std::int64_t value, std::string_view field = {}) {
    set(key, std::to_string(value), field);
  }
  void set_share(std::string_view key, double value) { set(key, std::to_string(value)); }
  void set_flag(std::string_view key, bool value) { set(key, value ? "true" : "false"); }
  void set_text(std::string_view key, std::string_view value) { set(key, std::string{value}); }
  void set_numbers(std::string_view key, const std::vector<std::int64_t>& values);
  // A number that was copied or set before.
  std::optional<std::int64_t> model_number(std::string_view key) const;

  // "field: message", where the field stands.
  void report(std::string_view field, const std::string& message);
  void report(const HfField& field, const std::string& message) { report(name_of(field), message); }
  void warn(std::string message) { warnings_.push_back(std::move(message)); }

  Value take_model() { return std::move(model_); }
  std::vector<std::string> take_warnings() { return std::move(warnings_); }

 private:
  template <class T>
  std::optional<T> read(std::string_view field, double least, double most);
  Location place_of(std::string_view field) const;  // the file's where it is not given
  void set(std::string_view key, std::string text, std::string_view field = {});

  Reader& reader_;
  const Value& config_;
  Value model_;
  std::vector<std::string> warnings_;
};

}  // namespace trainyard::scenarios
