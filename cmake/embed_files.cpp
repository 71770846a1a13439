// Writes the files of a list as one C++ source that defines trainyard::scenarios::embedded_files().
// Usage: trainyard_embed_files BASE LIST OUTPUT, where LIST names one file per line, relative to BASE; a line NAME=PATH
// is a file from elsewhere.

#include <algorithm>
#include <cstddef>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

// Compilers limit one literal, not the adjacent ones that they join.
constexpr std::size_t longest_literal = 2000;

std::string read_file(const std::string& path) {
  std::ifstream in{path, std::ios::binary};
  if (!in) throw std::runtime_error{"cannot read " + path};
  return {std::istreambuf_iterator<char>{in}, std::istreambuf_iterator<char>{}};
}

struct File {
  std::string name;
  std::string path;
};

std::vector<File> read_list(const std::string& path, const std::string& base) {
  std::ifstream in{path};
  if (!in) throw std::runtime_error{"cannot read " + path};
  std::vector<File> files;
  for (std::string line; std::getline(in, line);) {
    if (line.empty()) continue;
    const std::size_t assigned = line.find('=');
    if (assigned == std::string::npos)
      files.push_back({line, base + "/" + line});
    else
      files.push_back({line.substr(0, assigned), line.substr(assigned + 1)});
  }
  std::ranges::sort(files, {}, &File::name);
  return files;
}

void write_escaped(std::ostream& out, char letter) {
  const auto byte = static_cast<unsigned char>(letter);
  const bool plain = byte >= ' ' && byte < 0x7f && letter != '"' && letter != '\\' && letter != '?';
  if (letter == '\n') {
    out << "\\n";
  } else if (plain) {
    out << letter;
  } else {  // three octal digits: unlike hexadecimal ones they end by themselves
    out << '\\' << static_cast<char>('0' + (byte >> 6U)) << static_cast<char>('0' + ((byte >> 3U) & 7U))
        << static_cast<char>('0' + (byte & 7U));
  }
}

// Adjacent literals, one per line of the text; a long line takes several.
void write_literals(std::ostream& out, std::string_view text) {
  out << '"';
  std::size_t length = 0;
  for (const char letter : text) {
    if (length == longest_literal) {
      out << "\"\n\"";
      length = 0;
    }
    write_escaped(out, letter);
    length = letter == '\n' ? longest_literal : length + 1;
  }
  out << '"';
}

void write_source(std::ostream& out, const std::vector<File>& files) {
  out << "// Generated from the data files in scenarios/: edit those.\n"
         "#include <array>\n#include <span>\n#include <string_view>\n\n"
         "#include \"scenarios/internal/embedded.hpp\"\n\n"
         "namespace trainyard::scenarios {\n\n"
         "std::span<const EmbeddedFile> embedded_files() {\n"
      << "static constexpr std::array<EmbeddedFile, " << files.size() << "> files{";
  if (!files.empty()) out << '{';
  for (const File& file : files) {
    const std::string text = read_file(file.path);
    out << "\n{{";
    write_literals(out, file.name);
    out << ", " << file.name.size() << "}, {";
    write_literals(out, text);
    out << ", " << text.size() << "}},";
  }
  if (!files.empty()) out << "\n}";
  out << "};\nreturn files;\n}\n\n}  // namespace trainyard::scenarios\n";
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    if (arguments.size() != 3) throw std::runtime_error{"usage: trainyard_embed_files BASE LIST OUTPUT"};
    std::ofstream out{arguments[2], std::ios::binary};
    write_source(out, read_list(arguments[1], arguments[0]));
    if (!out.flush()) throw std::runtime_error{"cannot write " + arguments[2]};
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "trainyard_embed_files: " << error.what() << '\n';
    return 1;
  }
}
