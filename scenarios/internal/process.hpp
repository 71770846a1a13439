// Other programs, run without a shell.
#pragma once

#include <csignal>
#include <string>
#include <string_view>
#include <vector>

namespace trainyard::scenarios {

struct EndedProgram {
  int status = 0;      // what it exited with; 128 and its number where a signal has ended it, as shells have it
  std::string output;  // stdout
  std::string errors;  // stderr
};

struct RunProgramOptions {
  std::string_view input = {};
  bool own_group = false;  // Ctrl-C does not reach it
};

// Starts a program, found as a shell finds it, and waits for its end. Throws OutsideFailure where it cannot be started;
// `missing` is what to say where there is no such program.
EndedProgram run_program(std::vector<std::string> arguments, const std::string& missing,
                         const RunProgramOptions& options = {});

// Holds back what asks the program to end (SIGHUP, SIGINT, SIGTERM) for as long as it lives. Of the thread it is made
// in.
class HeldSignals {
 public:
  HeldSignals();
  ~HeldSignals();
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;
  // Whether one waits.
  bool any() const;

 private:
  sigset_t before_{};
};

}  // namespace trainyard::scenarios
