// Words as the POSIX shell reads and writes them (Shell Command Language, 2.2 Quoting).
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace trainyard::scenarios {

// The words of a line: '…', "…" and \ quote; nothing is expanded. Nothing where a quotation does not end.
std::optional<std::vector<std::string>> shell_words(std::string_view line);

// One word that the shell reads as this text, whatever is in it.
std::string shell_quoted(std::string_view text);
std::string shell_line(std::span<const std::string> words);

}  // namespace trainyard::scenarios
