// What the tree promises about itself: the include table of the README, headers, and no path of anybody's machine.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace trainyard {
namespace {

namespace fs = std::filesystem;
using Folders = std::set<std::string>;

const fs::path root{TRAINYARD_SOURCE_DIR};

// Folder -> the others that it may include from.
const std::map<std::string, Folders> allowed{
    {"sim", {}},
    {"topology", {"sim"}},
    {"workloads", {"sim"}},
    {"strategies", {"sim", "topology", "workloads"}},
    {"scenarios", {"sim", "topology", "workloads", "strategies"}},
    {"tools", {"sim", "topology", "workloads", "strategies", "scenarios"}},
    {"tests", {"sim", "topology", "workloads", "strategies", "scenarios", "tools"}},
    {"cmake", {}},
};

struct SourceFile {
  std::string path;  // from the root, with '/'
  std::string folder;
  std::vector<std::string> lines;

  bool header() const { return path.ends_with(".hpp"); }
  bool internal() const { return path.find("/internal/") != std::string::npos; }
};

std::string read(const fs::path& path) {
  std::ifstream in{path, std::ios::binary};
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>{in}, std::istreambuf_iterator<char>{}};
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in{text};
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// Build folders and what begins with a dot are not the tree's own.
std::vector<fs::path> files_of_the_tree() {
  std::vector<fs::path> files;
  for (const auto& top : fs::directory_iterator{root}) {
    const std::string name = top.path().filename().string();
    if (name.starts_with('.') || name.starts_with("build")) continue;
    if (top.is_regular_file()) files.push_back(top.path());
    if (!top.is_directory() || !allowed.contains(name)) continue;
    for (const auto& entry : fs::recursive_directory_iterator{top.path()})
      if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::ranges::sort(files);
  return files;
}

std::vector<SourceFile> sources() {
  std::vector<SourceFile> result;
  for (const fs::path& path : files_of_the_tree()) {
    const std::string name = path.lexically_relative(root).generic_string();
    if (!name.ends_with(".hpp") && !name.ends_with(".cpp")) continue;
    result.push_back({.path = name, .folder = name.substr(0, name.find('/')), .lines = lines_of(read(path))});
  }
  return result;
}

struct Include {
  std::string name;
  bool quoted = false;
};

std::string_view without_leading_space(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of(" \t"), text.size()));
}

// What an include directive names; nothing for other lines.
std::optional<Include> include_of(std::string_view line) {
  std::string_view rest = without_leading_space(line);
  if (!rest.starts_with('#')) return std::nullopt;
  rest = without_leading_space(rest.substr(1));
  constexpr std::string_view word = "include";
  if (!rest.starts_with(word)) return std::nullopt;
  rest = without_leading_space(rest.substr(word.size()));
  if (rest.empty() || (rest.front() != '"' && rest.front() != '<')) return std::nullopt;
  const bool quoted = rest.front() == '"';
  const std::size_t end = rest.find(quoted ? '"' : '>', 1);
  if (end == std::string_view::npos) return std::nullopt;
  return Include{.name = std::string{rest.substr(1, end - 1)}, .quoted = quoted};
}

// "" when the table allows it, a sentence otherwise.
std::string objection(const SourceFile& file, const Include& include) {
  const std::size_t slash = include.name.find('/');
  const std::string folder = include.name.substr(0, slash);
  if (!include.quoted) return allowed.contains(folder) ? "a header of the tree is included with quotes" : "";
  if (slash == std::string::npos || !allowed.contains(folder)) return "headers are included from the root";
  if (folder != file.folder && !allowed.at(file.folder).contains(folder))
    return file.folder + " may not include from " + folder;
  const bool internal = include.name.find("/internal/") != std::string::npos;
  if (internal && folder != file.folder && file.folder != "tests") return "internal/ is for its own folder alone";
  if (internal && file.header() && !file.internal() && file.folder != "tests")
    return "a public header includes no internal one";
  if (!fs::exists(root / include.name)) return "there is no such header";
  return "";
}

// The standard library's headers are one word; everything else has a path or an ending.
bool is_standard(std::string_view name) {
  return std::ranges::all_of(name, [](unsigned char c) { return std::islower(c) || std::isdigit(c) || c == '_'; });
}

