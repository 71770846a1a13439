#include "scenarios/output_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#define ZLIB_CONST  // it does not write to its input
#include <zlib.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <limits>
#include <new>
#include <optional>
#include <system_error>
#include <utility>

#include "sim/ensure.hpp"

namespace trainyard::scenarios {
namespace {

constexpr int closed = -1;
constexpr std::size_t buffer_bytes = std::size_t{1} << 18U;
constexpr int longest_name = 200;  // of the target within the name of its temporary; file systems allow 255 in all

// A descriptor that this process has already: to open it anew would have a position of its own, and fails for sockets.
std::optional<int> inherited_descriptor(const std::string& path) {
  if (path == "/dev/stdout") return STDOUT_FILENO;
  if (path == "/dev/stderr") return STDERR_FILENO;
  for (const std::string_view folder : {"/dev/fd/", "/proc/self/fd/"}) {
    if (!path.starts_with(folder)) continue;
    int number = 0;
    const char* end = path.data() + path.size();
    const auto [rest, error] = std::from_chars(path.data() + folder.size(), end, number);
    if (error == std::errc{} && rest == end && number >= 0) return number;
  }
  return std::nullopt;
}

// Retries what a signal has interrupted.
template <class Call>
auto uninterrupted(Call call) {
  auto result = call();
  while (result == -1 && errno == EINTR) result = call();
  return result;
}

}  // namespace

OutputError::OutputError(const std::filesystem::path& path, int error_number)
    : OutsideFailure("cannot write '" + path.string() + "': " + std::generic_category().message(error_number)),
      path_(path) {}

// Deflate into the gzip format. zlib's own header has no time and no name: equal text gives equal bytes.
class OutputFile::Compressor {
 public:
  Compressor() {
    constexpr int gzip_window = 15 + 16;
    constexpr int memory_level = 9;
    const int status = deflateInit2(&stream_, Z_BEST_SPEED, Z_DEFLATED, gzip_window, memory_level, Z_DEFAULT_STRATEGY);
    if (status != Z_OK) throw std::bad_alloc{};
  }
  ~Compressor() { deflateEnd(&stream_); }
  Compressor(const Compressor&) = delete;
  Compressor& operator=(const Compressor&) = delete;

  // Hands compressed bytes to `put` as they come.
  template <class Put>
  void compress(std::string_view text, bool last, Put put) {
    do {
      const std::size_t part = std::min<std::size_t>(text.size(), std::numeric_limits<uInt>::max());
      stream_.next_in = reinterpret_cast<const Bytef*>(text.data());
      stream_.avail_in = static_cast<uInt>(part);
      text.remove_prefix(part);
      const int flush = last && text.empty() ? Z_FINISH : Z_NO_FLUSH;
      do {
        stream_.next_out = reinterpret_cast<Bytef*>(out_.data());
        stream_.avail_out = static_cast<uInt>(out_.size());
        const int status = deflate(&stream_, flush);
        sim::ensure(status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR, "deflate keeps its state");
        put(std::string_view(out_.data(), out_.size() - stream_.avail_out));
      } while (stream_.avail_out == 0);
    } while (!text.empty());
  }

 private:
  z_stream stream_{};
  std::array<char, std::size_t{1} << 16U> out_{};
};

OutputFile::OutputFile(const std::filesystem::path& path) : path_(path), target_(path), descriptor_(closed) {
  pending_.reserve(buffer_bytes);
  if (path.extension() == ".gz") compressor_ = std::make_unique<Compressor>();
  open();
}

void OutputFile::open() {
  if (const auto inherited = inherited_descriptor(path_.string())) return open_straight_through(*inherited);
  struct stat status {};
  if (stat(path_.c_str(), &status) != 0) {
    if (errno != ENOENT || !path_.has_filename()) throw OutputError(path_, errno);
    return open_temporary();
  }
  if (S_ISDIR(status.st_mode)) throw OutputError(path_, EISDIR);
  if (!S_ISREG(status.st_mode)) return open_straight_through(closed);
  // A rename replaces even what may not be written, and a link instead of what it leads to.
  if (faccessat(AT_FDCWD, path_.c_str(), W_OK, AT_EACCESS) != 0) throw OutputError(path_, errno);
  std::error_code error;
  target_ = std::filesystem::canonical(path_, error);
  if (error) throw OutputError(path_, error.value());
  open_temporary();
  if (fchmod(descriptor_, status.st_mode & 0777U) == 0) return;
  const int error_number = errno;
  discard();
  throw OutputError(path_, error_number);
}

OutputFile::~OutputFile() { discard(); }

void OutputFile::open_straight_through(int inherited) {
  descriptor_ = uninterrupted([&] {
    return inherited != closed ? fcntl(inherited, F_DUPFD_CLOEXEC, 0)
                               : ::open(path_.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY);
  });
  if (descriptor_ == closed) throw OutputError(path_, errno);
}

void OutputFile::open_temporary() {
  static std::atomic<unsigned> next{0};
  const std::string name = target_.filename().string().substr(0, longest_name);
  do {
    temporary_ = target_;
    temporary_.replace_filename("." + name + "." + std::to_string(getpid()) + "." + std::to_string(next++) + ".tmp");
    descriptor_ =
        uninterrupted([&] { return ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666); });
  } while (descriptor_ == closed && errno == EEXIST);
  if (descriptor_ != closed) return;
  temporary_.clear();
  throw OutputError(path_, errno);
}

void OutputFile::write(std::string_view text) {
  sim::ensure(descriptor_ != closed, "nothing is written after the commit");
  if (compressor_) return compress(text, false);
  if (pending_.size() + text.size() > buffer_bytes) flush();
  if (text.size() >= buffer_bytes) return put(text);
  pending_ += text;
}

void OutputFile::compress(std::string_view text, bool last) {
  compressor_->compress(text, last, [&](std::string_view bytes) {
    if (pending_.size() + bytes.size() > buffer_bytes) flush();
    pending_ += bytes;
  });
}

void OutputFile::flush() {
  put(pending_);
  pending_.clear();
}

void OutputFile::put(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = uninterrupted([&] { return ::write(descriptor_, bytes.data(), bytes.size()); });
    if (written < 0) throw OutputError(path_, errno);
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

void OutputFile::commit() {
  sim::ensure(descriptor_ != closed, "a file is committed once");
  if (compressor_) compress({}, true);
  flush();
  if (!temporary_.empty() && fsync(descriptor_) != 0) throw OutputError(path_, errno);
  const int descriptor = std::exchange(descriptor_, closed);
  if (close(descriptor) != 0 && errno != EINTR) throw OutputError(path_, errno);
  if (temporary_.empty()) return;
  if (rename(temporary_.c_str(), target_.c_str()) != 0) throw OutputError(path_, errno);
  temporary_.clear();
}

void OutputFile::discard() {
  if (descriptor_ != closed) close(std::exchange(descriptor_, closed));
  if (!temporary_.empty()) unlink(temporary_.c_str());
  temporary_.clear();
}

void write_file(const std::filesystem::path& path, std::string_view text) {
  OutputFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace trainyard::scenarios
