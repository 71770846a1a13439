#include "scenarios/internal/process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>

#include "scenarios/outside_failure.hpp"

extern char** environ;

namespace trainyard::scenarios {
namespace {

constexpr std::array<int, 3> ending_signals{SIGHUP, SIGINT, SIGTERM};
constexpr int by_signal = 128;

[[noreturn]] void fail(const std::string& program, int error) {
  throw OutsideFailure("cannot run '" + program + "': " + std::generic_category().message(error));
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int descriptor = -1) : descriptor_(descriptor) {}
  ~FileDescriptor() { close(); }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return descriptor_; }
  void set(int descriptor) { descriptor_ = descriptor; }
  void close() {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = -1;
  }

 private:
  int descriptor_;
};

struct Pipe {
  explicit Pipe(const std::string& program) {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) fail(program, errno);
    read_end.set(ends[0]);
    write_end.set(ends[1]);
  }
  FileDescriptor read_end;
  FileDescriptor write_end;
};

struct Pipes {
  explicit Pipes(const std::string& program) : in(program), out(program), errors(program) {
    fcntl(in.write_end.get(), F_SETFL, O_NONBLOCK);
  }
  Pipe in;
  Pipe out;
  Pipe errors;
};

// What a write to a program that no longer reads would end this one with.
class IgnoredBrokenPipe {
 public:
  IgnoredBrokenPipe() {
    struct sigaction ignore {};
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &ignore, &before_);
  }
  ~IgnoredBrokenPipe() { sigaction(SIGPIPE, &before_, nullptr); }
  IgnoredBrokenPipe(const IgnoredBrokenPipe&) = delete;
  IgnoredBrokenPipe& operator=(const IgnoredBrokenPipe&) = delete;

 private:
  struct sigaction before_ {};
};

pid_t start(std::vector<std::string>& arguments, const std::string& missing, const Pipes& pipes, bool own_group) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipes.in.read_end.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, pipes.out.write_end.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, pipes.errors.write_end.get(), STDERR_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;  // what this program holds back is none of the other's business
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes,
                           static_cast<short>(POSIX_SPAWN_SETSIGMASK | (own_group ? POSIX_SPAWN_SETPGROUP : 0)));
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_t child = 0;
  const int error = posix_spawnp(&child, argv.front(), &actions, &attributes, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error == ENOENT) throw OutsideFailure(missing);
  if (error != 0) fail(arguments.front(), error);
  return child;
}

void write_some(FileDescriptor& to, std::string_view& input) {
  const ssize_t written = write(to.get(), input.data(), input.size());
  if (written > 0)
    input.remove_prefix(static_cast<std::size_t>(written));
  else if (errno != EAGAIN && errno != EINTR)
    input = {};  // it stopped reading; its status says why
}

void read_some(FileDescriptor& from, std::string& text, const std::string& program) {
  std::array<char, 65536> buffer{};
  const ssize_t got = read(from.get(), buffer.data(), buffer.size());
  if (got == 0) from.close();
  if (got > 0) text.append(buffer.data(), static_cast<std::size_t>(got));
  if (got < 0 && errno != EINTR) fail(program, errno);
}

// Writes the input and reads the output at once, so that neither side waits for the other for ever.
void exchange(Pipes& pipes, std::string_view input, EndedProgram& ended, const std::string& program) {
  FileDescriptor& in = pipes.in.write_end;
  FileDescriptor& out = pipes.out.read_end;
  FileDescriptor& errors = pipes.errors.read_end;
  while (out.get() >= 0 || errors.get() >= 0) {
    if (input.empty()) in.close();
    std::array<pollfd, 3> waiting{{{.fd = in.get(), .events = POLLOUT, .revents = 0},
                                   {.fd = out.get(), .events = POLLIN, .revents = 0},
                                   {.fd = errors.get(), .events = POLLIN, .revents = 0}}};
    if (poll(waiting.data(), waiting.size(), -1) < 0) {
      if (errno == EINTR) continue;
      fail(program, errno);
    }
    if (waiting[0].revents != 0) write_some(in, input);
    if (waiting[1].revents != 0) read_some(out, ended.output, program);
    if (waiting[2].revents != 0) read_some(errors, ended.errors, program);
  }
}

}  // namespace

EndedProgram run_program(std::vector<std::string> arguments, const std::string& missing,
                         const RunProgramOptions& options) {
  const std::string program = arguments.front();
  Pipes pipes(program);
  const pid_t child = start(arguments, missing, pipes, options.own_group);
  pipes.in.read_end.close();
  pipes.out.write_end.close();
  pipes.errors.write_end.close();
  EndedProgram ended;
  {
    const IgnoredBrokenPipe instead_of_ending;
    exchange(pipes, options.input, ended, program);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  ended.status = WIFEXITED(status) ? WEXITSTATUS(status) : by_signal + WTERMSIG(status);
  return ended;
}

HeldSignals::HeldSignals() {
  sigset_t held;
  sigemptyset(&held);
  for (const int signal : ending_signals) sigaddset(&held, signal);
  pthread_sigmask(SIG_BLOCK, &held, &before_);
}

HeldSignals::~HeldSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

bool HeldSignals::any() const {
  sigset_t waiting;
  sigpending(&waiting);
  const auto asks = [&](int signal) {
    struct sigaction action {};
    sigaction(signal, nullptr, &action);
    return sigismember(&waiting, signal) == 1 && action.sa_handler != SIG_IGN;  // nohup ignores SIGHUP
  };
  return std::ranges::any_of(ending_signals, asks);
}

}  // namespace trainyard::scenarios