TEST(TidyTest, ThereAreSourcesInEveryFolder) {
  Folders found;
  for (const SourceFile& file : sources()) found.insert(file.folder);
  for (const auto& [folder, others] : allowed) EXPECT_TRUE(found.contains(folder)) << folder;
}

TEST(TidyTest, AFolderIncludesOnlyWhatTheTableAllows) {
  for (const SourceFile& file : sources()) {
    for (std::size_t i = 0; i < file.lines.size(); ++i) {
      const auto include = include_of(file.lines[i]);
      if (!include) continue;
      const std::string why_not = objection(file, *include);
      EXPECT_EQ(why_not, "") << file.path << ":" << i + 1 << ": " << file.lines[i];
    }
  }
}

TEST(TidyTest, ViolationsOfTheTableAreSeen) {
  const auto against = [](const std::string& path, const std::string& line) {
    const auto include = include_of(line);
    EXPECT_TRUE(include.has_value()) << line;
    return include ? objection({.path = path, .folder = path.substr(0, path.find('/')), .lines = {}}, *include) : "";
  };
  EXPECT_EQ(against("sim/plan.cpp", "#include \"topology/cluster.hpp\""), "sim may not include from topology");
  EXPECT_EQ(against("workloads/cost.cpp", "#include \"topology/cluster.hpp\""),
            "workloads may not include from topology");
  EXPECT_EQ(against("tools/main.cpp", "#  include \"scenarios/internal/reader.hpp\""),
            "internal/ is for its own folder alone");
  EXPECT_EQ(against("scenarios/scenario.hpp", "#include \"scenarios/internal/reader.hpp\""),
            "a public header includes no internal one");
  EXPECT_EQ(against("sim/plan.cpp", "#include \"plan.hpp\""), "headers are included from the root");
  EXPECT_EQ(against("sim/plan.cpp", "#include \"sim/../sim/none.hpp\""), "there is no such header");
  EXPECT_EQ(against("sim/plan.cpp", "#include <sim/plan.hpp>"), "a header of the tree is included with quotes");
  EXPECT_EQ(against("scenarios/scenario.cpp", "#include \"scenarios/internal/reader.hpp\""), "");
  EXPECT_EQ(against("tests/unit/scenarios/reader_test.cpp", "#include \"scenarios/internal/reader.hpp\""), "");
}

TEST(TidyTest, NoPublicHeaderIncludesAThirdPartyHeader) {
  for (const SourceFile& file : sources()) {
    if (!file.header() || file.internal() || file.folder == "tests") continue;
    for (std::size_t i = 0; i < file.lines.size(); ++i) {
      const auto include = include_of(file.lines[i]);
      if (!include || include->quoted) continue;
      EXPECT_TRUE(is_standard(include->name)) << file.path << ":" << i + 1 << ": " << file.lines[i];
    }
  }
}

TEST(TidyTest, ThirdPartyHeadersAreToldFromStandardOnes) {
  for (const std::string_view name : {"vector", "string_view", "cstdint", "charconv"}) EXPECT_TRUE(is_standard(name));
  for (const std::string_view name :
       {"boost/graph/adjacency_list.hpp", "yaml-cpp/yaml.h", "nlohmann/json.hpp", "spdlog/spdlog.h", "CLI/CLI.hpp",
        "zlib.h", "unistd.h", "google/protobuf/message.h"})
    EXPECT_FALSE(is_standard(name)) << name;
}

TEST(TidyTest, OnlyTheGraphAndTheReadersKnowTheirLibraries) {
  // Outside tests: a library, and the folder whose .cpp files alone may include it.
  const std::map<std::string, Folders> users{{"boost", {"scenarios", "topology"}},
                                             {"yaml-cpp", {"scenarios"}},
                                             {"nlohmann", {"scenarios"}},
                                             {"zlib.h", {"scenarios"}},
                                             {"spdlog", {"scenarios", "tools"}},
                                             {"CLI", {"tools"}},
                                             {"google", {"scenarios"}},
                                             {"sqlite3.h", {"scenarios"}},
                                             {"tbb", {"scenarios"}}};
  for (const SourceFile& file : sources()) {
    if (file.folder == "tests") continue;
    for (std::size_t i = 0; i < file.lines.size(); ++i) {
      const auto include = include_of(file.lines[i]);
      if (!include || include->quoted) continue;
      const auto library = users.find(include->name.substr(0, include->name.find('/')));
      if (library == users.end()) continue;
      EXPECT_TRUE(library->second.contains(file.folder)) << file.path << ":" << i + 1 << ": " << file.lines[i];
    }
  }
}

