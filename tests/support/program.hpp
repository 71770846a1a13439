// The program as its users start it: what it says and its exit status. TRAINYARD_BINARY is where it lies.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <string>

namespace trainyard {

struct Ended {
  int status = -1;
  std::string output;  // stdout and stderr
};

inline Ended shell(const std::string& command) {
  Ended ended;
  FILE* pipe = popen(("{ " + command + "; } 2>&1").c_str(), "r");
  if (pipe == nullptr) return ended;
  std::array<char, 4096> buffer{};
  for (std::size_t read = 0; (read = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;)
    ended.output.append(buffer.data(), read);
  const int status = pclose(pipe);
  if (WIFEXITED(status)) ended.status = WEXITSTATUS(status);
  return ended;
}

inline Ended program(const std::string& arguments) { return shell("'" TRAINYARD_BINARY "' " + arguments); }

inline void expect_refused(const std::string& arguments, const std::string& message) {
  const Ended ended = program(arguments);
  EXPECT_EQ(ended.status, 2) << arguments << "\n" << ended.output;
  EXPECT_NE(ended.output.find(message), std::string::npos) << arguments << "\n" << ended.output;
}

}  // namespace trainyard
