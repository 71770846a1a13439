// Models read from files that a test writes.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <span>
#include <string>

#include "scenarios/catalog.hpp"
#include "scenarios/internal/document.hpp"
#include "scenarios/internal/entries.hpp"

namespace trainyard::scenarios {

// A folder of one's own catalogue entries and other files, gone with the test.
class Folder {
 public:
  Folder()
      : path_(std::filesystem::temp_directory_path() /
              ("trainyard_" + std::string{testing::UnitTest::GetInstance()->current_test_info()->test_suite_name()} +
               "_" + std::string{testing::UnitTest::GetInstance()->current_test_info()->name()})) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream{path_ / name} << text;
  }
  const std::filesystem::path& path() const { return path_; }
  Catalog catalog() const { return Catalog{std::span{&path_, 1}}; }

 private:
  std::filesystem::path path_;
};

template <class Action>
std::string error_of(const Action& action) {
  try {
    action();
    return "";
  } catch (const ScenarioError& error) {
    return error.what();
  }
}

// What a scenario with `model: TEXT` has.
inline ModelReading read_model_text(const Catalog& catalog, const std::string& text,
                                    const std::string& file = "a.yaml") {
  Reader reader;
  const Value value = parse_yaml(text, file);
  ModelReading reading = read_model(reader, catalog, value, "model");
  reader.throw_mistakes();
  return reading;
}

}  // namespace trainyard::scenarios