TEST(TidyTest, EveryHeaderGuardsItself) {
  for (const SourceFile& file : sources()) {
    if (!file.header()) continue;
    EXPECT_EQ(std::ranges::count(file.lines, "#pragma once"), 1) << file.path;
  }
}

// The words of a CMake list, paths without the folder of a variable.
std::set<std::string> words_of(std::string list) {
  for (char& letter : list)
    if (letter == '(' || letter == ')' || letter == '}') letter = ' ';
  std::istringstream in{list};
  std::set<std::string> words;
  for (std::string word; in >> word;) words.insert(word.substr(std::min(word.find_first_not_of('/'), word.size())));
  return words;
}

TEST(TidyTest, EverySourceIsInTheBuild) {
  for (const SourceFile& file : sources()) {
    if (file.folder == "tests" && file.header()) continue;  // found by whoever includes it
    // The list of the nearest folder that has one.
    fs::path folder = (root / file.path).parent_path();
    while (folder != root / file.folder && !fs::exists(folder / "CMakeLists.txt")) folder = folder.parent_path();
    const auto words = words_of(read(folder / (file.folder == "cmake" ? "EmbedFiles.cmake" : "CMakeLists.txt")));
    const std::string name =
        file.folder == "cmake" ? file.path : (root / file.path).lexically_relative(folder).generic_string();
    EXPECT_TRUE(words.contains(name)) << file.path << " is in no list of sources";
  }
}

TEST(TidyTest, NoFileNamesAPathOfSomebodysMachine) {
  // In two pieces, so that this file does not name them either.
  const std::array<std::string, 5> homes{std::string("/ho") + "me/", std::string("/ro") + "ot/",
                                         std::string("/wo") + "rk/", std::string("/Use") + "rs/",
                                         std::string("C:") + "\\"};
  for (const fs::path& path : files_of_the_tree()) {
    const std::vector<std::string> lines = lines_of(read(path));
    for (std::size_t i = 0; i < lines.size(); ++i) {
      for (const std::string& home : homes) {
        std::size_t at = lines[i].find(home);
        // Part of a longer word, as in an address, it is none.
        while (at != std::string::npos && at > 0 && (std::isalnum(static_cast<unsigned char>(lines[i][at - 1])) != 0))
          at = lines[i].find(home, at + 1);
        EXPECT_EQ(at, std::string::npos) << path.lexically_relative(root).generic_string() << ":" << i + 1 << ": "
                                         << lines[i].substr(0, 200);
      }
    }
  }
}

// The README's table

std::vector<std::string> cells_of(const std::string& row) {
  std::vector<std::string> cells;
  std::istringstream in{row.substr(1)};
  for (std::string cell; std::getline(in, cell, '|');) {
    const std::size_t first = cell.find_first_not_of(' ');
    const std::size_t last = cell.find_last_not_of(' ');
    cells.push_back(first == std::string::npos ? "" : cell.substr(first, last - first + 1));
  }
  return cells;
}

std::string without_ticks(std::string text) {
  std::erase(text, '`');
  return text;
}

// The folders meant by "std", "`sim`", "the three above" or "all above".
Folders folders_meant(const std::string& words, const std::vector<std::string>& above) {
  if (words == "std") return {};
  if (words == "all above") return {above.begin(), above.end()};
  if (words == "the three above" && above.size() >= 3) return {above.end() - 3, above.end()};
  return {without_ticks(words)};
}

TEST(TidyTest, TheTableOfTheReadmeIsTheOneThatIsHeld) {
  const fs::path readme = root / "README.md";
  ASSERT_TRUE(fs::exists(readme));
  std::vector<std::string> above;
  for (const std::string& line : lines_of(read(readme))) {
    if (!line.starts_with("| `")) continue;
    const std::vector<std::string> cells = cells_of(line);
    const std::string folder = without_ticks(cells.front());
    if (!allowed.contains(folder) || cells.size() != 3) continue;
    EXPECT_EQ(folders_meant(cells.back(), above), allowed.at(folder)) << line;
    above.push_back(folder);
  }
  const std::vector<std::string> order{"sim", "topology", "workloads", "strategies", "scenarios", "tools", "tests"};
  EXPECT_EQ(above, order);
}

}  // namespace
}  // namespace trainyard
