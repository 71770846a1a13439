// A file that appears whole or not at all.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "scenarios/outside_failure.hpp"

namespace trainyard::scenarios {

// The outside world did not take what was to be written: disk full, no such directory, no permission.
class OutputError : public OutsideFailure {
 public:
  OutputError(const std::filesystem::path& path, int error_number);
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Writes to a temporary beside `path`, which commit() moves there once everything is on the disk; without a commit the
// temporary goes and what was at `path` stays. A symbolic link stays one, its target is replaced. What is no file
// (a terminal, a pipe, /dev/null, /dev/stdout) is written straight through. Compresses when the name ends in ".gz".
// Every member but the destructor throws OutputError.
class OutputFile {
 public:
  explicit OutputFile(const std::filesystem::path& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::string_view text);
  void commit();  // once, and the last call

 private:
  class Compressor;

  void open();
  void open_straight_through(int inherited);
  void open_temporary();
  void compress(std::string_view text, bool last);
  void flush();
  void put(std::string_view bytes);
  void discard();

  std::filesystem::path path_;       // as it was given
  std::filesystem::path target_;     // links followed
  std::filesystem::path temporary_;  // empty when there is none
  int descriptor_;
  std::string pending_;
  std::unique_ptr<Compressor> compressor_;
};

// The whole of a file in one call.
void write_file(const std::filesystem::path& path, std::string_view text);

}  // namespace trainyard::scenarios
