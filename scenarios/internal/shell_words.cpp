#include "scenarios/internal/shell_words.hpp"

#include <algorithm>

namespace trainyard::scenarios {
namespace {

constexpr std::string_view blanks = " \t\n";

class WordReader {
 public:
  explicit WordReader(std::string_view line) : rest_(line) {}

  std::optional<std::vector<std::string>> words() {
    std::vector<std::string> words;
    while (skip_blanks()) {
      if (!read_word()) return std::nullopt;
      words.push_back(std::move(word_));
      word_.clear();
    }
    return words;
  }

 private:
  bool skip_blanks() {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(blanks), rest_.size()));
    return !rest_.empty();
  }
  char take() {
    const char letter = rest_.front();
    rest_.remove_prefix(1);
    return letter;
  }
  bool read_word() {
    while (!rest_.empty() && blanks.find(rest_.front()) == std::string_view::npos) {
      const char letter = take();
      const bool whole = letter == '\''   ? read_single()
                         : letter == '"'  ? read_double()
                         : letter == '\\' ? read_escaped()
                                          : (word_ += letter, true);
      if (!whole) return false;
    }
    return true;
  }
  bool read_single() {
    const std::size_t end = rest_.find('\'');
    if (end == std::string_view::npos) return false;
    word_ += rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return true;
  }
  bool read_double() {
    while (!rest_.empty()) {
      const char letter = take();
      if (letter == '"') return true;
      // Within "…" a backslash quotes these only, and is a letter before any other.
      if (letter == '\\' && !rest_.empty() &&
          std::string_view{"$`\"\\\n"}.find(rest_.front()) != std::string_view::npos)
        read_escaped();
      else
        word_ += letter;
    }
    return false;
  }
  bool read_escaped() {
    if (rest_.empty()) return false;
    const char letter = take();
    if (letter != '\n') word_ += letter;  // a line that goes on
    return true;
  }

  std::string_view rest_;
  std::string word_;
};

}  // namespace

std::optional<std::vector<std::string>> shell_words(std::string_view line) { return WordReader(line).words(); }

std::string shell_quoted(std::string_view text) {
  std::string quoted = "'";
  for (const char letter : text) {
    if (letter == '\'')
      quoted += "'\\''";
    else
      quoted += letter;
  }
  return quoted + "'";
}

std::string shell_line(std::span<const std::string> words) {
  std::string line;
  for (const std::string& word : words) {
    if (!line.empty()) line += ' ';
    line += shell_quoted(word);
  }
  return line;
}

}  // namespace trainyard::scenarios
