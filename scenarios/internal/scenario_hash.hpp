// What tells whether a stored result is still that of its scenario.
#pragma once

#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

#include "scenarios/catalog.hpp"
#include "scenarios/internal/document.hpp"

namespace trainyard::scenarios {

// A hash of everything that a scenario's result follows from: its keys, the catalogue entries that it names, directly
// or through other entries, the `config.json` and the plug-in that it uses, and the program. A word that happens to be
// the name of an entry counts as naming it: at worst, a change of that entry has a point simulated again.
//
// Of the scenario's meaning, not its layout: comments, order of keys and places in files make no difference. May be
// asked from several threads.
class ScenarioHash {
 public:
  // `program` says which program simulates, see program_build().
  ScenarioHash(const Catalog& catalog, std::string_view program);
  std::string of(const Value& scenario);

 private:
  void add_names(const Value& value, std::set<const CatalogEntry*>& entries) const;
  void add_files(const Value& value, std::string& text) const;
  std::string entry_hash(const CatalogEntry& entry);

  const Catalog& catalog_;
  std::string program_;
  std::map<std::string, std::string, std::less<>> plugins_;  // of a framework, the hash of its library
  std::mutex mutex_;
  std::map<const CatalogEntry*, std::string> entry_hashes_;
};

// 32 hexadecimal digits.
std::string hash_of(std::string_view text);

// The linker's identity of the running program: another one after every change of its code.
std::string program_build();

}  // namespace trainyard::scenarios
