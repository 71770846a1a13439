#include "tools/internal/stop_on_signal.hpp"

#include <array>
#include <csignal>

namespace trainyard::tools {
namespace {

constexpr std::array<int, 2> signals{SIGINT, SIGTERM};

std::atomic<bool> stop_asked{false};
volatile std::sig_atomic_t caught = SIGINT;

void ask_to_stop(int signal) {
  stop_asked = true;
  caught = signal;
}

}  // namespace

StopOnSignal::StopOnSignal() {
  struct sigaction action {};
  action.sa_handler = ask_to_stop;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int signal : signals) sigaction(signal, &action, nullptr);
}

StopOnSignal::~StopOnSignal() {
  for (const int signal : signals) std::signal(signal, SIG_DFL);
}

const std::atomic<bool>& StopOnSignal::asked() { return stop_asked; }

void StopOnSignal::end_as_asked() {
  std::signal(caught, SIG_DFL);
  std::raise(caught);
}

}  // namespace trainyard::tools
