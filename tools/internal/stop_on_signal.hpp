// Ctrl-C where what was done so far is worth keeping.
#pragma once

#include <atomic>

namespace trainyard::tools {

// While there is one: the first SIGINT or SIGTERM asks for an end, the second ends the program at once.
class StopOnSignal {
 public:
  StopOnSignal();
  ~StopOnSignal();
  StopOnSignal(const StopOnSignal&) = delete;
  StopOnSignal& operator=(const StopOnSignal&) = delete;

  static const std::atomic<bool>& asked();
  // So that whoever has started the program sees what ended it.
  static void end_as_asked();
};

}  // namespace trainyard::tools
